//! Data of partitions that this node has no part in any more, scope by scope.
//!
//! Where it stands in no slot of a partition at all, everything of the partition is deleted; where it
//! stands in slots of other scopes, what belongs to buckets at home in this one and not moving to
//! slots in which it stands. It is deleted once nothing has changed about the partition for a while, or at once when this
//! node becomes a successor in it: what is left from an earlier time may hold keys whose deletion
//! has since been forgotten by everybody else, and must not come back.
//!
//! A node deletes what it has handed over itself, or never owned. Where it lost a slot otherwise
//! (two sides of a network partition gave it to two members, and the registers merged), it may
//! have the only copy of something: such a partition is *set aside*, durably, and kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desk::Desk;
use super::notes::Notes;
use super::{Effect, Notice};
use crate::ids::{Partition, Scope};
use crate::membership::{Standing, Topology};
use crate::time::Instant;

/// How long to wait after a partition could not be cleared.
const AGAIN: Duration = Duration::from_secs(1);

/// From one deletion to the next: a shard waits for the disk in each, and what was deleted is merged
/// away behind it.
pub(super) const APART: Duration = Duration::from_millis(250);

/// What is deleted at once: of a partition, the buckets of a scope.
type Left = (Partition, Scope);

pub(super) struct Leftovers {
    /// What is to be cleared, and when.
    due: BTreeMap<Left, Instant>,
    by_time: BTreeSet<(Instant, Left)>,
    set_aside: BTreeSet<Partition>,
    clearing: BTreeSet<Left>,
    /// Nothing is cleared for its time alone before this.
    free_at: Instant,
}

impl Leftovers {
    /// Whether anything is left of a partition, only the disk knows: at the start all are due in
    /// which this node does not stand. Where it is not known what was set aside, `None`, all of
    /// them are.
    pub(super) fn new(desk: &Desk, set_aside: Option<Vec<Partition>>) -> Self {
        let mut leftovers = Self {
            due: BTreeMap::new(),
            by_time: BTreeSet::new(),
            set_aside: set_aside.iter().flatten().copied().collect(),
            clearing: BTreeSet::new(),
            free_at: Instant(0),
        };
        let stood = stands_in(desk, &desk.topology);
        for left in all(&desk.topology).filter(|left| !stood.contains(left)) {
            if set_aside.is_none() {
                leftovers.set_aside.insert(left.0);
            }
            leftovers.delay(desk, left);
        }
        leftovers
    }

    pub(super) fn set_aside(&self) -> Vec<Partition> {
        self.set_aside.iter().copied().collect()
    }

    pub(super) fn waiting(&self) -> u32 {
        let partitions: BTreeSet<Partition> = self.due.keys().map(|(of, _)| *of).collect();
        partitions.len() as u32
    }

    fn delay(&mut self, desk: &Desk, left: Left) {
        if !self.set_aside.contains(&left.0) {
            self.schedule(left, Some(desk.now + desk.settings.cleanup_after));
        }
    }

