//! From changes to a durable commit: groups, their numbers, the log's sync and the journal's.
//!
//! The picture and what always holds stand in the [module above](super).

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use rocksdb::WriteBatch;

use super::keys::digest_key;
use super::options::{DIGESTS, META};
use super::space::Space;
use super::{Durability, NUMBER_KEY, RocksStore, is_no_space, is_unreadable, rows};
use crate::ids::Partition;
use crate::server::journal::Journal;
use crate::store::{Batch, Change, Imprint, StoreError, StoredKey};

/// The group that has not been written yet.
pub(super) struct Gathering {
    pub(super) batch: WriteBatch,
    pub(super) bytes: usize,
    /// What the trees are to hear of once the group is written.
    pub(super) leaves: Vec<LeafChange>,
    pub(super) group: Arc<Group>,
}

/// What a group does to the trees.
pub(super) enum LeafChange {
    Replaced(StoredKey, Imprint, Imprint),
    Cleared(Partition, Option<String>),
}

/// What became of a group, once that is known.
#[derive(Default)]
pub(super) struct Group {
    pub(super) outcome: OnceLock<Result<(), StoreError>>,
}

/// What only the thread at the front of the line touches.
pub(super) struct Committing {
    /// The batch of the group before, empty: kept for its memory.
    pub(super) spare: WriteBatch,
    pub(super) space: Space,
    pub(super) journal: Journal,
    /// The number of the last group that is synced.
    pub(super) synced: u64,
    /// Whether the last write was refused by a full disk. The log can't be synced then, and need
    /// not be: RocksDB recovers by writing everything to tables and beginning another.
    pub(super) full: bool,
    /// Why nothing can be committed any more.
    pub(super) ended: Option<StoreError>,
}

