//! Several nodes' transfers against a plain model of everything around them, with loss, delay,
//! restarts, and writes that never stop.
//!
//! A node here is its `Transfers`, a store, and the least a shard can be: it takes a write from a
//! coordinator that goes by the same slots, commits it a while later, and acknowledges it then. An
//! object is a set of write ids, and merging is the union. What is checked, all the time: whoever
//! reads from any two owners finds every write that two slots had confirmed before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::causality::digest_of;
use crate::key::Key;
use crate::limits;
use crate::membership::{ClusterState, Contact, MemberEntry, Standing};
use crate::random::Random;
use crate::store::memory::MemoryStore;
use crate::store::record::Record;
use crate::store::{Batch, Change, Imprint, Store, StoredKey};

const N: u8 = 3;
const QUORUM: usize = 2;
/// Keys, all in partitions below this: a partition has several, and so several pages.
const KEYS: usize = 32;
const PARTITIONS_WRITTEN: u16 = 8;

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    Nothing,
    /// The successor takes the first page for the last.
    ReadyTooEarly,
    /// A node deletes what it is still copied from.
    CleanupBeforeReady,
}

struct Node {
    id: NodeId,
    /// The cluster state on disk, and what this node shows of it.
    topology: Arc<Topology>,
    /// What its shard goes by.
    shard: Arc<Topology>,
    /// What its transfers go by already, while the change is under way; and the order it is for.
    installing: Option<(Arc<Topology>, Option<u64>)>,
    /// States that came meanwhile.
    heard: Vec<ClusterState>,
    store: MemoryStore,
    /// Taken and not committed: which batch, which key, which ids, whom to tell.
    staged: Vec<Staged>,
    fences: Vec<(u64, u64)>,
    disk_hangs_until: Instant,
    transfers: Transfers,
    kept: Option<Vec<u8>>,
    asks: BTreeMap<u64, (NodeId, u64)>,
    up: bool,
    life: u64,
}

struct Staged {
    number: u64,
    key: Key,
    ids: BTreeSet<u32>,
    then: Then,
}

#[derive(Clone)]
enum Then {
    Ack { write: u32, to: NodeId },
    Merged { merge: u64 },
}

enum Event {
    /// At a node, in this life of it.
    At(NodeId, u64, Local),
    Arrives(NodeId, NodeId, Message),
    Write,
    Gossip,
    Fault,
}

enum Local {
    Deadline,
    Second,
    Commit(u64),
    Fence(u64, SlotView),
    ReadPage(u64, PageRequest),
    Merge(u64, NodeId, Vec<PageEntry>),
    HandOver(u64, TopologyVersion, Vec<HandOver>),
    Clear(Partition, Scope),
    Lost(u64),
    Installed(Vec<Effect>),
}

enum Message {
    Ask(u64, TransferRequest),
    Reply(u64, TransferReply),
    Write { write: u32, slots: u64, key: Key },
    Stored { write: u32, ok: bool },
    State(Box<ClusterState>, bool),
}

struct Writing {
    by: NodeId,
    key: Key,
    confirmed: BTreeSet<NodeId>,
    acknowledged: bool,
}

pub(super) struct World {
    now: Instant,
    random: Random,
    events: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    nodes: BTreeMap<NodeId, Node>,
    keys: Vec<Key>,
    writes: BTreeMap<u32, Writing>,
    acknowledged: BTreeMap<Key, BTreeSet<u32>>,
    planted: Planted,
    quiet: bool,
    /// Takes an operator's change, and does not die before it has.
    spared: Option<NodeId>,
    pub(super) found: Option<String>,
    pub(super) restarts: u32,
    pub(super) checked: u64,
}

fn keys() -> Vec<Key> {
    let named = (0..).map(|number| Key::new(b"default", format!("k{number}").as_bytes()).unwrap());
    let partition = |key: &Key| crate::ring::partition_of(key.token(), limits::PARTITIONS_MIN);
    named.filter(|key| partition(key).0 < PARTITIONS_WRITTEN).take(KEYS).collect()
}

fn settings(node: NodeId) -> Settings {
    let cleanup_after = Duration::from_secs(3);
    Settings { node, amnesiac: false, resume: true, at_once: 4, rate: 64 << 20, cleanup_after }
}

