//! Answers from a store: what each side of an exchange says of what it has.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::causality::digest_of;
use crate::key::Key;
use crate::limits::TREE_LEAVES;
use crate::membership::Topology;
use crate::store::record::Record;
use crate::store::{Digest, Places, Store, StoreError, StoredKey};
use crate::wire::sync::{
    Branches, Mark, Named, Shared, SyncReply, SyncRequest, TreeId, branch_sums, pack_leaves,
    pack_sums,
};
use crate::wire::transfer::{Blob, PageBuilder, PageEntry};

/// A leaf of so many records or fewer is answered with their marks: its branches would say no less
/// in no fewer bytes.
const FEW: usize = 64;
/// About how many bytes of objects an answer has.
const OBJECT_BYTES: usize = 1 << 20;
/// Largest object that travels with others.
const OBJECT_IN_PAGE: usize = 4 << 20;
/// Digests of one read.
const DIGESTS: usize = 4096;
/// Most marks, leaves, branches or names of one question: whoever asks is not obeyed without end.
const ASKED_MOST: usize = 16_384;

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
            let leaves = leaves.iter().take(TREE_LEAVES);
            let branches = leaves.map(|leaf| branches(store, tree, *leaf, *salt));
            SyncReply::Branches(branches.collect::<Result<_, _>>()?)
        }
        SyncRequest::Marks { tree, salt, branches } => {
            let marks = branches.iter().take(ASKED_MOST).map(|(leaf, branch)| {
                let digests = digests_within(store, tree, &[*leaf, *branch])?;
                Ok(Mark::pack(&marks(&digests, *salt)))
            });
            SyncReply::Marks(marks.collect::<Result<_, StoreError>>()?)
        }
        SyncRequest::Names { tree, salt, marks } => {
            SyncReply::Names(names(store, tree, *salt, &marks[..marks.len().min(ASKED_MOST)])?)
        }
        SyncRequest::Objects { tree, names } => SyncReply::Objects(objects(store, tree, names)?),
        SyncRequest::Take { .. } => SyncReply::Failed("this is no question".to_owned()),
    })
}

/// The sums of the buckets of a partition that are read by these slots.
fn trees(store: &dyn Store, topology: &Topology, shared: &Shared) -> Option<Vec<(String, u128)>> {
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

/// The digests of all places that begin with these bytes.
fn digests_within(
    store: &dyn Store,
    tree: &TreeId,
    prefix: &[u8],
) -> Result<Vec<Digest>, StoreError> {
    let (mut first, mut last) = ([0; 8], [0xff; 8]);
    first[..prefix.len()].copy_from_slice(prefix);
    last[..prefix.len()].copy_from_slice(prefix);
    let places = Places {
        partition: tree.partition,
        bucket: tree.bucket.clone(),
        first: u64::from_be_bytes(first),
        last: u64::from_be_bytes(last),
    };
    let mut all: Vec<Digest> = Vec::new();
    loop {
        let page = store.digests(&places, all.last().map(|digest| &digest.key), DIGESTS)?;
        let done = page.len() < DIGESTS;
        all.extend(page);
        if done {
            return Ok(all);
        }
    }
}

fn marks(digests: &[Digest], salt: u64) -> Vec<Mark> {
    let mark = |digest: &Digest| Mark::of(digest.place, digest.imprint.digest, salt);
    digests.iter().map(mark).collect()
}

fn branches(store: &dyn Store, tree: &TreeId, leaf: u8, salt: u64) -> Result<Branches, StoreError> {
    let marks = marks(&digests_within(store, tree, &[leaf])?, salt);
    Ok(match marks.len() <= FEW {
        true => Branches::Marks(Mark::pack(&marks)),
        false => Branches::Sums(pack_sums(&branch_sums(&marks))),
    })
}

fn names(
    store: &dyn Store,
    tree: &TreeId,
    salt: u64,
    wanted: &[Mark],
) -> Result<Vec<Named>, StoreError> {
    let mut found = Vec::new();
    let branches: BTreeSet<(u8, u8)> = wanted.iter().map(|mark| (mark.leaf, mark.branch)).collect();
    for (leaf, branch) in branches {
        for digest in digests_within(store, tree, &[leaf, branch])? {
            let mark = Mark::of(digest.place, digest.imprint.digest, salt);
            if let Ok(at) = wanted.binary_search(&mark) {
                let (at, name) = (at as u32, Blob(digest.key.name_bytes()));
                found.push(Named { at, name, latest: digest.imprint.latest });
            }
        }
    }
    found.sort_unstable_by_key(|named| named.at);
    Ok(found)
}

fn objects(store: &dyn Store, tree: &TreeId, names: &[Blob]) -> Result<Blob, StoreError> {
    let mut body = PageBuilder::default();
    for name in names.iter().take(ASKED_MOST) {
        let Ok(key) = Key::new(tree.bucket.as_bytes(), &name.0) else { continue };
        let Some(record) = readable(store, &StoredKey::new(tree.partition, &key))? else {
            continue;
        };
        // A larger one is named only, and read alone.
        let object = (record.object.len() <= OBJECT_IN_PAGE).then_some(&record.object[..]);
        body.push(&key, digest_of(&key, &record.object), object);
        if body.len() >= OBJECT_BYTES {
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
