//! Foca's messages as bytes, laid out by hand.
//!
//! ```text
//!   identity     member id 16, generation 4, family 1 (4 or 6), address 4 or 16, port 2
//!   header       message 1, source identity, its incarnation 2, destination identity,
//!                then for a probe its number 1, and for an indirect one the third identity
//!   member       identity, incarnation 2, state 1 (0 alive, 1 suspect, 2 down),
//!                and for a suspect the id 16 of whoever began to suspect it
//! ```
//!
//! Little-endian. Foca puts a big-endian count of 2 bytes between header and members, and a
//! big-endian length of 2 bytes before each broadcast behind them. The accuser is ours: foca knows
//! of none, so it goes to the [`Hearsay`](super::hearsay::Hearsay).

use core::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut, BytesMut};
use foca::{Codec, Header, Member, Message, State};

use super::hearsay::Shared;
use super::identity::Identity;
use crate::codec::CodecError;
use crate::ids::NodeId;

/// The first byte of the message that tells a member it is taken to be down.
pub(super) const TURN_UNDEAD: u8 = 10;

/// Writes and reads foca's messages; keeps what they say about suspicions.
#[derive(Debug)]
pub(super) struct WireCodec {
    pub(super) me: NodeId,
    pub(super) hearsay: Shared,
}

impl Codec<Identity> for WireCodec {
    type Error = CodecError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), CodecError> {
        let mut out = BytesMut::with_capacity(128);
        let (message, third, number) = parts(&header.message);
        out.put_u8(message);
        put_identity(&mut out, &header.src);
        out.put_u16_le(header.src_incarnation);
        put_identity(&mut out, &header.dst);
        if let Some(number) = number {
            out.put_u8(number);
        }
        if let Some(third) = third {
            put_identity(&mut out, third);
        }
        self.hearsay.lock().spoke(header.src.generation, header.src_incarnation);
        put_whole(&mut buf, &out)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let message = u8(&mut buf)?;
        let src = identity(&mut buf)?;
        let src_incarnation = u16(&mut buf)?;
        let dst = identity(&mut buf)?;
        let message = message_of(message, &mut buf)?;
        self.hearsay.lock().mention(src.node);
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), CodecError> {
        let mut out = BytesMut::with_capacity(64);
        put_member(&mut out, member);
        if member.state() == State::Suspect {
            let hearsay = self.hearsay.lock();
            let accusation = hearsay.accusation(member.id().node);
            // Without an accusation it is this node that begins one, just now.
            let by = accusation.and_then(|accusation| accusation.by.first()).unwrap_or(&self.me);
            out.put_u128_le(by.0);
        }
        put_whole(&mut buf, &out)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        let id = identity(&mut buf)?;
        let incarnation = u16(&mut buf)?;
        let state = state_of(u8(&mut buf)?)?;
        let mut hearsay = self.hearsay.lock();
        match state {
            State::Suspect => {
                let by = buf.try_get_u128_le().map_err(|_| CodecError::Truncated("accuser"))?;
                hearsay.accuse(&id, incarnation, NodeId(by));
            }
            State::Alive | State::Down => hearsay.mention(id.node),
        }
        Ok(Member::new(id, incarnation, state))
    }
}

