//! What nodes and clients say to each other, as values.
//!
//! The state machines of floor 3 take and give these very types; `codec` turns them into bytes
//! and back. The hot messages (reads and writes, by clients and between replicas) have a layout
//! of their own; everything else is [`Control`], in bincode.
//!
//! What always holds: a request that changes something carries a [`WriteId`]; every request
//! carries the time it may still take; every answer to a client carries a [`Receipt`] or a
//! [`Failure`], and a failure of a write says whether anything may have happened.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use super::listing::{
    BucketTally, ClusterTally, Listed, Listing, ListingPage, NodeTally, Outlier, Outliers,
    OwnerListing, OwnerPage, Which,
};
pub use super::settings::{BucketSettings, Conflicts, PlannedChange};
pub use super::survey::{Goals, MemberReport, MemberState, Open, SyncState, Waiting};

use crate::causality::{Dot, Hlc};
use crate::ids::{NodeId, Partition, WriteId};
use crate::key::Key;
use crate::time::WallMs;

pub use super::report::{Explanation, HintStatus, Liveness, NodeStatus, PeerStatus, ReplicaView};

/// How many replicas must answer. `PR` and `PW` use it too, with [`Level::Default`] for "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// What the bucket says (for `R` and `W`), or no demand (for `PR` and `PW`).
    #[default]
    Default,
    /// Exactly this many, 1 to 13. `one` is 1.
    Count(u8),
    /// More than half of `N`.
    Quorum,
    /// All `N`.
    All,
}

impl Level {
    /// The number of replicas meant, for a bucket of `n` replicas where the default is `default`.
    /// May be above `n` when a client asked for more than there are.
    #[must_use]
    pub fn resolve(self, n: u8, default: u8) -> u8 {
        match self {
            Self::Default => default,
            Self::Count(count) => count,
            Self::Quorum => n / 2 + 1,
            Self::All => n,
        }
    }
}

/// A question, or an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A client reads a key.
    Get(Get),
    /// A client writes or deletes a key.
    Put(Put),
    /// A coordinator asks one replica what it holds.
    Read(Read),
    /// A coordinator gives one replica an object to merge.
    Write(Write),
    /// Anything that is not hot.
    Control(Control),
}

/// The answer to the [`Request`] of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Get`].
    Got(Got),
    /// To [`Request::Put`].
    Done(Done),
    /// To [`Request::Read`].
    Held(Held),
    /// To [`Request::Write`].
    Stored(Stored),
    /// To [`Request::Control`].
    Control(ControlReply),
    /// To any of them.
    Failed(Failure),
}

/// A client's read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// What to read.
    pub key: Key,
    /// Replicas that must answer.
    pub r: Level,
    /// Of those, how many must be primaries.
    pub pr: Level,
    /// Time the answer may take, in milliseconds, from its arrival.
    pub budget_ms: u32,
    /// Only owners count towards `R`. Without it, fallbacks stand in for owners that are away.
    pub strict: bool,
    /// Fill [`Got::trace`].
    pub trace: bool,
}

/// What a write builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The context token of an earlier read or write: replaces what that one saw.
    Context(Bytes),
    /// Nothing: stands beside whatever is there, as a sibling.
    Blind,
    /// What a read by the coordinator sees when the write arrives: replaces that. This is a
    /// plain `SET`, `DEL` or `create_only`.
    Observed,
}

/// Under which condition a write takes place. It is checked against what the coordinator holds; two
/// concurrent writers at two coordinators can both find it true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    #[default]
    None,
    /// Only where no value is (`NX`, `create_only`). With [`Basis::Observed`].
    Absent,
    /// Only where a value is (`XX`). With [`Basis::Observed`].
    Present,
    /// Only if the coordinator holds nothing that the context does not cover; else
    /// [`FailureCode::Exists`]. With [`Basis::Context`]: what was read is changed, and not brought back
    /// beside what somebody has written meanwhile.
    Unchanged,
}

/// From when on a value reads as absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// What the bucket says.
    #[default]
    Bucket,
    /// So many milliseconds after the coordinator has taken the write.
    After(u64),
    /// From this time on.
    At(WallMs),
    /// Never, whatever the bucket says.
    Never,
}

