//! What two owners of a partition say to each other to find out where they differ.
//!
//! Each question has the same meaning at both ends: whoever asks answers it from its own store as
//! well, and goes on where the two answers differ.
//!
//! ```text
//!   Roots      64 partitions   ->  16 bytes each: which of them differ?
//!   Trees      a partition     ->  16 bytes for each bucket
//!   Leaves     a bucket        ->  8 bytes for each of 256 leaves
//!   Branches   some leaves     ->  4 bytes for each of 256 branches; a short leaf's marks at once
//!   Marks      some branches   ->  5 bytes for each key
//!   Names      some marks      ->  the keys they are of, as far as they still are
//!   Objects    some keys       ->  objects; and Take gives the other side objects
//! ```
//!
//! Below the leaves everything is computed from digests mixed with the *salt* of the exchange: where two
//! short sums are equal by accident, the next exchange has another salt.

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::transfer::Blob;
use crate::ids::{NodeId, Partition, Scope};
use crate::limits::TREE_LEAVES as LEAVES;

/// Bytes of a leaf's sum on the wire: the lower half.
const LEAF_BYTES: usize = 8;
/// Bytes of a mark.
const MARK_BYTES: usize = 4;

/// Names one tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TreeId {
    /// The partition.
    pub partition: Partition,
    /// The bucket.
    pub bucket: String,
}

/// A partition, as far as two nodes both own it: the buckets that are read by these slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The partition.
    pub partition: Partition,
    /// Scopes, ascending.
    pub scopes: Vec<Scope>,
    /// How far buckets are that move to these slots or from them: which buckets are read by them. Whoever
    /// goes by another state of it answers that it cannot tell.
    pub moves: u64,
}

/// Short for a key and its version, under the salt of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The leaf it stands in.
    pub leaf: u8,
    /// The branch of the leaf.
    pub branch: u8,
    /// The lower bits of the mixed digest.
    pub bits: u32,
}

impl Mark {
    /// The mark of the record at `place` with this digest.
    #[must_use]
    pub fn of(place: u64, digest: u128, salt: u64) -> Self {
        let [leaf, branch, ..] = place.to_be_bytes();
        Self { leaf, branch, bits: xxh3_64_with_seed(&digest.to_le_bytes(), salt) as u32 }
    }

    /// Bytes of marks of one leaf: branch and bits of each.
    #[must_use]
    pub fn pack(marks: &[Self]) -> Blob {
        let mut out = BytesMut::with_capacity(marks.len() * (1 + MARK_BYTES));
        for mark in marks {
            out.extend_from_slice(&[mark.branch]);
            out.extend_from_slice(&mark.bits.to_le_bytes());
        }
        Blob(out.freeze())
    }

    /// Reads back what [`Mark::pack`] gave; `None` where the bytes are no marks.
    #[must_use]
    pub fn unpack(leaf: u8, blob: &Blob) -> Option<Vec<Self>> {
        let marks = blob.0.chunks(1 + MARK_BYTES).map(|chunk| {
            let (branch, bits) = chunk.split_first()?;
            let bits = u32::from_le_bytes(bits.try_into().ok()?);
            Some(Self { leaf, branch: *branch, bits })
        });
        marks.collect()
    }
}

/// What one owner asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// The sums of partitions.
    Roots(Vec<Shared>),
    /// The sums of a partition's buckets.
    Trees(Shared),
    /// The leaves of a tree.
    Leaves(TreeId),
    /// The branches of some leaves.
    Branches {
        /// The tree.
        tree: TreeId,
        /// The salt of the exchange.
        salt: u64,
        /// The leaves.
        leaves: Vec<u8>,
    },
    /// The marks in some branches.
    Marks {
        /// The tree.
        tree: TreeId,
        /// The salt of the exchange.
        salt: u64,
        /// Leaf and branch.
        branches: Vec<(u8, u8)>,
    },
    /// Which of these marks stand for a record now, and of what key.
    Names {
        /// The tree.
        tree: TreeId,
        /// The salt of the exchange.
        salt: u64,
        /// The marks, ascending.
        marks: Vec<Mark>,
    },
    /// The objects of these keys: as many of the first as make up a page.
    Objects {
        /// The tree.
        tree: TreeId,
        /// Keys within their bucket.
        names: Vec<Blob>,
        /// About how many bytes a page may have.
        most: u32,
    },
    /// Merge these objects.
    Take {
        /// The body of a page ([`super::transfer::entries`]).
        body: Blob,
    },
}

