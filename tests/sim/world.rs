//! The world: one queue of events, ordered by time and then by the order in which they came up.
//!
//! The nodes' minds are the production state machines; everything around them is simulated here
//! and in the files next to this one. Whatever is random is drawn from the seed, in the order of
//! the events, so a seed is a run.
//!
//! ```text
//!   clients ── frames ──▶ network ── frames ──▶ inbox ── a turn ──▶ Shard ── effects ──┐
//!      ▲                     ▲                    ▲                                    │
//!      └─────────────────────┴── answers          └── Loaded, Committed ── disk ◀──────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringdove::causality::{Dot, VersionVector};
use ringdove::ids::{Incarnation, NodeId, Partition, Scope};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::membership::{ClusterState, Standing, Topology};
use ringdove::random::Random;
use ringdove::replica::room::Room;
use ringdove::replica::transfer;
use ringdove::replica::{Effect, Input, Notice, Origin, Settings, Shard};
use ringdove::store::StoredKey;
use ringdove::time::{Instant, Now};
use ringdove::wire::clock;
use ringdove::wire::codec;
use ringdove::wire::frame::{self, Marks};
use ringdove::wire::messages::{
    Basis, Expiry, Failure, FailureCode, Held, HeldObject, Request, Response,
};
use ringdove::wire::transfer::{TransferReply, TransferRequest};

use crate::clients::Clients;
use crate::history::{Fact, History, Time, WALL_EPOCH, wall};
use crate::members;
use crate::network::Network;
use crate::node::{Node, Place};
use crate::plan::{Bug, MS, Plan};
use crate::reap;
use crate::sync::SyncEvent;
use crate::transfers::Local;

/// Where the kind stands in a frame.
const KIND_AT: usize = 9;

/// Who has sent a frame, and who gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    /// A node's process.
    Peer(usize, u32),
    /// This node's own transfers: a fence, a merge.
    Fence(u64),
    Merge(u64),
    /// This node's own anti-entropy.
    SyncMerge(u64),
    /// An order of this node's reaping.
    Reap(u64),
}

/// Something that will happen. Those of a node name its process, and die with it.
#[derive(Debug)]
pub enum Event {
    Deliver {
        to: usize,
        process: u32,
        from: Sender,
        frame: Bytes,
    },
    ToClient {
        frame: Bytes,
    },
    Turn {
        node: usize,
        process: u32,
        shard: usize,
    },
    Wake {
        node: usize,
        process: u32,
        shard: usize,
        at: Time,
    },
    Loaded {
        node: usize,
        process: u32,
        shard: usize,
        key: StoredKey,
    },
    Hints {
        node: usize,
        process: u32,
        shard: usize,
        owner: NodeId,
        after: Option<StoredKey>,
        bytes: usize,
    },
    Exchanged {
        node: usize,
        process: u32,
        peer: NodeId,
    },
    State {
        to: usize,
        process: u32,
        from: (usize, u32),
        state: Box<ClusterState>,
        is_answer: bool,
    },
    Gossip,
    Transfer {
        node: usize,
        process: u32,
        what: Local,
    },
    TransferAsk {
        to: usize,
        process: u32,
        from: (usize, u32),
        id: u64,
        request: Box<TransferRequest>,
    },
    TransferReply {
        to: usize,
        process: u32,
        id: u64,
        reply: Option<Box<TransferReply>>,
    },
    Reap {
        node: usize,
        process: u32,
        what: reap::Local,
    },
    Sync {
        node: usize,
        process: u32,
        what: Box<SyncEvent>,
    },
    Leased {
        node: usize,
        process: u32,
        shard: usize,
    },
    Synced {
        node: usize,
        process: u32,
    },
    Peer {
        node: usize,
        process: u32,
        peer: usize,
        connected: bool,
    },
    StopIfQuiet {
        node: usize,
        process: u32,
        until: Time,
    },
    Reconnect,
    /// Failure detectors may have something new to say.
    Detect,
    Session(usize),
    ClientTimeout {
        session: usize,
        request: u64,
    },
    Fault(usize),
    /// Planted: a replica forgets a deleted key.
    Forget {
        node: usize,
        key: StoredKey,
    },
    /// It is time to see how much of the disk is free.
    LookAtDisk {
        node: usize,
        process: u32,
    },
}

