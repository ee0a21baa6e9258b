//! One direction of one connection between nodes: frames that vanish, come late, or twice.
//!
//! The bytes of a connection are cut into frames only while a fault may concern them; until then
//! they go straight through, for the price of one atomic load a turn. What has been cut waits here
//! until it is due, and leaves in the order in which it came: a delay is a longer way, not another
//! one. The stream stays in step, since only whole frames are taken out of it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Faults;
use super::plan::{Carrier, Fate};
use crate::ids::NodeId;
use crate::time::Instant;
use crate::wire::faults::Direction;
use crate::wire::frame;

/// Bytes that may wait here; then no more are taken until some of them have left.
const MOST_BYTES: usize = 16 << 20;

/// One direction of one connection.
pub struct Line {
    faults: Arc<Faults>,
    peer: NodeId,
    way: Direction,
    /// Incoming bytes from the last frame on that has not arrived whole.
    half: BytesMut,
    waiting: VecDeque<(Instant, Bytes)>,
    waiting_bytes: usize,
}

impl Line {
    pub(super) fn new(faults: Arc<Faults>, peer: NodeId, way: Direction) -> Self {
        let (half, waiting) = (BytesMut::new(), VecDeque::new());
        Self { faults, peer, way, half, waiting, waiting_bytes: 0 }
    }

    /// Nothing concerns what passes, and nothing waits.
    fn is_straight(&self) -> bool {
        self.waiting.is_empty() && !self.faults.concern_network()
    }

    /// Whether more may be put in.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting_bytes < MOST_BYTES
    }

    /// Waits while the node stands still.
    pub async fn stands_still(&self) {
        self.faults.pass_pause().await;
    }

    /// Takes the whole frames in `bytes`, and leaves there what may go on now.
    pub fn pass(&mut self, bytes: &mut BytesMut) {
        if !self.is_straight() {
            self.take(bytes);
            self.release(bytes);
        }
    }

    /// Waits until something may go on. For ever, where nothing waits.
    pub async fn due(&self) {
        self.faults.sleep_until(self.waiting.front().map(|(due, _)| *due)).await;
    }

    /// As `read_buf`: appends what has arrived, whole frames of it only while faults concern it.
    /// Nothing is lost when this is not waited for to its end.
    pub async fn read(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        buffer: &mut BytesMut,
    ) -> io::Result<usize> {
        loop {
            self.stands_still().await;
            if self.release(buffer) > 0 {
                return Ok(buffer.len());
            }
            if self.is_straight() {
                buffer.unsplit(self.half.split());
                let count = reader.read_buf(buffer).await?;
                if count == 0 || (self.is_straight() && !self.faults.is_paused()) {
                    return Ok(count);
                }
                self.half = buffer.split();
            } else {
                if !buffer.is_empty() {
                    // A frame was arriving when the fault came.
                    self.half = buffer.split();
                }
                let (has_room, due) = (self.has_room(), self.waiting.front().map(|(due, _)| *due));
                tokio::select! {
                    () = self.faults.sleep_until(due) => continue,
                    arrived = reader.read_buf(&mut self.half), if has_room => {
                        if arrived? == 0 {
                            return Ok(0);
                        }
                    }
                }
            }
            let mut arrived = self.half.split();
            self.take(&mut arrived);
            self.half = arrived;
        }
    }

    /// Moves all whole frames out of `bytes` into the queue, as their fates are.
    fn take(&mut self, bytes: &mut BytesMut) {
        let now = self.faults.now();
        while let Some(length) = frame::length(bytes) {
            let frame = bytes.split_to(length).freeze();
            let way = (Some(self.peer), self.way, Carrier::Frame);
            let Fate { copies, at } = self.faults.fate(way, length, now);
            let at = self.waiting.back().map_or(at, |(before, _)| at.max(*before));
            for _ in 0..copies {
                self.waiting_bytes += length;
                self.waiting.push_back((at, frame.clone()));
            }
        }
    }

    /// Appends what is due; returns how many frames.
    fn release(&mut self, bytes: &mut BytesMut) -> usize {
        let now = self.faults.now();
        let mut count = 0;
        while let Some((due, frame)) = self.waiting.front()
            && *due <= now
        {
            self.waiting_bytes -= frame.len();
            bytes.extend_from_slice(frame);
            self.waiting.pop_front();
            count += 1;
        }
        count
    }
}
