//! What a shard has staged and what is on its way to the disk, and who waits for it.

use std::collections::BTreeMap;

use super::Origin;
use super::core::OpId;
use super::graves::GraveChange;
use crate::ids::NodeId;
use crate::store::{Batch, Change, StoredKey};

/// Who is told when a batch has been committed.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A coordinator on another node.
    Replica(Origin),
    /// An operation of this shard.
    Op(OpId),
    /// An operation of this shard that has something kept for a member.
    Keeper(OpId, NodeId),
    /// A hint that belongs to this node itself: dropped once its object is durable here.
    Taken(StoredKey, u128),
    /// Nobody: a repair of this node's own copy.
    Nobody,
}

/// The batch of this turn, and those that are not committed.
#[derive(Debug, Default)]
pub(super) struct Commits {
    staged: Vec<Change>,
    buried: Vec<GraveChange>,
    /// Batches that were given to the disk; that of this turn has the next number.
    sealed: u64,
    /// Those that are not committed, that of this turn included.
    waiting: BTreeMap<u64, Waiting>,
    /// Refusals heard of (see `refusals`).
    refusals: u64,
}

#[derive(Debug)]
struct Waiting {
    /// The refusals heard of when it was begun.
    refusals: u64,
    waiters: Vec<Waiter>,
}

/// A batch for the disk.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) batch: u64,
    /// The refusals heard of when it was begun.
    pub(super) refusals: u64,
    pub(super) changes: Batch,
}

impl Commits {
    /// Adds a change to this turn's batch, and returns its number.
    pub(super) fn stage(&mut self, change: Change, waiter: Waiter) -> u64 {
        let batch = self.sealed + 1;
        self.staged.push(change);
        self.wait_for(batch, waiter);
        batch
    }

    /// Adds the grave of a key whose record is removed by this turn's batch.
    pub(super) fn bury(&mut self, changes: impl IntoIterator<Item = GraveChange>) {
        self.buried.extend(changes);
    }

    /// Has `waiter` hear when `batch`, which has not been committed yet, is.
    pub(super) fn wait_for(&mut self, batch: u64, waiter: Waiter) {
        let begun = Waiting { refusals: self.refusals, waiters: Vec::new() };
        self.waiting.entry(batch).or_insert(begun).waiters.push(waiter);
    }

    /// The last batch that is not committed, that of this turn included.
    pub(super) fn last(&self) -> Option<u64> {
        self.waiting.last_key_value().map(|(batch, _)| *batch)
    }

    /// Ends this turn's batch, if there is anything in it.
    pub(super) fn seal(&mut self) -> Option<Sealed> {
        if self.staged.is_empty() {
            return None;
        }
        self.sealed += 1;
        let (changes, graves) =
            (std::mem::take(&mut self.staged), std::mem::take(&mut self.buried));
        let refusals = self.waiting.get(&self.sealed).map_or(self.refusals, |begun| begun.refusals);
        Some(Sealed { batch: self.sealed, refusals, changes: Batch { changes, graves } })
    }

    /// Whether the refusal of this batch is one that was not heard of when it was begun.
    pub(super) fn is_refusal_news(&self, batch: u64) -> bool {
        self.waiting.get(&batch).is_some_and(|begun| begun.refusals == self.refusals)
    }

    /// What is staged from now on stands on nothing that was refused.
    pub(super) fn heard_of_refusal(&mut self) {
        self.refusals += 1;
    }

    /// A batch is committed, or will not be: who waits for that.
    pub(super) fn settled(&mut self, batch: u64) -> Vec<Waiter> {
        self.waiting.remove(&batch).map_or(Vec::new(), |waiting| waiting.waiters)
    }
}
