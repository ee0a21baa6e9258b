//! Forgetting deleted keys: the production `Reap` of each node, and what it is owed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringdove::causality::Object;
use ringdove::ids::{NodeId, Partition, WriteId};
use ringdove::replica::reap::{Effect, Input, Reap, Scan, Settings, scan};
use ringdove::replica::{self, Order};
use ringdove::store::record::Record;
use ringdove::store::{Store, StoredKey};
use ringdove::time::WallMs;
use ringdove::wire::messages::{ControlReply, Response};
use ringdove::wire::reap::{ReapReply, ReapRequest};
use ringdove::wire::transfer::PageEntry;

use crate::history::{Fact, Held, Time};
use crate::node::Node;
use crate::plan::{Bug, Fault, MS, SECOND};
use crate::world::{Event, Sender, World};

/// How long an answer may take.
const ANSWER_WITHIN: Time = 2 * SECOND;
/// How long a node rests after it has looked at everything.
const INTERVAL: Duration = Duration::from_millis(500);

/// What a node keeps for its reaping, besides its own state.
pub struct Reaping {
    machine: Reap,
    wake_at: Option<Time>,
    last: u64,
    /// Who asked what, by the number the machine knows it under.
    asks: BTreeMap<u64, (usize, u32, u64)>,
    /// Partitions of the pages of transfers that are being merged.
    pages: BTreeMap<u64, BTreeSet<Partition>>,
    /// Planted: how many keys it has asked about.
    asked: usize,
}

/// Something that happens to the reaping of one node.
#[derive(Debug)]
pub enum Local {
    Wake(Time),
    List(u64, Scan),
    Asked((usize, u32), u64, Box<ReapRequest>),
    Answered(u64, Option<Box<ReapReply>>),
}

impl World {
    /// The reaping of a process that begins.
    pub fn open_reap(&mut self, number: usize) {
        let seed = self.random.next_u64();
        let now = self.now_at(number).instant;
        let node = &mut self.nodes[number];
        let settings =
            Settings { node: node.id, shards: self.plan.shards, durable: true, interval: INTERVAL };
        let machine = Reap::new(settings, node.topology.clone(), now, seed);
        let (asks, pages) = (BTreeMap::new(), BTreeMap::new());
        node.reaping = Some(Reaping { machine, wake_at: None, last: 0, asks, pages, asked: 0 });
        self.reap_deadline(number);
    }

    pub fn reap_input(&mut self, node: usize, input: Input) {
        let now = self.now_at(node).instant;
        let Some(reaping) = &mut self.nodes[node].reaping else { return };
        let mut effects = Vec::new();
        reaping.machine.handle(now, input, &mut effects);
        self.reap_effects(node, effects);
    }

    pub fn reap_deadline(&mut self, node: usize) {
        // A backup that is restored brings back what was forgotten since, and nothing can tell. At the
        // end none is restored any more.
        if self.plan.faults.contains(&Fault::S16Restore) && !self.clients.closed {
            return;
        }
        let now = self.now_at(node).instant;
        let Some(reaping) = &mut self.nodes[node].reaping else { return };
        let mut effects = Vec::new();
        reaping.machine.handle_deadline(now, &mut effects);
        self.reap_effects(node, effects);
    }

