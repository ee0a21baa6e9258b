//! What follows from a cluster state: a ring for each replica count in use.

use std::collections::BTreeMap;

use super::{ClusterState, MemberEntry};
use crate::ids::{NodeId, Partition};
use crate::key::Key;
use crate::limits;
use crate::ring::{self, Ring, RingMember};
use crate::wire::messages::{BucketSettings, TopologyVersion};

/// One of the N places of a partition (docs/adr/0009-slots.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Who answers for it.
    pub owner: Option<NodeId>,
    /// Who will, once it has all the owner has.
    pub successor: Option<NodeId>,
    /// Rises each time the slot changes hands.
    pub version: u32,
}

/// An immutable snapshot that every shard, session and client goes by.
#[derive(Debug)]
pub struct Topology {
    state: ClusterState,
    version: TopologyVersion,
    rings: BTreeMap<u8, Ring>,
}

impl Topology {
    /// Computes the rings of `state`. The same state gives the same rings everywhere.
    #[must_use]
    pub fn new(state: ClusterState) -> Self {
        let members: Vec<RingMember> = state
            .active()
            .map(|(id, entry)| RingMember { id, zone: entry.zone.clone(), weight: entry.weight })
            .collect();
        let counts = state.buckets.values().map(|bucket| bucket.settings.n);
        // The ring of the default count is always there: `status` shows shares by it.
        let counts = counts.chain([limits::REPLICAS_DEFAULT]);
        let ring = |n| (n, Ring::new(&members, state.partitions, n));
        let rings = counts.collect::<std::collections::BTreeSet<u8>>().into_iter().map(ring);
        Self { rings: rings.collect(), version: state.version(), state }
    }

    /// The state it was computed from.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// The version of that state.
    #[must_use]
    pub fn version(&self) -> TopologyVersion {
        self.version
    }

    /// The settings of a bucket.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Option<&BucketSettings> {
        self.state.buckets.get(name).map(|entry| &entry.settings)
    }

    /// A member's entry.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&MemberEntry> {
        self.state.members.get(&id)
    }

    /// The partition `key` falls into.
    #[must_use]
    pub fn partition(&self, key: &Key) -> Partition {
        ring::partition_of(key.token(), self.state.partitions)
    }

    /// The ring for `n` replicas.
    ///
    /// # Panics
    /// When no bucket has `n` replicas and it is not the default count.
    #[must_use]
    pub fn ring(&self, n: u8) -> &Ring {
        &self.rings[&n]
    }

    /// The primaries of `partition` for `n` replicas, in order of preference.
    #[must_use]
    pub fn primaries(&self, partition: Partition, n: u8) -> &[NodeId] {
        self.rings.get(&n).map_or(&[], |ring| ring.primaries(partition))
    }

    /// The slots of `partition`.
    #[must_use]
    pub fn slots(&self, partition: Partition, n: u8) -> Vec<Slot> {
        let owners = self.primaries(partition, n).iter();
        owners.map(|id| Slot { owner: Some(*id), successor: None, version: 1 }).collect()
    }

    /// What a coordinator and a replica of `partition` must agree on; never 0.
    #[must_use]
    pub fn fingerprint(&self, partition: Partition, n: u8) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        self.slots(partition, n).hash(&mut hasher);
        hasher.finish().max(1)
    }

    /// Members in no slot of `partition`, in the order in which they stand in.
    #[must_use]
    pub fn fallbacks(&self, partition: Partition, n: u8) -> Vec<NodeId> {
        self.rings.get(&n).map_or(Vec::new(), |ring| ring.fallbacks(partition))
    }

    /// Whether somebody is a member that connections are kept to.
    #[must_use]
    pub fn is_connected_member(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|member| !member.removed)
    }
}
