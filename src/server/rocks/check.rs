//! Reading everything of a partition to see whether it is still what was written.
//!
//! ```text
//!   records, in order ──▶ decode, digest ──▶ sum   ┐ equal: done. Not equal, or something could not be
//!   digests, in order ───────────────────▶ sum     ┘ read: look at every key by itself
//!   trees ◀── count the digests again
//! ```
//!
//! Both families are read as of one moment between two commits. No snapshot is taken for that: where one
//! is released RocksDB begins to compact, and a damaged table would not live to see its records restored.
//! Nothing that is read here pushes anything out of the cache; a block that stands there is taken from it, and read from the
//! disk when a later check finds it gone.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions};

use super::keys::{digest_key, read_digest_key};
use super::options::{DIGESTS, OBJECTS};
use super::{RocksStore, damaged, each, read_failed, read_imprint, scan};
use crate::causality::{Object, digest_of};
use crate::ids::Partition;
use crate::store::record::Record;
use crate::store::{Entry, Store, StoreError, StoredKey};

/// After so many bytes the check asks whether to go on.
const STEP_BYTES: usize = 128 << 10;
/// What looking at one key is taken to read: a block.
const LOOK_BYTES: usize = 4096;

/// What a check has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that are damaged: `Damage` names them.
    pub damaged: u64,
    /// The trees were wrong, and have been counted again.
    pub recounted: bool,
}

/// Keys and the XOR of their digests, by bucket.
type Sums = BTreeMap<Vec<u8>, (u64, u128)>;

fn add(sums: &mut Sums, bucket: &str, digest: u128) {
    if !sums.contains_key(bucket.as_bytes()) {
        sums.insert(bucket.as_bytes().to_vec(), (0, 0));
    }
    let (keys, sum) = sums.get_mut(bucket.as_bytes()).expect("it is there now");
    *keys += 1;
    *sum ^= digest;
}

/// Counts bytes, and asks from time to time.
struct Steps<'a> {
    go_on: &'a mut dyn FnMut(usize) -> bool,
    bytes: usize,
}

impl Steps<'_> {
    /// So much was read; returns whether to read more.
    fn take(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bytes < STEP_BYTES || (self.go_on)(std::mem::take(&mut self.bytes))
    }
}

impl RocksStore {
    /// Reads all of a partition. `go_on` hears of the bytes that were read and says whether to read
    /// more; it may take its time. `None` where it did not want more.
    ///
    /// # Errors
    /// As [`Store::read`], where not even a part can be checked. Damaged records are no error.
    pub fn check(
        &self,
        partition: Partition,
        go_on: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Option<Checked>, StoreError> {
        let committing = self.committing();
        let records = self.rows(OBJECTS, partition);
        let digests = self.rows(DIGESTS, partition);
        drop(committing);
        let mut steps = Steps { go_on, bytes: 0 };
        let mut checked = Checked::default();
        let records = sum_of_records(records, &mut checked, &mut steps);
        let records = match records {
            Ok(None) => return Ok(None),
            Ok(records) => records,
            Err(StoreError::Corrupt(why)) => {
                tracing::error!(%partition, why, "records cannot be read");
                None
            }
            Err(other) => return Err(other),
        };
        let digests = match sum_of_digests(digests) {
            Err(StoreError::Corrupt(why)) => {
                self.damage.demand_rebuild(&format!("digests of partition {partition}: {why}"));
                return Ok(Some(checked));
            }
            digests => digests?,
        };
        if records.as_ref() != Some(&digests)
            && !self.look_closely(partition, &mut checked, &mut steps)?
        {
            return Ok(None);
        }
        checked.recounted = self.recount(partition)?;
        Ok(Some(checked))
    }

    /// The rows of a partition as of now.
    pub(super) fn rows(&self, family: &str, partition: Partition) -> DBRawIterator<'_> {
        let mut options = scan();
        if let Some(next) = partition.0.checked_add(1) {
            options.set_iterate_upper_bound(next.to_be_bytes());
        }
        let mut rows = self.db.raw_iterator_cf_opt(self.family(family), options);
        rows.seek(partition.0.to_be_bytes());
        rows
    }

