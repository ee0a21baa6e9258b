//! Disks that lie: files of a node are damaged, cut short or gone, and it comes back equal to its peers, or
//! says what to do. No read ever shows bytes that nobody wrote, what is deleted stays deleted, and
//! what has expired is not seen. Before it is damaged the node keeps hints, of deletions too, for one
//! that is away.
//!
//! `RINGDOVE_KEYS` says how many keys there are; with `RINGDOVE_FAULTS=all`, or a part of a fault's name, every such fault is made, after a
//! clean stop and after SIGKILL (`./scripts/dev corruption`), and the table of docs/STORAGE.md is printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringdove::client::{Bucket, Client, direct};
use ringdove::key::Key;
use ringdove::random::Random;
use ringdove::wire::messages::{Control, ControlReply, Get, Level, Request, Response};
use tokio::task::JoinSet;

use crate::alone;
use crate::cluster::{Cluster, Node, PATIENCE};
use crate::kill::from_environment;

/// Whose disk lies.
const VICTIM: usize = 1;
/// Who is away while it is damaged.
const AWAY: usize = 0;
const AT_ONCE: usize = 64;
const QUICK: &str =
    "reserve_mb = 1\n[sync]\ninterval_s = 1\nsettle_ms = 100\n[scrub]\nrate_mb_s = 1000\n";

/// How long a value of a key that is [`is_mortal`] lives.
const LIFE: Duration = Duration::from_millis(500);
/// By so much two clocks of one machine may differ.
const APART: Duration = Duration::from_millis(20);

/// What was written under each key, oldest first.
type Written = Arc<Mutex<BTreeMap<String, Vec<Change>>>>;

/// A key was given a value, or, without one, deleted.
#[derive(Clone, Debug)]
struct Change {
    value: Option<Vec<u8>>,
    /// When it was acknowledged: from then on it lives for as long as it may, at most.
    done: Option<Instant>,
}

/// Whether the values of a key expire.
fn is_mortal(key: u64) -> bool {
    key % 7 == 5
}

/// Some keys are deleted in every other round.
fn change(key: u64, round: u64) -> Option<Vec<u8>> {
    (key % 7 != 3 || round % 2 == 1).then(|| value(key, round))
}

/// How the node stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Kill,
    Clean,
    /// Not at all: its files are damaged while it runs.
    Runs,
}

struct Fault {
    name: &'static str,
    stop: Stop,
    /// Damages the files in a data directory; says what there was not to be damaged.
    damage: fn(&Path) -> Result<(), &'static str>,
    /// What the node says instead of starting.
    refuses: Option<&'static str>,
}

/// A row of the table.
struct Row {
    fault: &'static str,
    stop: Stop,
    said: String,
    took: Option<Duration>,
    reads: Reads,
}

/// What reads through the node said meanwhile.
#[derive(Clone, Copy, Debug, Default)]
struct Reads {
    right: u64,
    /// An earlier value of a key that was written while the node was away.
    old: u64,
    errors: u64,
}

/// A cluster whose keys are known.
struct Bench {
    cluster: Cluster,
    client: Client,
    written: Written,
    round: u64,
}

fn value(key: u64, round: u64) -> Vec<u8> {
    let mut random = Random::new(key << 20 | round);
    let mut bytes = format!("{key}:{round}:").into_bytes();
    bytes.extend((0..200).map(|_| random.next_u64() as u8));
    bytes
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|of| of == extension)).collect();
    files.sort();
    files
}

/// The log that was written last, with the bytes that were written to it.
fn live_log(directory: &Path) -> Result<(PathBuf, usize), &'static str> {
    let log = files(directory, "log").pop().ok_or("there is no log")?;
    let bytes = fs::read(&log).unwrap();
    match bytes.iter().rposition(|byte| *byte != 0) {
        Some(last) => Ok((log, last + 1)),
        None => Err("the log is empty"),
    }
}

fn largest_table(directory: &Path) -> Result<PathBuf, &'static str> {
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    files(directory, "sst").into_iter().max_by_key(size).ok_or("there is no table")
}

fn cut(path: &Path, length: usize) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length as u64).unwrap();
}

/// In place: a process that has the file open sees it.
fn flip(path: &Path, at: usize) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
}

fn flip_in_table(directory: &Path) -> Result<(), &'static str> {
    let table = largest_table(directory)?;
    let length = table.metadata().unwrap().len() as usize;
    (1..=3).for_each(|part| flip(&table, length * part / 5));
    Ok(())
}

