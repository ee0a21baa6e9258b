//! Writers that remember what was acknowledged, readers that look for it meanwhile, and the look
//! for all of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringdove::client::{Bucket, Client, Outcome, Union, Values, direct};
use ringdove::key::Key;
use ringdove::random::Random;
use ringdove::wire::messages::{Get, Level, Request, Response};
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, PATIENCE};

const WRITERS: usize = 8;
/// Keys that writers share, each a set to which every writer adds.
const SHARED: usize = 3;

/// What became of the requests so far.
#[derive(Default)]
pub struct Ledger {
    /// Keys of acknowledged writes; each one's value is its own name.
    pub written: Mutex<Vec<String>>,
    /// Elements that an acknowledged write added to a shared set.
    added: Mutex<BTreeSet<(usize, String)>>,
    /// Keys that one writer counts up in, and the last count that was acknowledged.
    registers: Mutex<BTreeMap<String, u64>>,
    pub unknown: AtomicU64,
    pub refused: AtomicU64,
    samples: Mutex<Vec<Sample>>,
}

/// One request.
#[derive(Clone, Copy)]
struct Sample {
    began: Instant,
    took: Duration,
    is_write: bool,
    is_done: bool,
}

/// How requests went, of those that were under way at some time or later.
#[derive(Debug, Default)]
pub struct Figures {
    pub count: usize,
    pub failed: usize,
    pub p99: Duration,
    pub longest: Duration,
    /// The longest time in which no write was acknowledged.
    pub outage: Duration,
}

impl Ledger {
    pub fn acknowledged(&self) -> usize {
        self.written.lock().unwrap().len() + self.added.lock().unwrap().len()
    }

    pub fn longest(&self) -> Duration {
        let samples = self.samples.lock().unwrap();
        samples.iter().map(|sample| sample.took).max().unwrap_or_default()
    }

    /// Of all requests that ended after `from` and began before `until`.
    pub fn figures(&self, from: Instant, until: Instant) -> Figures {
        let samples = self.samples.lock().unwrap();
        let is_within = |s: &&Sample| s.began + s.took >= from && s.began < until;
        let samples: Vec<Sample> = samples.iter().filter(is_within).copied().collect();
        let mut took: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
        took.sort_unstable();
        let writes = samples.iter().filter(|sample| sample.is_write && sample.is_done);
        let mut ends: Vec<Instant> = writes.map(|sample| sample.began + sample.took).collect();
        ends.extend([from, until.min(Instant::now()).max(from)]);
        ends.sort_unstable();
        let outage = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Figures {
            count: samples.len(),
            failed: samples.iter().filter(|sample| !sample.is_done).count(),
            p99: took.get(took.len() * 99 / 100).copied().unwrap_or_default(),
            longest: took.last().copied().unwrap_or_default(),
            outage,
        }
    }

    /// The 99th percentile of requests that began in one of these times; none if there were none.
    pub fn p99_of(&self, times: &[(Instant, Instant)]) -> Option<Duration> {
        let samples = self.samples.lock().unwrap();
        let is_meant =
            |at: Instant| times.iter().any(|(from, until)| (*from..*until).contains(&at));
        let meant = samples.iter().filter(|sample| is_meant(sample.began));
        let mut took: Vec<Duration> = meant.map(|sample| sample.took).collect();
        took.sort_unstable();
        took.get(took.len() * 99 / 100).copied()
    }

    /// Keys that somebody has written, acknowledged or not: all but the plain ones.
    pub fn other_keys(&self) -> Vec<String> {
        let sets = (0..SHARED).map(|shared| format!("shared-{shared}"));
        sets.chain(self.registers.lock().unwrap().keys().cloned()).collect()
    }

    /// Notes how long a request took, from `began` on; returns whether it succeeded.
    pub fn sample<T>(
        &self,
        began: Instant,
        is_write: bool,
        answer: &ringdove::client::Result<T>,
    ) -> bool {
        let (took, is_done) = (began.elapsed(), answer.is_ok());
        self.samples.lock().unwrap().push(Sample { began, took, is_write, is_done });
        is_done
    }

