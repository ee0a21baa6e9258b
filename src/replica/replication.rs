//! Sending an object to everybody in a key's slots, and seeing to it that it is kept for those
//! who are away.
//!
//! ```text
//!   slot 0   owner A                A has it                     the slot is covered
//!   slot 1   owner B successor E    B and E have it              the slot is covered
//!   slot 2   owner C                C is away: D keeps it for C  a fallback stands in
//! ```
//!
//! Where its bucket moves to other slots, it needs as much in those as in the ones it comes from
//! (`coverage`). A strict write counts covered slots; a sloppy one also counts each fallback once, on whose disk
//! it stands for somebody else. Who has not confirmed when the operation ends has it kept for it
//! here, on the coordinator: that counts for nobody, and costs nobody's patience.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::core::{Core, Event, OpId};
use super::coverage::{Coverage, Needs, both};
use super::keys::Step;
use super::quorum::Verdict;
use crate::causality::Object;
use crate::ids::NodeId;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::messages::{FailureCode, Purpose, Request, Response, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    Awaited,
    Stored { fsynced: bool },
    Refused,
}

impl Ack {
    pub(super) fn is_stored(self) -> bool {
        matches!(self, Self::Stored { .. })
    }
}

/// Somebody who keeps the object for a member that is away.
#[derive(Debug)]
struct StandIn {
    node: NodeId,
    owner: NodeId,
    /// The number of what it was asked; 0 where it is this node. It may be in a slot as well, and
    /// answer twice.
    asked: u64,
    ack: Ack,
}

/// An object on its way.
#[derive(Debug)]
pub(super) struct Replication {
    key: Key,
    object: Bytes,
    needs: Needs,
    deadline: Instant,
    /// What it needs: in the slots that are read, and where the bucket moves to or comes from.
    parts: Vec<Coverage>,
    /// Everybody in a slot.
    members: BTreeMap<NodeId, Ack>,
    stand_ins: Vec<StandIn>,
    /// For whom this node has staged it, if not for itself.
    kept_for: Option<NodeId>,
    /// The slots it was last sent by, and who goes by others.
    sent_by: u64,
    stale: BTreeSet<NodeId>,
}

impl Replication {
    /// Sends `object`, which this node has staged under its own name or, if it stands in, under
    /// that of `kept_for`.
    pub(super) fn begin(
        core: &mut Core,
        op: OpId,
        (key, object): (Key, Bytes),
        needs: Needs,
        deadline: Instant,
        kept_for: Option<NodeId>,
    ) -> Self {
        let parts = Coverage::of(core, &key, needs);
        let members = core.participants(&key).into_iter();
        let members = members.map(|node| (node, Ack::Awaited)).collect();
        let mut stand_ins = Vec::new();
        if let Some(owner) = kept_for {
            let (node, ack) = (core.settings.node, Ack::Awaited);
            stand_ins.push(StandIn { node, owner, asked: 0, ack });
        }
        let (sent_by, stale) = (0, BTreeSet::new());
        let mut this = Self {
            key,
            object,
            needs,
            deadline,
            parts,
            members,
            stand_ins,
            kept_for,
            sent_by,
            stale,
        };
        let targets: Vec<NodeId> = this.awaited().collect();
        this.send(core, op, targets);
        let away: Vec<NodeId> = this.awaited().filter(|node| !core.usable(*node)).collect();
        for owner in away {
            this.stand_in(core, op, owner);
        }
        this
    }

    /// Sends it to those of `targets`, who are in slots and have not confirmed, who can be reached.
    fn send(&mut self, core: &mut Core, op: OpId, targets: Vec<NodeId>) {
        let slots = core.fingerprint(&self.key);
        self.sent_by = slots;
        let are_usable = targets.iter().all(|node| core.usable(*node));
        let insists = !are_usable && self.parts.iter().any(|part| part.insists(core, &self.key));
        for node in targets {
            if node != core.settings.node && core.askable(node, insists) {
                let purpose = Purpose::Replicate;
                core.send(op, node, false, self.write(core, purpose, slots));
            }
        }
    }

    fn write(&self, core: &Core, purpose: Purpose, slots: u64) -> Request {
        let (key, object) = (self.key.clone(), self.object.clone());
        let budget_ms = core.budget_ms(self.deadline);
        Request::Write(Write { key, object, purpose, slots, budget_ms })
    }

    /// Has it kept for `owner` by the next fallback that has nothing of this key to keep yet, or
    /// else here.
    fn stand_in(&mut self, core: &mut Core, op: OpId, owner: NodeId) {
        let stands = |s: &StandIn| s.owner == owner && s.ack != Ack::Refused;
        if self.stand_ins.iter().any(stands) {
            return;
        }
        let me = core.settings.node;
        let fallbacks = match self.needs.strict {
            true => Vec::new(),
            false => core.stand_ins(&self.key, owner),
        };
        let is_new = |node: &NodeId| self.stand_ins.iter().all(|s| s.node != *node) && *node != me;
        match fallbacks.into_iter().find(is_new) {
            Some(node) => {
                let asked = core.send(op, node, false, self.write(core, Purpose::Hint(owner), 0));
                self.stand_ins.push(StandIn { node, owner, asked, ack: Ack::Awaited });
            }
            None => {
                self.keep(core, Some(op), owner);
                self.stand_ins.push(StandIn { node: me, owner, asked: 0, ack: Ack::Awaited });
            }
        }
    }

