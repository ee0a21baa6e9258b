//! The state that nodes exchange: members and buckets, merged entry by entry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::NodeId;
use crate::limits;
use crate::wire::control;
use crate::wire::messages::{BucketSettings, TopologyVersion};

/// One member. The entry with the higher version wins; of two with the same version the one whose
/// encoding is greater, so that every node picks the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// Rises with each change of this entry.
    pub version: u64,
    /// The name an operator gave it.
    pub name: String,
    /// `host:port` for frames.
    pub address: String,
    /// `host:port` of the text protocol; empty where it is switched off.
    pub text_address: String,
    /// The zone: replicas of a key are spread over zones.
    pub zone: String,
    /// Weight in hundredths of a normal member.
    pub weight: u32,
    /// Final: an id that was removed never comes back.
    pub removed: bool,
}

/// One bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketEntry {
    /// Rises with each change of this entry.
    pub version: u64,
    /// Its settings.
    pub settings: BucketSettings,
}

/// The members and the buckets of a cluster, as one node knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// The cluster's name. States of different clusters never merge.
    pub cluster: String,
    /// Partitions of the ring; fixed when the cluster is created.
    pub partitions: u32,
    /// Members by id.
    pub members: BTreeMap<NodeId, MemberEntry>,
    /// Buckets by name.
    pub buckets: BTreeMap<String, BucketEntry>,
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
    /// It does not decode, or breaks a bound.
    #[error("the peer's cluster state is malformed: {0}")]
    Malformed(String),
}

impl ClusterState {
    /// The state of a cluster nobody has joined, with the bucket `default`.
    #[must_use]
    pub fn new(cluster: &str, partitions: u32) -> Self {
        let settings = BucketSettings::default();
        let default = BucketEntry { version: 1, settings };
        Self {
            cluster: cluster.to_owned(),
            partitions,
            members: BTreeMap::new(),
            buckets: BTreeMap::from([("default".to_owned(), default)]),
        }
    }

    /// Takes over what `other` knows better. Returns whether anything changed.
    ///
    /// Idempotent, commutative and associative.
    ///
    /// # Errors
    /// When `other` is of another cluster; nothing is merged then.
    pub fn merge(&mut self, other: &Self) -> Result<bool, StateError> {
        if self.cluster != other.cluster {
            let (ours, theirs) = (self.cluster.clone(), other.cluster.clone());
            return Err(StateError::OtherCluster { ours, theirs });
        }
        if self.partitions != other.partitions {
            let (ours, theirs) = (self.partitions, other.partitions);
            return Err(StateError::OtherPartitions { ours, theirs });
        }
        let members = merge_entries(&mut self.members, &other.members, |entry| {
            (entry.removed, entry.version)
        });
        let buckets =
            merge_entries(&mut self.buckets, &other.buckets, |entry| (false, entry.version));
        Ok(members || buckets)
    }

    /// The members that have not been removed.
    pub fn active(&self) -> impl Iterator<Item = (NodeId, &MemberEntry)> {
        self.members.iter().filter(|(_, entry)| !entry.removed).map(|(id, entry)| (*id, entry))
    }

    /// The version of this state.
    #[must_use]
    pub fn version(&self) -> TopologyVersion {
        let members = self.members.values().map(|entry| entry.version);
        let buckets = self.buckets.values().map(|entry| entry.version);
        TopologyVersion { epoch: members.chain(buckets).sum(), hash: xxh3_64(&self.encode()) }
    }

    /// The bytes that travel and that stand in the node's metadata.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        control::encode(self)
    }

    /// Reads a state from outside.
    ///
    /// # Errors
    /// [`StateError::Malformed`] when it does not decode or breaks a bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let malformed = |why: String| StateError::Malformed(why);
        let state: Self = control::decode(bytes).map_err(|error| malformed(error.to_string()))?;
        if state.members.len() > limits::MEMBERS || state.buckets.len() > limits::BUCKETS {
            return Err(malformed("too many members or buckets".to_owned()));
        }
        let partitions = limits::PARTITIONS_MIN..=limits::PARTITIONS_MAX;
        if !state.partitions.is_power_of_two() || !partitions.contains(&state.partitions) {
            return Err(malformed(format!("{} partitions", state.partitions)));
        }
        for entry in state.members.values() {
            let named = [&entry.name, &entry.zone].iter().all(|t| t.len() <= limits::NAME_BYTES);
            let addressed = [&entry.address, &entry.text_address]
                .iter()
                .all(|text| text.len() <= limits::ADDRESS_BYTES);
            if !named || !addressed || !(1..=limits::WEIGHT_MAX).contains(&entry.weight) {
                return Err(malformed(format!("member {:?}", entry.name)));
            }
        }
        for (name, entry) in &state.buckets {
            let replicas = 1..=limits::REPLICAS_MAX;
            if !crate::key::is_bucket_name(name.as_bytes()) || !replicas.contains(&entry.settings.n)
            {
                return Err(malformed(format!("bucket {name:?}")));
            }
        }
        Ok(state)
    }
}

