//! The node as its sessions see it: somewhere to ask.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::background::Background;
use super::clock::Clock;
use super::cluster::{Cluster, ClusterError};
use super::config::Config;
use super::driver::Gauge;
use super::faults::Faults;
use super::gates::Gates;
use super::gossip::Gossip;
use super::links::Links;
use super::mailbox::{Ask, Mailbox};
use super::reaping::ReapDesk;
use super::reply::ReplyTo;
use super::rocks::RocksStore;
use super::room::Room;
use super::scrub::ScrubDesk;
use super::sync::SyncDesk;
use super::transfers::TransferDesk;
use crate::ids::{Incarnation, NodeId, Scope, WriteId};
use crate::key::Key;
use crate::membership::{ClusterState, Standing, Topology};
use crate::random::Random;
use crate::replica::{Counters, sync};
use crate::store::Store;
use crate::wire::greeting::Introduction;
use crate::wire::messages::{Control, ControlReply, Failure, FailureCode, Request, Response};

/// How long one member may take over a question that is not about a key.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an operator's command waits for the others to hear of what it changed.
const TELL_WITHIN: Duration = Duration::from_millis(500);

/// A running node. Shared by everything that serves.
pub struct Node {
    /// Who it is.
    pub id: NodeId,
    /// The span of its life.
    pub incarnation: Incarnation,
    /// Its disk cannot be proven complete, and it has not been in sync with all other owners since.
    pub amnesiac: AtomicBool,
    /// How it was configured.
    pub config: Config,
    /// Its clocks.
    pub clock: Clock,
    /// The members and buckets it knows.
    pub cluster: Cluster,
    /// Its connections to the other members.
    pub links: Arc<Links>,
    /// What moves to and from it.
    pub transfers: Arc<TransferDesk>,
    /// How it forgets what was deleted.
    pub reaping: Arc<ReapDesk>,
    /// Which connections of its peers are read.
    pub gates: Arc<Gates>,
    /// Its comparisons with other owners.
    pub sync: Arc<SyncDesk>,
    /// Its search for damaged records.
    pub scrub: Arc<ScrubDesk>,
    /// Its part in finding out who is up.
    pub gossip: Gossip,
    /// Its records.
    pub store: Arc<RocksStore>,
    /// Whether there is room for more.
    pub room: Arc<Room>,
    /// The mail of its shards.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// What its shards show of themselves.
    pub gauges: Vec<Arc<Mutex<Gauge>>>,
    /// What its sessions have counted.
    pub traffic: Traffic,
    /// Turns true once, when it is asked to stop.
    pub draining: watch::Sender<bool>,
    /// Where write ids come from.
    pub random: Mutex<Random>,
    /// Where it reads what no request waits for.
    pub background: Background,
    /// Held by whoever looks at the digests for keys that stand out.
    pub looking: tokio::sync::Mutex<()>,
    /// What it does to itself when it is told to.
    pub faults: Arc<Faults>,
}

/// What the sessions count.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Framed connections open now.
    pub frame_connections: AtomicU64,
    /// Text connections open now.
    pub text_connections: AtomicU64,
    /// Connections closed because of what they sent.
    pub malformed_connections: AtomicU64,
    /// Connections refused because there were too many.
    pub refused_connections: AtomicU64,
}

