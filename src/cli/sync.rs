//! `sync`: which owners of the data were last seen equal when, and telling all nodes to compare.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::args::Asked;
use super::cluster::{ask_all, connect, name_of};
use super::exit::{Ending, Exit};
use super::output::{Form, table};
use super::pairs;
use super::quantity::{counted, rough_span, size};
use crate::client::{Client, Topology, direct};
use crate::ids::NodeId;
use crate::wire::messages::{Control, ControlReply, Request, Response};
use crate::wire::sync::{SyncPair, SyncStatus};

const SYNC_EXAMPLES: &str = "\
Owners of a partition compare what they have all the time, two and two, and mend
what differs. There is nothing to schedule. `ringdove wait --synced` waits until
everything written so far is on all its owners.

Examples:
  ringdove sync status
  ringdove sync pairs --partition 17
  ringdove sync pause        on all nodes, until resume or their next start";

const STATUS_LEGEND: &str = "\
Columns:
  IN SYNC  pairs of a partition the node owns and another owner of it that were
           in sync lately, of all
  OVERDUE  pairs that were not for longer than sync.alarm_s
  OLDEST   how long ago the pair was last in sync that has waited longest
  MENDED   keys that were mended since the node started, at either end
  MOVED    bytes of objects that went either way for that

Exit code 0, 1 when a pair is overdue, 3 when a node does not answer.";

/// Watch how the owners of the data stay equal, and tell them to compare
#[derive(Clone, Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = SYNC_EXAMPLES)]
pub(super) struct Sync {
    #[command(subcommand)]
    command: SyncCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum SyncCommand {
    /// Show every partition: when each two of its owners were last seen equal
    #[command(after_help = pairs::LEGEND)]
    Pairs(pairs::Pairs),
    /// Show which owners were last seen in sync when, and what is being mended
    #[command(after_help = STATUS_LEGEND)]
    Status,
    /// Make all nodes compare everything now
    Now,
    /// Make all nodes begin no more comparisons, until `resume` or their next start
    Pause,
    /// Make all nodes go on
    Resume,
}

/// What one node answered.
pub(super) struct Row<T> {
    pub(super) id: NodeId,
    pub(super) name: String,
    pub(super) answer: Result<T, String>,
}

pub(super) async fn run(asked: &Asked<Sync>) -> Ending {
    let client = connect(&asked.cluster).await?;
    sync(&client, &asked.question, asked.cluster.timeout, asked.form()).await
}

/// Asks or tells every member.
pub(super) async fn sync(client: &Client, said: &Sync, time: Duration, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let (control, done) = match said.command {
        SyncCommand::Status => return status(&topology, time, form).await,
        SyncCommand::Pairs(asked) => return pairs::run(&topology, asked, time, form).await,
        SyncCommand::Now => (Control::SyncNow, "compare everything now"),
        SyncCommand::Pause => (Control::SyncPause(true), "begin no more comparisons"),
        SyncCommand::Resume => (Control::SyncPause(false), "go on comparing"),
    };
    let rows = tell(&topology, control, time).await;
    let silent = rows.iter().filter_map(|row| Some((&row.name, row.answer.as_ref().err()?)));
    let mut text =
        format!("{} of {} nodes {done}\n", rows.len() - silent.clone().count(), rows.len());
    for (name, why) in silent.clone() {
        let _ = writeln!(text, "{name} has not heard it: {why}");
    }
    form.answer(&text, || {
        let silent = silent.clone().map(|(name, why)| json!({ "name": name, "error": why }));
        json!({ "nodes": rows.len(), "no_answer": silent.collect::<Vec<_>>() })
    })?;
    Ok(if silent.count() == 0 { Exit::Done } else { Exit::Unavailable })
}

/// Tells every member something that is answered with "done".
pub(super) async fn tell(topology: &Topology, control: Control, time: Duration) -> Vec<Row<()>> {
    let only_done = |reply| matches!(reply, ControlReply::Ok).then_some(());
    ask(topology, control, time, only_done).await
}

pub(super) async fn ask<T: Send + 'static>(
    topology: &Topology,
    control: Control,
    time: Duration,
    take: fn(ControlReply) -> Option<T>,
) -> Vec<Row<T>> {
    let request = Request::Control(control);
    let answers = ask_all(topology, |address| {
        let request = request.clone();
        async move {
            let answer = direct::request(&address, &request, time).await;
            match answer.map_err(|error| error.to_string())? {
                Response::Control(reply) => take(reply),
                _ => None,
            }
            .ok_or_else(|| "the node answered another question".to_owned())
        }
    });
    let row = |(id, entry, answer): (_, crate::membership::MemberEntry, _)| Row {
        id,
        name: entry.name().to_owned(),
        answer,
    };
    answers.await.into_iter().map(row).collect()
}

