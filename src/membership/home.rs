//! By which slots a bucket is kept, and how it moves to others when its replica count changes.
//!
//! ```text
//!   at home ──commit──▶ moving, partition by partition                        ──▶ at home
//!                         arriving   read by the old slots, written to both
//!                         arrived    read by the new slots, written to both
//!   old slots                                                                    new slots only
//! ```
//!
//! A partition has *arrived* when each of its new slots has had an owner: whoever becomes the first
//! owner of one has copied everything that the owners of the old slots had. Versions of slots only
//! rise, so that never becomes untrue. When all partitions have arrived, every serving node notes,
//! durably, that it goes by that; when all have, nobody answers for the old slots any more, and the
//! bucket is at home in the new ones. Nobody has to agree on any of these steps: each follows from
//! the state, and whoever sees it makes it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::slots::SlotTable;
use super::{ClusterState, Owner, Register};
use crate::ids::{NodeId, Scope};
use crate::wire::control;
use crate::wire::messages::BucketSettings;

/// One bucket: three registers that merge each on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketEntry {
    /// Rises with each change of the settings.
    pub version: u64,
    /// Its settings. `n` is always that of `home.scope`.
    pub settings: BucketSettings,
    /// By which slots it is kept.
    pub home: Home,
    /// The replica count that is staged for it.
    pub planned: Register<Option<u8>>,
}

/// By which slots a bucket is kept, and where it is moving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Rises with each change of `scope` or `next`.
    pub version: u32,
    /// Its slots, or those that it is leaving.
    pub scope: Scope,
    /// Where it is moving.
    pub next: Option<Scope>,
    /// Who goes by all partitions having arrived in `next`: a set that only grows, until the next
    /// version.
    pub noted: BTreeSet<NodeId>,
}

impl BucketEntry {
    /// A bucket in the slots that are shared by all of its replica count.
    #[must_use]
    pub fn new(settings: BucketSettings) -> Self {
        let (scope, next, noted) = (Scope::from(settings.n), None, BTreeSet::new());
        let home = Home { version: 1, scope, next, noted };
        Self { version: 1, settings, home, planned: Register::default() }
    }

    /// Takes over what `other` knows better. Returns whether anything changed.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let before = self.settings;
        // The replica count is the home's, and no part of what is compared.
        let rank = |entry: &Self| (entry.version, BucketSettings { n: 0, ..entry.settings });
        let newer = rank(other) > rank(self);
        if newer {
            (self.version, self.settings) = (other.version, other.settings);
        }
        let moved = self.home.merge(&other.home);
        self.settings.n = self.home.scope.n;
        newer | moved | (self.settings != before) | self.planned.merge(&other.planned)
    }

    /// The largest count of replicas it has, moves to, or is planned to have.
    pub(super) fn widest(&self) -> u8 {
        let next = self.home.next.map(|next| next.n);
        [next, self.planned.value].into_iter().flatten().fold(self.settings.n, u8::max)
    }

    pub(super) fn epoch(&self) -> u64 {
        let home = u64::from(self.home.version) + self.home.noted.len() as u64;
        self.version + home + u64::from(self.planned.version)
    }
}

impl Home {
    /// Whether the bucket goes by `scope`, or moves there.
    #[must_use]
    pub fn names(&self, scope: Scope) -> bool {
        self.scope == scope || self.next == Some(scope)
    }

    fn merge(&mut self, other: &Self) -> bool {
        let rank = |home: &Self| (home.version, home.scope, home.next);
        match rank(other).cmp(&rank(self)) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                let before = self.noted.len();
                self.noted.extend(&other.noted);
                self.noted.len() > before
            }
            std::cmp::Ordering::Greater => {
                self.clone_from(other);
                true
            }
        }
    }
}

impl ClusterState {
    /// Begins to move a bucket to slots for `n` replicas, none of which has an owner yet. The same
    /// move that is begun twice, on two sides of a network partition, is one.
    pub(super) fn begin_move(&mut self, name: &str, n: u8) {
        let Some(entry) = self.buckets.get_mut(name) else { return };
        if entry.home.next.is_some() || entry.settings.n == n {
            return;
        }
        entry.home.version += 1;
        let number = xxh3_64(&control::encode(&(name, entry.home.version))).max(1);
        let scope = Scope { n, number };
        entry.home.next = Some(scope);
        let slots = self.partitions as usize * usize::from(n);
        let nobody = vec![Owner::default(); slots];
        self.slots.insert(scope, SlotTable::new(0, n, nobody));
    }

    /// Whether every partition of a bucket has arrived where it is moving.
    #[must_use]
    pub fn has_arrived(&self, home: &Home) -> bool {
        let table = home.next.and_then(|next| self.slots.get(&next));
        table.is_some_and(|table| table.all().iter().all(|owner| owner.version > 0))
    }

    /// What `me`, which goes by this state with all of its shards, can do for buckets that move:
    /// note that all partitions have arrived, and, when everybody has, end the move. Returns
    /// whether anything changed.
    ///
    /// Everybody who serves must have noted it, and who does not serve owns no slot: whoever becomes
    /// an owner later learns of the slot from a state that contains the arrival.
    pub fn advance(&mut self, me: NodeId) -> bool {
        let serving: BTreeSet<NodeId> = self.serving().map(|(id, _)| id).collect();
        let moving = self.buckets.iter().filter(|(_, entry)| self.has_arrived(&entry.home));
        let moving: Vec<String> = moving.map(|(name, _)| name.clone()).collect();
        let mut changed = false;
        for name in moving {
            let Some(entry) = self.buckets.get_mut(&name) else { continue };
            changed |= serving.contains(&me) && entry.home.noted.insert(me);
            let Some(next) = entry.home.next.filter(|_| serving.is_subset(&entry.home.noted))
            else {
                continue;
            };
            // What falls out of the sum of versions is made up for, so that it never falls.
            let left = self.slots.get(&entry.home.scope).filter(|_| entry.home.scope.number > 0);
            let gone = left.map_or(0, SlotTable::epoch) + entry.home.noted.len() as u64;
            let gone = u32::try_from(gone).unwrap_or(u32::MAX);
            let version = entry.home.version.saturating_add(gone).saturating_add(1);
            entry.home = Home { version, scope: next, next: None, noted: BTreeSet::new() };
            entry.settings.n = next.n;
            changed = true;
        }
        self.drop_unused_slots();
        changed
    }
}
