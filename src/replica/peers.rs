//! Who is answering me, now: a circuit breaker for each peer, and what the cluster says of it.
//!
//! ```text
//!            failures in a row                      time is up
//!   closed ────────────────────▶ open ──────────────────────────▶ half-open
//!     ▲                           ▲                                   │
//!     │        an answer          │            a failure              │
//!     └───────────────────────────┴───────────────────────────────────┘
//! ```
//!
//! While a breaker is open the peer is asked nothing; half-open, one question at a time goes out
//! as a probe. A peer without a connection counts as open, and so does one that the cluster takes
//! to be down: a process that hangs keeps its connections. Nobody is ever *removed* from anything
//! here: this decides whom to ask first, never where data lives.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::NodeId;
use crate::time::Instant;

/// All peers, as one shard sees them.
#[derive(Debug)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    failures_to_open: u32,
    open_for: Duration,
}

#[derive(Debug, Default)]
struct Peer {
    connected: bool,
    /// Failure detection says so. A peer it has not spoken of is not down.
    down: bool,
    failures: u32,
    /// While the breaker is open: until when.
    open_until: Option<Instant>,
}

impl Peers {
    pub(super) fn new(failures_to_open: u32, open_for: Duration) -> Self {
        Self { peers: BTreeMap::new(), failures_to_open, open_for }
    }

    pub(super) fn connected(&mut self, node: NodeId) {
        let peer = self.peers.entry(node).or_default();
        *peer = Peer { connected: true, down: peer.down, failures: 0, open_until: None };
    }

    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().connected = false;
    }

    pub(super) fn up(&mut self, node: NodeId) {
        let peer = self.peers.entry(node).or_default();
        *peer = Peer { connected: peer.connected, ..Peer::default() };
    }

    pub(super) fn down(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().down = true;
    }

    /// Whether it makes sense to ask `node` now.
    pub(super) fn usable(&self, node: NodeId, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        peer.connected && !peer.down && peer.open_until.is_none_or(|until| until <= now)
    }

    /// `node` has answered: the breaker closes.
    pub(super) fn answered(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.failures = 0;
            peer.open_until = None;
        }
    }

    /// `node` has not answered in time. Returns whether the breaker has just opened.
    pub(super) fn failed(&mut self, node: NodeId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        peer.failures += 1;
        let was_closed = peer.open_until.is_none();
        if peer.failures >= self.failures_to_open {
            peer.open_until = Some(now + self.open_for);
            return was_closed;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(1);

    #[test]
    fn a_breaker_opens_after_failures_in_a_row_probes_and_closes_on_an_answer() {
        let mut peers = Peers::new(2, Duration::from_micros(100));
        assert!(!peers.usable(PEER, Instant(0)), "a stranger is not usable");
        peers.connected(PEER);
        assert!(peers.usable(PEER, Instant(0)));
        assert!(!peers.failed(PEER, Instant(0)));
        peers.answered(PEER);
        assert!(!peers.failed(PEER, Instant(0)), "an answer in between starts the count again");
        assert!(peers.failed(PEER, Instant(0)), "opened");
        assert!(!peers.usable(PEER, Instant(99)));
        assert!(peers.usable(PEER, Instant(100)), "half-open");
        assert!(!peers.failed(PEER, Instant(100)), "it had not closed in between");
        assert!(!peers.usable(PEER, Instant(150)), "a failed probe opens it again");
        peers.answered(PEER);
        assert!(peers.usable(PEER, Instant(150)));
    }

    #[test]
    fn a_peer_that_is_down_is_not_usable_until_it_is_up_whatever_its_connection() {
        let mut peers = Peers::new(2, Duration::from_micros(100));
        peers.connected(PEER);
        peers.down(PEER);
        assert!(!peers.usable(PEER, Instant(0)));
        peers.connected(PEER);
        assert!(!peers.usable(PEER, Instant(0)), "a hanging process takes connections");
        peers.up(PEER);
        assert!(peers.usable(PEER, Instant(0)));
        peers.disconnected(PEER);
        peers.up(PEER);
        assert!(!peers.usable(PEER, Instant(0)), "up, and not connected");
    }

    #[test]
    fn a_lost_connection_makes_a_peer_unusable_at_once() {
        let mut peers = Peers::new(2, Duration::from_micros(100));
        peers.connected(PEER);
        peers.disconnected(PEER);
        assert!(!peers.usable(PEER, Instant(0)));
        peers.connected(PEER);
        assert!(peers.usable(PEER, Instant(0)));
    }
}
