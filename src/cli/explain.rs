//! `explain`: where a key is, and what each of its replicas holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::args::{Asked, Explain};
use super::cluster::{connect, name_of};
use super::data::named;
use super::exit::{Ending, Exit};
use super::output::{Form, bytes_json, table};
use super::pairs;
use crate::client::{Client, Explanation, Topology};
use crate::ids::Partition;
use crate::key::Key;
use crate::wire::messages::ReplicaView;

pub(super) async fn run(asked: &Asked<Explain>) -> Ending {
    let question = &asked.question;
    let key = named(&question.key, question.bucket.as_deref().unwrap_or("default"))?;
    let client = connect(&asked.cluster).await?;
    explain(&client, &key, asked.cluster.timeout, asked.form()).await
}

/// Asks all replicas of a key what they hold, and shows it.
pub(super) async fn explain(client: &Client, key: &Key, time: Duration, form: Form) -> Ending {
    let explanation = client.explain(key.bucket(), key.name()).await?;
    let topology = client.topology();
    let same = most_common(&explanation);
    let partition = Partition(explanation.partition);
    let (equal, _) = pairs::of_partition(&topology, partition, time).await;
    let mut text = text(&topology, key, &explanation, same);
    text += &equal_lines(&topology, &equal);
    form.answer(&text, || {
        let replica = |view: &ReplicaView| {
            json!({
                "id": view.node.to_string(),
                "name": view.name,
                "state": view.state,
                "siblings": view.siblings,
                "tombstones": view.tombstones,
                "bytes": view.bytes,
                "digest": has_answered(view).then(|| format!("{:032x}", view.digest)),
                "clock": view.clock,
                "same": has_answered(view).then_some(Some(view.digest) == same),
            })
        };
        let two = |((_, one, other), seen): (&pairs::Two, &pairs::Seen)| {
            json!({
                "owners": [one.to_string(), other.to_string()],
                "names": [name_of(&topology, *one), name_of(&topology, *other)],
                "equal_ms": seen.equal_ms(),
            })
        };
        let fallback = |id| json!({ "id": format!("{id}"), "name": name_of(&topology, id) });
        json!({
            "bucket": key.bucket(),
            "key": bytes_json(key.name()),
            "token": format!("{:016x}", explanation.token),
            "partition": explanation.partition,
            "n": explanation.n,
            "replicas": explanation.replicas.iter().map(replica).collect::<Vec<_>>(),
            "equal": equal.iter().map(two).collect::<Vec<_>>(),
            "fallbacks": explanation.fallbacks.iter().copied().map(fallback).collect::<Vec<_>>(),
        })
    })?;
    Ok(Exit::Done)
}

/// Whether it is known what the replica holds.
fn has_answered(view: &ReplicaView) -> bool {
    matches!(view.state.as_str(), "ok" | "missing" | "amnesiac")
}

/// The digest that most replicas have; of two as common the one that comes first in the list.
fn most_common(explanation: &Explanation) -> Option<u128> {
    let digests = || explanation.replicas.iter().filter(|view| has_answered(view));
    let mut counts: BTreeMap<u128, usize> = BTreeMap::new();
    digests().for_each(|view| *counts.entry(view.digest).or_default() += 1);
    let most = counts.values().copied().max()?;
    digests().map(|view| view.digest).find(|digest| counts[digest] == most)
}

fn text(topology: &Topology, key: &Key, explanation: &Explanation, same: Option<u128>) -> String {
    let row = |view: &ReplicaView| {
        let mark = if Some(view.digest) == same { "=" } else { "≠" };
        let digest = match has_answered(view) {
            true => format!("{mark} {:08x}", view.digest >> 96),
            false => "?".to_owned(),
        };
        vec![
            view.name.clone(),
            view.state.clone(),
            view.siblings.to_string(),
            view.tombstones.to_string(),
            view.bytes.to_string(),
            digest,
            view.clock.clone(),
        ]
    };
    let header = ["REPLICA", "STATE", "VALUES", "TOMBS", "BYTES", "DIGEST", "CLOCK"];
    let rows = explanation.replicas.iter().map(row).collect();
    let mut text = format!(
        "{key}: token {:016x}, partition {}, {} replicas\n\n",
        explanation.token, explanation.partition, explanation.n
    );
    text += &table(&header, &["VALUES", "TOMBS", "BYTES"], rows);
    if !explanation.fallbacks.is_empty() {
        let names = explanation.fallbacks.iter().map(|id| name_of(topology, *id));
        let _ = writeln!(text, "\nstand-ins: {}", names.collect::<Vec<_>>().join(", "));
    }
    text
}

/// When the key's partition was last seen equal, for each two of its owners.
fn equal_lines(topology: &Topology, equal: &BTreeMap<pairs::Two, pairs::Seen>) -> String {
    let line = |((_, one, other), seen): (&pairs::Two, &pairs::Seen)| {
        let (one, other) = (name_of(topology, *one), name_of(topology, *other));
        format!("{one} and {other} {}\n", pairs::ago(seen))
    };
    let lines: String = equal.iter().map(line).collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\nthe whole partition was last seen equal:\n{lines}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn view(state: &str, digest: u128) -> ReplicaView {
        ReplicaView {
            node: NodeId(1),
            name: "node-0".to_owned(),
            state: state.to_owned(),
            clock: String::new(),
            siblings: 1,
            tombstones: 0,
            bytes: 9,
            digest,
        }
    }

    #[test]
    fn the_replica_that_differs_from_most_is_marked_and_the_silent_one_is_not_judged() {
        let replicas = vec![view("ok", 1 << 96), view("unreachable", 0), view("ok", 2 << 96)];
        let replicas = [replicas, vec![view("ok", 2 << 96)]].concat();
        let explanation =
            Explanation { token: 0, partition: 3, n: 4, replicas, fallbacks: Vec::new() };
        let same = most_common(&explanation);
        assert_eq!(same, Some(2 << 96));
        let topology = Topology::new(crate::membership::ClusterState::new("test", 64));
        let key = Key::new(b"default", b"k").unwrap();
        let text = text(&topology, &key, &explanation, same);
        assert_eq!(text.matches('≠').count(), 1, "{text}");
        assert_eq!(text.matches("= 00000002").count(), 2, "{text}");
        assert_eq!(text.matches('?').count(), 1, "{text}");
    }
}
