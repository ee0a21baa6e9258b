//! A bucket that gets another number of replicas, up and down, under load and under SIGKILL.

use std::time::Instant;

use ringdove::client::{BucketSettings, Client, Kind};
use ringdove::wire::messages::Level;

use crate::alone;
use crate::cluster::Cluster;
use crate::load::{Load, check};
use crate::transfer::{wait_until_clean, wait_until_moved};

const QUICK_CLEANUP: &str = "[transfers]\ncleanup_after_s = 1\n";
const NODES: &[usize] = &[0, 1, 2, 3];

/// Stages another count for the bucket `default`, and commits it.
async fn begin(client: &Client, n: u8) {
    let settings = *client.refresh().await.unwrap().bucket("default").unwrap();
    client.set_bucket("default", BucketSettings { n, ..settings }).await.unwrap();
    let topology = client.refresh().await.unwrap();
    let planned: Vec<(&str, u8)> = topology.state().planned_counts().collect();
    assert_eq!(planned, [("default", n)]);
    assert_eq!(topology.bucket("default").unwrap().n, settings.n, "nothing has happened");
    client.commit_plan(Some(topology.state().plan_mark())).await.unwrap();
}

/// Waits until `default` is at home in slots for `n` replicas, for all nodes.
async fn wait_until_at_home(cluster: &mut Cluster, client: &Client, n: u8) {
    wait_until_moved(cluster).await;
    let topology = client.refresh().await.unwrap();
    let entry = &topology.state().buckets["default"];
    assert_eq!((entry.settings.n, entry.home.next), (n, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_gets_more_and_fewer_replicas_under_load_and_nothing_is_lost() {
    let _alone = alone().await;
    let mut cluster = Cluster::start_with(4, QUICK_CLEANUP);
    let client = cluster.client().await;
    begin(&client, 2).await;
    wait_until_at_home(&mut cluster, &client, 2).await;

    let load = Load::start(&client);
    load.run_for(1000).await;
    begin(&client, 3).await;
    let began = Instant::now();
    load.run_for(100).await;
    let arrived = client.refresh().await.unwrap().arrived("default");
    println!("killed with {arrived} partitions arrived");
    cluster.nodes[1].kill();
    load.run_for(200).await;
    cluster.nodes[1].start();
    cluster.wait_ready(1);
    wait_until_at_home(&mut cluster, &client, 3).await;
    println!("2 to 3 in {:?}", began.elapsed());
    load.run_for(200).await;
    cluster.wait_drained().await;
    check(&cluster, &load.ledger, Level::Count(2), NODES).await;

    begin(&client, 2).await;
    let began = Instant::now();
    let another = BucketSettings { n: 4, ..BucketSettings::default() };
    if client.refresh().await.unwrap().moving() > 0 {
        let refused = client.set_bucket("default", another).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    load.run_for(200).await;
    wait_until_at_home(&mut cluster, &client, 2).await;
    println!("3 to 2 in {:?}", began.elapsed());
    load.run_for(200).await;
    let ledger = load.stop().await;
    println!(
        "{} acknowledged, longest request {} ms, {} refused, {} unknown",
        ledger.acknowledged(),
        ledger.longest().as_millis(),
        ledger.refused.load(std::sync::atomic::Ordering::Relaxed),
        ledger.unknown.load(std::sync::atomic::Ordering::Relaxed),
    );
    cluster.wait_drained().await;
    check(&cluster, &ledger, Level::Count(2), NODES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_another_count_each_key_is_on_so_many_nodes_and_on_no_other() {
    const KEYS: u64 = 300;
    let _alone = alone().await;
    let mut cluster = Cluster::start_with(4, QUICK_CLEANUP);
    let client = cluster.client().await;
    let moved = client.bucket("default").unwrap();
    // Whoever has a part in this one has none in the other any more, or not yet.
    client.create_bucket("stays", BucketSettings::default()).await.unwrap();
    let stays = client.bucket("stays").unwrap();
    for number in 0..KEYS {
        moved.put(format!("key-{number}"), "moves").blind().await.unwrap();
        stays.put(format!("key-{number}"), "stays").blind().await.unwrap();
    }
    for n in [2, 4, 3] {
        begin(&client, n).await;
        wait_until_at_home(&mut cluster, &client, n).await;
        wait_until_clean(&mut cluster, KEYS * u64::from(n + 3)).await;
        for number in 0..KEYS {
            for (bucket, value) in [(&moved, "moves"), (&stays, "stays")] {
                let values = bucket.get(format!("key-{number}")).r(Level::All).await.unwrap();
                assert_eq!(values.values.as_slice()[0].data, value, "key-{number} at n={n}");
            }
        }
    }
}
