//! Reading the families that name keys by something else than their names.

use bytes::Bytes;
use rocksdb::{DB, ReadOptions};

use super::keys::{self, fading_key, read_fading_key};
use super::options::{CONFLICTS, FADING};
use super::{damaged, each, family, read_failed};
use crate::ids::Partition;
use crate::key::Key;
use crate::store::{StoreError, StoredKey};
use crate::time::WallMs;

/// As [`Store::faded`](crate::store::Store::faded).
pub(super) fn faded(
    db: &DB,
    partition: Partition,
    until: WallMs,
    after: Option<&(WallMs, StoredKey)>,
    count: usize,
) -> Result<Vec<(WallMs, StoredKey)>, StoreError> {
    let mut options = ReadOptions::default();
    if let Some(next) = partition.0.checked_add(1) {
        options.set_iterate_upper_bound(next.to_be_bytes());
    }
    let mut rows = db.raw_iterator_cf_opt(family(db, FADING), options);
    let after = after.map(|(at, key)| fading_key(*at, key));
    match &after {
        Some(after) => rows.seek(after),
        None => rows.seek(partition.0.to_be_bytes()),
    }
    if after.is_some() && rows.key() == after.as_deref() {
        rows.next();
    }
    let mut faded = Vec::new();
    while let Some(row) = rows.key().filter(|_| faded.len() < count) {
        let (at, key) = read_fading_key(row).ok_or_else(|| damaged("the time of a key"))?;
        if at > until {
            // Nothing more of this bucket: a one is behind the zero that ends its name.
            let bucket = key.key().bucket().as_bytes().to_vec();
            rows.seek([&partition.0.to_be_bytes()[..], &bucket, &[1]].concat());
            continue;
        }
        faded.push((at, key));
        rows.next();
    }
    rows.status().map_err(|error| read_failed(&error))?;
    Ok(faded)
}

/// As [`Store::conflicts`](crate::store::Store::conflicts).
pub(super) fn conflicts(
    db: &DB,
    partition: Partition,
    bucket: &str,
    after: Option<&Key>,
    count: usize,
) -> Result<Vec<Key>, StoreError> {
    let (first, end) = keys::bucket_range(partition, bucket);
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(end);
    let mut rows = db.raw_iterator_cf_opt(family(db, CONFLICTS), options);
    let after = after.map(|after| StoredKey::new(partition, after));
    rows.seek(after.as_ref().map_or(&first[..], |after| after.as_bytes()));
    if let (Some(after), Some(key)) = (&after, rows.key())
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
        found.push(key.map_err(|_| damaged("a stored key"))?.key());
        Ok(true)
    })?;
    Ok(found)
}
