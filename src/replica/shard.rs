//! The shard: takes inputs, runs operations and steps until nothing is left to run, gives effects.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Event, OpId, Status};
use super::counters::Counters;
use super::explain::ExplainOp;
use super::forward::{Forward, begin_within};
use super::get::GetOp;
use super::handoff::{self, Handoff};
use super::hints::HintTally;
use super::keys::{Keys, Reader, Step};
use super::late::too_late;
use super::put::{Asked, PutOp};
use super::{Effect, Input, Notice, Origin, Settings};
use crate::causality::Object;
use crate::ids::NodeId;
use crate::key::Key;
use crate::limits;
use crate::membership::Topology;
use crate::time::{Instant, Now};
use crate::wire::messages::{
    BucketSettings, Control, Failure, FailureCode, Purpose, Put, Read, Request, Write,
};

/// Steps that may wait for the disk, for each request that may be under way: what other nodes ask for their
/// clients comes to about as much as what this node asks of them.
const WAITING_FOR_EACH: usize = 4;

/// A part of a node: the coordinator and replica of some of its partitions.
///
/// See the module's page for the contract. The owner calls [`Shard::handle`] for each input and
/// [`Shard::flush`] at the end of a turn, and wakes up at [`Shard::next_deadline`] to call
/// [`Shard::handle_deadline`].
pub struct Shard {
    pub(super) core: Core,
    pub(super) keys: Keys,
    pub(super) handoff: Handoff,
    pub(super) ops: BTreeMap<OpId, Op>,
    /// Operations whose client has its answer, and that still wait for stragglers to mend or to
    /// confirm. They hold nobody up; at the bound the oldest is let go.
    pub(super) stragglers: BTreeMap<OpId, Op>,
    last_op: OpId,
    draining: bool,
}

pub(super) enum Op {
    Get(GetOp),
    Put(Box<PutOp>),
    Forward(Forward),
    Explain(ExplainOp),
}

impl Op {
    /// Whether its client has its answer.
    fn is_answered(&self) -> bool {
        match self {
            Self::Get(get) => get.is_answered(),
            Self::Put(put) => put.is_answered(),
            Self::Forward(_) | Self::Explain(_) => false,
        }
    }

    /// The key it is about, if it may carry an object of it.
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Get(get) => Some(get.key()),
            Self::Put(put) => Some(put.key()),
            Self::Forward(forward) => forward.key(),
            Self::Explain(_) => None,
        }
    }
}

impl Shard {
    /// A shard of a node; `actors` are numbers nobody was ever given before, `seed` is for jitter.
    #[must_use]
    pub fn new(settings: Settings, topology: Arc<Topology>, actors: Range<u64>, seed: u64) -> Self {
        let handoff = Handoff::new(settings.hint_rate);
        let core = Core::new(settings, topology, actors, seed);
        let (ops, stragglers) = (BTreeMap::new(), BTreeMap::new());
        let keys = Keys::default();
        Self { core, keys, handoff, ops, stragglers, last_op: 0, draining: false }
    }

