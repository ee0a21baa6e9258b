//! The Merkle trees that say what a store holds, kept up to date by each commit.
//!
//! There is a tree for each bucket in each partition. A record stands in its tree at its
//! [`place`], 64 bits of its key's hash, and adds its digest to the leaf that the first byte of the
//! place names:
//!
//! ```text
//!                    root                       XOR of the leaves
//!        ┌────────────┼─────── ... ─┐
//!      leaf 0       leaf 1        leaf 255      XOR of the digests of the records in it
//!     ┌──┼──┐                                   kept here, 16 bytes each
//!   00 00 .. 00 ff                              branches: by the second byte of the place, not
//!                                               kept: a scan of the leaf's digests gives them
//! ```
//!
//! A sum of XORs is changed in place: a write takes out the digest it replaces and puts in its own.
//! No value is read for that, ever. (Riak's TicTac trees work so; the shape is that of Merkle,
//! "A Digital Signature Based on a Conventional Encryption Function", 1987.)
//!
//! What always holds: once a partition is *counted*, its leaves are what a scan of its digests
//! would give, at every moment between two commits. It is counted from the beginning in an
//! empty store, and in one that was stopped in order; after a crash, or when somebody doubts it,
//! its digests are scanned while commits go on ([`Forest::recount`], [`Forest::counted`]).

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use super::{Imprint, StoredKey};
use crate::codec::{CodecError, Reader, Write};
use crate::ids::Partition;
use crate::key::Key;
use crate::limits::{self, TREE_LEAVES as LEAVES};

/// The leaves of one tree.
pub type Leaves = [u128; LEAVES];

/// Where a key stands in its tree. The bytes of its token in the other direction: the first ones
/// name the partition, and are the same all over it.
#[must_use]
pub fn place(key: &Key) -> u64 {
    key.token().swap_bytes()
}

/// The leaf of a place.
#[must_use]
pub fn leaf_of(place: u64) -> u8 {
    place.to_be_bytes()[0]
}

/// What a tree holds, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys, those of deleted values included.
    pub keys: u64,
    /// Keys of which all values have been deleted or have an expiry.
    pub fading: u64,
    /// Of those, the ones that have no value any more: only the deletion is remembered.
    pub deleted: u64,
    /// Keys with more than one value that nothing has overwritten.
    pub conflicts: u64,
    /// Bytes of keys and objects.
    pub bytes: u64,
}

impl Tally {
    fn replace(&mut self, before: &Imprint, after: &Imprint) {
        let counts = |of: &Imprint| {
            let is = |condition: bool| u64::from(condition && of.is_some());
            let fading = is(of.fades_at.is_some());
            let deleted = is(of.siblings == 0);
            [is(true), fading, deleted, is(of.siblings > 1), u64::from(of.bytes)]
        };
        let (before, after) = (counts(before), counts(after));
        let Self { keys, fading, deleted, conflicts, bytes } = self;
        let mut fields = [keys, fading, deleted, conflicts, bytes];
        for (field, (before, after)) in fields.iter_mut().zip(before.iter().zip(after)) {
            // Wraps while a count is under way: what was there before it is added at its end.
            **field = field.wrapping_add(after).wrapping_sub(*before);
        }
    }

    fn fields(&self) -> [u64; 5] {
        [self.keys, self.fading, self.deleted, self.conflicts, self.bytes]
    }

    fn from_fields([keys, fading, deleted, conflicts, bytes]: [u64; 5]) -> Self {
        Self { keys, fading, deleted, conflicts, bytes }
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (ours, theirs) = (self.fields(), other.fields());
        Self::from_fields(std::array::from_fn(|at| ours[at].wrapping_add(theirs[at])))
    }
}

/// The tree of one bucket in one partition.
#[derive(Clone, PartialEq, Eq)]
struct Tree {
    leaves: Leaves,
    tally: Tally,
}

impl Default for Tree {
    fn default() -> Self {
        Self { leaves: [0; LEAVES], tally: Tally::default() }
    }
}

impl Tree {
    fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.leaves.iter_mut().zip(other.leaves.iter()) {
            *ours ^= theirs;
        }
        self.tally = self.tally.plus(other.tally);
    }
}

/// A tree as far as most exchanges look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The bucket.
    pub bucket: String,
    /// The XOR of all digests.
    pub sum: u128,
    /// What is in it.
    pub tally: Tally,
}

/// The trees of one bucket, by partition, as far as there has been one.
type Trees = Vec<Option<Box<Tree>>>;

