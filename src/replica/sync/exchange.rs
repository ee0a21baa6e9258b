//! One comparison of one tree, from its leaves down to the keys that differ.
//!
//! ```text
//!   Leaves ──▶ Branches ──▶ Marks ──▶ (a pause) ──▶ Names ──▶ objects, both ways
//!      ▲          └─ some leaves at a time                          │
//!      └────────────────────────────────────────────────────────────┘
//! ```
//!
//! Of what differs at the first look most is merely on its way from one owner to another. So marks
//! that differ are looked at again after a pause. What has arrived in between is the same in both. A
//! mark that nobody has any more was of a record that has changed at both ends: whether those agree
//! now is seen by comparing its branch again, some times at most. A key that never rests leaves the
//! exchange *unsettled*: nothing was found to mend, and nothing is proven either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::ids::NodeId;
use crate::wire::sync::{
    Branches, Mark, Named, SyncReply, SyncRequest, TreeId, branch_sums, differing_leaves,
    unpack_sums,
};
use crate::wire::transfer::{Blob, PageEntry};

/// Leaves that are looked into with one question.
const LEAVES_AT_ONCE: usize = 32;
/// Branches that are looked into with one question.
const BRANCHES_AT_ONCE: usize = 1024;
/// Marks that are looked at again together. When there are more, the rest comes after these.
const MARKS_AT_ONCE: usize = 8192;
/// How often branches of records that keep changing are compared again.
const LOOKS_MOST: u32 = 6;
/// Objects that are asked for, or given, together.
const OBJECTS_AT_ONCE: usize = 256;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the peer and this node's own store.
    Compare(SyncRequest),
    /// Let what is on its way arrive, then call [`Exchange::awake`].
    Settle,
    /// Ask the peer for these objects, or the first of them, merge them, then call
    /// [`Exchange::merged`].
    Fetch(Vec<Blob>),
    /// Read these objects here, or the first of them, give the peer [`Exchange::news`], then call
    /// [`Exchange::pushed`].
    Push(Vec<Blob>),
    /// The tree has been compared.
    Done,
    /// An answer made no sense.
    Confused,
}

#[derive(Debug)]
enum Stage {
    Leaves,
    Branches(Vec<u8>),
    Marks(Vec<(u8, u8)>),
    Settling,
    Names(Vec<Mark>),
    Moving,
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) peer: NodeId,
    pub(super) tree: TreeId,
    salt: u64,
    stage: Stage,
    /// Leaves and branches that are still to be looked into.
    leaves: VecDeque<u8>,
    branches: VecDeque<(u8, u8)>,
    /// Marks that one side has and the other has not.
    ours: BTreeSet<Mark>,
    theirs: BTreeSet<Mark>,
    fetch: VecDeque<Bytes>,
    push: VecDeque<Bytes>,
    /// The marks of keys that wait to be moved.
    waiting: BTreeMap<Bytes, Vec<Mark>>,
    /// What the peer has of keys that were fetched: what this node has after the merge goes back,
    /// unless it is the same.
    fetched: BTreeMap<Bytes, u128>,
    /// Leaves differed, at all.
    pub(super) differed: bool,
    /// A mark differed, at all.
    pub(super) found: bool,
    /// Something was to be moved when its turn came; and how many keys were.
    pub(super) has_moved: bool,
    pub(super) repaired: u64,
    looks: u32,
    /// Some keys changed at every look.
    pub(super) unsettled: bool,
}

/// How many of the first names in `queue` are done with: up to the last that `entries` has. The rest did
/// not fit, or is not there any more.
fn moved(queue: &VecDeque<Bytes>, entries: &[PageEntry]) -> usize {
    let asked = queue.len().min(OBJECTS_AT_ONCE);
    let last = entries.last().map(|entry| entry.key.name_bytes());
    let last = last.and_then(|last| queue.iter().take(asked).position(|name| *name == last));
    last.map_or(asked, |last| last + 1)
}

impl Exchange {
    pub(super) fn begin(peer: NodeId, tree: TreeId, salt: u64) -> (Self, Step) {
        let first = Step::Compare(SyncRequest::Leaves(tree.clone()));
        let this = Self {
            peer,
            tree,
            salt,
            stage: Stage::Leaves,
            leaves: VecDeque::new(),
            branches: VecDeque::new(),
            ours: BTreeSet::new(),
            theirs: BTreeSet::new(),
            fetch: VecDeque::new(),
            push: VecDeque::new(),
            waiting: BTreeMap::new(),
            fetched: BTreeMap::new(),
            differed: false,
            found: false,
            has_moved: false,
            repaired: 0,
            looks: 0,
            unsettled: false,
        };
        (this, first)
    }