    /// Has it kept for `owner` on this node.
    fn keep(&self, core: &mut Core, op: Option<OpId>, owner: NodeId) {
        let object = Object::decode(self.object.clone()).expect("this node has encoded it");
        let key = core.stored_key(&self.key).kept_for(owner);
        core.steps.push_back((key, Step::Keep { object, op }));
    }

    pub(super) fn event(&mut self, core: &mut Core, op: OpId, event: Event) {
        let me = core.settings.node;
        let fsynced = core.settings.fsync;
        match event {
            Event::Committed(Ok(())) => self.committed(me, Ack::Stored { fsynced }),
            Event::Committed(Err(_)) => self.committed(me, Ack::Refused),
            Event::Kept { owner, kept } => {
                let ack = if kept { Ack::Stored { fsynced } } else { Ack::Refused };
                let mine = |s: &&mut StandIn| s.node == me && s.owner == owner;
                if let Some(stand_in) = self.stand_ins.iter_mut().find(mine) {
                    stand_in.ack = ack;
                }
            }
            Event::Answer { from, id, response: Response::Stored(stored) } => {
                self.confirm(from, id, Ack::Stored { fsynced: stored.fsynced });
            }
            Event::Answer { from, id, response: Response::Failed(failure) } => match failure.code {
                FailureCode::Busy | FailureCode::Timeout
                    if self.members.contains_key(&from) && !self.is_hint(id) => {}
                FailureCode::Stale => {
                    self.stale.insert(from);
                    core.exchange(from);
                }
                _ => {
                    self.confirm(from, id, Ack::Refused);
                    self.replace(core, op, from);
                }
            },
            Event::Lost(node) => {
                let stand_ins = self.stand_ins.iter_mut().filter(|s| s.node == node);
                for stand_in in stand_ins.filter(|s| s.ack == Ack::Awaited) {
                    stand_in.ack = Ack::Refused;
                }
                self.replace(core, op, node);
            }
            Event::Refreshed => self.refresh(core, op),
            // A late answer to the reading half.
            _ => {}
        }
    }

    /// Whether something of this number was to be kept for somebody else.
    fn is_hint(&self, id: u64) -> bool {
        id != 0 && self.stand_ins.iter().any(|stand_in| stand_in.asked == id)
    }

    fn confirm(&mut self, from: NodeId, id: u64, ack: Ack) {
        if self.is_hint(id) {
            let asked = |s: &&mut StandIn| s.asked == id && s.ack == Ack::Awaited;
            if let Some(stand_in) = self.stand_ins.iter_mut().find(asked) {
                stand_in.ack = ack;
            }
            return;
        }
        if let Some(held) = self.members.get_mut(&from).filter(|held| **held == Ack::Awaited) {
            *held = ack;
        }
    }

    /// What was staged here first is committed, or is not. Where this node stands in, that is not its own
    /// record, though it may be in a slot by now.
    fn committed(&mut self, me: NodeId, ack: Ack) {
        let held = match self.kept_for {
            None => self.members.get_mut(&me),
            Some(owner) => {
                let its = |s: &&mut StandIn| s.node == me && s.owner == owner && s.asked == 0;
                self.stand_ins.iter_mut().find(its).map(|stand_in| &mut stand_in.ack)
            }
        };
        if let Some(held) = held.filter(|held| **held == Ack::Awaited) {
            *held = ack;
        }
    }

    /// `node` will not confirm: somebody else stands in for whom it was to be.
    fn replace(&mut self, core: &mut Core, op: OpId, node: NodeId) {
        let mut owners: Vec<NodeId> = self
            .stand_ins
            .iter()
            .filter(|s| s.node == node && s.ack == Ack::Refused)
            .map(|s| s.owner)
            .collect();
        if self.members.get(&node).is_some_and(|ack| !ack.is_stored()) {
            owners.push(node);
        }
        for owner in owners {
            self.stand_in(core, op, owner);
        }
    }

    /// Some are silent: their breakers hear of it, and it is sent again. Where the write is still
    /// waiting, somebody stands in.
    pub(super) fn send_again(&mut self, core: &mut Core, op: OpId) {
        let me = core.settings.node;
        let silent: Vec<NodeId> = self.awaited().filter(|node| *node != me).collect();
        core.counters.resent_writes += silent.len() as u64;
        let waiting = self.verdict() == Verdict::Pending;
        for node in silent {
            core.slow(node);
            if waiting || !core.usable(node) {
                self.stand_in(core, op, node);
            }
        }
        let late = self.stand_ins.iter_mut().filter(|s| s.ack == Ack::Awaited && s.node != me);
        let late: Vec<NodeId> = late
            .map(|stand_in| {
                stand_in.ack = Ack::Refused;
                stand_in.node
            })
            .collect();
        for node in late {
            core.slow(node);
            self.replace(core, op, node);
        }
        let targets: Vec<NodeId> = self.awaited().collect();
        self.send(core, op, targets);
    }

