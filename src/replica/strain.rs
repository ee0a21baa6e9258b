//! How long this node's own clients wait: background work yields to them (`pace`).

use std::time::Duration;

/// A recent 99th percentile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strain {
    p99: u64,
    samples: u64,
}

impl Strain {
    /// A client's request took this long.
    pub(super) fn sample(&mut self, took: Duration) {
        let micros = (took.as_micros() as u64).max(1);
        if self.p99 == 0 {
            self.p99 = micros;
        }
        self.samples += 1;
        // At rest where one sample in a hundred is above (see `peers`).
        let step = (self.p99 / 512).max(1);
        self.p99 = match micros > self.p99 {
            true => self.p99 + 99 * step,
            false => self.p99.saturating_sub(step).max(1),
        };
    }

    /// The recent 99th percentile.
    pub(super) fn p99(&self) -> Duration {
        Duration::from_micros(self.p99)
    }

    /// Requests so far.
    pub(super) fn samples(&self) -> u64 {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_slow_answers_is_seen_and_quick_ones_end_it() {
        let mut strain = Strain::default();
        let mut random = crate::random::Random::new(1);
        let mut run = |strain: &mut Strain, count, millis: u64| {
            for _ in 0..count {
                strain.sample(Duration::from_micros(millis * 1000 + random.below(1000)));
            }
        };
        run(&mut strain, 5_000, 5);
        assert!(strain.p99() < Duration::from_millis(10));
        run(&mut strain, 50, 200);
        assert!(strain.p99() > Duration::from_millis(20));
        run(&mut strain, 5_000, 5);
        assert!(strain.p99() < Duration::from_millis(10));
        assert_eq!(strain.samples(), 10_050);
    }
}
