//! One TCP connection to one node, shared by everything that is under way to it.
//!
//! ```text
//!   send ──► out buffer ──► one write for all that is queued ──► node
//!     │                                                            │
//!     └── waiting: request id ──► answer ◄── frames, in any order ─┘
//! ```
//!
//! What always holds: a request that was taken is answered, fails with the connection, or was
//! given up by its caller, and in each case nothing of it stays behind. What is under way is
//! bounded by [`ROOM_KIB`]: whoever comes later waits for room, within its own deadline.
//! When the connection ends, everything that waits on it ends at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::{Error, Kind};
use crate::limits;
use crate::time;
use crate::wire::clock::{ASK_EVERY, FarClock};
use crate::wire::codec;
use crate::wire::frame::{self, Frame, Marks};
use crate::wire::greeting::{self, Greeting, Hello, Role};
use crate::wire::messages::{FailureCode, Request, Response};

/// What may be under way on one connection, in KiB of requests: 64 MiB, as much as one frame.
const ROOM_KIB: u32 = 64 * 1024;
/// What the smallest request takes of it. So at most 1,024 are under way.
const ROOM_KIB_LEAST: u32 = 64;
/// How many parts a connection's patience is counted in; even, and the ping goes out half way.
const QUIET_PARTS: u32 = 4;
/// Free space for which a read asks. A few hundred small answers, or a piece of a large one.
const READ_BYTES: usize = 64 * 1024;
/// A write buffer that has grown beyond this is given back.
const WRITE_BYTES_KEPT: usize = 1024 * 1024;

/// An open connection. Dropping the last handle closes it.
pub(super) struct Connection {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    task: tokio::task::AbortHandle,
}

struct Shared {
    address: String,
    /// When this side's clock showed nothing.
    began: Instant,
    lanes: Mutex<Lanes>,
    /// There is something to write.
    filled: Notify,
    /// The connection is to end though neither half has failed.
    ended: Notify,
}

struct Lanes {
    /// Frames in whole, to be written with the next write.
    out: BytesMut,
    waiting: HashMap<u64, oneshot::Sender<Frame>>,
    last_id: u64,
    heard_at: Instant,
    /// The node's clock: requests say when they were sent by that.
    clock: FarClock,
    /// Parts of its patience that have passed since something was heard or could be expected.
    quiet: u32,
    /// When the node said that it is about to stop.
    left_at: Option<Instant>,
    /// Why nothing can be sent any more.
    end: Option<Error>,
}

/// A request that is under way.
pub(super) struct Ticket {
    connection: Arc<Connection>,
    id: u64,
    answer: oneshot::Receiver<Frame>,
    _room: OwnedSemaphorePermit,
}

impl Connection {
    /// Connects and greets. The caller sets the deadline.
    ///
    /// The connection ends when the node owes answers and gives no sign of life for `silence`.
    pub(super) async fn open(address: &str, silence: Option<Duration>) -> Result<Self, Error> {
        let connect = |error: std::io::Error| {
            let message = format!("cannot connect: {error}; is the node running there?");
            Error::new(Kind::Connect, message).at(address)
        };
        let mut stream = TcpStream::connect(address).await.map_err(connect)?;
        // A small request must not wait for the answer to the one before it.
        stream.set_nodelay(true).map_err(connect)?;
        let (far, rest) = greet(&mut stream).await.map_err(|error| error.at(address))?;
        Ok(Self::start(address, stream, (far, rest), silence))
    }

