//! What all operations of a shard share: the time, the peers, the timers, and the way out.
//!
//! An operation never calls another. It leaves *steps* (something to do with one key's record) and
//! *events* (something an operation should hear) in queues, and the shard's loop takes them from
//! there until both are empty. So nothing is re-entered, and the order of things is the order of
//! the queues.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::commits::{Commits, Sealed, Waiter};
use super::counters::Counters;
use super::forward::Forward;
use super::graves::Graves;
use super::hints::Hints;
use super::keys::{KeyState, Reader, Step};
use super::peers::Peers;
use super::put::Asked;
use super::recent::Recent;
use super::strain::Strain;
use super::watch::Watches;
use super::{Effect, Notice, Origin, Settings};
use crate::causality::{Actor, HybridClock, Object};
use crate::ids::{NodeId, Partition, Scope};
use crate::key::Key;
use crate::limits;
use crate::membership::{MemberEntry, Scopes, Slot, Topology};
use crate::random::Random;
use crate::store::record::Mint;
use crate::store::{StoreError, StoredKey};
use crate::time::{Instant, Now};
use crate::wire::messages::{
    BucketSettings, Conflicts, Failure, FailureCode, Purpose, Put, Receipt, Request, Response,
    Stored,
};

/// Numbers an operation of this shard; never used twice.
pub(super) type OpId = u64;

/// Bits of a request's number that tell the requests of one operation apart.
const SEQUENCE_BITS: u32 = 16;
/// Bits that hold the operation's number; the shard's number stands above them.
const OP_BITS: u32 = 40;

/// Something an operation should hear.
#[derive(Debug)]
pub(super) enum Event {
    /// A replica (perhaps this node) has answered the request of this number; what this node does
    /// itself has none, 0.
    Answer { from: NodeId, id: u64, response: Response },
    /// Whatever was under way to this peer is lost.
    Lost(NodeId),
    /// What was to be kept here for this member is kept, or is not.
    Kept { owner: NodeId, kept: bool },
    /// Somebody went by other slots, and states have been exchanged: look again.
    Refreshed,
    /// The first answer is later than it usually is.
    Hedge,
    /// What the operation staged on this node's disk has been committed, or has not.
    Committed(Result<(), StoreError>),
    /// A replica is slow: time to ask another, or to ask again.
    Attempt,
    /// The budget is spent.
    Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Hedge,
    Attempt,
    Deadline,
}

/// Whether an operation goes on.
#[derive(Debug)]
pub(super) enum Status {
    /// It waits for more.
    Open,
    /// It has nothing left to do.
    Finished,
    /// It cannot be done here; another node may.
    PassOn(Box<Forward>),
    /// Nobody who owns the key can be reached: this node stands in.
    StandIn(Box<(Asked, Put)>),
}

pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) topology: Arc<Topology>,
    pub(super) peers: Peers,
    pub(super) counters: Counters,
    /// By bucket, concurrent versions that last-write-wins has dropped of keys whose first owner is here.
    pub(super) discarded: BTreeMap<String, u64>,
    pub(super) now: Now,
    pub(super) clock: HybridClock,
    pub(super) recent: Recent,
    pub(super) hints: Hints,
    pub(super) strain: Strain,
    /// Partitions of which this node is known to have everything, although its disk has forgotten
    /// something.
    pub(super) complete: BTreeSet<Partition>,
    pub(super) graves: Graves,
    pub(super) watches: Watches,
    /// Peers that states are being exchanged with.
    pub(super) exchanging: BTreeSet<NodeId>,
    pub(super) random: Random,
    /// Why this node's disk takes no writes, while it takes none.
    pub(super) full: Option<String>,
    pub(super) steps: VecDeque<(StoredKey, Step)>,
    pub(super) events: VecDeque<(OpId, Event)>,
    pub(super) effects: Vec<Effect>,
    timers: BTreeSet<(Instant, OpId, Timer)>,
    sequence: u64,
    commits: Commits,
    actors: Range<u64>,
    leasing: bool,
    /// Actors below this are spent, whatever a record says: a commit has failed, so dots that
    /// peers may know are missing from this disk.
    actor_floor: u64,
}

