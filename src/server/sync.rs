//! What drives the anti-entropy of a node: its clock, its connections and its disk.
//!
//! The state machine ([`crate::replica::sync`]) stands behind a lock that is held for one input at a
//! time; what it wants done is done outside of it, each thing in a task of its own. Questions of other
//! nodes go past it: they are answered from the store alone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::clock::Clock;
use super::mailbox::Mail;
use super::mark::Mark;
use super::merge::merge;
use super::node::Node;
use crate::ids::{NodeId, Partition};
use crate::limits;
use crate::membership::Topology;
use crate::replica;
use crate::replica::sync::{Effect, Input, Notice, Settings, Syncs, answer, with_more};
use crate::replica::transfer::Unmerged;
use crate::store::{Store, StoreError};
use crate::wire::messages::{Control, ControlReply, Purpose, Response, TopologyVersion};
use crate::wire::sync::{SyncAnswer, SyncReply, SyncRequest, SyncStatus};
use crate::wire::transfer::body_entries;

/// How long another node may take over a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The anti-entropy of a node.
pub struct SyncDesk {
    clock: Clock,
    syncs: Mutex<Syncs>,
    wake: Notify,
    node: OnceLock<Weak<Node>>,
    mark: OnceLock<Arc<Mark>>,
    /// Operations of clients when they were last counted.
    foreground: Mutex<u64>,
    topology: Mutex<TopologyVersion>,
}

impl SyncDesk {
    /// The anti-entropy of a node that goes by `topology`.
    #[must_use]
    pub fn new(settings: Settings, topology: Arc<Topology>, clock: Clock, seed: u64) -> Arc<Self> {
        let version = Mutex::new(topology.version());
        Arc::new(Self {
            clock,
            syncs: Mutex::new(Syncs::new(settings, topology, clock.instant(), seed)),
            wake: Notify::new(),
            node: OnceLock::new(),
            mark: OnceLock::new(),
            foreground: Mutex::default(),
            topology: version,
        })
    }

    /// Begins to drive it. `mark` hears when this node has everything back that its disk has lost.
    pub fn start(self: &Arc<Self>, node: &Arc<Node>, mark: Arc<Mark>) {
        let _ = self.node.set(Arc::downgrade(node));
        let _ = self.mark.set(mark);
        tokio::spawn(self.clone().run());
    }

