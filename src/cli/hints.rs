//! `hints`: who keeps how much for whom.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::args::Asked;
use super::cluster::connect;
use super::exit::{Ending, Exit};
use super::output::{Form, table};
use super::quantity::{rough_span, size};
use crate::client::{Client, HintStatus, MemberReport};

const HINTS_LEGEND: &str = "\
A hint is what a member has missed, kept by another until it has it. OLDEST:
nothing that is kept is older. ETA: at the rate of now. Exit code 3 when a node
does not answer.";

/// Show what the nodes keep for members that are away
#[derive(Clone, Debug, Args)]
#[command(after_help = HINTS_LEGEND)]
pub(super) struct Hints {}

pub(super) async fn run(asked: &Asked<Hints>) -> Ending {
    let client = connect(&asked.cluster).await?;
    hints(&client, asked.form()).await
}

/// Shows what every member keeps for others.
pub(super) async fn hints(client: &Client, form: Form) -> Ending {
    let reports = client.survey().await?;
    form.answer(&text(&reports), || document(&reports))?;
    // What somebody keeps who does not answer is not known.
    let complete = reports.iter().all(|report| report.said.is_some());
    Ok(if complete { Exit::Done } else { Exit::Unavailable })
}

/// Each member with what it keeps for one other.
fn kept(reports: &[MemberReport]) -> impl Iterator<Item = (&str, &HintStatus)> {
    reports.iter().flat_map(|report| {
        let hints = report.said.iter().flat_map(|said| &said.hints);
        hints.map(|hint| (report.name.as_str(), hint))
    })
}

fn text(reports: &[MemberReport]) -> String {
    let header = ["KEPT BY", "FOR", "KEYS", "BYTES", "OLDEST", "KEYS/S", "ETA", "MARKED"];
    let rows: Vec<Vec<String>> = kept(reports).map(|(name, hint)| cells(name, hint)).collect();
    let silent: Vec<&str> =
        reports.iter().filter(|report| report.said.is_none()).map(|r| r.name.as_str()).collect();
    let mut text = match (rows.is_empty(), silent.is_empty()) {
        (true, true) => "nothing is kept for anybody\n".to_owned(),
        (true, false) => "those who answer keep nothing for anybody\n".to_owned(),
        (false, _) => table(&header, &["KEYS", "BYTES", "OLDEST", "KEYS/S", "ETA", "MARKED"], rows),
    };
    if kept(reports).any(|(_, hint)| hint.dirty_partitions > 0) {
        text.push_str(
            "\nMARKED: partitions of which hints were let go for want of room (hints.mb): there\n\
             the member may be behind until its keys are read or compared\n",
        );
    }
    if !silent.is_empty() {
        let _ = writeln!(text, "no answer, and so not known: {}", silent.join(", "));
    }
    text
}

fn cells(name: &str, hint: &HintStatus) -> Vec<String> {
    let or_none = |shown: String, is_there: bool| if is_there { shown } else { "-".to_owned() };
    let eta = hint.eta_seconds().map_or("-".to_owned(), |seconds| rough_span(seconds * 1000));
    vec![
        name.to_owned(),
        hint.label(),
        hint.count.to_string(),
        size(hint.bytes),
        or_none(rough_span(hint.oldest_ms), hint.count > 0),
        or_none(hint.rate.to_string(), hint.rate > 0),
        or_none(eta, hint.count > 0),
        or_none(hint.dirty_partitions.to_string(), hint.dirty_partitions > 0),
    ]
}

fn document(reports: &[MemberReport]) -> Value {
    let row = |(name, hint): (&str, &HintStatus)| {
        json!({
            "kept_by": name,
            "for": hint.label(),
            "for_id": hint.owner.to_string(),
            "keys": hint.count,
            "bytes": hint.bytes,
            "oldest_ms": hint.oldest_ms,
            "rate": hint.rate,
            "eta_seconds": hint.eta_seconds(),
            "marked_partitions": hint.dirty_partitions,
        })
    };
    let silent = reports.iter().filter(|report| report.said.is_none()).map(|report| &report.name);
    json!({
        "hints": kept(reports).map(row).collect::<Vec<_>>(),
        "no_answer": silent.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{MemberState, SyncState};
    use crate::ids::NodeId;
    use crate::wire::messages::TopologyVersion;

    fn report(name: &str, hints: Vec<HintStatus>) -> MemberReport {
        let said = MemberState {
            state: "serving".to_owned(),
            topology: TopologyVersion { epoch: 1, hash: 1 },
            slots_changing: 0,
            buckets_moving: 0,
            apart_from: Vec::new(),
            hints,
            sync: SyncState::default(),
            reaping: Default::default(),
        };
        MemberReport { id: NodeId(1), name: name.to_owned(), said: Some(said) }
    }

    #[test]
    fn everything_fits_the_table_and_nothing_is_a_sentence() {
        let hint = HintStatus {
            owner: NodeId(7),
            name: "a-node-with-a-name".to_owned(),
            count: 12_345_678,
            bytes: 9 << 30,
            oldest_ms: 3_700_000,
            rate: 12_000,
            dirty_partitions: 1024,
        };
        let mut reports = vec![report("another-node-with-a-name", vec![hint]), report("b", vec![])];
        let shown = text(&reports);
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert!(shown.contains("12345678") && shown.contains("17m") && shown.contains("MARKED:"));
        assert_eq!(document(&reports)["hints"][0]["eta_seconds"], 1029);
        reports.remove(0);
        assert_eq!(text(&reports), "nothing is kept for anybody\n");
        reports[0].said = None;
        assert!(text(&reports).contains("not known: b"));
        assert_eq!(document(&reports)["no_answer"][0], "b");
    }
}
