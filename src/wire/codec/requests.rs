//! GET, PUT, READ, WRITE and CONTROL.

use bytes::{BufMut, BytesMut};

use super::{Oversize, WireError, decode_whole, encode_within, put_key};
use super::{read_context, read_key, read_object, read_options};
use crate::codec::{CodecError, Reader, Write as _};
use crate::ids::{NodeId, WriteId};
use crate::limits;
use crate::time::WallMs;
use crate::wire::control;
use crate::wire::frame::{Frame, Kind, Marks};
use crate::wire::messages::{
    Basis, Condition, Expiry, Get, Level, Purpose, Put, Read, Request, Write,
};

/// GET: fill the trace.
const TRACE: u8 = 1;
/// GET: only owners count.
const GET_STRICT: u8 = 2;
/// READ: a digest will do.
const DIGEST: u8 = 1;
/// READ: what is held for others counts too.
const FALLBACK: u8 = 2;

/// PUT: the two lowest bits of the options are the basis, the next two the condition.
const BASIS: u8 = 0b0000_0011;
const CONDITION: u8 = 0b0000_1100;
const CONDITION_SHIFT: u32 = 2;
const HAS_VALUE: u8 = 0b0001_0000;
const HAS_TTL: u8 = 0b0010_0000;
const PUT_STRICT: u8 = 0b0100_0000;
/// With [`HAS_TTL`]: a time, not a span; [`NEVER`] for none.
const TTL_IS_TIME: u8 = 0b1000_0000;
const NEVER: u64 = u64::MAX;

/// WRITE: the purpose of a hint, which its owner follows.
const HINT: u8 = 3;

const LEVEL_DEFAULT: u8 = 0;
/// What a count outside 1 to 13 is written as: no decoder takes it, so that it is refused rather
/// than taken for another level.
const LEVEL_NONE: u8 = 0xfd;
const LEVEL_QUORUM: u8 = 0xfe;
const LEVEL_ALL: u8 = 0xff;

/// Appends `request` as one frame. When it was sent is said of GET and PUT alone: another node's READ
/// and WRITE are worth as much when they come late.
///
/// # Errors
/// [`Oversize`] when it does not fit; nothing was written.
pub fn encode_request(
    out: &mut BytesMut,
    id: u64,
    marks: Marks,
    request: &Request,
) -> Result<(), Oversize> {
    let most = limits::FRAME_PAYLOAD_BYTES;
    let untimed = Marks { sent: None, ..marks };
    match request {
        Request::Get(get) => {
            encode_within(out, (Kind::Get, marks, id), most, |out| put_get(out, get))
        }
        Request::Put(put) => {
            encode_within(out, (Kind::Put, marks, id), most, |out| put_put(out, put))
        }
        Request::Read(read) => {
            encode_within(out, (Kind::Read, untimed, id), most, |out| put_read(out, read))
        }
        Request::Write(write) => {
            encode_within(out, (Kind::Write, untimed, id), most, |out| put_write(out, write))
        }
        Request::Control(message) => {
            let head = (Kind::Control, untimed, id);
            encode_within(out, head, limits::CONTROL_BYTES, |out| {
                out.put_slice(&control::encode(message))
            })
        }
    }
}

/// Reads the request in `frame`. Values and objects share its memory.
///
/// # Errors
/// [`WireError`]; answer with a failure under the frame's id.
pub fn decode_request(frame: &Frame) -> Result<Request, WireError> {
    match frame.kind {
        Kind::Get => decode_whole(frame, read_get).map(Request::Get),
        Kind::Put => decode_whole(frame, read_put).map(Request::Put),
        Kind::Read => decode_whole(frame, read_read).map(Request::Read),
        Kind::Write => decode_whole(frame, read_write).map(Request::Write),
        Kind::Control => Ok(Request::Control(control::decode(&frame.payload)?)),
        other => Err(WireError::Unexpected(other)),
    }
}

fn put_level(out: &mut BytesMut, level: Level) {
    out.put_u8(match level {
        Level::Default => LEVEL_DEFAULT,
        Level::Count(count @ 1..=limits::REPLICAS_MAX) => count,
        Level::Count(_) => LEVEL_NONE,
        Level::Quorum => LEVEL_QUORUM,
        Level::All => LEVEL_ALL,
    });
}

fn read_level(input: &mut Reader) -> Result<Level, CodecError> {
    match input.u8("level")? {
        LEVEL_DEFAULT => Ok(Level::Default),
        count @ 1..=limits::REPLICAS_MAX => Ok(Level::Count(count)),
        LEVEL_QUORUM => Ok(Level::Quorum),
        LEVEL_ALL => Ok(Level::All),
        _ => Err(CodecError::Invalid("level")),
    }
}

/// A budget above the longest allowed reads as the longest allowed.
fn read_budget(input: &mut Reader) -> Result<u32, CodecError> {
    Ok(input.u32("budget")?.min(limits::BUDGET_MS_MAX))
}

fn put_get(out: &mut BytesMut, get: &Get) {
    put_level(out, get.r);
    put_level(out, get.pr);
    out.put_u8(u8::from(get.trace) * TRACE + u8::from(get.strict) * GET_STRICT);
    out.put_u32_le(get.budget_ms);
    put_key(out, &get.key);
}

fn read_get(input: &mut Reader) -> Result<Get, WireError> {
    let r = read_level(input)?;
    let pr = read_level(input)?;
    let options = read_options(input, TRACE | GET_STRICT, "options of a get")?;
    let (trace, strict) = (options & TRACE != 0, options & GET_STRICT != 0);
    let budget_ms = read_budget(input)?;
    Ok(Get { key: read_key(input)?, r, pr, budget_ms, strict, trace })
}

