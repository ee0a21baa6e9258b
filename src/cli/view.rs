//! `status --from NODE`: the members as one node's failure detection sees them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::name_of;
use super::exit::{Ending, Exit, Failure};
use super::output::{Form, table};
use super::quantity::rough_span;
use crate::client::{self, NodeStatus, Topology, direct};
use crate::ids::NodeId;
use crate::membership::MemberEntry;
use crate::wire::messages::PeerStatus;

/// Asks one member, and shows what it says.
pub(super) async fn show(topology: &Topology, from: &str, time: Duration, form: Form) -> Ending {
    let entry = find(topology, from)?;
    let status = direct::status(entry.address(), time).await?;
    form.answer(&text(topology, &status), || document(&status))?;
    Ok(Exit::Done)
}

/// The member that is meant.
fn find<'a>(topology: &'a Topology, meant: &str) -> Result<&'a MemberEntry, Failure> {
    let is_meant = |(id, entry): &(NodeId, &MemberEntry)| {
        entry.name() == meant
            || entry.address() == meant
            || (meant.len() >= 4 && id.to_string().starts_with(meant))
    };
    let mut found = topology.state().present().filter(is_meant).map(|(_, entry)| entry);
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) => Err(Failure::new(Exit::Usage, "member", format!("no member is {meant:?}"))
            .hint("`ringdove status` lists them; write a name, an address, or the start of an id")),
        (Some(_), Some(_)) => {
            let what = format!("more than one member is {meant:?}");
            Err(Failure::new(Exit::Usage, "member", what).hint("write its address or its id"))
        }
    }
}

/// The names of those who suspect a member now, by all the views that there are.
pub(super) fn accusers(
    topology: &Topology,
    about: NodeId,
    answers: &[(NodeId, MemberEntry, client::Result<NodeStatus>)],
) -> BTreeSet<String> {
    let views = answers.iter().filter_map(|(_, _, answer)| answer.as_ref().ok());
    let peers = views.flat_map(|status| &status.peers);
    let suspects = peers.filter(|peer| peer.id == about && peer.liveness.state == "suspect");
    let by = suspects.flat_map(|peer| &peer.liveness.suspected_by);
    by.map(|accuser| name_of(topology, *accuser)).collect()
}

fn text(topology: &Topology, status: &NodeStatus) -> String {
    let header = ["NODE", "ADDRESS", "STATE", "FOR", "LINK", "FLAPS"];
    let cells = status.peers.iter().map(|peer| cells(status, peer)).collect();
    let mut text = table(&header, &["FOR", "FLAPS"], cells);
    text.push('\n');
    for peer in &status.peers {
        if let Some(history) = history(topology, peer) {
            let _ = writeln!(text, "{}: {history}", peer.name);
        }
    }
    let is_up = |peer: &&PeerStatus| ["alive", "suspect"].contains(&peer.liveness.state.as_str());
    let up = status.peers.iter().filter(is_up).count();
    let _ = writeln!(text, "{} sees {up} of {} members up", status.name, status.peers.len());
    text
}

fn cells(status: &NodeStatus, peer: &PeerStatus) -> Vec<String> {
    let link = match (peer.id == status.id, peer.up) {
        (true, _) => "itself",
        (false, true) => "yes",
        (false, false) => "no",
    };
    vec![
        peer.name.clone(),
        peer.address.clone(),
        peer.liveness.state.clone(),
        rough_span(peer.liveness.since_ms),
        link.to_owned(),
        peer.liveness.flaps.to_string(),
    ]
}

/// `suspected by a, b; refuted 12s ago`
fn history(topology: &Topology, peer: &PeerStatus) -> Option<String> {
    let by: Vec<String> =
        peer.liveness.suspected_by.iter().map(|id| name_of(topology, *id)).collect();
    let suspected = (!by.is_empty()).then(|| format!("suspected by {}", by.join(", ")));
    let refuted = peer.liveness.refuted_ms.map(|ms| format!("refuted {} ago", rough_span(ms)));
    let said: Vec<String> = [suspected, refuted].into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

fn document(status: &NodeStatus) -> Value {
    let member = |peer: &PeerStatus| {
        let liveness = &peer.liveness;
        json!({
            "id": peer.id.to_string(),
            "name": peer.name,
            "address": peer.address,
            "state": liveness.state,
            "since_ms": liveness.since_ms,
            "connected": peer.up,
            "suspected_by":
                liveness.suspected_by.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "refuted_ms": liveness.refuted_ms,
            "flaps": liveness.flaps,
        })
    };
    json!({
        "from": status.name,
        "id": status.id.to_string(),
        "members": status.peers.iter().map(member).collect::<Vec<_>>(),
    })
}
