//! Faults that a node injects into itself, for people who want to see what a cluster does about
//! them: lost, late and doubled messages, pauses, slow and full disks, wrong clocks.
//!
//! ```text
//!   RD.FAULT, ringdove fault ──▶ Faults ──┬─ plan      what is in force; who meets which fate
//!                                         ├─ line      one direction of a connection between nodes
//!                                         ├─ packets   the socket of gossip
//!                                         ├─ the disk  (rocks::commit, rocks::space)
//!                                         ├─ the clock
//!                                         └─ a pause   shards, disk, gossip, connections wait for its end
//! ```
//!
//! What always holds:
//!
//! - Only a node that was started with `node.fault_injection` obeys; what is not in force costs one
//!   load of an atomic where it would have its effect.
//! - Faults are kept in memory only: a restart is clean, and so is a stop in order.
//! - Whatever is in force, orders about faults are heard: they come over clients' connections, which
//!   no fault concerns, and are obeyed during a pause.

mod line;
mod packets;
mod plan;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

pub use line::Line;
pub use packets::Packets;

use super::clock::Clock;
use crate::ids::NodeId;
use crate::membership::ClusterState;
use crate::time::Instant;
use crate::wire::faults::{Direction, Fault, FaultKind, FaultOrder, FaultRow};
use plan::{Carrier, Fate, Member, Plan};

/// Faults that may be in force at once: more than anybody can keep in mind.
const MOST: usize = 256;

/// What an order is answered with where faults are not injected.
const NOT_HERE: &str = "this node injects no faults. One that is to is started with `ringdove serve \
                        --fault-injection` (or `ringdove dev --fault-injection`), and never in production";

/// The faults of this node.
pub struct Faults {
    is_allowed: bool,
    clock: Clock,
    plan: Mutex<Plan>,
    /// Tells threads that a pause is over, with the lock of the plan.
    resumed: Condvar,
    /// Tells tasks the same.
    lifted: Notify,
    // What is in force, for those who look often.
    network: AtomicBool,
    paused: AtomicBool,
    full_disk: AtomicBool,
    slow_disk_ms: AtomicU64,
}

impl Faults {
    /// None in force. Orders are obeyed if they are `allowed`.
    #[must_use]
    pub fn new(is_allowed: bool, clock: Clock) -> Arc<Self> {
        let off = || AtomicBool::new(false);
        let (network, paused, full_disk, slow_disk_ms) = (off(), off(), off(), AtomicU64::new(0));
        let (plan, resumed, lifted) = (Mutex::default(), Condvar::new(), Notify::new());
        Arc::new(Self {
            is_allowed,
            clock,
            plan,
            resumed,
            lifted,
            network,
            paused,
            full_disk,
            slow_disk_ms,
        })
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("no method panics while it holds the lock")
    }

    // ---- orders ----------------------------------------------------------------------------

    /// Whether orders are obeyed.
    #[must_use]
    pub fn are_allowed(&self) -> bool {
        self.is_allowed
    }

    /// Takes note of who the other members are than `me`. Those of `sockets` were looked up.
    pub fn know(&self, cluster: &ClusterState, me: NodeId, sockets: &BTreeMap<NodeId, SocketAddr>) {
        let others = cluster.present().filter(|(id, _)| *id != me).map(|(id, entry)| {
            let (name, zone) = (entry.name().to_owned(), entry.zone().to_owned());
            let (address, socket) = (entry.address().to_owned(), sockets.get(&id).copied());
            (id, Member { name, zone, address, socket })
        });
        self.plan().know(others.collect());
    }

    /// How many are in force.
    #[must_use]
    pub fn count(&self) -> usize {
        self.plan().rows(self.now()).len()
    }

    /// Does what it is told: answers with the fault that was added, with all that are in force, or
    /// with those that were lifted.
    ///
    /// # Errors
    /// When faults are not injected here, or the order cannot be meant so. Nothing was changed.
    pub fn obey(self: &Arc<Self>, order: FaultOrder) -> Result<Vec<FaultRow>, String> {
        if !self.is_allowed {
            return Err(NOT_HERE.to_owned());
        }
        match order {
            FaultOrder::List => Ok(self.plan().rows(self.now())),
            FaultOrder::Clear(id) => self.clear(id),
            FaultOrder::Add(fault) => self.add(fault).map(|row| vec![row]),
        }
    }

    fn add(self: &Arc<Self>, fault: Fault) -> Result<FaultRow, String> {
        let mut plan = self.plan();
        if plan.rows(self.now()).len() >= MOST {
            return Err(format!("{MOST} faults are in force; clear some"));
        }
        let row = plan.add(fault, self.now())?;
        self.settle(&plan);
        drop(plan);
        tracing::warn!(id = row.id, fault = describe(&row.fault), "injecting a fault");
        if let Some(for_ms) = row.left_ms {
            tokio::spawn(self.clone().lift_after(Duration::from_millis(for_ms)));
        }
        Ok(row)
    }

    async fn lift_after(self: Arc<Self>, span: Duration) {
        tokio::time::sleep(span).await;
        let mut plan = self.plan();
        plan.expire(self.now());
        self.settle(&plan);
        tracing::warn!(left = plan.rows(self.now()).len(), "a fault has lifted itself");
    }

