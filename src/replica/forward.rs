//! Passing a request on to a replica of its key, and trying the next one.
//!
//! A node that is no replica of a key does not coordinate: it would have to make dots for keys it
//! does not store. It passes the request to the first primary it can reach, and when that one
//! fails or is slow, to the next. A write that may have been begun somewhere goes on under the
//! same write id with a higher attempt, so that whoever takes it looks for it before writing.

use super::Origin;
use super::core::{Core, Event, OpId, Status};
use crate::ids::NodeId;
use crate::time::Instant;
use crate::wire::messages::{Failure, FailureCode, Outcome, Request, Response};

#[derive(Debug)]
pub(super) struct Forward {
    origin: Origin,
    request: Request,
    deadline: Instant,
    tried: Vec<NodeId>,
    /// Asked and silent so far.
    awaited: Vec<NodeId>,
    /// Somebody may have begun the write.
    uncertain: bool,
    refusal: Option<Failure>,
}

impl Forward {
    /// Passes `request` on, leaving out the nodes in `tried`.
    pub(super) fn new(
        origin: Origin,
        request: Request,
        deadline: Instant,
        tried: Vec<NodeId>,
    ) -> Self {
        Self { origin, request, deadline, tried, awaited: vec![], uncertain: false, refusal: None }
    }

    pub(super) fn begin(&mut self, core: &mut Core, op: OpId) -> Status {
        core.counters.forwarded += 1;
        core.deadline_timer(op, self.deadline);
        core.attempt_timer(op, core.settings.attempt * 2);
        self.next(core, op)
    }

    pub(super) fn event(&mut self, core: &mut Core, op: OpId, event: Event) -> Status {
        match event {
            Event::Answer { from, response: Response::Failed(failure) } if goes_on(&failure) => {
                if !self.awaited.contains(&from) {
                    return Status::Open;
                }
                self.awaited.retain(|node| *node != from);
                self.refusal = Some(failure);
                self.next(core, op)
            }
            Event::Answer { from, response } if self.awaited.contains(&from) => {
                self.awaited.retain(|node| *node != from);
                self.pass_back(core, response);
                Status::Finished
            }
            Event::Lost(node) if self.awaited.contains(&node) => {
                self.awaited.retain(|awaited| *awaited != node);
                self.uncertain |= self.is_write();
                self.next(core, op)
            }
            Event::Attempt => {
                for node in self.awaited.clone() {
                    core.slow(node);
                }
                self.uncertain |= self.is_write();
                core.attempt_timer(op, core.settings.attempt * 2);
                self.next(core, op)
            }
            Event::Deadline => {
                self.give_up(core, FailureCode::Timeout);
                Status::Finished
            }
            Event::Answer { .. } | Event::Lost(_) | Event::Committed(_) => Status::Open,
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
            if self.awaited.is_empty() {
                self.give_up(core, FailureCode::Unavailable);
                return Status::Finished;
            }
            return Status::Open;
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
        core.send(op, node, true, self.request.clone());
        Status::Open
    }

    fn candidate(&self, core: &Core) -> Option<NodeId> {
        let key = match &self.request {
            Request::Get(get) => &get.key,
            Request::Put(put) => &put.key,
            _ => return None,
        };
        let n = core.bucket(key)?.n;
        let mut primaries = core.primaries(key, n).into_iter();
        primaries.find(|node| {
            *node != core.settings.node && !self.tried.contains(node) && core.usable(*node)
        })
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
            let message = "no replica of the key could be reached in time; try again";
            Failure::not_applied(code, message)
        };
        core.fail(self.origin, failure);
    }
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
        )
}
