//! Answers from a store: what each side of an exchange says of what it has.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::causality::digest_of;
use crate::key::Key;
use crate::limits::TREE_LEAVES;
use crate::membership::Topology;
use crate::store::record::Record;
use crate::store::{Digest, Store, StoreError, StoredKey};
use crate::wire::sync::{
    Branches, Mark, Named, Shared, SyncReply, SyncRequest, TreeId, branch_sums, pack_leaves,
    pack_sums,
};
use crate::wire::transfer::{Blob, PageBuilder, PageEntry};

/// A leaf of so many records or fewer is answered with their marks: its branches would say no less
/// in no fewer bytes.
const FEW: usize = 64;
/// About how many bytes of objects an answer has at most.
const OBJECT_BYTES: usize = 1 << 20;
/// Largest object that travels with others.
const OBJECT_IN_PAGE: usize = 4 << 20;
/// Most marks, leaves, branches or names of one question: whoever asks is not obeyed without end.
const ASKED_MOST: usize = 16_384;
/// Bytes of names in one answer, which must fit in a frame. With the longest keys they are a thousand.
const NAMES_BYTES: usize = 4 << 20;

/// Answers a question; [`SyncRequest::Take`] is no question. Blocks on the disk.
///
/// # Errors
/// When something cannot be read.
pub fn answer(
    store: &dyn Store,
    topology: &Topology,
    request: &SyncRequest,
) -> Result<SyncReply, StoreError> {
    Ok(match request {
        SyncRequest::Roots(shared) => {
            let sums = shared.iter().take(ASKED_MOST).map(|shared| root(store, topology, shared));
            SyncReply::Roots(sums.collect())
        }
        SyncRequest::Trees(shared) => match trees(store, topology, shared) {
            Some(trees) => SyncReply::Trees(trees),
            None => SyncReply::Counting,
        },
        SyncRequest::Leaves(tree) => match store.leaves(tree.partition, &tree.bucket) {
            Some(leaves) => SyncReply::Leaves(pack_leaves(&leaves)),
            None => SyncReply::Counting,
        },
        SyncRequest::Branches { tree, salt, leaves } => {
            SyncReply::Branches(branches_of(store, tree, leaves, *salt)?)
        }
        SyncRequest::Marks { tree, salt, branches } => {
            SyncReply::Marks(marks_of(store, tree, branches, *salt)?)
        }
        SyncRequest::Names { tree, salt, marks } => {
            let (names, looked) = names(store, tree, *salt, marks)?;
            SyncReply::Names(names, looked)
        }
        SyncRequest::Objects { tree, names, most } => {
            SyncReply::Objects(objects(store, tree, names, *most as usize)?)
        }
        SyncRequest::Take { .. } => SyncReply::Failed("this is no question".to_owned()),
    })
}

/// The sums of the buckets of a partition that are read by these slots; none where they are being
/// counted, or others are read by them than whoever asks takes for it.
fn trees(store: &dyn Store, topology: &Topology, shared: &Shared) -> Option<Vec<(String, u128)>> {
    if topology.moves_marks(shared.partition, &shared.scopes) != shared.moves {
        return None;
    }
    let is_shared =
        |name: &str| shared.scopes.contains(&topology.read_scope(name, shared.partition));
    let roots = store.roots(shared.partition)?.into_iter();
    Some(roots.filter(|root| is_shared(&root.bucket)).map(|root| (root.bucket, root.sum)).collect())
}

fn root(store: &dyn Store, topology: &Topology, shared: &Shared) -> Option<u128> {
    let mut hasher = Xxh3::new();
    for (bucket, sum) in trees(store, topology, shared)? {
        hasher.update(&xxh3_64(bucket.as_bytes()).to_le_bytes());
        hasher.update(&sum.to_le_bytes());
    }
    Some(hasher.digest128())
}

/// The marks of all records whose places begin with one of `prefixes`, by prefix; each prefix is of the
/// same length.
fn marks_below<const LENGTH: usize>(
    store: &dyn Store,
    tree: &TreeId,
    prefixes: &BTreeSet<[u8; LENGTH]>,
    salt: u64,
) -> Result<BTreeMap<[u8; LENGTH], Vec<Mark>>, StoreError> {
    let mut marks: BTreeMap<[u8; LENGTH], Vec<Mark>> = BTreeMap::new();
    each_below(store, tree, prefixes, |prefix, digest| {
        let mark = Mark::of(digest.place, digest.imprint.digest, salt);
        marks.entry(prefix).or_default().push(mark);
    })?;
    Ok(marks)
}