impl Core {
    pub(super) fn new(
        settings: Settings,
        topology: Arc<Topology>,
        actors: Range<u64>,
        seed: u64,
    ) -> Self {
        let peers = Peers::new(settings.breaker_failures, settings.breaker_open);
        let hints = Hints::new(settings.hint_bytes_by_owner, settings.hint_bytes);
        let graves = Graves::new(settings.graves);
        Self {
            settings,
            topology,
            peers,
            counters: Counters::default(),
            discarded: BTreeMap::new(),
            now: Now::default(),
            clock: HybridClock::new(),
            recent: Recent::new(limits::RECENT_WRITES),
            hints,
            strain: Strain::default(),
            complete: BTreeSet::new(),
            graves,
            watches: Watches::default(),
            exchanging: BTreeSet::new(),
            random: Random::new(seed),
            full: None,
            steps: VecDeque::new(),
            events: VecDeque::new(),
            effects: Vec::new(),
            timers: BTreeSet::new(),
            sequence: 0,
            commits: Commits::default(),
            actors,
            leasing: false,
            actor_floor: 0,
        }
    }

    // ---- the ring ------------------------------------------------------------------------

    pub(super) fn stored_key(&self, key: &Key) -> StoredKey {
        StoredKey::new(self.topology.partition(key), key)
    }

    pub(super) fn bucket(&self, key: &Key) -> Option<BucketSettings> {
        self.topology.bucket(key.bucket()).copied()
    }

    /// By whose slots `key` is read and written.
    pub(super) fn scopes(&self, key: &Key) -> Option<Scopes> {
        self.topology.scopes(key.bucket(), self.topology.partition(key))
    }

    /// By whose slots `key` is read.
    pub(super) fn reads(&self, key: &Key) -> Scope {
        self.topology.read_scope(key.bucket(), self.topology.partition(key))
    }

    /// The slots of `key` in one of its scopes.
    pub(super) fn slots(&self, key: &Key, scope: Scope) -> &[Slot] {
        self.topology.slots(self.topology.partition(key), scope)
    }

    /// The owners of `key` who answer reads, in order of preference.
    pub(super) fn owners(&self, key: &Key) -> Vec<NodeId> {
        self.topology.primaries(self.topology.partition(key), self.reads(key)).to_vec()
    }

    /// Everybody in a slot of `key`, each once: owners and successors, of all its scopes.
    pub(super) fn participants(&self, key: &Key) -> Vec<NodeId> {
        let partition = self.topology.partition(key);
        let mut all = Vec::new();
        for scope in self.scopes(key).into_iter().flat_map(Scopes::all) {
            let some = self.topology.participants(partition, scope);
            all.extend(some.into_iter().filter(|node| !all.contains(node)).collect::<Vec<_>>());
        }
        all
    }

    /// What a coordinator and a replica must agree on before one acts for the other.
    pub(super) fn fingerprint(&self, key: &Key) -> u64 {
        self.topology.bucket_fingerprint(key.bucket(), self.topology.partition(key))
    }

    /// Members that can stand in for those of `key`, and can be reached, in order of preference.
    pub(super) fn fallbacks(&self, key: &Key) -> Vec<NodeId> {
        let partition = self.topology.partition(key);
        let participants = self.participants(key);
        let mut fallbacks = self.topology.fallbacks(partition, self.reads(key));
        fallbacks.retain(|node| !participants.contains(node) && self.usable(*node));
        fallbacks
    }

    /// Who can keep `key` for `owner`: those in no slot of it, then those in no slot of a scope in
    /// which the owner is in one. What the latter have of their own is deleted when the bucket's move
    /// ends; a hint is not.
    pub(super) fn stand_ins(&self, key: &Key, owner: NodeId) -> Vec<NodeId> {
        let partition = self.topology.partition(key);
        let mut stand_ins = self.fallbacks(key);
        let scopes: Vec<Scope> = self.scopes(key).into_iter().flat_map(Scopes::all).collect();
        let is_free = |node: NodeId| {
            let stands = |who, scope: &Scope| self.topology.stands_in(partition, *scope, who);
            scopes.iter().any(|scope| stands(owner, scope) && !stands(node, scope))
        };
        let others = self.participants(key).into_iter();
        stand_ins.extend(others.filter(|node| is_free(*node) && self.usable(*node)));
        stand_ins
    }

    /// Those who can be asked in the place of an owner of `key`: who has it for the slots that its
    /// bucket moves to or comes from, then those who stand in.
    pub(super) fn read_fallbacks(&self, key: &Key) -> Vec<NodeId> {
        let first = self.topology.participants(self.topology.partition(key), self.reads(key));
        let mut others = self.participants(key);
        others.retain(|node| !first.contains(node) && self.usable(*node));
        others.extend(self.fallbacks(key));
        others
    }

    /// Whether a record belongs to this shard.
    pub(super) fn is_mine(&self, key: &StoredKey) -> bool {
        key.partition().0 % u16::from(self.settings.shards) == u16::from(self.settings.shard)
    }

