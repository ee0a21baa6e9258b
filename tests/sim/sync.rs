//! Owners that compare: the production `Syncs` of each node, and what it is owed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringdove::ids::{NodeId, Partition};
use ringdove::replica::sync::{Effect, Input, Settings, Syncs, answer, with_more};
use ringdove::replica::transfer::Unmerged;
use ringdove::replica::{self, Origin};
use ringdove::store::Store;
use ringdove::time::Instant;
use ringdove::wire::messages::{FailureCode, Purpose, Request, Response, Write};
use ringdove::wire::sync::{SyncAnswer, SyncReply, SyncRequest};
use ringdove::wire::transfer::{PageEntry, body_entries};

use crate::history::Time;
use crate::plan::{Bug, MS, SECOND};
use crate::world::{Event, Sender, World};

/// How long an answer may take.
const ANSWER_WITHIN: Time = 2 * SECOND;

/// A node's anti-entropy, with what its driver keeps.
pub struct Desk {
    pub machine: Syncs,
    wake_at: Option<Time>,
    last: u64,
    /// Merges under way: how many writes are left of each, whether one was refused or met a damaged
    /// record, and who waits.
    merges: BTreeMap<u64, (usize, (bool, bool), Waiting)>,
    /// The partition whose trees are counted next, as a scrub would.
    scrubbed: u32,
}

#[derive(Debug)]
pub enum Waiting {
    Own(u64),
    Peer { to: usize, process: u32, id: u64, entries: Vec<PageEntry>, moved: BTreeSet<Partition> },
}

/// Something that takes its time.
#[derive(Debug)]
pub enum SyncEvent {
    Wake(Time),
    Second,
    Look(u64, SyncRequest),
    Asked {
        from: usize,
        asker: u32,
        id: u64,
        request: SyncRequest,
    },
    Answered(u64, Option<SyncAnswer>),
    /// Of these objects, which the node has given.
    Merge(NodeId, Vec<PageEntry>, Waiting),
}

impl World {
    /// The anti-entropy of a process that begins.
    pub fn open_sync(&mut self, number: usize) {
        let seed = self.random.next_u64();
        let now = self.now_at(number).instant;
        let node = &mut self.nodes[number];
        let settings = Settings {
            node: node.id,
            interval: Duration::from_secs(2),
            settle: Duration::from_millis(300),
            alarm: Duration::from_secs(30),
            at_once: 2,
            rate: 1 << 20,
        };
        let machine = Syncs::new(settings, node.topology.clone(), now, seed);
        let merges = BTreeMap::new();
        node.sync = Some(Desk { machine, wake_at: None, last: 0, merges, scrubbed: 0 });
        self.sync_later(number, SECOND, SyncEvent::Second);
    }

    fn sync_later(&mut self, node: usize, delay: Time, what: SyncEvent) {
        let process = self.nodes[node].process;
        self.after(delay, Event::Sync { node, process, what: Box::new(what) });
    }

    pub fn sync_input(&mut self, node: usize, input: Input) {
        let now: Instant = self.now_at(node).instant;
        let Some(desk) = &mut self.nodes[node].sync else { return };
        let mut effects = Vec::new();
        desk.machine.handle(now, input, &mut effects);
        self.sync_effects(node, effects);
    }

