//! Nodes that come and go: the cluster state of each node, how states travel, and what an operator
//! changes.

use std::sync::Arc;

use ringdove::ids::{NodeId, Partition, Scope};
use ringdove::limits;
use ringdove::membership::{
    ClusterState, Contact, HandOver, MemberEntry, Register, Standing, Topology,
};
use ringdove::replica::{Input, reap};
use ringdove::store::StoredKey;
use ringdove::wire::messages::{BucketSettings, Conflicts, Level};

use crate::history::{Fact, Time};
use crate::node::Node;
use crate::plan::{Bug, MS, Plan, SECOND};
use crate::world::{Event, World};

/// How often a node sends its state to another one.
const GOSSIP: Time = 400 * MS;
/// How long an exchange may take before the shards hear that it is over.
const EXCHANGE_WITHIN: Time = SECOND;

/// What an operator changes, at whatever node can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new node, which starts empty.
    Join(usize),
    Leave(usize),
    /// The first is gone for good, and the second takes its place.
    Replace(usize, usize),
    Weight(usize, u32),
    /// A bucket gets another N.
    Count(&'static str, u8),
}

/// A node that nobody knows yet.
pub fn candidate(id: NodeId, number: usize) -> MemberEntry {
    let contact = Contact {
        name: format!("n{number}"),
        address: format!("10.0.0.{number}:7400"),
        text_address: String::new(),
    };
    let zone = format!("zone-{}", number % 3);
    MemberEntry::candidate(id, contact, &zone, limits::WEIGHT_NORMAL)
}

/// The state of a cluster that the nodes with these ids have formed.
pub fn formed(plan: &Plan, ids: &[NodeId]) -> ClusterState {
    let mut state = ClusterState::new("simulated", plan.partitions);
    for (number, id) in ids.iter().enumerate() {
        state.enter(*id, candidate(*id, number));
    }
    let buckets =
        [("sib", Conflicts::Siblings, None), ("lww", Conflicts::LastWriteWins, plan.ttl_ms)];
    for (name, conflicts, ttl_ms) in buckets {
        let (r, w) = (Level::Quorum, Level::Quorum);
        let settings = BucketSettings { n: plan.n, r, w, conflicts, ttl_ms };
        assert!(state.add_bucket(name, settings));
    }
    state.form(ids.len());
    state
}

impl World {
    /// Where a node stands, as far as it knows itself.
    pub fn standing(&self, node: usize) -> Standing {
        let Node { id, state, .. } = &self.nodes[node];
        state.members.get(id).map_or(Standing::Candidate, |entry| entry.standing)
    }

    /// A node takes over what `theirs` knows better: on its disk, then to its shards, and only then
    /// to anybody else.
    pub fn merge_state(&mut self, node: usize, theirs: &ClusterState) {
        let mut merged = self.nodes[node].state.clone();
        if merged.merge(theirs).expect("there is one cluster") {
            self.install(node, merged);
        }
    }

    pub fn install(&mut self, node: usize, state: ClusterState) {
        let topology = Arc::new(Topology::after(&self.nodes[node].topology, state.clone()));
        self.note(format!("n{node} knows {:?}", topology.version()));
        let later = self.transfer_topology(node, &topology);
        self.reap_input(node, reap::Input::Topology(topology.clone()));
        let before = std::mem::replace(&mut self.nodes[node].topology, topology.clone());
        self.nodes[node].state = state;
        for shard in 0..self.nodes[node].shards.len() {
            let now = self.now_at(node);
            let mut effects = Vec::new();
            let place = &mut self.nodes[node].shards[shard];
            place.shard.handle(now, Input::Topology(topology.clone()), &mut effects);
            place.shard.flush(&mut effects);
            self.carry_out(node, shard, effects);
        }
        self.look_at_slots(&before, &topology);
        self.transfer_effects(node, later);
        let input = ringdove::replica::sync::Input::Topology(topology);
        self.sync_input(node, input);
    }

