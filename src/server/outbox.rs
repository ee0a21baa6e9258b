//! What is on its way out of one connection.
//!
//! Whoever has something to say appends whole frames to a buffer, and writes all of it at the end of
//! its turn, with one call: a hundred answers for a connection cost that connection one system call,
//! and no other thread is woken for them. What the socket does not take at once, and what is long, is
//! left to the connection's writer task.
//!
//! The buffer is bounded three times. While more than [`PAUSE_BYTES`] wait, or more requests than the
//! connection's [`Window`] allows are under way, no further ones are taken from it. Above [`MOST_BYTES`] its reader is taken to have stopped reading, and
//! is disconnected. And where all connections together hold more than [`MOST_BYTES_OF_ALL`], the
//! next to add to a queue that is long already is.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use super::faults::Line;
use super::window::Window;

/// Bytes that may wait while further requests are still read.
pub const PAUSE_BYTES: usize = 1 << 20;
/// Bytes that may wait for one reader; the answer that passes it is the last.
pub const MOST_BYTES: usize = crate::limits::FRAME_PAYLOAD_BYTES;
/// Bytes that may wait for all readers of this process.
const MOST_BYTES_OF_ALL: usize = 1 << 30;
/// Capacity that is kept between writes; above it the memory is given back.
const KEPT_BYTES: usize = 256 * 1024;
/// Bytes that are written by whoever has appended them; copying more would hold up a turn.
const AT_ONCE_BYTES: usize = 64 * 1024;

/// Bytes waiting in all outboxes of this process.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The outgoing side of a connection.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    /// Told when the writer has taken what was waiting.
    taken: Notify,
}

#[derive(Debug)]
struct State {
    buffer: BytesMut,
    /// Where it goes, if nothing is to happen to it on the way.
    socket: Option<Arc<OwnedWriteHalf>>,
    /// The writer has taken something that comes before what is in the buffer.
    is_writing: bool,
    /// Somebody will call [`Outbox::wake`] for what is in the buffer.
    scheduled: bool,
    closed: bool,
    /// Requests taken from this connection that have not been answered.
    in_flight: usize,
    window: Window,
}

impl State {
    fn is_full(&self) -> bool {
        self.buffer.len() > PAUSE_BYTES || self.in_flight >= self.window.size()
    }

    /// Writes what is in the buffer as far as the socket takes it at once. Returns whether that was
    /// all of it.
    fn write_at_once(&mut self) -> bool {
        let Some(socket) = &self.socket else { return false };
        if self.is_writing || self.closed || self.buffer.len() > AT_ONCE_BYTES {
            return false;
        }
        // A connection that is gone is the writer's to find out.
        let written = socket.try_write(&self.buffer).unwrap_or(0);
        WAITING.fetch_sub(written, Ordering::Relaxed);
        self.scheduled = written < self.buffer.len();
        match self.scheduled {
            true => self.buffer.advance(written),
            false => self.buffer.clear(),
        }
        !self.scheduled
    }
}

impl Outbox {
    /// An empty one, of a connection on which up to `most_in_flight` requests may be under way.
    #[must_use]
    pub fn new(most_in_flight: usize) -> Arc<Self> {
        let window = Window::new(most_in_flight);
        let state = State {
            buffer: BytesMut::new(),
            socket: None,
            is_writing: false,
            scheduled: false,
            closed: false,
            in_flight: 0,
            window,
        };
        Arc::new(Self { state: Mutex::new(state), wake: Notify::new(), taken: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no method panics while it holds the lock")
    }

    /// Appends what `write` writes. Returns true if the caller must see to it that
    /// [`Outbox::wake`] is called; at the end of its turn will do.
    pub fn append(&self, write: impl FnOnce(&mut BytesMut)) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        let before = state.buffer.len();
        write(&mut state.buffer);
        let after = state.buffer.len();
        state.window.answered(after - before);
        let all = WAITING.fetch_add(after - before, Ordering::Relaxed);
        if before > MOST_BYTES || (all > MOST_BYTES_OF_ALL && before > PAUSE_BYTES) {
            WAITING.fetch_sub(after, Ordering::Relaxed);
            state.closed = true;
            state.buffer = BytesMut::new();
            drop(state);
            self.wake.notify_one();
            self.taken.notify_one();
            return false;
        }
        !std::mem::replace(&mut state.scheduled, true)
    }

    /// Appends, and has it written.
    pub fn send(&self, write: impl FnOnce(&mut BytesMut)) {
        if self.append(write) {
            self.wake();
        }
    }

    /// Writes what was appended, or has the writer do it.
    pub fn wake(&self) {
        match self.state().write_at_once() {
            true => self.taken.notify_one(),
            false => self.wake.notify_one(),
        }
    }

    /// Whether further requests are to be left where they are; see [`Outbox::room`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().is_full()
    }

