//! Partitions that change hands between real nodes, under load and under SIGKILL.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringdove::client::Client;
use ringdove::membership::{PlannedChange, Standing};
use ringdove::wire::messages::{Control, ControlReply, Level};
use ringdove::wire::transfer::TransferStatus;

use crate::alone;
use crate::cluster::{Cluster, Node, PATIENCE};
use crate::load::{Load, check};

const QUICK_CLEANUP: &str = "[transfers]\ncleanup_after_s = 1\n";

pub async fn stage(client: &Client, name: &str, change: PlannedChange) {
    let id = client.refresh().await.unwrap().state().find(name).unwrap();
    client.stage_change(id, change, true).await.unwrap();
}

async fn transfers(node: &Node) -> TransferStatus {
    match node.control(Control::Transfers).await {
        ControlReply::Transfers(status) => status,
        other => panic!("{other:?}"),
    }
}

/// Waits until no node that runs sees a slot that is to change hands, or a bucket that moves.
pub async fn wait_until_moved(cluster: &mut Cluster) {
    wait_until_moved_within(cluster, PATIENCE * 2).await;
}

/// As [`wait_until_moved`], but not for longer than this.
pub async fn wait_until_moved_within(cluster: &mut Cluster, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let mut open = Vec::new();
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            if node.has_started() {
                let changing = node.counter("slots_changing").await;
                let moving = node.counter("buckets_moving").await;
                if changing + moving > 0 {
                    open.push((index, changing, moving, transfers(node).await.incoming));
                }
            }
        }
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "it does not come to an end: {open:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the nodes that run have so many copies of keys, all together.
pub async fn wait_until_clean(cluster: &mut Cluster, copies: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut objects = BTreeMap::new();
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            if node.has_started() {
                match node.control(Control::Digest).await {
                    ControlReply::Digest { objects: count, .. } => objects.insert(index, count),
                    other => panic!("{other:?}"),
                };
            }
        }
        if objects.values().sum::<u64>() == copies {
            println!("{copies} copies, by node: {objects:?}");
            return;
        }
        assert!(Instant::now() < deadline, "{copies} copies, by node: {objects:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_leave_and_are_replaced_under_load_and_no_acknowledged_write_is_lost() {
    let _alone = alone().await;
    let mut cluster = Cluster::start_with(3, QUICK_CLEANUP);
    let newcomer = cluster.start_newcomer_with(QUICK_CLEANUP);
    cluster.wait_log(newcomer, "known as a candidate").await;
    let client = cluster.client().await;
    let load = Load::start(&client);
    load.run_for(1000).await;

    stage(&client, "node-3", PlannedChange::Join).await;
    client.commit_plan(None).await.unwrap();
    load.run_for(200).await;
    wait_until_moved(&mut cluster).await;
    let taken = cluster.nodes[3].counter("transfer_slots_taken").await;
    println!("joined: {taken} slots");
    assert!(taken >= 40, "a quarter of 3 x 64 slots: {taken}");
    check(&cluster, &load.ledger, Level::Count(2), &[0, 1, 2, 3]).await;

    stage(&client, "node-0", PlannedChange::Leave).await;
    client.commit_plan(None).await.unwrap();
    load.run_for(200).await;
    wait_until_moved(&mut cluster).await;
    cluster.wait_log(0, "left: safe to stop").await;
    assert!(cluster.nodes[0].terminate().0.success());
    load.run_for(200).await;
    check(&cluster, &load.ledger, Level::Count(2), &[1, 2, 3]).await;
    println!("left");

    cluster.nodes[1].kill();
    load.run_for(200).await;
    wait_until_kept(&cluster, &[2, 3], |kept| kept > 0).await;
    let newcomer = cluster.start_newcomer_with(QUICK_CLEANUP);
    cluster.wait_log(newcomer, "known as a candidate").await;
    let dead = client.refresh().await.unwrap().state().find("node-1").unwrap();
    stage(&client, "node-4", PlannedChange::Replace { dead }).await;
    client.commit_plan(None).await.unwrap();
    load.run_for(200).await;
    wait_until_moved(&mut cluster).await;
    check(&cluster, &load.ledger, Level::Count(2), &[2, 3, 4]).await;
    // What was kept for the dead has gone to who has its slots.
    wait_until_kept(&cluster, &[2, 3, 4], |kept| kept == 0).await;
    println!("replaced");

    let ledger = load.stop().await;
    println!(
        "{} acknowledged, longest request {} ms, {} refused, {} unknown",
        ledger.acknowledged(),
        ledger.longest().as_millis(),
        ledger.refused.load(std::sync::atomic::Ordering::Relaxed),
        ledger.unknown.load(std::sync::atomic::Ordering::Relaxed),
    );
    check(&cluster, &ledger, Level::All, &[2, 3, 4]).await;
}

