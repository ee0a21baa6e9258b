//! What a node says after its disk or its process was treated badly. Each test breaks a real data
//! directory and opens it again; none may find a write missing that the verdict does not speak of.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringdove::ids::Partition;
use ringdove::key::Key;
use ringdove::random::Random;
use ringdove::server::disk::{Disk, OpenError, Verdict};
use ringdove::server::mark::Mark;
use ringdove::server::rocks::{Durability, RocksOptions};
use ringdove::store::{Batch, Cached, Change, Imprint, Store, StoreError, StoredKey};

const CHILD: &str = "RINGDOVE_TEST_CHILD";

fn options() -> RocksOptions {
    RocksOptions {
        reserve_bytes: 0,
        memtable_bytes: 16 << 20,
        cache_bytes: 8 << 20,
        ..RocksOptions::default()
    }
}

fn key(n: u64) -> StoredKey {
    StoredKey::new(Partition((n % 7) as u16), &Key::new(b"b", &n.to_be_bytes()).unwrap())
}

fn record(n: u64) -> Bytes {
    let mut random = Random::new(n);
    let bytes = 20 + random.below(500);
    (0..bytes).map(|_| random.next_u64() as u8).collect()
}

fn commit(store: &dyn Store, n: u64) -> Result<(), StoreError> {
    let after = Imprint { digest: u128::from(n), ..Imprint::NONE };
    let change = Change::fresh(key(n), Some(record(n)), after);
    store.commit(&[Batch::of(vec![change])])
}

fn open(directory: &Path) -> Disk {
    open_with(directory, &options())
}