    /// `far` is what the node's clock shows.
    fn start(
        address: &str,
        stream: TcpStream,
        (far, rest): (time::Instant, BytesMut),
        silence: Option<Duration>,
    ) -> Self {
        let lanes = Lanes {
            out: BytesMut::new(),
            waiting: HashMap::new(),
            last_id: 0,
            heard_at: Instant::now(),
            clock: FarClock::new(far, time::Instant(0)),
            quiet: 0,
            left_at: None,
            end: None,
        };
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            began: Instant::now(),
            lanes: Mutex::new(lanes),
            filled: Notify::new(),
            ended: Notify::new(),
        });
        let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
        let task = tokio::spawn(run(shared.clone(), room.clone(), stream, rest, silence));
        Self { shared, room, task: task.abort_handle() }
    }

    /// Whether new requests may be sent.
    pub(super) fn is_open(&self) -> bool {
        let lanes = self.shared.lanes();
        lanes.end.is_none() && lanes.left_at.is_none()
    }

    /// Whether the node has said within the last `span` that it is about to stop.
    pub(super) fn has_left_within(&self, span: Duration) -> bool {
        self.shared.lanes().left_at.is_some_and(|at| at.elapsed() < span)
    }

    /// Queues a request, once there is room. After `Ok` it must be taken as sent.
    pub(super) async fn send(self: Arc<Self>, request: &Request) -> Result<Ticket, Error> {
        let room = self.room.clone().acquire_many_owned(room_of(request)).await;
        let Ok(room) = room else { return Err(self.shared.lanes().why_ended()) };
        let (answer, receiver) = oneshot::channel();
        let mut lanes = self.shared.lanes();
        if lanes.end.is_some() {
            return Err(lanes.why_ended());
        }
        let id = lanes.last_id + 1;
        let now = self.shared.now();
        if lanes.clock.is_due(now) {
            lanes.ask_for_clock(now);
        }
        let marks = Marks { sent: Some(lanes.clock.at(now)), ..Marks::NONE };
        codec::encode_request(&mut lanes.out, id, marks, request)
            .map_err(|oversize| Error::new(Kind::TooLarge, oversize.to_string()))?;
        lanes.last_id = id;
        if lanes.waiting.is_empty() {
            lanes.quiet = 0;
        }
        lanes.waiting.insert(id, answer);
        drop(lanes);
        self.shared.filled.notify_one();
        Ok(Ticket { connection: self, id, answer: receiver, _room: room })
    }

    /// Ends the connection if nothing at all has come from the node since `sent_at`, when it was
    /// last asked for something.
    pub(super) fn end_if_silent_since(&self, sent_at: Instant) {
        let heard_at = self.shared.lanes().heard_at;
        if heard_at <= sent_at {
            let message = format!("nothing was heard from the node for {:?}", sent_at.elapsed());
            self.end(Error::new(Kind::Lost, message));
        }
    }

    fn end(&self, error: Error) {
        self.shared.end(&self.room, error);
        self.shared.ended.notify_one();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ticket {
    /// Waits for the answer. An error means that none will come: what became of the request is
    /// not known.
    pub(super) async fn answer(mut self) -> Result<Response, Error> {
        let shared = &self.connection.shared;
        let Ok(frame) = (&mut self.answer).await else { return Err(shared.lanes().why_ended()) };
        codec::decode_response(&frame).map_err(|error| {
            let error = Error::new(Kind::Protocol, error.to_string()).at(&shared.address);
            // A node that talks nonsense once is not asked again on the same connection.
            self.connection.end(error.clone());
            error
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.connection.shared.lanes().waiting.remove(&self.id);
    }
}

/// Says HELLO and waits for WELCOME. Returns what the node's clock shows, and what was read behind it.
async fn greet(stream: &mut TcpStream) -> Result<(time::Instant, BytesMut), Error> {
    let hello = Hello {
        oldest_version: frame::OLDEST_VERSION,
        newest_version: frame::VERSION,
        features: greeting::FEATURES,
        role: Role::Client,
        cluster: String::new(),
        node: None,
        agent: concat!("ringdove-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let mut buffer = BytesMut::with_capacity(1024);
    greeting::encode_hello(&mut buffer, &hello);
    let lost = |error: std::io::Error| {
        Error::new(Kind::Connect, format!("the connection broke during the greeting: {error}"))
    };
    stream.write_all(&buffer).await.map_err(lost)?;
    buffer.clear();
    let protocol = |what: String| {
        let hint = "is this the port for frames (7400 and up)?";
        Error::new(Kind::Protocol, format!("{what}; {hint}"))
    };
    loop {
        let frame = frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES_GREETING)
            .map_err(|error| protocol(error.to_string()))?;
        if let Some(frame) = frame {
            return match greeting::decode_greeting(&frame) {
                Ok(Greeting::Welcome(welcome)) => Ok((welcome.clock, buffer)),
                Ok(Greeting::Refused(refused)) => Err(refusal(refused.code, &refused.message)),
                Ok(Greeting::Hello(_)) => Err(protocol("the other side is a client".to_owned())),
                Err(error) => Err(protocol(error.to_string())),
            };
        }
        if stream.read_buf(&mut buffer).await.map_err(lost)? == 0 {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// A node that takes nobody now is to be passed by; a node that does not take this client is not.
fn refusal(code: FailureCode, message: &str) -> Error {
    Error::new(super::error::kind_of(code), format!("the node refused the connection: {message}"))
}

/// How much room a request takes while it is under way.
fn room_of(request: &Request) -> u32 {
    let bytes = match request {
        Request::Put(put) => put.value.as_ref().map_or(0, bytes::Bytes::len),
        Request::Write(write) => write.object.len(),
        _ => 0,
    };
    u32::try_from(bytes / 1024).unwrap_or(ROOM_KIB).clamp(ROOM_KIB_LEAST, ROOM_KIB)
}

/// Moves bytes both ways until something ends it.
async fn run(
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    stream: TcpStream,
    rest: BytesMut,
    silence: Option<Duration>,
) {
    let (mut reading, mut writing) = stream.into_split();
    let end = tokio::select! {
        end = shared.read(&mut reading, rest) => end,
        end = shared.write(&mut writing) => end,
        end = shared.watch(silence) => end,
        () = shared.ended.notified() => return,
    };
    shared.end(&room, end);
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().expect("nothing panics while it holds this lock")
    }

    /// What this side's clock shows.
    fn now(&self) -> time::Instant {
        time::Instant(0) + self.began.elapsed()
    }

    fn end(&self, room: &Semaphore, error: Error) {
        let mut lanes = self.lanes();
        lanes.end.get_or_insert(error.at(&self.address));
        // Dropping the senders is what tells those who wait.
        lanes.waiting.clear();
        lanes.out = BytesMut::new();
        room.close();
    }

    fn lost(&self, error: &std::io::Error) -> Error {
        Error::new(Kind::Lost, format!("the connection broke: {error}"))
    }

    /// Hands out answers until the connection ends; returns why it did.
    async fn read(
        &self,
        stream: &mut tokio::net::tcp::OwnedReadHalf,
        mut buffer: BytesMut,
    ) -> Error {
        loop {
            if let Err(error) = self.dispatch(&mut buffer) {
                return error;
            }
            buffer.reserve(READ_BYTES);
            match stream.read_buf(&mut buffer).await {
                Ok(0) => return Error::new(Kind::Lost, "the node closed the connection"),
                Ok(_) => {}
                Err(error) => return self.lost(&error),
            }
        }
    }

    /// Takes all whole frames off the front of `buffer`.
    fn dispatch(&self, buffer: &mut BytesMut) -> Result<(), Error> {
        let mut lanes = self.lanes();
        (lanes.heard_at, lanes.quiet) = (Instant::now(), 0);
        let protocol = |what: String| Error::new(Kind::Protocol, what);
        while let Some(frame) = frame::decode(buffer, limits::FRAME_PAYLOAD_BYTES)
            .map_err(|error| protocol(format!("the node sent a malformed frame: {error}")))?
        {
            match frame.kind {
                kind if kind.is_response() => {
                    // Nobody waits any more when the caller's time was up first.
                    if let Some(answer) = lanes.waiting.remove(&frame.id) {
                        let _ = answer.send(frame);
                    }
                }
                // A node that pings without reading gets no more than one buffer of answers.
                frame::Kind::Ping if lanes.out.len() < READ_BYTES => {
                    greeting::encode_pong(&mut lanes.out, frame.id, self.now());
                    self.filled.notify_one();
                }
                frame::Kind::Ping => {}
                frame::Kind::Pong => {
                    let far = greeting::decode_pong(&frame)
                        .map_err(|error| protocol(format!("the node answered a ping: {error}")))?;
                    let now = self.now();
                    lanes.clock.hear(frame.id, far, now);
                }
                frame::Kind::GoAway => lanes.left_at = Some(Instant::now()),
                kind => return Err(protocol(format!("the node sent {kind:?} to a client"))),
            }
        }
        Ok(())
    }

    /// Returns once the node owes answers and has given no sign of life for `silence`, though it
    /// was asked for one half way. Asks for its clock now and then, whether or not it owes any.
    ///
    /// Time is counted in parts, and not read off a clock, so that a program that is itself held
    /// up does not blame the node for what has arrived meanwhile.
    async fn watch(&self, silence: Option<Duration>) -> Error {
        loop {
            tokio::time::sleep(silence.map_or(ASK_EVERY, |silence| silence / QUIET_PARTS)).await;
            let mut lanes = self.lanes();
            let is_owed = silence.is_some() && !lanes.waiting.is_empty();
            lanes.quiet += u32::from(is_owed);
            if (is_owed && lanes.quiet == QUIET_PARTS / 2) || lanes.clock.is_due(self.now()) {
                lanes.ask_for_clock(self.now());
                self.filled.notify_one();
            }
            if is_owed && lanes.quiet >= QUIET_PARTS {
                let silence = silence.unwrap_or_default();
                let message = format!("the node has given no sign of life for {silence:?}");
                return Error::new(Kind::Lost, message);
            }
        }
    }

    /// Writes whatever is queued, all of it with one call, until the connection ends.
    async fn write(&self, stream: &mut tokio::net::tcp::OwnedWriteHalf) -> Error {
        let mut batch = BytesMut::new();
        loop {
            self.filled.notified().await;
            // Whoever else is about to send gets into the same write.
            tokio::task::yield_now().await;
            std::mem::swap(&mut batch, &mut self.lanes().out);
            if let Err(error) = stream.write_all(&batch).await {
                return self.lost(&error);
            }
            batch.clear();
            if batch.capacity() > WRITE_BYTES_KEPT {
                batch = BytesMut::new();
            }
        }
    }
}

impl Lanes {
    fn ask_for_clock(&mut self, now: time::Instant) {
        let id = self.clock.ask(now);
        greeting::encode_ping(&mut self.out, id);
    }

    fn why_ended(&self) -> Error {
        self.end.clone().unwrap_or_else(|| Error::new(Kind::Lost, "the connection was closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::Control;

    #[tokio::test]
    async fn a_request_that_is_given_up_leaves_nothing_behind() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let connection =
            Arc::new(Connection::start("a:1", stream, (time::Instant(0), BytesMut::new()), None));
        let request = Request::Control(Control::Status);
        let ticket = connection.clone().send(&request).await.unwrap();
        let taken = ROOM_KIB - ROOM_KIB_LEAST;
        assert_eq!(connection.room.available_permits(), taken as usize);
        assert_eq!(connection.shared.lanes().waiting.len(), 1);
        drop(ticket);
        assert_eq!(connection.room.available_permits(), ROOM_KIB as usize);
        assert!(connection.shared.lanes().waiting.is_empty());
    }

    #[test]
    fn a_large_request_takes_more_room_and_the_largest_takes_all() {
        let write = |bytes: usize| {
            let object = bytes::Bytes::from(vec![0; bytes]);
            let key = crate::key::Key::new(b"b", b"k").unwrap();
            let purpose = crate::wire::messages::Purpose::Replicate;
            let write =
                crate::wire::messages::Write { key, object, purpose, slots: 0, budget_ms: 1 };
            room_of(&Request::Write(write))
        };
        assert_eq!((write(0), write(1024 * 1024)), (ROOM_KIB_LEAST, 1024));
        assert_eq!(write(limits::FRAME_PAYLOAD_BYTES + 2048), ROOM_KIB);
    }
}
