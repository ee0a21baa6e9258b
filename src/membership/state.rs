//! The state that nodes exchange, and how two of them merge.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::{BucketEntry, MemberEntry, SlotTable, Standing};
use crate::ids::{NodeId, Scope};
use crate::limits;
use crate::ring::RingMember;
use crate::wire::messages::{BucketSettings, TopologyVersion};

/// Members, slots and buckets of a cluster, as one node knows them.
///
/// What always holds, also after merging: a formed state has a table of slots for each scope that a
/// bucket goes by or moves to, an unformed one has none; owners are members that the state knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterState {
    /// The cluster's name. States of different clusters never merge.
    pub cluster: String,
    /// Partitions of the ring; fixed when the cluster is created.
    pub partitions: u32,
    /// A hash of the members the cluster began with; 0 while it has not formed. States of clusters
    /// that formed apart never merge: each may hold data that the other does not own.
    pub formation: u64,
    /// Members by id.
    pub members: BTreeMap<NodeId, MemberEntry>,
    /// Buckets by name.
    pub buckets: BTreeMap<String, BucketEntry>,
    /// Who owns what, by scope.
    pub slots: BTreeMap<Scope, SlotTable>,
}

/// Why a state from outside was not taken. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It belongs to another cluster.
    #[error("the peer belongs to cluster {theirs:?}, this node to {ours:?}; check `cluster.name`")]
    OtherCluster {
        /// This node's cluster.
        ours: String,
        /// The peer's.
        theirs: String,
    },
    /// It cuts the ring differently.
    #[error(
        "the peer's ring has {theirs} partitions, this node's {ours}; `cluster.partitions` must be \
         the same on all members and never changes"
    )]
    OtherPartitions {
        /// This node's count.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// Both clusters have formed, each on its own.
    #[error(
        "the peer's cluster and this node's, both named {cluster:?}, have formed apart and do not \
         merge. To add nodes to a cluster start them with an empty node.data_dir, cluster.seeds \
         that name its members and cluster.initial_members = 1"
    )]
    OtherFormation {
        /// The name of both.
        cluster: String,
    },
    /// Nobody more is taken note of.
    #[error(
        "this cluster knows {} candidates already: let those join or leave that it has \
         (`ringdove member list`), then start this node again",
        limits::CANDIDATES
    )]
    TooManyCandidates,
    /// It does not decode, or breaks a bound.
    #[error("the peer's cluster state is malformed: {0}")]
    Malformed(String),
}

impl ClusterState {
    /// The state of a cluster nobody has joined, with the bucket `default`.
    #[must_use]
    pub fn new(cluster: &str, partitions: u32) -> Self {
        let default = BucketEntry::new(BucketSettings::default());
        Self {
            cluster: cluster.to_owned(),
            partitions,
            formation: 0,
            members: BTreeMap::new(),
            buckets: BTreeMap::from([("default".to_owned(), default)]),
            slots: BTreeMap::new(),
        }
    }

    /// Takes over what `other` knows better. Returns whether anything changed.
    ///
    /// Idempotent, commutative and associative. A formed state takes from an unformed one no more
    /// than its candidates: what a newcomer was configured with is not the cluster's.
    ///
    /// # Errors
    /// When `other` is of another cluster; nothing is merged then.
    pub fn merge(&mut self, other: &Self) -> Result<bool, StateError> {
        self.check_kinship(other)?;
        let mut changed = false;
        for (id, theirs) in &other.members {
            changed |= match self.members.get_mut(id) {
                Some(ours) => ours.merge(theirs),
                None => self.members.insert(*id, theirs.clone()).is_none(),
            };
        }
        match (self.is_formed(), other.is_formed()) {
            (true, false) => return Ok(changed),
            (false, true) => {
                self.formation = other.formation;
                self.buckets.clone_from(&other.buckets);
                self.slots.clone_from(&other.slots);
                return Ok(true);
            }
            _ => {}
        }
        for (name, theirs) in &other.buckets {
            changed |= match self.buckets.get_mut(name) {
                Some(ours) => ours.merge(theirs),
                None => self.buckets.insert(name.clone(), theirs.clone()).is_none(),
            };
        }
        for (scope, theirs) in &other.slots {
            // A scope that a bucket has left never comes back.
            if !self.is_in_use(*scope) {
                continue;
            }
            changed |= match self.slots.get_mut(scope) {
                Some(ours) => ours.merge(theirs),
                None => self.slots.insert(*scope, theirs.clone()).is_none(),
            };
        }
        self.drop_unused_slots();
        Ok(changed)
    }

