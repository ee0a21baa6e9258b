//! What changes a state: forming, new buckets, slots that change hands.

use xxhash_rust::xxh3::xxh3_64;

use super::{BucketEntry, ClusterState, MemberEntry, Owner, Slot, SlotTable, Standing};
use crate::ids::{NodeId, Partition, Scope};
use crate::limits;
use crate::ring::Ring;
use crate::wire::control;
use crate::wire::messages::BucketSettings;

/// One slot that is given to its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Whose slots are meant.
    pub scope: Scope,
    /// The partition.
    pub partition: Partition,
    /// Which of its slots, from 0.
    pub slot: usize,
    /// What the slot must still be.
    pub expected: Slot,
    /// Who owns it from now on.
    pub to: NodeId,
}

impl ClusterState {
    /// Enters a node, unless it is known already. Returns whether it was news.
    pub fn enter(&mut self, id: NodeId, entry: MemberEntry) -> bool {
        let is_news = !self.members.contains_key(&id);
        if is_news {
            self.members.insert(id, entry);
        }
        is_news
    }

    /// Forms the cluster, if it has not formed and at least `initial_members` candidates know each
    /// other: they become members, and each slot belongs to whom the ring says. Returns whether it
    /// formed now.
    ///
    /// Nodes that know the same candidates form the same cluster, each alone. A formed state never
    /// un-forms.
    pub fn form(&mut self, initial_members: usize) -> bool {
        if self.is_formed() || self.present().count() < initial_members.max(1) {
            return false;
        }
        for entry in self.members.values_mut() {
            entry.standing = entry.standing.max(Standing::Member);
        }
        self.formation = xxh3_64(&control::encode(&self.founders())).max(1);
        for bucket in self.buckets.values().map(|bucket| bucket.settings.n).collect::<Vec<u8>>() {
            self.add_slots(bucket);
        }
        true
    }

    fn founders(&self) -> Vec<(NodeId, String, u32)> {
        let members = self.ring_members().into_iter();
        members.map(|member| (member.id, member.zone, member.weight)).collect()
    }

    /// Adds a bucket, or gives one that is there these settings. In a formed cluster a replica count
    /// that is new to it gets its slots here, from the ring of this moment.
    ///
    /// Two sides of a network partition that do this with different members for the same count
    /// begin two tables, of which one will win: what was written on the other side in between is
    /// then on former owners.
    ///
    /// Returns false, and changes nothing, when the slots of all counts together would pass
    /// [`limits::SLOTS`].
    #[must_use]
    pub fn add_bucket(&mut self, name: &str, settings: BucketSettings) -> bool {
        let is_new_count = !self.slots.contains_key(&Scope::from(settings.n));
        if self.is_formed() && is_new_count {
            if !self.has_room_for(settings.n) {
                return false;
            }
            self.add_slots(settings.n);
        }
        let before = self.buckets.get(name);
        if before.is_none_or(|before| before.settings != settings) {
            let version = before.map_or(0, |before| before.version) + 1;
            let mut entry = BucketEntry { version, ..BucketEntry::new(settings) };
            entry.home.version = u32::try_from(version).unwrap_or(u32::MAX);
            self.buckets.insert(name.to_owned(), entry);
        }
        true
    }

    /// Whether slots for `n` more replicas fit within [`limits::SLOTS`].
    pub(super) fn has_room_for(&self, n: u8) -> bool {
        let slots: usize = self.slots.values().map(|table| table.all().len()).sum();
        slots + self.partitions as usize * usize::from(n) <= limits::SLOTS
    }

    /// Begins the slots for `n` replicas with the ring of this moment.
    fn add_slots(&mut self, n: u8) {
        if self.slots.contains_key(&Scope::from(n)) {
            return;
        }
        let (members, places) = (self.ring_members(), self.places());
        let ring = Ring::new(&members, self.partitions, n);
        let origin = xxh3_64(&control::encode(&(n, self.founders())));
        let mut owners = Vec::with_capacity(self.partitions as usize * usize::from(n));
        for number in 0..self.partitions {
            let list = ring.primaries(Partition(number as u16));
            let named = list.iter().map(|place| Owner::new(Some(places[place])));
            owners.extend(named.chain(std::iter::repeat(Owner::default())).take(usize::from(n)));
        }
        self.slots.insert(Scope::from(n), SlotTable::new(origin, n, owners));
    }

    /// Gives a slot to its successor. Returns false, and changes nothing, when the slot is no
    /// longer as expected, or its successor is not present or owns another slot of the partition.
    ///
    /// The owner is the one who does this for its own slot; a slot without an owner is taken by
    /// its successor itself.
    pub fn hand_over(&mut self, change: &HandOver) -> bool {
        let HandOver { scope, partition, slot, expected, to } = *change;
        let is_removed = |id: NodeId| {
            self.members.get(&id).is_none_or(|entry| entry.standing == Standing::Removed)
        };
        let Some(table) = self.slots.get(&scope) else { return false };
        if u32::from(partition.0) >= self.partitions || is_removed(to) {
            return false;
        }
        let owners = table.of(partition);
        let Some(owner) = owners.get(slot) else { return false };
        // A topology shows no owner where it was removed, or owns an earlier slot as well.
        let is_expected = owner.version == expected.version
            && (expected.owner.is_none() || owner.value == expected.owner);
        let owns = |(at, other): (usize, &Owner)| at != slot && other.value == Some(to);
        if !is_expected || owners.iter().enumerate().any(owns) {
            return false;
        }
        match self.slots.get_mut(&scope) {
            Some(table) => table.give(partition, slot, to),
            None => return false,
        }
        true
    }

    /// Gives several slots to their successors; those that are not as expected are left out.
    /// Returns how many were given.
    pub fn hand_over_all(&mut self, changes: &[HandOver]) -> usize {
        changes.iter().filter(|change| self.hand_over(change)).count()
    }
}
