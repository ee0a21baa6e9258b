//! Listing the keys of a bucket over all partitions, page by page.
//!
//! Keys are listed in the order of partitions, and within one in the order of places
//! (`store::forest`): that is how digests stand on the disk, so deleted and expired keys are
//! passed over without looking at a value, and a place is a number.
//!
//! ```text
//!   cursor     0 . . . . . . . . . . . . . . . . . . . . . 2^53
//!              | partition 0 | partition 1 | ...          |
//!                    ^ the first place that is still to be looked at
//!
//!   owner A    k1  k2  .   k4 | next          a page each, of the same places
//!   owner B    k1  .   k3  k4      k5 | next
//!   union      k1  k2? k3? k4 |               up to where all have looked; ? not in all pages
//! ```
//!
//! What always holds: a cursor names a partition and a place, never a node or a key, so any node
//! can go on from it, after restarts and changes of the members. A key that is on a disk of each
//! of the owners asked, or of one of them, is in the union. Whether a key that only some of them
//! have is there or was deleted, their pages can't tell: it is to be read.

use std::collections::{BTreeMap, BTreeSet};

use crate::causality::Object;
use crate::ids::Partition;
use crate::key::Key;
use crate::store::forest::place;
use crate::store::record::Record;
use crate::store::{Digest, Places, Store, StoreError, StoredKey};
use crate::time::WallMs;
use crate::wire::messages::{Listed, Outlier, Outliers, OwnerListing, OwnerPage, Which};

/// Cursors stay below 2^53, since some clients keep numbers as floating point.
const CURSOR_BITS: u32 = 53;
/// Digests that one page of an owner looks at: some ten milliseconds.
const LOOK_KEYS: usize = 20_000;
/// Digests that are read at once.
const CHUNK_KEYS: usize = 1000;
/// Bytes of keys in one page of an owner.
pub const PAGE_BYTES: usize = 1 << 20;
/// How many keys of a kind stand out.
const OUTLIERS: usize = 10;

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The first place to look at.
    pub place: u64,
}

/// Bits of a cursor that name the place. All partitions of a ring of 2^16 leave 37 of them: so few
/// keys share a cursor that a page can always hold those.
fn place_bits(partitions: u32) -> u32 {
    CURSOR_BITS - partitions.ilog2()
}

/// Places that share a cursor.
#[must_use]
pub fn grain(partitions: u32) -> u64 {
    1 << (64 - place_bits(partitions))
}

impl Position {
    /// Reads a cursor; `None` for one that no listing gave.
    #[must_use]
    pub fn of_cursor(cursor: u64, partitions: u32) -> Option<Self> {
        let bits = place_bits(partitions);
        let partition = Partition((cursor >> bits) as u16);
        (cursor >> CURSOR_BITS == 0).then_some(Self { partition, place: cursor << (64 - bits) })
    }

    /// The cursor. 0 at the beginning of all.
    #[must_use]
    pub fn cursor(self, partitions: u32) -> u64 {
        let bits = place_bits(partitions);
        (u64::from(self.partition.0) << bits) | (self.place >> (64 - bits))
    }

    /// The beginning of the next partition, if there is one.
    #[must_use]
    pub fn next_partition(self, partitions: u32) -> Option<Self> {
        let next = u32::from(self.partition.0) + 1;
        (next < partitions).then_some(Self { partition: Partition(next as u16), place: 0 })
    }
}

/// One page of what this node has.
///
/// # Errors
/// As [`Store::digests`].
pub fn page(
    store: &dyn Store,
    asked: &OwnerListing,
    complete: bool,
    now: WallMs,
) -> Result<OwnerPage, StoreError> {
    let mut page = Filling { asked, now, bytes: 0, keys: Vec::new() };
    let partition = Partition(asked.partition);
    if asked.which == Which::Conflicts {
        let (digests, next) = conflicts(store, asked, now)?;
        let full = digests.into_iter().find_map(|digest| page.take(digest).err());
        return Ok(OwnerPage { keys: page.keys, next: full.or(next), complete });
    }
    let bucket = asked.bucket.clone();
    let places = Places { partition, bucket, first: asked.from, last: u64::MAX };
    let (mut after, mut seen) = (None, 0);
    loop {
        let chunk = store.digests(&places, after.as_ref(), CHUNK_KEYS)?;
        let is_last = chunk.len() < CHUNK_KEYS;
        seen += chunk.len();
        after = chunk.last().map(|digest| digest.key.clone());
        let full = chunk.into_iter().find_map(|digest| page.take(digest).err());
        let next = match (full, &after) {
            (Some(next), _) => Some(next),
            (None, Some(last)) if !is_last && seen >= LOOK_KEYS => Some(place(last)),
            _ if !is_last => continue,
            _ => None,
        };
        return Ok(OwnerPage { keys: page.keys, next, complete });
    }
}

