//! Connections that clients and peers open, in the framed protocol.
//!
//! A task reads whatever has arrived, takes all whole frames out of it and puts each request into
//! its shard's mailbox, each mailbox once for each readable batch. Answers go straight from the
//! shards into the connection's outbox. What a connection sends wrong costs that connection and
//! nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};

use super::faults::Line;
use super::gates::Pass;
use super::links::end_when_cut_off;
use super::mailbox::Ask;
use super::node::{Node, busy};
use super::outbox::Outbox;
use super::reply::ReplyTo;
use super::transfers::partitions_of;
use crate::ids::NodeId;
use crate::limits;
use crate::wire::clock;
use crate::wire::codec;
use crate::wire::faults::Direction;
use crate::wire::frame::{self, Frame, FrameError, Kind};
use crate::wire::greeting::{self, Greeting, Hello, Refused, Role, Welcome};
use crate::wire::messages::{Control, ControlReply, Failure, FailureCode, Request, Response};
use crate::wire::reap::{ReapReply, ReapRequest};
use crate::wire::sync::SyncRequest;
use crate::wire::transfer::body_entries;

/// Whoever connects has this long to say who it is.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// A frame that has begun has this long to arrive; a connection that is quiet between frames may
/// stay as long as it likes.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// How much memory a connection begins with.
const READ_BYTES: usize = 16 * 1024;

/// Why a connection was closed by this side.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Wire(#[from] crate::wire::WireError),
    #[error("it did not greet in time")]
    NoGreeting,
    #[error("a frame stopped half way")]
    HalfFrame,
    #[error("a {0:?} frame has no place here")]
    OutOfPlace(Kind),
    #[error("refused: {0}")]
    Refused(String),
    #[error(
        "a request comes from the future: one of the two has stood still, and it must greet again"
    )]
    OutOfTime,
    /// A later connection of the same peer counts.
    #[error("its peer has opened another one")]
    Superseded,
}

/// Who is on the other side.
struct Peer {
    role: Role,
    /// The member, or this node for a client.
    node: NodeId,
    /// Of a member.
    pass: Option<Pass>,
}

impl Peer {
    /// The member, if it is one.
    fn member(&self) -> Option<NodeId> {
        (self.role == Role::Peer).then_some(self.node)
    }
}

/// The incoming side of a connection.
struct Reader {
    socket: OwnedReadHalf,
    line: Option<Line>,
}

impl Reader {
    async fn read_buf(&mut self, buffer: &mut BytesMut) -> std::io::Result<usize> {
        match &mut self.line {
            None => self.socket.read_buf(buffer).await,
            Some(line) => line.read(&mut self.socket, buffer).await,
        }
    }
}

