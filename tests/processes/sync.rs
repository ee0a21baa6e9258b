//! Owners become equal by themselves, where no hint was kept, and people can see it and wait for it.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringdove::client::{Client, Level};
use serde_json::Value;

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};
use crate::kill::from_environment;

/// Nothing is kept for anybody, and equal owners compare again after a second.
const NO_HINTS: &str = "[hints]\nmb = 0\nmb_by_member = 0\n[sync]\ninterval_s = 1\n";

/// Runs `ringdove` against a node.
fn ringdove(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    command.args(words).args(["--addr", &cluster.nodes[0].frames]).output().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Waits until everything that was acknowledged is on all its owners; returns how long that took.
fn wait_synced(cluster: &Cluster) -> Duration {
    let began = Instant::now();
    let output = ringdove(cluster, &["wait", "--synced", "--timeout", "120s"]);
    assert!(output.status.success(), "{output:?}");
    began.elapsed()
}

/// Each node's count of objects and digest, asked once.
fn digests_now(cluster: &Cluster) -> Output {
    ringdove(cluster, &["digest", "--timeout", "60s"])
}

/// Writes at W=1: where one of three is away and no stand-in has room, a quorum is both others, and on a
/// busy machine one of the two may be slow. So some of it is on one owner alone.
async fn fill(client: &Client, prefix: &str, count: u64) {
    let bucket = client.bucket("default").unwrap();
    let value = Bytes::from(vec![b'x'; 100]);
    let put = |n| bucket.put(format!("{prefix}-{n}"), value.clone()).blind().w(Level::Count(1));
    let writes = (0..count).map(put);
    for (key, answer) in bucket.multi_put(writes).await {
        answer.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }
}

/// `RINGDOVE_WRITES` says how many it has missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_has_missed_is_there_when_the_barrier_returns_though_no_hint_was_kept() {
    let _alone = alone().await;
    let count = from_environment("RINGDOVE_WRITES", 5_000);
    let mut cluster = Cluster::start_with(3, NO_HINTS);
    let client = cluster.client().await;
    fill(&client, "before", 100).await;
    let took = wait_synced(&cluster);
    println!("three nodes that have everything: {took:.1?}");
    assert!(digests_now(&cluster).status.success());

    cluster.nodes[2].kill();
    fill(&client, "missed", count).await;
    // Somebody is away: it cannot be known what that one has.
    let output = ringdove(&cluster, &["wait", "--synced", "--timeout", "1s", "--json"]);
    let said = document(&output);
    assert_eq!((output.status.code(), &said["done"]), (Some(3), &false.into()), "{said}");
    let open = said["open"].as_array().unwrap();
    let is_named = |row: &Value| row["node"] == "node-2" && row["what"] == "does not answer";
    assert!(open.iter().any(is_named), "{said}");

    cluster.nodes[2].start();
    cluster.wait_ready(2);
    let took = wait_synced(&cluster);
    println!("{count} keys missed: equal {took:.1?} after the node was ready");
    let output = digests_now(&cluster);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(cluster.equal_digests().await.0, count + 100);
    let mut repaired = 0;
    for node in &cluster.nodes {
        repaired += node.counter("sync_repaired").await;
    }
    assert!(repaired >= count, "{repaired}");

    let output = ringdove(&cluster, &["sync", "status"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && shown.ends_with("everything is in sync\n"), "{shown}");
    let metrics = cluster.nodes[2].page("/metrics");
    for line in ["ringdove_sync_pairs 128\n", "ringdove_sync_overdue 0\n"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(metrics.contains("ringdove_sync_repaired_total "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_prove_its_disk_complete_becomes_whole_by_itself() {
    let _alone = alone().await;
    let mut cluster = Cluster::start_with(3, NO_HINTS);
    let client = cluster.client().await;
    fill(&client, "before", 500).await;
    cluster.nodes[1].kill();
    fill(&client, "missed", 500).await;
    std::fs::remove_file(cluster.nodes[1].home.join("journal")).unwrap();
    cluster.nodes[1].start();
    cluster.wait_ready(1);
    cluster.wait_log(1, "everything this disk had forgotten is back").await;
    assert!(!cluster.nodes[1].status().await.amnesiac);
    wait_synced(&cluster);
    assert!(digests_now(&cluster).status.success());
    // It stays so.
    cluster.nodes[1].terminate();
    cluster.nodes[1].start();
    cluster.wait_ready(1);
    assert!(!cluster.nodes[1].status().await.amnesiac);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_nodes_compare_nothing_and_resumed_ones_everything() {
    let _alone = alone().await;
    let mut cluster = Cluster::start_with(3, NO_HINTS);
    let client = cluster.client().await;
    wait_synced(&cluster);
    let output = ringdove(&cluster, &["sync", "pause"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 of 3 nodes begin no more comparisons\n");
    cluster.nodes[2].kill();
    fill(&client, "missed", 200).await;
    // A node that starts is not paused any more, and would find out by itself.
    cluster.nodes[2].start();
    cluster.wait_ready(2);
    let output = ringdove(&cluster, &["sync", "pause"]);
    assert!(output.status.success(), "{output:?}");
    settle(&cluster).await;
    let before = compared(&cluster).await;
    let output = ringdove(&cluster, &["wait", "--synced", "--timeout", "3s"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{shown}");
    assert!(shown.contains("its anti-entropy is paused"), "{shown}");
    assert_eq!(compared(&cluster).await, before, "while paused");
    let output = ringdove(&cluster, &["sync", "status", "--json"]);
    assert_eq!(document(&output)["nodes"][0]["paused"], true);

    assert!(ringdove(&cluster, &["sync", "resume"]).status.success());
    wait_synced(&cluster);
    assert!(digests_now(&cluster).status.success());
}

/// Pairs that the nodes have compared since they started.
async fn compared(cluster: &Cluster) -> u64 {
    let mut compared = 0;
    for node in &cluster.nodes {
        compared += node.counter("sync_compared").await;
    }
    compared
}

/// Waits until what was begun before the pause is finished.
async fn settle(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    let mut before = compared(cluster).await;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = compared(cluster).await;
        if now == before {
            return;
        }
        assert!(Instant::now() < deadline, "comparisons go on");
        before = now;
    }
}
