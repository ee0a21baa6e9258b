//! Nonsense on every port: the node goes on serving others, in bounded memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringdove::random::Random;
use ringdove::wire::codec;
use ringdove::wire::frame::{self, Marks};
use ringdove::wire::greeting::{self, Hello, Role};
use ringdove::wire::messages::{Get, Level, Request};

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};

/// What all of this together may add to a node's memory. Of the 20 connections that never read,
/// each may hold a window of answers (16 of 256 KiB, in a few copies while they are made), the
/// megabyte at which it is paused with an answer above it, and of the text port 8 MiB that are
/// encoded already; the other connections hold their buffers of 16 KiB. What they ask for is 2 GiB.
const GROWTH: u64 = 512 << 20;

/// What a client says first.
pub fn hello() -> BytesMut {
    let hello = Hello {
        oldest_version: frame::OLDEST_VERSION,
        newest_version: frame::VERSION,
        features: 0,
        role: Role::Client,
        cluster: String::new(),
        node: None,
        agent: "hostile".to_owned(),
    };
    let mut out = BytesMut::new();
    greeting::encode_hello(&mut out, &hello);
    out
}

/// Sends bytes and closes; the node may close first.
fn throw(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = [0; 512];
    let _ = stream.read(&mut answer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_every_port_leaves_the_node_serving_others_in_bounded_memory() {
    let _alone = alone().await;
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    let big = vec![b'x'; 256 * 1024];
    bucket.put("big", big.clone()).observed().await.unwrap();
    let before = node.memory();

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let good = tokio::spawn({
        let (stop, served) = (stop.clone(), served.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let number = served.fetch_add(1, Ordering::Relaxed);
                let key = format!("good-{}", number % 100);
                bucket.put(&key, "value").observed().await.expect("a good client is served");
                let read = bucket.get(&key).await.expect("a good client is served");
                assert!(!read.values.is_empty());
            }
        }
    });

    let ports = [node.frames.clone(), node.text.clone(), node.admin.clone()];
    let frames = node.frames.clone();
    let text = node.text.clone();
    let held = tokio::task::spawn_blocking(move || {
        throw_nonsense(&ports);
        throw_frames(&frames);
        for line in
            ["*1000000000\r\n", "*1\r\n$4294967296\r\n", "*-7\r\nxx", "GET / HTTP/1.1\r\n\r\n"]
        {
            throw(&text, line.as_bytes());
        }
        hold(&frames, &text)
    })
    .await
    .unwrap();

    let goal = served.load(Ordering::Relaxed) + 50;
    let deadline = Instant::now() + PATIENCE;
    while served.load(Ordering::Relaxed) < goal {
        assert!(Instant::now() < deadline, "the good client is held up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let grown = node.memory().saturating_sub(before);
    assert!(grown < GROWTH, "memory grew by {} MiB", grown >> 20);
    assert!(node.counter("malformed_connections").await > 50);
    assert!(node.is_ready());
    drop(held);
    stop.store(true, Ordering::Relaxed);
    good.await.unwrap();
    println!("memory grew by {} MiB while {} requests were served", grown >> 20, goal * 2);
}

fn throw_nonsense(ports: &[String]) {
    let mut random = Random::new(5);
    for port in ports {
        for round in 0..40 {
            let length = random.below(2000) as usize;
            let bytes: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
            throw(port, &bytes);
            if round < 5 {
                throw(port, &[]);
            }
        }
    }
}

fn throw_frames(frames: &str) {
    let hello = hello();
    for length in (1..hello.len()).step_by(3) {
        throw(frames, &hello[..length]);
    }
    let mut bomb = hello.to_vec();
    bomb[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    throw(frames, &bomb);
    let mut damaged = hello.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    throw(frames, &damaged);
    throw(frames, &[&hello[..], b"and then something else entirely"].concat());
    // After the greeting: a length of 4 GiB again.
    throw(frames, &[&hello[..], &u32::MAX.to_le_bytes(), &[0; 16]].concat());
}

/// Connections that stay: half-sent requests, and askers that never read.
fn hold(frames: &str, text: &str) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for index in 0..200 {
        let address = if index % 2 == 0 { frames } else { text };
        let mut stream = TcpStream::connect(address).unwrap();
        let half: &[u8] =
            if index % 2 == 0 { &hello()[..10] } else { b"*3\r\n$3\r\nSET\r\n$1000\r\nxx" };
        stream.write_all(half).unwrap();
        held.push(stream);
    }
    for index in 0..20 {
        let of_frames = index % 2 == 0;
        let mut stream = TcpStream::connect(if of_frames { frames } else { text }).unwrap();
        // The node may stop reading: then the rest does not go out.
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut out = if of_frames { hello() } else { BytesMut::new() };
        for id in 0..400 {
            if of_frames {
                let key = ringdove::key::Key::new(b"default", b"big").unwrap();
                let (r, pr) = (Level::Default, Level::Default);
                let get = Get { key, r, pr, budget_ms: 0, strict: true, trace: false };
                codec::encode_request(&mut out, id, Marks::NONE, &Request::Get(get)).unwrap();
            } else {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n");
            }
        }
        let _ = stream.write_all(&out);
        held.push(stream);
    }
    held
}
