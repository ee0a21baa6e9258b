//! The thread of one shard: takes its mail, turns the state machine, does what it says.
//!
//! One turn takes everything that is waiting, gives the disk at most one batch, and wakes each
//! connection it has something for once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::clock::Clock;
use super::committer::{self, Committer};
use super::faults::Faults;
use super::links::Links;
use super::loader::Loader;
use super::mailbox::{Ask, Mail, Mailbox};
use super::mark::Mark;
use super::outbox::Outbox;
use super::reply::ReplyTo;
use crate::ids::{NodeId, Partition, Scope};
use crate::key::Key;
use crate::limits;
use crate::replica::{Counters, Effect, HintTally, Input, Notice, Origin, Shard, Strange};
use crate::store::{Cached, Store, StoreError, StoredKey};
use crate::wire::codec;
use crate::wire::frame::Marks;
use crate::wire::messages::{Failure, FailureCode, Request, Response};

/// What a shard shows of itself after each turn.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    /// What it has counted.
    pub counters: Counters,
    /// By bucket, what last-write-wins has dropped of keys whose first owner is this node.
    pub discarded: BTreeMap<String, u64>,
    /// Operations under way.
    pub in_flight: usize,
    /// What it keeps for members that are away.
    pub hints: BTreeMap<NodeId, HintTally>,
    /// The recent 99th percentile of what clients wait for.
    pub p99: Duration,
}

/// What a driver works with.
pub struct Driver {
    /// Which shard it drives.
    pub index: usize,
    /// The state machine.
    pub shard: Shard,
    /// Its mail.
    pub mailbox: Arc<Mailbox>,
    /// The clocks.
    pub clock: Clock,
    /// Where records are read.
    pub store: Arc<dyn Store>,
    /// Where records that only the disk knows are read.
    pub loader: Loader,
    /// Where batches go.
    pub committer: Committer,
    /// The peers.
    pub links: Arc<Links>,
    /// Where numbers for actors come from.
    pub mark: Arc<Mark>,
    /// Told of peers that go by other slots.
    pub exchanges: tokio::sync::mpsc::UnboundedSender<NodeId>,
    /// What it shows of itself.
    pub gauge: Arc<Mutex<Gauge>>,
    /// What may have it stand still.
    pub faults: Arc<Faults>,
}

/// What one turn needs besides the driver.
#[derive(Default)]
struct Turn {
    effects: Vec<Effect>,
    touched: Vec<Arc<Outbox>>,
    waiting: HashMap<u64, ReplyTo>,
    last_origin: u64,
    /// Told, by being dropped, that this turn is over.
    taken: Vec<oneshot::Sender<()>>,
}

impl Driver {
    /// Starts the thread.
    #[must_use]
    pub fn start(mut self) -> JoinHandle<()> {
        let builder = std::thread::Builder::new().name(format!("ringdove-shard-{}", self.index));
        builder.spawn(move || self.run()).expect("a thread can be started at start")
    }

    fn run(&mut self) {
        let mut turn = Turn::default();
        let mut mail = Vec::new();
        let mut stopping = false;
        while !stopping {
            let until = self.shard.next_deadline().map(|instant| self.clock.std(instant));
            self.mailbox.take(&mut mail, until);
            self.faults.wait_out_pause();
            let now = self.clock.now();
            for piece in mail.drain(..) {
                match piece {
                    Mail::Request(ask) => {
                        let input = admit(ask, &mut turn);
                        self.shard.handle(now, input, &mut turn.effects);
                    }
                    Mail::Input(input) => self.shard.handle(now, input, &mut turn.effects),
                    Mail::Topology(topology, taken) => {
                        let input = Input::Topology(topology);
                        self.shard.handle(now, input, &mut turn.effects);
                        turn.taken.push(taken);
                    }
                    Mail::Fence(view, reply) => {
                        let from = origin(reply, &mut turn);
                        self.shard.handle(now, Input::Fence { from, view }, &mut turn.effects);
                    }
                    Mail::Reap(order, reply) => {
                        let from = origin(reply, &mut turn);
                        self.shard.handle(now, Input::Reap { from, order }, &mut turn.effects);
                    }
                    Mail::Clear(partition, scope, found) => {
                        let _ = found.send(self.clear(partition, scope));
                    }
                    Mail::Stop => {
                        self.shard.let_go(now, &mut turn.effects);
                        stopping = true;
                    }
                }
            }
            if self.shard.next_deadline().is_some_and(|deadline| deadline <= now.instant) {
                self.shard.handle_deadline(now, &mut turn.effects);
            }
            self.perform(&mut turn);
            self.shard.flush(&mut turn.effects);
            self.perform(&mut turn);
            for outbox in turn.touched.drain(..) {
                outbox.wake();
            }
            turn.taken.clear();
            let gauge = Gauge {
                counters: self.shard.counters(),
                discarded: self.shard.discarded().clone(),
                in_flight: self.shard.in_flight(),
                hints: self.shard.hints(),
                p99: self.shard.p99(),
            };
            *self.gauge.lock().expect("no holder of the lock panics") = gauge;
        }
    }

    /// Does what the shard says; records that memory has go straight back in.
    fn perform(&mut self, turn: &mut Turn) {
        while !turn.effects.is_empty() {
            for effect in std::mem::take(&mut turn.effects) {
                match effect {
                    Effect::Respond { to, response } => {
                        if let Some(reply) = turn.waiting.remove(&to.0) {
                            reply.give(response, &mut turn.touched);
                        }
                    }
                    Effect::Send { to, id, forwarded, request } => {
                        self.send(turn, to, id, forwarded, &request);
                    }
                    Effect::Load { key } => self.load(turn, key),
                    Effect::Commit { batch, refusals, changes } => {
                        self.committer.submit(self.index, (batch, refusals), changes);
                    }
                    Effect::ListHints { owner, after, bytes } => {
                        self.loader.list_hints(self.index, owner, after, bytes);
                    }
                    Effect::Exchange(node) => {
                        let _ = self.exchanges.send(node);
                    }
                    Effect::LeaseActors => self.lease(),
                    Effect::Notice(notice) => report(&notice),
                }
            }
        }
    }

