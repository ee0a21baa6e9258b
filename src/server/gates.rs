//! Which connections of a peer may still be read.
//!
//! A peer whose connection broke opens another, and what it had sent on the first may lie unread in a
//! socket for as long as this node was paused. Reaping must know when nothing of that can come any
//! more: a *barrier* (`ReapRequest::Barrier`) that arrives on a connection ends all earlier ones of
//! its peer.
//!
//! What always holds: frames are taken from a connection, and handed to whom they concern, only while
//! its peer's gate is held. So when a barrier has been answered, everything that was taken before has
//! been handed over, and from earlier connections nothing will be.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::ids::NodeId;

/// The gates of all peers that are connected to this node.
#[derive(Debug, Default)]
pub struct Gates {
    last: AtomicU64,
    /// For each peer the least number of a connection that may be read.
    peers: Mutex<HashMap<NodeId, Arc<Mutex<u64>>>>,
}

/// A connection's way through its peer's gate.
#[derive(Debug)]
pub struct Pass {
    gates: Arc<Gates>,
    peer: NodeId,
    gate: Arc<Mutex<u64>>,
    number: u64,
}

/// While it is there, no other connection of the peer is read.
#[derive(Debug)]
pub struct Held<'a> {
    least: MutexGuard<'a, u64>,
    number: u64,
}

impl Gates {
    fn peers(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Mutex<u64>>>> {
        self.peers.lock().expect("no holder of the lock panics")
    }

    /// A new connection of `peer`.
    #[must_use]
    pub fn enter(self: &Arc<Self>, peer: NodeId) -> Pass {
        let gate = self.peers().entry(peer).or_default().clone();
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        Pass { gates: self.clone(), peer, gate, number }
    }

    /// Nothing more is read from the connections that `peer` has now.
    pub fn shut(&self, peer: NodeId) {
        let gate = self.peers().get(&peer).cloned();
        if let Some(gate) = gate {
            let mut least = gate.lock().expect("no holder of the lock panics");
            *least = self.last.load(Ordering::Relaxed) + 1;
        }
    }
}

impl Pass {
    /// Holds the gate; nothing if the connection may not be read any more.
    #[must_use]
    pub fn hold(&self) -> Option<Held<'_>> {
        let least = self.gate.lock().expect("no holder of the lock panics");
        (self.number >= *least).then_some(Held { least, number: self.number })
    }
}

impl Held<'_> {
    /// Earlier connections of the peer are not read any more.
    pub fn end_earlier(&mut self) {
        *self.least = self.number;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut peers = self.gates.peers();
        // The table's and this one: nobody else is connected under this name.
        if Arc::strong_count(&self.gate) == 2 {
            peers.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_ends_the_earlier_connections_of_its_peer_and_no_other() {
        let gates: Arc<Gates> = Arc::default();
        let (old, other) = (gates.enter(NodeId(1)), gates.enter(NodeId(2)));
        let new = gates.enter(NodeId(1));
        assert!(old.hold().is_some(), "a new connection alone ends nothing");
        new.hold().unwrap().end_earlier();
        assert!(old.hold().is_none());
        assert!(new.hold().is_some() && other.hold().is_some());
        gates.shut(NodeId(1));
        assert!(new.hold().is_none());
        assert!(gates.enter(NodeId(1)).hold().is_some(), "it may come again");
    }

    #[test]
    fn a_peer_that_is_gone_leaves_nothing_behind() {
        let gates: Arc<Gates> = Arc::default();
        let passes = [gates.enter(NodeId(1)), gates.enter(NodeId(1)), gates.enter(NodeId(2))];
        drop(passes);
        assert!(gates.peers().is_empty());
    }
}
