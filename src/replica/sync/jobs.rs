//! Mending one pair: its buckets, one exchange after the other.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::exchange::{Exchange, Step};
use super::{AGAIN, COUNT_AGAIN, Effect, Notice, PairId, Purpose, Syncs};
use crate::ids::Partition;
use crate::replica::transfer::{PAGE_BYTES, Unmerged};
use crate::time::Instant;
use crate::wire::sync::{Shared, SyncReply, SyncRequest, TreeId};
use crate::wire::transfer::{Blob, PageBuilder, PageEntry, body_entries};

/// Pairs that are mended, or wait for what is on its way.
const JOBS_MOST: usize = 64;

/// The mending of one pair.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) pair: PairId,
    began: Instant,
    trees: VecDeque<TreeId>,
    pub(super) exchange: Option<Exchange>,
    unsettled: bool,
    has_moved: bool,
    /// Why some keys could not be merged by one of the two: their records are damaged there, and are
    /// restored by others. Everything else goes on.
    pub(super) damaged: Option<String>,
    repaired: u64,
    /// When both sides last answered: what they said of keys that differ grows old.
    pub(super) looked_at: Instant,
    /// Objects that are being merged here, or given to the peer.
    pub(super) moving: Vec<PageEntry>,
    /// [`Effect::BeginMove`] was said of it.
    moves: bool,
}

impl Syncs {
    pub(super) fn begin_jobs(&mut self) {
        // Those that wait for what is on its way cost nothing meanwhile.
        let is_settling = |job: &&Job| job.exchange.as_ref().is_some_and(Exchange::is_settling);
        let mut busy = self.jobs.len() - self.jobs.values().filter(is_settling).count();
        // What this node lacks it would be given by both peers of a partition that is mended with two.
        let mut mended: BTreeSet<Partition> = self.jobs.values().map(|job| job.pair.0).collect();
        let mut at = 0;
        while busy < self.settings.at_once
            && self.jobs.len() < JOBS_MOST
            && let Some(((partition, _), _)) = self.queue.get(at)
        {
            if mended.contains(partition) {
                at += 1;
                continue;
            }
            let Some((pair, began)) = self.queue.remove(at) else { return };
            if !self.pairs.contains_key(&pair) {
                continue;
            }
            busy += 1;
            mended.insert(pair.0);
            let number = self.next_id();
            let (trees, moving) = (VecDeque::new(), Vec::new());
            self.jobs.insert(
                number,
                Job {
                    pair,
                    began,
                    trees,
                    exchange: None,
                    unsettled: false,
                    has_moved: false,
                    damaged: None,
                    looked_at: self.now,
                    repaired: 0,
                    moving,
                    moves: false,
                },
            );
            let request = SyncRequest::Trees(self.shared(&pair));
            self.compare(pair.1, request, Purpose::Trees(number));
        }
    }

    /// What two owners share of a partition.
    pub(super) fn shared(&self, id: &PairId) -> Shared {
        let scopes = self.pairs.get(id).map(|pair| pair.shared.clone()).unwrap_or_default();
        let moves = self.topology.moves_marks(id.0, &scopes);
        Shared { partition: id.0, scopes, moves }
    }

    pub(super) fn trees(&mut self, number: u64, (ours, theirs): (SyncReply, SyncReply)) {
        let (SyncReply::Trees(ours), SyncReply::Trees(theirs)) = (&ours, &theirs) else {
            return self.fail(number, &theirs);
        };
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let differing: BTreeSet<&String> = (ours.iter().filter(|tree| !theirs.contains(tree)))
            .chain(theirs.iter().filter(|tree| !ours.contains(tree)))
            .map(|(bucket, _)| bucket)
            .collect();
        let tree = |bucket: &String| TreeId { partition: job.pair.0, bucket: bucket.clone() };
        job.trees = differing.into_iter().map(tree).collect();
        self.next_tree(number);
    }

    fn next_tree(&mut self, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let Some(tree) = job.trees.pop_front() else { return self.end(number) };
        self.tally.exchanges += 1;
        let (exchange, step) = Exchange::begin(job.pair.1, tree, self.random.next_u64());
        job.exchange = Some(exchange);
        self.step(number, step);
    }

