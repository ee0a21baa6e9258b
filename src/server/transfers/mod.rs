//! What drives the transfers of a node: its file, its clock, its connections and its disk.
//!
//! The state machine ([`crate::replica::transfer`]) stands behind a lock that is held for one input
//! at a time; what it wants done is done outside of it, each thing in a task of its own. Two kinds
//! of effects are waited for before anything else goes on, because the machine's promises hang on
//! them: what is to be kept, and, before the cluster state changes, partitions that are cleared.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::clock::Clock;
use super::cluster::ClusterError;
use super::committer;
use super::mailbox::Mail;
use super::merge::merge;
use super::node::Node;
use super::reply::ReplyTo;
use crate::ids::{NodeId, Partition, Scope};
use crate::membership::{HandOver, Topology};
use crate::replica::transfer::{Effect, Input, Notice, Settings, Transfers, read_page};
use crate::store::StoreError;
use crate::wire::messages::{Control, ControlReply, Purpose, Response, TopologyVersion};
use crate::wire::transfer::{
    PageEntry, PageRequest, SlotView, TransferReply, TransferRequest, TransferStatus,
};

/// The file's name within the data directory.
const FILE: &str = "transfers";
/// How long another node may take over a page.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How often a partition is tried to be cleared before the cluster state changes without it.
const CLEAR_TRIES: u32 = 20;
const CLEAR_AGAIN: Duration = Duration::from_millis(10);
/// Seconds without work or hints after which a node leaves: longer than its own writes take.
const LEAVE_AFTER_QUIET_S: u32 = 5;
const KEEP_AGAIN: Duration = Duration::from_secs(1);

/// The transfers of this node.
pub struct TransferDesk {
    clock: Clock,
    path: PathBuf,
    machine: Mutex<Machine>,
    /// The sequence of what the file holds.
    kept: Mutex<u64>,
    wake: Notify,
    node: OnceLock<Weak<Node>>,
    /// Nodes that states are being exchanged with.
    exchanging: Mutex<BTreeSet<NodeId>>,
    /// For how many seconds nothing has kept this node from leaving.
    quiet_for: AtomicU32,
    /// Requests of clients that were done when the last second ended.
    foreground: Mutex<u64>,
}

struct Machine {
    transfers: Transfers,
    /// Who waits for which answer.
    waiting: HashMap<u64, oneshot::Sender<TransferReply>>,
    last_ask: u64,
}

impl TransferDesk {
    /// The transfers of a node whose data is in `directory`.
    ///
    /// # Errors
    /// When what was kept cannot be read from the disk. What can be read and makes no sense is no
    /// error: everything begins anew.
    pub fn open(
        directory: &Path,
        settings: Settings,
        topology: Arc<Topology>,
        clock: Clock,
        seed: u64,
    ) -> io::Result<Arc<Self>> {
        let path = directory.join(FILE);
        let kept = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let transfers = Transfers::new(settings, topology, kept.as_deref(), clock.instant(), seed);
        let machine = Machine { transfers, waiting: HashMap::new(), last_ask: 0 };
        Ok(Arc::new(Self {
            clock,
            path,
            machine: Mutex::new(machine),
            kept: Mutex::new(0),
            wake: Notify::new(),
            node: OnceLock::new(),
            exchanging: Mutex::default(),
            quiet_for: AtomicU32::new(0),
            foreground: Mutex::default(),
        }))
    }

    /// Begins to drive them.
    pub fn start(self: &Arc<Self>, node: &Arc<Node>) {
        let _ = self.node.set(Arc::downgrade(node));
        tokio::spawn(self.clone().run());
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().expect("no holder of the lock panics")
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.get()?.upgrade()
    }

