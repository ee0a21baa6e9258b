//! Whether this node's own clients wait longer than they are used to.
//!
//! Background work yields to them: the Dynamo paper (section 6.5) compares a recent percentile of
//! foreground latencies with a threshold. Here the threshold is learnt: twice what the percentile
//! comes down to when nothing is the matter.

use std::time::Duration;

/// Below this nobody is strained, whatever they are used to.
const NEVER_BELOW_MICROS: u64 = 20_000;

/// A recent 99th percentile, and what it usually is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strain {
    p99: u64,
    usual: u64,
}

impl Strain {
    /// A client's request took this long.
    pub(super) fn sample(&mut self, took: Duration) {
        let micros = (took.as_micros() as u64).max(1);
        if self.p99 == 0 {
            (self.p99, self.usual) = (micros, micros);
        }
        // At rest where one sample in a hundred is above (see `peers`).
        let step = (self.p99 / 512).max(1);
        self.p99 = match micros > self.p99 {
            true => self.p99 + 99 * step,
            false => self.p99.saturating_sub(step).max(1),
        };
        // Down at once, up by a thousandth at a time: minutes of load do not become usual.
        self.usual = self.p99.min(self.usual + (self.usual / 65_536).max(1));
    }

    /// The recent 99th percentile.
    pub(super) fn p99(&self) -> Duration {
        Duration::from_micros(self.p99)
    }

    /// Whether background work should hold back.
    pub(super) fn is_high(&self) -> bool {
        self.p99 > NEVER_BELOW_MICROS && self.p99 > 2 * self.usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_slow_answers_is_strain_and_quick_ones_end_it() {
        let mut strain = Strain::default();
        let mut random = crate::random::Random::new(1);
        let mut run = |strain: &mut Strain, count, millis: u64| {
            for _ in 0..count {
                strain.sample(Duration::from_micros(millis * 1000 + random.below(1000)));
            }
        };
        run(&mut strain, 5_000, 5);
        assert!(!strain.is_high());
        run(&mut strain, 50, 200);
        assert!(strain.is_high());
        run(&mut strain, 5_000, 5);
        assert!(!strain.is_high());
    }
}
