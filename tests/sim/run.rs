//! One run from its first event to the last read.

use std::collections::BTreeMap;

use ringdove::causality::MAX_SKEW_MS;
use ringdove::ids::Partition;
use ringdove::membership::Standing;
use ringdove::replica::sync;
use ringdove::time::WallMs;

use crate::history::{Held, History, Outcome, Time};
use crate::node::Node;
use crate::plan::{Fault, MS, Plan, SECOND};
use crate::world::{Event, World};

/// Operations that a run is to have.
const OPERATIONS: usize = 1_500;
/// How far all clocks go forward at the end. More than they are apart, with five minutes.
const ALL_EXPIRE_MS: i64 = 3 * 3_600_000;
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
    if world.plan.detects {
        world.after(0, Event::Detect);
    }
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
        self.mend_damage();
        self.drain_hints();
        self.converge();
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
        self.nodes[node].disk.slow = 0;
        self.fill(node, false);
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

    /// Waits until all that was deleted, or has expired, is forgotten.
    fn forget_the_deleted(&mut self) {
        // Whatever was to expire in this run has: for long enough, by everybody's clock.
        for node in 0..self.nodes.len() {
            self.set_clock(node, self.nodes[node].skew_ms + ALL_EXPIRE_MS);
        }
        if self.plan.faults.contains(&Fault::S16Restore) {
            (0..self.nodes.len()).for_each(|node| self.reap_deadline(node));
        }
        let is_left =
            |world: &Self| (0..world.nodes.len()).any(|node| !world.left_at(node).is_empty());
        // Where a crash left a tombstone with some owners only, it has to spread again first.
        self.run(self.now + 60 * SECOND, |world| !is_left(world));
        for number in 0..self.nodes.len() {
            let left = self.left_at(number);
            if !left.is_empty() {
                let held_up = self.reaping_of(number);
                let line = format!("n{number} still has what is deleted: {left:?}; {held_up}");
                self.history.stuck.push(line);
            }
        }
    }

    /// Deleted keys that a node should have forgotten by now.
    fn left_at(&self, node: usize) -> Vec<String> {
        if !self.nodes[node].is_present() {
            return Vec::new();
        }
        let until = WallMs(self.now_at(node).wall.0 - MAX_SKEW_MS);
        let faded = self.nodes[node].disk.faded(self.plan.partitions, until).into_iter();
        faded.map(|key| key.key().to_string()).collect()
    }

    /// Waits until all know the same members, and every slot is with whom the ring wants.
    fn settle_members(&mut self) {
        let limit = self.now + 20 * SECOND;
        self.run(limit, |world| world.is_settled());
        if !self.is_settled() && self.plan.faults.contains(&Fault::S14Corrupt) {
            // A damaged record holds its slots up until somebody reads it.
            for key in self.clients.keys().to_vec() {
                for via in self.primaries(&key) {
                    self.final_read(&key, via, (self.n_of(&key) - 1).max(1), false);
                }
            }
        }
        let limit = self.now + 40 * SECOND;
        self.run(limit, |world| world.is_settled());
        let present = (0..self.nodes.len()).filter(|node| self.nodes[*node].up);
        for number in present.collect::<Vec<_>>() {
            let topology = &self.nodes[number].topology;
            if topology.version() != self.newest().version() {
                self.history.stuck.push(format!("n{number} knows other members than the others"));
            } else if topology.changing() > 0 {
                let changing = topology.changing();
                self.note_transfers();
                self.history.stuck.push(format!("{changing} slots still change hands"));
                break;
            } else if topology.moving() > 0 {
                self.history.stuck.push("a bucket has not arrived in its new slots".to_owned());
                break;
            }
        }
    }

    /// Writes down what moves, and who holds it up.
    fn note_transfers(&mut self) {
        for number in 0..self.nodes.len() {
            let Some(desk) = &self.nodes[number].desk else { continue };
            let lines = desk.machine.status().incoming;
            for line in lines.iter().filter(|line| line.left > 0) {
                let from = line.from.and_then(|id| self.number(id));
                self.note(format!("to n{number} from {from:?}: {line:?}"));
            }
        }
    }

    fn is_settled(&self) -> bool {
        let newest = self.newest();
        let knows = |node: &Node| !node.up || node.topology.version() == newest.version();
        newest.changing() == 0 && newest.moving() == 0 && self.nodes.iter().all(knows)
    }

    /// Has records read that a disk cannot read, as a scrub does: so they are mended.
    fn mend_damage(&mut self) {
        for key in self.clients.keys().to_vec() {
            let stored = self.stored_key(&key);
            let damaged = |node: &Node| node.disk.corrupt.contains(&stored);
            if self.nodes.iter().any(damaged) {
                for via in self.primaries(&key) {
                    let others = (self.n_of(&key) - 1).max(1);
                    self.final_read(&key, via, others, false);
                }
            }
        }
        self.wait(SECOND);
    }

    /// Waits until all owners have compared and found nothing to mend. Nobody reads anything for it.
    fn converge(&mut self) {
        for node in 0..self.nodes.len() {
            for partition in 0..self.plan.partitions {
                self.recount(node, Partition(partition as u16));
            }
        }
        let began = self.now;
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].up).collect();
        for node in &up {
            self.sync_input(*node, sync::Input::Now);
        }
        self.run(began + 60 * SECOND, |world| up.iter().all(|node| world.is_in_sync(*node, began)));
        // Whether nothing is missing any more is looked at once a second.
        self.wait(2 * SECOND);
        for node in up {
            if !self.is_in_sync(node, began) {
                let now = self.now_at(node).instant;
                let status = self.nodes[node].sync.as_ref().map(|desk| desk.machine.status(now));
                self.history.stuck.push(format!("n{node} is not in sync: {status:?}"));
            }
            if self.nodes[node].amnesiac {
                self.history.stuck.push(format!("n{node} is amnesiac for ever"));
            }
        }
        self.compare_owners();
    }

    /// Owners are equal, and nobody has read anything yet that could have made them so.
    fn compare_owners(&mut self) {
        let disks: Vec<BTreeMap<String, Held>> =
            (0..self.nodes.len()).map(|node| self.contents(node)).collect();
        for key in self.clients.keys().to_vec() {
            let name = key.to_string();
            let held: Vec<Option<u128>> = (self.primaries(&key).into_iter())
                .map(|node| disks[node].get(&name).map(|held| held.digest))
                .collect();
            if held.iter().any(|digest| *digest != held[0]) {
                self.history.stuck.push(format!("{name} differs between its owners"));
            }
        }
    }

    /// Whether all comparisons of a node that began after `began` found nothing left to do.
    fn is_in_sync(&self, node: usize, began: Time) -> bool {
        let Some(desk) = &self.nodes[node].sync else { return true };
        let oldest_ms = desk.machine.status(self.now_at(node).instant).oldest_ms;
        oldest_ms.is_some_and(|age| age * MS < self.now - began)
    }

    /// Reads every key at R=N, several times, through several nodes.
    fn read_everything(&mut self) {
        for round in 0..3 {
            for key in self.clients.keys().to_vec() {
                let via = self.serving();
                let outcome = self.final_read(&key, via, self.n_of(&key), true);
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
