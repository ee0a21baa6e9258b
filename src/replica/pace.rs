//! How fast data may move: a rate in bytes a second that yields to clients.
//!
//! Background work runs under an admission controller with feedback from the latencies of
//! foreground requests (the Dynamo paper, section 6.5). The feedback is the recent 99th percentile.
//! Once a second the rate is multiplied by how far that is from the goal, 1.25 times what clients
//! are used to:
//!
//! ```text
//!                      goal            between a half (they wait too long)
//!   rate  :=  rate  ×  ────            and 11/10 (they do not notice)
//!                      seen
//! ```
//!
//! It begins with the least rate, as a rule a sixty-fourth of the full one, for strain takes seconds to be seen, and never
//! comes below that: a move that can be starved holds up the operator who waits for it, and where
//! something else keeps clients waiting it does not help them.
//!
//! What clients are used to is what they see in quiet seconds. That it is less than was thought is
//! believed within some seconds, that it is more within minutes, and hardly while something moves:
//! a merge of files keeps clients waiting for half a minute, and a bulk load, behind which members
//! often join, for many; neither must become usual, nor what a move does to them.
//!
//! A piece is what moves in a 128th of a second. Where pieces stay large while the rate falls, each is
//! felt as before, only less often: with 256 KiB at 1 MiB a second the 99th percentile was still 1.7
//! times the usual one.

use std::time::Duration;

use crate::time::Instant;

/// What is left of the full rate under the greatest strain.
const LEAST: u64 = 64;
/// Pieces a second, at any rate between the bounds of a piece.
const PIECES: u64 = 128;
/// The smallest piece: below it is mostly round trips.
const SMALLEST: u64 = 16 << 10;
/// How fast the rate grows each second: strain is seen seconds after it began.
const GROWTH: f64 = 1.1;
/// The goal, in units of what clients are used to.
const GOAL: f64 = 1.25;
/// A goal below this is none, whatever clients are used to.
const NEVER_BELOW_MICROS: u64 = 2_000;
/// How much of a second's percentile is believed: a single slow answer moves it by a fifth.
const RECENT: f64 = 1.0 / 4.0;
/// How much of what is less than usual is believed, each second.
const LEARNT_LESS: f64 = 1.0 / 16.0;
/// By how much of itself what is usual grows at most, each second: at rest, and while something moves.
const LEARNT_MORE: f64 = 1.0 / 256.0;
const LEARNT_MORE_MOVING: f64 = 1.0 / 4096.0;

/// A rate, and when the next piece may move.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    most: u64,
    least: u64,
    rate: u64,
    /// The recent percentile, and the one clients are used to, in microseconds; 0 until one was
    /// seen.
    recent: f64,
    usual: f64,
    free_at: Instant,
}

impl Pace {
    /// At most `most` bytes a second, and at least a 64th of it.
    pub(crate) fn new(most: u64) -> Self {
        Self::between(most / LEAST, most)
    }

    /// At least and at most so many bytes a second.
    pub(crate) fn between(least: u64, most: u64) -> Self {
        let least = least.max(1);
        let most = most.max(least);
        Self { most, least, rate: least, recent: 0.0, usual: 0.0, free_at: Instant(0) }
    }

    /// Bytes a second now.
    pub(crate) fn rate(&self) -> u64 {
        self.rate
    }

    /// Once a second: the recent 99th percentile of foreground requests, zero if there were none,
    /// and whether anything moves.
    pub(crate) fn observe(&mut self, p99: Duration, is_moving: bool) {
        let micros = p99.as_secs_f64() * 1e6;
        if micros > 0.0 {
            if self.usual == 0.0 {
                (self.recent, self.usual) = (micros, micros);
            }
            self.recent += (micros - self.recent) * RECENT;
            let more = if is_moving { LEARNT_MORE_MOVING } else { LEARNT_MORE };
            self.usual += match self.recent < self.usual {
                true => (self.recent - self.usual) * LEARNT_LESS,
                false => (self.recent - self.usual).min(self.usual * more),
            };
        }
        if !is_moving {
            self.rate = self.least;
            return;
        }
        let goal = (GOAL * self.usual).max(NEVER_BELOW_MICROS as f64);
        let room = if micros > 0.0 { goal / self.recent.max(1.0) } else { GROWTH };
        let rate = (self.rate as f64 * room.clamp(0.5, GROWTH)) as u64;
        self.rate = rate.clamp(self.least, self.most);
    }

