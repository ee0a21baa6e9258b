//! A client's write.
//!
//! ```text
//!   observe ──────────▶ mint ───────────────▶ replicate ─────────▶ answer the client
//!   (only if the write  one step on this      the whole object to  when W have it durably,
//!    builds on what is  node's record: drop   everybody in a slot  this node among them;
//!    there, or may have what the basis        of the key; kept for then on to the rest while
//!    been done already) covers, new dot       those who are away   they can be reached
//! ```
//!
//! Whoever owns a slot of the key coordinates. If no owner can be reached and the write is not
//! strict, this node **stands in**: it makes the dot in the record that it keeps for the first of
//! them.
//!
//! The context in the answer holds what the write has seen: what it built on, and its own dot. It
//! does not hold what stands beside the new sibling, or else the client's next write would replace
//! values that the client was never shown.
//!
//! Up to the mint, a failure means "not applied". From the mint on the object may stand anywhere,
//! and what falls short of `W` is "unknown", with the count so far.

use bytes::Bytes;

use super::ballot::{Ballot, Wants};
use super::commits::Waiter;
use super::core::{Core, Event, OpId, Status};
use super::coverage::{Needs, check_reachable};
use super::forward::Forward;
use super::keys::{KeyState, Step};
use super::quorum::Verdict;
use super::replication::Replication;
use super::{Notice, Origin, late};
use crate::causality::{Content, Context, Dot, Hlc, Object, Sibling, VersionVector};
use crate::ids::{NodeId, WriteId};
use crate::key::Key;
use crate::limits;
use crate::store::StoredKey;
use crate::store::record::Mint;
use crate::time::{Instant, WallMs};
use crate::wire::messages::{
    Basis, BucketSettings, Condition, Done, Expiry, Failure, FailureCode, Level, Outcome, Purpose,
    Put, Request, Response,
};

#[derive(Debug)]
pub(super) struct PutOp {
    put: Put,
    context: Option<Context>,
    bucket: BucketSettings,
    needs: Needs,
    /// This node owns no slot of the key and stands in for this member.
    kept_for: Option<NodeId>,
    asked: Asked,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Observing(Ballot),
    /// With what was observed, and by whom it was shown.
    Minting(Object, Vec<NodeId>),
    Replicating {
        replication: Replication,
        token: Bytes,
        answered: bool,
    },
}

/// Who asked, since when, until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) origin: Origin,
    pub(super) started: Instant,
    /// When it was sent, if it says so: then the same may have been sent elsewhere since.
    pub(super) sent: Option<Instant>,
    /// A write is begun by then, or not at all. Afterwards its sender may ask somebody else, and others
    /// may write over it: what is begun later could undo what is newer.
    pub(super) begin_by: Instant,
    pub(super) deadline: Instant,
    pub(super) forwarded: bool,
    /// It is a write that was passed on before, and nobody knows what came of that.
    pub(super) uncertain: bool,
}

impl Asked {
    /// What the client is told: whatever fails now says nothing of what may have happened before.
    pub(super) fn failure(&self, write_id: WriteId, failure: Failure) -> Failure {
        if !self.uncertain || failure.outcome == Outcome::Unknown {
            return failure;
        }
        let message = format!(
            "the write was passed on to a replica that has not answered, and may still take effect; \
             then: {}",
            failure.message
        );
        let (code, outcome, write_id) = (FailureCode::Unknown, Outcome::Unknown, Some(write_id));
        Failure { code, outcome, write_id, message, ..failure }
    }
}

impl PutOp {
    pub(super) fn begin(
        core: &mut Core,
        op: OpId,
        asked: Asked,
        bucket: BucketSettings,
        mut put: Put,
    ) -> Result<(Self, Status), Failure> {
        let context = match &put.basis {
            Basis::Context(token) => Some(Context::parse(&put.key, token).map_err(|error| {
                Failure::not_applied(FailureCode::BadContext, error.to_string())
            })?),
            // A blind delete would delete nothing: it takes what is there.
            Basis::Blind if put.value.is_none() => {
                put.basis = Basis::Observed;
                None
            }
            Basis::Blind | Basis::Observed => None,
        };
        let w = if put.w == Level::Default { bucket.w } else { put.w };
        let needs = Needs { w, pw: put.pw, strict: put.strict };
        let deadline = asked.deadline;
        check_reachable(core, &put.key, needs)?;
        let participants = core.participants(&put.key);
        let kept_for = match participants.contains(&core.settings.node) {
            true => None,
            false => participants.into_iter().find(|node| !core.usable(*node)),
        };
        core.deadline_timer(op, deadline);
        core.attempt_timer(op, core.settings.attempt);
        let observe = put.basis == Basis::Observed || put.attempt > 0;
        // A repeated write asks everyone at first: whoever has it will say so.
        let r = if observe { bucket.r } else { Level::Count(0) };
        let (pr, strict, everyone) = (Level::Default, put.strict, put.attempt > 0);
        // Without a condition a sloppy write does not wait for what it might see.
        let insists = strict || put.condition != Condition::None;
        let wants = Wants { r, pr, strict, everyone, insists };
        let ballot = Ballot::new(core, put.key.clone(), wants, deadline);
        let phase = Phase::Observing(ballot);
        let mut this = Self { put, context, bucket, needs, kept_for, asked, phase };
        if let Phase::Observing(ballot) = &mut this.phase {
            ballot.begin(core, op);
        }
        let status = this.progress(core, op);
        Ok((this, status))
    }

