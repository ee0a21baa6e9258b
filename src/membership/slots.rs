//! Who owns what, as registers: a table of all slots of one scope.

use std::fmt;
use std::sync::Arc;

use super::Register;
use crate::ids::{NodeId, Partition};

/// The owner of one slot. Without one, nobody has ever owned it: version 0.
pub type Owner = Register<Option<NodeId>>;

/// The owners of all slots of one scope: N registers for each partition.
///
/// Copies share their memory until one of them is changed.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotTable {
    /// A hash of the members whose ring the table began as. Tables that began differently could
    /// name one owner twice if they were merged slot by slot, so one of them wins as a whole.
    pub(super) origin: u64,
    /// Slots of each partition.
    width: usize,
    owners: Arc<Vec<Owner>>,
}

impl SlotTable {
    /// A table of `width` slots for each partition. There must be a whole number of partitions.
    pub(super) fn new(origin: u64, width: u8, owners: Vec<Owner>) -> Self {
        let width = usize::from(width);
        assert!(owners.len().is_multiple_of(width), "each partition has {width} slots");
        Self { origin, width, owners: Arc::new(owners) }
    }

    /// The slots of one partition, in order; of a partition that is none, none.
    #[must_use]
    pub fn of(&self, partition: Partition) -> &[Owner] {
        let start = usize::from(partition.0) * self.width;
        self.owners.get(start..start + self.width).unwrap_or_default()
    }

    /// All slots, partition by partition.
    pub(super) fn all(&self) -> &[Owner] {
        &self.owners
    }

    /// Gives a slot to `to`. The slot must exist.
    pub(super) fn give(&mut self, partition: Partition, slot: usize, to: NodeId) {
        let at = usize::from(partition.0) * self.width + slot;
        Arc::make_mut(&mut self.owners)[at].set(Some(to));
    }

    /// Takes over what `other` knows better. Returns whether anything changed.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        if self.origin != other.origin {
            let wins = other.origin > self.origin;
            if wins {
                self.clone_from(other);
            }
            return wins;
        }
        // Most merges of tables change nothing: they should not copy one.
        let news = |(ours, theirs): (&Owner, &Owner)| theirs > ours;
        let is_same = Arc::ptr_eq(&self.owners, &other.owners);
        if is_same || !self.owners.iter().zip(other.owners.iter()).any(news) {
            return false;
        }
        for (ours, theirs) in Arc::make_mut(&mut self.owners).iter_mut().zip(other.owners.iter()) {
            ours.merge(theirs);
        }
        true
    }

    /// Whether both share their memory, and so are equal.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.owners, &other.owners)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.owners.iter().map(|owner| u64::from(owner.version)).sum()
    }
}

impl fmt::Debug for SlotTable {
    /// Without the owners: there are thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (origin, slots) = (self.origin, self.owners.len());
        write!(f, "SlotTable {{ origin: {origin:016x}, slots: {slots}, epoch: {} }}", self.epoch())
    }
}