/// Asks every member how it stands with the other owners.
pub(super) async fn statuses(topology: &Topology, time: Duration) -> Vec<Row<SyncStatus>> {
    let take = |reply| match reply {
        ControlReply::SyncStatus(status) => Some(status),
        _ => None,
    };
    ask(topology, Control::SyncStatus, time, take).await
}

async fn status(topology: &Topology, time: Duration, form: Form) -> Ending {
    let rows = statuses(topology, time).await;
    form.answer(&text(topology, &rows), || document(topology, &rows))?;
    let is_overdue =
        |row: &Row<SyncStatus>| row.answer.as_ref().is_ok_and(|status| status.overdue > 0);
    // A member that is away is overdue after a while as well; then the worse is said.
    Ok(match (rows.iter().any(is_overdue), rows.iter().all(|row| row.answer.is_ok())) {
        (true, _) => Exit::No,
        (false, false) => Exit::Unavailable,
        (false, true) => Exit::Done,
    })
}

/// Those who answered, with what they said.
fn said(rows: &[Row<SyncStatus>]) -> impl Iterator<Item = (&str, &SyncStatus)> + Clone {
    rows.iter().filter_map(|row| Some((row.name.as_str(), row.answer.as_ref().ok()?)))
}

fn text(topology: &Topology, rows: &[Row<SyncStatus>]) -> String {
    let header = ["NODE", "IN SYNC", "OVERDUE", "OLDEST", "MENDED", "MOVED"];
    let figures = |(name, status): (&str, &SyncStatus)| {
        vec![
            name.to_owned(),
            format!("{}/{}", status.in_sync, status.pairs),
            status.overdue.to_string(),
            status.oldest_ms.map_or_else(|| "-".to_owned(), rough_span),
            status.counter("repaired").to_string(),
            size(status.counter("bytes")),
        ]
    };
    let mut text = table(&header, &header[1..], said(rows).map(figures).collect());
    text.push('\n');
    for line in overdue_lines(topology, rows, usize::MAX) {
        let _ = writeln!(text, "{line}");
    }
    for (name, status) in said(rows) {
        for (tree, peer, keys) in &status.exchanging {
            let (peer, keys) = (name_of(topology, *peer), counted(*keys as usize, "key"));
            let (partition, bucket) = (tree.partition, &tree.bucket);
            let _ = writeln!(
                text,
                "{name} and {peer} are mending bucket {bucket} in partition {partition}: {keys} so far"
            );
        }
        if status.paused {
            let _ = writeln!(text, "{name} is paused: `ringdove sync resume` makes it go on");
        }
    }
    for row in rows {
        if let Err(why) = &row.answer {
            let _ = writeln!(text, "{} does not answer: {why}", row.name);
        }
    }
    text + &summary(rows) + "\n"
}

/// What is to be said of pairs that are overdue: of each member's at most so many, and then how
/// many more there are.
pub(super) fn overdue_lines<'a>(
    topology: &'a Topology,
    rows: &'a [Row<SyncStatus>],
    most: usize,
) -> impl Iterator<Item = String> + 'a {
    said(rows).flat_map(move |(name, status)| {
        let overdue = status.shown.iter().filter(|pair| pair.is_overdue).take(most);
        let named = overdue.clone().count() as u32;
        let line = move |pair: &SyncPair| {
            let (partition, peer) = (pair.partition, name_of(topology, pair.peer));
            let since = match pair.in_sync_ms {
                Some(age) => format!("not been in sync for {}", rough_span(age)),
                None => {
                    format!("not been in sync in {} since its start", rough_span(pair.waits_ms))
                }
            };
            let moved = match (pair.repaired, pair.bytes) {
                (0, 0) => String::new(),
                (keys, bytes) => {
                    format!(" ({} mended, {} moved)", counted(keys as usize, "key"), size(bytes))
                }
            };
            format!("{name} has in partition {partition} with {peer} {since}{moved}")
        };
        let rest = status.overdue.saturating_sub(named);
        let more = (rest > 0).then(|| {
            format!("{name} has {} more that are overdue", counted(rest as usize, "pair"))
        });
        overdue.map(line).chain(more)
    })
}

fn summary(rows: &[Row<SyncStatus>]) -> String {
    let sum = |figure: fn(&SyncStatus) -> u32| -> u64 {
        said(rows).map(|(_, status)| u64::from(figure(status))).sum()
    };
    let (pairs, in_sync, overdue) = (sum(|s| s.pairs), sum(|s| s.in_sync), sum(|s| s.overdue));
    let silent = rows.iter().filter(|row| row.answer.is_err()).count();
    match (overdue, pairs - in_sync, silent) {
        (0, 0, 0) => "everything is in sync".to_owned(),
        (0, 0, _) => format!("those who answer are in sync; {} did not", counted(silent, "node")),
        (0, waiting, _) => {
            let pairs = counted(waiting as usize, "pair");
            let all = waiting + in_sync;
            format!("{pairs} of {all} still to be compared since the nodes started")
        }
        (overdue, ..) => format!("{} overdue", counted(overdue as usize, "pair")),
    }
}

