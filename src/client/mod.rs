//! The client: reads and writes keys of a cluster, from any tokio runtime.
//!
//! ```no_run
//! # async fn run() -> ringdove::client::Result<()> {
//! use ringdove::client::{Client, Level, Values};
//!
//! let client = Client::builder().seed("127.0.0.1:7400").connect().await?;
//! let carts = client.bucket("carts")?;
//!
//! let read = carts.get("alice").r(Level::Quorum).await?;
//! match &read.values {
//!     Values::None | Values::Tombstone => println!("nothing"),
//!     Values::One(value) => println!("{:?}", value.data),
//!     Values::Many(siblings) => println!("{} writers did not see each other", siblings.len()),
//! }
//! let written = carts.put("alice", "apples").context(&read.context).w(2).await?;
//! println!("{} replicas have it on disk", written.receipt.fsynced);
//! # Ok(())
//! # }
//! ```
//!
//! # What a write builds on
//!
//! Any replica takes a write without asking the others, so two writers may not know of each
//! other, and then both values stay, as *siblings*. Which values a write replaces is what its
//! writer says, and so a `put` or `delete` that does not say is no request yet and can't be
//! awaited: say [`context`](Put::context) (replace what I have read), [`create_only`](Put::create_only),
//! [`observed`](Put::observed) (replace whatever is there now), or [`blind`](Put::blind) (stand
//! beside it). [`Bucket::update`] does the whole round of reading, resolving and writing.
//!
//! # How it works
//!
//! The client learns the cluster's members from a seed, computes the same ring as the nodes, and
//! sends each request to a replica of its key. It keeps one connection per node, with many
//! requests under way. Every receipt says which cluster state its coordinator went by; when that
//! is news, the client fetches it in the background.
//!
//! What always holds:
//! - a write keeps its id over all its repetitions, so repeating never makes a sibling;
//! - nothing is waited for beyond the operation's deadline, and that deadline travels along;
//! - no queue is unbounded, and repetitions are bounded by a budget over all operations;
//! - an [`Error`] says whether the write happened, and after "perhaps" never says "no";
//! - dropping a future gives its request up and leaves nothing behind in the client. A write
//!   that was already sent may take place all the same.

mod bucket;
mod budget;
mod builder;
mod connection;
mod context;
pub mod direct;
mod entropy;
mod error;
mod keys;
mod many;
mod node;
mod operation;
mod read;
mod resolve;
mod route;
mod update;
mod write;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::time::Instant;

pub use bucket::Bucket;
pub use builder::Builder;
pub use context::Context;
pub use error::{Error, Kind, Outcome, Result, Retry};
pub use keys::Keys;
pub use many::{MultiGet, MultiPut};
pub use read::{Get, Read, Values};
pub use resolve::{LastWriteWins, MaxBy, Resolve, Union};
pub use update::{Change, Update, Updated};
pub use write::{Delete, Put, Write, Written};

pub use crate::ids::{NodeId, WriteId};
pub use crate::membership::Topology;
pub use crate::wire::messages::{
    BucketSettings, BucketTally, ClusterTally, Conflicts, Explanation, Goals, HintStatus, Hop,
    Level, Listed, MemberReport, MemberState, NodeStatus, Open, Outlier, Outliers, PlannedChange,
    Receipt, SyncState, TopologyVersion, Value, Waiting,
};

use budget::RetryBudget;
use builder::Settings;
use entropy::Entropy;
use node::Node;
use operation::{Effect, Operation};
use route::{Map, Reach};

use crate::key::{self, Key, KeyError};
use crate::membership::ClusterState;
use crate::wire::messages::{Control, ControlReply, Request, Response};

/// Shortest time between two looks for a newer cluster state. States that keep differing (two
/// that are about to merge) must not turn every answer into a look.
const REFRESH_GAP: Duration = Duration::from_millis(100);

/// Pause between two looks for a bucket that was just created.
const HEARSAY_PAUSE: Duration = Duration::from_millis(20);

