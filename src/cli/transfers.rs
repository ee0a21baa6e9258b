//! `transfers`: what moves between the nodes, how fast, and who holds it up.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::{Asked, Transfers};
use super::cluster::{ask_all, connect, name_of};
use super::exit::{Ending, Exit};
use super::output::{Form, table};
use super::quantity::{counted, rough_span, size};
use crate::client::{Client, Topology, direct};
use crate::wire::messages::{Control, ControlReply, Request, Response};
use crate::wire::transfer::{Incoming, TransferStatus};

/// What one node says about itself.
struct Row {
    id: crate::ids::NodeId,
    name: String,
    answer: Result<TransferStatus, String>,
}

pub(super) async fn run(asked: &Asked<Transfers>) -> Ending {
    let client = connect(&asked.cluster).await?;
    transfers(&client, asked.cluster.timeout, asked.form()).await
}

/// Asks every member what moves to it.
pub(super) async fn transfers(client: &Client, time: std::time::Duration, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let answers = ask_all(&topology, |address| async move { status_of(&address, time).await });
    let row = |(id, entry, answer): (_, crate::membership::MemberEntry, _)| Row {
        id,
        name: entry.name().to_owned(),
        answer,
    };
    let rows: Vec<Row> = answers.await.into_iter().map(row).collect();
    form.answer(&text(&topology, &rows), || document(&topology, &rows))?;
    // Whoever is away may hold something up that nobody else knows of.
    match rows.iter().all(|row| row.answer.is_ok()) {
        true => Ok(Exit::Done),
        false => Ok(Exit::Unavailable),
    }
}

async fn status_of(address: &str, time: std::time::Duration) -> Result<TransferStatus, String> {
    match direct::request(address, &Request::Control(Control::Transfers), time).await {
        Ok(Response::Control(ControlReply::Transfers(status))) => Ok(status),
        Ok(_) => Err("the node answered another question".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whom a line is about: an owner, or all the others where a slot has none.
fn from(topology: &Topology, line: &Incoming) -> String {
    line.from.map_or_else(|| "(all others)".to_owned(), |owner| name_of(topology, owner))
}

fn text(topology: &Topology, rows: &[Row]) -> String {
    let header = ["FROM", "TO", "LEFT", "DONE", "BYTES", "RATE", "ETA"];
    let (mut cells, mut notes) = (Vec::new(), String::new());
    for row in rows {
        let status = match &row.answer {
            Ok(status) => status,
            Err(why) => {
                let _ = writeln!(notes, "{} does not answer: {why}", row.name);
                continue;
            }
        };
        for line in &status.incoming {
            let owner = from(topology, line);
            if !line.held_up.is_empty() {
                let _ = writeln!(notes, "{owner} to {}: held up by {}", row.name, line.held_up);
            }
            cells.push(vec![
                owner,
                row.name.clone(),
                line.left.to_string(),
                line.done.to_string(),
                size(line.bytes),
                format!("{}/s", size(line.rate)),
                line.eta_s.map_or_else(|| "-".to_owned(), |seconds| rough_span(seconds * 1000)),
            ]);
        }
        if status.leftovers > 0 {
            let partitions = counted(status.leftovers as usize, "partition");
            let _ =
                writeln!(notes, "{}: what may be left of {partitions} is deleted later", row.name);
        }
        if status.set_aside > 0 {
            let partitions = counted(status.set_aside as usize, "partition");
            let _ = writeln!(
                notes,
                "{}: {partitions} it lost without handing them over; their data is kept",
                row.name
            );
        }
    }
    for (name, entry) in &topology.state().buckets {
        let Some(next) = entry.home.next else { continue };
        let (from, arrived) = (entry.home.scope.n, topology.arrived(name));
        let all = topology.partitions();
        let _ = writeln!(
            notes,
            "bucket {name}, n={from} to {}: {arrived} of {all} partitions have arrived{}",
            next.n,
            waiting_for(topology, entry)
        );
    }
    let mut text = match cells.is_empty() {
        true => "Nothing moves.\n".to_owned(),
        false => table(&header, &["LEFT", "DONE", "BYTES", "RATE", "ETA"], cells),
    };
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes);
    }
    text
}

/// Who has still to note that all of a bucket has arrived.
fn waiting_for(topology: &Topology, entry: &crate::membership::BucketEntry) -> String {
    if !topology.state().has_arrived(&entry.home) {
        return String::new();
    }
    let serving = topology.state().serving();
    let names = serving.filter(|(id, _)| !entry.home.noted.contains(id));
    let names: Vec<String> = names.map(|(_, member)| member.name().to_owned()).collect();
    format!("; waiting for {} to note it", names.join(", "))
}

fn document(topology: &Topology, rows: &[Row]) -> Value {
    let line = |line: &Incoming| {
        json!({
            "from": line.from.map(|owner| owner.to_string()),
            "from_name": line.from.map(|owner| name_of(topology, owner)),
            "left": line.left,
            "begun": line.begun,
            "done": line.done,
            "bytes": line.bytes,
            "bytes_per_second": line.rate,
            "eta_s": line.eta_s,
            "held_up": line.held_up,
        })
    };
    let node = |row: &Row| {
        let status = row.answer.as_ref().ok();
        json!({
            "id": row.id.to_string(),
            "name": row.name,
            "error": row.answer.as_ref().err(),
            "incoming": status.map(|s| s.incoming.iter().map(line).collect::<Vec<_>>()),
            "outgoing": status.map(|s| {
                let slots = |(to, slots): &(crate::ids::NodeId, u32)| {
                    json!({ "to": to.to_string(), "to_name": name_of(topology, *to), "slots": slots })
                };
                s.outgoing.iter().map(slots).collect::<Vec<_>>()
            }),
            "rate_limit": status.map(|s| s.rate_limit),
            "leftovers": status.map(|s| s.leftovers),
            "set_aside": status.map(|s| s.set_aside),
        })
    };
    json!({
        "slots_changing": topology.changing(),
        "buckets_moving": topology.moving(),
        "nodes": rows.iter().map(node).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::membership::ClusterState;

    #[test]
    fn what_moves_is_shown_with_who_holds_it_up() {
        let topology = Topology::new(ClusterState::new("test", 64));
        let line = Incoming {
            from: Some(NodeId(1 << 100)),
            done: 3,
            left: 40,
            begun: 4,
            bytes: 3 << 20,
            rate: 1 << 20,
            eta_s: Some(40),
            held_up: "n1: it does not answer".to_owned(),
        };
        let status = TransferStatus { incoming: vec![line], ..TransferStatus::default() };
        let row = |answer| Row { id: NodeId(7), name: "new".to_owned(), answer };
        let shown = text(&topology, &[row(Ok(status)), row(Err("gone".to_owned()))]);
        for part in ["new", "40", "40s", "held up by n1: it does not answer", "gone"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(text(&topology, &[]).starts_with("Nothing moves."));
    }
}
