//! How many requests of one connection may be under way.
//!
//! Whoever asks does not say how large the answers will be. So a connection begins with a few
//! requests at a time; while its answers leave as fast as they are made that doubles, up to the
//! configured bound; and when answers pile up it halves. A client that never reads holds a few
//! answers' worth of memory, whatever it asks for, and one that reads soon has the whole bound.

/// Requests at first: enough for a pipeline as people write them.
const FIRST: usize = 16;
/// Requests at least: progress is made even with the largest answers.
const LEAST: usize = 4;

/// The bound of one connection, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    size: usize,
    most: usize,
}

impl Window {
    /// Begins small; grows up to `most`.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { size: FIRST.min(most), most }
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// All answers have left.
    pub fn grow(&mut self) {
        self.size = (self.size.saturating_mul(2)).min(self.most);
    }

    /// Answers pile up.
    pub fn shrink(&mut self) {
        self.size = (self.size / 2).max(LEAST.min(self.most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_bound_shrinks_to_its_least_and_recovers() {
        let mut window = Window::new(100);
        for _ in 0..10 {
            window.grow();
        }
        assert_eq!(window.size(), 100);
        for _ in 0..10 {
            window.shrink();
        }
        assert_eq!(window.size(), LEAST);
        window.grow();
        assert_eq!(window.size(), 2 * LEAST);
        let mut tiny = Window::new(2);
        tiny.shrink();
        assert_eq!(tiny.size(), 2);
    }
}