    fn syncs(&self) -> MutexGuard<'_, Syncs> {
        self.syncs.lock().expect("no holder of the lock panics")
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.get()?.upgrade()
    }

    async fn run(self: Arc<Self>) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(node) = self.node() {
            let deadline = self.syncs().next_deadline().map(|at| self.clock.std(at));
            let sleep = async {
                match deadline {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = second.tick() => {
                    self.follow(&node);
                    self.take(Input::Second { p99: self.p99(&node) });
                }
                () = sleep => {
                    let (now, mut effects) = (self.clock.instant(), Vec::new());
                    self.syncs().handle_deadline(now, &mut effects);
                    self.begin(effects);
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Goes by the cluster state in force.
    fn follow(self: &Arc<Self>, node: &Node) {
        // Held to the end: when this returns, nobody is told of an older one.
        let mut version = self.topology.lock().expect("no holder of the lock panics");
        let topology = node.topology();
        if std::mem::replace(&mut *version, topology.version()) != topology.version() {
            self.take(Input::Topology(topology));
        }
    }

    /// What clients have waited for in the last second; zero if there were none.
    fn p99(&self, node: &Node) -> Duration {
        let counters = node.counters();
        let done = counters.reads + counters.writes;
        let mut before = self.foreground.lock().expect("no holder of the lock panics");
        match std::mem::replace(&mut *before, done) == done {
            true => Duration::ZERO,
            false => node.p99(),
        }
    }

    /// Takes one input, and begins what comes of it.
    fn take(self: &Arc<Self>, input: Input) {
        let mut effects = Vec::new();
        self.syncs().handle(self.clock.instant(), input, &mut effects);
        self.begin(effects);
        self.wake.notify_one();
    }

    /// How things stand, for people and for those who wait: by the cluster state of this moment.
    #[must_use]
    pub fn status(self: &Arc<Self>) -> SyncStatus {
        self.current().status(self.clock.instant())
    }

    /// The same, pair by pair.
    #[must_use]
    pub fn pairs(self: &Arc<Self>, from: (Partition, NodeId), count: u32) -> ControlReply {
        let count = (count as usize).clamp(1, limits::PAGE_KEYS);
        ControlReply::SyncPairs(self.current().pairs_from(self.clock.instant(), from, count))
    }

    /// All pairs, by the cluster state of this moment.
    fn current(self: &Arc<Self>) -> MutexGuard<'_, Syncs> {
        if let Some(node) = self.node() {
            self.follow(&node);
        }
        self.syncs()
    }

    /// What metrics show.
    #[must_use]
    pub fn counters(self: &Arc<Self>) -> Vec<(String, u64)> {
        let status = self.status();
        let gauges = [
            ("pairs", status.pairs.into()),
            ("in_sync", status.in_sync.into()),
            ("overdue", status.overdue.into()),
            ("waits_ms", status.waits_ms),
            ("paused", status.paused.into()),
        ];
        let gauges = gauges.map(|(name, count)| (name.to_owned(), count));
        let rows = gauges.into_iter().chain(status.counters);
        rows.map(|(name, count)| (format!("sync_{name}"), count)).collect()
    }

    /// Takes an operator's order: [`Input::Now`] or [`Input::Pause`].
    pub fn obey(self: &Arc<Self>, order: Input) -> ControlReply {
        self.take(order);
        ControlReply::Ok
    }

    /// There is a connection to the node.
    pub fn connected(self: &Arc<Self>, node: NodeId) {
        self.take(Input::Connected(node));
    }

    /// Answers another node.
    pub async fn serve(self: &Arc<Self>, from: NodeId, request: SyncRequest) -> SyncAnswer {
        let brought = request.object_bytes();
        let reply = self.asked(from, request).await;
        self.syncs().serve(self.clock.instant(), brought, reply)
    }

    /// Answers another node, or this one.
    async fn asked(self: &Arc<Self>, from: NodeId, request: SyncRequest) -> SyncReply {
        let Some(node) = self.node() else { return SyncReply::Busy };
        if let Some(partition) = request.mends().filter(|_| from != node.id) {
            self.take(Input::Visited(from, partition));
        }
        let (store, topology) = (node.store.clone(), node.topology());
        let answer = match request {
            SyncRequest::Take { body } => {
                let entries = match body_entries(&body) {
                    Ok(entries) => entries,
                    Err(error) => return SyncReply::Failed(error.to_string()),
                };
                let merged = merge(&node, from, entries.clone(), Purpose::Repair).await;
                match merged {
                    Ok(()) => {}
                    Err(Unmerged { why, is_damaged: true }) => return SyncReply::Damaged(why),
                    Err(Unmerged { why, .. }) => return SyncReply::Failed(why),
                }
                let more = move || with_more(store.as_ref(), &topology, &entries);
                node.background.run(move || more().map(SyncReply::Taken)).await
            }
            request => {
                let look = move || answer(store.as_ref(), &topology, &request);
                node.background.run(look).await
            }
        };
        match answer {
            Ok(reply) => reply,
            Err(StoreError::Fatal(why)) => super::committer::die(&why),
            Err(error) => SyncReply::Failed(error.to_string()),
        }
    }

    fn begin(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let this = self.clone();
            match effect {
                Effect::Ask { to, id, request } => {
                    tokio::spawn(async move { this.ask(to, id, request).await });
                }
                Effect::Look { id, request } => {
                    tokio::spawn(async move {
                        let Some(node) = this.node() else { return };
                        let reply = this.asked(node.id, request).await;
                        this.take(Input::Looked { id, reply });
                    });
                }
                // Here, and not in a task: nothing that follows may be begun before.
                Effect::BeginMove(partition) => {
                    if let Some(node) = this.node() {
                        node.reaping.begin_moves([partition]);
                    }
                }
                Effect::EndMove(partition) => {
                    if let Some(node) = this.node() {
                        node.reaping.end_moves([partition]);
                    }
                }
                Effect::Merge { id, from, entries } => {
                    tokio::spawn(async move {
                        let Some(node) = this.node() else { return };
                        let result = merge(&node, from, entries, Purpose::Repair).await;
                        this.take(Input::Merged { id, result });
                    });
                }
                Effect::Recount(partition) => {
                    tokio::spawn(async move { this.recount(partition).await });
                }
                Effect::Complete(partition) => self.complete(partition),
                Effect::Whole => self.whole(),
                Effect::Notice(notice) => report(&notice),
            }
        }
    }

    async fn ask(self: &Arc<Self>, to: NodeId, id: u64, request: SyncRequest) {
        let Some(node) = self.node() else { return };
        // What a member that was removed has may be older than what all others have forgotten.
        if !node.topology().is_present(to) {
            return self.take(Input::Answered { id, answer: None });
        }
        let answer = node.links.ask(to, Control::Sync(request), ANSWER_WITHIN).await;
        let answer = match answer {
            Some(Response::Control(ControlReply::Sync(answer))) => Some(answer),
            _ => None,
        };
        self.take(Input::Answered { id, answer });
    }

    async fn recount(&self, partition: Partition) {
        let Some(node) = self.node() else { return };
        let store = node.store.clone();
        let counted = tokio::task::spawn_blocking(move || store.recount(partition)).await;
        match counted.expect("counting does not panic") {
            Ok(true) => {
                tracing::warn!(%partition, "the trees were wrong and have been counted again")
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%partition, %error, "the trees could not be counted"),
        }
    }

    /// Everything of this partition that other owners know is here.
    fn complete(&self, partition: Partition) {
        let Some(node) = self.node() else { return };
        let shard = usize::from(partition.0) % node.mailboxes.len();
        node.mailboxes[shard].post([Mail::Input(replica::Input::Complete(partition))]);
    }

    /// Everything that this disk may have forgotten is back.
    fn whole(&self) {
        let (Some(node), Some(mark)) = (self.node(), self.mark.get()) else { return };
        if !node.amnesiac.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = mark.set_repairing(false) {
            tracing::error!(%error, "the mark could not be changed; this node repairs again after its next start");
            return;
        }
        for mailbox in &node.mailboxes {
            mailbox.post([Mail::Input(replica::Input::Whole)]);
        }
        node.amnesiac.store(false, Ordering::Relaxed);
        tracing::info!("everything this disk had forgotten is back");
    }
}

fn report(notice: &Notice) {
    match notice {
        Notice::Mended { tree, peer, keys } => {
            let (partition, bucket) = (tree.partition, &tree.bucket);
            tracing::info!(%partition, bucket, %peer, keys, "mended differences");
        }
        Notice::Failed { partition, peer, why } => {
            tracing::debug!(%partition, %peer, why, "a comparison failed; it is begun again");
        }
    }
}
