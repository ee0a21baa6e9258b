//! What finding differences costs on the wire and in time: two stores on disk, 1,000,000 keys of 1 KiB in one
//! partition.
//!
//! The production state machine and the production store; the network is a function call, and every
//! question and answer is counted as encoded. Run it by `./scripts/dev bench sync`; other numbers of
//! keys: `./scripts/dev bench sync -- 100000`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use ringdove::causality::{Actor, Content, Dot, Hlc, Object, Sibling, digest_of};
use ringdove::ids::{Incarnation, NodeId, Partition, WriteId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::membership::{ClusterState, Contact, MemberEntry, Topology};
use ringdove::replica::sync::{Effect, Input, Settings, Syncs, answer, with_more};
use ringdove::server::disk::Disk;
use ringdove::server::rocks::{Durability, RocksOptions, RocksStore};
use ringdove::store::record::Record;
use ringdove::store::{Batch, Change, Imprint, Store, StoredKey};
use ringdove::time::Instant;
use ringdove::wire::control;
use ringdove::wire::sync::{SyncAnswer, SyncReply, SyncRequest};
use ringdove::wire::transfer::{PageEntry, body_entries};

const PARTITION: Partition = Partition(0);
const VALUE_BYTES: usize = 1024;
const BATCH: usize = 1000;

fn key(n: u64) -> Key {
    Key::new(b"default", format!("key-{n:010}").as_bytes()).expect("a sound name")
}

/// A value of the `generation`th write; each overwrites the one before.
fn object(n: u64, generation: u64) -> Object {
    let mut object = Object::new();
    for counter in 1..=generation {
        let actor = Actor { incarnation: Incarnation(0x5bd1_e995_9d1b_899d ^ n), k: n };
        let seed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ counter;
        let bytes = seed.to_le_bytes().into_iter().cycle().take(VALUE_BYTES);
        let sibling = Sibling {
            dot: Dot { actor, counter },
            write_id: WriteId(u128::from(n) << 64 | u128::from(counter)),
            hlc: Hlc((1_700_000_000_000 + counter) << 16),
            after: Hlc::default(),
            expires_at: None,
            content: Content::Value(Bytes::from_iter(bytes)),
        };
        let basis = object.clock().clone();
        object.write(&basis, sibling);
    }
    object
}

fn imprint(key: &StoredKey, object: &Object) -> Imprint {
    if object.is_empty() {
        return Imprint::NONE;
    }
    let encoded = object.encode();
    Imprint {
        digest: digest_of(&key.key(), &encoded),
        siblings: 1,
        bytes: encoded.len() as u32,
        latest: object.latest_hlc().0,
        fades_at: None,
    }
}

fn change(key: &Key, before: &Object, after: &Object) -> Change {
    let key = StoredKey::new(PARTITION, key);
    let (before, imprint_after) = (imprint(&key, before), imprint(&key, after));
    let record = Record { mint: None, object: after.encode() }.encode();
    Change { key, record: Some(record), before: Some(before), after: imprint_after }
}

fn held(store: &RocksStore, key: &Key) -> Object {
    let record = store.read(&StoredKey::new(PARTITION, key)).expect("a sound store");
    record.map_or(Object::new(), |record| {
        let record = Record::decode(record).expect("a sound record");
        Object::decode(record.object).expect("a sound object")
    })
}

fn merge(store: &RocksStore, entries: &[PageEntry]) {
    let change_of = |entry: &PageEntry| {
        let before = held(store, &entry.key);
        let brought = entry.object.clone().expect("small objects travel whole");
        let mut after = before.clone();
        after.merge(&Object::decode(brought).expect("a sound object"));
        change(&entry.key, &before, &after)
    };
    let changes = entries.iter().map(change_of).collect();
    store.commit(&[Batch::of(changes)]).expect("a sound disk");
}

/// What others are told of is not for the stores.
fn is_work(effect: &Effect) -> bool {
    use Effect::{Ask, Look, Merge};
    matches!(effect, Look { .. } | Ask { .. } | Merge { .. })
}

struct Pairing {
    ids: [NodeId; 2],
    stores: [Arc<RocksStore>; 2],
    syncs: Syncs,
    topology: Arc<Topology>,
    now: Instant,
    wire: usize,
    questions: usize,
    waited: Duration,
}

impl Pairing {
    fn new(stores: [Arc<RocksStore>; 2]) -> Self {
        let ids = [NodeId(1), NodeId(2)];
        let mut state = ClusterState::new("bench", 1);
        for id in ids {
            let (name, address) = (format!("n{}", id.0), format!("10.0.0.{}:7400", id.0));
            let contact = Contact { name, address, text_address: String::new() };
            state.enter(id, MemberEntry::candidate(id, contact, "zone", limits::WEIGHT_NORMAL));
        }
        state.form(2);
        let topology = Arc::new(Topology::new(state));
        let settings = Settings {
            node: ids[0],
            interval: Duration::from_secs(30),
            settle: Duration::from_secs(1),
            alarm: Duration::from_secs(60),
            at_once: 1,
            rate: 1 << 40,
        };
        let syncs = Syncs::new(settings, topology.clone(), Instant(0), 7);
        let (wire, questions, waited) = (0, 0, Duration::ZERO);
        Self { ids, stores, syncs, topology, now: Instant(1), wire, questions, waited }
    }

    fn exchange(&mut self) {
        (self.wire, self.questions, self.waited) = (0, 0, Duration::ZERO);
        let mut effects = Vec::new();
        self.syncs.handle(self.now, Input::Now, &mut effects);
        let mut queue: VecDeque<Effect> = effects.into();
        loop {
            let mut effects = Vec::new();
            match queue.pop_front() {
                Some(effect) => {
                    let input = self.perform(effect);
                    self.syncs.handle(self.now, input, &mut effects);
                }
                None => {
                    let Some(at) = self.syncs.next_deadline() else { return };
                    self.waited += at - self.now;
                    self.now = self.now.max(at);
                    self.syncs.handle_deadline(self.now, &mut effects);
                }
            }
            queue.extend(effects.into_iter().filter(is_work));
        }
    }

    fn perform(&mut self, effect: Effect) -> Input {
        match effect {
            Effect::Look { id, request } => {
                let reply = answer(&*self.stores[0], &self.topology, &request);
                Input::Looked { id, reply: reply.expect("a sound store") }
            }
            Effect::Ask { to, id, request } => {
                assert_eq!(to, self.ids[1]);
                self.wire += control::encode(&request).len();
                let store = &*self.stores[1];
                let reply = match request {
                    SyncRequest::Take { body } => {
                        let entries = body_entries(&body).expect("a sound page");
                        merge(store, &entries);
                        let more = with_more(store, &self.topology, &entries);
                        SyncReply::Taken(more.expect("a sound store"))
                    }
                    request => answer(store, &self.topology, &request).expect("a sound store"),
                };
                // As one whose clients wait: the longest form of an answer.
                let answer = SyncAnswer { reply, wait_ms: u32::MAX };
                self.wire += control::encode(&answer).len();
                self.questions += 1;
                Input::Answered { id, answer: Some(SyncAnswer { wait_ms: 0, ..answer }) }
            }
            Effect::Merge { id, entries, .. } => {
                merge(&self.stores[0], &entries);
                Input::Merged { id, result: Ok(()) }
            }
            other => panic!("not expected here: {other:?}"),
        }
    }

    fn row(&mut self, what: &str, differing: usize) {
        let began = StdInstant::now();
        self.exchange();
        let took = began.elapsed();
        let [ours, theirs] = [0, 1].map(|side| self.stores[side].digest().expect("a sound store"));
        assert_eq!(ours, theirs, "equal afterwards");
        let objects = differing * object(1, 2).encode().len();
        let ratio = if differing > 1 {
            format!("{:.2}", self.wire as f64 / objects as f64)
        } else {
            "-".to_owned()
        };
        println!(
            "| {what} | {} | {ratio} | {} | {:.2} | {:.1} |",
            self.wire,
            self.questions,
            took.as_secs_f64(),
            self.waited.as_secs_f64(),
        );
    }
}

fn fill(store: &RocksStore, keys: u64) {
    let mut n = 0;
    while n < keys {
        let until = keys.min(n + BATCH as u64);
        let changes = (n..until).map(|n| change(&key(n), &Object::new(), &object(n, 1))).collect();
        store.commit(&[Batch::of(changes)]).expect("a sound disk");
        n = until;
    }
}

fn overwrite(store: &RocksStore, keys: impl Iterator<Item = u64>) {
    let changes = keys.map(|n| change(&key(n), &held(store, &key(n)), &object(n, 2))).collect();
    store.commit(&[Batch::of(changes)]).expect("a sound disk");
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    let keys: u64 = numbers.next().unwrap_or(1_000_000);
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let options = RocksOptions { durability: Durability::None, ..RocksOptions::default() };
    let disks = [0, 1]
        .map(|side: usize| Disk::open(directories[side].path(), &options).expect("an empty disk"));
    let stores = [0, 1].map(|side: usize| disks[side].store.clone());
    let began = StdInstant::now();
    stores.iter().for_each(|store| fill(store, keys));
    println!(
        "{keys} keys of {VALUE_BYTES} bytes in one partition, on two disks ({:.0} s)\n",
        began.elapsed().as_secs_f64()
    );
    let mut pairing = Pairing::new(stores);
    println!(
        "| difference | bytes on the wire | over the objects' bytes | questions | seconds of work | seconds of pause |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    pairing.row("none", 0);
    overwrite(&pairing.stores[1], std::iter::once(keys / 2));
    pairing.row("one key is newer there", 1);
    overwrite(&pairing.stores[0], std::iter::once(keys / 3));
    pairing.row("one key is newer here", 1);
    for (share, side) in [(1000, 1), (100, 1), (100, 0)] {
        let place = if side == 1 { "there" } else { "here" };
        let offset = share / 2 + side as u64;
        overwrite(&pairing.stores[side], (0..keys).skip(offset as usize).step_by(share as usize));
        let what = format!("1 key in {share} is newer {place}");
        pairing.row(&what, (keys / share) as usize);
    }
}
