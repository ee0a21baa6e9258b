//! Objects as bytes: on disk, on the wire, and under a digest.
//!
//! One object has exactly one encoding, so replicas compare digests instead of objects.
//!
//! ```text
//! version   1 byte, 1
//! clock     runs, then gaps, see VersionVector::encode_to
//! replaced  varint count, then ascending: timestamp u64 | low half of a write id u64
//! siblings  varint count, then ascending: place of its run in the clock varint | counter varint
//!                                         write id u128 | hlc u64 | kind 1 byte
//!                                         expiry varint, if kind has bit 1
//!                                         after u64, not zero, if kind has bit 2
//!                                         length varint | value, unless kind has bit 0
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::names::Names;
use super::version_vector::{PLACE_BYTES, VARINT_BYTES};
use super::{Content, Dot, Hlc, Object, Sibling, VersionVector};
use crate::codec::{CodecError, Reader, Write as _};
use crate::ids::WriteId;
use crate::key::Key;
use crate::limits;
use crate::time::WallMs;

/// The first byte of an encoded object.
const VERSION: u8 = 1;
const KIND_TOMBSTONE: u8 = 1;
const KIND_EXPIRES: u8 = 2;
const KIND_AFTER: u8 = 4;

/// Least bytes of an encoded sibling: a place, a counter, a write id, a timestamp and a kind.
const SIBLING_BYTES_MIN: usize = 1 + 1 + 16 + 8 + 1;
/// Most bytes of an encoded sibling without its value.
const SIBLING_BYTES_MAX: usize = PLACE_BYTES + 3 * VARINT_BYTES + 16 + 8 + 1 + 8;

impl Object {
    /// The object as bytes, the same for equal objects.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let value_bytes = |sibling: &Sibling| match &sibling.content {
            Content::Value(value) => value.len(),
            Content::Tombstone => 0,
        };
        let values: usize = self.siblings().iter().map(value_bytes).sum();
        let clock = self.clock().encoded_len_max();
        let siblings = VARINT_BYTES + self.siblings().len() * SIBLING_BYTES_MAX;
        let replaced = self.replaced().encoded_len_max();
        let mut out = BytesMut::with_capacity(1 + clock + replaced + siblings + values);
        out.put_u8(VERSION);
        self.clock().encode_to(&mut out);
        self.replaced().encode_to(&mut out);
        out.put_varint(self.siblings().len() as u64);
        for sibling in self.siblings() {
            encode_sibling(self.clock(), sibling, &mut out);
        }
        out.freeze()
    }

    /// Reads what [`Object::encode`] gave. Values share the memory of `bytes`.
    ///
    /// # Errors
    /// When the bytes are not exactly what an encoder writes, or pass a bound.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut input = Reader::new(bytes);
        if input.u8("object version")? != VERSION {
            return Err(CodecError::Invalid("object version"));
        }
        let clock = VersionVector::decode(&mut input)?;
        let replaced = Names::decode(&mut input)?;
        let count = input.length(limits::SIBLINGS_DECODE, "siblings")?;
        let room = count.min(input.remaining() / SIBLING_BYTES_MIN);
        let mut siblings = Vec::<Sibling>::with_capacity(room);
        for _ in 0..count {
            let sibling = decode_sibling(&clock, &mut input)?;
            if siblings.last().is_some_and(|last| *last >= sibling) {
                return Err(CodecError::Invalid("order of siblings"));
            }
            if replaced.end(&sibling) {
                return Err(CodecError::Invalid("sibling of a replaced write"));
            }
            siblings.push(sibling);
        }
        input.finish()?;
        Ok(Self::from_checked(clock, siblings, replaced))
    }

    /// A fingerprint of `key` at this version: equal on replicas that hold the same, different on
    /// others (but for a chance of 2⁻¹²⁸).
    #[must_use]
    pub fn digest(&self, key: &Key) -> u128 {
        digest_of(key, &self.encode())
    }
}

/// [`Object::digest`] of an object that is encoded already.
#[must_use]
pub fn digest_of(key: &Key, encoded: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    // With its length in front, no two pairs of key and object are hashed as the same bytes.
    hash.update(&(key.joined().len() as u64).to_le_bytes());
    hash.update(key.joined());
    hash.update(encoded);
    hash.digest128()
}

fn encode_sibling(clock: &VersionVector, sibling: &Sibling, out: &mut BytesMut) {
    let place = clock.position(sibling.dot);
    out.put_varint(place.expect("the clock contains every sibling's dot") as u64);
    out.put_varint(sibling.dot.counter);
    out.put_u128_le(sibling.write_id.0);
    out.put_u64_le(sibling.hlc.0);
    let tombstone = if sibling.content == Content::Tombstone { KIND_TOMBSTONE } else { 0 };
    let expires = if sibling.expires_at.is_some() { KIND_EXPIRES } else { 0 };
    let after = if sibling.after == Hlc::default() { 0 } else { KIND_AFTER };
    out.put_u8(tombstone | expires | after);
    if let Some(expiry) = sibling.expires_at {
        out.put_varint(expiry.0);
    }
    if after != 0 {
        out.put_u64_le(sibling.after.0);
    }
    if let Content::Value(value) = &sibling.content {
        out.put_bytes_with_length(value);
    }
}

fn decode_sibling(clock: &VersionVector, input: &mut Reader) -> Result<Sibling, CodecError> {
    let place = input.length(limits::CLOCK_ENTRIES, "sibling's actor")?;
    let (actor, known) = clock.at(place).ok_or(CodecError::Invalid("sibling's actor"))?;
    let counter = input.varint("sibling's counter")?;
    if !known.contains(&counter) {
        return Err(CodecError::Invalid("sibling's counter"));
    }
    let write_id = WriteId(input.u128("write id")?);
    let hlc = Hlc(input.u64("timestamp")?);
    let kind = input.u8("sibling's kind")?;
    if kind & !(KIND_TOMBSTONE | KIND_EXPIRES | KIND_AFTER) != 0 {
        return Err(CodecError::Invalid("sibling's kind"));
    }
    let expires_at = match kind & KIND_EXPIRES {
        0 => None,
        _ => Some(WallMs(input.varint("expiry")?)),
    };
    let after = match kind & KIND_AFTER {
        0 => Hlc::default(),
        _ => Hlc(input.u64("timestamp of what was seen")?),
    };
    if kind & KIND_AFTER != 0 && after == Hlc::default() {
        return Err(CodecError::Invalid("timestamp of what was seen"));
    }
    let content = match kind & KIND_TOMBSTONE {
        0 => Content::Value(input.bytes(limits::VALUE_BYTES_HARD, "value")?),
        _ => Content::Tombstone,
    };
    Ok(Sibling { dot: Dot { actor, counter }, write_id, hlc, after, expires_at, content })
}
