//! Timestamps that never run backwards: hybrid logical clocks (Kulkarni, Demirbas, Madappa, Avva
//! and Leone, "Logical Physical Clocks", 2014).
//!
//! A timestamp is the wall clock's milliseconds with a counter below them. It is greater than
//! every timestamp its node had seen before, so an overwriting write is always the newer one, and
//! it stays close to the wall clock, so people can read it. It decides last-write-wins and the
//! order in which values are shown; it never decides causality, which is the dots' to do.
//!
//! ```text
//!   63                                16 15             0
//!  +------------------------------------+----------------+
//!  |   wall: milliseconds since 1970    |    logical     |
//!  +------------------------------------+----------------+
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::WallMs;

/// How far ahead of the own wall clock another node's timestamp may be and still be believed:
/// 5 minutes. One node whose clock is a year ahead must not drag the whole cluster there.
pub const MAX_SKEW_MS: u64 = 5 * 60 * 1000;

const LOGICAL_BITS: u32 = 16;
/// The last millisecond that fits 48 bits, in the year 10889.
const WALL_MAX: u64 = u64::MAX >> LOGICAL_BITS;

/// A hybrid timestamp: 48 bits of wall clock milliseconds, then 16 bits of counter. Zero is
/// before every timestamp a clock gives.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The timestamp's milliseconds.
    #[must_use]
    pub fn wall(&self) -> WallMs {
        WallMs(self.0 >> LOGICAL_BITS)
    }

    /// Tells timestamps of one millisecond apart.
    #[must_use]
    pub fn logical(&self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:05}", self.wall().0, self.logical())
    }
}

/// Gives a node's timestamps.
///
/// When the wall clock jumps back, or more than 65,536 timestamps are asked for in a millisecond,
/// the clock counts on from its last timestamp, carrying from the counter into the milliseconds,
/// until the wall clock has caught up. When it jumps ahead, the timestamps jump with it and stay
/// there. A new clock begins with the wall clock: whoever restarts shows it the greatest
/// timestamp he has stored (`observe`) if timestamps must not repeat.
#[derive(Clone, Debug, Default)]
pub struct HybridClock {
    last: Hlc,
}

impl HybridClock {
    /// A clock that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A timestamp greater than every one this clock has given or accepted.
    pub fn tick(&mut self, wall: WallMs) -> Hlc {
        let physical = wall.0.min(WALL_MAX) << LOGICAL_BITS;
        // Saturates in the year 10889.
        self.last = Hlc(physical.max(self.last.0.saturating_add(1)));
        self.last
    }

    /// Takes note of another node's timestamp. True when every later [`HybridClock::tick`] is
    /// greater than `remote`.
    ///
    /// False, and nothing changed, when `remote` is more than [`MAX_SKEW_MS`] ahead of `wall` and
    /// of all this clock has given: then a later tick may be the smaller one, and a write that
    /// overwrites `remote` takes the timestamp behind `remote` instead, without this clock's
    /// following it (see [`super::Object::keep_latest`]).
    pub fn observe(&mut self, remote: Hlc, wall: WallMs) -> bool {
        if remote <= self.last {
            return true;
        }
        if remote.wall().0 > wall.0.saturating_add(MAX_SKEW_MS) {
            return false;
        }
        self.last = remote;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn a_timestamp_shows_its_two_parts() {
        let hlc = Hlc((1234 << 16) | 7);
        assert_eq!((hlc.wall(), hlc.logical()), (WallMs(1234), 7));
        assert_eq!(hlc.to_string(), "1234.00007");
    }

    #[test]
    fn ticks_increase_while_the_wall_clock_stands_jumps_back_or_ahead() {
        let mut clock = HybridClock::new();
        let mut last = Hlc::default();
        for wall in [0, 0, 5, 5, 4, 0, 1000, 999, 3_600_000, 1, u64::MAX >> 17, 2] {
            let hlc = clock.tick(WallMs(wall));
            assert!(hlc > last, "{hlc} after {last} at {wall}");
            assert!(hlc.wall().0 >= wall);
            last = hlc;
        }
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut clock = HybridClock::new();
        assert!(clock.observe(Hlc((10 << 16) | 0xffff), WallMs(10)));
        assert_eq!(clock.tick(WallMs(10)), Hlc(11 << 16));
    }

    #[test]
    fn a_timestamp_that_was_observed_is_passed() {
        let mut clock = HybridClock::new();
        let remote = Hlc((5 * MINUTE) << 16);
        assert!(clock.observe(remote, WallMs(0)));
        assert!(clock.tick(WallMs(0)) > remote);
    }

    #[test]
    fn a_timestamp_too_far_ahead_is_refused_and_changes_nothing() {
        let mut clock = HybridClock::new();
        assert!(!clock.observe(Hlc((5 * MINUTE + 1) << 16), WallMs(0)));
        assert!(!clock.observe(Hlc(u64::MAX), WallMs(7)));
        assert_eq!(clock.tick(WallMs(7)), Hlc(7 << 16));
    }

    #[test]
    fn after_a_jump_back_the_clock_still_believes_its_own_timestamps() {
        let mut clock = HybridClock::new();
        let before = clock.tick(WallMs(60 * MINUTE));
        assert!(clock.observe(before, WallMs(0)));
        assert!(clock.tick(WallMs(0)) > before);
    }

    #[test]
    fn absurd_walls_do_not_overflow() {
        let mut clock = HybridClock::new();
        assert_eq!(clock.tick(WallMs(u64::MAX)).wall(), WallMs(WALL_MAX));
        assert!(clock.observe(Hlc(u64::MAX), WallMs(u64::MAX)));
        assert_eq!(clock.tick(WallMs(u64::MAX)), Hlc(u64::MAX));
    }
}
