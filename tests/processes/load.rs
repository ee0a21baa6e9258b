//! Writers that remember what was acknowledged, and the look for it afterwards.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringdove::client::{Bucket, Client, Outcome, Union, Values, direct};
use ringdove::key::Key;
use ringdove::wire::messages::{Get, Level, Request, Response};
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, PATIENCE};

const WRITERS: usize = 8;
/// Keys that writers share, each a set to which every writer adds.
const SHARED: usize = 3;

/// What became of the writes so far.
#[derive(Default)]
pub struct Ledger {
    /// Keys of acknowledged writes; each one's value is its own name.
    pub written: Mutex<Vec<String>>,
    /// Elements that an acknowledged write added to a shared set.
    added: Mutex<BTreeSet<(usize, String)>>,
    pub unknown: AtomicU64,
    pub refused: AtomicU64,
    longest_us: AtomicU64,
}

impl Ledger {
    pub fn acknowledged(&self) -> usize {
        self.written.lock().unwrap().len() + self.added.lock().unwrap().len()
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }

    fn count<T>(&self, began: Instant, answer: &ringdove::client::Result<T>) -> bool {
        self.longest_us.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        match Outcome::of(answer) {
            Outcome::Applied => return true,
            Outcome::NotApplied => self.refused.fetch_add(1, Ordering::Relaxed),
            Outcome::Unknown => self.unknown.fetch_add(1, Ordering::Relaxed),
        };
        false
    }
}

/// Writers at work.
pub struct Load {
    pub ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(client: &Client) -> Self {
        let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let bucket = client.bucket("default").unwrap();
        let writer = |number| {
            let (ledger, stop, bucket) = (ledger.clone(), stop.clone(), bucket.clone());
            tokio::spawn(async move { write(number, &bucket, &ledger, &stop).await })
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self { ledger, stop, writers }
    }

    pub async fn stop(self) -> Arc<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.ledger
    }

    /// Waits until `more` further writes have been acknowledged.
    pub async fn run_for(&self, more: usize) {
        let goal = self.ledger.acknowledged() + more;
        let deadline = Instant::now() + PATIENCE;
        while self.ledger.acknowledged() < goal {
            assert!(Instant::now() < deadline, "writes have stopped");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn write(number: usize, bucket: &Bucket, ledger: &Ledger, stop: &AtomicBool) {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("writer-{number}-{round}");
        let began = Instant::now();
        if round % 10 == 0 {
            let shared = round / 10 % SHARED;
            let answer = add(bucket, shared, &name).await;
            if ledger.count(began, &answer) {
                ledger.added.lock().unwrap().insert((shared, name));
            }
        } else {
            let answer = bucket.put(&name, name.clone()).blind().await;
            if ledger.count(began, &answer) {
                ledger.written.lock().unwrap().push(name);
            }
        }
    }
}

/// Adds a line to a shared set: reads it, and replaces what was read.
async fn add(bucket: &Bucket, shared: usize, line: &str) -> ringdove::client::Result<()> {
    let line = format!("{line}\n");
    let change = move |values: &Values| {
        let set = values.resolve(&Union::of_lines()).unwrap_or_default();
        [&set[..], line.as_bytes()].concat()
    };
    bucket.update(format!("shared-{shared}"), change).attempts(5).await.map(drop)
}

/// Looks for everything acknowledged, at the given level, through the nodes named.
pub async fn check(cluster: &Cluster, ledger: &Ledger, r: Level, through: &[usize]) {
    let written = ledger.written.lock().unwrap().clone();
    let added = ledger.added.lock().unwrap().clone();
    for index in through {
        let address = &cluster.nodes[*index].frames;
        let node = Arc::new(direct::Direct::connect(address, PATIENCE).await.unwrap());
        for names in written.chunks(200) {
            let reads = names.iter().map(|name| tokio::spawn(read(node.clone(), name.clone(), r)));
            let reads: Vec<_> = reads.collect();
            for (name, values) in names.iter().zip(reads) {
                let values = values.await.unwrap();
                assert_eq!(values, [name.as_bytes()], "{name} through node {index} at {r:?}");
            }
        }
        for shared in 0..SHARED {
            let values = read(node.clone(), format!("shared-{shared}"), r).await;
            let text = String::from_utf8(values.join(&b'\n')).unwrap();
            let lines: BTreeSet<&str> = text.lines().collect();
            for (_, line) in added.iter().filter(|(of, _)| *of == shared) {
                assert!(lines.contains(line.as_str()), "{line} through node {index} at {r:?}");
            }
        }
    }
}

async fn read(node: Arc<direct::Direct>, name: String, r: Level) -> Vec<Vec<u8>> {
    let key = Key::new(b"default", name.as_bytes()).unwrap();
    let get = Get { key, r, pr: Level::Default, budget_ms: 10_000, strict: true, trace: false };
    match node.request(&Request::Get(get), PATIENCE).await {
        Ok(Response::Got(got)) => got.values.iter().map(|value| value.data.to_vec()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}
