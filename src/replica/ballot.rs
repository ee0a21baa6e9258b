//! Asking the replicas of a key what they hold, until enough have said so.
//!
//! A ballot is the reading half of every operation that reads: gets, puts that build on what is
//! there, explanations. It asks as many replicas as must answer, this node first, and one more
//! whenever one fails or is slow. The first is asked for the object, the others for its digest
//! where it is large; a digest that matches nothing is asked for in full.
//!
//! What always holds: only whole, decoded objects of replicas that have not forgotten anything
//! count. A damaged copy is not an answer, and certainly not "nothing".

use super::Notice;
use super::core::{Core, OpId};
use super::keys::Step;
use super::quorum::{Tally, Verdict};
use crate::causality::Object;
use crate::ids::NodeId;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::messages::{FailureCode, Held, HeldObject, Read, Request, Response};

/// Where one replica's vote stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    /// Not asked.
    Spare,
    /// Asked, no answer yet.
    Asked,
    /// It holds an object of this digest, which nobody has sent in full yet.
    Digest(u128),
    /// It holds this; nothing is the empty object.
    Holds(Object),
    /// It holds this, and may have forgotten more: taken in, not counted.
    Amnesiac(Object),
    /// It cannot answer.
    Failed(FailureCode),
}

#[derive(Debug)]
pub(super) struct Ballot {
    key: Key,
    needed: usize,
    deadline: Instant,
    votes: Vec<(NodeId, Vote)>,
}

impl Ballot {
    /// A vote among `replicas`, in order of preference. Those that cannot be reached now are out.
    pub(super) fn new(
        core: &Core,
        key: Key,
        replicas: &[NodeId],
        needed: usize,
        deadline: Instant,
    ) -> Self {
        let vote = |node: &NodeId| match core.usable(*node) {
            true => (*node, Vote::Spare),
            false => (*node, Vote::Failed(FailureCode::Unavailable)),
        };
        let mut votes: Vec<_> = replicas.iter().map(vote).collect();
        votes.sort_by_key(|(node, _)| *node != core.settings.node);
        Self { key, needed, deadline, votes }
    }

    /// Asks as many as are needed.
    pub(super) fn begin(&mut self, core: &mut Core, op: OpId) {
        for _ in 0..self.needed {
            self.ask_next(core, op);
        }
    }

    /// Asks one more; returns whether there was one.
    pub(super) fn ask_next(&mut self, core: &mut Core, op: OpId) -> bool {
        let spare = self.votes.iter().position(|(_, vote)| *vote == Vote::Spare);
        let Some(index) = spare else { return false };
        let full_is_coming = self.votes.iter().any(|(_, vote)| *vote == Vote::Asked);
        self.ask(core, op, index, full_is_coming);
        true
    }

    fn ask(&mut self, core: &mut Core, op: OpId, index: usize, digest: bool) {
        let (node, vote) = &mut self.votes[index];
        *vote = Vote::Asked;
        if *node == core.settings.node {
            let key = core.stored_key(&self.key);
            core.steps.push_back((key, Step::Read(op)));
            return;
        }
        let budget_ms = core.budget_ms(self.deadline);
        let read = Read { key: self.key.clone(), digest, fallback: false, slots: 0, budget_ms };
        core.send(op, *node, false, Request::Read(read));
    }

    /// Takes a replica's answer in.
    pub(super) fn answered(&mut self, core: &mut Core, op: OpId, from: NodeId, response: Response) {
        let voter = self.votes.iter().position(|(node, _)| *node == from);
        let Some(index) = voter else { return };
        if !matches!(self.votes[index].1, Vote::Asked | Vote::Failed(_)) {
            return; // A second answer, to a question that was asked twice.
        }
        let vote = match response {
            Response::Held(held) => self.vote(core, from, held),
            Response::Failed(failure) => Vote::Failed(failure.code),
            _ => Vote::Failed(FailureCode::Invalid),
        };
        let counts = matches!(vote, Vote::Holds(_) | Vote::Digest(_));
        self.votes[index].1 = vote;
        if !counts {
            self.ask_next(core, op);
        }
        self.match_digests(core, op);
    }

    fn vote(&self, core: &mut Core, from: NodeId, held: Held) -> Vote {
        // Where there is only one replica nobody knows better: what it has forgotten is gone.
        let amnesiac = held.amnesiac && self.votes.len() > 1;
        let object = match held.object {
            HeldObject::Missing => Object::new(),
            HeldObject::Digest(digest) if !amnesiac => return Vote::Digest(digest),
            // An amnesiac's digest cannot be compared with anything worth having.
            HeldObject::Digest(_) => Object::new(),
            HeldObject::Full(bytes) => match Object::decode(bytes) {
                Ok(object) => object,
                Err(error) => {
                    let why = format!("object of {}: {error}", self.key);
                    core.notice(Notice::Malformed { from: Some(from), why });
                    return Vote::Failed(FailureCode::Invalid);
                }
            },
        };
        if amnesiac { Vote::Amnesiac(object) } else { Vote::Holds(object) }
    }