/// All trees of a store.
#[derive(Clone, Default)]
pub struct Forest {
    /// By bucket first: of those there are few, so that a change finds its tree by what is in the
    /// processor's cache anyway.
    trees: BTreeMap<String, Trees>,
    /// The first partition that has not been counted since the store was opened. What its trees
    /// hold is what has changed since.
    uncounted_from: Option<u16>,
    /// What was cleared while it was to be counted, or was being counted, all of a partition or one
    /// bucket: what the count will find of it is gone.
    cleared: BTreeSet<(u16, Option<String>)>,
    /// Partitions before `uncounted_from` that are being counted again.
    recounting: BTreeSet<u16>,
}

impl Forest {
    /// Of a store that holds something, and was not stopped in order: nothing is counted.
    #[must_use]
    pub fn uncounted() -> Self {
        Self { uncounted_from: Some(0), ..Self::default() }
    }

    fn tree(&self, partition: Partition, bucket: &str) -> Option<&Tree> {
        self.trees.get(bucket)?.get(usize::from(partition.0))?.as_deref()
    }

    fn tree_mut(&mut self, partition: Partition, bucket: &str) -> &mut Tree {
        if !self.trees.contains_key(bucket) {
            self.trees.insert(bucket.to_owned(), Trees::new());
        }
        let trees = self.trees.get_mut(bucket).expect("it is there now");
        let at = usize::from(partition.0);
        if trees.len() <= at {
            trees.resize_with(at + 1, || None);
        }
        trees[at].get_or_insert_default()
    }

    /// Fells the trees of a partition, or that of one bucket in it.
    fn fell(&mut self, partition: Partition, bucket: Option<&str>) {
        for (name, trees) in &mut self.trees {
            let tree = trees.get_mut(usize::from(partition.0));
            if let Some(tree) = tree.filter(|_| bucket.is_none_or(|of| of == name)) {
                *tree = None;
            }
        }
    }

    /// A record was changed.
    pub fn replace(&mut self, key: &StoredKey, before: &Imprint, after: &Imprint) {
        if before == after {
            return;
        }
        let name = key.key();
        let tree = self.tree_mut(key.partition(), name.bucket());
        tree.leaves[usize::from(leaf_of(place(&name)))] ^= before.digest ^ after.digest;
        tree.tally.replace(before, after);
    }

    /// All records of a partition were deleted, or those of one bucket.
    pub fn clear(&mut self, partition: Partition, bucket: Option<&str>) {
        self.fell(partition, bucket);
        if !self.is_counted(partition) {
            self.cleared.insert((partition.0, bucket.map(str::to_owned)));
        }
    }

    fn is_counted_once(&self, partition: Partition) -> bool {
        self.uncounted_from.is_none_or(|from| partition.0 < from)
    }

    /// Whether the trees of a partition say what is there.
    #[must_use]
    pub fn is_counted(&self, partition: Partition) -> bool {
        self.is_counted_once(partition) && !self.recounting.contains(&partition.0)
    }

    /// Whether all of them do.
    #[must_use]
    pub fn is_all_counted(&self) -> bool {
        self.uncounted_from.is_none() && self.recounting.is_empty()
    }

    /// Begins to count a partition again. The caller takes a snapshot in the same moment, between two
    /// commits, counts what is in it, and comes back with [`Forest::counted`].
    /// Returns whether there is something to do: not while another count of it is under way.
    pub fn recount(&mut self, partition: Partition) -> bool {
        if !self.is_counted(partition) {
            return false;
        }
        self.fell(partition, None);
        self.recounting.insert(partition.0)
    }

    /// What was in the snapshot for a partition. At the first count after a start partitions come in
    /// ascending order, and those passed over are empty.
    pub fn counted(&mut self, partition: Partition, count: Count) {
        let wanted = match self.uncounted_from {
            Some(from) if from <= partition.0 => {
                self.uncounted_from = partition.0.checked_add(1);
                true
            }
            _ => self.recounting.remove(&partition.0),
        };
        let cleared = self.cleared.extract_if((partition.0, None).., |(of, _)| *of == partition.0);
        let cleared: BTreeSet<Option<String>> = cleared.map(|(_, bucket)| bucket).collect();
        if !wanted || cleared.contains(&None) {
            return;
        }
        for (bucket, tree) in count.trees {
            if !cleared.contains(&Some(bucket.clone())) {
                self.tree_mut(partition, &bucket).add(&tree);
            }
        }
    }

    /// The first count after a start has come to its end.
    pub fn counted_all(&mut self) {
        self.uncounted_from = None;
        self.cleared.clear();
    }