fn put_put(out: &mut BytesMut, put: &Put) {
    let basis = match put.basis {
        Basis::Context(_) => 0,
        Basis::Blind => 1,
        Basis::Observed => 2,
    };
    let condition = match put.condition {
        Condition::None => 0,
        Condition::Absent => 1,
        Condition::Present => 2,
        Condition::Unchanged => 3,
    };
    let value = if put.value.is_some() { HAS_VALUE } else { 0 };
    let (ttl, millis) = match put.expiry {
        Expiry::Bucket => (0, None),
        Expiry::After(ttl_ms) => (HAS_TTL, Some(ttl_ms)),
        Expiry::At(WallMs(at)) => (HAS_TTL | TTL_IS_TIME, Some(at)),
        Expiry::Never => (HAS_TTL | TTL_IS_TIME, Some(NEVER)),
    };
    out.put_u128_le(put.write_id.0);
    out.put_u8(put.attempt);
    let strict = if put.strict { PUT_STRICT } else { 0 };
    out.put_u8(basis | condition << CONDITION_SHIFT | value | ttl | strict);
    put_level(out, put.w);
    put_level(out, put.pw);
    out.put_u32_le(put.budget_ms);
    if let Some(millis) = millis {
        out.put_u64_le(millis);
    }
    put_key(out, &put.key);
    if let Basis::Context(context) = &put.basis {
        out.put_bytes_with_length(context);
    }
    if let Some(value) = &put.value {
        out.put_bytes_with_length(value);
    }
}

fn read_put(input: &mut Reader) -> Result<Put, WireError> {
    let write_id = WriteId(input.u128("write id")?);
    let attempt = input.u8("attempt")?;
    let known = BASIS | CONDITION | HAS_VALUE | HAS_TTL | PUT_STRICT | TTL_IS_TIME;
    let options = read_options(input, known, "options of a put")?;
    let strict = options & PUT_STRICT != 0;
    let w = read_level(input)?;
    let pw = read_level(input)?;
    let budget_ms = read_budget(input)?;
    let expiry = match (options & HAS_TTL != 0, options & TTL_IS_TIME != 0) {
        (false, false) => Expiry::Bucket,
        (false, true) => return Err(CodecError::Invalid("expiry, which is missing").into()),
        (true, false) => Expiry::After(input.u64("time to live")?),
        (true, true) => match input.u64("expiry")? {
            NEVER => Expiry::Never,
            at => Expiry::At(WallMs(at)),
        },
    };
    let key = read_key(input)?;
    let basis = match options & BASIS {
        0 => Basis::Context(read_context(input)?),
        1 => Basis::Blind,
        2 => Basis::Observed,
        _ => return Err(CodecError::Invalid("basis").into()),
    };
    let condition = match (options & CONDITION) >> CONDITION_SHIFT {
        0 => Condition::None,
        1 => Condition::Absent,
        2 => Condition::Present,
        _ => Condition::Unchanged,
    };
    let fits = match condition {
        Condition::None => true,
        Condition::Absent | Condition::Present => basis == Basis::Observed,
        Condition::Unchanged => matches!(basis, Basis::Context(_)),
    };
    if !fits {
        return Err(CodecError::Invalid("condition, which does not go with the basis").into());
    }
    let value = (options & HAS_VALUE != 0)
        .then(|| input.bytes(limits::VALUE_BYTES_HARD, "value"))
        .transpose()?;
    Ok(Put { key, write_id, attempt, basis, condition, value, expiry, w, pw, strict, budget_ms })
}

fn put_read(out: &mut BytesMut, read: &Read) {
    out.put_u8(u8::from(read.digest) * DIGEST + u8::from(read.fallback) * FALLBACK);
    out.put_u64_le(read.slots);
    out.put_u32_le(read.budget_ms);
    put_key(out, &read.key);
}

fn read_read(input: &mut Reader) -> Result<Read, WireError> {
    let options = read_options(input, DIGEST | FALLBACK, "options of a read")?;
    let (digest, fallback) = (options & DIGEST != 0, options & FALLBACK != 0);
    let slots = input.u64("slots")?;
    let budget_ms = read_budget(input)?;
    Ok(Read { key: read_key(input)?, digest, fallback, slots, budget_ms })
}

fn put_write(out: &mut BytesMut, write: &Write) {
    out.put_u8(match write.purpose {
        Purpose::Replicate => 0,
        Purpose::Repair => 1,
        Purpose::Restore => 2,
        Purpose::Hint(_) => HINT,
        Purpose::Handoff => 4,
    });
    if let Purpose::Hint(NodeId(owner)) = write.purpose {
        out.put_u128_le(owner);
    }
    out.put_u64_le(write.slots);
    out.put_u32_le(write.budget_ms);
    put_key(out, &write.key);
    out.put_bytes_with_length(&write.object);
}

fn read_write(input: &mut Reader) -> Result<Write, WireError> {
    let purpose = match input.u8("purpose")? {
        0 => Purpose::Replicate,
        1 => Purpose::Repair,
        2 => Purpose::Restore,
        HINT => Purpose::Hint(NodeId(input.u128("owner of a hint")?)),
        4 => Purpose::Handoff,
        _ => return Err(CodecError::Invalid("purpose").into()),
    };
    let slots = input.u64("slots")?;
    let budget_ms = read_budget(input)?;
    Ok(Write { key: read_key(input)?, object: read_object(input)?, purpose, slots, budget_ms })
}
