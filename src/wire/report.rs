//! What nodes report of themselves, for people and for tests.

use serde::{Deserialize, Serialize};

use super::messages::TopologyVersion;
use crate::ids::NodeId;

/// How a node is, and how it sees the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Who it is.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The software's version.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// `serving`, `read-only` (its disk is full), `forming`, `candidate`, `leaving`, `removed` or `draining`.
    pub state: String,
    /// The cluster state it goes by.
    pub topology: TopologyVersion,
    /// Keys on its disk, estimated.
    pub keys: u64,
    /// Its disk cannot be proven complete: it does not count in read quorums.
    pub amnesiac: bool,
    /// The members, as this node sees them, itself included.
    pub peers: Vec<PeerStatus>,
    /// Counters by name, for people and for tests.
    pub counters: Vec<(String, u64)>,
}

/// How one node sees another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The member.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its address for frames.
    pub address: String,
    /// Its zone.
    pub zone: String,
    /// There is a connection to it.
    pub up: bool,
    /// What failure detection says.
    pub liveness: Liveness,
    /// What it owns of the slots of the bucket `default`, in hundredths of a percent.
    pub share: u32,
}

/// What one node's failure detection says about a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// `alive`, `suspect`, `down`, or `unknown` where nothing was heard of it yet.
    pub state: String,
    /// For how many milliseconds it has been so.
    pub since_ms: u64,
    /// Who suspects it, or did last: those who probed it in vain.
    pub suspected_by: Vec<NodeId>,
    /// How many milliseconds ago it last objected to that.
    pub refuted_ms: Option<u64>,
    /// How many times it was taken to be down since this node started.
    pub flaps: u32,
}

/// What a node keeps for one member that is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintStatus {
    /// The member.
    pub owner: NodeId,
    /// Its name, if it is known.
    pub name: String,
    /// Keys.
    pub count: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Milliseconds since there was nothing kept for it: nothing that is there is older. 0 where
    /// nothing is.
    pub oldest_ms: u64,
    /// Hints that this node delivers in a second now; 0 while the member is away.
    pub rate: u64,
    /// Partitions of which hints had to be let go for want of room: there the member may be behind
    /// though nothing is kept for it.
    pub dirty_partitions: u64,
}

/// Where a key is, and what each replica holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The key's token.
    pub token: u64,
    /// The partition it falls into.
    pub partition: u16,
    /// Replicas the bucket asks for.
    pub n: u8,
    /// The preference list, with what each one answered.
    pub replicas: Vec<ReplicaView>,
    /// Members that stand in when those are away, in order.
    pub fallbacks: Vec<NodeId>,
}

/// What one replica said about a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// The replica.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// `ok`, `missing`, `unreachable`, `corrupt` or `amnesiac`.
    pub state: String,
    /// Its version vector, for people.
    pub clock: String,
    /// Values it holds.
    pub siblings: u32,
    /// Deletions it remembers.
    pub tombstones: u32,
    /// Bytes of its encoded object.
    pub bytes: u64,
    /// The digest of its encoded object.
    pub digest: u128,
}