    pub(super) fn key(&self) -> &Key {
        &self.put.key
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(&self.phase, Phase::Replicating { answered: true, .. })
    }

    fn fail(&self, core: &mut Core, failure: Failure) {
        let failure = self.asked.failure(self.put.write_id, failure);
        core.fail(self.asked.origin, failure);
    }

    /// Nobody will ask this operation anything any more: what is not confirmed is kept here.
    pub(super) fn let_go(&self, core: &mut Core) {
        if let Phase::Replicating { replication, .. } = &self.phase {
            replication.finish(core);
        }
    }

    pub(super) fn event(&mut self, core: &mut Core, op: OpId, event: Event) -> Status {
        match event {
            Event::Deadline => return self.out_of_time(core),
            Event::Attempt => {
                self.attempt(core, op);
                core.attempt_timer(op, core.settings.attempt);
            }
            event => match &mut self.phase {
                Phase::Observing(ballot) => match event {
                    Event::Answer { from, id, response } => {
                        ballot.answered(core, op, (from, id), response);
                    }
                    Event::Lost(node) => ballot.lost(core, op, node),
                    Event::Refreshed => ballot.refresh(core, op),
                    Event::Hedge => ballot.hedge(core, op),
                    _ => {}
                },
                Phase::Minting(..) => {}
                Phase::Replicating { replication, .. } => replication.event(core, op, event),
            },
        }
        self.progress(core, op)
    }

    fn progress(&mut self, core: &mut Core, op: OpId) -> Status {
        match &mut self.phase {
            Phase::Observing(ballot) => match ballot.verdict() {
                Verdict::Pending => Status::Open,
                Verdict::Lost if self.put.condition != Condition::None => {
                    let (acks, needed) = (ballot.confirmed().0.len(), ballot.needed());
                    let message = format!(
                        "a conditional write looks at {needed} replicas first; {acks} could answer"
                    );
                    self.fail(core, Failure::not_applied(FailureCode::Unavailable, message));
                    Status::Finished
                }
                // An unconditional write never stops for want of readers: it builds on what could
                // be seen, and what could not be seen will stand beside it.
                Verdict::Won | Verdict::Lost => self.observed(core, op),
            },
            Phase::Minting(..) => Status::Open,
            Phase::Replicating { .. } => self.replicated(core),
        }
    }

    fn observed(&mut self, core: &mut Core, op: OpId) -> Status {
        let Phase::Observing(ballot) = &self.phase else { return Status::Open };
        self.phase = Phase::Minting(ballot.merged(core), ballot.holders());
        let key = core.stored_key(&self.put.key);
        let key = self.kept_for.map_or(key.clone(), |owner| key.kept_for(owner));
        core.steps.push_back((key, Step::Mint(op)));
        Status::Open
    }

    fn check_condition(&self, held: &Object, now: WallMs) -> Result<(), Failure> {
        let exists = !held.values(now).is_empty();
        let (code, message) = match (self.put.condition, exists) {
            (Condition::Absent, true) => (FailureCode::Exists, "a value is there already"),
            (Condition::Present, false) => (FailureCode::Absent, "no value is there"),
            (Condition::Unchanged, _) if !self.has_seen(held) => {
                (FailureCode::Exists, "the key has been written since it was read")
            }
            _ => return Ok(()),
        };
        Err(Failure::not_applied(code, message))
    }

