//! What a node's gossip has counted.

use super::seal::Refusal;

/// Since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sent.
    pub packets_out: u64,
    /// Their bytes, without UDP's and IP's headers.
    pub bytes_out: u64,
    /// Packets opened.
    pub packets_in: u64,
    /// Dropped: too short, or of another version of the seal.
    pub malformed: u64,
    /// Dropped: sealed for another cluster.
    pub other_cluster: u64,
    /// Dropped: sealed with a key this node does not hold.
    pub unknown_key: u64,
    /// Dropped: the seal did not fit.
    pub forged: u64,
    /// Dropped: heard before, or too late.
    pub replayed: u64,
    /// Opened, and not understood or not for this node.
    pub refused: u64,
    /// Suspicions of others this node began.
    pub suspicions: u64,
    /// Suspicions of itself it objected to.
    pub refutations: u64,
    /// Times it was taken to be down and came back under a new generation.
    pub renewals: u64,
    /// Times its timers were late.
    pub late: u64,
    /// Messages to members that had refuted a suspicion, telling them that they are down, which
    /// were held back.
    pub held_back: u64,
    /// How unwell it is now: 0 to 8.
    pub health: u64,
}

impl Counters {
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        *match refusal {
            Refusal::Malformed => &mut self.malformed,
            Refusal::OtherCluster => &mut self.other_cluster,
            Refusal::UnknownKey => &mut self.unknown_key,
            Refusal::Forged => &mut self.forged,
            Refusal::Replayed => &mut self.replayed,
        } += 1;
    }

    /// Each with its name.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 15] {
        [
            ("gossip_packets_out", self.packets_out),
            ("gossip_bytes_out", self.bytes_out),
            ("gossip_packets_in", self.packets_in),
            ("gossip_dropped_malformed", self.malformed),
            ("gossip_dropped_other_cluster", self.other_cluster),
            ("gossip_dropped_unknown_key", self.unknown_key),
            ("gossip_dropped_forged", self.forged),
            ("gossip_dropped_replayed", self.replayed),
            ("gossip_refused", self.refused),
            ("gossip_suspicions", self.suspicions),
            ("gossip_refutations", self.refutations),
            ("gossip_renewals", self.renewals),
            ("gossip_late", self.late),
            ("gossip_held_back", self.held_back),
            ("gossip_health", self.health),
        ]
    }
}
