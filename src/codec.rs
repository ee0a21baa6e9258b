//! Reading and writing bytes, for everything with a hand-laid layout: frames, objects, contexts,
//! records.
//!
//! A [`Reader`] cannot leave its bounds, checks every length against a cap before anything is
//! allocated for it, and hands out slices that share the buffer's memory. Whoever decodes a whole
//! message ends with [`Reader::finish`]: bytes left over are an error, so one meaning has one
//! encoding. Fixed-width numbers are little-endian. A varint is LEB128, least significant group
//! first, and must be the shortest form.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that are not what they should be. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The input ended in the middle of a value.
    #[error("the bytes end in the middle of {0}")]
    Truncated(&'static str),
    /// A length or count is above its bound.
    #[error("{what} of {actual} is above the limit of {most}")]
    TooLong {
        /// What the length belongs to.
        what: &'static str,
        /// The length that was claimed.
        actual: u64,
        /// The bound.
        most: u64,
    },
    /// A value that no encoder writes.
    #[error("not a valid {0}")]
    Invalid(&'static str),
    /// Bytes are left over behind a complete message.
    #[error("{0} bytes are left over")]
    Trailing(usize),
}

/// Reads values from the front of a buffer.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads from the front of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes have not been read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `length` bytes, sharing the buffer's memory.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when fewer are left.
    pub fn take(&mut self, length: usize, what: &'static str) -> Result<Bytes, CodecError> {
        if length > self.rest.len() {
            return Err(CodecError::Truncated(what));
        }
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let (head, _) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Truncated(what))?;
        let head = *head;
        bytes::Buf::advance(&mut self.rest, N);
        Ok(head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`CodecError::Truncated`], as all of the following.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, CodecError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Two bytes, little-endian.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u16(&mut self, what: &'static str) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Sixteen bytes, little-endian.
    ///
    /// # Errors
    /// [`CodecError::Truncated`].
    pub fn u128(&mut self, what: &'static str) -> Result<u128, CodecError> {
        Ok(u128::from_le_bytes(self.array(what)?))
    }

    /// A varint: 1 to 10 bytes.
    ///
    /// # Errors
    /// [`CodecError::Truncated`], or [`CodecError::Invalid`] for a form that is not the shortest
    /// or does not fit 64 bits.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for group in 0..10 {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if (group == 9 && bits > 1) || (byte == 0 && group > 0) {
                return Err(CodecError::Invalid(what));
            }
            value |= bits << (7 * group);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Invalid(what))
    }

    /// A varint that counts or measures something, at most `most`.
    ///
    /// # Errors
    /// As [`Reader::varint`], and [`CodecError::TooLong`].
    pub fn length(&mut self, most: usize, what: &'static str) -> Result<usize, CodecError> {
        let actual = self.varint(what)?;
        if actual > most as u64 {
            return Err(CodecError::TooLong { what, actual, most: most as u64 });
        }
        Ok(actual as usize)
    }

    /// Bytes behind their length, at most `most` of them, sharing the buffer's memory.
    ///
    /// # Errors
    /// As [`Reader::length`].
    pub fn bytes(&mut self, most: usize, what: &'static str) -> Result<Bytes, CodecError> {
        let length = self.length(most, what)?;
        self.take(length, what)
    }

    /// UTF-8 text behind its length, at most `most` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and [`CodecError::Invalid`] when it is not UTF-8.
    pub fn text(&mut self, most: usize, what: &'static str) -> Result<String, CodecError> {
        let bytes = self.bytes(most, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| CodecError::Invalid(what))
    }

    /// Ends the reading of a whole message.
    ///
    /// # Errors
    /// [`CodecError::Trailing`] when bytes are left.
    pub fn finish(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

/// Writes what [`Reader`] reads, at the end of a buffer.
pub trait Write: BufMut {
    /// A varint in its shortest form.
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }

    /// Bytes behind their length.
    fn put_bytes_with_length(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put_slice(bytes);
    }
}

impl Write for BytesMut {}
impl Write for Vec<u8> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn varints_read_back_and_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            out.put_varint(value);
            let mut input = reader(&out);
            assert_eq!(input.varint("v"), Ok(value));
            assert_eq!(input.finish(), Ok(()));
        }
        assert_eq!(reader(&[0x80, 0x00]).varint("v"), Err(CodecError::Invalid("v")));
        assert_eq!(reader(&[0xff; 10]).varint("v"), Err(CodecError::Invalid("v")));
        assert_eq!(reader(&[0x80]).varint("v"), Err(CodecError::Truncated("v")));
    }

    #[test]
    fn a_length_is_refused_before_anything_is_taken() {
        let mut out = Vec::new();
        out.put_varint(u64::MAX);
        let refused = reader(&out).bytes(16, "value");
        assert_eq!(refused, Err(CodecError::TooLong { what: "value", actual: u64::MAX, most: 16 }));
        assert_eq!(reader(&[3, 1, 2]).bytes(16, "value"), Err(CodecError::Truncated("value")));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut input = reader(&[1, 2]);
        assert_eq!(input.u8("b"), Ok(1));
        assert_eq!(input.finish(), Err(CodecError::Trailing(1)));
    }
}
