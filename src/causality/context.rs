//! What a client carries from a read or a write to the write that follows it.
//!
//! To the client a context is an opaque, printable text. To us it is input from outside: bounded,
//! checked, and bound to its key, so that a token that was cut short, damaged or taken from
//! another key is refused instead of overwriting what its bearer never saw. The checksum is no
//! signature: who may write a key may forge a token for it, and could have deleted it anyway.
//!
//! ```text
//! token = base64url, no padding, of
//!   version 1 byte, 1 | hlc u64 | clock (see VersionVector::encode_to) | names | checksum u64
//! names = varint count, then ascending: timestamp u64 | low half of a write id u64
//! checksum = xxh3_64 of: length of the key u64 | key | everything before the checksum
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::names::Names;
use super::version_vector::{COUNTS_BYTES, ENTRY_BYTES};
use super::{Hlc, Object, Sibling, VersionVector};
use crate::codec::Reader;
use crate::key::Key;
use crate::limits;

/// What a client has seen of a key.
///
/// A write with this context overwrites everything in it, so it may hold nothing else:
///
/// - after a read, the clock of the object whose siblings were *all* shown;
/// - after a write, what that write had seen and its own dot. Never the clock of the object it
///   was written into: siblings that stand there were not shown, and the client's next write
///   would take them away though they were acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Every write that was seen, or overwritten by one that was.
    pub clock: VersionVector,
    /// The greatest timestamp that was seen; the write that follows gets a greater one.
    pub hlc: Hlc,
    /// The names of the writes that were shown, or overwritten by one that was, so that those that were made twice, under two dots,
    /// are overwritten under both. They say no more than the clock: of a write whose name is here
    /// it holds a dot.
    pub names: Names,
}

/// Why a token is no context of this key. Always the bearer's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// The token has no characters.
    #[error("the context is empty: pass the one your read returned, or none for a first write")]
    Empty,
    /// The token is longer than any that was ever given out.
    #[error("the context has {actual} characters, at most {most} are valid: read the key again")]
    TooLong {
        /// Characters of the token.
        actual: usize,
        /// The bound it passed.
        most: usize,
    },
    /// The token has characters or a shape that no token has.
    #[error("the context is damaged: pass it exactly as your read returned it, or read again")]
    Damaged,
    /// The checksum does not match: another key's token, or one that was changed on its way.
    #[error(
        "the context is damaged or belongs to another key: use the one from a read of this key"
    )]
    OtherKeyOrDamaged,
    /// The token is sound, but of a format this version does not know.
    #[error("the context was made by another version of ringdove: read the key again")]
    OtherVersion,
}

/// The first byte of a token's body.
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const FIXED_BYTES: usize = 1 + 8 + COUNTS_BYTES + CHECKSUM_BYTES;

// Whatever clock can be decoded can be carried.
const _: () = assert!(
    (FIXED_BYTES + limits::CLOCK_ENTRIES * ENTRY_BYTES + 2 + limits::REPLACED_WRITES * 16)
        .div_ceil(3)
        * 4
        <= limits::CONTEXT_BYTES
);

