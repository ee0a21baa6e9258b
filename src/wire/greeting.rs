//! How a connection begins, and how it ends in peace.
//!
//! ```text
//!   whoever opened it                       the node
//!        | HELLO  versions, features, role     |
//!        | ----------------------------------> |
//!        |  WELCOME  version, features, limits |
//!        | <---------------------------------- |   or REFUSED, and the connection is closed
//!        |                                     |
//!        | requests, in any number             |
//!        | ----------------------------------> |
//!        |             answers, in any order   |
//!        | <---------------------------------- |
//!        |            GOAWAY, before it stops  |
//!        | <---------------------------------- |
//! ```
//!
//! What always holds: until WELCOME only HELLO is accepted, and no payload above
//! [`limits::FRAME_PAYLOAD_BYTES_GREETING`]. The three frames of the greeting have version 1 and
//! these layouts for ever, so that builds of any age can at least tell each other that they do
//! not fit; what is new is announced by a feature bit, and bits nobody knows are ignored.

use std::ops::RangeInclusive;

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::codec::{put_failure_code, put_text, read_failure_code};
use super::codec::{put_topology, read_topology};
use super::frame::{self, Frame, Kind, Marks};
use super::messages::{Control, FailureCode, Request, TopologyVersion};
use crate::codec::{CodecError, Reader};
use crate::ids::{Incarnation, NodeId};
use crate::limits;
use crate::time::Instant;

/// The first bytes of HELLO's payload: whoever sends something else has the wrong port.
pub const MAGIC: [u8; 8] = *b"RINGDOVE";
/// The features this build has beyond its version. None yet.
pub const FEATURES: u64 = 0;

const ROLE_CLIENT: u8 = 0;
const ROLE_PEER: u8 = 1;

/// As what a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It may read, write and ask for the cluster state.
    Client,
    /// A member of the cluster: it may also talk to single replicas and exchange cluster states.
    Peer,
}

impl Role {
    /// Whether a connection that was opened in this role may carry `request` with these `marks`.
    /// What only peers may send would let a client pass by the coordinator, and with it by every
    /// check it makes. Anything else is to be answered with [`FailureCode::Denied`].
    #[must_use]
    pub fn may_send(self, request: &Request, marks: Marks) -> bool {
        let for_peers = match request {
            Request::Read(_)
            | Request::Write(_)
            | Request::Control(
                Control::Exchange(_)
                | Control::Transfer(_)
                | Control::OwnerKeys(_)
                | Control::Tally(_)
                | Control::Sync(_)
                | Control::Reap(_),
            ) => true,
            Request::Get(_) | Request::Put(_) | Request::Control(_) => marks.forwarded,
        };
        self == Self::Peer || !for_peers
    }
}

/// Which member opened a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its id.
    pub id: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its name, for people.
    pub name: String,
    /// Where it takes frames: `host:port`.
    pub address: String,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version the sender speaks.
    pub oldest_version: u8,
    /// The newest version the sender speaks.
    pub newest_version: u8,
    /// What it can do beyond that, one bit each.
    pub features: u64,
    /// What it wants to be.
    pub role: Role,
    /// The cluster it wants; empty from a client that takes any.
    pub cluster: String,
    /// Who it is: of a peer always, of a client never.
    pub node: Option<Introduction>,
    /// The software and its version, for people.
    pub agent: String,
}

/// The node takes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version in force from here on: the newest that both know.
    pub version: u8,
    /// The features in force: those that both have.
    pub features: u64,
    /// The node's cluster.
    pub cluster: String,
    /// The node's id.
    pub node: NodeId,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The node's name, for people.
    pub name: String,
    /// What the node's monotonic clock shows: what says when a request was sent goes by it
    /// ([`FarClock`](super::clock::FarClock)).
    pub clock: Instant,
    /// The cluster state the node goes by.
    pub topology: TopologyVersion,
    /// Longest key the node takes.
    pub key_bytes: u32,
    /// Largest value the node takes.
    pub value_bytes: u32,
}

/// The node does not take the connection, and closes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why, for programs.
    pub code: FailureCode,
    /// Why, for people; names the fix.
    pub message: String,
}

/// A frame of the greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// From whoever opened the connection.
    Hello(Hello),
    /// The node's consent.
    Welcome(Welcome),
    /// The node's refusal.
    Refused(Refused),
}