/// A page that is being filled.
struct Filling<'a> {
    asked: &'a OwnerListing,
    now: WallMs,
    bytes: usize,
    keys: Vec<Listed>,
}

impl Filling<'_> {
    /// Takes a key in, if it is one that was asked for.
    ///
    /// # Errors
    /// Its place, where the page is full.
    fn take(&mut self, Digest { place, key, imprint }: Digest) -> Result<(), u64> {
        if self.keys.len() >= self.asked.count as usize || self.bytes >= PAGE_BYTES {
            return Err(place);
        }
        let is_live = imprint.fades_at.is_none_or(|at| at > self.now);
        if is_live && key.name().starts_with(&self.asked.prefix) {
            let (key, siblings, bytes) = (key.name().to_vec(), imprint.siblings, imprint.bytes);
            self.bytes += key.len();
            self.keys.push(Listed { key, siblings, bytes });
        }
        Ok(())
    }
}

/// Digests of keys in conflict in the order of places, and the first place that is left out. They
/// stand on disk in the order of their names, and are few: all are looked at.
fn conflicts(
    store: &dyn Store,
    asked: &OwnerListing,
    now: WallMs,
) -> Result<(Vec<Digest>, Option<u64>), StoreError> {
    let (partition, count) = (Partition(asked.partition), asked.count as usize);
    let mut first = BTreeSet::new();
    let mut after: Option<Key> = None;
    loop {
        let chunk = store.conflicts(partition, &asked.bucket, after.as_ref(), CHUNK_KEYS)?;
        let is_last = chunk.len() < CHUNK_KEYS;
        after = chunk.last().cloned();
        let wanted = |key: &Key| key.name().starts_with(&asked.prefix);
        for key in chunk.into_iter().filter(wanted) {
            let place = place(&key);
            if place >= asked.from {
                first.insert((place, key));
            }
            if first.len() > count + 1 {
                first.pop_last();
            }
        }
        if is_last {
            break;
        }
    }
    let next = if first.len() > count { first.pop_last().map(|(place, _)| place) } else { None };
    let mut digests = Vec::with_capacity(first.len());
    for (_, key) in first {
        // None where it has been resolved since.
        let Some(mut found) = digest(store, partition, &key)? else { continue };
        if let Some(shown) = shown(store, StoredKey::new(partition, &key), now) {
            found.imprint.siblings = shown;
        }
        if found.imprint.siblings > 1 {
            digests.push(found);
        }
    }
    Ok((digests, next))
}

/// How many values a read of a record shows: none that has expired, and once what was written twice.
/// The digests count those. `None` where the record cannot be read.
fn shown(store: &dyn Store, key: StoredKey, now: WallMs) -> Option<u16> {
    let record = Record::decode(store.read(&key).ok()??).ok()?;
    let object = Object::decode(record.object).ok()?;
    Some(u16::try_from(object.values(now).len()).unwrap_or(u16::MAX))
}

/// What is known of one record.
fn digest(
    store: &dyn Store,
    partition: Partition,
    key: &Key,
) -> Result<Option<Digest>, StoreError> {
    let (bucket, at) = (key.bucket().to_owned(), place(key));
    let places = Places { partition, bucket, first: at, last: at };
    let there = store.digests(&places, None, CHUNK_KEYS)?;
    Ok(there.into_iter().find(|digest| digest.key == *key))
}

/// What several owners have in common places of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Union {
    /// The keys in order, and whether one that was asked does not list it.
    pub keys: Vec<(Listed, bool)>,
    /// The first place that not all have looked at; `None` at the end of the partition.
    pub next: Option<u64>,
}

