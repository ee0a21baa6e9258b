//! Asking all members how they are: the one place that does, for `ringdove hints` and `wait` and
//! for their counterparts of the text protocol.

use std::time::Duration;

use tokio::task::JoinSet;

use super::node::Node;
use crate::ids::NodeId;
use crate::wire::messages::{
    Control, ControlReply, HintStatus, MemberReport, MemberState, NodeStatus, Response,
};
use crate::wire::reap::ReapStatus;

/// How long one member may take. Short enough for whoever asked to hear of the others.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);

impl Node {
    /// What every member says of itself, in the order of their names.
    pub async fn survey(&self) -> Vec<MemberReport> {
        let topology = self.topology();
        let members: Vec<(NodeId, String)> =
            topology.state().serving().map(|(id, entry)| (id, entry.name().to_owned())).collect();
        let is_asked = |id: NodeId| members.iter().any(|(member, _)| *member == id);
        let mut asking = JoinSet::new();
        for (id, _) in members.iter().filter(|(id, _)| *id != self.id) {
            let (id, links) = (*id, self.links.clone());
            asking.spawn(async move {
                let (status, hints, reaping) = tokio::join!(
                    links.ask(id, Control::Status, ANSWER_WITHIN),
                    links.ask(id, Control::Hints, ANSWER_WITHIN),
                    links.ask(id, Control::Reaping, ANSWER_WITHIN)
                );
                (id, status, hints, reaping)
            });
        }
        let mut said = Vec::new();
        if is_asked(self.id) {
            let kept = (self.hints(), self.reaping.status());
            said.push((self.id, state(self.status(), kept, is_asked)));
        }
        while let Some(answered) = asking.join_next().await {
            if let Ok((
                id,
                Some(Response::Control(ControlReply::Status(status))),
                Some(Response::Control(ControlReply::Hints(hints))),
                Some(Response::Control(ControlReply::Reaping(reaping))),
            )) = answered
            {
                said.push((id, state(status, (hints, reaping), is_asked)));
            }
        }
        let report = |(id, name)| {
            let at = said.iter().position(|(who, _)| *who == id);
            MemberReport { id, name, said: at.map(|at| said.swap_remove(at).1) }
        };
        let mut reports: Vec<MemberReport> = members.clone().into_iter().map(report).collect();
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }
}

fn state(
    status: NodeStatus,
    (hints, reaping): (Vec<HintStatus>, ReapStatus),
    is_asked: impl Fn(NodeId) -> bool,
) -> MemberState {
    let slots_changing = status.counters.iter().find(|(name, _)| name == "slots_changing");
    let apart = status.peers.into_iter().filter(|peer| !peer.up && is_asked(peer.id));
    MemberState {
        state: status.state,
        topology: status.topology,
        slots_changing: slots_changing.map_or(0, |(_, count)| *count),
        apart_from: apart.map(|peer| peer.name).collect(),
        hints,
        reaping,
    }
}
