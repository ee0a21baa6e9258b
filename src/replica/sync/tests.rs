//! Two nodes' anti-entropy over stores in memory: any difference, and afterwards none.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::causality::{Actor, Content, Dot, Hlc, Object, Sibling};
use crate::ids::{Incarnation, WriteId};
use crate::key::Key;
use crate::limits;
use crate::membership::{ClusterState, Contact, HandOver, MemberEntry};
use crate::store::memory::MemoryStore;
use crate::store::record::Record;
use crate::store::{Batch, Change, Imprint, Store, StoredKey};
use crate::time::WallMs;
use crate::wire::control;
use crate::wire::messages::BucketSettings;
use crate::wire::sync::{Branches, Mark, Named, pack_leaves};
use crate::wire::transfer::{Blob, PageBuilder, body_entries};

const P: Partition = Partition(0);

type Meanwhile = Box<dyn FnOnce(&[MemoryStore; 2])>;

struct Pairing {
    ids: [NodeId; 2],
    stores: [MemoryStore; 2],
    syncs: [Syncs; 2],
    topology: Arc<Topology>,
    now: Instant,
    /// Bytes of all questions and answers between the two.
    wire: usize,
    notices: Vec<Notice>,
    complete: [BTreeSet<Partition>; 2],
    /// Movements that were announced and are not over.
    moving: [u32; 2],
    recounts: usize,
    /// The record that a side can neither read nor merge into.
    damaged: Option<(usize, Key)>,
    /// What happens between the first look and the second.
    while_settling: Option<Meanwhile>,
}

fn object(n: u64, data: &str) -> Object {
    let mut object = Object::new();
    let actor = Actor { incarnation: Incarnation(n), k: 1 };
    write(&mut object, Dot { actor, counter: 1 }, n, data);
    object
}

fn write(object: &mut Object, dot: Dot, time: u64, data: &str) {
    let content = Content::Value(Bytes::copy_from_slice(data.as_bytes()));
    write_as(object, dot, time, (content, None));
}

fn write_as(
    object: &mut Object,
    dot: Dot,
    time: u64,
    (content, expires_at): (Content, Option<WallMs>),
) {
    let basis = object.clock().clone();
    let write_id = WriteId(u128::from(time) << 64 | u128::from(dot.counter));
    let (hlc, after) = (Hlc(time << 16), Hlc::default());
    object.write(&basis, Sibling { dot, write_id, hlc, after, expires_at, content });
}

/// A value that stays, one that expires, or a deletion.
fn anything(random: &mut Random) -> (Content, Option<WallMs>) {
    let value = |data: &'static str| Content::Value(Bytes::from_static(data.as_bytes()));
    match random.below(4) {
        0 => (Content::Tombstone, None),
        1 => (value("for a while"), Some(WallMs(1 + random.below(1000)))),
        _ => (value("for good"), None),
    }
}

fn held(store: &MemoryStore, key: &StoredKey) -> Object {
    let record = store.read(key).unwrap();
    record.map_or(Object::new(), |record| {
        Object::decode(Record::decode(record).unwrap().object).unwrap()
    })
}

fn key(n: u64) -> Key {
    let bucket = ["default", "other"][usize::from(n.is_multiple_of(7))];
    Key::new(bucket.as_bytes(), format!("key-{n:07}").as_bytes()).unwrap()
}

fn imprint(key: &StoredKey, object: &Object) -> Imprint {
    if object.is_empty() {
        Imprint::NONE
    } else {
        super::super::keys::imprint(key, object, &object.encode())
    }
}

fn merge(store: &MemoryStore, key: &Key, brought: &Object) {
    let key = StoredKey::new(P, key);
    let mut object = held(store, &key);
    let before = imprint(&key, &object);
    object.merge(brought);
    let record = Record { mint: None, object: object.encode() }.encode();
    let after = imprint(&key, &object);
    let change = Change { key, record: Some(record), before: Some(before), after };
    store.commit(&[Batch::of(vec![change])]).unwrap();
}

impl Pairing {
    fn new(seed: u64) -> Self {
        Self::with(seed, 2, |_| {})
    }

