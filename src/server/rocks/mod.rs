//! RocksDB behind [`Store`].
//!
//! The life of a commit, which any number of threads may be in at once:
//!
//! ```text
//!   1  room?      below the reserve: Full, and RocksDB was not asked
//!   2  write      one WriteBatch: records, digests, and the group's number     (one at a time)
//!   3  sync       the log, for every group written so far                      (one at a time)
//!   4  journal    the number of the last group of 3, synced
//!   5  return
//! ```
//!
//! Steps 3 and 4 are skipped by who finds, when its turn comes, that another thread's sync has
//! covered its group already. So threads that commit together share a sync, and a single thread
//! waits for nobody.
//!
//! What always holds:
//! - A commit that returned is in the log on the disk, and its number is in the journal
//!   ([`Durability::Fsync`]), in that order: so the journal is never ahead of a whole disk.
//! - `Full` means that nothing was written. RocksDB writes its log before its memory, and a log
//!   record that did not fit is torn, which recovery drops.
//! - After a failed sync nothing more is written or acknowledged.
//! - "Not there" is only said by a read that met no error.

mod open;
mod options;
mod space;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    ColumnFamily, DB, DBRawIterator, Error, ErrorKind, FlushOptions, ReadOptions, ReadTier,
    WriteBatch, WriteOptions,
};

pub(super) use open::{Refusal, number_of, open_strictly, salvage, set_number};
use options::{DIGESTS, HINTS, META, OBJECTS};
pub use options::{Durability, RocksOptions};
use space::Space;

use super::journal::Journal;
use crate::ids::Partition;
use crate::store::{Batch, Cached, Entry, Store, StoreError, StoredKey};

/// Under this key of the meta family stands the number of the last commit, little-endian.
const NUMBER_KEY: &[u8] = b"commit";

/// A [`Store`] on a disk. Made by [`Disk::open`](super::disk::Disk::open).
pub struct RocksStore {
    db: DB,
    durability: Durability,
    writer: Mutex<Writer>,
    /// The number of the last group that is in the log, synced or not.
    written: AtomicU64,
    /// The number of the last group that is synced. Held while syncing.
    synced: Mutex<u64>,
    journal: Mutex<Journal>,
    /// Set for good by a sync that failed.
    failed: AtomicBool,
    reads: ReadOptions,
    cached_reads: ReadOptions,
    writes: WriteOptions,
    /// Dropped with the store, which ends the thread that syncs in intervals.
    _ticker: Option<Sender<()>>,
}

struct Writer {
    /// Kept for its memory.
    batch: WriteBatch,
    space: Space,
    stopped: bool,
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
        let space = Space::new(path, options.reserve_bytes);
        let (sender, receiver) = channel();
        let store = Arc::new(Self {
            db,
            durability: options.durability,
            writer: Mutex::new(Writer { batch: WriteBatch::default(), space, stopped: false }),
            written: AtomicU64::new(number),
            synced: Mutex::new(number),
            journal: Mutex::new(journal),
            failed: AtomicBool::new(false),
            reads: ReadOptions::default(),
            cached_reads,
            writes: WriteOptions::default(),
            _ticker: Some(sender),
        });
        if let Durability::Interval(interval) = options.durability {
            let store = Arc::downgrade(&store);
            let tick =
                move || sync_in_intervals(&store, interval, || receiver.recv_timeout(interval));
            let builder = thread::Builder::new().name("ringdove-sync".to_owned());
            builder.spawn(tick).expect("a thread can be started at start");
        }
        store
    }

    /// The number of the last commit.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Ends all writing, makes everything durable and returns the number of the last commit.
    /// Reads go on.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] when it cannot be proven that everything is on disk.
    pub fn stop(&self) -> Result<u64, StoreError> {
        self.writer().stopped = true;
        let number = self.number();
        self.sync_up_to(number)?;
        // Leaves nothing for the next start to replay. Failing is no loss: the log is synced.
        let families = [OBJECTS, DIGESTS, HINTS, META].map(|name| self.family(name));
        if let Err(error) = self.db.flush_cfs_opt(&families, &FlushOptions::default()) {
            tracing::warn!(%error, "memtables were not flushed at the stop; the log holds them");
        }
        Ok(number)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family was opened")
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect("no method panics while it holds the writer")
    }

    fn check_failed(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Fatal("an earlier sync failed".to_owned()));
        }
        Ok(())
    }

    /// Writes all changes as one group; visible when it returns, durable after a sync.
    fn write(&self, batches: &[Batch]) -> Result<u64, StoreError> {
        let changes = || batches.iter().flat_map(|batch| &batch.changes);
        let bytes = changes().map(|c| 2 * c.key.as_bytes().len() + c.record.len() + 16).sum();
        let mut writer = self.writer();
        self.check_failed()?;
        if writer.stopped {
            return Err(StoreError::Fatal("the store has been stopped".to_owned()));
        }
        writer.space.admit(bytes).map_err(StoreError::Full)?;
        let (objects, digests) = (self.family(OBJECTS), self.family(DIGESTS));
        let number = self.number() + 1;
        let batch = &mut writer.batch;
        batch.clear();
        for change in changes() {
            batch.put_cf(objects, change.key.as_bytes(), &change.record);
            batch.put_cf(digests, change.key.as_bytes(), change.digest.to_le_bytes());
        }
        batch.put_cf(self.family(META), NUMBER_KEY, number.to_le_bytes());
        self.db.write_opt(batch, &self.writes).map_err(|error| self.write_failed(&error))?;
        self.written.store(number, Ordering::Release);
        Ok(number)
    }

    fn write_failed(&self, error: &Error) -> StoreError {
        let text = error.to_string();
        match error.kind() {
            _ if is_no_space(error) => StoreError::Full(text),
            // A compaction met damage and RocksDB has closed itself to writes. Nothing was written.
            ErrorKind::Corruption => StoreError::Corrupt(text),
            _ => self.fail(text),
        }
    }

    fn fail(&self, why: String) -> StoreError {
        self.failed.store(true, Ordering::Release);
        StoreError::Fatal(why)
    }

    /// Makes the groups up to `number` durable, unless another thread has.
    fn sync_up_to(&self, number: u64) -> Result<(), StoreError> {
        let mut synced = self.synced.lock().expect("no method panics while it syncs");
        self.check_failed()?;
        if *synced >= number {
            return Ok(());
        }
        let last = self.number();
        self.db.flush_wal(true).map_err(|error| self.fail(format!("sync of the log: {error}")))?;
        self.enter(last, true)?;
        *synced = last;
        Ok(())
    }

    fn enter(&self, number: u64, sync: bool) -> Result<(), StoreError> {
        let mut journal = self.journal.lock().expect("no method panics while it holds the journal");
        let entered =
            journal.enter(number).and_then(|()| if sync { journal.sync() } else { Ok(()) });
        entered.map_err(|error| self.fail(format!("journal: {error}")))
    }
}

