//! Replies of a server that speaks RESP2, taken from the front of a read buffer.

use bytes::{Buf, Bytes, BytesMut};

use crate::limits;

/// A reply, as far as load cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It was done: a status or a number.
    Done,
    /// A value.
    Value(Bytes),
    /// No value.
    Null,
    /// Several replies, which nobody looks into.
    Many,
    /// It failed; the first word says how.
    Error(Bytes),
}

/// The bytes are no replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoReply;

/// The longest line: an error with its message.
const LINE_BYTES: usize = 64 * 1024;

/// Takes the first reply, once it is complete.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Reply>, NoReply> {
    let Some(end) = end_of_reply(buffer)? else { return Ok(None) };
    let mut bytes = buffer.split_to(end);
    let (kind, line_end) = (bytes[0], line_end(&bytes)?.ok_or(NoReply)?);
    Ok(Some(match kind {
        b'+' | b':' => Reply::Done,
        b'-' => Reply::Error(bytes.freeze().slice(1..line_end)),
        b'*' => Reply::Many,
        _ if bytes[1] == b'-' => Reply::Null,
        _ => {
            bytes.advance(line_end + 2);
            bytes.truncate(bytes.len() - 2);
            Reply::Value(bytes.freeze())
        }
    }))
}

/// Where the first reply ends; `None` until it is there in whole.
fn end_of_reply(bytes: &[u8]) -> Result<Option<usize>, NoReply> {
    let (mut at, mut missing) = (0, 1_u64);
    while missing > 0 {
        missing -= 1;
        let rest = &bytes[at.min(bytes.len())..];
        let Some(end) = line_end(rest)? else { return Ok(None) };
        let number = || {
            let digits = std::str::from_utf8(&rest[1..end]).map_err(|_| NoReply)?;
            digits.parse::<i64>().map_err(|_| NoReply)
        };
        at += end + 2;
        match rest[0] {
            b'+' | b'-' | b':' => {}
            b'$' => match u64::try_from(number()?) {
                Ok(length) if length > limits::FRAME_PAYLOAD_BYTES as u64 => return Err(NoReply),
                Ok(length) => at += length as usize + 2,
                Err(_) => {}
            },
            b'*' => missing += u64::try_from(number()?).unwrap_or(0),
            _ => return Err(NoReply),
        }
        if missing > limits::TEXT_ARGUMENTS as u64 {
            return Err(NoReply);
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// Where the first line ends, before CR LF.
fn line_end(bytes: &[u8]) -> Result<Option<usize>, NoReply> {
    let line = &bytes[..bytes.len().min(LINE_BYTES)];
    match line.iter().position(|byte| *byte == b'\r') {
        Some(0) => Err(NoReply),
        Some(end) if end + 1 == bytes.len() => Ok(None),
        Some(end) if bytes[end + 1] == b'\n' => Ok(Some(end)),
        Some(_) => Err(NoReply),
        None if line.len() == LINE_BYTES => Err(NoReply),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_once_they_are_whole() {
        let cases: [(&[u8], Reply); 8] = [
            (b"+OK\r\n", Reply::Done),
            (b":12\r\n", Reply::Done),
            (b"-BUSY come back later\r\n", Reply::Error(Bytes::from("BUSY come back later"))),
            (b"$-1\r\n", Reply::Null),
            (b"$0\r\n\r\n", Reply::Value(Bytes::new())),
            (b"$4\r\na\r\nb\r\n", Reply::Value(Bytes::from("a\r\nb"))),
            (b"*2\r\n$1\r\na\r\n$-1\r\n", Reply::Many),
            (b"*2\r\n*1\r\n:1\r\n+x\r\n", Reply::Many),
        ];
        for (bytes, reply) in cases {
            for cut in 0..bytes.len() {
                let mut buffer = BytesMut::from(&bytes[..cut]);
                assert_eq!(take(&mut buffer), Ok(None), "{}", bytes[..cut].escape_ascii());
                assert_eq!(buffer.len(), cut);
            }
            let mut buffer = BytesMut::from(bytes);
            buffer.extend_from_slice(b"+next");
            assert_eq!(take(&mut buffer), Ok(Some(reply)));
            assert_eq!(&buffer[..], b"+next");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in ["HTTP/1.1 400\r\n", "$x\r\n", "\r\n", "+a\rb\r\n", "$99999999999\r\n"] {
            assert_eq!(take(&mut BytesMut::from(bytes)), Err(NoReply), "{bytes:?}");
        }
    }
}
