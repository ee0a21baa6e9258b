//! Where a key is, and what each of its replicas holds: the operator's look at one key.

use super::Origin;
use super::ballot::{Ballot, Vote, Wants};
use super::core::{Core, Event, OpId, Status};
use crate::ids::NodeId;
use crate::key::Key;
use crate::time::Instant;
use crate::wire::messages::{ControlReply, Explanation, FailureCode, Level, ReplicaView, Response};

#[derive(Debug)]
pub(super) struct ExplainOp {
    origin: Origin,
    ballot: Ballot,
}

impl ExplainOp {
    pub(super) fn begin(
        core: &mut Core,
        op: OpId,
        origin: Origin,
        deadline: Instant,
        key: Key,
    ) -> (Self, Status) {
        let (r, pr) = (Level::All, Level::Default);
        let wants = Wants { r, pr, strict: true, everyone: true, insists: true };
        let ballot = Ballot::new(core, key, wants, deadline);
        let mut this = Self { origin, ballot };
        core.deadline_timer(op, deadline);
        this.ballot.begin(core, op);
        let status = this.progress(core);
        (this, status)
    }

    pub(super) fn event(&mut self, core: &mut Core, op: OpId, event: Event) -> Status {
        match event {
            Event::Answer { from, id, response } => {
                self.ballot.answered(core, op, (from, id), response);
            }
            Event::Lost(node) => self.ballot.lost(core, op, node),
            Event::Refreshed => self.ballot.refresh(core, op),
            Event::Attempt | Event::Hedge | Event::Committed(_) | Event::Kept { .. } => {}
            Event::Deadline => {
                self.answer(core);
                return Status::Finished;
            }
        }
        self.progress(core)
    }

    fn progress(&mut self, core: &mut Core) -> Status {
        if !self.ballot.is_settled() {
            return Status::Open;
        }
        self.answer(core);
        Status::Finished
    }

    fn answer(&self, core: &mut Core) {
        let key = self.ballot.key();
        let partition = core.topology.partition(key);
        let voters = self.ballot.voters().iter();
        let views = voters.map(|voter| self.view(core, voter.node, &voter.vote));
        let explanation = Explanation {
            token: key.token(),
            partition: partition.0,
            n: self.ballot.scope().n,
            replicas: views.collect(),
            fallbacks: core.topology.fallbacks(partition, self.ballot.scope()),
        };
        let reply = ControlReply::Explain(explanation);
        core.respond(self.origin, Response::Control(reply));
    }

    fn view(&self, core: &Core, node: NodeId, vote: &Vote) -> ReplicaView {
        let state = match vote {
            Vote::Holds(object) if object.is_empty() => "missing",
            Vote::Holds(_) => "ok",
            Vote::Amnesiac(_) => "amnesiac",
            Vote::Failed(FailureCode::Corrupt) => "corrupt",
            Vote::Spare | Vote::Asked(_) | Vote::Stale | Vote::Digest(_) | Vote::Failed(_) => {
                "unreachable"
            }
        };
        let name =
            core.topology.member(node).map_or(String::new(), |member| member.name().to_owned());
        let mut view = ReplicaView {
            node,
            name,
            state: state.to_owned(),
            clock: String::new(),
            siblings: 0,
            tombstones: 0,
            bytes: 0,
            digest: 0,
        };
        if let Vote::Holds(object) | Vote::Amnesiac(object) = vote
            && !object.is_empty()
        {
            view.clock = object.clock().to_string();
            view.tombstones = object.tombstones() as u32;
            view.siblings = (object.siblings().len() - object.tombstones()) as u32;
            view.bytes = object.encode().len() as u64;
            view.digest = object.digest(self.ballot.key());
        }
        view
    }
}
