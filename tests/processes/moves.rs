//! A join, a leave and a replacement, one after the other, while clients ask at a steady rate, of
//! every node and strictly: how fast data moves, and what clients notice of it.

use std::time::{Duration, Instant};
use std::{env, fs};

use ringdove::client::Client;
use ringdove::membership::PlannedChange;

use crate::alone;
use crate::book::{Book, Steady, VALUE_BYTES};
use crate::cluster::{Cluster, Node};
use crate::kill::from_environment;
use crate::load::Figures;
use crate::machine::{Lost, Machine};
use crate::transfer::{stage, wait_until_clean, wait_until_moved_within};

/// What one move may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How much longer clients may wait, at the 99th percentile, than before. A build for debugging
/// is busy with itself: there it says nothing.
pub const SLOWER: f64 = if cfg!(debug_assertions) { f64::INFINITY } else { 2.0 };
const CLEANUP: &str = "[transfers]\ncleanup_after_s = 2\n";
/// What the other tests set.
const SMALL: &str = "partitions = 64\n";
const SMALL_STORAGE: &str = "cache_mb = 16\nmemtable_mb = 16\n";
/// For nodes that share a disk and two cores: what one merges, the others feel.
const SHARED_STORAGE: &str = "compaction_mb_s = 32\n";

/// A time of which the table has a row.
struct Phase {
    name: &'static str,
    began: Instant,
    bytes: u64,
    ticks: u64,
}

/// One that is over.
struct Ended {
    name: &'static str,
    from: Instant,
    until: Instant,
    /// MiB that the nodes took.
    moved: f64,
    /// Of one processor, in percent.
    busy: f64,
}

/// What came of it.
struct Row {
    name: &'static str,
    figures: Figures,
    /// The 99th percentile of the spans in which nothing outside of the nodes got in the way, if there
    /// were any.
    quiet: Option<Duration>,
}

/// How many times one percentile is another.
pub fn ratio(one: Option<Duration>, other: Option<Duration>) -> String {
    match (one, other) {
        (Some(one), Some(other)) => format!("{:.1} times", one.as_secs_f64() / other.as_secs_f64()),
        _ => "not known".to_owned(),
    }
}

impl Phase {
    async fn begin(cluster: &Cluster, name: &'static str) -> Self {
        let (bytes, ticks) = (taken(cluster).await, ticks(cluster));
        Self { name, began: Instant::now(), bytes, ticks }
    }

    async fn end(self, cluster: &Cluster) -> Ended {
        let Self { name, began: from, .. } = self;
        let until = Instant::now();
        let took = (until - from).as_secs_f64();
        let moved = (taken(cluster).await - self.bytes) as f64 / f64::from(1 << 20);
        println!("{name}: {took:.1} s");
        // A tick is a hundredth of a second.
        let busy = ticks(cluster).saturating_sub(self.ticks) as f64 / took;
        Ended { name, from, until, moved, busy }
    }
}