    /// Bucket "other" has `n` replicas, and this is done to the cluster state once it has formed.
    fn with(seed: u64, n: u8, change: impl FnOnce(&mut ClusterState)) -> Self {
        let ids = [NodeId(1), NodeId(2)];
        let mut state = ClusterState::new("test", 1);
        for id in ids {
            let (name, address) = (format!("n{}", id.0), format!("10.0.0.{}:7400", id.0));
            let contact = Contact { name, address, text_address: String::new() };
            state.enter(id, MemberEntry::candidate(id, contact, "zone", limits::WEIGHT_NORMAL));
        }
        assert!(state.add_bucket("other", BucketSettings { n, ..BucketSettings::default() }));
        state.form(2);
        change(&mut state);
        let topology = Arc::new(Topology::new(state));
        let settings = |node| Settings {
            node,
            interval: Duration::from_secs(10),
            settle: Duration::from_secs(1),
            alarm: Duration::from_secs(60),
            at_once: 2,
            rate: 1 << 30,
        };
        let syncs = ids.map(|id| Syncs::new(settings(id), topology.clone(), Instant(0), seed));
        Self {
            ids,
            stores: Default::default(),
            syncs,
            topology,
            now: Instant(1),
            wire: 0,
            notices: Vec::new(),
            complete: Default::default(),
            moving: [0; 2],
            recounts: 0,
            damaged: None,
            while_settling: None,
        }
    }

    /// Has both go by another cluster state.
    fn learn(&mut self, state: ClusterState) {
        self.topology = Arc::new(Topology::after(&self.topology, state));
        for syncs in &mut self.syncs {
            let input = Input::Topology(self.topology.clone());
            syncs.handle(self.now, input, &mut Vec::new());
        }
    }

    /// Lets one side compare and mend until it has nothing left to do. It may leave the other one
    /// some time at first.
    fn exchange(&mut self, side: usize) {
        self.compare(side);
        self.now = self.now + AGAIN;
        self.compare(side);
    }

    fn compare(&mut self, side: usize) {
        let mut effects = Vec::new();
        self.syncs[side].handle(self.now, Input::Now, &mut effects);
        let mut queue: VecDeque<Effect> = effects.into();
        for _ in 0..100_000 {
            let Some(effect) = queue.pop_front() else {
                let Some(at) = self.syncs[side].next_deadline() else { return };
                if let Some(meanwhile) = self.while_settling.take() {
                    meanwhile(&self.stores);
                }
                self.now = self.now.max(at);
                let mut effects = Vec::new();
                self.syncs[side].handle_deadline(self.now, &mut effects);
                queue.extend(effects);
                continue;
            };
            if let Some(input) = self.perform(side, effect) {
                let mut effects = Vec::new();
                self.syncs[side].handle(self.now, input, &mut effects);
                queue.extend(effects);
            }
        }
        panic!("it does not come to an end");
    }