impl SyncRequest {
    /// The partition that whoever asks this is mending; none where it only compares roots.
    #[must_use]
    pub fn mends(&self) -> Option<Partition> {
        match self {
            Self::Roots(_) | Self::Take { .. } => None,
            Self::Trees(shared) => Some(shared.partition),
            Self::Leaves(tree)
            | Self::Branches { tree, .. }
            | Self::Marks { tree, .. }
            | Self::Names { tree, .. }
            | Self::Objects { tree, .. } => Some(tree.partition),
        }
    }

    /// Bytes of objects that it brings.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        if let Self::Take { body } = self { body.0.len() } else { 0 }
    }
}

/// What a node says to another that has asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncAnswer {
    /// The answer.
    pub reply: SyncReply,
    /// For how long it would rather have nothing more taken from it or brought to it: its clients wait
    /// longer than they are used to.
    pub wait_ms: u32,
}

impl SyncAnswer {
    /// An answer of one who may be asked again at once.
    #[must_use]
    pub fn at_ease(reply: SyncReply) -> Self {
        Self { reply, wait_ms: 0 }
    }
}

/// The answer to a [`SyncRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncReply {
    /// To [`SyncRequest::Roots`], in the order asked; none where a partition is being counted.
    Roots(Vec<Option<u128>>),
    /// To [`SyncRequest::Trees`]: buckets that have a key, in order.
    Trees(Vec<(String, u128)>),
    /// To [`SyncRequest::Leaves`]: [`pack_leaves`].
    Leaves(Blob),
    /// To [`SyncRequest::Branches`], in the order asked.
    Branches(Vec<Branches>),
    /// To [`SyncRequest::Marks`], in the order asked: [`Mark::pack`].
    Marks(Vec<Blob>),
    /// To [`SyncRequest::Names`]: those that were found, in order, of so many of the first marks; of the
    /// others, nothing is said.
    Names(Vec<Named>, u32),
    /// To [`SyncRequest::Objects`]: the body of a page.
    Objects(Blob),
    /// To [`SyncRequest::Take`]: all of it is committed. Of these, by their place in the page, there
    /// is more here than was given.
    Taken(Vec<u32>),
    /// The partition is being counted: ask later.
    Counting,
    /// Not now.
    Busy,
    /// It cannot be read, or not be merged; the sentence says why.
    Failed(String),
    /// To [`SyncRequest::Take`]: all of it is committed but for keys whose records are damaged here; the
    /// sentence names one.
    Damaged(String),
}

impl SyncReply {
    /// Bytes of objects that it gives.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        if let Self::Objects(body) = self { body.0.len() } else { 0 }
    }
}

/// A leaf, one level down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Branches {
    /// The sum of each branch's marks, 4 bytes, little-endian.
    Sums(Blob),
    /// All marks of the leaf, where they are few: [`Mark::pack`].
    Marks(Blob),
}

/// A mark that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its place in the question.
    pub at: u32,
    /// The key, within its bucket.
    pub name: Blob,
    /// When its youngest sibling was written.
    pub latest: u64,
}

/// The leaves as they travel.
#[must_use]
pub fn pack_leaves(leaves: &[u128; LEAVES]) -> Blob {
    let halves = leaves.iter().flat_map(|leaf| (*leaf as u64).to_le_bytes());
    Blob(halves.collect::<Vec<u8>>().into())
}

