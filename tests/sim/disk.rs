//! A simulated disk: what is synced, what is on its way there, and what went wrong with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringdove::causality::{Dot, Object};
use ringdove::ids::{NodeId, Partition};
use ringdove::replica::{Input, Refusals};
use ringdove::store::memory::MemoryStore;
use ringdove::store::record::Record;
use ringdove::store::{Batch, Change, Entry, Imprint, Store, StoreError, StoredKey};
use ringdove::time::WallMs;

use crate::history::{Fact, Held, Time};
use crate::plan::{Bug, MS, SECOND};
use crate::world::{Event, World};

/// What a full disk says.
pub const NO_ROOM: &str = "no space left (simulated)";

/// A batch that a shard has given and the disk has not acknowledged.
pub struct Outstanding {
    pub shard: usize,
    pub batch: u64,
    /// The refusals that the shard had heard of when it was begun.
    pub refusals: u64,
    pub changes: Batch,
}

/// One node's disk. Outlives its processes.
#[derive(Default)]
pub struct Disk {
    pub synced: MemoryStore,
    /// In the order in which they were given, which is the order in which they take effect.
    pub outstanding: VecDeque<Outstanding>,
    /// How many of those the sync under way covers; 0 while none is.
    pub in_sync: usize,
    /// By shard, of this life of the node.
    pub refusals: BTreeMap<usize, Refusals>,
    pub corrupt: BTreeSet<StoredKey>,
    /// Commits are refused.
    pub full: bool,
    /// The node can see that there is no room.
    pub shows_full: bool,
    /// A batch was refused in this life of the node.
    pub refused: bool,
    /// Added to every access.
    pub slow: Time,
    pub backup: Option<MemoryStore>,
    /// Planted: trees hear of nothing.
    pub stale_leaves: bool,
}

impl Disk {
    pub fn read(&self, key: &StoredKey) -> Result<Option<bytes::Bytes>, StoreError> {
        if self.corrupt.contains(key) {
            return Err(StoreError::Corrupt("checksum mismatch (simulated)".to_owned()));
        }
        self.synced.read(key)
    }

    /// A page of what is kept for a member that is away.
    pub fn hints(
        &self,
        owner: NodeId,
        after: Option<&StoredKey>,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.synced.hints(owner, after, bytes)
    }

    /// Planted: what was listed is gone.
    pub fn forget_hints(&mut self, listed: &[Entry]) {
        let gone = |entry: &Entry| Change::fresh(entry.key.clone(), None, Imprint::NONE);
        self.apply(&Batch::of(listed.iter().map(gone).collect()));
    }

    /// What is remembered of reaped keys.
    pub fn graves(&self) -> Vec<Entry> {
        self.synced.graves().expect("memory never fails")
    }

    /// Keys of which nothing is shown from `until` on.
    pub fn faded(&self, partitions: u32, until: WallMs) -> Vec<StoredKey> {
        let page =
            |partition| self.synced.faded(Partition(partition as u16), until, None, usize::MAX);
        let pages = (0..partitions).flat_map(|partition| page(partition).expect("memory"));
        pages.map(|(_, key)| key).collect()
    }

    /// All that is kept, with the bytes of each record.
    pub fn all_hints(&self) -> Vec<(StoredKey, usize)> {
        let owners = self.synced.hint_owners().expect("memory never fails");
        let page = |owner| self.synced.hints(owner, None, usize::MAX).expect("memory never fails");
        let entries = owners.into_iter().flat_map(page);
        entries.map(|entry| (entry.key, entry.record.len())).collect()
    }

    /// Puts one batch on the platter.
    pub fn apply(&mut self, changes: &Batch) {
        for change in &changes.changes {
            self.corrupt.remove(&change.key);
        }
        let mut changes = changes.clone();
        if self.stale_leaves {
            for change in &mut changes.changes {
                change.before = Some(change.after);
            }
        }
        let written = self.synced.commit(&[changes]);
        written.expect("memory never fails");
    }

    /// The process or the power is gone: the first `survivors` batches made it.
    pub fn crash(&mut self, survivors: usize) -> Vec<Outstanding> {
        let kept: Vec<Outstanding> = self.outstanding.drain(..survivors).collect();
        self.outstanding.clear();
        self.in_sync = 0;
        self.refusals.clear();
        for batch in &kept {
            self.apply(&batch.changes);
        }
        kept
    }

    /// All keys, in order.
    pub fn keys(&self, partitions: u32) -> Vec<StoredKey> {
        let page = |partition| {
            let page = self.synced.page(Partition(partition as u16), None, usize::MAX);
            page.expect("memory never fails").into_iter().map(|entry| entry.key)
        };
        (0..partitions).flat_map(page).collect()
    }

    /// What stands under a key, damaged or not.
    pub fn held(&self, key: &StoredKey) -> Option<Held> {
        let record = self.synced.read(key).expect("memory never fails")?;
        let record = Record::decode(record).expect("the disk gives back what it was given");
        Some(held_in(&record, key))
    }

    /// Loses a record and its digest, and nobody is told.
    pub fn forget(&mut self, key: &StoredKey) {
        self.synced.lose(key);
    }
}

/// A record as the history shows it.
pub fn held_in(record: &Record, key: &StoredKey) -> Held {
    let object = Object::decode(record.object.clone()).expect("a shard writes sound objects");
    let live = object.siblings().iter().map(|s| (s.dot, s.write_id, s.hlc.0));
    Held { clock: object.clock().clone(), live: live.collect(), digest: object.digest(&key.key()) }
}