/// Opens a directory that this process has just let go of. Another test may be starting a process
/// right now: between fork and exec the child holds all locks of this one.
fn open_with(directory: &Path, options: &RocksOptions) -> Disk {
    let since = Instant::now();
    loop {
        match Disk::open(directory, options) {
            Err(OpenError::InUse(_)) if since.elapsed() < Duration::from_secs(10) => {
                thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// How many of the first `count` are there; whatever is there must be right.
fn kept(store: &dyn Store, count: u64) -> u64 {
    let found = (0..count).filter(|n| match store.read(&key(*n)).unwrap() {
        Some(found) => {
            assert_eq!(found, record(*n), "record {n}");
            true
        }
        None => false,
    });
    found.count() as u64
}

/// Leaves a directory with at least `count` commits whose process was killed: nothing is flushed,
/// nothing closed. Returns how many were acknowledged.
fn left_by_a_crash(directory: &Path, count: u64) -> u64 {
    let acknowledged = run_child(directory, Durability::Fsync, |n| n >= count);
    assert!(acknowledged >= count);
    acknowledged
}

/// Runs a process that commits until `enough` of its acknowledgements have arrived, and kills it.
/// Returns how many it acknowledged.
fn run_child(directory: &Path, durability: Durability, enough: impl Fn(u64) -> bool) -> u64 {
    let mode = if durability == Durability::Fsync { "fsync" } else { "none" };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_child_commits_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory)
        .env("RINGDOVE_TEST_DURABILITY", mode)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = 0;
    for line in lines {
        // What was printed before the kill was acknowledged, even if it is read after it.
        let Ok(line) = line else { break };
        if let Some(n) = line.strip_prefix("acknowledged ") {
            acknowledged = n.parse::<u64>().unwrap() + 1;
            if enough(acknowledged) {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    acknowledged
}

/// Not a test of its own: the body of the processes that others kill.
#[test]
fn a_child_commits_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD) else { return };
    let weak = std::env::var("RINGDOVE_TEST_DURABILITY").unwrap() == "none";
    let durability = if weak { Durability::None } else { Durability::Fsync };
    let disk = open_with(Path::new(&directory), &RocksOptions { durability, ..options() });
    let first = (0..).find(|n| disk.store.read(&key(*n)).unwrap().is_none()).unwrap();
    for n in first.. {
        commit(&*disk.store, n).unwrap();
        println!("acknowledged {n}");
    }
}

/// The log that was being written to.
fn live_log(directory: &Path) -> PathBuf {
    let entries = fs::read_dir(directory.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| path.extension().is_some_and(|e| e == "log"));
    logs.max().expect("there is a log")
}

fn amnesiac(disk: &Disk) -> &str {
    match &disk.verdict {
        Verdict::Amnesiac { why } => why,
        complete => panic!("{complete:?}"),
    }
}

#[test]
fn an_orderly_stop_keeps_the_incarnation_and_every_record() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    assert_eq!(disk.verdict, Verdict::Complete { clean: true });
    let first = disk.mark.state();
    for n in 0..50 {
        commit(&*disk.store, n).unwrap();
    }
    let digest = disk.store.digest().unwrap();
    disk.close().unwrap();
    assert!(matches!(commit(&*disk.store, 50), Err(StoreError::Fatal(_))));
    drop(disk);
    let disk = open(directory.path());
    assert_eq!(disk.verdict, Verdict::Complete { clean: true });
    let second = disk.mark.state();
    assert_eq!((second.member, second.incarnation), (first.member, first.incarnation));
    assert_eq!((kept(&*disk.store, 60), disk.store.digest().unwrap()), (50, digest));
}

#[test]
fn a_start_after_a_crash_is_complete_and_of_a_new_incarnation() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    let first = disk.mark.state();
    for n in 0..50 {
        commit(&*disk.store, n).unwrap();
    }
    drop(disk);
    let disk = open(directory.path());
    assert_eq!(disk.verdict, Verdict::Complete { clean: false });
    assert_eq!(kept(&*disk.store, 50), 50);
    assert_eq!(disk.mark.state().member, first.member);
    assert_ne!(disk.mark.state().incarnation, first.incarnation);
}

#[test]
fn a_directory_in_use_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let _disk = open(directory.path());
    let refused = Disk::open(directory.path(), &options()).err().unwrap();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
    assert!(refused.to_string().contains("in use by another"), "{refused}");
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_in_the_middle_of_commits() {
    for durability in [Durability::Fsync, Durability::None] {
        let directory = tempfile::tempdir().unwrap();
        let mut random = Random::new(7);
        let mut incarnations = BTreeMap::new();
        let mut acknowledged = 0;
        for round in 0..10 {
            let until = acknowledged + 1 + random.below(120);
            acknowledged = run_child(directory.path(), durability, |n| n >= until);
            let disk = open(directory.path());
            assert_eq!(disk.verdict, Verdict::Complete { clean: false }, "round {round}");
            assert_eq!(kept(&*disk.store, acknowledged), acknowledged, "round {round}");
            incarnations.insert(disk.mark.state().incarnation, round);
        }
        assert_eq!(incarnations.len(), 10);
    }
}

#[test]
fn a_log_cut_short_at_any_place_is_amnesia() {
    let directory = tempfile::tempdir().unwrap();
    let acknowledged = left_by_a_crash(directory.path(), 40);
    let whole = fs::read(live_log(directory.path())).unwrap();
    let last = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut random = Random::new(3);
    let mut cuts: Vec<usize> = (0..12).map(|_| random.below(last as u64) as usize).collect();
    cuts.extend([0, last - 1]);
    for cut in cuts {
        let broken = copy_of(directory.path());
        fs::write(live_log(broken.path()), &whole[..cut]).unwrap();
        let before = Mark::open(broken.path()).unwrap().unwrap().state();
        let disk = open(broken.path());
        if disk.verdict == (Verdict::Complete { clean: false }) {
            // The kill may have come between the log and the journal: the last group is nobody's.
            assert_eq!((cut, kept(&*disk.store, acknowledged)), (last - 1, acknowledged));
            continue;
        }
        let why = amnesiac(&disk).to_owned();
        assert!(why.contains("was acknowledged"), "cut at {cut}: {why}");
        assert_ne!(disk.mark.state().incarnation, before.incarnation);
        commit(&*disk.store, 1000).unwrap();
        // It is told again until somebody has repaired it.
        disk.close().unwrap();
        drop(disk);
        let disk = open(broken.path());
        assert!(amnesiac(&disk).contains("has not been repaired"));
        disk.mark.set_repairing(false).unwrap();
        disk.close().unwrap();
        drop(disk);
        assert_eq!(open(broken.path()).verdict, Verdict::Complete { clean: true });
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_log_is_never_silently_short() {
    let directory = tempfile::tempdir().unwrap();
    let count = left_by_a_crash(directory.path(), 40);
    let whole = fs::read(live_log(directory.path())).unwrap();
    let last = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut random = Random::new(5);
    let mut set_aside = 0;
    for round in 0..40 {
        let broken = copy_of(directory.path());
        let mut bytes = whole.clone();
        bytes[random.below(last as u64) as usize] ^= 1 << random.below(8);
        fs::write(live_log(broken.path()), &bytes).unwrap();
        let disk = open(broken.path());
        let found = kept(&*disk.store, count);
        match &disk.verdict {
            Verdict::Complete { .. } => assert_eq!(found, count, "round {round}"),
            Verdict::Amnesiac { why } if why.contains("set aside") => {
                set_aside += 1;
                assert!(broken.path().join("db.aside-1/CURRENT").exists());
            }
            Verdict::Amnesiac { .. } => {}
        }
        commit(&*disk.store, 1000).unwrap();
        drop(disk);
        // A rescued database opens again, with what was committed to it.
        assert_eq!(open(broken.path()).store.read(&key(1000)).unwrap(), Some(record(1000)));
    }
    assert!(set_aside > 20, "only {set_aside} of 40 were set aside");
}

#[test]
fn missing_files_are_amnesia_and_what_is_left_is_rescued() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    for n in 0..20 {
        commit(&*disk.store, n).unwrap();
    }
    disk.close().unwrap();
    drop(disk);
    type Break = fn(&Path);
    let cases: [(&str, Break); 6] = [
        ("CURRENT", |d| fs::remove_file(d.join("db/CURRENT")).unwrap()),
        ("the manifest", |d| {
            let manifest = fs::read_to_string(d.join("db/CURRENT")).unwrap();
            fs::remove_file(d.join("db").join(manifest.trim())).unwrap();
        }),
        ("the tables", |d| remove(&d.join("db"), "sst")),
        ("the database", |d| fs::remove_dir_all(d.join("db")).unwrap()),
        ("the journal", |d| fs::remove_file(d.join("journal")).unwrap()),
        ("the log", |d| remove(&d.join("db"), "log")),
    ];
    for (name, break_it) in cases {
        let broken = copy_of(directory.path());
        break_it(broken.path());
        let disk = open(broken.path());
        let found = kept(&*disk.store, 20);
        let why = amnesiac(&disk);
        println!("{name}: {why}; {found} of 20 kept");
        assert_eq!(why.contains("set aside"), name != "the journal");
        commit(&*disk.store, 30).unwrap();
        drop(disk);
        assert_eq!(open(broken.path()).store.read(&key(30)).unwrap(), Some(record(30)));
    }
}

fn remove(directory: &Path, extension: &str) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == extension) {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_directory_whose_mark_is_gone_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    commit(&*disk.store, 0).unwrap();
    disk.close().unwrap();
    drop(disk);
    let broken = copy_of(directory.path());
    fs::remove_file(broken.path().join("mark")).unwrap();
    let refused = Disk::open(broken.path(), &options()).err().unwrap();
    assert!(matches!(refused, OpenError::MarkMissing(_)), "{refused}");
    // Both slots damaged: as bad. One: counts as an unclean stop.
    let broken = copy_of(directory.path());
    let mut bytes = fs::read(broken.path().join("mark")).unwrap();
    bytes[30] ^= 1;
    fs::write(broken.path().join("mark"), &bytes).unwrap();
    assert_eq!(open(broken.path()).verdict, Verdict::Complete { clean: false });
    bytes[4096 + 30] ^= 1;
    fs::write(broken.path().join("mark"), &bytes).unwrap();
    assert!(matches!(Disk::open(broken.path(), &options()), Err(OpenError::Mark(_))));
}

#[test]
fn a_rescue_that_was_interrupted_is_taken_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    for n in 0..20 {
        commit(&*disk.store, n).unwrap();
    }
    disk.mark.set_repairing(true).unwrap();
    drop(disk);
    // Between the two renames.
    fs::rename(directory.path().join("db"), directory.path().join("db.copy")).unwrap();
    let disk = open(directory.path());
    amnesiac(&disk);
    assert_eq!(kept(&*disk.store, 20), 20);
    drop(disk);
    // In the middle of the copy.
    fs::create_dir(directory.path().join("db.copy")).unwrap();
    fs::write(directory.path().join("db.copy/MANIFEST-000001"), b"half").unwrap();
    let disk = open(directory.path());
    assert_eq!(kept(&*disk.store, 20), 20);
    assert!(!directory.path().join("db.copy").exists());
}

#[test]
fn a_damaged_table_is_an_error_and_never_an_absence() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    for n in 0..500 {
        commit(&*disk.store, n).unwrap();
    }
    disk.close().unwrap();
    drop(disk);
    let entries = fs::read_dir(directory.path().join("db")).unwrap().map(|e| e.unwrap().path());
    let tables = entries.filter(|path| path.extension().is_some_and(|e| e == "sst"));
    let largest = tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&largest, &bytes).unwrap();
    let disk = open(directory.path());
    let mut damaged = 0;
    for n in 0..500 {
        match disk.store.read(&key(n)) {
            Ok(found) => assert_eq!(found, Some(record(n))),
            Err(StoreError::Corrupt(_)) => damaged += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(damaged > 0 && damaged < 100, "{damaged} reads failed");
    let pages = (0..7).map(|p| disk.store.page(Partition(p), None, 1000));
    assert!(pages.into_iter().any(|page| matches!(page, Err(StoreError::Corrupt(_)))));
    commit(&*disk.store, 1000).unwrap();
}

#[test]
fn a_cold_block_would_block_and_is_known_once_it_was_read() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    for n in 0..500 {
        commit(&*disk.store, n).unwrap();
    }
    disk.close().unwrap();
    drop(disk);
    let disk = open(directory.path());
    assert_eq!(disk.store.read_cached(&key(3)), Ok(Cached::WouldBlock));
    assert_eq!(disk.store.read(&key(3)), Ok(Some(record(3))));
    assert_eq!(disk.store.read_cached(&key(3)), Ok(Cached::Known(Some(record(3)))));
}

