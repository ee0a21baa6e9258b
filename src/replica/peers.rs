//! Who is answering me, now, and how fast: a circuit breaker and two latencies for each peer, and what
//! the cluster says of it.
//!
//! ```text
//!            failures in a row                      time is up
//!   closed ────────────────────▶ open ──────────────────────────▶ half-open
//!     ▲                           ▲                                   │
//!     │        an answer          │     one question goes out, and    │
//!     └───────────────────────────┴────────── no answer comes ────────┘
//! ```
//!
//! While a breaker is open the peer is asked nothing that another can answer; half-open, one question
//! goes out as a probe, and the next only after as long again. A request that has nobody else
//! still goes to it: silence is not absence. A peer without a connection counts as open, and so do one
//! that the cluster takes to be down (a process that hangs keeps its connections) and one that
//! owes answers to more requests than it may. Nobody is ever *removed* from anything
//! here: this decides whom to ask first, never where data lives.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::NodeId;
use crate::time::Instant;

/// Requests a peer may have had since its last answer. A peer that hangs is found out by the breaker; until
/// then this bounds what waits in its connection.
const MOST_UNANSWERED: u32 = 1024;
/// After so long without a sample a latency says nothing: the peer gets its chance again.
const SAMPLES_LAST: Duration = Duration::from_secs(10);
/// Nobody is slow below this, whatever the others do.
const SLOW_FROM_MICROS: u64 = 5_000;
/// A peer is slow when it takes so many times as long as the fastest.
const SLOW_FACTOR: u64 = 4;

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
    /// Requests sent since it last answered.
    unanswered: u32,
    latency: Latency,
}

/// What reads of one peer take.
#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    /// Moving average, in microseconds.
    mean: u64,
    /// Estimate of the 95th percentile, in microseconds.
    p95: u64,
    sampled: Instant,
}

impl Latency {
    fn sample(&mut self, micros: u64, now: Instant) {
        if self.mean == 0 {
            (self.mean, self.p95) = (micros.max(1), micros.saturating_mul(3).max(1));
        }
        self.mean = (self.mean * 7 + micros) / 8;
        // Up by 19 steps where a sample is above and down by one where it is not: at rest where
        // one in twenty is above ("Frugal streaming for estimating quantiles", Ma and others, 2013).
        let step = (self.p95 / 128).max(1);
        self.p95 = match micros > self.p95 {
            true => self.p95 + 19 * step,
            false => self.p95.saturating_sub(step).max(1),
        };
        self.sampled = now;
    }

    fn is_known(&self, now: Instant) -> bool {
        self.mean > 0 && now - self.sampled < SAMPLES_LAST
    }
}

impl Peers {
    pub(super) fn new(failures_to_open: u32, open_for: Duration) -> Self {
        Self { peers: BTreeMap::new(), failures_to_open, open_for }
    }

