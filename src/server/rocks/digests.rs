//! Reading ranges of a tree's digests.

use std::ops::RangeInclusive;

use rocksdb::{DB, DBRawIterator, ReadOptions};

use super::keys::{digest_key, digest_range, read_digest_key};
use super::options::DIGESTS;
use super::{damaged, each, family, read_imprint};
use crate::ids::Partition;
use crate::key::Key;
use crate::store::{Digest, Places, StoreError, StoredKey};

/// The digests in `places`, in order: all behind `after`, or the first `count`.
pub(super) fn page(
    db: &DB,
    places: &Places,
    after: Option<&Key>,
    count: usize,
) -> Result<Vec<Digest>, StoreError> {
    let (first, end) = digest_range(places);
    let mut rows = rows_below(db, end);
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
        digests.push(read(key, imprint)?);
        Ok(true)
    })?;
    Ok(digests)
}

/// Shows `visit` the digests in `ranges`, which are in order. One iterator reads all of them: it keeps
/// the block it stands in from one range to the next.
pub(super) fn each_among(
    db: &DB,
    partition: Partition,
    bucket: &str,
    ranges: &[RangeInclusive<u64>],
    visit: &mut dyn FnMut(Digest),
) -> Result<(), StoreError> {
    let range = |first: u64, last: u64| {
        digest_range(&Places { partition, bucket: bucket.to_owned(), first, last })
    };
    let Some(last) = ranges.last() else { return Ok(()) };
    let mut rows = rows_below(db, range(*last.start(), *last.end()).1);
    for places in ranges {
        let (first, end) = range(*places.start(), *places.end());
        rows.seek(first);
        each(&mut rows, |key, imprint| {
            let is_within = *key < *end;
            if is_within {
                visit(read(key, imprint)?);
            }
            Ok(is_within)
        })?;
    }
    Ok(())
}

fn rows_below(db: &DB, end: Vec<u8>) -> DBRawIterator<'_> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_iterate_upper_bound(end);
    db.raw_iterator_cf_opt(family(db, DIGESTS), options)
}

fn read(key: &[u8], imprint: &[u8]) -> Result<Digest, StoreError> {
    let (place, key) = read_digest_key(key).ok_or_else(|| damaged("a digest's key"))?;
    Ok(Digest { place, key, imprint: read_imprint(imprint)? })
}
