//! What a listing by cursors finds, page by page, over one store and several.

use super::*;
use crate::causality::{Actor, Content, Dot, Hlc, Sibling, VersionVector};
use crate::ids::{Incarnation, WriteId};
use crate::store::memory::MemoryStore;
use crate::store::{Batch, Change, Imprint};
use bytes::Bytes;

const PARTITIONS: u32 = 64;
const NOW: WallMs = WallMs(1000);

fn key(n: u64) -> Key {
    Key::new(b"b", format!("key-{n}").as_bytes()).unwrap()
}

fn partition(key: &Key) -> Partition {
    crate::ring::partition_of(key.token(), PARTITIONS)
}

fn put(store: &MemoryStore, key: &Key, siblings: u16, fades_at: Option<u64>) {
    let fades_at = fades_at.map(WallMs);
    let after = Imprint { digest: 1, siblings, bytes: 9, latest: 1, fades_at };
    let record = Some(Bytes::from_static(b"r"));
    let stored = StoredKey::new(partition(key), key);
    let changes = vec![Change::fresh(stored, record, after)];
    store.commit(&[Batch::of(changes)]).unwrap();
}

fn asked(position: Position, which: Which, count: u32) -> OwnerListing {
    OwnerListing {
        bucket: "b".to_owned(),
        which,
        prefix: Vec::new(),
        partition: position.partition.0,
        from: position.place,
        count,
        slots: 0,
    }
}

/// Lists everything that some of `stores` have, `count` keys a page, by cursors alone.
fn listing(stores: &[&MemoryStore], which: Which, count: u32) -> Vec<(Listed, bool)> {
    let (mut all, mut cursor, mut pages) = (Vec::new(), 0, 0);
    loop {
        pages += 1;
        assert!(pages < 100_000, "it does not come to an end");
        let position = Position::of_cursor(cursor, PARTITIONS).unwrap();
        assert_eq!(position.cursor(PARTITIONS), cursor);
        let mut count = count;
        let union = loop {
            let asked = asked(position, which, count);
            let pages: Vec<OwnerPage> =
                stores.iter().map(|store| page(*store, &asked, true, NOW).unwrap()).collect();
            match unite("b", position.place, grain(PARTITIONS), &pages) {
                Some(union) => break union,
                None => count *= 2,
            }
        };
        all.extend(union.keys);
        let within = union.next.map(|place| Position { place, ..position });
        let next = within.or_else(|| position.next_partition(PARTITIONS));
        match next.map(|position| position.cursor(PARTITIONS)) {
            Some(next) if next > cursor => cursor = next,
            Some(next) => panic!("{next} does not lie behind {cursor}"),
            None => return all,
        }
    }
}

