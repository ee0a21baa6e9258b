//! RocksDB behind [`Store`].
//!
//! The life of a commit, which any number of threads may be in at once:
//!
//! ```text
//!   1  gather     each thread adds its changes to the group that is being gathered
//!   2  room?      below the reserve: Full, and RocksDB was not asked        ┐
//!   3  write      one WriteBatch: records, digests, and the group's number  │ by one thread, for
//!   4  sync       the log                                                   │ the whole group
//!   5  journal    the group's number, synced                                ┘
//!   6  return     the group's outcome, to each of its threads
//! ```
//!
//! Whoever comes first to the front of the line does 2 to 5 for its group; those behind it find
//! that done. While it waits for the disk the next group gathers, so threads that commit together
//! share a sync, and a single thread waits for nobody.
//!
//! What always holds:
//! - A commit that returned is in the log on the disk, and its number is in the journal
//!   ([`Durability::Fsync`]), in that order: so the journal is never ahead of a whole disk.
//! - `Full` means that nothing was written. RocksDB writes its log before its memory, and a log
//!   record that did not fit is torn, which recovery drops. No group is written while one before
//!   it is not synced, because a log that failed once refuses the sync as well.
//! - After a failed sync nothing more is written or acknowledged.
//! - "Not there" is only said by a read that met no error.

mod check;
mod commit;
mod damage;
mod digests;
mod indexes;
mod keys;
mod open;
mod options;
mod rebuild;
mod rows;
mod space;
mod trees;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, DBRawIterator, Error, ErrorKind, FlushOptions, ReadOptions, ReadTier,
    WriteBatch, WriteOptions,
};

pub use check::Checked;
use commit::{Committing, Gathering, LeafChange, sync_in_intervals};
pub(super) use damage::{Damage, demanded_rebuild, forget_demand};
use keys::{hint_key, read_digest_key};
pub(super) use open::{Refusal, number_of, open_strictly, salvage, set_number};
use options::{CONFLICTS, DIGESTS, FADING, GRAVES, HINTS, META, OBJECTS};
pub use options::{Durability, RocksOptions};
pub(super) use rebuild::rebuild;
use space::Space;

use super::faults::Faults;

use super::journal::Journal;
use crate::ids::{NodeId, Partition};
use crate::key::Key;
use crate::store::forest::{Forest, Leaves, Root, Tally};
use crate::store::{Batch, Cached, Digest, Entry, Imprint, Places, Store, StoreError, StoredKey};
use crate::time::WallMs;

/// All families.
const FAMILIES: [&str; 7] = [OBJECTS, DIGESTS, FADING, CONFLICTS, HINTS, GRAVES, META];

/// Under this key of the meta family stands the number of the last commit, little-endian.
const NUMBER_KEY: &[u8] = b"commit";
/// The hints' family, in words.
const KEPT: &str = "what is kept for other members";
/// Bytes in front of a hint's stored key.
const OWNER_BYTES: usize = 16;

/// A [`Store`] on a disk. Made by [`Disk::open`](super::disk::Disk::open).
pub struct RocksStore {
    db: DB,
    durability: Durability,
    keeps_trees: bool,
    gathering: Mutex<Gathering>,
    committing: Mutex<Committing>,
    /// Changed with each group, by the thread that writes it.
    forest: Mutex<Forest>,
    damage: Damage,
    /// The number of the last group that was written.
    number: AtomicU64,
    /// A commit was refused since this store was opened.
    refused: AtomicBool,
    directory: PathBuf,
    reserve_bytes: u64,
    reads: ReadOptions,
    cached_reads: ReadOptions,
    writes: WriteOptions,
    /// What may hold commits up, or refuse them.
    faults: OnceLock<Arc<Faults>>,
    /// Dropped with the store, which ends the thread that syncs in intervals.
    _ticker: Sender<()>,
}