/// A cluster, from outside. Cheap to clone; all clones share their connections, which close with
/// the last of them.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    map: RwLock<Arc<Map>>,
    entropy: Entropy,
    budget: RetryBudget,
    /// When the map was last looked after. Locked while somebody does.
    refreshed_at: Arc<tokio::sync::Mutex<Instant>>,
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A bucket, by its name. Asks nobody: whether it exists, the first request tells.
    ///
    /// # Errors
    /// [`Kind::Key`] when no bucket can have that name.
    pub fn bucket(&self, name: &str) -> Result<Bucket> {
        if !key::is_bucket_name(name.as_bytes()) {
            return Err(KeyError::BucketName.into());
        }
        Ok(Bucket::new(self.inner.clone(), name))
    }

    /// Creates a bucket, and waits until this client has heard of it. One that is there with these
    /// very settings is no error, so this may be repeated.
    ///
    /// # Errors
    /// [`Kind::Exists`] when it is there with other settings; nothing was changed.
    pub async fn create_bucket(&self, name: &str, settings: BucketSettings) -> Result<()> {
        let message = Control::CreateBucket { name: name.to_owned(), settings };
        let created = self.administer(message).await;
        if created.is_ok() || matches!(&created, Err(error) if error.kind() == Kind::Exists) {
            self.hear_of(name).await?;
        }
        match created {
            Err(_) if self.topology().bucket(name) == Some(&settings) => Ok(()),
            created => created,
        }
    }

    /// Gives a bucket other settings. Another replica count is added to the plan, like changes of the
    /// members; the rest counts at once.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when there is none of that name, or the settings make no sense; nothing was
    /// changed.
    pub async fn set_bucket(&self, name: &str, settings: BucketSettings) -> Result<()> {
        self.administer(Control::SetBucket { name: name.to_owned(), settings }).await
    }

    /// Adds a change of the members to the plan; nothing moves before it is committed. A member
    /// that answers is replaced only with `force`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the change makes no sense; nothing was changed.
    pub async fn stage_change(
        &self,
        member: NodeId,
        change: PlannedChange,
        force: bool,
    ) -> Result<()> {
        self.administer(Control::StageChange { member, change, force }).await
    }

    /// Makes everything happen that is planned; with a `mark`, only the plan which has that mark.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when nothing is planned, or another plan; nothing was changed.
    pub async fn commit_plan(&self, mark: Option<u64>) -> Result<()> {
        self.administer(Control::CommitPlan { mark }).await
    }

    /// Forgets everything that is planned.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn abort_plan(&self) -> Result<()> {
        self.administer(Control::AbortPlan).await
    }

    async fn administer(&self, message: Control) -> Result<()> {
        let done = self.inner.control(Effect::Administers, message, |reply| match reply {
            ControlReply::Ok => Some(()),
            _ => None,
        });
        done.await
    }

    /// Looks for news until they contain the bucket, which exists: nodes tell each other soon.
    async fn hear_of(&self, bucket: &str) -> Result<()> {
        let deadline = Instant::now() + self.inner.settings.operation_timeout;
        loop {
            let topology = self.refresh().await?;
            if topology.bucket(bucket).is_some() || Instant::now() + HEARSAY_PAUSE >= deadline {
                return Ok(());
            }
            tokio::time::sleep(HEARSAY_PAUSE).await;
        }
    }

    /// The members and buckets, as this client knows them now. Asks nobody.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.inner.map().topology().clone()
    }

    /// Asks a node for the members and buckets, and goes by what it says.
    ///
    /// # Errors
    /// When no node answers; the client goes on with what it knows.
    pub async fn refresh(&self) -> Result<Arc<Topology>> {
        self.inner.refresh().await?;
        Ok(self.topology())
    }

    /// Where a key is, and what each of its replicas holds.
    ///
    /// # Errors
    /// As any request.
    pub async fn explain(&self, bucket: &str, key: impl AsRef<[u8]>) -> Result<Explanation> {
        let key = Key::new(bucket.as_bytes(), key.as_ref())?;
        let message = Control::Explain { bucket: bucket.to_owned(), key: key.name().to_vec() };
        let take = |reply| match reply {
            ControlReply::Explain(explanation) => Some(explanation),
            _ => None,
        };
        self.inner.control(Effect::Reads, message, take).await
    }

    /// What every member says of itself, asked by one of them.
    ///
    /// # Errors
    /// As any request.
    pub async fn survey(&self) -> Result<Vec<MemberReport>> {
        let take = |reply| match reply {
            ControlReply::Survey(reports) => Some(reports),
            _ => None,
        };
        self.inner.control(Effect::Reads, Control::Survey, take).await
    }

    /// What is in each bucket, over the cluster: keys, deletions that are remembered, keys in conflict,
    /// bytes. Each key is counted once, as one of its owners has it.
    ///
    /// # Errors
    /// As any request.
    pub async fn tallies(&self) -> Result<ClusterTally> {
        let take = |reply| match reply {
            ControlReply::Tallies(tally) => Some(tally),
            _ => None,
        };
        self.inner.control(Effect::Reads, Control::Tallies, take).await
    }

    /// The keys of one node that have the most values, and the largest. Asks exactly that node, which
    /// looks at a million keys, or all it has in conflict.
    ///
    /// # Errors
    /// When it does not answer within `timeout`.
    pub async fn outliers_of(&self, address: &str, timeout: Duration) -> Result<Outliers> {
        let request = Request::Control(Control::Outliers);
        match direct::request(address, &request, timeout).await? {
            Response::Control(ControlReply::Outliers(found)) => Ok(found),
            _ => Err(Error::new(Kind::Protocol, "the answer is to another question").at(address)),
        }
    }

    /// How one node is, and how it sees the others. Asks exactly that node.
    ///
    /// # Errors
    /// When it does not answer within an attempt's time.
    pub async fn status_of(&self, address: &str) -> Result<NodeStatus> {
        direct::status(address, self.inner.settings.attempt_timeout).await
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topology = self.topology();
        f.debug_struct("Client")
            .field("cluster", &topology.state().cluster)
            .field("members", &topology.state().serving().count())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// A client of the cluster that the first answering seed belongs to.
    async fn connect(settings: Settings) -> Result<Arc<Self>> {
        let patience = settings.patience;
        let seeds: Arc<[Arc<Node>]> =
            settings.seeds.iter().map(|address| Arc::new(Node::new(address, patience))).collect();
        let deadline = Instant::now() + settings.operation_timeout;
        let mut failures = Vec::new();
        for seed in seeds.iter() {
            let state = tokio::time::timeout_at(deadline, fetch_state(seed, &settings)).await;
            match state {
                Ok(Ok(state)) => {
                    let reach = Reach { only_seeds: settings.only_seeds, patience };
                    let map = Map::new(Topology::new(state), seeds.clone(), reach, None);
                    map.strangers().for_each(|seed| seed.disconnect());
                    return Ok(Arc::new(Self {
                        map: RwLock::new(Arc::new(map)),
                        entropy: Entropy::new(),
                        budget: RetryBudget::new(settings.retry_percent, settings.retry_burst),
                        refreshed_at: Arc::new(tokio::sync::Mutex::new(Instant::now())),
                        settings,
                    }));
                }
                Ok(Err(error)) => failures.push(error.to_string()),
                Err(_) => failures.push(format!("{} was not asked in time", seed.address())),
            }
        }
        let message = format!("no seed could be asked: {}", failures.join("; "));
        Err(Error::new(Kind::Connect, message))
    }

    fn map(&self) -> Arc<Map> {
        self.map.read().expect("nothing panics while it holds this lock").clone()
    }

    /// Looks at the cluster state a coordinator went by. If it is news, fetches it in the
    /// background; whoever else notices meanwhile leaves it at that.
    fn notice(self: &Arc<Self>, seen: TopologyVersion) {
        let ours = self.map().topology().version();
        let is_older = seen.epoch < ours.epoch;
        if is_older || seen == ours {
            return;
        }
        let Ok(refreshed_at) = self.refreshed_at.clone().try_lock_owned() else { return };
        if refreshed_at.elapsed() < REFRESH_GAP {
            return;
        }
        let inner = self.clone();
        tokio::spawn(async move { inner.refresh_holding(refreshed_at).await });
    }

    async fn refresh(self: &Arc<Self>) -> Result<()> {
        let refreshed_at = self.refreshed_at.clone().lock_owned().await;
        self.refresh_holding(refreshed_at).await
    }

    async fn refresh_holding(
        self: &Arc<Self>,
        mut refreshed_at: tokio::sync::OwnedMutexGuard<Instant>,
    ) -> Result<()> {
        let take = |reply| match reply {
            ControlReply::Topology(bytes) => Some(bytes),
            _ => None,
        };
        let bytes = self.control(Effect::Reads, Control::Topology, take).await;
        *refreshed_at = Instant::now();
        let theirs = ClusterState::decode(&bytes?).map_err(incomprehensible)?;
        let old = self.map();
        let mut state = old.topology().state().clone();
        if !state.merge(&theirs).map_err(incomprehensible)? {
            return Ok(());
        }
        let seeds = old.seeds().clone();
        let Settings { only_seeds, patience, .. } = self.settings;
        let reach = Reach { only_seeds, patience };
        let compute =
            move || Map::new(Topology::after(old.topology(), state), seeds, reach, Some(&old));
        // A ring of hundreds of members takes long enough to keep others from running.
        let map = tokio::task::spawn_blocking(compute).await;
        let map = map.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        *self.map.write().expect("nothing panics while it holds this lock") = Arc::new(map);
        Ok(())
    }

    /// Sends a control message to any node.
    async fn control<T>(
        self: &Arc<Self>,
        effect: Effect,
        message: Control,
        take: impl Fn(ControlReply) -> Option<T>,
    ) -> Result<T> {
        let build = |_| Request::Control(message.clone());
        let take = |response| match response {
            Response::Control(reply) => take(reply),
            _ => None,
        };
        Operation::new(self, None, effect, None).run(build, take).await
    }
}

/// Asks a seed for the cluster state.
async fn fetch_state(seed: &Node, settings: &Settings) -> Result<ClusterState> {
    let connection = seed.connect().await?;
    let asked =
        async { connection.send(&Request::Control(Control::Topology)).await?.answer().await };
    let answer = tokio::time::timeout(settings.attempt_timeout, asked).await;
    let answer = answer.unwrap_or_else(|_| Err(Error::new(Kind::Timeout, "no answer in time")));
    match answer.map_err(|error| error.at(seed.address()))? {
        Response::Control(ControlReply::Topology(bytes)) => {
            ClusterState::decode(&bytes).map_err(incomprehensible)
        }
        Response::Failed(failure) => Err(Error::answered(seed.address(), failure)),
        _ => {
            Err(Error::new(Kind::Protocol, "the answer is to another question").at(seed.address()))
        }
    }
}

fn incomprehensible(error: crate::membership::StateError) -> Error {
    Error::new(Kind::Protocol, error.to_string())
}