impl Context {
    /// The context of whoever was shown all siblings of `object`.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        // What was overwritten before counts as shown: its dots are in the clock, too.
        let mut names = object.replaced().clone();
        let hlc = object.latest_hlc();
        for sibling in object.siblings() {
            names.insert(hlc, sibling.write_id);
        }
        names.bound();
        Self { clock: object.clock().clone(), hlc, names }
    }

    /// The context of the writer of `sibling`, who had seen `self`.
    #[must_use]
    pub fn after(mut self, sibling: &Sibling) -> Self {
        self.clock.insert(sibling.dot);
        self.hlc = self.hlc.max(sibling.hlc);
        self.names.insert(self.hlc, sibling.write_id);
        self.names.bound();
        self
    }

    /// The context as printable text, good for `key` alone.
    #[must_use]
    pub fn token(&self, key: &Key) -> Bytes {
        let room = FIXED_BYTES + self.clock.encoded_len_max() + self.names.encoded_len_max();
        let mut body = BytesMut::with_capacity(room);
        body.put_u8(VERSION);
        body.put_u64_le(self.hlc.0);
        self.clock.encode_to(&mut body);
        self.names.encode_to(&mut body);
        let checksum = checksum(key, &body);
        body.put_u64_le(checksum);
        to_base64url(&body)
    }

    /// Reads what [`Context::token`] gave for the same key.
    ///
    /// # Errors
    /// When it is anything else. No two tokens of a key mean the same context.
    pub fn parse(key: &Key, token: &[u8]) -> Result<Self, ContextError> {
        if token.is_empty() {
            return Err(ContextError::Empty);
        }
        if token.len() > limits::CONTEXT_BYTES {
            let (actual, most) = (token.len(), limits::CONTEXT_BYTES);
            return Err(ContextError::TooLong { actual, most });
        }
        let bytes = from_base64url(token).ok_or(ContextError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk().ok_or(ContextError::Damaged)?;
        if u64::from_le_bytes(*sum) != checksum(key, body) {
            return Err(ContextError::OtherKeyOrDamaged);
        }
        let body = bytes.slice(..bytes.len() - CHECKSUM_BYTES);
        match body.first() {
            Some(&VERSION) => Self::decode_body(body.slice(1..)).ok_or(ContextError::Damaged),
            Some(_) => Err(ContextError::OtherVersion),
            None => Err(ContextError::Damaged),
        }
    }

    fn decode_body(body: Bytes) -> Option<Self> {
        let mut input = Reader::new(body);
        let hlc = Hlc(input.u64("timestamp").ok()?);
        let clock = VersionVector::decode(&mut input).ok()?;
        let names = Names::decode(&mut input).ok()?;
        input.finish().ok()?;
        Some(Self { clock, hlc, names })
    }
}

fn checksum(key: &Key, body: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(key.joined().len() as u64).to_le_bytes());
    hash.update(key.joined());
    hash.update(body);
    hash.digest()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648 section 5, without padding: three bytes become four characters.
fn to_base64url(bytes: &[u8]) -> Bytes {
    let mut text = BytesMut::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(*chunk.get(at).unwrap_or(&0));
        let group = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for place in 0..=chunk.len() {
            text.put_u8(ALPHABET[(group >> (18 - 6 * place)) as usize & 63]);
        }
    }
    text.freeze()
}

/// The bytes, unless `text` has a strange character, an impossible length, or bits set that no
/// byte uses.
fn from_base64url(text: &[u8]) -> Option<Bytes> {
    let mut bytes = BytesMut::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut group = 0;
        for character in chunk {
            group = (group << 6) | sextet(*character)?;
        }
        group <<= 6 * (4 - chunk.len());
        let [_, whole @ ..] = group.to_be_bytes();
        let (used, unused) = whole.split_at(chunk.len() - 1);
        if used.is_empty() || unused.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.put_slice(used);
    }
    Some(bytes.freeze())
}

fn sextet(character: u8) -> Option<u32> {
    let (first, value) = match character {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'-' => (b'-', 62),
        b'_' => (b'_', 63),
        _ => return None,
    };
    Some(u32::from(character - first) + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_that_of_the_rfc_and_has_one_form() {
        // RFC 4648 section 10, without its padding.
        for (plain, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")]
        {
            assert_eq!(to_base64url(plain.as_bytes()), text);
            assert_eq!(from_base64url(text.as_bytes()).unwrap(), plain);
        }
        assert_eq!(to_base64url(&[0xfb, 0xff]), "-_8");
        for text in ["Z", "Zh", "Zm9", "Zm9vY", "Zg==", "Zm 8", "+/8"] {
            assert_eq!(from_base64url(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_token_with_a_true_checksum_and_a_false_body_is_refused() {
        let key = Key::new(b"b", b"k").unwrap();
        let forged = |body: &[u8]| {
            let sum = checksum(&key, body).to_le_bytes();
            Context::parse(&key, &to_base64url(&[body, &sum].concat()))
        };
        let sound = [&[VERSION][..], &[0; 8], &[0, 0, 0]].concat();
        assert_eq!(forged(&sound), Ok(Context::default()));
        assert_eq!(forged(&[]), Err(ContextError::Damaged));
        assert_eq!(forged(&sound[..9]), Err(ContextError::Damaged));
        assert_eq!(forged(&[&sound, &[0][..]].concat()), Err(ContextError::Damaged));
        assert_eq!(forged(&[VERSION + 1]), Err(ContextError::OtherVersion));
        let many = [&[VERSION][..], &[0; 8], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
        assert_eq!(forged(&many), Err(ContextError::Damaged));
    }
}
