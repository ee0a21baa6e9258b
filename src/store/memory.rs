//! A store in memory, with the contract of a real one: for the simulator and for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::{Batch, Cached, Entry, Store, StoreError, StoredKey};
use crate::ids::Partition;

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
            let row = Row { record: change.record.clone(), digest: change.digest };
            rows.insert(change.key.clone(), row);
        }
        Ok(())
    }

    fn clear(&self, partition: Partition) -> Result<(), StoreError> {
        self.rows().retain(|key, _| key.partition() != partition);
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
            None => Bound::Included(StoredKey(Bytes::copy_from_slice(&partition.0.to_be_bytes()))),
        };
        let rows = self.rows();
        let within = rows.range((start, Bound::Unbounded));
        let within = within.take_while(|(key, _)| key.partition() == partition);
        let entry =
            |(key, row): (&StoredKey, &Row)| Entry { key: key.clone(), record: row.record.clone() };
        Ok(within.take(count).map(entry).collect())
    }

    fn digest(&self) -> Result<(u64, u128), StoreError> {
        let rows = self.rows();
        Ok((rows.len() as u64, rows.values().fold(0, |sum, row| sum ^ row.digest)))
    }

    fn estimated_keys(&self) -> u64 {
        self.rows().len() as u64
    }
}
