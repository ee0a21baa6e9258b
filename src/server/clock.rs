//! The one place that reads clocks for the state machines.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now, WallMs};

/// The clocks of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: std::time::Instant,
    /// Milliseconds that the wall clock is put ahead, by a fault that is injected; else 0. Shared by
    /// all copies. One of these is leaked for each start of a node, of which a process has one.
    ahead_ms: &'static AtomicI64,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn start() -> Self {
        let ahead_ms = Box::leak(Box::new(AtomicI64::new(0)));
        Self { began: std::time::Instant::now(), ahead_ms }
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let wall = WallMs(wall.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)));
        Now { instant: self.instant(), wall }
    }

    /// Puts the wall clock ahead by so many milliseconds of what the operating system says.
    pub fn go_ahead(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    /// The monotonic clock.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The operating system's name for one of our instants.
    #[must_use]
    pub fn std(&self, instant: Instant) -> std::time::Instant {
        self.began + (instant - Instant(0))
    }
}
