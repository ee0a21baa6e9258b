//! Asking all members: the one place that does, for `ringdove hints` and `wait` and for those
//! commands of the text protocol that are about all of them.

use std::time::Duration;

use tokio::task::JoinSet;

use super::node::Node;
use crate::ids::NodeId;
use crate::wire::messages::{
    Control, ControlReply, HintStatus, MemberReport, MemberState, NodeStatus, Response, SyncState,
};
use crate::wire::reap::ReapStatus;
use crate::wire::sync::SyncStatus;

/// How long one member may take. Short enough for whoever asked to hear of the others.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);

/// What one member said to a question; none where it did not answer.
pub struct Said {
    /// The member.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its answer.
    pub reply: Option<ControlReply>,
}

impl Node {
    /// Puts one question to every member, this one among them. The answers come in the order of
    /// names.
    pub async fn ask_all(&self, control: Control) -> Vec<Said> {
        let topology = self.topology();
        let mut members: Vec<(NodeId, String)> =
            topology.state().serving().map(|(id, entry)| (id, entry.name().to_owned())).collect();
        members.sort_by(|(_, a), (_, b)| a.cmp(b));
        self.ask_each(members, control).await
    }

    async fn ask_each(&self, members: Vec<(NodeId, String)>, control: Control) -> Vec<Said> {
        let mut asking = JoinSet::new();
        for (id, _) in members.iter().filter(|(id, _)| *id != self.id) {
            let (id, links, control) = (*id, self.links.clone(), control.clone());
            asking.spawn(async move { (id, links.ask(id, control, ANSWER_WITHIN).await) });
        }
        let mut said = Vec::new();
        if members.iter().any(|(id, _)| *id == self.id) {
            // In a box, for a question may be one that asks all.
            said.push((self.id, Some(Box::pin(self.control(self.id, control)).await)));
        }
        while let Some(answered) = asking.join_next().await {
            said.extend(answered);
        }
        let one = |(id, name)| {
            let at = said.iter().position(|(who, _)| *who == id);
            let reply = match at.and_then(|at| said.swap_remove(at).1) {
                Some(Response::Control(reply)) => Some(reply),
                _ => None,
            };
            Said { id, name, reply }
        };
        members.into_iter().map(one).collect()
    }

    /// What every member says of itself, in the order of their names.
    pub async fn survey(&self) -> Vec<MemberReport> {
        let (statuses, hints, reaping) = tokio::join!(
            self.ask_all(Control::Status),
            self.ask_all(Control::Hints),
            self.ask_all(Control::Reaping)
        );
        // Not before its status: the pairs are to be those of the cluster state it has named, or
        // of a newer one. Whoever is silent is not waited for twice.
        let answered = statuses.iter().filter(|said| said.reply.is_some());
        let answered = answered.map(|said| (said.id, said.name.clone())).collect();
        let syncs = self.ask_each(answered, Control::SyncStatus).await;
        let is_asked: Vec<NodeId> = statuses.iter().map(|said| said.id).collect();
        let find = |all: &[Said], id| {
            all.iter().find(|said| said.id == id).and_then(|said| said.reply.clone())
        };
        let report = |Said { id, name, reply }| {
            let said = match (reply, find(&hints, id), find(&reaping, id), find(&syncs, id)) {
                (
                    Some(ControlReply::Status(status)),
                    Some(ControlReply::Hints(hints)),
                    Some(ControlReply::Reaping(reaping)),
                    Some(ControlReply::SyncStatus(sync)),
                ) => Some(state(status, (hints, reaping), &sync, &is_asked)),
                _ => None,
            };
            MemberReport { id, name, said }
        };
        statuses.into_iter().map(report).collect()
    }
}

fn state(
    status: NodeStatus,
    (hints, reaping): (Vec<HintStatus>, ReapStatus),
    sync: &SyncStatus,
    is_asked: &[NodeId],
) -> MemberState {
    let counter = |name: &str| {
        let counter = status.counters.iter().find(|(counter, _)| counter == name);
        counter.map_or(0, |(_, count)| *count)
    };
    let (slots_changing, buckets_moving) = (counter("slots_changing"), counter("buckets_moving"));
    let apart = status.peers.into_iter().filter(|peer| !peer.up && is_asked.contains(&peer.id));
    let SyncStatus { pairs, oldest_ms, paused, .. } = *sync;
    MemberState {
        state: status.state,
        topology: status.topology,
        slots_changing,
        buckets_moving,
        apart_from: apart.map(|peer| peer.name).collect(),
        hints,
        sync: SyncState { pairs, oldest_ms, paused },
        reaping,
    }
}
