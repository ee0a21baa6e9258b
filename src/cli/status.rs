//! `status`: every node, as it sees itself and as the others see it; or with `--from` the view of
//! one.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::{Asked, Status};
use super::cluster::{ask_all, connect};
use super::exit::{Ending, Exit};
use super::output::{Form, table};
use super::quantity::{counted, percent, rough_span};
use super::{sync, view};
use crate::client::{self, Client, NodeStatus, Topology, TopologyVersion, direct};
use crate::ids::NodeId;
use crate::membership::MemberEntry;

/// Of pairs that are overdue, how many are named for each member: `sync status` names more.
const OVERDUE_SHOWN: usize = 3;

/// What there is to know of one member.
struct Row {
    id: NodeId,
    entry: MemberEntry,
    answer: client::Result<NodeStatus>,
    /// The nodes that are connected to it, and those that are not, itself among them.
    up_for: Vec<String>,
    down_for: Vec<String>,
    /// Who probed it in vain, as long as it has not objected.
    suspected_by: BTreeSet<String>,
    owned: u64,
}

pub(super) async fn run(asked: &Asked<Status>) -> Ending {
    let client = connect(&asked.cluster).await?;
    status(&client, &asked.question, asked.cluster.timeout, asked.form()).await
}

/// Asks every member, and shows what they say. The time is for all of it.
pub(super) async fn status(
    client: &Client,
    question: &Status,
    time: std::time::Duration,
    form: Form,
) -> Ending {
    let topology = client.refresh().await?;
    if let Some(from) = &question.from {
        return view::show(&topology, from, time, form).await;
    }
    let answers = ask_all(&topology, |address| async move { direct::status(&address, time).await });
    let rows = rows(&topology, answers.await);
    let mut text = text(&topology, &rows);
    if rows.iter().any(|row| row.counter("sync_overdue") > 0) {
        let statuses = sync::statuses(&topology, time).await;
        for line in sync::overdue_lines(&topology, &statuses, OVERDUE_SHOWN) {
            let _ = writeln!(text, "{line}");
        }
    }
    form.answer(&text, || document(&topology, &rows))?;
    Ok(Exit::Done)
}

fn rows(
    topology: &Topology,
    answers: Vec<(NodeId, MemberEntry, client::Result<NodeStatus>)>,
) -> Vec<Row> {
    let shares = topology.shares(topology.home("default"));
    let owned = |id| shares.iter().find(|share| share.id == id).map_or(0, |s| s.owned.into());
    // Who answers speaks for itself; of two views of one member, up or down, each has its list.
    let viewers = |id: NodeId, up: bool| {
        let statuses = answers.iter().filter_map(|(_, _, answer)| answer.as_ref().ok());
        let sees = move |status: &&NodeStatus| {
            let is_itself = status.id == id;
            let peer = status.peers.iter().find(|peer| peer.id == id);
            (is_itself || peer.is_some_and(|peer| peer.up)) == up
        };
        statuses.filter(sees).map(|status| status.name.clone()).collect::<Vec<_>>()
    };
    let views: Vec<_> =
        answers.iter().map(|(id, ..)| (viewers(*id, true), viewers(*id, false))).collect();
    let suspicions: Vec<_> =
        answers.iter().map(|(id, ..)| view::accusers(topology, *id, &answers)).collect();
    let views = views.into_iter().zip(suspicions);
    let row = |((id, entry, answer), ((up_for, down_for), suspected_by))| {
        let owned = owned(id);
        Row { id, entry, answer, up_for, down_for, suspected_by, owned }
    };
    answers.into_iter().zip(views).map(row).collect()
}

/// A cluster state in five letters: the same letters, the same state.
fn ring_mark(version: TopologyVersion) -> String {
    format!("{:05x}", version.hash & 0x000f_ffff)
}

impl Row {
    fn state(&self) -> &str {
        self.answer.as_ref().map_or("down", |status| &status.state)
    }

    fn counter(&self, name: &str) -> u64 {
        let counters = self.answer.iter().flat_map(|status| &status.counters);
        counters.filter(|(row, _)| row == name).map(|(_, count)| *count).sum()
    }

    fn cells(&self, all: u64) -> Vec<String> {
        let shown = |show: fn(&NodeStatus) -> String| {
            self.answer.as_ref().map_or_else(|_| "-".to_owned(), show)
        };
        let viewers = self.up_for.len() + self.down_for.len();
        vec![
            self.entry.name().to_owned(),
            self.entry.address().to_owned(),
            self.entry.zone().to_owned(),
            self.state().to_owned(),
            format!("{}/{viewers}", self.up_for.len()),
            shown(|status| status.keys.to_string()),
            percent(self.owned, all),
            shown(|status| rough_span(status.uptime_ms)),
            shown(|status| ring_mark(status.topology)),
        ]
    }
}

