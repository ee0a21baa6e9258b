//! Data of partitions that this node has no part in any more.
//!
//! It is deleted once nothing has changed about the partition for a while, or at once when this
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
use crate::ids::Partition;
use crate::membership::{Standing, Topology};
use crate::time::Instant;

/// How long to wait after a partition could not be cleared.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Leftovers {
    /// Partitions to be cleared, and when.
    due: BTreeMap<Partition, Instant>,
    by_time: BTreeSet<(Instant, Partition)>,
    set_aside: BTreeSet<Partition>,
    clearing: BTreeSet<Partition>,
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
        };
        let stood = stands_in(desk, &desk.topology);
        for partition in all(&desk.topology).filter(|partition| !stood.contains(partition)) {
            if set_aside.is_none() {
                leftovers.set_aside.insert(partition);
            }
            leftovers.delay(desk, partition);
        }
        leftovers
    }

    pub(super) fn set_aside(&self) -> Vec<Partition> {
        self.set_aside.iter().copied().collect()
    }

    pub(super) fn waiting(&self) -> u32 {
        self.due.len() as u32
    }

    fn delay(&mut self, desk: &Desk, partition: Partition) {
        if !self.set_aside.contains(&partition) {
            self.schedule(partition, Some(desk.now + desk.settings.cleanup_after));
        }
    }

    fn schedule(&mut self, partition: Partition, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.due.insert(partition, at),
            None => self.due.remove(&partition),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, partition));
        }
        if let Some(at) = at {
            self.by_time.insert((at, partition));
        }
    }

    /// The slots have changed.
    pub(super) fn topology(&mut self, desk: &mut Desk, before: &Topology, notes: &Notes) {
        let now = desk.topology.clone();
        self.notice_losses(desk, before, notes);
        let (stood, stands) = (stands_in(desk, before), stands_in(desk, &now));
        for partition in stands.difference(&stood) {
            let is_left = self.due.contains_key(partition) || self.clearing.contains(partition);
            self.schedule(*partition, None);
            if is_left && self.may_clear(desk) && !self.set_aside.contains(partition) {
                self.clearing.insert(*partition);
                desk.effects.push(Effect::Clear { partition: *partition });
            }
        }
        let fingerprint = |topology: &Topology, partition| -> Vec<u64> {
            Desk::counts(topology).map(|n| topology.fingerprint(partition, n)).collect()
        };
        for partition in all(&now).filter(|partition| !stands.contains(partition)) {
            let has_left = stood.contains(&partition);
            let is_due = self.due.contains_key(&partition);
            if has_left || is_due && fingerprint(before, partition) != fingerprint(&now, partition)
            {
                self.delay(desk, partition);
            }
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
            let slots = desk.topology.slots(id.partition, id.n);
            let after = slots.get(usize::from(id.slot)).copied().unwrap_or_default();
            let is_kept = after.owner == Some(me) || after.successor == Some(me) && is_alone;
            let is_given = is_mine && after.owner.is_some_and(|owner| notes.is_giving(id, owner));
            if !is_kept && !is_given && self.set_aside.insert(id.partition) {
                self.schedule(id.partition, None);
                desk.keep = true;
                let partition = id.partition;
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
        let Some((at, partition)) = self.by_time.first().copied() else { return };
        if !self.clearing.is_empty() || !self.may_clear(desk) {
            return;
        }
        if at > desk.now {
            desk.wake(at);
            return;
        }
        self.clearing.insert(partition);
        desk.effects.push(Effect::Clear { partition });
    }

    /// A partition is empty now, or could not be cleared.
    pub(super) fn cleared(&mut self, desk: &mut Desk, partition: Partition, found: Option<bool>) {
        if !self.clearing.remove(&partition) {
            return;
        }
        match found {
            Some(found) => {
                desk.tally.cleared += u64::from(found);
                self.schedule(partition, None);
            }
            None if self.due.contains_key(&partition) => {
                self.schedule(partition, Some(desk.now + AGAIN));
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

fn all(topology: &Topology) -> impl Iterator<Item = Partition> {
    (0..topology.partitions()).map(|number| Partition(number as u16))
}

/// The partitions in which this node stands in some slot.
fn stands_in(desk: &Desk, topology: &Topology) -> BTreeSet<Partition> {
    let me = Some(desk.me());
    let mine =
        Desk::all_slots(topology).filter(|(_, slot)| slot.owner == me || slot.successor == me);
    mine.map(|(id, _)| id.partition).collect()
}