    fn clear(&self, id: Option<u64>) -> Result<Vec<FaultRow>, String> {
        let mut plan = self.plan();
        let lifted = plan.clear(id, self.now());
        if let (Some(id), true) = (id, lifted.is_empty()) {
            return Err(format!(
                "no fault {id} is in force: `ringdove fault` lists those that are"
            ));
        }
        self.settle(&plan);
        drop(plan);
        if !lifted.is_empty() {
            tracing::warn!(faults = lifted.len(), "faults have been lifted");
        }
        Ok(lifted)
    }

    /// Lifts everything, for a node that stops in order.
    pub fn end(&self) {
        let _ = self.clear(None);
    }

    /// Makes what is in the plan take effect.
    fn settle(&self, plan: &Plan) {
        let upon = plan.upon();
        self.network.store(upon.network, Ordering::Release);
        self.paused.store(upon.paused, Ordering::Release);
        self.full_disk.store(upon.full_disk, Ordering::Release);
        self.slow_disk_ms.store(upon.slow_disk_ms, Ordering::Release);
        self.clock.go_ahead(upon.clock_ms);
        if !upon.paused {
            self.resumed.notify_all();
            self.lifted.notify_waiters();
        }
    }

    // ---- effects ---------------------------------------------------------------------------

    /// Whether anything that passes between nodes may be concerned.
    #[must_use]
    pub fn concern_network(&self) -> bool {
        self.network.load(Ordering::Acquire)
    }

    /// Whether the node stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Holds a task up until the node does not stand still.
    pub async fn pass_pause(&self) {
        loop {
            // Before the look: so a pause that ends in between is not missed.
            let lifted = self.lifted.notified();
            if !self.is_paused() {
                return;
            }
            lifted.await;
        }
    }

    /// Holds a thread up until the node does not stand still.
    pub fn wait_out_pause(&self) {
        if self.is_paused() {
            let resumed = self.resumed.wait_while(self.plan(), |plan| plan.upon().paused);
            drop(resumed.expect("no method panics while it holds the lock"));
        }
    }

    /// Holds a commit up, as long as the disk is slow or stands still.
    pub fn hold_commit(&self) {
        self.wait_out_pause();
        let slow_ms = self.slow_disk_ms.load(Ordering::Acquire);
        if slow_ms > 0 {
            self.plan().count(|kind| matches!(kind, FaultKind::SlowDisk(_)));
            std::thread::sleep(Duration::from_millis(slow_ms));
        }
    }

    /// Whether the disk is to be taken for full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.full_disk.load(Ordering::Acquire)
    }

    /// The same, asked by a commit.
    #[must_use]
    pub fn refuse_commit(&self) -> bool {
        let is_full = self.is_disk_full();
        if is_full {
            self.plan().count(|kind| matches!(kind, FaultKind::FullDisk));
        }
        is_full
    }

    /// One direction of a connection to a peer; none where no faults can be injected.
    #[must_use]
    pub fn line(self: &Arc<Self>, peer: NodeId, way: Direction) -> Option<Line> {
        self.is_allowed.then(|| Line::new(self.clone(), peer, way))
    }

    /// Takes a greeting from or to a peer as long as it takes. For ever, where it vanishes: whoever
    /// waits for it has a time by which to give up.
    pub async fn pass_greeting(&self, peer: Option<NodeId>, way: Direction, bytes: usize) {
        if !self.admit_greeting(peer, way, bytes).await {
            std::future::pending().await
        }
    }

    /// As [`Faults::pass_greeting`]; false where it vanishes.
    pub async fn admit_greeting(&self, peer: Option<NodeId>, way: Direction, bytes: usize) -> bool {
        self.pass_pause().await;
        if !self.concern_network() {
            return true;
        }
        let Fate { copies, at } = self.fate((peer, way, Carrier::Frame), bytes, self.now());
        self.sleep_until(Some(at)).await;
        copies > 0
    }

    fn fate(&self, way: (Option<NodeId>, Direction, Carrier), bytes: usize, now: Instant) -> Fate {
        self.plan().fate(way, bytes, now)
    }

    /// The member whose packets come from there.
    fn sender(&self, socket: SocketAddr) -> Option<NodeId> {
        self.plan().sender(socket)
    }

    /// The member that is dialled there.
    #[must_use]
    pub fn listener(&self, address: &str) -> Option<NodeId> {
        self.plan().listener(address)
    }

    fn now(&self) -> Instant {
        self.clock.instant()
    }

    /// Sleeps; for ever, where there is no time to wait for.
    async fn sleep_until(&self, until: Option<Instant>) {
        match until {
            Some(until) => {
                let until = tokio::time::Instant::from_std(self.clock.std(until));
                tokio::time::sleep_until(until).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// A fault on one line of the log.
fn describe(fault: &Fault) -> String {
    let mut words = fault.kind.name().to_owned();
    if let Some(passage) = fault.kind.passage() {
        words += &format!(" {} {}", passage.peers.words(), passage.direction.name());
    }
    let measure = fault.kind.measure();
    if measure.is_empty() { words } else { format!("{words} {measure}") }
}
