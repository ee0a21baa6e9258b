//! Reaping: how deleted and expired keys are forgotten, so that they stay deleted.
//!
//! A tombstone may go when no older version of its key is left anywhere: or else that version would
//! come back. Old versions live in records of owners, in hints, in operations that have read one, in
//! pages that move, and in messages. No time that has passed says that they are gone: a node
//! may be paused for longer. So all members are asked, twice.
//!
//! ```text
//!                     every member m                                        owners
//!   reaper ── Watch ──▶ t1(m): owners have this tombstone durably,
//!                       nobody has anything else of the key.
//!                       A barrier to every other member: what m
//!          ◀─ standing  has sent before t1(m) has arrived.
//!     s ─ all have answered ──────────────────────────────────
//!          ── Confirm ▶ t2(m): nothing of the key has been
//!          ◀─ standing  with m since t1(m).
//!          ── Drop ───────────────────────────────────────────▶ if it still is this
//! ```
//!
//! Why that is enough: let s be a moment after all first looks and before all second ones. At s no
//! member had an old version, for each had none from its first look to its second. Nor was one on
//! its way: what was sent before the sender's first look had arrived before its barrier did, and
//! what was sent after it would have been seen at the sender. Old versions come only from old versions,
//! so from s on there are none. (It is how the end of a distributed computation is found with two
//! waves: Mattern, "Algorithms for distributed termination detection", 1987.)
//!
//! # What always holds
//!
//! - A key is dropped only by an owner that still has exactly the object that all have agreed on,
//!   and only after both looks of every member of one cluster state that all of them went by, in which
//!   no slot of the key has a successor.
//! - A crash, a restart, a change of the cluster state, or anything that touches a key between the
//!   looks of a member makes that member's answer "no". Nothing else has to be undone.
//! - Where some owners have dropped a key and others have not, the others have its tombstone: it
//!   may spread again, hides nothing that is new, and is reaped again.
//! - No clock decides, except that a value must have expired by more than
//!   [`crate::causality::MAX_SKEW_MS`] by the clocks of all its owners.
//! - Beside the agreement stand graves (`graves`), for disks that lose what they had synced.
//!
//! What moves outside of the shards (pages of a transfer, objects of an exchange) must be told with
//! [`Reap::begin_move`] before it is asked for, and with [`Reap::end_move`] when it has been merged or
//! dropped. `docs/adr/0012-reaping.md` has the reasons.

#[cfg(test)]
mod harness;
mod member;
mod reaper;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use scan::{Found, Scan, scan};

use super::Order;
use crate::ids::{NodeId, Partition};
use crate::membership::Topology;
use crate::random::Random;
use crate::time::Instant;
use crate::wire::reap::{ReapReply, ReapRequest, ReapStatus};
use member::Member;
use reaper::Reaper;

/// What the reaping of a node is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node.
    pub node: NodeId,
    /// How many shards it has. Partition p belongs to shard p modulo this.
    pub shards: usize,
    /// What is confirmed is synced.
    pub durable: bool,
    /// How long to rest after everything has been looked at.
    pub interval: Duration,
}

/// What happens to the reaping of a node.
#[derive(Debug)]
pub enum Input {
    /// The cluster state is about to change. No shard may go by it before this.
    Topology(Arc<Topology>),
    /// Another node asks; the answer is an [`Effect::Answer`] under the same number.
    Asked {
        /// Names the question.
        ask: u64,
        /// The question.
        request: ReapRequest,
    },
    /// To [`Effect::Send`]: the answer, or that there will be none.
    Answered {
        /// The number of the question.
        id: u64,
        /// The answer.
        reply: Option<ReapReply>,
    },
    /// To [`Effect::Order`]: what the shard has answered, or that it will not.
    Ordered {
        /// The number of the order.
        id: u64,
        /// The answer.
        reply: Option<ReapReply>,
    },
    /// To [`Effect::List`]; nothing where the disk could not be read.
    Listed {
        /// Its number.
        id: u64,
        /// What was found.
        found: Option<Found>,
    },
}