    fn perform(&mut self, side: usize, effect: Effect) -> Option<Input> {
        let other = 1 - side;
        let damaged =
            |at: usize, of: &Key| self.damaged.as_ref().is_some_and(|d| d.0 == at && d.1 == *of);
        let merge_all = |at: usize, entries: Vec<PageEntry>| {
            let (lost, sound): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| damaged(at, &entry.key));
            let store = &self.stores[at];
            for entry in sound {
                let object = Object::decode(entry.object.expect("objects here are small")).unwrap();
                merge(store, &entry.key, &object);
            }
            let why = "damaged".to_owned();
            if lost.is_empty() { Ok(()) } else { Err(Unmerged { why, is_damaged: true }) }
        };
        // What cannot be read is passed over.
        let readable = |at: usize, mut request: SyncRequest| {
            if let SyncRequest::Objects { tree, names, .. } = &mut request {
                names.retain(|name| {
                    !damaged(at, &Key::new(tree.bucket.as_bytes(), &name.0).unwrap())
                });
            }
            answer(&self.stores[at], &self.topology, &request).unwrap()
        };
        let carries = match &effect {
            Effect::Look { request, .. } | Effect::Ask { request, .. } => {
                matches!(request, SyncRequest::Objects { .. } | SyncRequest::Take { .. })
            }
            effect => matches!(effect, Effect::Merge { .. }),
        };
        assert!(!carries || self.moving[side] > 0, "it was not announced: {effect:?}");
        match effect {
            Effect::BeginMove(partition) => {
                assert_eq!(partition, P);
                self.moving[side] += 1;
                None
            }
            Effect::EndMove(_) => {
                self.moving[side] -= 1;
                None
            }
            Effect::Look { id, request } => {
                Some(Input::Looked { id, reply: readable(side, request) })
            }
            Effect::Ask { to, id, request } => {
                assert_eq!(to, self.ids[other]);
                let reply = match request.clone() {
                    SyncRequest::Take { body } => {
                        let entries = body_entries(&body).unwrap();
                        match merge_all(other, entries.clone()) {
                            Ok(()) => {
                                let store = &self.stores[other];
                                let more = with_more(store, &self.topology, &entries);
                                SyncReply::Taken(more.unwrap())
                            }
                            Err(unmerged) => SyncReply::Damaged(unmerged.why),
                        }
                    }
                    request => readable(other, request),
                };
                let answer = SyncAnswer::at_ease(reply);
                let (asked, said) =
                    (control::encode(&request).len(), control::encode(&answer).len());
                assert!(said <= limits::CONTROL_BYTES, "an answer of {said} bytes fits no frame");
                self.wire += asked + said;
                Some(Input::Answered { id, answer: Some(answer) })
            }
            Effect::Merge { id, from, entries } => {
                assert_eq!(from, self.ids[other]);
                Some(Input::Merged { id, result: merge_all(side, entries) })
            }
            Effect::Recount(partition) => {
                self.recounts += 1;
                self.stores[side].recount(partition).unwrap();
                None
            }
            Effect::Complete(partition) => {
                self.complete[side].insert(partition);
                None
            }
            Effect::Whole => None,
            Effect::Notice(notice) => {
                self.notices.push(notice);
                None
            }
        }
    }

    fn assert_equal(&self) {
        let page = |store: &MemoryStore| store.page(P, None, usize::MAX).unwrap();
        assert_eq!(page(&self.stores[0]), page(&self.stores[1]));
        let faded = |store: &MemoryStore| store.faded(P, WallMs(u64::MAX), None, usize::MAX);
        assert_eq!(faded(&self.stores[0]).unwrap(), faded(&self.stores[1]).unwrap());
        assert_eq!(self.moving, [0, 0], "what has moved is over");
        assert_eq!(self.stores[0].roots(P), self.stores[1].roots(P));
    }
}

#[test]
fn any_two_stores_are_equal_after_one_of_them_has_compared() {
    for seed in 0..15 {
        let mut random = Random::new(seed);
        let mut pairing = Pairing::new(seed);
        let keys = [30, 300, 1500][seed as usize % 3];
        let differing = random.below(keys);
        for n in 0..keys {
            let mut base = object(n + 1, "the same on both sides");
            if n > differing {
                pairing.stores.iter().for_each(|store| merge(store, &key(n), &base));
                continue;
            }
            // Absent, old, new, or concurrent, on either side.
            for side in 0..2 {
                let dot = |counter| {
                    let incarnation = Incarnation(1000 * (n + 1) + side);
                    Dot { actor: Actor { incarnation, k: 1 }, counter }
                };
                match random.below(4) {
                    0 => continue,
                    1 => {}
                    2 => {
                        let (time, what) = (random.below(100), anything(&mut random));
                        write_as(&mut base, dot(1), time, what);
                    }
                    _ => {
                        let mut other = object(n + 1, "the same on both sides");
                        let (time, what) = (random.below(100), anything(&mut random));
                        write_as(&mut other, dot(2), time, what);
                        merge(&pairing.stores[side as usize], &key(n), &other);
                        continue;
                    }
                }
                merge(&pairing.stores[side as usize], &key(n), &base);
            }
        }
        pairing.exchange(random.below(2) as usize);
        pairing.assert_equal();
        assert_eq!(pairing.recounts, 0);
        let before = pairing.wire;
        pairing.compare(0);
        assert!(pairing.wire - before < 150, "equal stores said {} bytes", pairing.wire - before);
        assert_eq!(pairing.complete[0], BTreeSet::from([P]));
        assert_eq!(pairing.syncs[0].status(pairing.now).in_sync, 1);
    }
}

