//! Failure detection between real processes, over real UDP.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use ringdove::client::direct;
use ringdove::key::Key;
use ringdove::server::config::Config;
use ringdove::wire::messages::{Get, Level, Liveness, Request, Response};

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};

/// Short times, so that the tests are short; some ten times what this machine needs when idle.
pub const QUICK: &str = "[gossip]\nprobe_interval_ms = 400\nprobe_timeout_ms = 150\n\
                     suspicion_ms = 1500\nkeys = [\"a secret of the tests\"]\n";

fn started(count: usize) -> Cluster {
    let mut cluster = Cluster::prepare(count, QUICK);
    for node in &mut cluster.nodes {
        node.start();
    }
    for index in 0..count {
        cluster.wait_ready(index);
    }
    cluster
}

async fn liveness(cluster: &Cluster, by: usize, about: usize) -> Liveness {
    let status = cluster.nodes[by].status().await;
    let name = format!("node-{about}");
    let peer = status.peers.into_iter().find(|peer| peer.name == name);
    peer.expect("it is a member").liveness
}

/// Waits until `by` sees `about` so; returns how long that took.
pub async fn wait_for(cluster: &Cluster, by: usize, about: usize, state: &str) -> Duration {
    let began = Instant::now();
    loop {
        let seen = liveness(cluster, by, about).await;
        if seen.state == state {
            return began.elapsed();
        }
        assert!(began.elapsed() < PATIENCE, "node {by} sees node {about} as {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until everybody sees everybody so.
pub async fn wait_for_all(cluster: &Cluster, state: &str) {
    for by in 0..cluster.nodes.len() {
        for about in 0..cluster.nodes.len() {
            wait_for(cluster, by, about, state).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_down_for_all_within_the_time_the_settings_promise() {
    let _alone = alone().await;
    let mut cluster = started(3);
    wait_for_all(&cluster, "alive").await;
    let bound = Config::from_toml(QUICK, "quick", &[]).unwrap().swim().detection_bound(3);
    cluster.nodes[2].kill();
    let killed = Instant::now();
    wait_for(&cluster, 0, 2, "down").await;
    wait_for(&cluster, 1, 2, "down").await;
    // A second for asking, on a machine that has other things to do.
    assert!(killed.elapsed() < bound + Duration::from_secs(1), "{:?}", killed.elapsed());
    let seen = liveness(&cluster, 0, 2).await;
    assert!(seen.flaps == 1 && !seen.suspected_by.is_empty(), "{seen:?}");
    cluster.nodes[2].start();
    cluster.wait_ready(2);
    wait_for_all(&cluster, "alive").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_node_is_down_while_its_connections_stand_and_returns_by_itself() {
    let _alone = alone().await;
    let cluster = started(3);
    wait_for_all(&cluster, "alive").await;
    cluster.nodes[1].signal("-STOP");
    wait_for(&cluster, 0, 1, "down").await;
    wait_for(&cluster, 2, 1, "down").await;
    let status = cluster.nodes[0].status().await;
    assert!(status.peers.iter().any(|peer| peer.name == "node-1" && peer.up), "still connected");
    // Through one that knows, nobody waits for it.
    for index in 0..50 {
        let key = Key::new(b"default", format!("key-{index}").as_bytes()).unwrap();
        let (r, pr) = (Level::Default, Level::Default);
        let get = Request::Get(Get { key, r, pr, budget_ms: 2000, strict: false, trace: false });
        let began = Instant::now();
        let answer = direct::request(&cluster.nodes[0].frames, &get, PATIENCE).await.unwrap();
        assert!(matches!(answer, Response::Got(_)), "{answer:?}");
        assert!(began.elapsed() < Duration::from_millis(200), "{index}: {:?}", began.elapsed());
    }
    cluster.nodes[1].signal("-CONT");
    wait_for_all(&cluster, "alive").await;
    let began = Instant::now();
    while cluster.nodes[1].counter("gossip_renewals").await == 0 {
        assert!(began.elapsed() < PATIENCE, "it came back under its old generation");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_order_is_down_at_once() {
    let _alone = alone().await;
    let mut cluster = started(3);
    wait_for_all(&cluster, "alive").await;
    cluster.nodes[2].terminate();
    let stopped = Instant::now();
    wait_for(&cluster, 0, 2, "down").await;
    wait_for(&cluster, 1, 2, "down").await;
    assert!(stopped.elapsed() < Duration::from_millis(1500), "{:?}", stopped.elapsed());
    assert_eq!(cluster.nodes[0].counter("gossip_suspicions").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_strangers_are_dropped_and_counted() {
    let _alone = alone().await;
    let cluster = started(1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let node = &cluster.nodes[0];
    for length in [0, 1, 20, 49, 200, 1400, 9000] {
        stranger.send_to(&vec![1; length], &node.frames).unwrap();
    }
    let began = Instant::now();
    loop {
        let dropped = node.counter("gossip_dropped_malformed").await
            + node.counter("gossip_dropped_other_cluster").await;
        if dropped == 7 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "only {dropped} of 7 were dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.counter("gossip_packets_in").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_udp_port_that_is_taken_is_named() {
    let _alone = alone().await;
    let mut cluster = Cluster::prepare(1, "");
    let _taken = UdpSocket::bind(&cluster.nodes[0].frames).unwrap();
    cluster.nodes[0].start();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = cluster.nodes[0].has_ended() {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "it runs without gossip");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(!status.success());
    let log = cluster.nodes[0].log();
    assert!(log.contains("UDP") && log.contains("listen.address"), "{log}");
}