    /// States have been exchanged: goes by the slots of now. Whoever has confirmed has it; where the slots
    /// are the same, whoever has not refused them is not sent it again.
    fn refresh(&mut self, core: &mut Core, op: OpId) {
        self.parts = Coverage::of(core, &self.key, self.needs);
        let members = core.participants(&self.key);
        self.members.retain(|node, _| members.contains(node));
        for node in members {
            self.members.entry(node).or_insert(Ack::Awaited);
        }
        let is_other = core.fingerprint(&self.key) != self.sent_by;
        let stale = std::mem::take(&mut self.stale);
        let targets = self.awaited().filter(|node| is_other || stale.contains(node)).collect();
        self.send(core, op, targets);
    }

    /// The operation ends: for whoever has not confirmed, and for whom nobody stands in, it is
    /// kept here.
    pub(super) fn finish(&self, core: &mut Core) {
        let covered =
            |node: &NodeId| self.stand_ins.iter().any(|s| s.owner == *node && s.ack.is_stored());
        for (node, ack) in &self.members {
            if !ack.is_stored() && *node != core.settings.node && !covered(node) {
                self.keep(core, None, *node);
            }
        }
        // This node stood in, and is in a slot by now: its own record has nothing of this yet.
        let me = core.settings.node;
        if self.kept_for.is_some() && self.members.contains_key(&me) {
            let object = Object::decode(self.object.clone()).expect("this node has encoded it");
            let (purpose, from) = (Purpose::Repair, vec![me]);
            core.steps
                .push_back((core.stored_key(&self.key), Step::Mend { object, purpose, from }));
        }
    }

    fn awaited(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().filter(|(_, ack)| **ack == Ack::Awaited).map(|(node, _)| *node)
    }

    /// Whether anybody still owes an answer who can give one.
    pub(super) fn is_open(&self, core: &Core) -> bool {
        let stands_for =
            |node: NodeId| self.stand_ins.iter().any(|s| s.owner == node && s.ack.is_stored());
        let strict = self.needs.strict;
        self.awaited().any(|node| core.askable(node, strict) && !stands_for(node))
            || self.stand_ins.iter().any(|s| s.ack == Ack::Awaited)
    }

    /// Who keeps it for somebody else, or is to, each with what came of it.
    fn acks(&self) -> Vec<(NodeId, Ack)> {
        self.stand_ins.iter().map(|stand_in| (stand_in.node, stand_in.ack)).collect()
    }

    pub(super) fn verdict(&self) -> Verdict {
        let acks = self.acks();
        let verdicts = self.parts.iter().map(|part| part.verdict(&self.members, &acks));
        verdicts.reduce(both).unwrap_or(Verdict::Lost)
    }

    /// How many confirmations count, in the slots where it lacks most.
    pub(super) fn count(&self) -> usize {
        let acks = self.acks();
        let counts = self.parts.iter().map(|part| part.confirmed(&self.members, &acks).0.len());
        counts.min().unwrap_or(0)
    }

    /// Confirmations it needs in the slots that are read.
    pub(super) fn needed(&self) -> usize {
        self.parts.first().map_or(0, Coverage::needed)
    }

    /// Replicas of the slots that are read.
    pub(super) fn n(&self) -> u8 {
        self.parts.first().map_or(0, |part| part.scope.n)
    }

    /// Who has it: the owner (or only successor) of each covered slot, then others; and how many of
    /// the latter there are. Of several scopes, in the one where it has fewest slots: a receipt must
    /// not promise more than the reads of a moment later will find.
    pub(super) fn confirmed(&self) -> (Vec<NodeId>, usize) {
        let acks = self.acks();
        let confirmed = self.parts.iter().map(|part| part.confirmed(&self.members, &acks));
        let fewest = confirmed.min_by_key(|(nodes, others)| nodes.len() - others);
        fewest.unwrap_or_default()
    }

    /// Of those who have it, how many have it synced.
    pub(super) fn fsynced(&self) -> u8 {
        let (nodes, _) = self.confirmed();
        let synced = Ack::Stored { fsynced: true };
        let members = nodes.iter().filter(|node| self.members.get(node) == Some(&synced)).count();
        let kept =
            |node: &&NodeId| self.stand_ins.iter().any(|s| s.node == **node && s.ack == synced);
        let fallbacks = nodes.iter().filter(|node| !self.members.contains_key(node));
        (members + fallbacks.filter(kept).count()) as u8
    }
}