    /// Notes what the owners of a partition have when one of its slots has changed hands.
    fn look_at_slots(&mut self, before: &Topology, after: &Topology) {
        // Whoever has just come to know the cluster has seen nothing change hands.
        if !before.state().is_formed() {
            return;
        }
        let scopes: Vec<Scope> = after.state().slots.keys().copied().collect();
        let pairs = scopes.into_iter().flat_map(|scope| {
            (0..self.plan.partitions).map(move |number| (scope, Partition(number as u16)))
        });
        for (scope, partition) in pairs.collect::<Vec<_>>() {
            let slots = after.slots(partition, scope).to_vec();
            for (at, slot) in slots.iter().enumerate() {
                let was = before.slots(partition, scope).get(at).copied().unwrap_or_default();
                if slot.version <= was.version
                    || !self.handed.insert((scope, partition, at, slot.version))
                    || after.is_arriving(partition, scope)
                {
                    // What arrives counts as soon as all of it has.
                    continue;
                }
                let name = |id: Option<NodeId>| {
                    id.and_then(|id| self.number(id))
                        .map_or("nobody".to_owned(), |n| format!("n{n}"))
                };
                let (from, to) = (name(was.owner), name(slot.owner));
                let what =
                    format!("slot {at} of {partition:?} for {scope:?} went from {from} to {to}");
                self.note(&what);
                // Whoever gives one slot away need not have heard who owns the others.
                let newest = |at: usize| {
                    let views = self.nodes.iter().filter(|node| !node.gone);
                    let views =
                        views.filter_map(|node| node.topology.slots(partition, scope).get(at));
                    views.max_by_key(|slot| slot.version).and_then(|slot| self.number(slot.owner?))
                };
                let nodes: Vec<usize> = (0..slots.len()).filter_map(newest).collect();
                let of = |key: &StoredKey| {
                    nodes.iter().filter_map(|node| self.known(*node, key)).collect()
                };
                let keys = self.clients.keys().iter().map(|key| self.stored_key(key));
                let keys = keys.filter(|key| key.partition() == partition);
                let keys = keys.filter(|key| after.is_kept_in(key.key().bucket(), scope));
                let owners = keys.map(|key| (key.key().to_string(), of(&key))).collect();
                let victims = usize::from(self.has_lost_data());
                self.fact(Fact::Handed { time: self.now, what, owners, victims });
            }
        }
    }

    /// Sends a state to a node; whoever asks is answered.
    pub fn send_state(&mut self, from: usize, to: usize, is_answer: bool) {
        let state = self.nodes[from].state.clone();
        let (process, sender) = (self.nodes[to].process, self.nodes[from].process);
        for delay in self.network.between(&mut self.random, from, to) {
            let from = (from, sender);
            let state = Box::new(state.clone());
            self.after(delay, Event::State { to, process, from, state, is_answer });
        }
    }

    /// A state has arrived.
    pub fn take_state(
        &mut self,
        to: usize,
        (from, process): (usize, u32),
        state: &ClusterState,
        is_answer: bool,
    ) {
        self.merge_state(to, state);
        if !is_answer {
            if self.nodes[from].process == process {
                self.send_state(to, from, true);
            }
            return;
        }
        let peer = self.nodes[from].id;
        for shard in 0..self.plan.shards {
            self.input(to, shard, Input::Exchanged(peer));
        }
    }

    /// A shard wants states exchanged with a peer.
    pub fn exchange(&mut self, node: usize, peer: NodeId) {
        let Some(number) = self.number(peer) else { return };
        self.send_state(node, number, false);
        let process = self.nodes[node].process;
        self.after(EXCHANGE_WITHIN, Event::Exchanged { node, process, peer });
    }

    /// Each node sends its state to another one, now and then.
    pub fn gossip(&mut self) {
        let count = self.nodes.len() as u64;
        for node in 0..self.nodes.len() {
            let other = self.random.below(count) as usize;
            let can = |number: usize| self.nodes[number].up && !self.nodes[number].paused;
            if node != other && can(node) && can(other) {
                self.send_state(node, other, false);
            }
        }
        self.after(GOSSIP, Event::Gossip);
    }

