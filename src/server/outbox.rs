//! What is on its way out of one connection.
//!
//! Whoever has something to say appends whole frames to a buffer; a writer task takes all of it
//! and writes it with one call. A shard that has a hundred answers for a connection at the end of
//! a turn costs that connection one system call.
//!
//! The buffer is bounded three times. While more than [`PAUSE_BYTES`] wait, or more requests than the
//! connection's [`Window`] allows are under way, no further ones are taken from it. Above [`MOST_BYTES`] its reader is taken to have stopped reading, and
//! is disconnected. And where all connections together hold more than [`MOST_BYTES_OF_ALL`], the
//! next to add to a queue that is long already is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
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
}

impl Outbox {
    /// An empty one, of a connection on which up to `most_in_flight` requests may be under way.
    #[must_use]
    pub fn new(most_in_flight: usize) -> Arc<Self> {
        let window = Window::new(most_in_flight);
        let (buffer, scheduled, closed, in_flight) = (BytesMut::new(), false, false, 0);
        let state = Mutex::new(State { buffer, scheduled, closed, in_flight, window });
        Arc::new(Self { state, wake: Notify::new(), taken: Notify::new() })
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

    /// Appends, and wakes the writer at once.
    pub fn send(&self, write: impl FnOnce(&mut BytesMut)) {
        if self.append(write) {
            self.wake();
        }
    }

    /// Wakes the writer.
    pub fn wake(&self) {
        self.wake.notify_one();
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
    pub async fn write_to(&self, mut socket: impl AsyncWrite + Unpin, mut line: Option<Line>) {
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
                if socket.write_all(&writing).await.is_err() {
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
        let _ = socket.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_appended_before_the_close_is_written_whole_and_in_order() {
        let outbox = Outbox::new(512);
        assert!(outbox.append(|buffer| buffer.extend_from_slice(b"one ")));
        assert!(!outbox.append(|buffer| buffer.extend_from_slice(b"two")), "one wake is enough");
        outbox.close();
        let mut written = Vec::new();
        outbox.write_to(&mut written, None).await;
        assert_eq!(written, b"one two");
        assert!(!outbox.append(|buffer| buffer.extend_from_slice(b"late")));
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