fn object(ids: &BTreeSet<u32>) -> Bytes {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn ids_of(object: &[u8]) -> BTreeSet<u32> {
    object.chunks_exact(4).map(|id| u32::from_le_bytes(id.try_into().unwrap())).collect()
}

pub(super) fn member(id: u128) -> MemberEntry {
    let contact = Contact {
        name: format!("n{id}"),
        address: format!("10.0.0.{id}:7400"),
        text_address: String::new(),
    };
    MemberEntry::candidate(NodeId(id), contact, "", limits::WEIGHT_NORMAL)
}

impl World {
    /// `members` nodes, of which the first `founders` have formed a cluster.
    pub(super) fn new(seed: u64, members: u128, founders: u128, planted: Planted) -> Self {
        let mut state = ClusterState::new("test", limits::PARTITIONS_MIN);
        for id in 1..=founders {
            state.enter(NodeId(id), member(id));
        }
        assert!(state.form(founders as usize));
        for id in founders + 1..=members {
            state.enter(NodeId(id), member(id));
        }
        let topology = Arc::new(Topology::new(state));
        let mut world = Self {
            now: Instant(0),
            random: Random::new(seed),
            events: BTreeMap::new(),
            sequence: 0,
            nodes: BTreeMap::new(),
            keys: keys(),
            writes: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            planted,
            quiet: false,
            spared: None,
            found: None,
            restarts: 0,
            checked: 0,
        };
        for id in (1..=members).map(NodeId) {
            let seed = world.random.next_u64();
            let transfers = Transfers::new(settings(id), topology.clone(), None, world.now, seed);
            let node = Node {
                id,
                topology: topology.clone(),
                shard: topology.clone(),
                installing: None,
                heard: Vec::new(),
                store: MemoryStore::new(),
                staged: Vec::new(),
                fences: Vec::new(),
                disk_hangs_until: Instant(0),
                transfers,
                kept: None,
                asks: BTreeMap::new(),
                up: true,
                life: 0,
            };
            world.nodes.insert(id, node);
            world.at(Duration::from_millis(1), Event::At(id, 0, Local::Second));
        }
        for (after, event) in [(5, Event::Write), (50, Event::Gossip), (500, Event::Fault)] {
            world.at(Duration::from_millis(after), event);
        }
        world
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    fn soon(&mut self, micros: u64) -> Duration {
        Duration::from_micros(50 + self.random.below(micros))
    }

    fn local(&mut self, id: NodeId, micros: u64, local: Local) {
        let (life, after) = (self.nodes[&id].life, self.soon(micros));
        self.at(after, Event::At(id, life, local));
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        // Of writes to replicas more are lost, so that it matters which of them have one.
        let lost = if matches!(message, Message::Write { .. }) { 20 } else { 4 };
        if !self.quiet && self.random.chance(lost) {
            return;
        }
        let slow = self.random.chance(5);
        let after = self.soon(if slow { 300_000 } else { 3_000 });
        self.at(after, Event::Arrives(to, from, message));
    }

    /// Runs for so long, or until something is found.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.found.is_none()
            && let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until
        {
            let ((now, _), event) = entry.remove_entry();
            self.now = now;
            self.event(event);
        }
        self.now = self.now.max(until);
    }

    /// No more faults, no more writes: everything must come to rest.
    pub(super) fn settle(&mut self) {
        self.quiet = true;
        let down: Vec<NodeId> =
            self.nodes.values().filter(|node| !node.up).map(|node| node.id).collect();
        for id in down {
            let standing = self.nodes[&id].topology.member(id).unwrap().standing;
            if standing != Standing::Removed && !self.is_removed(id) {
                self.start(id);
            }
        }
        for _ in 0..120 {
            self.run(Duration::from_secs(1));
            let live: Vec<&Node> = self.nodes.values().filter(|node| node.up).collect();
            let at_rest = live.iter().all(|node| {
                node.topology.changing() == 0
                    && node.transfers.is_idle()
                    && node.topology.version() == live[0].topology.version()
            });
            if at_rest || self.found.is_some() {
                return;
            }
        }
        let status: Vec<_> =
            self.nodes.values().map(|node| (node.id, node.up, node.transfers.status())).collect();
        self.found = Some(format!("it does not come to rest: {status:?}"));
    }

    fn is_removed(&self, id: NodeId) -> bool {
        let standing = |node: &Node| node.topology.member(id).map(|entry| entry.standing);
        self.nodes.values().any(|node| standing(node) == Some(Standing::Removed))
    }

    /// Changes the cluster state at one node that is up.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut ClusterState)) {
        let up = self.nodes.values().find(|node| {
            let standing = node.topology.member(node.id).unwrap().standing;
            node.up && standing == Standing::Member
        });
        let id = up.unwrap().id;
        let mut state = self.nodes[&id].topology.state().clone();
        change(&mut state);
        // An operator is told when a change did not get through, and makes it again.
        self.spared = Some(id);
        self.hear(id, &state);
    }

    pub(super) fn kill(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.up = false;
        node.life += 1;
        node.staged.clear();
        node.fences.clear();
        node.asks.clear();
        node.installing = None;
        node.heard.clear();
    }

    fn start(&mut self, id: NodeId) {
        self.restarts += 1;
        let seed = self.random.next_u64();
        let node = self.nodes.get_mut(&id).unwrap();
        let kept = node.kept.as_deref();
        node.shard = node.topology.clone();
        node.transfers = Transfers::new(settings(id), node.topology.clone(), kept, self.now, seed);
        node.up = true;
        self.local(id, 1000, Local::Second);
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&other].up && other != id {
                self.input(other, Input::Connected(id));
            }
        }
    }

    // ---- a node ------------------------------------------------------------------------------

    fn input(&mut self, id: NodeId, input: Input) {
        let mut effects = Vec::new();
        let node = self.nodes.get_mut(&id).unwrap();
        node.transfers.handle(self.now, input, &mut effects);
        self.perform(id, effects);
    }

    fn perform(&mut self, id: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Keep { bytes, .. } => {
                    self.nodes.get_mut(&id).unwrap().kept = Some(bytes);
                }
                Effect::Send { to, id: ask, request } => {
                    self.send(id, to, Message::Ask(ask, request));
                    let life = self.nodes[&id].life;
                    let lost = Event::At(id, life, Local::Lost(ask));
                    self.at(Duration::from_millis(400), lost);
                }
                Effect::Answer { ask, reply } => {
                    let asker = self.nodes.get_mut(&id).unwrap().asks.remove(&ask);
                    if let Some((to, ask)) = asker {
                        self.send(id, to, Message::Reply(ask, reply));
                    }
                }
                Effect::Fence { order, view } => self.local(id, 2_000, Local::Fence(order, view)),
                Effect::ReadPage { ask, request } => {
                    self.local(id, 5_000, Local::ReadPage(ask, request));
                }
                Effect::Merge { id: merge, from, entries } => {
                    self.local(id, 2_000, Local::Merge(merge, from, entries));
                }
                Effect::HandOver { order, basis, changes } => {
                    self.local(id, 5_000, Local::HandOver(order, basis, changes));
                }
                Effect::Clear { partition, scope } => {
                    self.local(id, 2_000, Local::Clear(partition, scope));
                }
                Effect::Exchange(with) => self.exchange(id, with),
                Effect::Leave | Effect::Advance | Effect::Notice(_) => {}
            }
        }
        if let Some(at) = self.nodes[&id].transfers.next_deadline() {
            let (life, after) = (self.nodes[&id].life, at - self.now);
            self.at(after, Event::At(id, life, Local::Deadline));
        }
    }

    fn exchange(&mut self, id: NodeId, with: NodeId) {
        let state = Box::new(self.nodes[&id].topology.state().clone());
        self.send(id, with, Message::State(state, true));
    }

    /// Hears of a state: takes over what is news, one change after the other.
    fn hear(&mut self, id: NodeId, theirs: &ClusterState) {
        let node = self.nodes.get_mut(&id).unwrap();
        if node.installing.is_some() {
            node.heard.push(theirs.clone());
            return;
        }
        let mut state = node.topology.state().clone();
        if state.merge(theirs).unwrap() {
            self.install(id, state, None);
        }
    }

    /// Prepares; then a while later keeps, gives to the shard and shows.
    fn install(&mut self, id: NodeId, state: ClusterState, order: Option<u64>) {
        let node = self.nodes.get_mut(&id).unwrap();
        let topology = Arc::new(Topology::after(&node.topology, state));
        node.installing = Some((topology.clone(), order));
        let mut effects = Vec::new();
        node.transfers.handle(self.now, Input::Topology(topology), &mut effects);
        // The effects that must be done before anybody goes by it.
        let (first, later): (Vec<_>, Vec<_>) = effects
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Keep { .. } | Effect::Clear { .. }));
        for effect in first {
            match effect {
                Effect::Clear { partition, scope } => self.clear(id, partition, scope),
                keep => self.perform(id, vec![keep]),
            }
        }
        self.local(id, 8_000, Local::Installed(later));
    }

    fn installed(&mut self, id: NodeId, later: Vec<Effect>) {
        // The process may end before, between and after.
        let is_spared = self.quiet || self.spared == Some(id);
        let dies = if is_spared { 100 } else { self.random.below(100) };
        self.spared = self.spared.filter(|spared| *spared != id);
        let node = self.nodes.get_mut(&id).unwrap();
        let Some((topology, order)) = node.installing.take() else { return };
        if dies > 0 {
            (node.topology, node.shard) = (topology.clone(), topology);
        }
        if dies < 2 {
            self.kill(id);
            self.at(Duration::from_millis(300), Event::At(id, u64::MAX, Local::Second));
            return;
        }
        let heard = std::mem::take(&mut node.heard);
        self.perform(id, later);
        if let Some(order) = order {
            self.input(id, Input::HandedOver { order, given: true });
        }
        for state in heard {
            self.hear(id, &state);
        }
        self.send_writes_again(id);
    }

    fn clear(&mut self, id: NodeId, partition: Partition, scope: Scope) {
        let node = self.nodes.get_mut(&id).unwrap();
        let stands = node.shard.participants(partition, N).contains(&id);
        let is_staged =
            node.staged.iter().any(|staged| node.shard.partition(&staged.key) == partition);
        let found = if stands || is_staged {
            None
        } else {
            let found = !node.store.page(partition, None, 1).unwrap().is_empty();
            node.store.clear(partition, None).unwrap();
            Some(found)
        };
        self.input(id, Input::Cleared { partition, scope, found });
    }

    fn held(&self, id: NodeId, key: &Key) -> BTreeSet<u32> {
        let node = &self.nodes[&id];
        let stored = StoredKey::new(node.topology.partition(key), key);
        let record = node.store.read(&stored).unwrap();
        let record = record.map(|record| Record::decode(record).unwrap().object);
        let mut ids = record.map_or_else(BTreeSet::new, |object| ids_of(&object));
        for staged in node.staged.iter().filter(|staged| staged.key == *key) {
            ids.extend(&staged.ids);
        }
        ids
    }

    fn stage(&mut self, id: NodeId, key: Key, ids: BTreeSet<u32>, then: Then) {
        self.sequence += 1;
        let number = self.sequence;
        self.nodes.get_mut(&id).unwrap().staged.push(Staged { number, key, ids, then });
        // A disk that hangs now and then.
        if !self.quiet && self.random.chance(1) {
            let until = self.now + Duration::from_millis(self.random.below(500));
            let node = self.nodes.get_mut(&id).unwrap();
            node.disk_hangs_until = node.disk_hangs_until.max(until);
        }
        self.local(id, 4_000, Local::Commit(number));
    }

    /// Everything staged up to `number` becomes durable, in order.
    fn commit(&mut self, id: NodeId, number: u64) {
        while let Some(first) = self.nodes[&id].staged.first().map(|staged| staged.number)
            && first <= number
        {
            let node = self.nodes.get_mut(&id).unwrap();
            let key = node.staged[0].key.clone();
            let stored = StoredKey::new(node.topology.partition(&key), &key);
            let before = node.store.read(&stored).unwrap();
            let before = before.map(|record| ids_of(&Record::decode(record).unwrap().object));
            let staged = node.staged.remove(0);
            let mut ids = staged.ids;
            ids.extend(before.into_iter().flatten());
            let object = object(&ids);
            let digest = digest_of(&key, &object);
            let record = Record { mint: None, object }.encode();
            let after = Imprint { digest, ..Imprint::NONE };
            let change = Change::fresh(stored, Some(record), after);
            node.store.commit(&[Batch::of(vec![change])]).unwrap();
            match staged.then {
                Then::Ack { write, to } => {
                    self.send(id, to, Message::Stored { write, ok: true });
                }
                Then::Merged { merge } => {
                    let node = &self.nodes[&id];
                    let is_same = |staged: &Staged| matches!(staged.then, Then::Merged { merge: other } if other == merge);
                    if !node.staged.iter().any(is_same) {
                        self.input(id, Input::Merged { id: merge, result: Ok(()) });
                    }
                }
            }
        }
        let node = self.nodes.get_mut(&id).unwrap();
        let committed = node.staged.first().map_or(u64::MAX, |staged| staged.number);
        let (done, left) = node.fences.drain(..).partition(|(_, last)| *last < committed);
        node.fences = left;
        let done: Vec<(u64, u64)> = done;
        for (order, _) in done {
            self.input(id, Input::Fenced { order, done: true });
        }
    }

    fn local_event(&mut self, id: NodeId, local: Local) {
        match local {
            Local::Deadline => {
                let mut effects = Vec::new();
                let node = self.nodes.get_mut(&id).unwrap();
                node.transfers.handle_deadline(self.now, &mut effects);
                self.perform(id, effects);
            }
            Local::Second => {
                self.input(id, Input::Second { p99: Duration::from_millis(1) });
                let life = self.nodes[&id].life;
                self.at(Duration::from_secs(1), Event::At(id, life, Local::Second));
            }
            Local::Commit(number) if self.nodes[&id].disk_hangs_until > self.now => {
                let after = self.nodes[&id].disk_hangs_until - self.now;
                let life = self.nodes[&id].life;
                self.at(after, Event::At(id, life, Local::Commit(number)));
            }
            Local::Commit(number) => self.commit(id, number),
            Local::Fence(order, view) => {
                let node = self.nodes.get_mut(&id).unwrap();
                let slots = node.shard.slots(view.id.partition, view.id.scope);
                let shown = slots.get(usize::from(view.id.slot));
                let is_same = shown.is_some_and(|slot| {
                    (slot.owner, slot.version) == (view.owner, view.version)
                        && slot.successor == Some(view.successor)
                });
                let last = node.staged.last().map(|staged| staged.number);
                match last {
                    Some(last) if is_same => {
                        node.fences.push((order, last));
                    }
                    _ => self.input(id, Input::Fenced { order, done: is_same }),
                }
                if self.planted == Planted::CleanupBeforeReady {
                    self.nodes[&id].store.clear(view.id.partition, None).unwrap();
                }
            }
            Local::ReadPage(ask, mut request) => {
                let node = &self.nodes[&id];
                request.bytes = 40;
                let result = read_page(&node.store, &node.topology, &request);
                let result = result.map(|mut page| {
                    if self.planted == Planted::ReadyTooEarly {
                        page.done = true;
                        page.running = crate::wire::transfer::running_digest(
                            request.running,
                            &page.body.0,
                            &page.last.0,
                            true,
                        );
                    }
                    page
                });
                self.input(id, Input::PageRead { ask, result });
            }
            Local::Merge(merge, from, entries) => self.merge(id, merge, from, entries),
            Local::HandOver(order, basis, changes) => {
                if self.nodes[&id].installing.is_some() {
                    return self.local(id, 2_000, Local::HandOver(order, basis, changes));
                }
                let mut state = self.nodes[&id].topology.state().clone();
                let is_basis = state.version() == basis;
                match is_basis && state.hand_over_all(&changes) == changes.len() {
                    true => self.install(id, state, Some(order)),
                    false => self.input(id, Input::HandedOver { order, given: false }),
                }
            }
            Local::Clear(partition, scope) => self.clear(id, partition, scope),
            Local::Installed(later) => self.installed(id, later),
            Local::Lost(ask) => self.input(id, Input::Answered { id: ask, reply: None }),
        }
    }

    fn merge(&mut self, id: NodeId, merge: u64, from: NodeId, entries: Vec<PageEntry>) {
        let mut changes = Vec::new();
        for entry in entries {
            let ids = match entry.object {
                Some(object) => ids_of(&object),
                None if !self.nodes[&from].up => {
                    let result = Err("it does not answer".to_owned().into());
                    return self.input(id, Input::Merged { id: merge, result });
                }
                None => self.held(from, &entry.key),
            };
            changes.push((entry.key, ids));
        }
        for (key, ids) in changes {
            self.stage(id, key, ids, Then::Merged { merge });
        }
    }

    // ---- the world ---------------------------------------------------------------------------

    fn event(&mut self, event: Event) {
        match event {
            Event::At(id, u64::MAX, _) => {
                if !self.nodes[&id].up && !self.is_removed(id) {
                    self.start(id);
                }
            }
            Event::At(id, life, local) => {
                let node = &self.nodes[&id];
                if node.up && node.life == life {
                    self.local_event(id, local);
                }
            }
            Event::Arrives(to, from, message) => {
                if self.nodes[&to].up {
                    self.arrives(to, from, message);
                }
            }
            Event::Write if self.quiet => {}
            Event::Write => {
                self.begin_write();
                let after = self.soon(6_000);
                self.at(after, Event::Write);
                self.check();
            }
            Event::Gossip => {
                let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
                let a = ids[self.random.below(ids.len() as u64) as usize];
                let b = ids[self.random.below(ids.len() as u64) as usize];
                if a != b && self.nodes[&a].up {
                    self.exchange(a, b);
                }
                let after = self.soon(60_000);
                self.at(after, Event::Gossip);
            }
            Event::Fault if self.quiet => {}
            Event::Fault => {
                let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
                let id = ids[self.random.below(ids.len() as u64) as usize];
                let is_spared = self.spared == Some(id);
                if self.nodes[&id].up && !is_spared && self.random.chance(40) {
                    self.kill(id);
                    let after = Duration::from_millis(10 + self.random.below(1500));
                    self.at(after, Event::At(id, u64::MAX, Local::Second));
                }
                let after = Duration::from_millis(self.random.below(1500));
                self.at(after, Event::Fault);
            }
        }
    }

    fn arrives(&mut self, to: NodeId, from: NodeId, message: Message) {
        match message {
            Message::Ask(id, request) => {
                self.sequence += 1;
                let ask = self.sequence;
                self.nodes.get_mut(&to).unwrap().asks.insert(ask, (from, id));
                self.input(to, Input::Asked { from, ask, request });
            }
            Message::Reply(id, reply) => {
                self.input(to, Input::Answered { id, reply: Some(reply) });
            }
            Message::State(theirs, is_asked) => {
                self.hear(to, &theirs);
                if is_asked {
                    let state = Box::new(self.nodes[&to].topology.state().clone());
                    self.send(to, from, Message::State(state, false));
                }
            }
            Message::Write { write, slots, key } => {
                let shard = &self.nodes[&to].shard;
                if shard.fingerprint(shard.partition(&key), N) == slots {
                    let ids = BTreeSet::from([write]);
                    self.stage(to, key, ids, Then::Ack { write, to: from });
                } else {
                    self.send(to, from, Message::Stored { write, ok: false });
                    self.exchange(to, from);
                }
            }
            Message::Stored { write, ok } => {
                let Some(writing) = self.writes.get_mut(&write) else { return };
                if ok {
                    writing.confirmed.insert(from);
                    self.tally(write);
                }
            }
        }
    }

    fn begin_write(&mut self) {
        let ids: Vec<NodeId> = self.nodes.values().filter(|node| node.up).map(|n| n.id).collect();
        let Some(by) = ids.get(self.random.below(ids.len() as u64) as usize).copied() else {
            return;
        };
        let key = self.keys[self.random.below(KEYS as u64) as usize].clone();
        let write = self.writes.len() as u32;
        let confirmed = BTreeSet::new();
        let writing = Writing { by, key, confirmed, acknowledged: false };
        self.writes.insert(write, writing);
        self.send_write(write);
    }

    fn send_writes_again(&mut self, by: NodeId) {
        let open = self.writes.iter().rev().take(40);
        let open = open.filter(|(_, writing)| writing.by == by && !writing.acknowledged);
        for write in open.map(|(write, _)| *write).collect::<Vec<u32>>() {
            self.send_write(write);
        }
    }

    fn send_write(&mut self, write: u32) {
        let (by, key) = (self.writes[&write].by, self.writes[&write].key.clone());
        let topology = self.nodes[&by].topology.clone();
        let partition = topology.partition(&key);
        let slots = topology.fingerprint(partition, N);
        for to in topology.participants(partition, N) {
            if !self.writes[&write].confirmed.contains(&to) {
                self.send(by, to, Message::Write { write, slots, key: key.clone() });
            }
        }
    }

    /// A slot counts when everybody in it has confirmed.
    fn tally(&mut self, write: u32) {
        let writing = &self.writes[&write];
        if writing.acknowledged || !self.nodes[&writing.by].up {
            return;
        }
        let topology = &self.nodes[&writing.by].topology;
        let slots = topology.slots(topology.partition(&writing.key), N);
        let covered = slots.iter().filter(|slot| {
            let mut members = slot.owner.iter().chain(&slot.successor).peekable();
            members.peek().is_some() && members.all(|node| writing.confirmed.contains(node))
        });
        if covered.count() >= QUORUM {
            let writing = self.writes.get_mut(&write).unwrap();
            writing.acknowledged = true;
            self.acknowledged.entry(writing.key.clone()).or_default().insert(write);
        }
    }

    /// Whoever reads any two owners that go by the reader's slots finds every acknowledged write.
    pub(super) fn check(&mut self) {
        // Readers that go by the same slots find the same: one of them a time is enough.
        let readers: Vec<NodeId> =
            self.nodes.values().filter(|node| node.up).map(|node| node.id).collect();
        let pick = self.random.below(readers.len().max(1) as u64) as usize;
        if let Some(reader) = readers.get(pick) {
            let topology = self.nodes[reader].topology.clone();
            for (key, acknowledged) in &self.acknowledged {
                let partition = topology.partition(key);
                let fingerprint = topology.fingerprint(partition, N);
                let answers = |id: &NodeId| {
                    let node = &self.nodes[id];
                    node.up && node.shard.fingerprint(partition, N) == fingerprint
                };
                let owners: Vec<NodeId> =
                    topology.primaries(partition, N).iter().copied().filter(answers).collect();
                let held: Vec<BTreeSet<u32>> =
                    owners.iter().map(|owner| self.held(*owner, key)).collect();
                for (at, one) in held.iter().enumerate() {
                    for (behind, other) in held.iter().enumerate().skip(at + 1) {
                        self.checked += 1;
                        let missing: Vec<&u32> = acknowledged
                            .iter()
                            .filter(|write| !one.contains(write) && !other.contains(write))
                            .collect();
                        if !missing.is_empty() {
                            self.found = Some(format!(
                                "{}: {reader:?} reads {key} ({partition:?}) from {:?} and {:?}: {missing:?} missing; slots {:?}",
                                self.now,
                                owners[at],
                                owners[behind],
                                topology.slots(partition, N),
                            ));
                            return;
                        }
                    }
                }
            }
        }
    }

    pub(super) fn tally_of(&self, id: u128) -> Tally {
        self.nodes[&NodeId(id)].transfers.desk.tally
    }

    /// Keys on the disk of a node.
    pub(super) fn keys_of(&self, id: u128) -> u64 {
        self.nodes[&NodeId(id)].store.estimated_keys()
    }

    /// Slots that a node owns, as all see it.
    pub(super) fn slots_of(&self, id: u128) -> usize {
        let topology = &self.nodes[&NodeId(id)].topology;
        Desk::all_slots(topology).filter(|(_, slot)| slot.owner == Some(NodeId(id))).count()
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.values().map(BTreeSet::len).sum()
    }
}
