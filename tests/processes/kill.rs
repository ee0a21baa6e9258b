//! SIGKILL at random moments: nothing acknowledged may be missing.

use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use ringdove::random::Random;
use ringdove::wire::messages::Level;

use crate::alone;
use crate::cluster::Cluster;
use crate::load::{Load, check};

/// A number by which a script makes a test longer than it usually is.
pub fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// `RINGDOVE_ROUNDS` and `RINGDOVE_SEED` choose how often and which (`./scripts/kill-loop`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loop_under_load_loses_no_acknowledged_write() {
    let _alone = alone().await;
    let (rounds, seed) =
        (from_environment("RINGDOVE_ROUNDS", 3), from_environment("RINGDOVE_SEED", 1));
    println!("{rounds} rounds, seed {seed}");
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let load = Load::start(&client);
    for round in 1..=rounds {
        load.run_for(200 + random.below(600) as usize).await;
        let victim = random.below(3) as usize;
        cluster.nodes[victim].kill();
        let killed = Instant::now();
        // Long enough for everyone to notice, or too short for it.
        let down = Duration::from_millis(random.below(1500));
        load.run_for(100).await;
        tokio::time::sleep(down.saturating_sub(killed.elapsed())).await;
        cluster.nodes[victim].start();
        cluster.wait_back(victim).await;
        check(&cluster, &load.ledger, Level::Count(2), &[0, 1, 2]).await;
        println!(
            "round {round}: node {victim} killed for {} ms; {} acknowledged, {} unknown, \
             {} refused, longest request {} ms",
            killed.elapsed().as_millis(),
            load.ledger.acknowledged(),
            load.ledger.unknown.load(std::sync::atomic::Ordering::Relaxed),
            load.ledger.refused.load(std::sync::atomic::Ordering::Relaxed),
            load.ledger.longest().as_millis(),
        );
    }
    let ledger = load.stop().await;
    check(&cluster, &ledger, Level::All, &[0]).await;
    check(&cluster, &ledger, Level::Count(2), &[0, 1, 2]).await;
    println!("nothing acknowledged is missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_cut_short_makes_a_node_say_so_and_no_read_miss_a_write() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let load = Load::start(&client);
    load.run_for(500).await;
    let ledger = load.stop().await;
    let node = &mut cluster.nodes[1];
    node.kill();
    let files = std::fs::read_dir(node.home.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    let newest = logs.max().expect("RocksDB has a log");
    let length = newest.metadata().unwrap().len();
    OpenOptions::new().write(true).open(&newest).unwrap().set_len(length / 2).unwrap();
    node.start();
    cluster.wait_back(1).await;
    assert!(cluster.nodes[1].status().await.amnesiac, "{}", cluster.nodes[1].log());
    check(&cluster, &ledger, Level::Count(2), &[0, 1, 2]).await;
}
