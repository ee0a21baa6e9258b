//! Failure detection's socket, clock and disk: the driver of [`Swim`].
//!
//! One task owns the state machine and the UDP socket, on the number of the framed port. Its timers
//! come first, always; then what has arrived. Nothing waits in a queue that drops: timers are the
//! state machine's own, packets are the network's, and the few messages of the rest of the node
//! come through a channel without a bound.
//!
//! ```text
//!   cluster ── members, version ──▶ ┌────────┐ ── Up, Down ──▶ shards
//!   links ──── views ─────────────▶ │ gossip │ ── Versions ──▶ exchange of cluster states
//!   UDP ────── packets ──────────── └────────┘ ── Renew ─────▶ mark
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, oneshot};

use super::clock::Clock;
use super::committer;
use super::config::Config;
use super::faults::{Faults, Packets};
use super::mailbox::{Mail, Mailbox};
use super::mark::Mark;
use super::node::Node;
use crate::ids::NodeId;
use crate::limits;
use crate::membership::swim::{self, Effect, Identity, Key, Row, Sealer, Swim};
use crate::random::Random;
use crate::replica::Input;
use crate::time::Instant;
use crate::wire::messages::{Control, ControlReply, Response, TopologyVersion};

/// Packets taken in one turn, before timers are looked at again.
const PACKETS_A_TURN: usize = 64;
/// A turn that takes longer is reported.
const TURN_LONG: Duration = Duration::from_millis(100);
/// How often what is shown to people is brought up to date, at most.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// How often the members' names are looked up again: their addresses may change.
const RESOLVE_EVERY: Duration = Duration::from_secs(60);
/// News of other cluster states is gathered for so long, and up to twice: a change that a hundred
/// members hear of at once is not fetched by all of them at once.
const GATHER: Duration = Duration::from_millis(50);
/// How long another node may take over a view.
const VIEW_TIMEOUT: Duration = Duration::from_secs(2);

/// Something for the task.
#[derive(Debug)]
enum Word {
    Input(swim::Input),
    /// Another node's digest, and its view where it sent one; wants ours where it differs.
    Compare {
        digest: u64,
        view: Bytes,
        reply: oneshot::Sender<Option<Bytes>>,
    },
    /// Wants the digest, and the view where the flag is set.
    Show {
        with_view: bool,
        reply: oneshot::Sender<(u64, Bytes)>,
    },
    Leave(oneshot::Sender<()>),
}

/// What is shown to people: a moment old at most.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The members, as this node sees them.
    pub rows: Vec<Row>,
    /// What it has counted.
    pub counters: swim::Counters,
}

/// The node's end of the task.
#[derive(Debug)]
pub struct Gossip {
    words: mpsc::UnboundedSender<Word>,
    shown: Arc<Mutex<Shown>>,
    members_changed: Notify,
}

/// The task, before it is started.
pub struct GossipTask {
    words: mpsc::UnboundedReceiver<Word>,
    shown: Arc<Mutex<Shown>>,
    shown_at: Instant,
    swim: Swim,
    socket: Packets,
    faults: Arc<Faults>,
    clock: Clock,
    mark: Arc<Mark>,
    mailboxes: Vec<Arc<Mailbox>>,
    news: mpsc::UnboundedSender<(NodeId, TopologyVersion)>,
}

/// News of members whose cluster state has another version.
pub type News = mpsc::UnboundedReceiver<(NodeId, TopologyVersion)>;

/// Takes the UDP port that goes with the framed one.
///
/// # Errors
/// When somebody else has it.
pub async fn bind(frames: SocketAddr) -> Result<UdpSocket> {
    UdpSocket::bind(frames).await.with_context(|| {
        format!(
            "cannot take gossip on UDP {frames}, although its TCP port is free; another process \
             uses that UDP port. Stop it, or change listen.address"
        )
    })
}

