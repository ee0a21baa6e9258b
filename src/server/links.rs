//! Connections to the other members.
//!
//! For each member there is one task that keeps a connection to it: dials, greets, reads answers,
//! and when the connection breaks tells the shards and dials again, waiting a little longer each
//! time. Requests go out through the connection's outbox; answers carry the number of the shard
//! that asked in their top byte and go to its mailbox. Numbers with [`CONTROL_SHARD`] there belong
//! to the node itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::MissedTickBehavior;

use super::clock::Clock;
use super::faults::Faults;
use super::mailbox::{Mail, Mailbox};
use super::outbox::Outbox;
use crate::ids::NodeId;
use crate::limits;
use crate::random::Random;
use crate::replica::Input;
use crate::time::Instant;
use crate::wire::clock::{self, FarClock};
use crate::wire::codec;
use crate::wire::faults::Direction;
use crate::wire::frame::{self, Frame, Kind, Marks};
use crate::wire::greeting::{self, Greeting, Hello, Introduction, Role, Welcome};
use crate::wire::messages::{Control, Request, Response};

/// The number, in the place of a shard's, of requests that the node itself sends.
const CONTROL_SHARD: u64 = 0xff;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);
/// How long what was sent to another node may stay without its kernel's acknowledgement before the
/// connection ends. While a network drops packets, TCP tries again after twice as long each time, up
/// to two minutes: a connection that had lived through a cut of half a minute stood still for as long
/// again once the network was whole. A new one is made within [`RETRY_LAST`].
const UNACKNOWLEDGED_MOST_MS: u32 = 5_000;

/// What a node tells others about itself when it connects.
#[derive(Clone, Debug)]
pub struct Myself {
    /// The cluster it belongs to.
    pub cluster: String,
    /// Who it is.
    pub introduction: Introduction,
}

/// A connection that has greeted, and what was read behind the greeting.
type Stream = (TcpStream, BytesMut);

/// All connections to members.
pub struct Links {
    myself: Myself,
    connect_timeout: Duration,
    clock: Clock,
    mailboxes: Vec<Arc<Mailbox>>,
    links: ArcSwap<BTreeMap<NodeId, Arc<Link>>>,
    /// Held by whoever changes `links`.
    keeping: Mutex<()>,
    /// Told of every connection that has come up.
    connected: tokio::sync::mpsc::UnboundedSender<NodeId>,
    /// In the way of everything between nodes, where there are any.
    faults: Arc<Faults>,
}

/// The connection to one member.
pub struct Link {
    node: NodeId,
    address: ArcSwap<String>,
    outbox: ArcSwapOption<Outbox>,
    /// Its clock, as told on the last connection.
    clock: Mutex<FarClock>,
    pending: Mutex<HashMap<u64, oneshot::Sender<Response>>>,
    /// The member is there: it need not be waited for any longer.
    is_there: Notify,
    last_id: AtomicU64,
}

impl Links {
    /// No connections yet; every one that comes up is told to `connected`.
    #[must_use]
    pub fn new(
        myself: Myself,
        (connect_timeout, clock): (Duration, Clock),
        mailboxes: Vec<Arc<Mailbox>>,
        connected: tokio::sync::mpsc::UnboundedSender<NodeId>,
        faults: Arc<Faults>,
    ) -> Arc<Self> {
        let (links, keeping) = (ArcSwap::default(), Mutex::default());
        Arc::new(Self {
            myself,
            connect_timeout,
            clock,
            mailboxes,
            links,
            keeping,
            connected,
            faults,
        })
    }

    /// The outbox of the connection to `node`, if there is one now, and what the clock there shows.
    #[must_use]
    pub fn outlet(&self, node: NodeId) -> Option<(Arc<Outbox>, Instant)> {
        let links = self.links.load();
        let link = links.get(&node)?;
        let outbox = link.outbox.load_full()?;
        Some((outbox, link.clock().at(self.clock.instant())))
    }

