//! The life of a node: start, serve, drain, stop.

mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use settings::{reap_settings, rocks_options, shard_settings, sync_settings, transfer_settings};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use super::admin;
use super::background::Background;
use super::clock::Clock;
use super::cluster::Cluster;
use super::committer::Committer;
use super::config::Config;
use super::disk::{Disk, Verdict};
use super::driver::Driver;
use super::faults::Faults;
use super::gossip::{self, GossipTask, News};
use super::links::{DialError, Links, Myself};
use super::loader::Loader;
use super::mailbox::{Mail, Mailbox};
use super::mark::MarkState;
use super::node::{Node, Traffic};
use super::reaping::ReapDesk;
use super::room::Room;
use super::scrub::ScrubDesk;
use super::sync::SyncDesk;
use super::transfers::TransferDesk;
use super::{descriptors, frames, text};
use crate::ids::NodeId;
use crate::limits;
use crate::membership::{BucketEntry, ClusterState, Contact, MemberEntry, Standing};
use crate::random::Random;
use crate::replica::{Input, Shard};
use crate::store::record::Record;
use crate::store::{Store, StoreError};
use crate::time::WallMs;
use crate::wire::greeting::Introduction;
use crate::wire::messages::BucketSettings;

/// How often a node that has not met everyone asks its seeds.
const FORMING_EVERY: Duration = Duration::from_millis(300);
/// How often a node compares its cluster state with another's for no particular reason.
const EXCHANGE_EVERY: Duration = Duration::from_secs(5);
/// Between two exchanges with one member because a request found one of the two stale.
const EXCHANGES_APART: Duration = Duration::from_millis(20);
/// Bytes of hints that are read at once when they are counted at the start.
const HINTS_PAGE_BYTES: usize = 1 << 20;
/// How long the threads may take to end once nothing is under way.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// Runs a node until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: the data directory, the ports, the cluster state. Nothing was served.
pub fn run(mut config: Config) -> Result<ExitCode> {
    install_log(&config);
    config.limits.connections = descriptors::make_room(config.limits.connections);
    let threads = config.threads();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(threads).enable_all().build()?;
    end_with_any_thread();
    let code = runtime.block_on(async {
        let running = Running::start(config).await?;
        running.until_told_to_stop().await?;
        Ok(running.stop().await)
    });
    // What still reads or writes has had its time.
    runtime.shutdown_timeout(STOP_WITHIN);
    code
}

/// A node without one of its own threads would be half a node, which others take for whole: a defect
/// that ends one of them ends the process. What serves one connection ends with that alone.
fn end_with_any_thread() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |defect| {
        report(defect);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        if name.starts_with("ringdove-") {
            tracing::error!(thread = name, "a defect ended a thread; ending the process");
            std::process::exit(70);
        }
    }));
}

/// A node and the threads it owns.
struct Running {
    node: Arc<Node>,
    disk: Disk,
    committer: Committer,
    committing: JoinHandle<()>,
    shards: Vec<JoinHandle<()>>,
    pid_file: PathBuf,
}

/// Told of every connection to a member that has come up.
type Connections = tokio::sync::mpsc::UnboundedReceiver<NodeId>;

