//! Disks that lie and disks that fail: a check names the records that are damaged and no others, a compaction that meets a
//! damaged block ends the store, and the next start builds a database anew that has everything that can
//! be read and nothing that is older than it was.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringdove::causality::{Actor, Content, Dot, Hlc, Object, Sibling, VersionVector, digest_of};
use ringdove::ids::{Incarnation, Partition, WriteId};
use ringdove::key::Key;
use ringdove::random::Random;
use ringdove::server::disk::{Disk, OpenError, Verdict};
use ringdove::server::rocks::{Checked, RocksOptions, RocksStore};
use ringdove::store::record::Record;
use ringdove::store::{Batch, Change, Imprint, Store, StoreError, StoredKey};
use ringdove::time::WallMs;
use rocksdb::{DB, Options};

const PARTITIONS: u16 = 7;

/// With little memory tables are written, and compacted, soon.
fn options(memtable_bytes: usize) -> RocksOptions {
    RocksOptions {
        reserve_bytes: 0,
        memtable_bytes,
        cache_bytes: 1 << 20,
        ..RocksOptions::default()
    }
}

fn key(n: u64) -> StoredKey {
    let partition = Partition((n % u64::from(PARTITIONS)) as u16);
    StoredKey::new(partition, &Key::new(b"b", format!("{n:06}").as_bytes()).unwrap())
}

/// What stands under key `n` after it was written `round` times.
fn object(n: u64, round: u64) -> Bytes {
    let mut random = Random::new(n << 8 | round);
    let value: Vec<u8> = (0..400).map(|_| random.next_u64() as u8).collect();
    let actor = Actor { incarnation: Incarnation(1), k: n };
    let mut object = Object::new();
    let sibling = Sibling {
        dot: Dot { actor, counter: round },
        write_id: WriteId(u128::from(n)),
        hlc: Hlc(round),
        after: Hlc::default(),
        expires_at: None,
        content: Content::Value(value.into()),
    };
    object.write(&VersionVector::new(), sibling);
    object.encode()
}

fn record(n: u64, round: u64) -> Bytes {
    Record { mint: None, object: object(n, round) }.encode()
}

fn imprint(n: u64, round: u64) -> Imprint {
    if round == 0 {
        return Imprint::NONE;
    }
    let digest = digest_of(&key(n).key(), &object(n, round));
    Imprint { digest, siblings: 1, bytes: 400, latest: round, fades_at: None }
}

/// Writes key `n` for the `round`th time, or deletes it where that is `None`.
fn change(n: u64, before: u64, round: Option<u64>) -> Change {
    let record = round.map(|round| record(n, round));
    let after = imprint(n, round.unwrap_or(0));
    Change { key: key(n), record, before: Some(imprint(n, before)), after }
}

/// Two values of key `n` that did not see each other and have expired.
fn expired_twice(n: u64) -> Change {
    let mut object = Object::new();
    for k in 0..2 {
        let sibling = Sibling {
            dot: Dot { actor: Actor { incarnation: Incarnation(1), k }, counter: 1 },
            write_id: WriteId(u128::from(k)),
            hlc: Hlc(1),
            after: Hlc::default(),
            expires_at: Some(WallMs(0)),
            content: Content::Value(Bytes::from_static(b"v")),
        };
        object.write(&VersionVector::new(), sibling);
    }
    let (digest, fades_at) = (object.digest(&key(n).key()), object.fades_at());
    let record = Record { mint: None, object: object.encode() }.encode();
    let after = Imprint { digest, siblings: 2, bytes: 2, latest: 1, fades_at };
    Change { key: key(n), record: Some(record), before: Some(Imprint::NONE), after }
}

fn commit(store: &RocksStore, changes: Vec<Change>) -> Result<(), StoreError> {
    store.commit(&[Batch::of(changes)])
}

fn fill(store: &RocksStore, keys: std::ops::Range<u64>) {
    for n in keys {
        commit(store, vec![change(n, 0, Some(1))]).unwrap();
    }
}

/// Opens a directory that this process has just let go of.
fn open(directory: &Path) -> Disk {
    open_with(directory, 16 << 20)
}

