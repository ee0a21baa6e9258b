//! Control messages and node metadata: serde types in bincode, behind their own version byte.
//!
//! The one file that knows bincode. Never on a hot path, never without a limit, never for bytes
//! that are specified for other languages.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits;

const VERSION: u8 = 1;

/// The bytes are no control message of a version known here.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another version wrote it.
    #[error("control message of version {0:?}; this node knows {VERSION}")]
    Version(Option<u8>),
    /// It is damaged or too large.
    #[error("malformed control message: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    /// Bytes are left over.
    #[error("{0} bytes are left over behind a control message")]
    Trailing(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ limits::CONTROL_BYTES }>()
}

/// The bytes of `message`.
///
/// # Panics
/// When the message is larger than [`limits::CONTROL_BYTES`]; everything that grows in it has a
/// bound far below.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut out = vec![VERSION];
    let body = bincode::serde::encode_to_vec(message, config());
    out.extend(body.expect("control messages are bounded far below the limit and serialise"));
    out
}

/// Reads a message.
///
/// # Errors
/// When the bytes are of another version, damaged, too large, or more than one message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControlError> {
    let (version, body) = bytes.split_first().ok_or(ControlError::Version(None))?;
    if *version != VERSION {
        return Err(ControlError::Version(Some(*version)));
    }
    let (message, used) = bincode::serde::decode_from_slice(body, config())?;
    match body.len() - used {
        0 => Ok(message),
        left => Err(ControlError::Trailing(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_and_nothing_else_does() {
        let bytes = encode(&("hello", 7_u64));
        assert_eq!(decode::<(String, u64)>(&bytes).unwrap(), ("hello".to_owned(), 7));
        assert!(matches!(decode::<u8>(&[]), Err(ControlError::Version(None))));
        assert!(matches!(decode::<u8>(&[9, 1]), Err(ControlError::Version(Some(9)))));
        assert!(matches!(decode::<u8>(&[1, 1, 1]), Err(ControlError::Trailing(1))));
        assert!(matches!(decode::<String>(&[1, 9]), Err(ControlError::Malformed(_))));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // 0xfd is bincode's mark for a length of eight bytes.
        let bomb = [1, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(decode::<Vec<u64>>(&bomb).is_err());
    }
}
