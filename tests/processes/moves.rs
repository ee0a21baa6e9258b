//! A join, a leave and a replacement, one after the other, while clients ask at a steady rate, of
//! every node and strictly: how fast data moves, and what clients notice of it.
//!
//! Requests are sent when they are due, whatever became of those before, so that a stall is seen by
//! all that come while it lasts. Each key has one writer at a time, which numbers its values. So for
//! each read it is known which number it must find at least, and for each number what the value is.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringdove::client::{Bucket, Client, Error};
use ringdove::membership::PlannedChange;
use ringdove::random::Random;
use tokio::task::{JoinHandle, JoinSet};

use crate::alone;
use crate::cluster::{Cluster, Node};
use crate::kill::from_environment;
use crate::load::{Figures, Ledger};
use crate::transfer::{stage, wait_until_clean, wait_until_moved_within};

const VALUE_BYTES: usize = 1024;
/// Requests under way at once where there is no rate: when keys are laid down, and checked.
const AT_ONCE: usize = 64;
/// Failures that are printed.
const SHOWN: usize = 5;
/// What one move may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How much longer clients may wait, at the 99th percentile, than before. A build for debugging
/// is busy with itself: there it says nothing.
const SLOWER: f64 = if cfg!(debug_assertions) { f64::INFINITY } else { 2.0 };
const CLEANUP: &str = "[transfers]\ncleanup_after_s = 2\n";
/// What the other tests set, and what a node has by itself.
const SMALL: &str = "partitions = 64\n";
const SMALL_STORAGE: &str = "cache_mb = 16\nmemtable_mb = 16\n";

/// What became of each key.
struct Book {
    keys: Vec<Entry>,
    /// What was read that should not have been.
    wrong: Mutex<Vec<String>>,
    /// How long requests took.
    ledger: Ledger,
    failures: AtomicUsize,
}

#[derive(Default)]
struct Entry {
    /// The highest number that was acknowledged, and that was sent.
    acknowledged: AtomicU64,
    sent: AtomicU64,
    is_written: AtomicBool,
}

/// The value of this number: not to be compressed, and like no other.
fn value(key: usize, number: u64) -> Vec<u8> {
    let mut random = Random::new((key as u64) << 24 ^ number);
    let mut value = number.to_le_bytes().to_vec();
    while value.len() < VALUE_BYTES {
        value.extend(random.next_u64().to_le_bytes());
    }
    value
}

fn number_of(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

impl Book {
    fn new(keys: u64) -> Arc<Self> {
        let keys = (0..keys).map(|_| Entry::default()).collect();
        Arc::new(Self {
            keys,
            wrong: Mutex::default(),
            ledger: Ledger::default(),
            failures: AtomicUsize::new(0),
        })
    }

    /// Prints the first few failures; all are counted.
    fn failed(&self, key: usize, error: &Error) {
        if self.failures.fetch_add(1, Ordering::Relaxed) < SHOWN {
            println!("key-{key}: {error}");
        }
    }

    /// Writes the key's next value, unless somebody else does.
    async fn write(&self, bucket: &Bucket, key: usize, is_first: bool) {
        let entry = &self.keys[key];
        if entry.is_written.swap(true, Ordering::AcqRel) {
            return;
        }
        let number = entry.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let put = bucket.put(format!("key-{key}"), value(key, number));
        let put = if is_first && number == 1 { put.blind() } else { put.observed() };
        let began = Instant::now();
        let answer = put.strict().await;
        if self.ledger.sample(began, true, &answer) {
            entry.acknowledged.store(number, Ordering::Release);
        } else if let Err(error) = answer {
            self.failed(key, &error);
        }
        entry.is_written.store(false, Ordering::Release);
    }

    async fn read(&self, bucket: &Bucket, key: usize) {
        let entry = &self.keys[key];
        let least = entry.acknowledged.load(Ordering::Acquire);
        let began = Instant::now();
        let answer = bucket.get(format!("key-{key}")).strict().await;
        self.ledger.sample(began, false, &answer);
        let read = match answer {
            Ok(read) => read,
            Err(error) => return self.failed(key, &error),
        };
        let values = read.values.as_slice();
        let newest = values.iter().map(|value| number_of(&value.data)).max().unwrap_or(0);
        let is_whole = values.iter().all(|read| value(key, number_of(&read.data)) == read.data);
        if newest < least || newest > entry.sent.load(Ordering::Acquire) || !is_whole {
            let wrong = format!("key-{key}: {newest} of {least}, whole: {is_whole}");
            self.wrong.lock().unwrap().push(wrong);
        }
    }

    /// Writes, or reads, all keys.
    async fn all(self: &Arc<Self>, bucket: &Bucket, is_write: bool) {
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (book, bucket, next) = (self.clone(), bucket.clone(), next.clone());
            workers.spawn(async move {
                loop {
                    let key = next.fetch_add(1, Ordering::Relaxed);
                    if key >= book.keys.len() {
                        return;
                    }
                    if !is_write {
                        book.read(&bucket, key).await;
                        continue;
                    }
                    // As fast as it goes is too fast at times.
                    while book.keys[key].acknowledged.load(Ordering::Acquire) == 0 {
                        book.write(&bucket, key, true).await;
                    }
                }
            });
        }
        workers.join_all().await;
        let wrong = self.wrong.lock().unwrap();
        assert!(
            wrong.is_empty(),
            "{} were wrong: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(9)]
        );
    }
}

