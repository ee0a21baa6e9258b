//! Merkle anti-entropy: owners of a partition find out where they differ, and mend it.
//!
//! Always on. A node's [`Syncs`] goes through all pairs of a partition it owns and another owner of
//! it, and compares next the pair that has gone longest without being seen in sync:
//!
//! ```text
//!   rounds     roots of up to 64 partitions with one peer ── equal ──▶ in sync
//!                 │ differ
//!   jobs       the buckets of a partition, one exchange after the other (`exchange`):
//!              leaves, branches, marks, a pause, names, objects both ways
//!                 │ nothing left to mend ──▶ in sync      something was mended ──▶ compare again
//! ```
//!
//! Both ends answer the same questions (`answer`), one from its own store and one over the
//! network; what differs is asked on. There is no session at the other end: every question stands for
//! itself, so nothing can hang there, and whatever fails is begun again later.
//!
//! Inputs go in, effects come out; the server and the simulator drive it alike.
//!
//! # What always holds
//!
//! - *In sync* means: everything that was acknowledged before the comparison began is on both sides. Equal
//!   roots say so; so does an exchange at the end of which every branch that had differed was the same in
//!   both.
//! - Objects are merged by their shard, as any write is: an exchange can only add knowledge. Cut
//!   off anywhere, it has done no harm and is begun again.
//! - A value is read only to be moved, and only between a [`Effect::BeginMove`] and its
//!   [`Effect::EndMove`].

mod answer;
mod exchange;
mod jobs;
mod show;
mod spare;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use answer::{answer, with_more};
pub use show::Tally;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::pace::Pace;
use super::transfer::Unmerged;
use crate::ids::{NodeId, Partition, Scope};
use crate::membership::Topology;
use crate::random::Random;
use crate::time::Instant;
use crate::wire::sync::{SyncAnswer, SyncReply, SyncRequest, TreeId};
use crate::wire::transfer::PageEntry;
use exchange::Exchange;
use jobs::Job;

/// Partitions whose roots are compared with one question.
const ROOTS_AT_ONCE: usize = 64;
/// For how long somebody who has asked about a pair is taken to be mending it.
const VISIT_LASTS: Duration = Duration::from_secs(5);
/// How long a pair whose comparison failed is left alone.
const AGAIN: Duration = Duration::from_secs(2);
/// How long trees that were counted again are taken for right.
const COUNT_AGAIN: Duration = Duration::from_secs(60);

/// What the anti-entropy of a node is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node.
    pub node: NodeId,
    /// How long a pair that was in sync is left alone.
    pub interval: Duration,
    /// How long what differs may be on its way.
    pub settle: Duration,
    /// After how long without being seen in sync a pair is overdue.
    pub alarm: Duration,
    /// Partitions that are mended at once.
    pub at_once: usize,
    /// Bytes of objects a second, at most.
    pub rate: u64,
}

/// What happens to the anti-entropy of a node.
#[derive(Debug)]
pub enum Input {
    /// The cluster state has changed.
    Topology(Arc<Topology>),
    /// To [`Effect::Ask`]: the peer's answer, or that there will be none.
    Answered {
        /// The number of the question.
        id: u64,
        /// The answer.
        answer: Option<SyncAnswer>,
    },
    /// To [`Effect::Look`]: this node's answer.
    Looked {
        /// The number of the question.
        id: u64,
        /// The answer.
        reply: SyncReply,
    },
    /// To [`Effect::Merge`].
    Merged {
        /// Its number.
        id: u64,
        /// Whether all of it is committed.
        result: Result<(), Unmerged>,
    },
    /// The peer has asked something about this partition: it is mending the pair.
    Visited(NodeId, Partition),
    /// There is a connection to the node: pairs with it that failed may be compared at once.
    Connected(NodeId),
    /// A second has gone by: the recent 99th percentile of foreground requests in it.
    Second {
        /// Zero if there were none.
        p99: Duration,
    },
    /// Compare everything now.
    Now,
    /// Begin nothing until further notice, or go on.
    Pause(bool),
}

