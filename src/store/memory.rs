//! A store in memory, with the contract of a real one: for the simulator and for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::{Batch, Cached, Entry, Store, StoreError, StoredKey};
use crate::ids::{NodeId, Partition};

/// Keeps everything in a sorted map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    // A mutex and not a lock for many readers: tests and the simulator use one thread.
    rows: Mutex<BTreeMap<StoredKey, Row>>,
}

#[derive(Clone, Debug)]
struct Row {
    record: Bytes,
    digest: u128,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<StoredKey, Row>> {
        self.rows.lock().expect("no method panics while it holds the lock")
    }
}

impl Clone for MemoryStore {
    /// A copy as of now: what a backup would hold.
    fn clone(&self) -> Self {
        Self { rows: Mutex::new(self.rows().clone()) }
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &StoredKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows().get(key).map(|row| row.record.clone()))
    }

    fn read_cached(&self, key: &StoredKey) -> Result<Cached, StoreError> {
        self.read(key).map(Cached::Known)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        let mut rows = self.rows();
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            let Some(record) = change.record.clone() else {
                rows.remove(&change.key);
                continue;
            };
            rows.insert(change.key.clone(), Row { record, digest: change.digest });
        }
        Ok(())
    }

    fn clear(&self, partition: Partition, bucket: Option<&str>) -> Result<(), StoreError> {
        let is_meant = |key: &StoredKey| {
            key.owner().is_none()
                && key.partition() == partition
                && bucket.is_none_or(|bucket| key.key().bucket() == bucket)
        };
        self.rows().retain(|key, _| !is_meant(key));
        Ok(())
    }

    fn page(
        &self,
        partition: Partition,
        after: Option<&StoredKey>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let start = match after {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Included(first_of(None, &partition.0.to_be_bytes())),
        };
        let rows = self.rows();
        let within = rows.range((start, Bound::Unbounded));
        let within =
            within.take_while(|(key, _)| key.owner().is_none() && key.partition() == partition);
        Ok(within.take(count).map(entry).collect())
    }

    fn hints(
        &self,
        owner: NodeId,
        after: Option<&StoredKey>,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let start = match after {
            Some(after) => Bound::Excluded(after.kept_for(owner)),
            None => Bound::Included(first_of(Some(owner), &[])),
        };
        let rows = self.rows();
        let kept = rows.range((start, Bound::Unbounded));
        let mut room = bytes;
        let fits = |(_, row): &(&StoredKey, &Row)| {
            let is_first = room == bytes;
            let size = row.record.len().max(1);
            let fits = is_first || size <= room;
            room = room.saturating_sub(size);
            fits
        };
        let kept = kept.take_while(|(key, _)| key.owner() == Some(owner)).take_while(fits);
        Ok(kept.map(entry).collect())
    }

    fn hint_owners(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut owners: Vec<NodeId> = self.rows().keys().filter_map(StoredKey::owner).collect();
        owners.dedup();
        Ok(owners)
    }

    fn digest(&self) -> Result<(u64, u128), StoreError> {
        let rows = self.rows();
        let own = rows.iter().filter(|(key, _)| key.owner().is_none());
        Ok(own.fold((0, 0), |(keys, sum), (_, row)| (keys + 1, sum ^ row.digest)))
    }

    fn estimated_bytes(&self) -> u64 {
        self.rows().iter().map(|(key, row)| (key.as_bytes().len() + row.record.len()) as u64).sum()
    }

    fn estimated_keys(&self) -> u64 {
        self.rows().keys().filter(|key| key.owner().is_none()).count() as u64
    }
}

/// A key before all others of the owner that begin with `bytes`.
fn first_of(owner: Option<NodeId>, bytes: &[u8]) -> StoredKey {
    StoredKey { owner, bytes: Bytes::copy_from_slice(bytes) }
}

fn entry((key, row): (&StoredKey, &Row)) -> Entry {
    Entry { key: key.clone(), record: row.record.clone() }
}
