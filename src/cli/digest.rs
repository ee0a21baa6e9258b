//! `digest`: whether the nodes have the same on their disks.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::args::Asked;
use super::cluster::{ask_all, connect};
use super::exit::{Ending, Exit};
use super::output::{Form, table};
use crate::client::{Client, direct};
use crate::membership::Standing;
use crate::wire::messages::{Control, ControlReply, Request, Response};

const DIGEST_LEGEND: &str = "\
Exit code 0 when all stores are equal, 1 when they differ, 3 when a node does
not answer. Where some bucket has fewer replicas than there are nodes, not
every node holds every key; that stores differ says nothing then, and ends
with 6.";

/// Compare what the nodes have on their disks, by a digest over all objects
#[derive(Clone, Debug, Args)]
#[command(after_help = DIGEST_LEGEND)]
pub(super) struct Digest {}

/// What one node's disk holds.
type Store = Result<(u64, u128), String>;

/// What a comparison came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Equal,
    Different,
    /// Somebody did not answer, and those who did are equal.
    Incomplete,
    /// They differ, which says nothing, since not every node holds every key.
    Incomparable,
}

pub(super) async fn run(asked: &Asked<Digest>) -> Ending {
    let client = connect(&asked.cluster).await?;
    digest(&client, asked.cluster.timeout, asked.form()).await
}

/// Asks every member for its digest and compares them.
pub(super) async fn digest(client: &Client, time: std::time::Duration, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let answers = ask_all(&topology, |address| async move { store_of(&address, time).await });
    let answers = answers.await;
    // A candidate holds nothing that could be compared.
    let serving = answers.into_iter().filter(|(_, entry, _)| entry.standing > Standing::Candidate);
    let stores: Vec<(String, Store)> =
        serving.map(|(_, entry, store)| (entry.name().to_owned(), store)).collect();
    let least = topology.state().buckets.values().map(|bucket| bucket.settings.n).min();
    let everywhere = least.is_some_and(|n| usize::from(n) >= stores.len());
    let verdict = compare(&stores, everywhere);
    form.answer(&text(&stores, verdict), || {
        let node = |(name, store): &(String, Store)| {
            let (objects, digest) = store.clone().ok().unzip();
            let digest = digest.map(|digest| format!("{digest:032x}"));
            json!({ "name": name, "objects": objects, "digest": digest, "error": store.as_ref().err() })
        };
        json!({
            "nodes": stores.iter().map(node).collect::<Vec<_>>(),
            "equal": match verdict {
                Verdict::Equal => Some(true),
                Verdict::Different => Some(false),
                Verdict::Incomplete | Verdict::Incomparable => None,
            },
            "comparable": verdict != Verdict::Incomparable,
        })
    })?;
    match verdict {
        Verdict::Equal => Ok(Exit::Done),
        Verdict::Different => Ok(Exit::No),
        Verdict::Incomplete => Ok(Exit::Unavailable),
        Verdict::Incomparable => Ok(Exit::Refused),
    }
}

async fn store_of(address: &str, time: std::time::Duration) -> Store {
    match direct::request(address, &Request::Control(Control::Digest), time).await {
        Ok(Response::Control(ControlReply::Digest { objects, digest })) => Ok((objects, digest)),
        Ok(_) => Err("the node answered another question".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn compare(stores: &[(String, Store)], everywhere: bool) -> Verdict {
    let digests: BTreeSet<_> = stores.iter().filter_map(|(_, store)| store.as_ref().ok()).collect();
    let complete = stores.iter().all(|(_, store)| store.is_ok());
    match (digests.len(), everywhere, complete) {
        (2.., true, _) => Verdict::Different,
        (2.., false, _) => Verdict::Incomparable,
        (_, _, false) => Verdict::Incomplete,
        (_, _, true) => Verdict::Equal,
    }
}

fn text(stores: &[(String, Store)], verdict: Verdict) -> String {
    let row = |(name, store): &(String, Store)| match store {
        Ok((objects, digest)) => vec![name.clone(), objects.to_string(), format!("{digest:032x}")],
        Err(error) => vec![name.clone(), "-".to_owned(), error.clone()],
    };
    let rows = stores.iter().map(row).collect();
    let mut text = table(&["NODE", "OBJECTS", "DIGEST"], &["OBJECTS"], rows);
    let _ = writeln!(
        text,
        "\n{}",
        match verdict {
            Verdict::Equal => "equal",
            Verdict::Different => "different: a read of all keys with --r all makes them equal",
            Verdict::Incomplete => "not all nodes answer; those that do are equal",
            Verdict::Incomparable =>
                "different, as they may be: some bucket has fewer replicas than there are nodes",
        }
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_even_when_somebody_is_silent() {
        let store = |store: Store| ("node".to_owned(), store);
        let (one, other) = (store(Ok((1, 7))), store(Ok((1, 8))));
        let silent = store(Err("no answer".to_owned()));
        let verdict = |stores: &[_]| compare(stores, true);
        assert!(verdict(&[one.clone(), one.clone()]) == Verdict::Equal);
        assert!(verdict(&[one.clone(), other.clone(), silent.clone()]) == Verdict::Different);
        assert!(verdict(&[one.clone(), silent]) == Verdict::Incomplete);
        assert!(compare(&[one.clone(), one.clone()], false) == Verdict::Equal);
        assert!(compare(&[one, other], false) == Verdict::Incomparable);
    }
}
