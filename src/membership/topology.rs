//! What follows from a cluster state: a ring for each replica count in use.

use std::collections::BTreeMap;

use super::{ClusterState, MemberEntry};
use crate::ids::{NodeId, Partition};
use crate::key::Key;
use crate::limits;
use crate::ring::{self, Ring, RingMember};
use crate::wire::messages::{BucketSettings, TopologyVersion};

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
}