impl Event {
    /// The node and the process it belongs to.
    fn belongs_to(&self) -> Option<(usize, u32)> {
        match self {
            Self::Deliver { to: node, process, .. }
            | Self::State { to: node, process, .. }
            | Self::Transfer { node, process, .. }
            | Self::Reap { node, process, .. }
            | Self::Sync { node, process, .. }
            | Self::TransferAsk { to: node, process, .. }
            | Self::TransferReply { to: node, process, .. }
            | Self::Turn { node, process, .. }
            | Self::Wake { node, process, .. }
            | Self::Loaded { node, process, .. }
            | Self::Hints { node, process, .. }
            | Self::Exchanged { node, process, .. }
            | Self::Leased { node, process, .. }
            | Self::Synced { node, process }
            | Self::LookAtDisk { node, process }
            | Self::Peer { node, process, .. }
            | Self::StopIfQuiet { node, process, .. } => Some((*node, *process)),
            _ => None,
        }
    }
}

pub struct World {
    pub plan: Plan,
    pub now: Time,
    queue: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    pub random: Random,
    pub network: Network,
    pub nodes: Vec<Node>,
    numbers: BTreeMap<NodeId, usize>,
    /// How the cluster began; partitions of keys never change.
    pub topology: Arc<Topology>,
    pub clients: Clients,
    pub history: History,
    /// The dots that were made.
    pub minted: BTreeSet<(StoredKey, Dot)>,
    /// Slots that have changed hands: scope, partition, slot, version.
    pub handed: BTreeSet<(Scope, Partition, usize, u32)>,
    /// When the last frame from one node to another arrives, at the latest.
    pub arrivals: BTreeMap<(usize, usize), Time>,
    /// What was known of keys when all had agreed to forget them.
    pub reaped: BTreeMap<StoredKey, VersionVector>,
    /// Planted: the first state each node had of a key.
    pub first_states: BTreeMap<(usize, StoredKey), Bytes>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let all = plan.nodes + plan.spares;
        let ids: Vec<NodeId> = (0..all).map(|_| NodeId(random.next_u128())).collect();
        let formed = members::formed(&plan, &ids[..plan.nodes]);
        let topology = Arc::new(Topology::new(formed.clone()));
        let node = |(number, id): (usize, &NodeId)| {
            let mut state = formed.clone();
            if number >= plan.nodes {
                state = ClusterState::new("simulated", plan.partitions);
                state.enter(*id, members::candidate(*id, number));
            }
            Node::new(*id, all, Incarnation(random.next_u64()), state)
        };
        let nodes: Vec<Node> = ids.iter().enumerate().map(node).collect();
        let clients = Clients::new(&plan, &mut random);
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            random,
            network: Network::new(all),
            nodes,
            numbers: ids.into_iter().enumerate().map(|(number, id)| (id, number)).collect(),
            topology,
            clients,
            history: History::default(),
            minted: BTreeSet::new(),
            handed: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            reaped: BTreeMap::new(),
            first_states: BTreeMap::new(),
            plan,
        };
        if world.plan.bug == Some(Bug::StaleLeaf) {
            world.nodes.iter_mut().for_each(|node| node.disk.stale_leaves = true);
        }
        world.describe();
        world
    }

    fn describe(&mut self) {
        let plan = &self.plan;
        let line = format!(
            "seed {}: {} nodes of {} shards, N={}, {} partitions, {} sessions, {}+{} keys, W>={}, \
             sloppy {}, expires {}, detects {}, faults {:?}, victim n{}, planted {:?}",
            plan.seed,
            plan.nodes,
            plan.shards,
            plan.n,
            plan.partitions,
            plan.sessions,
            plan.keys,
            plan.keys_last_write_wins,
            plan.w_least,
            plan.sloppy,
            plan.expires,
            plan.detects,
            plan.faults,
            plan.victim,
            plan.bug
        );
        self.history.note(0, line);
        self.history.siblings_refuse = plan.siblings_refuse;
        self.history.owners_lost = u8::from(plan.w_least > 1);
        for key in self.clients.keys().to_vec() {
            let name = key.to_string();
            let primaries = self.primaries(&key);
            self.history.note(0, format!("{name} on {primaries:?}"));
            if key.bucket() == "lww" {
                self.history.last_write_wins.push(name.clone());
            }
        }
    }

    pub fn primaries(&self, key: &Key) -> Vec<usize> {
        let partition = self.topology.partition(key);
        let newest = self.newest();
        let scope = newest.read_scope(key.bucket(), partition);
        newest.primaries(partition, scope).iter().map(|id| self.numbers[id]).collect()
    }

    /// How many replicas a key has now.
    pub fn n_of(&self, key: &Key) -> u8 {
        self.newest().read_scope(key.bucket(), self.topology.partition(key)).n
    }

    /// The topology that knows most.
    pub fn newest(&self) -> &Topology {
        let topologies = self.nodes.iter().filter(|node| !node.gone).map(|node| &node.topology);
        topologies.max_by_key(|topology| topology.version()).expect("there are nodes")
    }

    pub fn stored_key(&self, key: &Key) -> StoredKey {
        StoredKey::new(self.topology.partition(key), key)
    }

    /// The number of the node with this id.
    pub fn number(&self, id: NodeId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    pub fn note(&mut self, line: impl std::fmt::Display) {
        self.history.note(self.now, line);
    }

    pub fn fact(&mut self, fact: Fact) {
        self.history.facts.push(fact);
    }

    // ---- the scheduler -------------------------------------------------------------------

    pub fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    pub fn at(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.queue.insert((time, self.sequence), event);
    }

    /// Lets the time pass up to `until`, or until `done`.
    pub fn run(&mut self, until: Time, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let Some(entry) = self.queue.first_entry() else { break };
            let (time, _) = *entry.key();
            if time > until {
                break;
            }
            let event = entry.remove();
            self.now = time;
            self.happen(event);
        }
        if !done(self) {
            self.now = until;
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some((number, process)) = event.belongs_to() {
            let node = &mut self.nodes[number];
            if !node.up || node.process != process {
                return;
            }
            if node.paused {
                node.held.push_back(event);
                return;
            }
        }
        match event {
            Event::Deliver { to, from, frame, .. } => self.deliver(to, from, frame),
            Event::ToClient { frame } => self.answer_client(frame),
            Event::Turn { node, shard, .. } => self.turn(node, shard),
            Event::Wake { node, shard, at, .. } => self.wake(node, shard, at),
            Event::Loaded { node, shard, key, .. } => {
                let result = self.nodes[node].disk.read(&key);
                self.input(node, shard, Input::Loaded { key, result });
            }
            Event::Hints { node, shard, owner, after, bytes, .. } => {
                let disk = &mut self.nodes[node].disk;
                let result = disk.hints(owner, after.as_ref(), bytes);
                if self.plan.bug == Some(Bug::ForgottenHint) {
                    disk.forget_hints(result.as_deref().unwrap_or_default());
                }
                self.input(node, shard, Input::Hints { owner, result });
            }
            Event::Exchanged { node, peer, .. } => {
                for shard in 0..self.plan.shards {
                    self.input(node, shard, Input::Exchanged(peer));
                }
            }
            Event::State { to, from, state, is_answer, .. } => {
                self.take_state(to, from, &state, is_answer);
            }
            Event::Gossip => self.gossip(),
            Event::Transfer { node, what, .. } => self.transfer_local(node, what),
            Event::TransferAsk { to, from, id, request, .. } => {
                self.transfer_asked(to, from, id, *request);
            }
            Event::TransferReply { to, id, reply, .. } => {
                let reply = reply.map(|reply| *reply);
                self.transfer_input(to, transfer::Input::Answered { id, reply });
            }
            Event::Sync { node, what, .. } => self.sync_event(node, *what),
            Event::Leased { node, shard, .. } => {
                let actors = self.nodes[node].lease();
                self.input(node, shard, Input::Actors(actors));
            }
            Event::Synced { node, .. } => self.synced(node),
            Event::Peer { node, peer, connected, .. } => self.peer(node, peer, connected),
            Event::StopIfQuiet { node, until, .. } => self.stop_if_quiet(node, until),
            Event::Reconnect => self.reconnect(),
            Event::Detect => self.detect(),
            Event::Session(session) => self.session(session),
            Event::ClientTimeout { session, request } => self.client_timeout(session, request),
            Event::Fault(index) => {
                let action = self.plan.actions[index].1.clone();
                self.act(action);
            }
            Event::Reap { node, what, .. } => self.reap_local(node, what),
            Event::Forget { node, key } => self.forget_deleted(node, &key),
            Event::LookAtDisk { node, .. } => self.look_at_disk(node),
        }
    }

    // ---- nodes ---------------------------------------------------------------------------

    pub fn now_at(&self, node: usize) -> Now {
        let node = &self.nodes[node];
        Now { instant: Instant(self.now - node.started + 1), wall: wall(self.now, node.skew_ms) }
    }

    /// A node's wall clock jumps.
    pub fn set_clock(&mut self, node: usize, skew_ms: i64) {
        self.nodes[node].skew_ms = skew_ms;
        let skews = || self.nodes.iter().map(|node| node.skew_ms);
        let (least, most) = (skews().min().unwrap_or(0), skews().max().unwrap_or(0));
        self.history.skews.insert(self.now, (least, most));
    }

    /// A process of the node begins.
    pub fn boot(&mut self, number: usize) {
        let seed = self.random.next_u64();
        let node = &mut self.nodes[number];
        if node.up {
            return;
        }
        node.process += 1;
        node.started = self.now;
        (node.up, node.paused, node.draining, node.clean) = (true, false, false, false);
        (node.last_origin, node.waiting) = (0, BTreeMap::new());
        node.room = Room::default();
        node.connected.fill(false);
        node.down.fill(false);
        node.shards.clear();
        for shard in 0..self.plan.shards {
            let settings = settings(&self.plan, node, shard as u8);
            let actors = node.lease();
            let seed = seed.wrapping_add(shard as u64);
            let shard = Shard::new(settings, Arc::clone(&node.topology), actors, seed);
            node.shards.push(Place::new(shard));
        }
        let found = node.disk.all_hints();
        for (key, bytes) in found {
            let shard = usize::from(key.partition().0) % self.plan.shards;
            let input = Input::HintFound { key, bytes, kept: WALL_EPOCH };
            self.nodes[number].shards[shard].inbox.push(input);
        }
        for grave in self.nodes[number].disk.graves() {
            let shard = usize::from(grave.key.partition().0) % self.plan.shards;
            let input = Input::GraveFound { key: grave.key, bytes: grave.record };
            self.nodes[number].shards[shard].inbox.push(input);
        }
        let node = &self.nodes[number];
        let line = format!(
            "n{number} starts: incarnation {:?}, amnesiac {}",
            node.incarnation, node.amnesiac
        );
        self.note(line);
        self.fact(Fact::NewActor { node: number });
        self.open_desk(number);
        self.open_sync(number);
        self.open_reap(number);
        self.look_at_disk(number);
    }

    pub fn input(&mut self, node: usize, shard: usize, input: Input) {
        let delay = self.random.below(150);
        let process = self.nodes[node].process;
        let place = &mut self.nodes[node].shards[shard];
        place.inbox.push(input);
        if !std::mem::replace(&mut place.turn_is_due, true) {
            self.after(delay, Event::Turn { node, process, shard });
        }
    }

    fn turn(&mut self, node: usize, shard: usize) {
        let now = self.now_at(node);
        let place = &mut self.nodes[node].shards[shard];
        place.turn_is_due = false;
        let mut effects = Vec::new();
        for input in std::mem::take(&mut place.inbox) {
            place.shard.handle(now, input, &mut effects);
        }
        place.shard.flush(&mut effects);
        self.carry_out(node, shard, effects);
    }

    fn wake(&mut self, node: usize, shard: usize, at: Time) {
        let now = self.now_at(node);
        let place = &mut self.nodes[node].shards[shard];
        if place.wake_at != Some(at) {
            return;
        }
        place.wake_at = None;
        let mut effects = Vec::new();
        place.shard.handle_deadline(now, &mut effects);
        place.shard.flush(&mut effects);
        self.carry_out(node, shard, effects);
    }

    pub fn carry_out(&mut self, node: usize, shard: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Respond { to, response } => self.respond(node, to, &response),
                Effect::Send { to, id, forwarded, request } => {
                    let to = self.numbers[&to];
                    let marks = Marks { forwarded, ..self.dated(to) };
                    let mut out = BytesMut::new();
                    let encoded = codec::encode_request(&mut out, id, marks, &request);
                    encoded.expect("what the simulator's clients write fits a frame");
                    self.transmit(node, to, self.nodes[to].process, out.freeze());
                }
                Effect::Load { key } => {
                    let slow = self.nodes[node].disk.slow;
                    let delay = 50 + self.random.below(2 * MS) + slow;
                    let process = self.nodes[node].process;
                    self.after(delay, Event::Loaded { node, process, shard, key });
                }
                Effect::Commit { batch, refusals, changes } => {
                    self.commit(node, shard, (batch, refusals), changes);
                }
                Effect::ListHints { owner, after, bytes } => {
                    let slow = self.nodes[node].disk.slow;
                    let delay = 50 + self.random.below(2 * MS) + slow;
                    let process = self.nodes[node].process;
                    let event = Event::Hints { node, process, shard, owner, after, bytes };
                    self.after(delay, event);
                }
                Effect::Exchange(peer) => self.exchange(node, peer),
                Effect::LeaseActors => {
                    let delay = self.random.below(20 * MS);
                    let process = self.nodes[node].process;
                    self.after(delay, Event::Leased { node, process, shard });
                }
                Effect::Notice(notice) => {
                    if matches!(notice, Notice::Amnesia { .. }) {
                        self.fact(Fact::NewActor { node });
                    }
                    self.note(format!("n{node} notice {notice:?}"));
                }
            }
        }
        let Node { started, process, shards, .. } = &mut self.nodes[node];
        let place = &mut shards[shard];
        let deadline = place.shard.next_deadline().map(|at| *started + at.0.saturating_sub(1));
        if let Some(at) = deadline.map(|at| at.max(self.now))
            && place.wake_at.is_none_or(|earlier| at < earlier)
        {
            place.wake_at = Some(at);
            let process = *process;
            self.at(at, Event::Wake { node, process, shard, at });
        }
    }

    // ---- messages ------------------------------------------------------------------------

    fn transmit(&mut self, from: usize, to: usize, process: u32, frame: Bytes) {
        let sender = Sender::Peer(from, self.nodes[from].process);
        let mut delays = self.network.between(&mut self.random, from, to);
        // What repeats a put is a retry, which says so. A connection never repeats one by itself,
        // and one that did would make "not applied" a word that nobody can give.
        if frame[KIND_AT] == frame::Kind::Put as u8 {
            delays.truncate(1);
        }
        for delay in delays {
            self.is_on_its_way(from, to, delay);
            self.after(delay, Event::Deliver { to, process, from: sender, frame: frame.clone() });
        }
    }

    /// Something that a barrier must not overtake leaves one node for another.
    pub fn is_on_its_way(&mut self, from: usize, to: usize, delay: Time) {
        let arrival = self.arrivals.entry((from, to)).or_default();
        *arrival = (*arrival).max(self.now + delay);
    }

    /// A client's request leaves for a node.
    pub fn ask(&mut self, to: usize, id: u64, request: &Request) {
        let mut out = BytesMut::new();
        let encoded = codec::encode_request(&mut out, id, self.dated(to), request);
        encoded.expect("what the simulator's clients write fits a frame");
        let delay = self.network.to_client(&mut self.random, to);
        let process = self.nodes[to].process;
        let frame = out.freeze();
        self.after(delay, Event::Deliver { to, process, from: Sender::Client, frame });
    }

    /// What a request says that is sent to a node now.
    fn dated(&self, to: usize) -> Marks {
        let is_dated = self.plan.bug != Some(Bug::Undated);
        Marks { forwarded: false, sent: is_dated.then(|| self.now_at(to).instant) }
    }

    fn respond(&mut self, node: usize, to: Origin, response: &Response) {
        let waiting = self.nodes[node].waiting.remove(&to.0);
        let (to, id) = waiting.expect("every request is answered once");
        let mut out = BytesMut::new();
        codec::encode_response(&mut out, id, response);
        let frame = out.freeze();
        match to {
            Sender::Fence(_) | Sender::Merge(_) => self.answer_desk(node, to, response),
            Sender::Reap(id) => self.answer_reap(node, id, response),
            Sender::SyncMerge(merge) => self.answer_sync(node, merge, response),
            Sender::Peer(peer, process) => self.transmit(node, peer, process, frame),
            Sender::Client => {
                let delay = self.network.to_client(&mut self.random, node);
                self.after(delay, Event::ToClient { frame });
            }
        }
    }

    fn deliver(&mut self, to: usize, from: Sender, frame: Bytes) {
        let mut buffer = BytesMut::from(&frame[..]);
        let frame = frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES);
        let frame = frame.expect("the network damages nothing").expect("frames arrive whole");
        assert!(buffer.is_empty(), "a frame left bytes over");
        if frame.kind.is_response() {
            let response = codec::decode_response(&frame).expect("peers send sound answers");
            let Sender::Peer(peer, _) = from else { return };
            let shard = (frame.id >> 56) as usize;
            let from = self.nodes[peer].id;
            self.input(to, shard, Input::Response { from, id: frame.id, response });
            return;
        }
        let mut request = codec::decode_request(&frame).expect("everyone sends sound requests");
        if self.plan.bug == Some(Bug::IgnoredContext)
            && let Request::Put(put) = &mut request
            && matches!(put.basis, Basis::Context(_))
        {
            put.basis = Basis::Blind;
        }
        if self.plan.bug == Some(Bug::LostExpiry)
            && frame.marks.forwarded
            && let Request::Put(put) = &mut request
        {
            put.expiry = Expiry::Never;
        }
        let node = &mut self.nodes[to];
        node.last_origin += 1;
        let origin = Origin(node.last_origin);
        node.waiting.insert(origin.0, (from, frame.id));
        let key = match &request {
            Request::Get(get) => &get.key,
            Request::Put(put) => &put.key,
            Request::Read(read) => &read.key,
            Request::Write(write) => &write.key,
            Request::Control(_) => unreachable!("the simulator asks for no control messages"),
        };
        let is_serving = matches!(self.standing(to), Standing::Member | Standing::Leaving);
        if from == Sender::Client && !is_serving {
            let message = "this node serves no clients";
            let refused = Failure::not_applied(FailureCode::Draining, message);
            self.respond(to, origin, &Response::Failed(refused));
            return;
        }
        if let (Request::Write(_), Sender::Peer(peer, _)) = (&request, from)
            && self.has_removed(to, peer)
        {
            let message = "this node was removed";
            let refused = Failure::not_applied(FailureCode::Denied, message);
            self.respond(to, origin, &Response::Failed(refused));
            return;
        }
        let key = self.stored_key(key);
        if let Some(object) = self.first_states.get(&(to, key.clone()))
            && matches!(request, Request::Read(_))
            && self.plan.bug == Some(Bug::OlderValue)
        {
            let object = HeldObject::Full(object.clone());
            self.respond(to, origin, &Response::Held(Held { object, amnesiac: false }));
            return;
        }
        let shard = usize::from(key.partition().0) % self.plan.shards;
        let received = self.now_at(to).instant;
        let sent = frame.marks.sent.map(|stated| {
            clock::sent_at(stated, received).expect("nobody's clock stands still here")
        });
        let forwarded = frame.marks.forwarded;
        let sender = match from {
            Sender::Peer(peer, _) => self.nodes[peer].id,
            _ => self.nodes[to].id,
        };
        let input = Input::Request { from: origin, sender, received, sent, forwarded, request };
        self.input(to, shard, input);
    }
}

fn settings(plan: &Plan, node: &Node, shard: u8) -> Settings {
    Settings {
        shard,
        shards: plan.shards as u8,
        node: node.id,
        incarnation: node.incarnation,
        amnesiac: node.amnesiac,
        fsync: true,
        attempt: plan.attempt,
        timeout: Duration::from_secs(1),
        key_bytes: limits::KEY_BYTES_DEFAULT,
        value_bytes: limits::VALUE_BYTES_DEFAULT,
        siblings_warn: limits::SIBLINGS_WARN,
        siblings_refuse: plan.siblings_refuse,
        max_in_flight: plan.max_in_flight,
        breaker_failures: 5,
        breaker_open: Duration::from_millis(500),
        hint_bytes_by_owner: plan.hint_bytes,
        hint_bytes: 2 * plan.hint_bytes,
        hint_rate: 8 << 20,
        graves: plan.graves,
    }
}
