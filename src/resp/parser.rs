//! From a connection's bytes to the arguments of commands.
//!
//! A command comes in one of two forms: an array of bulk strings, which is what clients send, or
//! a line of words, which is what a person types into telnet.
//!
//! ```text
//!   *2 CRLF  $3 CRLF GET CRLF  $1 CRLF k CRLF      an array
//!   GET k CRLF                                     a line; quotes as in Redis: "a b\x00" 'c d'
//! ```
//!
//! The parser takes from the front of the read buffer whatever is complete, argument by argument,
//! and remembers how far it is: a command of a thousand pieces is read once, not a thousand times.
//! An array's arguments share the buffer's memory; a line's are copied, since quoting changes
//! their bytes.
//!
//! What always holds: a length is compared with its cap when it is announced, before its bytes
//! arrive; announcing allocates nothing; an argument is a bulk string, so there is no nesting.

use bytes::{Buf, Bytes, BytesMut};

use super::reply::Reply;
use crate::limits;

/// What one command may cost. The server lowers these while a password is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserLimits {
    /// Bytes of one argument. Passing it ends the connection, so keep it above the largest value
    /// allowed: a value that is only a little too large then gets an answer instead.
    pub argument_bytes: usize,
    /// Arguments of one command, its name included.
    pub arguments: usize,
    /// Bytes of all arguments of one command.
    pub command_bytes: usize,
    /// Bytes of a command given as a line, its end included.
    pub inline_bytes: usize,
}

impl ParserLimits {
    /// For somebody who owes a password: enough for `HELLO` and `AUTH` (CVE-2021-32675).
    pub const UNAUTHENTICATED: Self = Self {
        argument_bytes: 16 * 1024,
        arguments: limits::TEXT_ARGUMENTS_UNAUTHENTICATED,
        command_bytes: 64 * 1024,
        inline_bytes: 16 * 1024,
    };
}

impl Default for ParserLimits {
    fn default() -> Self {
        Self {
            argument_bytes: limits::VALUE_BYTES_HARD,
            arguments: limits::TEXT_ARGUMENTS,
            command_bytes: limits::TEXT_COMMAND_BYTES,
            inline_bytes: limits::TEXT_INLINE_BYTES,
        }
    }
}

/// Bytes that are no command. The client is at fault, no command of the broken piece was given
/// out, and where the next one would begin is not known: send this and close the connection.
/// The text is the line to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A count of arguments that is no number.
    #[error("ERR Protocol error: invalid multibulk length")]
    ArrayLength,
    /// A length of an argument that is no number.
    #[error("ERR Protocol error: invalid bulk length")]
    BulkLength,
    /// More arguments than allowed.
    #[error("TOOLARGE Protocol error: {actual} arguments in one command, the limit is {most}")]
    TooManyArguments {
        /// How many were announced.
        actual: u64,
        /// The cap.
        most: usize,
    },
    /// An argument longer than allowed.
    #[error("TOOLARGE Protocol error: an argument of {actual} bytes, the limit is {most}")]
    ArgumentTooLong {
        /// Bytes that were announced.
        actual: u64,
        /// The cap.
        most: usize,
    },
    /// All arguments together are longer than allowed.
    #[error("TOOLARGE Protocol error: a command of more than {most} bytes")]
    CommandTooLong {
        /// The cap.
        most: usize,
    },
    /// A line that does not end within the cap.
    #[error("TOOLARGE Protocol error: too big inline request, the limit is {most} bytes")]
    InlineTooLong {
        /// The cap.
        most: usize,
    },
    /// An array holds something other than a bulk string.
    #[error("ERR Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// A command begins like a value of the protocol that is not an array.
    #[error("ERR Protocol error: expected '*' or a command, got '{}'", .0.escape_ascii())]
    ExpectedArray(u8),
    /// An argument is longer or shorter than was announced.
    #[error("ERR Protocol error: expected CR LF behind an argument")]
    ExpectedLineEnd,
    /// A quote in a line is not closed, or closed in the middle of a word.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// A web browser, or a web page that makes one send commands.
    #[error("ERR Protocol error: this port speaks RESP, not HTTP")]
    Http,
}

impl ProtocolError {
    /// The first word of the line.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooManyArguments { .. }
            | Self::ArgumentTooLong { .. }
            | Self::CommandTooLong { .. }
            | Self::InlineTooLong { .. } => "TOOLARGE",
            _ => "ERR",
        }
    }
}

impl From<ProtocolError> for Reply {
    fn from(error: ProtocolError) -> Self {
        Self::error_line(error.code(), &error.to_string())
    }
}

