//! Waiting as finely as the kernel can.
//!
//! The runtime's timers count whole milliseconds and are rounded up twice on their way to the kernel: a
//! wait of one takes up to three. Where the kernel has timers that are files (Linux), one of those is
//! waited for instead.

use std::time::Instant;

#[cfg(target_os = "linux")]
mod timer {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A timer that is a file.
    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        // It is deprecated for types that may give away or replace their file, which this one cannot;
        // what stands in its place is `unsafe` for the same reason.
        #[expect(deprecated)]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
        }

        pub(super) async fn wait(&self, span: Duration) -> io::Result<()> {
            // Nothing would be "never".
            let it_value = Timespec::try_from(span.max(Duration::from_nanos(1)))
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec { it_interval, it_value };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            loop {
                let mut ready = self.0.readable().await?;
                let rung = ready
                    .try_io(|file| Ok(rustix::io::read(file.get_ref(), &mut [0_u8; 8]).map(drop)?));
                if let Ok(result) = rung {
                    return result;
                }
            }
        }
    }
}

/// Waits for one time after another.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<timer::Timer>,
}

impl Alarm {
    /// Must be called in a runtime.
    pub(super) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            timer: timer::Timer::new().ok(),
        }
    }

    /// Returns at `at`, a tenth of a millisecond later at most unless the processor is busy; where
    /// there is no such timer, up to two milliseconds later.
    pub(super) async fn wait_until(&self, at: Instant) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer
            && timer.wait(at.saturating_duration_since(Instant::now())).await.is_ok()
        {
            return;
        }
        tokio::time::sleep_until(at.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn waits_take_as_long_as_they_are_and_not_whole_milliseconds() {
        let alarm = Alarm::new();
        let span = Duration::from_micros(200);
        let mut took = Vec::new();
        for _ in 0..101 {
            let began = Instant::now();
            alarm.wait_until(began + span).await;
            took.push(began.elapsed());
        }
        took.sort();
        assert!(took[0] >= span, "{took:?}");
        if cfg!(target_os = "linux") {
            assert!(took[50] < Duration::from_millis(1), "{took:?}");
        }
    }

    #[tokio::test]
    async fn what_is_past_is_not_waited_for() {
        let alarm = Alarm::new();
        tokio::time::timeout(Duration::from_secs(10), alarm.wait_until(Instant::now()))
            .await
            .expect("it rings");
    }
}