#[test]
fn what_one_side_cannot_read_or_merge_holds_up_nothing_else() {
    for comparing in 0..2 {
        for is_newer in [false, true] {
            let mut pairing = Pairing::new(9);
            // In another bucket than key 14, which comes behind it.
            let lost = key(1);
            merge(&pairing.stores[0], &lost, &object(1, "nobody can read this"));
            if is_newer {
                let news = object(1, "nobody can read this");
                merge(&pairing.stores[1], &lost, &news);
                merge(&pairing.stores[1], &lost, &object(90, "newer"));
            }
            for (n, side) in [(2, 0), (3, 1), (7, 0), (14, 1)] {
                merge(&pairing.stores[side], &key(n), &object(n + 1, "one side has it"));
            }
            pairing.damaged = Some((0, lost.clone()));
            pairing.exchange(comparing);
            for n in [2, 3, 7, 14] {
                let stored = StoredKey::new(P, &key(n));
                let [here, there] = &pairing.stores;
                assert_eq!(held(here, &stored), held(there, &stored), "{n} by {comparing}");
                assert!(!held(here, &stored).is_empty());
            }
            assert_eq!(pairing.syncs[comparing].status(pairing.now).in_sync, 0);
            assert!(pairing.syncs[comparing].tally().repaired <= 4);
            pairing.damaged = None;
            pairing.exchange(comparing);
            pairing.assert_equal();
            assert_eq!(pairing.syncs[comparing].status(pairing.now).in_sync, 1);
        }
    }
}

#[test]
fn names_that_do_not_fit_in_one_answer_come_one_answer_after_the_other() {
    // 20 MB of names.
    const KEYS: u64 = 5000;
    let mut pairing = Pairing::new(3);
    let long = "long".repeat(1000);
    for n in 0..KEYS {
        let key = Key::new(b"default", format!("{n:07}-{long}").as_bytes()).unwrap();
        merge(&pairing.stores[1], &key, &object(n + 1, "one side has it"));
    }
    pairing.exchange(0);
    pairing.assert_equal();
    assert_eq!(pairing.syncs[0].tally().repaired, KEYS);
}

#[test]
fn one_key_of_many_costs_a_few_kilobytes() {
    let mut pairing = Pairing::new(1);
    for n in 0..8000 {
        let object = object(n + 1, "the same on both sides");
        pairing.stores.iter().for_each(|store| merge(store, &key(n), &object));
    }
    let news = object(99, "x");
    merge(&pairing.stores[1], &key(17), &news);
    pairing.exchange(0);
    pairing.assert_equal();
    assert_eq!(pairing.syncs[0].tally().repaired, 1);
    assert!(pairing.wire < 6000, "{} bytes", pairing.wire);
}

#[test]
fn what_arrives_or_changes_during_the_pause_is_no_difference() {
    let mut pairing = Pairing::new(3);
    for n in 0..1000 {
        let object = object(n + 1, "old");
        pairing.stores.iter().for_each(|store| merge(store, &key(n), &object));
    }
    // One is on its way to the other side, and one is written all the time.
    let (arriving, hot) = (object(5000, "arriving"), object(5001, "hot"));
    merge(&pairing.stores[0], &key(1), &arriving);
    merge(&pairing.stores[1], &key(2), &hot.clone());
    pairing.while_settling = Some(Box::new(move |stores| {
        merge(&stores[1], &key(1), &arriving);
        for store in stores {
            merge(store, &key(2), &hot);
            merge(store, &key(2), &object(5002, "hotter"));
        }
    }));
    pairing.compare(0);
    let tally = pairing.syncs[0].tally();
    assert_eq!((tally.repaired, tally.in_flight, tally.bytes), (0, 1, 0));
    assert_eq!(
        pairing.syncs[0].status(pairing.now).in_sync,
        1,
        "all that is older is on both sides"
    );
    pairing.assert_equal();
}

#[test]
fn what_changes_at_both_ends_during_the_pause_and_still_differs_is_mended() {
    let mut pairing = Pairing::new(3);
    // A blind write through a coordinator that lacks an older value: it reaches both, the older
    // value does not.
    merge(&pairing.stores[1], &key(2), &object(1, "older, on one side"));
    pairing.while_settling = Some(Box::new(|stores| {
        let blind = object(2, "newer, on both");
        stores.iter().for_each(|store| merge(store, &key(2), &blind));
    }));
    pairing.compare(0);
    pairing.assert_equal();
    assert_eq!(pairing.syncs[0].tally().repaired, 1);
}