    async fn run(self: Arc<Self>) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.machine().transfers.next_deadline();
            let until = deadline.map(|deadline| self.clock.std(deadline));
            let sleep = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            let mut effects = Vec::new();
            tokio::select! {
                _ = second.tick() => {
                    let p99 = self.p99();
                    self.handle(Input::Second { p99 }, &mut effects);
                }
                // Merges nothing: pages come with answers.
                () = sleep => {
                    let now = self.clock.instant();
                    self.machine().transfers.handle_deadline(now, &mut effects);
                }
                () = self.wake.notified() => {}
            }
            self.clone().perform(effects).await;
        }
    }

    /// What clients have waited for in the last second; zero if there were none.
    fn p99(&self) -> Duration {
        let Some(node) = self.node() else { return Duration::ZERO };
        let counters = node.counters();
        let done = counters.reads + counters.writes;
        let mut before = self.foreground.lock().expect("no holder of the lock panics");
        match std::mem::replace(&mut *before, done) == done {
            true => Duration::ZERO,
            false => node.p99(),
        }
    }

    fn handle(&self, input: Input, effects: &mut Vec<Effect>) {
        let now = self.clock.instant();
        let mut machine = self.machine();
        machine.transfers.handle(now, input, effects);
        // Before the machine hears of another cluster state: what waits to be merged is moving.
        if let Some(node) = self.node() {
            effects.iter().for_each(|effect| node.reaping.begin_moves(moved_by(&node, effect)));
        }
        drop(machine);
        self.wake.notify_one();
    }

    /// Takes one input, and begins what comes of it.
    fn take(self: &Arc<Self>, input: Input) -> impl Future<Output = ()> + Send {
        let mut effects = Vec::new();
        self.handle(input, &mut effects);
        self.clone().perform(effects)
    }

    /// What moves, for people.
    #[must_use]
    pub fn status(&self) -> TransferStatus {
        self.machine().transfers.status()
    }

    /// There is a connection to the node.
    pub async fn connected(self: &Arc<Self>, node: NodeId) {
        self.take(Input::Connected(node)).await;
    }

    /// Answers another node.
    pub async fn asked(self: &Arc<Self>, from: NodeId, request: TransferRequest) -> TransferReply {
        let (sender, receiver) = oneshot::channel();
        let ask = {
            let mut machine = self.machine();
            machine.last_ask += 1;
            let ask = machine.last_ask;
            machine.waiting.insert(ask, sender);
            ask
        };
        self.take(Input::Asked { from, ask, request }).await;
        let answer = tokio::time::timeout(ANSWER_WITHIN, receiver).await;
        self.machine().waiting.remove(&ask);
        answer.ok().and_then(Result::ok).unwrap_or(TransferReply::Busy)
    }

    /// The cluster state is about to become this: what hangs on the old one is dropped, durably, and
    /// old data of partitions that this node is to have is deleted.
    ///
    /// # Errors
    /// When the disk fails; the state must not change then.
    pub async fn prepare(self: &Arc<Self>, topology: &Arc<Topology>) -> Result<(), ClusterError> {
        let mut effects = Vec::new();
        self.handle(Input::Topology(topology.clone()), &mut effects);
        let mut later = Vec::new();
        for effect in effects {
            match effect {
                Effect::Keep { sequence, bytes } => {
                    self.keep(sequence, &bytes).await.map_err(|source| {
                        let path = self.path.clone();
                        ClusterError::Io { path, source }
                    })?;
                }
                Effect::Clear { partition, scope } => {
                    self.clear((partition, scope), CLEAR_TRIES).await;
                }
                effect => later.push(effect),
            }
        }
        // Not here: what these do may wait for the change that waits for this.
        tokio::spawn(self.clone().perform(later));
        Ok(())
    }

    /// Makes `bytes` the file's contents, unless it holds something later.
    async fn keep(self: &Arc<Self>, sequence: u64, bytes: &[u8]) -> io::Result<()> {
        let (this, bytes) = (self.clone(), bytes.to_vec());
        let write = move || {
            let mut kept = this.kept.lock().expect("no holder of the lock panics");
            if *kept >= sequence {
                return Ok(());
            }
            let beside = this.path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &this.path)?;
            if let Some(directory) = this.path.parent() {
                File::open(directory)?.sync_all()?;
            }
            *kept = sequence;
            Ok(())
        };
        tokio::task::spawn_blocking(write).await.expect("writing a file does not panic")
    }

    /// Begins all of `effects`, in order.
    // A boxed future: what is begun here comes back here.
    fn perform(
        self: Arc<Self>,
        effects: Vec<Effect>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            for effect in effects {
                if let Effect::Keep { sequence, bytes } = effect {
                    while let Err(error) = self.keep(sequence, &bytes).await {
                        let path = self.path.display();
                        tracing::error!(%path, %error, "cannot be written; transfers wait for it");
                        tokio::time::sleep(KEEP_AGAIN).await;
                    }
                    continue;
                }
                self.begin(effect);
            }
        })
    }

    fn begin(self: &Arc<Self>, effect: Effect) {
        let this = self.clone();
        match effect {
            Effect::Keep { .. } => {}
            Effect::Send { to, id, request } => {
                tokio::spawn(async move { this.send(to, id, request).await });
            }
            Effect::Answer { ask, reply } => {
                if let Some(waiting) = self.machine().waiting.remove(&ask) {
                    let _ = waiting.send(reply);
                }
            }
            Effect::Fence { order, view } => {
                tokio::spawn(async move { this.fence(order, view).await });
            }
            Effect::ReadPage { ask, request } => {
                tokio::spawn(async move { this.read_page(ask, request).await });
            }
            Effect::Merge { id, from, entries } => {
                let Some(node) = self.node() else { return };
                let partitions = partitions_of(&node, &entries);
                tokio::spawn(async move {
                    let result = merge(&node, from, entries, Purpose::Handoff).await;
                    node.reaping.end_moves(partitions);
                    this.take(Input::Merged { id, result }).await;
                });
            }
            Effect::HandOver { order, basis, changes } => {
                tokio::spawn(async move { this.hand_over(order, basis, changes).await });
            }
            Effect::Clear { partition, scope } => {
                tokio::spawn(async move { this.clear((partition, scope), 1).await });
            }
            Effect::Exchange(node) => {
                tokio::spawn(async move { this.exchange(node).await });
            }
            Effect::Leave => {
                tokio::spawn(async move { this.leave().await });
            }
            Effect::Advance => {
                tokio::spawn(async move { this.advance().await });
            }
            Effect::Notice(notice) => report(&notice),
        }
    }

    /// Buckets have arrived in other slots.
    async fn advance(&self) {
        let Some(node) = self.node() else { return };
        // A change begins from the state that all shards go by.
        let advanced = node.install_topology(|state| Ok(state.advance(node.id)));
        match advanced.await {
            Ok(true) => node.exchange_with_all().await,
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "how far buckets are is not noted"),
        }
    }

    async fn send(self: &Arc<Self>, to: NodeId, id: u64, request: TransferRequest) {
        let Some(node) = self.node() else { return };
        let answer = node.links.ask(to, Control::Transfer(request), ANSWER_WITHIN).await;
        let reply = match answer {
            Some(Response::Control(ControlReply::Transfer(reply))) => Some(reply),
            _ => None,
        };
        self.take(Input::Answered { id, reply }).await;
    }

    async fn exchange(&self, with: NodeId) {
        let Some(node) = self.node() else { return };
        let exchanging = || self.exchanging.lock().expect("no holder of the lock panics");
        if exchanging().insert(with) {
            node.exchange_with(with).await;
            exchanging().remove(&with);
        }
    }

    /// Has this node removed, if nothing hangs on it any more.
    async fn leave(&self) {
        let Some(node) = self.node() else { return };
        // Writes it coordinated as an owner may still end with something to keep for others.
        let is_quiet = node.hints().iter().all(|hints| hints.count == 0) && node.in_flight() == 0;
        let seconds = if is_quiet { self.quiet_for.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        self.quiet_for.store(seconds, Ordering::Relaxed);
        if seconds < LEAVE_AFTER_QUIET_S {
            return;
        }
        if !node.cluster.part(true) {
            return;
        }
        match node.part().await {
            Ok(()) => tracing::info!("left: safe to stop"),
            Err(error) => {
                tracing::error!(%error, "cannot leave yet");
                self.quiet_for.store(0, Ordering::Relaxed);
            }
        }
    }

    // ---- the owner's side ----------------------------------------------------------------

    async fn fence(self: &Arc<Self>, order: u64, view: SlotView) {
        let Some(node) = self.node() else { return };
        let (sender, receiver) = oneshot::channel();
        let mailbox = &node.mailboxes[shard_of(&node, view.id.partition)];
        mailbox.post([Mail::Fence(view, ReplyTo::Task(sender))]);
        let done = matches!(receiver.await, Ok(Response::Stored(_)));
        self.take(Input::Fenced { order, done }).await;
    }

    async fn read_page(self: &Arc<Self>, ask: u64, request: PageRequest) {
        let Some(node) = self.node() else { return };
        let (store, topology) = (node.store.clone(), node.topology());
        let read = move || read_page(store.as_ref(), &topology, &request);
        let result = node.background.run(read).await;
        if let Err(StoreError::Fatal(why)) = &result {
            committer::die(why);
        }
        self.take(Input::PageRead { ask, result }).await;
    }

    async fn hand_over(
        self: &Arc<Self>,
        order: u64,
        basis: TopologyVersion,
        changes: Vec<HandOver>,
    ) {
        let Some(node) = self.node() else { return };
        let given = node.install_topology(|state| {
            let is_basis = state.version() == basis;
            let given = is_basis && state.hand_over_all(&changes) == changes.len();
            // All or nothing: an error leaves the state as it was.
            if given { Ok(()) } else { Err(ClusterError::Overtaken) }
        });
        let given = match given.await {
            Ok(()) => true,
            Err(ClusterError::Overtaken) => false,
            Err(error) => {
                tracing::error!(%error, "slots were not handed over");
                false
            }
        };
        self.take(Input::HandedOver { order, given }).await;
        if given {
            node.exchange_with_all().await;
        }
    }

    /// Deletes what is left of a partition; where that has to wait, tries again.
    async fn clear(self: &Arc<Self>, (partition, scope): (Partition, Scope), tries: u32) {
        let Some(node) = self.node() else { return };
        let mut found = None;
        for _ in 0..tries {
            let (sender, receiver) = oneshot::channel();
            let mailbox = &node.mailboxes[shard_of(&node, partition)];
            mailbox.post([Mail::Clear(partition, scope, sender)]);
            found = receiver.await.ok().flatten();
            if found.is_some() {
                break;
            }
            tokio::time::sleep(CLEAR_AGAIN).await;
        }
        if found.is_none() && tries > 1 {
            tracing::warn!(%partition, "old data could not be deleted; it is merged with what comes");
        }
        self.take(Input::Cleared { partition, scope, found }).await;
    }
}

/// The partitions of objects that an effect is to merge.
fn moved_by(node: &Node, effect: &Effect) -> BTreeSet<Partition> {
    match effect {
        Effect::Merge { entries, .. } => partitions_of(node, entries),
        _ => BTreeSet::new(),
    }
}

/// The partitions of some objects.
pub(super) fn partitions_of(node: &Node, entries: &[PageEntry]) -> BTreeSet<Partition> {
    let topology = node.topology();
    entries.iter().map(|entry| topology.partition(&entry.key)).collect()
}

fn shard_of(node: &Node, partition: Partition) -> usize {
    usize::from(partition.0) % node.mailboxes.len()
}

fn report(notice: &Notice) {
    match notice {
        Notice::Forgotten { why } => tracing::error!(
            why,
            "what was kept of transfers cannot be read: those under way begin again, and nothing of \
             partitions this node has no part in is deleted"
        ),
        Notice::SetAside { partition } => tracing::warn!(
            %partition,
            "slots of this partition were given away by others, not by this node; its data is kept"
        ),
    }
}