    /// Whether this node takes an object for `key` from somebody who goes by the slots of this
    /// fingerprint (0: by no slots in particular). Looked at when the record is at hand: what was
    /// right when the object arrived may not be any more.
    pub(super) fn takes(&self, key: &StoredKey, purpose: Purpose, slots: u64) -> bool {
        let name = key.key();
        if self.bucket(&name).is_none() {
            return false;
        }
        match purpose {
            Purpose::Hint(_) => true,
            Purpose::Replicate | Purpose::Handoff if slots != 0 => self.fingerprint(&name) == slots,
            // Whoever is in a slot takes it, whatever the others are.
            _ => self.participants(&name).contains(&self.settings.node),
        }
    }

    /// Whether this node may have forgotten something of `partition`, and is not known to have
    /// everything back.
    pub(super) fn is_amnesiac(&self, partition: Partition) -> bool {
        self.settings.amnesiac && !self.complete.contains(&partition)
    }

    /// Whether this node owns a slot of a record.
    pub(super) fn is_owned_here(&self, key: &StoredKey) -> bool {
        let (name, me) = (key.key(), Some(self.settings.node));
        let mut scopes = self.scopes(&name).into_iter().flat_map(Scopes::all);
        scopes.any(|scope| self.slots(&name, scope).iter().any(|slot| slot.owner == me))
    }

    /// Has `reader` told what is held of `key` for its owners.
    pub(super) fn read_kept(&mut self, key: &Key, reader: Reader) {
        let stored = self.stored_key(key);
        let mut left = self.participants(key);
        let Some(owner) = left.pop() else {
            // Somebody is in the slots of every key, once the cluster has formed; here it has not.
            if let Reader::Peer(origin) = reader {
                self.fail(origin, super::shard::stale());
            }
            return;
        };
        let step = Step::ReadKept { reader, left, found: Object::new() };
        self.steps.push_back((stored.kept_for(owner), step));
    }

    /// Whether a request may go to `node`: it is usable, or the request `insists`, as nobody else will
    /// do, and the node may answer although it has been silent.
    pub(super) fn askable(&self, node: NodeId, insists: bool) -> bool {
        self.usable(node) || (insists && self.peers.answerable(node))
    }

    /// Whether it makes sense to ask `node` now; this node always answers itself.
    pub(super) fn usable(&self, node: NodeId) -> bool {
        node == self.settings.node || self.peers.usable(node, self.now.instant)
    }

    /// Whether a bucket keeps only the latest of concurrent versions. A bucket this node has not
    /// heard of yet is taken to keep all: nothing is lost by that.
    pub(super) fn keeps_latest(&self, key: &Key) -> bool {
        self.bucket(key).is_some_and(|bucket| bucket.conflicts == Conflicts::LastWriteWins)
    }

    /// Last-write-wins has dropped concurrent versions of `key` here. Each owner drops them for itself,
    /// so by bucket only the first of them counts: over all nodes each version counts once at most.
    pub(super) fn count_discarded(&mut self, key: &Key, versions: usize) {
        if versions == 0 {
            return;
        }
        self.counters.discarded_by_last_write_wins += versions as u64;
        if self.owners(key).first() != Some(&self.settings.node) {
            return;
        }
        match self.discarded.get_mut(key.bucket()) {
            Some(count) => *count += versions as u64,
            None => drop(self.discarded.insert(key.bucket().to_owned(), versions as u64)),
        }
    }

    /// Distinct zones of `nodes`.
    pub(super) fn zones(&self, nodes: &[NodeId]) -> u8 {
        let zone = |id: &NodeId| self.topology.member(*id).map(MemberEntry::zone);
        nodes.iter().filter_map(zone).collect::<BTreeSet<&str>>().len() as u8
    }

    /// A receipt with what every operation knows; `nodes` are those that confirmed, `fallbacks` of
    /// them in the place of others.
    pub(super) fn receipt(
        &self,
        n: u8,
        needed: usize,
        (nodes, fallbacks): (&[NodeId], usize),
        started: Instant,
    ) -> Receipt {
        let micros = (self.now.instant - started).as_micros();
        Receipt {
            n,
            needed: needed as u8,
            acks: nodes.len() as u8,
            primaries: (nodes.len() - fallbacks) as u8,
            fallbacks: fallbacks as u8,
            fsynced: 0,
            zones: self.zones(nodes),
            coordinator: self.settings.node,
            micros: u32::try_from(micros).unwrap_or(u32::MAX),
            topology: self.topology.version(),
        }
    }

    // ---- the way out ---------------------------------------------------------------------

    pub(super) fn respond(&mut self, to: Origin, response: Response) {
        self.effects.push(Effect::Respond { to, response });
    }

