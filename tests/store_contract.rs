//! What every store promises, run against the one in memory and the one on a disk: the simulator
//! stands on the first, users on the second, and this is what makes them the same thing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use ringdove::ids::{NodeId, Partition};
use ringdove::key::Key;
use ringdove::random::Random;
use ringdove::server::disk::Disk;
use ringdove::server::rocks::{Durability, RocksOptions, RocksStore};
use ringdove::store::forest::{leaf_of, place};
use ringdove::store::memory::MemoryStore;
use ringdove::store::{Batch, Cached, Change, Digest, Entry, Imprint, Places, Store, StoredKey};
use ringdove::time::WallMs;
use tempfile::TempDir;

fn key(partition: u16, name: &[u8]) -> StoredKey {
    StoredKey::new(Partition(partition), &Key::new(b"b", name).unwrap())
}

fn change(key: &StoredKey, record: &[u8], digest: u128) -> Change {
    let after = Imprint { digest, ..Imprint::NONE };
    Change::fresh(key.clone(), Some(Bytes::copy_from_slice(record)), after)
}

fn put(store: &dyn Store, changes: Vec<Change>) {
    store.commit(&[Batch::of(changes)]).unwrap();
}

/// A store, and whatever must live as long as it.
type Made<S> = (Arc<S>, Option<(Disk, TempDir)>);

fn in_memory() -> Made<MemoryStore> {
    (Arc::new(MemoryStore::new()), None)
}

fn on_disk(durability: Durability) -> Made<RocksStore> {
    let directory = tempfile::tempdir().unwrap();
    let options = RocksOptions { durability, reserve_bytes: 0, ..RocksOptions::default() };
    let disk = Disk::open(directory.path(), &options).unwrap();
    (disk.store.clone(), Some((disk, directory)))
}

/// Runs each promise against each store.
macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $promise() { let (store, _kept) = super::in_memory(); super::$promise(&*store); })*
        }
        mod rocks {
            use super::Durability::Fsync;
            $(#[test] fn $promise() { let (store, _kept) = super::on_disk(Fsync); super::$promise(&*store); })*
        }
        mod rocks_without_sync {
            use super::Durability::None;
            $(#[test] fn $promise() { let (store, _kept) = super::on_disk(None); super::$promise(&*store); })*
        }
    };
}

contract! {
    an_absent_key_reads_as_none,
    what_was_committed_is_read_back,
    a_later_change_to_a_key_wins,
    a_batch_is_seen_whole_or_not_at_all,
    a_page_is_in_order_bounded_and_behind_its_start,
    partitions_do_not_mix,
    the_digest_counts_current_records_only,
    a_cleared_partition_is_empty_and_its_neighbours_and_hints_are_not,
    trees_and_lists_follow_every_change,
    a_grave_stays_when_its_partition_is_cleared_until_it_is_forgotten,
    large_values_and_every_byte_in_a_key_are_kept,
    a_random_history_reads_like_a_sorted_map,
    threads_that_commit_together_lose_nothing,
}

fn an_absent_key_reads_as_none(store: &dyn Store) {
    put(store, vec![change(&key(1, b"b"), b"x", 1)]);
    for absent in [key(1, b"a"), key(1, b"bb"), key(0, b"b"), key(2, b"b")] {
        assert_eq!(store.read(&absent), Ok(None));
        assert_eq!(store.read_cached(&absent), Ok(Cached::Known(None)));
    }
    assert_eq!(store.commit(&[]), Ok(()));
    assert_eq!(store.commit(&[Batch::default()]), Ok(()));
}

fn what_was_committed_is_read_back(store: &dyn Store) {
    let k = key(1, b"k");
    put(store, vec![change(&k, b"record", 1)]);
    assert_eq!(store.read(&k), Ok(Some(Bytes::from_static(b"record"))));
    assert_eq!(store.read_cached(&k), Ok(Cached::Known(Some(Bytes::from_static(b"record")))));
    // An empty record is a record.
    put(store, vec![change(&k, b"", 1)]);
    assert_eq!(store.read(&k), Ok(Some(Bytes::new())));
}

fn a_later_change_to_a_key_wins(store: &dyn Store) {
    let k = key(1, b"k");
    let first = Batch::of(vec![change(&k, b"1", 1), change(&k, b"2", 2)]);
    let second = Batch::of(vec![change(&k, b"3", 3)]);
    store.commit(std::slice::from_ref(&first)).unwrap();
    assert_eq!(store.read(&k).unwrap().unwrap(), "2");
    store.commit(&[first, second]).unwrap();
    assert_eq!(store.read(&k).unwrap().unwrap(), "3");
    assert_eq!(store.digest(), Ok((1, 3)));
}

