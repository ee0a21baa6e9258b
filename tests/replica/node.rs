//! A shard with its disk, its peers and whoever asks it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringdove::causality::{Actor, Content, Dot, Hlc, Object, Sibling, VersionVector};
use ringdove::ids::{Incarnation, NodeId, WriteId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::membership::{ClusterState, Contact, MemberEntry, Topology};
use ringdove::replica::{Effect, Input, Notice, Origin, Refusals, Settings, Shard};
use ringdove::store::memory::MemoryStore;
use ringdove::store::{Batch, Store as _, StoreError, StoredKey};
use ringdove::time::{Instant, Now, WallMs};
use ringdove::wire::messages::{
    Basis, BucketSettings, Condition, Expiry, Level, Put, Request, Response,
};

pub const ME: NodeId = NodeId(1);
pub const FIRST_ACTOR: u64 = 1000;
pub const WALL: u64 = 1_700_000_000_000;
/// After so long without an answer the next replica is asked.
pub const ATTEMPT: Duration = Duration::from_millis(100);
/// So many silences open a peer's breaker.
pub const FAILURES: u32 = 3;
/// More values than this of one key are refused.
pub const SIBLINGS: usize = 3;

pub struct Node {
    pub shard: Shard,
    pub store: MemoryStore,
    /// No record can be read.
    pub is_damaged: bool,
    /// Records are read when [`Node::load`] says so.
    pub holds_loads: bool,
    loads: Vec<StoredKey>,
    pub now: Now,
    pub answers: BTreeMap<u64, Response>,
    pub notices: Vec<Notice>,
    /// What waits for [`Node::commit`].
    batches: Vec<(u64, u64, Batch)>,
    refusals: Refusals,
    /// What peers were asked and have not answered.
    pub sent: Vec<(NodeId, u64, Request)>,
    /// Whose hints were to be listed.
    pub lists: Vec<NodeId>,
    asked: u64,
}

impl Node {
    pub fn new(topology: Topology, store: MemoryStore, incarnation: Incarnation) -> Self {
        Self::with(topology, store, incarnation, |_| ())
    }

    /// One with settings of its own.
    pub fn with(
        topology: Topology,
        store: MemoryStore,
        incarnation: Incarnation,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings {
            shard: 0,
            shards: 1,
            node: ME,
            incarnation,
            amnesiac: false,
            attempt: ATTEMPT,
            timeout: Duration::from_secs(2),
            key_bytes: limits::KEY_BYTES_DEFAULT,
            value_bytes: limits::VALUE_BYTES_DEFAULT,
            siblings_warn: SIBLINGS,
            siblings_refuse: SIBLINGS,
            max_in_flight: 100,
            fsync: true,
            breaker_failures: FAILURES,
            breaker_open: Duration::from_secs(1),
            hint_bytes_by_owner: 1 << 20,
            hint_bytes: 1 << 20,
            hint_rate: 64 << 20,
            graves: 100,
        };
        change(&mut settings);
        let actors = FIRST_ACTOR..FIRST_ACTOR + limits::ACTORS_LEASED;
        Self {
            shard: Shard::new(settings, Arc::new(topology), actors, 1),
            store,
            is_damaged: false,
            holds_loads: false,
            loads: Vec::new(),
            now: Now { instant: Instant(1_000_000), wall: WallMs(WALL) },
            answers: BTreeMap::new(),
            notices: Vec::new(),
            batches: Vec::new(),
            refusals: Refusals::default(),
            sent: Vec::new(),
            lists: Vec::new(),
            asked: 0,
        }
    }

    pub fn handle(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.shard.handle(self.now, input, &mut effects);
        self.perform(effects);
    }

    /// Lets time go by.
    pub fn wait(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        let mut effects = Vec::new();
        self.shard.handle_deadline(self.now, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, mut effects: Vec<Effect>) {
        self.shard.flush(&mut effects);
        for effect in effects {
            match effect {
                Effect::Respond { to, response } => {
                    assert!(self.answers.insert(to.0, response).is_none(), "answered twice");
                }
                Effect::Load { key } if self.holds_loads => self.loads.push(key),
                Effect::Load { key } => {
                    let damaged = StoreError::Corrupt("a block that lies".to_owned());
                    let result = if self.is_damaged { Err(damaged) } else { self.store.read(&key) };
                    self.handle(Input::Loaded { key, result });
                }
                Effect::Commit { batch, refusals, changes } => {
                    self.batches.push((batch, refusals, changes));
                }
                Effect::Send { to, id, request, .. } => self.sent.push((to, id, request)),
                Effect::Notice(notice) => self.notices.push(notice),
                // No hint is ever replayed, unless a test does it.
                Effect::ListHints { owner, .. } => self.lists.push(owner),
                other => panic!("nobody is there to {other:?}"),
            }
        }
    }

    /// Asks; the answer may have to wait for [`Node::commit`].
    pub fn ask(&mut self, request: Request) -> u64 {
        self.ask_for(ME, request)
    }

    /// Asks for a client of this node, or for one of another's, which passes the request on.
    pub fn ask_for(&mut self, sender: NodeId, request: Request) -> u64 {
        self.asked += 1;
        let (from, received, forwarded) = (Origin(self.asked), self.now.instant, sender != ME);
        self.handle(Input::Request { from, sender, received, sent: None, forwarded, request });
        self.asked
    }

    /// Reads what was to be read.
    pub fn load(&mut self) {
        for key in std::mem::take(&mut self.loads) {
            let result = self.store.read(&key);
            self.handle(Input::Loaded { key, result });
        }
    }

    /// Settles all batches that wait.
    pub fn commit(&mut self, result: Result<(), StoreError>) {
        while !self.batches.is_empty() {
            self.commit_first(result.clone());
        }
    }

    /// Settles the first of the batches that wait, in this way if it may be committed at all.
    pub fn commit_first(&mut self, result: Result<(), StoreError>) {
        let (batch, refusals, changes) = self.batches.remove(0);
        let result = match self.refusals.admits(refusals) {
            true => result,
            false => Err(StoreError::Full("a change before this one was refused".to_owned())),
        };
        match &result {
            Ok(()) => self.store.commit(&[changes]).unwrap(),
            Err(_) if self.refusals.admits(refusals) => self.refusals.refused(),
            Err(_) => {}
        }
        self.handle(Input::Committed { batch, result });
    }
}

/// So many members, with these buckets.
pub fn topology(members: u128, buckets: &[(&str, BucketSettings)]) -> Topology {
    let mut state = ClusterState::new("by-hand", 32);
    for id in 1..=members {
        let contact = Contact {
            name: format!("n{id}"),
            address: format!("127.0.0.1:{}", 7400 + id),
            text_address: String::new(),
        };
        let weight = limits::WEIGHT_NORMAL;
        state.enter(NodeId(id), MemberEntry::candidate(NodeId(id), contact, "", weight));
    }
    for (name, settings) in buckets {
        assert!(state.add_bucket(name, *settings));
    }
    state.form(1);
    Topology::new(state)
}

pub fn put(key: Key, write_id: u128, basis: Basis, value: &'static str) -> Put {
    Put {
        key,
        write_id: WriteId(write_id),
        attempt: 0,
        basis,
        condition: Condition::None,
        value: Some(Bytes::from_static(value.as_bytes())),
        expiry: Expiry::Bucket,
        w: Level::Default,
        pw: Level::Default,
        strict: true,
        budget_ms: 0,
    }
}

/// An object with one value, made elsewhere.
pub fn object(n: u64, value: &'static str) -> Object {
    let dot = Dot { actor: Actor { incarnation: Incarnation(9), k: 1 }, counter: n };
    let (write_id, hlc, after) = (WriteId(n.into()), Hlc(n), Hlc::default());
    let content = Content::Value(value.into());
    let sibling = Sibling { dot, write_id, hlc, after, expires_at: None, content };
    let mut object = Object::new();
    object.write(&VersionVector::new(), sibling);
    object
}

/// A value that was written by each of these actors after the one before.
pub fn overwritten(actors: Range<u64>) -> Object {
    let mut object = Object::new();
    for n in actors {
        let dot = Dot { actor: Actor { incarnation: Incarnation(n), k: 1 }, counter: 1 };
        let (write_id, hlc, after) = (WriteId(n.into()), Hlc(n), Hlc::default());
        let content = Content::Value("value".into());
        let basis = object.clock().clone();
        object.write(&basis, Sibling { dot, write_id, hlc, after, expires_at: None, content });
    }
    object
}