fn remove_manifest(directory: &Path) -> Result<(), &'static str> {
    let manifest = fs::read_to_string(directory.join("db/CURRENT")).unwrap();
    fs::remove_file(directory.join("db").join(manifest.trim())).unwrap();
    Ok(())
}

fn remove(path: PathBuf) -> Result<(), &'static str> {
    fs::remove_file(path).unwrap();
    Ok(())
}

fn damage_mark(directory: &Path, slots: &[usize]) -> Result<(), &'static str> {
    // What heals it is kept beside it.
    fs::copy(directory.join("mark"), directory.join("mark.whole")).unwrap();
    slots.iter().for_each(|slot| flip(&directory.join("mark"), slot * 4096 + 40));
    Ok(())
}

/// Every fault, with the stop that comes before it.
fn faults() -> Vec<Fault> {
    type Damage = fn(&Path) -> Result<(), &'static str>;
    let damages: [(&'static str, Damage, Option<&'static str>); 11] = [
        (
            "tail of the log torn",
            |d| live_log(d).map(|(log, end)| cut(&log, end.saturating_sub(30))),
            None,
        ),
        ("log cut in the middle", |d| live_log(d).map(|(log, end)| cut(&log, end / 2)), None),
        ("bit flipped in the log", |d| live_log(d).map(|(log, end)| flip(&log, end / 2)), None),
        ("bits flipped in a table", flip_in_table, None),
        ("table missing", |d| remove(largest_table(d)?), None),
        ("MANIFEST missing", remove_manifest, None),
        ("CURRENT missing", |d| remove(d.join("db/CURRENT")), None),
        ("db/ missing", |d| fs::remove_dir_all(d.join("db")).map_err(|_| "no db"), None),
        ("journal missing", |d| remove(d.join("journal")), None),
        ("one slot of the mark damaged", |d| damage_mark(d, &[0]), None),
        ("both slots of the mark damaged", |d| damage_mark(d, &[0, 1]), Some("ringdove replace")),
    ];
    let both = damages.into_iter().flat_map(|(name, damage, refuses)| {
        [Stop::Kill, Stop::Clean].map(|stop| Fault { name, stop, damage, refuses })
    });
    let running: [(&'static str, Damage); 2] = [
        ("bits flipped in a table", flip_in_table),
        ("table cut in the middle", |d| {
            let table = largest_table(d)?;
            cut(&table, table.metadata().unwrap().len() as usize / 2);
            Ok(())
        }),
    ];
    let running =
        running.map(|(name, damage)| Fault { name, stop: Stop::Runs, damage, refuses: None });
    both.chain(running).collect()
}

impl Bench {
    async fn start(cluster: Cluster, keys: u64) -> Self {
        let client = cluster.client().await;
        let mut bench = Self { cluster, client, written: Written::default(), round: 0 };
        bench.write(0..keys).await;
        bench
    }

    fn victim(&mut self) -> &mut Node {
        &mut self.cluster.nodes[VICTIM]
    }

    /// Writes each of these keys anew.
    async fn write(&mut self, keys: std::ops::Range<u64>) {
        let client = self.client.clone();
        self.write_by(&client, keys).await;
    }

    async fn write_by(&mut self, client: &Client, keys: std::ops::Range<u64>) {
        self.round += 1;
        let bucket = client.bucket("default").unwrap();
        let mut writing = JoinSet::new();
        for key in keys {
            if writing.len() == AT_ONCE {
                writing.join_next().await.unwrap().unwrap();
            }
            let (bucket, written, round) = (bucket.clone(), self.written.clone(), self.round);
            writing.spawn(async move { put(&bucket, &written, key, round).await });
        }
        while let Some(done) = writing.join_next().await {
            done.unwrap();
        }
    }

    /// Starts the node, and starts it again should it end itself because of what it finds, as whoever
    /// supervises it would.
    async fn start_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.victim().is_ready() {
            self.supervise();
            assert!(Instant::now() < deadline, "it does not come up:\n{}", self.victim().log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn supervise(&mut self) {
        if let Some(ended) = self.victim().has_ended() {
            // 70, or killed by the destructors of C++ that an exit runs beside RocksDB's threads.
            assert!(ended.code().is_none_or(|code| code == 70), "it has ended: {ended}");
            println!("  it has ended itself ({ended}), and is started again");
            self.victim().start();
        }
    }

    /// Waits until the node has everything, on a disk that reads well from end to end.
    async fn wait_whole(&mut self) -> Duration {
        let began = Instant::now();
        // A number in the log for each start; passes are counted over restarts.
        let mut asked: Option<(u32, u64)> = None;
        let mut last = String::new();
        while began.elapsed() < PATIENCE * 3 {
            self.start_until_ready().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let pid = self.victim().pid();
            let Some(status) = status(&self.cluster.nodes[VICTIM]).await else { continue };
            let count = |name: &str| {
                let row = status.counters.iter().find(|(row, _)| row == name);
                row.unwrap_or_else(|| panic!("no {name}")).1
            };
            let passes = count("scrub_passes");
            if asked.is_none_or(|(of, _)| of != pid) {
                for node in &self.cluster.nodes {
                    let _ = direct::request(
                        &node.frames,
                        &Request::Control(Control::SyncNow),
                        PATIENCE,
                    )
                    .await;
                }
                let now = Request::Control(Control::ScrubNow);
                if direct::request(&self.cluster.nodes[VICTIM].frames, &now, PATIENCE).await.is_ok()
                {
                    asked = Some((pid, passes));
                }
                continue;
            }
            let has_scrubbed = asked.is_some_and(|(_, before)| passes > before);
            let waiting = count("scrub_waiting");
            let digests = digests(&self.cluster).await;
            let are_equal = digests.windows(2).all(|pair| pair[0].is_some() && pair[0] == pair[1]);
            if !status.amnesiac && has_scrubbed && waiting == 0 && are_equal {
                return began.elapsed();
            }
            last = format!(
                "amnesiac {}, scrubbed {has_scrubbed}, waiting {waiting}, {digests:?}",
                status.amnesiac
            );
        }
        panic!("it does not become whole: {last}");
    }

    /// Reads keys through the node, at R=1, until told to stop.
    fn watch(&self, seed: u64) -> (Arc<AtomicBool>, tokio::task::JoinHandle<Reads>) {
        let stop = Arc::new(AtomicBool::new(false));
        let (written, stopped) = (self.written.clone(), stop.clone());
        let frames = self.cluster.nodes[VICTIM].frames.clone();
        let watching = tokio::spawn(async move {
            let mut random = Random::new(seed);
            let mut reads = Reads::default();
            let mut node = None;
            while !stopped.load(Ordering::Relaxed) {
                let Some(through) = &node else {
                    node = direct::Direct::connect(&frames, Duration::from_secs(1)).await.ok();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                let count = written.lock().unwrap().len() as u64;
                let key = random.below(count).to_string();
                let before = written.lock().unwrap()[&key].len();
                let began = Instant::now();
                match get(through, &key, Level::Count(1)).await {
                    Some(found) => look(&written, &key, (&found, began), before, &mut reads),
                    None => {
                        reads.errors += 1;
                        node = None;
                    }
                }
            }
            reads
        });
        (stop, watching)
    }

    /// Looks for everything through the node: in its own copies, and agreed on by all.
    async fn check(&self) {
        tokio::time::sleep(LIFE).await;
        let node =
            direct::Direct::connect(&self.cluster.nodes[VICTIM].frames, PATIENCE).await.unwrap();
        let node = Arc::new(node);
        let expected = self.expected();
        let mut reading = JoinSet::new();
        for (at, (key, value)) in expected.into_iter().enumerate() {
            if reading.len() == AT_ONCE {
                reading.join_next().await.unwrap().unwrap();
            }
            let node = node.clone();
            reading.spawn(async move {
                let r = if at % 10 == 0 { Level::All } else { Level::Count(1) };
                let value: Vec<_> = value.into_iter().collect();
                assert_eq!(get(&node, &key, r).await, Some(value), "{key} at {r:?}");
            });
        }
        while let Some(read) = reading.join_next().await {
            read.unwrap();
        }
    }

    /// What is to be seen of each key.
    fn expected(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let written = self.written.lock().unwrap();
        let last = |(key, changes): (&String, &Vec<Change>)| {
            let is_mortal = is_mortal(key.parse().unwrap());
            let value = changes.last().and_then(|change| change.value.clone());
            (key.clone(), value.filter(|_| !is_mortal))
        };
        written.iter().map(last).collect()
    }

    /// Waits until every node has forgotten what was deleted. What has expired is kept for minutes.
    async fn wait_forgotten(&self) -> Duration {
        let began = Instant::now();
        let has_value = |changes: &&Vec<Change>| changes.last().is_some_and(|c| c.value.is_some());
        let living = self.written.lock().unwrap().values().filter(has_value).count() as u64;
        loop {
            let digests = digests(&self.cluster).await;
            if digests.iter().all(|digest| digest.is_some_and(|(keys, _)| keys == living)) {
                return began.elapsed();
            }
            if began.elapsed() > PATIENCE {
                let mut held_up = Vec::new();
                for node in &self.cluster.nodes {
                    held_up.push(node.control(Control::Reaping).await);
                }
                panic!("of {living} keys {digests:?} are there: {held_up:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes a fault, and sees the node through it.
    async fn suffer(&mut self, fault: &Fault, seed: u64) -> Row {
        println!("{} ({:?})", fault.name, fault.stop);
        // An orderly stop writes tables; what comes behind it is in the log.
        self.victim().terminate();
        self.victim().start();
        self.start_until_ready().await;
        self.write(0..200).await;
        self.wait_equal().await;
        // One that is away: what it misses is kept by the node whose disk is about to lie.
        self.cluster.nodes[AWAY].kill();
        let through = Client::builder().seeds([self.victim().frames.clone()]).only_seeds();
        self.write_by(&through.connect().await.unwrap(), 150..400).await;
        let kept = self.wait_kept().await;
        let home = self.victim().home.clone();
        let row = |said: String, took, reads| Row {
            fault: fault.name,
            stop: fault.stop,
            said,
            took,
            reads,
        };
        let from = self.victim().log().len();
        match fault.stop {
            Stop::Kill => self.victim().kill(),
            Stop::Clean => drop(self.victim().terminate()),
            Stop::Runs => {}
        }
        if let Err(nothing) = (fault.damage)(&home) {
            self.victim().start();
            self.start_until_ready().await;
            self.cluster.nodes[AWAY].start();
            return row(nothing.to_owned(), None, Reads::default());
        }
        self.cluster.nodes[AWAY].start();
        self.cluster.wait_ready(AWAY);
        let (stop, watching) = self.watch(seed);
        let began = Instant::now();
        match fault.stop {
            // Enough that RocksDB compacts.
            Stop::Runs => self.write_until_it_ends().await,
            // Some of it is written while it is away.
            _ => {
                self.write(100..300).await;
                self.victim().start();
            }
        }
        if let Some(refusal) = fault.refuses {
            self.wait_refused(refusal).await;
            // In place: another file would be a copy.
            let whole = fs::read(home.join("mark.whole")).unwrap();
            fs::write(home.join("mark"), whole).unwrap();
            self.victim().start();
        }
        let took = self.wait_whole().await;
        let took = if fault.stop == Stop::Runs { took } else { began.elapsed() };
        stop.store(true, Ordering::Relaxed);
        let reads = watching.await.unwrap();
        self.cluster.wait_drained().await;
        self.check().await;
        let forgotten = self.wait_forgotten().await;
        self.check().await;
        let said = said(&self.victim().log()[from..]);
        println!(
            "  {said}\n  {kept} hints were there; whole after {took:.1?}, forgotten {forgotten:.1?} later; {reads:?}"
        );
        let _ = fs::remove_file(home.join("mark.whole"));
        for aside in 1..9 {
            let _ = fs::remove_dir_all(home.join(format!("db.aside-{aside}")));
        }
        row(said, Some(took), reads)
    }

    /// Waits until the node keeps something for the one that is away: it does from the moment on in which
    /// it gives up waiting for it.
    async fn wait_kept(&mut self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.victim().hints().await {
                0 => assert!(Instant::now() < deadline, "no hints"),
                kept => return kept,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_equal(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let digests = digests(&self.cluster).await;
            if digests.windows(2).all(|pair| pair[0].is_some() && pair[0] == pair[1]) {
                return;
            }
            assert!(Instant::now() < deadline, "{digests:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn write_until_it_ends(&mut self) {
        let keys = self.written.lock().unwrap().len() as u64;
        let deadline = Instant::now() + PATIENCE;
        while self.victim().has_ended().is_none() && Instant::now() < deadline {
            self.write(0..keys).await;
        }
        self.supervise();
    }

    async fn wait_refused(&mut self, why: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.victim().has_ended().is_none() {
            assert!(Instant::now() < deadline, "it has started");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(self.victim().log().contains(why), "{}", self.victim().log());
    }
}

async fn put(bucket: &Bucket, written: &Written, key: u64, round: u64) {
    let (name, value) = (key.to_string(), change(key, round));
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Before it is acknowledged it may be read.
        let change = Change { value: value.clone(), done: None };
        written.lock().unwrap().entry(name.clone()).or_default().push(change);
        // It replaces what is there: one value at a time.
        let write = match value.clone() {
            None => bucket.delete(&name).observed(),
            Some(value) if is_mortal(key) => bucket.put(&name, value).observed().ttl(LIFE),
            Some(value) => bucket.put(&name, value).observed(),
        };
        let Err(error) = write.await else {
            let mut written = written.lock().unwrap();
            written.get_mut(&name).unwrap().last_mut().unwrap().done = Some(Instant::now());
            return;
        };
        assert!(Instant::now() < deadline, "{name}: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a read found; `None` where it was refused.
async fn get(node: &direct::Direct, key: &str, r: Level) -> Option<Vec<Vec<u8>>> {
    let key = Key::new(b"default", key.as_bytes()).unwrap();
    let get = Get { key, r, pr: Level::Default, budget_ms: 5000, strict: true, trace: false };
    match node.request(&Request::Get(get), Duration::from_secs(10)).await {
        Ok(Response::Got(got)) => {
            Some(got.values.iter().map(|value| value.data.to_vec()).collect())
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

/// A read that began then may be old. It may not show a key absent that never was, what was never
/// written, nor what had expired.
fn look(
    written: &Written,
    key: &str,
    (found, began): (&[Vec<u8>], Instant),
    before: usize,
    reads: &mut Reads,
) {
    let is_mortal = is_mortal(key.parse().unwrap());
    let written = written.lock().unwrap();
    let changes = &written[key];
    let place =
        |value: Option<&Vec<u8>>| changes.iter().rposition(|change| change.value.as_ref() == value);
    let newest = match found
        .iter()
        .map(|value| place(Some(value)).expect("bytes that nobody wrote"))
        .max()
    {
        Some(newest) => {
            let is_over = changes[newest].done.is_some_and(|done| began > done + LIFE + APART);
            assert!(!is_mortal || !is_over, "{key} had expired");
            newest
        }
        None if is_mortal => changes.len(),
        None => place(None).unwrap_or_else(|| panic!("{key} is absent")),
    };
    match newest + 1 >= before {
        true => reads.right += 1,
        false => reads.old += 1,
    }
}

async fn status(node: &Node) -> Option<ringdove::wire::messages::NodeStatus> {
    direct::status(&node.frames, PATIENCE).await.ok()
}

async fn digests(cluster: &Cluster) -> Vec<Option<(u64, u128)>> {
    let mut digests = Vec::new();
    for node in &cluster.nodes {
        let answer =
            direct::request(&node.frames, &Request::Control(Control::Digest), PATIENCE).await;
        digests.push(match answer {
            Ok(Response::Control(ControlReply::Digest { objects, digest })) => {
                Some((objects, digest))
            }
            _ => None,
        });
    }
    digests
}

/// What the first line of a log says that tells what was found: its message, and why.
fn said(log: &str) -> String {
    let find = |what: &str| log.lines().find(|line| line.contains(what));
    let refusal = log.lines().find_map(|line| line.strip_prefix("error: "));
    let line = refusal.or(find(" ERROR ")).or(find("the disk is complete")).unwrap_or("nothing");
    let levels = ["ERROR ", "INFO "].iter();
    let line =
        levels.filter_map(|level| line.split_once(level)).next().map_or(line, |(_, said)| said);
    // Of paths only the names are of interest.
    let words =
        line.split_whitespace().map(|word| match (word.find("/tmp"), word.rsplit_once('/')) {
            (Some(at), Some((_, name))) => format!("{}{name}", &word[..at]),
            _ => word.to_owned(),
        });
    let line = words.collect::<Vec<_>>().join(" ").replace('|', "/");
    let short = |text: &str, most: usize| match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    };
    match line.split_once(" why=") {
        Some((message, why)) => {
            let message = message.split([';', '.']).next().unwrap_or(message);
            format!("`{}`: {}", short(message, 90), short(why.trim_matches('"'), 70))
        }
        None => format!("`{}`", short(&line, 160)),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text =
        "| fault | the node | it said | whole after | reads meanwhile: right, old, refused |\n\
                    | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for Row { fault, stop, said, took, reads } in rows {
        let stop = match stop {
            Stop::Kill => "killed",
            Stop::Clean => "stopped",
            Stop::Runs => "runs",
        };
        let took = took.map_or("-".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        let Reads { right, old, errors } = reads;
        let _ = writeln!(text, "| {fault} | {stop} | {said} | {took} | {right}, {old}, {errors} |");
    }
    text
}

/// As [`Cluster::start_with`]; little memory, so that there are tables, and compactions.
fn start(prepare: impl FnOnce(&mut Cluster)) -> Cluster {
    let mut cluster = Cluster::prepare(3, QUICK);
    for node in &mut cluster.nodes {
        let path = node.home.join("ringdove.toml");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(&path, config.replace("memtable_mb = 16", "memtable_mb = 2")).unwrap();
    }
    prepare(&mut cluster);
    cluster.nodes.iter_mut().for_each(Node::start);
    (0..3).for_each(|index| cluster.wait_ready(index));
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_lies_comes_back_equal_or_says_what_to_do() {
    let _alone = alone().await;
    let which = std::env::var("RINGDOVE_FAULTS").unwrap_or_default();
    let keys = from_environment("RINGDOVE_KEYS", 3000);
    let mut bench = Bench::start(start(|_| {}), keys).await;
    let few = [
        (Stop::Kill, "bit flipped in the log"),
        (Stop::Kill, "bits flipped in a table"),
        (Stop::Clean, "CURRENT missing"),
        (Stop::Runs, "table cut in the middle"),
    ];
    let chosen = faults().into_iter().filter(|fault| match which.as_str() {
        "" => few.contains(&(fault.stop, fault.name)),
        which => which == "all" || fault.name.contains(which),
    });
    let mut rows = Vec::new();
    for (seed, fault) in (1..).zip(chosen) {
        rows.push(bench.suffer(&fault, seed).await);
    }
    println!("{keys} keys on three nodes\n{}", table(&rows));
}

/// A file system of 64 MiB over a directory, for as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and a line that says so, where mounting is not allowed.
    fn mount(directory: PathBuf) -> Option<Self> {
        fs::create_dir_all(&directory).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "ringdove-test"])
            .arg(&directory)
            .status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(directory));
        }
        println!("skipped: mounting a file system is not allowed here");
        None
    }

    /// Leaves less than a node keeps in reserve.
    fn fill(&self) {
        let output =
            Command::new("df").args(["--output=avail", "-B1"]).arg(&self.0).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let free: usize = text.lines().nth(1).unwrap().trim().parse().unwrap();
        fs::write(self.0.join("ballast"), vec![1; free - (500 << 10)]).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        // The cluster's own clean-up stopped at the mount.
        let _ = fs::remove_dir_all(self.0.parent().and_then(Path::parent).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_refuses_writes_serves_reads_and_is_whole_once_there_is_room() {
    let _alone = alone().await;
    let mut small = None;
    let cluster = start(|cluster| {
        let home = &cluster.nodes[VICTIM].home;
        small = SmallDisk::mount(home.join("data"));
        let path = home.join("ringdove.toml");
        let config = fs::read_to_string(&path).unwrap();
        if small.is_some() {
            fs::write(&path, config.replace("data_dir = \".\"", "data_dir = \"data\"")).unwrap();
        }
    });
    let Some(small) = small else { return };
    let mut bench = Bench::start(cluster, from_environment("RINGDOVE_KEYS", 2000)).await;
    bench.wait_equal().await;
    let (stop, watching) = bench.watch(1);
    small.fill();
    let began = Instant::now();
    bench.write(0..1000).await;
    bench.cluster.wait_log(VICTIM, "the disk is full: writes are refused here, reads go on").await;
    small.free();
    bench.wait_equal().await;
    bench.cluster.wait_log(VICTIM, "the disk has room again").await;
    println!("full, and equal again after {:.1?}", began.elapsed());
    // Killed while it is full, and started: it serves, or says what to do.
    small.fill();
    bench.write(0..500).await;
    bench.victim().kill();
    let began = Instant::now();
    bench.victim().start();
    let deadline = Instant::now() + PATIENCE;
    while !bench.victim().is_ready() && bench.victim().has_ended().is_none() {
        assert!(Instant::now() < deadline, "{}", bench.victim().log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let has_ended = bench.victim().has_ended().is_some();
    println!("killed while full, and started: {}", if has_ended { "refuses" } else { "serves" });
    if has_ended {
        assert!(bench.victim().log().contains("Free some"), "{}", bench.victim().log());
    }
    small.free();
    if has_ended {
        bench.victim().start();
    }
    bench.wait_whole().await;
    println!("whole after {:.1?}", began.elapsed());
    stop.store(true, Ordering::Relaxed);
    println!("{:?}", watching.await.unwrap());
    bench.check().await;
}