    pub(super) fn step(&mut self, number: u64, step: Step) {
        let Some(job) = self.jobs.get(&number) else { return };
        let peer = job.pair.1;
        self.set_moves(number, matches!(step, Step::Fetch(_) | Step::Push(_)));
        let has_turn = self.moving.remove(&number);
        match step {
            Step::Compare(request) => self.compare(peer, request, Purpose::Compare(number)),
            Step::Settle => {
                self.sleeping.insert((self.now + self.settings.settle, number));
            }
            Step::Fetch(_) | Step::Push(_) if has_turn => self.line.push_front(number),
            Step::Fetch(_) | Step::Push(_) => self.line.push_back(number),
            Step::Done => self.end_exchange(number),
            Step::Confused => {
                self.fail(number, &SyncReply::Failed("answers of other forms".into()))
            }
        }
    }

    /// Moves the next pieces of those jobs that stand in line, as the pace allows.
    pub(super) fn move_next(&mut self) {
        while self.moving.len() < self.settings.at_once
            && self.pace.free_at() <= self.now
            && let Some(at) = self.line.iter().position(|job| self.spared_until(*job) <= self.now)
            && let Some(number) = self.line.remove(at)
        {
            let most = self.pace.piece(PAGE_BYTES);
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            let Some(exchange) = job.exchange.as_mut() else { continue };
            let (tree, peer) = (exchange.tree.clone(), exchange.peer);
            let is_stale = self.now - job.looked_at > self.settings.settle;
            let step = if is_stale { exchange.look_at_waiting() } else { exchange.awake() };
            match step {
                Step::Compare(request) => self.compare(peer, request, Purpose::Compare(number)),
                Step::Fetch(names) => {
                    let id = self.question(Purpose::Fetch(number), (false, true));
                    let request = SyncRequest::Objects { tree, names, most };
                    self.effects.push(Effect::Ask { to: peer, id, request });
                }
                Step::Push(names) => {
                    let id = self.question(Purpose::PushRead(number), (true, false));
                    let request = SyncRequest::Objects { tree, names, most };
                    self.effects.push(Effect::Look { id, request });
                }
                other => {
                    self.step(number, other);
                    continue;
                }
            }
            self.moving.insert(number);
        }
    }