/// Requests at a steady rate, as many reads as writes, of keys all over.
struct Steady {
    stop: Arc<AtomicBool>,
    pacer: JoinHandle<()>,
}

impl Steady {
    fn start(book: &Arc<Book>, bucket: &Bucket, rate: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (book, bucket, stopped) = (book.clone(), bucket.clone(), stop.clone());
        let pacer = tokio::spawn(async move {
            let (mut random, mut requests) = (Random::new(1), JoinSet::new());
            let (began, mut sent) = (Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) {
                let due = began.elapsed().as_micros() as u64 * rate / 1_000_000;
                for _ in sent..due {
                    let key = random.below(book.keys.len() as u64) as usize;
                    let (book, bucket, is_write) =
                        (book.clone(), bucket.clone(), random.chance(50));
                    requests.spawn(async move {
                        match is_write {
                            true => book.write(&bucket, key, false).await,
                            false => book.read(&bucket, key).await,
                        }
                    });
                }
                sent = due;
                while requests.try_join_next().is_some() {}
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            requests.join_all().await;
        });
        Self { stop, pacer }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.pacer.await.unwrap();
    }
}

/// One row of the table.
struct Phase {
    name: &'static str,
    began: Instant,
    bytes: u64,
    ticks: u64,
}

impl Phase {
    async fn begin(cluster: &Cluster, name: &'static str) -> Self {
        let (bytes, ticks) = (taken(cluster).await, ticks(cluster));
        Self { name, began: Instant::now(), bytes, ticks }
    }

    async fn end(self, cluster: &Cluster, book: &Book) -> Figures {
        let (now, took) = (Instant::now(), self.began.elapsed().as_secs_f64());
        let figures = book.ledger.figures(self.began, now);
        let moved = (taken(cluster).await - self.bytes) as f64 / f64::from(1 << 20);
        // A tick is a hundredth of a second.
        let busy = ticks(cluster).saturating_sub(self.ticks) as f64 / took;
        println!(
            "{:16}  {took:6.1}  {moved:6.0}  {:5.1}  {:10.0}  {:6}  {:6.1}  {:10.0}  {busy:5.0}  {}",
            self.name,
            moved / took,
            figures.count as f64 / took,
            figures.failed,
            figures.p99.as_secs_f64() * 1e3,
            figures.longest.as_secs_f64() * 1e3,
            fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap(),
        );
        figures
    }
}

/// Bytes that the nodes that run have taken.
async fn taken(cluster: &Cluster) -> u64 {
    let mut bytes = 0;
    for node in cluster.nodes.iter().filter(|node| node.has_started()) {
        bytes += node.counter("transfer_bytes_taken").await;
    }
    bytes
}

/// Processor time of the nodes that run, and of this process.
fn ticks(cluster: &Cluster) -> u64 {
    let started = cluster.nodes.iter().filter(|node| node.has_started());
    let pids = started.map(Node::pid).chain([std::process::id()]);
    let of = |pid: u32| -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|time| time.parse::<u64>().unwrap()).sum()
    };
    pids.map(of).sum()
}

/// Waits until compactions are done, as far as processor time tells: they would count as the time
/// before.
async fn wait_until_idle(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = ticks(cluster);
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Of two hundred hundredths of a second.
        if ticks(cluster) - before <= 10 {
            return;
        }
        assert!(Instant::now() < deadline, "the nodes do not come to rest");
    }
}