/// The two ends, with nothing running yet. Begins a new generation, durably.
///
/// # Errors
/// When the address that others dial cannot be looked up, or the mark cannot be written.
pub async fn prepare(
    config: &Config,
    socket: UdpSocket,
    faults: Arc<Faults>,
    clock: Clock,
    mark: Arc<Mark>,
    mailboxes: Vec<Arc<Mailbox>>,
    seed: u64,
) -> Result<(Gossip, GossipTask, News)> {
    let advertised = config.advertised();
    let is_v4 = socket.local_addr()?.is_ipv4();
    let address = resolve(advertised, is_v4).await.with_context(|| {
        format!(
            "cannot look up {advertised}, which others are to send gossip to; set \
             listen.advertise to a host:port that they can reach"
        )
    })?;
    let node = mark.state().member;
    let identity = Identity::new(node, mark.begin_generation()?, address);
    let cluster = &config.cluster.name;
    let keys = config.gossip_secrets().into_iter().map(|secret| Key::new(cluster, secret));
    let sealer = Sealer::new(cluster, node, keys.collect());
    if config.gossip.keys.is_empty() && !address.ip().is_loopback() {
        tracing::warn!(
            "gossip.keys is empty: whoever reaches UDP {address} can have nodes declared down"
        );
    }
    let (words, inbox) = mpsc::unbounded_channel();
    let (news, heard) = mpsc::unbounded_channel();
    let swim = Swim::new(clock.instant(), config.swim(), identity, sealer, seed);
    let shown = Shown { rows: swim.view(), counters: swim.counters() };
    let shown = Arc::new(Mutex::new(shown));
    let gossip = Gossip { words, shown: shown.clone(), members_changed: Notify::new() };
    let task = GossipTask {
        words: inbox,
        shown,
        shown_at: Instant(0),
        swim,
        socket: Packets::new(socket, faults.clone()),
        faults,
        clock,
        mark,
        mailboxes,
        news,
    };
    Ok((gossip, task, heard))
}

/// The first address of `host:port` that the socket can send to.
async fn resolve(address: &str, is_v4: bool) -> std::io::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(address).await?;
    let fitting = found.find(|address| address.is_ipv4() == is_v4);
    fitting.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::AddrNotAvailable))
}

impl Gossip {
    /// What there is to show.
    #[must_use]
    pub fn shown(&self) -> Shown {
        lock(&self.shown).clone()
    }

    /// The cluster state has changed: members or its version.
    pub fn cluster_changed(&self) {
        self.members_changed.notify_one();
    }

    /// Answers another node's [`Control::Gossip`]: this node's view where theirs differs.
    pub async fn compare(&self, digest: u64, view: Vec<u8>) -> Vec<u8> {
        let (reply, answer) = oneshot::channel();
        let _ = self.words.send(Word::Compare { digest, view: view.into(), reply });
        answer.await.ok().flatten().unwrap_or_default().to_vec()
    }

    /// Tells the others that this node stops, and stops.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        let _ = self.words.send(Word::Leave(done));
        let _ = left.await;
    }

    fn input(&self, input: swim::Input) {
        let _ = self.words.send(Word::Input(input));
    }

    async fn show(&self, with_view: bool) -> Option<(u64, Bytes)> {
        let (reply, answer) = oneshot::channel();
        let _ = self.words.send(Word::Show { with_view, reply });
        answer.await.ok()
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().expect("no holder of the lock panics")
}

impl GossipTask {
    /// Runs until the node has left.
    pub async fn run(mut self) {
        let mut packet = [0; limits::GOSSIP_PACKET_BYTES + 1];
        let mut effects = Vec::new();
        while let Some(deadline) = self.swim.next_deadline() {
            let deadline = tokio::time::Instant::from_std(self.clock.std(deadline));
            let mut left = None;
            self.faults.pass_pause().await;
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline) => {
                    self.faults.pass_pause().await;
                    self.swim.handle_deadline(self.clock.instant(), &mut effects);
                }
                Ok(length) = self.socket.receive(&mut packet) => {
                    self.packets(&mut packet, length, &mut effects);
                }
                Some(word) = self.words.recv() => left = self.word(word, &mut effects),
            }
            let began = self.clock.instant();
            self.perform(&mut effects);
            let now = self.clock.instant();
            if now - began > TURN_LONG {
                tracing::warn!(took = ?(now - began), "a turn of gossip took long");
                self.swim.handle(now, swim::Input::Late(now - began), &mut effects);
            }
            if now - self.shown_at > SHOW_EVERY {
                self.shown_at = now;
                let (rows, counters) = (self.swim.view(), self.swim.counters());
                *lock(&self.shown) = Shown { rows, counters };
            }
            if let Some(left) = left {
                let _ = left.send(());
            }
        }
    }

    /// Takes the packet that has come, and those behind it.
    fn packets(&mut self, packet: &mut [u8], length: usize, effects: &mut Vec<Effect>) {
        let mut length = length;
        for _ in 0..PACKETS_A_TURN {
            let datagram = Bytes::copy_from_slice(&packet[..length]);
            self.swim.handle(self.clock.instant(), swim::Input::Datagram(datagram), effects);
            match self.socket.try_receive(packet) {
                Ok(next) => length = next,
                // Nothing more, or an ICMP error that belongs to a packet of ours: a member that
                // is not there, which probing finds out.
                Err(_) => return,
            }
        }
    }

    fn word(&mut self, word: Word, effects: &mut Vec<Effect>) -> Option<oneshot::Sender<()>> {
        let now = self.clock.instant();
        match word {
            Word::Input(input) => self.swim.handle(now, input, effects),
            Word::Compare { digest, view, reply } => {
                if !view.is_empty() {
                    self.swim.handle(now, swim::Input::View(view), effects);
                }
                let differs = self.swim.digest() != digest;
                let _ = reply.send(differs.then(|| self.swim.full_view()));
            }
            Word::Show { with_view, reply } => {
                let view = if with_view { self.swim.full_view() } else { Bytes::new() };
                let _ = reply.send((self.swim.digest(), view));
            }
            Word::Leave(done) => {
                self.swim.handle(now, swim::Input::Leave, effects);
                return Some(done);
            }
        }
        None
    }

    fn perform(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, datagram } => self.socket.send(&datagram, to),
                Effect::Up(node) => {
                    tracing::info!(peer = %node.short(), "up");
                    self.tell_shards(|| Input::Up(node));
                }
                Effect::Down(node) => {
                    tracing::warn!(peer = %node.short(), "down");
                    self.tell_shards(|| Input::Down(node));
                }
                Effect::Versions { from, version } => {
                    let _ = self.news.send((from, version));
                }
                Effect::Renew(generation) => {
                    tracing::warn!(generation, "the others took this node to be down; it is back");
                    let renewed =
                        tokio::task::block_in_place(|| self.mark.renew_generation(generation));
                    if let Err(error) = renewed {
                        committer::die(&error.to_string());
                    }
                }
            }
        }
    }

    fn tell_shards(&self, input: impl Fn() -> Input) {
        for mailbox in &self.mailboxes {
            mailbox.post([Mail::Input(input())]);
        }
    }
}

