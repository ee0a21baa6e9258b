//! What the node says, in the forms that `docs/TEXT_PROTOCOL.md` promises.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::key::{Key, KeyError};
use crate::resp::Reply;
use crate::wire::messages::{Failure, FailureCode, Hop, Outcome, Receipt, Value};

/// The answer to a command, and what `RD.LAST` will say of it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) reply: Reply,
    /// `None` leaves what it says as it is.
    pub(super) last: Option<Last>,
}

impl From<Reply> for Answered {
    fn from(reply: Reply) -> Self {
        Self { reply, last: None }
    }
}

/// What a read or write of one key achieved.
#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) command: &'static str,
    pub(super) key: Key,
    /// Values that a read saw; a write has not looked.
    pub(super) siblings: Option<usize>,
    pub(super) context: Bytes,
    pub(super) receipt: Receipt,
}

impl Last {
    pub(super) fn reply(&self) -> Reply {
        let siblings = self.siblings.map_or(Reply::Null, |count| Reply::Integer(count as i64));
        Reply::map([
            ("command", Reply::text(self.command)),
            ("key", Reply::Bulk(self.key.name_bytes())),
            ("siblings", siblings),
            ("context", Reply::Bulk(self.context.clone())),
            ("receipt", receipt(&self.receipt)),
        ])
    }
}

/// A receipt.
pub(super) fn receipt(receipt: &Receipt) -> Reply {
    let count = |count: u8| Reply::Integer(i64::from(count));
    Reply::map([
        ("n", count(receipt.n)),
        ("needed", count(receipt.needed)),
        ("acks", count(receipt.acks)),
        ("primaries", count(receipt.primaries)),
        ("fallbacks", count(receipt.fallbacks)),
        ("fsynced", count(receipt.fsynced)),
        ("zones", count(receipt.zones)),
        ("coordinator", Reply::text(receipt.coordinator.to_string())),
        ("micros", Reply::Integer(i64::from(receipt.micros))),
    ])
}

/// One value, as `RD.SIBLINGS` shows it.
pub(super) fn sibling(value: Value) -> Reply {
    let millis = |wall: crate::time::WallMs| Reply::Integer(wall.0.try_into().unwrap_or(i64::MAX));
    Reply::map([
        ("value", Reply::Bulk(value.data)),
        ("dot", Reply::text(value.dot.to_string())),
        ("write_id", Reply::text(value.write_id.to_string())),
        ("written_ms", millis(value.hlc.wall())),
        ("expires_ms", value.expires_at.map_or(Reply::Null, millis)),
    ])
}

/// One step of a traced command.
pub(super) fn hop(hop: Hop) -> Reply {
    Reply::map([
        ("micros", Reply::Integer(i64::from(hop.micros))),
        ("node", Reply::text(hop.node.to_string())),
        ("what", Reply::text(hop.what)),
    ])
}

/// The first word of the error for a failure.
fn code(failure: &Failure) -> &'static str {
    // Whatever the reason: that a write may have happened is what a program has to know.
    if failure.outcome == Outcome::Unknown {
        return "UNKNOWN";
    }
    match failure.code {
        FailureCode::Unavailable | FailureCode::Stale => "UNAVAILABLE",
        FailureCode::Unknown => "UNKNOWN",
        FailureCode::Timeout => "TIMEOUT",
        FailureCode::Busy => "BUSY",
        FailureCode::Exists => "EXISTS",
        FailureCode::Siblings => "SIBLINGS",
        FailureCode::BadContext => "BADCTX",
        FailureCode::TooLarge => "TOOLARGE",
        FailureCode::Draining => "DRAINING",
        FailureCode::NoBucket => "NOBUCKET",
        FailureCode::Forming => "FORMING",
        FailureCode::DiskFull => "DISKFULL",
        FailureCode::Corrupt => "CORRUPT",
        FailureCode::Denied => "NOAUTH",
        // `Absent` is the answer to `XX`, which a session turns into null.
        FailureCode::Absent | FailureCode::Invalid | FailureCode::Internal => "ERR",
    }
}

/// The error for a failure: its code, what people should know, and what a program needs to go on.
pub(super) fn failed(failure: &Failure) -> Reply {
    let mut message = failure.message.clone();
    let code = code(failure);
    if code == "UNKNOWN" {
        let _ = write!(message, " (acks={} needed={}", failure.acks, failure.needed);
        if let Some(write_id) = failure.write_id {
            let _ = write!(message, " write={write_id}");
        }
        message.push(')');
    }
    if failure.retry_after_ms > 0 {
        let _ = write!(message, " (retry_after_ms={})", failure.retry_after_ms);
    }
    if !failure.context.is_empty() {
        let _ = write!(message, " context={}", failure.context.escape_ascii());
    }
    Reply::error(code, message)
}

/// The error for a key that can be none.
pub(super) fn bad_key(error: &KeyError) -> Reply {
    let code = match error {
        KeyError::TooLong { .. } => "TOOLARGE",
        KeyError::BucketName | KeyError::Empty => "ERR",
    };
    Reply::error(code, error.to_string())
}

/// The error for an answer that does not fit its question.
pub(super) fn unexpected() -> Reply {
    Reply::error("ERR", "the node gave an answer that does not fit the command: this is a defect")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WriteId;

    fn line(failure: &Failure) -> String {
        let Reply::Error { code, message } = failed(failure) else { panic!("not an error") };
        format!("{code} {message}")
    }

    #[test]
    fn an_unknown_outcome_is_told_with_its_acknowledgements_and_its_write_whatever_the_reason() {
        for code in [FailureCode::Unknown, FailureCode::Timeout, FailureCode::Draining] {
            let mut failure = Failure::not_applied(code, "too few");
            failure.outcome = Outcome::Unknown;
            (failure.acks, failure.needed, failure.write_id) = (1, 2, Some(WriteId(0xab)));
            let expected =
                "UNKNOWN too few (acks=1 needed=2 write=000000000000000000000000000000ab)";
            assert_eq!(line(&failure), expected);
        }
    }

    #[test]
    fn an_error_carries_the_context_and_the_time_to_come_back_where_there_is_one() {
        let mut failure = Failure::not_applied(FailureCode::Siblings, "merge them");
        failure.context = Bytes::from_static(b"AbC");
        assert_eq!(line(&failure), "SIBLINGS merge them context=AbC");
        let mut failure = Failure::not_applied(FailureCode::Busy, "wait");
        failure.retry_after_ms = 50;
        assert_eq!(line(&failure), "BUSY wait (retry_after_ms=50)");
    }
}