/// The newest version in both ranges, if there is one.
#[must_use]
pub fn negotiate(ours: RangeInclusive<u8>, theirs: RangeInclusive<u8>) -> Option<u8> {
    let newest = *ours.end().min(theirs.end());
    (ours.contains(&newest) && theirs.contains(&newest)).then_some(newest)
}

/// Reads whichever frame of the greeting this is.
///
/// # Errors
/// [`WireError`]; the connection must be closed, by a node after [`Refused`].
pub fn decode_greeting(frame: &Frame) -> Result<Greeting, WireError> {
    match frame.kind {
        Kind::Hello => decode_hello(frame).map(Greeting::Hello),
        Kind::Welcome => decode_welcome(frame).map(Greeting::Welcome),
        Kind::Refused => decode_refused(frame).map(Greeting::Refused),
        other => Err(WireError::Unexpected(other)),
    }
}

/// Appends HELLO. Texts are cut to their bounds, here and below.
pub fn encode_hello(out: &mut BytesMut, hello: &Hello) {
    frame::encode(out, Kind::Hello, Marks::NONE, 0, |out| {
        out.put_slice(&MAGIC);
        out.put_slice(&[hello.oldest_version, hello.newest_version]);
        out.put_u64_le(hello.features);
        out.put_u8(match hello.role {
            Role::Client => ROLE_CLIENT,
            Role::Peer => ROLE_PEER,
        });
        put_text(out, &hello.cluster, limits::NAME_BYTES);
        put_text(out, &hello.agent, limits::NAME_BYTES);
        if let Some(node) = &hello.node {
            out.put_u128_le(node.id.0);
            out.put_u64_le(node.incarnation.0);
            put_text(out, &node.name, limits::NAME_BYTES);
            put_text(out, &node.address, limits::ADDRESS_BYTES);
        }
    });
}

/// Reads HELLO.
///
/// # Errors
/// [`WireError`] when it is something else, or malformed.
pub fn decode_hello(frame: &Frame) -> Result<Hello, WireError> {
    let mut input = open(frame, Kind::Hello)?;
    if input.take(MAGIC.len(), "magic")? != MAGIC[..] {
        return Err(CodecError::Invalid("magic").into());
    }
    let oldest_version = input.u8("version")?;
    let newest_version = input.u8("version")?;
    if oldest_version == 0 || oldest_version > newest_version {
        return Err(CodecError::Invalid("range of versions").into());
    }
    let features = input.u64("features")?;
    let role = match input.u8("role")? {
        ROLE_CLIENT => Role::Client,
        ROLE_PEER => Role::Peer,
        _ => return Err(CodecError::Invalid("role").into()),
    };
    let cluster = input.text(limits::NAME_BYTES, "cluster")?;
    let agent = input.text(limits::NAME_BYTES, "agent")?;
    let node = match role {
        Role::Client => None,
        Role::Peer => Some(Introduction {
            id: NodeId(input.u128("node")?),
            incarnation: Incarnation(input.u64("incarnation")?),
            name: input.text(limits::NAME_BYTES, "name")?,
            address: input.text(limits::ADDRESS_BYTES, "address")?,
        }),
    };
    input.finish()?;
    Ok(Hello { oldest_version, newest_version, features, role, cluster, node, agent })
}

/// Appends WELCOME.
pub fn encode_welcome(out: &mut BytesMut, welcome: &Welcome) {
    frame::encode(out, Kind::Welcome, Marks::NONE, 0, |out| {
        out.put_u8(welcome.version);
        out.put_u64_le(welcome.features);
        out.put_u128_le(welcome.node.0);
        out.put_u64_le(welcome.incarnation.0);
        out.put_u64_le(welcome.clock.0);
        put_topology(out, welcome.topology);
        out.put_u32_le(welcome.key_bytes);
        out.put_u32_le(welcome.value_bytes);
        put_text(out, &welcome.cluster, limits::NAME_BYTES);
        put_text(out, &welcome.name, limits::NAME_BYTES);
    });
}