impl Store for RocksStore {
    fn read(&self, key: &StoredKey) -> Result<Option<Bytes>, StoreError> {
        let found = self.db.get_pinned_cf_opt(self.family(OBJECTS), key.as_bytes(), &self.reads);
        let found = found.map_err(|error| read_failed(&error))?;
        Ok(found.map(|record| Bytes::copy_from_slice(&record)))
    }

    fn read_cached(&self, key: &StoredKey) -> Result<Cached, StoreError> {
        let objects = self.family(OBJECTS);
        match self.db.get_pinned_cf_opt(objects, key.as_bytes(), &self.cached_reads) {
            Ok(found) => Ok(Cached::Known(found.map(|record| Bytes::copy_from_slice(&record)))),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::WouldBlock),
            Err(error) => Err(read_failed(&error)),
        }
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        if batches.iter().all(|batch| batch.changes.is_empty()) {
            return self.check_failed();
        }
        let number = self.write(batches)?;
        match self.durability {
            Durability::Fsync => self.sync_up_to(number),
            Durability::Interval(_) | Durability::None => self.enter(number, false),
        }
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

    fn digest(&self) -> Result<(u64, u128), StoreError> {
        let mut options = ReadOptions::default();
        // A scan of everything must not push out what requests are read from.
        options.fill_cache(false);
        options.set_readahead_size(2 << 20);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(DIGESTS), options);
        rows.seek_to_first();
        let (mut keys, mut sum) = (0, 0);
        each(&mut rows, |_, digest| {
            let digest = digest
                .try_into()
                .map_err(|_| StoreError::Corrupt(format!("a digest of {} bytes", digest.len())))?;
            keys += 1;
            sum ^= u128::from_le_bytes(digest);
            Ok(true)
        })?;
        Ok((keys, sum))
    }

    fn estimated_keys(&self) -> u64 {
        let name = "rocksdb.estimate-num-keys";
        let estimate = self.db.property_int_value_cf(self.family(DIGESTS), name);
        estimate.ok().flatten().unwrap_or(0)
    }
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

fn sync_in_intervals(
    store: &Weak<RocksStore>,
    interval: Duration,
    wait: impl Fn() -> Result<(), RecvTimeoutError>,
) {
    while wait() == Err(RecvTimeoutError::Timeout) {
        let Some(store) = store.upgrade() else { return };
        // Whoever commits next is told; here is nobody to tell.
        if let Err(error) = store.sync_up_to(store.number()) {
            tracing::error!(%error, ?interval, "the sync of the interval failed");
            return;
        }
    }
}
