//! Asking the replicas of a key what they hold, until enough have said so.
//!
//! A ballot is the reading half of every operation that reads: gets, puts that build on what is
//! there, explanations. It asks as many replicas as must answer, this node first, and one more
//! whenever one fails or is slow. The first is asked for the object, the others for its digest
//! where it is large; a digest that matches nothing is asked for in full.
//!
//! Owners are asked. Where the request allows it, a fallback is asked in the place of each that
//! cannot answer: it may keep what was written meanwhile. That a fallback keeps nothing says
//! nothing, so it counts only next to somebody who knows something of the key. Where nobody else is
//! left, owners are asked that have been silent lately: silence is not absence.
//!
//! What always holds: only whole, decoded objects of replicas that have not forgotten anything
//! count. A damaged copy is not an answer, and certainly not "nothing".

use std::time::Duration;

use super::Notice;
use super::core::{Core, OpId};
use super::keys::{Reader, Step};
use super::quorum::{Tally, Verdict};
use crate::causality::Object;
use crate::ids::{NodeId, Scope};
use crate::key::Key;
use crate::time::Instant;
use crate::wire::messages::{FailureCode, Held, HeldObject, Level, Read, Request, Response};

/// No hedge goes out earlier than this: below it a second question costs more than it can save.
const HEDGE_AFTER_LEAST: Duration = Duration::from_millis(2);

/// How often an owner that is silent is asked.
const ASKED_MOST: usize = 3;

/// Where one replica's vote stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    /// Not asked.
    Spare,
    /// Asked at this time, no answer yet.
    Asked(Instant),
    /// It goes by other slots than this node; asked again once states have been exchanged.
    Stale,
    /// It holds an object of this digest, which nobody has sent in full yet.
    Digest(u128),
    /// It holds this; nothing is the empty object.
    Holds(Object),
    /// It holds this, and may have forgotten more: taken in, not counted.
    Amnesiac(Object),
    /// It cannot answer.
    Failed(FailureCode),
}

/// How many must answer, and who counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// Voters that must answer.
    pub(super) r: Level,
    /// Of those, owners.
    pub(super) pr: Level,
    /// Only owners count.
    pub(super) strict: bool,
    /// All owners that can be reached are to answer.
    pub(super) everyone: bool,
    /// Where nobody else is left, owners that are silent are waited for.
    pub(super) insists: bool,
}

/// [`Wants`], in numbers.
#[derive(Clone, Copy, Debug)]
struct Quorum {
    needed: usize,
    owners: usize,
}

#[derive(Debug)]
pub(super) struct Ballot {
    key: Key,
    wants: Wants,
    quorum: Quorum,
    deadline: Instant,
    /// Whose owners vote.
    scope: Scope,
    /// Owners first, in the order in which they are asked; then fallbacks.
    voters: Vec<Voter>,
}

#[derive(Debug)]
pub(super) struct Voter {
    pub(super) node: NodeId,
    pub(super) vote: Vote,
    /// It owns a slot of the key.
    pub(super) is_owner: bool,
    /// The numbers of what it was asked. An answer to anything else says nothing: it was asked
    /// before the bucket was read by these slots, or as a fallback.
    asked: Vec<u64>,
}

impl Ballot {
    /// A vote among the owners of `key`: this node first, those that are slow last. Those that
    /// cannot be reached now, or are silent, are out at first.
    pub(super) fn new(core: &Core, key: Key, wants: Wants, deadline: Instant) -> Self {
        let scope = core.reads(&key);
        let owners = core.owners(&key);
        let mut voters: Vec<Voter> =
            owners.into_iter().map(|node| Voter::new(core, node, true)).collect();
        core.peers.demote_slow(&mut voters, |voter| voter.node, core.now.instant);
        let is_me = |voter: &Voter| voter.node == core.settings.node;
        voters.sort_by_key(|voter| (!is_me(voter), !core.usable(voter.node)));
        let owners = usize::from(wants.pr.resolve(scope.n, 0));
        let needed = match wants.everyone {
            true => voters.iter().filter(|v| core.askable(v.node, wants.insists)).count().max(1),
            false => wants.needed(scope.n).max(owners),
        };
        let quorum = Quorum { needed, owners };
        Self { key, wants, quorum, deadline, scope, voters }
    }

