//! What a commit and a read cost, and what the commit journal's own sync adds.
//!
//! `cargo bench --bench store`. The paired table comes first: the same commits through Ringdove's
//! store and through RocksDB alone, in turn, so that a busy machine is busy for both. Set
//! `TMPDIR` to a directory on the disk that is meant: a file system in memory syncs for nothing.
//!
//! `cargo bench --bench store -- trees` prints, paired in the same way, what the digests and trees of
//! anti-entropy cost a write.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group};
use ringdove::ids::Partition;
use ringdove::key::Key;
use ringdove::random::Random;
use ringdove::server::disk::Disk;
use ringdove::server::journal::Journal;
use ringdove::server::rocks::{Durability, RocksOptions};
use ringdove::store::{Batch, Change, Imprint, Store, StoredKey};
use rocksdb::{DB, Options, WriteBatch};

const SIZES: [usize; 3] = [1, 16, 64];
const VALUE_BYTES: usize = 128;

fn key(n: u64) -> StoredKey {
    StoredKey::new(Partition((n % 1024) as u16), &Key::new(b"bench", &n.to_be_bytes()).unwrap())
}

fn batch(random: &mut Random, changes: usize) -> Batch {
    let mut one = || {
        let after = Imprint { digest: random.next_u128(), bytes: 1, ..Imprint::NONE };
        let record = Bytes::from(vec![random.next_u64() as u8; VALUE_BYTES]);
        Change::fresh(key(random.below(100_000)), Some(record), after)
    };
    Batch::of((0..changes).map(|_| one()).collect())
}

fn disk(directory: &Path, durability: Durability) -> Disk {
    let options = RocksOptions { durability, reserve_bytes: 0, ..RocksOptions::default() };
    Disk::open(directory, &options).unwrap()
}

/// The least that a durable commit can cost with this database: its log and no journal.
struct Alone(DB);

impl Alone {
    fn open(directory: &Path) -> Self {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_track_and_verify_wals(true);
        options.set_track_and_verify_wals_in_manifest(true);
        Self(DB::open(&options, directory).unwrap())
    }

