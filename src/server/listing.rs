//! Listing keys all over the cluster: one node gathers the pages of the owners.
//!
//! For each partition as many owners are asked at once as the listing needs, those that answer
//! best first, and another in the place of each that does not answer. What a key is that only some
//! of them have, a read decides, which also mends the replicas that are behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};

use super::links::Links;
use super::node::Node;
use super::reply::ReplyTo;
use crate::ids::{NodeId, Partition};
use crate::key::Key;
use crate::limits;
use crate::membership::Topology;
use crate::replica::listing::{self, PAGE_BYTES, Position};
use crate::store::StoreError;
use crate::wire::messages::{
    Control, ControlReply, Failure, FailureCode, Get, Level, Listed, Listing, ListingPage,
    Outliers, OwnerListing, OwnerPage, Request, Response, Which,
};

/// How long one owner may take for a page.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);
/// A page that took this long goes out with what it has.
const PAGE_WITHIN: Duration = Duration::from_millis(200);
/// Partitions that one page looks at. In a bucket of few keys most are empty, and each costs a round
/// trip all the same.
const PARTITIONS_AT_ONCE: usize = 128;
/// Keys in doubt that are read at once.
const READS_AT_ONCE: usize = 128;
/// What such a read may take.
const READ_WITHIN_MS: u32 = 1000;
/// How often a partition is asked for again of owners that go by other slots.
const STALE_TRIES: usize = 5;
/// A page of an owner never needs more keys to get beyond one cursor.
const OWNER_KEYS_MOST: u32 = 16_384;
/// Digests that are looked at for the keys that stand out: a second or two.
const OUTLIERS_BUDGET: u64 = 1_000_000;

/// The listing of one page, under way.
struct Gathering {
    listing: Listing,
    topology: Arc<Topology>,
    /// The bucket's W.
    w: Level,
    /// Owners that did not: the next partition is asked of others first.
    silent: BTreeSet<NodeId>,
}

