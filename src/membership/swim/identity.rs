//! What SWIM calls a member: who, where, and in which of its lives.

use core::net::{IpAddr, SocketAddr};

use crate::ids::NodeId;

/// A member as the protocol knows it.
///
/// Whoever was declared down comes back under a higher generation, and so does a process that was
/// started again. It may churn, and is therefore never part of a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub node: NodeId,
    /// A number that only grows, kept on the member's disk.
    pub generation: u32,
    /// Where it takes gossip.
    pub address: SocketAddr,
}

impl Identity {
    /// An identity; of an IPv6 address only what travels is kept.
    #[must_use]
    pub fn new(node: NodeId, generation: u32, address: SocketAddr) -> Self {
        Self { node, generation, address: SocketAddr::new(address.ip(), address.port()) }
    }

    /// The bytes it takes in a packet.
    pub(super) fn encoded_bytes(&self) -> usize {
        16 + 4 + 1 + 2 + if matches!(self.address.ip(), IpAddr::V4(_)) { 4 } else { 16 }
    }
}

impl foca::Identity for Identity {
    /// A member has one identity at a time, wherever it listens.
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        // At 2³² lives the node stays down until its process is started with a new data directory.
        Some(Self { generation: self.generation.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        (self.generation, self.address) > (other.generation, other.address)
    }
}