    /// Asks as many as are needed.
    pub(super) fn begin(&mut self, core: &mut Core, op: OpId) {
        for _ in 0..self.quorum.needed {
            self.ask_next(core, op);
        }
        let asked = self.voters.iter().filter(|voter| matches!(voter.vote, Vote::Asked(_)));
        let slowest = asked.filter_map(|voter| core.peers.p95(voter.node, core.now.instant)).max();
        if let Some(slowest) = slowest.filter(|slowest| *slowest < core.settings.attempt) {
            core.hedge_timer(op, slowest.max(HEDGE_AFTER_LEAST));
        }
    }

    /// Asks one more; returns whether there was one. While somebody is to send the object, others need
    /// only say which one they have.
    pub(super) fn ask_next(&mut self, core: &mut Core, op: OpId) -> bool {
        let full_is_coming = self.voters.iter().any(|voter| matches!(voter.vote, Vote::Asked(_)));
        self.ask_one(core, op, full_is_coming)
    }

    fn ask_one(&mut self, core: &mut Core, op: OpId, digest: bool) -> bool {
        let spare = self.voters.iter().position(|voter| voter.vote == Vote::Spare);
        let next = spare.or_else(|| self.find_fallback(core)).or_else(|| self.find_silent(core));
        let Some(index) = next else { return false };
        self.ask(core, op, index, digest);
        true
    }

    /// Somebody who stands in for an owner that cannot answer.
    fn find_fallback(&mut self, core: &Core) -> Option<usize> {
        let is_out = |voter: &&Voter| voter.is_owner && matches!(voter.vote, Vote::Failed(_));
        let out = self.voters.iter().filter(is_out).count();
        let fallbacks = self.voters.iter().filter(|voter| !voter.is_owner).count();
        if self.wants.strict || fallbacks >= out {
            return None;
        }
        let fallbacks = core.read_fallbacks(&self.key);
        let new = |node: &NodeId| self.voters.iter().all(|voter| voter.node != *node);
        let node = fallbacks.into_iter().find(new)?;
        self.voters.push(Voter::new(core, node, false));
        Some(self.voters.len() - 1)
    }

    /// An owner that is silent, and may answer yet, where the vote is lost without it.
    fn find_silent(&self, core: &Core) -> Option<usize> {
        if !self.wants.insists || self.verdict() != Verdict::Lost {
            return None;
        }
        self.voters.iter().position(|voter| {
            voter.is_owner
                && voter.vote == Vote::Failed(FailureCode::Unavailable)
                && voter.asked.len() < ASKED_MOST
                && core.askable(voter.node, true)
        })
    }

    fn ask(&mut self, core: &mut Core, op: OpId, index: usize, digest: bool) {
        let Voter { node, vote, is_owner, asked } = &mut self.voters[index];
        *vote = Vote::Asked(core.now.instant);
        // Whoever is in a slot has the key itself, and need not own the slot that is read.
        let fallback = !*is_owner && !core.participants(&self.key).contains(node);
        if *node == core.settings.node {
            if fallback {
                core.read_kept(&self.key, Reader::Op(op));
                return;
            }
            let key = core.stored_key(&self.key);
            core.steps.push_back((key, Step::Read(op)));
            return;
        }
        let slots = if fallback { 0 } else { core.fingerprint(&self.key) };
        let (digest, budget_ms) = (digest && !fallback, core.budget_ms(self.deadline));
        let read = Read { key: self.key.clone(), digest, fallback, slots, budget_ms };
        asked.push(core.send(op, *node, false, Request::Read(read)));
    }

