//! What a shard does when one of its partitions changes hands.
//!
//! A **fence** is answered once everything that the shard had taken for a partition is committed:
//! what was staged, what was on its way to the disk, and what still waited for its record to be
//! loaded. It is only put up in a shard that goes by a topology with the successor in it, so
//! whatever comes behind the fence is sent to the successor as well, and what came before it is on
//! the disk, for the pages that the successor copies.

use std::collections::BTreeSet;

use super::Origin;
use super::core::Waiter;
use super::shard::Shard;
use crate::ids::Partition;
use crate::store::StoredKey;
use crate::wire::messages::{Failure, FailureCode, Response, Stored};
use crate::wire::transfer::SlotView;

/// A fence that is not up yet.
pub(super) struct Fence {
    to: Origin,
    /// Records that were being loaded when it was asked for.
    loading: BTreeSet<StoredKey>,
}

impl Shard {
    /// Answers `to` with [`Response::Stored`] once everything taken so far is committed.
    pub(super) fn fence(&mut self, to: Origin, view: SlotView) {
        let slots = self.core.topology.slots(view.id.partition, view.id.n);
        let slot = slots.get(usize::from(view.id.slot));
        let is_shown = slot.is_some_and(|slot| {
            (slot.version, slot.owner) == (view.version, view.owner)
                && slot.successor == Some(view.successor)
        });
        if !is_shown {
            let message = "this shard goes by other slots";
            self.core.fail(to, Failure::not_applied(FailureCode::Stale, message));
            return;
        }
        let loading = self.keys.loading(view.id.partition);
        self.fences.push(Fence { to, loading });
        self.raise_fences();
    }

    /// A record has been loaded: fences may be up.
    pub(super) fn loaded_before_fences(&mut self, key: &StoredKey) {
        for fence in &mut self.fences {
            fence.loading.remove(key);
        }
        self.raise_fences();
    }

    /// What was loaded has been staged: the last batch that is not committed holds all of it.
    fn raise_fences(&mut self) {
        let (up, waiting) =
            std::mem::take(&mut self.fences).into_iter().partition(|f| f.loading.is_empty());
        self.fences = waiting;
        let up: Vec<Fence> = up;
        for fence in up {
            match self.core.last_batch() {
                Some(batch) => self.core.wait_for(batch, Waiter::Replica(fence.to)),
                None => {
                    let fsynced = self.core.settings.fsync;
                    self.core.respond(fence.to, Response::Stored(Stored { fsynced }));
                }
            }
        }
    }

    /// Whether this node has no part in `partition` and no record of it is under way: then nothing
    /// of it can follow when it is deleted, as long as no input comes in between.
    #[must_use]
    pub fn has_no_part_in(&self, partition: Partition) -> bool {
        let (topology, me) = (&self.core.topology, self.core.settings.node);
        let counts = topology.state().slots.keys();
        let mut slots = counts.flat_map(|n| topology.slots(partition, *n));
        !slots.any(|slot| slot.owner == Some(me) || slot.successor == Some(me))
            && !self.keys.is_busy_with(partition)
    }
}