#[test]
fn trees_that_are_wrong_are_counted_again() {
    let mut pairing = Pairing::new(4);
    for n in 0..100 {
        let object = object(n + 1, "old");
        pairing.stores.iter().for_each(|store| merge(store, &key(n), &object));
    }
    // A record is gone, and its digest, and the tree has not heard of it.
    pairing.stores[0].lose(&StoredKey::new(P, &key(8)));
    pairing.exchange(0);
    assert_eq!(pairing.syncs[0].tally().repaired, 0, "nothing differs as far as the trees know");
    pairing.stores[0].recount(P).unwrap();
    pairing.exchange(0);
    pairing.assert_equal();
    // A tree is wrong, and the records are not.
    let stray = StoredKey::new(P, &key(500));
    let after = Imprint { digest: 77, ..Imprint::NONE };
    let change = Change {
        key: stray.clone(),
        record: Some(Bytes::new()),
        before: Some(Imprint::NONE),
        after,
    };
    pairing.stores[0].commit(&[Batch::of(vec![change])]).unwrap();
    pairing.stores[0].lose(&stray);
    pairing.exchange(0);
    assert_eq!(pairing.recounts, 1);
    pairing.assert_equal();
}

#[test]
fn an_exchange_that_is_cut_off_anywhere_is_begun_again() {
    for cut in 0..20 {
        let mut pairing = Pairing::new(cut);
        for n in 0..400 {
            let side = (n % 2) as usize;
            merge(&pairing.stores[side], &key(n), &object(n + 1, "on one side only"));
        }
        let mut effects = Vec::new();
        pairing.syncs[0].handle(pairing.now, Input::Now, &mut effects);
        let mut queue: VecDeque<Effect> = effects.into();
        let mut asked = 0;
        while let Some(effect) = queue.pop_front() {
            asked += u64::from(matches!(effect, Effect::Ask { .. }));
            let input = match effect {
                Effect::Ask { id, .. } if asked == cut => {
                    Some(Input::Answered { id, answer: None })
                }
                effect => pairing.perform(0, effect),
            };
            let mut effects = Vec::new();
            if let Some(input) = input {
                pairing.syncs[0].handle(pairing.now, input, &mut effects);
            }
            if queue.is_empty()
                && effects.is_empty()
                && let Some(at) = pairing.syncs[0].next_deadline()
            {
                pairing.now = pairing.now.max(at);
                pairing.syncs[0].handle_deadline(pairing.now, &mut effects);
            }
            queue.extend(effects);
        }
        pairing.exchange(0);
        pairing.assert_equal();
        assert!(pairing.syncs[0].jobs.is_empty() && pairing.syncs[0].questions.is_empty());
    }
}

#[test]
fn a_pair_is_overdue_only_when_it_has_had_the_time() {
    let mut pairing = Pairing::new(5);
    let at = |seconds: u64| Instant(seconds * 1_000_000);
    let fresh = pairing.syncs[0].status(at(50));
    assert_eq!((fresh.pairs, fresh.in_sync, fresh.overdue, fresh.oldest_ms), (1, 0, 0, None));
    let late = pairing.syncs[0].status(at(61));
    assert_eq!((late.overdue, late.waits_ms, late.shown.len()), (1, 61_000, 1));
    pairing.now = at(61);
    pairing.compare(0);
    let mended = pairing.syncs[0].status(at(62));
    assert_eq!((mended.in_sync, mended.overdue, mended.oldest_ms), (1, 0, Some(1000)));
    assert!(mended.shown.is_empty());
    assert_eq!(pairing.syncs[0].status(at(300)).shown[0].in_sync_ms, Some(239_000));
}

