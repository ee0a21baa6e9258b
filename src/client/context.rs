//! The token that says what its holder has seen.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::{Error, Kind};
use crate::limits;

/// What a read or a write saw of one key. Carried by the next write, it makes that write replace
/// exactly those values, and no others.
///
/// Opaque, and printable: `Display` gives a text without spaces that can be kept beside the data
/// (in a form, a cookie, a log line) and read back with `parse`. It belongs to one key; a write
/// to another key refuses it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Context(Bytes);

impl Context {
    pub(super) fn new(token: Bytes) -> Self {
        Self(token)
    }

    pub(super) fn token(&self) -> Bytes {
        self.0.clone()
    }

    /// The token as it travels.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({self})")
    }
}

impl FromStr for Context {
    type Err = Error;

    /// Takes a token back from its text. Whether it is sound, and of which key, the node checks.
    fn from_str(text: &str) -> Result<Self, Error> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || !printable || text.len() > limits::CONTEXT_BYTES {
            let message = "a context is the text that a read or write printed, whole";
            return Err(Error::new(Kind::BadContext, message));
        }
        Ok(Self(Bytes::copy_from_slice(text.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_reads_back_from_its_text_and_nothing_torn_does() {
        let context = Context::new(Bytes::from_static(b"AbC-_9"));
        assert_eq!(context.to_string().parse::<Context>().unwrap(), context);
        for torn in ["", "two parts", "line\n"] {
            assert_eq!(torn.parse::<Context>().unwrap_err().kind(), Kind::BadContext);
        }
    }
}
