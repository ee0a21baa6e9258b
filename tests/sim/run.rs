//! One run from its first event to the last read.

use std::collections::BTreeMap;

use ringdove::membership::Standing;
use ringdove::store::StoredKey;

use crate::history::{Held, History, Outcome, Time};
use crate::node::Node;
use crate::plan::{Fault, MS, Plan, SECOND};
use crate::world::{Event, World};

/// Operations that a run is to have.
const OPERATIONS: usize = 1_500;
/// How often the fault schedule is gone through at most to reach them.
const ROUNDS: Time = 6;

/// Runs a plan to its end.
pub fn run(plan: Plan) -> History {
    let mut world = World::new(plan);
    for node in 0..world.plan.nodes {
        world.boot(node);
    }
    world.after(0, Event::Reconnect);
    world.after(0, Event::Gossip);
    world.open_sessions();
    // Where faults left little done, they come over the cluster again, in the same order.
    let mut begins = 0;
    while begins == 0 || (world.history.ops.len() < OPERATIONS && begins < ROUNDS * world.plan.ends)
    {
        for index in 0..world.plan.actions.len() {
            let at = world.plan.actions[index].0;
            world.at(begins + at, Event::Fault(index));
        }
        begins += world.plan.ends;
        world.run(begins, |_| false);
    }
    world.finale();
    world.history
}

