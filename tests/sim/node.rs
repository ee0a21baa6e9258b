//! A simulated node: the production shards of one process, and what outlives the process.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use ringdove::ids::{Incarnation, NodeId};
use ringdove::membership::{ClusterState, Topology};
use ringdove::replica::room::Room;
use ringdove::replica::{Input, Shard};

use crate::disk::Disk;
use crate::history::Time;
use crate::reap::Reaping;
use crate::sync;
use crate::transfers::Desk;
use crate::world::{Event, Sender};

/// Numbers for actors that a node leases at once. Few, so that running out is tried too.
const ACTORS_LEASED: u64 = 24;

pub struct Node {
    pub id: NodeId,
    /// What it knows of the cluster. Durable.
    pub state: ClusterState,
    pub topology: Arc<Topology>,
    /// What its transfers have kept. Durable.
    pub kept: Option<Vec<u8>>,
    pub desk: Option<Desk>,
    pub reaping: Option<Reaping>,
    pub sync: Option<sync::Desk>,
    /// Which of its processes this is; messages for earlier ones are dropped, as their
    /// connections are.
    pub process: u32,
    pub up: bool,
    /// It was replaced, and never comes back.
    pub gone: bool,
    pub paused: bool,
    /// What happens to it once it is resumed.
    pub held: VecDeque<Event>,
    pub started: Time,
    pub skew_ms: i64,
    pub incarnation: Incarnation,
    pub amnesiac: bool,
    /// Stopped cleanly: the incarnation stays.
    pub clean: bool,
    pub draining: bool,
    /// Next actor that was never leased under this incarnation. Durable.
    next_actor: u64,
    pub shards: Vec<Place>,
    pub waiting: BTreeMap<u64, (Sender, u64)>,
    pub last_origin: u64,
    pub disk: Disk,
    /// What it knows of the room on that.
    pub room: Room,
    /// Which peers it believes to be connected to.
    pub connected: Vec<bool>,
    /// Which peers its failure detector has called down.
    pub down: Vec<bool>,
}

/// A shard with what its driver keeps.
pub struct Place {
    pub shard: Shard,
    pub inbox: Vec<Input>,
    pub turn_is_due: bool,
    pub wake_at: Option<Time>,
}

impl Place {
    pub fn new(shard: Shard) -> Self {
        Self { shard, inbox: Vec::new(), turn_is_due: false, wake_at: None }
    }
}

impl Node {
    pub fn new(id: NodeId, nodes: usize, incarnation: Incarnation, state: ClusterState) -> Self {
        Self {
            id,
            topology: Arc::new(Topology::new(state.clone())),
            state,
            kept: None,
            desk: None,
            reaping: None,
            sync: None,
            process: 0,
            up: false,
            gone: false,
            paused: false,
            held: VecDeque::new(),
            started: 0,
            skew_ms: 0,
            incarnation,
            amnesiac: false,
            clean: true,
            draining: false,
            next_actor: 0,
            shards: Vec::new(),
            waiting: BTreeMap::new(),
            last_origin: 0,
            disk: Disk::default(),
            room: Room::default(),
            connected: vec![false; nodes],
            down: vec![false; nodes],
        }
    }

    pub fn lease(&mut self) -> Range<u64> {
        let start = self.next_actor;
        self.next_actor += ACTORS_LEASED;
        start..self.next_actor
    }

    /// Under a new incarnation, or for a planted bug, actors start again.
    pub fn forget_leases(&mut self) {
        self.next_actor = 0;
    }

    /// Whether it may bring in what it has: it runs, and was not removed.
    pub fn is_present(&self) -> bool {
        self.up && !self.gone && self.topology.is_present(self.id)
    }

    pub fn is_quiet(&self) -> bool {
        let idle = |place: &Place| place.inbox.is_empty() && place.shard.in_flight() == 0;
        self.shards.iter().all(idle) && self.disk.outstanding.is_empty()
    }
}