impl RocksStore {
    /// Takes over an open database whose number is `number` or was brought to it.
    pub(super) fn over(
        db: DB,
        path: &Path,
        journal: Journal,
        number: u64,
        options: &RocksOptions,
    ) -> Arc<Self> {
        let mut cached_reads = ReadOptions::default();
        cached_reads.set_read_tier(ReadTier::BlockCache);
        let committing = Committing {
            spare: WriteBatch::default(),
            space: Space::new(path, options.reserve_bytes),
            journal,
            synced: number,
            full: false,
            ended: None,
        };
        let (batch, group) = (WriteBatch::default(), Arc::default());
        let (sender, receiver) = channel();
        let store = Arc::new(Self {
            db,
            durability: options.durability,
            keeps_trees: options.trees,
            gathering: Mutex::new(Gathering { batch, bytes: 0, leaves: Vec::new(), group }),
            committing: Mutex::new(committing),
            forest: Mutex::new(Forest::uncounted()),
            damage: Damage::none(path),
            number: AtomicU64::new(number),
            refused: AtomicBool::new(false),
            directory: path.to_owned(),
            reserve_bytes: options.reserve_bytes,
            reads: ReadOptions::default(),
            cached_reads,
            writes: WriteOptions::default(),
            faults: OnceLock::new(),
            _ticker: sender,
        });
        if let Durability::Interval(interval) = options.durability {
            let store = Arc::downgrade(&store);
            let tick = move || sync_in_intervals(&store, interval, &receiver);
            let builder = thread::Builder::new().name("ringdove-sync".to_owned());
            builder.spawn(tick).expect("a thread can be started at start");
        }
        trees::restore(&store);
        store
    }

    /// The number of the last commit.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Whether a commit was refused since this store was opened. Dots in it may stand on other
    /// members and are missing here, so they must not be made again.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// Ends all writing, makes everything durable and returns the number of the last commit.
    /// Reads go on.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] when it cannot be proven that everything is on disk.
    pub fn stop(&self) -> Result<u64, StoreError> {
        let mut committing = self.committing();
        let ended = StoreError::Fatal("the store has been stopped".to_owned());
        if let Some(earlier) = committing.ended.replace(ended) {
            return Err(earlier);
        }
        self.keep_forest();
        self.sync(&mut committing)?;
        // Leaves nothing for the next start to replay. Failing is no loss: the log is synced.
        let families = FAMILIES.map(|name| self.family(name));
        if let Err(error) = self.db.flush_cfs_opt(&families, &FlushOptions::default()) {
            tracing::warn!(%error, "memtables were not flushed at the stop; the log holds them");
        }
        Ok(self.number())
    }

    /// Whether the disk has room for more writes to be begun, and if not, why. May block on it.
    ///
    /// # Errors
    /// How much must be free for that, which is more on a disk that `was_full`.
    pub fn room(&self, was_full: bool) -> Result<(), String> {
        let is_pretended = self.faults.get().is_some_and(|faults| faults.is_disk_full());
        space::look(&self.directory, self.reserve_bytes, was_full, is_pretended)
    }

    /// From now on suffers what these say.
    pub(in crate::server) fn suffer(&self, faults: Arc<Faults>) {
        let _ = self.faults.set(faults);
    }

    /// What is known to be damaged.
    pub(super) fn damage(&self) -> &Damage {
        &self.damage
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        family(&self.db, name)
    }

    /// A record could not be read.
    fn record_failed(&self, key: &StoredKey, error: &Error) -> StoreError {
        if key.owner().is_none() && !damage::is_shortage(error.as_ref()) {
            self.damage.is_unreadable(key);
        }
        read_failed(error)
    }

    /// A family beside the objects cannot be read on: only a new database goes past it.
    fn read_through<T>(&self, what: &str, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Corrupt(why)) = &read {
            self.damage.demand_rebuild(&format!("{what}: {why}"));
        }
        read
    }

    fn refuse_wrong(&self, key: &StoredKey) -> Result<(), StoreError> {
        match self.damage.has_wrong(key) {
            true => Err(damaged("the record is not what was written")),
            false => Ok(()),
        }
    }

    fn page_in_order(
        &self,
        partition: Partition,
        after: Option<&StoredKey>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut options = ReadOptions::default();
        // A copy of everything must not push out what requests are read from.
        options.fill_cache(false);
        // The last partition has no key behind it.
        if let Some(next) = partition.0.checked_add(1) {
            options.set_iterate_upper_bound(next.to_be_bytes());
        }
        let mut rows = self.db.raw_iterator_cf_opt(self.family(OBJECTS), options);
        let first = partition.0.to_be_bytes();
        rows.seek(after.map_or(&first[..], |after| after.as_bytes()));
        if let (Some(after), Some(key)) = (after, rows.key())
            && key == after.as_bytes()
        {
            rows.next();
        }
        let mut page = Vec::new();
        each(&mut rows, |key, record| {
            if page.len() == count {
                return Ok(false);
            }
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(key));
            let key = key.map_err(|error| StoreError::Corrupt(format!("a stored key: {error}")))?;
            self.refuse_wrong(&key)?;
            page.push(Entry { key, record: Bytes::copy_from_slice(record) });
            Ok(true)
        })?;
        Ok(page)
    }
}