impl World {
    /// A shard gives its disk a batch.
    pub fn commit(
        &mut self,
        node: usize,
        shard: usize,
        (batch, refusals): (u64, u64),
        changes: Batch,
    ) {
        for change in &changes.changes {
            let Some(record) = change.record.clone() else {
                let what = if change.key.owner().is_some() { "drops a hint of" } else { "reaps" };
                self.note(format!("n{node} {what} {}", change.key.key()));
                let held = self.nodes[node].disk.held(&change.key);
                let agreed = self.reaped.get(&change.key);
                let covers = |held: Held| agreed.is_some_and(|agreed| agreed.covers(&held.clock));
                if change.key.owner().is_none() && !held.is_none_or(covers) {
                    let line = format!("n{node} drops {}, and nobody agreed", change.key.key());
                    self.history.stuck.push(line);
                }
                // The next dot that is made in its place is a new actor's.
                self.fact(Fact::NewActor { node });
                continue;
            };
            let record = Record::decode(record).expect("a shard writes sound records");
            let held = held_in(&record, &change.key);
            let dot = record.mint.map(|mint| Dot { actor: mint.actor, counter: mint.counter });
            let minted = dot.filter(|dot| {
                held.live.iter().any(|(live, ..)| live == dot)
                    && self.minted.insert((change.key.clone(), *dot))
            });
            let key = change.key.key().to_string();
            if let Some(owner) = change.key.owner() {
                let owner = self.number(owner).expect("hints are for members");
                self.note(format!("n{node} for n{owner}:"));
            }
            let what = match minted {
                Some(dot) => format!("mints {dot} in"),
                None => "changes".to_owned(),
            };
            let live: Vec<_> = held.live.iter().map(|(_, write, _)| *write).collect();
            let live = crate::history::named(&live);
            self.note(format!("n{node} {what} {key}: {live} {}", held.clock));
            if self.plan.bug == Some(Bug::OlderValue) && change.key.owner().is_none() {
                let entry = self.first_states.entry((node, change.key.clone()));
                entry.or_insert_with(|| record.object.clone());
            }
            self.fact(Fact::Staged { time: self.now, node, key, minted, held });
        }
        self.nodes[node].disk.outstanding.push_back(Outstanding {
            shard,
            batch,
            refusals,
            changes,
        });
        self.start_sync(node);
    }

    fn start_sync(&mut self, node: usize) {
        let delay = 200 + self.random.below(3 * MS);
        let rare = if self.random.chance(2) { self.random.below(80 * MS) } else { 0 };
        let process = self.nodes[node].process;
        let disk = &mut self.nodes[node].disk;
        if disk.in_sync > 0 || disk.outstanding.is_empty() {
            return;
        }
        disk.in_sync = disk.outstanding.len();
        let delay = delay + rare + disk.slow;
        self.after(delay, Event::Synced { node, process });
    }

    /// A sync is done: what it covered takes effect, and is answered for.
    pub fn synced(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        let count = std::mem::take(&mut disk.in_sync);
        let full = disk.full;
        let batches: Vec<Outstanding> = disk.outstanding.drain(..count).collect();
        if count > 0 {
            let now = self.now_at(node).instant;
            self.change_room(node, |room| match full {
                true => room.refused(now, NO_ROOM),
                false => room.committed(),
            });
        }
        let (mut refused, mut answers) = (BTreeSet::new(), Vec::new());
        for Outstanding { shard, batch, refusals, changes } in batches {
            self.nodes[node].disk.refused |= full;
            let before = self.nodes[node].disk.refusals.entry(shard).or_default();
            let founded = before.admits(refusals);
            let result = if full || !founded {
                if founded {
                    refused.insert(shard);
                }
                self.fact(Fact::NewActor { node });
                self.note(format!("n{node} batch {shard}.{batch} refused: disk full"));
                Err(StoreError::Full(NO_ROOM.to_owned()))
            } else {
                let lies = self.plan.bug == Some(Bug::LyingDisk) && self.random.chance(10);
                if !lies {
                    self.nodes[node].disk.apply(&changes);
                    self.stored(node, &changes);
                }
                Ok(())
            };
            answers.push((shard, Input::Committed { batch, result }));
        }
        for shard in refused {
            self.nodes[node].disk.refusals.entry(shard).or_default().refused();
        }
        for (shard, input) in answers {
            self.input(node, shard, input);
        }
        self.start_sync(node);
    }

    /// Changes stand on a disk now.
    pub fn stored(&mut self, node: usize, changes: &Batch) {
        for change in &changes.changes {
            let own = change.key.owner().is_none();
            if own && change.record.is_none() {
                let key = change.key.key().to_string();
                self.fact(Fact::Reaped { node, key });
            }
            let Some(record) = change.record.clone().filter(|_| own) else { continue };
            let record = Record::decode(record).expect("it was decoded before");
            let held = held_in(&record, &change.key);
            let deleted = Object::decode(record.object)
                .is_ok_and(|object| object.tombstones() == object.siblings().len());
            if deleted && self.plan.bug == Some(Bug::EarlyReaping) {
                let delay = 100 * MS + self.random.below(SECOND);
                self.after(delay, Event::Forget { node, key: change.key.clone() });
            }
            let key = change.key.key().to_string();
            self.fact(Fact::Stored { time: self.now, node, key, held });
        }
    }

    /// Planted: the record of a deleted key is forgotten before all replicas know of the deletion.
    pub fn forget_deleted(&mut self, node: usize, key: &StoredKey) {
        let held = self.nodes[node].disk.held(key);
        let Some(held) = held else { return };
        if held.live.len() == 1 {
            self.nodes[node].disk.forget(key);
            let key = key.key().to_string();
            self.note(format!("n{node} reaps {key}"));
            self.fact(Fact::Forgot { node, key: Some(key) });
        }
    }
}
