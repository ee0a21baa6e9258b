//! GOT, DONE, HELD, STORED, CONTROL_REPLY and FAILED.

use bytes::{BufMut, BytesMut};

use super::{Oversize, TRACE_HOPS, WireError, decode_whole, encode_within, put_text};
use super::{read_context, read_object, read_options};
use crate::causality::{Actor, Dot, Hlc};
use crate::codec::{CodecError, Reader, Write as _};
use crate::ids::{Incarnation, NodeId, WriteId};
use crate::limits;
use crate::time::WallMs;
use crate::wire::control;
use crate::wire::frame::{self, Frame, Kind, Marks};
use crate::wire::messages::{
    Done, Failure, FailureCode, Got, Held, HeldObject, Hop, Outcome, Receipt, Response, Stored,
    TopologyVersion, Value,
};

/// GOT: a deletion is remembered.
const DELETED: u8 = 1;
/// A value of GOT: it has a time of expiry.
const EXPIRES: u8 = 1;
/// HELD: the two lowest bits say what follows.
const HELD_OBJECT: u8 = 0b011;
const AMNESIAC: u8 = 0b100;
/// STORED: the write was synced.
const FSYNCED: u8 = 1;
/// FAILED: a write id follows.
const HAS_WRITE_ID: u8 = 1;

/// Every failure code with its number on the wire. A number is never given twice.
const FAILURE_CODES: [(FailureCode, u8); 18] = [
    (FailureCode::Unavailable, 1),
    (FailureCode::Unknown, 2),
    (FailureCode::Timeout, 3),
    (FailureCode::Busy, 4),
    (FailureCode::Exists, 5),
    (FailureCode::Absent, 6),
    (FailureCode::Siblings, 7),
    (FailureCode::BadContext, 8),
    (FailureCode::TooLarge, 9),
    (FailureCode::Draining, 10),
    (FailureCode::NoBucket, 11),
    (FailureCode::Forming, 12),
    (FailureCode::DiskFull, 13),
    (FailureCode::Corrupt, 14),
    (FailureCode::Denied, 15),
    (FailureCode::Invalid, 16),
    (FailureCode::Internal, 17),
    (FailureCode::Stale, 18),
];

/// Appends `response` as one frame. One that does not fit is replaced by a failure that says so:
/// whoever asked always gets an answer.
pub fn encode_response(out: &mut BytesMut, id: u64, response: &Response) {
    let most = limits::FRAME_PAYLOAD_BYTES;
    let head = |kind| (kind, Marks::NONE, id);
    let written = match response {
        Response::Got(got) => encode_within(out, head(Kind::Got), most, |out| put_got(out, got)),
        Response::Done(done) => {
            encode_within(out, head(Kind::Done), most, |out| put_done(out, done))
        }
        Response::Held(held) => {
            encode_within(out, head(Kind::Held), most, |out| put_held(out, held))
        }
        Response::Stored(stored) => encode_within(out, head(Kind::Stored), most, |out| {
            out.put_u8(if stored.fsynced { FSYNCED } else { 0 });
        }),
        Response::Control(reply) => {
            encode_within(out, head(Kind::ControlReply), limits::CONTROL_BYTES, |out| {
                out.put_slice(&control::encode(reply));
            })
        }
        Response::Failed(failure) => {
            encode_within(out, head(Kind::Failed), most, |out| put_failure(out, failure))
        }
    };
    if let Err(oversize) = written {
        let failure = replacement(oversize);
        frame::encode(out, Kind::Failed, Marks::NONE, id, |out| put_failure(out, &failure));
    }
}

fn replacement(Oversize { bytes, most }: Oversize) -> Failure {
    let message = format!("the answer has {bytes} bytes; at most {most} can be sent");
    Failure::not_applied(FailureCode::TooLarge, message)
}

/// Reads the answer in `frame`. Values and objects share its memory.
///
/// # Errors
/// [`WireError`]; whoever asked has no answer, and a write's outcome is unknown.
pub fn decode_response(frame: &Frame) -> Result<Response, WireError> {
    match frame.kind {
        Kind::Got => decode_whole(frame, read_got).map(Response::Got),
        Kind::Done => decode_whole(frame, read_done).map(Response::Done),
        Kind::Held => decode_whole(frame, read_held).map(Response::Held),
        Kind::Stored => decode_whole(frame, |input| {
            let options = read_options(input, FSYNCED, "options of stored")?;
            Ok(Response::Stored(Stored { fsynced: options != 0 }))
        }),
        Kind::ControlReply => Ok(Response::Control(control::decode(&frame.payload)?)),
        Kind::Failed => decode_whole(frame, read_failure).map(Response::Failed),
        other => Err(WireError::Unexpected(other)),
    }
}

