//! What is kept for members that are away: how much, since when, and where it had to be let go.
//!
//! A hint is the merged object of one key, kept for one member of the key's slots until that member
//! has it. Hints are bounded in bytes, by member and in all. At the bound nobody's write is
//! refused: the hint is not kept, which is counted, and the partition is marked for that member, so
//! that whoever compares replicas knows where to look.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{NodeId, Partition};
use crate::store::StoredKey;
use crate::time::WallMs;

/// What is kept for one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintTally {
    /// Keys.
    pub count: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Since when there has been something, by the wall clock: nothing that is there was kept
    /// before. Says nothing where there is nothing.
    pub since: WallMs,
    /// Partitions of which hints had to be let go.
    pub dirty_partitions: u64,
    /// Hints delivered to it in the last whole second, or in this one if those are more already.
    pub rate: u64,
}

impl HintTally {
    /// Adds what another shard keeps for the same member.
    pub fn add(&mut self, other: &Self) {
        self.since = match (self.count, other.count) {
            (0, _) => other.since,
            (_, 0) => self.since,
            _ => self.since.min(other.since),
        };
        self.count += other.count;
        self.bytes += other.bytes;
        self.dirty_partitions += other.dirty_partitions;
        self.rate += other.rate;
    }
}

/// Deliveries, second by second.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    second: u64,
    count: u64,
    last: u64,
}

impl Rate {
    fn add(&mut self, now: WallMs) {
        self.turn(now);
        self.count += 1;
    }

