//! What the steps of a fault schedule do to the world.

use ringdove::ids::Incarnation;
use ringdove::replica::Input;
use ringdove::replica::room::{self, LOOK_EVERY, Room};
use ringdove::store::memory::MemoryStore;

use crate::disk::NO_ROOM;
use crate::history::{Fact, Time};
use crate::plan::{Action, Bug, MS, SECOND};
use crate::world::{Event, World};

impl World {
    pub fn act(&mut self, action: Action) {
        self.note(format!("fault {action:?}"));
        match action {
            Action::Cut(pairs) => {
                self.network.cut(&pairs);
                for (from, to) in pairs {
                    // Both ends may hear of it, or one, or none.
                    for (node, peer) in [(from, to), (to, from)] {
                        if self.random.chance(40) {
                            self.tell(node, peer, false, 300 * MS);
                        }
                    }
                }
            }
            Action::Uncut(pairs) => self.network.uncut(&pairs),
            Action::Loss(percent) => self.network.loss_percent = percent,
            Action::Disorder(on) => self.network.disorder = on,
            Action::Pause(node) => self.nodes[node].paused = self.nodes[node].up,
            Action::Resume(node) => self.resume(node),
            Action::Crash(node) => self.crash(node),
            Action::Drain(node) => self.drain(node),
            // Who has not joined yet has not begun.
            Action::Start(node) if self.nodes[node].process == 0 => {}
            Action::Start(node) => self.start(node),
            Action::CrashAll => {
                for node in 0..self.nodes.len() {
                    self.crash(node);
                }
                self.all_down();
            }
            Action::Full(node, full) => self.fill(node, full),
            Action::Corrupt(node, count) => self.corrupt(node, count),
            Action::Backup(node) => {
                let disk = &mut self.nodes[node].disk;
                disk.backup = Some(disk.synced.clone());
            }
            Action::Wipe(node) => self.replace_disk(node, MemoryStore::new()),
            Action::Restore(node) => {
                if let Some(backup) = self.nodes[node].disk.backup.clone() {
                    self.replace_disk(node, backup);
                }
            }
            Action::CloneOf(node, other) => {
                let image = self.nodes[other].disk.synced.clone();
                self.replace_disk(node, image);
            }
            Action::Skew(node, skew_ms) => self.set_clock(node, skew_ms),
            Action::SlowDisk(node, delay) => self.nodes[node].disk.slow = delay,
            Action::SlowNode(node, delay) => self.network.slow[node] = delay,
            Action::Change(change) => self.change(&change),
        }
    }

