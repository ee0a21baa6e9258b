//! A cluster of [`Swim`]s in one thread: the production state machine under simulated time, over a
//! network that loses packets.
//!
//! Events are ordered by time, then by the order in which they were made; the same seed gives the
//! same run. Used by the tests beside it and by `benches/swim.rs`.

// Each of the two uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use ringdove::ids::NodeId;
use ringdove::membership::swim::{Effect, Identity, Input, Key, Sealer, Settings, State, Swim};
use ringdove::random::Random;
use ringdove::time::Instant;

/// The name of every simulated cluster.
pub const NAME: &str = "simulated";
/// The secret of its key.
pub const SECRET: &str = "the simulation has no secrets";
/// How often a node compares its view with another's.
const PUSH_PULL_EVERY: Duration = Duration::from_secs(30);
/// A round of two such messages and their frames, where the views agree.
const PUSH_PULL_BYTES: u64 = 80;

enum Event {
    Packet { to: usize, datagram: Bytes },
    Wake(usize),
    PushPull(usize),
}

/// One node.
pub struct Node {
    /// Its part in the protocol; stays as it was when its process ends.
    pub swim: Swim,
    /// The version of the cluster state that others said they had, as told to this node.
    pub versions: Vec<(NodeId, u64)>,
    /// Generations made durable.
    pub generation: u32,
    is_running: bool,
    paused_until: Instant,
    /// What waits in its socket while it is paused.
    waiting: Vec<Bytes>,
    wakes_at: Option<Instant>,
    /// Since when it takes which others to be down.
    down: BTreeMap<usize, Instant>,
}

/// A verdict of one node about another that was running.
#[derive(Clone, Copy, Debug)]
pub struct FalseDown {
    /// When.
    pub at: Instant,
    /// Whose.
    pub by: usize,
    /// About whom.
    pub about: usize,
    /// How long it stood; until now where it still does.
    pub lasted: Duration,
}

/// The cluster.
pub struct Cluster {
    /// The time.
    pub now: Instant,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Verdicts that were false and have been taken back.
    pub false_downs: Vec<FalseDown>,
    /// When each node took which other to be down, rightly.
    pub detected: Vec<(usize, usize, Instant)>,
    /// Bytes of views over connections.
    pub view_bytes: u64,
    /// Packets lost, of a thousand.
    pub loss: u64,
    /// Links that carry nothing: from, to.
    pub cut: Box<dyn Fn(usize, usize) -> bool>,
    settings: Settings,
    random: Random,
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
}

/// The id of node `index`.
pub fn id(index: usize) -> NodeId {
    NodeId(index as u128 + 1)
}

fn index(node: NodeId) -> usize {
    node.0 as usize - 1
}

/// Where node `index` takes gossip.
pub fn address(index: usize) -> SocketAddr {
    let [.., a, b, c] = (index as u32).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), 7400)
}

fn index_at(address: SocketAddr) -> usize {
    let IpAddr::V4(ip) = address.ip() else { panic!("all are of IPv4") };
    let [_, a, b, c] = ip.octets();
    u32::from_be_bytes([0, a, b, c]) as usize
}

impl Cluster {
    /// `count` nodes that all start within the first second and know who the members are.
    pub fn new(count: usize, seed: u64, settings: Settings, loss: u64) -> Self {
        let mut random = Random::new(seed);
        let now = Instant(0);
        let nodes = (0..count).map(|index| start(now, index, 1, settings, random.next_u64()));
        let mut cluster = Self {
            now,
            nodes: nodes.collect(),
            false_downs: Vec::new(),
            detected: Vec::new(),
            view_bytes: 0,
            loss,
            cut: Box::new(|_, _| false),
            settings,
            random,
            queue: BTreeMap::new(),
            sequence: 0,
        };
        for index in 0..count {
            let at = Instant(cluster.random.below(1_000_000));
            cluster.nodes[index].paused_until = at;
            cluster.input(index, Input::Members(cluster.others(index)));
            cluster.nodes[index].wakes_at = None;
            cluster.wake_in_time(index);
            cluster.push_pull_soon(index, at);
        }
        cluster
    }

