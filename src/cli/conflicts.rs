//! `conflicts`: keys whose writers did not see each other. `top`: keys that stand out.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::args::Asked;
use super::cluster::connect;
use super::exit::{Ending, Exit};
use super::output::{Form, bytes_json, bytes_line, table};
use super::quantity::size;
use crate::client::{Client, ClusterTally, Listed, Outlier, Outliers};

const CONFLICTS_LEGEND: &str = "\
Examples:
  ringdove conflicts              how many there are, by bucket
  ringdove conflicts carts        which keys, and how many values they have
  ringdove get KEY --bucket carts, then put with the context of that, resolves one

Columns:
  KEYS       keys that have a value, each counted once
  DELETED    keys of which only the deletion is remembered
  CONFLICTS  keys with more than one value
  DISCARDED  concurrent versions that last-write-wins has dropped since the
             nodes were started
Exit code 3 when some partitions could not be counted.";

/// Show what is in each bucket, or the keys of one that have several values
#[derive(Clone, Debug, Args)]
#[command(after_help = CONFLICTS_LEGEND)]
pub(super) struct Conflicts {
    /// The bucket whose keys to show
    pub(super) bucket: Option<String>,
    /// No more keys than that
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: usize,
}

const TOP_LEGEND: &str = "\
Of the keys in conflict all are looked at, of the others a million on each node,
from a place drawn by lot. BYTES: the key and all that a replica keeps of it.";

/// Show each node's keys with the most values, and its largest
#[derive(Clone, Debug, Args)]
#[command(after_help = TOP_LEGEND)]
pub(super) struct Top {}

pub(super) async fn run(asked: &Asked<Conflicts>) -> Ending {
    let client = connect(&asked.cluster).await?;
    conflicts(&client, &asked.question, asked.form()).await
}

pub(super) async fn run_top(asked: &Asked<Top>) -> Ending {
    let client = connect(&asked.cluster).await?;
    top(&client, asked.form()).await
}

/// Shows the counts, or the keys of the bucket that is named.
pub(super) async fn conflicts(client: &Client, asked: &Conflicts, form: Form) -> Ending {
    let Some(bucket) = &asked.bucket else {
        let tally = client.tallies().await?;
        form.answer(&counts(&tally), || counts_document(&tally))?;
        return Ok(if tally.uncounted == 0 { Exit::Done } else { Exit::Unavailable });
    };
    let mut keys = client.bucket(bucket)?.conflicts();
    let mut found = Vec::new();
    while found.len() <= asked.limit
        && let Some(listed) = keys.next().await?
    {
        found.push(listed);
    }
    let more = found.len() > asked.limit;
    found.truncate(asked.limit);
    form.answer(&listing(&found, more), || listing_document(bucket, &found, more))?;
    Ok(Exit::Done)
}

fn counts(tally: &ClusterTally) -> String {
    let header = ["BUCKET", "KEYS", "DELETED", "CONFLICTS", "DISCARDED", "BYTES"];
    let row = |of: &crate::client::BucketTally| {
        let counts = [of.keys, of.deleted, of.conflicts, of.discarded].map(|n| n.to_string());
        let [keys, deleted, conflicts, discarded] = counts;
        vec![of.bucket.clone(), keys, deleted, conflicts, discarded, size(of.bytes)]
    };
    let mut text = match tally.buckets.is_empty() {
        true => "there are no keys\n".to_owned(),
        false => table(&header, &header[1..], tally.buckets.iter().map(row).collect()),
    };
    if !tally.silent.is_empty() {
        let _ = writeln!(text, "\nno answer, and others counted: {}", tally.silent.join(", "));
    }
    if tally.uncounted > 0 {
        let _ = writeln!(text, "\npartitions that nobody could count: {}", tally.uncounted);
    }
    text
}

fn counts_document(tally: &ClusterTally) -> Value {
    let row = |of: &crate::client::BucketTally| {
        json!({
            "bucket": of.bucket,
            "keys": of.keys,
            "deleted": of.deleted,
            "conflicts": of.conflicts,
            "discarded": of.discarded,
            "bytes": of.bytes,
        })
    };
    json!({
        "buckets": tally.buckets.iter().map(row).collect::<Vec<_>>(),
        "no_answer": tally.silent,
        "uncounted_partitions": tally.uncounted,
    })
}