    /// An operator asks whatever node answers to change something.
    pub fn change(&mut self, change: &Change) {
        let count = self.nodes.len();
        let start = self.random.below(count as u64) as usize;
        let able = (0..count).map(|turn| (start + turn) % count).find(|number| {
            let node = &self.nodes[*number];
            let is_dead = matches!(change, Change::Replace(dead, _) if dead == number);
            let stands = self.standing(*number) == Standing::Member;
            node.up && !node.paused && stands && !is_dead
        });
        let Some(via) = able else { return };
        let mut state = self.nodes[via].state.clone();
        let is_early = self.plan.bug == Some(Bug::ArrivedTooEarly);
        if !apply(&mut state, change, |number| self.nodes[number].id, is_early) {
            self.note(format!("n{via} refuses {change:?}"));
            return;
        }
        self.note(format!("n{via} commits {change:?}"));
        if let Change::Replace(dead, _) = change {
            self.act(crate::plan::Action::Wipe(*dead));
            self.nodes[*dead].gone = true;
        }
        self.install(via, state);
        if let Change::Join(node) | Change::Replace(_, node) = change {
            self.start(*node);
        }
    }
}

/// Changes a state, as a committed plan would. Returns false where that makes no sense.
fn apply(
    state: &mut ClusterState,
    change: &Change,
    id: impl Fn(usize) -> NodeId,
    is_early: bool,
) -> bool {
    let n = state.buckets.values().map(|bucket| {
        let next = bucket.home.next.map_or(0, |next| next.n);
        bucket.settings.n.max(next)
    });
    let n = n.max().unwrap_or(1);
    let placed = state.placed().count();
    let standing = |state: &ClusterState, number: usize| {
        state.members.get(&id(number)).map(|entry| entry.standing)
    };
    match *change {
        Change::Join(node) => {
            state.enter(id(node), candidate(id(node), node));
            let entry = state.members.get_mut(&id(node)).expect("it was just entered");
            let can = entry.standing == Standing::Candidate;
            entry.standing = entry.standing.max(Standing::Member);
            can
        }
        Change::Leave(node) => {
            let can = standing(state, node) == Some(Standing::Member) && placed > usize::from(n);
            if can {
                state.members.get_mut(&id(node)).expect("it is a member").standing =
                    Standing::Leaving;
            }
            can
        }
        Change::Replace(dead, with) => {
            if standing(state, dead) != Some(Standing::Member)
                || standing(state, with).is_some_and(|standing| standing != Standing::Candidate)
            {
                return false;
            }
            state.enter(id(with), candidate(id(with), with));
            let gone = state.members.get_mut(&id(dead)).expect("it is a member");
            gone.standing = Standing::Removed;
            let place = gone.placed_as.value;
            let entry = state.members.get_mut(&id(with)).expect("it was just entered");
            entry.standing = Standing::Member;
            entry.placed_as = Register { version: entry.placed_as.version + 1, value: place };
            true
        }
        Change::Count(bucket, n) => {
            let settings = BucketSettings { n, ..state.buckets[bucket].settings };
            let committed =
                state.set_bucket(bucket, settings).is_ok() && state.commit_plan(None).is_ok();
            if committed && is_early {
                take_at_once(state, bucket);
            }
            committed
        }
        Change::Weight(node, weight) => {
            let can = standing(state, node) == Some(Standing::Member);
            if can {
                let entry = state.members.get_mut(&id(node)).expect("it is a member");
                let version = entry.weight.version + 1;
                entry.weight = Register { version, value: weight };
            }
            can
        }
    }
}

/// Planted: whoever is to own the new slots of a bucket owns them at once.
fn take_at_once(state: &mut ClusterState, bucket: &str) {
    let topology = Topology::new(state.clone());
    let Some(scope) = state.buckets[bucket].home.next else { return };
    for number in 0..topology.partitions() {
        let partition = Partition(number as u16);
        for (slot, expected) in topology.slots(partition, scope).iter().enumerate() {
            let Some(to) = expected.successor else { continue };
            state.hand_over(&HandOver { scope, partition, slot, expected: *expected, to });
        }
    }
}