pub(in crate::wire) fn put_failure_code(out: &mut BytesMut, code: FailureCode) {
    let row = FAILURE_CODES.iter().find(|(known, _)| *known == code);
    out.put_u8(row.expect("the table has every code; a test holds it to that").1);
}

pub(in crate::wire) fn read_failure_code(input: &mut Reader) -> Result<FailureCode, CodecError> {
    let number = input.u8("failure code")?;
    let row = FAILURE_CODES.iter().find(|(_, known)| *known == number);
    row.map(|(code, _)| *code).ok_or(CodecError::Invalid("failure code"))
}

pub(in crate::wire) fn put_topology(out: &mut BytesMut, topology: TopologyVersion) {
    out.put_u64_le(topology.epoch);
    out.put_u64_le(topology.hash);
}

pub(in crate::wire) fn read_topology(input: &mut Reader) -> Result<TopologyVersion, CodecError> {
    Ok(TopologyVersion { epoch: input.u64("epoch")?, hash: input.u64("topology hash")? })
}

fn put_receipt(out: &mut BytesMut, receipt: &Receipt) {
    let Receipt { n, needed, acks, primaries, fallbacks, fsynced, zones, .. } = *receipt;
    out.put_slice(&[n, needed, acks, primaries, fallbacks, fsynced, zones]);
    out.put_u128_le(receipt.coordinator.0);
    out.put_u32_le(receipt.micros);
    put_topology(out, receipt.topology);
}

fn read_receipt(input: &mut Reader) -> Result<Receipt, CodecError> {
    Ok(Receipt {
        n: input.u8("receipt")?,
        needed: input.u8("receipt")?,
        acks: input.u8("receipt")?,
        primaries: input.u8("receipt")?,
        fallbacks: input.u8("receipt")?,
        fsynced: input.u8("receipt")?,
        zones: input.u8("receipt")?,
        coordinator: NodeId(input.u128("coordinator")?),
        micros: input.u32("receipt")?,
        topology: read_topology(input)?,
    })
}

fn put_got(out: &mut BytesMut, got: &Got) {
    out.put_u8(if got.deleted { DELETED } else { 0 });
    put_receipt(out, &got.receipt);
    out.put_bytes_with_length(&got.context);
    out.put_varint(got.values.len() as u64);
    for value in &got.values {
        put_value(out, value);
    }
    let hops = &got.trace[..got.trace.len().min(TRACE_HOPS)];
    out.put_varint(hops.len() as u64);
    for hop in hops {
        out.put_u128_le(hop.node.0);
        out.put_u32_le(hop.micros);
        put_text(out, &hop.what, limits::MESSAGE_BYTES);
    }
}

fn read_got(input: &mut Reader) -> Result<Got, WireError> {
    let deleted = read_options(input, DELETED, "options of got")? != 0;
    let receipt = read_receipt(input)?;
    let context = read_context(input)?;
    let values = read_list(input, limits::SIBLINGS_DECODE, "values", read_value)?;
    let trace = read_list(input, TRACE_HOPS, "hops", |input| {
        Ok(Hop {
            node: NodeId(input.u128("hop")?),
            micros: input.u32("hop")?,
            what: input.text(limits::MESSAGE_BYTES, "hop")?,
        })
    })?;
    Ok(Got { context, values, deleted, receipt, trace })
}

/// A count and as many items. Room is made for what the bytes left can hold, not for what the
/// count claims.
fn read_list<T>(
    input: &mut Reader,
    most: usize,
    what: &'static str,
    mut read: impl FnMut(&mut Reader) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    /// No item of any list here is smaller.
    const ITEM_BYTES_LEAST: usize = 21;
    let count = input.length(most, what)?;
    let mut items = Vec::with_capacity(count.min(input.remaining() / ITEM_BYTES_LEAST));
    for _ in 0..count {
        items.push(read(input)?);
    }
    Ok(items)
}

fn put_value(out: &mut BytesMut, value: &Value) {
    out.put_u64_le(value.dot.actor.incarnation.0);
    out.put_u64_le(value.dot.actor.k);
    out.put_u64_le(value.dot.counter);
    out.put_u128_le(value.write_id.0);
    out.put_u64_le(value.hlc.0);
    out.put_u8(if value.expires_at.is_some() { EXPIRES } else { 0 });
    if let Some(WallMs(expires_at)) = value.expires_at {
        out.put_u64_le(expires_at);
    }
    out.put_bytes_with_length(&value.data);
}

