//! The node that coordinates dies, or hangs: nobody waits long for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringdove::wire::messages::Level;

use crate::alone;
use crate::cluster::Cluster;
use crate::kill::from_environment;
use crate::load::{Load, check};

const READERS: u64 = 4;
/// No request takes longer. A build for debugging, on a machine that does other things, is given
/// more.
const LONGEST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 3000 } else { 1000 });
/// One in a hundred takes longer, once the first second is over.
const P99: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 100 });

/// What a node may grow by while another hangs.
const GROWTH: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_is_killed_holds_no_request_up_and_is_not_behind_when_it_is_back() {
    let _alone = alone().await;
    let rounds = from_environment("RINGDOVE_ROUNDS", 2);
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let load = Load::with_readers(&client, READERS);
    for round in 0..rounds {
        load.run_for(300).await;
        // Each coordinates the writes of a third of all keys.
        let victim = round as usize % 3;
        cluster.nodes[victim].kill();
        let killed = Instant::now();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.nodes[victim].start();
        cluster.wait_back(victim).await;
        check(&cluster, &load.ledger, Level::Count(2), &[victim]).await;
        let figures = load.ledger.figures(killed, Instant::now());
        println!("node {victim} killed: {figures:?}");
        assert_eq!(figures.failed, 0, "{figures:?}");
        assert!(figures.longest < LONGEST, "{figures:?}");
    }
    let ledger = load.stop().await;
    cluster.wait_drained().await;
    check(&cluster, &ledger, Level::Count(2), &[0, 1, 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_node_holds_no_request_up_and_has_everything_when_it_goes_on() {
    let _alone = alone().await;
    let seconds = from_environment("RINGDOVE_SECONDS", 4);
    let cluster = Cluster::start(3);
    let client = cluster.client().await;
    let load = Load::with_readers(&client, READERS);
    load.run_for(500).await;
    let before: Vec<u64> = cluster.nodes.iter().map(|node| node.memory()).collect();
    cluster.nodes[1].signal("-STOP");
    let stopped = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let grown = |before: &[u64]| -> Vec<u64> {
        let grown = cluster.nodes.iter().zip(before);
        grown.map(|(node, before)| node.memory().saturating_sub(*before) >> 20).collect()
    };
    let hung = grown(&before);
    cluster.nodes[1].signal("-CONT");
    let continued = Instant::now();
    let second = stopped + Duration::from_secs(1);
    let (first, later) =
        (load.ledger.figures(stopped, second), load.ledger.figures(second, continued));
    println!("node 1 hangs, the first second: {first:?}\nthe {} after: {later:?}", seconds - 1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let back = load.ledger.figures(continued, Instant::now());
    println!("node 1 goes on: {back:?}");
    let ledger = load.stop().await;
    for figures in [&first, &later, &back] {
        assert_eq!(figures.failed, 0, "{figures:?}");
        assert!(figures.longest < LONGEST, "{figures:?}");
    }
    assert!(later.p99 < P99, "{later:?}");
    assert!(later.count > 100, "reads and writes go on: {later:?}");
    let drained = cluster.wait_drained().await;
    check(&cluster, &ledger, Level::Count(2), &[0, 1, 2]).await;
    let grown = grown(&before);
    println!("drained after {drained:?}; grown by {hung:?} MiB, then {grown:?} MiB");
    assert!(grown.iter().chain(&hung).all(|grown| grown << 20 < GROWTH), "{hung:?} {grown:?}");
}

/// A client that retries nothing, over text: writes and reads keys of its own until it is told to stop.
/// Returns how often it was answered, the errors, and the longest time.
fn write_and_read(node: &str, own: u64, is_over: &AtomicBool) -> (u64, Vec<String>, Duration) {
    let client = redis::Client::open(format!("redis://{node}/")).unwrap();
    let mut connection = client.get_connection().unwrap();
    let (mut answered, mut errors, mut longest) = (0, Vec::new(), Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        let key = format!("silent-{own}-{}", answered % 10);
        for words in [&["SET", &key, "value"][..], &["GET", &key]] {
            let asked = Instant::now();
            let answer = redis::cmd(words[0]).arg(&words[1..]).query(&mut connection);
            longest = longest.max(asked.elapsed());
            match answer {
                Ok(redis::Value::Okay | redis::Value::BulkString(_)) => answered += 1,
                other => errors.push(format!("{words:?}: {other:?}")),
            }
        }
    }
    (answered, errors, longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_peers_stand_still_for_a_moment_refuses_nobody() {
    const CLIENTS: u64 = 16;
    const STILL: Duration = Duration::from_millis(600);
    let _alone = alone().await;
    let rounds = from_environment("RINGDOVE_ROUNDS", 3);
    let cluster = Cluster::start(3);
    let is_over = Arc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|own| {
        let (node, is_over) = (cluster.nodes[0].text.clone(), is_over.clone());
        std::thread::spawn(move || write_and_read(&node, own, &is_over))
    });
    let clients: Vec<_> = clients.collect();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let peers = &cluster.nodes[1..];
        peers.iter().for_each(|node| node.signal("-STOP"));
        tokio::time::sleep(STILL).await;
        peers.iter().for_each(|node| node.signal("-CONT"));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let opened = cluster.nodes[0].counter("breakers_opened").await;
    is_over.store(true, Ordering::Relaxed);
    let (mut answered, mut errors, mut longest) = (0, Vec::new(), Duration::ZERO);
    for client in clients {
        let (some, wrong, slowest) = client.join().unwrap();
        answered += some;
        errors.extend(wrong);
        longest = longest.max(slowest);
    }
    println!("{answered} answers, {opened} breakers opened, longest {longest:?}");
    assert!(opened >= 2 * rounds, "they were to be silent for longer than an attempt");
    assert!(errors.is_empty(), "{} errors, as {:?}", errors.len(), &errors[..errors.len().min(3)]);
}
