//! Deleted keys are forgotten by real nodes, and not while one is away or hangs.

use std::process::Command;
use std::time::{Duration, Instant};

use ringdove::wire::messages::{Control, ControlReply};
use ringdove::wire::reap::ReapStatus;

use crate::alone;
use crate::cluster::Cluster;

const KEYS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);

async fn statuses(cluster: &Cluster, nodes: &[usize]) -> Vec<ReapStatus> {
    let mut statuses = Vec::new();
    for node in nodes {
        match cluster.nodes[*node].control(Control::Reaping).await {
            ControlReply::Reaping(status) => statuses.push(status),
            other => panic!("{other:?}"),
        }
    }
    statuses
}

/// Keys on the disk of each node, tombstones too.
async fn objects(cluster: &Cluster, nodes: &[usize]) -> Vec<u64> {
    let mut counts = Vec::new();
    for node in nodes {
        match cluster.nodes[*node].control(Control::Digest).await {
            ControlReply::Digest { objects, .. } => counts.push(objects),
            other => panic!("{other:?}"),
        }
    }
    counts
}

/// What `ringdove tombstones` says.
fn tombstones(cluster: &Cluster) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    let output = command.args(["tombstones", "--addr", &cluster.nodes[0].frames]).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn wait_forgotten(cluster: &Cluster) {
    let began = Instant::now();
    loop {
        let counts = objects(cluster, &[0, 1, 2]).await;
        if counts == [0, 0, 0] {
            println!("forgotten after {:?}", began.elapsed());
            return;
        }
        let statuses = statuses(cluster, &[0, 1, 2]).await;
        assert!(began.elapsed() < PATIENCE, "{counts:?} are left: {statuses:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_keys_are_forgotten_and_a_node_that_is_away_or_hangs_holds_that_up() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    let keys: Vec<String> = (0..KEYS).map(|n| format!("k{n}")).collect();
    for key in &keys {
        bucket.put(key.as_str(), "old").observed().await.unwrap();
    }
    cluster.nodes[2].kill();
    for key in &keys {
        bucket.delete(key.as_str()).observed().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(objects(&cluster, &[0, 1]).await, [KEYS as u64; 2]);
    let held_up: u64 = statuses(&cluster, &[0, 1]).await.iter().map(|status| status.waiting).sum();
    assert!(held_up > 0);
    let (code, said) = tombstones(&cluster);
    assert!(code == Some(3) && said.contains("held up by node-2: away"), "{said}");
    cluster.nodes[2].start();
    cluster.wait_ready(2);
    wait_forgotten(&cluster).await;

    // The same with one that hangs, and new values on top of what was forgotten.
    for key in &keys {
        bucket.put(key.as_str(), "new").observed().await.unwrap();
    }
    cluster.nodes[1].signal("-STOP");
    for key in &keys[..KEYS / 2] {
        bucket.delete(key.as_str()).observed().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.nodes[1].signal("-CONT");
    let began = Instant::now();
    while objects(&cluster, &[0, 1, 2]).await != [(KEYS - KEYS / 2) as u64; 3] {
        assert!(began.elapsed() < PATIENCE, "{:?}", statuses(&cluster, &[0, 1, 2]).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (at, key) in keys.iter().enumerate() {
        let read = bucket.get(key.as_str()).await.unwrap();
        assert_eq!(read.values.is_empty(), at < KEYS / 2, "{key}");
    }
    let began = Instant::now();
    while tombstones(&cluster) != (Some(0), "nothing waits to be forgotten\n".to_owned()) {
        assert!(began.elapsed() < PATIENCE, "{:?}", tombstones(&cluster));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for node in 0..3 {
        assert_eq!(cluster.nodes[node].counter("resurrections_refused").await, 0);
    }
}
