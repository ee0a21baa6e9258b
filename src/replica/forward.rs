//! Passing a request on to a replica of its key, and trying the next one.
//!
//! A node that is no replica of a key does not coordinate: it would have to make dots for keys it
//! does not store. It passes the request to the first owner it can reach, and when that one
//! fails or is slow, to the next. A write that may have been begun somewhere goes on under the
//! same write id with a higher attempt, so that whoever takes it looks for it before writing.

use std::time::Duration;

use super::core::{Core, Event, OpId, Status};
use super::put::Asked;
use super::{Origin, Settings};
use crate::ids::NodeId;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::messages::{Failure, FailureCode, Outcome, Put, Request, Response};

#[derive(Debug)]
pub(super) struct Forward {
    origin: Origin,
    request: Request,
    started: Instant,
    sent: Option<Instant>,
    /// Before that nobody else is asked for want of an answer.
    next_at: Instant,
    deadline: Instant,
    /// This node cannot take it either: a stand-in must be able to.
    is_refused_here: bool,
    tried: Vec<NodeId>,
    /// Of those, who said that they cannot take it.
    unable: Vec<NodeId>,
    /// Asked and silent so far.
    awaited: Vec<NodeId>,
    /// Somebody may have begun the write.
    uncertain: bool,
    refusal: Option<Failure>,
}

impl Forward {
    /// Passes `request` on; `refusal` says why this node, which should have taken it, could not.
    pub(super) fn new(asked: &Asked, request: Request, refusal: Option<Failure>) -> Self {
        let Asked { origin, started, sent, deadline, uncertain, .. } = *asked;
        let is_refused_here = refusal.is_some();
        let (tried, unable, awaited) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            origin,
            request,
            started,
            sent,
            next_at: started,
            deadline,
            is_refused_here,
            tried,
            unable,
            awaited,
            uncertain,
            refusal,
        }
    }

    /// The key of the request.
    pub(super) fn key(&self) -> Option<&Key> {
        match &self.request {
            Request::Put(put) => Some(&put.key),
            _ => None,
        }
    }

    pub(super) fn begin(&mut self, core: &mut Core, op: OpId) -> Status {
        core.counters.forwarded += 1;
        core.deadline_timer(op, self.deadline);
        self.next(core, op)
    }

    pub(super) fn event(&mut self, core: &mut Core, op: OpId, event: Event) -> Status {
        match event {
            Event::Answer { from, response: Response::Failed(failure), .. }
                if goes_on(&failure) =>
            {
                if !self.awaited.contains(&from) {
                    return Status::Open;
                }
                self.awaited.retain(|node| *node != from);
                if matches!(failure.code, FailureCode::DiskFull | FailureCode::Corrupt) {
                    self.unable.push(from);
                }
                self.refusal = Some(failure);
                self.next(core, op)
            }
            Event::Answer { from, response, .. } if self.awaited.contains(&from) => {
                self.awaited.retain(|node| *node != from);
                self.pass_back(core, response);
                Status::Finished
            }
            Event::Lost(node) if self.awaited.contains(&node) => {
                self.awaited.retain(|awaited| *awaited != node);
                self.uncertain |= self.is_write();
                self.next(core, op)
            }
            Event::Attempt if core.now.instant < self.next_at => Status::Open,
            Event::Attempt => {
                for node in self.awaited.clone() {
                    core.slow(node);
                }
                self.uncertain |= self.is_write();
                self.next_at = core.attempt_timer(op, patience(&core.settings));
                self.next(core, op)
            }
            Event::Deadline => {
                self.give_up(core, FailureCode::Timeout);
                Status::Finished
            }
            Event::Answer { .. }
            | Event::Lost(_)
            | Event::Committed(_)
            | Event::Kept { .. }
            | Event::Hedge
            | Event::Refreshed => Status::Open,
        }
    }

    /// Gives the client a replica's answer. What one replica has not applied another may have.
    fn pass_back(&mut self, core: &mut Core, response: Response) {
        let unsettled = self.is_write() && (self.uncertain || !self.awaited.is_empty());
        match response {
            Response::Failed(failure) if unsettled => {
                self.refusal = Some(failure);
                self.give_up(core, FailureCode::Unknown);
            }
            response => core.respond(self.origin, response),
        }
    }

    fn is_write(&self) -> bool {
        matches!(self.request, Request::Put(_))
    }

    /// Asks the next primary; gives up when there is none and nobody owes an answer.
    fn next(&mut self, core: &mut Core, op: OpId) -> Status {
        let Some(node) = self.candidate(core) else {
            if !self.awaited.is_empty() {
                return Status::Open;
            }
            if let Some(put) = self.stand_in(core) {
                let Self { origin, started, sent, deadline, uncertain, .. } = *self;
                let (begin_by, forwarded) = (deadline, false);
                let asked =
                    Asked { origin, started, sent, begin_by, deadline, forwarded, uncertain };
                return Status::StandIn(Box::new((asked, put)));
            }
            self.give_up(core, FailureCode::Unavailable);
            return Status::Finished;
        };
        let budget_ms = core.budget_ms(self.deadline);
        match &mut self.request {
            Request::Get(get) => get.budget_ms = budget_ms,
            Request::Put(put) => {
                put.budget_ms = budget_ms;
                if self.uncertain {
                    put.attempt = put.attempt.saturating_add(1);
                }
            }
            _ => {}
        }
        self.tried.push(node);
        self.awaited.push(node);
        self.next_at = core.attempt_timer(op, patience(&core.settings));
        core.send(op, node, true, self.request.clone());
        Status::Open
    }

    /// The write, if this node may take it itself: it is sloppy, and no owner can be reached that is able
    /// to.
    fn may_stand_in(&self, core: &Core) -> Option<&Put> {
        let Request::Put(put) = &self.request else { return None };
        core.bucket(&put.key)?;
        let owners = core.owners(&put.key);
        let may = !put.strict && !self.is_refused_here && core.full.is_none();
        let is_absent = |node: &NodeId| *node != core.settings.node && !core.usable(*node);
        let is_out = |node: &NodeId| is_absent(node) || self.unable.contains(node);
        // Whom it stands in for is one of the absent.
        (may && owners.iter().all(is_out) && owners.iter().any(is_absent)).then_some(put)
    }

    /// What this node then takes, as a stand-in.
    fn stand_in(&self, core: &Core) -> Option<Put> {
        let put = self.may_stand_in(core)?;
        let mut put = put.clone();
        if self.uncertain {
            put.attempt = put.attempt.saturating_add(1);
        }
        Some(put)
    }

    fn candidate(&self, core: &Core) -> Option<NodeId> {
        let key = match &self.request {
            Request::Get(get) => &get.key,
            Request::Put(put) => &put.key,
            _ => return None,
        };
        let mut owners = core.owners(key);
        core.peers.demote_slow(&mut owners, |node| *node, core.now.instant);
        owners.retain(|node| *node != core.settings.node && !self.tried.contains(node));
        let usable = owners.iter().find(|node| core.usable(**node));
        // Silence is not absence: where nobody else can do it, a silent owner is asked.
        let silent = || owners.iter().find(|node| core.askable(**node, true));
        usable.or_else(|| silent().filter(|_| self.may_stand_in(core).is_none())).copied()
    }

    /// What to say where nobody has answered.
    fn unreached(&self, core: &Core) -> String {
        let key = match &self.request {
            Request::Get(get) => &get.key,
            Request::Put(put) => &put.key,
            _ => return "no replica could be reached in time; try again".to_owned(),
        };
        let owners = core.owners(key);
        let reachable = owners.iter().filter(|owner| core.usable(**owner)).count();
        format!(
            "{reachable} of {} primaries reachable from this node, which is no primary of the key, and \
             none has answered; try again",
            owners.len()
        )
    }

    fn give_up(&mut self, core: &mut Core, code: FailureCode) {
        let write_id = match &self.request {
            Request::Put(put) => Some(put.write_id),
            _ => None,
        };
        let unsettled = write_id.is_some() && (self.uncertain || !self.awaited.is_empty());
        let failure = if unsettled {
            let mut message = "the write was passed on to a replica that has not answered; it may \
                               still take effect; write it again under the same id to be sure"
                .to_owned();
            if let Some(refusal) = &self.refusal {
                message = format!("{message} (another replica said: {})", refusal.message);
            }
            let mut failure = Failure::not_applied(FailureCode::Unknown, message);
            failure.outcome = Outcome::Unknown;
            failure.write_id = write_id;
            failure
        } else if let Some(refusal) = self.refusal.take() {
            refusal
        } else {
            Failure::not_applied(code, self.unreached(core))
        };
        core.fail(self.origin, failure);
    }
}