/// A member without its accuser: what views are compared by.
pub(super) fn put_member(out: &mut BytesMut, member: &Member<Identity>) {
    put_identity(out, member.id());
    out.put_u16_le(member.incarnation());
    out.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

/// All of it or nothing, as foca asks.
fn put_whole(buf: &mut impl BufMut, bytes: &[u8]) -> Result<(), CodecError> {
    if buf.remaining_mut() < bytes.len() {
        let (actual, most) = (bytes.len() as u64, buf.remaining_mut() as u64);
        return Err(CodecError::TooLong { what: "gossip", actual, most });
    }
    buf.put_slice(bytes);
    Ok(())
}

fn put_identity(out: &mut BytesMut, identity: &Identity) {
    out.reserve(identity.encoded_bytes());
    out.put_u128_le(identity.node.0);
    out.put_u32_le(identity.generation);
    match identity.address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16_le(identity.address.port());
}

/// The message's number, the identity it is also about, and the number of its probe.
fn parts(message: &Message<Identity>) -> (u8, Option<&Identity>, Option<u8>) {
    match message {
        Message::Ping(number) => (0, None, Some(*number)),
        Message::Ack(number) => (1, None, Some(*number)),
        Message::PingReq { target, probe_number } => (2, Some(target), Some(*probe_number)),
        Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(*probe_number)),
        Message::IndirectAck { target, probe_number } => (4, Some(target), Some(*probe_number)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(*probe_number)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (TURN_UNDEAD, None, None),
    }
}

fn message_of(message: u8, buf: &mut impl Buf) -> Result<Message<Identity>, CodecError> {
    let probe_number = if message <= 5 { u8(buf)? } else { 0 };
    Ok(match message {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq { target: identity(buf)?, probe_number },
        3 => Message::IndirectPing { origin: identity(buf)?, probe_number },
        4 => Message::IndirectAck { target: identity(buf)?, probe_number },
        5 => Message::ForwardedAck { origin: identity(buf)?, probe_number },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        TURN_UNDEAD => Message::TurnUndead,
        _ => return Err(CodecError::Invalid("gossip message")),
    })
}

fn state_of(state: u8) -> Result<State, CodecError> {
    match state {
        0 => Ok(State::Alive),
        1 => Ok(State::Suspect),
        2 => Ok(State::Down),
        _ => Err(CodecError::Invalid("state")),
    }
}

fn identity(buf: &mut impl Buf) -> Result<Identity, CodecError> {
    const WHAT: CodecError = CodecError::Truncated("identity");
    let node = NodeId(buf.try_get_u128_le().map_err(|_| WHAT)?);
    let generation = buf.try_get_u32_le().map_err(|_| WHAT)?;
    let ip = match u8(buf)? {
        4 => {
            let mut octets = [0; 4];
            buf.try_copy_to_slice(&mut octets).map_err(|_| WHAT)?;
            IpAddr::from(octets)
        }
        6 => {
            let mut octets = [0; 16];
            buf.try_copy_to_slice(&mut octets).map_err(|_| WHAT)?;
            IpAddr::from(octets)
        }
        _ => return Err(CodecError::Invalid("address family")),
    };
    let port = u16(buf)?;
    Ok(Identity { node, generation, address: SocketAddr::new(ip, port) })
}

fn u8(buf: &mut impl Buf) -> Result<u8, CodecError> {
    buf.try_get_u8().map_err(|_| CodecError::Truncated("gossip"))
}

fn u16(buf: &mut impl Buf) -> Result<u16, CodecError> {
    buf.try_get_u16_le().map_err(|_| CodecError::Truncated("gossip"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec() -> WireCodec {
        WireCodec { me: NodeId(1), hearsay: Shared::new() }
    }

    fn identities() -> [Identity; 2] {
        [
            Identity::new(NodeId(7), 3, "10.1.2.3:7400".parse().unwrap()),
            Identity::new(NodeId(8), u32::MAX, "[2001:db8::1]:7400".parse().unwrap()),
        ]
    }

    fn messages(third: Identity) -> Vec<Message<Identity>> {
        let probe_number = 200;
        vec![
            Message::Ping(probe_number),
            Message::Ack(probe_number),
            Message::PingReq { target: third, probe_number },
            Message::IndirectPing { origin: third, probe_number },
            Message::IndirectAck { target: third, probe_number },
            Message::ForwardedAck { origin: third, probe_number },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ]
    }

    #[test]
    fn headers_read_back_whole_and_never_from_a_part() {
        let [src, dst] = identities();
        for message in messages(dst) {
            let header = Header { src, src_incarnation: 9, dst, message };
            let mut bytes = Vec::new();
            codec().encode_header(&header, &mut bytes).unwrap();
            assert_eq!(codec().decode_header(&bytes[..]).unwrap(), header);
            for length in 0..bytes.len() {
                assert!(codec().decode_header(&bytes[..length]).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn a_member_that_does_not_fit_leaves_nothing_behind() {
        for id in identities() {
            for state in [State::Alive, State::Suspect, State::Down] {
                let member = Member::new(id, 3, state);
                let mut bytes = Vec::new();
                codec().encode_member(&member, &mut bytes).unwrap();
                assert_eq!(codec().decode_member(&bytes[..]).unwrap(), member);
                let mut short = Vec::new().limit(bytes.len() - 1);
                assert!(codec().encode_member(&member, &mut short).is_err());
                assert!(short.get_ref().is_empty());
            }
        }
    }

    #[test]
    fn the_first_accuser_travels_with_the_accusation() {
        let [accused, _] = identities();
        let member = Member::new(accused, 4, State::Suspect);
        let mut bytes = Vec::new();
        codec().encode_member(&member, &mut bytes).unwrap();
        let mut second = WireCodec { me: NodeId(2), hearsay: Shared::new() };
        second.decode_member(&bytes[..]).unwrap();
        let mut again = Vec::new();
        second.encode_member(&member, &mut again).unwrap();
        assert_eq!(bytes, again, "passed on under the name of who began it");
    }

    #[test]
    fn unknown_messages_states_and_families_are_refused() {
        let [id, _] = identities();
        let mut bytes = BytesMut::new();
        put_member(&mut bytes, &Member::new(id, 0, State::Alive));
        for (at, value) in [(20, 5), (bytes.len() - 1, 3)] {
            let mut bad = bytes.to_vec();
            bad[at] = value;
            assert!(codec().decode_member(&bad[..]).is_err());
        }
        assert!(message_of(11, &mut &[0_u8; 64][..]).is_err());
    }
}
