//! Whether the process stood still (SIGSTOP, a frozen machine), and what a connection brought meanwhile.
//!
//! In the framed protocol a request says when it was sent ([`clock`](crate::wire::clock)). A command in the
//! text protocol cannot. But where this process stood still, what its sockets hold when it goes on may have
//! come at any time since: a client may have given up long ago and written elsewhere. (More than a socket
//! holds waits at the client, and is new to this node.)
//!
//! A task notes the time twenty times a second. Where a note is late, nothing ran; that also shows to
//! whoever looks before the task itself has run again. What a connection reads first after such a gap
//! may be as old as that, until a read has emptied its socket.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::server::clock::Clock;
use crate::time::Instant;

/// How often the time is noted.
const BEAT: Duration = Duration::from_millis(50);
/// A note that is later than this was held up by more than a busy machine.
const LATE: Duration = Duration::from_millis(500);
/// What is read, and a connection that is accepted, so soon after a gap may have been waiting in the kernel
/// through it.
const SOON: Duration = Duration::from_secs(1);

/// The last time that the process is known to have run, and when it did not.
pub(super) struct Pulse {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    beat: Instant,
    gap: Gap,
}

/// A time in which the process stood still.
#[derive(Clone, Copy, Debug, Default)]
struct Gap {
    /// How many there have been, this one included.
    number: u64,
    since: Instant,
    until: Instant,
}

impl State {
    /// The last gap, as of now.
    fn gap_at(&self, now: Instant) -> Gap {
        match now - self.beat >= LATE {
            true => Gap { number: self.gap.number + 1, since: self.beat, until: now },
            false => self.gap,
        }
    }

    fn note(&mut self, now: Instant) {
        (self.gap, self.beat) = (self.gap_at(now), self.beat.max(now));
    }
}

impl Pulse {
    /// Notes the time from now on, until nobody looks any more.
    pub(super) fn start(clock: Clock) -> Arc<Self> {
        let state = Mutex::new(State { beat: clock.instant(), gap: Gap::default() });
        let this = Arc::new(Self { clock, state });
        let looked_at = Arc::downgrade(&this);
        tokio::spawn(async move {
            while let Some(pulse) = looked_at.upgrade() {
                pulse.state().note(pulse.clock.instant());
                drop(pulse);
                tokio::time::sleep(BEAT).await;
            }
        });
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

/// What one connection knows of it.
pub(super) struct Listener {
    pulse: Arc<Pulse>,
    /// The last gap of which nothing is left in its socket.
    seen: u64,
}

impl Listener {
    /// Of a connection that is accepted now.
    pub(super) fn new(pulse: &Arc<Pulse>) -> Self {
        let now = pulse.clock.instant();
        Self { pulse: pulse.clone(), seen: seen_at(pulse.state().gap_at(now), now) }
    }

    /// For how long the process stood still while what was read now may have waited. `is_all` says that the
    /// read has left nothing in the socket.
    pub(super) fn waited(&mut self, is_all: bool) -> Duration {
        let now = self.pulse.clock.instant();
        let gap = self.pulse.state().gap_at(now);
        waited(&mut self.seen, gap, now, is_all)
    }
}

/// The last gap that a connection which is accepted now was not there for.
fn seen_at(gap: Gap, now: Instant) -> u64 {
    match now - gap.until < SOON {
        true => gap.number.saturating_sub(1),
        false => gap.number,
    }
}

fn waited(seen: &mut u64, gap: Gap, now: Instant, is_all: bool) -> Duration {
    if *seen >= gap.number {
        return Duration::ZERO;
    }
    // What was there is read by then, unless nothing was.
    if now - gap.until >= SOON {
        *seen = gap.number;
        return Duration::ZERO;
    }
    if is_all {
        *seen = gap.number;
    }
    gap.until - gap.since
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * SECOND)
    }

    /// It ran until 10, and from 15 on.
    fn stopped() -> State {
        let mut state = State { beat: at(10), gap: Gap::default() };
        state.note(at(10) + BEAT);
        assert_eq!(state.gap.number, 0, "it is only a little late");
        State { beat: at(10), ..state }
    }

    #[test]
    fn what_is_read_first_after_a_gap_is_as_old_as_that() {
        for is_noted in [false, true] {
            let mut state = stopped();
            let mut seen = 0;
            if is_noted {
                state.note(at(15));
            }
            // More is left in the socket.
            let five = Duration::from_secs(5);
            assert_eq!(waited(&mut seen, state.gap_at(at(15)), at(15), false), five);
            assert_eq!(waited(&mut seen, state.gap_at(at(15)), at(15), true), five);
            state.note(at(15));
            state.note(at(15) + BEAT);
            let now = at(15) + BEAT;
            assert_eq!(waited(&mut seen, state.gap_at(now), now, true), Duration::ZERO);
        }
    }

    #[test]
    fn a_connection_that_was_quiet_through_the_gap_owes_nothing_later() {
        let mut state = stopped();
        state.note(at(15));
        let mut seen = 0;
        assert_eq!(waited(&mut seen, state.gap, at(3600), true), Duration::ZERO);
        // One that sends without end neither.
        let mut seen = 0;
        let five = Duration::from_secs(5);
        assert_eq!(waited(&mut seen, state.gap, at(15) + BEAT, false), five);
        assert_eq!(waited(&mut seen, state.gap, at(16), false), Duration::ZERO);
    }

    #[test]
    fn a_connection_that_comes_at_once_may_have_waited_and_a_later_one_has_not() {
        let state = stopped();
        let gap = state.gap_at(at(15));
        assert_eq!((seen_at(gap, at(15)), seen_at(gap, at(17))), (0, 1));
        assert_eq!(seen_at(Gap::default(), at(15)), 0);
    }
}
