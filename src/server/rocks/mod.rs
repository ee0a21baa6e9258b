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

mod keys;
mod open;
mod options;
mod space;
mod trees;

use std::collections::BTreeMap;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, DBRawIterator, Error, ErrorKind, FlushOptions, ReadOptions, ReadTier,
    WriteBatch, WriteOptions,
};

use keys::{digest_key, fading_key, hint_key, read_digest_key, read_fading_key};
pub(super) use open::{Refusal, number_of, open_strictly, salvage, set_number};
use options::{CONFLICTS, DIGESTS, FADING, GRAVES, HINTS, META, OBJECTS};
pub use options::{Durability, RocksOptions};
use space::Space;

use super::journal::Journal;
use crate::ids::{NodeId, Partition};
use crate::key::Key;
use crate::store::forest::{Forest, Leaves, Root, Tally};
use crate::store::{
    Batch, Cached, Change, Digest, Entry, Imprint, Places, Store, StoreError, StoredKey,
};
use crate::time::WallMs;

/// All families.
const FAMILIES: [&str; 7] = [OBJECTS, DIGESTS, FADING, CONFLICTS, HINTS, GRAVES, META];

/// Under this key of the meta family stands the number of the last commit, little-endian.
const NUMBER_KEY: &[u8] = b"commit";
/// Bytes in front of a hint's stored key.
const OWNER_BYTES: usize = 16;

/// A [`Store`] on a disk. Made by [`Disk::open`](super::disk::Disk::open).
pub struct RocksStore {
    db: DB,
    durability: Durability,
    gathering: Mutex<Gathering>,
    committing: Mutex<Committing>,
    /// Changed with each group, by the thread that writes it.
    forest: Mutex<Forest>,
    /// The number of the last group that was written.
    number: AtomicU64,
    /// A commit was refused since this store was opened.
    refused: AtomicBool,
    reads: ReadOptions,
    cached_reads: ReadOptions,
    writes: WriteOptions,
    /// Dropped with the store, which ends the thread that syncs in intervals.
    _ticker: Sender<()>,
}

/// The group that has not been written yet.
struct Gathering {
    batch: WriteBatch,
    bytes: usize,
    /// What the trees are to hear of once the group is written.
    leaves: Vec<LeafChange>,
    group: Arc<Group>,
}

/// What a group does to the trees.
enum LeafChange {
    Replaced(StoredKey, Imprint, Imprint),
    Cleared(Partition),
}

/// What became of a group, once that is known.
#[derive(Default)]
struct Group {
    outcome: OnceLock<Result<(), StoreError>>,
}

