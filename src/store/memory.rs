//! A store in memory, with the contract of a real one: for the simulator and for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::forest::{Count, Forest, Leaves, Root, Tally, place};
use super::{Batch, Cached, Digest, Entry, Imprint, Places, Store, StoreError, StoredKey};
use crate::ids::{NodeId, Partition};
use crate::key::Key;
use crate::time::WallMs;

/// Keeps everything in a sorted map.
#[derive(Default)]
pub struct MemoryStore {
    // A mutex and not a lock for many readers: tests and the simulator use one thread.
    contents: Mutex<Contents>,
}

#[derive(Clone, Default)]
struct Contents {
    rows: BTreeMap<StoredKey, Row>,
    graves: BTreeMap<StoredKey, Bytes>,
    forest: Forest,
    commits: u64,
}

#[derive(Clone, Debug)]
struct Row {
    record: Bytes,
    imprint: Imprint,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no method panics while it holds the lock")
    }

    /// Takes an imprint and a record away without the trees hearing of it, for tests.
    pub fn lose(&self, key: &StoredKey) {
        self.contents().rows.remove(key);
    }

    /// Forgets the trees, as a crash does, and counts them.
    pub fn recount_all(&self) {
        let mut contents = self.contents();
        let partitions: BTreeSet<u16> = contents.rows.keys().map(|key| key.partition().0).collect();
        contents.forest = Forest::uncounted();
        for partition in partitions.into_iter().map(Partition) {
            let count = contents.count(partition);
            contents.forest.counted(partition, count);
        }
        contents.forest.counted_all();
    }
}

impl Contents {
    /// The rows of a partition, in order.
    fn of(&self, partition: Partition) -> impl Iterator<Item = (&StoredKey, &Row)> {
        let rows = self.rows.range(first_of(None, &partition.0.to_be_bytes())..);
        rows.take_while(move |(key, _)| key.owner().is_none() && key.partition() == partition)
    }

    fn count(&self, partition: Partition) -> Count {
        let mut count = Count::default();
        for (key, row) in self.of(partition) {
            let name = key.key();
            count.add(name.bucket(), place(&name), &row.imprint);
        }
        count
    }
}