/// The leaves that are not the same in both; `None` where one is not what [`pack_leaves`] gives.
#[must_use]
pub fn differing_leaves(ours: &Blob, theirs: &Blob) -> Option<Vec<u8>> {
    let whole = |blob: &Blob| blob.0.len() == LEAVES * LEAF_BYTES;
    if !whole(ours) || !whole(theirs) {
        return None;
    }
    let pairs = ours.0.chunks(LEAF_BYTES).zip(theirs.0.chunks(LEAF_BYTES));
    Some((0..=u8::MAX).zip(pairs).filter(|(_, (a, b))| a != b).map(|(leaf, _)| leaf).collect())
}

/// The sum of each branch over `marks`.
#[must_use]
pub fn branch_sums(marks: &[Mark]) -> [u32; LEAVES] {
    let mut sums = [0; LEAVES];
    for mark in marks {
        sums[usize::from(mark.branch)] ^= mark.bits;
    }
    sums
}

/// Branch sums as they travel.
#[must_use]
pub fn pack_sums(sums: &[u32; LEAVES]) -> Blob {
    Blob(sums.iter().flat_map(|sum| sum.to_le_bytes()).collect::<Vec<u8>>().into())
}

/// Reads back what [`pack_sums`] gave.
#[must_use]
pub fn unpack_sums(blob: &Blob) -> Option<[u32; LEAVES]> {
    if blob.0.len() != LEAVES * MARK_BYTES {
        return None;
    }
    let mut sums = [0; LEAVES];
    for (sum, bytes) in sums.iter_mut().zip(blob.0.chunks(MARK_BYTES)) {
        *sum = u32::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(sums)
}

/// Where two owners of a partition stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncPair {
    /// The partition.
    pub partition: Partition,
    /// The other owner.
    pub peer: NodeId,
    /// How long ago the last comparison began that found nothing left to do; none since this node
    /// was started.
    pub in_sync_ms: Option<u64>,
    /// The same; where there was none, for how long there should have been one.
    pub waits_ms: u64,
    /// That is longer than the alarm's time.
    pub is_overdue: bool,
    /// Keys that were mended since the start, at either end.
    pub repaired: u64,
    /// Bytes of objects that went either way.
    pub bytes: u64,
}

/// The anti-entropy of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Partitions and other owners, all combinations.
    pub pairs: u32,
    /// Those in sync within the alarm's time.
    pub in_sync: u32,
    /// How long ago the last comparison began for the pair that has waited longest; none where a pair
    /// was not in sync since the start.
    pub oldest_ms: Option<u64>,
    /// Pairs that have waited for longer than the alarm's time.
    pub overdue: u32,
    /// How long the pair has waited that has waited longest, in sync since the start or not.
    pub waits_ms: u64,
    /// Pairs that are overdue, or are mended now, the worst first, some at most.
    pub shown: Vec<SyncPair>,
    /// After how long a pair is overdue.
    pub alarm_ms: u64,
    /// What is being mended now: tree, peer, differing keys so far.
    pub exchanging: Vec<(TreeId, NodeId, u64)>,
    /// An operator has paused it.
    pub paused: bool,
    /// Names and counts, in the order to show them.
    pub counters: Vec<(String, u64)>,
}

impl SyncStatus {
    /// A count by its name; zero where there is none of it.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|(row, _)| row == name).map_or(0, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_reads_back_and_what_is_cut_does_not() {
        let marks: Vec<Mark> = (0..5).map(|n| Mark { leaf: 3, branch: n, bits: 7 << n }).collect();
        assert_eq!(Mark::unpack(3, &Mark::pack(&marks)), Some(marks.clone()));
        assert_eq!(Mark::unpack(3, &Blob(Mark::pack(&marks).0.slice(1..))), None);
        let sums = branch_sums(&marks);
        assert_eq!(unpack_sums(&pack_sums(&sums)), Some(sums));
        assert_eq!(unpack_sums(&Blob::default()), None);
    }

    #[test]
    fn leaves_differ_where_they_differ() {
        let mut leaves = [0; LEAVES];
        let before = pack_leaves(&leaves);
        (leaves[0], leaves[255]) = (1, 9);
        assert_eq!(differing_leaves(&before, &pack_leaves(&leaves)), Some(vec![0, 255]));
        assert_eq!(differing_leaves(&before, &Blob::default()), None);
    }
}
