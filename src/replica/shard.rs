//! The shard: takes inputs, runs operations and steps until nothing is left to run, gives effects.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Event, OpId, Status, Waiter};
use super::counters::Counters;
use super::explain::ExplainOp;
use super::forward::Forward;
use super::get::GetOp;
use super::keys::{Handed, KeyState, Keys, Step};
use super::put::{Asked, PutOp};
use super::{Effect, Input, Notice, Origin, Settings};
use crate::causality::{Object, VersionVector};
use crate::ids::NodeId;
use crate::key::Key;
use crate::limits;
use crate::membership::Topology;
use crate::store::{StoreError, StoredKey};
use crate::time::{Instant, Now};
use crate::wire::messages::{
    BucketSettings, Control, Failure, FailureCode, Held, HeldObject, Purpose, Put, Request,
    Response,
};

/// A part of a node: the coordinator and replica of some of its partitions.
///
/// See the module's page for the contract. The owner calls [`Shard::handle`] for each input and
/// [`Shard::flush`] at the end of a turn, and wakes up at [`Shard::next_deadline`] to call
/// [`Shard::handle_deadline`].
pub struct Shard {
    core: Core,
    keys: Keys,
    ops: BTreeMap<OpId, Op>,
    /// Operations whose client has its answer, and that still wait for stragglers to mend or to
    /// confirm. They hold nobody up; at the bound the oldest is let go.
    stragglers: BTreeMap<OpId, Op>,
    last_op: OpId,
    draining: bool,
}

enum Op {
    Get(GetOp),
    Put(PutOp),
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
}

impl Shard {
    /// A shard of a node; `actors` are numbers nobody was ever given before, `seed` is for jitter.
    #[must_use]
    pub fn new(settings: Settings, topology: Arc<Topology>, actors: Range<u64>, seed: u64) -> Self {
        let core = Core::new(settings, topology, actors, seed);
        let (ops, stragglers) = (BTreeMap::new(), BTreeMap::new());
        Self { core, keys: Keys::default(), ops, stragglers, last_op: 0, draining: false }
    }