impl Core {
    /// The answer to a write that this node's disk has no room for.
    pub(super) fn disk_full(&self) -> Option<Failure> {
        let (why, me) = (self.full.as_ref()?, self.settings.node);
        let name = self.topology.member(me).map_or_else(|| me.to_string(), |m| m.name().to_owned());
        let message = format!("the disk of {name} is full, so it serves reads only: {why}");
        Some(Failure::not_applied(FailureCode::DiskFull, message))
    }
}

/// How long one owner may take before the next is asked.
fn patience(settings: &Settings) -> Duration {
    settings.attempt * 2
}

/// How long after it was sent an owner may still begin a write that was passed on to it: less than until
/// the next one is asked, which varies by an eighth. If both began it, and the key was overwritten often
/// meanwhile, the later of the two would go over all of that (`docs/CONSISTENCY.md`, "A write that was
/// made twice").
pub(super) fn begin_within(settings: &Settings) -> Duration {
    patience(settings) * 3 / 4
}

/// Whether another node may do better: nothing was begun, and the reason lies with that node.
fn goes_on(failure: &Failure) -> bool {
    failure.outcome == Outcome::NotApplied
        && matches!(
            failure.code,
            FailureCode::Draining
                | FailureCode::Busy
                | FailureCode::DiskFull
                | FailureCode::Corrupt
                | FailureCode::Forming
                | FailureCode::Internal
                | FailureCode::Stale
                // It reaches fewer replicas than another may.
                | FailureCode::Unavailable
                // It came too late there, wherever it was meanwhile.
                | FailureCode::Timeout
        )
}