    /// Whether there is a connection to `node`.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.links.load().get(&node).is_some_and(|link| link.outbox.load().is_some())
    }

    /// The members there is a connection to.
    #[must_use]
    pub fn up(&self) -> Vec<NodeId> {
        let links = self.links.load();
        let up = links.values().filter(|link| link.outbox.load().is_some());
        up.map(|link| link.node).collect()
    }

    /// Keeps a connection to each of `members` from now on.
    ///
    /// Whoever calls later decides, and looks at the members later: two that looked first and then
    /// took their turns could leave one out, or connect to one twice.
    pub fn keep(self: &Arc<Self>, members: impl FnOnce() -> Vec<(NodeId, String)>) {
        let _one_at_a_time = self.keeping.lock().expect("no holder of the lock panics");
        let before = self.links.load_full();
        let (mut links, mut new) = (BTreeMap::new(), Vec::new());
        for (node, address) in members() {
            if let Some(link) = before.get(&node) {
                link.address.store(Arc::new(address));
                links.insert(node, link.clone());
                continue;
            }
            let link = Arc::new(Link {
                node,
                address: ArcSwap::from_pointee(address),
                outbox: ArcSwapOption::empty(),
                clock: Mutex::new(FarClock::new(Instant(0), Instant(0))),
                pending: Mutex::default(),
                is_there: Notify::new(),
                last_id: AtomicU64::new(0),
            });
            links.insert(node, link.clone());
            new.push(link);
        }
        self.links.store(Arc::new(links));
        // Not before: whoever finds its link missing takes it for one that is not kept any more, and
        // a connection can be refused before the next line of this is reached.
        for link in new {
            tokio::spawn(self.clone().keep_one(link));
        }
    }

    /// `node` has connected to this one: so it is there, and is dialled at once if it is waited for.
    pub fn hurry(&self, node: NodeId) {
        if let Some(link) = self.links.load().get(&node)
            && link.outbox.load().is_none()
        {
            link.is_there.notify_one();
        }
    }

    /// Asks `node` something that is not a shard's; `None` when there is no connection or no
    /// answer in time.
    pub async fn ask(&self, node: NodeId, control: Control, within: Duration) -> Option<Response> {
        self.request(node, &Request::Control(control), within).await
    }

    /// As [`Links::ask`], for any request.
    pub async fn request(
        &self,
        node: NodeId,
        request: &Request,
        within: Duration,
    ) -> Option<Response> {
        let link = self.links.load().get(&node)?.clone();
        let outbox = link.outbox.load_full()?;
        let sent = link.clock().at(self.clock.instant());
        let marks = Marks { sent: Some(sent), ..Marks::NONE };
        let sequence = link.last_id.fetch_add(1, Ordering::Relaxed) & ((1 << 56) - 1);
        let id = (CONTROL_SHARD << 56) | sequence;
        let (sender, receiver) = oneshot::channel();
        link.pending().insert(id, sender);
        let mut encoded = true;
        outbox.send(|buffer| encoded = codec::encode_request(buffer, id, marks, request).is_ok());
        let answer = match encoded {
            true => tokio::time::timeout(within, receiver).await.ok().and_then(Result::ok),
            false => None,
        };
        link.pending().remove(&id);
        answer
    }

    /// Asks a node of which only the address is known, over a connection of its own.
    ///
    /// # Errors
    /// When it cannot be reached, or does not answer in time.
    pub async fn ask_stranger(
        &self,
        address: &str,
        control: Control,
        within: Duration,
    ) -> Result<(Welcome, Response), DialError> {
        let peer = self.faults.listener(address);
        let (mut stream, mut buffer, welcome) = self.dial(address, peer, within).await?;
        let asked = async {
            let mut out = BytesMut::new();
            let request = Request::Control(control);
            if let Err(oversize) = codec::encode_request(&mut out, 1, Marks::NONE, &request) {
                return Err(DialError::Refused(oversize.to_string()));
            }
            stream.write_all(&out).await?;
            loop {
                match frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES)? {
                    Some(frame) if frame.kind.is_response() => {
                        return Ok((welcome, codec::decode_response(&frame)?));
                    }
                    Some(_) => continue,
                    None => {}
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
            }
        };
        tokio::time::timeout(within, asked).await.map_err(|_| DialError::Timeout)?
    }

    fn tell_shards(&self, input: impl Fn() -> Input) {
        for mailbox in &self.mailboxes {
            mailbox.post([Mail::Input(input())]);
        }
    }

    async fn keep_one(self: Arc<Self>, link: Arc<Link>) {
        let mut random = Random::new(link.node.0 as u64);
        let mut wait = RETRY_FIRST;
        let mut told = false;
        loop {
            match self.connect(&link).await {
                Ok((stream, welcome)) => {
                    let clock = FarClock::new(welcome.clock, self.clock.instant());
                    *link.clock() = clock;
                    (wait, told) = (RETRY_FIRST, false);
                    tracing::info!(peer = %link.node.short(), address = %link.address.load(), "connected");
                    self.serve(&link, stream).await;
                    tracing::info!(peer = %link.node.short(), "connection lost");
                }
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(peer = %link.node.short(), address = %link.address.load(), %error, "cannot connect; trying on");
                }
                Err(_) => {}
            }
            if !self.links.load().get(&link.node).is_some_and(|kept| Arc::ptr_eq(kept, &link)) {
                return;
            }
            let jitter = Duration::from_millis(random.below(wait.as_millis() as u64 / 2 + 1));
            tokio::select! {
                () = tokio::time::sleep(wait + jitter) => wait = (wait * 2).min(RETRY_LAST),
                () = link.is_there.notified() => wait = RETRY_FIRST,
            }
        }
    }

    async fn connect(&self, link: &Link) -> Result<(Stream, Welcome), DialError> {
        let address = link.address.load_full();
        let (peer, within) = (Some(link.node), self.connect_timeout);
        let (stream, buffer, welcome) = self.dial(&address, peer, within).await?;
        if welcome.node != link.node {
            let address = address.to_string();
            return Err(DialError::Stranger { address, node: welcome.node.short() });
        }
        Ok(((stream, buffer), welcome))
    }

    async fn serve(&self, link: &Arc<Link>, (stream, mut buffer): Stream) {
        let outbox = Outbox::new(usize::MAX);
        let (mut reader, writer) = stream.into_split();
        let line = |way| self.faults.line(link.node, way);
        let writing = tokio::spawn({
            let (outbox, line) = (outbox.clone(), line(Direction::Out));
            async move { outbox.write_to(writer, line).await }
        });
        let mut line = line(Direction::In);
        link.outbox.store(Some(outbox.clone()));
        self.tell_shards(|| Input::Connected(link.node));
        let _ = self.connected.send(link.node);
        let mut time_to_ask = tokio::time::interval(clock::ASK_EVERY);
        time_to_ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut mail: Vec<Vec<Mail>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        loop {
            if let Err(error) = self.take_frames(link, &mut buffer, &mut mail) {
                tracing::warn!(peer = %link.node.short(), %error, "closing a connection to a member");
                break;
            }
            let read = async {
                match &mut line {
                    None => reader.read_buf(&mut buffer).await,
                    Some(line) => line.read(&mut reader, &mut buffer).await,
                }
            };
            let read = tokio::select! {
                read = read => read,
                _ = time_to_ask.tick() => {
                    let id = link.clock().ask(self.clock.instant());
                    outbox.send(|buffer| greeting::encode_ping(buffer, id));
                    continue;
                }
            };
            match read {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        link.outbox.store(None);
        outbox.close();
        writing.abort();
        link.pending().clear();
        self.tell_shards(|| Input::Disconnected(link.node));
    }

    /// Takes all whole frames out of `buffer` and sends them where they belong.
    fn take_frames(
        &self,
        link: &Link,
        buffer: &mut BytesMut,
        mail: &mut [Vec<Mail>],
    ) -> Result<(), DialError> {
        while let Some(frame) = frame::decode(buffer, limits::FRAME_PAYLOAD_BYTES)? {
            let Frame { kind, id, .. } = frame;
            if kind == Kind::Pong {
                let far = greeting::decode_pong(&frame)?;
                link.clock().hear(id, far, self.clock.instant());
            }
            if !kind.is_response() {
                continue; // GOAWAY: the breaker and the broken connection say the rest.
            }
            let response = codec::decode_response(&frame)?;
            let shard = id >> 56;
            if shard == CONTROL_SHARD {
                if let Some(waiting) = link.pending().remove(&id) {
                    let _ = waiting.send(response);
                }
            } else if let Some(mail) = mail.get_mut(shard as usize) {
                mail.push(Mail::Input(Input::Response { from: link.node, id, response }));
            }
        }
        for (mailbox, mail) in self.mailboxes.iter().zip(mail) {
            if !mail.is_empty() {
                mailbox.post(mail.drain(..));
            }
        }
        Ok(())
    }

    /// Opens a connection to a node and greets it as a peer.
    async fn dial(
        &self,
        address: &str,
        peer: Option<NodeId>,
        within: Duration,
    ) -> Result<(TcpStream, BytesMut, Welcome), DialError> {
        let greeted = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            end_when_cut_off(&stream);
            let mut out = BytesMut::new();
            greeting::encode_hello(&mut out, &self.hello());
            self.faults.pass_greeting(peer, Direction::Out, out.len()).await;
            stream.write_all(&out).await?;
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            loop {
                let most = limits::FRAME_PAYLOAD_BYTES_GREETING;
                if let Some(frame) = frame::decode(&mut buffer, most)? {
                    debug_assert!(frame.kind != Kind::Hello);
                    self.faults.pass_greeting(peer, Direction::In, frame.payload.len()).await;
                    return match greeting::decode_greeting(&frame)? {
                        Greeting::Welcome(welcome) => Ok((stream, buffer, welcome)),
                        Greeting::Refused(refused) => Err(DialError::Refused(refused.message)),
                        Greeting::Hello(_) => Err(DialError::Refused("it greeted back".to_owned())),
                    };
                }
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
            }
        };
        tokio::time::timeout(within, greeted).await.map_err(|_| DialError::Timeout)?
    }

    fn hello(&self) -> Hello {
        Hello {
            oldest_version: frame::OLDEST_VERSION,
            newest_version: frame::VERSION,
            features: greeting::FEATURES,
            role: Role::Peer,
            cluster: self.myself.cluster.clone(),
            node: Some(self.myself.introduction.clone()),
            agent: concat!("ringdove/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Link {
    fn clock(&self) -> std::sync::MutexGuard<'_, FarClock> {
        self.clock.lock().expect("no holder of the lock panics")
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Response>>> {
        self.pending.lock().expect("no holder of the lock panics")
    }
}

/// Has a connection between nodes end when the network drops what is sent on it, where the operating
/// system offers that; elsewhere it takes as long as TCP takes.
pub(super) fn end_when_cut_off(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MOST_MS);
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, UNACKNOWLEDGED_MOST_MS);
}

/// Why a connection to another node did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The network.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nobody answered in time.
    #[error("no answer in time")]
    Timeout,
    /// What came back is not our protocol.
    #[error("{0}")]
    Frame(#[from] frame::FrameError),
    /// What came back does not decode.
    #[error("{0}")]
    Wire(#[from] crate::wire::WireError),
    /// The other side does not want us.
    #[error("refused: {0}")]
    Refused(String),
    /// Another member lives there.
    #[error("{address} is member {node} now, not the one that was looked for")]
    Stranger {
        /// Where.
        address: String,
        /// Who is there.
        node: String,
    },
}