impl Ended {
    /// Shows how it went. Not while requests are under way: they would wait until a million of them
    /// are in order.
    fn row(self, machine: &Machine, book: &Book) -> Row {
        let Self { name, from, until, moved, busy } = self;
        let took = (until - from).as_secs_f64();
        let figures = book.figures(from, until);
        let Lost { stolen, still } = machine.lost(from, until);
        let (spans, part) = machine.undisturbed(from, until);
        let quiet = book.p99_of(&spans);
        let shown =
            quiet.map_or_else(|| "-".to_owned(), |p99| format!("{:.1}", p99.as_secs_f64() * 1e3));
        println!(
            "{name:16}  {took:6.1}  {moved:6.0}  {:5.1}  {:6}  {:6.1}  {:6.1}  {busy:5.0}  {stolen:8.1}  {still:7.1}  {shown:>9}  {part:7.0}",
            moved / took,
            figures.failed,
            figures.p99.as_secs_f64() * 1e3,
            figures.longest.as_secs_f64() * 1e3,
        );
        Row { name, figures, quiet }
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
pub async fn wait_until_idle(cluster: &Cluster) {
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

/// Makes the nodes as large as nodes are by themselves if there is much to be stored.
/// `RINGDOVE_STORAGE` replaces what else is set then, for experiments: `compaction_mb_s = 0`.
pub fn size(cluster: &Cluster, keys: u64) {
    let storage = env::var("RINGDOVE_STORAGE").unwrap_or_else(|_| SHARED_STORAGE.to_owned());
    for node in cluster.nodes.iter().filter(|_| keys >= 100_000) {
        node.configure(SMALL, "");
        node.configure(SMALL_STORAGE, &(storage.trim_end().to_owned() + "\n"));
    }
}

/// Three nodes and two that are not members yet.
fn prepare(keys: u64) -> Cluster {
    // More settings of transfers, for experiments: `rate_mb_s = 16`.
    let settings = CLEANUP.to_owned() + &env::var("RINGDOVE_TRANSFERS").unwrap_or_default() + "\n";
    let mut cluster = Cluster::prepare(3, &settings);
    cluster.prepare_newcomer(&settings);
    cluster.prepare_newcomer(&settings);
    size(&cluster, keys);
    for index in 0..3 {
        cluster.nodes[index].start();
    }
    for index in 0..3 {
        cluster.wait_ready(index);
    }
    cluster
}

/// Everything that changes, one after the other; returns all phases, of which the first is the time
/// before.
async fn phases(cluster: &mut Cluster, client: &Client, rest: Duration) -> Vec<Ended> {
    let before = Duration::from_secs(from_environment("RINGDOVE_BEFORE", rest.as_secs()));
    let mut phases = Vec::new();
    let phase = Phase::begin(cluster, "before").await;
    tokio::time::sleep(before).await;
    phases.push(phase.end(cluster).await);

    let phase = Phase::begin(cluster, "join").await;
    stage(client, "node-3", PlannedChange::Join).await;
    client.commit_plan(None).await.unwrap();
    wait_until_moved_within(cluster, PATIENCE).await;
    phases.push(phase.end(cluster).await);
    let phase = Phase::begin(cluster, "cleaning up").await;
    tokio::time::sleep(rest).await;
    phases.push(phase.end(cluster).await);

    let phase = Phase::begin(cluster, "leave").await;
    stage(client, "node-0", PlannedChange::Leave).await;
    client.commit_plan(None).await.unwrap();
    wait_until_moved_within(cluster, PATIENCE).await;
    cluster.wait_log(0, "left: safe to stop").await;
    phases.push(phase.end(cluster).await);
    assert!(cluster.nodes[0].terminate().0.success());

    let phase = Phase::begin(cluster, "between").await;
    cluster.nodes[4].start();
    cluster.wait_log(4, "known as a candidate").await;
    tokio::time::sleep(rest).await;
    phases.push(phase.end(cluster).await);

    cluster.nodes[1].kill();
    let phase = Phase::begin(cluster, "one was killed").await;
    tokio::time::sleep(rest).await;
    phases.push(phase.end(cluster).await);
    let phase = Phase::begin(cluster, "replace").await;
    let dead = client.refresh().await.unwrap().state().find("node-1").unwrap();
    stage(client, "node-4", PlannedChange::Replace { dead }).await;
    client.commit_plan(None).await.unwrap();
    wait_until_moved_within(cluster, PATIENCE).await;
    phases.push(phase.end(cluster).await);
    phases
}

/// The table of all phases.
fn table(phases: Vec<Ended>, rest: Duration, machine: &Machine, book: &Book) -> Vec<Row> {
    println!(
        "phase            seconds     MiB  MiB/s  failed  p99 ms  longest  CPU %  stolen %  still %  quiet p99  quiet %"
    );
    let (from, until) = (phases[0].from, phases[0].until);
    let rows = phases.into_iter().map(|phase| phase.row(machine, book)).collect();
    let windows = (0..).map(|n| from + n * rest).take_while(|at| *at + rest <= until);
    let by_window = windows.map(|at| book.figures(at, at + rest).p99.as_secs_f64() * 1e3);
    let by_window: Vec<String> = by_window.map(|p99| format!("{p99:.1}")).collect();
    println!("p99 of each {rest:?} before: {} ms", by_window.join(", "));
    rows
}

/// `RINGDOVE_KEYS`, `RINGDOVE_RATE` (requests a second) and `RINGDOVE_SECONDS` (for each phase in
/// which nothing moves) say how much (`./scripts/dev move`); `RINGDOVE_BEFORE` how long the first of
/// these is instead, long enough for files to be merged in it, as they are at any time. The table
/// says beside it how it was in the spans in which nothing outside of the nodes got in the way: *quiet*.
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
    book.write_all(&bucket, 0..keys as usize).await;
    let laid = began.elapsed();
    cluster.nodes[3].start();
    cluster.wait_log(3, "known as a candidate").await;
    wait_until_idle(&cluster).await;
    println!("{keys} keys of {VALUE_BYTES} bytes in {laid:.1?}, then {rate} requests a second");

    let rest = Duration::from_secs(from_environment("RINGDOVE_SECONDS", 2));
    let machine = Machine::watch();
    let steady = Steady::start(&book, &bucket, rate);
    let phases = phases(&mut cluster, &client, rest).await;
    steady.stop().await;
    let rows = table(phases, rest, &machine, &book);
    let began = Instant::now();
    book.check_all(&bucket).await;
    println!("all {keys} keys read back in {:.1?}", began.elapsed());
    wait_until_clean(&mut cluster, 3 * keys).await;

    let before = rows[0].figures.p99.as_secs_f64();
    for Row { name, figures, quiet } in &rows {
        let (slower, quiet) = (figures.p99.as_secs_f64() / before, ratio(*quiet, rows[0].quiet));
        println!("{name}: p99 {slower:.1} times that before, {quiet} in quiet spans");
        assert_eq!(figures.failed, 0, "{name}: {figures:?}");
    }
    let moves = rows.iter().filter(|row| ["join", "leave", "replace"].contains(&row.name));
    for Row { name, figures, .. } in moves {
        assert!(figures.p99.as_secs_f64() < before * SLOWER, "{name}: {figures:?}");
    }
}