/// Waits until what these nodes keep for others, all together, is as it is to be.
async fn wait_until_kept(cluster: &Cluster, nodes: &[usize], is_so: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut kept = 0;
        for node in nodes {
            kept += cluster.nodes[*node].hints().await;
        }
        if is_so(kept) {
            return;
        }
        assert!(Instant::now() < deadline, "{kept} hints are kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// With a commit for each, clients would wait for its syncs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_are_copied_share_commits() {
    const KEYS: usize = 2_000;
    let _alone = alone().await;
    let mut cluster = Cluster::start_with(3, QUICK_CLEANUP);
    let newcomer = cluster.start_newcomer_with(QUICK_CLEANUP);
    cluster.wait_log(newcomer, "known as a candidate").await;
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    let writes =
        (0..KEYS).map(|number| bucket.put(format!("key-{number}"), vec![number as u8; 64]).blind());
    for (key, answer) in bucket.multi_put(writes).await {
        answer.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }
    let before = cluster.nodes[newcomer].counter("disk_commits").await;
    stage(&client, "node-3", PlannedChange::Join).await;
    client.commit_plan(None).await.unwrap();
    wait_until_moved(&mut cluster).await;
    let node = &cluster.nodes[newcomer];
    let commits = node.counter("disk_commits").await - before;
    let keys = node.counter("transfer_keys_taken").await;
    println!("{keys} keys in {commits} commits");
    assert!(keys > KEYS as u64 / 2, "{keys} keys were copied");
    assert!(commits * 5 < keys, "{commits} commits for {keys} keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_on_where_it_was_after_sigkill_of_either_side_and_leftovers_are_deleted() {
    const KEYS: usize = 240;
    const VALUE_BYTES: usize = 256 * 1024;
    let _alone = alone().await;
    // Eight slots in turn, half a megabyte a second at first and some two when the process dies: each
    // is under way for seconds, so that its cursor is on the disk by then.
    let slow = "[transfers]\ncleanup_after_s = 1\nrate_mb_s = 8\nat_once = 8\n";
    let mut cluster = Cluster::start_with(3, slow);
    let newcomer = cluster.start_newcomer_with(slow);
    cluster.wait_log(newcomer, "known as a candidate").await;
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    for number in 0..KEYS {
        let value = vec![number as u8; VALUE_BYTES];
        bucket.put(format!("key-{number}"), value).blind().await.unwrap();
    }
    stage(&client, "node-3", PlannedChange::Join).await;
    client.commit_plan(None).await.unwrap();

    // Three lives of the successor, two of an owner; what was taken in all of them together.
    let (mut taken, mut resumed) = (0, 0);
    let deadline = Instant::now() + PATIENCE;
    for goal in [6 << 20, 4 << 20] {
        let so_far = loop {
            let so_far = cluster.nodes[newcomer].counter("transfer_bytes_taken").await;
            if so_far > goal {
                break so_far;
            }
            assert!(Instant::now() < deadline, "{:#?}", transfers(&cluster.nodes[newcomer]).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        taken += so_far;
        cluster.nodes[newcomer].kill();
        if goal == 4 << 20 {
            cluster.nodes[1].kill();
            cluster.nodes[1].start();
            cluster.wait_ready(1);
        }
        cluster.nodes[newcomer].start();
        cluster.wait_ready(newcomer);
        resumed += cluster.nodes[newcomer].counter("transfers_resumed").await;
    }
    wait_until_moved(&mut cluster).await;
    let node = &cluster.nodes[newcomer];
    taken += node.counter("transfer_bytes_taken").await;
    let restarted = node.counter("transfers_restarted").await;
    let ControlReply::Digest { objects, .. } = node.control(Control::Digest).await else {
        panic!("not a digest")
    };
    let needed = objects * VALUE_BYTES as u64;
    println!(
        "{} MiB taken for {} MiB, {resumed} copies resumed, {restarted} restarted",
        taken >> 20,
        needed >> 20,
    );
    assert!(resumed > 0, "each life but the first finds cursors");
    // What was taken since a cursor was kept is taken twice: two seconds at 2 MiB a second and what
    // was on its way, in each of two kills.
    assert!(taken < needed + (16 << 20), "{taken} bytes for {needed}");
    wait_until_clean(&mut cluster, 3 * KEYS as u64).await;
    for number in 0..KEYS {
        let key = format!("key-{number}");
        let values = bucket.get(&key).await.unwrap().values;
        assert_eq!(values.as_slice()[0].data.len(), VALUE_BYTES, "{key}");
    }
}

/// Hints that were let go are none, however long ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_let_hints_go_can_leave_and_says_so_only_when_the_others_know() {
    let _alone = alone().await;
    let mut cluster = Cluster::start_with(4, "[hints]\nmb_by_member = 0\n");
    let client = cluster.client().await;
    cluster.nodes[3].kill();
    let bucket = client.bucket("default").unwrap();
    for n in 0..200 {
        bucket.put(format!("key-{n}"), "value").blind().await.unwrap();
    }
    cluster.nodes[3].start();
    cluster.wait_back(3).await;
    let let_go = cluster.nodes[0].counter("hints_dropped").await;
    assert!(let_go > 0);
    stage(&client, "node-0", PlannedChange::Leave).await;
    client.commit_plan(None).await.unwrap();
    cluster.wait_log(0, "left: safe to stop").await;
    cluster.nodes[0].kill();
    for node in &cluster.nodes[1..] {
        let alone = Client::builder().seeds([node.frames.clone()]).only_seeds();
        let topology = alone.connect().await.unwrap().refresh().await.unwrap();
        let state = topology.state();
        let left = &state.members[&state.find("node-0").unwrap()];
        assert_eq!(left.standing, Standing::Removed, "at {}", node.frames);
    }
}