/// What the anti-entropy of a node wants done.
#[derive(Debug)]
pub enum Effect {
    /// Ask another node, then say [`Input::Answered`].
    Ask {
        /// The node.
        to: NodeId,
        /// The number of the question.
        id: u64,
        /// The question.
        request: SyncRequest,
    },
    /// Ask this node's own store ([`answer`]), then say [`Input::Looked`].
    Look {
        /// The number of the question.
        id: u64,
        /// The question.
        request: SyncRequest,
    },
    /// From now on objects of this partition may be on their way, here or to a peer. Before any is
    /// asked for or read, whoever agrees to forget deleted keys has to know (`super::reap`).
    BeginMove(Partition),
    /// What [`Effect::BeginMove`] announced is merged, or will not be.
    EndMove(Partition),
    /// Merge these into this node's records, through their shards; read the object of an entry
    /// without one from the node it comes from. Then say [`Input::Merged`].
    Merge {
        /// The number of the merge.
        id: u64,
        /// Where the entries come from.
        from: NodeId,
        /// What to merge.
        entries: Vec<PageEntry>,
    },
    /// Count a partition's trees again: they said that something differs, and nothing did.
    Recount(Partition),
    /// Since this node was started, it has been in sync with every other owner of the partition, and no
    /// bucket is on its way to it there.
    Complete(Partition),
    /// That is so for all partitions that this node owns.
    Whole,
    /// Something an operator should know.
    Notice(Notice),
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An exchange has mended something.
    Mended {
        /// The tree.
        tree: TreeId,
        /// The other owner.
        peer: NodeId,
        /// Keys.
        keys: u64,
    },
    /// An exchange was given up, and will be begun again.
    Failed {
        /// The partition.
        partition: Partition,
        /// The other owner.
        peer: NodeId,
        /// Why.
        why: String,
    },
}

type PairId = (Partition, NodeId);

#[derive(Debug, Default)]
struct Pair {
    shared: Vec<Scope>,
    /// Since when it has to be compared.
    since: Instant,
    /// When the last comparison began that found nothing left to do.
    in_sync: Option<Instant>,
    /// Not before this.
    due: Instant,
    /// It is being compared.
    busy: bool,
    /// When the peer last asked about it.
    visited: Option<Instant>,
    /// Its roots differed before, and the peer was given time to mend it.
    yielded: bool,
    repaired: u64,
    bytes: u64,
}

/// What a question was asked for.
#[derive(Clone, Debug)]
enum Purpose {
    Roots { peer: NodeId, began: Instant, pairs: Vec<PairId> },
    Trees(u64),
    Compare(u64),
    Fetch(u64),
    PushRead(u64),
    Push(u64),
}

#[derive(Debug)]
struct Question {
    purpose: Purpose,
    /// Whether the answers are still awaited.
    wants: (bool, bool),
    ours: Option<SyncReply>,
    theirs: Option<SyncReply>,
}

/// The anti-entropy of one node.
pub struct Syncs {
    settings: Settings,
    topology: Arc<Topology>,
    now: Instant,
    random: Random,
    /// In which order this node compares partitions that are equally due.
    order: u64,
    last_id: u64,
    pairs: BTreeMap<PairId, Pair>,
    questions: BTreeMap<u64, Question>,
    /// Peers whose roots are being compared.
    rounds: BTreeSet<NodeId>,
    /// A round may begin: pairs may have come to be due since the last look.
    look: bool,
    /// Pairs that differ and wait for a job.
    queue: VecDeque<(PairId, Instant)>,
    jobs: BTreeMap<u64, Job>,
    /// Jobs that go on at a time of their own.
    sleeping: BTreeSet<(Instant, u64)>,
    /// Jobs that have something to move, in the order of their turns, and those that move a piece.
    line: VecDeque<u64>,
    moving: BTreeSet<u64>,
    merges: BTreeMap<u64, u64>,
    /// Partitions in which this node owns slots that a bucket is still on its way to.
    arriving: BTreeSet<Partition>,
    complete: BTreeSet<Partition>,
    whole: bool,
    recounted: BTreeMap<Partition, Instant>,
    pace: Pace,
    /// How fast others may take from this node and bring to it, and whether anybody did in this second.
    serving: Pace,
    has_served: bool,
    /// Peers whose clients wait for long, and until when nothing is moved from or to them.
    spared: BTreeMap<NodeId, Instant>,
    paused: bool,
    /// A pair whose comparison began before is compared again at once: somebody waits for it.
    asked_at: Instant,
    tally: Tally,
    effects: Vec<Effect>,
}

