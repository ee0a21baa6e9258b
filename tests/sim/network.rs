//! The simulated network: which messages arrive, when, and how often.

use ringdove::random::Random;
use ringdove::replica::Input;

use crate::history::Time;
use crate::plan::{MS, SECOND};
use crate::world::{Event, World};

/// How often failure detectors may change their minds.
const DETECT: Time = 300 * MS;
/// How often nodes look after their connections.
const RECONNECT: Time = 200 * MS;

/// All links between nodes. Clients reach every node that is up.
pub struct Network {
    nodes: usize,
    /// For each ordered pair: how many faults cut it at the moment.
    cuts: Vec<u32>,
    pub loss_percent: u64,
    pub disorder: bool,
    /// Added to everything that leaves or reaches a node.
    pub slow: Vec<Time>,
}

impl Network {
    pub fn new(nodes: usize) -> Self {
        let (cuts, slow) = (vec![0; nodes * nodes], vec![0; nodes]);
        Self { nodes, cuts, loss_percent: 0, disorder: false, slow }
    }

    pub fn cut(&mut self, pairs: &[(usize, usize)]) {
        for (from, to) in pairs {
            self.cuts[from * self.nodes + to] += 1;
        }
    }

    pub fn uncut(&mut self, pairs: &[(usize, usize)]) {
        for (from, to) in pairs {
            let cuts = &mut self.cuts[from * self.nodes + to];
            *cuts = cuts.saturating_sub(1);
        }
    }

    pub fn heal(&mut self) {
        *self = Self::new(self.nodes);
    }

    pub fn is_open(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.nodes + to] == 0
    }

    /// The delays of the copies of a message that arrive: none, one, or two.
    pub fn between(&self, random: &mut Random, from: usize, to: usize) -> Vec<Time> {
        if !self.is_open(from, to) || random.chance(self.loss_percent) {
            return Vec::new();
        }
        let slow = self.slow[from] + self.slow[to];
        let mut delays = vec![self.delay(random) + slow];
        if self.disorder && random.chance(5) {
            delays.push(self.delay(random) + slow);
        }
        delays
    }

    /// The delay between a client and a node.
    pub fn to_client(&self, random: &mut Random, node: usize) -> Time {
        self.delay(random) + self.slow[node]
    }

    fn delay(&self, random: &mut Random) -> Time {
        let base = 200 + random.below(300) + random.below(2 * MS);
        // Once in a while a packet is sent again, or a switch is busy.
        let rare = if random.chance(1) { random.below(200 * MS) } else { 0 };
        let disorder = match self.disorder {
            true if random.chance(2) => random.below(3 * SECOND),
            true => random.below(100 * MS),
            false => 0,
        };
        base + rare + disorder
    }
}

impl World {
    pub fn peer(&mut self, node: usize, peer: usize, connected: bool) {
        if self.nodes[node].connected[peer] == connected {
            return;
        }
        self.nodes[node].connected[peer] = connected;
        let id = self.nodes[peer].id;
        if connected {
            self.transfer_input(node, ringdove::replica::transfer::Input::Connected(id));
        }
        for shard in 0..self.plan.shards {
            let input = if connected { Input::Connected(id) } else { Input::Disconnected(id) };
            self.input(node, shard, input);
        }
    }

    /// Tells `node`, some time soon, that its connection to `peer` has begun or ended.
    pub fn tell(&mut self, node: usize, peer: usize, connected: bool, within: Time) {
        let (delay, process) = (self.random.below(within), self.nodes[node].process);
        self.after(delay, Event::Peer { node, process, peer, connected });
    }

    /// Failure detectors say who is up and who is down: sooner or later what is so, and at times, until
    /// everything heals, what is not.
    pub fn detect(&mut self) {
        for node in 0..self.nodes.len() {
            for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                let (this, other) = (&self.nodes[node], &self.nodes[peer]);
                if !this.up || this.paused {
                    continue;
                }
                let is_wrong = !self.clients.closed && self.random.chance(2);
                let is_there = other.up && !other.paused && self.network.is_open(peer, node);
                let is_down = is_there == is_wrong;
                if is_down != self.nodes[node].down[peer] && self.random.chance(40) {
                    self.tell_verdict(node, peer, is_down);
                }
            }
        }
        self.after(DETECT, Event::Detect);
    }

    fn tell_verdict(&mut self, node: usize, peer: usize, is_down: bool) {
        self.nodes[node].down[peer] = is_down;
        self.note(format!("n{node} takes n{peer} to be {}", if is_down { "down" } else { "up" }));
        let id = self.nodes[peer].id;
        for shard in 0..self.plan.shards {
            let verdict = if is_down { Input::Down(id) } else { Input::Up(id) };
            self.input(node, shard, verdict);
        }
    }

    /// Nodes look after their connections: what is missing is made, and what is dead is noticed
    /// in the end.
    pub fn reconnect(&mut self) {
        for node in 0..self.nodes.len() {
            for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                let (this, other) = (&self.nodes[node], &self.nodes[peer]);
                if !this.up || this.paused {
                    continue;
                }
                let open = self.network.is_open(node, peer) && self.network.is_open(peer, node);
                let alive = other.up && open;
                if !this.connected[peer] && alive && !other.paused {
                    self.tell(node, peer, true, 20 * MS);
                } else if this.connected[peer] && !alive && self.random.chance(6) {
                    self.tell(node, peer, false, 20 * MS);
                }
            }
        }
        self.after(RECONNECT, Event::Reconnect);
    }
}
