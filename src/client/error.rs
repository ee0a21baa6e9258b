//! What can go wrong for a caller, told by what the caller can do about it.

use std::fmt;
use std::time::Duration;

use super::Context;
use crate::ids::WriteId;
use crate::key::KeyError;
use crate::wire::messages::{self, Failure, FailureCode};

/// The answer of everything in this module that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed, whether it happened all the same, and what to do now.
///
/// The client has already done what it may: it asked other replicas, waited, and stopped when the
/// operation's time, its attempts or the client's retry budget were used up.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    retry: Retry,
    outcome: Outcome,
    write_id: Option<WriteId>,
    node: Option<String>,
    acks: u8,
    needed: u8,
    context: Option<Context>,
    attempts: u8,
    message: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The client was set up in a way that cannot work. Nothing was sent.
    Config,
    /// The bucket's or the key's name breaks a bound. Nothing was sent.
    Key,
    /// No node could be reached.
    Connect,
    /// The connection broke while the request was under way.
    Lost,
    /// A node and this client do not understand each other.
    Protocol,
    /// There was no answer in time.
    Timeout,
    /// Too few replicas can be reached. Nothing was written.
    Unavailable,
    /// The write was begun and too few replicas have confirmed it.
    Unconfirmed,
    /// A queue is full.
    Busy,
    /// A value is there and the write asked for none.
    Exists,
    /// No value is there and the write asked for one.
    Absent,
    /// The key has too many siblings to take another. [`Error::context`] covers them.
    Siblings,
    /// One value was asked for and siblings are there. [`Error::context`] covers them.
    Conflict,
    /// The context is damaged or belongs to another key.
    BadContext,
    /// The key or the value is larger than allowed.
    TooLarge,
    /// There is no such bucket.
    NoBucket,
    /// The node is stopping.
    Draining,
    /// The node has not met enough of its cluster yet.
    Forming,
    /// The disk refuses writes.
    DiskFull,
    /// The replica's copy is damaged.
    Corrupt,
    /// The password is wrong or missing, or the cluster is another one.
    Denied,
    /// The request makes no sense to the node.
    Invalid,
    /// A defect in a node.
    Internal,
}

impl Kind {
    /// A word for programs. Written out, since it is a promise and the variants' names are not.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Key => "key",
            Self::Connect => "connect",
            Self::Lost => "lost",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Unconfirmed => "unconfirmed",
            Self::Busy => "busy",
            Self::Exists => "exists",
            Self::Absent => "absent",
            Self::Siblings => "siblings",
            Self::Conflict => "conflict",
            Self::BadContext => "bad_context",
            Self::TooLarge => "too_large",
            Self::NoBucket => "no_bucket",
            Self::Draining => "draining",
            Self::Forming => "forming",
            Self::DiskFull => "disk_full",
            Self::Corrupt => "corrupt",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Internal => "internal",
        }
    }
}

/// What may help now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request fails again wherever it is sent.
    Never,
    /// Ask another node.
    NextNode,
    /// Ask again, but not before this has passed.
    After(Duration),
}

/// Whether a write happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As many replicas as were needed have it. An [`Error`] never says this; see [`Outcome::of`].
    Applied,
    /// No replica has it, and none will.
    NotApplied,
    /// It may have happened, and it may yet. [`Error::write_id`] names the write: to ask again
    /// with the same id ([`Write::write_id`](super::Write::write_id)) never makes a sibling.
    Unknown,
}

impl Outcome {
    /// What became of a write, whatever its answer.
    #[must_use]
    pub fn of<T>(answer: &Result<T>) -> Self {
        answer.as_ref().map_or_else(Error::outcome, |_| Self::Applied)
    }
}