    /// Whether buckets may go by `scope`: it is shared, or the scope of one bucket, now or next.
    fn is_in_use(&self, scope: Scope) -> bool {
        scope.number == 0 || self.buckets.values().any(|bucket| bucket.home.names(scope))
    }

    pub(super) fn drop_unused_slots(&mut self) {
        let scopes = self.slots.keys().copied();
        let unused: Vec<Scope> = scopes.filter(|scope| !self.is_in_use(*scope)).collect();
        for scope in unused {
            self.slots.remove(&scope);
        }
    }

    fn check_kinship(&self, other: &Self) -> Result<(), StateError> {
        if self.cluster != other.cluster {
            let (ours, theirs) = (self.cluster.clone(), other.cluster.clone());
            return Err(StateError::OtherCluster { ours, theirs });
        }
        if self.partitions != other.partitions {
            let (ours, theirs) = (self.partitions, other.partitions);
            return Err(StateError::OtherPartitions { ours, theirs });
        }
        if self.is_formed() && other.is_formed() && self.formation != other.formation {
            return Err(StateError::OtherFormation { cluster: self.cluster.clone() });
        }
        Ok(())
    }

    /// Whether the state of `node` may be merged: whoever is new comes in with it.
    ///
    /// # Errors
    /// [`StateError::TooManyCandidates`], for a stranger.
    pub fn admits(&self, node: NodeId) -> Result<(), StateError> {
        let is_candidate = |entry: &&MemberEntry| entry.standing == Standing::Candidate;
        let full = || self.members.values().filter(is_candidate).count() >= limits::CANDIDATES;
        match self.is_formed() && !self.members.contains_key(&node) && full() {
            true => Err(StateError::TooManyCandidates),
            false => Ok(()),
        }
    }

    /// Whether the cluster has begun: its slots have owners.
    #[must_use]
    pub fn is_formed(&self) -> bool {
        self.formation != 0
    }

    /// Everybody who is kept a connection to: all but the removed.
    pub fn present(&self) -> impl Iterator<Item = (NodeId, &MemberEntry)> {
        let present = self.members.iter().filter(|(_, entry)| entry.standing < Standing::Removed);
        present.map(|(id, entry)| (*id, entry))
    }

    /// Those who serve clients: members and those who are leaving; all who are present while the
    /// cluster forms.
    pub fn serving(&self) -> impl Iterator<Item = (NodeId, &MemberEntry)> {
        let least = if self.is_formed() { Standing::Member } else { Standing::Candidate };
        self.present().filter(move |(_, entry)| entry.standing >= least)
    }

    /// Those who are on the ring.
    pub fn placed(&self) -> impl Iterator<Item = (NodeId, &MemberEntry)> {
        self.present().filter(|(_, entry)| entry.standing == Standing::Member)
    }

    /// The ring ids that are taken, each with the member that stands there.
    ///
    /// Where two have replaced the same member, on two sides of a network partition, the one of
    /// the lower id has its place and the other one its own.
    #[must_use]
    pub fn places(&self) -> BTreeMap<NodeId, NodeId> {
        let mut places = BTreeMap::new();
        for (id, entry) in self.placed() {
            let place = entry.placed_as.value;
            let place = if places.contains_key(&place) { id } else { place };
            places.insert(place, id);
        }
        places
    }

    /// What the ring is made of, under ring ids.
    pub(super) fn ring_members(&self) -> Vec<RingMember> {
        let places = self.places();
        let member = |(place, id): (&NodeId, &NodeId)| {
            let entry = &self.members[id];
            RingMember { id: *place, zone: entry.zone().to_owned(), weight: entry.weight() }
        };
        places.iter().map(member).collect()
    }

    /// The largest replica count of a bucket.
    #[must_use]
    pub fn largest_n(&self) -> u8 {
        self.buckets.values().map(|bucket| bucket.settings.n).max().unwrap_or(1)
    }

    /// The version of this state. Its epoch never falls, but when two tables of slots that were
    /// begun apart meet (see [`ClusterState::add_bucket`]), or two changes of one bucket's count.
    #[must_use]
    pub fn version(&self) -> TopologyVersion {
        let members = self.members.values().map(MemberEntry::epoch);
        let buckets = self.buckets.values().map(BucketEntry::epoch);
        let slots = self.slots.values().map(SlotTable::epoch);
        let epoch = members.chain(buckets).chain(slots).sum();
        TopologyVersion { epoch, hash: xxh3_64(&self.encode()) }
    }
}