    /// Writes into this node's record: the one place where dots are made.
    ///
    /// Returns the batch that holds the change, if there is one.
    pub(super) fn mint(
        &mut self,
        core: &mut Core,
        op: OpId,
        key: &StoredKey,
        state: &mut KeyState,
    ) -> (Status, Option<u64>) {
        let Phase::Minting(observed, from) = &mut self.phase else { return (Status::Open, None) };
        if core.now.instant >= self.asked.begin_by {
            self.fail(core, late::too_late());
            return (Status::Finished, None);
        }
        let (observed, from) = (std::mem::take(observed), std::mem::take(from));
        if super::records::is_too_long(state, &observed) {
            self.fail(core, super::records::clock_too_long());
            return (Status::Finished, None);
        }
        let brought = (Purpose::Repair, &from[..]);
        let mut changed = super::records::bury_again(core, key, state, &observed, brought);
        changed |= super::records::merge(core, key, state, &observed);
        if let Some(context) = &self.context {
            changed |= super::records::check_memory(core, &self.put.key, state, &context.clock);
        }
        let seen = match self.is_repeated(core, key, state) {
            true => Ok(self.seen_before(core, state)),
            false if self.may_be_forgotten(core, state) => Err(late::forgotten()),
            false => self.write(core, state),
        };
        let seen = match seen {
            Ok(seen) => seen,
            Err(failure) => {
                self.fail(core, failure);
                // What was merged is in the record now, and later steps on it wait for its batch.
                let batch = changed.then(|| core.stage(key, state, Waiter::Nobody));
                return (Status::Finished, batch);
            }
        };
        let batch = core.stage(key, state, Waiter::Op(op));
        let object = state.object.encode();
        let token = seen.token(&self.put.key);
        let written = (self.put.key.clone(), object);
        let replication =
            Replication::begin(core, op, written, self.needs, self.asked.deadline, self.kept_for);
        core.counters.stood_in += u64::from(self.kept_for.is_some());
        self.phase = Phase::Replicating { replication, token, answered: false };
        (Status::Open, Some(batch))
    }

    fn is_repeated(&self, core: &Core, key: &StoredKey, state: &KeyState) -> bool {
        let id = self.put.write_id;
        let recent = core.recent.dot(id);
        let seen = recent.is_some_and(|dot| state.object.clock().contains(dot));
        let known = seen || state.object.has_write(id) || state.object.has_replaced(id);
        // Or the key was deleted and reaped since.
        known || core.graves.knows(key, id, recent)
    }

    /// Whether it may have been done elsewhere and be forgotten, where it would go over what is newer.
    fn may_be_forgotten(&self, core: &Core, state: &KeyState) -> bool {
        let Some(sent) = self.asked.sent else { return false };
        match core.keeps_latest(&self.put.key) {
            true => late::is_written_since(sent, core.now, &state.object),
            false if self.put.basis == Basis::Observed => {
                late::may_be_forgotten(sent, core.now, &state.object)
            }
            // What is replaced was seen by whoever sent it.
            false => false,
        }
    }

    /// What a write that was done before has seen, as far as that is still known.
    fn seen_before(&self, core: &mut Core, state: &KeyState) -> Context {
        core.counters.repeated_writes += 1;
        // What the first try observed is forgotten, and what this one did observe may be newer.
        let basis = self.context.clone().unwrap_or_default();
        let done = |sibling: &&Sibling| sibling.write_id == self.put.write_id;
        state.object.siblings().iter().filter(done).fold(basis, Context::after)
    }

    /// Makes the dot and writes. Returns what the write has seen, itself included.
    fn write(&self, core: &mut Core, state: &mut KeyState) -> Result<Context, Failure> {
        self.check_condition(&state.object, core.now.wall)?;
        let basis = self.basis(core, state);
        check_clock_room(state, &basis.clock)?;
        self.check_room(core, state, &basis.clock)?;
        let Some(mint) = next_mint(core, state, &basis.clock) else {
            let mut busy =
                Failure::not_applied(FailureCode::Busy, "no actors leased yet; try again");
            busy.retry_after_ms = 10;
            return Err(busy);
        };
        let sibling = Sibling {
            dot: Dot { actor: mint.actor, counter: mint.counter },
            write_id: self.put.write_id,
            hlc: self.timestamp(core, state, &basis),
            after: basis.hlc,
            expires_at: self.expires_at(core.now.wall),
            content: self.put.value.clone().map_or(Content::Tombstone, Content::Value),
        };
        state.mint = Some(mint);
        core.recent.insert(sibling.write_id, sibling.dot);
        state.object.overwrite(&basis.names, sibling.write_id);
        state.object.write(&basis.clock, sibling.clone());
        if core.keeps_latest(&self.put.key) {
            core.count_discarded(&self.put.key, state.object.keep_latest());
        }
        let siblings = state.object.siblings().len();
        if siblings >= core.settings.siblings_warn {
            let key = self.put.key.to_string();
            core.notice(Notice::ManySiblings { key, siblings });
        }
        Ok(basis.after(&sibling))
    }

