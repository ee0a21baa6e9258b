//! How well this node itself is, and how much longer it therefore waits before it accuses others.
//!
//! Lifeguard's local health multiplier (Dadgar, Phillips and Currey, "Lifeguard: local health
//! awareness for more accurate failure detection", 2018, section IV.A). A node whose own loop or
//! network is slow would otherwise call the whole cluster down, one member after the other.

use std::time::Duration;

/// 0 is well; each step makes every wait for others longer by its whole length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    score: u32,
}

impl Health {
    /// The paper's S.
    const WORST: u32 = 8;

    /// A timer was late, a probe failed while nothing at all arrived, or somebody suspected us.
    pub(super) fn worsen(&mut self) {
        self.score = (self.score + 1).min(Self::WORST);
    }

    /// A probe was answered in time.
    pub(super) fn mend(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub(super) fn score(self) -> u32 {
        self.score
    }

    /// How long to wait for others instead of `wait`.
    pub(super) fn stretch(self, wait: Duration) -> Duration {
        wait * (self.score + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_each_sign_of_trouble_up_to_a_bound_and_shrink_again() {
        let (second, mut health) = (Duration::from_secs(1), Health::default());
        assert_eq!(health.stretch(second), second);
        for _ in 0..20 {
            health.worsen();
        }
        assert_eq!(health.stretch(second), 9 * second);
        for _ in 0..20 {
            health.mend();
        }
        assert_eq!(health.stretch(second), second);
    }
}
