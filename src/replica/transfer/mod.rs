//! How partitions change hands: the successor's side and the owner's, without any I/O.
//!
//! Who owns a slot and who is to own it stands in the cluster state (docs/adr/0009-slots.md). A
//! node's [`Transfers`] makes the second the first, slot by slot:
//!
//! ```text
//!      successor                                          owner
//!   ┌─────────────┐  Begin    ┌───────────────────────────────────────────────────────┐
//!   │   Pulls     │ ────────▶ │ Notes: this successor stands in this slot; durable.   │
//!   │             │           │ Fence: every write a shard took before is committed   │
//!   │  what to    │  Page     │                                                       │
//!   │  have, from │ ────────▶ │ read behind the cursor, in key order                  │
//!   │  whom, how  │ ◀──────── │                                                       │
//!   │  far        │ merged by the shard, like any other write                         │
//!   │             │  HandOver │                                                       │
//!   │             │ ────────▶ │ if the note stands: the slot is given away            │
//!   └─────────────┘           └───────────────────────────────────────────────────────┘
//!      Pace: as fast as clients do not mind         Leftovers: deleted after a while
//! ```
//!
//! Inputs go in, effects come out; the time is an argument and the random numbers come from a
//! seed. The server drives it with sockets and a disk ([`Input`] and [`Effect`] say what each of
//! them owes the other), tests with neither.
//!
//! # What always holds
//!
//! - A note stands for as long as its slot looks to this node as it did when the note was made:
//!   same version, same owner, same successor. The [`Input::Topology`] that shows it otherwise
//!   drops it, durably, before any shard goes by that topology. So all that time every write this
//!   node took for the slot's keys was sent to the successor too.
//! - What a page shows was committed, and what a shard took before the note was made is in the
//!   pages.
//! - A slot is given away only by its owner, only under the note the successor copied under, and
//!   only in the very cluster state the decision was made in. A slot without an owner is taken by its
//!   successor once every other owner's note stands.
//! - A cursor is kept only after what lies before it was committed here.
//! - Data is deleted here only where this node stands in no slot of its bucket and has lost none
//!   without handing it over; and before a node becomes successor of a partition, old data of it
//!   is deleted.

mod copy;
mod desk;
mod kept;
mod leftovers;
mod notes;
mod page;
mod pull;
mod settle;
mod show;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use desk::Tally;
pub use page::{PAGE_BYTES, read_page};

use crate::ids::{NodeId, Partition, Scope};
use crate::membership::{HandOver, Topology};
use crate::store::StoreError;
use crate::time::Instant;
use crate::wire::messages::TopologyVersion;
use crate::wire::transfer::{
    Page, PageEntry, PageRequest, SlotView, TransferReply, TransferRequest, TransferStatus,
};
use desk::Desk;
use kept::Kept;
use leftovers::Leftovers;
use notes::Notes;
use pull::Pulls;

/// What the transfers of a node are told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node.
    pub node: NodeId,
    /// Its disk cannot be proven complete.
    pub amnesiac: bool,
    /// What was committed before the last stop is on the disk for certain. If not, cursors may be
    /// ahead of the data.
    pub resume: bool,
    /// Slots that are copied at once.
    pub at_once: usize,
    /// Bytes a second that are taken at most, and given at most.
    pub rate: u64,
    /// How long a partition's slots must have been as they are before what is left of it is deleted.
    pub cleanup_after: Duration,
}

/// What happens to the transfers of a node.
#[derive(Debug)]
pub enum Input {
    /// The cluster state is about to change. Nothing else may go by it, neither the shards nor the
    /// disk, before the effects that come of this are done, [`Effect::Keep`] and [`Effect::Clear`]
    /// above all. If those fail, or the state then does not change after all, nothing is broken.
    Topology(Arc<Topology>),
    /// Another node asks; the answer is an [`Effect::Answer`] under the same number.
    Asked {
        /// Who asks.
        from: NodeId,
        /// Names the question.
        ask: u64,
        /// The question.
        request: TransferRequest,
    },
    /// To [`Effect::Send`]: the answer, or that there will be none.
    Answered {
        /// The number of the question.
        id: u64,
        /// The answer.
        reply: Option<TransferReply>,
    },
    /// To [`Effect::Fence`].
    Fenced {
        /// Its number.
        order: u64,
        /// Whether it was done.
        done: bool,
    },
    /// To [`Effect::ReadPage`].
    PageRead {
        /// Whose page it is.
        ask: u64,
        /// The page.
        result: Result<Page, StoreError>,
    },
    /// To [`Effect::Merge`].
    Merged {
        /// Its number.
        id: u64,
        /// Whether all of it is committed; if not, why.
        result: Result<(), Unmerged>,
    },
    /// To [`Effect::HandOver`].
    HandedOver {
        /// Its number.
        order: u64,
        /// Whether the cluster state was changed.
        given: bool,
    },
    /// To [`Effect::Clear`].
    Cleared {
        /// The partition.
        partition: Partition,
        /// The scope.
        scope: Scope,
        /// Whether there was something to delete; `None` where it could not be done.
        found: Option<bool>,
    },
    /// There is a connection to the node: it may be asked again at once.
    Connected(NodeId),
    /// A second has gone by: the recent 99th percentile of foreground requests in it.
    Second {
        /// Zero if there were none.
        p99: Duration,
    },
}

