//! Stopping, pausing, starting twice, and who may belong to a cluster.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ringdove::client::{Kind, Level, Outcome};
use ringdove::limits;
use ringdove::wire::frame;
use ringdove::wire::messages::Level as WireLevel;

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};
use crate::load::{Load, check};

fn incarnations(log: &str) -> usize {
    log.matches("the disk is complete all the same").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_finishes_its_work_and_clients_go_on() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let load = Load::with_readers(&client, 2);
    load.run_for(300).await;
    let mut idle = std::net::TcpStream::connect(&cluster.nodes[0].frames).unwrap();
    idle.write_all(&crate::hostile::hello()).unwrap();
    let told = Instant::now();
    let (status, took) = cluster.nodes[0].terminate();
    assert!(status.success(), "{status}:\n{}", cluster.nodes[0].log());
    assert!(took < Duration::from_secs(10), "{took:?}");
    load.run_for(300).await;
    cluster.nodes[0].start();
    cluster.wait_ready(0);
    load.run_for(300).await;
    let ledger = load.stop().await;
    check(&cluster, &ledger, WireLevel::Count(2), &[0, 1, 2]).await;
    let figures = ledger.figures(told, Instant::now());
    println!("a node stops in {took:?} and comes back: {figures:?}");
    assert_eq!(figures.failed, 0, "default settings hide a node that stops in order: {figures:?}");
    assert!(figures.longest < Duration::from_secs(1), "{figures:?}");
    assert_eq!(goodbyes(&mut idle), 1, "who asks nothing is told as well");
    // A clean stop was proven; a kill is not one.
    assert_eq!(incarnations(&cluster.nodes[0].log()), 0);
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.wait_ready(0);
    assert_eq!(incarnations(&cluster.nodes[0].log()), 1);
}

/// How often a connection that the other side has closed was asked to go away.
fn goodbyes(stream: &mut std::net::TcpStream) -> usize {
    let (mut bytes, mut count) = (Vec::new(), 0);
    stream.read_to_end(&mut bytes).unwrap();
    let mut buffer = bytes::BytesMut::from(&bytes[..]);
    while let Some(frame) = frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES).unwrap() {
        count += usize::from(frame.kind == frame::Kind::GoAway);
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_node_of_three_a_quorum_is_refused_at_once_and_one_is_enough() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    bucket.put("before", "value").observed().w(Level::All).await.unwrap();
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    // The first may still be on its way when the connections break.
    let _ = bucket.put("while", "noticing").blind().await;
    let began = Instant::now();
    let refused = bucket.put("key", "value").blind().w(Level::Count(2)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.outcome()), (Kind::Unavailable, Outcome::NotApplied));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    bucket.put("key", "value").blind().w(Level::Count(1)).await.unwrap();
    let read = bucket.get("before").r(Level::Count(1)).await.unwrap();
    assert_eq!(read.values.one_value(), b"value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_holds_nobody_up_for_long_and_leaves_nothing_behind() {
    let _alone = alone().await;
    let cluster = Cluster::start(3);
    let client = cluster.client().await;
    let load = Load::start(&client);
    load.run_for(200).await;
    cluster.nodes[2].signal("-STOP");
    load.run_for(1000).await;
    cluster.nodes[2].signal("-CONT");
    load.run_for(200).await;
    let ledger = load.stop().await;
    let longest = ledger.longest();
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    check(&cluster, &ledger, WireLevel::Count(2), &[0, 1, 2]).await;
    let deadline = Instant::now() + PATIENCE;
    for node in &cluster.nodes {
        while node.counter("in_flight").await > 0 {
            assert!(Instant::now() < deadline, "operations stay under way");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_has_one_process_and_a_stranger_to_a_formed_cluster_is_a_candidate() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(1);
    // The same directory under other ports.
    let home = cluster.nodes[0].home.clone();
    let config = std::fs::read_to_string(home.join("ringdove.toml")).unwrap();
    let other = Cluster::prepare(1, "");
    let second = config
        .replace(&cluster.nodes[0].frames, &other.nodes[0].frames)
        .replace(&cluster.nodes[0].text, &other.nodes[0].text)
        .replace(&cluster.nodes[0].admin, &other.nodes[0].admin);
    std::fs::write(home.join("second.toml"), second).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringdove"))
        .args(["serve", "--config"])
        .arg(home.join("second.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("in use by another"), "{said}");

    // A stranger whose seed is the cluster's node.
    let stranger = other.nodes[0].home.join("ringdove.toml");
    let config = std::fs::read_to_string(&stranger).unwrap();
    let config = config.replace("initial_members = 1", "initial_members = 2").replace(
        &format!("seeds = [\"{}\"]", other.nodes[0].frames),
        &format!("seeds = [\"{}\"]", cluster.nodes[0].frames),
    );
    std::fs::write(&stranger, config).unwrap();
    let mut other = other;
    other.nodes[0].start();
    let deadline = Instant::now() + PATIENCE;
    while !other.nodes[0].log().contains("known as a candidate") {
        assert!(Instant::now() < deadline, "{}", other.nodes[0].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let peers = cluster.nodes[0].status().await.peers;
    assert_eq!(peers.iter().map(|peer| peer.share).collect::<BTreeSet<u32>>(), [0, 10_000].into());
    assert!(cluster.nodes[0].has_ended().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_usable_through_all_nodes_and_survives_their_restart() {
    use ringdove::wire::messages::{BucketSettings, Conflicts};
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let settings = BucketSettings { conflicts: Conflicts::LastWriteWins, ..Default::default() };
    client.create_bucket("latest", settings).await.unwrap();
    let bucket = client.bucket("latest").unwrap();
    for round in 0..20 {
        bucket.put("key", format!("value {round}")).blind().await.unwrap();
    }
    for index in 0..3 {
        let (status, _) = cluster.nodes[index].terminate();
        assert!(status.success());
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    for index in 0..3 {
        cluster.wait_ready(index);
    }
    let bucket = cluster.client().await.bucket("latest").unwrap();
    let read = bucket.get("key").await.unwrap();
    assert_eq!(read.values.one_value(), b"value 19");
    bucket.get("key").r(Level::All).await.unwrap();
    assert_eq!(cluster.equal_digests().await.0, 1);
    assert!(cluster.path().exists());
}

/// The only value that is there.
trait OneValue {
    fn one_value(&self) -> &[u8];
}

impl OneValue for ringdove::client::Values {
    fn one_value(&self) -> &[u8] {
        match self.as_slice() {
            [value] => &value.data,
            other => panic!("one value was expected: {other:?}"),
        }
    }
}