fn a_batch_is_seen_whole_or_not_at_all(store: &dyn Store) {
    let keys: Vec<_> = (0..8).map(|n| key(n, b"k")).collect();
    let round = |n: u8| keys.iter().map(|k| change(k, &[n], u128::from(n))).collect();
    put(store, round(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..100 {
                put(store, round(n));
            }
        });
        let mut last = 0;
        while last < 99 {
            // Written in one batch and read one after the other: a later key is never older.
            for k in &keys {
                let now = store.read(k).unwrap().unwrap()[0];
                assert!(now >= last, "{k:?} is of round {now} after round {last} was seen");
                last = now;
            }
        }
    });
}

fn a_page_is_in_order_bounded_and_behind_its_start(store: &dyn Store) {
    let keys: Vec<_> = (0..10_u8).map(|n| key(7, &[n, 0])).collect();
    put(store, keys.iter().rev().map(|k| change(k, k.as_bytes(), 1)).collect());
    let listed = |after: Option<&StoredKey>, count| -> Vec<StoredKey> {
        let page = store.page(Partition(7), after, count).unwrap();
        assert!(page.iter().all(|entry| entry.record == entry.key.as_bytes()));
        page.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(listed(None, 100), keys);
    assert_eq!(listed(None, 3), keys[..3]);
    assert_eq!(listed(Some(&keys[2]), 3), keys[3..6]);
    assert_eq!(listed(Some(&keys[9]), 3), []);
    assert_eq!(listed(None, 0), []);
    // Behind a key that is not there: a deleted one, say, between two pages.
    assert_eq!(listed(Some(&key(7, &[4, 0, 0])), 1), keys[5..6]);
}

fn partitions_do_not_mix(store: &dyn Store) {
    let partitions = [0, 1, 255, 256, u16::MAX - 1, u16::MAX];
    let all = partitions.map(|p| change(&key(p, b"k"), &p.to_be_bytes(), u128::from(p)));
    put(store, all.to_vec());
    for p in partitions {
        let record = Bytes::copy_from_slice(&p.to_be_bytes());
        let expected = vec![Entry { key: key(p, b"k"), record }];
        assert_eq!(store.page(Partition(p), None, 10), Ok(expected));
    }
    assert_eq!(store.page(Partition(2), None, 10), Ok(vec![]));
}

fn a_cleared_partition_is_empty_and_its_neighbours_and_hints_are_not(store: &dyn Store) {
    let numbers = [0, 6, 7, 8, u16::MAX - 1, u16::MAX];
    let keys = |number| [key(number, b"\0"), key(number, &[0xff; 300])];
    let all = numbers.iter().flat_map(|number| keys(*number));
    put(store, all.map(|key| change(&key, b"record", 1 << key.partition().0.min(100))).collect());
    let kept = key(7, b"kept").kept_for(NodeId(9));
    put(store, vec![change(&kept, b"hint", 0)]);
    for cleared in [7, u16::MAX] {
        store.clear(Partition(cleared), None).unwrap();
        store.clear(Partition(cleared), None).unwrap();
        assert_eq!(store.page(Partition(cleared), None, 9).unwrap(), []);
        assert_eq!(store.read(&keys(cleared)[1]), Ok(None));
    }
    for left in [0, 6, 8, u16::MAX - 1] {
        assert_eq!(store.page(Partition(left), None, 9).unwrap().len(), 2, "{left}");
    }
    assert_eq!(store.digest().unwrap().0, 8, "the digests are gone with the records");
    assert_eq!(store.hints(NodeId(9), None, 1000).unwrap().len(), 1);
    put(store, vec![change(&keys(7)[0], b"later", 1)]);
    assert_eq!(store.page(Partition(7), None, 9).unwrap().len(), 1, "what comes later stays");
}

/// A random history of records in two buckets, against a plain map of what was last said of each.
fn a_grave_stays_when_its_partition_is_cleared_until_it_is_forgotten(store: &dyn Store) {
    let (first, second) = (key(1, b"first"), key(1, b"second"));
    let grave =
        |key: &StoredKey, bytes: &'static [u8]| (key.clone(), Some(Bytes::from_static(bytes)));
    let graves = vec![grave(&second, b"2"), grave(&first, b"0"), grave(&first, b"1")];
    // The record goes in the same batch.
    put(store, vec![change(&first, b"record", 1)]);
    let gone = Change { after: Imprint::NONE, record: None, ..change(&first, b"", 1) };
    store.commit(&[Batch { changes: vec![gone], graves }]).unwrap();
    store.clear(Partition(1), None).unwrap();
    let found: Vec<(StoredKey, Bytes)> =
        store.graves().unwrap().into_iter().map(|entry| (entry.key, entry.record)).collect();
    let expected = [(first.clone(), Bytes::from_static(b"1")), (second, Bytes::from_static(b"2"))];
    assert_eq!(found, expected);
    assert_eq!(store.read(&first), Ok(None));
    store.commit(&[Batch { changes: Vec::new(), graves: vec![(first, None)] }]).unwrap();
    assert_eq!(store.graves().unwrap().len(), 1);
}

fn trees_and_lists_follow_every_change(store: &dyn Store) {
    let mut random = Random::new(11);
    let mut model: BTreeMap<Key, Imprint> = BTreeMap::new();
    let partition = Partition(7);
    for round in 0..60 {
        let mut changes = Vec::new();
        for _ in 0..=random.below(8) {
            let bucket = [&b"a"[..], b"ab"][random.below(2) as usize];
            let key = Key::new(bucket, &[random.below(40) as u8]).unwrap();
            let before = model.get(&key).copied().unwrap_or(Imprint::NONE);
            let after = Imprint {
                digest: random.next_u128(),
                siblings: random.below(3) as u16,
                bytes: 9,
                latest: 3,
                fades_at: (random.below(2) == 0).then(|| WallMs(random.below(100))),
            };
            let after = if random.below(4) == 0 { Imprint::NONE } else { after };
            let record = after.is_some().then(|| Bytes::from_static(b"r"));
            let key_of = StoredKey::new(partition, &key);
            changes.push(Change { key: key_of, record, before: Some(before), after });
            match after.is_some() {
                true => drop(model.insert(key, after)),
                false => drop(model.remove(&key)),
            }
        }
        put(store, changes);
        if round == 30 {
            assert_eq!(store.recount(partition), Ok(false), "the trees were right");
        }
    }
    for bucket in ["a", "ab"] {
        let mut expected: Vec<Digest> = (model.iter())
            .filter(|(key, _)| key.bucket() == bucket)
            .map(|(key, imprint)| Digest { place: place(key), key: key.clone(), imprint: *imprint })
            .collect();
        expected.sort_unstable_by_key(|digest| digest.place);
        let all = Places { partition, bucket: bucket.to_owned(), first: 0, last: u64::MAX };
        assert_eq!(store.digests(&all, None, 1000), Ok(expected.clone()));
        let behind = store.digests(&all, Some(&expected[4].key), 3);
        assert_eq!(behind.unwrap(), expected[5..8]);
        let (first, last) = (expected[2].place, expected[6].place);
        let some = Places { first, last, ..all };
        assert_eq!(store.digests(&some, None, 1000).unwrap(), expected[2..=6]);
        let at = |index: usize| expected[index].place;
        let ranges = [0..=at(0) - 1, at(1)..=at(2), at(2) + 1..=at(3) - 1, at(4)..=u64::MAX];
        let mut among = Vec::new();
        (store.each_digest(partition, bucket, &ranges, &mut |digest| among.push(digest))).unwrap();
        assert_eq!(among, [&expected[1..=2], &expected[4..]].concat());
        let leaves = store.leaves(partition, bucket).unwrap();
        for (leaf, sum) in (0..=u8::MAX).zip(leaves) {
            let within = expected.iter().filter(|digest| leaf_of(digest.place) == leaf);
            assert_eq!(within.fold(0, |sum, digest| sum ^ digest.imprint.digest), sum);
        }
        let roots = store.roots(partition).unwrap();
        let root = roots.iter().find(|root| root.bucket == bucket).unwrap();
        assert_eq!(root.sum, leaves.iter().fold(0, |sum, leaf| sum ^ leaf));
        assert_eq!(root.tally.keys, expected.len() as u64);
        assert_eq!(store.tallies()[bucket], root.tally);
    }
    let stored = |key: &Key| StoredKey::new(partition, key);
    let fading = model.iter().filter_map(|(key, of)| Some((of.fades_at?, stored(key))));
    let mut fading: Vec<_> = fading.filter(|(at, _)| at.0 <= 50).collect();
    fading.sort_unstable_by_key(|(at, key)| (key.key().bucket().to_owned(), *at, key.clone()));
    assert_eq!(store.faded(partition, WallMs(50), None, 1000).unwrap(), fading);
    assert_eq!(store.faded(partition, WallMs(50), Some(&fading[1]), 2).unwrap(), fading[2..4]);
    let conflicts =
        model.iter().filter(|(_, of)| of.siblings > 1).map(|(key, _)| stored(key).key());
    let conflicts: Vec<_> = conflicts.collect();
    for bucket in ["a", "ab"] {
        let all: Vec<_> = conflicts.iter().filter(|key| key.bucket() == bucket).cloned().collect();
        assert_eq!(store.conflicts(partition, bucket, None, 1000).unwrap(), all);
        assert_eq!(store.conflicts(partition, bucket, Some(&all[0]), 1).unwrap(), all[1..2]);
    }
    store.clear(partition, Some("a")).unwrap();
    let left = |bucket: &str| bucket == "ab";
    assert!(store.roots(partition).unwrap().iter().all(|root| left(&root.bucket)));
    let faded = store.faded(partition, WallMs(50), None, 1000).unwrap();
    let expected: Vec<_> = fading.into_iter().filter(|(_, k)| left(k.key().bucket())).collect();
    assert_eq!(faded, expected);
    assert_eq!(store.conflicts(partition, "a", None, 1000), Ok(Vec::new()));
    assert!(!store.conflicts(partition, "ab", None, 1000).unwrap().is_empty());
    assert_eq!(store.page(partition, None, 1000).unwrap().len(), left_of(&model, "ab"));
    store.clear(partition, None).unwrap();
    assert_eq!(store.roots(partition), Some(Vec::new()));
    assert_eq!(store.faded(partition, WallMs(50), None, 9), Ok(Vec::new()));
    assert_eq!(store.conflicts(partition, "a", None, 9), Ok(Vec::new()));
}

fn left_of(model: &BTreeMap<Key, Imprint>, bucket: &str) -> usize {
    model.keys().filter(|key| key.bucket() == bucket).count()
}

fn the_digest_counts_current_records_only(store: &dyn Store) {
    assert_eq!(store.digest(), Ok((0, 0)));
    put(store, vec![change(&key(1, b"a"), b"", 0b0011), change(&key(2, b"b"), b"", u128::MAX)]);
    assert_eq!(store.digest(), Ok((2, 0b0011 ^ u128::MAX)));
    put(store, vec![change(&key(2, b"b"), b"", 0b0101)]);
    assert_eq!(store.digest(), Ok((2, 0b0110)));
}

fn large_values_and_every_byte_in_a_key_are_kept(store: &dyn Store) {
    let value: Vec<u8> = {
        let mut random = Random::new(1);
        (0..1 << 17).flat_map(|_| random.next_u64().to_le_bytes()).collect()
    };
    let names: [&[u8]; 6] = [b"\0", b"\0\0", b"\xff", b"\xff\xff", b"a\0b", &[0xff; 4096]];
    let mut keys: Vec<_> = names.iter().map(|name| key(3, name)).collect();
    put(store, keys.iter().map(|k| change(k, &value, 1)).collect());
    for k in &keys {
        assert!(store.read(k).unwrap().unwrap() == value, "{k:?}");
    }
    keys.sort();
    let listed: Vec<_> =
        store.page(Partition(3), None, 10).unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(listed, keys);
}

fn a_random_history_reads_like_a_sorted_map(store: &dyn Store) {
    let model = MemoryStore::new();
    let mut random = Random::new(42);
    let mut some_key = move || key(random.below(3) as u16, &[random.below(20) as u8]);
    let mut random = Random::new(43);
    for _ in 0..200 {
        let batches: Vec<_> = (0..random.below(4))
            .map(|_| {
                let n = random.below(4);
                let mut one =
                    || change(&some_key(), &random.next_u64().to_le_bytes(), random.next_u128());
                Batch::of((0..n).map(|_| one()).collect())
            })
            .collect();
        store.commit(&batches).unwrap();
        model.commit(&batches).unwrap();
        let (k, count) = (some_key(), random.below(8) as usize);
        assert_eq!(store.read(&k), model.read(&k));
        assert_eq!(
            store.page(k.partition(), Some(&k), count),
            model.page(k.partition(), Some(&k), count)
        );
        assert_eq!(store.digest(), model.digest());
    }
}

fn threads_that_commit_together_lose_nothing(store: &dyn Store) {
    thread::scope(|scope| {
        for thread in 0..8_u16 {
            scope.spawn(move || {
                for n in 0..25_u8 {
                    let k = key(thread, &[n]);
                    put(store, vec![change(&k, &[n], 1)]);
                    assert_eq!(store.read(&k).unwrap().unwrap(), [n][..]);
                }
            });
        }
    });
    assert_eq!(store.digest().unwrap().0, 200);
}
