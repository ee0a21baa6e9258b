//! What a node is asked while it stands still, and reads when it goes on.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ringdove::client::{Kind, Outcome, direct};
use ringdove::ids::WriteId;
use ringdove::key::Key;
use ringdove::wire::messages::{
    Basis, Condition, Control, ControlReply, Expiry, Get, Level, Put, Request, Response,
};

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};

/// More than the names of overwritten writes that a key remembers.
const OVERWRITTEN: u128 = 100;
/// The write that comes late.
const OLD: WriteId = WriteId(1);

/// Sets a key, whatever is there.
fn set(key: &Key, write_id: WriteId, attempt: u8, budget_ms: u32) -> Request {
    Request::Put(Put {
        key: key.clone(),
        write_id,
        attempt,
        basis: Basis::Observed,
        condition: Condition::None,
        value: Some(write_id.0.to_string().into()),
        expiry: Expiry::Bucket,
        w: Level::Default,
        pw: Level::Default,
        strict: false,
        budget_ms,
    })
}

/// Writes over a key, many times.
async fn overwrite(node: &direct::Direct, key: &Key) {
    for number in 2..2 + OVERWRITTEN {
        let done = node.request(&set(key, WriteId(number), 0, 5000), PATIENCE).await.unwrap();
        assert!(matches!(done, Response::Done(_)), "{done:?}");
    }
}

/// The key has the value of the last write and no other, on all owners.
async fn assert_newest(node: &direct::Direct, key: &Key) {
    let (r, pr) = (Level::All, Level::Default);
    let get = Get { key: key.clone(), r, pr, budget_ms: 10_000, strict: true, trace: false };
    let Ok(Response::Got(got)) = node.request(&Request::Get(get), PATIENCE).await else {
        panic!("all are there");
    };
    let values: Vec<&[u8]> = got.values.iter().map(|value| &value.data[..]).collect();
    assert_eq!(values, [(OVERWRITTEN + 1).to_string().as_bytes()]);
}

/// A write of this budget waits in a node that hangs; its client asks elsewhere after half a second, or
/// when the others take the node to be down, and send it nothing any more that would tell it of the write.
async fn write_to_a_hung_node(budget_ms: u32, is_taken_to_be_down: bool) {
    let _alone = alone().await;
    let cluster = Cluster::start(3);
    let connect = |index: usize| direct::Direct::connect(&cluster.nodes[index].frames, PATIENCE);
    let (hung, other) = (Arc::new(connect(1).await.unwrap()), connect(0).await.unwrap());
    let key = Key::new(b"default", b"late").unwrap();

    cluster.nodes[1].signal("-STOP");
    let late = tokio::spawn({
        let (hung, request) = (hung.clone(), set(&key, OLD, 0, budget_ms));
        async move { hung.request(&request, PATIENCE).await }
    });
    match is_taken_to_be_down {
        false => tokio::time::sleep(Duration::from_millis(500)).await,
        true => cluster.wait_log(0, "down peer=").await,
    }
    other.request(&set(&key, OLD, 1, 5000), PATIENCE).await.unwrap();
    overwrite(&other, &key).await;
    cluster.nodes[1].signal("-CONT");

    let refused = late.await.unwrap().unwrap_err();
    let how = (refused.kind(), refused.outcome());
    assert_eq!(how, (Kind::Timeout, Outcome::NotApplied), "{refused}");
    cluster.wait_drained().await;
    assert_newest(&other, &key).await;
    // It serves what is sent from now on, over the same connection.
    hung.request(&set(&key, WriteId(OVERWRITTEN + 1), 1, 5000), PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waited_in_a_hung_node_is_not_done_when_its_time_is_over() {
    write_to_a_hung_node(400, false).await;
}

/// A client turns to others as soon as a node is silent, long before the time is over that it gave it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waited_in_a_hung_node_is_not_done_over_what_others_have_written_meanwhile() {
    write_to_a_hung_node(60_000, true).await;
}

/// One line of an answer.
fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_text_client_sent_to_a_hung_node_is_not_done_when_its_time_is_over() {
    let _alone = alone().await;
    let cluster = Cluster::start(3);
    let other = direct::Direct::connect(&cluster.nodes[0].frames, PATIENCE).await.unwrap();
    let key = Key::new(b"default", b"late").unwrap();
    let connect = || BufReader::new(TcpStream::connect(&cluster.nodes[1].text).unwrap());
    let mut before = connect();
    write!(before.get_mut(), "PING\r\n").unwrap();
    assert_eq!(line(&mut before), "+PONG\r\n");

    cluster.nodes[1].signal("-STOP");
    // The kernel takes this one in the node's stead.
    let mut meanwhile = connect();
    for client in [&mut before, &mut meanwhile] {
        write!(client.get_mut(), "SET late old\r\nDEL late\r\nGET late\r\n").unwrap();
    }
    tokio::time::sleep(Duration::from_millis(2500)).await;
    overwrite(&other, &key).await;
    cluster.nodes[1].signal("-CONT");

    for client in [&mut before, &mut meanwhile] {
        for _ in ["SET", "DEL"] {
            let answer = line(client);
            assert!(answer.starts_with("-TIMEOUT this node stood still"), "{answer}");
        }
        assert_eq!((line(client).as_str(), line(client).as_str()), ("$3\r\n", "101\r\n"));
    }
    // What they send from now on is served.
    write!(before.get_mut(), "SET other new\r\n").unwrap();
    assert_eq!(line(&mut before), "+OK\r\n");
    assert_newest(&other, &key).await;
}

/// A key that node 0 does not own, and the node that it asks first.
async fn key_of_others(cluster: &Cluster) -> (Key, usize) {
    let mut ids = Vec::new();
    for node in &cluster.nodes {
        ids.push(node.status().await.id);
    }
    for number in 0.. {
        let name = format!("late-{number}");
        let explain = Control::Explain { bucket: "default".to_owned(), key: name.clone().into() };
        let ControlReply::Explain(explained) = cluster.nodes[0].control(explain).await else {
            panic!("not explained");
        };
        let owners: Vec<usize> = explained
            .replicas
            .iter()
            .map(|replica| ids.iter().position(|id| *id == replica.node).unwrap())
            .collect();
        if !owners.contains(&0) {
            return (Key::new(b"default", name.as_bytes()).unwrap(), owners[0]);
        }
    }
    unreachable!("a node owns a part of the keys only")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_passed_on_to_a_hung_node_is_not_done_after_another_was_asked() {
    let _alone = alone().await;
    let cluster = Cluster::start(5);
    let (key, hung) = key_of_others(&cluster).await;
    let other = direct::Direct::connect(&cluster.nodes[0].frames, PATIENCE).await.unwrap();

    cluster.nodes[hung].signal("-STOP");
    // With a long budget: what the hung node is given of it is over before the next one is asked.
    other.request(&set(&key, OLD, 0, 30_000), PATIENCE).await.unwrap();
    overwrite(&other, &key).await;
    cluster.nodes[hung].signal("-CONT");

    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.wait_drained().await;
    assert_newest(&other, &key).await;
    assert!(cluster.nodes[hung].counter("expired_on_arrival").await >= 1);
}
