//! A client's read.
//!
//! ```text
//!   ask R replicas ──▶ R have answered ──▶ answer the client ──▶ mend those that were behind
//!        │ slow or failed: one more               │
//!        └── too few are left: refuse at once     └── the rest may still answer, for a moment
//! ```
//!
//! Writing happens only where something was found to be different: a read of replicas that agree
//! writes nothing.

use super::Origin;
use super::ballot::{Ballot, Vote, Voter, Wants};
use super::core::{Core, Event, OpId, Status};
use super::keys::Step;
use super::quorum::Verdict;
use crate::causality::{Context, Object};
use crate::ids::NodeId;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::messages::{
    BucketSettings, Failure, FailureCode, Get, Got, Hop, Level, Purpose, Request, Response, Value,
    Write,
};

#[derive(Debug)]
pub(super) struct GetOp {
    origin: Origin,
    started: Instant,
    ballot: Ballot,
    /// What the client was told; replicas that are behind it are mended.
    answered: Option<Object>,
    mended: Vec<NodeId>,
    trace: Option<Vec<Hop>>,
}

impl GetOp {
    pub(super) fn begin(
        core: &mut Core,
        op: OpId,
        origin: Origin,
        started: Instant,
        deadline: Instant,
        bucket: BucketSettings,
        get: Get,
    ) -> (Self, Status) {
        let r = if get.r == Level::Default { bucket.r } else { get.r };
        let (pr, strict) = (get.pr, get.strict);
        let wants = Wants { r, pr, strict, everyone: false, insists: true };
        let replicas = core.owners(&get.key);
        let trace = get.trace.then(Vec::new);
        let mut this = Self {
            origin,
            started,
            ballot: Ballot::new(core, get.key, wants, deadline),
            answered: None,
            mended: Vec::new(),
            trace,
        };
        core.deadline_timer(op, deadline);
        core.attempt_timer(op, core.settings.attempt);
        this.ballot.begin(core, op);
        for node in replicas {
            this.note(core, node, "on the preference list");
        }
        let status = this.progress(core, op);
        (this, status)
    }

    pub(super) fn key(&self) -> &Key {
        self.ballot.key()
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.is_some()
    }

    pub(super) fn event(&mut self, core: &mut Core, op: OpId, event: Event) -> Status {
        match event {
            Event::Answer { from, id, response } => {
                self.note(core, from, describe(&response));
                self.ballot.answered(core, op, (from, id), response);
            }
            Event::Lost(node) => {
                self.note(core, node, "connection lost");
                self.ballot.lost(core, op, node);
            }
            Event::Attempt if self.answered.is_none() => {
                self.note(core, core.settings.node, "somebody is slow, asking on");
                self.ballot.attempt(core, op);
                core.attempt_timer(op, core.settings.attempt);
            }
            // The client has its answer: stragglers are not waited for any longer.
            Event::Attempt => return Status::Finished,
            Event::Hedge if self.answered.is_none() => self.ballot.hedge(core, op),
            Event::Refreshed => self.ballot.refresh(core, op),
            Event::Hedge | Event::Committed(_) | Event::Kept { .. } => {}
            Event::Deadline => {
                if self.answered.is_none() {
                    self.refuse(core, FailureCode::Timeout);
                }
                return Status::Finished;
            }
        }
        self.progress(core, op)
    }

    fn progress(&mut self, core: &mut Core, op: OpId) -> Status {
        if self.answered.is_none() {
            match self.ballot.verdict() {
                Verdict::Pending => return Status::Open,
                Verdict::Lost => {
                    self.refuse(core, FailureCode::Unavailable);
                    if !self.ballot.found_damage() {
                        return Status::Finished;
                    }
                    // What R wants may not be there until the damaged copy is restored.
                    self.answered = Some(Object::new());
                }
                Verdict::Won => self.answer(core),
            }
        }
        if self.ballot.found_damage() {
            self.ballot.ask_all(core, op);
        }
        self.mend(core, op);
        if self.ballot.is_settled() { Status::Finished } else { Status::Open }
    }

