//! One connection to a server that speaks RESP, with any number of requests under way on it.
//!
//! ```text
//!   request ──▶ out ──▶ one write for all that is queued ──▶ server
//!      │                                                       │
//!      └──▶ waiting, in order ◄── replies, in the same order ──┘
//! ```
//!
//! What always holds: a request that was taken is answered, or fails with the connection, or is given
//! up when its time is over; its reply may come later and goes to nobody. When the connection ends,
//! the next one is opened, with pauses, until the link is dropped; meanwhile requests fail at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::Failure;
use super::redis_reply::{self, Reply};

/// Free space for which a read asks.
const READ_BYTES: usize = 64 * 1024;
/// How often requests are looked at whose time is over.
const LOOK: Duration = Duration::from_millis(50);
/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that is opened again when it ends.
pub(super) struct Link {
    shared: Rc<Shared>,
}

struct Shared {
    address: String,
    timeout: Duration,
    is_open: Cell<bool>,
    out: RefCell<BytesMut>,
    waiting: RefCell<VecDeque<Waiting>>,
    /// There is something to write.
    filled: Notify,
}

struct Waiting {
    mailbox: Rc<Mailbox>,
    /// Which request of its mailbox.
    number: u64,
    since: Instant,
}

/// Where the reply to the one request of a session goes.
#[derive(Default)]
pub(super) struct Mailbox {
    /// The request whose reply is waited for.
    number: Cell<u64>,
    reply: RefCell<Option<Result<Reply, &'static str>>>,
    waker: RefCell<Option<Waker>>,
}

impl Mailbox {
    fn put(&self, number: u64, reply: Result<Reply, &'static str>) {
        // A reply to a request that was given up goes to nobody.
        if self.number.get() != number {
            return;
        }
        *self.reply.borrow_mut() = Some(reply);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    async fn take(&self) -> Result<Reply, &'static str> {
        poll_fn(|context| match self.reply.take() {
            Some(reply) => Poll::Ready(reply),
            None => {
                let mut waker = self.waker.borrow_mut();
                match &mut *waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    waker @ None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        })
        .await
    }
}

impl Link {
    /// A link to `address`, over a connection that is open.
    pub(super) fn start(address: &str, stream: TcpStream, timeout: Duration) -> Self {
        let shared = Rc::new(Shared {
            address: address.to_owned(),
            timeout,
            is_open: Cell::new(true),
            out: RefCell::default(),
            waiting: RefCell::default(),
            filled: Notify::new(),
        });
        tokio::task::spawn_local(keep(Rc::downgrade(&shared), stream));
        Self { shared }
    }

    /// Sends what `encode` appends, which is one request, and waits for its reply.
    pub(super) async fn ask(
        &self,
        mailbox: &Rc<Mailbox>,
        is_write: bool,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Result<Reply, Failure> {
        let shared = &self.shared;
        if !shared.is_open.get() {
            return Err(Failure { name: "connect", is_unknown: false });
        }
        let number = mailbox.number.get() + 1;
        mailbox.number.set(number);
        // What came for a request that was given up meanwhile.
        mailbox.reply.take();
        {
            let mut out = shared.out.borrow_mut();
            if out.is_empty() {
                shared.filled.notify_one();
            }
            encode(&mut out);
        }
        let waiting = Waiting { mailbox: mailbox.clone(), number, since: Instant::now() };
        shared.waiting.borrow_mut().push_back(waiting);
        mailbox.take().await.map_err(|name| Failure { name, is_unknown: is_write })
    }
}

/// Keeps a link connected until nobody holds it.
async fn keep(link: Weak<Shared>, first: TcpStream) {
    let mut stream = Some(first);
    loop {
        let Some(shared) = link.upgrade() else { return };
        let Some(open) = stream.take() else {
            let opened = TcpStream::connect(&shared.address);
            let opened = tokio::time::timeout(shared.timeout, opened).await;
            stream = opened.ok().and_then(Result::ok);
            if stream.is_none() {
                drop(shared);
                tokio::time::sleep(PAUSE).await;
            }
            continue;
        };
        // A small request must not wait for the answer to the one before it. Without it all is
        // slower, and nothing is wrong.
        let _ = open.set_nodelay(true);
        shared.is_open.set(true);
        let (reading, writing) = open.into_split();
        tokio::select! {
            () = shared.read(reading) => {}
            () = shared.write(writing) => {}
            () = shared.watch(&link) => {}
        }
        shared.end();
    }
}

impl Shared {
    async fn read(&self, mut stream: OwnedReadHalf) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            loop {
                match redis_reply::take(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(reply)) => {
                        let Some(first) = self.waiting.borrow_mut().pop_front() else { return };
                        first.mailbox.put(first.number, Ok(reply));
                    }
                    Err(redis_reply::NoReply) => return,
                }
            }
        }
    }

    async fn write(&self, mut stream: OwnedWriteHalf) {
        let mut batch = BytesMut::new();
        loop {
            self.filled.notified().await;
            std::mem::swap(&mut batch, &mut self.out.borrow_mut());
            if stream.write_all(&batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    }

    /// Gives up requests whose time is over. Ends when nobody holds the link.
    async fn watch(&self, link: &Weak<Self>) {
        // The one who waits here holds it, too.
        while link.strong_count() > 1 {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            for waiting in &*self.waiting.borrow() {
                if now - waiting.since < self.timeout {
                    break;
                }
                waiting.mailbox.put(waiting.number, Err("timeout"));
            }
        }
    }

    fn end(&self) {
        self.is_open.set(false);
        self.out.borrow_mut().clear();
        for waiting in self.waiting.take() {
            waiting.mailbox.put(waiting.number, Err("lost"));
        }
    }
}