/// Accepts connections until the process ends.
pub async fn serve(node: Arc<Node>, listener: TcpListener) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: waiting lets some be closed.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let open = node.traffic.frame_connections.fetch_add(1, Ordering::Relaxed);
        if open >= node.config.limits.connections as u64 {
            node.traffic.frame_connections.fetch_sub(1, Ordering::Relaxed);
            node.traffic.refused_connections.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let node = node.clone();
        tokio::spawn(async move {
            if let Err(why) = connection(&node, stream).await {
                node.traffic.malformed_connections.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%address, %why, "closed a connection");
            }
            node.traffic.frame_connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn connection(node: &Arc<Node>, stream: TcpStream) -> Result<(), Closed> {
    let _ = stream.set_nodelay(true);
    let (mut reader, writer) = stream.into_split();
    let outbox = Outbox::new(node.config.requests.max_in_flight_per_connection);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let greeted = greet(node, &mut reader, &mut buffer, &outbox);
    let greeted = tokio::time::timeout(GREETING_TIMEOUT, greeted).await;
    let greeted = greeted.unwrap_or(Err(Closed::NoGreeting));
    // Only what passes between nodes is subject to faults.
    let member = greeted.as_ref().ok().and_then(Option::as_ref).and_then(Peer::member);
    let line = |way| member.and_then(|member| node.faults.line(member, way));
    if member.is_some() {
        end_when_cut_off(reader.as_ref());
    }
    let writing = tokio::spawn({
        let (outbox, line) = (outbox.clone(), line(Direction::Out));
        async move { outbox.write_to(writer, line).await }
    });
    let result = match greeted {
        Err(why) => Err(why),
        Ok(None) => Ok(()),
        Ok(Some(peer)) => {
            let mut reader = Reader { socket: reader, line: line(Direction::In) };
            read(node, &mut reader, &mut buffer, &outbox, &peer).await
        }
    };
    outbox.close();
    // What was answered before still goes out, unless nobody reads it.
    let _ = tokio::time::timeout(GREETING_TIMEOUT, writing).await;
    result
}

/// Hears who the other side is. `None` when it went away without a word.
async fn greet(
    node: &Node,
    reader: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    outbox: &Outbox,
) -> Result<Option<Peer>, Closed> {
    let hello = loop {
        if let Some(frame) = frame::decode(buffer, limits::FRAME_PAYLOAD_BYTES_GREETING)? {
            let Greeting::Hello(hello) = greeting::decode_greeting(&frame)? else {
                return Err(Closed::OutOfPlace(frame.kind));
            };
            // Where it vanishes, whoever has sent it hears nothing, and goes.
            if arrives(node, &hello, frame.payload.len()).await {
                break hello;
            }
        }
        match reader.read_buf(buffer).await {
            Ok(0) | Err(_) if buffer.is_empty() => return Ok(None),
            Ok(0) | Err(_) => return Err(Closed::HalfFrame),
            Ok(_) => {}
        }
    };
    match consider(node, &hello) {
        Ok((welcome, peer)) => {
            if peer.role == Role::Peer {
                node.links.hurry(peer.node);
            }
            outbox.send(|buffer| greeting::encode_welcome(buffer, &welcome));
            Ok(Some(peer))
        }
        Err(refused) => {
            outbox.send(|buffer| greeting::encode_refused(buffer, &refused));
            Err(Closed::Refused(refused.message))
        }
    }
}

/// Whether a greeting gets through the faults there are.
async fn arrives(node: &Node, hello: &Hello, bytes: usize) -> bool {
    match &hello.node {
        Some(peer) => node.faults.admit_greeting(Some(peer.id), Direction::In, bytes).await,
        None => true,
    }
}

fn consider(node: &Node, hello: &Hello) -> Result<(Welcome, Peer), Refused> {
    let refuse = |code, message: String| Refused { code, message };
    let theirs = hello.oldest_version..=hello.newest_version;
    let version = greeting::negotiate(frame::OLDEST_VERSION..=frame::VERSION, theirs);
    let version = version.ok_or_else(|| {
        let (oldest, newest) = (frame::OLDEST_VERSION, frame::VERSION);
        let message = format!("this node speaks protocol versions {oldest} to {newest}");
        refuse(FailureCode::Invalid, message)
    })?;
    let ours = &node.config.cluster.name;
    if hello.cluster != *ours && (hello.role == Role::Peer || !hello.cluster.is_empty()) {
        let theirs = &hello.cluster;
        let message = format!("this node belongs to cluster {ours:?}, not {theirs:?}");
        return Err(refuse(FailureCode::Invalid, message));
    }
    let peer = match (&hello.node, hello.role) {
        (Some(introduction), Role::Peer) if introduction.id == node.id => {
            let message = "this is the node itself, or a copy of its data directory";
            return Err(refuse(FailureCode::Denied, message.to_owned()));
        }
        (Some(introduction), Role::Peer) => {
            if let Some(message) = node.contradiction(introduction) {
                return Err(refuse(FailureCode::Denied, message));
            }
            let pass = Some(node.gates.enter(introduction.id));
            Peer { role: Role::Peer, node: introduction.id, pass }
        }
        (None, Role::Client) => Peer { role: Role::Client, node: node.id, pass: None },
        _ => {
            let message = "a peer says who it is, and a client does not".to_owned();
            return Err(refuse(FailureCode::Invalid, message));
        }
    };
    let welcome = Welcome {
        version,
        features: hello.features & greeting::FEATURES,
        cluster: ours.clone(),
        node: node.id,
        incarnation: node.incarnation,
        clock: node.clock.instant(),
        name: node.config.node.name.clone(),
        topology: node.topology().version(),
        key_bytes: node.config.limits.key_bytes as u32,
        value_bytes: node.config.limits.value_bytes as u32,
    };
    Ok((welcome, peer))
}

async fn read(
    node: &Arc<Node>,
    reader: &mut Reader,
    buffer: &mut BytesMut,
    outbox: &Arc<Outbox>,
    peer: &Peer,
) -> Result<(), Closed> {
    let mut brought = Brought::nothing(node);
    let mut told_to_go = false;
    let mut draining = node.draining.subscribe();
    loop {
        let took = take_and_hand_over(node, buffer, outbox, peer, &mut brought)?;
        if *draining.borrow_and_update() && !std::mem::replace(&mut told_to_go, true) {
            outbox.send(|buffer| greeting::encode_goaway(buffer, "this node is stopping"));
        }
        if peer.role == Role::Client {
            outbox.room().await;
        }
        match took {
            Taken::All => {}
            Taken::Some => continue,
            Taken::None => {
                node.faults.pass_pause().await;
                continue;
            }
        }
        let half_frame = !buffer.is_empty();
        let arrived = reader.read_buf(buffer);
        let arrived = match half_frame {
            false => tokio::select! {
                arrived = arrived => arrived,
                Ok(()) = draining.changed() => continue,
            },
            true => match tokio::time::timeout(FRAME_TIMEOUT, arrived).await {
                Ok(arrived) => arrived,
                Err(_) => return Err(Closed::HalfFrame),
            },
        };
        match arrived {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

/// Takes what has arrived and hands it to the shards, in one piece as far as the peer's other
/// connections are concerned; then answers the barriers among it.
fn take_and_hand_over(
    node: &Arc<Node>,
    buffer: &mut BytesMut,
    outbox: &Arc<Outbox>,
    peer: &Peer,
    brought: &mut Brought,
) -> Result<Taken, Closed> {
    let mut held = match &peer.pass {
        Some(pass) => Some(pass.hold().ok_or(Closed::Superseded)?),
        None => None,
    };
    let took = take_frames(node, buffer, outbox, peer, brought);
    for (mailbox, asks) in node.mailboxes.iter().zip(&mut brought.asks) {
        if !asks.is_empty() {
            mailbox.offer(asks);
        }
        for ask in asks.drain(..) {
            ask.reply.give_now(Response::Failed(busy()));
        }
    }
    if std::mem::take(&mut brought.oldest) > clock::TELL_AGAIN {
        outbox.send(|buffer| greeting::encode_pong(buffer, 0, node.clock.instant()));
    }
    if let (Some(held), false) = (&mut held, brought.barriers.is_empty()) {
        held.end_earlier();
    }
    for reply in brought.barriers.drain(..) {
        reply.give_now(Response::Control(ControlReply::Reap(ReapReply::Done)));
    }
    took
}

/// What a connection has brought that is not handed over yet.
struct Brought {
    /// By shard.
    asks: Vec<Vec<Ask>>,
    /// To be answered once everything before them is handed over.
    barriers: Vec<ReplyTo>,
    /// The frame that came while the node stood still.
    left: Option<Frame>,
    /// How old the oldest request was.
    oldest: Duration,
}

impl Brought {
    fn nothing(node: &Node) -> Self {
        let asks = node.mailboxes.iter().map(|_| Vec::new()).collect();
        Self { asks, barriers: Vec::new(), left: None, oldest: Duration::ZERO }
    }
}

/// What has been taken out of a buffer.
#[derive(PartialEq, Eq)]
enum Taken {
    /// All whole frames.
    All,
    /// As many as the connection's window allows.
    Some,
    /// None for now: the node stands still.
    None,
}

/// Takes whole frames out of `buffer`, as many as may be under way; the first is the one that
/// was left.
fn take_frames(
    node: &Arc<Node>,
    buffer: &mut BytesMut,
    outbox: &Arc<Outbox>,
    peer: &Peer,
    brought: &mut Brought,
) -> Result<Taken, Closed> {
    let received = node.clock.instant();
    let topology = node.topology();
    let is_removed = peer.role == Role::Peer && topology.is_removed(peer.node);
    // A peer's requests are taken as they come: it bounds them itself, and its other requests,
    // for other clients, must not wait behind them.
    while peer.role == Role::Peer || !outbox.is_full() {
        let Some(frame) = next_frame(buffer, &mut brought.left)? else { return Ok(Taken::All) };
        if node.faults.is_paused() && !is_about_faults(&frame) {
            brought.left = Some(frame);
            return Ok(Taken::None);
        }
        let Frame { kind, marks, id, .. } = frame;
        match kind {
            Kind::Ping => {
                greeting::decode_ping(&frame)?;
                outbox.send(|buffer| greeting::encode_pong(buffer, id, received));
                continue;
            }
            Kind::Pong | Kind::GoAway => continue,
            kind if !kind.is_request() => return Err(Closed::OutOfPlace(kind)),
            _ => {}
        }
        let request = match request_of(&frame, peer.role) {
            Ok(request) => request,
            Err(failure) => {
                outbox.send(|out| codec::encode_response(out, id, &Response::Failed(failure)));
                continue;
            }
        };
        outbox.admit();
        let reply = ReplyTo::Connection(outbox.clone(), id);
        let key = match request {
            ref request if is_removed && gives(request) => {
                reply.give_now(Response::Failed(removed()));
                continue;
            }
            Request::Control(control) => {
                take_control(node, peer, control, reply, &mut brought.barriers);
                continue;
            }
            Request::Get(ref get) => &get.key,
            Request::Put(ref put) => &put.key,
            Request::Read(ref read) => &read.key,
            Request::Write(ref write) => &write.key,
        };
        let of_client = matches!(request, Request::Get(_) | Request::Put(_));
        if let Some(refusal) = node.refusal().filter(|_| of_client) {
            reply.give_now(Response::Failed(refusal));
            continue;
        }
        let shard = node.shard_of(&topology, key);
        let sent = match marks.sent {
            Some(stated) => Some(clock::sent_at(stated, received).ok_or(Closed::OutOfTime)?),
            None => None,
        };
        brought.oldest = brought.oldest.max(received - sent.unwrap_or(received));
        let (sender, forwarded) = (peer.node, marks.forwarded);
        brought.asks[shard].push(Ask { reply, sender, received, sent, forwarded, request });
    }
    Ok(Taken::Some)
}

/// The request in a frame, if its sender may ask that.
fn request_of(frame: &Frame, role: Role) -> Result<Request, Failure> {
    let request = codec::decode_request(frame)
        .map_err(|error| Failure::not_applied(FailureCode::Invalid, error.to_string()))?;
    match role.may_send(&request, frame.marks) {
        true => Ok(request),
        false => Err(Failure::not_applied(FailureCode::Denied, "only members may send this")),
    }
}

fn next_frame(
    buffer: &mut BytesMut,
    left: &mut Option<Frame>,
) -> Result<Option<Frame>, FrameError> {
    match left.take() {
        None => frame::decode(buffer, limits::FRAME_PAYLOAD_BYTES),
        left => Ok(left),
    }
}

/// Whether this is what is heard even while the node stands still.
fn is_about_faults(frame: &Frame) -> bool {
    frame.kind == Kind::Control
        && matches!(codec::decode_request(frame), Ok(Request::Control(Control::Fault(_))))
}

/// Whether a request brings objects.
fn gives(request: &Request) -> bool {
    matches!(request, Request::Write(_) | Request::Control(Control::Sync(SyncRequest::Take { .. })))
}

/// Answers a control request in a task of its own; a barrier is left to be answered in its place.
fn take_control(
    node: &Arc<Node>,
    peer: &Peer,
    control: Control,
    reply: ReplyTo,
    barriers: &mut Vec<ReplyTo>,
) {
    if control == Control::Reap(ReapRequest::Barrier) {
        barriers.push(reply);
        return;
    }
    let given = match &control {
        Control::Sync(SyncRequest::Take { body }) => {
            partitions_of(node, &body_entries(body).unwrap_or_default())
        }
        _ => BTreeSet::new(),
    };
    // Before a barrier that comes behind it is read.
    node.reaping.begin_moves(given.iter().copied());
    let (node, from) = (node.clone(), peer.node);
    tokio::spawn(async move {
        let response = node.control(from, control).await;
        node.reaping.end_moves(given);
        reply.give_now(response);
    });
}

fn removed() -> Failure {
    let message = "this member was removed: what it still sends is not taken";
    Failure::not_applied(FailureCode::Denied, message)
}