impl Store for RocksStore {
    fn read(&self, key: &StoredKey) -> Result<Option<Bytes>, StoreError> {
        let found = match key.owner() {
            None => self.db.get_pinned_cf_opt(self.family(OBJECTS), key.as_bytes(), &self.reads),
            Some(owner) => {
                let key = hint_key(owner, key.as_bytes());
                self.db.get_pinned_cf_opt(self.family(HINTS), key, &self.reads)
            }
        };
        let found = found.map_err(|error| self.record_failed(key, &error))?;
        self.refuse_wrong(key)?;
        Ok(found.map(|record| Bytes::copy_from_slice(&record)))
    }

    fn read_cached(&self, key: &StoredKey) -> Result<Cached, StoreError> {
        let reads = &self.cached_reads;
        let found = match key.owner() {
            None => self.db.get_pinned_cf_opt(self.family(OBJECTS), key.as_bytes(), reads),
            Some(owner) => {
                let key = hint_key(owner, key.as_bytes());
                self.db.get_pinned_cf_opt(self.family(HINTS), key, reads)
            }
        };
        match found {
            Ok(found) => {
                self.refuse_wrong(key)?;
                Ok(Cached::Known(found.map(|record| Bytes::copy_from_slice(&record))))
            }
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::WouldBlock),
            Err(error) => Err(self.record_failed(key, &error)),
        }
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        // A group of nothing would cost a sync all the same.
        if batches.iter().all(|batch| batch.changes.is_empty() && batch.graves.is_empty()) {
            return Ok(());
        }
        let group = self.gather(batches);
        self.see_committed(&group)
    }

    fn clear(&self, partition: Partition, bucket: Option<&str>) -> Result<(), StoreError> {
        let mut first = partition.0.to_be_bytes().to_vec();
        let mut end = match partition.0.checked_add(1) {
            Some(next) => next.to_be_bytes().to_vec(),
            // Behind the number of the last partition stands the first letter of a bucket's name.
            None => vec![0xff; 3],
        };
        if let Some(bucket) = bucket {
            // Between the name and the key stands a zero, which no name contains.
            first.extend_from_slice(bucket.as_bytes());
            end.clone_from(&first);
            first.push(0);
            end.push(1);
        }
        let mut gathering = self.gathering();
        for name in [OBJECTS, DIGESTS, FADING, CONFLICTS] {
            gathering.batch.delete_range_cf(self.family(name), &first, &end);
        }
        gathering.bytes += 4 * (first.len() + end.len());
        gathering.leaves.push(LeafChange::Cleared(partition, bucket.map(str::to_owned)));
        let group = gathering.group.clone();
        drop(gathering);
        self.see_committed(&group)
    }

    fn page(
        &self,
        partition: Partition,
        after: Option<&StoredKey>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        match self.page_in_order(partition, after, count) {
            // A damaged block is in the way. What was in it has been written anew, or is an error.
            Err(StoreError::Corrupt(_)) => self.page_by_digests(partition, after, count),
            page => page,
        }
    }

    fn hints(
        &self,
        owner: NodeId,
        after: Option<&StoredKey>,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut options = ReadOptions::default();
        if let Some(next) = owner.0.checked_add(1) {
            options.set_iterate_upper_bound(next.to_be_bytes());
        }
        // Delivered hints are deletions, and a queue begins with them: the read begins behind the
        // last one delivered, which skips them.
        let mut rows = self.db.raw_iterator_cf_opt(self.family(HINTS), options);
        let after = after.map(|after| hint_key(owner, after.as_bytes()));
        match &after {
            Some(after) => rows.seek(after),
            None => rows.seek(owner.0.to_be_bytes()),
        }
        if after.is_some() && rows.key() == after.as_deref() {
            rows.next();
        }
        let (mut page, mut read) = (Vec::new(), 0);
        let listed = each(&mut rows, |key, record| {
            if read > 0 && read + record.len() > bytes {
                return Ok(false);
            }
            read += record.len().max(1);
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(&key[OWNER_BYTES..]));
            let key = key.map_err(|error| StoreError::Corrupt(format!("a hint's key: {error}")))?;
            page.push(Entry { key: key.kept_for(owner), record: Bytes::copy_from_slice(record) });
            Ok(read < bytes)
        });
        self.read_through(KEPT, listed).map(|()| page)
    }

    fn hint_owners(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut rows = self.db.raw_iterator_cf(self.family(HINTS));
        let mut owners = Vec::new();
        rows.seek_to_first();
        while let Some(key) = rows.key() {
            let owner = key.first_chunk().map(|owner| u128::from_be_bytes(*owner));
            let owner = owner.ok_or_else(|| StoreError::Corrupt("a hint's key".to_owned()))?;
            owners.push(NodeId(owner));
            let Some(next) = owner.checked_add(1) else { break };
            rows.seek(next.to_be_bytes());
        }
        let read = rows.status().map_err(|error| read_failed(&error));
        self.read_through(KEPT, read).map(|()| owners)
    }

    fn graves(&self) -> Result<Vec<Entry>, StoreError> {
        let mut rows = self.db.raw_iterator_cf_opt(self.family(GRAVES), scan());
        rows.seek_to_first();
        let mut graves = Vec::new();
        let read = each(&mut rows, |key, grave| {
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(key));
            let key = key.map_err(|_| damaged("the key of a grave"))?;
            graves.push(Entry { key, record: Bytes::copy_from_slice(grave) });
            Ok(true)
        });
        self.read_through("what is remembered of forgotten keys", read).map(|()| graves)
    }

    fn digest(&self) -> Result<(u64, u128), StoreError> {
        let mut rows = self.db.raw_iterator_cf_opt(self.family(DIGESTS), scan());
        rows.seek_to_first();
        let (mut keys, mut sum) = (0, 0);
        each(&mut rows, |_, imprint| {
            keys += 1;
            sum ^= read_imprint(imprint)?.digest;
            Ok(true)
        })?;
        Ok((keys, sum))
    }

    fn digests(
        &self,
        places: &Places,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<Digest>, StoreError> {
        digests::page(&self.db, places, after, count)
    }

    fn each_digest(
        &self,
        partition: Partition,
        bucket: &str,
        ranges: &[RangeInclusive<u64>],
        visit: &mut dyn FnMut(Digest),
    ) -> Result<(), StoreError> {
        digests::each_among(&self.db, partition, bucket, ranges, visit)
    }

    fn roots(&self, partition: Partition) -> Option<Vec<Root>> {
        self.forest().roots(partition)
    }

    fn leaves(&self, partition: Partition, bucket: &str) -> Option<Leaves> {
        self.forest().leaves(partition, bucket)
    }

    fn recount(&self, partition: Partition) -> Result<bool, StoreError> {
        self.recount_partition(partition)
    }

    fn tallies(&self) -> BTreeMap<String, Tally> {
        self.forest().tallies()
    }

    fn faded(
        &self,
        partition: Partition,
        until: WallMs,
        after: Option<&(WallMs, StoredKey)>,
        count: usize,
    ) -> Result<Vec<(WallMs, StoredKey)>, StoreError> {
        let faded = indexes::faded(&self.db, partition, until, after, count);
        self.read_through("when keys are to be forgotten", faded)
    }

    fn conflicts(
        &self,
        partition: Partition,
        bucket: &str,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let found = indexes::conflicts(&self.db, partition, bucket, after, count);
        self.read_through("which keys have several values", found)
    }

    fn estimated_bytes(&self) -> u64 {
        // Some of the records are not in files yet.
        let names = ["rocksdb.estimate-live-data-size", "rocksdb.cur-size-active-mem-table"];
        let size = |name| self.db.property_int_value_cf(self.family(OBJECTS), name).ok().flatten();
        names.into_iter().filter_map(size).sum()
    }

    fn estimated_keys(&self) -> u64 {
        let name = "rocksdb.estimate-num-keys";
        let estimate = self.db.property_int_value_cf(self.family(DIGESTS), name);
        estimate.ok().flatten().unwrap_or(0)
    }

    fn commits(&self) -> u64 {
        self.number()
    }
}