/// Takes commands from the front of one connection's read buffer.
#[derive(Debug, Default)]
pub struct Parser {
    /// Arguments of the array that is being received.
    arguments: Vec<Bytes>,
    /// How many of that array are still to come; 0 between commands.
    missing: usize,
    /// Announced bytes of the argument that is being received.
    length: Option<usize>,
    /// Announced bytes of that array's arguments so far.
    command_bytes: usize,
    /// Bytes at the front of the buffer that are known to hold no line end.
    scanned: usize,
}

/// Longest line that announces a length: kind, sign, 19 digits, CR LF.
const LENGTH_LINE_BYTES: usize = 23;
/// The space for arguments that an announcement gets at once. Nearly every command fits.
const ARGUMENTS_AT_ONCE: usize = 8;

impl Parser {
    /// A parser at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next command's arguments, the name first, or `None` until more bytes have come.
    /// Between calls, bytes may only be appended to `buffer`. Commands without arguments (an empty
    /// line, `*0`) are passed over, as Redis does.
    ///
    /// # Errors
    /// [`ProtocolError`]; the connection is to be closed, and this parser with it.
    pub fn next(
        &mut self,
        buffer: &mut BytesMut,
        limits: &ParserLimits,
    ) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.missing > 0 {
                return self.rest_of_array(buffer, limits);
            }
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    if !self.begin_array(buffer, limits)? {
                        return Ok(None);
                    }
                }
                Some(&kind) if b"$+-:_#,(!=%~>|".contains(&kind) => {
                    return Err(ProtocolError::ExpectedArray(kind));
                }
                Some(_) => match self.line(buffer, limits)? {
                    None => return Ok(None),
                    Some(arguments) if arguments.is_empty() => {}
                    Some(arguments) => return Ok(Some(arguments)),
                },
            }
        }
    }

    /// Whether a command has begun whose end has not come yet, as far as it was taken out of the
    /// buffer; what is left in the buffer is another beginning.
    #[must_use]
    pub fn is_within_command(&self) -> bool {
        self.missing > 0
    }

    /// Reads `*count`. False until it is complete.
    fn begin_array(
        &mut self,
        buffer: &mut BytesMut,
        limits: &ParserLimits,
    ) -> Result<bool, ProtocolError> {
        let Some(count) = take_length(buffer, ProtocolError::ArrayLength)? else {
            return Ok(false);
        };
        // A count below zero is RESP2's null array: no command, as for Redis.
        let count = u64::try_from(count).unwrap_or(0);
        if count > limits.arguments as u64 {
            let (actual, most) = (count, limits.arguments);
            return Err(ProtocolError::TooManyArguments { actual, most });
        }
        self.missing = count as usize;
        self.command_bytes = 0;
        self.arguments = Vec::with_capacity(self.missing.min(ARGUMENTS_AT_ONCE));
        Ok(true)
    }

    fn rest_of_array(
        &mut self,
        buffer: &mut BytesMut,
        limits: &ParserLimits,
    ) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        while self.missing > 0 {
            let length = match self.length {
                Some(length) => length,
                None => match self.announced(buffer, limits)? {
                    Some(length) => length,
                    None => return Ok(None),
                },
            };
            // Checked as soon as it is there, so that a wrong length fails early.
            match buffer.get(length..buffer.len().min(length + 2)) {
                Some(b"\r\n") => {}
                None | Some(b"" | b"\r") => return Ok(None),
                Some(_) => return Err(ProtocolError::ExpectedLineEnd),
            }
            self.arguments.push(buffer.split_to(length).freeze());
            buffer.advance(2);
            self.length = None;
            self.missing -= 1;
        }
        Ok(Some(std::mem::take(&mut self.arguments)))
    }

    /// Reads `$length` and remembers it. `None` until it is complete.
    fn announced(
        &mut self,
        buffer: &mut BytesMut,
        limits: &ParserLimits,
    ) -> Result<Option<usize>, ProtocolError> {
        match buffer.first() {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&kind) => return Err(ProtocolError::ExpectedBulk(kind)),
        }
        let Some(length) = take_length(buffer, ProtocolError::BulkLength)? else {
            return Ok(None);
        };
        let actual = u64::try_from(length).map_err(|_| ProtocolError::BulkLength)?;
        if actual > limits.argument_bytes as u64 {
            let most = limits.argument_bytes;
            return Err(ProtocolError::ArgumentTooLong { actual, most });
        }
        let length = actual as usize;
        self.command_bytes = self.command_bytes.saturating_add(length);
        if self.command_bytes > limits.command_bytes {
            return Err(ProtocolError::CommandTooLong { most: limits.command_bytes });
        }
        self.length = Some(length);
        Ok(Some(length))
    }

    /// Reads a command given as a line. `None` until its end has come.
    fn line(
        &mut self,
        buffer: &mut BytesMut,
        limits: &ParserLimits,
    ) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let too_long = ProtocolError::InlineTooLong { most: limits.inline_bytes };
        let Some(end) = buffer[self.scanned..].iter().position(|b| *b == b'\n') else {
            self.scanned = buffer.len();
            return if self.scanned >= limits.inline_bytes { Err(too_long) } else { Ok(None) };
        };
        let line = buffer.split_to(self.scanned + end + 1);
        self.scanned = 0;
        if line.len() > limits.inline_bytes {
            return Err(too_long);
        }
        let line = line.trim_ascii_end();
        if looks_like_http(line) {
            return Err(ProtocolError::Http);
        }
        let words = split_words(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        if words.len() > limits.arguments {
            let (actual, most) = (words.len() as u64, limits.arguments);
            return Err(ProtocolError::TooManyArguments { actual, most });
        }
        Ok(Some(words))
    }
}

