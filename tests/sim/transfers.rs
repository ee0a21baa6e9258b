//! Partitions that change hands: the production `Transfers` of each node, and what it is owed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringdove::ids::{NodeId, Partition, Scope};
use ringdove::membership::{ClusterState, HandOver, Standing, Topology};
use ringdove::replica::transfer::{Effect, Input, Settings, Transfers, Unmerged, read_page};
use ringdove::replica::{self, Origin, Strange};
use ringdove::store::record::Record;
use ringdove::store::{Store, StoreError};
use ringdove::time::Instant;
use ringdove::wire::messages::{
    Failure, FailureCode, Purpose, Request, Response, TopologyVersion, Write,
};
use ringdove::wire::transfer::{
    Page, PageEntry, PageRequest, TransferReply, TransferRequest, running_digest,
};

use crate::history::{Fact, Time};
use crate::node::Node;
use crate::plan::{Bug, MS, SECOND};
use crate::world::{Event, Sender, World};

/// How long an answer may take.
const ANSWER_WITHIN: Time = 2 * SECOND;
/// How long a former owner keeps what it has.
const CLEANUP_AFTER: Duration = Duration::from_secs(3);

/// What a node keeps for its transfers, besides their own state.
pub struct Desk {
    pub machine: Transfers,
    wake_at: Option<Time>,
    last: u64,
    /// Who asked what, by the number the machine knows it under.
    asks: BTreeMap<u64, (usize, u32, u64)>,
    /// Merges under way: how many writes are left of each, whether one has failed, and whether one
    /// has met a damaged record.
    merges: BTreeMap<u64, (usize, bool, bool)>,
}

/// Something that takes its time on one node.
#[derive(Debug)]
pub enum Local {
    Wake(Time),
    Second,
    ReadPage(u64, Box<PageRequest>),
    Merge(u64, NodeId, Vec<PageEntry>),
    HandOver(u64, TopologyVersion, Vec<HandOver>),
    Clear(Partition, Scope),
    Advance,
    Lost(u64),
    Leave,
}

impl World {
    /// The transfers of a process that begins.
    pub fn open_desk(&mut self, number: usize) {
        let seed = self.random.next_u64();
        let now = self.transfer_now(number);
        let node = &mut self.nodes[number];
        let settings = Settings {
            node: node.id,
            amnesiac: node.amnesiac,
            at_once: 4,
            rate: 1 << 20,
            cleanup_after: CLEANUP_AFTER,
            resume: true,
        };
        let kept = node.kept.as_deref();
        let machine = Transfers::new(settings, node.topology.clone(), kept, now, seed);
        let (asks, merges) = (BTreeMap::new(), BTreeMap::new());
        node.desk = Some(Desk { machine, wake_at: None, last: 0, asks, merges });
        self.transfer_deadline(number);
        let process = self.nodes[number].process;
        self.after(SECOND, Event::Transfer { node: number, process, what: Local::Second });
    }

    fn transfer_now(&self, node: usize) -> Instant {
        self.now_at(node).instant
    }

    pub fn transfer_input(&mut self, node: usize, input: Input) {
        let now = self.transfer_now(node);
        let Some(desk) = &mut self.nodes[node].desk else { return };
        let mut effects = Vec::new();
        desk.machine.handle(now, input, &mut effects);
        self.transfer_effects(node, effects);
    }

    fn transfer_deadline(&mut self, node: usize) {
        let now = self.transfer_now(node);
        let Some(desk) = &mut self.nodes[node].desk else { return };
        let mut effects = Vec::new();
        desk.machine.handle_deadline(now, &mut effects);
        self.transfer_effects(node, effects);
    }

    /// A cluster state is about to be gone by: what must come first is done, the rest is returned.
    pub fn transfer_topology(&mut self, node: usize, topology: &Arc<Topology>) -> Vec<Effect> {
        let now = self.transfer_now(node);
        let Some(desk) = &mut self.nodes[node].desk else { return Vec::new() };
        let mut effects = Vec::new();
        desk.machine.handle(now, Input::Topology(topology.clone()), &mut effects);
        let mut later = Vec::new();
        for effect in effects {
            match effect {
                Effect::Keep { bytes, .. } => self.nodes[node].kept = Some(bytes),
                Effect::Clear { partition, scope } => self.clear(node, partition, scope),
                effect => later.push(effect),
            }
        }
        later
    }