    /// Takes one input; appends what is to be done.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.core.now = now;
        match input {
            Input::Request { from, sender, received, sent, forwarded, request } => {
                self.request((from, sender), (received, sent), forwarded, request);
            }
            Input::Response { from, id, response } => {
                self.core.peers.answered(from);
                match Core::op_of(id) {
                    op if handoff::is_delivery(op) => {
                        self.handoff.answered(&mut self.core, (from, id), &response);
                    }
                    op => {
                        let event = Event::Answer { from, id, response };
                        self.core.events.push_back((op, event));
                    }
                }
            }
            Input::Loaded { key, result } => self.loaded(&key, result),
            Input::GraveFound { key, bytes } => self.grave_found(key, bytes),
            Input::Reap { from, order } => self.reap(from, order),
            Input::Fence { from, view } => self.fence(from, view),
            Input::Committed { batch, result } => {
                let is_refusal = self.core.committed(batch, &result);
                self.keys.settled(batch);
                if is_refusal {
                    self.keys.refused();
                }
            }
            Input::Actors(actors) => self.core.add_actors(actors),
            Input::Topology(topology) => {
                self.core.topology = topology;
                self.handoff.retry(&self.core);
                self.end_watches();
                self.tell_all(|| Event::Refreshed);
            }
            Input::Exchanged(node) => {
                self.core.exchanging.remove(&node);
                self.tell_all(|| Event::Refreshed);
            }
            Input::Hints { owner, result } => self.handoff.listed(&mut self.core, owner, result),
            Input::HintFound { key, bytes, kept } => {
                if let Some(owner) = key.owner().filter(|_| self.core.is_mine(&key)) {
                    self.core.hints.found(owner, bytes, kept);
                }
            }
            Input::Connected(node) => {
                self.core.peers.connected(node);
                self.handoff.retry(&self.core);
            }
            Input::Disconnected(node) => {
                self.core.peers.disconnected(node);
                self.lost(node);
            }
            Input::Complete(partition) => drop(self.core.complete.insert(partition)),
            Input::Whole => self.core.settings.amnesiac = false,
            Input::Up(node) => {
                self.core.peers.up(node);
                self.handoff.retry(&self.core);
            }
            Input::Down(node) => {
                self.core.peers.down(node);
                self.lost(node);
            }
            Input::Room(room) => self.core.full = room.err(),
            Input::Drain => self.draining = true,
        }
        self.run(effects);
    }

    /// Whatever was under way to `node` will not be answered.
    fn lost(&mut self, node: NodeId) {
        self.core.exchanging.remove(&node);
        self.handoff.lost(&self.core, node);
        self.tell_all(|| Event::Lost(node));
    }

    /// Fires the timers that are due.
    pub fn handle_deadline(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.core.now = now;
        self.core.fire_timers();
        self.run(effects);
    }

    /// Ends a turn: everything staged in it becomes one commit.
    pub fn flush(&mut self, effects: &mut Vec<Effect>) {
        self.handoff.turn(&mut self.core);
        self.run(effects);
        self.core.flush();
        effects.append(&mut self.core.effects);
    }

    /// The node is about to stop: of everything that was acknowledged, what some of the key's
    /// members have not confirmed yet is kept for them. The owner ends the turn afterwards.
    pub fn let_go(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.core.now = now;
        for (_, op) in std::mem::take(&mut self.stragglers) {
            if let Op::Put(put) = op {
                put.let_go(&mut self.core);
            }
        }
        self.run(effects);
    }

    /// When [`Shard::handle_deadline`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.core.next_timer()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.core.counters
    }

    /// By bucket, concurrent versions that last-write-wins has dropped since the shard was made, of keys
    /// whose first owner is this node.
    #[must_use]
    pub fn discarded(&self) -> &BTreeMap<String, u64> {
        &self.core.discarded
    }

    /// What is kept for members that are away.
    #[must_use]
    pub fn hints(&self) -> BTreeMap<NodeId, HintTally> {
        self.core.hints.tallies(self.core.now.wall)
    }

    /// The recent 99th percentile of what this node's clients wait for.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.core.strain.p99()
    }

    /// Operations whose clients wait.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// Runs steps and events until none is left. Steps come first: they are what events waited
    /// for.
    fn run(&mut self, effects: &mut Vec<Effect>) {
        loop {
            if let Some((key, step)) = self.core.steps.pop_front() {
                self.hand_in(&key, step);
            } else if let Some((op, event)) = self.core.events.pop_front() {
                self.event(op, event);
            } else {
                break;
            }
        }
        effects.append(&mut self.core.effects);
    }

    /// Tells all operations something.
    fn tell_all(&mut self, event: impl Fn() -> Event) {
        let ops = self.ops.keys().chain(self.stragglers.keys()).copied();
        self.core.events.extend(ops.map(|op| (op, event())));
    }

    // ---- operations ----------------------------------------------------------------------

    fn event(&mut self, id: OpId, event: Event) {
        if id == handoff::OPERATION {
            self.handoff.tick(&mut self.core);
            return;
        }
        // An operation that is over hears nothing.
        let op = self.ops.remove(&id).or_else(|| self.stragglers.remove(&id));
        let Some(mut op) = op else { return };
        let core = &mut self.core;
        let status = match &mut op {
            Op::Get(get) => get.event(core, id, event),
            Op::Put(put) => put.event(core, id, event),
            Op::Forward(forward) => forward.event(core, id, event),
            Op::Explain(explain) => explain.event(core, id, event),
        };
        self.keep(id, op, status);
    }

    pub(super) fn keep(&mut self, id: OpId, op: Op, status: Status) {
        self.touch_by(&op);
        match status {
            Status::Open if op.is_answered() => {
                self.stragglers.insert(id, op);
                if self.stragglers.len() > self.core.settings.max_in_flight
                    && let Some((_, Op::Put(put))) = self.stragglers.pop_first()
                {
                    put.let_go(&mut self.core);
                }
            }
            Status::Open => {
                self.ops.insert(id, op);
            }
            Status::Finished => {}
            Status::PassOn(mut forward) => {
                // Under a number of its own: late answers to what was asked before are no
                // answers to what is passed on.
                self.last_op += 1;
                let id = self.last_op;
                let status = forward.begin(&mut self.core, id);
                self.keep(id, Op::Forward(*forward), status);
            }
            Status::StandIn(asked) => {
                let (asked, put) = *asked;
                let write_id = put.write_id;
                if let Err(failure) = self.put(asked, put) {
                    self.core.fail(asked.origin, asked.failure(write_id, failure));
                }
            }
        }
    }

    fn request(
        &mut self,
        (from, sender): (Origin, NodeId),
        (received, sent): (Instant, Option<Instant>),
        forwarded: bool,
        request: Request,
    ) {
        let budget_ms = match &request {
            Request::Get(get) => get.budget_ms,
            Request::Put(put) => put.budget_ms,
            Request::Read(read) => read.budget_ms,
            Request::Write(write) => write.budget_ms,
            Request::Control(_) => 0,
        };
        let budget = match budget_ms {
            0 => self.core.settings.timeout,
            ms => Duration::from_millis(u64::from(ms.min(limits::BUDGET_MS_MAX))),
        };
        let began = sent.unwrap_or(received);
        let deadline = began + budget;
        let begin_by = match forwarded {
            false => deadline,
            // By then its sender asks somebody else.
            true => deadline.min(began + begin_within(&self.core.settings)),
        };
        let (started, uncertain) = (received, false);
        let asked = Asked { origin: from, started, sent, begin_by, deadline, forwarded, uncertain };
        let worth_until = if matches!(request, Request::Put(_)) { begin_by } else { deadline };
        if worth_until <= self.core.now.instant {
            self.core.counters.expired_on_arrival += 1;
            self.core.fail(from, too_late());
            return;
        }
        // Behind a disk that is slow, other nodes' requests pile up as clients' do.
        if self.keys.waiting() >= WAITING_FOR_EACH * self.core.settings.max_in_flight {
            self.core.fail(from, busy("too many requests wait for this node's disk"));
            return;
        }
        match request {
            Request::Read(read) => self.read_for(from, &read),
            Request::Write(write) => self.write_for(from, sender, write),
            request => {
                if let Err(failure) = self.operate(asked, request) {
                    self.core.fail(from, failure);
                }
            }
        }
    }

    /// A coordinator on another node asks what is held here.
    fn read_for(&mut self, from: Origin, read: &Read) {
        let core = &mut self.core;
        if read.fallback && core.bucket(&read.key).is_some() {
            core.read_kept(&read.key, Reader::Peer(from));
        } else {
            let Read { digest, slots, .. } = *read;
            let step = Step::ReadFor { origin: from, digest, slots };
            core.steps.push_back((core.stored_key(&read.key), step));
        }
    }

    /// A coordinator on another node, or somebody who kept it, gives an object.
    fn write_for(&mut self, from: Origin, sender: NodeId, write: Write) {
        let core = &mut self.core;
        let object = match Object::decode(write.object) {
            Ok(object) => object,
            Err(error) => {
                let why = format!("object of {}: {error}", write.key);
                core.notice(Notice::Malformed { from: None, why: why.clone() });
                core.fail(from, Failure::not_applied(FailureCode::Invalid, why));
                return;
            }
        };
        let key = core.stored_key(&write.key);
        let Write { purpose, slots, .. } = write;
        let key = match purpose {
            Purpose::Hint(owner) => key.kept_for(owner),
            _ => key,
        };
        let step = Step::MergeFor { origin: from, sender, object, purpose, slots };
        core.steps.push_back((key, step));
    }

    /// Begins an operation for a client.
    fn operate(&mut self, asked: Asked, request: Request) -> Result<(), Failure> {
        self.admit()?;
        let id = self.last_op + 1;
        self.last_op = id;
        let core = &mut self.core;
        let (op, status) = match request {
            Request::Get(get) => {
                let bucket = usable_bucket(core, &get.key)?;
                let (get, status) = GetOp::begin(
                    core,
                    id,
                    asked.origin,
                    asked.started,
                    asked.deadline,
                    bucket,
                    get,
                );
                (Op::Get(get), status)
            }
            Request::Put(put) => {
                usable_bucket(core, &put.key)?;
                check_sizes(core, &put)?;
                let Coordinator::Another(refusal) = coordinator(core, &asked, &put)? else {
                    return self.put(asked, put);
                };
                let mut forward = Forward::new(&asked, Request::Put(put), refusal);
                let status = forward.begin(core, id);
                (Op::Forward(forward), status)
            }
            Request::Control(Control::Explain { bucket, key }) => {
                let key = Key::new(bucket.as_bytes(), &key).map_err(|error| {
                    Failure::not_applied(FailureCode::Invalid, error.to_string())
                })?;
                usable_bucket(core, &key)?;
                let (explain, status) =
                    ExplainOp::begin(core, id, asked.origin, asked.deadline, key);
                (Op::Explain(explain), status)
            }
            _ => {
                let message = "not a request for a shard";
                return Err(Failure::not_applied(FailureCode::Invalid, message));
            }
        };
        self.keep(id, op, status);
        Ok(())
    }

    /// Coordinates a write: this node owns a slot of the key, or stands in.
    fn put(&mut self, asked: Asked, put: Put) -> Result<(), Failure> {
        self.last_op += 1;
        let id = self.last_op;
        let bucket = usable_bucket(&self.core, &put.key)?;
        let (put, status) = PutOp::begin(&mut self.core, id, asked, bucket, put)?;
        self.keep(id, Op::Put(Box::new(put)), status);
        Ok(())
    }

    fn admit(&self) -> Result<(), Failure> {
        if self.draining {
            let message = "this node is stopping and takes no new work; ask another";
            return Err(Failure::not_applied(FailureCode::Draining, message));
        }
        if self.ops.len() >= self.core.settings.max_in_flight {
            return Err(busy("too many requests under way at this node"));
        }
        Ok(())
    }
}

