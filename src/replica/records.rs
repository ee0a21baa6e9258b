//! The shard's records: what each step does with one.
//!
//! A step reads, changes and stages a record in one piece. Records that are on the disk only are
//! loaded first, and steps on them wait in line (`keys`).

use super::commits::Waiter;
use super::core::{Core, Event, OpId};
use super::keys::{Handed, KeyState, Reader, Step};
use super::shard::{Op, Shard, stale};
use super::{Effect, Notice, Origin};
use crate::causality::{Object, Sibling, VersionVector};
use crate::ids::NodeId;
use crate::key::Key;
use crate::limits;
use crate::store::{StoreError, StoredKey};
use crate::wire::messages::{Failure, FailureCode, Held, HeldObject, Purpose, Response, Stored};

impl Shard {
    pub(super) fn hand_in(&mut self, key: &StoredKey, step: Step) {
        if !self.core.watches.is_empty() && step.brings() {
            self.core.watches.touch(key);
        }
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

    pub(super) fn loaded(
        &mut self,
        key: &StoredKey,
        result: Result<Option<bytes::Bytes>, StoreError>,
    ) {
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
            Step::Read(op) => self.read_step(key, state, op),
            Step::ReadFor { origin, slots, .. }
                if slots != 0 && !self.core.takes(key, Purpose::Replicate, slots) =>
            {
                self.core.fail(origin, stale());
                None
            }
            Step::ReadFor { origin, digest, .. } => {
                let response = self.held(key, state, digest);
                self.core.respond(origin, response);
                None
            }
            Step::ReadKept { reader, left, found } => {
                self.read_kept_step(key, state, reader, left, found);
                None
            }
            Step::Keep { object, op } => {
                let owner = key.owner().expect("only hints are kept");
                let waiter = op.map_or(Waiter::Nobody, |op| Waiter::Keeper(op, owner));
                self.merge_step(key, state, batch, &object, (Purpose::Hint(owner), &[]), waiter)
            }
            // The slots have changed: it is looked at anew to whom it belongs.
            Step::Take { slots, .. } if self.core.fingerprint(&key.key()) != slots => None,
            Step::Take { object, hint, digest, .. } => {
                let waiter = Waiter::Taken(hint, digest);
                let brought = (Purpose::Handoff, &[self.core.settings.node][..]);
                self.merge_step(key, state, batch, &object, brought, waiter)
            }
            Step::Delivered { digest } => self.delivered_step(key, state, digest),
            Step::Witness { round, at, digest, left } => {
                self.witness(key, state, batch, (round, at), (digest, left))
            }
            Step::Reap { digest } => self.reap_step(key, state, digest),
            Step::MergeFor { origin, sender, object, purpose, slots } => {
                let asked = (origin, sender, purpose, slots);
                self.merge_for_step(key, state, batch, asked, &object)
            }
            // This node is in no slot of the key any more: what it has is about to go.
            Step::Mend { purpose, .. } if !self.core.takes(key, purpose, 0) => None,
            Step::Mend { object, purpose, from } => {
                self.merge_step(key, state, batch, &object, (purpose, &from), Waiter::Nobody)
            }
            Step::Mint(id) => self.mint_step(key, state, id),
        }
    }

    /// A client's write takes its turn on the record.
    fn mint_step(
        &mut self,
        key: &StoredKey,
        state: &mut Result<KeyState, String>,
        id: OpId,
    ) -> Option<u64> {
        let Some(Op::Put(mut put)) = self.ops.remove(&id) else { return None };
        let full = self.core.disk_full();
        let (status, batch) = match state {
            Ok(_) if !put.is_in_place(&self.core, key) => (put.displaced(&mut self.core), None),
            Ok(state) if !has_room(&self.core, key, state, put.bytes()) => {
                (put.no_room(&mut self.core), None)
            }
            Ok(state) => match full {
                None => put.mint(&mut self.core, id, key, state),
                Some(full) => (put.cannot_mint(&mut self.core, full), None),
            },
            Err(why) => {
                let why = Failure::not_applied(FailureCode::Corrupt, why.clone());
                (put.cannot_mint(&mut self.core, why), None)
            }
        };
        self.keep(id, Op::Put(put), status);
        batch
    }