    /// The roots of a partition's trees, by bucket; `None` while it is not counted.
    #[must_use]
    pub fn roots(&self, partition: Partition) -> Option<Vec<Root>> {
        if !self.is_counted(partition) {
            return None;
        }
        let root = |(bucket, trees): (&String, &Trees)| {
            let tree = trees.get(usize::from(partition.0))?.as_deref()?;
            let sum = tree.leaves.iter().fold(0, |sum, leaf| sum ^ leaf);
            Some(Root { bucket: bucket.clone(), sum, tally: tree.tally })
        };
        Some(self.trees.iter().filter_map(root).filter(|root| root.tally.keys > 0).collect())
    }

    /// The leaves of a tree; `None` while its partition is not counted.
    #[must_use]
    pub fn leaves(&self, partition: Partition, bucket: &str) -> Option<Leaves> {
        if !self.is_counted(partition) {
            return None;
        }
        Some(self.tree(partition, bucket).map_or([0; LEAVES], |tree| tree.leaves))
    }

    /// What is in all trees of a bucket, as far as they are counted.
    #[must_use]
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        for (bucket, partition, tree) in self.all() {
            if self.is_counted(partition) {
                let tally = tallies.entry(bucket.to_owned()).or_default();
                *tally = tally.plus(tree.tally);
            }
        }
        tallies
    }

    fn all(&self) -> impl Iterator<Item = (&str, Partition, &Tree)> {
        self.trees.iter().flat_map(|(bucket, trees)| {
            trees.iter().enumerate().filter_map(|(at, tree)| {
                Some((bucket.as_str(), Partition(at as u16), tree.as_deref()?))
            })
        })
    }

    /// The bytes to keep over a stop in order. Everything must be counted.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        debug_assert!(self.is_all_counted());
        let mut out = BytesMut::new();
        for (bucket, partition, tree) in self.all() {
            out.put_u16(partition.0);
            out.put_u8(bucket.len() as u8);
            out.put_slice(bucket.as_bytes());
            for field in tree.tally.fields() {
                out.put_varint(field);
            }
            for leaf in &tree.leaves {
                out.put_u128_le(*leaf);
            }
        }
        out.freeze()
    }

    /// Reads back what [`Forest::encode`] gave.
    ///
    /// # Errors
    /// When the bytes are no forest: then everything must be counted.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut forest = Self::default();
        let mut input = Reader::new(bytes);
        while input.remaining() > 0 {
            let partition = u16::from_be_bytes(array(&mut input)?);
            let length = usize::from(input.u8("bucket")?);
            let bucket = input.take(length, "bucket")?;
            let bucket = std::str::from_utf8(&bucket).map_err(|_| CodecError::Invalid("bucket"))?;
            let tree = forest.tree_mut(Partition(partition), bucket);
            let mut fields = [0; 5];
            for field in &mut fields {
                *field = input.varint("tally")?;
            }
            tree.tally = Tally::from_fields(fields);
            for leaf in &mut tree.leaves {
                *leaf = u128::from_le_bytes(array(&mut input)?);
            }
        }
        Ok(forest)
    }
}

fn array<const N: usize>(input: &mut Reader) -> Result<[u8; N], CodecError> {
    let bytes = input.take(N, "forest")?;
    bytes.as_ref().try_into().map_err(|_| CodecError::Invalid("forest"))
}

/// A count of one partition, under way.
#[derive(Default)]
pub struct Count {
    trees: BTreeMap<String, Box<Tree>>,
}

impl Count {
    /// A record of the snapshot.
    pub fn add(&mut self, bucket: &str, place: u64, imprint: &Imprint) {
        if !self.trees.contains_key(bucket) {
            self.trees.insert(bucket.to_owned(), Box::default());
        }
        let tree = self.trees.get_mut(bucket).expect("it is there now");
        tree.leaves[usize::from(leaf_of(place))] ^= imprint.digest;
        tree.tally.replace(&Imprint::NONE, imprint);
    }
}