/// Unites the pages of different owners, of the same places from `from` on. `None` where they reach
/// no further than `from`: too many keys are in one grain of places, and pages must be larger.
#[must_use]
pub fn unite(bucket: &str, from: u64, grain: u64, pages: &[OwnerPage]) -> Option<Union> {
    let next = pages.iter().filter_map(|page| page.next).min();
    let next = next.map(|next| next / grain * grain);
    if next.is_some_and(|next| next <= from) {
        return None;
    }
    let mut union: BTreeMap<(u64, &[u8]), (Listed, usize)> = BTreeMap::new();
    for listed in pages.iter().flat_map(|page| &page.keys) {
        // Whoever lists a key that can be none has a fault of its own.
        let Ok(key) = Key::new(bucket.as_bytes(), &listed.key) else { continue };
        let place = place(&key);
        if next.is_some_and(|next| place >= next) {
            continue;
        }
        let (united, votes) =
            union.entry((place, &listed.key)).or_insert_with(|| (listed.clone(), 0));
        united.siblings = united.siblings.max(listed.siblings);
        united.bytes = united.bytes.max(listed.bytes);
        *votes += 1;
    }
    let keys = union.into_values().map(|(listed, votes)| (listed, votes < pages.len()));
    Some(Union { keys: keys.collect(), next })
}

/// The keys of this node that stand out. Those in conflict are all looked at; of the others `budget`,
/// from the partition `first` on.
///
/// # Errors
/// As [`Store::digests`].
pub fn outliers(
    store: &dyn Store,
    partitions: u32,
    first: Partition,
    budget: u64,
) -> Result<Outliers, StoreError> {
    let mut found = Outliers { complete: true, ..Outliers::default() };
    let numbers = (0..partitions).map(|at| (at + u32::from(first.0)) % partitions);
    for partition in numbers.map(|at| Partition(at as u16)) {
        let Some(roots) = store.roots(partition) else {
            found.complete = false;
            continue;
        };
        for root in roots {
            if root.tally.conflicts > 0 {
                conflicting_outliers(store, partition, &root.bucket, &mut found.siblings)?;
            }
            if found.seen >= budget {
                found.complete = false;
                continue;
            }
            let (bucket, last) = (root.bucket, u64::MAX);
            let places = Places { partition, bucket, first: 0, last };
            let mut after = None;
            loop {
                let chunk = store.digests(&places, after.as_ref(), CHUNK_KEYS)?;
                let is_last = chunk.len() < CHUNK_KEYS;
                after = chunk.last().map(|digest| digest.key.clone());
                found.seen += chunk.len() as u64;
                for digest in chunk {
                    keep(&mut found.largest, &digest, |listed| u64::from(listed.bytes));
                }
                if is_last {
                    break;
                }
            }
        }
    }
    Ok(found)
}

fn conflicting_outliers(
    store: &dyn Store,
    partition: Partition,
    bucket: &str,
    kept: &mut Vec<Outlier>,
) -> Result<(), StoreError> {
    let mut after: Option<Key> = None;
    loop {
        let chunk = store.conflicts(partition, bucket, after.as_ref(), CHUNK_KEYS)?;
        let is_last = chunk.len() < CHUNK_KEYS;
        for key in &chunk {
            if let Some(digest) = digest(store, partition, key)? {
                keep(kept, &digest, |listed| u64::from(listed.siblings));
            }
        }
        after = chunk.last().cloned();
        if is_last {
            return Ok(());
        }
    }
}

/// Takes a key into `kept`, if it is among those of which `measure` is largest.
fn keep(kept: &mut Vec<Outlier>, found: &Digest, measure: impl Fn(&Listed) -> u64) {
    let (siblings, bytes) = (found.imprint.siblings, found.imprint.bytes);
    let listed = Listed { key: Vec::new(), siblings, bytes };
    let size = measure(&listed);
    let at = kept.partition_point(|outlier| measure(&outlier.listed) >= size);
    if at < OUTLIERS {
        let listed = Listed { key: found.key.name().to_vec(), ..listed };
        kept.insert(at, Outlier { bucket: found.key.bucket().to_owned(), listed });
        kept.truncate(OUTLIERS);
    }
}

#[cfg(test)]
mod tests;
