//! The node's mind: coordinator and replica, without any I/O.
//!
//! A node's partitions are spread over **shards**. A [`Shard`] is a state machine with one owner
//! and no locks: inputs go in, effects come out, and the time and the random numbers are
//! arguments. The server drives it with sockets and RocksDB, the simulator with neither; the code
//! is the same.
//!
//! ```text
//!                    Input                                      Effect
//!   a session, a peer ── Request ──▶ ┌───────────────┐ ── Respond ──▶ whoever asked
//!   a peer ───────────── Response ─▶ │     Shard     │ ── Send ─────▶ a peer
//!   the disk ─── Loaded, Committed ▶ │               │ ── Load ─────▶ the disk, to read
//!   the node ──── Topology, Actors ▶ │ ops keys peers│ ── Commit ───▶ the disk, to write
//!                                    └───────────────┘
//!                      handle ... handle ... handle, then flush: one turn
//! ```
//!
//! A **turn** is: [`Shard::handle`] for everything that has arrived, then [`Shard::flush`], which
//! gives at most one [`Effect::Commit`]. That is where a group commit comes from: however many
//! writes arrived in a turn, the disk syncs once.
//!
//! # What always holds
//!
//! - A key's record is read, changed and staged in one step, with nothing in between; while it is
//!   being loaded, later steps on the key wait behind it, in order of arrival.
//! - Nothing is acknowledged, by [`Effect::Respond`] or to an operation of this shard, before the
//!   commit of the batch that holds it has come back.
//! - A dot is made only here, under an actor bound to the node's incarnation, and counted in the
//!   same record as the object. No message can move that count.
//! - Every request is answered once, at the latest when its budget is spent.
//! - Every table has a bound; at the bound the answer is "busy".
//!
//! What is deliberately absent: clocks, sockets, threads, cancellation (a timer or an answer that
//! belongs to a finished operation finds nothing under its number and is dropped).

mod ballot;
mod commits;
mod core;
mod counters;
mod coverage;
mod explain;
mod fence;
mod forward;
mod get;
mod graves;
mod handoff;
mod hints;
mod keys;
mod late;
pub mod listing;
mod pace;
mod peers;
mod put;
pub mod quorum;
pub mod reap;
mod recent;
mod records;
mod replication;
pub mod room;
mod shard;
mod refusals;
mod strain;
pub mod sync;
pub mod transfer;
mod watch;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use counters::Counters;
pub use fence::Strange;
pub use hints::HintTally;
#[cfg(feature = "server")]
pub(crate) use keys::imprint;
#[cfg(feature = "server")]
pub(crate) use pace::Pace;
pub use refusals::Refusals;
pub use shard::Shard;
pub use watch::Order;

use crate::ids::{Incarnation, NodeId, Partition};
use crate::membership::Topology;
use crate::store::{Batch, Entry, StoreError, StoredKey};
use crate::time::{Instant, WallMs};
use crate::wire::messages::{Request, Response};
use crate::wire::transfer::SlotView;

/// What a shard is told once, when it is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which of the node's shards it is. Stands in the top byte of the numbers of the requests it
    /// sends, so that the driver knows whose the answers are.
    pub shard: u8,
    /// How many shards the node has. Partition p belongs to shard p modulo this.
    pub shards: u8,
    /// The node.
    pub node: NodeId,
    /// The span of the node's life that dots are bound to.
    pub incarnation: Incarnation,
    /// The node's disk cannot be proven complete: its answers do not count in read quorums.
    pub amnesiac: bool,
    /// A commit is synced before it is confirmed. False where the operator chose less.
    pub fsync: bool,
    /// How long one replica may take before another is asked, or the write is sent again.
    pub attempt: Duration,
    /// The budget of requests that name none.
    pub timeout: Duration,
    /// Longest key.
    pub key_bytes: usize,
    /// Largest value.
    pub value_bytes: usize,
    /// Siblings of one key at which a warning is counted.
    pub siblings_warn: usize,
    /// Siblings of one key at which a client's write is refused.
    pub siblings_refuse: usize,
    /// Operations under way at once; past it the answer is "busy".
    pub max_in_flight: usize,
    /// Failures in a row after which a peer is left alone for a while.
    pub breaker_failures: u32,
    /// How long it is left alone.
    pub breaker_open: Duration,
    /// Bytes this shard may keep for one member that is away.
    pub hint_bytes_by_owner: u64,
    /// Bytes it may keep for all of them.
    pub hint_bytes: u64,
    /// Bytes of hints a second that are given to members that are back, at most, by this shard.
    pub hint_rate: u64,
    /// Reaped keys it remembers.
    pub graves: usize,
}

/// Whoever waits for an answer: a number that means something to the driver only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(pub u64);

