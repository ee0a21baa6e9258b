//! What a client names: a key within a bucket.
//!
//! A [`Key`] is held as the bytes `bucket 0x00 name`. A bucket's name never contains a zero byte,
//! so the form is unambiguous, sorts by bucket first, is what the token is computed over and is,
//! behind the partition's two bytes, what stands on disk. One allocation serves all four.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use crate::limits;

/// A key within a bucket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    joined: Bytes,
}

/// Why a bucket or a key cannot be what a client said. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bucket's name is empty, too long, or has a character that is not allowed.
    #[error(
        "bucket names are 1 to {} characters of A-Z a-z 0-9 . _ - and start with a letter or digit",
        limits::BUCKET_NAME_BYTES
    )]
    BucketName,
    /// The key is empty.
    #[error("a key has at least one byte")]
    Empty,
    /// The key is longer than any configuration allows.
    #[error("the key has {actual} bytes; at most {most} are allowed")]
    TooLong {
        /// Bytes of the key that was refused.
        actual: usize,
        /// The bound it passed.
        most: usize,
    },
}

/// Whether `name` can be the name of a bucket.
#[must_use]
pub fn is_bucket_name(name: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=limits::BUCKET_NAME_BYTES).contains(&name.len())
        && name[0].is_ascii_alphanumeric()
        && name.iter().all(allowed)
}

impl Key {
    /// Names `name` within `bucket`.
    ///
    /// # Errors
    /// When either breaks its fixed bound. The tighter bound of a configuration is the server's
    /// to check, since only it knows it.
    pub fn new(bucket: &[u8], name: &[u8]) -> Result<Self, KeyError> {
        if !is_bucket_name(bucket) {
            return Err(KeyError::BucketName);
        }
        if name.is_empty() {
            return Err(KeyError::Empty);
        }
        if name.len() > limits::KEY_BYTES_HARD {
            let (actual, most) = (name.len(), limits::KEY_BYTES_HARD);
            return Err(KeyError::TooLong { actual, most });
        }
        let mut joined = BytesMut::with_capacity(bucket.len() + 1 + name.len());
        joined.put_slice(bucket);
        joined.put_u8(0);
        joined.put_slice(name);
        Ok(Self { joined: joined.freeze() })
    }

    /// Reads back what [`Key::joined`] gave.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn from_joined(joined: Bytes) -> Result<Self, KeyError> {
        let end = joined.iter().take(limits::BUCKET_NAME_BYTES + 1).position(|b| *b == 0);
        let end = end.ok_or(KeyError::BucketName)?;
        if !is_bucket_name(&joined[..end]) {
            return Err(KeyError::BucketName);
        }
        match joined.len() - end - 1 {
            0 => Err(KeyError::Empty),
            actual if actual > limits::KEY_BYTES_HARD => {
                Err(KeyError::TooLong { actual, most: limits::KEY_BYTES_HARD })
            }
            _ => Ok(Self { joined }),
        }
    }

    fn split(&self) -> usize {
        let zero = self.joined.iter().position(|b| *b == 0);
        zero.expect("every constructor puts a zero byte behind the bucket")
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        let name = &self.joined[..self.split()];
        std::str::from_utf8(name).expect("every constructor checks that the name is ASCII")
    }

    /// The key within its bucket.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.joined[self.split() + 1..]
    }

    /// The key within its bucket, sharing this key's memory.
    #[must_use]
    pub fn name_bytes(&self) -> Bytes {
        self.joined.slice(self.split() + 1..)
    }

    /// `bucket 0x00 name`.
    #[must_use]
    pub fn joined(&self) -> &Bytes {
        &self.joined
    }

    /// Where the key stands on the ring: `xxh3_64(bucket 0x00 name)`, fixed for ever.
    #[must_use]
    pub fn token(&self) -> u64 {
        xxh3_64(&self.joined)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket(), self.name().escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_hold_any_byte_and_reads_back() {
        let key = Key::new(b"carts", b"a\0b\xff").unwrap();
        assert_eq!(key.bucket(), "carts");
        assert_eq!(key.name(), b"a\0b\xff");
        assert_eq!(Key::from_joined(key.joined().clone()), Ok(key.clone()));
        assert_eq!(key.to_string(), "carts/a\\x00b\\xff");
    }

    #[test]
    fn names_outside_their_bounds_are_refused() {
        for bucket in ["", "-x", "a b", "a/b", "ü", &"b".repeat(65)] {
            assert_eq!(Key::new(bucket.as_bytes(), b"k"), Err(KeyError::BucketName), "{bucket:?}");
        }
        assert_eq!(Key::new(b"b", b""), Err(KeyError::Empty));
        let long = vec![b'k'; limits::KEY_BYTES_HARD + 1];
        assert!(matches!(Key::new(b"b", &long), Err(KeyError::TooLong { .. })));
        assert_eq!(Key::from_joined(Bytes::from_static(b"no-zero")), Err(KeyError::BucketName));
    }

    #[test]
    fn tokens_are_what_they_were() {
        // Golden: a change here moves every key of every cluster.
        let token = |bucket: &str, name: &str| {
            Key::new(bucket.as_bytes(), name.as_bytes()).unwrap().token()
        };
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(token("default", "hello"), 0xd2ff_3cef_c59b_4063);
        assert_eq!(token("carts", "ann"), 0x9782_b8a7_1bcc_cf0c);
        assert_eq!(token("carts", "\0"), 0xab59_a090_cdbc_6399);
    }
}