/// The ports of a node, bound and not yet served.
struct Ports {
    frames: TcpListener,
    gossip: UdpSocket,
    text: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Running {
    async fn start(config: Config) -> Result<Self> {
        // The ports first: a second start of the same node must not get as far as its data.
        let Ports { frames, gossip, text, admin } = Ports::bind(&config).await?;
        let (disk, pid_file) = open_disk(&config).await?;
        let clock = Clock::start();
        let faults = Faults::new(config.node.fault_injection, clock);
        disk.store.suffer(faults.clone());
        let is_v4 = gossip.local_addr()?.is_ipv4();
        let Assembled { node, connections, gossip, news } =
            assemble(config, &disk, clock, gossip, faults).await?;
        let store: Arc<dyn Store> = disk.store.clone();
        let (exchanges, wanted) = tokio::sync::mpsc::unbounded_channel();
        report_hints(store.as_ref(), &node.mailboxes)?;
        report_graves(store.as_ref(), &node.mailboxes)?;
        let (committer, committing) = Committer::start(store.clone(), &node.mailboxes, &node.room);
        let loader = Loader::start(&store, &node.mailboxes);
        let mut shards = Vec::new();
        for index in 0..node.mailboxes.len() {
            let lease = u32::try_from(limits::ACTORS_LEASED).expect("the lease fits 32 bits");
            let actors = disk.mark.lease(lease)?;
            let seed = entropy()?;
            let driver = Driver {
                index,
                shard: Shard::new(shard_settings(&node, index), node.topology(), actors, seed),
                mailbox: node.mailboxes[index].clone(),
                clock,
                store: store.clone(),
                loader: loader.clone(),
                committer: committer.clone(),
                links: node.links.clone(),
                mark: disk.mark.clone(),
                exchanges: exchanges.clone(),
                gauge: node.gauges[index].clone(),
                faults: node.faults.clone(),
            };
            shards.push(driver.start());
        }
        tokio::spawn(node.room.clone().watch());
        node.links.keep(|| node.cluster.others());
        tokio::spawn(frames::serve(node.clone(), frames));
        if let Some(listener) = text {
            tokio::spawn(text::serve(node.clone(), listener));
        }
        if let Some(listener) = admin {
            tokio::spawn(admin::serve(node.clone(), listener));
        }
        node.transfers.start(&node);
        node.reaping.start(&node);
        node.sync.start(&node, disk.mark.clone());
        node.scrub.start(&node);
        tokio::spawn(gossip.run());
        tokio::spawn(gossip::follow_cluster(node.clone(), is_v4));
        tokio::spawn(gossip::follow_news(node.clone(), news, entropy()?));
        tokio::spawn(gossip::compare_now_and_then(node.clone(), entropy()?));
        tokio::spawn(exchange_on_connect(node.clone(), connections));
        tokio::spawn(exchange_now_and_then(node.clone()));
        tokio::spawn(exchange_when_stale(node.clone(), wanted));
        tokio::spawn(meet(node.clone()));
        let (name, id) = (&node.config.node.name, node.id);
        let frames = &node.config.listen.address;
        let text = &node.config.listen.text;
        tracing::info!(%name, %id, %frames, %text, "started");
        if node.config.node.fault_injection {
            tracing::warn!(
                "this node injects faults into itself when it is told to, by anybody who can send it commands: \
                 never in production (node.fault_injection)"
            );
        }
        Ok(Self { node, disk, committer, committing, shards, pid_file })
    }

    async fn until_told_to_stop(&self) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    }

    /// Refuses new work, finishes what is under way, and leaves the disk in order.
    async fn stop(self) -> ExitCode {
        let node = &self.node;
        node.faults.end();
        tracing::info!(in_flight = node.in_flight(), "stopping: no new work is taken");
        let _ = node.draining.send_replace(true);
        for mailbox in &node.mailboxes {
            mailbox.post([Mail::Input(Input::Drain)]);
        }
        let drained_by = std::time::Instant::now()
            + Duration::from_millis(u64::from(node.config.requests.drain_ms));
        // One round at least, so that requests in the mailboxes have been looked at.
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if node.in_flight() == 0 || std::time::Instant::now() >= drained_by {
                break;
            }
        }
        node.gossip.leave().await;
        for mailbox in &node.mailboxes {
            mailbox.post([Mail::Stop]);
        }
        let left = node.in_flight();
        let (committer, committing, shards, disk) =
            (self.committer, self.committing, self.shards, self.disk);
        let closing = tokio::task::spawn_blocking(move || {
            for shard in shards {
                let _ = shard.join();
            }
            committer.stop();
            let _ = committing.join();
            disk.close()
        });
        let closed = tokio::time::timeout(STOP_WITHIN + Duration::from_secs(5), closing).await;
        let _ = fs::remove_file(&self.pid_file);
        match closed {
            Ok(Ok(Ok(()))) => {
                tracing::info!(left, "stopped");
                ExitCode::SUCCESS
            }
            Ok(Ok(Err(error))) => {
                tracing::error!(%error, "the disk could not be closed in order");
                ExitCode::from(70)
            }
            _ => {
                tracing::error!("the disk could not be closed in time");
                ExitCode::from(70)
            }
        }
    }
}