    /// Both answers to [`Step::Compare`] are there.
    pub(super) fn compared(&mut self, ours: SyncReply, theirs: SyncReply) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Moving);
        let understood = match (stage, ours, theirs) {
            (Stage::Leaves, SyncReply::Leaves(ours), SyncReply::Leaves(theirs)) => {
                differing_leaves(&ours, &theirs).map(|leaves| {
                    self.differed = !leaves.is_empty();
                    self.leaves = leaves.into();
                })
            }
            (Stage::Branches(asked), SyncReply::Branches(ours), SyncReply::Branches(theirs)) => {
                self.branches(&asked, &ours, &theirs)
            }
            (Stage::Marks(asked), SyncReply::Marks(ours), SyncReply::Marks(theirs)) => {
                self.marks(&asked, &ours, &theirs)
            }
            (
                Stage::Names(asked),
                SyncReply::Names(ours, here),
                SyncReply::Names(theirs, there),
            ) => {
                let (looked, rest) = asked.split_at(asked.len().min(here.min(there) as usize));
                // The others are looked at after the next pause.
                self.ours.extend(rest);
                match looked.is_empty() && !rest.is_empty() {
                    true => None,
                    false => self.names(looked, &ours, &theirs),
                }
            }
            _ => None,
        };
        if understood.is_none() { Step::Confused } else { self.next() }
    }

    /// A pause is over.
    pub(super) fn awake(&mut self) -> Step {
        match self.stage {
            Stage::Settling => self.look_again(),
            _ => self.next(),
        }
    }

    /// What was to be moved has waited for its turn: by now it may be in both. Looks again.
    pub(super) fn look_at_waiting(&mut self) -> Step {
        let names: Vec<Bytes> = self.fetch.drain(..).chain(self.push.drain(..)).collect();
        let marks = names.iter().filter_map(|name| self.waiting.remove(name)).flatten().collect();
        self.waiting.clear();
        self.fetched.clear();
        self.look_at(marks)
    }

    fn look_again(&mut self) -> Step {
        let mut marks = std::mem::take(&mut self.ours);
        marks.append(&mut self.theirs);
        self.look_at(marks)
    }

    fn look_at(&mut self, marks: BTreeSet<Mark>) -> Step {
        let marks: Vec<Mark> = marks.into_iter().collect();
        self.stage = Stage::Names(marks.clone());
        Step::Compare(SyncRequest::Names { tree: self.tree.clone(), salt: self.salt, marks })
    }

    /// The peer has sent these of the objects that were asked for; they are merged.
    pub(super) fn merged(&mut self, entries: &[PageEntry]) -> Step {
        for name in self.fetch.drain(..moved(&self.fetch, entries)) {
            self.push.push_back(name);
        }
        self.has_moved = true;
        self.repaired += entries.len() as u64;
        let digests = entries.iter().map(|entry| (entry.key.name_bytes(), entry.digest));
        self.fetched.extend(digests);
        self.next()
    }

    /// Of the objects that were read here, those the peer has not.
    pub(super) fn news(&mut self, entries: Vec<PageEntry>) -> Vec<PageEntry> {
        let _ = self.push.drain(..moved(&self.push, &entries));
        self.has_moved = true;
        let is_news = |entry: &PageEntry| match self.fetched.remove(&entry.key.name_bytes()) {
            Some(theirs) => theirs != entry.digest,
            None => {
                self.repaired += 1;
                true
            }
        };
        entries.into_iter().filter(is_news).collect()
    }

    /// The peer has merged what was given to it, or there was nothing to give. Of some keys it has more.
    pub(super) fn pushed(&mut self, more: impl Iterator<Item = Bytes>) -> Step {
        let before = self.fetch.len();
        self.fetch.extend(more);
        // They are counted when they come.
        self.repaired = self.repaired.saturating_sub((self.fetch.len() - before) as u64);
        self.next()
    }

    /// Of so many keys that have just moved, some were not repaired: which is not known.
    pub(super) fn not_repaired(&mut self, keys: usize) {
        self.repaired = self.repaired.saturating_sub(keys as u64);
    }

    /// Whether it does nothing now but let what is on its way arrive.
    pub(super) fn is_settling(&self) -> bool {
        matches!(self.stage, Stage::Settling)
    }

    fn next(&mut self) -> Step {
        let (tree, salt) = (self.tree.clone(), self.salt);
        let objects = |queue: &VecDeque<Bytes>| {
            queue.iter().take(OBJECTS_AT_ONCE).cloned().map(Blob).collect()
        };
        if !self.fetch.is_empty() {
            return Step::Fetch(objects(&self.fetch));
        }
        if !self.push.is_empty() {
            return Step::Push(objects(&self.push));
        }
        let is_full = self.ours.len() + self.theirs.len() >= MARKS_AT_ONCE;
        if !is_full && !self.branches.is_empty() {
            let most = BRANCHES_AT_ONCE.min(self.branches.len());
            let branches: Vec<(u8, u8)> = self.branches.drain(..most).collect();
            self.stage = Stage::Marks(branches.clone());
            return Step::Compare(SyncRequest::Marks { tree, salt, branches });
        }
        if !is_full && !self.leaves.is_empty() {
            let most = LEAVES_AT_ONCE.min(self.leaves.len());
            let leaves: Vec<u8> = self.leaves.drain(..most).collect();
            self.stage = Stage::Branches(leaves.clone());
            return Step::Compare(SyncRequest::Branches { tree, salt, leaves });
        }
        if !self.ours.is_empty() || !self.theirs.is_empty() {
            self.stage = Stage::Settling;
            return Step::Settle;
        }
        Step::Done
    }

    fn branches(&mut self, asked: &[u8], ours: &[Branches], theirs: &[Branches]) -> Option<()> {
        if ours.len() != asked.len() || theirs.len() != asked.len() {
            return None;
        }
        for ((leaf, ours), theirs) in asked.iter().zip(ours).zip(theirs) {
            if let (Branches::Marks(ours), Branches::Marks(theirs)) = (ours, theirs) {
                let (ours, theirs) = (Mark::unpack(*leaf, ours)?, Mark::unpack(*leaf, theirs)?);
                self.differing(&ours, &theirs);
                continue;
            }
            let sums = |branches: &Branches| match branches {
                Branches::Sums(sums) => unpack_sums(sums),
                Branches::Marks(marks) => Some(branch_sums(&Mark::unpack(*leaf, marks)?)),
            };
            let (ours, theirs) = (sums(ours)?, sums(theirs)?);
            let pairs = (0..=u8::MAX).zip(ours.iter().zip(&theirs));
            let differing = pairs.filter(|(_, (ours, theirs))| ours != theirs);
            self.branches.extend(differing.map(|(branch, _)| (*leaf, branch)));
        }
        Some(())
    }

    fn marks(&mut self, asked: &[(u8, u8)], ours: &[Blob], theirs: &[Blob]) -> Option<()> {
        if ours.len() != asked.len() || theirs.len() != asked.len() {
            return None;
        }
        for (((leaf, _), ours), theirs) in asked.iter().zip(ours).zip(theirs) {
            let (ours, theirs) = (Mark::unpack(*leaf, ours)?, Mark::unpack(*leaf, theirs)?);
            self.differing(&ours, &theirs);
        }
        Some(())
    }

    fn differing(&mut self, ours: &[Mark], theirs: &[Mark]) {
        let (ours, theirs): (BTreeSet<Mark>, BTreeSet<Mark>) =
            (ours.iter().copied().collect(), theirs.iter().copied().collect());
        self.ours.extend(ours.difference(&theirs));
        self.theirs.extend(theirs.difference(&ours));
        self.found |= !self.ours.is_empty() || !self.theirs.is_empty();
    }

    /// What both sides still have of the marks that differed: who has what the other has not, and
    /// which way it goes.
    fn names(&mut self, asked: &[Mark], ours: &[Named], theirs: &[Named]) -> Option<()> {
        // One side may have looked at more than the other.
        let in_range = |named: &&Named| (named.at as usize) < asked.len();
        let ours: Vec<&Named> = ours.iter().filter(in_range).collect();
        let theirs: Vec<&Named> = theirs.iter().filter(in_range).collect();
        // By key: when the youngest sibling was written, here and there.
        let mut keys: BTreeMap<&Bytes, (Option<u64>, Option<u64>)> = BTreeMap::new();
        let (at_ours, at_theirs): (BTreeSet<u32>, BTreeSet<u32>) =
            (ours.iter().map(|n| n.at).collect(), theirs.iter().map(|n| n.at).collect());
        let is_gone = |at: &u32| !at_ours.contains(at) && !at_theirs.contains(at);
        let gone = (0..asked.len() as u32).filter(is_gone).map(|at| asked[at as usize]);
        let changed: BTreeSet<(u8, u8)> = gone.map(|mark| (mark.leaf, mark.branch)).collect();
        if !changed.is_empty() {
            self.looks += 1;
            match self.looks <= LOOKS_MOST {
                true => self.branches.extend(changed),
                false => self.unsettled = true,
            }
        }
        for named in ours.iter().filter(|named| !at_theirs.contains(&named.at)) {
            keys.entry(&named.name.0).or_default().0 = Some(named.latest);
            self.waiting.entry(named.name.0.clone()).or_default().push(asked[named.at as usize]);
        }
        for named in theirs.iter().filter(|named| !at_ours.contains(&named.at)) {
            keys.entry(&named.name.0).or_default().1 = Some(named.latest);
            self.waiting.entry(named.name.0.clone()).or_default().push(asked[named.at as usize]);
        }
        for (name, latest) in keys {
            // Where both have something, whoever seems to have the younger gives it first.
            match latest {
                (Some(ours), Some(theirs)) if ours < theirs => self.fetch.push_back(name.clone()),
                (None, _) => self.fetch.push_back(name.clone()),
                _ => self.push.push_back(name.clone()),
            }
        }
        Some(())
    }
}
