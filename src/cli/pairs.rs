//! `sync pairs`: when each two owners of a partition were last seen equal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::cluster::name_of;
use super::exit::{Ending, Exit, Failure};
use super::output::{Form, table};
use super::quantity::{rough_span, size};
use super::sync::{Row, ask};
use crate::client::Topology;
use crate::ids::{NodeId, Partition};
use crate::limits;
use crate::wire::messages::{Control, ControlReply};
use crate::wire::sync::SyncPair;

pub(super) const LEGEND: &str = "\
Columns:
  EQUAL   how long ago the last comparison of the two began that found nothing
          to do, as far as the two know since they were started
  MENDED  keys that were mended since then, at either end
  MOVED   bytes of objects that went either way for that";

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Pairs {
    /// Only this partition, 0 to one less than there are
    #[arg(long, value_name = "P")]
    partition: Option<u16>,
}

/// Two owners of a partition, the one with the smaller id first.
pub(super) type Two = (Partition, NodeId, NodeId);

/// What both together know of it.
#[derive(Default)]
pub(super) struct Seen {
    equal_ms: Option<u64>,
    is_overdue: bool,
    repaired: u64,
    bytes: u64,
}

impl Seen {
    /// How long ago the last comparison began that found nothing to do.
    pub(super) fn equal_ms(&self) -> Option<u64> {
        self.equal_ms
    }
}

pub(super) async fn run(topology: &Topology, asked: Pairs, time: Duration, form: Form) -> Ending {
    let partitions = topology.partitions();
    if asked.partition.is_some_and(|partition| u32::from(partition) >= partitions) {
        let last = partitions - 1;
        return Err(Failure::usage(format!("the partitions of this cluster are 0 to {last}")));
    }
    let (seen, rows) = match asked.partition.map(Partition) {
        Some(partition) => of_partition(topology, partition, time).await,
        None => all(topology, time).await,
    };
    let silent = || rows.iter().filter_map(|row| Some((&row.name, row.answer.as_ref().err()?)));
    let mut text = text(topology, &seen);
    for (name, why) in silent() {
        let _ = writeln!(text, "{name} does not answer: {why}");
    }
    form.answer(&text, || {
        let pair = |((partition, one, other), seen): (&Two, &Seen)| {
            json!({
                "partition": partition.0,
                "owners": [one.to_string(), other.to_string()],
                "names": [name_of(topology, *one), name_of(topology, *other)],
                "equal_ms": seen.equal_ms,
                "overdue": seen.is_overdue,
                "repaired": seen.repaired,
                "bytes": seen.bytes,
            })
        };
        let silent = silent().map(|(name, why)| json!({ "name": name, "error": why }));
        json!({
            "pairs": seen.iter().map(pair).collect::<Vec<_>>(),
            "no_answer": silent.collect::<Vec<_>>(),
        })
    })?;
    Ok(if silent().next().is_none() { Exit::Done } else { Exit::Unavailable })
}

/// What all members know of the owners of one partition.
pub(super) async fn of_partition(
    topology: &Topology,
    partition: Partition,
    time: Duration,
) -> (BTreeMap<Two, Seen>, Vec<Row<Vec<SyncPair>>>) {
    let rows = page(topology, (partition, NodeId(0)), time).await;
    let mut seen = BTreeMap::new();
    for (id, pair) in known(&rows).filter(|(_, pair)| pair.partition == partition) {
        add(&mut seen, id, pair);
    }
    (seen, rows)
}