impl Ports {
    async fn bind(config: &Config) -> Result<Self> {
        let frames = bind(&config.listen.address, "listen.address").await?;
        Ok(Self {
            gossip: gossip::bind(frames.local_addr()?).await?,
            frames,
            text: bind_unless_empty(&config.listen.text, "listen.text").await?,
            admin: bind_unless_empty(&config.listen.admin, "listen.admin").await?,
        })
    }
}

/// Opens the data directory and leaves this process' number in it, for whoever wants to stop it.
async fn open_disk(config: &Config) -> Result<(Disk, PathBuf)> {
    let directory = config.node.data_dir.clone();
    let (options, opening) = (rocks_options(config), directory.clone());
    let disk = tokio::task::spawn_blocking(move || Disk::open(&opening, &options)).await??;
    let pid_file = directory.join("pid");
    fs::write(&pid_file, format!("{}\n", std::process::id()))
        .with_context(|| format!("writing {}", pid_file.display()))?;
    Ok((disk, pid_file))
}

/// A node with nothing running yet, and what its tasks begin with.
struct Assembled {
    node: Arc<Node>,
    connections: Connections,
    gossip: GossipTask,
    news: News,
}

async fn assemble(
    config: Config,
    disk: &Disk,
    clock: Clock,
    socket: UdpSocket,
    faults: Arc<Faults>,
) -> Result<Assembled> {
    let mark = disk.mark.state();
    let amnesiac = report_verdict(&disk.verdict);
    let mailbox = |_| Arc::new(Mailbox::new(config.requests.queue));
    let mailboxes: Vec<Arc<Mailbox>> = (0..config.shards()).map(mailbox).collect();
    let cluster = open_cluster(&config, disk, mailboxes.clone())?;
    let connect_timeout = Duration::from_millis(u64::from(config.requests.connect_ms));
    let (connected, connections) = tokio::sync::mpsc::unbounded_channel();
    let links = Links::new(
        myself(&config, &mark),
        (connect_timeout, clock),
        mailboxes.clone(),
        connected,
        faults.clone(),
    );
    let settings = transfer_settings(&config, mark.member, &disk.verdict);
    let home = &config.node.data_dir;
    let transfers = TransferDesk::open(home, settings, cluster.topology(), clock, entropy()?)?;
    let reaping = ReapDesk::new(
        reap_settings(&config, mark.member, mailboxes.len()),
        cluster.topology(),
        clock,
        entropy()?,
    );
    cluster.prepare_with(&transfers, &reaping);
    let sync =
        SyncDesk::new(sync_settings(&config, mark.member), cluster.topology(), clock, entropy()?);
    let (gossip, gossip_task, news) = gossip::prepare(
        &config,
        socket,
        faults.clone(),
        clock,
        disk.mark.clone(),
        mailboxes.clone(),
        entropy()?,
    )
    .await?;
    let node = Node {
        id: mark.member,
        incarnation: mark.incarnation,
        amnesiac: AtomicBool::new(amnesiac),
        clock,
        cluster,
        links,
        transfers,
        reaping,
        gates: Arc::default(),
        sync,
        scrub: Arc::new(ScrubDesk::open(&config, entropy()?)),
        gossip,
        store: disk.store.clone(),
        room: room_on(disk, clock, &mailboxes),
        gauges: mailboxes.iter().map(|_| Arc::new(Mutex::default())).collect(),
        mailboxes,
        traffic: Traffic::default(),
        draining: tokio::sync::watch::Sender::new(false),
        random: Mutex::new(Random::new(entropy()?)),
        background: Background::start(),
        looking: tokio::sync::Mutex::default(),
        faults,
        config,
    };
    Ok(Assembled { node: Arc::new(node), connections, gossip: gossip_task, news })
}