impl Clone for MemoryStore {
    /// A copy as of now: what a backup would hold.
    fn clone(&self) -> Self {
        Self { contents: Mutex::new(self.contents().clone()) }
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &StoredKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.contents().rows.get(key).map(|row| row.record.clone()))
    }

    fn read_cached(&self, key: &StoredKey) -> Result<Cached, StoreError> {
        self.read(key).map(Cached::Known)
    }

    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError> {
        let contents = &mut *self.contents();
        contents.commits += 1;
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            if change.key.owner().is_none() {
                let known = || contents.rows.get(&change.key).map(|row| row.imprint);
                let before = change.before.or_else(known).unwrap_or(Imprint::NONE);
                contents.forest.replace(&change.key, &before, &change.after);
            }
            let Some(record) = change.record.clone() else {
                contents.rows.remove(&change.key);
                continue;
            };
            contents.rows.insert(change.key.clone(), Row { record, imprint: change.after });
        }
        for (key, grave) in batches.iter().flat_map(|batch| &batch.graves) {
            match grave.clone() {
                Some(grave) => drop(contents.graves.insert(key.clone(), grave)),
                None => drop(contents.graves.remove(key)),
            }
        }
        Ok(())
    }

    fn clear(&self, partition: Partition, bucket: Option<&str>) -> Result<(), StoreError> {
        let is_meant = |key: &StoredKey| {
            key.owner().is_none()
                && key.partition() == partition
                && bucket.is_none_or(|bucket| key.key().bucket() == bucket)
        };
        let mut contents = self.contents();
        contents.rows.retain(|key, _| !is_meant(key));
        contents.forest.clear(partition, bucket);
        Ok(())
    }

    fn page(
        &self,
        partition: Partition,
        after: Option<&StoredKey>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let start = match after {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Included(first_of(None, &partition.0.to_be_bytes())),
        };
        let rows = &self.contents().rows;
        let within = rows.range((start, Bound::Unbounded));
        let within =
            within.take_while(|(key, _)| key.owner().is_none() && key.partition() == partition);
        Ok(within.take(count).map(entry).collect())
    }

    fn hints(
        &self,
        owner: NodeId,
        after: Option<&StoredKey>,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let start = match after {
            Some(after) => Bound::Excluded(after.kept_for(owner)),
            None => Bound::Included(first_of(Some(owner), &[])),
        };
        let rows = &self.contents().rows;
        let kept = rows.range((start, Bound::Unbounded));
        let mut room = bytes;
        let fits = |(_, row): &(&StoredKey, &Row)| {
            let is_first = room == bytes;
            let size = row.record.len().max(1);
            let fits = is_first || size <= room;
            room = room.saturating_sub(size);
            fits
        };
        let kept = kept.take_while(|(key, _)| key.owner() == Some(owner)).take_while(fits);
        Ok(kept.map(entry).collect())
    }

    fn hint_owners(&self) -> Result<Vec<NodeId>, StoreError> {
        let mut owners: Vec<NodeId> =
            self.contents().rows.keys().filter_map(StoredKey::owner).collect();
        owners.dedup();
        Ok(owners)
    }

    fn graves(&self) -> Result<Vec<Entry>, StoreError> {
        let entry = |(key, record): (&StoredKey, &Bytes)| Entry {
            key: key.clone(),
            record: record.clone(),
        };
        Ok(self.contents().graves.iter().map(entry).collect())
    }

    fn digest(&self) -> Result<(u64, u128), StoreError> {
        let contents = self.contents();
        let own = contents.rows.iter().filter(|(key, _)| key.owner().is_none());
        Ok(own.fold((0, 0), |(keys, sum), (_, row)| (keys + 1, sum ^ row.imprint.digest)))
    }

    fn digests(
        &self,
        places: &Places,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<Digest>, StoreError> {
        let contents = self.contents();
        let mut digests: Vec<Digest> = (contents.of(places.partition))
            .map(|(key, row)| (key.key(), row.imprint))
            .map(|(key, imprint)| Digest { place: place(&key), key, imprint })
            .filter(|digest| digest.key.bucket() == places.bucket)
            .filter(|digest| (places.first..=places.last).contains(&digest.place))
            .collect();
        digests.sort_unstable_by(|a, b| (a.place, &a.key).cmp(&(b.place, &b.key)));
        if let Some(after) = after {
            let after = (place(after), after);
            digests.retain(|digest| (digest.place, &digest.key) > after);
        }
        digests.truncate(count);
        Ok(digests)
    }

    fn each_digest(
        &self,
        partition: Partition,
        bucket: &str,
        ranges: &[RangeInclusive<u64>],
        visit: &mut dyn FnMut(Digest),
    ) -> Result<(), StoreError> {
        let all = Places { partition, bucket: bucket.to_owned(), first: 0, last: u64::MAX };
        let is_wanted = |digest: &Digest| ranges.iter().any(|range| range.contains(&digest.place));
        self.digests(&all, None, usize::MAX)?.into_iter().filter(is_wanted).for_each(visit);
        Ok(())
    }

    fn roots(&self, partition: Partition) -> Option<Vec<Root>> {
        self.contents().forest.roots(partition)
    }

    fn leaves(&self, partition: Partition, bucket: &str) -> Option<Leaves> {
        self.contents().forest.leaves(partition, bucket)
    }

    fn recount(&self, partition: Partition) -> Result<bool, StoreError> {
        let mut contents = self.contents();
        let before = contents.forest.roots(partition);
        if !contents.forest.recount(partition) {
            return Ok(false);
        }
        let count = contents.count(partition);
        contents.forest.counted(partition, count);
        Ok(contents.forest.roots(partition) != before)
    }

    fn tallies(&self) -> BTreeMap<String, Tally> {
        self.contents().forest.tallies()
    }

    fn faded(
        &self,
        partition: Partition,
        until: WallMs,
        after: Option<&(WallMs, StoredKey)>,
        count: usize,
    ) -> Result<Vec<(WallMs, StoredKey)>, StoreError> {
        let contents = self.contents();
        let rows = contents.of(partition);
        let fading = rows.filter_map(|(key, row)| Some((row.imprint.fades_at?, key.clone())));
        let mut faded: Vec<_> = fading.filter(|(at, _)| *at <= until).collect();
        let order = |(at, key): &(WallMs, StoredKey)| {
            let key = key.key();
            (key.bucket().to_owned(), *at, key)
        };
        faded.sort_unstable_by_key(order);
        faded.retain(|entry| after.is_none_or(|after| order(entry) > order(after)));
        faded.truncate(count);
        Ok(faded)
    }

    fn conflicts(
        &self,
        partition: Partition,
        bucket: &str,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let contents = self.contents();
        let own = contents.rows.iter().filter(|(key, _)| key.owner().is_none());
        let within = own.filter(|(key, _)| key.partition() == partition);
        let conflicting = within.filter(|(_, row)| row.imprint.siblings > 1);
        let keys = conflicting.map(|(key, _)| key.key()).filter(|key| key.bucket() == bucket);
        Ok(keys.filter(|key| after.is_none_or(|after| key > after)).take(count).collect())
    }

    fn estimated_bytes(&self) -> u64 {
        self.contents()
            .rows
            .iter()
            .map(|(key, row)| (key.as_bytes().len() + row.record.len()) as u64)
            .sum()
    }

    fn estimated_keys(&self) -> u64 {
        self.contents().rows.keys().filter(|key| key.owner().is_none()).count() as u64
    }

    fn commits(&self) -> u64 {
        self.contents().commits
    }
}

/// A key before all others of the owner that begin with `bytes`.
fn first_of(owner: Option<NodeId>, bytes: &[u8]) -> StoredKey {
    StoredKey { owner, bytes: Bytes::copy_from_slice(bytes) }
}

fn entry((key, row): (&StoredKey, &Row)) -> Entry {
    Entry { key: key.clone(), record: row.record.clone() }
}