    fn others(&self, index: usize) -> BTreeMap<NodeId, SocketAddr> {
        let all = (0..self.nodes.len()).filter(|other| *other != index);
        all.map(|other| (id(other), address(other))).collect()
    }

    /// Ends a process without a word.
    pub fn crash(&mut self, index: usize) {
        self.nodes[index].is_running = false;
    }

    /// Starts it again, on its data.
    pub fn restart(&mut self, index: usize) {
        let generation = self.nodes[index].generation + 1;
        let seed = self.random.next_u64();
        self.nodes[index] = start(self.now, index, generation, self.settings, seed);
        self.input(index, Input::Members(self.others(index)));
        self.push_pull_soon(index, self.now);
    }

    /// Stops a process for a while, as a full machine or `SIGSTOP` does.
    pub fn pause(&mut self, index: usize, time: Duration) {
        self.nodes[index].paused_until = self.now + time;
    }

    /// How `by` sees `about`.
    pub fn state(&self, by: usize, about: usize) -> State {
        let view = self.nodes[by].swim.view();
        view.iter().find(|row| row.node == id(about)).map_or(State::Unknown, |row| row.state)
    }

    /// Whether every running node sees every running one as up and every other one as down.
    pub fn views_are_right(&self) -> bool {
        let running: Vec<bool> = self.nodes.iter().map(|node| node.is_running).collect();
        let sees_right = |(by, node): (usize, &Node)| {
            !node.is_running
                || node.swim.view().iter().all(|row| {
                    let about = index(row.node);
                    about == by
                        || (row.state < State::Down) == running[about]
                            && row.state != State::Unknown
                })
        };
        self.nodes.iter().enumerate().all(sees_right)
    }

    /// All false verdicts, those that still stand with the time until now.
    pub fn all_false_downs(&self) -> Vec<FalseDown> {
        let mut all = self.false_downs.clone();
        for (by, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_running) {
            for (about, at) in &node.down {
                if self.nodes[*about].is_running {
                    all.push(FalseDown { at: *at, by, about: *about, lasted: self.now - *at });
                }
            }
        }
        all
    }

    /// The sum of what the nodes have counted of themselves.
    pub fn count(&self, of: impl Fn(&ringdove::membership::swim::Counters) -> u64) -> u64 {
        self.nodes.iter().map(|node| of(&node.swim.counters())).sum()
    }