#[test]
fn what_was_compared_when_somebody_asked_is_compared_again_at_once() {
    let mut pairing = Pairing::new(6);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    pairing.syncs[0].handle(Instant(1000), Input::Now, &mut first);
    assert_eq!(first.len(), 2, "one question to either side: {first:?}");
    // While it is under way, somebody asks: what was acknowledged just before may be missed by it.
    pairing.syncs[0].handle(Instant(2000), Input::Now, &mut second);
    assert!(second.is_empty(), "{second:?}");
    pairing.now = Instant(3000);
    for effect in first {
        let input = pairing.perform(0, effect).unwrap();
        pairing.syncs[0].handle(pairing.now, input, &mut second);
    }
    second.retain(|effect| !matches!(effect, Effect::Complete(_)));
    assert_eq!(second.len(), 2, "the same questions again: {second:?}");
    assert_eq!(pairing.syncs[0].status(Instant(5000)).oldest_ms, Some(4));
    for effect in std::mem::take(&mut second) {
        let input = pairing.perform(0, effect).unwrap();
        pairing.syncs[0].handle(pairing.now, input, &mut second);
    }
    assert!(second.is_empty(), "{second:?}");
    assert_eq!(pairing.syncs[0].status(Instant(5000)).oldest_ms, Some(2));
}

/// Has the next of a bucket's new slots taken by the member it is for.
fn take_slot(state: &mut ClusterState) {
    let scope = state.buckets["other"].home.next.unwrap();
    let slots = Topology::new(state.clone()).slots(P, scope).to_vec();
    let slot = slots.iter().position(|slot| slot.version == 0).unwrap();
    let (expected, to) = (slots[slot], slots[slot].successor.unwrap());
    assert!(state.hand_over(&HandOver { scope, partition: P, slot, expected, to }));
}

#[test]
fn a_bucket_that_is_on_its_way_is_compared_once_it_has_arrived_and_nobody_is_whole_before() {
    let two = BucketSettings { n: 2, ..BucketSettings::default() };
    let mut pairing = Pairing::with(1, 1, |state| {
        state.set_bucket("other", two).unwrap();
        state.commit_plan(None).unwrap();
        take_slot(state);
    });
    let first = (0..2).find(|side| !pairing.syncs[*side].arriving.is_empty()).unwrap();
    assert_eq!(key(7).bucket(), "other");
    merge(&pairing.stores[1 - first], &key(7), &object(1, "in its old slot, and acknowledged"));
    pairing.exchange(first);
    let second = Input::Second { p99: Duration::ZERO };
    let mut effects = Vec::new();
    pairing.syncs[first].handle(pairing.now, second, &mut effects);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Whole)), "{effects:?}");
    assert!(pairing.complete[first].is_empty());
    assert!(pairing.syncs[first].pairs.values().all(|pair| pair.in_sync.is_some()));

    let earlier = pairing.topology.clone();
    let mut state = earlier.state().clone();
    take_slot(&mut state);
    pairing.learn(state);
    assert!(pairing.syncs[first].pairs.values().all(|pair| pair.in_sync.is_none()));
    // Whoever has not heard of it says so.
    let shared = pairing.syncs[first].shared(&(P, pairing.ids[1 - first]));
    let asked = |topology| {
        answer(&pairing.stores[1 - first], topology, &SyncRequest::Roots(vec![shared.clone()]))
    };
    assert_eq!(asked(&earlier).unwrap(), SyncReply::Roots(vec![None]));
    assert_ne!(asked(&pairing.topology).unwrap(), SyncReply::Roots(vec![None]));
    pairing.exchange(first);
    pairing.assert_equal();
    assert_eq!(pairing.complete[first], BTreeSet::from([P]));
}

#[test]
fn what_was_compared_before_more_was_shared_proves_nothing() {
    let mut pairing = Pairing::new(1);
    let (id, began) = ((P, pairing.ids[1]), pairing.now);
    pairing.now = pairing.now + AGAIN;
    let state = pairing.topology.state().clone();
    let pair = pairing.syncs[0].pairs.get_mut(&id).unwrap();
    pair.shared.clear();
    pairing.learn(state);
    pairing.syncs[0].settle_pair(id, Some(began), Duration::ZERO);
    assert_eq!(pairing.syncs[0].pairs[&id].in_sync, None);
}

/// One of three nodes, alone: the answers to its questions are made up, and say of every partition that the
/// peer has one key which this node has not.
struct Alone {
    syncs: Syncs,
    now: Instant,
    /// Questions for objects that nobody has answered yet.
    moves: Vec<(NodeId, u64, TreeId)>,
    /// When a peer was asked for objects, and which.
    asked: Vec<(Instant, NodeId)>,
    names_asked: usize,
    /// From now on every key has come from somewhere.
    has_all: bool,
}

impl Alone {
    const AT_ONCE: usize = 2;