fn busy(why: &str) -> Failure {
    let message = format!("{why}; try again in a moment");
    Failure { retry_after_ms: 50, ..Failure::not_applied(FailureCode::Busy, message) }
}

pub(super) fn stale() -> Failure {
    let message = "the nodes know different members, and are about to agree; try again in a moment";
    Failure::not_applied(FailureCode::Stale, message)
}

fn usable_bucket(core: &Core, key: &Key) -> Result<BucketSettings, Failure> {
    let actual = key.name().len();
    if actual > core.settings.key_bytes {
        let most = core.settings.key_bytes;
        let message = format!("the key has {actual} bytes; limits.key_bytes allows {most}");
        return Err(Failure::not_applied(FailureCode::TooLarge, message));
    }
    core.bucket(key).ok_or_else(|| {
        let name = key.bucket();
        let message =
            format!("there is no bucket {name:?}; create it with: ringdove bucket create {name}");
        Failure::not_applied(FailureCode::NoBucket, message)
    })
}

fn check_sizes(core: &Core, put: &Put) -> Result<(), Failure> {
    let actual = put.value.as_ref().map_or(0, bytes::Bytes::len);
    let most = core.settings.value_bytes;
    if actual > most {
        let message = format!("the value has {actual} bytes; limits.value_bytes allows {most}");
        return Err(Failure::not_applied(FailureCode::TooLarge, message));
    }
    Ok(())
}

/// Who coordinates a put.
enum Coordinator {
    ThisNode,
    /// And why this node, which should, cannot.
    Another(Option<Failure>),
}

fn coordinator(core: &Core, asked: &Asked, put: &Put) -> Result<Coordinator, Failure> {
    let owners = core.owners(&put.key);
    let is_primary = owners.contains(&core.settings.node);
    if asked.forwarded && !is_primary {
        let message = "the node this was passed to is no replica of the key: two nodes know \
                       different members; try again in a moment";
        return Err(Failure::not_applied(FailureCode::Unavailable, message));
    }
    // Nobody else can: this node stands in.
    let stands_in = || !put.strict && !owners.iter().any(|node| core.usable(*node));
    if !is_primary && !stands_in() {
        return Ok(Coordinator::Another(None));
    }
    match core.disk_full() {
        None => Ok(Coordinator::ThisNode),
        Some(failure) if asked.forwarded => Err(failure),
        Some(failure) => Ok(Coordinator::Another(Some(failure))),
    }
}