    fn schedule(&mut self, left: Left, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.due.insert(left, at),
            None => self.due.remove(&left),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, left));
        }
        if let Some(at) = at {
            self.by_time.insert((at, left));
        }
    }

    /// The slots have changed.
    pub(super) fn topology(&mut self, desk: &mut Desk, before: &Topology, notes: &Notes) {
        let now = desk.topology.clone();
        self.notice_losses(desk, before, notes);
        let (stood, stands) = (stands_in(desk, before), stands_in(desk, &now));
        for left in stands.difference(&stood) {
            self.clear_first(desk, *left);
        }
        // A bucket has come home to these, and what others have of it is left.
        let come: BTreeSet<Scope> = Desk::scopes(&now)
            .filter(|scope| now.is_home(*scope) && !before.is_home(*scope))
            .collect();
        let is_gone = |(_, scope): &&Left| !now.state().slots.contains_key(scope);
        let gone: BTreeSet<Partition> = stood.iter().filter(is_gone).map(|(of, _)| *of).collect();
        for left in all(&now).filter(|left| !stands.contains(left)) {
            let (partition, scope) = left;
            let changed =
                || before.fingerprint(partition, scope) != now.fingerprint(partition, scope);
            let is_left =
                stood.contains(&left) || come.contains(&scope) || gone.contains(&partition);
            if is_left || self.due.contains_key(&left) && changed() {
                self.delay(desk, left);
            }
        }
        let exists = |(_, scope): &Left| now.state().slots.contains_key(scope);
        let ended: Vec<Left> = self.due.keys().filter(|left| !exists(left)).copied().collect();
        for left in ended {
            self.schedule(left, None);
        }
    }

    /// This node is in a slot now in which it was not before: what is left of an earlier time goes
    /// first. A bucket that arrives may have been left where it comes from.
    fn clear_first(&mut self, desk: &mut Desk, (partition, scope): Left) {
        self.take_out(desk, (partition, scope));
        if let Some(from) = desk.topology.comes_from(scope) {
            let left = (partition, from);
            let was_due = self.due.get(&left).copied();
            self.take_out(desk, left);
            // Of the other buckets there, something may be left all the same.
            self.schedule(left, was_due);
        }
    }

    fn take_out(&mut self, desk: &mut Desk, left: Left) {
        let is_left = self.due.contains_key(&left) || self.clearing.contains(&left);
        self.schedule(left, None);
        let (partition, scope) = left;
        if is_left && self.may_clear(desk) && !self.set_aside.contains(&partition) {
            self.clearing.insert(left);
            desk.effects.push(Effect::Clear { partition, scope });
        }
    }

    /// Slots that were this node's and are not, without its having given them away; and slots
    /// without an owner that it was alone to take writes for.
    fn notice_losses(&mut self, desk: &mut Desk, before: &Topology, notes: &Notes) {
        let me = desk.me();
        for (id, slot) in Desk::all_slots(before) {
            let is_mine = slot.owner == Some(me);
            let is_alone = slot.owner.is_none() && slot.successor == Some(me);
            if !is_mine && !is_alone {
                continue;
            }
            // Slots that a bucket has left, or never got to, and those of which all is elsewhere.
            let is_abandoned = !desk.topology.state().slots.contains_key(&id.scope);
            if is_abandoned || is_alone && before.is_arriving(id.partition, id.scope) {
                continue;
            }
            let slots = desk.topology.slots(id.partition, id.scope);
            let after = slots.get(usize::from(id.slot)).copied().unwrap_or_default();
            let is_kept = after.owner == Some(me) || after.successor == Some(me) && is_alone;
            let is_given = is_mine && after.owner.is_some_and(|owner| notes.is_giving(id, owner));
            if !is_kept && !is_given && self.set_aside.insert(id.partition) {
                let partition = id.partition;
                for scope in Desk::scopes(&desk.topology.clone()) {
                    self.schedule((partition, scope), None);
                }
                desk.keep = true;
                desk.effects.push(Effect::Notice(Notice::SetAside { partition }));
            }
        }
    }

    /// Whether this node may delete anything: a candidate's and a removed member's data are an
    /// operator's.
    fn may_clear(&self, desk: &Desk) -> bool {
        let standing = desk.topology.member(desk.me()).map(|entry| entry.standing);
        desk.topology.state().is_formed()
            && matches!(standing, Some(Standing::Member | Standing::Leaving))
    }

    pub(super) fn go_on(&mut self, desk: &mut Desk) {
        let Some((at, left)) = self.by_time.first().copied() else { return };
        if !self.clearing.is_empty() || !self.may_clear(desk) {
            return;
        }
        let at = at.max(self.free_at);
        if at > desk.now {
            desk.wake(at);
            return;
        }
        self.clearing.insert(left);
        let (partition, scope) = left;
        desk.effects.push(Effect::Clear { partition, scope });
    }

    /// A partition is empty now, or could not be cleared.
    pub(super) fn cleared(&mut self, desk: &mut Desk, left: Left, found: Option<bool>) {
        if !self.clearing.remove(&left) {
            return;
        }
        match found {
            Some(found) => {
                desk.tally.cleared += u64::from(found);
                self.schedule(left, None);
                if found {
                    self.free_at = desk.now + APART;
                }
            }
            None if self.due.contains_key(&left) => {
                self.schedule(left, Some(desk.now + AGAIN));
            }
            None => {}
        }
    }

    /// Leaves the cluster, if there is nothing left to hand over.
    pub(super) fn second(&self, desk: &mut Desk, wants_nothing: bool) {
        let entry = desk.topology.member(desk.me());
        let is_leaving = entry.is_some_and(|entry| entry.standing == Standing::Leaving);
        if is_leaving && wants_nothing && stands_in(desk, &desk.topology).is_empty() {
            desk.effects.push(Effect::Leave);
        }
    }
}

fn all(topology: &Topology) -> impl Iterator<Item = Left> {
    let partitions = (0..topology.partitions()).map(|number| Partition(number as u16));
    partitions
        .flat_map(move |partition| Desk::scopes(topology).map(move |scope| (partition, scope)))
}

/// The slots in which this node stands: partitions, by scope.
fn stands_in(desk: &Desk, topology: &Topology) -> BTreeSet<Left> {
    let me = Some(desk.me());
    let mine =
        Desk::all_slots(topology).filter(|(_, slot)| slot.owner == me || slot.successor == me);
    mine.map(|(id, _)| (id.partition, id.scope)).collect()
}
