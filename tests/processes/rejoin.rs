//! A node that was away gets what it has missed, soon, and not from the start again when somebody
//! dies on the way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringdove::client::Client;
use ringdove::wire::messages::Level;

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};
use crate::kill::from_environment;
use crate::load::{Load, check};

/// A node that was away has everything after this long.
const WITHIN: Duration = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 10 });

/// Most hints that may be on their way, or delivered and still on the disk, when a sender dies.
const UNDER_WAY: u64 = 2_000;

/// Writes `count` keys that begin with `prefix`.
async fn fill(client: &Client, prefix: &str, count: u64, bytes: usize) {
    let bucket = client.bucket("default").unwrap();
    let value = Bytes::from(vec![b'x'; bytes]);
    let writes = (0..count).map(|n| bucket.put(format!("{prefix}-{n}"), value.clone()).blind());
    for (key, answer) in bucket.multi_put(writes).await {
        answer.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }
}

/// `RINGDOVE_WRITES` says how many it has missed (`./scripts/dev rejoin`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_soon_has_what_it_missed_while_clients_go_on() {
    let _alone = alone().await;
    let count = from_environment("RINGDOVE_WRITES", 3_000);
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    fill(&client, "before", 100, 100).await;
    cluster.nodes[2].kill();
    let began = Instant::now();
    fill(&client, "missed", count, 100).await;
    let wrote = began.elapsed();
    let kept = cluster.nodes[0].hints().await + cluster.nodes[1].hints().await;
    assert!(kept >= count, "{kept} hints of {count} writes");

    let load = Load::with_readers(&client, 4);
    load.run_for(500).await;
    let before = load.ledger.figures(began, Instant::now());
    cluster.nodes[2].start();
    let started = Instant::now();
    cluster.wait_ready(2);
    let ready = started.elapsed();
    cluster.wait_drained().await;
    let drained = started.elapsed();
    let during = load.ledger.figures(started, Instant::now());
    let ledger = load.stop().await;
    println!(
        "{count} writes in {wrote:.1?}; ready {ready:.1?} and everything there {drained:.1?} after the \
         start; clients before: {before:.1?}, meanwhile: {during:.1?}"
    );
    cluster.wait_drained().await;
    let (objects, _) = cluster.equal_digests().await;
    assert!(objects >= count + 100, "{objects}");
    assert_eq!(during.failed, 0, "{during:?}");
    assert!(drained < WITHIN, "{drained:?}");
    check(&cluster, &ledger, Level::Count(2), &[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_where_it_was_when_the_receiver_or_the_sender_is_killed() {
    let _alone = alone().await;
    let count = from_environment("RINGDOVE_WRITES", 6_000);
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    cluster.nodes[2].kill();
    fill(&client, "missed", count, 1000).await;
    // What was kept for node 1, for the moments in which it was slow, is delivered by then.
    let (all, earlier) = settled(&cluster).await;

    // The receiver, in the middle.
    cluster.nodes[2].start();
    wait_below(&cluster, all * 4 / 5).await;
    cluster.nodes[2].kill();
    let (left, delivered) = settled(&cluster).await;
    let delivered = delivered - earlier;
    println!("receiver killed: of {all} hints {delivered} were delivered, {left} are left");
    assert!(left > 0 && delivered > 0);
    assert_eq!(left + delivered, all, "none is gone but by delivery, and none comes back");

    // The sender, in the middle of the rest: what was delivered is not kept any more.
    cluster.nodes[2].start();
    wait_below(&cluster, left / 2).await;
    let before = cluster.nodes[0].counter("hints_delivered").await;
    cluster.nodes[0].kill();
    cluster.nodes[2].kill();
    cluster.nodes[0].start();
    cluster.wait_ready(0);
    let found = cluster.nodes[0].hints().await;
    println!("sender killed below {} hints; it came back with {found}", left / 2);
    assert!(found <= left / 2 + UNDER_WAY, "{found} of {left}");
    cluster.nodes[2].start();
    cluster.wait_ready(2);
    cluster.wait_drained().await;
    let after = cluster.nodes[0].counter("hints_delivered").await;
    println!(
        "of {all} hints {before} were delivered before the sender was killed, {after} after it"
    );
    assert!(before + after <= earlier + all + UNDER_WAY, "{before} and {after} of {all}");
    assert_eq!(cluster.equal_digests().await.0, count);
}

/// What node 0 keeps, and how much it has delivered, once neither changes any more: a write keeps
/// something for a member that is silent up to an attempt's time after its client was answered.
async fn settled(cluster: &Cluster) -> (u64, u64) {
    let node = &cluster.nodes[0];
    loop {
        let before = node.counter("hints_delivered").await;
        let left = node.hints().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if node.counter("hints_delivered").await == before && node.hints().await == left {
            return (left, before);
        }
    }
}

/// Waits until node 0 keeps less than `most`.
async fn wait_below(cluster: &Cluster, most: u64) {
    let deadline = Instant::now() + PATIENCE;
    while cluster.nodes[0].hints().await >= most {
        assert!(Instant::now() < deadline, "nothing is replayed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
