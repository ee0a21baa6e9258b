//! `tombstones`: what was deleted and waits to be forgotten, and who holds that up.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::args::Asked;
use super::cluster::connect;
use super::exit::{Ending, Exit};
use super::output::{Form, table};
use super::quantity::{rough_span, size};
use crate::client::{Client, MemberReport};
use crate::ids::NodeId;
use crate::time::WallMs;
use crate::wire::reap::{HeldUp, ReapStatus};

const TOMBSTONES_LEGEND: &str = "\
A deleted key keeps a tombstone until every member has agreed that nothing older
is left of it anywhere. Each partition is looked after by its first owner, which
is the node a row is about. A member that is away holds up all of them, until it
is back, or replaced, or removed. Exit code 3 when a node does not answer.";

/// Show what was deleted and waits to be forgotten, and who holds it up
#[derive(Clone, Debug, Args)]
#[command(after_help = TOMBSTONES_LEGEND)]
pub(super) struct Tombstones {}

pub(super) async fn run(asked: &Asked<Tombstones>) -> Ending {
    let client = connect(&asked.cluster).await?;
    show(&client, asked.form()).await
}

/// Shows what waits, at every member.
pub(super) async fn show(client: &Client, form: Form) -> Ending {
    let reports = client.survey().await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = WallMs(now.as_millis() as u64);
    form.answer(&text(&reports, now), || document(&reports, now))?;
    let complete = reports.iter().all(|report| report.said.is_some());
    Ok(if complete { Exit::Done } else { Exit::Unavailable })
}

fn statuses(reports: &[MemberReport]) -> impl Iterator<Item = (&str, &ReapStatus)> {
    let said = |report: &MemberReport| report.said.is_some();
    reports.iter().filter(move |report| said(report)).map(|report| {
        let said = report.said.as_ref().expect("the others were left out");
        (report.name.as_str(), &said.reaping)
    })
}

/// The name of a member, or its id.
fn name(reports: &[MemberReport], node: NodeId) -> String {
    let known = reports.iter().find(|report| report.id == node);
    known.map_or_else(|| node.short(), |report| report.name.clone())
}

/// Why, with the names of all who are in it.
fn reason(reports: &[MemberReport], why: HeldUp) -> String {
    match why {
        HeldUp::AwayFrom(other) => format!("cannot reach {}", name(reports, other)),
        why => why.words().to_owned(),
    }
}

fn text(reports: &[MemberReport], now: WallMs) -> String {
    let mut rows = Vec::new();
    let mut held_up = String::new();
    for (node, status) in statuses(reports).filter(|(_, status)| status.waiting > 0) {
        rows.push(vec![
            node.to_owned(),
            status.waiting.to_string(),
            size(status.bytes),
            rough_span(status.age_ms(now)),
        ]);
        for (by, why, keys) in &status.held_up {
            let (by, why) = (name(reports, *by), reason(reports, *why));
            let _ = writeln!(held_up, "{node}: {keys} keys held up by {by}: {why}");
        }
    }
    let mut text = match rows.is_empty() {
        true => "nothing waits to be forgotten\n".to_owned(),
        false => {
            let header = ["AT", "WAITING", "BYTES", "OLDEST"];
            table(&header, &["WAITING", "BYTES", "OLDEST"], rows)
        }
    };
    if !held_up.is_empty() {
        let _ = write!(text, "\n{held_up}");
    }
    let silent: Vec<&str> =
        reports.iter().filter(|report| report.said.is_none()).map(|r| r.name.as_str()).collect();
    if !silent.is_empty() {
        let _ = writeln!(text, "no answer, and so not known: {}", silent.join(", "));
    }
    text
}

fn document(reports: &[MemberReport], now: WallMs) -> Value {
    let row = |(node, status): (&str, &ReapStatus)| {
        let held_up = status.held_up.iter().map(|(by, why, keys)| {
            json!({ "by": name(reports, *by), "by_id": by.to_string(), "why": reason(reports, *why), "keys": keys })
        });
        json!({
            "at": node,
            "waiting": status.waiting,
            "bytes": status.bytes,
            "oldest_ms": status.age_ms(now),
            "held_up": held_up.collect::<Vec<_>>(),
        })
    };
    let silent = reports.iter().filter(|report| report.said.is_none()).map(|report| &report.name);
    json!({
        "tombstones": statuses(reports).map(row).collect::<Vec<_>>(),
        "no_answer": silent.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{MemberState, SyncState};
    use crate::wire::messages::TopologyVersion;

    fn report(id: u128, reaping: ReapStatus) -> MemberReport {
        let said = MemberState {
            state: "serving".to_owned(),
            topology: TopologyVersion { epoch: 1, hash: 1 },
            slots_changing: 0,
            buckets_moving: 0,
            apart_from: Vec::new(),
            hints: Vec::new(),
            sync: SyncState::default(),
            reaping,
        };
        MemberReport { id: NodeId(id), name: format!("n{id}"), said: Some(said) }
    }

    #[test]
    fn what_waits_is_shown_with_whom_it_waits_for() {
        let now = WallMs(10_000_000);
        let held_up =
            vec![(NodeId(2), HeldUp::Away, 12), (NodeId(1), HeldUp::AwayFrom(NodeId(2)), 12)];
        let (waiting, bytes, oldest) = (12, 2048, Some(WallMs(6_400_000)));
        let status = ReapStatus { waiting, bytes, oldest, held_up, counters: Vec::new() };
        let mut silent = report(2, ReapStatus::default());
        silent.said = None;
        let reports = [report(1, status), silent];
        let shown = text(&reports, now);
        assert!(shown.contains("n1: 12 keys held up by n2: away"), "{shown}");
        assert!(shown.contains("n1: 12 keys held up by n1: cannot reach n2"), "{shown}");
        assert!(shown.contains("60m") || shown.contains("1h"), "{shown}");
        assert!(shown.ends_with("not known: n2\n"));
        assert_eq!(document(&reports, now)["tombstones"][0]["oldest_ms"], 3_600_000);
        assert_eq!(text(&[], now), "nothing waits to be forgotten\n");
    }
}
