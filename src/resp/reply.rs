//! Answers, and their bytes in both versions of the protocol.
//!
//! The server builds one [`Reply`]; the connection's [`Version`] decides its bytes. What RESP2 has
//! no type for takes the form Redis gives it there: a map becomes a flat array of names and
//! values, text with a format becomes a plain bulk string.
//!
//! What always holds: the first word of an error is its code; a status or an error is one line,
//! whatever went into it; an attribute is never sent.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

/// Which version of the protocol a connection speaks. `HELLO` changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// What every connection begins with.
    #[default]
    Resp2,
    /// With maps, a null of its own, and text that says its format.
    Resp3,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Ok,
    /// A word or a line for people, as Redis' `+PONG`.
    Status(Cow<'static, str>),
    /// It failed.
    Error {
        /// The first word: what a program decides by. One of [`ERROR_CODES`].
        code: &'static str,
        /// The rest of the line, for people.
        message: String,
    },
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Text, as a bulk string.
    Text(Cow<'static, str>),
    /// Text of several lines, which `redis-cli` prints as it is where the version can say so.
    Verbatim(String),
    /// No value.
    Null,
    /// No value, where an array was to be expected.
    NullArray,
    /// Several answers.
    Array(Vec<Reply>),
    /// Names and values.
    Map(Vec<(Reply, Reply)>),
}

/// The first words that an error may have. `docs/TEXT_PROTOCOL.md` says what each one means and
/// whether anything was changed.
pub const ERROR_CODES: [&str; 16] = [
    "BADCTX",
    "BUSY",
    "CORRUPT",
    "DISKFULL",
    "DRAINING",
    "ERR",
    "EXISTS",
    "FORMING",
    "NOAUTH",
    "NOBUCKET",
    "NOPROTO",
    "SIBLINGS",
    "TIMEOUT",
    "TOOLARGE",
    "UNAVAILABLE",
    "UNKNOWN",
];

impl Reply {
    /// A line for people.
    pub fn status(line: impl Into<Cow<'static, str>>) -> Self {
        Self::Status(line.into())
    }

    /// Text, as a bulk string.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Text(text.into())
    }

    /// A failure.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(ERROR_CODES.contains(&code), "{code} is not in the documented list");
        Self::Error { code, message: message.into() }
    }

    /// A failure whose line is given whole, `code` being its first word.
    pub(super) fn error_line(code: &'static str, line: &str) -> Self {
        Self::error(code, line.strip_prefix(code).unwrap_or(line).trim_start())
    }

    /// A map whose names are text.
    pub fn map(pairs: impl IntoIterator<Item = (&'static str, Reply)>) -> Self {
        Self::Map(pairs.into_iter().map(|(name, value)| (Self::text(name), value)).collect())
    }

    /// Appends the bytes of this answer to `out`. The depth of the recursion is that of the
    /// answer, which the server built: nothing from outside decides it.
    pub fn encode(&self, out: &mut BytesMut, version: Version) {
        match self {
            Self::Ok => out.put_slice(b"+OK\r\n"),
            Self::Status(line) => put_line(out, b'+', &[line]),
            Self::Error { code, message } => put_line(out, b'-', &[code, message]),
            Self::Integer(number) => put_number(out, b':', *number),
            Self::Bulk(bytes) => put_bulk(out, bytes),
            Self::Text(text) => put_bulk(out, text.as_bytes()),
            Self::Verbatim(text) => put_verbatim(out, text, version),
            Self::Null => put_null(out, b"$-1\r\n", version),
            Self::NullArray => put_null(out, b"*-1\r\n", version),
            Self::Array(items) => {
                put_number(out, b'*', items.len() as i64);
                items.iter().for_each(|item| item.encode(out, version));
            }
            Self::Map(pairs) => {
                match version {
                    Version::Resp2 => put_number(out, b'*', pairs.len() as i64 * 2),
                    Version::Resp3 => put_number(out, b'%', pairs.len() as i64),
                }
                for (name, value) in pairs {
                    name.encode(out, version);
                    value.encode(out, version);
                }
            }
        }
    }
}

/// The words with spaces between them, as one line: what would end it early becomes a space.
fn put_line(out: &mut BytesMut, kind: u8, words: &[&str]) {
    out.put_u8(kind);
    for (i, word) in words.iter().enumerate() {
        if i > 0 {
            out.put_u8(b' ');
        }
        let one_line = |b: u8| if matches!(b, b'\r' | b'\n') { b' ' } else { b };
        out.extend(word.bytes().map(one_line));
    }
    out.put_slice(b"\r\n");
}

fn put_number(out: &mut BytesMut, kind: u8, number: i64) {
    // 19 digits and a sign, written from the right; no allocation on the hot path.
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.put_u8(kind);
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

fn put_bulk(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, b'$', bytes.len() as i64);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn put_verbatim(out: &mut BytesMut, text: &str, version: Version) {
    match version {
        Version::Resp2 => put_bulk(out, text.as_bytes()),
        Version::Resp3 => {
            put_number(out, b'=', text.len() as i64 + 4);
            out.put_slice(b"txt:");
            out.put_slice(text.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
}

fn put_null(out: &mut BytesMut, resp2: &[u8], version: Version) {
    match version {
        Version::Resp2 => out.put_slice(resp2),
        Version::Resp3 => out.put_slice(b"_\r\n"),
    }
}