impl RocksStore {
    pub(super) fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().expect("no method panics while it gathers")
    }

    pub(super) fn committing(&self) -> MutexGuard<'_, Committing> {
        self.committing.lock().expect("no method panics while it commits")
    }

    /// Adds changes to the group that is being gathered.
    pub(super) fn gather(&self, batches: &[Batch]) -> Arc<Group> {
        let mut gathering = self.gathering();
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            self.gather_change(&mut gathering, change);
        }
        for (key, grave) in batches.iter().flat_map(|batch| &batch.graves) {
            gathering.bytes += rows::add_grave(&self.db, &mut gathering.batch, key, grave.as_ref());
        }
        gathering.group.clone()
    }

    pub(super) fn gather_change(&self, gathering: &mut Gathering, change: &Change) {
        let before = change.before.unwrap_or_else(|| self.imprint_of(&change.key));
        gathering.bytes +=
            rows::add(&self.db, &mut gathering.batch, change, &before, self.keeps_trees);
        if self.keeps_trees && change.key.owner().is_none() {
            gathering.leaves.push(LeafChange::Replaced(change.key.clone(), before, change.after));
        }
    }

    /// What stands beside a record that cannot be read. If that cannot be read either, the trees will
    /// be wrong until they are counted.
    pub(super) fn imprint_of(&self, key: &StoredKey) -> Imprint {
        let row = self.db.get_pinned_cf(self.family(DIGESTS), digest_key(key));
        row.ok().flatten().and_then(|row| Imprint::decode(&row)).unwrap_or(Imprint::NONE)
    }

    /// Commits a group, unless somebody has; returns what came of it.
    pub(super) fn see_committed(&self, group: &Group) -> Result<(), StoreError> {
        let mut committing = self.committing();
        if group.outcome.get().is_none() {
            self.commit_group(&mut committing);
        }
        drop(committing);
        group.outcome.get().expect("the group has been committed").clone()
    }

    /// Writes the group that has been gathered, and makes it as durable as is asked for.
    pub(super) fn commit_group(&self, committing: &mut Committing) {
        let next = Arc::default();
        let mut gathering = self.gathering();
        let mut batch = mem::replace(&mut gathering.batch, mem::take(&mut committing.spare));
        let bytes = mem::take(&mut gathering.bytes);
        let leaves = mem::take(&mut gathering.leaves);
        let group = mem::replace(&mut gathering.group, next);
        drop(gathering);
        let written = self.write(committing, &mut batch, bytes);
        if written.is_ok() {
            let replaced = leaves.iter().filter_map(|change| match change {
                LeafChange::Replaced(key, ..) => Some(key),
                LeafChange::Cleared(..) => None,
            });
            self.damage.is_written(replaced);
            for change in &leaves {
                if let LeafChange::Cleared(partition, bucket) = change {
                    self.damage.is_cleared(*partition, bucket.as_deref());
                }
            }
            self.update_forest(leaves);
        }
        let outcome = written.and_then(|()| match self.durability {
            Durability::Fsync => self.sync(committing),
            Durability::Interval(_) | Durability::None => self.enter(committing, false),
        });
        batch.clear();
        committing.spare = batch;
        if outcome.is_err() {
            self.refused.store(true, Ordering::Release);
        }
        group.outcome.set(outcome).expect("a group is committed once");
    }

    pub(super) fn write(
        &self,
        committing: &mut Committing,
        batch: &mut WriteBatch,
        bytes: usize,
    ) -> Result<(), StoreError> {
        if let Some(ended) = &committing.ended {
            return Err(ended.clone());
        }
        if let Some(faults) = self.faults.get() {
            faults.hold_commit();
            committing.space.pretend_full(faults.refuse_commit());
        }
        committing.space.admit(bytes).map_err(StoreError::Full)?;
        let number = self.number() + 1;
        batch.put_cf(self.family(META), NUMBER_KEY, number.to_le_bytes());
        let written = self.db.write_opt(batch, &self.writes);
        committing.full = written.as_ref().is_err_and(is_no_space);
        written.map_err(|error| match error.kind() {
            _ if committing.full => StoreError::Full(error.to_string()),
            // A compaction met what cannot be read, and RocksDB has closed itself to writes, for good:
            // every start would come to the same table again.
            _ if is_unreadable(&error) => {
                self.damage.demand_rebuild(error.as_ref());
                committing.end(error.to_string())
            }
            _ => committing.end(error.to_string()),
        })?;
        self.number.store(number, Ordering::Release);
        Ok(())
    }

    /// Makes everything that was written outlive the machine's power.
    pub(super) fn sync(&self, committing: &mut Committing) -> Result<(), StoreError> {
        let number = self.number();
        if committing.synced == number {
            return Ok(());
        }
        let synced = self.db.flush_wal(true);
        synced.map_err(|error| committing.end(format!("sync of the log: {error}")))?;
        self.enter(committing, true)?;
        committing.synced = number;
        Ok(())
    }

    pub(super) fn enter(&self, committing: &mut Committing, sync: bool) -> Result<(), StoreError> {
        let journal = &mut committing.journal;
        let entered = journal.enter(self.number());
        let entered = entered.and_then(|()| if sync { journal.sync() } else { Ok(()) });
        entered.map_err(|error| committing.end(format!("journal: {error}")))
    }
}

impl Committing {
    /// Nobody knows what is on the disk: nothing may be written from here on.
    pub(super) fn end(&mut self, why: String) -> StoreError {
        let ended = StoreError::Fatal(why);
        self.ended = Some(ended.clone());
        ended
    }
}

pub(super) fn sync_in_intervals(
    store: &Weak<RocksStore>,
    interval: Duration,
    stopped: &Receiver<()>,
) {
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let Some(store) = store.upgrade() else { return };
        let mut committing = store.committing();
        if committing.ended.is_some() {
            return;
        }
        if committing.full {
            continue;
        }
        // Whoever commits next is told; here is nobody to tell.
        if let Err(error) = store.sync(&mut committing) {
            tracing::error!(%error, "the sync of the interval failed");
            return;
        }
    }
}