    /// Turns digests into objects where an object of that digest has arrived, and asks again, in
    /// full, where none will.
    fn match_digests(&mut self, core: &mut Core, op: OpId) {
        let known = self.votes.iter().filter_map(|(_, vote)| match vote {
            Vote::Holds(object) => Some((object.digest(&self.key), object.clone())),
            _ => None,
        });
        let known: Vec<(u128, Object)> = match self.has_digests() {
            true => known.collect(),
            false => return,
        };
        let full_is_coming = self.votes.iter().any(|(_, vote)| *vote == Vote::Asked);
        for index in 0..self.votes.len() {
            let Vote::Digest(digest) = self.votes[index].1 else { continue };
            if let Some((_, object)) = known.iter().find(|(known, _)| *known == digest) {
                self.votes[index].1 = Vote::Holds(object.clone());
            } else if !known.is_empty() || !full_is_coming {
                self.ask(core, op, index, false);
            }
        }
    }

    fn has_digests(&self) -> bool {
        self.votes.iter().any(|(_, vote)| matches!(vote, Vote::Digest(_)))
    }

    /// What was under way to `node` is lost.
    pub(super) fn lost(&mut self, core: &mut Core, op: OpId, node: NodeId) {
        for index in 0..self.votes.len() {
            if self.votes[index] == (node, Vote::Asked) {
                self.votes[index].1 = Vote::Failed(FailureCode::Unavailable);
                self.ask_next(core, op);
            }
        }
        self.match_digests(core, op);
    }

    /// Somebody is slow: asks another, or the same again where there is no other.
    pub(super) fn attempt(&mut self, core: &mut Core, op: OpId) {
        let slow = (0..self.votes.len()).filter(|index| self.votes[*index].1 == Vote::Asked);
        let slow: Vec<usize> = slow.collect();
        for index in &slow {
            core.slow(self.votes[*index].0);
        }
        if self.ask_next(core, op) {
            core.counters.hedged_reads += 1;
            return;
        }
        for index in slow {
            // This node's own disk is not asked twice: it will answer.
            if self.votes[index].0 != core.settings.node {
                self.ask(core, op, index, false);
            }
        }
    }

    /// Asks everyone who has not been asked.
    pub(super) fn ask_all(&mut self, core: &mut Core, op: OpId) {
        while self.ask_next(core, op) {}
    }

    /// Is content with `needed` answers from now on.
    pub(super) fn settle_for(&mut self, needed: usize) {
        self.needed = self.needed.min(needed);
    }

    pub(super) fn verdict(&self) -> Verdict {
        let open = |(_, vote): &&(NodeId, Vote)| {
            matches!(vote, Vote::Spare | Vote::Asked | Vote::Digest(_))
        };
        let open = self.votes.iter().filter(open).count();
        Tally { confirmed: self.confirmed().len(), open }.verdict(self.needed)
    }

    /// Nobody who was asked still owes an answer.
    pub(super) fn is_settled(&self) -> bool {
        !self.votes.iter().any(|(_, vote)| matches!(vote, Vote::Asked | Vote::Digest(_)))
    }

    /// The replicas whose answers count.
    pub(super) fn confirmed(&self) -> Vec<NodeId> {
        let holds = self.votes.iter().filter(|(_, vote)| matches!(vote, Vote::Holds(_)));
        holds.map(|(node, _)| *node).collect()
    }

    /// Everything that was answered, merged; of a bucket that keeps the latest, only that.
    pub(super) fn merged(&self, core: &Core) -> Object {
        let keeps_latest = core.keeps_latest(&self.key);
        let mut merged = Object::new();
        for (_, vote) in &self.votes {
            if let Vote::Holds(object) | Vote::Amnesiac(object) = vote {
                match keeps_latest {
                    true => drop(merged.merge_latest(object)),
                    false => drop(merged.merge(object)),
                }
            }
        }
        merged
    }

    /// The replicas that have answered with something else than `merged`.
    pub(super) fn behind(&self, merged: &Object) -> Vec<NodeId> {
        let behind = self.votes.iter().filter(|(_, vote)| match vote {
            Vote::Holds(object) | Vote::Amnesiac(object) => object != merged,
            _ => false,
        });
        behind.map(|(node, _)| *node).collect()
    }

    /// The replicas whose copy is damaged, once every other one has answered: then what was
    /// merged is all that can be had, and may replace the damaged copy.
    pub(super) fn to_restore(&self) -> Vec<NodeId> {
        let corrupt = Vote::Failed(FailureCode::Corrupt);
        let (damaged, others): (Vec<_>, Vec<_>) =
            self.votes.iter().partition(|(_, vote)| *vote == corrupt);
        match others.iter().all(|(_, vote)| matches!(vote, Vote::Holds(_))) {
            true => damaged.iter().map(|(node, _)| *node).collect(),
            false => Vec::new(),
        }
    }

    /// Whether some replica has said that its copy is damaged.
    pub(super) fn found_damage(&self) -> bool {
        self.votes.iter().any(|(_, vote)| *vote == Vote::Failed(FailureCode::Corrupt))
    }

    pub(super) fn votes(&self) -> &[(NodeId, Vote)] {
        &self.votes
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn needed(&self) -> usize {
        self.needed
    }
}
