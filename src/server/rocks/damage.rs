//! What is known to be damaged in this database, and has not been mended yet.
//!
//! A record comes in here whoever meets it first: a client's read, an exchange, the scrub. It goes when
//! something whole has been written in its place. Until then every read of it is an error, also
//! where RocksDB finds nothing wrong with its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::ids::Partition;
use crate::server::slots::sync_directory_of;
use crate::store::StoredKey;

/// The file that asks the next start to build the database anew. Its text is the reason.
const DEMAND_FILE: &str = "rebuild";
/// Records that are remembered. The scrub finds the rest once these are mended.
const MOST: usize = 100_000;

/// See the module's page.
pub struct Damage {
    records: Mutex<BTreeMap<StoredKey, Kind>>,
    /// Whether there is any, so that nobody asks in vain for the lock.
    any: AtomicBool,
    told: Notify,
    /// Since the start.
    found: AtomicU64,
    mended: AtomicU64,
    root: PathBuf,
    rebuild: AtomicBool,
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// RocksDB says so at every read.
    Unreadable,
    /// Its bytes read well, and are not what was written: only this says so.
    Wrong,
}

impl Damage {
    /// Nothing yet, of the database in the data directory `root`.
    pub(super) fn none(root: &Path) -> Self {
        Self {
            records: Mutex::default(),
            any: AtomicBool::new(false),
            told: Notify::new(),
            found: AtomicU64::new(0),
            mended: AtomicU64::new(0),
            root: root.to_owned(),
            rebuild: AtomicBool::new(false),
        }
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<StoredKey, Kind>> {
        self.records.lock().expect("no holder of the lock panics")
    }

    /// RocksDB cannot read a record of this node's own.
    pub(super) fn is_unreadable(&self, key: &StoredKey) {
        self.add(key, Kind::Unreadable);
    }

    /// A record reads well and is not what was written: from now on it reads as damaged.
    pub(super) fn is_wrong(&self, key: &StoredKey) {
        self.add(key, Kind::Wrong);
    }

    fn add(&self, key: &StoredKey, kind: Kind) {
        let mut records = self.records();
        let is_known = records.contains_key(key);
        // A wrong value must never be served, however many there are.
        if is_known || (kind == Kind::Unreadable && records.len() >= MOST) {
            return;
        }
        records.insert(key.clone(), kind);
        self.any.store(true, Ordering::Release);
        drop(records);
        self.found.fetch_add(1, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// Whether a record must not be served although it reads well.
    pub(super) fn has_wrong(&self, key: &StoredKey) -> bool {
        self.any.load(Ordering::Acquire) && self.records().get(key) == Some(&Kind::Wrong)
    }

    /// Something whole was written under these keys.
    pub(super) fn is_written<'a>(&self, keys: impl Iterator<Item = &'a StoredKey>) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut records = self.records();
        let mended = keys.filter(|key| records.remove(*key).is_some()).count();
        self.mended.fetch_add(mended as u64, Ordering::Relaxed);
        self.any.store(!records.is_empty(), Ordering::Release);
    }

    /// Everything in this partition has been deleted, or of one bucket of it.
    pub(super) fn is_cleared(&self, partition: Partition, bucket: Option<&str>) {
        let mut records = self.records();
        let is_gone = |key: &StoredKey| {
            key.partition() == partition && bucket.is_none_or(|of| key.key().bucket() == of)
        };
        records.retain(|key, _| !is_gone(key));
        self.any.store(!records.is_empty(), Ordering::Release);
    }

    /// It was no damage.
    pub(super) fn forget(&self, key: &StoredKey) {
        let mut records = self.records();
        if records.remove(key).is_some() {
            self.found.fetch_sub(1, Ordering::Relaxed);
        }
        self.any.store(!records.is_empty(), Ordering::Release);
    }

    /// Records that were found to be damaged since the start.
    pub(in crate::server) fn found_in_all(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Of those, records that have been written anew.
    pub(in crate::server) fn mended_in_all(&self) -> u64 {
        self.mended.load(Ordering::Relaxed)
    }

    /// What is to be mended.
    pub(in crate::server) fn keys(&self) -> BTreeSet<StoredKey> {
        self.records().keys().cloned().collect()
    }

    /// Whether a record has not been mended yet.
    pub(in crate::server) fn contains(&self, key: &StoredKey) -> bool {
        self.any.load(Ordering::Acquire) && self.records().contains_key(key)
    }

    /// How many have not been mended yet.
    pub(in crate::server) fn count(&self) -> usize {
        if self.any.load(Ordering::Acquire) { self.records().len() } else { 0 }
    }

    /// Returns when something was found, which may have been earlier.
    pub(in crate::server) async fn found(&self) {
        self.told.notified().await;
    }

    /// Asks the next start to build the database anew from what can be read of it: what is wrong cannot
    /// be mended by writing.
    pub(super) fn demand_rebuild(&self, why: &str) {
        if is_shortage(why) || self.rebuild.swap(true, Ordering::AcqRel) {
            return;
        }
        match demand_rebuild(&self.root, why) {
            Ok(()) => tracing::error!(
                why,
                "a part of the database cannot be read; the next start builds it anew from the rest, \
                 and fetches what is missing from the other replicas. Restart this node soon"
            ),
            Err(error) => tracing::error!(why, %error, "the rebuild could not be asked for"),
        }
    }

    /// Whether the next start builds the database anew.
    pub(in crate::server) fn awaits_rebuild(&self) -> bool {
        self.rebuild.load(Ordering::Acquire)
    }
}

/// Whether something could not be read for want of what is not the disk: `strerror` of `EMFILE`, `ENFILE`
/// and `ENOMEM`. Nothing is damaged then.
pub(super) fn is_shortage(why: &str) -> bool {
    ["Too many open files", "Cannot allocate memory"].iter().any(|words| why.contains(words))
}

fn demand_rebuild(root: &Path, why: &str) -> io::Result<()> {
    let path = root.join(DEMAND_FILE);
    let mut file = File::create(&path)?;
    file.write_all(why.as_bytes())?;
    file.sync_all()?;
    sync_directory_of(&path)
}

/// Why the last process wanted the database built anew, if it did. Half a text is a demand, too.
pub(in crate::server) fn demanded_rebuild(root: &Path) -> io::Result<Option<String>> {
    match fs::read(root.join(DEMAND_FILE)) {
        Ok(why) => Ok(Some(String::from_utf8_lossy(&why).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// It has been done.
pub(in crate::server) fn forget_demand(root: &Path) -> io::Result<()> {
    match fs::remove_file(root.join(DEMAND_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_directory_of(&root.join(DEMAND_FILE)),
    }
}