    /// Takes one input; appends what is to be done.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.core.now = now;
        match input {
            Input::Request { from, received, forwarded, request } => {
                self.request(from, received, forwarded, request);
            }
            Input::Response { from, id, response } => {
                self.core.peers.answered(from);
                let event = Event::Answer { from, response };
                self.core.events.push_back((Core::op_of(id), event));
            }
            Input::Loaded { key, result } => self.loaded(&key, result),
            Input::Committed { batch, result } => {
                self.core.committed(batch, &result);
                self.keys.settled(batch);
            }
            Input::Actors(actors) => self.core.add_actors(actors),
            Input::Topology(topology) => self.core.topology = topology,
            Input::Connected(node) => self.core.peers.connected(node),
            Input::Disconnected(node) => {
                self.core.peers.disconnected(node);
                self.lost(node);
            }
            Input::Up(node) => self.core.peers.up(node),
            Input::Down(node) => {
                self.core.peers.down(node);
                self.lost(node);
            }
            Input::Drain => self.draining = true,
        }
        self.run(effects);
    }

    /// Whatever was under way to `node` will not be answered.
    fn lost(&mut self, node: NodeId) {
        let ops = self.ops.keys().chain(self.stragglers.keys()).copied();
        self.core.events.extend(ops.map(|op| (op, Event::Lost(node))));
    }

    /// Fires the timers that are due.
    pub fn handle_deadline(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.core.now = now;
        self.core.fire_timers();
        self.run(effects);
    }

    /// Ends a turn: everything staged in it becomes one commit.
    pub fn flush(&mut self, effects: &mut Vec<Effect>) {
        self.core.flush();
        effects.append(&mut self.core.effects);
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

    // ---- operations ----------------------------------------------------------------------

    fn event(&mut self, id: OpId, event: Event) {
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

    fn keep(&mut self, id: OpId, op: Op, status: Status) {
        match status {
            Status::Open if op.is_answered() => {
                self.stragglers.insert(id, op);
                if self.stragglers.len() > self.core.settings.max_in_flight {
                    self.stragglers.pop_first();
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
        }
    }

    fn request(&mut self, from: Origin, received: Instant, forwarded: bool, request: Request) {
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
        let deadline = received + budget;
        let asked = Asked { origin: from, started: received, deadline, forwarded };
        if deadline <= self.core.now.instant {
            self.core.counters.expired_on_arrival += 1;
            let message = "the request's budget was spent before it was begun; nothing was done";
            self.core.fail(from, Failure::not_applied(FailureCode::Timeout, message));
            return;
        }
        match request {
            Request::Read(read) => {
                let step = Step::ReadFor { origin: from, digest: read.digest };
                self.core.steps.push_back((self.core.stored_key(&read.key), step));
            }
            Request::Write(write) => match Object::decode(write.object) {
                Ok(object) => {
                    let step = Step::MergeFor { origin: from, object, purpose: write.purpose };
                    self.core.steps.push_back((self.core.stored_key(&write.key), step));
                }
                Err(error) => {
                    let why = format!("object of {}: {error}", write.key);
                    self.core.notice(Notice::Malformed { from: None, why: why.clone() });
                    self.core.fail(from, Failure::not_applied(FailureCode::Invalid, why));
                }
            },
            request => {
                if let Err(failure) = self.operate(asked, request) {
                    self.core.fail(from, failure);
                }
            }
        }
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
                let bucket = usable_bucket(core, &put.key)?;
                check_sizes(core, &put)?;
                if coordinates(core, &asked, &put, bucket)? {
                    let (put, status) = PutOp::begin(core, id, asked, bucket, put)?;
                    (Op::Put(put), status)
                } else {
                    let request = Request::Put(put);
                    let mut forward =
                        Forward::new(asked.origin, request, asked.deadline, Vec::new());
                    let status = forward.begin(core, id);
                    (Op::Forward(forward), status)
                }
            }
            Request::Control(Control::Explain { bucket, key }) => {
                let key = Key::new(bucket.as_bytes(), &key).map_err(|error| {
                    Failure::not_applied(FailureCode::Invalid, error.to_string())
                })?;
                let n = usable_bucket(core, &key)?.n;
                let (explain, status) =
                    ExplainOp::begin(core, id, asked.origin, asked.deadline, n, key);
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

    fn admit(&self) -> Result<(), Failure> {
        if self.draining {
            let message = "this node is stopping and takes no new work; ask another";
            return Err(Failure::not_applied(FailureCode::Draining, message));
        }
        if self.ops.len() >= self.core.settings.max_in_flight {
            let message = "too many requests under way at this node; try again in a moment";
            let mut busy = Failure::not_applied(FailureCode::Busy, message);
            busy.retry_after_ms = 50;
            return Err(busy);
        }
        Ok(())
    }

    // ---- records -------------------------------------------------------------------------

    fn hand_in(&mut self, key: &StoredKey, step: Step) {
        match self.keys.hand_in(key, step) {
            Handed::Run(step, state, batch) => {
                let mut state = Ok(state);
                let changed = self.step(key, step, &mut state, Some(batch));
                let state = state.expect("a record that is here was decoded");
                self.keys.put_back(key, state, changed.unwrap_or(batch));
            }
            Handed::Load => self.core.effects.push(Effect::Load { key: key.clone() }),
            Handed::Waits => {}
        }
    }

    fn loaded(&mut self, key: &StoredKey, result: Result<Option<bytes::Bytes>, StoreError>) {
        let steps = self.keys.loaded(key);
        let decoded = result.map_err(|error| error.to_string()).and_then(|bytes| {
            KeyState::decode(bytes).map_err(|error| format!("damaged record: {error}"))
        });
        let mut state = decoded;
        if let (Err(why), false) = (&state, steps.is_empty()) {
            let (key, why) = (key.key().to_string(), why.clone());
            self.core.notice(Notice::Corrupt { key, why });
        }
        let mut batch = None;
        for step in steps {
            batch = self.step(key, step, &mut state, batch).or(batch);
        }
        if let (Ok(state), Some(batch)) = (state, batch) {
            self.keys.put_back(key, state, batch);
        }
    }

    /// Runs one step on a record that was last changed in `batch`, if that has not been committed
    /// yet. Returns the batch of a new change.
    fn step(
        &mut self,
        key: &StoredKey,
        step: Step,
        state: &mut Result<KeyState, String>,
        batch: Option<u64>,
    ) -> Option<u64> {
        match step {
            Step::Read(op) => {
                let (from, response) = (self.core.settings.node, self.held(key, state, false));
                self.core.events.push_back((op, Event::Answer { from, response }));
                None
            }
            Step::ReadFor { origin, digest } => {
                let response = self.held(key, state, digest);
                self.core.respond(origin, response);
                None
            }
            Step::MergeFor { origin, object, purpose } => {
                self.merge_step(key, state, batch, &object, purpose, Waiter::Replica(origin))
            }
            Step::Mend { object, purpose } => {
                self.merge_step(key, state, batch, &object, purpose, Waiter::Nobody)
            }
            Step::Mint(id) => {
                let Some(Op::Put(mut put)) = self.ops.remove(&id) else { return None };
                let (status, batch) = match state {
                    Ok(state) => put.mint(&mut self.core, id, key, state),
                    Err(why) => (put.cannot_mint(&mut self.core, why), None),
                };
                self.keep(id, Op::Put(put), status);
                batch
            }
        }
    }

    fn held(&self, key: &StoredKey, state: &Result<KeyState, String>, digest: bool) -> Response {
        let state = match state {
            Ok(state) => state,
            Err(why) => {
                return Response::Failed(Failure::not_applied(FailureCode::Corrupt, why.clone()));
            }
        };
        let object = if state.object.is_empty() {
            HeldObject::Missing
        } else {
            let bytes = state.object.encode();
            match digest && bytes.len() > limits::DIGEST_ABOVE_BYTES {
                true => HeldObject::Digest(crate::causality::digest_of(&key.key(), &bytes)),
                false => HeldObject::Full(bytes),
            }
        };
        Response::Held(Held { object, amnesiac: self.core.settings.amnesiac })
    }

    fn merge_step(
        &mut self,
        key: &StoredKey,
        state: &mut Result<KeyState, String>,
        batch: Option<u64>,
        object: &Object,
        purpose: Purpose,
        waiter: Waiter,
    ) -> Option<u64> {
        let core = &mut self.core;
        if state.is_err() && purpose == Purpose::Restore {
            *state = Ok(KeyState::default());
        }
        let state = match state {
            Ok(state) => state,
            Err(why) => {
                if let Waiter::Replica(origin) = waiter {
                    core.fail(origin, Failure::not_applied(FailureCode::Corrupt, why.clone()));
                }
                return None;
            }
        };
        if merge(core, key, state, object) {
            return Some(core.stage(key, state, waiter));
        }
        match (batch, waiter) {
            (_, Waiter::Nobody) => {}
            // What it brought is here already, but not durable yet: so it is not acknowledged yet.
            (Some(batch), waiter) => core.wait_for(batch, waiter),
            (None, Waiter::Replica(origin)) => {
                let fsynced = core.settings.fsync;
                core.respond(origin, Response::Stored(crate::wire::messages::Stored { fsynced }));
            }
            (None, Waiter::Op(_)) => {}
        }
        None
    }
}

/// Merges what somebody else holds into this node's record. Returns whether the record changed.
pub(super) fn merge(
    core: &mut Core,
    key: &StoredKey,
    state: &mut KeyState,
    object: &Object,
) -> bool {
    if object.is_empty() {
        return false;
    }
    let name = key.key();
    let forgot = check_memory(core, &name, state, object.clock());
    let (outcome, discarded) = match core.keeps_latest(&name) {
        true => state.object.merge_latest(object),
        false => (state.object.merge(object), 0),
    };
    core.counters.discarded_by_last_write_wins += discarded as u64;
    for dot in &outcome.collisions {
        let (key, dot) = (name.to_string(), dot.to_string());
        core.notice(Notice::DotCollision { key, dot });
    }
    if outcome.changed {
        core.counters.merges += 1;
        for sibling in object.siblings() {
            core.recent.insert(sibling.write_id, sibling.dot);
        }
    }
    core.clock.observe(object.latest_hlc(), core.now.wall);
    outcome.changed || forgot || discarded > 0
}

/// Compares what somebody else has seen of this node's dots with what this node remembers. If it
/// has forgotten some, the key goes on under a new actor. Returns whether that was so.
pub(super) fn check_memory(
    core: &mut Core,
    key: &Key,
    state: &mut KeyState,
    seen: &VersionVector,
) -> bool {
    let Some(mint) = state.mint else { return false };
    if mint.actor.incarnation != core.settings.incarnation
        || seen.highest(mint.actor) <= mint.counter
    {
        return false;
    }
    state.mint = None;
    core.notice(Notice::Amnesia { key: key.to_string() });
    true
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

/// Whether this node coordinates the put itself, or passes it on.
fn coordinates(
    core: &Core,
    asked: &Asked,
    put: &Put,
    bucket: BucketSettings,
) -> Result<bool, Failure> {
    let is_primary = core.primaries(&put.key, bucket.n).contains(&core.settings.node);
    let is_writable = core.read_only_until <= core.now.instant;
    match (is_primary && is_writable, asked.forwarded) {
        (true, _) => Ok(true),
        (false, false) => Ok(false),
        (false, true) if is_primary => {
            let message = "this node's disk is full; it serves reads";
            Err(Failure::not_applied(FailureCode::DiskFull, message))
        }
        (false, true) => {
            let message = "the node this was passed to is no replica of the key: two nodes know \
                           different members; try again in a moment";
            Err(Failure::not_applied(FailureCode::Unavailable, message))
        }
    }
}