fn family<'a>(db: &'a DB, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("every family was opened")
}

/// How everything is read that should not push out what requests are read from.
fn scan() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(2 << 20);
    options
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

fn read_imprint(bytes: &[u8]) -> Result<Imprint, StoreError> {
    Imprint::decode(bytes).ok_or_else(|| damaged("an imprint"))
}

/// Visits rows from where `rows` stands until `visit` has enough. An end that is due to an error
/// is an error.
fn each(
    rows: &mut DBRawIterator<'_>,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    while let Some((key, value)) = rows.item() {
        if !visit(key, value)? {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(|error| read_failed(&error))
}

/// Whatever kept RocksDB from reading, what is there cannot be had from this disk.
fn read_failed(error: &Error) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

/// The binding hands on the text of a status only; this is `strerror(ENOSPC)`, and RocksDB's own
/// words for the same.
fn is_no_space(error: &Error) -> bool {
    error.kind() == ErrorKind::IOError && error.as_ref().contains("No space left on device")
}

/// Whether RocksDB could not read: what is there is damaged, or the disk does not give it. (`While
/// pread` is what it says of a read from a table that failed, and of nothing else.)
fn is_unreadable(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption => true,
        ErrorKind::IOError => error.as_ref().contains("While pread"),
        _ => false,
    }
}