    /// Says when objects begin to move for a job, and when that is over.
    fn set_moves(&mut self, number: u64, moves: bool) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let partition = job.pair.0;
        match (std::mem::replace(&mut job.moves, moves), moves) {
            (false, true) => self.effects.push(Effect::BeginMove(partition)),
            (true, false) => self.effects.push(Effect::EndMove(partition)),
            _ => {}
        }
    }

    /// The pause before the second look is over.
    pub(super) fn wake(&mut self, number: u64) {
        let Some(exchange) = self.jobs.get_mut(&number).and_then(|job| job.exchange.as_mut())
        else {
            return;
        };
        let step = exchange.awake();
        self.step(number, step);
    }

    fn end_exchange(&mut self, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let Some(exchange) = job.exchange.take() else { return };
        let (pair, repaired) = (job.pair, exchange.repaired);
        job.repaired += repaired;
        job.has_moved |= exchange.has_moved;
        job.unsettled |= exchange.unsettled;
        if repaired > 0 {
            self.tally.repaired += repaired;
            let tree = exchange.tree;
            self.effects.push(Effect::Notice(Notice::Mended {
                tree,
                peer: pair.1,
                keys: repaired,
            }));
        } else if exchange.found && !exchange.has_moved {
            self.tally.in_flight += 1;
        } else if exchange.differed && !exchange.found {
            self.doubt(pair.0);
        }
        self.next_tree(number);
    }

    /// Leaves differed and no record did: one of the two has counted wrongly.
    fn doubt(&mut self, partition: Partition) {
        let earlier = self.recounted.get(&partition);
        if earlier.is_none_or(|earlier| self.now - *earlier > COUNT_AGAIN) {
            self.recounted.insert(partition, self.now);
            self.tally.doubted += 1;
            self.effects.push(Effect::Recount(partition));
        }
    }

    fn end(&mut self, number: u64) {
        let Some(job) = self.jobs.remove(&number) else { return };
        if let Some(pair) = self.pairs.get_mut(&job.pair) {
            pair.repaired += job.repaired;
        }
        if let Some(why) = job.damaged {
            return self.failed(job.pair, Some(why));
        }
        match (job.has_moved, job.unsettled) {
            (true, _) => self.settle_pair(job.pair, None, Duration::ZERO),
            (false, true) => self.settle_pair(job.pair, None, AGAIN),
            (false, false) => {
                self.settle_pair(job.pair, Some(job.began), self.settings.interval);
            }
        }
    }

    pub(super) fn fail(&mut self, number: u64, reply: &SyncReply) {
        self.set_moves(number, false);
        self.moving.remove(&number);
        let Some(job) = self.jobs.remove(&number) else { return };
        let why = if let SyncReply::Failed(why) = reply { Some(why.clone()) } else { None };
        self.failed(job.pair, why);
    }

    fn failed(&mut self, pair: PairId, why: Option<String>) {
        self.tally.failed += 1;
        if let Some(why) = why {
            let (partition, peer) = pair;
            self.effects.push(Effect::Notice(Notice::Failed { partition, peer, why }));
        }
        self.settle_pair(pair, None, AGAIN);
    }

    pub(super) fn fetched(&mut self, number: u64, reply: SyncReply) {
        let SyncReply::Objects(body) = &reply else { return self.fail(number, &reply) };
        let entries = match body_entries(body) {
            Ok(entries) => entries,
            Err(error) => return self.fail(number, &SyncReply::Failed(error.to_string())),
        };
        self.moved(number, body.0.len());
        let id = self.next_id();
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.moving.clone_from(&entries);
        self.merges.insert(id, number);
        self.effects.push(Effect::Merge { id, from: job.pair.1, entries });
    }

    pub(super) fn merged(&mut self, id: u64, result: Result<(), Unmerged>) {
        let Some(number) = self.merges.remove(&id) else { return };
        let damaged = match result {
            Ok(()) => None,
            Err(Unmerged { why, is_damaged: true }) => Some(why),
            Err(Unmerged { why, .. }) => return self.fail(number, &SyncReply::Failed(why)),
        };
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let entries = std::mem::take(&mut job.moving);
        let is_damaged = damaged.is_some();
        job.damaged = damaged.or(job.damaged.take());
        let Some(exchange) = job.exchange.as_mut() else { return };
        let step = exchange.merged(&entries);
        if is_damaged {
            exchange.not_repaired(entries.len());
        }
        self.step(number, step);
    }

    /// Objects to give have been read.
    pub(super) fn read(&mut self, number: u64, reply: SyncReply) {
        let SyncReply::Objects(body) = &reply else { return self.fail(number, &reply) };
        let entries = match body_entries(body) {
            Ok(entries) => entries,
            Err(error) => return self.fail(number, &SyncReply::Failed(error.to_string())),
        };
        let Some(exchange) = self.exchange(number) else { return };
        let entries = exchange.news(entries);
        if entries.is_empty() {
            let step = exchange.pushed(std::iter::empty());
            return self.step(number, step);
        }
        let peer = exchange.peer;
        let mut body = PageBuilder::default();
        for PageEntry { key, digest, object } in &entries {
            body.push(key, *digest, object.as_deref());
        }
        let body: Blob = body.finish(&[], true, 0).body;
        self.moved(number, body.0.len());
        if let Some(job) = self.jobs.get_mut(&number) {
            job.moving = entries;
        }
        let id = self.question(Purpose::Push(number), (false, true));
        self.effects.push(Effect::Ask { to: peer, id, request: SyncRequest::Take { body } });
    }

    /// The peer has taken what was given to it, as far as it can.
    pub(super) fn pushed(&mut self, number: u64, reply: SyncReply) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let given = std::mem::take(&mut job.moving);
        let Some(exchange) = job.exchange.as_mut() else { return };
        let step = match reply {
            SyncReply::Taken(more) => {
                let more = more.iter().filter_map(|at| given.get(*at as usize));
                exchange.pushed(more.map(|entry| entry.key.name_bytes()))
            }
            SyncReply::Damaged(why) => {
                job.damaged = Some(why);
                exchange.not_repaired(given.len());
                exchange.pushed(std::iter::empty())
            }
            failed => return self.fail(number, &failed),
        };
        self.step(number, step);
    }

    fn moved(&mut self, number: u64, bytes: usize) {
        self.pace.take(self.now, bytes);
        self.tally.bytes += bytes as u64;
        let pair = self.jobs.get(&number).map(|job| job.pair);
        if let Some(pair) = pair.and_then(|id| self.pairs.get_mut(&id)) {
            pair.bytes += bytes as u64;
        }
    }
}