    fn turn(&mut self, now: WallMs) {
        let second = now.0 / 1000;
        if second != self.second {
            self.last = if second == self.second + 1 { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
    }
}

/// What a shard keeps for others.
#[derive(Debug, Default)]
pub(super) struct Hints {
    by_owner: BTreeMap<NodeId, HintTally>,
    bytes: u64,
    most_bytes_by_owner: u64,
    most_bytes: u64,
    dirty: BTreeSet<(NodeId, Partition)>,
    rates: BTreeMap<NodeId, Rate>,
    /// By batch: how to take a change back if it was not committed.
    staged: BTreeMap<u64, Vec<(NodeId, u64, u64)>>,
    /// How often something was counted.
    changes: u64,
}

impl Hints {
    pub(super) fn new(most_bytes_by_owner: u64, most_bytes: u64) -> Self {
        Self { most_bytes_by_owner, most_bytes, ..Self::default() }
    }

    /// Whether a record of `before` bytes may become one of `after`.
    pub(super) fn has_room(&self, owner: NodeId, before: usize, after: usize) -> bool {
        let grows = after.saturating_sub(before) as u64;
        let kept = self.by_owner.get(&owner).map_or(0, |tally| tally.bytes);
        grows == 0
            || (kept + grows <= self.most_bytes_by_owner && self.bytes + grows <= self.most_bytes)
    }

    /// A hint had to be let go. Returns whether that is news for its partition.
    pub(super) fn mark(&mut self, key: &StoredKey, owner: NodeId) -> bool {
        self.dirty.insert((owner, key.partition()))
    }

    /// A record was staged in `batch`; it had `before` bytes, and has `after` now. None has 0.
    pub(super) fn staged(
        &mut self,
        batch: u64,
        owner: NodeId,
        (before, after): (usize, usize),
        now: WallMs,
    ) {
        let (before, after) = (before as u64, after as u64);
        self.count(owner, before, after, now);
        self.staged.entry(batch).or_default().push((owner, before, after));
    }

    fn count(&mut self, owner: NodeId, before: u64, after: u64, now: WallMs) {
        self.changes += 1;
        let tally = self.by_owner.entry(owner).or_default();
        if tally.count == 0 {
            tally.since = now;
        }
        tally.count = (tally.count + u64::from(after > 0)).saturating_sub(u64::from(before > 0));
        tally.bytes = (tally.bytes + after).saturating_sub(before);
        self.bytes = (self.bytes + after).saturating_sub(before);
        if tally.count == 0 {
            self.by_owner.remove(&owner);
        }
    }

    /// A batch was committed, or, if not, what it changed never happened.
    pub(super) fn settled(&mut self, batch: u64, committed: bool, now: WallMs) {
        for (owner, before, after) in self.staged.remove(&batch).unwrap_or_default() {
            if !committed {
                self.count(owner, after, before, now);
            }
        }
    }

    /// A hint has reached its owner.
    pub(super) fn delivered(&mut self, owner: NodeId, now: WallMs) {
        self.rates.entry(owner).or_default().add(now);
    }

    /// A hint that was found on the disk at the start.
    pub(super) fn found(&mut self, owner: NodeId, bytes: usize, kept: WallMs) {
        self.count(owner, 0, bytes as u64, kept);
        if let Some(tally) = self.by_owner.get_mut(&owner) {
            tally.since = tally.since.min(kept);
        }
    }

    /// The members something is kept for, once all that was staged is committed.
    pub(super) fn owners(&self) -> impl Iterator<Item = NodeId> {
        self.by_owner.keys().copied()
    }

    /// The members something is kept for on the disk, or may be: what was staged may be refused.
    pub(super) fn possible_owners(&self) -> BTreeSet<NodeId> {
        let staged = self.staged.values().flatten().map(|(owner, ..)| *owner);
        self.owners().chain(staged).collect()
    }

    /// A number that differs from what it was before if anything was counted since; none while
    /// something is staged.
    pub(super) fn at_rest(&self) -> Option<u64> {
        self.staged.is_empty().then_some(self.changes)
    }

    /// All that the disk keeps has been listed, and nothing of it is for `owner`. More was counted where
    /// a damaged hint was written anew: what it was is not known.
    pub(super) fn none_found(&mut self, owner: NodeId) {
        if let Some(tally) = self.by_owner.remove(&owner) {
            self.bytes = self.bytes.saturating_sub(tally.bytes);
        }
    }

    /// What is kept, by member.
    pub(super) fn tallies(&self, now: WallMs) -> BTreeMap<NodeId, HintTally> {
        let mut tallies = self.by_owner.clone();
        for (owner, _) in &self.dirty {
            tallies.entry(*owner).or_default().dirty_partitions += 1;
        }
        for (owner, tally) in &mut tallies {
            let mut rate = self.rates.get(owner).copied().unwrap_or_default();
            rate.turn(now);
            tally.rate = rate.last.max(rate.count);
        }
        tallies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: NodeId = NodeId(7);

    #[test]
    fn counts_follow_what_is_staged_and_go_back_where_it_was_not_committed() {
        let mut hints = Hints::new(1000, 1000);
        hints.staged(1, OWNER, (0, 100), WallMs(5));
        hints.staged(1, OWNER, (0, 50), WallMs(6));
        hints.staged(2, OWNER, (100, 120), WallMs(7));
        hints.settled(1, true, WallMs(8));
        hints.settled(2, false, WallMs(8));
        let tally = hints.tallies(WallMs(0))[&OWNER];
        assert_eq!((tally.count, tally.bytes, tally.since), (2, 150, WallMs(5)));
        hints.staged(3, OWNER, (100, 0), WallMs(9));
        hints.staged(3, OWNER, (50, 0), WallMs(9));
        assert!(hints.tallies(WallMs(0)).is_empty());
        assert_eq!(hints.bytes, 0);
    }

    #[test]
    fn what_is_to_be_deleted_may_still_be_there_until_that_is_committed() {
        let mut hints = Hints::new(1000, 1000);
        hints.staged(1, OWNER, (0, 100), WallMs(0));
        hints.settled(1, true, WallMs(0));
        hints.staged(2, OWNER, (100, 0), WallMs(0));
        assert_eq!((hints.owners().count(), hints.possible_owners().len()), (0, 1));
        assert_eq!(hints.at_rest(), None);
        hints.settled(2, true, WallMs(0));
        assert!(hints.possible_owners().is_empty() && hints.at_rest().is_some());
    }

    #[test]
    fn at_the_bound_there_is_no_room_and_what_is_there_may_still_shrink_or_stay() {
        let mut hints = Hints::new(100, 150);
        hints.staged(1, OWNER, (0, 90), WallMs(0));
        assert!(!hints.has_room(OWNER, 0, 11) && hints.has_room(OWNER, 0, 10));
        assert!(hints.has_room(OWNER, 90, 90) && hints.has_room(OWNER, 90, 10));
        assert!(!hints.has_room(NodeId(8), 0, 61), "the bound of all");
    }
}