    fn commit(&self, batch: &Batch) {
        let mut writes = WriteBatch::default();
        for change in &batch.changes {
            writes.put(change.key.as_bytes(), change.record.as_deref().unwrap_or_default());
            writes.put(change.key.as_bytes(), change.after.encode());
        }
        writes.put(b"commit", [0; 8]);
        self.0.write(&writes).unwrap();
        self.0.flush_wal(true).unwrap();
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let since = Instant::now();
    work();
    since.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Prints commits a second with the journal, without it, and the time of the journal alone.
fn journal_cost() {
    let directory = tempfile::tempdir().unwrap();
    let ours = disk(&directory.path().join("ours"), Durability::Fsync);
    let alone = Alone::open(&directory.path().join("alone"));
    let mut journal = Journal::create(directory.path(), 0).unwrap();
    let mut random = Random::new(1);
    println!("| changes | commit | RocksDB alone | journal alone | commits/s with | without |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for changes in SIZES {
        let (mut with, mut without, mut entry) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..1000 {
            let batch = batch(&mut random, changes);
            without.push(timed(|| alone.commit(&batch)));
            with.push(timed(|| ours.store.commit(std::slice::from_ref(&batch)).unwrap()));
            entry.push(timed(|| {
                journal.enter(journal.last() + 1).unwrap();
                journal.sync().unwrap();
            }));
        }
        let (with, without, entry) = (median(with), median(without), median(entry));
        let rate = |time: Duration| 1.0 / time.as_secs_f64();
        println!(
            "| {changes} | {with:.0?} | {without:.0?} | {entry:.0?} | {:.0} | {:.0} |",
            rate(with),
            rate(without)
        );
    }
}

/// Prints what digests and trees cost a write: commits of two stores that differ in nothing else, in
/// turn, over keys that exist, flushes and compactions included.
fn trees_cost() {
    const KEYS: u64 = 100_000;
    const BLOCKS: usize = 41;
    let value = Bytes::from(vec![7; 1024]);
    println!(
        "| changes of 1 KiB | durability | writes/s without | with trees | cost | half of all |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, durability) in [("fsync", Durability::Fsync), ("none", Durability::None)] {
        for (changes, commits) in [(1, 200), (16, 50), (64, 25)] {
            let directory = tempfile::tempdir().unwrap();
            let open = |name: &str, trees| {
                let options =
                    RocksOptions { durability, reserve_bytes: 0, trees, ..RocksOptions::default() };
                Disk::open(&directory.path().join(name), &options).unwrap()
            };
            let (without, with) = (open("without", false), open("with", true));
            let mut random = Random::new(7);
            let mut change = |n: u64| {
                let after = Imprint { digest: random.next_u128(), bytes: 1024, ..Imprint::NONE };
                Change::fresh(key(n), Some(value.clone()), after)
            };
            for first in (0..KEYS).step_by(1000) {
                let batch = Batch::of((first..first + 1000).map(&mut change).collect());
                for disk in [&without, &with] {
                    disk.store.commit(std::slice::from_ref(&batch)).unwrap();
                }
            }
            let mut keys = Random::new(8);
            let (mut slow, mut fast, mut ratios) = (0.0, 0.0, Vec::new());
            for block in 0..BLOCKS {
                let batches: Vec<_> = (0..commits)
                    .map(|_| Batch::of((0..changes).map(|_| change(keys.below(KEYS))).collect()))
                    .collect();
                let run = |disk: &Disk| {
                    timed(|| {
                        for batch in &batches {
                            disk.store.commit(std::slice::from_ref(batch)).unwrap();
                        }
                    })
                    .as_secs_f64()
                };
                // Who comes first takes turns, too.
                let (off, on) = if block % 2 == 0 {
                    let off = run(&without);
                    (off, run(&with))
                } else {
                    let on = run(&with);
                    (run(&without), on)
                };
                (fast, slow) = (fast + off, slow + on);
                ratios.push(on / off - 1.0);
            }
            ratios.sort_by(f64::total_cmp);
            let writes = (BLOCKS * commits * changes) as f64;
            println!(
                "| {changes} | {name} | {:.0} | {:.0} | {:+.1} % | {:+.1} to {:+.1} % |",
                writes / fast,
                writes / slow,
                100.0 * (slow / fast - 1.0),
                100.0 * ratios[BLOCKS / 4],
                100.0 * ratios[3 * BLOCKS / 4],
            );
        }
    }
}

fn commits(criterion: &mut Criterion) {
    for (name, durability) in [("fsync", Durability::Fsync), ("none", Durability::None)] {
        let directory = tempfile::tempdir().unwrap();
        let disk = disk(directory.path(), durability);
        let mut random = Random::new(2);
        let mut group = criterion.benchmark_group(format!("commit/{name}"));
        for changes in SIZES {
            group.throughput(Throughput::Elements(changes as u64));
            group.bench_function(changes.to_string(), |bencher| {
                bencher.iter(|| disk.store.commit(&[batch(&mut random, changes)]).unwrap());
            });
        }
    }
}

fn reads(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let disk = disk(directory.path(), Durability::None);
    let record = Bytes::from(vec![7; VALUE_BYTES]);
    let after = Imprint { digest: 1, ..Imprint::NONE };
    let all = (0..100_000).map(|n| Change::fresh(key(n), Some(record.clone()), after));
    disk.store.commit(&[Batch::of(all.collect())]).unwrap();
    let mut random = Random::new(3);
    let mut group = criterion.benchmark_group("read");
    group.bench_function("memtable", |bencher| {
        bencher.iter(|| black_box(disk.store.read_cached(&key(random.below(100_000))).unwrap()));
    });
    disk.close().unwrap();
    disk.store.page(Partition(0), None, 1).unwrap();
    for n in 0..100_000 {
        disk.store.read(&key(n)).unwrap();
    }
    group.bench_function("block cache", |bencher| {
        bencher.iter(|| black_box(disk.store.read_cached(&key(random.below(100_000))).unwrap()));
    });
    group.bench_function("absent", |bencher| {
        bencher.iter(|| {
            black_box(disk.store.read_cached(&key(200_000 + random.below(100_000))).unwrap())
        });
    });
}

criterion_group!(store, commits, reads);

fn main() {
    let has = |word: &str| std::env::args().any(|argument| argument == word);
    if has("trees") {
        trees_cost();
        return;
    }
    if !has("--test") {
        journal_cost();
    }
    store();
    Criterion::default().configure_from_args().final_summary();
}