    fn answer(&mut self, core: &mut Core) {
        let mut merged = self.ballot.merged(core);
        if !core.graves.is_empty() {
            let key = self.ballot.key();
            core.graves.hide(&core.stored_key(key), &mut merged, core.keeps_latest(key));
        }
        let values = merged.values(core.now.wall).into_iter().filter_map(|sibling| {
            let crate::causality::Content::Value(data) = &sibling.content else { return None };
            Some(Value {
                dot: sibling.dot,
                write_id: sibling.write_id,
                hlc: sibling.hlc,
                expires_at: sibling.expires_at,
                data: data.clone(),
            })
        });
        let values: Vec<Value> = values.collect();
        let context = Context::of(&merged);
        let (nodes, fallbacks) = self.ballot.confirmed();
        let got = Got {
            context: context.token(self.ballot.key()),
            deleted: values.is_empty() && !merged.is_empty(),
            values,
            receipt: core.receipt(
                self.ballot.scope().n,
                self.ballot.needed(),
                (&nodes, fallbacks),
                self.started,
            ),
            trace: self.trace.take().unwrap_or_default(),
        };
        core.counters.reads += 1;
        core.counters.sloppy_reads += u64::from(fallbacks > 0);
        core.strain.sample(core.now.instant - self.started);
        core.respond(self.origin, Response::Got(got));
        self.answered = Some(merged);
    }

    fn refuse(&mut self, core: &mut Core, code: FailureCode) {
        let (acks, needed) = (self.ballot.confirmed().0.len(), self.ballot.needed());
        let owners = || self.ballot.voters().iter().filter(|voter| voter.is_owner);
        let replicas = owners().count();
        let message = match code {
            FailureCode::Timeout => {
                format!(
                    "{acks} of {needed} replicas answered in time; try again, or read with a lower R"
                )
            }
            _ if needed > replicas => format!(
                "R={needed} asks for more replicas than there are ({replicas}); lower R or add members"
            ),
            _ => {
                let failed = |voter: &&Voter| matches!(voter.vote, Vote::Failed(_));
                let able = replicas - owners().filter(failed).count();
                format!(
                    "{able} of {replicas} primaries reachable, {needed} needed; try again, or read \
                     with a lower R"
                )
            }
        };
        let mut failure = Failure::not_applied(code, message);
        (failure.acks, failure.needed) = (acks as u8, needed as u8);
        core.fail(self.origin, failure);
    }

    /// Gives what was answered to replicas that have shown less or something else.
    fn mend(&mut self, core: &mut Core, op: OpId) {
        let Some(answered) = &self.answered else { return };
        let mut targets: Vec<(NodeId, Purpose)> = Vec::new();
        targets
            .extend(self.ballot.behind(answered).into_iter().map(|node| (node, Purpose::Repair)));
        targets.extend(self.ballot.to_restore().into_iter().map(|node| (node, Purpose::Restore)));
        targets.retain(|(node, _)| !self.mended.contains(node));
        if targets.is_empty() {
            return;
        }
        // A straggler may have shown what nobody else had: all of it goes to everyone behind.
        let merged = self.ballot.merged(core);
        let object = merged.encode();
        for (node, purpose) in targets {
            core.counters.read_repairs += 1;
            self.mended.push(node);
            let key = self.ballot.key().clone();
            if node == core.settings.node {
                let from = self.ballot.holders();
                let step = Step::Mend { object: merged.clone(), purpose, from };
                core.steps.push_back((core.stored_key(&key), step));
            } else {
                let budget_ms = core.settings.timeout.as_millis() as u32;
                let write = Write { key, object: object.clone(), purpose, slots: 0, budget_ms };
                core.send(op, node, false, Request::Write(write));
            }
        }
        self.answered = Some(merged);
    }

    fn note(&mut self, core: &Core, node: NodeId, what: &str) {
        let Some(trace) = &mut self.trace else { return };
        let micros = (core.now.instant - self.started).as_micros();
        let micros = u32::try_from(micros).unwrap_or(u32::MAX);
        trace.push(Hop { node, micros, what: what.to_owned() });
    }
}

fn describe(response: &Response) -> &'static str {
    use crate::wire::messages::HeldObject;
    match response {
        Response::Held(held) if held.amnesiac => "answered, does not count: it may have forgotten",
        Response::Held(held) => match held.object {
            HeldObject::Missing => "answered: holds nothing",
            HeldObject::Full(_) => "answered: holds an object",
            HeldObject::Digest(_) => "answered: a digest",
        },
        _ => "failed",
    }
}
