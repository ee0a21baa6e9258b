//! What stands on disk for one key: the object, and beside it what only this replica knows.
//!
//! ```text
//!   version  1 byte, 1
//!   mint     1 byte: 0 none, 1 present, and then
//!              incarnation  8 bytes, little-endian
//!              k            varint
//!              counter      varint, at least 1
//!   object   the rest (causality::Object::encode)
//! ```
//!
//! The **mint** says under which actor this replica makes dots for this key and how many it has
//! made. It never comes from a message: a received version vector may show this replica's actor
//! at a count that this disk has forgotten, and going on from there, or from anything lower, would
//! use a dot twice. It stands in the same record as the object, so the two are lost together or
//! not at all.

use bytes::{BufMut, Bytes, BytesMut};

use crate::causality::Actor;
use crate::codec::{CodecError, Reader, Write};
use crate::ids::Incarnation;

const VERSION: u8 = 1;

/// The actor under which a replica makes dots for a key, and the count of those it has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mint {
    /// Bound to the replica's incarnation.
    pub actor: Actor,
    /// The counter of the last dot made.
    pub counter: u64,
}

/// The record of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What only this replica knows; `None` until it coordinates a write of the key.
    pub mint: Option<Mint>,
    /// The encoded object.
    pub object: Bytes,
}

impl Record {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + self.object.len());
        out.put_u8(VERSION);
        match self.mint {
            None => out.put_u8(0),
            Some(mint) => {
                out.put_u8(1);
                out.put_u64_le(mint.actor.incarnation.0);
                out.put_varint(mint.actor.k);
                out.put_varint(mint.counter);
            }
        }
        out.put_slice(&self.object);
        out.freeze()
    }

    /// Reads a record; the object shares the memory of `bytes`.
    ///
    /// # Errors
    /// When the bytes are no record of a version known here. The object is not looked into.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut input = Reader::new(bytes);
        if input.u8("record version")? != VERSION {
            return Err(CodecError::Invalid("record version"));
        }
        let mint = match input.u8("mint")? {
            0 => None,
            1 => {
                let incarnation = Incarnation(input.u64("incarnation")?);
                let k = input.varint("actor")?;
                let counter = input.varint("counter")?;
                if counter == 0 {
                    return Err(CodecError::Invalid("counter"));
                }
                Some(Mint { actor: Actor { incarnation, k }, counter })
            }
            _ => return Err(CodecError::Invalid("mint")),
        };
        let object = input.take(input.remaining(), "object")?;
        Ok(Self { mint, object })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back() {
        let actor = Actor { incarnation: Incarnation(7), k: 300 };
        for mint in [None, Some(Mint { actor, counter: 1 })] {
            let record = Record { mint, object: Bytes::from_static(b"object") };
            assert_eq!(Record::decode(record.encode()), Ok(record));
        }
    }

    #[test]
    fn records_of_another_version_and_torn_ones_are_refused() {
        assert!(Record::decode(Bytes::from_static(&[2, 0])).is_err());
        assert!(Record::decode(Bytes::from_static(&[1])).is_err());
        assert!(Record::decode(Bytes::from_static(&[1, 1, 0, 0])).is_err());
        assert!(Record::decode(Bytes::from_static(&[1, 2])).is_err());
    }
}