/// What all members know, page by page: the members' pages end at different pairs, so the next begins
/// where the first of them ended.
async fn all(
    topology: &Topology,
    time: Duration,
) -> (BTreeMap<Two, Seen>, Vec<Row<Vec<SyncPair>>>) {
    let mut seen = BTreeMap::new();
    let mut from = (Partition(0), NodeId(0));
    loop {
        let rows = page(topology, from, time).await;
        let ends = rows.iter().filter_map(|row| {
            let pairs = row.answer.as_ref().ok()?;
            let last = pairs.last().filter(|_| pairs.len() == limits::PAGE_KEYS)?;
            Some((last.partition, last.peer))
        });
        let end = ends.min();
        let is_within = |pair: &SyncPair| end.is_none_or(|end| (pair.partition, pair.peer) <= end);
        for (id, pair) in known(&rows).filter(|(_, pair)| is_within(pair)) {
            add(&mut seen, id, pair);
        }
        let Some((partition, peer)) = end else { return (seen, rows) };
        from = match peer.0.checked_add(1) {
            Some(next) => (partition, NodeId(next)),
            None => (Partition(partition.0.saturating_add(1)), NodeId(0)),
        };
    }
}

async fn page(
    topology: &Topology,
    from: (Partition, NodeId),
    time: Duration,
) -> Vec<Row<Vec<SyncPair>>> {
    let take = |reply| match reply {
        ControlReply::SyncPairs(pairs) => Some(pairs),
        _ => None,
    };
    let question = Control::SyncPairs { from, count: limits::PAGE_KEYS as u32 };
    ask(topology, question, time, take).await
}

fn known(rows: &[Row<Vec<SyncPair>>]) -> impl Iterator<Item = (NodeId, &SyncPair)> {
    let answered = rows.iter().filter_map(|row| Some((row.id, row.answer.as_ref().ok()?)));
    answered.flat_map(|(id, pairs)| pairs.iter().map(move |pair| (id, pair)))
}

fn add(seen: &mut BTreeMap<Two, Seen>, id: NodeId, pair: &SyncPair) {
    let two = (pair.partition, id.min(pair.peer), id.max(pair.peer));
    let both = seen.entry(two).or_insert_with(|| Seen { is_overdue: true, ..Seen::default() });
    both.equal_ms = both.equal_ms.into_iter().chain(pair.in_sync_ms).min();
    both.is_overdue &= pair.is_overdue;
    both.repaired += pair.repaired;
    both.bytes += pair.bytes;
}

/// How long ago two owners were seen equal, in words.
pub(super) fn ago(seen: &Seen) -> String {
    let overdue = if seen.is_overdue { ", overdue" } else { "" };
    match seen.equal_ms {
        Some(age) => format!("{} ago{overdue}", rough_span(age)),
        None => format!("not since they started{overdue}"),
    }
}

fn text(topology: &Topology, seen: &BTreeMap<Two, Seen>) -> String {
    let row = |((partition, one, other), seen): (&Two, &Seen)| {
        vec![
            partition.0.to_string(),
            format!("{}, {}", name_of(topology, *one), name_of(topology, *other)),
            ago(seen),
            seen.repaired.to_string(),
            size(seen.bytes),
        ]
    };
    let header = ["PARTITION", "OWNERS", "EQUAL", "MENDED", "MOVED"];
    let rows = seen.iter().map(row).collect();
    table(&header, &["PARTITION", "MENDED", "MOVED"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(peer: u128, in_sync_ms: Option<u64>) -> SyncPair {
        let (partition, peer) = (Partition(3), NodeId(peer));
        SyncPair {
            partition,
            peer,
            in_sync_ms,
            waits_ms: 5,
            is_overdue: in_sync_ms.is_none(),
            repaired: 2,
            bytes: 10,
        }
    }

    #[test]
    fn what_two_owners_know_of_each_other_is_one_row_and_the_later_look_counts() {
        let mut seen = BTreeMap::new();
        add(&mut seen, NodeId(1), &pair(2, None));
        assert_eq!(ago(seen.values().next().unwrap()), "not since they started, overdue");
        add(&mut seen, NodeId(2), &pair(1, Some(4000)));
        assert_eq!(seen.len(), 1);
        let both = seen.values().next().unwrap();
        assert_eq!((both.repaired, both.bytes, both.is_overdue), (4, 20, false));
        assert_eq!(ago(both), "4s ago");
    }
}