fn read_value(input: &mut Reader) -> Result<Value, CodecError> {
    let actor = Actor { incarnation: Incarnation(input.u64("dot")?), k: input.u64("dot")? };
    let dot = Dot { actor, counter: input.u64("dot")? };
    let write_id = WriteId(input.u128("write id")?);
    let hlc = Hlc(input.u64("timestamp")?);
    let expires = read_options(input, EXPIRES, "options of a value")? != 0;
    let expires_at = expires.then(|| input.u64("expiry")).transpose()?.map(WallMs);
    let data = input.bytes(limits::VALUE_BYTES_HARD, "value")?;
    Ok(Value { dot, write_id, hlc, expires_at, data })
}

fn put_done(out: &mut BytesMut, done: &Done) {
    put_receipt(out, &done.receipt);
    out.put_bytes_with_length(&done.context);
}

fn read_done(input: &mut Reader) -> Result<Done, WireError> {
    let receipt = read_receipt(input)?;
    Ok(Done { context: read_context(input)?, receipt })
}

fn put_held(out: &mut BytesMut, held: &Held) {
    let amnesiac = if held.amnesiac { AMNESIAC } else { 0 };
    match &held.object {
        HeldObject::Missing => out.put_u8(amnesiac),
        HeldObject::Full(object) => {
            out.put_u8(1 | amnesiac);
            out.put_bytes_with_length(object);
        }
        HeldObject::Digest(digest) => {
            out.put_u8(2 | amnesiac);
            out.put_u128_le(*digest);
        }
    }
}

fn read_held(input: &mut Reader) -> Result<Held, WireError> {
    let options = read_options(input, HELD_OBJECT | AMNESIAC, "options of held")?;
    let object = match options & HELD_OBJECT {
        0 => HeldObject::Missing,
        1 => HeldObject::Full(read_object(input)?),
        2 => HeldObject::Digest(input.u128("digest")?),
        _ => return Err(CodecError::Invalid("held object").into()),
    };
    Ok(Held { object, amnesiac: options & AMNESIAC != 0 })
}

fn put_failure(out: &mut BytesMut, failure: &Failure) {
    put_failure_code(out, failure.code);
    out.put_u8(match failure.outcome {
        Outcome::NotApplied => 0,
        Outcome::Unknown => 1,
    });
    out.put_slice(&[failure.acks, failure.needed]);
    out.put_u32_le(failure.retry_after_ms);
    out.put_u8(if failure.write_id.is_some() { HAS_WRITE_ID } else { 0 });
    if let Some(WriteId(write_id)) = failure.write_id {
        out.put_u128_le(write_id);
    }
    out.put_bytes_with_length(&failure.context);
    put_text(out, &failure.message, limits::MESSAGE_BYTES);
}

fn read_failure(input: &mut Reader) -> Result<Failure, WireError> {
    let code = read_failure_code(input)?;
    let outcome = match input.u8("outcome")? {
        0 => Outcome::NotApplied,
        1 => Outcome::Unknown,
        _ => return Err(CodecError::Invalid("outcome").into()),
    };
    let acks = input.u8("acks")?;
    let needed = input.u8("needed")?;
    let retry_after_ms = input.u32("retry after")?;
    let has_write_id = read_options(input, HAS_WRITE_ID, "options of a failure")? != 0;
    let write_id = has_write_id.then(|| input.u128("write id")).transpose()?.map(WriteId);
    let context = read_context(input)?;
    let message = input.text(limits::MESSAGE_BYTES, "message")?;
    Ok(Failure { code, outcome, acks, needed, write_id, context, retry_after_ms, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_code_has_a_number_of_its_own() {
        // The match has no wildcard: a new code does not compile here until it has its number.
        let number = |code| match code {
            FailureCode::Unavailable => 1,
            FailureCode::Unknown => 2,
            FailureCode::Timeout => 3,
            FailureCode::Busy => 4,
            FailureCode::Exists => 5,
            FailureCode::Absent => 6,
            FailureCode::Siblings => 7,
            FailureCode::BadContext => 8,
            FailureCode::TooLarge => 9,
            FailureCode::Draining => 10,
            FailureCode::NoBucket => 11,
            FailureCode::Forming => 12,
            FailureCode::DiskFull => 13,
            FailureCode::Corrupt => 14,
            FailureCode::Denied => 15,
            FailureCode::Invalid => 16,
            FailureCode::Internal => 17,
            FailureCode::Stale => 18,
        };
        for (place, (code, listed)) in FAILURE_CODES.into_iter().enumerate() {
            assert_eq!(number(code), listed);
            assert_eq!(usize::from(listed), place + 1);
        }
    }
}
