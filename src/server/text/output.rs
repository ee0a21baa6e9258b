//! Answers of one connection on their way out, and how many bytes of them may wait.
//!
//! Clients may send a long pipeline and only then begin to read, so much may wait for one of them.
//! It may not for all of them at once: past a sum, whoever has more than a little waiting is asked
//! nothing more until it has read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::resp::{Reply, Version};

/// Bytes that may wait for one client; the answer that passes it is the last. Past it no more is
/// read from the client, and nothing more is answered, until it has read some.
const MOST_BYTES: usize = 8 << 20;
/// Bytes that may wait for one client while very much waits for all.
const FEW_BYTES: usize = 1 << 20;
/// Bytes waiting for all clients that count as very much.
const MOST_BYTES_OF_ALL: usize = 1 << 30;
/// Memory that is kept between writes.
const KEPT_BYTES: usize = 256 * 1024;
/// A client that is owed bytes and takes none for this long is cut off.
const READER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes waiting for all clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// The outgoing bytes of one connection.
#[derive(Debug)]
pub(super) struct Output {
    bytes: BytesMut,
    waiting: Waiting,
    /// How many of `bytes` are counted in `waiting`.
    counted: usize,
    /// Since when the client has taken nothing of what there is.
    since: Option<Instant>,
}

impl Output {
    pub(super) fn new(waiting: Waiting) -> Self {
        Self { bytes: BytesMut::new(), waiting, counted: 0, since: None }
    }

    /// Appends an answer; returns how long it is.
    pub(super) fn put(&mut self, reply: &Reply, version: Version) -> usize {
        let before = self.bytes.len();
        reply.encode(&mut self.bytes, version);
        self.since.get_or_insert_with(Instant::now);
        self.count();
        self.bytes.len() - before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether more may be answered.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < FEW_BYTES
            || (self.bytes.len() < MOST_BYTES
                && self.waiting.0.load(Ordering::Relaxed) < MOST_BYTES_OF_ALL)
    }

    /// What is to be written. Tell [`Output::written`] when some of it has been.
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// The client has taken some.
    pub(super) fn written(&mut self) {
        self.since = (!self.bytes.is_empty()).then(Instant::now);
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = BytesMut::new();
        }
        self.count();
    }

    /// When the client has to have taken some.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + READER_TIMEOUT)
    }

    fn count(&mut self) {
        let now = self.bytes.len();
        if now > self.counted {
            self.waiting.0.fetch_add(now - self.counted, Ordering::Relaxed);
        } else {
            self.waiting.0.fetch_sub(self.counted - now, Ordering::Relaxed);
        }
        self.counted = now;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_may_wait_for_one_client_and_little_for_each_of_many() {
        let waiting = Waiting::default();
        let large = Reply::Bulk(vec![0; FEW_BYTES].into());
        let mut one = Output::new(waiting.clone());
        one.put(&large, Version::Resp2);
        assert!(one.has_room());
        let mut others: Vec<Output> = (0..32).map(|_| Output::new(waiting.clone())).collect();
        for output in &mut others {
            for _ in 0..32 {
                output.put(&large, Version::Resp2);
            }
        }
        assert!(!one.has_room(), "a gigabyte waits");
        assert!(Output::new(waiting.clone()).has_room(), "whoever reads is served");
        drop(others);
        assert!(one.has_room());
        while one.has_room() {
            one.put(&large, Version::Resp2);
        }
        assert!(one.bytes().len() < MOST_BYTES + 2 * FEW_BYTES);
        one.bytes().clear();
        one.written();
        assert_eq!(waiting.0.load(Ordering::Relaxed), 0);
    }
}