fn listing(found: &[Listed], more: bool) -> String {
    if found.is_empty() {
        return "no key has more than one value\n".to_owned();
    }
    let row = |listed: &Listed| {
        let (siblings, bytes) = (listed.siblings.to_string(), size(listed.bytes.into()));
        vec![bytes_line(&listed.key), siblings, bytes]
    };
    let header = ["KEY", "VALUES", "BYTES"];
    let mut text = table(&header, &header[1..], found.iter().map(row).collect());
    if more {
        text.push_str("\nthere are more: --limit\n");
    }
    text
}

fn listed(listed: &Listed) -> Value {
    json!({
        "key": bytes_json(&listed.key),
        "values": listed.siblings,
        "bytes": listed.bytes,
    })
}

fn listing_document(bucket: &str, found: &[Listed], more: bool) -> Value {
    json!({
        "bucket": bucket,
        "keys": found.iter().map(listed).collect::<Vec<_>>(),
        "more": more,
    })
}

/// Shows the keys of each node that stand out.
pub(super) async fn top(client: &Client, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let mut nodes = Vec::new();
    for (_, entry) in topology.state().serving() {
        let found = client.outliers_of(entry.address(), TOP_WITHIN).await.ok();
        nodes.push((entry.name().to_owned(), found));
    }
    nodes.sort_by(|a, b| a.0.cmp(&b.0));
    form.answer(&outliers(&nodes), || outliers_document(&nodes))?;
    let complete = nodes.iter().all(|(_, found)| found.is_some());
    Ok(if complete { Exit::Done } else { Exit::Unavailable })
}

/// How long a node may look at its keys.
const TOP_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

fn outliers(nodes: &[(String, Option<Outliers>)]) -> String {
    let mut text = String::new();
    for (name, found) in nodes {
        let Some(found) = found else {
            let _ = writeln!(text, "{name}: no answer\n");
            continue;
        };
        let part = if found.complete { "all" } else { "part" };
        let _ = writeln!(text, "{name}: {part} of its keys, {} looked at", found.seen);
        for (what, rows) in [("most values", &found.siblings), ("largest", &found.largest)] {
            if rows.is_empty() {
                continue;
            }
            let row = |Outlier { bucket, listed }: &Outlier| {
                let (siblings, bytes) = (listed.siblings.to_string(), size(listed.bytes.into()));
                vec![bucket.clone(), bytes_line(&listed.key), siblings, bytes]
            };
            let _ = writeln!(text, "\n{what}");
            let header = ["BUCKET", "KEY", "VALUES", "BYTES"];
            text.push_str(&table(&header, &header[2..], rows.iter().map(row).collect()));
        }
        text.push('\n');
    }
    text
}

fn outliers_document(nodes: &[(String, Option<Outliers>)]) -> Value {
    let row = |outlier: &Outlier| {
        let mut row = listed(&outlier.listed);
        row["bucket"] = json!(outlier.bucket);
        row
    };
    let rows = |rows: &[Outlier]| rows.iter().map(row).collect::<Vec<_>>();
    let node = |(name, found): &(String, Option<Outliers>)| match found {
        None => json!({ "node": name, "answers": false }),
        Some(found) => json!({
            "node": name,
            "answers": true,
            "most_values": rows(&found.siblings),
            "largest": rows(&found.largest),
            "seen": found.seen,
            "complete": found.complete,
        }),
    };
    json!({ "nodes": nodes.iter().map(node).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::BucketTally;

    #[test]
    fn everything_fits_the_table_and_nothing_is_a_sentence() {
        assert_eq!(counts(&ClusterTally::default()), "there are no keys\n");
        let of = BucketTally {
            bucket: "a-bucket-with-a-long-name".to_owned(),
            keys: 12_345_678_901,
            deleted: 1_000_000,
            conflicts: 12_345,
            bytes: 9 << 40,
            discarded: 5,
        };
        let silent = vec!["node-2".to_owned()];
        let tally = ClusterTally { buckets: vec![of], silent, uncounted: 7 };
        let text = counts(&tally);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("12345678901") && text.contains("others counted: node-2"), "{text}");
        assert_eq!(counts_document(&tally)["buckets"][0]["conflicts"], 12_345);
        assert_eq!(listing(&[], false), "no key has more than one value\n");
        let found = [Listed { key: vec![b'k'; 300], siblings: 3, bytes: 1 << 20 }];
        let text = listing(&found, true);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.ends_with("--limit\n"), "{text}");
    }
}
