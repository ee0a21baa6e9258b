//! A few nodes in memory, with the production shards and reaping, whose links a test can hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Effect, Input, Reap, Settings, scan};
use crate::causality::Object;
use crate::ids::{Incarnation, NodeId, WriteId};
use crate::key::Key;
use crate::limits;
use crate::membership::{ClusterState, Contact, MemberEntry, Topology};
use crate::replica::{self, Counters, Notice, Origin, Shard};
use crate::store::memory::MemoryStore;
use crate::store::record::Record;
use crate::store::{Store, StoredKey};
use crate::time::{Instant, Now, WallMs};
use crate::wire::messages::{
    Basis, Condition, ControlReply, Expiry, Get, Got, Level, Put, Request, Response,
};
use crate::wire::reap::{ReapReply, ReapRequest};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);
const WALL: u64 = 1_750_000_000_000;

/// Who waits for an answer of a shard.
enum Asker {
    Peer(usize, u64),
    Order(u64),
    Test,
}

enum Message {
    Request(u64, bool, Request),
    Response(u64, Response),
    Ask(u64, ReapRequest),
    Reply(u64, ReapReply),
}

struct Node {
    shard: Shard,
    reap: Reap,
    store: MemoryStore,
    up: bool,
    askers: BTreeMap<u64, Asker>,
    asks: BTreeMap<u64, (usize, u64)>,
    last: u64,
}

/// The nodes and what is between them.
pub(super) struct Cluster {
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
    held: BTreeSet<(usize, usize)>,
    /// Questions that will not be answered, and from when on that is certain.
    timeouts: Vec<(Instant, usize, u64)>,
    answers: Vec<Response>,
    notices: Vec<(usize, Notice)>,
    topology: Arc<Topology>,
    now: Instant,
    writes: u128,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u128 + 1)
}

impl Cluster {
    /// Nodes that keep up to `hint_bytes` for each other.
    pub(super) fn new(count: usize, hint_bytes: u64) -> Self {
        let mut state = ClusterState::new("test", 32);
        for node in 0..count {
            let (name, address) = (format!("n{node}"), format!("n{node}:7400"));
            let contact = Contact { name, address, text_address: String::new() };
            state.enter(id(node), MemberEntry::candidate(id(node), contact, "", 100));
        }
        assert!(state.form(count));
        let topology = Arc::new(Topology::new(state));
        let now = Instant(1_000_000);
        let nodes = (0..count).map(|node| Node::new(node, &topology, hint_bytes, now)).collect();
        let (links, held, timeouts) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let (answers, notices, writes) = (Vec::new(), Vec::new(), 0);
        let mut this =
            Self { nodes, links, held, timeouts, answers, notices, topology, now, writes };
        for (node, peer) in this.pairs() {
            this.tell(node, replica::Input::Connected(id(peer)));
        }
        this
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        let all = (0..count).flat_map(|node| (0..count).map(move |peer| (node, peer)));
        all.filter(|(node, peer)| node != peer).collect()
    }

    /// A key, its owners in order, and then everybody else.
    pub(super) fn key(&self) -> (Key, Vec<usize>) {
        let key = Key::new(b"default", b"k").unwrap();
        let partition = self.topology.partition(&key);
        let owners = self.topology.primaries(partition, 3);
        let mut order: Vec<usize> = owners.iter().map(|owner| owner.0 as usize - 1).collect();
        order.extend((0..self.nodes.len()).filter(|node| !owners.contains(&id(*node))));
        (key, order)
    }

    // ---- what a test does ------------------------------------------------------------------

