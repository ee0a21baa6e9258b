//! What drives the reaping of a node: its clock, its connections, its shards and its disk.
//!
//! The state machine ([`crate::replica::reap`]) stands behind a lock that is held for one input at a
//! time; what it wants done is done outside of it, each thing in a task of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::clock::Clock;
use super::committer;
use super::mailbox::Mail;
use super::node::Node;
use super::reply::ReplyTo;
use crate::ids::{NodeId, Partition};
use crate::membership::{Standing, Topology};
use crate::replica::Order;
use crate::replica::reap::{Effect, Input, Reap, Scan, Settings, scan};
use crate::store::StoreError;
use crate::wire::messages::{Control, ControlReply, Response, TopologyVersion};
use crate::wire::reap::{HeldUp, ReapReply, ReapRequest, ReapStatus};

/// How long another node may take over an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The reaping of this node.
pub struct ReapDesk {
    clock: Clock,
    machine: Mutex<Machine>,
    wake: Notify,
    node: OnceLock<Weak<Node>>,
}

struct Machine {
    reap: Reap,
    /// Who waits for which answer.
    waiting: HashMap<u64, oneshot::Sender<ReapReply>>,
    last_ask: u64,
}

impl ReapDesk {
    /// The reaping of a node that goes by `topology`.
    #[must_use]
    pub fn new(settings: Settings, topology: Arc<Topology>, clock: Clock, seed: u64) -> Arc<Self> {
        let reap = Reap::new(settings, topology, clock.instant(), seed);
        let machine = Mutex::new(Machine { reap, waiting: HashMap::new(), last_ask: 0 });
        Arc::new(Self { clock, machine, wake: Notify::new(), node: OnceLock::new() })
    }

    /// Begins to drive it.
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
        loop {
            let until = self.machine().reap.next_deadline();
            let until = until.map(|deadline| self.clock.std(deadline));
            let sleep = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {
                    let mut effects = Vec::new();
                    let now = self.clock.instant();
                    self.machine().reap.handle_deadline(now, &mut effects);
                    self.perform(effects);
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Takes one input, and begins what comes of it.
    fn take(self: &Arc<Self>, input: Input) {
        let mut effects = Vec::new();
        let now = self.clock.instant();
        self.machine().reap.handle(now, input, &mut effects);
        self.wake.notify_one();
        self.perform(effects);
    }

    /// The cluster state is about to become this: what was looked at under another does not count.
    pub fn prepare(self: &Arc<Self>, topology: &Arc<Topology>) {
        self.take(Input::Topology(topology.clone()));
    }

    /// How things stand, for people.
    #[must_use]
    pub fn status(&self) -> ReapStatus {
        self.machine().reap.status()
    }

    /// Objects of these partitions are about to move beside the shards' messages. To be called
    /// before they are asked for, or, where they were sent here, before the next frame is read.
    pub fn begin_moves(&self, partitions: impl IntoIterator<Item = Partition>) {
        let mut machine = self.machine();
        partitions.into_iter().for_each(|partition| machine.reap.begin_move(partition));
    }

    /// What [`ReapDesk::begin_moves`] announced is merged, or dropped.
    pub fn end_moves(&self, partitions: impl IntoIterator<Item = Partition>) {
        let mut machine = self.machine();
        partitions.into_iter().for_each(|partition| machine.reap.end_move(partition));
    }

    /// Answers another node.
    pub async fn asked(self: &Arc<Self>, request: ReapRequest) -> ReapReply {
        if let ReapRequest::Watch { topology, .. } = &request
            && !self.shut_out_the_removed(*topology)
        {
            return ReapReply::NotNow(HeldUp::OtherState);
        }
        let (sender, receiver) = oneshot::channel();
        let ask = {
            let mut machine = self.machine();
            machine.last_ask += 1;
            let ask = machine.last_ask;
            machine.waiting.insert(ask, sender);
            ask
        };
        self.take(Input::Asked { ask, request });
        let answer = tokio::time::timeout(ANSWER_WITHIN, receiver).await;
        self.machine().waiting.remove(&ask);
        answer.ok().and_then(Result::ok).unwrap_or(ReapReply::NotNow(HeldUp::Again))
    }

    /// Members that were removed are not asked whether they have sent something: it is not read from
    /// here on. Returns whether all of this node goes by the cluster state of this version already.
    fn shut_out_the_removed(&self, version: TopologyVersion) -> bool {
        let Some(node) = self.node() else { return false };
        let topology = node.topology();
        if topology.version() != version {
            return false;
        }
        let members = topology.state().members.iter();
        for (id, _) in members.filter(|(_, entry)| entry.standing == Standing::Removed) {
            node.gates.shut(*id);
        }
        true
    }

    fn perform(self: &Arc<Self>, effects: Vec<Effect>) {
        for effect in effects {
            let this = self.clone();
            match effect {
                Effect::List { id, scan } => {
                    tokio::spawn(async move { this.list(id, scan).await });
                }
                Effect::Send { to, id, request } => {
                    tokio::spawn(async move { this.send(to, id, request).await });
                }
                Effect::Answer { ask, reply } => {
                    if let Some(waiting) = self.machine().waiting.remove(&ask) {
                        let _ = waiting.send(reply);
                    }
                }
                Effect::Order { id, shard, order } => {
                    tokio::spawn(async move { this.order(id, shard, order).await });
                }
            }
        }
    }

    async fn list(self: &Arc<Self>, id: u64, wanted: Scan) {
        let Some(node) = self.node() else { return };
        let (store, topology, me) = (node.store.clone(), node.topology(), node.id);
        let now = self.clock.now().wall;
        let look = move || scan(store.as_ref(), &topology, me, &wanted, now);
        let found = match node.background.run(look).await {
            Ok(found) => Some(found),
            Err(StoreError::Fatal(why)) => committer::die(&why),
            Err(error) => {
                tracing::warn!(%error, "deleted keys cannot be looked for");
                None
            }
        };
        self.take(Input::Listed { id, found });
    }

    async fn send(self: &Arc<Self>, to: NodeId, id: u64, request: ReapRequest) {
        let Some(node) = self.node() else { return };
        let answer = node.links.ask(to, Control::Reap(request), ANSWER_WITHIN).await;
        let reply = match answer {
            Some(Response::Control(ControlReply::Reap(reply))) => Some(reply),
            _ => None,
        };
        self.take(Input::Answered { id, reply });
    }

    async fn order(self: &Arc<Self>, id: u64, shard: usize, order: Order) {
        let Some(node) = self.node() else { return };
        let (sender, receiver) = oneshot::channel();
        node.mailboxes[shard].post([Mail::Reap(order, ReplyTo::Task(sender))]);
        let reply = match receiver.await {
            Ok(Response::Control(ControlReply::Reap(reply))) => Some(reply),
            _ => None,
        };
        self.take(Input::Ordered { id, reply });
    }
}