impl Node {
    /// One page of a listing.
    ///
    /// # Errors
    /// When there is no such bucket, the cursor is none, or too few owners of a partition answer; the
    /// same cursor can be tried again.
    pub async fn list(&self, listing: Listing) -> Result<ListingPage, Failure> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let topology = self.topology();
        let Some(bucket) = topology.bucket(&listing.bucket) else {
            let message = format!("there is no bucket {:?}", listing.bucket);
            return Err(Failure::not_applied(FailureCode::NoBucket, message));
        };
        let w = bucket.w;
        let partitions = topology.partitions();
        let mut position = Position::of_cursor(listing.cursor, partitions).ok_or_else(|| {
            Failure::not_applied(FailureCode::Invalid, "the cursor is none that a listing gave")
        })?;
        let count = (listing.count as usize).clamp(1, limits::PAGE_KEYS);
        let silent = BTreeSet::new();
        let mut gathering = Gathering { listing, topology, w, silent };
        let (mut keys, mut bytes, began) = (Vec::new(), 0, Instant::now());
        for _ in 0..PARTITIONS_AT_ONCE {
            let room = (count - keys.len()) as u32;
            let (found, next) = match self.partition_page(&mut gathering, position, room).await {
                Ok(page) => page,
                // What there is so far goes out; whoever goes on from there is told.
                Err(_) if !keys.is_empty() => break,
                Err(failure) => return Err(failure),
            };
            bytes += found.iter().map(|listed| listed.key.len()).sum::<usize>();
            keys.extend(found);
            let within = next.map(|place| Position { place, ..position });
            let Some(next) = within.or_else(|| position.next_partition(partitions)) else {
                return Ok(ListingPage { cursor: 0, keys });
            };
            position = next;
            if keys.len() >= count || bytes >= PAGE_BYTES || began.elapsed() >= PAGE_WITHIN {
                break;
            }
        }
        Ok(ListingPage { cursor: position.cursor(partitions), keys })
    }

    /// Keys of one partition from a place on, and the place to go on from, if there is one.
    async fn partition_page(
        &self,
        gathering: &mut Gathering,
        from: Position,
        count: u32,
    ) -> Result<(Vec<Listed>, Option<u64>), Failure> {
        let grain = listing::grain(gathering.topology.partitions());
        let mut count = count;
        let union = loop {
            let pages = self.owner_pages(gathering, from, count).await?;
            let bucket = &gathering.listing.bucket;
            if let Some(union) = listing::unite(bucket, from.place, grain, &pages) {
                break union;
            }
            if count >= OWNER_KEYS_MOST {
                let message = "too many keys have nearly the same hash for one page";
                return Err(Failure::not_applied(FailureCode::TooLarge, message));
            }
            count = (count * 4).clamp(16, OWNER_KEYS_MOST);
        };
        let mut keys = Vec::with_capacity(union.keys.len());
        for chunk in union.keys.chunks(READS_AT_ONCE) {
            self.decide(&gathering.listing, chunk, &mut keys).await;
        }
        Ok((keys, union.next))
    }

    /// The pages of as many owners as are needed.
    async fn owner_pages(
        &self,
        gathering: &mut Gathering,
        from: Position,
        count: u32,
    ) -> Result<Vec<OwnerPage>, Failure> {
        for _ in 0..STALE_TRIES {
            let mut round = Round::new(self, gathering, from, count);
            // While the bucket gets another count of replicas, partitions have the old one or the new.
            // A slot without an owner counts among them: of who had it, nobody can be asked.
            let bucket = &gathering.listing.bucket;
            let scope = gathering.topology.read_scope(bucket, from.partition);
            let n = (round.left.len() as u8).max(scope.n);
            let w = gathering.w.resolve(n, n / 2 + 1).clamp(1, n);
            // Of N owners W have an acknowledged write, so it is on one of any N-W+1.
            let needed = usize::from(gathering.listing.r.resolve(n, n - w + 1));
            match round.run(self, needed).await {
                Ok(pages) => {
                    gathering.silent.extend(round.silent);
                    return Ok(pages);
                }
                Err(Missing::Stale(owner)) => {
                    self.exchange_with(owner).await;
                    gathering.topology = self.topology();
                }
                Err(Missing::Owners { answered }) => {
                    let partition = from.partition;
                    let message = format!(
                        "{answered} of the {needed} owners of partition {partition} that a listing needs have \
                         answered; try again with the same cursor, or ask for fewer with R"
                    );
                    let mut failure = Failure::not_applied(FailureCode::Unavailable, message);
                    (failure.acks, failure.needed) = (answered as u8, needed as u8);
                    return Err(failure);
                }
            }
        }
        let message = "the members go by different slots; try again with the same cursor";
        Err(Failure::not_applied(FailureCode::Unavailable, message))
    }

    /// Keeps the keys that all owners have, and of the others those of which a read finds what is
    /// looked for. One that cannot be read is kept: it may be there.
    async fn decide(&self, listing: &Listing, found: &[(Listed, bool)], keys: &mut Vec<Listed>) {
        let reads: Vec<_> = found
            .iter()
            .map(|(listed, in_doubt)| in_doubt.then(|| self.read_listed(listing, listed)))
            .collect();
        for ((listed, _), read) in found.iter().zip(reads) {
            let Some(answer) = read else {
                keys.push(listed.clone());
                continue;
            };
            let values = match answer {
                None => None,
                Some(answer) => match answer.await {
                    Ok(Response::Got(got)) => Some(got.values.len()),
                    _ => None,
                },
            };
            let least = match listing.which {
                Which::Live => 1,
                Which::Conflicts => 2,
            };
            if values.is_none_or(|values| values >= least) {
                let siblings = values.map_or(listed.siblings, |values| values as u16);
                keys.push(Listed { siblings, ..listed.clone() });
            }
        }
    }

    fn read_listed(
        &self,
        listing: &Listing,
        listed: &Listed,
    ) -> Option<oneshot::Receiver<Response>> {
        let key = Key::new(listing.bucket.as_bytes(), &listed.key).ok()?;
        let (r, pr, budget_ms) = (Level::Default, Level::Default, READ_WITHIN_MS);
        let get = Get { key, r, pr, budget_ms, strict: false, trace: false };
        let (sender, answer) = oneshot::channel();
        self.submit(Request::Get(get), ReplyTo::Task(sender)).is_none().then_some(answer)
    }

    /// One page of what this node has as an owner.
    ///
    /// # Errors
    /// `Stale` when it goes by other slots than the asker, and what the disk says.
    pub async fn owner_keys(&self, mut asked: OwnerListing) -> Result<OwnerPage, Failure> {
        asked.count = asked.count.min(OWNER_KEYS_MOST);
        let (slots, bucket) = (asked.slots, asked.bucket.clone());
        let partition = Partition(asked.partition);
        let (store, now, complete) =
            (self.store.clone(), self.clock.now().wall, !self.amnesiac.load(Ordering::Relaxed));
        let page = spawn_blocking(move || listing::page(&*store, &asked, complete, now)).await;
        let page = page.map_err(|error| defect(&error))?.map_err(|error| damaged(&error))?;
        // Looked at behind the read: had the partition been given away before, what is left of it
        // may be gone.
        let topology = self.topology();
        let scope = topology.read_scope(&bucket, partition);
        if topology.fingerprint(partition, scope) != slots {
            let message = "the slots of the partition are others here; compare the cluster states";
            return Err(Failure::not_applied(FailureCode::Stale, message));
        }
        Ok(page)
    }

    /// The keys of this node that stand out. Which of the others are looked at, where they are too many
    /// for that, is drawn by lot.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn outliers(&self) -> Result<Outliers, Failure> {
        let partitions = self.topology().partitions();
        // One look at a time: whoever asks beside it waits.
        let _alone = self.looking.lock().await;
        let lot = self.random.lock().expect("no holder of the lock panics").next_u64();
        let first = Partition((lot % u64::from(partitions)) as u16);
        let store = self.store.clone();
        let budget = OUTLIERS_BUDGET;
        let scan = spawn_blocking(move || listing::outliers(&*store, partitions, first, budget));
        scan.await.map_err(|error| defect(&error))?.map_err(|error| damaged(&error))
    }
}