#[test]
fn below_the_reserve_commits_are_refused_before_the_database_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let reserve_bytes = u64::MAX / 2;
    let disk = open_with(directory.path(), &RocksOptions { reserve_bytes, ..options() });
    let refused = commit(&*disk.store, 0);
    assert!(
        matches!(&refused, Err(StoreError::Full(why)) if why.contains("reserve")),
        "{refused:?}"
    );
    assert_eq!((disk.store.number(), disk.store.read(&key(0))), (0, Ok(None)));
}

/// A file system of 24 MiB, for as long as it lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, and a line that says so, where mounting is not allowed.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "ringdove-test"])
            .arg(directory.path())
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        println!("skipped: mounting a file system is not allowed here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn above_the_reserve_again_commits_go_on_at_once() {
    let Some(small) = SmallDisk::mount() else { return };
    let options = RocksOptions { reserve_bytes: 10 << 20, ..options() };
    let disk = open_with(&small.0.path().join("data"), &options);
    commit(&*disk.store, 0).unwrap();
    let ballast = small.0.path().join("ballast");
    fs::write(&ballast, vec![1; free_bytes(small.0.path()) - (5 << 20)]).unwrap();
    let refused = (1..).find_map(|n| commit(&*disk.store, n).err().map(|error| (n, error)));
    let (n, error) = refused.unwrap();
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    fs::remove_file(&ballast).unwrap();
    let since = Instant::now();
    while commit(&*disk.store, n).is_err() {
        assert!(since.elapsed() < Duration::from_secs(2), "it did not go on");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(kept(&*disk.store, n + 5), n + 1);
}

#[test]
fn a_full_disk_refuses_commits_serves_reads_and_recovers_by_itself() {
    let Some(small) = SmallDisk::mount() else { return };
    let directory = small.0.path().join("data");
    let disk = open_with(&directory, &RocksOptions { memtable_bytes: 2 << 20, ..options() });
    for n in 0..100 {
        commit(&*disk.store, n).unwrap();
    }
    let ballast = small.0.path().join("ballast");
    // Leaves some room, so that it runs out in the middle of a log record and not before one.
    let free = free_bytes(small.0.path());
    fs::write(&ballast, vec![1; free - 100_000]).unwrap();
    let mut acknowledged = 100;
    let refused = loop {
        match commit(&*disk.store, acknowledged) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100_000, "the disk never filled");
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
    // Nothing of the refused one was written, and it stays refused.
    for n in acknowledged..acknowledged + 5 {
        assert!(matches!(commit(&*disk.store, n), Err(StoreError::Full(_))));
        assert_eq!(disk.store.read(&key(n)), Ok(None));
    }
    assert_eq!(kept(&*disk.store, acknowledged), acknowledged);
    fs::remove_file(&ballast).unwrap();
    let since = Instant::now();
    while let Err(error) = commit(&*disk.store, acknowledged) {
        assert!(matches!(error, StoreError::Full(_)), "{error}");
        assert!(since.elapsed() < Duration::from_secs(60), "it did not recover: {error}");
        thread::sleep(Duration::from_millis(50));
    }
    println!("{acknowledged} kept; recovered after {:?}", since.elapsed());
    acknowledged += 1;
    assert_eq!(kept(&*disk.store, acknowledged + 5), acknowledged);
    drop(disk);
    let disk = open(&directory);
    assert_eq!(disk.verdict, Verdict::Complete { clean: false });
    assert_eq!(kept(&*disk.store, acknowledged + 5), acknowledged);
}

#[test]
fn threads_that_fill_a_disk_together_are_all_refused_and_all_recover() {
    let Some(small) = SmallDisk::mount() else { return };
    let directory = small.0.path().join("data");
    for durability in [Durability::Fsync, Durability::Interval(Duration::from_millis(1))] {
        let options = RocksOptions { durability, memtable_bytes: 2 << 20, ..options() };
        let disk = open_with(&directory, &options);
        let ballast = small.0.path().join("ballast");
        fs::write(&ballast, vec![1; free_bytes(small.0.path()) - 1_000_000]).unwrap();
        let fill = |thread: u64| {
            let numbers = (thread << 32)..;
            let mut refused = numbers.map(|n| (n, commit(&*disk.store, n)));
            refused.find_map(|(n, outcome)| outcome.err().map(|error| (n, error))).unwrap()
        };
        let ends: Vec<_> = thread::scope(|scope| {
            let fill = &fill;
            let threads: Vec<_> = (0..4).map(|t| scope.spawn(move || fill(t))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let check = |disk: &Disk| {
            for (thread, (end, error)) in ends.iter().enumerate() {
                assert!(matches!(error, StoreError::Full(_)), "{error}");
                let all = (thread as u64) << 32..*end;
                assert!(all.clone().all(|n| disk.store.read(&key(n)) == Ok(Some(record(n)))));
                assert_eq!(disk.store.read(&key(*end)), Ok(None));
            }
        };
        check(&disk);
        fs::remove_file(&ballast).unwrap();
        let since = Instant::now();
        while let Err(error) = commit(&*disk.store, 9 << 32) {
            assert!(matches!(error, StoreError::Full(_)), "{error}");
            assert!(since.elapsed() < Duration::from_secs(60), "it did not recover: {error}");
            thread::sleep(Duration::from_millis(50));
        }
        disk.close().unwrap();
        drop(disk);
        let disk = open_with(&directory, &options);
        check(&disk);
        drop(disk);
        fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn a_process_killed_while_its_disk_is_full_comes_back_complete() {
    let Some(small) = SmallDisk::mount() else { return };
    let directory = small.0.path().join("data");
    let disk = open_with(&directory, &RocksOptions { memtable_bytes: 2 << 20, ..options() });
    let ballast = small.0.path().join("ballast");
    fs::write(&ballast, vec![1; free_bytes(small.0.path()) - 300_000]).unwrap();
    let mut acknowledged = 0;
    while commit(&*disk.store, acknowledged).is_ok() {
        acknowledged += 1;
    }
    drop(disk);
    // While it is full it opens or says why not; afterwards it has everything.
    if let Err(error) = Disk::open(&directory, &options()) {
        assert!(matches!(error, OpenError::Full(_)), "{error}");
    }
    fs::remove_file(&ballast).unwrap();
    let disk = open(&directory);
    assert_eq!(disk.verdict, Verdict::Complete { clean: false });
    assert_eq!(kept(&*disk.store, acknowledged + 1), acknowledged);
}

fn free_bytes(path: &Path) -> usize {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-a").arg(directory.join(".")).arg(copy.path()).status();
    assert!(status.unwrap().success());
    // These look at what a disk has lost: each copy stands for the directory itself.
    Mark::open(copy.path()).unwrap().unwrap().claim().unwrap();
    copy
}