impl Node {
    /// The rings and buckets in force.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.cluster.topology()
    }

    /// A write id nobody has used.
    #[must_use]
    pub fn new_write_id(&self) -> WriteId {
        WriteId(self.random.lock().expect("no holder of the lock panics").next_u128())
    }

    /// The shard that `key` belongs to.
    #[must_use]
    pub fn shard_of(&self, topology: &Topology, key: &Key) -> usize {
        usize::from(topology.partition(key).0) % self.mailboxes.len()
    }

    /// Why clients are not served now, if they are not.
    #[must_use]
    pub fn refusal(&self) -> Option<Failure> {
        if *self.draining.borrow() {
            let message = "this node is stopping and takes no new work; ask another";
            return Some(Failure::not_applied(FailureCode::Draining, message));
        }
        if self.cluster.standing() == Standing::Removed {
            let message = "this node was removed from the cluster; ask another";
            return Some(Failure::not_applied(FailureCode::Draining, message));
        }
        if self.cluster.is_formed() {
            return None;
        }
        let message = match self.cluster.met() {
            (met, Some(needed)) => format!(
                "the cluster is forming: {met} of {needed} members have met; \
                 start the others, or check cluster.seeds and cluster.initial_members"
            ),
            (_, None) => "this node waits for the cluster that its seeds belong to; check cluster.seeds, or, for \
                 a new cluster, say in cluster.initial_members how many nodes it begins with"
                .to_owned(),
        };
        let mut failure = Failure::not_applied(FailureCode::Forming, message);
        failure.retry_after_ms = 500;
        Some(failure)
    }

    /// Asks on behalf of a client of this process (a text session, the admin page): answers as
    /// the framed protocol would.
    pub async fn ask(&self, request: Request) -> Response {
        if let Request::Control(control) = request {
            return self.control(self.id, control).await;
        }
        let (sender, receiver) = oneshot::channel();
        if let Some(failure) = self.submit(request, ReplyTo::Task(sender)) {
            return Response::Failed(failure);
        }
        let stopped = || Failure::not_applied(FailureCode::Draining, "this node has stopped");
        receiver.await.unwrap_or_else(|_| Response::Failed(stopped()))
    }

    /// Gives a request about a key to its shard; the answer goes to `reply`. Returns why not,
    /// where it could not be given.
    #[must_use]
    pub fn submit(&self, request: Request, reply: ReplyTo) -> Option<Failure> {
        let key = match &request {
            Request::Get(get) => &get.key,
            Request::Put(put) => &put.key,
            Request::Read(read) => &read.key,
            Request::Write(write) => &write.key,
            Request::Control(_) => {
                let message = "not a request about a key";
                return Some(Failure::not_applied(FailureCode::Internal, message));
            }
        };
        if let Some(refusal) = self.refusal() {
            return Some(refusal);
        }
        let shard = self.shard_of(&self.topology(), key);
        let received = self.clock.instant();
        let sender = self.id;
        let mut asks = vec![Ask { reply, sender, received, sent: None, forwarded: false, request }];
        self.mailboxes[shard].offer(&mut asks);
        if asks.is_empty() { None } else { Some(busy()) }
    }

    /// What all shards have counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for gauge in &self.gauges {
            sum.add(&gauge.lock().expect("no holder of the lock panics").counters);
        }
        sum
    }

    /// The recent 99th percentile of what clients wait for: the slowest shard's.
    #[must_use]
    pub fn p99(&self) -> Duration {
        let p99 =
            |gauge: &Arc<Mutex<Gauge>>| gauge.lock().expect("no holder of the lock panics").p99;
        self.gauges.iter().map(p99).max().unwrap_or_default()
    }

    /// Operations under way in all shards.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let count = |gauge: &Arc<Mutex<Gauge>>| {
            gauge.lock().expect("no holder of the lock panics").in_flight
        };
        self.gauges.iter().map(count).sum()
    }

    /// Answers a control request; `from` is the node it comes from, or this node for a client.
    pub async fn control(&self, from: NodeId, control: Control) -> Response {
        match self.answer_control(from, control).await {
            Ok(reply) => Response::Control(reply),
            Err(failure) => Response::Failed(failure),
        }
    }

    async fn answer_control(
        &self,
        from: NodeId,
        control: Control,
    ) -> Result<ControlReply, Failure> {
        let invalid = |why: String| Failure::not_applied(FailureCode::Invalid, why);
        match control {
            Control::Topology => Ok(ControlReply::Topology(self.topology().state().encode())),
            Control::Exchange(bytes) => self.exchange_states(from, &bytes).await.map_err(invalid),
            Control::CreateBucket { name, settings } => {
                if !self.topology().state().slots.contains_key(&Scope::from(settings.n)) {
                    self.hear_from_all(settings.n).await?;
                }
                self.administer(|state| Ok(state.create_bucket(&name, settings)?)).await
            }
            Control::SetBucket { name, settings } => {
                self.administer(|state| Ok(state.set_bucket(&name, settings)?)).await
            }
            Control::StageChange { member, change, force } => {
                let is_alive = |id| id == self.id || self.links.is_up(id);
                self.administer(|state| Ok(state.stage(member, change, is_alive, force)?)).await
            }
            Control::CommitPlan { mark } => {
                self.administer(|state| Ok(state.commit_plan(mark)?)).await
            }
            Control::AbortPlan => {
                self.administer(|state| {
                    state.abort_plan();
                    Ok(())
                })
                .await
            }
            Control::Status => Ok(ControlReply::Status(self.status())),
            Control::Explain { ref bucket, ref key } => {
                let key = Key::new(bucket.as_bytes(), key).map_err(|e| invalid(e.to_string()))?;
                self.explain(&key, control).await
            }
            Control::Keys(asked) => self.list(asked).await.map(ControlReply::Keys),
            Control::OwnerKeys(asked) => self.owner_keys(asked).await.map(ControlReply::OwnerKeys),
            Control::Tallies => Ok(ControlReply::Tallies(self.tallies().await)),
            Control::Tally(among) => Ok(ControlReply::Tally(self.tally(among).await)),
            Control::Outliers => self.outliers().await.map(ControlReply::Outliers),
            Control::Hints => Ok(ControlReply::Hints(self.hints())),
            Control::Transfer(request) => {
                Ok(ControlReply::Transfer(self.transfers.asked(from, request).await))
            }
            Control::Transfers => Ok(ControlReply::Transfers(self.transfers.status())),
            Control::Gossip { digest, view } => {
                Ok(ControlReply::Gossip(self.gossip.compare(digest, view).await))
            }
            Control::Reap(request) => Ok(ControlReply::Reap(self.reaping.asked(request).await)),
            Control::Reaping => Ok(ControlReply::Reaping(self.reaping.status())),
            Control::Survey => Ok(ControlReply::Survey(self.survey().await)),
            Control::Sync(request) => Ok(ControlReply::Sync(self.sync.serve(from, request).await)),
            Control::SyncStatus => Ok(ControlReply::SyncStatus(self.sync.status())),
            Control::SyncPairs { from, count } => Ok(self.sync.pairs(from, count)),
            Control::SyncNow => Ok(self.sync.obey(sync::Input::Now)),
            Control::SyncPause(paused) => Ok(self.sync.obey(sync::Input::Pause(paused))),
            Control::ScrubNow => Ok(self.scrub.now()),
            Control::Digest => self.digest().await,
            Control::Fault(order) => {
                self.faults.obey(order).map(ControlReply::Faults).map_err(invalid)
            }
        }
    }

    /// Takes over what another node knows better of the cluster, and tells it what this one knows.
    async fn exchange_states(&self, from: NodeId, bytes: &[u8]) -> Result<ControlReply, String> {
        let theirs = ClusterState::decode(bytes).map_err(|error| error.to_string())?;
        let topology = self.topology();
        topology.state().admits(from).map_err(|error| error.to_string())?;
        // Of one that was removed nothing is taken, and from the answer it learns so.
        if !topology.is_removed(from) {
            self.merge(theirs).await.map_err(|error| error.to_string())?;
        }
        Ok(ControlReply::Topology(self.topology().state().encode()))
    }

    /// A scan of all digests.
    async fn digest(&self) -> Result<ControlReply, Failure> {
        let store = self.store.clone();
        let failed = |why: String| Failure::not_applied(FailureCode::Internal, why);
        let scan = tokio::task::spawn_blocking(move || store.digest()).await;
        let (objects, digest) = scan
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        Ok(ControlReply::Digest { objects, digest })
    }

    async fn explain(&self, key: &Key, control: Control) -> Result<ControlReply, Failure> {
        let (sender, receiver) = oneshot::channel();
        let shard = self.shard_of(&self.topology(), key);
        let received = self.clock.instant();
        let request = Request::Control(control);
        let (reply, sender) = (ReplyTo::Task(sender), self.id);
        let ask = Ask { reply, sender, received, sent: None, forwarded: false, request };
        let mut asks = vec![ask];
        self.mailboxes[shard].offer(&mut asks);
        if !asks.is_empty() {
            return Err(busy());
        }
        match receiver.await {
            Ok(Response::Control(reply)) => Ok(reply),
            Ok(Response::Failed(failure)) => Err(failure),
            _ => Err(Failure::not_applied(FailureCode::Draining, "this node has stopped")),
        }
    }

    // ---- the cluster state ---------------------------------------------------------------

    /// Changes the cluster state by `change`: the one way to do it. When this returns, the change is
    /// on disk, all shards go by it and no shard by what was before; nobody else has heard of it.
    ///
    /// # Errors
    /// What `change` says, and when the disk fails; nothing is changed then.
    pub async fn install_topology<T>(
        &self,
        change: impl FnOnce(&mut ClusterState) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let answer = self.cluster.change(change).await?;
        self.links.keep(|| self.cluster.others());
        self.gossip.cluster_changed();
        Ok(answer)
    }

    /// Merges what another node knows.
    ///
    /// # Errors
    /// When it does not fit; nothing is changed.
    pub async fn merge(&self, theirs: ClusterState) -> Result<(), ClusterError> {
        let standing = self.cluster.standing();
        self.cluster.merge(&theirs).await?;
        self.links.keep(|| self.cluster.others());
        self.gossip.cluster_changed();
        if self.cluster.standing() != standing {
            self.report_standing();
        }
        Ok(())
    }

    /// Why `peer` cannot be who it says it is, if it cannot: this node is connected to that member,
    /// elsewhere.
    #[must_use]
    pub fn contradiction(&self, peer: &Introduction) -> Option<String> {
        let topology = self.topology();
        let entry = topology.member(peer.id)?;
        if entry.address() == peer.address || !self.links.is_up(peer.id) {
            return None;
        }
        Some(format!(
            "member {} ({}) lives at {} and answers there: this is a copy of its data directory. Start this \
             node with an empty node.data_dir, and let it join or replace a member",
            entry.name(),
            peer.id.short(),
            entry.address()
        ))
    }

    /// Says in the log where this node is in its life, and what there is to do.
    pub fn report_standing(&self) {
        let name = &self.config.node.name;
        match self.cluster.standing() {
            Standing::Candidate => tracing::warn!(
                "known as a candidate: this node holds no data until an operator lets it join with \
                 `ringdove member join {name}`, `ringdove plan` and `ringdove commit`"
            ),
            Standing::Member => tracing::info!("a member of the cluster"),
            Standing::Leaving => tracing::warn!("leaving the cluster: handing over what it owns"),
            Standing::Removed => tracing::error!(
                "removed from the cluster for good, and serving nobody: stop this node. To use the \
                 machine again start it with an empty node.data_dir"
            ),
        }
    }

    /// Carries out an operator's change, and tells everybody.
    async fn administer(
        &self,
        change: impl FnOnce(&mut ClusterState) -> Result<(), ClusterError>,
    ) -> Result<ControlReply, Failure> {
        let invalid =
            |error: ClusterError| Failure::not_applied(FailureCode::Invalid, error.to_string());
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        self.install_topology(change).await.map_err(invalid)?;
        // Who hangs will hear of it later; whoever asked should not wait for that.
        let _ = tokio::time::timeout(TELL_WITHIN, self.exchange_with_all()).await;
        Ok(ControlReply::Ok)
    }

    /// Makes sure that no member has begun slots for `n` replicas that this node has not heard of:
    /// of two beginnings one would be dropped, with what was written by it.
    async fn hear_from_all(&self, n: u8) -> Result<(), Failure> {
        self.exchange_with_all().await;
        let topology = self.topology();
        let is_away = |id: &NodeId| *id != self.id && !self.links.is_up(*id);
        match topology.state().serving().find(|(id, _)| is_away(id)) {
            None => Ok(()),
            Some((_, entry)) => {
                let message = format!(
                    "no bucket has n={n} yet, so all members must hear of its slots, and {} cannot be reached; \
                     start or replace it, or use the n of another bucket",
                    entry.name()
                );
                Err(Failure::not_applied(FailureCode::Unavailable, message))
            }
        }
    }

    /// Exchanges states with `node`.
    pub async fn exchange_with(&self, node: NodeId) {
        let control = Control::Exchange(self.topology().state().encode());
        match self.links.ask(node, control, CONTROL_TIMEOUT).await {
            Some(Response::Control(ControlReply::Topology(bytes))) => {
                let merged = match ClusterState::decode(&bytes) {
                    Ok(theirs) => self.merge(theirs).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = merged {
                    tracing::warn!(peer = %node.short(), %error, "a member's cluster state was not taken");
                }
            }
            Some(Response::Failed(failure)) => {
                let why = failure.message;
                tracing::warn!(peer = %node.short(), why, "a member did not take this node's cluster state");
            }
            _ => {}
        }
    }

    /// Has this node removed, of which nobody needs anything any more, and ends [`Cluster::part`]. The others hear of it first:
    /// whoever is removed serves nobody and connects to nobody, and could not tell them any more.
    ///
    /// # Errors
    /// When there are others and none has heard of it, or the disk fails; nothing is changed here then.
    pub async fn part(&self) -> Result<(), ClusterError> {
        let me = self.id;
        let remove = |state: &mut ClusterState| {
            if let Some(entry) = state.members.get_mut(&me) {
                entry.standing = entry.standing.max(Standing::Removed);
            }
            Ok(())
        };
        let mut removed = self.topology().state().clone();
        remove(&mut removed)?;
        let (others, mut told) = (removed.serving().count(), 0);
        for other in self.links.up() {
            let control = Control::Exchange(removed.encode());
            let answer = self.links.ask(other, control, CONTROL_TIMEOUT).await;
            told += u32::from(matches!(answer, Some(Response::Control(ControlReply::Topology(_)))));
        }
        let parted = match others > 0 && told == 0 {
            true => Err(ClusterError::Unheard),
            false => self.install_topology(remove).await,
        };
        self.cluster.part(false);
        self.links.keep(|| self.cluster.others());
        parted
    }

    /// Exchanges states with every member there is a connection to, all at once.
    pub async fn exchange_with_all(&self) {
        let mut exchanges: Vec<_> =
            self.links.up().into_iter().map(|node| Box::pin(self.exchange_with(node))).collect();
        std::future::poll_fn(|context| {
            exchanges.retain_mut(|exchange| exchange.as_mut().poll(context).is_pending());
            match exchanges.is_empty() {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    }
}

/// The answer where a queue is full.
#[must_use]
pub fn busy() -> Failure {
    let message = "too many requests are waiting at this node; try again in a moment";
    let mut failure = Failure::not_applied(FailureCode::Busy, message);
    failure.retry_after_ms = 50;
    failure
}
