//! How a command ends: one number for scripts, one sentence and one hint for people.
//!
//! The numbers are a promise. What matters to a script that writes is in them: after 3 and 6
//! nothing was written, after 4 something may have been, and the write's id is in the message.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::client::{Context, Error, Kind, Outcome, WriteId};
use crate::key::KeyError;

/// The table of [`Exit`] that `--help` shows.
pub(super) const TABLE: &str = "\
Exit codes:
  0  done
  1  the answer is no: get found nothing, digest found stores that differ,
     sync status owners that are overdue, all nodes of dev stopped by themselves, serve failed
  2  the command line or the configuration is wrong; nothing was sent
  3  unavailable: too few replicas, no answer in time, busy; nothing was written
  4  unknown: a write was begun and not confirmed; it may have been applied.
     Its write id is printed: the same write with --write-id ID never doubles it
  5  get --one found siblings
  6  refused: a value exists (--new), bad context, too large, no such bucket,
     too many siblings; nothing was written. Also a digest that cannot tell
  7  no node could be reached at the address";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked.
    Done = 0,
    /// It got its answer, and the answer is no.
    No = 1,
    /// The command line or the configuration is wrong. Nothing was sent.
    Usage = 2,
    /// It could not be done now. Nothing was written.
    Unavailable = 3,
    /// A write was begun and not confirmed.
    Unknown = 4,
    /// One value was asked for, and there are siblings.
    Siblings = 5,
    /// The cluster will not do it, now or later. Nothing was written.
    Refused = 6,
    /// No node answers at the address.
    Unreachable = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The number for scripts.
    pub exit: Exit,
    /// What went wrong, in a word that stays the same: `unavailable`, `bad_context`.
    pub kind: &'static str,
    /// What went wrong, for people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The write it concerns.
    pub write_id: Option<WriteId>,
    /// The context that covers what is there, where siblings were in the way.
    pub context: Option<Box<Context>>,
}

/// What every command comes to.
pub(super) type Ending = Result<Exit, Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { exit, kind, message, hint: None, write_id: None, context: None }
    }

    /// Something that the person at the keyboard has to mend.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The failure as the one document of `--json`.
    pub(super) fn json(&self) -> Value {
        json!({ "error": {
            "kind": self.kind,
            "exit": self.exit as u8,
            "message": self.message,
            "hint": self.hint,
            "may_be_applied": self.exit == Exit::Unknown,
            "write_id": self.write_id.map(|id| id.to_string()),
            "context": self.context.as_ref().map(ToString::to_string),
        }})
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.outcome() {
            Outcome::Unknown => Exit::Unknown,
            Outcome::NotApplied | Outcome::Applied => exit_of(error.kind()),
        };
        let mut failure = Self::new(exit, error.kind().word(), error.to_string());
        failure.hint = hint_of(error.kind()).map(str::to_owned);
        if let (Exit::Unknown, Some(id)) = (exit, error.write_id()) {
            failure.hint = Some(repeat_hint(id));
        }
        failure.write_id = error.write_id();
        failure.context = error.context().cloned().map(Box::new);
        failure
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Error::from(error).into()
    }
}

/// What to do about a write whose outcome is unknown.
pub(super) fn repeat_hint(id: WriteId) -> String {
    format!("read the key, or run the same command with --write-id {id}: that never doubles it")
}

/// The number for a failure after which nothing was written.
fn exit_of(kind: Kind) -> Exit {
    match kind {
        Kind::Config | Kind::Key => Exit::Usage,
        Kind::Connect | Kind::Protocol | Kind::Denied => Exit::Unreachable,
        Kind::Lost
        | Kind::Timeout
        | Kind::Unavailable
        | Kind::Unconfirmed
        | Kind::Busy
        | Kind::Draining
        | Kind::Forming
        | Kind::DiskFull
        | Kind::Corrupt
        | Kind::Internal => Exit::Unavailable,
        Kind::Conflict => Exit::Siblings,
        Kind::Exists
        | Kind::Absent
        | Kind::Siblings
        | Kind::BadContext
        | Kind::TooLarge
        | Kind::NoBucket
        | Kind::Invalid => Exit::Refused,
    }
}

fn hint_of(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Connect => {
            "start a cluster with `ringdove dev`, or name a running node with --addr HOST:PORT"
        }
        Kind::Protocol => "--addr wants the port for frames (7400), not the text port (7401)",
        Kind::Timeout => "give it more time with --timeout 10s, or look at `ringdove status`",
        Kind::Unavailable => {
            "`ringdove status` shows who is down; fewer replicas are asked for with --r or --w"
        }
        Kind::Exists => "a value is there: leave --new away to replace it",
        Kind::Siblings | Kind::Conflict => {
            "read them with `ringdove get`, and write what they come to with --context"
        }
        Kind::BadContext => "read the key again, and pass its context whole",
        Kind::NoBucket => "`ringdove bucket list` shows what is there; `bucket create` makes one",
        Kind::Forming => "start the other nodes; `ringdove status` shows who is missing",
        Kind::DiskFull => "make room on the disk of that node; it goes on by itself",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_key_is_a_matter_of_usage_and_the_document_says_so() {
        let failure = Failure::from(KeyError::Empty);
        let document = failure.json();
        assert_eq!((failure.exit, &document["error"]["kind"]), (Exit::Usage, &json!("key")));
        assert_eq!(document["error"]["may_be_applied"], json!(false));
    }
}