    fn new() -> Self {
        let mut state = ClusterState::new("test", 16);
        for id in (1..=3).map(NodeId) {
            let (name, address) = (format!("n{}", id.0), format!("10.0.0.{}:7400", id.0));
            let contact = Contact { name, address, text_address: String::new() };
            state.enter(id, MemberEntry::candidate(id, contact, "zone", limits::WEIGHT_NORMAL));
        }
        state.form(3);
        let settings = Settings {
            node: NodeId(1),
            interval: Duration::from_secs(30),
            settle: Duration::from_secs(1),
            alarm: Duration::from_secs(60),
            at_once: Self::AT_ONCE,
            rate: 1 << 30,
        };
        let syncs = Syncs::new(settings, Arc::new(Topology::new(state)), Instant(0), 1);
        let (now, moves, asked) = (Instant(1), Vec::new(), Vec::new());
        Self { syncs, now, moves, asked, names_asked: 0, has_all: false }
    }

    fn reply(&self, request: &SyncRequest, is_ours: bool) -> SyncReply {
        let has = self.has_all || !is_ours;
        let mark = Mark { leaf: 3, branch: 4, bits: 5 };
        match request {
            SyncRequest::Roots(shared) => {
                SyncReply::Roots(shared.iter().map(|_| Some(u128::from(has))).collect())
            }
            SyncRequest::Trees(_) => {
                SyncReply::Trees(vec![("default".to_owned(), u128::from(has))])
            }
            SyncRequest::Leaves(_) => {
                let mut leaves = [0; limits::TREE_LEAVES];
                leaves[3] = u128::from(has);
                SyncReply::Leaves(pack_leaves(&leaves))
            }
            SyncRequest::Branches { .. } => {
                let marks: &[Mark] = if has { &[mark] } else { &[] };
                SyncReply::Branches(vec![Branches::Marks(Mark::pack(marks))])
            }
            SyncRequest::Names { .. } => {
                let name = Blob(Bytes::from_static(b"key"));
                SyncReply::Names(Vec::from_iter(has.then(|| Named { at: 0, name, latest: 1 })), 1)
            }
            SyncRequest::Objects { tree, .. } => Self::page(tree),
            other => panic!("not asked here: {other:?}"),
        }
    }

    fn page(tree: &TreeId) -> SyncReply {
        let mut body = PageBuilder::default();
        let key = Key::new(tree.bucket.as_bytes(), b"key").unwrap();
        body.push(&key, 1, Some(&object(1, "sent").encode()));
        SyncReply::Objects(body.finish(&[], true, 0).body)
    }

    /// Answers everything but questions for objects, through all pauses.
    fn go_on(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.syncs.handle(self.now, input, &mut effects);
        let mut queue: VecDeque<Effect> = effects.into();
        for _ in 0..10_000 {
            let mut effects = Vec::new();
            match queue.pop_front() {
                Some(Effect::Ask { to, id, request }) => {
                    if let SyncRequest::Objects { tree, .. } = request {
                        self.moves.push((to, id, tree));
                        self.asked.push((self.now, to));
                        continue;
                    }
                    self.names_asked += usize::from(matches!(request, SyncRequest::Names { .. }));
                    let answer = Some(SyncAnswer::at_ease(self.reply(&request, false)));
                    self.syncs.handle(self.now, Input::Answered { id, answer }, &mut effects);
                }
                Some(Effect::Look { id, request }) => {
                    let reply = self.reply(&request, true);
                    self.syncs.handle(self.now, Input::Looked { id, reply }, &mut effects);
                }
                Some(Effect::Merge { id, .. }) => {
                    let result = Ok(());
                    self.syncs.handle(self.now, Input::Merged { id, result }, &mut effects);
                }
                Some(_) => continue,
                None => {
                    let Some(at) = self.syncs.next_deadline() else { return };
                    self.now = self.now.max(at);
                    self.syncs.handle_deadline(self.now, &mut effects);
                }
            }
            queue.extend(effects);
        }
        panic!("it goes round in a circle");
    }

    /// The peer sends what it was asked for first.
    fn send_first(&mut self) {
        let (_, id, tree) = self.moves.remove(0);
        let answer = Some(SyncAnswer::at_ease(Self::page(&tree)));
        self.go_on(Input::Answered { id, answer });
    }
}