    /// Whether the context covers all that is held.
    fn has_seen(&self, held: &Object) -> bool {
        self.context.as_ref().is_some_and(|context| context.clock.covers(held.clock()))
    }

    /// From when on the value reads as absent; a deletion has none.
    fn expires_at(&self, now: WallMs) -> Option<WallMs> {
        self.put.value.as_ref()?;
        let after = |ttl_ms| WallMs(now.0.saturating_add(ttl_ms));
        match self.put.expiry {
            Expiry::Bucket => self.bucket.ttl_ms.map(after),
            Expiry::After(ttl_ms) => Some(after(ttl_ms)),
            Expiry::At(at) => Some(at),
            Expiry::Never => None,
        }
    }

    /// What the write builds on, and so replaces. Of a write that builds on what is there that is
    /// all the record holds by now, what was observed included: plain writes of one key that
    /// meet at one coordinator replace each other, and leave no siblings.
    fn basis(&self, core: &Core, state: &KeyState) -> Context {
        let mut basis = self.context.clone().unwrap_or_default();
        if core.keeps_latest(&self.put.key) {
            basis.clock.join(state.object.clock());
            basis.hlc = basis.hlc.max(state.object.latest_hlc());
        } else if self.put.basis == Basis::Observed {
            basis = Context::of(&state.object);
        }
        basis
    }

    /// A timestamp greater than that of everything the write may replace.
    ///
    /// Where something there is dated too far ahead for this node's clock to follow, the write
    /// goes just beyond it, for this key alone: last-write-wins loses everything where a write is
    /// older than what it replaces ([`Object::keep_latest`]), and refusing it would leave the key
    /// unwritable for as long as somebody's clock was ahead.
    fn timestamp(&self, core: &mut Core, state: &KeyState, basis: &Context) -> Hlc {
        let latest = state.object.latest_hlc().max(basis.hlc);
        core.clock.observe(latest, core.now.wall);
        core.clock.tick(core.now.wall).max(Hlc(latest.0.saturating_add(1)))
    }

    /// Refuses a write that would pile up siblings or bytes without end.
    fn check_room(
        &self,
        core: &Core,
        state: &KeyState,
        basis: &VersionVector,
    ) -> Result<(), Failure> {
        let before = state.object.siblings();
        let stays = before.iter().filter(|sibling| !basis.contains(sibling.dot));
        let (count, bytes) = stays.fold((1, 0), |(count, bytes), sibling| {
            let size = match &sibling.content {
                Content::Value(value) => value.len(),
                Content::Tombstone => 0,
            };
            (count + 1, bytes + size)
        });
        if count > core.settings.siblings_refuse && count > before.len() {
            let message = format!(
                "the key has {} siblings; read it, merge them, and write with the context of that read",
                before.len()
            );
            let mut failure = Failure::not_applied(FailureCode::Siblings, message);
            failure.context = Context::of(&state.object).token(&self.put.key);
            return Err(failure);
        }
        let bytes = bytes + self.put.value.as_ref().map_or(0, Bytes::len);
        if bytes > limits::OBJECT_BYTES - 1024 * 1024 {
            let message = "the key's siblings together are too large; read it and merge them";
            return Err(Failure::not_applied(FailureCode::TooLarge, message));
        }
        Ok(())
    }

    /// Bytes that the write may add to a record.
    pub(super) fn bytes(&self) -> usize {
        const NAMES_AND_CLOCK: usize = 256;
        self.put.value.as_ref().map_or(0, Bytes::len) + NAMES_AND_CLOCK
    }

    /// Whether this node still is in a slot of the key, or stands in for somebody.
    pub(super) fn is_in_place(&self, core: &Core, key: &StoredKey) -> bool {
        key.owner().is_some() || core.takes(key, Purpose::Replicate, 0)
    }

    /// The members have changed, and another node coordinates.
    pub(super) fn displaced(&self, core: &mut Core) -> Status {
        if self.asked.forwarded {
            self.fail(core, super::shard::stale());
            return Status::Finished;
        }
        let request = Request::Put(self.put.clone());
        Status::PassOn(Box::new(Forward::new(&self.asked, request, None)))
    }

    /// This node stands in, and keeps as much for others as it may.
    pub(super) fn no_room(&self, core: &mut Core) -> Status {
        let message = "no replica of the key can be reached, and this node keeps as much for \
                       members that are away as it may (hints.mb); nothing was written";
        self.fail(core, Failure::not_applied(FailureCode::Unavailable, message));
        Status::Finished
    }