/// Why a page was not merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmerged {
    /// What went wrong, for people.
    pub why: String,
    /// Records here are damaged, and what they held is lost; everything else is merged.
    pub is_damaged: bool,
}

impl From<String> for Unmerged {
    fn from(why: String) -> Self {
        Self { why, is_damaged: false }
    }
}

/// What the transfers of a node want done. The effects of one call are begun in their order, and
/// a [`Effect::Keep`] is done before the next is begun.
#[derive(Debug)]
pub enum Effect {
    /// Make this what [`Transfers::new`] gets after a restart.
    Keep {
        /// Rises: of two that overtake each other the later counts.
        sequence: u64,
        /// What to keep.
        bytes: Vec<u8>,
    },
    /// Ask another node, then say [`Input::Answered`].
    Send {
        /// The node.
        to: NodeId,
        /// The number of the question.
        id: u64,
        /// The question.
        request: TransferRequest,
    },
    /// Give whoever asked this answer.
    Answer {
        /// Which question.
        ask: u64,
        /// The answer.
        reply: TransferReply,
    },
    /// Have the partition's shard see to it that every write it has taken is committed, provided it
    /// goes by a topology that shows the slot so; then say [`Input::Fenced`].
    Fence {
        /// The number of the fence.
        order: u64,
        /// The slot.
        view: SlotView,
    },
    /// Read a page ([`read_page`]), then say [`Input::PageRead`].
    ReadPage {
        /// Whose page it is.
        ask: u64,
        /// What is asked for.
        request: PageRequest,
    },
    /// Merge these into this node's records, through their shard. Where there is no object, and this
    /// node's has another digest, read the object from the node it comes from. Say
    /// [`Input::Merged`] when all is committed.
    Merge {
        /// The number of the merge.
        id: u64,
        /// Where the entries come from.
        from: NodeId,
        /// What to merge.
        entries: Vec<PageEntry>,
    },
    /// Change the cluster state so, if it is still at this version, all or nothing; then say
    /// [`Input::HandedOver`].
    HandOver {
        /// The number of the order.
        order: u64,
        /// The version it was decided in.
        basis: TopologyVersion,
        /// The slots.
        changes: Vec<HandOver>,
    },
    /// Delete what is left in a partition of buckets at home in a scope, through the partition's
    /// shard, which knows what that is ([`Shard::strange`](super::Shard::strange)); then say
    /// [`Input::Cleared`].
    Clear {
        /// The partition.
        partition: Partition,
        /// The scope.
        scope: Scope,
    },
    /// Exchange cluster states with this node: the two do not go by the same.
    Exchange(NodeId),
    /// This node is leaving and owns nothing any more: mark it removed, if it holds no hints.
    /// Repeated every second.
    Leave,
    /// Buckets have arrived in other slots: note it, or end the move
    /// ([`ClusterState::advance`](crate::membership::ClusterState::advance), on a state that all
    /// shards go by). Repeated every second.
    Advance,
    /// Something an operator should know.
    Notice(Notice),
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// What this node had kept of its transfers cannot be read: everything under way begins anew, and
    /// what is left of earlier partitions is set aside.
    Forgotten {
        /// What was wrong.
        why: String,
    },
    /// This node has lost slots of a partition that it has not handed over. It keeps its data.
    SetAside {
        /// The partition.
        partition: Partition,
    },
}

/// The transfers of one node.
pub struct Transfers {
    desk: Desk,
    pulls: Pulls,
    notes: Notes,
    leftovers: Leftovers,
    sequence: u64,
}

