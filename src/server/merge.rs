//! Merging what another node has sent into this node's records: pages of a transfer, objects that an
//! exchange found missing.
//!
//! Through the shard, as a write from anybody else: so nothing on the disk that is newer is lost.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::causality::digest_of;
use crate::ids::NodeId;
use crate::replica::transfer::Unmerged;
use crate::server::mailbox::Ask;
use crate::server::node::Node;
use crate::server::reply::ReplyTo;
use crate::store::record::Record;
use crate::store::{Store, StoredKey};
use crate::wire::messages::{FailureCode, HeldObject, Purpose, Read, Request, Response, Write};
use crate::wire::transfer::PageEntry;

/// How long one object of a page may take to be merged, or read from where it comes from.
const MERGE_WITHIN: Duration = Duration::from_secs(10);
/// Objects of one page that are merged at once, all in one turn of their shard: so they share a commit,
/// and requests of clients wait for so many at most.
const MERGED_AT_ONCE: usize = 64;
/// How long to wait where the shard's mailbox is full.
const AGAIN: Duration = Duration::from_millis(10);

/// Merges what came from `from`. When this returns all of it is committed, or an error says why
/// not.
pub async fn merge(
    node: &Node,
    from: NodeId,
    entries: Vec<PageEntry>,
    purpose: Purpose,
) -> Result<(), Unmerged> {
    let (whole, named): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.object.is_some());
    let mut writes: Vec<Write> =
        whole.into_iter().filter_map(|entry| write(entry, purpose)).collect();
    for entry in differing(node, named).await? {
        if let Some(write) = fetch(node, from, entry, purpose).await? {
            writes.push(write);
        }
    }
    let mut writes = writes.into_iter().peekable();
    let mut damaged = None;
    while writes.peek().is_some() {
        let chunk: Vec<Write> = writes.by_ref().take(MERGED_AT_ONCE).collect();
        damaged = merge_chunk(node, from, chunk).await?.or(damaged);
    }
    damaged.map_or(Ok(()), |why| Err(Unmerged { why, is_damaged: true }))
}

fn write(entry: PageEntry, purpose: Purpose) -> Option<Write> {
    let PageEntry { key, object, .. } = entry;
    let budget_ms = MERGE_WITHIN.as_millis() as u32;
    Some(Write { key, object: object?, purpose, slots: 0, budget_ms })
}

/// Those of which this node has nothing, or something else.
async fn differing(node: &Node, entries: Vec<PageEntry>) -> Result<Vec<PageEntry>, String> {
    if entries.is_empty() {
        return Ok(entries);
    }
    let (store, topology) = (node.store.clone(), node.topology());
    let compare = move || {
        let differs = |entry: &PageEntry| {
            let stored = StoredKey::new(topology.partition(&entry.key), &entry.key);
            let record = store.read(&stored).ok().flatten().and_then(|r| Record::decode(r).ok());
            // What cannot be read here is merged, and the shard says what is wrong.
            record.is_none_or(|record| digest_of(&entry.key, &record.object) != entry.digest)
        };
        entries.into_iter().filter(differs).collect()
    };
    tokio::task::spawn_blocking(compare).await.map_err(|error| error.to_string())
}

/// Reads an object that a page only named.
async fn fetch(
    node: &Node,
    from: NodeId,
    entry: PageEntry,
    purpose: Purpose,
) -> Result<Option<Write>, String> {
    let key = entry.key.clone();
    let budget_ms = MERGE_WITHIN.as_millis() as u32;
    let read = Read { key, digest: false, fallback: false, slots: 0, budget_ms };
    match node.links.request(from, &Request::Read(read), MERGE_WITHIN).await {
        Some(Response::Held(held)) => Ok(match held.object {
            HeldObject::Full(object) => write(PageEntry { object: Some(object), ..entry }, purpose),
            HeldObject::Missing | HeldObject::Digest(_) => None,
        }),
        Some(Response::Failed(failure)) => Err(failure.message),
        _ => Err("an object was not answered".to_owned()),
    }
}

/// Gives objects to their shards, and waits until all are committed, but for those whose record here is
/// damaged: of one of these it returns why.
async fn merge_chunk(
    node: &Node,
    from: NodeId,
    mut left: Vec<Write>,
) -> Result<Option<String>, Unmerged> {
    let mut damaged = None;
    let until = tokio::time::Instant::now() + MERGE_WITHIN;
    while !left.is_empty() {
        let mut waiting = Vec::with_capacity(left.len());
        let mut by_shard: Vec<Vec<Ask>> = node.mailboxes.iter().map(|_| Vec::new()).collect();
        let topology = node.topology();
        for write in left.drain(..) {
            let (sender, receiver) = oneshot::channel();
            let shard = node.shard_of(&topology, &write.key);
            let request = Request::Write(write.clone());
            let (reply, received) = (ReplyTo::Task(sender), node.clock.instant());
            by_shard[shard].push(Ask {
                reply,
                sender: from,
                received,
                sent: None,
                forwarded: false,
                request,
            });
            waiting.push((write, receiver));
        }
        // One by one, each might be a turn of its shard and a sync of the disk.
        for (mailbox, mut asks) in node.mailboxes.iter().zip(by_shard) {
            mailbox.offer(&mut asks);
        }
        for (write, receiver) in waiting {
            match receiver.await {
                Ok(Response::Stored(_)) => {}
                Ok(Response::Failed(failure)) => match failure.code {
                    // It is being restored, or nothing can be done for it; the others need not wait.
                    FailureCode::Corrupt | FailureCode::TooLarge => damaged = Some(failure.message),
                    FailureCode::Busy => left.push(write),
                    _ => return Err(Unmerged { why: failure.message, is_damaged: false }),
                },
                // The mailbox was full.
                _ => left.push(write),
            }
        }
        if left.is_empty() {
            break;
        }
        if tokio::time::Instant::now() > until {
            return Err("this node is too busy".to_owned().into());
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(damaged)
}