    fn send(&mut self, turn: &mut Turn, to: NodeId, id: u64, forwarded: bool, request: &Request) {
        let Some((outbox, sent)) = self.links.outlet(to) else { return };
        let marks = Marks { forwarded, sent: Some(sent) };
        let mut oversize = None;
        let wake = outbox.append(|buffer| {
            oversize = codec::encode_request(buffer, id, marks, request).err();
        });
        if wake {
            turn.touched.push(outbox);
        }
        if let Some(oversize) = oversize {
            let failure = Failure::not_applied(FailureCode::TooLarge, oversize.to_string());
            let response = Response::Failed(failure);
            let input = Input::Response { from: to, id, response };
            self.mailbox.post([Mail::Input(input)]);
        }
    }

    fn load(&mut self, turn: &mut Turn, key: StoredKey) {
        let result = match self.store.read_cached(&key) {
            Ok(Cached::Known(record)) => Ok(record),
            Ok(Cached::WouldBlock) => return self.loader.load(self.index, key),
            Err(StoreError::Fatal(why)) => committer::die(&why),
            Err(error) => Err(error),
        };
        let input = Input::Loaded { key, result };
        self.shard.handle(self.clock.now(), input, &mut turn.effects);
    }

    /// Deletes what of a partition belongs to buckets at home in `scope` and not to this node. Waits
    /// for the disk: until it is done nothing of that can be staged.
    fn clear(&mut self, partition: Partition, scope: Scope) -> Option<bool> {
        match self.shard.strange(partition, scope)? {
            Strange::Everything => self.clear_range(partition, None),
            Strange::Buckets(buckets) => {
                let mut found = false;
                for bucket in buckets {
                    found |= self.clear_range(partition, Some(&bucket))?;
                }
                Some(found)
            }
        }
    }

    fn clear_range(&mut self, partition: Partition, bucket: Option<&str>) -> Option<bool> {
        let is_there = match bucket {
            None => self.store.page(partition, None, 1).map(|page| !page.is_empty()),
            Some(bucket) => has_keys_of(self.store.as_ref(), partition, bucket),
        };
        let cleared = match is_there {
            Ok(false) => return Some(false),
            // What cannot be read can be deleted.
            Ok(true) | Err(StoreError::Corrupt(_)) => self.store.clear(partition, bucket),
            Err(error) => Err(error),
        };
        match cleared {
            Ok(()) => Some(true),
            Err(StoreError::Fatal(why)) => committer::die(&why),
            Err(error) => {
                tracing::warn!(%partition, %error, "a partition could not be deleted");
                None
            }
        }
    }

    /// Leases numbers for actors. Waits for the disk, once in a million new keys.
    fn lease(&mut self) {
        let count = u32::try_from(limits::ACTORS_LEASED).expect("the lease fits 32 bits");
        match self.mark.lease(count) {
            Ok(actors) => self.mailbox.post([Mail::Input(Input::Actors(actors))]),
            Err(error) => committer::die(&error.to_string()),
        }
    }
}

fn admit(ask: Ask, turn: &mut Turn) -> Input {
    Input::Request {
        from: origin(ask.reply, turn),
        sender: ask.sender,
        received: ask.received,
        sent: ask.sent,
        forwarded: ask.forwarded,
        request: ask.request,
    }
}

/// A number for whoever waits.
fn origin(reply: ReplyTo, turn: &mut Turn) -> Origin {
    turn.last_origin += 1;
    turn.waiting.insert(turn.last_origin, reply);
    Origin(turn.last_origin)
}

fn report(notice: &Notice) {
    match notice {
        Notice::Amnesia { key } => tracing::warn!(
            key,
            "a peer has seen writes of this node that its disk has forgotten; nothing is lost as long as a peer has them"
        ),
        Notice::DotCollision { key, dot } => tracing::error!(
            key,
            dot,
            "one dot stands for two values; both are kept. Two processes may be running on copies of one disk"
        ),
        Notice::ManySiblings { key, siblings } => {
            tracing::debug!(
                key,
                siblings,
                "a key has many siblings; its writers do not use contexts"
            );
        }
        Notice::Risen { key, dot, by, from } => tracing::error!(
            key,
            dot,
            by,
            from = from.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            "a value that was deleted and forgotten has come back, and was refused; the node whose incarnation \
             the dot names has made it, and a disk that has lost writes or was restored has kept it"
        ),
        Notice::Corrupt { key, why } => {
            tracing::error!(
                key,
                why,
                "a record is damaged; it is not served, and is restored from the other replicas"
            );
        }
        Notice::Malformed { from, why } => {
            let from = from.map(|node| node.short());
            tracing::warn!(from, why, "a peer sent an object that does not decode");
        }
    }
}

/// Whether a partition has keys of a bucket.
fn has_keys_of(store: &dyn Store, partition: Partition, bucket: &str) -> Result<bool, StoreError> {
    let Ok(first) = Key::new(bucket.as_bytes(), &[0]) else { return Ok(false) };
    let first = StoredKey::new(partition, &first);
    // A page begins behind a key, and the first one may be there itself.
    let next = store.page(partition, Some(&first), 1)?;
    let is_next = next.first().is_some_and(|entry| entry.key.key().bucket() == bucket);
    Ok(is_next || store.read(&first)?.is_some())
}