fn room_on(disk: &Disk, clock: Clock, mailboxes: &[Arc<Mailbox>]) -> Arc<Room> {
    let store = disk.store.clone();
    Room::new(Box::new(move |was_full| store.room(was_full)), clock, mailboxes.to_vec())
}

/// Who this node is, to others.
fn myself(config: &Config, mark: &MarkState) -> Myself {
    let introduction = Introduction {
        id: mark.member,
        incarnation: mark.incarnation,
        name: config.node.name.clone(),
        address: config.advertised().to_owned(),
    };
    Myself { cluster: config.cluster.name.clone(), introduction }
}

fn install_log(config: &Config) {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::new(&config.log.level);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second node in one process (in a test) finds the first one's.
    let _ = subscriber.try_init();
}

async fn bind(address: &str, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is another node running there? Change {setting}")
    })
}

async fn bind_unless_empty(address: &str, setting: &str) -> Result<Option<TcpListener>> {
    match address.is_empty() {
        true => Ok(None),
        false => bind(address, setting).await.map(Some),
    }
}

/// Says what the disk can be trusted with; returns whether this node may have forgotten things.
fn report_verdict(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Complete { clean: true } => tracing::info!("the disk is complete"),
        Verdict::Complete { clean: false } => {
            tracing::info!("not stopped in order last time; the disk is complete all the same");
        }
        Verdict::Amnesiac { why } => {
            tracing::error!(
                why,
                "this disk has lost acknowledged writes; they are on the other replicas. \
                 This node takes writes, and does not count in read quorums"
            );
            return true;
        }
    }
    false
}

fn open_cluster(config: &Config, disk: &Disk, mailboxes: Vec<Arc<Mailbox>>) -> Result<Cluster> {
    let cluster = &config.cluster;
    let mut fresh = ClusterState::new(&cluster.name, cluster.partitions);
    let default = fresh.buckets.get_mut("default").expect("a new state has it");
    let settings = BucketSettings { n: cluster.replicas, ..BucketSettings::default() };
    *default = BucketEntry::new(settings);
    let me = disk.mark.state().member;
    let contact = Contact {
        name: config.node.name.clone(),
        address: config.advertised().to_owned(),
        text_address: config.listen.text.clone(),
    };
    let entry = MemberEntry::candidate(me, contact, &config.node.zone, config.node.weight);
    let directory = &config.node.data_dir;
    Ok(Cluster::open(directory, fresh, me, entry, config.founders(), mailboxes)?)
}

/// Exchanges cluster states with every member whose connection has come up.
async fn exchange_on_connect(node: Arc<Node>, mut connections: Connections) {
    while let Some(peer) = connections.recv().await {
        let before = node.topology().version();
        node.exchange_with(peer).await;
        node.transfers.connected(peer).await;
        node.sync.connected(peer);
        gossip::compare_with(&node, peer).await;
        if node.topology().version() != before {
            node.exchange_with_all().await;
        }
    }
}

/// Tells the shards what is remembered of keys that were reaped.
fn report_graves(store: &dyn Store, mailboxes: &[Arc<Mailbox>]) -> Result<()> {
    let graves = match store.graves() {
        // They are a second guard: a node does without rather than not at all.
        Err(StoreError::Corrupt(why)) => {
            tracing::error!(why, "what is remembered of forgotten keys cannot all be read");
            Vec::new()
        }
        graves => graves?,
    };
    for grave in graves {
        let shard = usize::from(grave.key.partition().0) % mailboxes.len();
        let found = Input::GraveFound { key: grave.key, bytes: grave.record };
        mailboxes[shard].post([Mail::Input(found)]);
    }
    Ok(())
}