/// A client's write or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// What to write.
    pub key: Key,
    /// Names this write; a retry carries the same.
    pub write_id: WriteId,
    /// 0 for the first try, then 1, 2 and so on. From 1 on, the coordinator looks at the other
    /// replicas for `write_id` before it writes.
    pub attempt: u8,
    /// What it builds on.
    pub basis: Basis,
    /// When it takes place.
    pub condition: Condition,
    /// The value, or `None` for a delete.
    pub value: Option<Bytes>,
    /// From when on the value reads as absent.
    pub expiry: Expiry,
    /// Replicas that must have it durably.
    pub w: Level,
    /// Of those, how many must be primaries.
    pub pw: Level,
    /// Only owners count towards `W`. Without it, fallbacks stand in for owners that are away.
    pub strict: bool,
    /// Time the answer may take, in milliseconds, from its arrival.
    pub budget_ms: u32,
}

/// A coordinator's question to one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What to read.
    pub key: Key,
    /// Answer with the digest if the object is larger than a few hundred bytes.
    pub digest: bool,
    /// What is held for others counts too: the coordinator asks a fallback.
    pub fallback: bool,
    /// The fingerprint of the slots the coordinator goes by; 0 asks for no check. A replica that
    /// goes by others answers [`FailureCode::Stale`].
    pub slots: u64,
    /// Time the answer may take, in milliseconds, from its arrival.
    pub budget_ms: u32,
}

/// Why a replica is given an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client's write is waiting.
    Replicate,
    /// A read found this replica behind.
    Repair,
    /// A read found this replica's copy damaged, and all the others have answered: this is all
    /// that can be had, and replaces the copy.
    Restore,
    /// This member is away: keep the object for it, and hand it over when it is back.
    Hint(NodeId),
    /// It was kept while the receiver was away, or comes from the former owner of a slot.
    Handoff,
}

/// A coordinator's order to one replica: merge this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// The whole merged object, encoded (`causality::Object::encode`).
    pub object: Bytes,
    /// Why.
    pub purpose: Purpose,
    /// With [`Purpose::Replicate`], the fingerprint of the slots the coordinator goes by; 0 asks for
    /// no check. A replica that goes by others answers [`FailureCode::Stale`].
    pub slots: u64,
    /// Time the answer may take, in milliseconds, from its arrival.
    pub budget_ms: u32,
}

/// One value that a read returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Names the write within the key's history.
    pub dot: Dot,
    /// Which client write made it.
    pub write_id: WriteId,
    /// When, by the coordinator's hybrid clock.
    pub hlc: Hlc,
    /// When it will read as absent.
    pub expires_at: Option<WallMs>,
    /// The bytes.
    pub data: Bytes,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The token that a write which replaces these values carries.
    pub context: Bytes,
    /// The values, newest first; several are siblings.
    pub values: Vec<Value>,
    /// No value, but a deletion is remembered.
    pub deleted: bool,
    /// What was achieved.
    pub receipt: Receipt,
    /// The hops, if they were asked for.
    pub trace: Vec<Hop>,
}

/// A write was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The token that covers what the write built on, and the write. Not what others wrote
    /// meanwhile: the next write with it stands beside that.
    pub context: Bytes,
    /// What was achieved.
    pub receipt: Receipt,
}

/// What a replica holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The object, or what stands for it.
    pub object: HeldObject,
    /// The replica may have forgotten things: its answer does not count towards `R`.
    pub amnesiac: bool,
}

/// The object a replica holds, or what stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldObject {
    /// Nothing was ever stored here under that key, as far as this disk knows.
    Missing,
    /// The encoded object.
    Full(Bytes),
    /// The digest of an object that is too large to send for nothing.
    Digest(u128),
}

/// A replica has merged and stored what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The write was synced to the disk before this was said. False only where the operator has
    /// chosen a weaker durability.
    pub fsynced: bool,
}

/// What an operation achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Replicas the bucket asks for.
    pub n: u8,
    /// Replicas that had to answer (the `R` or `W` in force).
    pub needed: u8,
    /// Replicas that answered in time.
    pub acks: u8,
    /// Of those, primaries.
    pub primaries: u8,
    /// Of those, fallbacks that stood in for absent primaries.
    pub fallbacks: u8,
    /// Of those, for a write, replicas that had it synced to their disk.
    pub fsynced: u8,
    /// Distinct zones among those.
    pub zones: u8,
    /// The node that coordinated.
    pub coordinator: NodeId,
    /// Time from the request's arrival at the coordinator to its answer, in microseconds.
    pub micros: u32,
    /// The cluster state the coordinator went by.
    pub topology: TopologyVersion,
}