    /// Merges what another node gave, if it goes by the slots that this node goes by.
    fn merge_for_step(
        &mut self,
        key: &StoredKey,
        state: &mut Result<KeyState, String>,
        batch: Option<u64>,
        (origin, sender, purpose, slots): (Origin, NodeId, Purpose, u64),
        object: &Object,
    ) -> Option<u64> {
        if !self.core.takes(key, purpose, slots) {
            self.core.fail(origin, stale());
            return None;
        }
        let is_page = purpose == Purpose::Handoff && slots == 0;
        if is_page && state.is_err() && !self.core.is_owned_here(key) {
            // It is on its way here, all of it, and whoever copies it begins again.
            *state = Ok(KeyState::unreadable());
            let message = "the record was damaged; what belongs there must be copied again";
            self.core.fail(origin, Failure::not_applied(FailureCode::Corrupt, message));
            return self.merge_step(
                key,
                state,
                batch,
                object,
                (purpose, &[sender]),
                Waiter::Nobody,
            );
        }
        self.merge_step(key, state, batch, object, (purpose, &[sender]), Waiter::Replica(origin))
    }

    fn held(&self, key: &StoredKey, state: &Result<KeyState, String>, digest: bool) -> Response {
        let state = match state {
            Ok(state) => state,
            Err(why) => {
                return Response::Failed(Failure::not_applied(FailureCode::Corrupt, why.clone()));
            }
        };
        // Nobody takes an amnesiac's object for what all have: what it is, not which, is of use.
        let amnesiac = self.core.is_amnesiac(key.partition());
        let object = if state.object.is_empty() {
            HeldObject::Missing
        } else {
            let bytes = state.object.encode();
            match digest && !amnesiac && bytes.len() > limits::DIGEST_ABOVE_BYTES {
                true => HeldObject::Digest(crate::causality::digest_of(&key.key(), &bytes)),
                false => HeldObject::Full(bytes),
            }
        };
        Response::Held(Held { object, amnesiac })
    }

    fn read_step(
        &mut self,
        key: &StoredKey,
        state: &Result<KeyState, String>,
        op: OpId,
    ) -> Option<u64> {
        let (from, response) = (self.core.settings.node, self.held(key, state, false));
        self.core.events.push_back((op, Event::Answer { from, id: 0, response }));
        None
    }

    /// Adds what is kept for one member to what was found, and goes on with the next.
    fn read_kept_step(
        &mut self,
        key: &StoredKey,
        state: &Result<KeyState, String>,
        reader: Reader,
        mut left: Vec<NodeId>,
        mut found: Object,
    ) {
        // A damaged hint says nothing, as a missing one does.
        if let Ok(state) = state {
            found.merge(&state.object);
        }
        if let Some(owner) = left.pop() {
            let step = Step::ReadKept { reader, left, found };
            self.core.steps.push_back((key.kept_for(owner), step));
            return;
        }
        let object = match found.is_empty() {
            true => HeldObject::Missing,
            false => HeldObject::Full(found.encode()),
        };
        let response = Response::Held(Held { object, amnesiac: false });
        let from = self.core.settings.node;
        match reader {
            Reader::Op(op) => {
                self.core.events.push_back((op, Event::Answer { from, id: 0, response }));
            }
            Reader::Peer(origin) => self.core.respond(origin, response),
        }
    }

    /// Drops a hint, if it still is what was delivered.
    fn delivered_step(
        &mut self,
        key: &StoredKey,
        state: &mut Result<KeyState, String>,
        digest: u128,
    ) -> Option<u64> {
        let Ok(state) = state else { return None };
        let is_delivered = !state.object.is_empty() && state.object.digest(&key.key()) == digest;
        if !is_delivered {
            return None;
        }
        (state.object, state.mint) = (Object::new(), None);
        self.core.counters.hints_delivered += 1;
        let owner = key.owner().expect("only hints are delivered");
        self.core.hints.delivered(owner, self.core.now.wall);
        Some(self.core.stage(key, state, Waiter::Nobody))
    }