impl Error {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            retry: retry_of(kind),
            outcome: Outcome::NotApplied,
            write_id: None,
            node: None,
            acks: 0,
            needed: 0,
            context: None,
            attempts: 0,
            message: message.into(),
        }))
    }

    /// What a node answered.
    pub(super) fn answered(node: &str, failure: Failure) -> Self {
        let mut error = Self::new(kind_of(failure.code), failure.message).at(node);
        if failure.outcome == messages::Outcome::Unknown {
            error = error.unknown();
        }
        if failure.retry_after_ms > 0 && error.0.retry != Retry::Never {
            error.0.retry = Retry::After(Duration::from_millis(failure.retry_after_ms.into()));
        }
        error.0.write_id = failure.write_id;
        (error.0.acks, error.0.needed) = (failure.acks, failure.needed);
        error.0.context = Some(failure.context).filter(|c| !c.is_empty()).map(Context::new);
        error
    }

    pub(super) fn at(mut self, node: &str) -> Self {
        self.0.node = Some(node.to_owned());
        self
    }

    pub(super) fn unknown(mut self) -> Self {
        self.0.outcome = Outcome::Unknown;
        self
    }

    pub(super) fn with_context(mut self, context: Context) -> Self {
        self.0.context = Some(context);
        self
    }

    /// What the operation as a whole tells its caller.
    pub(super) fn after(mut self, attempts: u8, outcome: Outcome, id: Option<WriteId>) -> Self {
        self.0.attempts = attempts;
        self.0.outcome = outcome;
        self.0.write_id = id;
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What may help now.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whether the write happened. Always [`Outcome::NotApplied`] for a read.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The write's id, where a write was sent.
    #[must_use]
    pub fn write_id(&self) -> Option<WriteId> {
        self.0.write_id
    }

    /// The address of the node that failed, where one was asked.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// Replicas that had answered, and how many were needed; both 0 where nobody counted.
    #[must_use]
    pub fn acks(&self) -> (u8, u8) {
        (self.0.acks, self.0.needed)
    }

    /// The context that covers what is there, with [`Kind::Siblings`] and [`Kind::Conflict`].
    #[must_use]
    pub fn context(&self) -> Option<&Context> {
        self.0.context.as_ref()
    }

    /// How many requests the client sent before it gave up.
    #[must_use]
    pub fn attempts(&self) -> u8 {
        self.0.attempts
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, outcome, write_id, node, acks, needed, attempts, message, .. } = &*self.0;
        match message.as_str() {
            "" => write!(f, "{kind:?}")?,
            message => f.write_str(message)?,
        }
        if let Some(node) = node {
            write!(f, " (node {node}")?;
            if *needed > 0 {
                write!(f, ", {acks} of {needed} replicas")?;
            }
            if *attempts > 1 {
                write!(f, ", {attempts} attempts")?;
            }
            f.write_str(")")?;
        }
        match (outcome, write_id) {
            (Outcome::Unknown, Some(id)) => write!(
                f,
                "; the write may have happened: read the key, or write again with write id {id}"
            ),
            (Outcome::Unknown, None) => f.write_str("; it may have happened"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::new(Kind::Key, error.to_string())
    }
}

pub(super) fn kind_of(code: FailureCode) -> Kind {
    match code {
        FailureCode::Unavailable | FailureCode::Stale => Kind::Unavailable,
        FailureCode::Unknown => Kind::Unconfirmed,
        FailureCode::Timeout => Kind::Timeout,
        FailureCode::Busy => Kind::Busy,
        FailureCode::Exists => Kind::Exists,
        FailureCode::Absent => Kind::Absent,
        FailureCode::Siblings => Kind::Siblings,
        FailureCode::BadContext => Kind::BadContext,
        FailureCode::TooLarge => Kind::TooLarge,
        FailureCode::Draining => Kind::Draining,
        FailureCode::NoBucket => Kind::NoBucket,
        FailureCode::Forming => Kind::Forming,
        FailureCode::DiskFull => Kind::DiskFull,
        FailureCode::Corrupt => Kind::Corrupt,
        FailureCode::Denied => Kind::Denied,
        FailureCode::Invalid => Kind::Invalid,
        FailureCode::Internal => Kind::Internal,
    }
}

/// What a caller can do about a failure that came without a hint of its own.
fn retry_of(kind: Kind) -> Retry {
    match kind {
        Kind::Config
        | Kind::Key
        | Kind::Exists
        | Kind::Absent
        | Kind::Siblings
        | Kind::Conflict
        | Kind::BadContext
        | Kind::TooLarge
        | Kind::NoBucket
        | Kind::Denied
        | Kind::Invalid => Retry::Never,
        Kind::Connect => Retry::After(Duration::from_millis(100)),
        Kind::Busy => Retry::After(Duration::from_millis(10)),
        // Another node may see more replicas, have room, or simply be sound.
        Kind::Lost
        | Kind::Protocol
        | Kind::Timeout
        | Kind::Unavailable
        | Kind::Unconfirmed
        | Kind::Draining
        | Kind::Forming
        | Kind::DiskFull
        | Kind::Corrupt
        | Kind::Internal => Retry::NextNode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_names_the_write_and_what_to_do() {
        let mut failure = Failure::not_applied(FailureCode::Unknown, "2 of 3 replicas are silent");
        failure.outcome = messages::Outcome::Unknown;
        (failure.acks, failure.needed) = (1, 2);
        let error = Error::answered("a:1", failure).after(3, Outcome::Unknown, Some(WriteId(7)));
        assert_eq!((error.kind(), error.outcome()), (Kind::Unconfirmed, Outcome::Unknown));
        assert_eq!(
            error.to_string(),
            "2 of 3 replicas are silent (node a:1, 1 of 2 replicas, 3 attempts); the write may \
             have happened: read the key, or write again with write id \
             00000000000000000000000000000007"
        );
    }

    #[test]
    fn a_hint_of_the_node_counts_more_than_the_rule_but_never_revives_what_is_final() {
        let mut failure = Failure::not_applied(FailureCode::Busy, "");
        failure.retry_after_ms = 70;
        let busy = Error::answered("a:1", failure.clone());
        assert_eq!(busy.retry(), Retry::After(Duration::from_millis(70)));
        failure.code = FailureCode::TooLarge;
        assert_eq!(Error::answered("a:1", failure).retry(), Retry::Never);
    }
}
