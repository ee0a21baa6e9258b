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
        if self.waiting.is_empty() {
            return 0;
        }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio::time::timeout;

    use super::super::plan::Member;
    use super::*;
    use crate::server::clock::Clock;
    use crate::wire::faults::{Fault, FaultKind, FaultOrder, Passage, Peers, WHOLE_PPM};
    use crate::wire::frame::Kind;

    const PEER: NodeId = NodeId(1);

    fn faults() -> Arc<Faults> {
        let faults = Faults::new(true, Clock::start());
        let (name, zone) = ("b".to_owned(), "z".to_owned());
        let member = Member { name, zone, address: String::new(), socket: None };
        faults.plan().know(BTreeMap::from([(PEER, member)]));
        faults
    }

    fn add(faults: &Arc<Faults>, kind: impl FnOnce(Passage) -> FaultKind) {
        let (peers, direction) = (Peers::Named("b".to_owned()), Direction::Both);
        let kind = kind(Passage { peers, direction });
        faults.obey(FaultOrder::Add(Fault { kind, for_ms: None, seed: 1 })).unwrap();
    }

    fn clear(faults: &Arc<Faults>) {
        faults.obey(FaultOrder::Clear(None)).unwrap();
    }

    fn late(by_ms: u64, jitter_ms: u64) -> impl FnOnce(Passage) -> FaultKind {
        move |passage| FaultKind::Delay { passage, by_ms, jitter_ms }
    }

    fn frames(ids: impl IntoIterator<Item = u64>) -> BytesMut {
        let mut bytes = BytesMut::new();
        for id in ids {
            frame::encode(&mut bytes, Kind::Ping, frame::Marks::NONE, id, |_| {});
        }
        bytes
    }

    /// Takes the numbers of whole frames out of a buffer.
    fn ids(buffer: &mut BytesMut) -> Vec<u64> {
        std::iter::from_fn(|| frame::decode(buffer, 0).unwrap().map(|frame| frame.id)).collect()
    }

    /// Reads until so many frames have come.
    async fn hear(
        line: &mut Line,
        socket: &mut DuplexStream,
        buffer: &mut BytesMut,
        count: usize,
    ) -> Vec<u64> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let read = timeout(Duration::from_secs(10), line.read(socket, buffer));
            assert!(read.await.expect("it comes").unwrap() > 0);
            heard.extend(ids(buffer));
        }
        heard
    }

    #[tokio::test]
    async fn the_stream_stays_in_step_when_faults_come_and_go_within_a_frame() {
        let faults = faults();
        let mut line = faults.line(PEER, Direction::In).unwrap();
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let mut buffer = BytesMut::new();
        let bytes = frames(0..6);
        // Each frame is cut in two, and something changes between the halves.
        let mut heard = Vec::new();
        let mut sent = 0;
        for turn in 0..6 {
            let half = (turn * 20) + 7;
            far.write_all(&bytes[sent..half]).await.unwrap();
            sent = half;
            let read = timeout(Duration::from_millis(20), line.read(&mut near, &mut buffer));
            if read.await.is_ok() {
                heard.extend(ids(&mut buffer));
            }
            if turn % 2 == 0 { add(&faults, late(1, 5)) } else { clear(&faults) }
        }
        far.write_all(&bytes[sent..]).await.unwrap();
        let missing = 6 - heard.len();
        heard.extend(hear(&mut line, &mut near, &mut buffer, missing).await);
        assert_eq!(heard, [0, 1, 2, 3, 4, 5]);
        assert!(buffer.is_empty());
    }

    #[tokio::test]
    async fn a_delay_keeps_the_order_whatever_the_jitter() {
        let faults = faults();
        add(&faults, late(1, 20));
        let mut line = faults.line(PEER, Direction::In).unwrap();
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(&frames(0..100)).await.unwrap();
        let mut buffer = BytesMut::new();
        let heard = hear(&mut line, &mut near, &mut buffer, 100).await;
        assert_eq!(heard, (0..100).collect::<Vec<u64>>());
    }

    #[test]
    fn what_goes_out_vanishes_or_comes_twice_as_whole_frames() {
        let faults = faults();
        let mut line = faults.line(PEER, Direction::Out).unwrap();
        let mut pass = |count| {
            let mut bytes = frames(0..count);
            line.pass(&mut bytes);
            ids(&mut bytes)
        };
        assert_eq!(pass(3), [0, 1, 2]);
        add(&faults, |passage| FaultKind::Duplicate(passage, WHOLE_PPM));
        assert_eq!(pass(2), [0, 0, 1, 1]);
        add(&faults, |passage| FaultKind::Drop(passage, WHOLE_PPM / 2));
        let passed = pass(100).len();
        assert!((50..150).contains(&passed), "{passed} of 200");
        clear(&faults);
        assert_eq!(pass(3), [0, 1, 2]);
    }

    #[tokio::test]
    async fn nothing_passes_during_a_pause_and_everything_after_it() {
        let faults = faults();
        let mut line = faults.line(PEER, Direction::In).unwrap();
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        add(&faults, |_| FaultKind::Pause);
        far.write_all(&frames(0..3)).await.unwrap();
        let mut buffer = BytesMut::new();
        let read = timeout(Duration::from_millis(30), line.read(&mut near, &mut buffer)).await;
        assert!(read.is_err() && buffer.is_empty());
        clear(&faults);
        assert_eq!(hear(&mut line, &mut near, &mut buffer, 3).await, [0, 1, 2]);
    }

    #[test]
    fn what_is_no_frame_goes_on_to_be_refused() {
        let faults = faults();
        add(&faults, late(0, 0));
        let mut line = faults.line(PEER, Direction::Out).unwrap();
        let mut bytes = BytesMut::from(&[0xff; 100][..]);
        line.pass(&mut bytes);
        assert_eq!(bytes.len(), 100);
        assert!(frame::decode(&mut bytes, 0).is_err());
    }
}
