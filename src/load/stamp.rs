//! What a value says of itself: who wrote it, as which of his writes, and when; with a checksum.
//!
//! ```text
//!   rd1 5e1fc0ffee123456 0000000001a4 0193526f1c2 8c736521 AbX9…
//!   │   │                │            │           │        └ filler, up to the size asked for
//!   │   │                │            │           └ CRC-32 of everything else
//!   │   │                │            └ milliseconds since 1970
//!   │   │                └ number of the write, of this writer
//!   │   └ writer: drawn anew for each process of each run
//!   └ the format
//! ```
//!
//! Text, so that a person who meets such a value with `ringdove get` can read it.

use bytes::{BufMut, BytesMut};

use crate::random::Random;

/// Bytes of a stamp, the space behind it included. Shorter values carry none.
pub const STAMP_BYTES: usize = 55;

const FORMAT: &[u8] = b"rd1 ";
/// Where the checksum stands.
const CRC_AT: usize = 46;
const CRC_END: usize = CRC_AT + 8;
/// Length of the text that filler is cut from; prime, so that offsets do not repeat soon.
const FILLER_BYTES: usize = 65_521;

/// Names one write of one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// Who.
    pub writer: u64,
    /// Which of his, from 1.
    pub number: u64,
}

/// What the bytes of a value turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Written by a run of load.
    Version(Version),
    /// Begins like one, and is not what was written.
    Damaged,
    /// Somebody else's.
    Foreign,
}

impl Stamp {
    /// Reads a value.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        if !value.starts_with(FORMAT) {
            return Self::Foreign;
        }
        let stamp = value.get(..STAMP_BYTES);
        stamp.and_then(|stamp| parse(stamp, value)).map_or(Self::Damaged, Self::Version)
    }
}

fn parse(stamp: &[u8], value: &[u8]) -> Option<Version> {
    let number = |from: usize, to: usize| {
        u64::from_str_radix(std::str::from_utf8(&stamp[from..to]).ok()?, 16).ok()
    };
    let version = Version { writer: number(4, 20)?, number: number(21, 33)? };
    let said = number(CRC_AT, CRC_END)?;
    (said == u64::from(checksum(value))).then_some(version)
}

/// Of everything but the checksum's own digits.
fn checksum(value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&value[..CRC_AT]);
    hasher.update(&value[CRC_END..]);
    hasher.finalize()
}

/// Makes values.
#[derive(Debug)]
pub struct Press {
    filler: Vec<u8>,
}

impl Default for Press {
    fn default() -> Self {
        Self::new()
    }
}

impl Press {
    /// Draws its filler: letters and digits, always the same.
    #[must_use]
    pub fn new() -> Self {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut random = Random::new(0x6669_6c6c_6572);
        let letter = |_| LETTERS[random.below(64) as usize];
        Self { filler: (0..FILLER_BYTES).map(letter).collect() }
    }

    /// Appends a value of `size` bytes to `out`.
    pub fn value(&self, version: Version, at_ms: u64, size: usize, out: &mut BytesMut) {
        let start = out.len();
        if size >= STAMP_BYTES {
            out.put_slice(FORMAT);
            put_hex(out, version.writer, 16);
            out.put_u8(b' ');
            put_hex(out, version.number, 12);
            out.put_u8(b' ');
            put_hex(out, at_ms, 11);
            out.put_slice(b"          ");
        }
        let mut at = (version.number as usize).wrapping_mul(8191) % FILLER_BYTES;
        while out.len() - start < size {
            let piece = (size - (out.len() - start)).min(FILLER_BYTES - at);
            out.put_slice(&self.filler[at..at + piece]);
            at = 0;
        }
        if size >= STAMP_BYTES {
            let value = &mut out[start..];
            let crc = checksum(value);
            write_hex(&mut value[CRC_AT..CRC_END], crc.into());
        }
    }
}

fn put_hex(out: &mut BytesMut, number: u64, digits: usize) {
    let start = out.len();
    out.put_bytes(b'0', digits);
    write_hex(&mut out[start..], number);
}

fn write_hex(digits: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { writer: 0x5e1f_c0ff_ee12_3456, number: 420 };

    fn value(size: usize) -> BytesMut {
        let mut out = BytesMut::from(&b"before"[..]);
        Press::new().value(VERSION, 1_763_700_000_000, size, &mut out);
        out.split_off(6)
    }

    #[test]
    fn a_value_says_who_wrote_it_and_has_the_size_asked_for() {
        for size in [STAMP_BYTES, 56, 1000, 200_000] {
            let value = value(size);
            assert_eq!((value.len(), Stamp::of(&value)), (size, Stamp::Version(VERSION)));
        }
        assert!(value(100).starts_with(b"rd1 5e1fc0ffee123456 0000000001a4 "));
        assert_eq!((value(3).len(), Stamp::of(&value(3))), (3, Stamp::Foreign));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sound = value(120);
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            let expected = if at < FORMAT.len() { Stamp::Foreign } else { Stamp::Damaged };
            assert_eq!(Stamp::of(&damaged), expected, "byte {at}");
        }
        assert_eq!(Stamp::of(&sound[..119]), Stamp::Damaged);
        assert_eq!(Stamp::of(&sound[..20]), Stamp::Damaged);
    }
}