impl Transfers {
    /// The transfers of a node that goes by `topology`; `kept` is what was kept before a restart,
    /// `seed` is for jitter and the numbers of notes.
    #[must_use]
    pub fn new(
        settings: Settings,
        topology: Arc<Topology>,
        kept: Option<&[u8]>,
        now: Instant,
        seed: u64,
    ) -> Self {
        let mut desk = Desk::new(settings, topology, now, seed);
        let decoded = kept.map_or(Ok(Kept::default()), Kept::decode);
        let mut set_aside = None;
        let mut kept = match decoded {
            Ok(mut kept) => {
                set_aside = Some(std::mem::take(&mut kept.set_aside));
                kept
            }
            Err(error) => {
                desk.effects.push(Effect::Notice(Notice::Forgotten { why: error.to_string() }));
                Kept::default()
            }
        };
        if desk.settings.amnesiac {
            // What was noted and how far was copied is worth as much as the data: nothing.
            (kept.notes, kept.pulls) = (Vec::new(), Vec::new());
        }
        if !desk.settings.resume {
            kept.pulls.clear();
        }
        let notes = Notes::new(&desk, &kept.notes);
        let pulls = Pulls::new(&mut desk, kept.pulls);
        let leftovers = Leftovers::new(&desk, set_aside);
        desk.keep = true;
        Self { desk, pulls, notes, leftovers, sequence: 0 }
    }

    /// Takes one input; appends what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        let desk = &mut self.desk;
        desk.now = now;
        match input {
            Input::Topology(topology) => {
                let before = std::mem::replace(&mut desk.topology, topology);
                self.leftovers.topology(desk, &before, &self.notes);
                self.notes.topology(desk);
                self.pulls.topology(desk);
            }
            Input::Asked { from, ask, request } => self.notes.asked(desk, from, ask, request),
            Input::Answered { id, reply } => self.pulls.answered(desk, id, reply),
            Input::Fenced { order, done } => self.notes.fenced(desk, order, done),
            Input::PageRead { ask, result } => self.notes.page_read(desk, ask, result),
            Input::Merged { id, result } => self.pulls.merged(desk, id, result),
            Input::HandedOver { order, given } => {
                self.notes.handed_over(desk, order, given);
                self.pulls.handed_over(desk, order, given);
            }
            Input::Cleared { partition, scope, found } => {
                self.leftovers.cleared(desk, (partition, scope), found);
            }
            Input::Connected(node) => self.pulls.connected(desk, node),
            Input::Second { p99 } => {
                desk.taking.observe(p99, !self.pulls.is_empty());
                desk.giving.observe(p99, !self.notes.is_empty());
                self.pulls.second();
                self.leftovers.second(desk, self.pulls.is_empty());
                let topology = &desk.topology;
                if topology.moving() > 0 && topology.state().clone().advance(desk.me()) {
                    desk.effects.push(Effect::Advance);
                }
            }
        }
        self.go_on(effects);
    }

    /// Goes on with what waited for its time.
    pub fn handle_deadline(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.desk.now = now;
        self.go_on(effects);
    }

    fn go_on(&mut self, effects: &mut Vec<Effect>) {
        let desk = &mut self.desk;
        desk.wake_at = None;
        self.pulls.go_on(desk);
        self.leftovers.go_on(desk);
        if std::mem::take(&mut self.desk.keep) {
            effects.push(self.keep());
        }
        effects.append(&mut self.desk.effects);
    }

    fn keep(&mut self) -> Effect {
        self.sequence += 1;
        self.desk.kept_at = self.desk.now;
        let kept = Kept {
            notes: self.notes.kept(),
            pulls: self.pulls.kept(),
            set_aside: self.leftovers.set_aside(),
        };
        Effect::Keep { sequence: self.sequence, bytes: kept.encode() }
    }

    /// When [`Transfers::handle_deadline`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.desk.wake_at
    }

    /// What moves, for people.
    #[must_use]
    pub fn status(&self) -> TransferStatus {
        TransferStatus {
            incoming: self.pulls.incoming(&self.desk),
            outgoing: self.notes.outgoing(),
            rate_limit: self.desk.taking.rate(),
            leftovers: self.leftovers.waiting(),
            set_aside: self.leftovers.set_aside().len() as u32,
            counters: self.desk.tally.rows(),
        }
    }

    /// Whether nothing moves to this node or is copied from it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pulls.is_empty() && self.notes.is_empty()
    }
}