/// Takes a line of one kind byte, a number in its shortest form, and CR LF. `None` until it is
/// complete; `error` for anything else.
fn take_length(buffer: &mut BytesMut, error: ProtocolError) -> Result<Option<i64>, ProtocolError> {
    let window = &buffer[..buffer.len().min(LENGTH_LINE_BYTES)];
    let Some(end) = window.iter().position(|b| *b == b'\n') else {
        return if window.len() == LENGTH_LINE_BYTES { Err(error) } else { Ok(None) };
    };
    let digits = window[1..end].strip_suffix(b"\r").ok_or(error)?;
    let number = super::options::integer(digits).ok_or(error)?;
    buffer.advance(end + 1);
    Ok(Some(number))
}

/// Whether a line is the first of a web request, or its `Host:` header. No command of ours has
/// that form, so nothing useful is refused: `GET` takes one key.
fn looks_like_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 8] =
        [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE"];
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let method = words.next().unwrap_or_default();
    let version = words.nth(1).unwrap_or_default();
    let is = |word: &[u8]| method.eq_ignore_ascii_case(word);
    is(b"POST") || is(b"Host:") || (version.starts_with(b"HTTP/") && METHODS.iter().any(|m| is(m)))
}

/// The words of a line, as Redis splits them. Within `"…"` a backslash begins `\n \r \t \b \a`,
/// `\xHH`, or takes the next character as it is; within `'…'` it only hides a `'`. A closing quote
/// must end its word. `None` when a quote breaks these rules.
fn split_words(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        rest = take_word(rest, &mut word)?.trim_ascii_start();
        words.push(Bytes::from(word));
    }
    Some(words)
}

/// Appends the first word of `rest` to `word`; what is behind it.
fn take_word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [space, ..] if space.is_ascii_whitespace() => return Some(rest),
            [quote @ (b'"' | b'\''), quoted @ ..] => {
                rest = take_quoted(*quote, quoted, word)?;
                let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
                return ends.then_some(rest);
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

/// Appends what stands before the closing `quote`; what is behind it.
fn take_quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let double = quote == b'"';
    loop {
        let (byte, behind) = match rest {
            [] => return None,
            [byte, behind @ ..] if *byte == quote => return Some(behind),
            [b'\\', b'\'', behind @ ..] if !double => (b'\'', behind),
            [b'\\', b'x', high, low, behind @ ..] if double && is_hex(*high) && is_hex(*low) => {
                (hex(*high) << 4 | hex(*low), behind)
            }
            [b'\\', escaped, behind @ ..] if double => (unescape(*escaped), behind),
            [byte, behind @ ..] => (*byte, behind),
        };
        word.push(byte);
        rest = behind;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcing_allocates_next_to_nothing() {
        let mut parser = Parser::new();
        let mut buffer = BytesMut::from(&b"*1048576\r\n$16777216\r\nx"[..]);
        let before = buffer.capacity();
        assert_eq!(parser.next(&mut buffer, &ParserLimits::default()), Ok(None));
        assert_eq!((parser.missing, parser.length), (1_048_576, Some(16_777_216)));
        assert!(parser.arguments.capacity() <= ARGUMENTS_AT_ONCE);
        assert!(buffer.capacity() <= before);
    }

    #[test]
    fn a_line_is_looked_through_once() {
        let mut parser = Parser::new();
        let mut buffer = BytesMut::from(&b"SET k "[..]);
        assert_eq!(parser.next(&mut buffer, &ParserLimits::default()), Ok(None));
        assert_eq!(parser.scanned, 6);
    }
}