fn names(listed: &[(Listed, bool)]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = listed.iter().map(|(listed, _)| listed.key.clone()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_cursor_names_a_place_below_2_to_the_53_and_0_is_the_beginning() {
    for partitions in [32, 64, 1024, 65_536] {
        let last = Position { partition: Partition((partitions - 1) as u16), place: u64::MAX };
        assert_eq!(last.cursor(partitions), (1 << 53) - 1);
        assert_eq!(last.next_partition(partitions), None);
        let first = Position { partition: Partition(0), place: 0 };
        assert_eq!(first.cursor(partitions), 0);
        let next = first.next_partition(partitions).unwrap();
        assert_eq!(Position::of_cursor(next.cursor(partitions), partitions), Some(next));
        let place = grain(partitions) * 12_345;
        let within = Position { partition: Partition(7), place };
        assert_eq!(Position::of_cursor(within.cursor(partitions), partitions), Some(within));
        assert_eq!(Position::of_cursor(1 << 53, partitions), None);
    }
}

#[test]
fn every_page_size_lists_each_live_key_once_and_no_deleted_or_expired_one() {
    let store = MemoryStore::new();
    let mut live = Vec::new();
    for n in 0..2000 {
        let (siblings, fades_at) = match n % 4 {
            0 => (1, None),
            1 => (2, Some(1001)),
            2 => (1, Some(1000)),
            _ => (0, Some(7)),
        };
        put(&store, &key(n), siblings, fades_at);
        if n % 4 < 2 {
            live.push(key(n).name().to_vec());
        }
    }
    live.sort_unstable();
    for count in [1, 2, 7, 1000] {
        let listed = listing(&[&store], Which::Live, count);
        assert_eq!(names(&listed), live, "{count}");
        assert!(listed.iter().all(|(_, in_doubt)| !in_doubt));
    }
}

#[test]
fn what_any_of_the_owners_has_is_listed_and_what_one_has_not_is_in_doubt() {
    let stores = [MemoryStore::new(), MemoryStore::new(), MemoryStore::new()];
    let mut random = crate::random::Random::new(5);
    let (mut expected, mut doubtful) = (Vec::new(), 0);
    for n in 0..1000 {
        let holders: Vec<&MemoryStore> = stores.iter().filter(|_| random.below(8) > 0).collect();
        holders.iter().for_each(|store| put(store, &key(n), 1, None));
        if !holders.is_empty() {
            expected.push(key(n).name().to_vec());
            doubtful += usize::from(holders.len() < 3);
        }
    }
    expected.sort_unstable();
    let all: Vec<&MemoryStore> = stores.iter().collect();
    for count in [1, 3, 100] {
        let listed = listing(&all, Which::Live, count);
        assert_eq!(names(&listed), expected);
        assert_eq!(listed.iter().filter(|(_, in_doubt)| *in_doubt).count(), doubtful);
    }
}

#[test]
fn conflicts_are_listed_in_the_same_order_by_the_same_cursors() {
    let store = MemoryStore::new();
    let mut expected = Vec::new();
    for n in 0..500 {
        put(&store, &key(n), 1 + u16::from(n % 7 == 0), None);
        if n % 7 == 0 {
            expected.push(key(n).name().to_vec());
        }
    }
    expected.sort_unstable();
    for count in [1, 2, 1000] {
        let listed = listing(&[&store], Which::Conflicts, count);
        assert_eq!(names(&listed), expected);
        assert!(listed.iter().all(|(listed, _)| listed.siblings == 2));
    }
}

#[test]
fn what_has_expired_and_what_was_written_twice_is_no_conflict() {
    let store = MemoryStore::new();
    // Of each key two values: which of them expires when, and whether both are of one write.
    let keys = [
        ([None, None], false),
        ([None, Some(999)], false),
        ([None, Some(1001)], false),
        ([None, None], true),
    ];
    for (n, (expiries, is_one_write)) in keys.into_iter().enumerate() {
        let mut object = Object::new();
        for (k, expires_at) in expiries.into_iter().enumerate() {
            let sibling = Sibling {
                dot: Dot { actor: Actor { incarnation: Incarnation(1), k: k as u64 }, counter: 1 },
                write_id: WriteId(if is_one_write { 1 } else { k as u128 }),
                hlc: Hlc(1),
                after: Hlc::default(),
                expires_at: expires_at.map(WallMs),
                content: Content::Value(Bytes::from_static(b"v")),
            };
            object.write(&VersionVector::new(), sibling);
        }
        let key = key(n as u64);
        let stored = StoredKey::new(partition(&key), &key);
        let encoded = object.encode();
        let after = crate::replica::keys::imprint(&stored, &object, &encoded);
        assert_eq!(after.siblings, 2);
        let record = Record { mint: None, object: encoded }.encode();
        store.commit(&[Batch::of(vec![Change::fresh(stored, Some(record), after)])]).unwrap();
    }
    let listed = listing(&[&store], Which::Conflicts, 10);
    let mut expected = vec![key(0).name().to_vec(), key(2).name().to_vec()];
    expected.sort_unstable();
    assert_eq!(names(&listed), expected);
}

#[test]
fn a_page_of_nothing_but_deletions_ends_and_says_where_to_go_on() {
    let store = MemoryStore::new();
    let of_one: Vec<Key> = (0..)
        .map(key)
        .filter(|key| partition(key) == Partition(3))
        .take(LOOK_KEYS + 2500)
        .collect();
    for key in &of_one {
        put(&store, key, 0, Some(7));
    }
    let start = Position { partition: Partition(3), place: 0 };
    let first = page(&store, &asked(start, Which::Live, 10), true, NOW).unwrap();
    assert!(first.keys.is_empty());
    let from = first.next.expect("there are more than a page looks at");
    let behind = Position { place: from, ..start };
    let second = page(&store, &asked(behind, Which::Live, 10), true, NOW).unwrap();
    assert_eq!(second, OwnerPage { keys: Vec::new(), next: None, complete: true });
}

#[test]
fn keys_that_share_a_cursor_are_never_parted() {
    // Two pages of owners that end within one grain reach no further than its beginning.
    let (grain, from) = (grain(PARTITIONS), 0);
    let page = |next| OwnerPage { keys: Vec::new(), next, complete: true };
    assert_eq!(unite("b", from, grain, &[page(Some(grain - 1)), page(None)]), None);
    let union = unite("b", from, grain, &[page(Some(3 * grain + 5)), page(Some(7 * grain))]);
    assert_eq!(union.unwrap().next, Some(3 * grain));
}

#[test]
fn the_keys_that_stand_out_are_found_and_all_are_looked_at_within_the_budget() {
    let store = MemoryStore::new();
    for n in 0..300 {
        let after = Imprint {
            digest: 1,
            siblings: if n % 50 == 0 { 2 + (n / 50) as u16 } else { 1 },
            bytes: n as u32,
            latest: 1,
            fades_at: None,
        };
        let stored = StoredKey::new(partition(&key(n)), &key(n));
        let changes = vec![Change::fresh(stored, Some(Bytes::from_static(b"r")), after)];
        store.commit(&[Batch::of(changes)]).unwrap();
    }
    let found = outliers(&store, PARTITIONS, Partition(40), u64::MAX).unwrap();
    assert!(found.complete && found.seen == 300);
    let siblings: Vec<u16> = found.siblings.iter().map(|o| o.listed.siblings).collect();
    assert_eq!(siblings, [7, 6, 5, 4, 3, 2]);
    let largest: Vec<u32> = found.largest.iter().map(|o| o.listed.bytes).collect();
    assert_eq!(largest, (290..300).rev().collect::<Vec<_>>());
    let some = outliers(&store, PARTITIONS, Partition(40), 100).unwrap();
    assert!(!some.complete && (100..150).contains(&some.seen), "{}", some.seen);
    assert_eq!(some.siblings, found.siblings, "all in conflict are looked at");
}
