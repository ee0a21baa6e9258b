//! What a run of load, and an evening in the partition lab, leave behind as JSON: the one language
//! between those who measure ([`super`]), those who break things (`scripts/partition-lab`) and those
//! who draw (the report).
//!
//! ```text
//!   RUN/summary.json      Summary: settings, totals, verdict of the verification
//!   RUN/seconds.jsonl     one Second a line, written as it ends
//!
//!   LAB/lab.json                    Lab: which scenarios, when, with which seed
//!   LAB/NN-name/scenario.json       Scenario: faults, looks at the cluster, verdicts
//!   LAB/NN-name/SIDE/               a RUN for each group of clients
//! ```
//!
//! What always holds: times are milliseconds of the wall clock since 1970, so that runs of several
//! processes can be laid over each other; latencies are microseconds; a field that was not measured
//! is `null` or absent, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One second of a run, for one group of clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    /// When it began, milliseconds since 1970.
    pub at_ms: u64,
    /// Requests that were due in it.
    pub due: u64,
    /// Requests answered as asked.
    pub ok: u64,
    /// Requests that certainly did nothing, by the error's name.
    pub failed: BTreeMap<String, u64>,
    /// Writes of which nobody knows whether they happened.
    pub unknown: u64,
    /// Of the answered reads: how many found more than one version.
    pub siblings: u64,
    /// Latency from when a request was due, of those answered in this second, in microseconds.
    pub p50_us: Option<u64>,
    /// 99th percentile, as `p50_us`.
    pub p99_us: Option<u64>,
    /// 99.9th percentile, as `p50_us`.
    pub p999_us: Option<u64>,
    /// The slowest, as `p50_us`.
    pub max_us: Option<u64>,
    /// 99th percentile of the time until a refusal, from when the request was due, of the requests
    /// that failed in this second.
    pub refused_p99_us: Option<u64>,
}

/// What a run was and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// What its owner calls it.
    pub label: String,
    /// Version of the program, and of this format.
    pub program: String,
    /// Everything the run was started with, as option and value: enough to start it again.
    pub settings: BTreeMap<String, String>,
    /// When the first measured second began, milliseconds since 1970; the warm-up is before it.
    pub begun_ms: u64,
    /// How long was measured.
    pub measured_ms: u64,
    /// Requests due, over the measured time.
    pub due: u64,
    /// As in [`Second`].
    pub ok: u64,
    /// As in [`Second`].
    pub failed: BTreeMap<String, u64>,
    /// As in [`Second`].
    pub unknown: u64,
    /// As in [`Second`].
    pub siblings: u64,
    /// By kind of operation (`read`, `update`, `insert`, `scan`, `read-modify-write`, and `all`).
    pub latency: BTreeMap<String, Latency>,
    /// What reading everything back found, where it was asked for.
    pub verification: Option<Verification>,
}

/// A distribution of latencies, in microseconds, from when each request was due.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// How many requests.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Percentiles by name: `50`, `90`, `99`, `99.9`, `99.99`, `100`.
    pub percentile_us: BTreeMap<String, u64>,
}

/// What reading everything back after a run found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    /// Keys that were read back.
    pub keys: u64,
    /// Acknowledged writes that neither stand nor were replaced by a writer that had seen them. In a
    /// last-write-wins bucket these are those that lost against a concurrent one: see `overwritten`.
    pub lost: u64,
    /// Values that stand although an acknowledged delete, or an acknowledged write, had seen them.
    pub resurrected: u64,
    /// Acknowledged writes that a concurrent one replaced, where the bucket lets the last write win.
    pub overwritten: u64,
    /// Reads during the run that missed a write acknowledged before they were sent.
    pub stale_reads: u64,
    /// The longest time between an acknowledgement and a read sent after it that missed it.
    pub stalest_ms: Option<u64>,
    /// Unknown outcomes that took effect.
    pub unknown_took_effect: u64,
    /// Unknown outcomes that did not.
    pub unknown_did_not: u64,
    /// Keys that stand with more than one version.
    pub keys_with_siblings: u64,
    /// The most versions of one key.
    pub most_siblings: u64,
    /// Acknowledged writes of which it cannot be said whether they are lost: values of writers stand
    /// whose ledgers were not given.
    pub undecided: u64,
    /// Values that are there although they were never written, or their write was refused.
    pub refused_took_effect: u64,
    /// Keys of which a value with a wrong checksum was read, during the run or afterwards.
    pub damaged: u64,
    /// Keys that could not be read back.
    pub unread: u64,
    /// Some of what was lost or came back, in words, for whoever looks into it.
    pub examples: Vec<String>,
}

/// An evening in the lab.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lab {
    /// Version of the program.
    pub program: String,
    /// The seed of faults and requests.
    pub seed: u64,
    /// `one machine` or `namespaces`.
    pub network: String,
    /// The directories of the scenarios, in the order in which they ran.
    pub scenarios: Vec<String>,
}

/// One scenario as it went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scenario {
    /// Its number, from 1.
    pub number: u32,
    /// Its name, as in its file.
    pub name: String,
    /// One line: what it does.
    pub title: String,
    /// What a reader learns from it, in a few sentences.
    pub teaches: String,
    /// Settings of the cluster in words: nodes, N, R, W, sloppy or strict, siblings or not.
    pub setting: String,
    /// When it began and ended, milliseconds since 1970.
    pub begun_ms: u64,
    /// As `begun_ms`.
    pub ended_ms: u64,
    /// The nodes, in order.
    pub nodes: Vec<String>,
    /// What was broken, and when.
    pub faults: Vec<Fault>,
    /// The groups of clients; each is a directory with a run.
    pub sides: Vec<Side>,
    /// Looks at the whole cluster, about one a second.
    pub looks: Vec<Look>,
    /// Changes of what one node thinks of another; until the first the other is alive.
    pub views: Vec<View>,
    /// When the last fault was lifted, milliseconds since 1970.
    pub healed_ms: Option<u64>,
    /// When all owners were equal after it.
    pub converged_ms: Option<u64>,
    /// What must hold, and whether it did.
    pub verdicts: Vec<Verdict>,
}

/// Something that was broken for a while.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// In words, for the band in a plot: `n1 n2 n3 | n4 n5`.
    pub label: String,
    /// When it was put in force, milliseconds since 1970.
    pub from_ms: u64,
    /// When it was lifted.
    pub to_ms: u64,
}

/// A group of clients that use the same nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Side {
    /// For a legend: `majority`, `minority`, `all`.
    pub name: String,
    /// The nodes its clients use.
    pub nodes: Vec<String>,
    /// Its run's directory, relative to the scenario's.
    pub run: String,
}

/// A look at the cluster from outside, over the nodes that answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Look {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Hinted writes that wait for their owners, over all nodes.
    pub hints: Option<u64>,
    /// Keys whose owners' copies differ, as far as a comparison of copies from outside shows.
    pub differing: Option<u64>,
    /// Keys with siblings.
    pub siblings: Option<u64>,
}

/// From here on one node thinks this of another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Who thinks.
    pub node: String,
    /// Of whom.
    pub peer: String,
    /// `alive`, `suspect`, `down`, or `silent` where the node itself does not answer.
    pub state: String,
}

/// One thing that must hold in a scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// What must hold, in words.
    pub text: String,
    /// Whether it did.
    pub holds: bool,
    /// What was measured.
    pub evidence: String,
}