fn each_below<const LENGTH: usize>(
    store: &dyn Store,
    tree: &TreeId,
    prefixes: &BTreeSet<[u8; LENGTH]>,
    mut visit: impl FnMut([u8; LENGTH], Digest),
) -> Result<(), StoreError> {
    let range = |prefix: &[u8; LENGTH]| {
        let (mut first, mut last) = ([0; 8], [0xff; 8]);
        first[..LENGTH].copy_from_slice(prefix);
        last[..LENGTH].copy_from_slice(prefix);
        u64::from_be_bytes(first)..=u64::from_be_bytes(last)
    };
    let ranges: Vec<_> = prefixes.iter().map(range).collect();
    store.each_digest(tree.partition, &tree.bucket, &ranges, &mut |digest| {
        let prefix = digest.place.to_be_bytes().first_chunk().copied();
        visit(prefix.expect("a place is longer than a prefix"), digest);
    })
}

fn branches_of(
    store: &dyn Store,
    tree: &TreeId,
    leaves: &[u8],
    salt: u64,
) -> Result<Vec<Branches>, StoreError> {
    let leaves = &leaves[..leaves.len().min(TREE_LEAVES)];
    let marks = marks_below(store, tree, &leaves.iter().map(|leaf| [*leaf]).collect(), salt)?;
    let of_leaf = |leaf: &u8| match marks.get(&[*leaf]).map_or(&[][..], Vec::as_slice) {
        few if few.len() <= FEW => Branches::Marks(Mark::pack(few)),
        many => Branches::Sums(pack_sums(&branch_sums(many))),
    };
    Ok(leaves.iter().map(of_leaf).collect())
}

fn marks_of(
    store: &dyn Store,
    tree: &TreeId,
    branches: &[(u8, u8)],
    salt: u64,
) -> Result<Vec<Blob>, StoreError> {
    let branches: Vec<[u8; 2]> = branches.iter().take(ASKED_MOST).map(|at| (*at).into()).collect();
    let marks = marks_below(store, tree, &branches.iter().copied().collect(), salt)?;
    let of_branch = |at: &[u8; 2]| Mark::pack(marks.get(at).map_or(&[][..], Vec::as_slice));
    Ok(branches.iter().map(of_branch).collect())
}

fn names(
    store: &dyn Store,
    tree: &TreeId,
    salt: u64,
    wanted: &[Mark],
) -> Result<(Vec<Named>, u32), StoreError> {
    let wanted = &wanted[..wanted.len().min(ASKED_MOST)];
    let mut found = Vec::new();
    let branches = wanted.iter().map(|mark| [mark.leaf, mark.branch]).collect();
    each_below(store, tree, &branches, |_, digest| {
        let mark = Mark::of(digest.place, digest.imprint.digest, salt);
        if let Ok(at) = wanted.binary_search(&mark) {
            let (at, name) = (at as u32, Blob(digest.key.name_bytes()));
            found.push(Named { at, name, latest: digest.imprint.latest });
        }
    })?;
    found.sort_unstable_by_key(|named| named.at);
    let mut bytes = 0;
    let fits = found.iter().take_while(|named| {
        bytes += named.name.0.len();
        bytes <= NAMES_BYTES
    });
    let fits = fits.count();
    let looked = found.get(fits).map_or(wanted.len() as u32, |named| named.at);
    found.truncate(fits);
    Ok((found, looked))
}

fn objects(
    store: &dyn Store,
    tree: &TreeId,
    names: &[Blob],
    most: usize,
) -> Result<Blob, StoreError> {
    let mut body = PageBuilder::default();
    for name in names.iter().take(ASKED_MOST) {
        let Ok(key) = Key::new(tree.bucket.as_bytes(), &name.0) else { continue };
        let Some(record) = readable(store, &StoredKey::new(tree.partition, &key))? else {
            continue;
        };
        // A larger one is named only, and read alone.
        let object = (record.object.len() <= OBJECT_IN_PAGE).then_some(&record.object[..]);
        body.push(&key, digest_of(&key, &record.object), object);
        if body.len() >= most.min(OBJECT_BYTES) {
            break;
        }
    }
    // The running digest is of no use here: a frame has a checksum of its own.
    Ok(body.finish(&[], true, 0).body)
}

/// A record, if there is one that is not damaged. One that is must not hold up all others of its tree;
/// whoever restores it makes it the other owners' equal.
fn readable(store: &dyn Store, key: &StoredKey) -> Result<Option<Record>, StoreError> {
    match store.read(key) {
        Ok(record) => Ok(record.and_then(|record| Record::decode(record).ok())),
        Err(StoreError::Corrupt(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Of which entries, by their place, this store holds something else after they were merged.
///
/// # Errors
/// When a record cannot be read.
pub fn with_more(
    store: &dyn Store,
    topology: &Topology,
    entries: &[PageEntry],
) -> Result<Vec<u32>, StoreError> {
    let mut more = Vec::new();
    for (at, entry) in (0..).zip(entries) {
        let stored = StoredKey::new(topology.partition(&entry.key), &entry.key);
        let Some(record) = readable(store, &stored)? else { continue };
        if digest_of(&entry.key, &record.object) != entry.digest {
            more.push(at);
        }
    }
    Ok(more)
}