    fn merge_step(
        &mut self,
        key: &StoredKey,
        state: &mut Result<KeyState, String>,
        batch: Option<u64>,
        object: &Object,
        (purpose, from): (Purpose, &[NodeId]),
        waiter: Waiter,
    ) -> Option<u64> {
        let core = &mut self.core;
        let is_replaced = state.is_err() && (purpose == Purpose::Restore || key.owner().is_some());
        if is_replaced {
            *state = Ok(KeyState::unreadable());
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
        let refusal = match has_room(core, key, state, object.encode().len()) {
            false => Some(hints_full()),
            true => is_too_long(state, object).then(clock_too_long),
        };
        if let Some(refusal) = refusal {
            match waiter {
                Waiter::Replica(origin) => core.fail(origin, refusal),
                Waiter::Keeper(op, owner) => {
                    core.events.push_back((op, Event::Kept { owner, kept: false }));
                }
                // Whoever waits tries others, and this node once more at the end.
                _ => let_go(core, key),
            }
            return None;
        }
        let risen = bury_again(core, key, state, object, (purpose, from));
        if merge(core, key, state, object) || risen || is_replaced {
            core.counters.hints_kept += u64::from(key.owner().is_some());
            return Some(core.stage(key, state, waiter));
        }
        match (batch, waiter) {
            (_, Waiter::Nobody) => {}
            (None, Waiter::Taken(hint, digest)) => {
                core.steps.push_back((hint, Step::Delivered { digest }));
            }
            (None, Waiter::Keeper(op, owner)) => {
                core.events.push_back((op, Event::Kept { owner, kept: true }));
            }
            // What it brought is here already, but not durable yet: so it is not acknowledged yet.
            (Some(batch), waiter) => core.wait_for(batch, waiter),
            (None, Waiter::Replica(origin)) => {
                let fsynced = core.settings.fsync;
                core.respond(origin, Response::Stored(Stored { fsynced }));
            }
            (None, Waiter::Op(_)) => {}
        }
        None
    }
}

/// Whether a hint may grow by so many bytes; other records may always.
fn has_room(core: &Core, key: &StoredKey, state: &KeyState, bytes: usize) -> bool {
    let Some(owner) = key.owner() else { return true };
    // An object that is merged with another is at most as long as both.
    core.hints.has_room(owner, state.record_bytes, state.record_bytes + bytes)
}

/// Whether both together would have a clock that nobody can decode. Only contexts that somebody made up can
/// bring a key there.
pub(super) fn is_too_long(state: &KeyState, object: &Object) -> bool {
    let (mine, theirs) = (state.object.clock(), object.clock());
    let most = limits::CLOCK_ENTRIES;
    mine.len() + theirs.len() > most && mine.joined_len(theirs) > most
}

pub(super) fn clock_too_long() -> Failure {
    let message = format!(
        "the clocks of two versions have more than {} entries together",
        limits::CLOCK_ENTRIES
    );
    Failure::not_applied(FailureCode::TooLarge, message)
}

/// A hint is not kept: its owner will learn of the key by comparing.
fn let_go(core: &mut Core, key: &StoredKey) {
    let Some(owner) = key.owner() else { return };
    core.counters.hints_dropped += 1;
    core.hints.mark(key, owner);
}

fn hints_full() -> Failure {
    let message = "this node keeps as much for members that are away as it may";
    Failure::not_applied(FailureCode::Busy, message)
}

/// Where an object brings back a value that was reaped: takes what is remembered of the key for
/// this node's own, so that the value is dead on arrival, and whoever brought it learns so from the
/// record. So it does where a key that was written since is given its old tombstone: a bucket that
/// keeps the latest could take that for the later of the two. Returns whether the record has changed.
pub(super) fn bury_again(
    core: &mut Core,
    key: &StoredKey,
    state: &mut KeyState,
    object: &Object,
    (purpose, from): (Purpose, &[NodeId]),
) -> bool {
    // What is kept for others is looked at when it gets there.
    let Some(remains) = core.graves.of(key).filter(|_| key.owner().is_none()) else { return false };
    let now = core.now.wall;
    let is_news = |sibling: &&Sibling| !state.object.clock().contains(sibling.dot);
    let risen: Vec<String> =
        remains.risen(object, now).filter(is_news).map(|sibling| sibling.dot.to_string()).collect();
    let is_old = !state.object.is_empty()
        && object.siblings().iter().filter(is_news).any(|old| remains.is_dead(old.dot));
    if risen.is_empty() && !is_old {
        return false;
    }
    let remains = remains.clone();
    let by = match purpose {
        Purpose::Replicate => "a write",
        Purpose::Repair | Purpose::Restore => "a read, a repair or anti-entropy",
        Purpose::Handoff => "a hint or a transfer",
        Purpose::Hint(_) => "a hint to keep",
    };
    for dot in risen {
        let (key, from) = (key.key().to_string(), from.to_vec());
        core.notice(Notice::Risen { key, dot, by, from });
    }
    match core.keeps_latest(&key.key()) {
        true => state.object.merge_latest(&remains).0.changed,
        false => state.object.merge(&remains).changed,
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
    core.count_discarded(&name, discarded);
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