/// What the reaping of a node wants done.
#[derive(Debug)]
pub enum Effect {
    /// Look for keys ([`scan`]), then say [`Input::Listed`].
    List {
        /// The number of the search.
        id: u64,
        /// Where to look.
        scan: Scan,
    },
    /// Ask another node, then say [`Input::Answered`]. It goes the way of everything that the shards
    /// send, and after all that they have sent so far.
    Send {
        /// The node.
        to: NodeId,
        /// The number of the question.
        id: u64,
        /// The question.
        request: ReapRequest,
    },
    /// Give whoever asked this answer.
    Answer {
        /// Which question.
        ask: u64,
        /// The answer.
        reply: ReapReply,
    },
    /// Give a shard this ([`super::Input::Reap`]), then say [`Input::Ordered`].
    Order {
        /// The number of the order.
        id: u64,
        /// The shard.
        shard: usize,
        /// What to do.
        order: Order,
    },
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Another node.
    Other(u64),
    /// This node itself.
    Own(u64),
}

/// What both sides share.
struct Desk {
    settings: Settings,
    topology: Arc<Topology>,
    now: Instant,
    random: Random,
    last_id: u64,
    effects: Vec<Effect>,
    /// Questions and answers of this node to itself.
    own_questions: VecDeque<(u64, ReapRequest)>,
    own_answers: VecDeque<(u64, ReapReply)>,
}

impl Desk {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// All who are members, are about to be, or are leaving.
    fn present(&self) -> Vec<NodeId> {
        let members = self.topology.state().members.keys().copied();
        members.filter(|node| self.topology.is_present(*node)).collect()
    }

    fn send(&mut self, to: NodeId, request: ReapRequest) -> u64 {
        let id = self.next_id();
        match to == self.settings.node {
            true => self.own_questions.push_back((id, request)),
            false => self.effects.push(Effect::Send { to, id, request }),
        }
        id
    }

    fn answer(&mut self, ask: Ask, reply: ReapReply) {
        match ask {
            Ask::Other(ask) => self.effects.push(Effect::Answer { ask, reply }),
            Ask::Own(id) => self.own_answers.push_back((id, reply)),
        }
    }
}

/// The reaping of one node.
pub struct Reap {
    desk: Desk,
    member: Member,
    reaper: Reaper,
}

impl Reap {
    /// The reaping of a node that goes by `topology`; `seed` is for the names of rounds.
    #[must_use]
    pub fn new(settings: Settings, topology: Arc<Topology>, now: Instant, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let last_id = random.next_u64() >> 1;
        let (own_questions, own_answers) = (VecDeque::new(), VecDeque::new());
        let effects = Vec::new();
        let desk =
            Desk { settings, topology, now, random, last_id, effects, own_questions, own_answers };
        let (member, mut reaper) = (Member::default(), Reaper::default());
        reaper.topology(&desk);
        Self { desk, member, reaper }
    }

    /// Takes one input; appends what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        let desk = &mut self.desk;
        desk.now = now;
        match input {
            Input::Topology(topology) => {
                desk.topology = topology;
                self.member.topology(desk);
                self.reaper.topology(desk);
            }
            Input::Asked { ask, request } => self.member.asked(desk, Ask::Other(ask), request),
            Input::Answered { id, reply } => {
                if !self.member.passed(desk, id, reply.as_ref()) {
                    self.reaper.answered(desk, id, reply);
                }
            }
            Input::Ordered { id, reply } => self.member.ordered(desk, id, reply),
            Input::Listed { id, found } => self.reaper.listed(desk, id, found),
        }
        self.go_on(effects);
    }

    /// Goes on with what waited for its time.
    pub fn handle_deadline(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.desk.now = now;
        self.reaper.go_on(&mut self.desk);
        self.go_on(effects);
    }

    fn go_on(&mut self, effects: &mut Vec<Effect>) {
        let desk = &mut self.desk;
        loop {
            if let Some((id, request)) = desk.own_questions.pop_front() {
                self.member.asked(desk, Ask::Own(id), request);
            } else if let Some((id, reply)) = desk.own_answers.pop_front() {
                self.reaper.answered(desk, id, Some(reply));
            } else {
                break;
            }
        }
        effects.append(&mut desk.effects);
    }

    /// Objects of `partition` are about to move by other ways than the shards' messages. Whatever is
    /// watched in it does not stand until the movement has ended and it is watched anew.
    pub fn begin_move(&mut self, partition: Partition) {
        self.member.begin_move(partition);
    }

    /// What [`Reap::begin_move`] announced is merged, or dropped.
    pub fn end_move(&mut self, partition: Partition) {
        self.member.end_move(partition);
    }

    /// When [`Reap::handle_deadline`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.reaper.wake_at()
    }

    /// How things stand, for people.
    #[must_use]
    pub fn status(&self) -> ReapStatus {
        self.reaper.status()
    }
}