impl World {
    /// Heals everything, waits, repairs by reading, and looks at what is left.
    fn finale(&mut self) {
        self.note("everything heals");
        self.clients.closed = true;
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.heal(node);
        }
        // Sessions finish what they have begun; connections come back.
        let limit = self.now + 5 * SECOND;
        self.run(limit, |world| world.clients.is_idle());
        // A drain that was under way when everything healed has ended by now.
        self.wait(3 * SECOND);
        for node in 0..self.nodes.len() {
            self.heal(node);
        }
        self.settle_members();
        self.wait(2 * SECOND);
        self.repair_victims();
        self.drain_hints();
        self.forget_the_deleted();
        self.read_everything();
        self.wait(4 * SECOND);
        for key in self.clients.keys().to_vec() {
            self.history.primaries.insert(key.to_string(), self.primaries(&key));
        }
        let disk = |node: usize| {
            let mut disk = self.contents(node);
            disk.retain(|key, _| self.history.primaries[key].contains(&node));
            disk
        };
        self.history.final_disks = (0..self.nodes.len()).map(disk).collect();
    }

    fn heal(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        (disk.full, disk.slow) = (false, 0);
        if self.nodes[node].paused {
            self.act(crate::plan::Action::Resume(node));
        }
        self.start(node);
    }

    fn wait(&mut self, span: u64) {
        let until = self.now + span;
        self.run(until, |_| false);
    }

    /// Waits until everybody has what was kept for them.
    fn drain_hints(&mut self) {
        let limit = self.now + 20 * SECOND;
        // Of one that was removed nothing is taken any more.
        let keeps = |node: &Node| node.is_present() && !node.disk.all_hints().is_empty();
        let kept = |world: &Self| world.nodes.iter().any(keeps);
        self.wait(2 * SECOND);
        self.run(limit, |world| !kept(world));
        for number in 0..self.nodes.len() {
            let left = self.nodes[number].disk.all_hints().len();
            if left > 0 && self.nodes[number].is_present() {
                self.history.stuck.push(format!("n{number} still keeps {left} hints"));
            }
        }
    }

    /// Waits until all that was deleted is forgotten.
    fn forget_the_deleted(&mut self) {
        if self.plan.faults.contains(&Fault::S16Restore) {
            return;
        }
        let limit = self.now + 30 * SECOND;
        let is_left = |world: &Self| world.nodes.iter().any(|node| !world.left_at(node).is_empty());
        while self.now < limit && is_left(self) {
            // Where a crash left a tombstone with some owners only, it has to spread again first.
            for key in self.clients.keys().to_vec() {
                let via = self.serving();
                self.final_read(&key, via, self.plan.n, false);
            }
            let until = self.now + 3 * SECOND;
            self.run(until, |world| !is_left(world));
        }
        for number in 0..self.nodes.len() {
            let left = self.left_at(&self.nodes[number]);
            if !left.is_empty() {
                let held_up = self.reaping_of(number);
                let line = format!("n{number} still has tombstones: {left:?}; {held_up}");
                self.history.stuck.push(line);
            }
        }
    }

    /// Deleted keys that a node should have forgotten by now: all but those of which a former owner
    /// still has something, because it stands in the same partition for buckets of another N.
    fn left_at(&self, node: &Node) -> Vec<String> {
        if !node.is_present() {
            return Vec::new();
        }
        let is_left_over = |stored: &StoredKey| {
            let primaries = self.primaries(&stored.key());
            let nodes = self.nodes.iter().enumerate();
            let mut former = nodes.filter(|(n, node)| node.is_present() && !primaries.contains(n));
            former.any(|(_, node)| node.disk.held(stored).is_some())
        };
        let tombstones = node.disk.tombstones(self.plan.partitions).into_iter();
        tombstones.filter(|key| !is_left_over(key)).map(|key| key.key().to_string()).collect()
    }

    /// Waits until all know the same members, and every slot is with whom the ring wants.
    fn settle_members(&mut self) {
        let limit = self.now + 60 * SECOND;
        self.run(limit, |world| world.is_settled());
        let present = (0..self.nodes.len()).filter(|node| self.nodes[*node].up);
        for number in present.collect::<Vec<_>>() {
            let topology = &self.nodes[number].topology;
            if topology.version() != self.newest().version() {
                self.history.stuck.push(format!("n{number} knows other members than the others"));
            } else if topology.changing() > 0 {
                let changing = topology.changing();
                self.history.stuck.push(format!("{changing} slots still change hands"));
                break;
            }
        }
    }

    fn is_settled(&self) -> bool {
        let newest = self.newest();
        let knows = |node: &Node| !node.up || node.topology.version() == newest.version();
        newest.changing() == 0 && self.nodes.iter().all(knows)
    }

    /// Stands in for anti-entropy, which does not exist yet: every key is read through each of its
    /// primaries with all the others' votes, so what a victim has lost is given back to it; then
    /// victims are declared complete, by a clean restart.
    fn repair_victims(&mut self) {
        for key in self.clients.keys().to_vec() {
            for via in self.primaries(&key) {
                let others = (self.plan.n - 1).max(1);
                self.final_read(&key, via, others, false);
            }
        }
        self.wait(SECOND);
        for node in 0..self.nodes.len() {
            if self.nodes[node].amnesiac {
                self.act(crate::plan::Action::Drain(node));
                let limit = self.now + 3 * SECOND;
                self.run(limit, |world| !world.nodes[node].up);
                self.nodes[node].amnesiac = false;
                self.start(node);
            }
        }
        self.wait(SECOND);
    }

    /// Reads every key at R=N, several times, through several nodes.
    fn read_everything(&mut self) {
        for round in 0..3 {
            for key in self.clients.keys().to_vec() {
                let via = self.serving();
                let outcome = self.final_read(&key, via, self.plan.n, true);
                if outcome != Outcome::Ok {
                    let line = format!("round {round}: {key} through n{via} at R=N: {outcome:?}");
                    self.history.stuck.push(line);
                }
                self.wait(50 * MS);
            }
        }
    }

    /// Some node that serves clients.
    fn serving(&mut self) -> usize {
        let serves =
            |node: &usize| self.nodes[*node].up && matches!(self.standing(*node), Standing::Member);
        let serving: Vec<usize> = (0..self.nodes.len()).filter(serves).collect();
        serving[self.random.below(serving.len() as u64) as usize]
    }

    /// What a node's disk has.
    pub fn contents(&self, node: usize) -> BTreeMap<String, Held> {
        let held = self.clients.keys().iter().filter_map(|key| {
            let stored = self.stored_key(key);
            Some((key.to_string(), self.nodes[node].disk.held(&stored)?))
        });
        held.collect()
    }
}