    /// Looks at each key that has a digest or a record. Returns whether it came to the end.
    fn look_closely(
        &self,
        partition: Partition,
        checked: &mut Checked,
        steps: &mut Steps<'_>,
    ) -> Result<bool, StoreError> {
        let wanted = Cell::new(true);
        let mut look = |key: &StoredKey| {
            checked.damaged += u64::from(self.condemn(key));
            wanted.set(steps.take(LOOK_BYTES));
            wanted.get()
        };
        each(&mut self.rows(DIGESTS, partition), |key, _| {
            let (_, key) = read_digest_key(key).ok_or_else(|| damaged("a digest's key"))?;
            Ok(look(&StoredKey::new(partition, &key)))
        })?;
        if !wanted.get() {
            return Ok(false);
        }
        let records = each(&mut self.rows(OBJECTS, partition), |key, _| {
            let key = stored_key(key)?;
            let row = self.db.get_pinned_cf(self.family(DIGESTS), digest_key(&key));
            match row.map_err(|error| read_failed(&error))? {
                Some(_) => Ok(true),
                None => Ok(look(&key)),
            }
        });
        match records {
            // Behind a block that cannot be read a record without a digest stays unseen.
            Err(StoreError::Corrupt(_)) => Ok(wanted.get()),
            other => other.map(|()| wanted.get()),
        }
    }

    /// Looks at a record and its digest as they are now. If they do not fit, the record is not served
    /// until it has been written anew; returns whether that is so.
    fn condemn(&self, key: &StoredKey) -> bool {
        if self.damage.contains(key) || self.is_whole(key) {
            return self.damage.contains(key);
        }
        self.damage.is_wrong(key);
        // A write that came between the look and the verdict is not meant by it.
        if self.is_whole(key) {
            self.damage.forget(key);
        }
        self.damage.contains(key)
    }

    fn is_whole(&self, key: &StoredKey) -> bool {
        // Between two commits.
        let _committing = self.committing();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let record = self.db.get_pinned_cf_opt(self.family(OBJECTS), key.as_bytes(), &options);
        let Ok(record) = record else {
            self.damage.is_unreadable(key);
            return false;
        };
        let digest = self.db.get_pinned_cf(self.family(DIGESTS), digest_key(key));
        match (record, digest) {
            (None, Ok(None)) => true,
            (Some(record), Ok(Some(imprint))) => read_imprint(&imprint)
                .is_ok_and(|imprint| digest_of_record(key, &record) == Some(imprint.digest)),
            // A digest that cannot be read says nothing against the record.
            (_, Err(_)) => true,
            _ => false,
        }
    }

    /// A page of records where they cannot be read in order: the digests say what there should be.
    pub(super) fn page_by_digests(
        &self,
        partition: Partition,
        after: Option<&StoredKey>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut next: BTreeMap<StoredKey, ()> = BTreeMap::new();
        each(&mut self.rows(DIGESTS, partition), |key, _| {
            let (_, key) = read_digest_key(key).ok_or_else(|| damaged("a digest's key"))?;
            let key = StoredKey::new(partition, &key);
            if after.is_none_or(|after| key > *after) {
                next.insert(key, ());
                if next.len() > count {
                    next.pop_last();
                }
            }
            Ok(true)
        })?;
        let mut page = Vec::new();
        for key in next.into_keys() {
            // One that is gone meanwhile is not there.
            if let Some(record) = self.read(&key)? {
                page.push(Entry { key, record });
            }
        }
        Ok(page)
    }
}

/// `None` where no more was wanted.
fn sum_of_records(
    mut rows: DBRawIterator<'_>,
    checked: &mut Checked,
    steps: &mut Steps<'_>,
) -> Result<Option<Sums>, StoreError> {
    let (mut sums, mut wanted) = (Sums::new(), true);
    each(&mut rows, |key, record| {
        checked.records += 1;
        checked.bytes += record.len() as u64;
        let stored = stored_key(key)?;
        // One that does not decode leaves the sums unequal.
        if let Some(digest) = digest_of_record(&stored, record) {
            add(&mut sums, stored.key().bucket(), digest);
        }
        wanted = steps.take(key.len() + record.len());
        Ok(wanted)
    })?;
    Ok(wanted.then_some(sums))
}

fn sum_of_digests(mut rows: DBRawIterator<'_>) -> Result<Sums, StoreError> {
    let mut sums = Sums::new();
    each(&mut rows, |key, imprint| {
        let (_, key) = read_digest_key(key).ok_or_else(|| damaged("a digest's key"))?;
        add(&mut sums, key.bucket(), read_imprint(imprint)?.digest);
        Ok(true)
    })?;
    Ok(sums)
}

fn stored_key(bytes: &[u8]) -> Result<StoredKey, StoreError> {
    let key = StoredKey::from_bytes(Bytes::copy_from_slice(bytes));
    key.map_err(|error| StoreError::Corrupt(format!("a stored key: {error}")))
}

/// The digest of a record's object; `None` where it does not decode.
fn digest_of_record(key: &StoredKey, record: &[u8]) -> Option<u128> {
    let record = Record::decode(Bytes::copy_from_slice(record)).ok()?;
    let digest = digest_of(&key.key(), &record.object);
    Object::decode(record.object).ok().map(|_| digest)
}