    fn count<T>(&self, began: Instant, answer: &ringdove::client::Result<T>) -> bool {
        match Outcome::of(answer) {
            Outcome::Applied => 0,
            Outcome::NotApplied => self.refused.fetch_add(1, Ordering::Relaxed),
            Outcome::Unknown => self.unknown.fetch_add(1, Ordering::Relaxed),
        };
        self.sample(began, true, answer)
    }
}

/// Writers and readers at work.
pub struct Load {
    pub ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Writers alone.
    pub fn start(client: &Client) -> Self {
        Self::with_readers(client, 0)
    }

    /// Writers, and `readers` that look for what was acknowledged before: nothing may be absent or
    /// old, so they need a cluster in which what was written and what is read overlap.
    pub fn with_readers(client: &Client, readers: u64) -> Self {
        let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let bucket = client.bucket("default").unwrap();
        // No two loads write the same names.
        static LOADS: AtomicU64 = AtomicU64::new(0);
        let of = LOADS.fetch_add(1, Ordering::Relaxed);
        let writer = |number| {
            let (ledger, stop, bucket) = (ledger.clone(), stop.clone(), bucket.clone());
            tokio::spawn(async move { write((of, number), &bucket, &ledger, &stop).await })
        };
        let reader = |seed| {
            let (ledger, stop, bucket) = (ledger.clone(), stop.clone(), bucket.clone());
            tokio::spawn(async move { look(seed, &bucket, &ledger, &stop).await })
        };
        let tasks = (0..WRITERS).map(writer).chain((0..readers).map(reader)).collect();
        Self { ledger, stop, tasks }
    }

    pub async fn stop(self) -> Arc<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
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

async fn write((of, number): (u64, usize), bucket: &Bucket, ledger: &Ledger, stop: &AtomicBool) {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("writer-{of}-{number}-{round}");
        let began = Instant::now();
        if round % 10 == 0 {
            let shared = round / 10 % SHARED;
            let answer = add(bucket, shared, &name).await;
            if ledger.count(began, &answer) {
                ledger.added.lock().unwrap().insert((shared, name));
            }
        } else if round % 10 == 5 {
            let register = format!("register-{of}-{number}");
            let answer = bucket.put(&register, round.to_string()).observed().await;
            if ledger.count(began, &answer) {
                ledger.registers.lock().unwrap().insert(register, round as u64);
            }
        } else {
            let answer = bucket.put(&name, name.clone()).blind().await;
            if ledger.count(began, &answer) {
                ledger.written.lock().unwrap().push(name);
            }
        }
    }
}

/// Reads what was acknowledged.
async fn look(seed: u64, bucket: &Bucket, ledger: &Ledger, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let register = ledger.registers.lock().unwrap().clone().into_iter();
        let register = register.max_by_key(|_| random.next_u64()).filter(|_| random.chance(20));
        let written = {
            let written = ledger.written.lock().unwrap();
            written.get(random.below(written.len().max(1) as u64) as usize).cloned()
        };
        let (key, least) = match (register, written) {
            (Some((key, count)), _) => (key, Some(count)),
            (None, Some(key)) => (key, None),
            (None, None) => {
                tokio::task::yield_now().await;
                continue;
            }
        };
        let began = Instant::now();
        let answer = bucket.get(&key).await;
        ledger.sample(began, false, &answer);
        let Ok(read) = answer else { continue };
        let values: Vec<Vec<u8>> =
            read.values.as_slice().iter().map(|value| value.data.to_vec()).collect();
        match least {
            None => assert_eq!(values, [key.as_bytes()], "{key}"),
            Some(least) => assert!(newest(&values) >= Some(least), "{key}: {values:?} < {least}"),
        }
    }
}

/// The highest count in a register.
fn newest(values: &[Vec<u8>]) -> Option<u64> {
    values.iter().map(|value| std::str::from_utf8(value).unwrap().parse().unwrap()).max()
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
    let registers = ledger.registers.lock().unwrap().clone();
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
        for (register, least) in &registers {
            let values = read(node.clone(), register.clone(), r).await;
            assert!(newest(&values) >= Some(*least), "{register}: {values:?} < {least}");
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
