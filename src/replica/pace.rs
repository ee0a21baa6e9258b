//! How fast data may move: a rate in bytes a second that yields to clients.
//!
//! Background work runs under an admission controller with feedback from the latencies of
//! foreground requests (the Dynamo paper, section 6.5). The feedback is a recent 99th percentile,
//! once a second, compared with what it comes down to when nothing is the matter:
//!
//! ```text
//!   p99 below 1.5 times the usual     an eighth of the full rate faster each second
//!   in between                        as it is
//!   above twice the usual             half as fast, down to a trickle
//! ```
//!
//! It never stops: a move that can be starved holds up the operator who waits for it.

use std::time::Duration;

use crate::time::Instant;

/// What is left of the rate under the greatest strain, in bytes a second.
const TRICKLE: u64 = 64 * 1024;
/// A percentile below this is no strain, whatever clients are used to.
const NEVER_BELOW_MICROS: u64 = 5_000;

/// A rate, and when the next piece may move.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    most: u64,
    rate: u64,
    /// The percentile clients are used to, in microseconds; 0 until one was seen.
    usual: u64,
    free_at: Instant,
}

impl Pace {
    /// At most `most` bytes a second.
    pub(crate) fn new(most: u64) -> Self {
        let most = most.max(TRICKLE);
        Self { most, rate: most, usual: 0, free_at: Instant(0) }
    }

    /// Bytes a second now.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// Once a second: the recent 99th percentile of foreground requests, zero if there were none.
    pub(crate) fn observe(&mut self, p99: Duration) {
        let micros = u64::try_from(p99.as_micros()).unwrap_or(u64::MAX);
        if micros > 0 {
            // Down at once, up by a thousandth a second: minutes under load do not become usual.
            let risen = self.usual + (self.usual / 1024).max(1);
            self.usual = if self.usual == 0 { micros } else { micros.min(risen) };
        }
        if micros > NEVER_BELOW_MICROS && micros > 2 * self.usual {
            self.rate = (self.rate / 2).max(TRICKLE);
        } else if micros <= NEVER_BELOW_MICROS || micros <= self.usual + self.usual / 2 {
            self.rate = (self.rate + self.most / 8).min(self.most);
        }
    }

    /// When the next piece may move.
    pub(crate) fn free_at(&self) -> Instant {
        self.free_at
    }

    /// A piece of so many bytes has moved. Returns how long the next one should wait.
    pub(crate) fn take(&mut self, now: Instant, bytes: usize) -> Duration {
        let micros = bytes as u64 * 1_000_000 / self.rate;
        self.free_at = self.free_at.max(now) + Duration::from_micros(micros);
        self.free_at - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = 64 << 20;

    fn observe(pace: &mut Pace, seconds: u32, millis: u64) {
        for _ in 0..seconds {
            pace.observe(Duration::from_millis(millis));
        }
    }

    #[test]
    fn it_is_fast_while_clients_are_quick_and_a_trickle_while_they_wait_twice_as_long() {
        let mut pace = Pace::new(FULL);
        observe(&mut pace, 60, 10);
        assert_eq!(pace.rate(), FULL);
        observe(&mut pace, 1, 25);
        assert_eq!(pace.rate(), FULL / 2);
        observe(&mut pace, 1, 18);
        assert_eq!(pace.rate(), FULL / 2, "in between it stays");
        observe(&mut pace, 30, 40);
        assert_eq!(pace.rate(), TRICKLE, "and never stops");
        observe(&mut pace, 10, 10);
        assert_eq!(pace.rate(), FULL);
    }

    #[test]
    fn minutes_under_load_do_not_become_usual_and_microseconds_are_no_strain() {
        let mut pace = Pace::new(FULL);
        observe(&mut pace, 10, 10);
        observe(&mut pace, 120, 40);
        assert_eq!(pace.rate(), TRICKLE);
        let mut pace = Pace::new(FULL);
        pace.observe(Duration::from_micros(100));
        observe(&mut pace, 10, 4);
        assert_eq!(pace.rate(), FULL);
        observe(&mut pace, 10, 0);
        assert_eq!(pace.rate(), FULL, "nobody waits where nobody asks");
    }

    #[test]
    fn pieces_are_spaced_by_their_bytes() {
        let mut pace = Pace::new(1 << 20);
        assert_eq!(pace.take(Instant(0), 1 << 19), Duration::from_millis(500));
        assert_eq!(pace.take(Instant(0), 1 << 19), Duration::from_secs(1));
        assert_eq!(pace.free_at(), Instant(1_000_000));
        assert_eq!(pace.take(Instant(5_000_000), 0), Duration::ZERO, "rest is not saved up");
    }
}
