//! When each request of an open loop is due, whatever became of those before.
//!
//! ```text
//!   rate │        ┌───────────────┬───────────────────────────────
//!        │      ╱ │               │
//!        │    ╱   │               │
//!        │  ╱     │               │
//!        └────────┴───────────────┴───────────────────────────────▶ time
//!           ramp       warm-up               measured
//! ```
//!
//! What always holds: arrival i is due at one time, in every process that shares the run.

use std::time::Duration;

/// The arrivals of a run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Arrivals a second, once the ramp is over; above 0.
    pub rate: f64,
    /// Time in which the rate grows from nothing.
    pub ramp: Duration,
    /// Time at the full rate before measuring begins.
    pub warmup: Duration,
    /// Time that is measured.
    pub measured: Duration,
}

impl Schedule {
    /// When arrival `number` is due, from the beginning of the run.
    #[must_use]
    pub fn due(&self, number: u64) -> Duration {
        let (number, ramp) = (number as f64, self.ramp.as_secs_f64());
        // So many arrive during the ramp: half of what the full rate would bring.
        let in_ramp = self.rate * ramp / 2.0;
        let seconds = if number < in_ramp {
            (2.0 * ramp * number / self.rate).sqrt()
        } else {
            ramp + (number - in_ramp) / self.rate
        };
        Duration::from_secs_f64(seconds)
    }

    /// Time from the beginning until measuring begins.
    #[must_use]
    pub fn prelude(&self) -> Duration {
        self.ramp + self.warmup
    }

    /// Time from the beginning to the end of what is measured.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.prelude() + self.measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: f64, ramp_s: u64) -> Schedule {
        let (ramp, warmup) = (Duration::from_secs(ramp_s), Duration::from_secs(1));
        Schedule { rate, ramp, warmup, measured: Duration::from_secs(10) }
    }

    #[test]
    fn without_a_ramp_arrivals_are_evenly_apart() {
        let schedule = schedule(1000.0, 0);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(2500), Duration::from_millis(2500));
    }

    #[test]
    fn a_ramp_brings_half_the_arrivals_and_ends_at_the_full_rate() {
        let schedule = schedule(1000.0, 4);
        assert_eq!(schedule.due(500), Duration::from_secs(2));
        assert_eq!(schedule.due(2000), Duration::from_secs(4));
        assert_eq!(schedule.due(3000), Duration::from_secs(5));
        let apart = schedule.due(1999) - schedule.due(1998);
        assert!((apart.as_secs_f64() - 0.001).abs() < 1e-5);
        assert!((0..3000).all(|number| schedule.due(number) <= schedule.due(number + 1)));
    }
}