/// Tells the shards what the disk keeps for others, before they do anything else.
fn report_hints(store: &dyn Store, mailboxes: &[Arc<Mailbox>]) -> Result<()> {
    // What cannot be read is not counted; anti-entropy gives its owner what was in it.
    let readable = |error| match error {
        StoreError::Corrupt(why) => {
            tracing::error!(why, "what is kept for other members cannot all be read");
            Ok(Vec::new())
        }
        error => Err(error),
    };
    for owner in store.hint_owners().or_else(|error| readable(error).map(|_| Vec::new()))? {
        let mut after = None;
        loop {
            let page = store.hints(owner, after.as_ref(), HINTS_PAGE_BYTES).or_else(readable)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let (key, bytes) = (entry.key, entry.record.len());
                // When it was kept: not before its latest write was made.
                let object = Record::decode(entry.record).map(|record| record.object);
                let object = object.and_then(crate::causality::Object::decode);
                let kept = object.map_or(WallMs(0), |object| object.latest_hlc().wall());
                let shard = usize::from(key.partition().0) % mailboxes.len();
                let found = Input::HintFound { key, bytes, kept };
                mailboxes[shard].post([Mail::Input(found)]);
            }
        }
    }
    Ok(())
}

/// Exchanges states with members that went by other slots than a shard of this node, and tells the
/// shards.
async fn exchange_when_stale(
    node: Arc<Node>,
    mut wanted: tokio::sync::mpsc::UnboundedReceiver<NodeId>,
) {
    let mut begun: BTreeMap<NodeId, tokio::time::Instant> = BTreeMap::new();
    while let Some(peer) = wanted.recv().await {
        let node = node.clone();
        // One who cannot take the state in, for want of room for it, would be asked at once again.
        let now = tokio::time::Instant::now();
        let at = begun.get(&peer).map_or(now, |before| now.max(*before + EXCHANGES_APART));
        begun.insert(peer, at);
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            node.exchange_with(peer).await;
            for mailbox in &node.mailboxes {
                mailbox.post([Mail::Input(Input::Exchanged(peer))]);
            }
        });
    }
}

/// Compares cluster states with one member after the other: whatever was missed is made good.
async fn exchange_now_and_then(node: Arc<Node>) {
    let mut turn = 0;
    loop {
        tokio::time::sleep(EXCHANGE_EVERY).await;
        let up = node.links.up();
        if let Some(peer) = up.get(turn % up.len().max(1)) {
            node.exchange_with(*peer).await;
        }
        turn += 1;
    }
}

/// Asks the seeds for the cluster state until as many members have met as the cluster begins with.
async fn meet(node: Arc<Node>) {
    let mut told: Option<String> = None;
    while !node.cluster.is_formed() {
        for seed in node.config.other_seeds() {
            let Err(why) = introduce(&node, seed).await else { continue };
            let is_silence = matches!(
                why.downcast_ref::<DialError>(),
                Some(DialError::Io(_) | DialError::Timeout)
            );
            let why = why.to_string();
            if is_silence {
                tracing::debug!(seed, why, "a seed does not answer");
            } else if told.as_ref() != Some(&why) {
                tracing::error!(seed, why, "a seed does not take this node in");
                told = Some(why);
            }
        }
        tokio::time::sleep(FORMING_EVERY).await;
    }
    let (members, _) = node.cluster.met();
    tracing::info!(members, "the cluster has formed");
    if node.cluster.standing() != Standing::Member {
        node.report_standing();
    }
}

/// Exchanges states with a node of which only the address is known.
async fn introduce(node: &Node, seed: &str) -> Result<()> {
    use crate::wire::messages::{Control, ControlReply, Response};
    let within = Duration::from_millis(u64::from(node.config.requests.connect_ms));
    let control = Control::Exchange(node.topology().state().encode());
    let (_, response) = node.links.ask_stranger(seed, control, within).await?;
    match response {
        Response::Control(ControlReply::Topology(bytes)) => {
            let theirs = ClusterState::decode(&bytes)?;
            Ok(node.merge(theirs).await?)
        }
        Response::Failed(failure) => anyhow::bail!("{}", failure.message),
        _ => anyhow::bail!("it answered something else"),
    }
}

/// Random bits of the operating system.
fn entropy() -> Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
