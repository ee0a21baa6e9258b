//! Two of five die at once under load: writes go on, and when they are back nothing is missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringdove::client::direct::Direct;
use ringdove::random::Random;
use ringdove::server::config::Config;
use ringdove::wire::messages::{Control, ControlReply, Explanation, Get, Level, Request, Response};

use crate::alone;
use crate::cluster::{Cluster, Node, PATIENCE};
use crate::gossip::wait_for_all;
use crate::kill::from_environment;
use crate::load::{Ledger, Load, check};

/// What a client's operation may take with default settings.
const DEADLINE: Duration = Duration::from_secs(5);
/// Keys looked at at the same time.
const AT_ONCE: usize = 64;
/// A build for debugging is asked for less, in less time; another takes the defaults.
const GOSSIP: &str = if cfg!(debug_assertions) {
    "[gossip]\nprobe_interval_ms = 400\nprobe_timeout_ms = 150\nsuspicion_ms = 1500\n"
} else {
    ""
};
/// How often the survivors are asked whom they take to be down, and what asking may take.
const ASK_EVERY: Duration = Duration::from_millis(50);
const ASKING: Duration = Duration::from_secs(1);

/// `RINGDOVE_ROUNDS` and `RINGDOVE_SEED` choose how often and which (`./scripts/dev failover`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_five_killed_under_load_stop_no_write_and_miss_nothing_once_they_are_back() {
    let _alone = alone().await;
    let (rounds, seed) =
        (from_environment("RINGDOVE_ROUNDS", 1), from_environment("RINGDOVE_SEED", 1));
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start_with(5, GOSSIP);
    let bound = Config::from_toml(GOSSIP, "failover", &[]).unwrap().swim().detection_bound(5);
    println!(
        "SWIM is to have both down within {:.1} s\n\
         round  killed  writes acked  failed  longest ms  outage ms  down s: first to last  hints  \
         drained s  mended",
        bound.as_secs_f64()
    );
    for round in 1..=rounds {
        wait_for_all(&cluster, "alive").await;
        let client = cluster.client().await;
        let load = Load::start(&client);
        load.run_for(500).await;
        let first = random.below(5) as usize;
        let second = (first + 1 + random.below(4) as usize) % 5;
        let killed = Instant::now();
        cluster.nodes[first].kill();
        cluster.nodes[second].kill();
        let noticed = both_down(&cluster, [first, second], killed).await;
        load.run_for(500).await;
        let down = load.ledger.figures(killed, Instant::now());
        let kept = hints(&cluster, [first, second]).await;
        for index in [first, second] {
            cluster.nodes[index].start();
        }
        let started = Instant::now();
        cluster.wait_ready(first);
        cluster.wait_ready(second);
        cluster.wait_drained().await;
        let drained = started.elapsed();
        let ledger = load.stop().await;
        let all = ledger.figures(killed, Instant::now());
        cluster.wait_drained().await;
        let mended = compare(&cluster, &ledger).await;
        println!(
            "{round:5}  {first} and {second}  {:11}  {:6}  {:10.0}  {:9.0}  \
             {:8.1} to {:8.1}  {kept:5}  {:9.1}  {mended:6}",
            ledger.acknowledged(),
            all.failed,
            all.longest.as_secs_f64() * 1e3,
            down.outage.as_secs_f64() * 1e3,
            noticed[0].as_secs_f64(),
            noticed[2].as_secs_f64(),
            drained.as_secs_f64(),
        );
        check(&cluster, &ledger, Level::Count(2), &[first, second]).await;
        assert!(all.longest < DEADLINE, "{all:?}");
        assert_eq!(all.failed, 0, "{all:?}");
        assert!(noticed[2] < bound + ASKING, "{noticed:?} of {bound:?}");
    }
}

/// Waits until each of the survivors takes both to be down; returns how long after `killed` that
/// was, in order.
async fn both_down(cluster: &Cluster, dead: [usize; 2], killed: Instant) -> Vec<Duration> {
    let dead = dead.map(|index| cluster.nodes[index].frames.as_str());
    let mut noticed = Vec::new();
    let mut asked: Vec<&Node> =
        cluster.nodes.iter().filter(|node| !dead.contains(&node.frames.as_str())).collect();
    while !asked.is_empty() {
        let mut open = Vec::new();
        for node in asked {
            let peers = node.status().await.peers;
            let is_down = |address: &str| {
                let mut seen = peers.iter().filter(|peer| peer.address == address);
                seen.any(|peer| peer.liveness.state == "down")
            };
            match dead.into_iter().all(is_down) {
                true => noticed.push(killed.elapsed()),
                false => open.push(node),
            }
        }
        assert!(killed.elapsed() < PATIENCE, "somebody still counts on {dead:?}");
        asked = open;
        tokio::time::sleep(ASK_EVERY).await;
    }
    noticed
}

/// What the survivors keep.
async fn hints(cluster: &Cluster, killed: [usize; 2]) -> u64 {
    let mut kept = 0;
    for (index, node) in cluster.nodes.iter().enumerate() {
        if !killed.contains(&index) {
            kept += node.hints().await;
        }
    }
    kept
}

/// Compares the replicas of every key. What was under way when its coordinator died may stand on
/// fewer replicas than the others, until somebody reads it or anti-entropy finds it: such keys are
/// read, compared again, and counted.
async fn compare(cluster: &Cluster, ledger: &Ledger) -> usize {
    let keys: Vec<String> =
        ledger.written.lock().unwrap().iter().cloned().chain(ledger.other_keys()).collect();
    let node = Arc::new(Direct::connect(&cluster.nodes[0].frames, PATIENCE).await.unwrap());
    let mut different = differing(&node, &keys).await;
    let count = different.len();
    for key in &different {
        let name = ringdove::key::Key::new(b"default", key.as_bytes()).unwrap();
        let (r, pr) = (Level::All, Level::Default);
        let get = Get { key: name, r, pr, budget_ms: 10_000, strict: true, trace: false };
        node.request(&Request::Get(get), PATIENCE).await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while !different.is_empty() {
        assert!(Instant::now() < deadline, "replicas stay different: {different:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        different = differing(&node, &different).await;
    }
    count
}

/// The keys of which the replicas hold different things, or not all hold something.
async fn differing(node: &Arc<Direct>, keys: &[String]) -> Vec<String> {
    let mut different = Vec::new();
    for keys in keys.chunks(AT_ONCE) {
        let explained = keys.iter().map(|key| {
            let (node, key) = (node.clone(), key.clone());
            tokio::spawn(async move { explain(&node, &key).await })
        });
        let explained: Vec<_> = explained.collect();
        for (key, explanation) in keys.iter().zip(explained) {
            let replicas = explanation.await.unwrap().replicas;
            assert_eq!(replicas.len(), 3);
            let digests: BTreeSet<u128> = replicas.iter().map(|view| view.digest).collect();
            if digests.len() > 1 || replicas.iter().any(|view| view.state != "ok") {
                different.push(key.clone());
            }
        }
    }
    different
}

async fn explain(node: &Direct, key: &str) -> Explanation {
    let control = Control::Explain { bucket: "default".to_owned(), key: key.as_bytes().to_vec() };
    match node.request(&Request::Control(control), PATIENCE).await {
        Ok(Response::Control(ControlReply::Explain(explanation))) => explanation,
        other => panic!("{key}: {other:?}"),
    }
}