    /// Takes a replica's answer in, to the request of a number.
    pub(super) fn answered(
        &mut self,
        core: &mut Core,
        op: OpId,
        (from, id): (NodeId, u64),
        response: Response,
    ) {
        let is_answer = |voter: &Voter| {
            voter.node == from && (from == core.settings.node || voter.asked.contains(&id))
        };
        let Some(index) = self.voters.iter().position(is_answer) else { return };
        match self.voters[index].vote {
            Vote::Asked(at) => core.peers.took(from, core.now.instant - at, core.now.instant),
            Vote::Failed(_) | Vote::Stale => {}
            _ => return, // A second answer, to a question that was asked twice.
        }
        let vote = match response {
            Response::Held(held) => self.vote(core, from, held),
            Response::Failed(failure) if failure.code == FailureCode::Stale => {
                core.exchange(from);
                Vote::Stale
            }
            Response::Failed(failure) => Vote::Failed(failure.code),
            _ => Vote::Failed(FailureCode::Invalid),
        };
        let counts = matches!(vote, Vote::Holds(_) | Vote::Digest(_));
        self.voters[index].vote = vote;
        if !counts {
            self.ask_next(core, op);
        }
        self.match_digests(core, op);
    }

    /// States have been exchanged: goes by the owners of now, and asks again those that went by
    /// others. What an owner has answered stays.
    pub(super) fn refresh(&mut self, core: &mut Core, op: OpId) {
        if core.reads(&self.key) != self.scope {
            // Other slots are read now. Whoever has answered may own one of them too, and have
            // answered before it had everything that belongs there.
            *self = Self::new(core, self.key.clone(), self.wants, self.deadline);
            self.begin(core, op);
            return;
        }
        let owners = core.owners(&self.key);
        self.voters.retain(|voter| !voter.is_owner || owners.contains(&voter.node));
        for node in owners {
            match self.voters.iter_mut().find(|voter| voter.node == node) {
                None => self.voters.push(Voter::new(core, node, true)),
                Some(voter) if !voter.is_owner => {
                    *voter = Voter::new(core, node, true);
                }
                Some(voter) if voter.vote == Vote::Stale => voter.vote = Vote::Spare,
                Some(_) => {}
            }
        }
        let is_open = |voter: &&Voter| {
            matches!(voter.vote, Vote::Asked(_) | Vote::Digest(_) | Vote::Holds(_) | Vote::Stale)
        };
        while self.voters.iter().filter(is_open).count() < self.quorum.needed
            && self.ask_next(core, op)
        {}
    }

    /// The first answer is later than it usually is: one more is asked, and for the object, which may be
    /// what is late.
    pub(super) fn hedge(&mut self, core: &mut Core, op: OpId) {
        let awaited = self.voters.iter().any(|voter| matches!(voter.vote, Vote::Asked(_)));
        let spare = self.voters.iter().any(|voter| voter.vote == Vote::Spare);
        if awaited && spare && self.ask_one(core, op, false) {
            core.counters.early_hedges += 1;
        }
    }

