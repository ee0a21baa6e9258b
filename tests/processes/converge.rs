//! A node was away for a tenth of the writes and nobody kept anything for it: it becomes equal by
//! itself while clients go on, and they hardly notice.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::alone;
use crate::book::{Book, Steady, VALUE_BYTES};
use crate::cluster::Cluster;
use crate::kill::from_environment;
use crate::machine::{Lost, Machine};
use crate::moves::{SLOWER, ratio, size, wait_until_idle};

/// Nothing is kept for anybody.
const NO_HINTS: &str = "[hints]\nmb = 0\nmb_by_member = 0\n[sync]\n";

fn prepare(keys: u64) -> Cluster {
    // More settings of anti-entropy, for experiments: `rate_mb_s = 16`.
    let more = std::env::var("RINGDOVE_SYNC").unwrap_or_default();
    let mut cluster = Cluster::prepare(3, &format!("{NO_HINTS}{more}\n"));
    size(&cluster, keys);
    for index in 0..3 {
        cluster.nodes[index].start();
    }
    for index in 0..3 {
        cluster.wait_ready(index);
    }
    cluster
}

/// Waits until everything that was acknowledged until now is on all its owners.
async fn wait_synced(cluster: &Cluster) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    command.args(["wait", "--synced", "--timeout", "1800s", "--addr", &cluster.nodes[0].frames]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

async fn moved(cluster: &Cluster) -> (u64, u64) {
    let (mut keys, mut bytes) = (0, 0);
    for node in cluster.nodes.iter().filter(|node| node.has_started()) {
        keys += node.counter("sync_repaired").await;
        bytes += node.counter("sync_bytes").await;
    }
    (keys, bytes)
}

/// The 99th percentile of the spans of a time in which nothing outside of the nodes got in the way, if
/// there were any. Says what the machine did.
fn in_quiet_spans(
    book: &Book,
    machine: &Machine,
    when: &str,
    (from, until): (Instant, Instant),
) -> Option<Duration> {
    let Lost { stolen, still } = machine.lost(from, until);
    let (spans, part) = machine.undisturbed(from, until);
    let p99 = book.p99_of(&spans);
    println!(
        "{when}: others had {stolen:.1} % of the processors, the disk stood still for {still:.1} % of the \
         time; p99 of the {part:.0} % without either: {p99:.1?}"
    );
    p99
}

/// `RINGDOVE_KEYS`, `RINGDOVE_RATE` (requests a second, which go on all the time) and
/// `RINGDOVE_SECONDS` (of quiet) say how much (`./scripts/dev converge`); `RINGDOVE_BEFORE` how long
/// the first quiet is instead, long enough for files to be merged in it, as they are at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_a_tenth_of_the_writes_is_equal_soon_and_clients_hardly_notice() {
    let _alone = alone().await;
    let keys = from_environment("RINGDOVE_KEYS", 2_000);
    let rate = from_environment("RINGDOVE_RATE", 100);
    let rest = Duration::from_secs(from_environment("RINGDOVE_SECONDS", 2));
    let before = Duration::from_secs(from_environment("RINGDOVE_BEFORE", rest.as_secs()));
    let mut cluster = prepare(keys);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    let book = Book::new(keys);
    let missed = keys as usize / 10;
    let first = keys as usize - missed;
    book.write_all(&bucket, 0..first).await;
    wait_until_idle(&cluster).await;
    let machine = Machine::watch();
    let steady = Steady::start(&book, &bucket, rate);
    let began = Instant::now();
    tokio::time::sleep(before).await;
    let ended = Instant::now();
    let quiet = book.figures(began, ended);
    let quiet_before = in_quiet_spans(&book, &machine, "before", (began, ended));
    steady.stop().await;
    cluster.nodes[2].kill();
    book.write_all(&bucket, first..keys as usize).await;
    wait_until_idle(&cluster).await;

    let steady = Steady::start(&book, &bucket, rate);
    let began = Instant::now();
    tokio::time::sleep(rest).await;
    let without = book.figures(began, Instant::now());
    cluster.nodes[2].start();
    cluster.wait_ready(2);
    let (keys_before, bytes_before) = moved(&cluster).await;
    let began = Instant::now();
    wait_synced(&cluster).await;
    let (ended, took) = (Instant::now(), began.elapsed().as_secs_f64());
    let during = book.figures(began, ended);
    let quiet_during = in_quiet_spans(&book, &machine, "meanwhile", (began, ended));
    let (keys_after, bytes_after) = moved(&cluster).await;
    let began = Instant::now();
    tokio::time::sleep(rest).await;
    let after = book.figures(began, Instant::now());
    steady.stop().await;
    let mib = (missed * VALUE_BYTES) as f64 / f64::from(1 << 20);
    println!(
        "{keys} keys of {VALUE_BYTES} bytes, {rate} requests a second; {missed} keys ({mib:.0} MiB) and what \
         changed meanwhile: equal after {took:.1} s, {:.1} MiB/s; {} keys repaired, {:.0} MiB moved",
        mib / took,
        keys_after - keys_before,
        (bytes_after - bytes_before) as f64 / f64::from(1 << 20),
    );
    println!("clients, before:               {quiet:.1?}");
    println!("clients, two of three nodes:   {without:.1?}");
    println!("clients, while one catches up: {during:.1?}");
    println!("clients, afterwards:           {after:.1?}");
    let slower = during.p99.as_secs_f64() / quiet.p99.as_secs_f64();
    let in_spans = ratio(quiet_during, quiet_before);
    println!("p99 {slower:.1} times that before, {in_spans} in quiet spans");
    assert_eq!([&quiet, &without, &during, &after].map(|figures| figures.failed), [0; 4]);
    let began = Instant::now();
    wait_synced(&cluster).await;
    println!("equal again {:.1?} after the last request", began.elapsed());
    cluster.equal_digests().await;
    book.check_all(&bucket).await;
    // Last: a run that was too slow has still shown whether anything is lost.
    assert!(slower < SLOWER, "{slower:.1} times");
}