/// Which cluster state (members, buckets) somebody goes by. The epoch never falls; two states of
/// one epoch with different hashes are about to merge into one of a higher epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopologyVersion {
    /// The sum of the versions of all entries.
    pub epoch: u64,
    /// A hash over all entries.
    pub hash: u64,
}

/// One step of a traced request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The node it concerns.
    pub node: NodeId,
    /// Microseconds since the request arrived at the coordinator.
    pub micros: u32,
    /// What happened, for people.
    pub what: String,
}

/// What went wrong, by what a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FailureCode {
    /// Too few replicas can be reached; nothing was written.
    Unavailable,
    /// A write was begun and too few replicas have confirmed it in time.
    Unknown,
    /// A read did not finish in time.
    Timeout,
    /// A queue is full. Come back later.
    Busy,
    /// A value is there, and the write asked for none.
    Exists,
    /// No value is there, and the write asked for one.
    Absent,
    /// The key has too many siblings: they must be read and merged, then written with the context
    /// of that read.
    Siblings,
    /// The context token is damaged, or belongs to another key.
    BadContext,
    /// The key or the value is larger than allowed.
    TooLarge,
    /// The node is stopping. Ask another.
    Draining,
    /// There is no such bucket.
    NoBucket,
    /// The node has not met enough of its cluster yet.
    Forming,
    /// The disk refuses writes.
    DiskFull,
    /// The replica's copy is damaged.
    Corrupt,
    /// The caller's password is wrong or missing.
    Denied,
    /// The message makes no sense to this version.
    Invalid,
    /// A defect.
    Internal,
    /// Coordinator and replica go by different slots of the partition: one of them has not heard
    /// of a change of the members. They exchange their states and the request goes on.
    Stale,
}

/// Whether a failed write happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// No replica has it, and none will.
    NotApplied,
    /// Some replicas may have it; it may still take effect.
    Unknown,
}

/// The answer of something that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub code: FailureCode,
    /// Whether it happened all the same. Reads are always `NotApplied`.
    pub outcome: Outcome,
    /// Replicas that had answered.
    pub acks: u8,
    /// Replicas that were needed.
    pub needed: u8,
    /// The write it concerns.
    pub write_id: Option<WriteId>,
    /// With [`FailureCode::Siblings`], the context that covers all that the coordinator holds; else
    /// empty. A write with it replaces values that its bearer may not have seen: use it only after
    /// reading them all, or better the context of that read.
    pub context: Bytes,
    /// When to try again, in milliseconds; 0 for "no hint".
    pub retry_after_ms: u32,
    /// The sentence for people; names the fix.
    pub message: String,
}

impl Failure {
    /// A failure before anything was changed.
    #[must_use]
    pub fn not_applied(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            outcome: Outcome::NotApplied,
            acks: 0,
            needed: 0,
            write_id: None,
            context: Bytes::new(),
            retry_after_ms: 0,
            message: message.into(),
        }
    }
}