    /// Counts a request in.
    pub fn admit(&self) {
        self.state().in_flight += 1;
    }

    /// Counts an answered request out.
    pub fn release(&self) {
        let mut state = self.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        // The reader is told once for a number of answers, not for each.
        let tell = state.in_flight == state.window.size() / 2;
        drop(state);
        if tell {
            self.taken.notify_one();
        }
    }

    /// Waits until further requests may be taken.
    pub async fn room(&self) {
        loop {
            let taken = self.taken.notified();
            {
                let state = self.state();
                if state.closed || !state.is_full() {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Takes what is waiting, into an empty `writing`. Returns whether nothing more will come.
    fn take(&self, writing: &mut BytesMut) -> bool {
        let mut state = self.state();
        std::mem::swap(writing, &mut state.buffer);
        state.scheduled = false;
        state.is_writing = !writing.is_empty();
        let closed = state.closed;
        drop(state);
        WAITING.fetch_sub(writing.len(), Ordering::Relaxed);
        self.taken.notify_one();
        closed
    }

    /// Drops what nobody will read.
    fn give_up(&self) {
        let mut state = self.state();
        state.closed = true;
        state.socket = None;
        WAITING.fetch_sub(state.buffer.len(), Ordering::Relaxed);
        state.buffer = BytesMut::new();
        self.taken.notify_one();
    }

    /// Says nothing more once what is in the buffer has been written.
    pub fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
        self.taken.notify_one();
    }

    /// Writes what is appended, until the outbox is closed or the other side is gone. Where faults
    /// can be injected, `line` has what is lost or late between nodes.
    pub async fn write_to(&self, socket: OwnedWriteHalf, mut line: Option<Line>) {
        let socket = Arc::new(socket);
        self.state().socket = line.is_none().then(|| socket.clone());
        let mut writing = BytesMut::new();
        loop {
            let mut closed = false;
            if line.as_ref().is_none_or(Line::has_room) {
                closed = self.take(&mut writing);
            }
            if let Some(line) = &mut line {
                line.stands_still().await;
                line.pass(&mut writing);
            }
            if !writing.is_empty() {
                if write_all(&socket, &writing).await.is_err() {
                    break;
                }
                writing.clear();
                if writing.capacity() > KEPT_BYTES {
                    writing = BytesMut::new();
                }
            } else if closed {
                break;
            } else if let Some(line) = &line {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = line.due() => {}
                }
            } else {
                self.wake.notified().await;
            }
        }
        self.give_up();
        // The other side may be gone already; there is nothing to do about it.
        let mut socket = Arc::into_inner(socket).expect("it was given up");
        let _ = socket.shutdown().await;
    }
}

/// Writes all of it.
async fn write_all(socket: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// The near end of a connection, to be written to, and the far one.
    async fn connection() -> (OwnedWriteHalf, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near.into_split().1, listener.accept().await.unwrap().0)
    }

    /// An outbox whose writer runs, and waits, and knows that the socket takes bytes.
    async fn open() -> (Arc<Outbox>, TcpStream) {
        let (outbox, (writer, mut far)) = (Outbox::new(512), connection().await);
        tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.write_to(writer, None).await }
        });
        outbox.send(|buffer| buffer.extend_from_slice(b"."));
        assert_eq!(far.read_u8().await.unwrap(), b'.');
        while outbox.state().is_writing {
            tokio::task::yield_now().await;
        }
        (outbox, far)
    }

    #[tokio::test]
    async fn what_was_appended_before_the_close_is_written_whole_and_in_order() {
        let outbox = Outbox::new(512);
        assert!(outbox.append(|buffer| buffer.extend_from_slice(b"one ")));
        assert!(!outbox.append(|buffer| buffer.extend_from_slice(b"two")), "one wake is enough");
        outbox.close();
        let (writer, mut far) = connection().await;
        outbox.write_to(writer, None).await;
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        assert_eq!(written, b"one two");
        assert!(!outbox.append(|buffer| buffer.extend_from_slice(b"late")));
    }

    #[tokio::test]
    async fn whoever_has_appended_writes_and_wakes_nobody() {
        let (outbox, far) = open().await;
        let mut far = far.into_std().unwrap();
        far.set_nonblocking(false).unwrap();
        for piece in [b"one", b"two"] {
            assert!(outbox.append(|buffer| buffer.extend_from_slice(piece)));
            outbox.wake();
            // The writer shares this thread, which does nothing else meanwhile.
            let mut written = [0; 3];
            far.read_exact(&mut written).unwrap();
            assert_eq!(&written, piece);
        }
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_is_written_later_in_order() {
        let (outbox, mut far) = open().await;
        // More than the buffers of a socket hold.
        let pieces = 14 * 64_u16;
        for number in 0..pieces {
            let piece = [u8::try_from(number % 251).unwrap(); 16 << 10];
            outbox.send(|buffer| buffer.extend_from_slice(&piece));
        }
        outbox.close();
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        assert_eq!(written.len(), usize::from(pieces) * (16 << 10));
        let in_order = |(number, piece): (usize, &[u8])| {
            piece.iter().all(|byte| usize::from(*byte) == number % 251)
        };
        assert!(written.chunks(16 << 10).enumerate().all(in_order));
    }

    /// Two shards and the writer, with a reader so slow that each of them has its share.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_several_append_at_once_comes_whole_and_each_ones_in_order() {
        const EACH: u32 = 20_000;
        const LONG: usize = 700;
        let (outbox, mut far) = open().await;
        let shard = |who: u8| {
            let outbox = outbox.clone();
            std::thread::spawn(move || {
                for number in 0..EACH {
                    let wakes = outbox.append(|buffer| {
                        buffer.extend_from_slice(&[who]);
                        buffer.extend_from_slice(&number.to_be_bytes());
                        buffer.extend_from_slice(&[who; LONG]);
                    });
                    if wakes {
                        outbox.wake();
                    }
                    while outbox.is_full() {
                        std::thread::yield_now();
                    }
                }
            })
        };
        let shards = [shard(1), shard(2)];
        let mut next = [0; 3];
        for count in 0..2 * EACH {
            let who = far.read_u8().await.unwrap();
            let number = far.read_u32().await.unwrap();
            let mut rest = [0; LONG];
            far.read_exact(&mut rest).await.unwrap();
            assert!(rest.iter().all(|byte| *byte == who), "message {count} is not whole");
            assert_eq!(std::mem::replace(&mut next[usize::from(who)], number + 1), number);
            if count % 1000 == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        for shard in shards {
            shard.join().unwrap();
        }
        assert_eq!(next, [0, EACH, EACH]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_written_does_not_count_as_waiting() {
        // Far more than all other tests have waiting at a time.
        const BYTES: usize = 256 << 20;
        let (outbox, mut far) = open().await;
        let reading = tokio::spawn(async move {
            tokio::io::copy(&mut far, &mut tokio::io::sink()).await.unwrap()
        });
        let piece = [0; 32 << 10];
        for _ in 0..BYTES / piece.len() {
            outbox.send(|buffer| buffer.extend_from_slice(&piece));
            while outbox.is_full() {
                tokio::task::yield_now().await;
            }
        }
        outbox.close();
        assert_eq!(reading.await.unwrap(), BYTES as u64);
        assert!(WAITING.load(Ordering::Relaxed) < BYTES / 4);
    }

    #[test]
    fn a_reader_that_never_reads_is_cut_off_and_its_memory_given_back() {
        let outbox = Outbox::new(512);
        let piece = vec![0; 1 << 20];
        for _ in 0..MOST_BYTES / piece.len() + 3 {
            outbox.append(|buffer| buffer.extend_from_slice(&piece));
        }
        let state = outbox.state();
        assert!(state.closed && state.buffer.capacity() == 0);
    }

    #[tokio::test]
    async fn requests_past_the_window_wait_for_answers() {
        let outbox = Outbox::new(2);
        outbox.admit();
        assert!(!outbox.is_full());
        outbox.admit();
        assert!(outbox.is_full());
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.room().await }
        });
        outbox.release();
        waiting.await.unwrap();
        assert!(!outbox.is_full());
    }
}
