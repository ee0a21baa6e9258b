//! The one place that reads clocks for the state machines.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now, WallMs};

/// The clocks of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: std::time::Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { began: std::time::Instant::now() }
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = WallMs(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
        Now { instant: self.instant(), wall }
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
