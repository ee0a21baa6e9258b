//! How many requests of one connection may be under way.
//!
//! Whoever asks does not say how large the answers will be, but answers tell: a connection may have
//! as many requests under way as answers of the size it has had lately fit a few megabytes. It
//! begins with a few and doubles at most with each answer. So a client that asks for large values
//! and never reads holds a few answers' worth of memory, and one with small values has the whole
//! configured bound.

/// Requests at first: enough for a pipeline as people write them.
const FIRST: usize = 16;
/// Requests at least: progress is made even with the largest answers.
const LEAST: usize = 4;
/// Bytes of answers that may be in the making for one connection.
const BYTES: usize = 4 << 20;

/// The bound of one connection, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    size: usize,
    most: usize,
    /// The size of the largest answer, fading with each smaller one.
    recent: usize,
}

impl Window {
    /// Begins small; grows up to `most`.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { size: FIRST.min(most), most, recent: 0 }
    }

    /// Requests that may be under way now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// An answer of so many bytes has been made.
    pub fn answered(&mut self, bytes: usize) {
        self.recent = bytes.max(self.recent - self.recent / 16);
        let fitting = BYTES / self.recent.max(1);
        let least = LEAST.min(self.most);
        self.size = fitting.min(self.size.saturating_mul(2)).clamp(least, self.most.max(least));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_answers_open_it_to_its_bound_and_large_ones_close_it() {
        let mut window = Window::new(512);
        for _ in 0..10 {
            window.answered(100);
        }
        assert_eq!(window.size(), 512);
        window.answered(256 << 10);
        assert_eq!(window.size(), 16);
        window.answered(64 << 20);
        assert_eq!(window.size(), LEAST);
        for _ in 0..1000 {
            window.answered(100);
        }
        assert_eq!(window.size(), 512, "what was large once is forgotten");
        let mut tiny = Window::new(2);
        tiny.answered(64 << 20);
        assert_eq!(tiny.size(), 2);
    }
}
