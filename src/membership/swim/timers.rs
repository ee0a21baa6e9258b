//! The one ordered queue of everything that is to happen later.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

/// Ordered by time, then by the order in which they were set. Nothing is ever taken out but by
/// being due: whoever set a timer recognises a stale one.
#[derive(Debug)]
pub(super) struct Timers<T> {
    queue: BTreeMap<(Instant, u64), T>,
    sequence: u64,
}

impl<T> Timers<T> {
    pub(super) fn new() -> Self {
        Self { queue: BTreeMap::new(), sequence: 0 }
    }

    pub(super) fn set(&mut self, at: Instant, timer: T) {
        self.queue.insert((at, self.sequence), timer);
        self.sequence += 1;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_first().map(|(_, timer)| timer)
    }

    /// Puts everything off: the time until now does not count.
    pub(super) fn postpone(&mut self, by: Duration) {
        let queue = std::mem::take(&mut self.queue);
        self.queue =
            queue.into_iter().map(|((at, sequence), timer)| ((at + by, sequence), timer)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_by_time_then_in_the_order_in_which_they_were_set() {
        let mut timers = Timers::new();
        for (at, name) in [(5, "c"), (3, "a"), (5, "d"), (3, "b"), (9, "e")] {
            timers.set(Instant(at), name);
        }
        let due: Vec<_> = std::iter::from_fn(|| timers.take_due(Instant(5))).collect();
        assert_eq!(due, ["a", "b", "c", "d"]);
        assert_eq!(timers.next(), Some(Instant(9)));
        timers.postpone(Duration::from_micros(2));
        assert_eq!(timers.take_due(Instant(10)), None);
        assert_eq!(timers.take_due(Instant(11)), Some("e"));
    }
}
