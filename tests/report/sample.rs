//! An evening in the partition lab that never happened: records as the lab writes them, made up from
//! a seed, so that the report can be tried, and looked at, without a cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ringdove::load::record::{
    Fault, Lab, Latency, Look, Scenario, Second, Side, Summary, Verdict, Verification, View,
};
use ringdove::random::Random;

/// 21 November 2026, 14:00 UTC.
pub const BEGUN_MS: u64 = 1_795_269_600_000;

/// How a group of clients fares while something is broken.
#[derive(Clone, Copy)]
pub struct Fare {
    /// The share of its requests that is answered.
    pub answered: f64,
    /// The share of those not answered whose outcome is unknown.
    pub unknown: f64,
    /// How many times slower the answers are.
    pub slower: f64,
}

/// As on any other day.
pub const WELL: Fare = Fare { answered: 1.0, unknown: 0.0, slower: 1.0 };

/// With trouble, but on its feet.
pub const STRAINED: Fare = Fare { answered: 0.98, unknown: 0.1, slower: 4.0 };

/// Writes a lab with scenarios of every shape and returns the names of its directories.
pub fn write_lab(directory: &Path) -> Vec<String> {
    let strict = Fare { answered: 0.31, unknown: 0.004, slower: 1.1 };
    let sloppy = Fare { answered: 0.997, unknown: 0.2, slower: 2.6 };
    let mut names = vec![
        split(directory, "01-split-sloppy", sloppy),
        split(directory, "02-split-strict", strict),
    ];
    names.push(flapping(directory));
    names.push(rolling(directory));
    names.push(last_write_wins(directory));
    // One that did not live to write its record.
    names.push("16-with-the-minority".to_owned());
    let lab = Lab {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        seed: 42,
        network: "one machine".to_owned(),
        scenarios: names.clone(),
    };
    write_json(&directory.join("lab.json"), &lab);
    names
}

fn split(lab: &Path, name: &str, minority: Fare) -> String {
    let directory = lab.join(name);
    let strict = name.contains("strict");
    let majority = Fare { answered: 0.9998, unknown: 0.5, slower: 1.4 };
    let mut random = Random::new(1);
    for (side, fare) in [("majority", majority), ("minority", minority)] {
        let rate = if side == "majority" { 1500 } else { 1000 };
        write_run(&directory.join(side), &seconds(90, rate, &[(20, 60)], fare, &mut random));
    }
    let nodes = names();
    let mut views = Vec::new();
    for node in &nodes {
        for peer in &nodes {
            if (node < &nodes[3]) != (peer < &nodes[3]) {
                let late = random.below(900);
                for (at, state) in [(20_700, "suspect"), (23_400, "down"), (60_800, "alive")] {
                    let view = View {
                        at_ms: BEGUN_MS + at + late,
                        node: node.clone(),
                        peer: peer.clone(),
                        state: state.into(),
                    };
                    views.push(view);
                }
            }
        }
    }
    let title = if strict {
        "Three nodes on one side, two on the other, strict: the minority refuses at once"
    } else {
        "Three nodes on one side, two on the other: both sides go on writing"
    };
    let scenario = Scenario {
        number: if strict { 2 } else { 1 },
        name: name[3..].into(),
        title: title.into(),
        teaches: "With sloppy quorums a write is taken by any N reachable nodes, and those that \
                  stand in keep a hint for the owner. Both sides go on; what they wrote without \
                  knowing of each other meets as siblings when the network is whole again."
            .into(),
        setting: "5 nodes, N=3, R=2, W=2, siblings, 1,500 + 1,000 requests a second, half of them \
                  reads, 20,000 keys"
            .into(),
        begun_ms: BEGUN_MS,
        ended_ms: BEGUN_MS + 90_000,
        nodes,
        faults: vec![fault("n1 n2 n3 | n4 n5", 20, 60)],
        sides: ["majority", "minority"].map(side).into(),
        looks: looks(90, &[(20, 60)], if strict { 300.0 } else { 410.0 }, 67.4),
        views,
        healed_ms: Some(BEGUN_MS + 60_000),
        converged_ms: Some(BEGUN_MS + 67_400),
        verdicts: vec![
            verdict(
                "Both sides answer while the network is split",
                !strict || minority.answered < 0.5,
                "majority 99.98 %, minority 99.7 % of requests answered",
            ),
            verdict("No acknowledged write is lost", true, "183,202 writes read back, 0 lost"),
            verdict("All copies are equal within 30 s of the heal", true, "after 7.4 s"),
        ],
    };
    write_json(&directory.join("scenario.json"), &scenario);
    name.into()
}

