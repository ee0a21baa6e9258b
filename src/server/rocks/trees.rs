//! Keeps the trees over stops, and counts them after crashes.

use std::sync::{Arc, MutexGuard, Weak};
use std::thread;

use bytes::Bytes;

use super::options::{DIGESTS, META};
use super::{LeafChange, RocksStore, damaged, each, read_digest_key, read_imprint, scan};
use crate::ids::Partition;
use crate::store::StoreError;
use crate::store::forest::{Count, Forest};

/// Under this key of the meta family stand the trees as of the last stop in order: the number of
/// the last commit, little-endian, and behind it [`Forest::encode`].
const FOREST_KEY: &[u8] = b"forest";
/// Keys between two lines about a count's progress.
const PROGRESS_KEYS: u64 = 5_000_000;

/// Brings back the trees of a store that was stopped in order; those of another one are counted, by a thread of
/// its own. Nothing has been committed yet.
pub(super) fn restore(store: &Arc<RocksStore>) {
    if store.number() == 0 {
        *store.forest() = Forest::default();
        return;
    }
    if let Some(forest) = store.kept_forest() {
        *store.forest() = forest;
        return;
    }
    let counting = Arc::downgrade(store);
    let builder = thread::Builder::new().name("ringdove-count".to_owned());
    let (ready, started) = std::sync::mpsc::channel();
    let count = move || {
        if let Err(error) = count_all(&counting, &ready) {
            if let (StoreError::Corrupt(why), Some(store)) = (&error, counting.upgrade()) {
                store.damage().demand_rebuild(&format!("digests: {why}"));
            }
            tracing::error!(%error, "the trees could not be counted; this node takes no part in anti-entropy");
        }
    };
    builder.spawn(count).expect("a thread can be started at start");
    // It reads as of a moment before anything is committed.
    let _ = started.recv();
}

impl RocksStore {
    pub(super) fn forest(&self) -> MutexGuard<'_, Forest> {
        self.forest.lock().expect("no method panics while it holds the trees")
    }

    pub(super) fn update_forest(&self, changes: Vec<LeafChange>) {
        let mut forest = self.forest();
        for change in changes {
            match change {
                LeafChange::Replaced(key, before, after) => forest.replace(&key, &before, &after),
                LeafChange::Cleared(partition, bucket) => {
                    forest.clear(partition, bucket.as_deref());
                }
            }
        }
    }

    fn kept_forest(&self) -> Option<Forest> {
        let kept = self.db.get_cf(self.family(META), FOREST_KEY).ok()??;
        let kept = Bytes::from(kept);
        let number = u64::from_le_bytes(*kept.first_chunk()?);
        (number == self.number()).then(|| Forest::decode(kept.slice(8..)).ok())?
    }

    /// Keeps the trees for the next start. Failing is no loss: they are counted then.
    pub(super) fn keep_forest(&self) {
        let forest = self.forest();
        if !forest.is_all_counted() {
            return;
        }
        let kept = [&self.number().to_le_bytes()[..], &forest.encode()].concat();
        if let Err(error) = self.db.put_cf(self.family(META), FOREST_KEY, kept) {
            tracing::warn!(%error, "the trees were not kept; they will be counted at the next start");
        }
    }

    pub(super) fn recount_partition(&self, partition: Partition) -> Result<bool, StoreError> {
        // Between two commits: what is read as of now and what the trees then hear of is all there is.
        let committing = self.committing();
        let mut rows = self.rows(DIGESTS, partition);
        let mut forest = self.forest();
        let before = forest.roots(partition);
        if !forest.recount(partition) {
            return Ok(false);
        }
        drop(forest);
        drop(committing);
        let mut count = Count::default();
        let mut found = Count::default();
        let counted = each(&mut rows, |key, imprint| {
            let (place, key) = read_digest_key(key).ok_or_else(|| damaged("a digest's key"))?;
            let imprint = read_imprint(imprint)?;
            count.add(key.bucket(), place, &imprint);
            found.add(key.bucket(), place, &imprint);
            Ok(true)
        });
        if let Err(StoreError::Corrupt(why)) = &counted {
            // The partition stays uncounted: nobody is told something wrong about it.
            self.damage().demand_rebuild(&format!("digests of partition {partition}: {why}"));
        }
        counted?;
        self.forest().counted(partition, count);
        // What the trees said before, against what there was in the same moment.
        let mut there = Forest::uncounted();
        there.counted(partition, found);
        Ok(there.roots(partition) != before)
    }
}

fn count_all(
    store: &Weak<RocksStore>,
    ready: &std::sync::mpsc::Sender<()>,
) -> Result<(), StoreError> {
    let Some(held) = store.upgrade() else { return Ok(()) };
    let mut rows = held.db.raw_iterator_cf_opt(held.family(DIGESTS), scan());
    let _ = ready.send(());
    rows.seek_to_first();
    let (mut current, mut count, mut keys) = (None, Count::default(), 0_u64);
    each(&mut rows, |key, imprint| {
        let partition = key.first_chunk().map(|bytes| Partition(u16::from_be_bytes(*bytes)));
        let partition = partition.ok_or_else(|| damaged("a digest's key"))?;
        if let Some(before) = current.filter(|before| *before != partition) {
            held.forest().counted(before, std::mem::take(&mut count));
            // Whoever dropped the store waits for this thread to let go of it.
            if Arc::strong_count(&held) == 1 {
                return Ok(false);
            }
        }
        current = Some(partition);
        let (place, key) = read_digest_key(key).ok_or_else(|| damaged("a digest's key"))?;
        count.add(key.bucket(), place, &read_imprint(imprint)?);
        keys += 1;
        if keys.is_multiple_of(PROGRESS_KEYS) {
            tracing::info!(keys, %partition, "counting digests after a stop that was not in order");
        }
        Ok(true)
    })?;
    if Arc::strong_count(&held) == 1 {
        return Ok(());
    }
    if let Some(last) = current {
        held.forest().counted(last, count);
    }
    held.forest().counted_all();
    Ok(())
}
