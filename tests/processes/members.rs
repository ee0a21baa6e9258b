//! Members that come and go: planned, committed, removed; and nodes that should not be there.

use std::path::Path;
use std::time::Instant;

use ringdove::client::{Client, Kind};
use ringdove::ids::NodeId;
use ringdove::membership::{PlannedChange, Standing};
use ringdove::wire::messages::BucketSettings;

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};

async fn id_of(client: &Client, name: &str) -> NodeId {
    client.refresh().await.unwrap().state().find(name).unwrap()
}

async fn standing_of(client: &Client, id: NodeId) -> Standing {
    client.refresh().await.unwrap().member(id).unwrap().standing
}

/// Waits until all nodes that run go by the same cluster state.
async fn wait_for_one_state(cluster: &mut Cluster) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut versions = Vec::new();
        for node in &mut cluster.nodes {
            if node.has_started() {
                versions.push(node.status().await.topology);
            }
        }
        if versions.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        assert!(Instant::now() < deadline, "{versions:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_waits_as_a_candidate_until_a_plan_with_it_is_committed() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let newcomer = cluster.start_newcomer();
    cluster.wait_log(newcomer, "known as a candidate").await;
    let client = cluster.client().await;
    let id = id_of(&client, "node-3").await;
    assert_eq!(standing_of(&client, id).await, Standing::Candidate);
    assert_eq!(cluster.nodes[newcomer].status().await.state, "candidate");

    // A plan moves nothing, and is gone when it is aborted.
    let nothing = client.commit_plan(None).await.unwrap_err();
    assert_eq!(nothing.kind(), Kind::Invalid, "{nothing}");
    client.stage_change(id, PlannedChange::Join, false).await.unwrap();
    client.abort_plan().await.unwrap();
    assert_eq!(client.refresh().await.unwrap().state().planned().count(), 0);

    client.stage_change(id, PlannedChange::Join, false).await.unwrap();
    let mark = client.refresh().await.unwrap().state().plan_mark();
    let other = client.commit_plan(Some(mark ^ 1)).await.unwrap_err();
    assert!(other.to_string().contains("not the one you saw"), "{other}");
    client.commit_plan(Some(mark)).await.unwrap();
    let topology = client.refresh().await.unwrap();
    assert_eq!(topology.member(id).unwrap().standing, Standing::Member);
    assert_eq!(topology.state().placed().count(), 4);
    wait_for_one_state(&mut cluster).await;

    // What a member is configured with later is not what it is.
    let (status, _) = cluster.nodes[newcomer].terminate();
    assert!(status.success());
    let file = cluster.nodes[newcomer].home.join("ringdove.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("data_dir", "zone = \"elsewhere\"\ndata_dir")).unwrap();
    cluster.nodes[newcomer].start();
    cluster.wait_ready(newcomer);
    cluster.wait_log(newcomer, "ringdove member zone node-3 elsewhere").await;
    assert_eq!(client.refresh().await.unwrap().member(id).unwrap().zone(), "default");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_replaced_learns_so_serves_nobody_and_does_not_start_again() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let newcomer = cluster.start_newcomer();
    cluster.wait_log(newcomer, "known as a candidate").await;
    let client = cluster.client().await;
    let (dead, new) = (id_of(&client, "node-2").await, id_of(&client, "node-3").await);
    let change = PlannedChange::Replace { dead };
    let alive = client.stage_change(new, change.clone(), false).await.unwrap_err();
    assert!(alive.to_string().contains("--force"), "{alive}");
    cluster.nodes[2].kill();
    let deadline = Instant::now() + PATIENCE;
    while client.stage_change(new, change.clone(), false).await.is_err() {
        assert!(Instant::now() < deadline, "the others see that it is gone");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    client.commit_plan(None).await.unwrap();
    assert_eq!(standing_of(&client, dead).await, Standing::Removed);
    wait_for_one_state(&mut cluster).await;

    cluster.nodes[2].start();
    cluster.wait_log(2, "removed from the cluster for good").await;
    assert!(!cluster.nodes[2].is_ready());
    assert_eq!(cluster.nodes[2].status().await.state, "removed");
    let (status, _) = cluster.nodes[2].terminate();
    assert!(status.success());
    cluster.nodes[2].start();
    cluster.wait_log(2, "a removed id never comes back").await;
    assert!(!cluster.wait_ended(2).await.success());
}