    fn vote(&self, core: &mut Core, from: NodeId, held: Held) -> Vote {
        // Where there is only one replica nobody knows better: what it has forgotten is gone.
        let owners = self.voters.iter().filter(|voter| voter.is_owner).count();
        let amnesiac = held.amnesiac && owners > 1;
        let object = match held.object {
            HeldObject::Missing => Object::new(),
            HeldObject::Digest(digest) if !amnesiac => return Vote::Digest(digest),
            // An amnesiac gives the object: its digest cannot be compared with anything worth having.
            HeldObject::Digest(_) => return Vote::Failed(FailureCode::Invalid),
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
        if !self.has_digests() {
            return;
        }
        let known = self.voters.iter().filter_map(|voter| match &voter.vote {
            Vote::Holds(object) => Some((object.digest(&self.key), object.clone())),
            _ => None,
        });
        let known: Vec<(u128, Object)> = known.collect();
        let full_is_coming = self.voters.iter().any(|voter| matches!(voter.vote, Vote::Asked(_)));
        for index in 0..self.voters.len() {
            let Vote::Digest(digest) = self.voters[index].vote else { continue };
            if let Some((_, object)) = known.iter().find(|(known, _)| *known == digest) {
                self.voters[index].vote = Vote::Holds(object.clone());
            } else if !known.is_empty() || !full_is_coming {
                self.ask(core, op, index, false);
            }
        }
    }

    fn has_digests(&self) -> bool {
        self.voters.iter().any(|voter| matches!(voter.vote, Vote::Digest(_)))
    }

    /// What was under way to `node` is lost.
    pub(super) fn lost(&mut self, core: &mut Core, op: OpId, node: NodeId) {
        for index in 0..self.voters.len() {
            let Voter { node: voter, vote, .. } = &mut self.voters[index];
            if *voter == node && matches!(vote, Vote::Asked(_) | Vote::Stale) {
                *vote = Vote::Failed(FailureCode::Unavailable);
                self.ask_next(core, op);
            }
        }
        self.match_digests(core, op);
    }

    /// Somebody is slow: asks another, or the same again where there is no other.
    pub(super) fn attempt(&mut self, core: &mut Core, op: OpId) {
        let is_late = |vote: &Vote| matches!(vote, Vote::Asked(_) | Vote::Stale);
        let slow = (0..self.voters.len()).filter(|index| is_late(&self.voters[*index].vote));
        let slow: Vec<usize> = slow.collect();
        for index in &slow {
            let Voter { node, vote, .. } = &self.voters[*index];
            core.slow(*node);
            // So long at least. Whoever is always that late would not be measured otherwise: its
            // answers come when the read is over, and unmeasured it would be asked like any other.
            if let Vote::Asked(at) = vote {
                core.peers.took(*node, core.now.instant - *at, core.now.instant);
            }
        }
        if self.ask_one(core, op, false) {
            core.counters.hedged_reads += 1;
            return;
        }
        // Whoever was to send the object is late: so one of those who have it is asked for it.
        let holds = self.voters.iter().any(|voter| matches!(voter.vote, Vote::Holds(_)));
        let digest = |voter: &Voter| matches!(voter.vote, Vote::Digest(_));
        if let Some(index) = self.voters.iter().position(digest).filter(|_| !holds) {
            self.ask(core, op, index, false);
        }
        for index in slow {
            let Voter { node, vote, .. } = &mut self.voters[index];
            // This node's own disk is not asked twice: it will answer.
            if *node == core.settings.node {
                continue;
            }
            if core.usable(*node) {
                self.ask(core, op, index, false);
            } else {
                *vote = Vote::Failed(FailureCode::Unavailable);
                self.ask_next(core, op);
            }
        }
    }

    /// Asks everyone who has not been asked.
    pub(super) fn ask_all(&mut self, core: &mut Core, op: OpId) {
        while self.ask_next(core, op) {}
    }

    /// Is content with as many answers as its level says, where everyone was asked.
    pub(super) fn settle_for_level(&mut self) {
        self.wants.everyone = false;
        self.quorum.needed = self.quorum.needed.min(self.wants.needed(self.scope.n));
    }

    /// Whose owners are asked.
    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    pub(super) fn verdict(&self) -> Verdict {
        let Quorum { needed, owners } = self.quorum;
        let is_open = |voter: &&Voter| {
            matches!(voter.vote, Vote::Spare | Vote::Asked(_) | Vote::Digest(_) | Vote::Stale)
        };
        let (confirmed_owners, fallbacks) = self.counts();
        let open_owners = self.voters.iter().filter(|v| v.is_owner).filter(is_open).count();
        let by_owners = Tally { confirmed: confirmed_owners, open: open_owners };
        if self.wants.strict {
            return by_owners.verdict(needed.max(owners));
        }
        let mut tally = by_owners;
        tally.open += self.voters.iter().filter(|v| !v.is_owner).filter(is_open).count();
        match self.is_informed() {
            true => tally.confirmed += fallbacks,
            // They will count if somebody else knows something.
            false if tally.open > 0 => tally.open += fallbacks,
            false => {}
        }
        match (by_owners.verdict(owners), tally.verdict(needed)) {
            (Verdict::Won, Verdict::Won) => Verdict::Won,
            (Verdict::Lost, _) | (_, Verdict::Lost) => Verdict::Lost,
            _ => Verdict::Pending,
        }
    }

    /// Owners and fallbacks that have answered.
    fn counts(&self) -> (usize, usize) {
        let holds = self.voters.iter().filter(|voter| matches!(voter.vote, Vote::Holds(_)));
        let (owners, fallbacks): (Vec<_>, Vec<_>) = holds.partition(|voter| voter.is_owner);
        (owners.len(), fallbacks.len())
    }

    /// Whether anybody has answered who knows something of the key: an owner, or a fallback that
    /// keeps something.
    fn is_informed(&self) -> bool {
        self.voters.iter().any(|voter| match &voter.vote {
            Vote::Holds(object) => voter.is_owner || !object.is_empty(),
            _ => false,
        })
    }

    /// Nobody who was asked still owes an answer.
    pub(super) fn is_settled(&self) -> bool {
        let owes =
            |voter: &Voter| matches!(voter.vote, Vote::Asked(_) | Vote::Digest(_) | Vote::Stale);
        !self.voters.iter().any(owes)
    }

    /// The replicas whose answers count, and how many of them stand in for others.
    pub(super) fn confirmed(&self) -> (Vec<NodeId>, usize) {
        let informed = self.is_informed();
        let counts =
            |voter: &&Voter| matches!(voter.vote, Vote::Holds(_)) && (voter.is_owner || informed);
        let nodes: Vec<NodeId> = self.voters.iter().filter(counts).map(|v| v.node).collect();
        let (owners, _) = self.counts();
        let fallbacks = nodes.len() - owners;
        (nodes, fallbacks)
    }

    /// Everything that was answered, merged; of a bucket that keeps the latest, only that.
    pub(super) fn merged(&self, core: &Core) -> Object {
        let keeps_latest = core.keeps_latest(&self.key);
        let mut merged = Object::new();
        for voter in &self.voters {
            if let Vote::Holds(object) | Vote::Amnesiac(object) = &voter.vote {
                match keeps_latest {
                    true => drop(merged.merge_latest(object)),
                    false => drop(merged.merge(object)),
                }
            }
        }
        merged
    }

    /// Those who have answered with something.
    pub(super) fn holders(&self) -> Vec<NodeId> {
        let holds = |voter: &&Voter| match &voter.vote {
            Vote::Holds(object) | Vote::Amnesiac(object) => !object.is_empty(),
            _ => false,
        };
        self.voters.iter().filter(holds).map(|voter| voter.node).collect()
    }

    /// The owners that have answered with something else than `merged`.
    pub(super) fn behind(&self, merged: &Object) -> Vec<NodeId> {
        let behind = self.voters.iter().filter(|voter| match &voter.vote {
            Vote::Holds(object) | Vote::Amnesiac(object) => voter.is_owner && object != merged,
            _ => false,
        });
        behind.map(|voter| voter.node).collect()
    }

    /// The owners whose copy is damaged, once every other one has answered: then what was
    /// merged is all that can be had, and may replace the damaged copy, be it nothing. One of them may be
    /// amnesiac, as long as another is not: it could not become whole while this copy is damaged. Where
    /// there is no other, nothing replaces it: that would be a deletion nobody has asked for.
    pub(super) fn to_restore(&self) -> Vec<NodeId> {
        let corrupt = Vote::Failed(FailureCode::Corrupt);
        let owners = self.voters.iter().filter(|voter| voter.is_owner);
        let (damaged, others): (Vec<_>, Vec<_>) = owners.partition(|voter| voter.vote == corrupt);
        let has_answered =
            |voter: &&Voter| matches!(voter.vote, Vote::Holds(_) | Vote::Amnesiac(_));
        let is_sure = |voter: &&Voter| matches!(voter.vote, Vote::Holds(_));
        match others.iter().all(has_answered) && others.iter().any(is_sure) {
            true => damaged.iter().map(|voter| voter.node).collect(),
            false => Vec::new(),
        }
    }

    /// Whether some replica has said that its copy is damaged.
    pub(super) fn found_damage(&self) -> bool {
        let corrupt = Vote::Failed(FailureCode::Corrupt);
        self.voters.iter().any(|voter| voter.vote == corrupt)
    }

    pub(super) fn voters(&self) -> &[Voter] {
        &self.voters
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn needed(&self) -> usize {
        let Quorum { needed, owners } = self.quorum;
        needed.max(owners)
    }
}

impl Wants {
    fn needed(&self, n: u8) -> usize {
        usize::from(self.r.resolve(n, n / 2 + 1))
    }
}

impl Voter {
    fn new(core: &Core, node: NodeId, is_owner: bool) -> Self {
        let vote = match core.usable(node) {
            true => Vote::Spare,
            false => Vote::Failed(FailureCode::Unavailable),
        };
        Self { node, vote, is_owner, asked: Vec::new() }
    }
}