fn defect(error: &tokio::task::JoinError) -> Failure {
    Failure::not_applied(FailureCode::Internal, error.to_string())
}

fn damaged(error: &StoreError) -> Failure {
    Failure::not_applied(FailureCode::Corrupt, error.to_string())
}

/// Why there are not enough pages.
enum Missing {
    /// This owner goes by other slots.
    Stale(NodeId),
    /// All were asked, and so many answered.
    Owners {
        /// How many.
        answered: usize,
    },
}

/// One partition is asked for of its owners.
struct Round {
    asked: OwnerListing,
    /// Owners that have not been asked, the best last.
    left: Vec<NodeId>,
    silent: Vec<NodeId>,
    asking: JoinSet<(NodeId, Option<Response>)>,
    links: Arc<Links>,
}

impl Round {
    fn new(node: &Node, gathering: &Gathering, from: Position, count: u32) -> Self {
        let Gathering { listing, topology, silent, .. } = gathering;
        let scope = topology.read_scope(&listing.bucket, from.partition);
        let mut left = topology.primaries(from.partition, scope).to_vec();
        let is_here = |owner: &NodeId| *owner == node.id;
        let answers = |owner: &NodeId| node.links.is_up(*owner) && !silent.contains(owner);
        left.sort_by_key(|owner| (is_here(owner) || answers(owner), is_here(owner)));
        let asked = OwnerListing {
            bucket: listing.bucket.clone(),
            which: listing.which,
            prefix: listing.prefix.clone(),
            partition: from.partition.0,
            from: from.place,
            count,
            slots: topology.fingerprint(from.partition, scope),
        };
        let (silent, asking, links) = (Vec::new(), JoinSet::new(), node.links.clone());
        Self { asked, left, silent, asking, links }
    }

    /// Asks until so many have answered.
    async fn run(&mut self, node: &Node, needed: usize) -> Result<Vec<OwnerPage>, Missing> {
        let mut pages = Vec::with_capacity(needed);
        loop {
            let mut here = false;
            while pages.len() + self.asking.len() + usize::from(here) < needed {
                let Some(owner) = self.left.pop() else { break };
                if owner == node.id {
                    here = true;
                    continue;
                }
                let (links, control) = (self.links.clone(), Control::OwnerKeys(self.asked.clone()));
                self.asking
                    .spawn(async move { (owner, links.ask(owner, control, ANSWER_WITHIN).await) });
            }
            let (owner, response) = if here {
                let page = node.owner_keys(self.asked.clone()).await;
                let reply = page.map(ControlReply::OwnerKeys).map(Response::Control);
                (node.id, Some(reply.unwrap_or_else(Response::Failed)))
            } else {
                match self.asking.join_next().await {
                    Some(Ok(answered)) => answered,
                    Some(Err(_)) => continue,
                    None if pages.len() >= needed => return Ok(pages),
                    None => return Err(Missing::Owners { answered: pages.len() }),
                }
            };
            match response {
                Some(Response::Control(ControlReply::OwnerKeys(page))) if page.complete => {
                    pages.push(page);
                }
                Some(Response::Failed(Failure { code: FailureCode::Stale, .. })) => {
                    return Err(Missing::Stale(owner));
                }
                _ => self.silent.push(owner),
            }
        }
    }
}