fn document(topology: &Topology, rows: &[Row<SyncStatus>]) -> Value {
    let pair = |pair: &SyncPair| {
        json!({
            "partition": pair.partition.0,
            "with": pair.peer.to_string(),
            "with_name": name_of(topology, pair.peer),
            "in_sync_ms": pair.in_sync_ms,
            "waits_ms": pair.waits_ms,
            "overdue": pair.is_overdue,
            "repaired": pair.repaired,
            "bytes": pair.bytes,
        })
    };
    let node = |row: &Row<SyncStatus>| {
        let mut fields = Map::new();
        fields.insert("id".to_owned(), json!(row.id.to_string()));
        fields.insert("name".to_owned(), json!(row.name));
        fields.insert("error".to_owned(), json!(row.answer.as_ref().err()));
        if let Ok(status) = &row.answer {
            let mending = status.exchanging.iter().map(|(tree, peer, keys)| {
                json!({
                    "partition": tree.partition.0,
                    "bucket": tree.bucket,
                    "with": peer.to_string(),
                    "with_name": name_of(topology, *peer),
                    "keys": keys,
                })
            });
            let counters = status.counters.iter().map(|(name, count)| (name.clone(), json!(count)));
            let said = [
                ("pairs", json!(status.pairs)),
                ("in_sync", json!(status.in_sync)),
                ("overdue", json!(status.overdue)),
                ("oldest_ms", json!(status.oldest_ms)),
                ("waits_ms", json!(status.waits_ms)),
                ("alarm_ms", json!(status.alarm_ms)),
                ("paused", json!(status.paused)),
                ("shown", status.shown.iter().map(pair).collect()),
                ("mending", mending.collect()),
                ("counters", Value::Object(counters.collect())),
            ];
            fields.extend(said.map(|(name, value)| (name.to_owned(), value)));
        }
        Value::Object(fields)
    };
    json!({
        "in_sync": summary(rows) == "everything is in sync",
        "nodes": rows.iter().map(node).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Partition;
    use crate::membership::ClusterState;
    use crate::wire::sync::TreeId;

    fn row(answer: Result<SyncStatus, String>) -> Row<SyncStatus> {
        Row { id: NodeId(7), name: "node-with-a-long-name".to_owned(), answer }
    }

    fn in_sync() -> SyncStatus {
        SyncStatus { pairs: 2048, in_sync: 2048, oldest_ms: Some(14_000), ..SyncStatus::default() }
    }

    #[test]
    fn what_is_in_sync_is_a_sentence_and_what_is_not_is_named() {
        let topology = Topology::new(ClusterState::new("test", 64));
        let shown = text(&topology, &[row(Ok(in_sync()))]);
        assert!(shown.contains("2048/2048") && shown.contains("14s"), "{shown}");
        assert!(shown.ends_with("\neverything is in sync\n"), "{shown}");

        let pair = SyncPair {
            partition: Partition(17),
            peer: NodeId(1 << 100),
            in_sync_ms: None,
            waits_ms: 660_000,
            is_overdue: true,
            repaired: 1,
            bytes: 2048,
        };
        let tree = TreeId { partition: Partition(17), bucket: "carts".to_owned() };
        let late = SyncStatus {
            in_sync: 2040,
            overdue: 8,
            oldest_ms: None,
            shown: vec![pair],
            exchanging: vec![(tree, NodeId(1 << 100), 1)],
            paused: true,
            counters: vec![("repaired".to_owned(), 5)],
            ..in_sync()
        };
        let rows = [row(Ok(late)), row(Err("gone".to_owned()))];
        let shown = text(&topology, &rows);
        for part in [
            "2040/2048",
            "not been in sync in 11m since its start (1 key mended, 2.0 KiB moved)",
            "has 7 pairs more that are overdue",
            "are mending bucket carts in partition 17: 1 key so far",
            "is paused",
            "does not answer: gone",
            "\n8 pairs overdue\n",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let document = document(&topology, &rows);
        assert_eq!(document["in_sync"], false);
        assert_eq!(document["nodes"][0]["shown"][0]["partition"], 17);
        assert_eq!(document["nodes"][1]["error"], "gone");
    }

    #[test]
    fn what_has_only_just_started_is_not_in_sync_yet_and_not_overdue() {
        let begun = SyncStatus { in_sync: 2000, oldest_ms: None, ..in_sync() };
        assert_eq!(
            summary(&[row(Ok(begun))]),
            "48 pairs of 2048 still to be compared since the nodes started"
        );
        let rows = [row(Ok(in_sync())), row(Err("gone".to_owned()))];
        assert_eq!(summary(&rows), "those who answer are in sync; 1 node did not");
    }
}