/// Reads WELCOME.
///
/// # Errors
/// [`WireError`] when it is something else, or malformed.
pub fn decode_welcome(frame: &Frame) -> Result<Welcome, WireError> {
    let mut input = open(frame, Kind::Welcome)?;
    let welcome = Welcome {
        version: input.u8("version")?,
        features: input.u64("features")?,
        node: NodeId(input.u128("node")?),
        incarnation: Incarnation(input.u64("incarnation")?),
        clock: Instant(input.u64("clock")?),
        topology: read_topology(&mut input)?,
        key_bytes: input.u32("key limit")?,
        value_bytes: input.u32("value limit")?,
        cluster: input.text(limits::NAME_BYTES, "cluster")?,
        name: input.text(limits::NAME_BYTES, "name")?,
    };
    input.finish()?;
    Ok(welcome)
}

/// Appends REFUSED.
pub fn encode_refused(out: &mut BytesMut, refused: &Refused) {
    frame::encode(out, Kind::Refused, Marks::NONE, 0, |out| {
        put_failure_code(out, refused.code);
        put_text(out, &refused.message, limits::MESSAGE_BYTES);
    });
}

/// Reads REFUSED.
///
/// # Errors
/// [`WireError`] when it is something else, or malformed.
pub fn decode_refused(frame: &Frame) -> Result<Refused, WireError> {
    let mut input = open(frame, Kind::Refused)?;
    let code = read_failure_code(&mut input)?;
    let message = input.text(limits::MESSAGE_BYTES, "message")?;
    input.finish()?;
    Ok(Refused { code, message })
}

/// Appends GOAWAY with its reason, for people.
pub fn encode_goaway(out: &mut BytesMut, reason: &str) {
    frame::encode(out, Kind::GoAway, Marks::NONE, 0, |out| {
        put_text(out, reason, limits::MESSAGE_BYTES)
    });
}

/// Reads the reason of a GOAWAY.
///
/// # Errors
/// [`WireError`] when it is something else, or malformed.
pub fn decode_goaway(frame: &Frame) -> Result<String, WireError> {
    let mut input = open(frame, Kind::GoAway)?;
    let reason = input.text(limits::MESSAGE_BYTES, "reason")?;
    input.finish()?;
    Ok(reason)
}

/// Appends PING. The answer carries the same id.
pub fn encode_ping(out: &mut BytesMut, id: u64) {
    frame::encode(out, Kind::Ping, Marks::NONE, id, |_| ());
}

/// Checks that a PING carries nothing.
///
/// # Errors
/// [`WireError`] when it is something else, or carries something.
pub fn decode_ping(frame: &Frame) -> Result<(), WireError> {
    Ok(open(frame, Kind::Ping)?.finish()?)
}

/// Appends PONG, the answer to the PING of the same id; it says what the sender's `clock` shows. Under
/// id 0 it answers nothing.
pub fn encode_pong(out: &mut BytesMut, id: u64, clock: Instant) {
    frame::encode(out, Kind::Pong, Marks::NONE, id, |out| out.put_u64_le(clock.0));
}

/// Reads what a PONG says of its sender's clock.
///
/// # Errors
/// [`WireError`] when it is something else, or malformed.
pub fn decode_pong(frame: &Frame) -> Result<Instant, WireError> {
    let mut input = open(frame, Kind::Pong)?;
    let clock = Instant(input.u64("clock")?);
    input.finish()?;
    Ok(clock)
}

fn open(frame: &Frame, kind: Kind) -> Result<Reader, WireError> {
    if frame.kind != kind {
        return Err(WireError::Unexpected(frame.kind));
    }
    Ok(Reader::new(frame.payload.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_know_is_taken() {
        assert_eq!(negotiate(1..=1, 1..=1), Some(1));
        assert_eq!(negotiate(1..=2, 2..=3), Some(2));
        assert_eq!(negotiate(2..=3, 1..=2), Some(2));
        assert_eq!(negotiate(1..=9, 4..=5), Some(5));
        assert_eq!(negotiate(1..=2, 3..=4), None);
        assert_eq!(negotiate(3..=4, 1..=2), None);
    }

    #[test]
    fn a_client_may_not_talk_to_single_replicas_nor_forward() {
        let topology = Request::Control(Control::Topology);
        let exchange = Request::Control(Control::Exchange(vec![]));
        let forwarded = Marks { forwarded: true, ..Marks::NONE };
        assert!(Role::Client.may_send(&topology, Marks::NONE));
        assert!(!Role::Client.may_send(&topology, forwarded));
        assert!(!Role::Client.may_send(&exchange, Marks::NONE));
        assert!(Role::Peer.may_send(&exchange, Marks::NONE));
        assert!(Role::Peer.may_send(&topology, forwarded));
    }
}