    /// This node cannot read its own copy of the key, or has no room for it: another primary
    /// coordinates.
    pub(super) fn cannot_mint(&mut self, core: &mut Core, why: Failure) -> Status {
        if self.asked.forwarded {
            self.fail(core, why);
            return Status::Finished;
        }
        let request = Request::Put(self.put.clone());
        Status::PassOn(Box::new(Forward::new(&self.asked, request, Some(why))))
    }

    fn attempt(&mut self, core: &mut Core, op: OpId) {
        match &mut self.phase {
            Phase::Observing(ballot) => {
                ballot.attempt(core, op);
                ballot.settle_for_level();
                // Past half of its time a write stops looking and goes on with what it has.
                let Asked { started, begin_by, .. } = self.asked;
                let halfway = started + (begin_by - started) / 2;
                if core.now.instant >= halfway && self.put.condition == Condition::None {
                    self.observed(core, op);
                }
            }
            Phase::Minting(..) => {}
            Phase::Replicating { replication, .. } => replication.send_again(core, op),
        }
    }

    fn replicated(&mut self, core: &mut Core) -> Status {
        let Phase::Replicating { replication, token, answered } = &mut self.phase else {
            return Status::Open;
        };
        if !*answered {
            match replication.verdict() {
                Verdict::Pending => return Status::Open,
                Verdict::Lost => {
                    let failure = unknown(&self.put, replication);
                    replication.finish(core);
                    self.fail(core, failure);
                    return Status::Finished;
                }
                Verdict::Won => {
                    let (nodes, fallbacks) = replication.confirmed();
                    let (n, needed) = (replication.n(), replication.needed());
                    let mut receipt =
                        core.receipt(n, needed, (&nodes, fallbacks), self.asked.started);
                    receipt.fsynced = replication.fsynced();
                    core.counters.writes += 1;
                    core.counters.sloppy_writes += u64::from(fallbacks > 0);
                    core.strain.sample(core.now.instant - self.asked.started);
                    let context = token.clone();
                    core.respond(self.asked.origin, Response::Done(Done { context, receipt }));
                    *answered = true;
                }
            }
        }
        if replication.is_open(core) {
            return Status::Open;
        }
        replication.finish(core);
        Status::Finished
    }

    fn out_of_time(&mut self, core: &mut Core) -> Status {
        match &self.phase {
            Phase::Observing(_) | Phase::Minting(..) => {
                let message = "the replicas did not answer in time; nothing was written";
                let failure = Failure::not_applied(FailureCode::Unavailable, message);
                self.fail(core, failure);
            }
            Phase::Replicating { replication, answered, .. } => {
                replication.finish(core);
                if !answered {
                    let failure = unknown(&self.put, replication);
                    self.fail(core, failure);
                }
            }
        }
        Status::Finished
    }
}

/// The next dot's mint: never one that some clock shows already, whoever made that up.
fn next_mint(core: &mut Core, state: &KeyState, basis: &VersionVector) -> Option<Mint> {
    let mut last = state.mint;
    loop {
        let mint = core.next_mint(last)?;
        let shown = state.object.clock().highest(mint.actor).max(basis.highest(mint.actor));
        if shown < mint.counter {
            return Some(mint);
        }
        last = None;
    }
}

/// Refuses a context that would grow the clock without end.
fn check_clock_room(state: &KeyState, basis: &VersionVector) -> Result<(), Failure> {
    let before = state.object.clock().len();
    let after = state.object.clock().joined_len(basis);
    // A long clock is no reason to refuse a write that does not make it longer, until the new
    // dot could make it one that nobody can read.
    let is_grown = after > before && after > limits::CLOCK_ENTRIES_REFUSE;
    if !is_grown && after < limits::CLOCK_ENTRIES {
        return Ok(());
    }
    let message = format!(
        "the context would grow the key's clock to {after} entries, {} are allowed; read the key \
         and write with the context of that read",
        limits::CLOCK_ENTRIES_REFUSE
    );
    Err(Failure::not_applied(FailureCode::BadContext, message))
}

fn unknown(put: &Put, replication: &Replication) -> Failure {
    let (acks, needed) = (replication.count(), replication.needed());
    let message = format!(
        "{acks} of {needed} replicas confirmed write {}; it may still take effect; \
         write it again under the same id to be sure",
        put.write_id
    );
    let mut failure = Failure::not_applied(FailureCode::Unknown, message);
    failure.outcome = Outcome::Unknown;
    (failure.acks, failure.needed) = (acks as u8, needed as u8);
    failure.write_id = Some(put.write_id);
    failure
}