fn flapping(lab: &Path) -> String {
    let name = "15-flapping-link";
    let directory = lab.join(name);
    let spans: Vec<(u64, u64)> = (0..8).map(|turn| (10 + turn * 8, 13 + turn * 8)).collect();
    let fare = Fare { answered: 0.998, unknown: 0.3, slower: 4.0 };
    let run = seconds(100, 2000, &spans, fare, &mut Random::new(15));
    write_run(&directory.join("all"), &run);
    let scenario = Scenario {
        number: 15,
        name: "flapping-link".into(),
        title: "A link that comes and goes every few seconds".into(),
        nodes: names(),
        begun_ms: BEGUN_MS,
        ended_ms: BEGUN_MS + 100_000,
        faults: spans.iter().map(|(from, to)| fault("n1 ⇹ n2", *from, *to)).collect(),
        sides: vec![side("all")],
        looks: looks(100, &spans, 12.0, 72.0),
        healed_ms: Some(BEGUN_MS + 69_000),
        converged_ms: Some(BEGUN_MS + 69_800),
        verdicts: vec![verdict("Nobody takes a node for dead", true, "no view changed to down")],
        ..Scenario::default()
    };
    write_json(&directory.join("scenario.json"), &scenario);
    name.into()
}

fn rolling(lab: &Path) -> String {
    let name = "10-rolling-restart";
    let directory = lab.join(name);
    let spans: Vec<(u64, u64)> = (0..5).map(|turn| (10 + turn * 14, 18 + turn * 14)).collect();
    let fare = Fare { answered: 0.9991, unknown: 0.4, slower: 1.8 };
    let run = seconds(95, 2500, &spans, fare, &mut Random::new(10));
    write_run(&directory.join("all"), &run);
    let nodes = names();
    let mut views = Vec::new();
    for (down, (from, to)) in nodes.iter().zip(&spans) {
        for other in nodes.iter().filter(|node| *node != down) {
            for (at, node, peer, state) in [
                (*from, down, other, "silent"),
                (*from + 1, other, down, "suspect"),
                (*from + 3, other, down, "down"),
                (*to, down, other, "alive"),
                (*to, other, down, "alive"),
            ] {
                let (node, peer) = (node.clone(), peer.clone());
                views.push(View { at_ms: BEGUN_MS + at * 1000, node, peer, state: state.into() });
            }
        }
    }
    let faults = nodes.iter().zip(&spans);
    let faults = faults.map(|(node, (from, to))| fault(&format!("{node} restarts"), *from, *to));
    let scenario = Scenario {
        number: 10,
        name: "rolling-restart".into(),
        title: "Every node restarts once, one after the other, under load".into(),
        teaches: "A new version is brought in without anybody noticing.".into(),
        begun_ms: BEGUN_MS,
        ended_ms: BEGUN_MS + 95_000,
        faults: faults.collect(),
        nodes,
        sides: vec![side("all")],
        looks: looks(95, &spans, 300.0, 76.0),
        views,
        healed_ms: Some(BEGUN_MS + 74_000),
        converged_ms: None,
        verdicts: vec![
            verdict("More than 99.9 % of requests are answered", true, "99.94 %"),
            verdict(
                "All copies are equal within 20 s of the last start",
                false,
                "after 21 s, 14 keys still differed",
            ),
        ],
        ..Scenario::default()
    };
    write_json(&directory.join("scenario.json"), &scenario);
    name.into()
}

fn last_write_wins(lab: &Path) -> String {
    let name = "14-last-write-wins";
    let directory = lab.join(name);
    let mut random = Random::new(14);
    for bucket in ["siblings", "last write wins"] {
        let mut run = seconds(60, 800, &[], WELL, &mut random);
        // A second in which nothing at all was written down.
        run.remove(30);
        write_run(&directory.join(bucket), &run);
    }
    let summary = directory.join("last write wins/summary.json");
    let mut lost: Summary = serde_json::from_str(&fs::read_to_string(&summary).unwrap()).unwrap();
    let found = lost.verification.as_mut().unwrap();
    found.overwritten = 4_112;
    found.examples = vec!["cart/17: “n2 12:00:03.412” gave way to “n4 11:58:40.007”".into()];
    write_json(&summary, &lost);
    let scenario = Scenario {
        number: 14,
        name: "last-write-wins".into(),
        title: "Clocks that are minutes apart: what siblings keep, and the last write wins away"
            .into(),
        begun_ms: BEGUN_MS,
        ended_ms: BEGUN_MS + 60_000,
        faults: vec![Fault {
            label: "n4's clock is 80 s behind".into(),
            from_ms: BEGUN_MS,
            to_ms: 0,
        }],
        nodes: names(),
        sides: ["siblings", "last write wins"].map(side).into(),
        verdicts: vec![verdict("The bucket with siblings loses nothing", true, "0 of 24,000 lost")],
        ..Scenario::default()
    };
    write_json(&directory.join("scenario.json"), &scenario);
    name.into()
}