    pub(super) fn fail(&mut self, to: Origin, mut failure: Failure) {
        if failure.code == FailureCode::Unavailable
            && failure.retry_after_ms == 0
            && self.peers.are_some_silent(self.now.instant)
        {
            // A peer that is slow for a moment is back within one: whoever asks again at once uses
            // up its attempts before that.
            failure.retry_after_ms = self.settings.attempt.as_millis() as u32;
        }
        match failure.code {
            FailureCode::Busy => self.counters.busy += 1,
            FailureCode::Unavailable => self.counters.unavailable += 1,
            FailureCode::Unknown => self.counters.unknown += 1,
            FailureCode::Timeout => self.counters.timeouts += 1,
            FailureCode::BadContext => self.counters.bad_contexts += 1,
            FailureCode::Siblings => self.counters.siblings_refused += 1,
            _ => {}
        }
        self.respond(to, Response::Failed(failure));
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Amnesia { .. } => self.counters.amnesia += 1,
            Notice::DotCollision { .. } => self.counters.dot_collisions += 1,
            Notice::ManySiblings { .. } => self.counters.many_siblings += 1,
            Notice::Risen { .. } => self.counters.resurrections_refused += 1,
            Notice::Corrupt { .. } => self.counters.corrupt_reads += 1,
            Notice::Malformed { .. } => self.counters.malformed += 1,
        }
        self.effects.push(Effect::Notice(notice));
    }

    /// Sends `request` to a peer on behalf of `op`. Returns the number its answer will carry.
    pub(super) fn send(&mut self, op: OpId, to: NodeId, forwarded: bool, request: Request) -> u64 {
        self.sequence = (self.sequence + 1) & ((1 << SEQUENCE_BITS) - 1);
        let shard = u64::from(self.settings.shard) << (OP_BITS + SEQUENCE_BITS);
        let id = shard | (op << SEQUENCE_BITS) | self.sequence;
        self.peers.asked(to, self.now.instant);
        self.effects.push(Effect::Send { to, id, forwarded, request });
        id
    }

    /// `node` goes by other slots than this node: has states exchanged, after which operations
    /// hear [`Event::Refreshed`].
    pub(super) fn exchange(&mut self, node: NodeId) {
        if self.exchanging.insert(node) {
            self.counters.stale += 1;
            self.effects.push(Effect::Exchange(node));
        }
    }

    /// The operation that a request's number belongs to.
    pub(super) fn op_of(id: u64) -> OpId {
        (id >> SEQUENCE_BITS) & ((1 << OP_BITS) - 1)
    }

    // ---- time ----------------------------------------------------------------------------

    /// Milliseconds left until `deadline`, at least 1: zero would mean "the default".
    pub(super) fn budget_ms(&self, deadline: Instant) -> u32 {
        let left = (deadline - self.now.instant).as_millis();
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    }

    pub(super) fn deadline_timer(&mut self, op: OpId, at: Instant) {
        self.timers.insert((at, op, Timer::Deadline));
    }

    /// Has `op` hear [`Event::Attempt`] after about `after`, give or take an eighth: replicas
    /// that were slow together should not be asked again together.
    pub(super) fn attempt_timer(&mut self, op: OpId, after: Duration) -> Instant {
        let eighth = after.as_micros() as u64 / 8;
        let jitter = Duration::from_micros(self.random.below(2 * eighth + 1));
        let at = self.now.instant + (after + jitter).saturating_sub(Duration::from_micros(eighth));
        self.timers.insert((at, op, Timer::Attempt));
        at
    }

    /// Has `op` hear [`Event::Hedge`] after `after`.
    pub(super) fn hedge_timer(&mut self, op: OpId, after: Duration) {
        self.timers.insert((self.now.instant + after, op, Timer::Hedge));
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Turns the timers that are due into events.
    pub(super) fn fire_timers(&mut self) {
        while let Some((at, op, timer)) = self.timers.first().copied() {
            if at > self.now.instant {
                break;
            }
            self.timers.pop_first();
            let event = match timer {
                Timer::Hedge => Event::Hedge,
                Timer::Attempt => Event::Attempt,
                Timer::Deadline => Event::Deadline,
            };
            self.events.push_back((op, event));
        }
    }

    /// A peer did not answer in time.
    pub(super) fn slow(&mut self, node: NodeId) {
        if node != self.settings.node && self.peers.failed(node, self.now.instant) {
            self.counters.breakers_opened += 1;
        }
    }

    // ---- the disk ------------------------------------------------------------------------

    /// Adds the new state of a key to this turn's batch; `waiter` hears when it is durable.
    /// Returns the batch's number.
    pub(super) fn stage(&mut self, key: &StoredKey, state: &mut KeyState, waiter: Waiter) -> u64 {
        let change = state.change(key);
        let bytes = change.record.as_ref().map_or(0, bytes::Bytes::len);
        let before = std::mem::replace(&mut state.record_bytes, bytes);
        let batch = self.commits.stage(change, waiter);
        if let Some(owner) = key.owner() {
            self.hints.staged(batch, owner, (before, bytes), self.now.wall);
        }
        batch
    }

    /// Adds the grave of a key to this turn's batch, next to the change that removes its record.
    pub(super) fn bury(&mut self, key: &StoredKey, remains: Object) {
        self.commits.bury(self.graves.bury(key, remains));
    }

    /// Has `waiter` hear when `batch`, which has not been committed yet, is.
    pub(super) fn wait_for(&mut self, batch: u64, waiter: Waiter) {
        self.commits.wait_for(batch, waiter);
    }

    /// The last batch that is not committed, that of this turn included.
    pub(super) fn last_batch(&self) -> Option<u64> {
        self.commits.last()
    }

    /// Ends the turn: what was staged becomes a commit.
    pub(super) fn flush(&mut self) {
        let Some(Sealed { batch, refusals, changes }) = self.commits.seal() else { return };
        self.counters.batches += 1;
        self.counters.changes += changes.changes.len() as u64;
        self.effects.push(Effect::Commit { batch, refusals, changes });
    }

    /// A batch has been committed, or has not: tells whoever waited. Returns whether it is the first
    /// heard of a refusal: then all that was begun before is refused too, and nothing that is
    /// taken to be on the disk because of it is there.
    pub(super) fn committed(&mut self, batch: u64, result: &Result<(), StoreError>) -> bool {
        self.hints.settled(batch, result.is_ok(), self.now.wall);
        if result.is_err() {
            // Dots of this batch may stand on peers already and are missing here.
            self.actor_floor = self.actors.start;
        }
        let is_news = result.is_err() && self.commits.is_refusal_news(batch);
        if is_news {
            // What was staged in this turn, too.
            self.flush();
            self.commits.heard_of_refusal();
        }
        for waiter in self.commits.settled(batch) {
            match (waiter, result) {
                (Waiter::Nobody, _) | (Waiter::Taken(..), Err(_)) => {}
                (Waiter::Taken(hint, digest), Ok(())) => {
                    self.steps.push_back((hint, Step::Delivered { digest }));
                }
                (Waiter::Op(op), result) => {
                    self.events.push_back((op, Event::Committed(result.clone())));
                }
                (Waiter::Keeper(op, owner), result) => {
                    let kept = result.is_ok();
                    self.events.push_back((op, Event::Kept { owner, kept }));
                }
                (Waiter::Replica(origin), Ok(())) => {
                    let fsynced = self.settings.fsync;
                    self.respond(origin, Response::Stored(Stored { fsynced }));
                }
                (Waiter::Replica(origin), Err(error)) => {
                    let failure = Failure::not_applied(FailureCode::DiskFull, error.to_string());
                    self.respond(origin, Response::Failed(failure));
                }
            }
        }
        is_news
    }

    // ---- dots ----------------------------------------------------------------------------

    pub(super) fn add_actors(&mut self, actors: Range<u64>) {
        self.leasing = false;
        // What is left of the old lease is dropped: numbers are plenty, and one range is simple.
        self.actors = actors;
    }

    /// The next dot's mint for a key whose record says `mint`; `None` when no numbers for new
    /// actors are left, which passes as soon as the lease arrives.
    pub(super) fn next_mint(&mut self, mint: Option<Mint>) -> Option<Mint> {
        let mine = |mint: &Mint| {
            mint.actor.incarnation == self.settings.incarnation && mint.actor.k >= self.actor_floor
        };
        if let Some(mint) = mint.filter(mine) {
            return Some(Mint { counter: mint.counter + 1, ..mint });
        }
        let k = self.actors.next();
        if !self.leasing && self.actors.end - self.actors.start < limits::ACTORS_LOW {
            self.leasing = true;
            self.effects.push(Effect::LeaseActors);
        }
        let incarnation = self.settings.incarnation;
        Some(Mint { actor: Actor { incarnation, k: k? }, counter: 1 })
    }
}

/// Everybody in `slots`, owners first.
pub(super) fn participants(slots: &[Slot]) -> Vec<NodeId> {
    let owners = slots.iter().filter_map(|slot| slot.owner);
    owners.chain(slots.iter().filter_map(|slot| slot.successor)).collect()
}
