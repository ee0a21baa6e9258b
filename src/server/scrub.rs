//! The scrub: reads everything this node has, slowly and over and over, and has restored what is
//! damaged.
//!
//! ```text
//!   a pass     all partitions this node has a part in, in random order, spread over `scrub.days`
//!     │ each   RocksStore::check: records, digests and trees must say the same
//!     ▼
//!   damaged ◀── reads of clients, exchanges: whoever meets one first (rocks::Damage)
//!     │ each   read from all other owners, merged, written (Purpose::Restore), by the shard
//!     ▼
//!   whole again
//! ```
//!
//! What always holds: a damaged record is an error to whoever reads it, until what replaces it holds what
//! all other owners of the key have. With one of them away it waits: to take the copy for whole earlier
//! could hide what only that one has. Which partitions of a pass are done outlives restarts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::committer;
use super::node::Node;
use super::rocks::Checked;
use crate::ids::Partition;
use crate::random::Random;
use crate::replica::Pace;
use crate::store::{StoreError, StoredKey};
use crate::time::WallMs;
use crate::wire::control;
use crate::wire::messages::{Get, Level, Request};

/// The file's name within the data directory.
const FILE: &str = "scrub";
/// How long the thread sleeps at most before it looks around.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Records that are restored at once.
const RESTORED_AT_ONCE: usize = 64;
/// How long a round of restoring may go on, and how long one that came to nothing is followed by nothing.
const RESTORE_WITHIN: Duration = Duration::from_secs(10);
const RESTORE_AGAIN: Duration = Duration::from_secs(5);
/// How long a read's answer is ahead of the write that mends.
const MENDED_AFTER: Duration = Duration::from_millis(100);

/// What outlives a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// When the pass under way began, by the wall's clock; 0 before the first.
    began_ms: u64,
    /// The partitions of it that have been read.
    done: BTreeSet<u16>,
    /// Passes that came to their end, and when the last one did.
    passes: u64,
    ended_ms: u64,
}

/// The scrub of a node.
pub struct ScrubDesk {
    path: PathBuf,
    days: u64,
    state: Mutex<State>,
}

struct State {
    progress: Progress,
    /// The pass is not spread: somebody waits for it.
    hurried: bool,
    left: u64,
    records: u64,
    bytes: u64,
    pace: Pace,
    random: Random,
    /// Operations of clients when they were last counted.
    foreground: u64,
}

impl ScrubDesk {
    /// The scrub of the node that `config` is of; it does nothing yet. A pass that was under way goes on.
    #[must_use]
    pub fn open(config: &super::config::Config, seed: u64) -> Self {
        let path = config.node.data_dir.join(FILE);
        // Without it nothing is lost but the way gone so far.
        let kept = fs::read(&path).ok().and_then(|bytes| control::decode(&bytes).ok());
        let state = State {
            progress: kept.unwrap_or_default(),
            hurried: false,
            left: 0,
            records: 0,
            bytes: 0,
            pace: Pace::new(config.scrub.rate_mb_s << 20),
            random: Random::new(seed),
            foreground: 0,
        };
        Self { path, days: config.scrub.days.into(), state: Mutex::new(state) }
    }

    /// Begins to scrub and to restore.
    pub fn start(self: &Arc<Self>, node: &Arc<Node>) {
        let (this, of) = (self.clone(), node.clone());
        let builder = std::thread::Builder::new().name("ringdove-scrub".to_owned());
        builder.spawn(move || this.run(&of)).expect("a thread can be started at start");
        tokio::spawn(restore_always(node.clone()));
    }

    /// Begins a new pass, and goes through it as fast as the rate allows.
    pub fn now(&self) {
        let mut state = self.state();
        state.progress.done.clear();
        state.progress.began_ms = 0;
        state.hurried = true;
    }