/// What only the thread at the front of the line touches.
struct Committing {
    /// The batch of the group before, empty: kept for its memory.
    spare: WriteBatch,
    space: Space,
    journal: Journal,
    /// The number of the last group that is synced.
    synced: u64,
    /// Whether the last write was refused by a full disk. The log can't be synced then, and need
    /// not be: RocksDB recovers by writing everything to tables and beginning another.
    full: bool,
    /// Why nothing can be committed any more.
    ended: Option<StoreError>,
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
            gathering: Mutex::new(Gathering { batch, bytes: 0, leaves: Vec::new(), group }),
            committing: Mutex::new(committing),
            forest: Mutex::new(Forest::uncounted()),
            number: AtomicU64::new(number),
            refused: AtomicBool::new(false),
            reads: ReadOptions::default(),
            cached_reads,
            writes: WriteOptions::default(),
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

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family was opened")
    }

    fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().expect("no method panics while it gathers")
    }

    fn committing(&self) -> MutexGuard<'_, Committing> {
        self.committing.lock().expect("no method panics while it commits")
    }

    /// Adds changes to the group that is being gathered.
    fn gather(&self, batches: &[Batch]) -> Arc<Group> {
        let mut gathering = self.gathering();
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            self.gather_change(&mut gathering, change);
        }
        for (key, grave) in batches.iter().flat_map(|batch| &batch.graves) {
            gathering.bytes += key.as_bytes().len() + grave.as_ref().map_or(0, Bytes::len);
            match grave {
                Some(grave) => gathering.batch.put_cf(self.family(GRAVES), key.as_bytes(), grave),
                None => gathering.batch.delete_cf(self.family(GRAVES), key.as_bytes()),
            }
        }
        gathering.group.clone()
    }

    fn gather_change(&self, gathering: &mut Gathering, change: &Change) {
        let key = change.key.as_bytes();
        let record = change.record.as_deref();
        gathering.bytes += 2 * key.len() + record.map_or(0, <[u8]>::len) + Imprint::BYTES;
        let batch = &mut gathering.batch;
        if let Some(owner) = change.key.owner() {
            let hints = self.family(HINTS);
            match record {
                Some(record) => batch.put_cf(hints, hint_key(owner, key), record),
                None => batch.delete_cf(hints, hint_key(owner, key)),
            }
            return;
        }
        let (objects, digests) = (self.family(OBJECTS), self.family(DIGESTS));
        match record {
            Some(record) => {
                batch.put_cf(objects, key, record);
                batch.put_cf(digests, digest_key(&change.key), change.after.encode());
            }
            None => {
                batch.delete_cf(objects, key);
                batch.delete_cf(digests, digest_key(&change.key));
            }
        }
        let (before, after) = (&change.before, &change.after);
        if before.fades_at != after.fades_at {
            let fading = self.family(FADING);
            if let Some(at) = before.fades_at {
                batch.delete_cf(fading, fading_key(at, &change.key));
            }
            if let Some(at) = after.fades_at {
                batch.put_cf(fading, fading_key(at, &change.key), []);
            }
        }
        match (before.siblings > 1, after.siblings > 1) {
            (false, true) => batch.put_cf(self.family(CONFLICTS), key, []),
            (true, false) => batch.delete_cf(self.family(CONFLICTS), key),
            _ => {}
        }
        gathering.leaves.push(LeafChange::Replaced(change.key.clone(), *before, *after));
    }

    /// Commits a group, unless somebody has; returns what came of it.
    fn see_committed(&self, group: &Group) -> Result<(), StoreError> {
        let mut committing = self.committing();
        if group.outcome.get().is_none() {
            self.commit_group(&mut committing);
        }
        drop(committing);
        group.outcome.get().expect("the group has been committed").clone()
    }

    /// Writes the group that has been gathered, and makes it as durable as is asked for.
    fn commit_group(&self, committing: &mut Committing) {
        let next = Arc::default();
        let mut gathering = self.gathering();
        let mut batch = mem::replace(&mut gathering.batch, mem::take(&mut committing.spare));
        let bytes = mem::take(&mut gathering.bytes);
        let leaves = mem::take(&mut gathering.leaves);
        let group = mem::replace(&mut gathering.group, next);
        drop(gathering);
        let written = self.write(committing, &mut batch, bytes);
        if written.is_ok() {
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

    fn write(
        &self,
        committing: &mut Committing,
        batch: &mut WriteBatch,
        bytes: usize,
    ) -> Result<(), StoreError> {
        if let Some(ended) = &committing.ended {
            return Err(ended.clone());
        }
        committing.space.admit(bytes).map_err(StoreError::Full)?;
        let number = self.number() + 1;
        batch.put_cf(self.family(META), NUMBER_KEY, number.to_le_bytes());
        let written = self.db.write_opt(batch, &self.writes);
        committing.full = written.as_ref().is_err_and(is_no_space);
        written.map_err(|error| match error.kind() {
            _ if committing.full => StoreError::Full(error.to_string()),
            // A compaction met damage and RocksDB has closed itself to writes. Nothing was written.
            ErrorKind::Corruption => StoreError::Corrupt(error.to_string()),
            _ => committing.end(error.to_string()),
        })?;
        self.number.store(number, Ordering::Release);
        Ok(())
    }

    /// Makes everything that was written outlive the machine's power.
    fn sync(&self, committing: &mut Committing) -> Result<(), StoreError> {
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

    fn enter(&self, committing: &mut Committing, sync: bool) -> Result<(), StoreError> {
        let journal = &mut committing.journal;
        let entered = journal.enter(self.number());
        let entered = entered.and_then(|()| if sync { journal.sync() } else { Ok(()) });
        entered.map_err(|error| committing.end(format!("journal: {error}")))
    }
}

impl Committing {
    /// Nobody knows what is on the disk: nothing may be written from here on.
    fn end(&mut self, why: String) -> StoreError {
        let ended = StoreError::Fatal(why);
        self.ended = Some(ended.clone());
        ended
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
        let found = found.map_err(|error| read_failed(&error))?;
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
            Ok(found) => Ok(Cached::Known(found.map(|record| Bytes::copy_from_slice(&record)))),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::WouldBlock),
            Err(error) => Err(read_failed(&error)),
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

    fn clear(&self, partition: Partition) -> Result<(), StoreError> {
        let first = partition.0.to_be_bytes().to_vec();
        // Behind the number of the last partition stands the first letter of a bucket's name.
        let end = match partition.0.checked_add(1) {
            Some(next) => next.to_be_bytes().to_vec(),
            None => vec![0xff; 3],
        };
        let mut gathering = self.gathering();
        for name in [OBJECTS, DIGESTS, FADING, CONFLICTS] {
            gathering.batch.delete_range_cf(self.family(name), &first, &end);
        }
        gathering.bytes += 4 * (first.len() + end.len());
        gathering.leaves.push(LeafChange::Cleared(partition));
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
        let mut options = ReadOptions::default();
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
            page.push(Entry { key, record: Bytes::copy_from_slice(record) });
            Ok(true)
        })?;
        Ok(page)
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
        each(&mut rows, |key, record| {
            if read > 0 && read + record.len() > bytes {
                return Ok(false);
            }
            read += record.len().max(1);
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(&key[OWNER_BYTES..]));
            let key = key.map_err(|error| StoreError::Corrupt(format!("a hint's key: {error}")))?;
            page.push(Entry { key: key.kept_for(owner), record: Bytes::copy_from_slice(record) });
            Ok(read < bytes)
        })?;
        Ok(page)
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
        rows.status().map_err(|error| read_failed(&error))?;
        Ok(owners)
    }

    fn graves(&self) -> Result<Vec<Entry>, StoreError> {
        let mut rows = self.db.raw_iterator_cf_opt(self.family(GRAVES), scan());
        rows.seek_to_first();
        let mut graves = Vec::new();
        each(&mut rows, |key, grave| {
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(key));
            let key = key.map_err(|_| damaged("the key of a grave"))?;
            graves.push(Entry { key, record: Bytes::copy_from_slice(grave) });
            Ok(true)
        })?;
        Ok(graves)
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
        let (first, end) = keys::digest_range(places);
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_iterate_upper_bound(end);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(DIGESTS), options);
        let after = after.map(|after| digest_key(&StoredKey::new(places.partition, after)));
        rows.seek(after.as_ref().unwrap_or(&first));
        if after.is_some() && rows.key() == after.as_deref() {
            rows.next();
        }
        let mut digests = Vec::new();
        each(&mut rows, |key, imprint| {
            if digests.len() == count {
                return Ok(false);
            }
            let (place, key) = read_digest_key(key).ok_or_else(|| damaged("a digest's key"))?;
            digests.push(Digest { place, key, imprint: read_imprint(imprint)? });
            Ok(true)
        })?;
        Ok(digests)
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
        let mut options = ReadOptions::default();
        if let Some(next) = partition.0.checked_add(1) {
            options.set_iterate_upper_bound(next.to_be_bytes());
        }
        let mut rows = self.db.raw_iterator_cf_opt(self.family(FADING), options);
        let after = after.map(|(at, key)| fading_key(*at, key));
        match &after {
            Some(after) => rows.seek(after),
            None => rows.seek(partition.0.to_be_bytes()),
        }
        if after.is_some() && rows.key() == after.as_deref() {
            rows.next();
        }
        let mut faded = Vec::new();
        each(&mut rows, |key, _| {
            let (at, key) = read_fading_key(key).ok_or_else(|| damaged("the time of a key"))?;
            if faded.len() == count || at > until {
                return Ok(false);
            }
            faded.push((at, key));
            Ok(true)
        })?;
        Ok(faded)
    }

    fn conflicts(
        &self,
        after: Option<&StoredKey>,
        count: usize,
    ) -> Result<Vec<StoredKey>, StoreError> {
        let mut rows = self.db.raw_iterator_cf(self.family(CONFLICTS));
        match after {
            Some(after) => rows.seek(after.as_bytes()),
            None => rows.seek_to_first(),
        }
        if let (Some(after), Some(key)) = (after, rows.key())
            && key == after.as_bytes()
        {
            rows.next();
        }
        let mut found = Vec::new();
        each(&mut rows, |key, _| {
            if found.len() == count {
                return Ok(false);
            }
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(key));
            found.push(key.map_err(|_| damaged("a stored key"))?);
            Ok(true)
        })?;
        Ok(found)
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

fn sync_in_intervals(store: &Weak<RocksStore>, interval: Duration, stopped: &Receiver<()>) {
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