    fn resume(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].paused, false) {
            return;
        }
        // Everything that came meanwhile happens now, in the order in which it came.
        for event in std::mem::take(&mut self.nodes[node].held) {
            self.after(0, event);
        }
    }

    /// The disk is full from now on, one way or another; or it has room again.
    pub fn fill(&mut self, number: usize, full: bool) {
        let (refuses, shows) = match (full, self.random.below(3)) {
            (false, _) => (false, false),
            // Between the reserve and what must be free for writes to be begun.
            (true, 0) => (false, true),
            // The first refused commit tells, and every second one does that is tried in vain.
            (true, 1) => (true, false),
            (true, _) => (true, true),
        };
        let disk = &mut self.nodes[number].disk;
        (disk.full, disk.shows_full) = (refuses, shows);
    }

    /// A node looks at its disk, as it does all the time.
    pub fn look_at_disk(&mut self, number: usize) {
        let now = self.now_at(number).instant;
        let shows_full = self.nodes[number].disk.shows_full;
        let shown = if shows_full { Err(NO_ROOM.to_owned()) } else { Ok(()) };
        self.change_room(number, |room| room.looked(now, shown));
        let process = self.nodes[number].process;
        self.after(LOOK_EVERY.as_micros() as Time, Event::LookAtDisk { node: number, process });
    }

    /// Lets what a node knows of the room on its disk change, and tells its shards.
    pub fn change_room(&mut self, number: usize, how: impl FnOnce(&mut Room) -> room::Change) {
        let Some(news) = how(&mut self.nodes[number].room).tell else { return };
        for shard in 0..self.plan.shards {
            self.input(number, shard, Input::Room(news.clone()));
        }
    }

    fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !node.up {
            return;
        }
        let given = node.disk.outstanding.len() as u64;
        let survivors = self.random.below(given + 1) as usize;
        let node = &mut self.nodes[number];
        (node.up, node.paused, node.clean) = (false, false, false);
        node.held.clear();
        let kept = node.disk.crash(survivors);
        for batch in kept {
            self.stored(number, &batch.changes);
        }
        self.note(format!("n{number} crashed; {survivors} of {given} batches survived"));
        self.ended(number, 70);
    }

    /// The process is gone: some peers hear of it.
    fn ended(&mut self, number: usize, percent: u64) {
        for peer in 0..self.nodes.len() {
            if peer != number && self.random.chance(percent) {
                self.tell(peer, number, false, 50 * MS);
            }
        }
    }

    fn drain(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !node.up || node.draining {
            return;
        }
        node.draining = true;
        let process = node.process;
        for shard in 0..self.plan.shards {
            self.input(number, shard, Input::Drain);
        }
        let until = self.now + 2 * SECOND;
        self.after(50 * MS, Event::StopIfQuiet { node: number, process, until });
    }

    pub fn stop_if_quiet(&mut self, number: usize, until: u64) {
        let node = &mut self.nodes[number];
        if node.is_quiet() {
            // Dots of a refused batch may stand on other nodes: the next start is a new life.
            let refused = std::mem::take(&mut node.disk.refused);
            (node.up, node.clean) = (false, !refused);
            self.note(format!("n{number} stopped cleanly"));
            self.ended(number, 95);
        } else if self.now >= until {
            self.crash(number);
        } else {
            let process = node.process;
            self.after(50 * MS, Event::StopIfQuiet { node: number, process, until });
        }
    }

    pub fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if node.up || node.gone {
            return;
        }
        if !node.clean {
            // Nothing proves that the disk is complete, though it may be.
            node.incarnation = Incarnation(self.random.next_u64());
            node.forget_leases();
        }
        self.boot(number);
    }

    /// The disk is exchanged while the node is down: a new incarnation, which knows that it may
    /// have forgotten things.
    fn replace_disk(&mut self, number: usize, image: MemoryStore) {
        self.crash(number);
        let node = &mut self.nodes[number];
        node.disk.synced = image;
        node.disk.corrupt.clear();
        node.clean = false;
        node.amnesiac = true;
        match self.plan.bug {
            Some(Bug::ReusedIncarnation) => {
                // Starts as after a clean stop, with a counter of leases that began again.
                node.forget_leases();
                (node.clean, node.amnesiac) = (true, false);
            }
            Some(Bug::ClaimsComplete) => node.amnesiac = false,
            _ => {}
        }
        self.fact(Fact::Forgot { node: number, key: None });
    }

    fn corrupt(&mut self, number: usize, count: u64) {
        let keys = self.nodes[number].disk.keys(self.plan.partitions);
        for _ in 0..count.min(keys.len() as u64) {
            let key = keys[self.random.below(keys.len() as u64) as usize].clone();
            self.note(format!("n{number} corrupt {}", key.key()));
            let name = key.key().to_string();
            self.fact(Fact::Forgot { node: number, key: Some(name) });
            self.fact(Fact::NewActor { node: number });
            self.nodes[number].disk.corrupt.insert(key);
        }
    }

    /// Whether a victim's disk has lost data.
    pub fn has_lost_data(&self) -> bool {
        let forgot = |fact: &Fact| matches!(fact, Fact::Forgot { .. });
        // Planted reaping is no fault of a victim: nobody declared it.
        self.plan.bug != Some(Bug::EarlyReaping) && self.history.facts.iter().any(forgot)
    }

    fn all_down(&mut self) {
        let disks = (0..self.nodes.len()).map(|node| self.all_known(node)).collect();
        let victims = usize::from(self.has_lost_data());
        self.fact(Fact::AllDown { time: self.now, disks, victims });
    }
}
