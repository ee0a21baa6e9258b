//! When a request was sent, by the clock of whoever receives it.
//!
//! A request may lie in a socket, a router or a frozen process for longer than its sender waits.
//! By then the sender has asked somebody else, and what was written since must not be written over
//! by what comes late: so a budget has to begin when the request was sent, not when it was read.
//! The receiver cannot see that by itself, and wall clocks may be an hour apart. But a node says what
//! its monotonic clock shows, in WELCOME and in each PONG; whoever hears it knows that it shows **at least**
//! that from then on, and names the time of sending in those terms.
//!
//! ```text
//!   node     ──── clock 700 ────┬──────── 700 + 40 + 25 ─────► says 740: 25 old, and was 10 on its way
//!                      WELCOME  ╲                       ╱ sent 740
//!   client   ────────────────────┴───── 40 later ──────┴─────
//!                              "at least 700"
//! ```
//!
//! What always holds, between clocks that run equally fast: a request is taken to be as old as it
//! is or older, by at most what the last WELCOME or PONG was on its way. Clocks drift apart by less than
//! 0.1 %, so a side that asks every few seconds ([`ASK_EVERY`]) stays within milliseconds. Where a machine
//! was frozen and its clock with it, later requests come from the future, which ends the connection
//! ([`sent_at`]), or look older than they are, until the next PONG; those that were sent before it was
//! frozen, or in the first 100 ms, look young, and are begun.

use std::time::Duration;

use crate::time::Instant;

/// How often to ask what the other clock shows.
pub const ASK_EVERY: Duration = Duration::from_secs(5);
/// How far in the future a request may have been sent: clocks have drifted, not stood still.
const AHEAD_MOST: Duration = Duration::from_millis(100);
/// A request that looks older than this may look so only because the last PONG was late: its sender is
/// told the time again.
pub const TELL_AGAIN: Duration = Duration::from_millis(250);

/// What is known of the clock at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct FarClock {
    /// What it is ahead of this side's clock by, in microseconds, or a little more than that.
    ahead: i64,
    /// Questions asked so far; the number of one is its id.
    asked: u64,
    /// When the last one was.
    asked_at: Instant,
}

impl FarClock {
    /// The other side has said, in its WELCOME, that its clock showed `far`; it was read at `now`.
    #[must_use]
    pub fn new(far: Instant, now: Instant) -> Self {
        Self { ahead: ahead(far, now), asked: 0, asked_at: now }
    }

    /// Whether it is time to ask again.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.asked == 0 || now - self.asked_at >= ASK_EVERY
    }

    /// A PING is sent; returns the id that it is to have.
    pub fn ask(&mut self, now: Instant) -> u64 {
        self.asked += 1;
        self.asked_at = now;
        self.asked
    }

    /// A PONG with this id has arrived, and says `far`.
    pub fn hear(&mut self, id: u64, far: Instant, now: Instant) {
        let least = ahead(far, now);
        // It was written after the question, so the clock was no further ahead than that.
        let most = if id == self.asked { ahead(far, self.asked_at) } else { i64::MAX };
        if !(least..=most).contains(&self.ahead) {
            self.ahead = least;
        }
    }

    /// What the other clock shows now, at least.
    #[must_use]
    pub fn at(&self, now: Instant) -> Instant {
        Instant(now.0.saturating_add_signed(self.ahead))
    }
}

/// By how much one clock is ahead of another.
fn ahead(far: Instant, near: Instant) -> i64 {
    i64::try_from(i128::from(far.0) - i128::from(near.0)).unwrap_or(0)
}

/// When a request was sent that arrives `now` and says `stated`.
///
/// `None` where that lies in the future: the sender goes by a clock that is not this one any more, and
/// has to greet again.
#[must_use]
pub fn sent_at(stated: Instant, now: Instant) -> Option<Instant> {
    (stated <= now + AHEAD_MOST).then_some(stated.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    /// This side's clock shows `near` where the other one's shows 1,000 s more.
    fn far(near: u64) -> Instant {
        Instant(near + 1_000_000_000)
    }

    #[test]
    fn a_request_is_never_taken_to_be_younger_than_it_is() {
        // WELCOME was 30 ms on its way.
        let mut clock = FarClock::new(far(0), Instant(30 * MS));
        assert_eq!(clock.at(Instant(50 * MS)), far(20 * MS));
        // A PONG that was faster tells more.
        let id = clock.ask(Instant(60 * MS));
        clock.hear(id, far(65 * MS), Instant(66 * MS));
        assert_eq!(clock.at(Instant(100 * MS)), far(99 * MS));
        // One that was slower tells nothing new.
        let id = clock.ask(Instant(200 * MS));
        clock.hear(id, far(201 * MS), Instant(900 * MS));
        assert_eq!(clock.at(Instant(1_000 * MS)), far(999 * MS));
    }

    #[test]
    fn where_a_clock_stood_still_the_next_answer_says_so() {
        let mut clock = FarClock::new(far(0), Instant(0));
        // The other one stood still for 10 s.
        let late = |near: u64| Instant(far(near).0 - 10_000 * MS);
        assert_eq!(sent_at(clock.at(Instant(20_000 * MS)), late(20_000 * MS)), None);
        let id = clock.ask(Instant(20_000 * MS));
        clock.hear(id, late(20_001 * MS), Instant(20_002 * MS));
        assert_eq!(clock.at(Instant(21_000 * MS)), late(20_999 * MS));
        // This one did; nobody has to ask.
        let early = |near: u64| Instant(late(near).0 + 3_000 * MS);
        clock.hear(0, early(30_000 * MS), Instant(30_000 * MS));
        assert_eq!(clock.at(Instant(30_000 * MS)), early(30_000 * MS));
    }

    #[test]
    fn an_old_answer_is_no_upper_bound_for_a_clock_that_was_asked_again() {
        let mut clock = FarClock::new(far(0), Instant(0));
        let first = clock.ask(Instant(10 * MS));
        clock.ask(Instant(5_000 * MS));
        clock.hear(first, far(20 * MS), Instant(5_010 * MS));
        assert_eq!(clock.at(Instant(6_000 * MS)), far(6_000 * MS));
    }

    #[test]
    fn it_asks_at_first_and_then_every_few_seconds() {
        let mut clock = FarClock::new(far(0), Instant(0));
        assert!(clock.is_due(Instant(0)));
        clock.ask(Instant(0));
        assert!(!clock.is_due(Instant(0) + ASK_EVERY / 2) && clock.is_due(Instant(0) + ASK_EVERY));
    }

    #[test]
    fn nothing_was_sent_after_it_came_and_what_says_so_by_far_is_not_believed() {
        let now = Instant(1_000 * MS);
        assert_eq!(sent_at(Instant(400 * MS), now), Some(Instant(400 * MS)));
        assert_eq!(sent_at(now + AHEAD_MOST, now), Some(now));
        assert_eq!(sent_at(now + AHEAD_MOST * 2, now), None);
    }
}