    pub(super) fn connected(&mut self, node: NodeId) {
        let peer = self.peers.entry(node).or_default();
        (peer.connected, peer.failures, peer.open_until, peer.unanswered) = (true, 0, None, 0);
    }

    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().connected = false;
    }

    pub(super) fn up(&mut self, node: NodeId) {
        let peer = self.peers.entry(node).or_default();
        (peer.down, peer.failures, peer.open_until, peer.unanswered) = (false, 0, None, 0);
    }

    pub(super) fn down(&mut self, node: NodeId) {
        self.peers.entry(node).or_default().down = true;
    }

    /// Whether it makes sense to ask `node` now.
    pub(super) fn usable(&self, node: NodeId, now: Instant) -> bool {
        let Some(peer) = self.peers.get(&node) else { return false };
        peer.connected
            && !peer.down
            && peer.open_until.is_none_or(|until| until <= now)
            && (peer.unanswered < MOST_UNANSWERED || peer.open_until.is_some())
    }

    /// Whether `node` may answer, although it has been silent lately: it is connected, and nobody says
    /// that it is down. A busy machine makes every peer silent for a moment.
    pub(super) fn answerable(&self, node: NodeId) -> bool {
        let peer = self.peers.get(&node);
        peer.is_some_and(|p| p.connected && !p.down && p.unanswered < MOST_UNANSWERED)
    }

    /// Whether somebody is asked nothing only because it has not answered lately.
    pub(super) fn are_some_silent(&self, now: Instant) -> bool {
        let is_silent = |peer: &Peer| {
            peer.connected && !peer.down && peer.open_until.is_some_and(|until| until > now)
        };
        self.peers.values().any(is_silent)
    }

    /// A request goes out to `node`.
    pub(super) fn asked(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.unanswered = peer.unanswered.saturating_add(1);
        if peer.open_until.is_some() {
            // Half-open: this was the probe.
            peer.open_until = Some(now + self.open_for);
        }
    }

    /// `node` has answered: the breaker closes.
    pub(super) fn answered(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.failures, peer.open_until, peer.unanswered) = (0, None, 0);
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

    /// A read of `node` took this long.
    pub(super) fn took(&mut self, node: NodeId, took: Duration, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.latency.sample(took.as_micros() as u64, now);
        }
    }

    /// How long 95 of 100 reads of `node` take at most, if that is known.
    pub(super) fn p95(&self, node: NodeId, now: Instant) -> Option<Duration> {
        let latency = self.peers.get(&node)?.latency;
        latency.is_known(now).then(|| Duration::from_micros(latency.p95))
    }

    /// Puts those of `nodes` last that are slow, compared with the others.
    pub(super) fn demote_slow<T>(&self, nodes: &mut [T], id: impl Fn(&T) -> NodeId, now: Instant) {
        let mean = |node: NodeId| {
            let latency = self.peers.get(&node)?.latency;
            latency.is_known(now).then_some(latency.mean)
        };
        let Some(fastest) = nodes.iter().filter_map(|node| mean(id(node))).min() else { return };
        let bound = (fastest * SLOW_FACTOR).max(SLOW_FROM_MICROS);
        nodes.sort_by_key(|node| mean(id(node)).is_some_and(|mean| mean > bound));
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
        assert!(!peers.usable(PEER, Instant(99)) && peers.answerable(PEER));
        assert!(peers.are_some_silent(Instant(99)) && !peers.are_some_silent(Instant(100)));
        assert!(peers.usable(PEER, Instant(100)), "half-open");
        peers.asked(PEER, Instant(100));
        assert!(!peers.usable(PEER, Instant(101)), "one probe at a time");
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
        assert!(!peers.usable(PEER, Instant(0)) && !peers.answerable(PEER));
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

    #[test]
    fn a_peer_that_owes_too_many_answers_is_not_asked_until_it_gives_one() {
        let mut peers = Peers::new(2, Duration::from_micros(100));
        peers.connected(PEER);
        for _ in 0..MOST_UNANSWERED {
            assert!(peers.usable(PEER, Instant(0)));
            peers.asked(PEER, Instant(0));
        }
        assert!(!peers.usable(PEER, Instant(0)));
        peers.answered(PEER);
        assert!(peers.usable(PEER, Instant(0)));
    }

    #[test]
    fn the_estimate_settles_where_one_sample_in_twenty_is_above() {
        let mut random = crate::random::Random::new(1);
        let mut latency = Latency::default();
        let mut above = 0;
        for round in 0..40_000 {
            let micros = 1_000 + random.below(1_000);
            above += u32::from(round >= 20_000 && micros > latency.p95);
            latency.sample(micros, Instant(0));
        }
        assert!((1_850..2_000).contains(&latency.p95), "{}", latency.p95);
        assert!((800..1_200).contains(&above), "{above} of 20,000");
    }

    #[test]
    fn a_slow_peer_comes_last_and_gets_its_chance_again_once_its_samples_are_old() {
        let mut peers = Peers::new(2, Duration::from_micros(100));
        let (slow, quick) = (NodeId(1), NodeId(2));
        for (node, millis) in [(slow, 200), (quick, 1)] {
            peers.connected(node);
            peers.took(node, Duration::from_millis(millis), Instant(0));
        }
        let order = |now| {
            let mut nodes = [slow, quick, NodeId(3)];
            peers.demote_slow(&mut nodes, |node| *node, now);
            nodes
        };
        assert_eq!(order(Instant(1)), [quick, NodeId(3), slow]);
        assert_eq!(order(Instant(0) + SAMPLES_LAST), [slow, quick, NodeId(3)]);
    }
}