/// Three nodes and two that are not members yet, as large as nodes are by themselves if there is
/// much to be stored.
fn prepare(keys: u64) -> Cluster {
    let mut cluster = Cluster::prepare(3, CLEANUP);
    cluster.prepare_newcomer(CLEANUP);
    cluster.prepare_newcomer(CLEANUP);
    if keys >= 100_000 {
        for node in &cluster.nodes {
            node.configure(SMALL, "");
            node.configure(SMALL_STORAGE, "");
        }
    }
    for index in 0..3 {
        cluster.nodes[index].start();
    }
    for index in 0..3 {
        cluster.wait_ready(index);
    }
    cluster
}

/// Everything that changes, one after the other; returns the figures of each phase, of which the
/// first is of the time before.
async fn phases(
    cluster: &mut Cluster,
    client: &Client,
    book: &Book,
) -> Vec<(&'static str, Figures)> {
    let rest = Duration::from_secs(from_environment("RINGDOVE_SECONDS", 2));
    println!(
        "phase             seconds   MiB  MiB/s  requests/s  failed  p99 ms  longest ms  CPU %  load"
    );
    let mut rows = Vec::new();
    let phase = Phase::begin(cluster, "before").await;
    tokio::time::sleep(rest).await;
    rows.push((phase.name, phase.end(cluster, book).await));

    let phase = Phase::begin(cluster, "join").await;
    stage(client, "node-3", PlannedChange::Join).await;
    client.commit_plan(None).await.unwrap();
    wait_until_moved_within(cluster, PATIENCE).await;
    rows.push((phase.name, phase.end(cluster, book).await));
    let phase = Phase::begin(cluster, "cleaning up").await;
    tokio::time::sleep(rest).await;
    rows.push((phase.name, phase.end(cluster, book).await));

    let phase = Phase::begin(cluster, "leave").await;
    stage(client, "node-0", PlannedChange::Leave).await;
    client.commit_plan(None).await.unwrap();
    wait_until_moved_within(cluster, PATIENCE).await;
    cluster.wait_log(0, "left: safe to stop").await;
    rows.push((phase.name, phase.end(cluster, book).await));
    assert!(cluster.nodes[0].terminate().0.success());

    let phase = Phase::begin(cluster, "between").await;
    cluster.nodes[4].start();
    cluster.wait_log(4, "known as a candidate").await;
    tokio::time::sleep(rest).await;
    rows.push((phase.name, phase.end(cluster, book).await));

    cluster.nodes[1].kill();
    let phase = Phase::begin(cluster, "one was killed").await;
    tokio::time::sleep(rest).await;
    rows.push((phase.name, phase.end(cluster, book).await));
    let phase = Phase::begin(cluster, "replace").await;
    let dead = client.refresh().await.unwrap().state().find("node-1").unwrap();
    stage(client, "node-4", PlannedChange::Replace { dead }).await;
    client.commit_plan(None).await.unwrap();
    wait_until_moved_within(cluster, PATIENCE).await;
    rows.push((phase.name, phase.end(cluster, book).await));
    rows
}

/// `RINGDOVE_KEYS`, `RINGDOVE_RATE` (requests a second) and `RINGDOVE_SECONDS` (for each phase in
/// which nothing moves) say how much (`./scripts/dev move`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_change_under_a_steady_load_and_clients_find_everything_and_hardly_wait() {
    let _alone = alone().await;
    let keys = from_environment("RINGDOVE_KEYS", 2_000);
    let rate = from_environment("RINGDOVE_RATE", 100);
    let mut cluster = prepare(keys);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    let book = Book::new(keys);
    let began = Instant::now();
    book.all(&bucket, true).await;
    let laid = began.elapsed();
    cluster.nodes[3].start();
    cluster.wait_log(3, "known as a candidate").await;
    wait_until_idle(&cluster).await;
    println!("{keys} keys of {VALUE_BYTES} bytes in {laid:.1?}, then {rate} requests a second");

    let steady = Steady::start(&book, &bucket, rate);
    let rows = phases(&mut cluster, &client, &book).await;
    steady.stop().await;
    let began = Instant::now();
    book.all(&bucket, false).await;
    println!("all {keys} keys read back in {:.1?}", began.elapsed());
    wait_until_clean(&mut cluster, 3 * keys).await;

    let before = rows[0].1.p99.as_secs_f64();
    for (name, figures) in &rows {
        let slower = figures.p99.as_secs_f64() / before;
        println!("{name}: p99 {slower:.1} times that before");
        assert_eq!(figures.failed, 0, "{name}: {figures:?}");
    }
    for (name, figures) in
        rows.iter().filter(|(name, _)| ["join", "leave", "replace"].contains(name))
    {
        assert!(figures.p99.as_secs_f64() < before * SLOWER, "{name}: {figures:?}");
    }
}