/// Seconds of an open loop; while `broken` (whole seconds from the beginning) it fares as given.
pub fn seconds(
    count: u64,
    rate: u64,
    broken: &[(u64, u64)],
    fare: Fare,
    random: &mut Random,
) -> Vec<Second> {
    let second = |at: u64| {
        let in_force = broken.iter().find(|(from, to)| (*from..*to).contains(&at));
        let fare_now = if in_force.is_some() { fare } else { WELL };
        // The first seconds of a fault are the worst: nobody knows yet who is gone.
        let shock = match in_force {
            Some((from, _)) if at - from < 3 => 1.0 - 0.12 * (3 - (at - from)) as f64,
            _ => 1.0,
        };
        let due = rate + random.below(rate / 40 + 1);
        let ok = (due as f64 * fare_now.answered * shock) as u64;
        let unknown = ((due - ok) as f64 * fare_now.unknown) as u64;
        let failed = due - ok - unknown;
        let slow = fare_now.slower * if shock < 1.0 { 40.0 } else { 1.0 };
        let mut us = |usual: u64| ((usual + random.below(usual / 3)) as f64 * slow) as u64;
        let mut kinds = BTreeMap::new();
        if failed > 0 {
            kinds.insert("unavailable".to_owned(), failed - failed / 5);
            kinds.insert("timeout".to_owned(), failed / 5);
        }
        Second {
            at_ms: BEGUN_MS + at * 1000 + 3,
            due,
            ok,
            failed: kinds,
            unknown,
            siblings: 0,
            p50_us: Some(us(640)),
            p99_us: Some(us(2_900)),
            p999_us: Some(us(7_100)),
            max_us: Some(us(14_000)),
            refused_p99_us: None,
        }
    };
    (0..count).map(second).collect()
}

/// Writes a run as the generator does.
pub fn write_run(directory: &Path, seconds: &[Second]) {
    fs::create_dir_all(directory).unwrap();
    let lines: Vec<String> =
        seconds.iter().map(|second| serde_json::to_string(second).unwrap()).collect();
    fs::write(directory.join("seconds.jsonl"), format!("{}\n", lines.join("\n"))).unwrap();
    let ok: u64 = seconds.iter().map(|second| second.ok).sum();
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    for (name, count) in seconds.iter().flat_map(|second| &second.failed) {
        *failed.entry(name.clone()).or_default() += count;
    }
    let latency = |factor: f64| {
        let percentiles = [("50", 690), ("90", 1_400), ("99", 3_300), ("99.9", 9_800)];
        let rare = [("99.99", 61_000), ("100", 412_000)];
        let all = percentiles.into_iter().chain(rare);
        let slower = |(name, us): (&str, u64)| (name.to_owned(), (us as f64 * factor) as u64);
        Latency { count: ok / 2, mean_us: 812.4 * factor, percentile_us: all.map(slower).collect() }
    };
    let kinds = [("all", 1.0), ("read", 0.7), ("update", 1.3)];
    let summary = Summary {
        label: "a".into(),
        program: "0.1.0".into(),
        settings: [("--rate", "1500"), ("--mix", "a"), ("--seed", "42")]
            .map(|(option, value)| (option.to_owned(), value.to_owned()))
            .into(),
        begun_ms: seconds.first().map_or(BEGUN_MS, |second| second.at_ms),
        measured_ms: seconds.len() as u64 * 1000,
        due: seconds.iter().map(|second| second.due).sum(),
        ok,
        failed,
        unknown: seconds.iter().map(|second| second.unknown).sum(),
        siblings: 0,
        latency: kinds.map(|(kind, factor)| (kind.to_owned(), latency(factor))).into(),
        verification: Some(Verification {
            keys: 20_000,
            stale_reads: 1_204,
            stalest_ms: Some(40_112),
            unknown_took_effect: 31,
            unknown_did_not: 12,
            ..Verification::default()
        }),
    };
    write_json(&directory.join("summary.json"), &summary);
}

fn looks(count: u64, broken: &[(u64, u64)], a_second: f64, equal_at: f64) -> Vec<Look> {
    let mut hints = 0.0f64;
    let look = |at: u64| {
        let in_force = broken.iter().any(|(from, to)| (*from..*to).contains(&at));
        hints = if in_force { hints + a_second } else { hints * 0.45 };
        let differing = if (at as f64) < equal_at { hints * 0.8 } else { 0.0 };
        Look {
            at_ms: BEGUN_MS + at * 1000 + 120,
            hints: Some(hints as u64),
            differing: Some(differing as u64),
            siblings: (at > 30).then_some(if in_force { 0 } else { (hints * 0.02) as u64 }),
        }
    };
    (0..count).map(look).collect()
}

fn names() -> Vec<String> {
    (1..=5).map(|node| format!("n{node}")).collect()
}

fn side(name: &str) -> Side {
    let nodes = match name {
        "majority" => vec!["n1".into(), "n2".into(), "n3".into()],
        "minority" => vec!["n4".into(), "n5".into()],
        _ => names(),
    };
    Side { name: name.into(), nodes, run: name.into() }
}

fn fault(label: &str, from: u64, to: u64) -> Fault {
    Fault { label: label.into(), from_ms: BEGUN_MS + from * 1000, to_ms: BEGUN_MS + to * 1000 }
}

fn verdict(text: &str, holds: bool, evidence: &str) -> Verdict {
    Verdict { text: text.into(), holds, evidence: evidence.into() }
}

/// Writes one document, with the directories above it.
pub fn write_json<T: serde::Serialize>(path: &Path, document: &T) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_string_pretty(document).unwrap()).unwrap();
}