    fn reap_effects(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.reap_effect(node, effect);
        }
        let now = self.now;
        let Node { reaping: Some(reaping), started, process, .. } = &mut self.nodes[node] else {
            return;
        };
        let deadline = reaping.machine.next_deadline();
        let deadline = deadline.map(|at| *started + at.0.saturating_sub(1));
        if let Some(at) = deadline.map(|at| at.max(now + 1))
            && reaping.wake_at.is_none_or(|earlier| at < earlier || earlier <= now)
        {
            reaping.wake_at = Some(at);
            let process = *process;
            self.at(at, Event::Reap { node, process, what: Local::Wake(at) });
        }
    }

    fn reap_effect(&mut self, node: usize, effect: Effect) {
        let process = self.nodes[node].process;
        match effect {
            Effect::List { id, scan } => {
                let delay = 50 + self.random.below(5 * MS) + self.nodes[node].disk.slow;
                self.after(delay, Event::Reap { node, process, what: Local::List(id, scan) });
            }
            Effect::Send { to, id, request } => {
                let lost = Local::Answered(id, None);
                self.after(ANSWER_WITHIN, Event::Reap { node, process, what: lost });
                self.send_reap(node, to, id, request);
            }
            Effect::Answer { ask, reply } => self.send_reap_reply(node, ask, reply),
            Effect::Order { id, shard, order } => {
                if let Order::Drop(keys) = &order {
                    self.note_agreed(node, keys);
                }
                let from = self.own_request(node, Sender::Reap(id));
                self.input(node, shard, replica::Input::Reap { from, order });
            }
        }
    }

    fn send_reap(&mut self, node: usize, to: NodeId, id: u64, request: ReapRequest) {
        let Some(to) = self.number(to) else { return };
        let (from, process) = ((node, self.nodes[node].process), self.nodes[to].process);
        if let Some(reply) = self.unasked(node, to, &request) {
            let what = Local::Answered(id, Some(Box::new(reply)));
            return self.after(MS, Event::Reap { node, process: from.1, what });
        }
        for delay in self.network.between(&mut self.random, node, to).into_iter().take(1) {
            // Links keep their order; what was sent on an earlier one is cut off by a barrier.
            let earlier = self.arrivals.get(&(node, to)).copied().unwrap_or_default();
            let at = match request {
                ReapRequest::Barrier => (self.now + delay).max(earlier + 1),
                _ => self.now + delay,
            };
            let what = Local::Asked(from, id, Box::new(request.clone()));
            self.at(at, Event::Reap { node: to, process, what });
        }
    }

    /// Planted: what a minority is taken to answer without being asked.
    fn unasked(&mut self, node: usize, to: usize, request: &ReapRequest) -> Option<ReapReply> {
        let count = self.nodes.len();
        let is_of_majority = (to + count - node) % count <= count / 2;
        if self.plan.bug != Some(Bug::ReapedByQuorum) || is_of_majority {
            return None;
        }
        let reaping = self.nodes[node].reaping.as_mut().expect("it asks");
        match request {
            ReapRequest::Watch { keys, .. } => reaping.asked = keys.len(),
            ReapRequest::Confirm(_) => {}
            ReapRequest::Barrier => return Some(ReapReply::Done),
            ReapRequest::Drop(_) => return None,
        }
        Some(ReapReply::Standing(vec![true; reaping.asked]))
    }

    fn reap_asked(&mut self, to: usize, from: (usize, u32), id: u64, request: ReapRequest) {
        let Some(reaping) = &mut self.nodes[to].reaping else { return };
        reaping.last += 1;
        let ask = reaping.last;
        reaping.asks.insert(ask, (from.0, from.1, id));
        self.reap_input(to, Input::Asked { ask, request });
    }

    fn send_reap_reply(&mut self, node: usize, ask: u64, reply: ReapReply) {
        let Some(reaping) = &mut self.nodes[node].reaping else { return };
        let Some((to, process, id)) = reaping.asks.remove(&ask) else { return };
        for delay in self.network.between(&mut self.random, node, to).into_iter().take(1) {
            let what = Local::Answered(id, Some(Box::new(reply.clone())));
            self.after(delay, Event::Reap { node: to, process, what });
        }
    }

    pub fn reap_local(&mut self, node: usize, what: Local) {
        match what {
            Local::Wake(at) => {
                let reaping = self.nodes[node].reaping.as_mut().expect("a process has one");
                if reaping.wake_at == Some(at) {
                    reaping.wake_at = None;
                    self.reap_deadline(node);
                }
            }
            Local::List(id, wanted) => {
                let wall = self.reaping_clock(node);
                let Node { disk, topology, id: me, .. } = &self.nodes[node];
                let found = scan(&disk.synced, topology, *me, &wanted, wall);
                let found = Some(found.expect("memory never fails"));
                self.reap_input(node, Input::Listed { id, found });
            }
            Local::Asked(from, id, request) => self.reap_asked(node, from, id, *request),
            Local::Answered(id, reply) => {
                let reply = reply.map(|reply| *reply);
                self.reap_input(node, Input::Answered { id, reply });
            }
        }
    }

    /// The clock by which a node lists what it takes to be forgotten. Planted: a year ahead.
    fn reaping_clock(&self, node: usize) -> WallMs {
        let year_ms =
            if self.plan.bug == Some(Bug::ReapedUnexpired) { 365 * 86_400_000 } else { 0 };
        WallMs(self.now_at(node).wall.0 + year_ms)
    }

    /// A shard has answered an order.
    pub fn answer_reap(&mut self, node: usize, id: u64, response: &Response) {
        let mut reply = match response {
            Response::Control(ControlReply::Reap(reply)) => Some(reply.clone()),
            _ => None,
        };
        let agrees_to_all = match self.plan.bug {
            Some(Bug::ForgetsItsHints) => !self.nodes[node].disk.all_hints().is_empty(),
            Some(Bug::ReapedUnexpired) => true,
            _ => false,
        };
        if let (true, Some(ReapReply::Standing(standing))) = (agrees_to_all, &mut reply) {
            standing.fill(true);
        }
        self.reap_input(node, Input::Ordered { id, reply });
    }

    /// Who holds up the reaping of one node, in words.
    pub fn reaping_of(&self, node: usize) -> String {
        let Some(reaping) = &self.nodes[node].reaping else { return String::new() };
        let status = reaping.machine.status();
        let by = |id: NodeId| self.number(id).map_or("?".to_owned(), |number| format!("n{number}"));
        let held_up = status.held_up.iter();
        let held_up = held_up.map(|(id, why, keys)| format!("{keys} by {}: {why:?}", by(*id)));
        format!("{} waiting, held up {:?}", status.waiting, held_up.collect::<Vec<_>>())
    }

    // ---- what moves beside the shards' messages --------------------------------------------

    /// A page of a transfer is about to be merged.
    pub fn page_begins(&mut self, node: usize, id: u64, entries: &[PageEntry]) {
        let of = |entry: &PageEntry| self.topology.partition(&entry.key);
        let partitions: BTreeSet<Partition> = entries.iter().map(of).collect();
        let Some(reaping) = &mut self.nodes[node].reaping else { return };
        for partition in &partitions {
            reaping.machine.begin_move(*partition);
        }
        reaping.pages.insert(id, partitions);
    }

    pub fn page_ends(&mut self, node: usize, id: u64) {
        let Some(reaping) = &mut self.nodes[node].reaping else { return };
        for partition in reaping.pages.remove(&id).unwrap_or_default() {
            reaping.machine.end_move(partition);
        }
    }

    /// Objects of an exchange are about to move.
    pub fn begin_moves(&mut self, node: usize, partitions: impl IntoIterator<Item = Partition>) {
        if self.plan.bug == Some(Bug::SyncUnseenByReaping) {
            return;
        }
        let Some(reaping) = &mut self.nodes[node].reaping else { return };
        partitions.into_iter().for_each(|partition| reaping.machine.begin_move(partition));
    }

    pub fn end_moves(&mut self, node: usize, partitions: impl IntoIterator<Item = Partition>) {
        let Some(reaping) = &mut self.nodes[node].reaping else { return };
        partitions.into_iter().for_each(|partition| reaping.machine.end_move(partition));
    }

    /// Whether `node` knows that `peer` was removed.
    pub fn has_removed(&self, node: usize, peer: usize) -> bool {
        self.nodes[node].topology.is_removed(self.nodes[peer].id)
    }

    // ---- what the checkers should know -----------------------------------------------------

    /// All have agreed to forget these: as good as known everywhere from now on.
    fn note_agreed(&mut self, node: usize, keys: &[(StoredKey, u128)]) {
        for (key, digest) in keys {
            let record = self.nodes[node].disk.synced.read(key).expect("memory never fails");
            let Some(record) = record.and_then(|record| Record::decode(record).ok()) else {
                continue;
            };
            let object = Object::decode(record.object).expect("a shard writes sound objects");
            if object.digest(&key.key()) != *digest {
                continue;
            }
            self.reaped.entry(key.clone()).or_default().join(object.clock());
            let writes: Vec<WriteId> = object.siblings().iter().map(|s| s.write_id).collect();
            let (key, now) = (key.key().to_string(), self.now);
            let agreed = object.siblings().iter().map(|s| ((s.write_id, s.hlc.0), now));
            self.history.reaped.entry(key.clone()).or_default().extend(agreed);
            self.fact(Fact::Agreed { key, writes });
        }
    }

    /// What a node's disk has of a key, and what was agreed to be forgotten of it.
    pub fn known(&self, node: usize, key: &StoredKey) -> Option<Held> {
        let held = self.nodes[node].disk.held(key);
        let Some(reaped) = self.reaped.get(key) else { return held };
        let nothing = || Held { clock: Default::default(), live: Vec::new(), digest: 0 };
        let mut held = held.unwrap_or_else(nothing);
        held.clock.join(reaped);
        Some(held)
    }

    pub fn all_known(&self, node: usize) -> BTreeMap<String, Held> {
        let known =
            self.clients.keys().iter().filter_map(|key| {
                Some((key.to_string(), self.known(node, &self.stored_key(key))?))
            });
        known.collect()
    }
}
