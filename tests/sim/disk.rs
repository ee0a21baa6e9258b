//! A simulated disk: what is synced, what is on its way there, and what went wrong with it.

use std::collections::{BTreeSet, VecDeque};

use ringdove::causality::Object;
use ringdove::ids::Partition;
use ringdove::store::memory::MemoryStore;
use ringdove::store::record::Record;
use ringdove::store::{Batch, Change, Store, StoreError, StoredKey};

use crate::history::{Held, Time};

/// A batch that a shard has given and the disk has not acknowledged.
pub struct Outstanding {
    pub shard: usize,
    pub batch: u64,
    pub changes: Batch,
}

/// One node's disk. Outlives its processes.
#[derive(Default)]
pub struct Disk {
    pub synced: MemoryStore,
    /// In the order in which they were given, which is the order in which they take effect.
    pub outstanding: VecDeque<Outstanding>,
    /// How many of those the sync under way covers; 0 while none is.
    pub in_sync: usize,
    pub corrupt: BTreeSet<StoredKey>,
    pub full: bool,
    /// Added to every access.
    pub slow: Time,
    pub backup: Option<MemoryStore>,
}

impl Disk {
    pub fn read(&self, key: &StoredKey) -> Result<Option<bytes::Bytes>, StoreError> {
        if self.corrupt.contains(key) {
            return Err(StoreError::Corrupt("checksum mismatch (simulated)".to_owned()));
        }
        self.synced.read(key)
    }

    /// Puts one batch on the platter.
    pub fn apply(&mut self, changes: &Batch) {
        for change in &changes.changes {
            self.corrupt.remove(&change.key);
        }
        let written = self.synced.commit(std::slice::from_ref(changes));
        written.expect("memory never fails");
    }

    /// The process or the power is gone: the first `survivors` batches made it.
    pub fn crash(&mut self, survivors: usize) -> Vec<Outstanding> {
        let kept: Vec<Outstanding> = self.outstanding.drain(..survivors).collect();
        self.outstanding.clear();
        self.in_sync = 0;
        for batch in &kept {
            self.apply(&batch.changes);
        }
        kept
    }

    /// All keys, in order.
    pub fn keys(&self, partitions: u32) -> Vec<StoredKey> {
        let page = |partition| {
            let page = self.synced.page(Partition(partition as u16), None, usize::MAX);
            page.expect("memory never fails").into_iter().map(|entry| entry.key)
        };
        (0..partitions).flat_map(page).collect()
    }

    /// What stands under a key, damaged or not.
    pub fn held(&self, key: &StoredKey) -> Option<Held> {
        let record = self.synced.read(key).expect("memory never fails")?;
        let record = Record::decode(record).expect("the disk gives back what it was given");
        Some(held_in(&record, key))
    }

    /// Loses a record and everything beside it.
    pub fn forget(&mut self, key: &StoredKey) {
        let object = Object::new();
        let digest = object.digest(&key.key());
        let record = Record { mint: None, object: object.encode() }.encode();
        self.apply(&Batch { changes: vec![Change { key: key.clone(), record, digest }] });
    }
}

/// A record as the history shows it.
pub fn held_in(record: &Record, key: &StoredKey) -> Held {
    let object = Object::decode(record.object.clone()).expect("a shard writes sound objects");
    let live = object.siblings().iter().map(|s| (s.dot, s.write_id, s.hlc.0));
    Held { clock: object.clock().clone(), live: live.collect(), digest: object.digest(&key.key()) }
}