    /// What `status` and metrics show.
    #[must_use]
    pub fn counters(&self, node: &Node) -> Vec<(String, u64)> {
        let state = self.state();
        let damage = node.store.damage();
        let ago = node.clock.now().wall.0.saturating_sub(state.progress.ended_ms);
        let rows = [
            ("records", state.records),
            ("bytes", state.bytes),
            ("passes", state.progress.passes),
            ("last_pass_ms", if state.progress.passes == 0 { 0 } else { ago }),
            ("partitions_left", state.left),
            ("damaged", damage.found_in_all()),
            ("restored", damage.mended_in_all()),
            ("waiting", damage.count() as u64),
            ("rebuild_due", u64::from(damage.awaits_rebuild())),
        ];
        rows.map(|(name, count)| (format!("scrub_{name}"), count)).into()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn run(&self, node: &Node) {
        while self.rest(node, LOOK_EVERY) {
            while let Some(partition) = self.due(node) {
                if !self.check(node, partition) {
                    return;
                }
            }
        }
    }

    /// The partition whose turn it is, if it is anybody's.
    fn due(&self, node: &Node) -> Option<Partition> {
        let now = node.clock.now().wall;
        let mine = partitions_of(node);
        let mut state = self.state();
        let State { progress, hurried, left, random, .. } = &mut *state;
        let waiting: Vec<u16> = mine.difference(&progress.done).copied().collect();
        *left = waiting.len() as u64;
        if (self.days == 0 && !*hurried) || mine.is_empty() {
            return None;
        }
        if progress.began_ms == 0 || progress.began_ms > now.0 {
            progress.began_ms = now.0;
        }
        if waiting.is_empty() {
            (progress.passes, progress.ended_ms) = (progress.passes + 1, now.0);
            *progress = Progress { began_ms: 0, done: BTreeSet::new(), ..progress.clone() };
            *hurried = false;
            tracing::info!(records = state.records, "a scrub has read everything here");
            self.keep(&state.progress);
            return None;
        }
        let gone = (mine.len() - waiting.len()) as u64;
        let due_ms = progress.began_ms + self.days * DAY_MS * gone / mine.len() as u64;
        if !*hurried && now < WallMs(due_ms) {
            return None;
        }
        Some(Partition(waiting[random.below(waiting.len() as u64) as usize]))
    }

    /// Reads a partition; returns whether to go on.
    fn check(&self, node: &Node, partition: Partition) -> bool {
        let mut go_on = |bytes: usize| {
            let wait = self.state().pace.take(node.clock.instant(), bytes);
            self.rest(node, wait)
        };
        let checked = match node.store.check(partition, &mut go_on) {
            Ok(None) => return false,
            Ok(Some(checked)) => checked,
            Err(StoreError::Fatal(why)) => committer::die(&why),
            // Its turn comes again in the next pass.
            Err(error) => {
                tracing::error!(%partition, %error, "a partition could not be scrubbed");
                Checked::default()
            }
        };
        if checked.damaged > 0 {
            let damaged = checked.damaged;
            tracing::error!(%partition, damaged, "the scrub has found damaged records; they are restored \
                from the other replicas. The disk may be failing");
        }
        if checked.recounted {
            tracing::warn!(%partition, "the trees were wrong and have been counted again");
        }
        let mut state = self.state();
        state.records += checked.records;
        state.bytes += checked.bytes;
        // A new pass may have been asked for meanwhile; then this partition is done already.
        state.progress.done.insert(partition.0);
        self.keep(&state.progress);
        true
    }

    /// Sleeps; returns whether the node is still at work.
    fn rest(&self, node: &Node, mut wait: Duration) -> bool {
        loop {
            let slice = wait.min(LOOK_EVERY);
            std::thread::sleep(slice);
            wait -= slice;
            if slice == LOOK_EVERY {
                self.observe(node);
            }
            if *node.draining.borrow() {
                return false;
            }
            if wait.is_zero() {
                return true;
            }
        }
    }

    /// Looks at how long clients wait.
    fn observe(&self, node: &Node) {
        let counters = node.counters();
        let done = counters.reads + counters.writes;
        let mut state = self.state();
        let is_idle = std::mem::replace(&mut state.foreground, done) == done;
        state.pace.observe(if is_idle { Duration::ZERO } else { node.p99() });
    }

    fn keep(&self, progress: &Progress) {
        if let Err(error) = self.write(progress) {
            tracing::warn!(%error, "how far the scrub is could not be kept");
        }
    }

    fn write(&self, progress: &Progress) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&control::encode(progress))?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

/// The partitions this node has a part in.
fn partitions_of(node: &Node) -> BTreeSet<u16> {
    let topology = node.topology();
    let counts: Vec<u8> = topology.counts().collect();
    let has_part = |partition: &u16| {
        let takes_part = |n: &u8| topology.participants(Partition(*partition), *n).contains(&node.id);
        counts.iter().any(takes_part)
    };
    (0..topology.partitions()).map(|partition| partition as u16).filter(has_part).collect()
}

/// Has restored what is damaged, whoever found it.
async fn restore_always(node: Arc<Node>) {
    let damage = node.store.damage();
    let mut told = 0;
    loop {
        match damage.count() {
            0 => damage.found().await,
            _ => drop(tokio::time::timeout(RESTORE_AGAIN, damage.found()).await),
        }
        let keys: Vec<StoredKey> = damage.keys().into_iter().collect();
        for keys in keys.chunks(RESTORED_AT_ONCE) {
            let reads = keys.iter().map(|key| tokio::spawn(restore(node.clone(), key.clone())));
            for read in reads.collect::<Vec<_>>() {
                let _ = read.await;
            }
        }
        let damaged = keys.len();
        let waiting = keys.iter().filter(|key| damage.contains(key)).count();
        if waiting == 0 {
            tracing::info!(damaged, "damaged records have been restored from the other replicas");
        } else if waiting != told {
            tracing::warn!(damaged, waiting, "damaged records wait for a replica that has them, or does not answer");
        }
        told = waiting;
    }
}

/// Reads a key from its owners. The read finds the damage, asks all others, and mends.
async fn restore(node: Arc<Node>, key: StoredKey) {
    let budget_ms = RESTORE_WITHIN.as_millis() as u32;
    let (r, pr) = (Level::Default, Level::Default);
    let get = Get { key: key.key(), r, pr, budget_ms, strict: false, trace: false };
    let _ = node.ask(Request::Get(get)).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(1);
    while node.store.damage().contains(&key) && tokio::time::Instant::now() < until {
        tokio::time::sleep(MENDED_AFTER).await;
    }
}