impl Syncs {
    /// The anti-entropy of a node that goes by `topology`. `seed` is for salts.
    #[must_use]
    pub fn new(settings: Settings, topology: Arc<Topology>, now: Instant, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let last_id = random.next_u64() >> 1;
        let (pace, serving) = (Pace::new(settings.rate), Pace::new(settings.rate));
        let mut this = Self {
            settings,
            topology: topology.clone(),
            now,
            order: random.next_u64(),
            random,
            last_id,
            pairs: BTreeMap::new(),
            questions: BTreeMap::new(),
            rounds: BTreeSet::new(),
            look: true,
            queue: VecDeque::new(),
            jobs: BTreeMap::new(),
            sleeping: BTreeSet::new(),
            line: VecDeque::new(),
            moving: BTreeSet::new(),
            merges: BTreeMap::new(),
            arriving: BTreeSet::new(),
            complete: BTreeSet::new(),
            whole: false,
            recounted: BTreeMap::new(),
            pace,
            serving,
            has_served: false,
            spared: BTreeMap::new(),
            paused: false,
            asked_at: Instant(0),
            tally: Tally::default(),
            effects: Vec::new(),
        };
        this.learn(topology);
        this
    }

    /// Takes one input; appends what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        self.now = now;
        // With each second the pairs whose time has come are compared; these do not wait for it.
        self.look |= matches!(
            input,
            Input::Topology(_)
                | Input::Connected(_)
                | Input::Second { .. }
                | Input::Now
                | Input::Pause(_)
        );
        match input {
            Input::Topology(topology) => self.learn(topology),
            Input::Answered { id, answer } => {
                let none = || SyncAnswer::at_ease(SyncReply::Failed("no answer".to_owned()));
                let SyncAnswer { reply, wait_ms } = answer.unwrap_or_else(none);
                self.leave_alone(id, Duration::from_millis(wait_ms.into()));
                self.answered(id, None, Some(reply));
            }
            Input::Looked { id, reply } => self.answered(id, Some(reply), None),
            Input::Merged { id, result } => self.merged(id, result),
            Input::Visited(peer, partition) => {
                if let Some(pair) = self.pairs.get_mut(&(partition, peer)) {
                    pair.visited = Some(now);
                }
            }
            Input::Connected(peer) => {
                for ((_, _), pair) in self.pairs.iter_mut().filter(|((_, of), _)| *of == peer) {
                    pair.due = pair.due.min(now);
                }
            }
            Input::Second { p99 } => {
                self.pace.observe(p99, !self.jobs.is_empty());
                self.serving.observe(p99, std::mem::take(&mut self.has_served));
                self.spared.retain(|_, until| *until > now);
                self.look_whether_whole();
            }
            Input::Now => {
                self.asked_at = now;
                self.pairs.values_mut().for_each(|pair| pair.due = Instant(0));
            }
            Input::Pause(paused) => self.paused = paused,
        }
        self.go_on(effects);
    }

    /// Goes on with what waited for its time.
    pub fn handle_deadline(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.now = now;
        self.go_on(effects);
    }

    /// When [`Syncs::handle_deadline`] wants to be called next, besides every second.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let moves = self.moving.len() < self.settings.at_once;
        let next = self.line.iter().map(|job| self.spared_until(*job)).min().filter(|_| moves);
        let wakes = self.sleeping.first().map(|(at, _)| *at);
        wakes.into_iter().chain(next.map(|at| at.max(self.pace.free_at()))).min()
    }

    fn go_on(&mut self, effects: &mut Vec<Effect>) {
        while let Some((at, job)) = self.sleeping.first().copied()
            && at <= self.now
        {
            self.sleeping.pop_first();
            self.wake(job);
        }
        if !self.paused {
            self.begin_rounds();
            self.begin_jobs();
        }
        self.move_next();
        effects.append(&mut self.effects);
    }

    // ---- who is compared with whom -------------------------------------------------------

    /// The pairs of this node: every partition it owns, with every other owner of it. Slots by which
    /// nothing is read yet make none: what they are to have is compared as soon as it has arrived.
    fn learn(&mut self, topology: Arc<Topology>) {
        let me = self.settings.node;
        let scopes: Vec<Scope> = topology.state().slots.keys().copied().collect();
        let mut pairs: BTreeMap<PairId, Vec<Scope>> = BTreeMap::new();
        self.arriving.clear();
        for partition in (0..topology.partitions()).map(|number| Partition(number as u16)) {
            for scope in &scopes {
                let owners = topology.primaries(partition, *scope);
                if !owners.contains(&me) {
                    continue;
                }
                if topology.is_arriving(partition, *scope) {
                    self.arriving.insert(partition);
                    continue;
                }
                for peer in owners.iter().filter(|peer| **peer != me) {
                    pairs.entry((partition, *peer)).or_default().push(*scope);
                }
            }
        }
        self.pairs.retain(|id, _| pairs.contains_key(id));
        for (id, shared) in pairs {
            let pair = self.pairs.entry(id).or_default();
            if pair.shared != shared {
                // What was in sync is another thing now.
                (pair.in_sync, pair.shared, pair.since) = (None, shared, self.now);
            }
        }
        self.topology = topology;
    }

    fn begin_rounds(&mut self) {
        if !std::mem::take(&mut self.look) {
            return;
        }
        // Every node has an order of its own: if all began with the same partition, a node that
        // lacks something would be given it by all others at once.
        let order =
            |partition: Partition| xxh3_64_with_seed(&partition.0.to_le_bytes(), self.order);
        let mut due: BTreeMap<NodeId, Vec<(Option<Instant>, u64, PairId)>> = BTreeMap::new();
        for (id, pair) in &self.pairs {
            if !pair.busy && pair.due <= self.now && !self.rounds.contains(&id.1) {
                due.entry(id.1).or_default().push((pair.in_sync, order(id.0), *id));
            }
        }
        for (peer, mut pairs) in due {
            pairs.sort_unstable();
            pairs.truncate(ROOTS_AT_ONCE);
            let pairs: Vec<PairId> = pairs.into_iter().map(|(.., id)| id).collect();
            let shared = pairs.iter().map(|id| self.shared(id)).collect();
            for id in &pairs {
                self.pairs.get_mut(id).expect("it was listed").busy = true;
            }
            self.rounds.insert(peer);
            let purpose = Purpose::Roots { peer, began: self.now, pairs };
            self.compare(peer, SyncRequest::Roots(shared), purpose);
        }
    }

    /// Once a second: partitions may also come to be complete because pairs go.
    fn look_whether_whole(&mut self) {
        let is_whole = self.topology.state().is_formed()
            && self.arriving.is_empty()
            && self.pairs.values().all(|pair| pair.in_sync.is_some());
        if is_whole && !std::mem::replace(&mut self.whole, true) {
            self.effects.push(Effect::Whole);
        }
    }

    /// A comparison of this pair is over.
    fn settle_pair(&mut self, id: PairId, in_sync: Option<Instant>, pause: Duration) {
        let Some(pair) = self.pairs.get_mut(&id) else { return };
        pair.busy = false;
        pair.due = self.now + pause;
        let Some(began) = in_sync else { return };
        if began < pair.since {
            // What it shares has changed meanwhile.
            pair.due = self.now;
            self.look = true;
            return;
        }
        if began < self.asked_at {
            pair.due = self.now;
            self.look = true;
        }
        (pair.in_sync, pair.yielded) = (Some(began), false);
        let of_partition = (id.0, NodeId(0))..=(id.0, NodeId(u128::MAX));
        let is_complete = self.pairs.range(of_partition).all(|(_, pair)| pair.in_sync.is_some());
        if is_complete && !self.arriving.contains(&id.0) && self.complete.insert(id.0) {
            self.effects.push(Effect::Complete(id.0));
        }
    }

    /// Whether the peer is left to mend a pair that differs: of two, the one of the lower id comes
    /// first, and for as long as it asks.
    fn yields(&mut self, id: PairId) -> bool {
        let Some(pair) = self.pairs.get_mut(&id) else { return false };
        let is_visited = pair.visited.is_some_and(|at| self.now - at < VISIT_LASTS);
        let is_first = id.1 < self.settings.node && !std::mem::replace(&mut pair.yielded, true);
        is_first || is_visited
    }

    fn roots(
        &mut self,
        peer: NodeId,
        began: Instant,
        pairs: Vec<PairId>,
        (ours, theirs): (SyncReply, SyncReply),
    ) {
        self.rounds.remove(&peer);
        self.look = true;
        let (SyncReply::Roots(ours), SyncReply::Roots(theirs)) = (ours, theirs) else {
            for id in pairs {
                self.settle_pair(id, None, AGAIN);
            }
            return;
        };
        for (at, id) in pairs.into_iter().enumerate() {
            let sum = |of: &[Option<u128>]| of.get(at).copied().flatten();
            match (sum(&ours), sum(&theirs)) {
                (Some(ours), Some(theirs)) => {
                    self.tally.compared += 1;
                    if ours == theirs {
                        self.tally.equal += 1;
                        self.settle_pair(id, Some(began), self.settings.interval);
                    } else if self.yields(id) {
                        self.settle_pair(id, None, AGAIN);
                    } else {
                        self.queue.push_back((id, began));
                    }
                }
                _ => self.settle_pair(id, None, AGAIN),
            }
        }
    }

    // ---- questions and answers -----------------------------------------------------------

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn question(&mut self, purpose: Purpose, wants: (bool, bool)) -> u64 {
        let id = self.next_id();
        self.questions.insert(id, Question { purpose, wants, ours: None, theirs: None });
        id
    }

    fn compare(&mut self, peer: NodeId, request: SyncRequest, purpose: Purpose) {
        let id = self.question(purpose, (true, true));
        self.effects.push(Effect::Look { id, request: request.clone() });
        self.effects.push(Effect::Ask { to: peer, id, request });
    }

    fn answered(&mut self, id: u64, ours: Option<SyncReply>, theirs: Option<SyncReply>) {
        let Some(question) = self.questions.get_mut(&id) else { return };
        question.ours = question.ours.take().or(ours);
        question.theirs = question.theirs.take().or(theirs);
        let (wants_ours, wants_theirs) = question.wants;
        if (wants_ours && question.ours.is_none()) || (wants_theirs && question.theirs.is_none()) {
            return;
        }
        let Some(Question { purpose, ours, theirs, .. }) = self.questions.remove(&id) else {
            return;
        };
        let nothing = || SyncReply::Busy;
        let (ours, theirs) = (ours.unwrap_or_else(nothing), theirs.unwrap_or_else(nothing));
        match purpose {
            Purpose::Roots { peer, began, pairs } => self.roots(peer, began, pairs, (ours, theirs)),
            Purpose::Trees(number) => self.trees(number, (ours, theirs)),
            Purpose::Compare(number) => {
                let failed = [&ours, &theirs].into_iter().find(|reply| {
                    matches!(reply, SyncReply::Failed(_) | SyncReply::Busy | SyncReply::Counting)
                });
                if let Some(failed) = failed.cloned() {
                    return self.fail(number, &failed);
                }
                let Some(job) = self.jobs.get_mut(&number) else { return };
                let Some(exchange) = job.exchange.as_mut() else { return };
                job.looked_at = self.now;
                let step = exchange.compared(ours, theirs);
                self.step(number, step);
            }
            Purpose::Fetch(number) => self.fetched(number, theirs),
            Purpose::PushRead(number) => self.read(number, ours),
            Purpose::Push(number) => self.pushed(number, theirs),
        }
    }

    fn exchange(&mut self, number: u64) -> Option<&mut Exchange> {
        self.jobs.get_mut(&number)?.exchange.as_mut()
    }
}