/// A request that is not hot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// The cluster state: members and buckets.
    Topology,
    /// Here is mine; give me yours (between nodes). The bytes are an encoded cluster state.
    Exchange(Vec<u8>),
    /// Creates a bucket.
    CreateBucket {
        /// Its name.
        name: String,
        /// Its settings.
        settings: BucketSettings,
    },
    /// How the node is, and how it sees the others.
    Status,
    /// What each replica of a key holds.
    Explain {
        /// The bucket.
        bucket: String,
        /// The key.
        key: Vec<u8>,
    },
    /// One page of the keys of a bucket, from all over the cluster.
    Keys(Listing),
    /// Digests of this node's objects, for tests that compare replicas: an XOR over all objects.
    Digest,
    /// What this node keeps for members that are away.
    Hints,
    /// Gives a bucket other settings.
    SetBucket {
        /// Its name.
        name: String,
        /// All its settings.
        settings: BucketSettings,
    },
    /// Stages a change of the members: it becomes part of the plan.
    StageChange {
        /// Whom it concerns.
        member: NodeId,
        /// What is to happen.
        change: PlannedChange,
        /// Replace a member although it answers.
        force: bool,
    },
    /// Makes everything happen that is planned.
    CommitPlan {
        /// The mark of the plan that is meant; none for whatever is planned.
        mark: Option<u64>,
    },
    /// Forgets everything that is planned.
    AbortPlan,
    /// A slot changes hands (between nodes).
    Transfer(super::transfer::TransferRequest),
    /// What moves to and from this node.
    Transfers,
    /// Compares who is up (between nodes).
    Gossip {
        /// The digest of what the sender knows.
        digest: u64,
        /// All it knows, sealed; empty where it only asks.
        view: Vec<u8>,
    },
    /// What every member says of itself: the node that is asked asks them all.
    Survey,
    /// Two owners of a partition look for differences (between nodes).
    Sync(super::sync::SyncRequest),
    /// How this node's anti-entropy stands.
    SyncStatus,
    /// Compare everything now.
    SyncNow,
    /// Begin no comparison until further notice, or go on.
    SyncPause(bool),
    /// One page of what an owner has of a partition (between nodes).
    OwnerKeys(OwnerListing),
    /// What is in each bucket, over the cluster: the node that is asked asks them all.
    Tallies,
    /// What this node has of the partitions of which it comes first among these owners (between
    /// nodes): asked of all of them, each key is counted once.
    Tally(Vec<NodeId>),
    /// The keys of this node that stand out.
    Outliers,
    /// Read everything on this node's disk now, and look for damage.
    ScrubNow,
    /// How this node stands with other owners, pair by pair.
    SyncPairs {
        /// The first pair, in order of partition and other owner.
        from: (Partition, NodeId),
        /// Pairs of the answer, 1 to [`PAGE_KEYS`](crate::limits::PAGE_KEYS).
        count: u32,
    },
    /// Inject faults into this node, or lift them. Refused by one that was not started for it.
    Fault(super::faults::FaultOrder),
    /// Deleted keys are to be forgotten (between nodes).
    Reap(super::reap::ReapRequest),
    /// What waits to be forgotten, and who holds it up.
    Reaping,
}

/// The answer to a [`Control`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlReply {
    /// The encoded cluster state.
    Topology(Vec<u8>),
    /// It is done.
    Ok,
    /// To [`Control::Status`].
    Status(NodeStatus),
    /// To [`Control::Explain`].
    Explain(Explanation),
    /// To [`Control::Keys`].
    Keys(ListingPage),
    /// To [`Control::Digest`].
    Digest {
        /// Objects on this node's disk.
        objects: u64,
        /// XOR of `xxh3_128(key, object)` over them.
        digest: u128,
    },
    /// To [`Control::Hints`]: what is kept, by member.
    Hints(Vec<HintStatus>),
    /// To [`Control::Transfer`].
    Transfer(super::transfer::TransferReply),
    /// To [`Control::Transfers`].
    Transfers(super::transfer::TransferStatus),
    /// To [`Control::Gossip`]: all this node knows of who is up, sealed; empty where the digests
    /// agree.
    Gossip(Vec<u8>),
    /// To [`Control::Survey`].
    Survey(Vec<MemberReport>),
    /// To [`Control::Sync`].
    Sync(super::sync::SyncAnswer),
    /// To [`Control::SyncStatus`].
    SyncStatus(super::sync::SyncStatus),
    /// To [`Control::OwnerKeys`].
    OwnerKeys(OwnerPage),
    /// To [`Control::Tallies`].
    Tallies(ClusterTally),
    /// To [`Control::Tally`].
    Tally(NodeTally),
    /// To [`Control::Outliers`].
    Outliers(Outliers),
    /// To [`Control::SyncPairs`], in order; fewer than asked for when there are no more.
    SyncPairs(Vec<super::sync::SyncPair>),
    /// To [`Control::Fault`]: the one that was added, all in force, or those that were lifted.
    Faults(Vec<super::faults::FaultRow>),
    /// To [`Control::Reap`].
    Reap(super::reap::ReapReply),
    /// To [`Control::Reaping`].
    Reaping(super::reap::ReapStatus),
}