    /// Gives one input to a node, now.
    pub fn input(&mut self, index: usize, input: Input) {
        let mut effects = Vec::new();
        self.nodes[index].swim.handle(self.now, input, &mut effects);
        self.perform(index, effects);
        self.wake_in_time(index);
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > end {
                break;
            }
            let event = entry.remove();
            self.now = at;
            match event {
                Event::Packet { to, datagram } => self.arrive(to, datagram),
                Event::Wake(index) => self.wake(index),
                Event::PushPull(index) => self.push_pull(index),
            }
        }
        self.now = end;
    }

    /// Runs for `time`.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until `what` holds, looking every 100 ms; the time it took, `None` after `most`.
    pub fn run_until_true(
        &mut self,
        most: Duration,
        what: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let began = self.now;
        while self.now - began < most {
            if what(self) {
                return Some(self.now - began);
            }
            self.run_for(Duration::from_millis(100));
        }
        None
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn arrive(&mut self, to: usize, datagram: Bytes) {
        let node = &mut self.nodes[to];
        if !node.is_running {
            return;
        }
        if node.paused_until > self.now {
            // A socket's buffer holds some packets and drops the rest.
            if node.waiting.len() < 256 {
                node.waiting.push(datagram);
            }
            return;
        }
        self.input(to, Input::Datagram(datagram));
    }

    /// One turn of a node's loop: timers first, then what has arrived.
    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.wakes_at != Some(self.now) || !node.is_running {
            return;
        }
        node.wakes_at = None;
        if node.paused_until > self.now {
            let at = node.paused_until;
            node.wakes_at = Some(at);
            return self.push(at, Event::Wake(index));
        }
        let mut effects = Vec::new();
        node.swim.handle_deadline(self.now, &mut effects);
        let waiting = std::mem::take(&mut node.waiting);
        self.perform(index, effects);
        for datagram in waiting {
            self.input(index, Input::Datagram(datagram));
        }
        self.wake_in_time(index);
    }

    fn wake_in_time(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(at) = node.swim.next_deadline() else { return };
        let at = at.max(self.now);
        if node.wakes_at.is_none_or(|wakes_at| at < wakes_at) {
            node.wakes_at = Some(at);
            self.push(at, Event::Wake(index));
        }
    }

    fn perform(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, datagram } => {
                    let to = index_at(to);
                    if self.random.below(1000) < self.loss || (self.cut)(index, to) {
                        continue;
                    }
                    // 0.2 to 0.6 ms: a rack.
                    let delay = Duration::from_micros(200 + self.random.below(400));
                    self.push(self.now + delay, Event::Packet { to, datagram });
                }
                Effect::Down(node) => {
                    let about = self::index(node);
                    self.nodes[index].down.insert(about, self.now);
                    if !self.nodes[about].is_running {
                        self.detected.push((index, about, self.now));
                    }
                }
                Effect::Up(node) => {
                    let about = self::index(node);
                    let since = self.nodes[index].down.remove(&about);
                    let was_false = |at: &Instant| {
                        let detection = (index, about, *at);
                        !self.detected.contains(&detection)
                    };
                    if let Some(at) = since.filter(was_false) {
                        let lasted = self.now - at;
                        self.false_downs.push(FalseDown { at, by: index, about, lasted });
                    }
                }
                Effect::Versions { from, version } => {
                    self.nodes[index].versions.push((from, version.epoch));
                }
                Effect::Renew(generation) => {
                    assert!(generation > self.nodes[index].generation, "generations only grow");
                    self.nodes[index].generation = generation;
                }
            }
        }
    }

    fn push_pull_soon(&mut self, index: usize, from: Instant) {
        let wait = Duration::from_micros(1_000_000 + self.random.below(1_000_000));
        self.push(from + wait, Event::PushPull(index));
    }

    /// Compares views with another node over a connection, which loses nothing.
    fn push_pull(&mut self, index: usize) {
        if !self.nodes[index].is_running || self.nodes.len() < 2 {
            return;
        }
        let jitter = Duration::from_micros(self.random.below(5_000_000));
        self.push(self.now + PUSH_PULL_EVERY + jitter, Event::PushPull(index));
        let other = self.random.below(self.nodes.len() as u64) as usize;
        let reaches =
            |by: usize| self.nodes[by].is_running && self.nodes[by].paused_until <= self.now;
        if other == index || !reaches(other) || !reaches(index) || (self.cut)(index, other) {
            return;
        }
        self.view_bytes += PUSH_PULL_BYTES;
        if self.nodes[index].swim.digest() == self.nodes[other].swim.digest() {
            return;
        }
        let theirs = self.nodes[other].swim.full_view();
        self.view_bytes += theirs.len() as u64;
        self.input(index, Input::View(theirs));
        let ours = self.nodes[index].swim.full_view();
        self.view_bytes += ours.len() as u64;
        self.input(other, Input::View(ours));
    }
}

fn start(now: Instant, index: usize, generation: u32, settings: Settings, seed: u64) -> Node {
    let identity = Identity::new(id(index), generation, address(index));
    let sealer = Sealer::new(NAME, id(index), vec![Key::new(NAME, SECRET.as_bytes())]);
    Node {
        swim: Swim::new(now, settings, identity, sealer, seed),
        versions: Vec::new(),
        generation,
        is_running: true,
        paused_until: now,
        waiting: Vec::new(),
        wakes_at: None,
        down: BTreeMap::new(),
    }
}
