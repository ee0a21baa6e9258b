//! What a write needs in the slots of one scope, and how much of that it has.
//!
//! While a bucket moves to other slots, a write needs a quorum of those it comes from and of those
//! it goes to; each is counted here by itself. Who is in both counts in both.

use std::collections::BTreeMap;

use super::core::{Core, participants};
use super::quorum::{Tally, Verdict};
use super::replication::Ack;
use crate::ids::{NodeId, Scope};
use crate::key::Key;
use crate::membership::Slot;
use crate::wire::messages::{Failure, FailureCode, Level};

/// What a write needs before it is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Confirmations.
    pub(super) w: Level,
    /// Of those, slots covered by those who are in them.
    pub(super) pw: Level,
    /// Fallbacks do not count.
    pub(super) strict: bool,
}

/// The slots of one scope, and how many of them a write needs.
#[derive(Debug)]
pub(super) struct Coverage {
    pub(super) scope: Scope,
    /// How many there are, and everybody in them.
    width: usize,
    everybody: Vec<NodeId>,
    /// Those that count.
    slots: Vec<Slot>,
    all: usize,
    least_slots: usize,
    strict: bool,
}

impl Coverage {
    /// All that a write of `key` needs now: first in the slots that are read.
    pub(super) fn of(core: &Core, key: &Key, needs: Needs) -> Vec<Self> {
        let Some(scopes) = core.scopes(key) else { return Vec::new() };
        let coverage = |scope: Scope| {
            let all = core.slots(key, scope);
            // Another slot without an owner counts for nothing: who takes it copies from the other
            // owners.
            let slots = all.iter().filter(|slot| scopes.counts(scope, slot)).copied();
            let least_slots = usize::from(needs.pw.resolve(scope.n, 0));
            let w = usize::from(needs.w.resolve(scope.n, scope.n / 2 + 1));
            Self {
                scope,
                width: all.len(),
                everybody: participants(all),
                slots: slots.collect(),
                all: w.max(least_slots),
                least_slots,
                strict: needs.strict,
            }
        };
        scopes.all().map(coverage).collect()
    }

    /// Confirmations it needs.
    pub(super) fn needed(&self) -> usize {
        self.all
    }

    /// The slots covered by those who are in them; and how many may still be.
    fn covered(&self, members: &BTreeMap<NodeId, Ack>) -> Tally {
        let mut tally = Tally::default();
        for slot in &self.slots {
            let in_it = participants(std::slice::from_ref(slot));
            let acks: Vec<Ack> = in_it.iter().map(|node| members[node]).collect();
            if acks.iter().all(|ack| ack.is_stored()) {
                tally.confirmed += 1;
            } else if !acks.contains(&Ack::Refused) {
                tally.open += 1;
            }
        }
        tally
    }

    fn is_in(&self, node: NodeId) -> bool {
        self.everybody.contains(&node)
    }

    /// Those who keep it for somebody, or may still, and are in none of these slots. Each counts
    /// once.
    fn others(&self, acks: &[(NodeId, Ack)], of: impl Fn(Ack) -> bool) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> =
            acks.iter().filter(|(node, ack)| of(*ack) && !self.is_in(*node)).map(|a| a.0).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    pub(super) fn verdict(
        &self,
        members: &BTreeMap<NodeId, Ack>,
        acks: &[(NodeId, Ack)],
    ) -> Verdict {
        let slots = self.covered(members);
        if self.strict {
            return slots.verdict(self.all.max(self.least_slots));
        }
        let stored = self.others(acks, Ack::is_stored);
        let awaited = self.others(acks, |ack| ack == Ack::Awaited);
        let mut all = slots;
        all.confirmed += stored.len();
        all.open += awaited.iter().filter(|node| !stored.contains(node)).count();
        both(slots.verdict(self.least_slots), all.verdict(self.all))
    }

    /// Who has it: the owner (or only successor) of each covered slot, then others; and how many
    /// of the latter there are.
    pub(super) fn confirmed(
        &self,
        members: &BTreeMap<NodeId, Ack>,
        acks: &[(NodeId, Ack)],
    ) -> (Vec<NodeId>, usize) {
        let mut nodes: Vec<NodeId> = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let in_it = participants(std::slice::from_ref(slot));
            if in_it.iter().all(|node| members[node].is_stored()) {
                nodes.extend(in_it.first());
            }
        }
        let others = match self.strict {
            true => Vec::new(),
            false => self.others(acks, Ack::is_stored),
        };
        nodes.extend(&others);
        (nodes, others.len())
    }

    /// Whether it has nobody else to go to than some who are silent. Silence is not absence: it is sent
    /// to them too.
    pub(super) fn insists(&self, core: &Core, key: &Key) -> bool {
        self.strict || self.check(core, key, false).is_err()
    }

    /// Refuses, before anything is begun, a write that too few can be reached for.
    fn check_reachable(&self, core: &Core, key: &Key) -> Result<(), Failure> {
        match self.insists(core, key) {
            true => self.check(core, key, true),
            false => Ok(()),
        }
    }

    /// Whether enough can be reached, with those who are silent if it `insists`.
    fn check(&self, core: &Core, key: &Key, insists: bool) -> Result<(), Failure> {
        let reachable = |slot: &&Slot| {
            let participants = participants(std::slice::from_ref(slot));
            participants.iter().all(|node| core.askable(*node, insists))
        };
        let (covered, width) = (self.slots.iter().filter(reachable).count(), self.width);
        if covered >= self.all {
            return Ok(());
        }
        if self.strict || covered < self.least_slots {
            let needed = if self.strict { self.all } else { self.least_slots };
            return Err(unavailable(needed, covered, width));
        }
        // This node is among the covered, or stands in.
        let elsewhere = core.participants(key).into_iter();
        let elsewhere = elsewhere.filter(|node| !self.is_in(*node) && core.usable(*node));
        let fallbacks = core.fallbacks(key).len() + elsewhere.count();
        let needed = self.all;
        if covered + fallbacks >= needed {
            return Ok(());
        }
        let message = format!(
            "{covered} of {width} primaries and {fallbacks} fallbacks reachable, {needed} needed; \
             nothing was written"
        );
        let mut failure = Failure::not_applied(FailureCode::Unavailable, message);
        failure.needed = needed as u8;
        Err(failure)
    }
}

/// Refuses, before anything is begun, a write that too few can be reached for.
pub(super) fn check_reachable(core: &Core, key: &Key, needs: Needs) -> Result<(), Failure> {
    Coverage::of(core, key, needs).iter().try_for_each(|part| part.check_reachable(core, key))
}

/// Where two votes stand that must both be won.
pub(super) fn both(one: Verdict, other: Verdict) -> Verdict {
    match (one, other) {
        (Verdict::Won, Verdict::Won) => Verdict::Won,
        (Verdict::Lost, _) | (_, Verdict::Lost) => Verdict::Lost,
        _ => Verdict::Pending,
    }
}

fn unavailable(needed: usize, reachable: usize, replicas: usize) -> Failure {
    let message = if needed > replicas {
        format!(
            "W={needed} asks for more replicas than there are ({replicas}); lower W or add members"
        )
    } else {
        format!(
            "{reachable} of {replicas} primaries reachable, {needed} needed; nothing was written"
        )
    };
    let mut failure = Failure::not_applied(FailureCode::Unavailable, message);
    failure.needed = needed as u8;
    failure
}