fn open_with(directory: &Path, memtable_bytes: usize) -> Disk {
    let since = Instant::now();
    loop {
        match Disk::open(directory, &options(memtable_bytes)) {
            Err(OpenError::InUse(_)) if since.elapsed() < Duration::from_secs(10) => {
                thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn reopened(disk: Disk, directory: &Path) -> Disk {
    disk.close().unwrap();
    drop(disk);
    open(directory)
}

/// The largest tables, with the objects in them.
fn largest_table(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// A table of this family.
fn table_of(directory: &Path, family: &str) -> PathBuf {
    let path = directory.join("db");
    let families = DB::list_cf(&Options::default(), &path).unwrap();
    let db = DB::open_cf_for_read_only(&Options::default(), &path, families, false).unwrap();
    let files = db.live_files().unwrap();
    let file = files.iter().find(|file| file.column_family_name == family).unwrap();
    path.join(file.name.trim_start_matches('/'))
}

/// Flips a bit of `path`, `of`/10 into the file.
fn flip(path: &Path, tenths: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() * tenths / 10;
    bytes[at] ^= 1;
    fs::write(path, &bytes).unwrap();
}

fn check_all(store: &RocksStore) -> Checked {
    let mut sum = Checked::default();
    for partition in (0..PARTITIONS).map(Partition) {
        let checked = store.check(partition, &mut |_| true).unwrap().unwrap();
        sum.records += checked.records;
        sum.damaged += checked.damaged;
        sum.recounted |= checked.recounted;
    }
    sum
}

fn unreadable(store: &RocksStore, keys: std::ops::Range<u64>, round: u64) -> Vec<u64> {
    let is_damaged = |n: &u64| match store.read(&key(*n)) {
        Ok(found) => {
            assert_eq!(found, Some(record(*n, round)), "{n}");
            false
        }
        Err(StoreError::Corrupt(_)) => true,
        Err(other) => panic!("{other}"),
    };
    keys.filter(is_damaged).collect()
}

#[test]
fn a_check_names_what_is_damaged_and_nothing_once_it_was_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    fill(&disk.store, 0..500);
    assert_eq!(check_all(&disk.store), Checked { records: 500, ..Checked::default() });
    disk.close().unwrap();
    drop(disk);
    flip(&largest_table(directory.path()), 4);
    let disk = open(directory.path());
    let checked = check_all(&disk.store);
    let damaged = unreadable(&disk.store, 0..500, 1);
    assert!(!damaged.is_empty() && damaged.len() < 100, "{}", damaged.len());
    assert_eq!((checked.damaged, checked.recounted), (damaged.len() as u64, false));
    // What was there before is not known to whoever restores; the trees stay right all the same.
    let restored = |n: &u64| Change { before: None, ..change(*n, 1, Some(1)) };
    commit(&disk.store, damaged.iter().map(restored).collect()).unwrap();
    assert_eq!(unreadable(&disk.store, 0..500, 1), [0; 0]);
    let checked = check_all(&disk.store);
    assert_eq!((checked.damaged, checked.recounted), (0, false));
    // The block is still there, and in the way of nobody who reads in order.
    let pages = (0..PARTITIONS).map(|p| disk.store.page(Partition(p), None, 1000).unwrap().len());
    assert_eq!(pages.sum::<usize>(), 500);
    let two = disk.store.page(Partition(3), Some(&key(10)), 2).unwrap();
    assert_eq!(two.iter().map(|entry| &entry.key).collect::<Vec<_>>(), [&key(17), &key(24)]);
}

#[test]
fn a_record_that_reads_well_and_is_not_what_was_written_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    fill(&disk.store, 0..50);
    // As if memory had been damaged on the way to the disk: another record than the digest's, a record
    // that is none, one that was lost, and one that nobody knows of.
    let wrong = |record: Option<Bytes>, after| Change { record, ..change(1, 1, after) };
    let digest = imprint(1, 1);
    let other = Change { after: digest, ..wrong(Some(record(1, 2)), Some(1)) };
    let garbage = Change { key: key(2), after: imprint(2, 1), ..wrong(Some("x".into()), Some(1)) };
    commit(&disk.store, vec![other, garbage]).unwrap();
    let checked = check_all(&disk.store);
    assert_eq!(checked.damaged, 2);
    for n in [1, 2] {
        assert!(matches!(disk.store.read(&key(n)), Err(StoreError::Corrupt(_))), "{n}");
        assert!(matches!(disk.store.read_cached(&key(n)), Err(StoreError::Corrupt(_))), "{n}");
        assert!(disk.store.page(key(n).partition(), None, 1000).is_err());
    }
    commit(&disk.store, vec![Change { before: None, ..change(1, 1, Some(1)) }]).unwrap();
    commit(&disk.store, vec![Change { before: None, ..change(2, 1, Some(1)) }]).unwrap();
    assert_eq!(unreadable(&disk.store, 0..50, 1), [0; 0]);
    assert_eq!(check_all(&disk.store).damaged, 0);
}

#[test]
fn a_check_beside_writes_finds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    fill(&disk.store, 0..300);
    thread::scope(|scope| {
        let store = &disk.store;
        let writer = scope.spawn(move || {
            for round in 2..30 {
                let all = (0..300).map(|n| change(n, round - 1, Some(round)));
                commit(store, all.collect()).unwrap();
            }
        });
        while !writer.is_finished() {
            let checked = check_all(store);
            assert_eq!((checked.damaged, checked.recounted), (0, false));
        }
    });
}

#[test]
fn damage_beside_the_objects_asks_for_a_new_database_which_has_everything() {
    let list = |store: &RocksStore| {
        let all = usize::MAX;
        let partitions = || (0..PARTITIONS).map(Partition);
        let faded = |of| store.faded(of, WallMs(0), None, all).map(|keys| keys.len());
        let conflicts = |of| store.conflicts(of, "b", None, all).map(|keys| keys.len());
        let faded: Result<usize, StoreError> = partitions().map(faded).sum();
        (faded, partitions().map(conflicts).sum::<Result<usize, StoreError>>())
    };
    for family in ["fading", "conflicts"] {
        let directory = tempfile::tempdir().unwrap();
        let disk = open(directory.path());
        for n in 0..700 {
            commit(&disk.store, vec![expired_twice(n)]).unwrap();
        }
        disk.close().unwrap();
        drop(disk);
        flip(&table_of(directory.path(), family), 2);
        let disk = open(directory.path());
        let (faded, conflicts) = list(&disk.store);
        let damaged = if family == "fading" { &faded } else { &conflicts };
        assert!(matches!(damaged, Err(StoreError::Corrupt(_))), "{family}: {damaged:?}");
        assert_eq!(faded.is_err() as u8 + conflicts.is_err() as u8, 1, "{family}");
        let disk = reopened(disk, directory.path());
        assert!(matches!(disk.verdict, Verdict::Amnesiac { .. }), "{family}");
        assert_eq!(list(&disk.store), (Ok(700), Ok(700)), "{family}");
    }
}

#[test]
fn a_compaction_over_a_damaged_block_ends_the_store_and_the_next_start_builds_it_anew() {
    let directory = tempfile::tempdir().unwrap();
    let disk = open(directory.path());
    // Keys of which an older table has a value and a newer one a deletion, or another value.
    fill(&disk.store, 0..500);
    let disk = reopened(disk, directory.path());
    let (deleted, changed) = (0..100, 100..200);
    commit(&disk.store, deleted.clone().map(|n| change(n, 1, None)).collect()).unwrap();
    commit(&disk.store, changed.clone().map(|n| change(n, 1, Some(2))).collect()).unwrap();
    let disk = reopened(disk, directory.path());
    // A third of the older table's blocks: some of what is current, and some of what is not.
    let older = largest_table(directory.path());
    disk.close().unwrap();
    drop(disk);
    for tenths in 2..5 {
        flip(&older, tenths);
    }
    let disk = open_with(directory.path(), 1 << 20);
    // New keys between the old ones, until RocksDB has to compact.
    let mut acknowledged = 500;
    let since = Instant::now();
    let refused = loop {
        match commit(&disk.store, vec![change(acknowledged, 0, Some(1))]) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(since.elapsed() < Duration::from_secs(60), "it never met the block");
    };
    println!("after {acknowledged} keys: {refused}");
    assert!(matches!(refused, StoreError::Fatal(_)), "the process must end: {refused}");
    assert!(disk.close().is_err());
    drop(disk);
    let disk = open(directory.path());
    let Verdict::Amnesiac { why } = &disk.verdict else { panic!("{:?}", disk.verdict) };
    println!("{why}");
    assert!(directory.path().join("db.aside-1/CURRENT").exists());
    let there = |n: u64| disk.store.read(&key(n)).unwrap();
    assert!(deleted.clone().all(|n| there(n).is_none()), "a deleted key is back");
    assert!(changed.clone().all(|n| there(n).is_none_or(|found| found == record(n, 2))));
    let kept = (200..acknowledged).filter(|n| there(*n) == Some(record(*n, 1))).count() as u64;
    let lost = acknowledged - 200 - kept;
    println!("{lost} of {acknowledged} keys are left to the other replicas");
    assert!((1..100).contains(&lost));
    assert_eq!(check_all(&disk.store).damaged, 0);
    // It is whole, as far as it goes, and is not built anew once more.
    commit(&disk.store, vec![change(acknowledged, 0, Some(1))]).unwrap();
    let disk = reopened(disk, directory.path());
    assert!(!directory.path().join("db.aside-2").exists());
    assert_eq!(disk.store.read(&key(acknowledged)), Ok(Some(record(acknowledged, 1))));
}

/// A file system whose syncs can be made to fail: its image lies on a small one, and promises more than that
/// has room for.
struct HollowDisk {
    outer: tempfile::TempDir,
    inner: tempfile::TempDir,
}

impl HollowDisk {
    /// `None`, and a line that says so, where that is not allowed.
    fn mount() -> Option<Self> {
        let this =
            Self { outer: tempfile::tempdir().unwrap(), inner: tempfile::tempdir().unwrap() };
        let image = this.outer.path().join("image");
        let run = |program: &str, arguments: &[&str], paths: &[&Path]| {
            let output = Command::new(program).args(arguments).args(paths).output();
            output.is_ok_and(|output| output.status.success())
        };
        let tmpfs = ["-t", "tmpfs", "-o", "size=32m", "ringdove-test"];
        let is_made = run("mount", &tmpfs, &[this.outer.path()])
            && run("truncate", &["-s", "256M"], &[&image])
            && run("mkfs.ext4", &["-q", "-F", "-O", "^has_journal"], &[&image])
            && run("mount", &["-o", "loop"], &[&image, this.inner.path()]);
        if is_made {
            return Some(this);
        }
        println!("skipped: mounting a file system in a file is not allowed here");
        None
    }

    /// From now on nothing new reaches the image.
    fn break_syncs(&self) {
        let mut ballast = fs::File::create(self.outer.path().join("ballast")).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for HollowDisk {
    fn drop(&mut self) {
        for directory in [&self.inner, &self.outer] {
            let _ = Command::new("umount").arg(directory.path()).output();
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_all_that_was_before_is_there() {
    let Some(hollow) = HollowDisk::mount() else { return };
    let directory = hollow.inner.path().join("data");
    let disk = open(&directory);
    fill(&disk.store, 0..200);
    hollow.break_syncs();
    let mut acknowledged = 200;
    let error = loop {
        match commit(&disk.store, vec![change(acknowledged, 0, Some(1))]) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100_000, "no sync fails");
    };
    println!("after {acknowledged} keys: {error}");
    assert!(matches!(&error, StoreError::Fatal(why) if why.contains("sync")), "{error}");
    // A second sync could lie: nothing more is written, however often it is tried.
    for n in 0..3 {
        let again = commit(&disk.store, vec![change(acknowledged + n, 0, Some(1))]);
        assert_eq!(again, Err(error.clone()));
    }
    assert!(disk.close().is_err(), "a stop in order says that everything is on disk");
    drop(disk);
    fs::remove_file(hollow.outer.path().join("ballast")).unwrap();
    // What the kernel had not written is dropped with its cache.
    let remount = Command::new("umount").arg(hollow.inner.path()).status();
    assert!(remount.unwrap().success());
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop"]).arg(hollow.outer.path().join("image")).arg(hollow.inner.path());
    assert!(mount.status().unwrap().success());
    let disk = open(&directory);
    println!("{:?}", disk.verdict);
    assert_eq!(unreadable(&disk.store, 0..acknowledged, 1), [0; 0]);
    drop(disk);
}