    pub fn transfer_effects(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.transfer_effect(node, effect);
        }
        let now = self.now;
        let Node { desk: Some(desk), started, process, .. } = &mut self.nodes[node] else { return };
        let deadline = desk.machine.next_deadline().map(|at| *started + at.0.saturating_sub(1));
        if let Some(at) = deadline.map(|at| at.max(now + 1))
            && desk.wake_at.is_none_or(|earlier| at < earlier || earlier <= now)
        {
            desk.wake_at = Some(at);
            let process = *process;
            self.at(at, Event::Transfer { node, process, what: Local::Wake(at) });
        }
    }

    fn transfer_effect(&mut self, node: usize, effect: Effect) {
        let local = |world: &mut Self, most: Time, what: Local| {
            let delay = 50 + world.random.below(most);
            let process = world.nodes[node].process;
            world.after(delay, Event::Transfer { node, process, what });
        };
        match effect {
            Effect::Keep { bytes, .. } => self.nodes[node].kept = Some(bytes),
            Effect::Send { to, id, request } => {
                local(self, 1, Local::Lost(id));
                self.send_transfer(node, to, id, request);
            }
            Effect::Answer { ask, reply } => self.answer_transfer(node, ask, reply),
            Effect::Fence { order, view } => {
                let partition = view.id.partition;
                let from = self.own_request(node, Sender::Fence(order));
                let shard = usize::from(partition.0) % self.plan.shards;
                self.input(node, shard, replica::Input::Fence { from, view });
            }
            Effect::ReadPage { ask, request } => {
                let slow = self.nodes[node].disk.slow;
                local(self, 5 * MS + slow, Local::ReadPage(ask, Box::new(request)));
            }
            Effect::Merge { id, from, entries } => {
                self.page_begins(node, id, &entries);
                local(self, 2 * MS, Local::Merge(id, from, entries));
            }
            Effect::HandOver { order, basis, changes } => {
                local(self, 5 * MS, Local::HandOver(order, basis, changes));
            }
            Effect::Clear { partition, scope } => {
                local(self, 2 * MS, Local::Clear(partition, scope));
            }
            Effect::Exchange(peer) => self.exchange(node, peer),
            Effect::Leave => local(self, MS, Local::Leave),
            Effect::Advance => local(self, MS, Local::Advance),
            Effect::Notice(notice) => self.note(format!("n{node} transfers: {notice:?}")),
        }
    }

    /// A number under which this node's own request is answered.
    pub fn own_request(&mut self, node: usize, sender: Sender) -> Origin {
        let node = &mut self.nodes[node];
        node.last_origin += 1;
        node.waiting.insert(node.last_origin, (sender, 0));
        Origin(node.last_origin)
    }

    fn send_transfer(&mut self, node: usize, to: NodeId, id: u64, request: TransferRequest) {
        let Some(to) = self.number(to) else { return };
        let sender = (node, self.nodes[node].process);
        let process = self.nodes[to].process;
        for delay in self.network.between(&mut self.random, node, to).into_iter().take(1) {
            let request = Box::new(request.clone());
            let from = sender;
            self.after(delay, Event::TransferAsk { to, process, from, id, request });
        }
    }

    pub fn transfer_asked(
        &mut self,
        to: usize,
        (from, process): (usize, u32),
        id: u64,
        request: TransferRequest,
    ) {
        let sender = self.nodes[from].id;
        let Some(desk) = &mut self.nodes[to].desk else { return };
        desk.last += 1;
        let ask = desk.last;
        desk.asks.insert(ask, (from, process, id));
        self.transfer_input(to, Input::Asked { from: sender, ask, request });
    }

    fn answer_transfer(&mut self, node: usize, ask: u64, reply: TransferReply) {
        let Some(desk) = &mut self.nodes[node].desk else { return };
        let Some((to, process, id)) = desk.asks.remove(&ask) else { return };
        let delays = self.network.between(&mut self.random, node, to);
        for delay in delays.into_iter().take(1) {
            let reply = Some(Box::new(reply.clone()));
            self.after(delay, Event::TransferReply { to, process, id, reply });
        }
    }

    pub fn transfer_local(&mut self, node: usize, what: Local) {
        match what {
            Local::Wake(at) => {
                let desk = self.nodes[node].desk.as_mut().expect("a process has one");
                if desk.wake_at == Some(at) {
                    desk.wake_at = None;
                    self.transfer_deadline(node);
                }
            }
            Local::Second => {
                self.transfer_input(node, Input::Second { p99: Duration::from_millis(2) });
                let process = self.nodes[node].process;
                self.after(SECOND, Event::Transfer { node, process, what: Local::Second });
            }
            Local::ReadPage(ask, request) => {
                let result = self.transfer_page(node, *request);
                self.transfer_input(node, Input::PageRead { ask, result });
            }
            Local::Merge(id, from, entries) => self.transfer_merge(node, id, from, entries),
            Local::HandOver(order, basis, changes) => {
                let mut state = self.nodes[node].state.clone();
                let given =
                    state.version() == basis && state.hand_over_all(&changes) == changes.len();
                if given {
                    self.install(node, state);
                }
                self.transfer_input(node, Input::HandedOver { order, given });
            }
            Local::Clear(partition, scope) => self.clear(node, partition, scope),
            Local::Advance => self.advance(node),
            Local::Lost(id) => {
                let process = self.nodes[node].process;
                let to = node;
                self.after(ANSWER_WITHIN, Event::TransferReply { to, process, id, reply: None });
            }
            Local::Leave => self.leave(node),
        }
    }

    fn transfer_page(&self, node: usize, mut request: PageRequest) -> Result<Page, StoreError> {
        let node = &self.nodes[node];
        let partition = request.noted.slot.partition;
        if let Some(key) = node.disk.corrupt.iter().find(|key| key.partition() == partition) {
            return Err(StoreError::Corrupt(format!("{} (simulated)", key.key())));
        }
        // Small pages: a partition has few keys here, and must take several.
        request.bytes = 40;
        let mut page = read_page(&node.disk.synced, &node.topology, &request)?;
        if self.plan.bug == Some(Bug::ReadyTooEarly) {
            page.done = true;
            page.running = running_digest(request.running, &page.body.0, &page.last.0, true);
        }
        Ok(page)
    }

    fn transfer_merge(&mut self, node: usize, id: u64, from: NodeId, entries: Vec<PageEntry>) {
        let mut writes = Vec::new();
        let source = self.number(from).expect("pages come from members");
        for PageEntry { key, digest: _, object } in entries {
            let object = match object {
                Some(object) => object,
                None if !self.nodes[source].up || !self.network.is_open(source, node) => {
                    let result = Err("it does not answer".to_owned().into());
                    return self.merged(node, id, result);
                }
                None => {
                    let record = self.nodes[source].disk.read(&self.stored_key(&key));
                    match record.map(|record| record.and_then(|r| Record::decode(r).ok())) {
                        Ok(Some(record)) => record.object,
                        _ => {
                            let result = Err("it cannot be read".to_owned().into());
                            return self.merged(node, id, result);
                        }
                    }
                }
            };
            let (purpose, slots, budget_ms) = (Purpose::Handoff, 0, 1000);
            writes.push(Write { key, object, purpose, slots, budget_ms });
        }
        if writes.is_empty() {
            return self.merged(node, id, Ok(()));
        }
        let desk = self.nodes[node].desk.as_mut().expect("a process has one");
        desk.merges.insert(id, (writes.len(), false, false));
        for write in writes {
            let shard = usize::from(self.stored_key(&write.key).partition().0) % self.plan.shards;
            let (sender, from) = (from, self.own_request(node, Sender::Merge(id)));
            let (received, request) = (self.transfer_now(node), Request::Write(write));
            let forwarded = false;
            let input =
                replica::Input::Request { from, sender, received, sent: None, forwarded, request };
            self.input(node, shard, input);
        }
    }

    fn merged(&mut self, node: usize, id: u64, result: Result<(), Unmerged>) {
        self.page_ends(node, id);
        self.transfer_input(node, Input::Merged { id, result });
    }

    /// A shard has answered what this node's transfers asked of it.
    pub fn answer_desk(&mut self, node: usize, to: Sender, response: &Response) {
        let done = matches!(response, Response::Stored(_));
        let is_damaged = |failure: &Failure| failure.code == FailureCode::Corrupt;
        let damaged = matches!(response, Response::Failed(failure) if is_damaged(failure));
        let Some(desk) = &mut self.nodes[node].desk else { return };
        match to {
            Sender::Fence(order) => self.transfer_input(node, Input::Fenced { order, done }),
            Sender::Merge(id) => {
                let Some((left, failed, lost)) = desk.merges.get_mut(&id) else { return };
                (*left, *failed, *lost) = (*left - 1, *failed | !done, *lost | damaged);
                if *left == 0 {
                    let (failed, is_damaged) = (*failed, *lost);
                    desk.merges.remove(&id);
                    let why = "refused".to_owned();
                    let result = if failed { Err(Unmerged { why, is_damaged }) } else { Ok(()) };
                    self.merged(node, id, result);
                }
            }
            _ => {}
        }
    }

    /// Deletes what is left of a partition, if nothing of it is under way.
    fn clear(&mut self, node: usize, partition: Partition, scope: Scope) {
        let shard = usize::from(partition.0) % self.plan.shards;
        let strange = self.nodes[node].shards[shard].shard.strange(partition, scope);
        let disk = &self.nodes[node].disk;
        let is_meant = |bucket: &str| match &strange {
            None => false,
            Some(Strange::Everything) => true,
            Some(Strange::Buckets(buckets)) => buckets.iter().any(|name| name == bucket),
        };
        let of = |batch: &crate::disk::Outstanding| {
            let own = batch.changes.changes.iter().map(|change| &change.key);
            let mut own = own.filter(|key| key.owner().is_none() && key.partition() == partition);
            own.any(|key| is_meant(key.key().bucket()))
        };
        let found = if strange.is_none() || disk.outstanding.iter().any(of) {
            None
        } else {
            let mut page =
                disk.synced.page(partition, None, usize::MAX).expect("memory never fails");
            page.retain(|entry| is_meant(entry.key.key().bucket()));
            let buckets = page.iter().map(|entry| entry.key.key().bucket().to_owned());
            for bucket in buckets.collect::<BTreeSet<String>>() {
                disk.synced.clear(partition, Some(&bucket)).expect("memory never fails");
            }
            let keys: Vec<String> = page.iter().map(|e| e.key.key().to_string()).collect();
            for entry in &page {
                self.nodes[node].disk.corrupt.remove(&entry.key);
            }
            let found = !keys.is_empty();
            if found {
                self.note(format!("n{node} deletes {partition:?}: {keys:?}"));
                self.fact(Fact::Cleared { node, keys });
                self.fact(Fact::NewActor { node });
            }
            Some(found)
        };
        self.transfer_input(node, Input::Cleared { partition, scope, found });
    }

    /// Buckets have arrived in other slots.
    fn advance(&mut self, node: usize) {
        let mut state = self.nodes[node].state.clone();
        if state.advance(self.nodes[node].id) {
            let homes = state.buckets.iter().map(|(name, entry)| (name, &entry.home));
            let homes: Vec<String> = homes.map(|(name, home)| format!("{name} {home:?}")).collect();
            self.note(format!("n{node} advances: {homes:?}"));
            self.install(node, state);
        }
    }

    /// A leaving node owns nothing any more: it is gone once it keeps nothing for others either.
    fn leave(&mut self, node: usize) {
        let Node { id, state, disk, .. } = &self.nodes[node];
        if !disk.all_hints().is_empty() || !disk.outstanding.is_empty() {
            return;
        }
        let mut state: ClusterState = state.clone();
        let entry = state.members.get_mut(id).expect("it knows itself");
        if entry.standing == Standing::Leaving {
            entry.standing = Standing::Removed;
            self.note(format!("n{node} has left"));
            self.install(node, state);
        }
    }
}