    fn sync_effects(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Ask { to, id, request } => self.sync_ask(node, to, id, request),
                Effect::Look { id, request } => {
                    let delay = 50 + self.random.below(2 * MS) + self.nodes[node].disk.slow;
                    self.sync_later(node, delay, SyncEvent::Look(id, request));
                }
                Effect::BeginMove(partition) => self.begin_moves(node, [partition]),
                Effect::EndMove(partition) => self.end_moves(node, [partition]),
                Effect::Merge { id, from, entries } => {
                    self.sync_merge_later(node, from, entries, Waiting::Own(id));
                }
                Effect::Recount(partition) => self.recount(node, partition),
                Effect::Complete(partition) => self.complete(node, partition),
                Effect::Whole => self.whole(node),
                Effect::Notice(notice) => self.note(format!("n{node} sync: {notice:?}")),
            }
        }
        let now = self.now;
        let started = self.nodes[node].started;
        let Some(desk) = &mut self.nodes[node].sync else { return };
        let deadline = desk.machine.next_deadline().map(|at| started + at.0.saturating_sub(1));
        if let Some(at) = deadline.map(|at| at.max(now + 1))
            && desk.wake_at.is_none_or(|earlier| at < earlier || earlier <= now)
        {
            desk.wake_at = Some(at);
            self.sync_later(node, at - now, SyncEvent::Wake(at));
        }
    }

    fn sync_ask(&mut self, node: usize, to: NodeId, id: u64, request: SyncRequest) {
        self.sync_later(node, ANSWER_WITHIN, SyncEvent::Answered(id, None));
        // What a member that was removed has may be older than what all others have forgotten.
        if !self.nodes[node].topology.is_present(to) {
            return;
        }
        let Some(to) = self.number(to) else { return };
        let (asker, process) = (self.nodes[node].process, self.nodes[to].process);
        for delay in self.network.between(&mut self.random, node, to).into_iter().take(1) {
            let request = request.clone();
            let what = Box::new(SyncEvent::Asked { from: node, asker, id, request });
            self.is_on_its_way(node, to, delay);
            self.after(delay, Event::Sync { node: to, process, what });
        }
    }

    fn sync_answer(
        &mut self,
        node: usize,
        (to, process): (usize, u32),
        id: u64,
        (brought, reply): (usize, SyncReply),
    ) {
        let now = self.now_at(node).instant;
        let Some(desk) = &mut self.nodes[node].sync else { return };
        let answer = desk.machine.serve(now, brought, reply);
        for delay in self.network.between(&mut self.random, node, to).into_iter().take(1) {
            let what = Box::new(SyncEvent::Answered(id, Some(answer.clone())));
            self.after(delay, Event::Sync { node: to, process, what });
        }
    }

    pub fn sync_event(&mut self, node: usize, what: SyncEvent) {
        match what {
            SyncEvent::Wake(at) => {
                let now = self.now_at(node).instant;
                let Some(desk) = &mut self.nodes[node].sync else { return };
                if desk.wake_at == Some(at) {
                    desk.wake_at = None;
                    let mut effects = Vec::new();
                    desk.machine.handle_deadline(now, &mut effects);
                    self.sync_effects(node, effects);
                }
            }
            SyncEvent::Second => {
                self.scrub(node);
                self.sync_input(node, Input::Second { p99: Duration::from_millis(2) });
                self.sync_later(node, SECOND, SyncEvent::Second);
            }
            SyncEvent::Look(id, request) => {
                let reply = self.sync_look(node, &request);
                self.sync_input(node, Input::Looked { id, reply });
            }
            SyncEvent::Asked { from, asker, id, request } => match request {
                SyncRequest::Take { .. } if self.has_removed(node, from) => {
                    let reply = SyncReply::Failed("this node was removed".to_owned());
                    self.sync_answer(node, (from, asker), id, (0, reply));
                }
                SyncRequest::Take { body } => {
                    let entries = body_entries(&body).expect("peers send sound pages");
                    let partition = |entry: &PageEntry| self.topology.partition(&entry.key);
                    let moved: BTreeSet<Partition> = entries.iter().map(partition).collect();
                    self.begin_moves(node, moved.iter().copied());
                    let (to, process, giver) = (from, asker, self.nodes[from].id);
                    let waiting =
                        Waiting::Peer { to, process, id, entries: entries.clone(), moved };
                    self.sync_merge_later(node, giver, entries, waiting);
                }
                request => {
                    if let Some(partition) = request.mends() {
                        let peer = self.nodes[from].id;
                        self.sync_input(node, Input::Visited(peer, partition));
                    }
                    let reply = self.sync_look(node, &request);
                    self.sync_answer(node, (from, asker), id, (0, reply));
                }
            },
            SyncEvent::Answered(id, answer) => {
                self.sync_input(node, Input::Answered { id, answer });
            }
            SyncEvent::Merge(from, entries, waiting) => {
                self.sync_merge(node, from, entries, waiting);
            }
        }
    }

    fn sync_look(&self, node: usize, request: &SyncRequest) -> SyncReply {
        let node = &self.nodes[node];
        let mut request = request.clone();
        if let SyncRequest::Objects { tree, names, .. } = &mut request {
            // A store passes over what it cannot read.
            let is_damaged = |name: &[u8]| {
                let mut damaged = node.disk.corrupt.iter().map(|key| key.key());
                damaged.any(|key| key.bucket() == tree.bucket && key.name() == name)
            };
            names.retain(|name| !is_damaged(&name.0));
        }
        answer(&node.disk.synced, &node.topology, &request).expect("memory never fails")
    }

    /// A task merges these; now and then it waits for its turn.
    fn sync_merge_later(
        &mut self,
        node: usize,
        from: NodeId,
        entries: Vec<PageEntry>,
        waiting: Waiting,
    ) {
        let (percent, longest) = self.plan.task_wait;
        let rare = if self.random.chance(percent) { self.random.below(longest) } else { 0 };
        let delay = 50 + self.random.below(MS) + rare;
        self.sync_later(node, delay, SyncEvent::Merge(from, entries, waiting));
    }

    fn sync_merge(
        &mut self,
        node: usize,
        sender: NodeId,
        entries: Vec<PageEntry>,
        waiting: Waiting,
    ) {
        let Some(desk) = &mut self.nodes[node].sync else { return };
        desk.last += 1;
        let merge = desk.last;
        desk.merges.insert(merge, (entries.len(), (false, false), waiting));
        if entries.is_empty() {
            self.sync_merged(node, merge);
        }
        for PageEntry { key, object, .. } in entries {
            let object = object.expect("objects are small here");
            let shard = usize::from(self.stored_key(&key).partition().0) % self.plan.shards;
            let write = Write { key, object, purpose: Purpose::Repair, slots: 0, budget_ms: 1000 };
            let received = self.now_at(node).instant;
            let own = &mut self.nodes[node];
            own.last_origin += 1;
            own.waiting.insert(own.last_origin, (Sender::SyncMerge(merge), 0));
            let (from, request) = (Origin(own.last_origin), Request::Write(write));
            let forwarded = false;
            let input =
                replica::Input::Request { from, sender, received, sent: None, forwarded, request };
            self.input(node, shard, input);
        }
    }

    /// A shard has merged an object, or has not.
    pub fn answer_sync(&mut self, node: usize, merge: u64, response: &Response) {
        let (failed, damaged) = match response {
            Response::Stored(_) => (false, false),
            Response::Failed(failure) if failure.code == FailureCode::Corrupt => (false, true),
            _ => (true, false),
        };
        let Some(desk) = &mut self.nodes[node].sync else { return };
        let Some((left, result, _)) = desk.merges.get_mut(&merge) else { return };
        *left -= 1;
        *result = (result.0 | failed, result.1 | damaged);
        if *left == 0 {
            self.sync_merged(node, merge);
        }
    }

    fn sync_merged(&mut self, node: usize, merge: u64) {
        let Some(desk) = &mut self.nodes[node].sync else { return };
        let Some((_, (failed, is_damaged), waiting)) = desk.merges.remove(&merge) else { return };
        match waiting {
            Waiting::Own(id) => {
                let unmerged = Unmerged { why: "refused".to_owned(), is_damaged: !failed };
                let result = if failed || is_damaged { Err(unmerged) } else { Ok(()) };
                self.sync_input(node, Input::Merged { id, result });
            }
            Waiting::Peer { to, process, id, entries, moved } => {
                self.end_moves(node, moved);
                let own = &self.nodes[node];
                let more = with_more(&own.disk.synced, &own.topology, &entries);
                let reply = match (failed, is_damaged) {
                    (true, _) => SyncReply::Failed("refused".to_owned()),
                    (_, true) => SyncReply::Damaged("damaged".to_owned()),
                    _ => SyncReply::Taken(more.expect("memory never fails")),
                };
                let bytes = |entry: &PageEntry| entry.object.as_deref().map_or(0, <[u8]>::len);
                let brought = entries.iter().map(bytes).sum();
                self.sync_answer(node, (to, process), id, (brought, reply));
            }
        }
    }

    /// One partition's trees against its digests.
    fn scrub(&mut self, node: usize) {
        let partitions = self.plan.partitions;
        let Some(desk) = &mut self.nodes[node].sync else { return };
        desk.scrubbed = (desk.scrubbed + 1) % partitions;
        let partition = Partition(desk.scrubbed as u16);
        self.recount(node, partition);
    }

    pub fn recount(&mut self, node: usize, partition: Partition) {
        if self.plan.bug == Some(Bug::StaleLeaf) {
            return;
        }
        if self.nodes[node].disk.synced.recount(partition).expect("memory never fails") {
            self.note(format!("n{node} had counted {partition:?} wrongly"));
        }
    }

    fn complete(&mut self, node: usize, partition: Partition) {
        let shard = usize::from(partition.0) % self.plan.shards;
        self.input(node, shard, replica::Input::Complete(partition));
    }

    fn whole(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].amnesiac) {
            self.note(format!("n{node} has everything back"));
            for shard in 0..self.plan.shards {
                self.input(node, shard, replica::Input::Whole);
            }
        }
    }
}