    /// Bytes that should move at once, at most `most`.
    pub(crate) fn piece(&self, most: u32) -> u32 {
        (self.rate / PIECES).clamp(SMALLEST, u64::from(most).max(SMALLEST)) as u32
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

    fn observe(pace: &mut Pace, seconds: u32, millis: u64, is_moving: bool) {
        for _ in 0..seconds {
            pace.observe(Duration::from_millis(millis), is_moving);
        }
    }

    #[test]
    fn it_is_fast_while_clients_are_quick_and_slow_while_they_wait_twice_as_long() {
        let mut pace = Pace::new(FULL);
        observe(&mut pace, 60, 10, false);
        assert_eq!(pace.rate(), FULL / LEAST, "it begins slowly");
        observe(&mut pace, 60, 10, true);
        assert_eq!(pace.rate(), FULL);
        observe(&mut pace, 60, 20, true);
        assert_eq!(pace.rate(), FULL / LEAST, "and never stops");
        observe(&mut pace, 60, 10, true);
        assert_eq!(pace.rate(), FULL);
    }

    #[test]
    fn it_settles_where_clients_wait_a_quarter_longer() {
        let mut pace = Pace::new(FULL);
        observe(&mut pace, 60, 10, false);
        // Clients wait a millisecond longer for each MiB a second.
        for _ in 0..100 {
            pace.observe(Duration::from_micros(10_000 + (pace.rate() >> 20) * 1000), true);
        }
        let rate = pace.rate() as f64 / f64::from(1 << 20);
        assert!((2.0..3.5).contains(&rate), "{rate}");
    }

    #[test]
    fn minutes_under_a_move_do_not_become_usual_and_microseconds_are_no_strain() {
        let mut pace = Pace::new(FULL);
        observe(&mut pace, 60, 10, false);
        observe(&mut pace, 120, 40, true);
        assert_eq!(pace.rate(), FULL / LEAST);
        let mut pace = Pace::new(FULL);
        pace.observe(Duration::from_micros(100), false);
        for _ in 0..60 {
            pace.observe(Duration::from_micros(1_500), true);
        }
        assert_eq!(pace.rate(), FULL);
        observe(&mut pace, 10, 0, true);
        assert_eq!(pace.rate(), FULL, "nobody waits where nobody asks");
    }

    #[test]
    fn half_a_minute_of_merging_files_does_not_become_usual() {
        let mut pace = Pace::new(FULL);
        observe(&mut pace, 300, 3, false);
        observe(&mut pace, 30, 15, false);
        observe(&mut pace, 60, 3, true);
        assert_eq!(pace.rate(), FULL);
        observe(&mut pace, 30, 15, false);
        observe(&mut pace, 60, 6, true);
        assert_eq!(pace.rate(), FULL / LEAST, "6 ms are twice what was usual before");
    }

    #[test]
    fn a_bulk_load_does_not_become_usual_and_another_load_does() {
        let mut pace = Pace::new(FULL);
        observe(&mut pace, 600, 15, false);
        observe(&mut pace, 60, 3, false);
        observe(&mut pace, 60, 6, true);
        assert_eq!(pace.rate(), FULL / LEAST, "6 ms are twice what is usual after the load");
        observe(&mut pace, 300, 6, false);
        observe(&mut pace, 60, 6, true);
        assert_eq!(pace.rate(), FULL, "for five minutes it has been 6 ms");
    }

    #[test]
    fn pieces_are_small_where_little_may_move() {
        let mut pace = Pace::new(FULL);
        assert_eq!(pace.piece(256 << 10), 16 << 10);
        observe(&mut pace, 60, 10, true);
        assert_eq!((pace.piece(256 << 10), pace.piece(1 << 20)), (256 << 10, 512 << 10));
    }

    #[test]
    fn pieces_are_spaced_by_their_bytes() {
        let mut pace = Pace::new(32 << 20);
        assert_eq!(pace.rate(), 1 << 19);
        assert_eq!(pace.take(Instant(0), 1 << 18), Duration::from_millis(500));
        assert_eq!(pace.take(Instant(0), 1 << 18), Duration::from_secs(1));
        assert_eq!(pace.free_at(), Instant(1_000_000));
        assert_eq!(pace.take(Instant(5_000_000), 0), Duration::ZERO, "rest is not saved up");
    }
}