/// Merges maps of versioned entries; `rank` orders two entries of one key.
fn merge_entries<K, V, R>(
    ours: &mut BTreeMap<K, V>,
    theirs: &BTreeMap<K, V>,
    rank: impl Fn(&V) -> R,
) -> bool
where
    K: Ord + Clone,
    V: Clone + PartialEq + Serialize,
    R: Ord,
{
    let mut changed = false;
    for (key, their) in theirs {
        let better = match ours.get(key) {
            None => true,
            Some(our) if our == their => false,
            Some(our) => (rank(their), control::encode(their)) > (rank(our), control::encode(our)),
        };
        if better {
            ours.insert(key.clone(), their.clone());
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(version: u64, name: &str) -> MemberEntry {
        MemberEntry {
            version,
            name: name.to_owned(),
            address: "127.0.0.1:7400".to_owned(),
            text_address: "127.0.0.1:7401".to_owned(),
            zone: "a".to_owned(),
            weight: limits::WEIGHT_NORMAL,
            removed: false,
        }
    }

    fn state(entries: &[(u128, MemberEntry)]) -> ClusterState {
        let mut state = ClusterState::new("test", 64);
        state.members = entries.iter().map(|(id, entry)| (NodeId(*id), entry.clone())).collect();
        state
    }

    fn merged(left: &ClusterState, right: &ClusterState) -> ClusterState {
        let mut left = left.clone();
        left.merge(right).unwrap();
        left
    }

    #[test]
    fn merging_is_idempotent_commutative_and_associative() {
        let mut gone = member(2, "one");
        gone.removed = true;
        let states = [
            state(&[(1, member(1, "one"))]),
            state(&[(1, member(3, "one again"))]),
            state(&[(1, gone)]),
            state(&[(1, member(3, "one otherwise")), (2, member(1, "two"))]),
        ];
        for a in &states {
            assert_eq!(merged(a, a), *a);
            for b in &states {
                assert_eq!(merged(a, b), merged(b, a));
                for c in &states {
                    assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
                }
            }
        }
    }

    #[test]
    fn removed_is_final() {
        let mut gone = member(1, "one");
        gone.removed = true;
        let after = merged(&state(&[(1, gone)]), &state(&[(1, member(9, "back"))]));
        assert_eq!(after.active().count(), 0);
    }

    #[test]
    fn states_of_other_clusters_are_refused_and_change_nothing() {
        let mut ours = state(&[(1, member(1, "one"))]);
        let before = ours.clone();
        let mut theirs = state(&[(2, member(1, "two"))]);
        theirs.cluster = "other".to_owned();
        assert!(matches!(ours.merge(&theirs), Err(StateError::OtherCluster { .. })));
        let mut theirs = state(&[(2, member(1, "two"))]);
        theirs.partitions = 128;
        assert!(matches!(ours.merge(&theirs), Err(StateError::OtherPartitions { .. })));
        assert_eq!(ours, before);
    }

    #[test]
    fn a_state_reads_back_and_bounds_are_checked() {
        let state = state(&[(1, member(1, "one"))]);
        assert_eq!(ClusterState::decode(&state.encode()), Ok(state.clone()));
        let mut bad = state.clone();
        bad.partitions = 100;
        assert!(ClusterState::decode(&bad.encode()).is_err());
        let mut bad = state;
        bad.members.get_mut(&NodeId(1)).unwrap().weight = 0;
        assert!(ClusterState::decode(&bad.encode()).is_err());
    }
}
