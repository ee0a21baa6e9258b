//! How often, how long and how many; and the time within which a crash is known by all.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use super::seal::SEAL_BYTES;

/// Probe intervals after which a crashed member has been probed by somebody. Each of the others
/// picks it with the same chance in each interval, so that nobody has picked it after k of them
/// happens once in eᵏ crashes: once in 22,000.
const PROBED_WITHIN: u32 = 10;

/// What an operator may turn; see `[gossip]` in `config/ringdove.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often one other member is probed.
    pub probe_interval: Duration,
    /// How long its answer may take before others are asked to probe it, too.
    pub probe_timeout: Duration,
    /// How many others are asked.
    pub indirect_probes: usize,
    /// How long a suspect has to object, in a cluster of up to ten members.
    pub suspicion: Duration,
    /// How often news is passed on.
    pub gossip_interval: Duration,
    /// To how many members each time.
    pub gossip_fanout: usize,
    /// Largest packet, its seal included.
    pub packet_bytes: usize,
}

impl Default for Settings {
    /// For one rack or one datacentre.
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_millis(1000),
            probe_timeout: Duration::from_millis(300),
            indirect_probes: 5,
            suspicion: Duration::from_millis(4000),
            gossip_interval: Duration::from_millis(200),
            gossip_fanout: 3,
            packet_bytes: 1400,
        }
    }
}

impl Settings {
    /// How long a suspect has to object in a cluster of `members`: news takes longer to reach
    /// everybody in a larger one.
    #[must_use]
    pub fn suspicion_of(&self, members: usize) -> Duration {
        self.suspicion.mul_f64(decades(members).max(1.0))
    }

    /// The time within which everybody knows of a crash, where the network loses little and
    /// nobody is slow: until somebody probes the member, one interval for the probe to fail, the
    /// suspicion, and the spreading of the news.
    ///
    /// In a small cluster the first part is what round-robin probing allows at most; else
    /// ten intervals, which one crash in 22,000 exceeds.
    #[must_use]
    pub fn detection_bound(&self, members: usize) -> Duration {
        let others = u32::try_from(members.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
        let probed_within = (2 * others.min(PROBED_WITHIN) - 1).min(PROBED_WITHIN);
        // News doubles, at least, with each round; two more for the last ones.
        let rounds = members.max(2).next_power_of_two().ilog2() + 2;
        self.probe_interval * (probed_within + 1)
            + self.suspicion_of(members)
            + self.gossip_interval * rounds
    }

    /// How many times each piece of news is passed on. Foca's own rule, and two more: in a
    /// cluster of three its rule gives one loss to spare.
    pub(super) fn transmissions(members: usize) -> NonZeroU8 {
        let times = 4.0 * decades(members + 1) + 2.0;
        NonZeroU8::new(times.min(255.0) as u8).expect("at least two")
    }

    pub(super) fn foca(&self, members: usize) -> foca::Config {
        let some = |count: usize| NonZeroUsize::new(count.max(1)).expect("at least one");
        foca::Config {
            probe_period: self.probe_interval,
            probe_rtt: self.probe_timeout,
            num_indirect_probes: some(self.indirect_probes),
            max_transmissions: Self::transmissions(members),
            // Not used: the queue of timers knows how well this node is, and how many it is of.
            suspect_to_down_after: self.suspicion,
            // Never: a member that is forgotten would be news again for whoever has not.
            remove_down_after: None,
            max_packet_size: some(self.packet_bytes.saturating_sub(SEAL_BYTES)),
            notify_down_members: true,
            // Both are our own: they need to know the cluster's members.
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: self.gossip_interval,
                num_members: some(self.gossip_fanout),
            }),
        }
    }
}

/// The decimal logarithm.
fn decades(members: usize) -> f64 {
    (members.max(1) as f64).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_sum_of_its_parts() {
        let settings = Settings::default();
        let bound = |members| settings.detection_bound(members).as_millis();
        // Two: the other one probes it in each interval.
        assert_eq!(bound(2), 1000 + 1000 + 4000 + 3 * 200);
        // Three: last of one round and first of the next, three intervals apart.
        assert_eq!(bound(3), 3000 + 1000 + 4000 + 4 * 200);
        assert_eq!(bound(100), 10_000 + 1000 + 8000 + 9 * 200);
        assert_eq!(bound(1000), 10_000 + 1000 + 12_000 + 12 * 200);
    }
}