    pub(super) fn down(&mut self, node: usize) {
        self.nodes[node].up = false;
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.links.remove(&(node, peer));
            self.links.remove(&(peer, node));
            self.tell(peer, replica::Input::Disconnected(id(node)));
        }
    }

    pub(super) fn up(&mut self, node: usize) {
        self.nodes[node].up = true;
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.tell(peer, replica::Input::Connected(id(node)));
            self.tell(node, replica::Input::Connected(id(peer)));
        }
    }

    /// From now on nothing arrives from the first at the second; nothing is lost either.
    pub(super) fn hold(&mut self, from: usize, to: usize) {
        self.held.insert((from, to));
    }

    pub(super) fn release(&mut self, from: usize, to: usize) {
        self.held.remove(&(from, to));
    }

    /// Puts a request on its way from one node to another.
    pub(super) fn inject(&mut self, from: usize, to: usize, request: Request) {
        self.links.entry((from, to)).or_default().push_back(Message::Request(0, false, request));
    }

    pub(super) fn write(&mut self, node: usize, value: Option<&'static str>, w: u8) -> WriteId {
        self.writes += 1;
        let write_id = WriteId(self.writes);
        let done = self.put(node, write_id, 0, value, w);
        assert!(matches!(done, Response::Done(_)), "{done:?}");
        write_id
    }

    pub(super) fn put(
        &mut self,
        node: usize,
        write_id: WriteId,
        attempt: u8,
        value: Option<&'static str>,
        w: u8,
    ) -> Response {
        let put = Put { attempt, w: Level::Count(w), ..self.put_of(write_id, value) };
        self.ask(node, Request::Put(put))
    }

    /// A value that expires.
    pub(super) fn write_expiring(&mut self, node: usize, value: &'static str, ttl_ms: u64) {
        self.writes += 1;
        let put = self.put_of(WriteId(self.writes), Some(value));
        let done = self.ask(node, Request::Put(Put { expiry: Expiry::After(ttl_ms), ..put }));
        assert!(matches!(done, Response::Done(_)), "{done:?}");
    }

    fn put_of(&self, write_id: WriteId, value: Option<&'static str>) -> Put {
        Put {
            key: self.key().0,
            write_id,
            attempt: 0,
            basis: Basis::Observed,
            condition: Condition::None,
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            expiry: Expiry::Never,
            w: Level::Count(3),
            pw: Level::Default,
            strict: true,
            budget_ms: 1000,
        }
    }

    /// What a read of all owners shows.
    pub(super) fn read(&mut self, node: usize, r: u8) -> Vec<Bytes> {
        let (r, pr) = (Level::Count(r), Level::Default);
        let get = Get { key: self.key().0, r, pr, budget_ms: 1000, strict: true, trace: false };
        match self.ask(node, Request::Get(get)) {
            Response::Got(Got { values, .. }) => values.into_iter().map(|v| v.data).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, node: usize, request: Request) -> Response {
        let received = self.now;
        let from = self.origin(node, Asker::Test);
        let (sender, forwarded) = (id(node), false);
        self.tell(
            node,
            replica::Input::Request { from, sender, received, sent: None, forwarded, request },
        );
        for _ in 0..200 {
            if let Some(answer) = self.answers.pop() {
                return answer;
            }
            self.step();
        }
        panic!("no answer");
    }

    /// The object that a node's disk has.
    pub(super) fn object(&self, node: usize) -> Option<Object> {
        let (key, _) = self.key();
        let key = StoredKey::new(self.topology.partition(&key), &key);
        let record = self.nodes[node].store.read(&key).unwrap()?;
        Some(Object::decode(Record::decode(record).unwrap().object).unwrap())
    }

    pub(super) fn is_forgotten(&self) -> bool {
        (0..self.nodes.len()).all(|node| self.object(node).is_none())
    }

    pub(super) fn keeps_hints(&self, node: usize) -> bool {
        !self.nodes[node].store.hint_owners().unwrap().is_empty()
    }

    pub(super) fn counters(&self, node: usize) -> Counters {
        self.nodes[node].shard.counters()
    }

    pub(super) fn status(&self, node: usize) -> crate::wire::reap::ReapStatus {
        self.nodes[node].reap.status()
    }

    /// Who has brought back what was dead, as `node` tells it.
    pub(super) fn risen_from(&self, node: usize) -> Vec<usize> {
        let from = self.notices.iter().filter_map(|(by, notice)| match notice {
            Notice::Risen { from, .. } if *by == node => Some(from),
            _ => None,
        });
        from.flatten().map(|from| from.0 as usize - 1).collect()
    }

    pub(super) fn topology(&self) -> Arc<Topology> {
        self.topology.clone()
    }

    pub(super) fn reap(&mut self, node: usize) -> &mut Reap {
        &mut self.nodes[node].reap
    }

    pub(super) fn wait(&mut self, span: Duration) {
        let until = self.now + span;
        while self.now < until {
            self.step();
        }
    }

    // ---- what makes it go ------------------------------------------------------------------

    fn step(&mut self) {
        self.now = self.now + STEP;
        while let Some((from, to)) = self.next_link() {
            let message = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front);
            self.deliver(from, to, message.expect("a link that has something"));
        }
        let due = |(at, ..): &(Instant, usize, u64)| *at <= self.now;
        let (late, rest) = std::mem::take(&mut self.timeouts).into_iter().partition(due);
        self.timeouts = rest;
        let late: Vec<(Instant, usize, u64)> = late;
        for (_, node, id) in late {
            self.tell_reap(node, Input::Answered { id, reply: None });
        }
        for node in 0..self.nodes.len() {
            if !self.nodes[node].up {
                continue;
            }
            let now = self.time();
            let mut effects = Vec::new();
            self.nodes[node].shard.handle_deadline(now, &mut effects);
            self.nodes[node].shard.flush(&mut effects);
            self.perform(node, effects);
            let mut effects = Vec::new();
            if self.nodes[node].reap.next_deadline().is_some_and(|at| at <= self.now) {
                self.nodes[node].reap.handle_deadline(now.instant, &mut effects);
            }
            self.perform_reap(node, effects);
        }
    }

    fn next_link(&self) -> Option<(usize, usize)> {
        let open = self.links.iter().filter(|(link, queue)| {
            !queue.is_empty() && !self.held.contains(link) && self.nodes[link.1].up
        });
        open.map(|(link, _)| *link).next()
    }

    fn time(&self) -> Now {
        Now { instant: self.now, wall: WallMs(WALL + self.now.0 / 1000) }
    }

    fn origin(&mut self, node: usize, asker: Asker) -> Origin {
        let node = &mut self.nodes[node];
        node.last += 1;
        node.askers.insert(node.last, asker);
        Origin(node.last)
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        match message {
            Message::Request(number, forwarded, request) => {
                let (sender, received) = (id(from), self.now);
                let from = self.origin(to, Asker::Peer(from, number));
                let input = replica::Input::Request {
                    from,
                    sender,
                    received,
                    sent: None,
                    forwarded,
                    request,
                };
                self.tell(to, input);
            }
            Message::Response(number, response) => {
                self.tell(to, replica::Input::Response { from: id(from), id: number, response });
            }
            Message::Ask(number, request) => {
                let node = &mut self.nodes[to];
                node.last += 1;
                let ask = node.last;
                node.asks.insert(ask, (from, number));
                self.tell_reap(to, Input::Asked { ask, request });
            }
            Message::Reply(id, reply) => {
                self.tell_reap(to, Input::Answered { id, reply: Some(reply) });
            }
        }
    }

    fn tell(&mut self, node: usize, input: replica::Input) {
        let now = self.time();
        let mut effects = Vec::new();
        self.nodes[node].shard.handle(now, input, &mut effects);
        self.nodes[node].shard.flush(&mut effects);
        self.perform(node, effects);
    }

    fn tell_reap(&mut self, node: usize, input: Input) {
        let mut effects = Vec::new();
        self.nodes[node].reap.handle(self.now, input, &mut effects);
        self.perform_reap(node, effects);
    }

    fn perform(&mut self, node: usize, effects: Vec<replica::Effect>) {
        for effect in effects {
            match effect {
                replica::Effect::Respond { to, response } => {
                    match self.nodes[node].askers.remove(&to.0).expect("asked once") {
                        Asker::Test => self.answers.push(response),
                        Asker::Peer(peer, number) => {
                            self.send((node, peer), Message::Response(number, response))
                        }
                        Asker::Order(id) => {
                            let reply = match response {
                                Response::Control(ControlReply::Reap(reply)) => Some(reply),
                                _ => None,
                            };
                            self.tell_reap(node, Input::Ordered { id, reply });
                        }
                    }
                }
                replica::Effect::Send { to, id, forwarded, request } => {
                    self.send((node, to.0 as usize - 1), Message::Request(id, forwarded, request));
                }
                replica::Effect::Load { key } => {
                    let result = self.nodes[node].store.read(&key);
                    self.tell(node, replica::Input::Loaded { key, result });
                }
                replica::Effect::Commit { batch, changes, .. } => {
                    self.nodes[node].store.commit(&[changes]).unwrap();
                    self.tell(node, replica::Input::Committed { batch, result: Ok(()) });
                }
                replica::Effect::ListHints { owner, after, bytes } => {
                    let result = self.nodes[node].store.hints(owner, after.as_ref(), bytes);
                    self.tell(node, replica::Input::Hints { owner, result });
                }
                replica::Effect::Exchange(peer) => {
                    self.tell(node, replica::Input::Exchanged(peer));
                }
                replica::Effect::LeaseActors => {}
                replica::Effect::Notice(notice) => self.notices.push((node, notice)),
            }
        }
    }

    fn perform_reap(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::List { id: search, scan: wanted } => {
                    let Node { store, .. } = &self.nodes[node];
                    let wall = self.time().wall;
                    let found = scan(store, &self.topology, id(node), &wanted, wall).ok();
                    self.tell_reap(node, Input::Listed { id: search, found });
                }
                Effect::Send { to, id, request } => {
                    self.timeouts.push((self.now + ANSWER_WITHIN, node, id));
                    self.send((node, to.0 as usize - 1), Message::Ask(id, request));
                }
                Effect::Answer { ask, reply } => {
                    let (peer, number) = self.nodes[node].asks.remove(&ask).expect("asked once");
                    self.send((node, peer), Message::Reply(number, reply));
                }
                Effect::Order { id, shard: _, order } => {
                    let from = self.origin(node, Asker::Order(id));
                    self.tell(node, replica::Input::Reap { from, order });
                }
            }
        }
    }

    fn send(&mut self, (from, to): (usize, usize), message: Message) {
        if self.nodes[from].up && self.nodes[to].up {
            self.links.entry((from, to)).or_default().push_back(message);
        }
    }
}

impl Node {
    fn new(node: usize, topology: &Arc<Topology>, hint_bytes: u64, now: Instant) -> Self {
        let settings = replica::Settings {
            shard: 0,
            shards: 1,
            node: id(node),
            incarnation: Incarnation(100 + node as u64),
            amnesiac: false,
            fsync: true,
            attempt: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
            key_bytes: 1000,
            value_bytes: 1000,
            siblings_warn: 10,
            siblings_refuse: 10,
            max_in_flight: 10,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(1),
            hint_bytes_by_owner: hint_bytes,
            hint_bytes,
            hint_rate: 64 << 20,
            graves: 100,
        };
        let actors = 0..limits::ACTORS_LEASED;
        let shard = Shard::new(settings, topology.clone(), actors, node as u64);
        let interval = Duration::from_millis(50);
        let settings = Settings { node: id(node), shards: 1, durable: true, interval };
        let reap = Reap::new(settings, topology.clone(), now, node as u64);
        let (askers, asks) = (BTreeMap::new(), BTreeMap::new());
        Self { shard, reap, store: MemoryStore::new(), up: true, askers, asks, last: 0 }
    }
}