#[test]
fn objects_move_in_turn_and_come_from_one_peer_at_a_time() {
    let mut alone = Alone::new();
    alone.go_on(Input::Now);
    assert_eq!(alone.syncs.pairs.len(), 32);
    assert_eq!(alone.moves.len(), Alone::AT_ONCE, "{:?}", alone.moves);
    let mended: BTreeSet<Partition> = alone.syncs.jobs.values().map(|job| job.pair.0).collect();
    assert_eq!(mended.len(), alone.syncs.jobs.len(), "a partition is mended with one peer");
    assert_eq!(mended.len(), 16, "all of them have something to move, and stand in line");
    alone.send_first();
    assert_eq!(alone.moves.len(), Alone::AT_ONCE, "the next one's turn");
}

#[test]
fn what_has_waited_for_its_turn_is_looked_at_again() {
    let mut alone = Alone::new();
    alone.go_on(Input::Now);
    let names_asked = alone.names_asked;
    // Somebody else brings everything while the first pieces are on their way.
    alone.has_all = true;
    alone.now = alone.now + Duration::from_secs(5);
    let asked: Vec<TreeId> = alone.moves.iter().map(|(.., tree)| tree.clone()).collect();
    for _ in &asked {
        alone.send_first();
    }
    assert!(alone.names_asked > names_asked, "the others were looked at again");
    assert!(alone.moves.is_empty(), "and nothing else moved: {:?}", alone.moves);
    assert!(alone.syncs.jobs.is_empty());
    assert_eq!(alone.syncs.tally().repaired, asked.len() as u64);
}

#[test]
fn a_peer_that_asks_for_it_is_left_alone() {
    let mut alone = Alone::new();
    alone.go_on(Input::Now);
    let (strained, until) = (alone.moves[0].0, alone.now + Duration::from_millis(700));
    alone.asked.clear();
    // What the peer says with another piece does not make it less.
    assert_eq!(alone.moves[1].0, strained);
    let mut effects = Vec::new();
    for wait_ms in [700, 0] {
        let (_, id, tree) = alone.moves.remove(0);
        let answer = Some(SyncAnswer { reply: Alone::page(&tree), wait_ms });
        alone.syncs.handle(alone.now, Input::Answered { id, answer }, &mut effects);
    }
    for effect in effects {
        let Effect::Merge { id, .. } = effect else {
            panic!("not before both are here: {effect:?}")
        };
        // Long enough for this node's own pace.
        alone.now = alone.now + Duration::from_millis(10);
        alone.go_on(Input::Merged { id, result: Ok(()) });
    }
    while !alone.moves.is_empty() {
        alone.send_first();
    }
    alone.asked.retain(|(_, to)| *to == strained);
    let earliest = alone.asked.first().expect("it has more to give").0;
    assert!(earliest >= until, "{earliest:?} is before {until:?}");
    assert!(alone.syncs.jobs.is_empty());
}

#[test]
fn what_others_take_and_bring_is_paced_by_what_clients_here_are_used_to() {
    const BYTES: usize = 16 << 20;
    let mut alone = Alone::new();
    let mut serve = |brought, reply| {
        alone.now = alone.now + Duration::from_secs(100);
        alone.syncs.serve(alone.now, brought, reply).wait_ms
    };
    assert_eq!(serve(0, SyncReply::Busy), 0, "nothing moves");
    assert_eq!(serve(BYTES, SyncReply::Taken(Vec::new())), 1000, "a 64th of the rate");
    let page = SyncReply::Objects(Blob(Bytes::from(vec![0; BYTES])));
    assert_eq!(serve(0, page), 1000);
    let mut wait_after = |seconds, millis| {
        for _ in 0..seconds {
            let p99 = Duration::from_millis(millis);
            alone.syncs.handle(alone.now, Input::Second { p99 }, &mut Vec::new());
            alone.syncs.serve(alone.now, 1, SyncReply::Taken(Vec::new()));
        }
        alone.now = alone.now + Duration::from_secs(100);
        alone.syncs.serve(alone.now, BYTES, SyncReply::Taken(Vec::new())).wait_ms
    };
    assert!(wait_after(60, 10) < 50, "clients do not notice");
    assert_eq!(wait_after(60, 30), 1000, "they wait three times as long");
}
