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
use crate::time::Instant;
use crate::wire::control;
use crate::wire::messages::{ControlReply, Get, Level, Request};

/// The file's name within the data directory.
const FILE: &str = "scrub";
/// How long the thread sleeps at most before it looks around.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Records that are restored at once.
const RESTORED_AT_ONCE: usize = 64;
/// How long the read that restores a record may take.
const RESTORE_WITHIN: Duration = Duration::from_secs(10);
/// How long the write may take that such a read leads to, and how often it is looked for.
const MENDED_WITHIN: Duration = Duration::from_secs(1);
const MENDED_AFTER: Duration = Duration::from_millis(100);
/// How long to wait after a round in which something was not restored.
const RESTORE_AGAIN: Duration = Duration::from_secs(5);

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

/// What a pass is at.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is due.
    Rest,
    /// One of these.
    Read(Vec<u16>),
    /// The last one has been read.
    Ended,
}

impl Progress {
    fn left(&self, mine: &BTreeSet<u16>) -> Vec<u16> {
        mine.difference(&self.done).copied().collect()
    }

    /// Begins a pass where there is none. Of one that is to take so many days, partitions become due one
    /// after the other; without a number of days nothing does.
    fn turn(&mut self, now_ms: u64, mine: &BTreeSet<u16>, days: Option<u64>) -> Turn {
        let (Some(days), false) = (days, mine.is_empty()) else { return Turn::Rest };
        // A clock that was set back does not make everybody wait for it.
        if self.began_ms == 0 || self.began_ms > now_ms {
            self.began_ms = now_ms;
        }
        let left = self.left(mine);
        if left.is_empty() {
            let passes = self.passes + 1;
            *self = Self { began_ms: 0, done: BTreeSet::new(), passes, ended_ms: now_ms };
            return Turn::Ended;
        }
        let gone = (mine.len() - left.len()) as u64;
        let due_ms = self.began_ms + days * DAY_MS * gone / mine.len() as u64;
        if now_ms < due_ms { Turn::Rest } else { Turn::Read(left) }
    }
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
    observed: Instant,
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
            observed: Instant(0),
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
    pub fn now(&self) -> ControlReply {
        let mut state = self.state();
        state.progress.done.clear();
        state.progress.began_ms = 0;
        state.hurried = true;
        ControlReply::Ok
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
        while self.rest(node, LOOK_EVERY, false) {
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
        let State { progress, hurried, left, random, records, .. } = &mut *state;
        let days = if *hurried { Some(0) } else { (self.days > 0).then_some(self.days) };
        *left = progress.left(&mine).len() as u64;
        match progress.turn(now.0, &mine, days) {
            Turn::Rest => None,
            Turn::Read(waiting) => {
                let at = random.below(waiting.len() as u64) as usize;
                Some(Partition(waiting[at]))
            }
            Turn::Ended => {
                tracing::info!(records, "a scrub has read everything here");
                *hurried = false;
                self.keep(progress);
                None
            }
        }
    }

    /// Reads a partition; returns whether to go on.
    fn check(&self, node: &Node, partition: Partition) -> bool {
        let mut go_on = |bytes: usize| {
            let wait = self.state().pace.take(node.clock.instant(), bytes);
            self.rest(node, wait, true)
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
    fn rest(&self, node: &Node, mut wait: Duration, is_reading: bool) -> bool {
        loop {
            let slice = wait.min(LOOK_EVERY);
            std::thread::sleep(slice);
            wait -= slice;
            self.observe(node, is_reading);
            if *node.draining.borrow() {
                return false;
            }
            if wait.is_zero() {
                return true;
            }
        }
    }

    /// Once a second, looks at how long clients wait.
    fn observe(&self, node: &Node, is_reading: bool) {
        let now = node.clock.instant();
        let mut state = self.state();
        if now - state.observed < LOOK_EVERY {
            return;
        }
        state.observed = now;
        let counters = node.counters();
        let done = counters.reads + counters.writes;
        let is_idle = std::mem::replace(&mut state.foreground, done) == done;
        let p99 = if is_idle { Duration::ZERO } else { node.p99() };
        state.pace.observe(p99, is_reading);
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
    let scopes: Vec<_> = topology.state().slots.keys().copied().collect();
    let has_part = |partition: &u16| {
        let takes_part =
            |scope| topology.participants(Partition(*partition), scope).contains(&node.id);
        scopes.iter().copied().any(takes_part)
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
            tracing::warn!(
                damaged,
                waiting,
                "damaged records wait for a replica that has them, or does not answer"
            );
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
    let until = tokio::time::Instant::now() + MENDED_WITHIN;
    while node.store.damage().contains(&key) && tokio::time::Instant::now() < until {
        tokio::time::sleep(MENDED_AFTER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = DAY_MS;

    fn mine() -> BTreeSet<u16> {
        (0..8).collect()
    }

    #[test]
    fn a_pass_reads_every_partition_once_and_is_spread_over_its_days() {
        let (mut progress, mut read, mut ends) = (Progress::default(), Vec::new(), Vec::new());
        for hour in 0..24 * 20 {
            let now = DAY + hour * DAY / 24;
            match progress.turn(now, &mine(), Some(8)) {
                Turn::Rest => {}
                Turn::Read(left) => {
                    read.push((left[0], hour / 24));
                    progress.done.insert(left[0]);
                }
                Turn::Ended => ends.push(hour / 24),
            }
        }
        assert_eq!(read[..8], [0, 1, 2, 3, 4, 5, 6, 7].map(|n| (n, u64::from(n))));
        // The next one begins when the last partition has been read.
        assert_eq!((ends, read[8]), (vec![7, 14], (0, 7)));
        assert_eq!(progress.passes, 2);
    }

    #[test]
    fn a_pass_goes_on_after_a_restart_and_with_other_partitions() {
        let mut progress = Progress::default();
        progress.turn(DAY, &mine(), Some(8));
        progress.done.extend([1, 2, 3]);
        let mut progress: Progress = control::decode(&control::encode(&progress)).unwrap();
        assert_eq!(progress.turn(DAY, &mine(), Some(8)), Turn::Rest);
        // What would have been due meanwhile is due at once.
        let left = Turn::Read(vec![0, 4, 5, 6, 7]);
        assert_eq!(progress.turn(30 * DAY, &mine(), Some(8)), left);
        let others = (2..6).collect();
        assert_eq!(progress.turn(30 * DAY, &others, Some(8)), Turn::Read(vec![4, 5]));
        progress.done.extend([4, 5]);
        assert_eq!(progress.turn(30 * DAY, &others, Some(8)), Turn::Ended);
    }

    #[test]
    fn without_days_nothing_is_due_and_in_a_hurry_everything() {
        let mut progress = Progress::default();
        assert_eq!(progress.turn(DAY, &mine(), None), Turn::Rest);
        assert_eq!(progress.turn(DAY, &BTreeSet::new(), Some(0)), Turn::Rest);
        progress.done.insert(0);
        assert_eq!(progress.turn(DAY, &mine(), Some(0)), Turn::Read((1..8).collect()));
        // A clock that was set back.
        assert_eq!(progress.turn(5, &mine(), Some(0)), Turn::Read((1..8).collect()));
    }
}