/// The bytes at which a bucket's name ends in what is stored.
#[cfg_attr(not(feature = "server"), allow(dead_code))]
pub(crate) fn bucket_bytes(stored: &[u8]) -> &[u8] {
    let length = stored.iter().take(limits::BUCKET_NAME_BYTES + 1).position(|byte| *byte == 0);
    &stored[..length.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::time::WallMs;

    const P: Partition = Partition(3);

    fn key(partition: u16, bucket: &str, n: u64) -> StoredKey {
        let key = Key::new(bucket.as_bytes(), n.to_string().as_bytes()).unwrap();
        StoredKey::new(Partition(partition), &key)
    }

    fn imprint(random: &mut Random) -> Imprint {
        Imprint {
            digest: random.next_u128(),
            siblings: 1 + random.below(3) as u16,
            bytes: 10 + random.below(90) as u32,
            latest: 0,
            fades_at: (random.below(4) == 0).then_some(WallMs(5)),
        }
    }

    type Model = BTreeMap<Vec<u8>, (StoredKey, Imprint)>;

    fn count(model: &Model, partition: u16) -> Count {
        let mut count = Count::default();
        for (key, imprint) in model.values().filter(|(key, _)| key.partition().0 == partition) {
            count.add(key.key().bucket(), place(&key.key()), imprint);
        }
        count
    }

    fn change(forest: &mut Forest, model: &mut Model, random: &mut Random) {
        let bucket = ["a", "b"][random.below(2) as usize];
        let key = key(random.below(4) as u16, bucket, random.below(20));
        let id = key.as_bytes().to_vec();
        let before = model.get(&id).map_or(Imprint::NONE, |(_, imprint)| *imprint);
        let after = if random.below(4) == 0 { Imprint::NONE } else { imprint(random) };
        forest.replace(&key, &before, &after);
        match after.is_some() {
            true => drop(model.insert(id, (key, after))),
            false => drop(model.remove(&id)),
        }
    }

    fn assert_same(forest: &Forest, model: &Model) {
        let mut fresh = Forest::uncounted();
        for partition in 0..4 {
            fresh.counted(Partition(partition), count(model, partition));
        }
        fresh.counted_all();
        for partition in (0..4).map(Partition) {
            assert_eq!(forest.roots(partition), fresh.roots(partition));
            for bucket in ["a", "b"] {
                assert_eq!(forest.leaves(partition, bucket), fresh.leaves(partition, bucket));
            }
        }
    }

    #[test]
    fn leaves_follow_changes_as_a_count_would_find_them() {
        let mut random = Random::new(1);
        let (mut forest, mut model) = (Forest::default(), Model::new());
        for _ in 0..2000 {
            change(&mut forest, &mut model, &mut random);
        }
        assert_same(&forest, &model);
        let again = Forest::decode(forest.encode()).unwrap();
        assert_same(&again, &model);
        assert_eq!(again.tallies().values().map(|t| t.keys).sum::<u64>(), model.len() as u64);
        assert!(Forest::decode(forest.encode().slice(1..)).is_err());
    }

    #[test]
    fn a_count_beside_changes_and_clearing_ends_where_no_count_was_needed() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let (mut live, mut model) = (Forest::default(), Model::new());
            for _ in 0..100 {
                change(&mut live, &mut model, &mut random);
            }
            // A crash: what was counted is lost. The snapshot is as of now.
            let mut forest = Forest::uncounted();
            let snapshot = model.clone();
            for partition in 0..4 {
                for _ in 0..random.below(30) {
                    change(&mut forest, &mut model, &mut random);
                }
                if random.below(3) == 0 {
                    let cleared = Partition(random.below(4) as u16);
                    let bucket = (random.below(2) == 0).then_some("a");
                    forest.clear(cleared, bucket);
                    let is_gone = |key: &StoredKey| {
                        key.partition() == cleared && bucket.is_none_or(|b| key.key().bucket() == b)
                    };
                    model.retain(|_, (key, _)| !is_gone(key));
                }
                assert!(!forest.is_counted(Partition(partition)));
                forest.counted(Partition(partition), count(&snapshot, partition));
                assert!(forest.is_counted(Partition(partition)));
            }
            forest.counted_all();
            assert_same(&forest, &model);
        }
    }

    #[test]
    fn what_is_wrong_is_mended_by_counting_again() {
        let mut random = Random::new(7);
        let (mut forest, mut model) = (Forest::default(), Model::new());
        for _ in 0..100 {
            change(&mut forest, &mut model, &mut random);
        }
        let stray = key(P.0, "a", 99);
        forest.replace(&stray, &Imprint::NONE, &imprint(&mut random));
        assert!(forest.recount(P));
        assert!(!forest.recount(P), "one count at a time");
        assert_eq!(forest.roots(P), None);
        let snapshot = model.clone();
        for _ in 0..30 {
            change(&mut forest, &mut model, &mut random);
        }
        forest.counted(P, count(&snapshot, P.0));
        assert_same(&forest, &model);
    }
}
