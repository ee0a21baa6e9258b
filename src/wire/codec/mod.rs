//! Requests and answers as frames: the layouts of the hot messages, laid by hand.
//!
//! Within a payload, what has a fixed width comes first and what has not comes last. What may be
//! absent is announced by a bit in a byte of options; an option nobody knows is an error, as are
//! bytes left over, so that each message has exactly one encoding. Requests are in `requests`,
//! answers in `answers`, and this file has what both are made of.
//!
//! An encoder never writes what its decoder refuses: texts are cut to their bound, and a message
//! that is too large for a frame is reported ([`Oversize`]) or, as an answer, replaced by a
//! failure that says so.

mod answers;
mod requests;

use bytes::{BufMut, Bytes, BytesMut};

pub use answers::{decode_response, encode_response};
pub(super) use answers::{put_failure_code, put_topology, read_failure_code, read_topology};
pub use requests::{decode_request, encode_request};

use super::WireError;
use super::frame::{self, Frame, Kind, Marks};
use crate::codec::{CodecError, Reader, Write as _};
use crate::key::Key;
use crate::limits;

/// Most hops of one trace that travel; more are left out. A request to thirteen replicas with
/// retries makes some fifty.
pub const TRACE_HOPS: usize = 256;

/// The message does not fit a frame. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes is above the limit of {most}")]
pub struct Oversize {
    /// Bytes of the message.
    pub bytes: usize,
    /// The bound it passed.
    pub most: usize,
}

/// Appends a frame, or nothing if its payload is above `most`.
fn encode_within(
    out: &mut BytesMut,
    (kind, marks, id): (Kind, Marks, u64),
    most: usize,
    write_payload: impl FnOnce(&mut BytesMut),
) -> Result<(), Oversize> {
    let start = out.len();
    frame::encode(out, kind, marks, id, write_payload);
    let bytes = out.len() - start - frame::HEADER_BYTES;
    if bytes > most {
        out.truncate(start);
        return Err(Oversize { bytes, most });
    }
    Ok(())
}

/// Reads a payload that is one message, whole.
fn decode_whole<T>(
    frame: &Frame,
    read: impl FnOnce(&mut Reader) -> Result<T, WireError>,
) -> Result<T, WireError> {
    let mut input = Reader::new(frame.payload.clone());
    let message = read(&mut input)?;
    input.finish()?;
    Ok(message)
}

fn put_key(out: &mut BytesMut, key: &Key) {
    let bucket = key.bucket();
    out.put_u8(bucket.len() as u8);
    out.put_slice(bucket.as_bytes());
    out.put_bytes_with_length(key.name());
}

fn read_key(input: &mut Reader) -> Result<Key, WireError> {
    let length = input.u8("bucket")?;
    let bucket = input.take(length.into(), "bucket")?;
    let name = input.bytes(limits::KEY_BYTES_HARD, "key")?;
    Ok(Key::new(&bucket, &name)?)
}

/// Appends `text`, cut to `most` bytes at the boundary of a character.
pub(super) fn put_text(out: &mut BytesMut, text: &str, most: usize) {
    let cut = text.floor_char_boundary(most);
    out.put_bytes_with_length(&text.as_bytes()[..cut]);
}

fn read_context(input: &mut Reader) -> Result<Bytes, CodecError> {
    input.bytes(limits::CONTEXT_BYTES, "context")
}

/// An encoded object. It is bounded by its frame alone: a *put* that would make an object larger
/// than [`limits::OBJECT_BYTES`] is refused by the coordinator, but merging may pass that bound,
/// and a replica that refused the merged object would never converge.
fn read_object(input: &mut Reader) -> Result<Bytes, CodecError> {
    input.bytes(limits::FRAME_PAYLOAD_BYTES, "object")
}

/// A byte of options, of which only those in `known` may be set.
fn read_options(input: &mut Reader, known: u8, what: &'static str) -> Result<u8, CodecError> {
    match input.u8(what)? {
        options if options & !known == 0 => Ok(options),
        _ => Err(CodecError::Invalid(what)),
    }
}