fn copy_directory(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// An old copy would answer with what was there when it was made, and bring back what was deleted since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_was_copied_starts_only_as_one_that_was_moved() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    bucket.put("k", "old").blind().await.unwrap();
    let (home, backup) = (cluster.nodes[1].home.clone(), cluster.nodes[1].home.with_extension("b"));
    assert!(cluster.nodes[1].terminate().0.success());
    copy_directory(&home, &backup);
    cluster.nodes[1].start();
    cluster.wait_back(1).await;
    bucket.put("k", "new").observed().await.unwrap();
    assert!(cluster.nodes[1].terminate().0.success());
    std::fs::remove_dir_all(&home).unwrap();
    copy_directory(&backup, &home);

    let before = cluster.nodes[1].log().len();
    cluster.nodes[1].start();
    let status = cluster.wait_ended(1).await;
    assert_eq!(status.code(), Some(1));
    let said = cluster.nodes[1].log()[before..].to_owned();
    assert!(said.contains("restored from a copy") && said.contains("serve --moved"), "{said}");

    // Whoever says so all the same gets a node that counts once it has what it lacks.
    cluster.nodes[1].start_with(&["--moved"]);
    cluster.wait_log(1, "taken for a directory that was moved here").await;
    cluster.wait_log(1, "this disk has lost acknowledged writes").await;
    cluster.wait_back(1).await;
    for _ in 0..20 {
        let found = bucket.get("k").await.unwrap();
        assert_eq!(found.values.as_slice()[0].data, "new");
    }
    assert!(cluster.nodes[1].terminate().0.success());
    cluster.nodes[1].start();
    cluster.wait_back(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_data_directory_is_refused_while_the_original_lives() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let copy = cluster.start_newcomer();
    cluster.wait_log(copy, "known as a candidate").await;
    cluster.nodes[copy].kill();
    // The newcomer's ports, and the identity of a member that stopped and went on elsewhere.
    let (original, home) = (cluster.nodes[1].home.clone(), cluster.nodes[copy].home.clone());
    assert!(cluster.nodes[1].terminate().0.success());
    let config = std::fs::read(home.join("ringdove.toml")).unwrap();
    std::fs::remove_dir_all(&home).unwrap();
    copy_directory(&original, &home);
    std::fs::write(home.join("ringdove.toml"), config).unwrap();
    std::fs::remove_file(home.join("log")).unwrap();
    cluster.nodes[1].start();
    cluster.wait_ready(1);
    cluster.nodes[0].wait_connected_to(&cluster.nodes[1].frames).await;
    cluster.nodes[2].wait_connected_to(&cluster.nodes[1].frames).await;
    // As if it had been moved.
    cluster.nodes[copy].start_with(&["--moved"]);
    cluster.wait_log(copy, "this is a copy of its data directory").await;
    let client = cluster.client().await;
    let id = id_of(&client, "node-1").await;
    let topology = client.refresh().await.unwrap();
    assert_eq!(topology.member(id).unwrap().address(), cluster.nodes[1].frames);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_changed_while_it_is_used() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let settings = BucketSettings::default();
    client.create_bucket("carts", settings).await.unwrap();
    let bucket = client.bucket("carts").unwrap();
    bucket.put("lasting", "apples").blind().await.unwrap();
    let passing = BucketSettings { ttl_ms: Some(1), ..settings };
    client.set_bucket("carts", passing).await.unwrap();
    wait_for_one_state(&mut cluster).await;
    bucket.put("passing", "pears").blind().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(bucket.get("passing").await.unwrap().values.as_slice().len(), 0);
    assert_eq!(bucket.get("lasting").await.unwrap().values.as_slice().len(), 1);
    let wider = BucketSettings { n: 4, ..settings };
    let refused = client.set_bucket("carts", wider).await.unwrap_err();
    assert!(refused.to_string().contains("plan the join of more nodes"), "{refused}");
    let unknown = client.set_bucket("carrots", settings).await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::Invalid);

    // Slots for another count begin only where all members hear of it.
    cluster.nodes[2].kill();
    let pair = BucketSettings { n: 2, ..settings };
    let refused = client.create_bucket("pairs", pair).await.unwrap_err();
    assert!(refused.to_string().contains("node-2 cannot be reached"), "{refused}");
    client.create_bucket("trios", settings).await.unwrap();
    cluster.nodes[2].start();
    cluster.wait_ready(2);
    let deadline = Instant::now() + PATIENCE;
    while client.create_bucket("pairs", pair).await.is_err() {
        assert!(Instant::now() < deadline, "all members are back");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