fn text(topology: &Topology, rows: &[Row]) -> String {
    let all = rows.iter().map(|row| row.owned).sum();
    let header = ["NODE", "ADDRESS", "ZONE", "STATE", "UP FOR", "~KEYS", "SHARE", "UPTIME", "RING"];
    let cells = rows.iter().map(|row| row.cells(all)).collect();
    let mut text = table(&header, &["~KEYS", "SHARE", "UPTIME"], cells);
    text.push('\n');
    for row in rows {
        let name = row.entry.name();
        match &row.answer {
            Err(error) => drop(writeln!(text, "{name} does not answer: {error}")),
            Ok(status) if status.amnesiac => drop(writeln!(
                text,
                "{name} does not count in read quorums: its disk cannot be proven complete"
            )),
            Ok(_) => {}
        }
        if let Ok(status) = &row.answer {
            text.push_str(&damage(name, status));
            text.push_str(&faults(name, status));
        }
        if !row.down_for.is_empty() {
            let _ = writeln!(text, "{name} is down for {}", row.down_for.join(", "));
        }
        if !row.suspected_by.is_empty() {
            let by: Vec<&str> = row.suspected_by.iter().map(String::as_str).collect();
            let _ = writeln!(text, "{name} is suspected by {}", by.join(", "));
        }
    }
    let up = rows.iter().filter(|row| row.answer.is_ok()).count();
    let rings = if rings(rows).len() > 1 { "they go by DIFFERENT rings" } else { "one ring" };
    let cluster = &topology.state().cluster;
    let (all, changing) = (rows.len(), changing(topology));
    let _ = writeln!(text, "cluster {cluster}: {up} of {all} nodes answer, {rings}{changing}");
    text
}

/// What a node does to itself because it was told to; nothing, outside of tests.
fn faults(name: &str, status: &NodeStatus) -> String {
    let count = status.counters.iter().find(|(name, _)| name == "faults_in_force");
    match count.map_or(0, |(_, count)| *count) {
        0 => String::new(),
        count => {
            let faults = counted(count as usize, "fault");
            format!(
                "{name} injects {faults} into itself: `ringdove fault` at that node lists them\n"
            )
        }
    }
}

/// What a node has found to be wrong with its disk; nothing, on most days.
fn damage(name: &str, status: &NodeStatus) -> String {
    let counter = |counter: &str| {
        let row = status.counters.iter().find(|(name, _)| name == counter);
        row.map_or(0, |(_, count)| *count)
    };
    let mut text = String::new();
    let (damaged, restored) = (counter("scrub_damaged"), counter("scrub_restored"));
    if damaged > 0 {
        let records = counted(damaged as usize, "damaged record");
        let _ = writeln!(
            text,
            "{name} has found {records} since its start and restored {restored}: look at its disk"
        );
    }
    let waiting = counter("scrub_waiting");
    if waiting > 0 {
        let records = counted(waiting as usize, "damaged record");
        let _ = writeln!(
            text,
            "{name} has {records} left that it does not serve until all their other replicas answer"
        );
    }
    if counter("scrub_rebuild_due") > 0 {
        let _ = writeln!(
            text,
            "{name} cannot read a part of its database: restart it, and it builds it anew from the rest \
             and the other replicas"
        );
    }
    text
}

/// How much is still to change hands, where anything is.
pub(super) fn changing(topology: &Topology) -> String {
    let slots = match topology.changing() {
        0 => String::new(),
        slots => format!(", {} changing hands", counted(slots, "slot")),
    };
    match topology.moving() {
        0 => slots,
        buckets => format!("{slots}, {} getting another n", counted(buckets, "bucket")),
    }
}

fn rings(rows: &[Row]) -> BTreeSet<TopologyVersion> {
    rows.iter().filter_map(|row| Some(row.answer.as_ref().ok()?.topology)).collect()
}

fn document(topology: &Topology, rows: &[Row]) -> Value {
    let all: u64 = rows.iter().map(|row| row.owned).sum();
    let node = |row: &Row| {
        let status = row.answer.as_ref().ok();
        json!({
            "id": row.id.to_string(),
            "name": row.entry.name(),
            "address": row.entry.address(),
            "text_address": row.entry.text_address(),
            "zone": row.entry.zone(),
            "state": row.state(),
            "answers": row.answer.is_ok(),
            "error": row.answer.as_ref().err().map(ToString::to_string),
            "up_for": row.up_for,
            "down_for": row.down_for,
            "suspected_by": row.suspected_by,
            "share": if all == 0 { 0.0 } else { row.owned as f64 / all as f64 },
            "keys": status.map(|status| status.keys),
            "uptime_ms": status.map(|status| status.uptime_ms),
            "version": status.map(|status| &status.version),
            "amnesiac": status.map(|status| status.amnesiac),
            "epoch": status.map(|status| status.topology.epoch),
            "ring": status.map(|status| format!("{:016x}", status.topology.hash)),
            "counters": status.map(|status| {
                status.counters.iter().map(|(name, count)| (name.clone(), json!(count)))
                    .collect::<serde_json::Map<_, _>>()
            }),
        })
    };
    json!({
        "cluster": topology.state().cluster,
        "changing": topology.changing(),
        "nodes": rows.iter().map(node).collect::<Vec<_>>(),
        "one_ring": rings(rows).len() <= 1,
    })
}