/// What happens to a shard.
#[derive(Debug)]
pub enum Input {
    /// A session or a peer asks.
    Request {
        /// Who waits for the answer.
        from: Origin,
        /// The member that has sent it; this node itself for what its clients ask.
        sender: NodeId,
        /// When the request arrived at this node.
        received: Instant,
        /// When it was sent, by this node's clock, if it says so: its budget began then. Whoever says so
        /// may send the same elsewhere when nothing is heard.
        sent: Option<Instant>,
        /// Another node has passed it on already.
        forwarded: bool,
        /// The request.
        request: Request,
    },
    /// A peer has answered.
    Response {
        /// The peer.
        from: NodeId,
        /// The number that [`Effect::Send`] gave the request.
        id: u64,
        /// The answer.
        response: Response,
    },
    /// [`Effect::Load`] is done.
    Loaded {
        /// The key.
        key: StoredKey,
        /// Its record, if it has one.
        result: Result<Option<Bytes>, StoreError>,
    },
    /// [`Effect::Commit`] is done.
    Committed {
        /// The number of the batch.
        batch: u64,
        /// What came of it.
        result: Result<(), StoreError>,
    },
    /// Numbers for new actors, asked for by [`Effect::LeaseActors`]; never given out before.
    Actors(Range<u64>),
    /// The cluster state has changed.
    Topology(Arc<Topology>),
    /// There is a connection to the peer.
    Connected(NodeId),
    /// The connection to the peer is gone, and with it whatever was under way on it.
    Disconnected(NodeId),
    /// [`Effect::ListHints`] is done.
    Hints {
        /// Whom they are kept for.
        owner: NodeId,
        /// What is kept, in key order, also that of other shards.
        result: Result<Vec<Entry>, StoreError>,
    },
    /// At the start: a hint that is on the disk.
    HintFound {
        /// Its key, with its owner.
        key: StoredKey,
        /// Bytes of its record.
        bytes: usize,
        /// When it was kept, as far as that is known.
        kept: WallMs,
    },
    /// At the start: what is remembered of a reaped key.
    GraveFound {
        /// The key.
        key: StoredKey,
        /// What the store has of it.
        bytes: Bytes,
    },
    /// Something about keys that are to be reaped: answer with a `ReapReply`.
    Reap {
        /// Who waits for the answer.
        from: Origin,
        /// What to do.
        order: Order,
    },
    /// A successor is to copy this slot: answer with [`Response::Stored`] once everything that was
    /// staged is committed; with a failure if this shard does not go by such slots.
    Fence {
        /// Who waits for the answer.
        from: Origin,
        /// The slot.
        view: SlotView,
    },
    /// [`Effect::Exchange`] is done, or has failed. What it brought came before this.
    Exchanged(NodeId),
    /// This node is known to have all of the partition that was acknowledged, whatever its disk may have
    /// forgotten: it has been in sync with every other owner since it was started.
    Complete(Partition),
    /// That is so for all its partitions: nothing is missing any more.
    Whole,
    /// The cluster takes the peer to be up.
    Up(NodeId),
    /// The cluster takes the peer to be down, whatever its connection looks like: what was under
    /// way to it counts as lost. Where data lives is not changed by it.
    Down(NodeId),
    /// Whether this node's disk has room for writes; if it has none, why. Until it is said it has.
    Room(Result<(), String>),
    /// Take no new work from clients.
    Drain,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// Give this answer to whoever waits.
    Respond {
        /// Who waits.
        to: Origin,
        /// The answer.
        response: Response,
    },
    /// Send this to a peer. It may get lost: the shard keeps its own time.
    Send {
        /// The peer.
        to: NodeId,
        /// The number its answer will carry.
        id: u64,
        /// The peer must not pass it on.
        forwarded: bool,
        /// The request.
        request: Request,
    },
    /// Read this record, then say [`Input::Loaded`].
    Load {
        /// The key.
        key: StoredKey,
    },
    /// Make these changes durable, then say [`Input::Committed`]. Batches are committed in the
    /// order of their numbers, as far as [`Refusals`] admits them.
    Commit {
        /// Its number.
        batch: u64,
        /// The refusals that the shard had heard of when it began the batch.
        refusals: u64,
        /// The changes.
        changes: Batch,
    },
    /// Read what is kept for `owner`, behind `after`, then say [`Input::Hints`].
    ListHints {
        /// Whom it is kept for.
        owner: NodeId,
        /// Where to begin.
        after: Option<StoredKey>,
        /// About how many bytes of records.
        bytes: usize,
    },
    /// This peer goes by other slots: exchange cluster states with it, then say
    /// [`Input::Exchanged`].
    Exchange(NodeId),
    /// Numbers for new actors are running low: lease some more, then say [`Input::Actors`].
    LeaseActors,
    /// Something an operator should know.
    Notice(Notice),
}

/// Something an operator should know; counted in [`Counters`] as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A message shows this replica's own actor at a count this disk does not know: the disk has
    /// forgotten something. The key goes on under a new actor.
    Amnesia {
        /// The key.
        key: String,
    },
    /// One dot stands for two different values. Both are kept.
    DotCollision {
        /// The key.
        key: String,
        /// The dot.
        dot: String,
    },
    /// A key has many siblings.
    ManySiblings {
        /// The key.
        key: String,
        /// How many.
        siblings: usize,
    },
    /// A value of a key that had been reaped has come back, and was refused.
    Risen {
        /// The key.
        key: String,
        /// Its dot, which names the incarnation that made it.
        dot: String,
        /// What brought it.
        by: &'static str,
        /// Where it came from: who has sent it; of a read or a write here, those who had something of
        /// the key.
        from: Vec<NodeId>,
    },
    /// A record could not be read.
    Corrupt {
        /// The key.
        key: String,
        /// What the store said.
        why: String,
    },
    /// A message from a peer did not decode.
    Malformed {
        /// Where it came from, if that is known.
        from: Option<NodeId>,
        /// What was wrong.
        why: String,
    },
}