// ---- the tasks around it ---------------------------------------------------------------------

/// Keeps the state machine told who the members are and where, and which state they follow from.
pub async fn follow_cluster(node: Arc<Node>, is_v4: bool) {
    loop {
        let version = node.topology().version();
        let mut members = BTreeMap::new();
        for (member, address) in node.cluster.others() {
            match resolve(&address, is_v4).await {
                Ok(address) => drop(members.insert(member, address)),
                Err(error) => {
                    tracing::debug!(peer = %member.short(), address, %error, "cannot look up");
                }
            }
        }
        node.faults.know(node.topology().state(), node.id, &members);
        node.gossip.input(swim::Input::Members(members));
        node.gossip.input(swim::Input::Version(version));
        let changed = node.gossip.members_changed.notified();
        let _ = tokio::time::timeout(RESOLVE_EVERY, changed).await;
    }
}

/// Fetches cluster states that gossip says are other than this node's.
pub async fn follow_news(node: Arc<Node>, mut news: News, seed: u64) {
    let mut random = Random::new(seed);
    while let Some(first) = news.recv().await {
        let jitter = random.below(GATHER.as_micros() as u64);
        tokio::time::sleep(GATHER + Duration::from_micros(jitter)).await;
        // Of each version one bearer is enough; who said it last has the best chance to be there.
        let mut bearers = BTreeMap::from([(first.1.hash, first)]);
        while let Ok((from, version)) = news.try_recv() {
            bearers.insert(version.hash, (from, version));
        }
        for (from, version) in bearers.into_values() {
            if node.topology().version() != version {
                node.exchange_with(from).await;
            }
        }
    }
}

/// Compares views with one member after the other.
pub async fn compare_now_and_then(node: Arc<Node>, seed: u64) {
    let mut random = Random::new(seed);
    let every = Duration::from_millis(node.config.gossip.push_pull_ms.into());
    loop {
        let jitter = Duration::from_micros(random.below(every.as_micros() as u64 / 4));
        tokio::time::sleep(every + jitter).await;
        let up = node.links.up();
        if !up.is_empty() {
            compare_with(&node, up[random.below(up.len() as u64) as usize]).await;
        }
    }
}

/// Brings this node's view and a member's together.
pub async fn compare_with(node: &Node, member: NodeId) {
    let Some((digest, _)) = node.gossip.show(false).await else { return };
    let Some(theirs) = ask(node, member, digest, Bytes::new()).await else { return };
    node.gossip.input(swim::Input::View(theirs));
    let Some((digest, view)) = node.gossip.show(true).await else { return };
    if let Some(theirs) = ask(node, member, digest, view).await {
        node.gossip.input(swim::Input::View(theirs));
    }
}

/// The member's view, if it differs.
async fn ask(node: &Node, member: NodeId, digest: u64, view: Bytes) -> Option<Bytes> {
    let control = Control::Gossip { digest, view: view.to_vec() };
    match node.links.ask(member, control, VIEW_TIMEOUT).await {
        Some(Response::Control(ControlReply::Gossip(view))) if !view.is_empty() => {
            Some(view.into())
        }
        _ => None,
    }
}
