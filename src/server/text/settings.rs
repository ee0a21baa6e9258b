//! What a connection has set for the commands that follow, and the requests that come of it.

use std::time::Duration;

use bytes::Bytes;

use crate::key::{Key, KeyError};
use crate::resp::Reply;
use crate::resp::command::{QuorumMode, QuorumSettings};
use crate::wire::messages::{Basis, Condition, Expiry, Get, Level, Put};

/// The bucket a connection begins in.
const FIRST_BUCKET: &str = "default";

/// Bucket and quorums of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) bucket: String,
    r: Level,
    w: Level,
    pr: Level,
    pw: Level,
    mode: QuorumMode,
    /// What the node is configured to give every request.
    budget_ms: u32,
}

impl Settings {
    pub(super) fn new(budget_ms: u32) -> Self {
        let level = Level::Default;
        let (r, w, pr, pw, mode) = (level, level, level, level, QuorumMode::Sloppy);
        Self { bucket: FIRST_BUCKET.to_owned(), r, w, pr, pw, mode, budget_ms }
    }

    /// How long a request may take.
    pub(super) fn budget(&self) -> Duration {
        Duration::from_millis(self.budget_ms.into())
    }

    /// Back to how a connection begins.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.budget_ms);
    }

    pub(super) fn set_quorum(&mut self, quorum: &QuorumSettings) {
        self.r = quorum.r.unwrap_or(self.r);
        self.w = quorum.w.unwrap_or(self.w);
        self.pr = quorum.pr.unwrap_or(self.pr);
        self.pw = quorum.pw.unwrap_or(self.pw);
        self.mode = quorum.mode.unwrap_or(self.mode);
    }

    /// The answer to `RD.QUORUM`.
    pub(super) fn quorum(&self) -> Reply {
        let mode = match self.mode {
            QuorumMode::Strict => "strict",
            QuorumMode::Sloppy => "sloppy",
        };
        Reply::map([
            ("r", level(self.r)),
            ("w", level(self.w)),
            ("pr", level(self.pr)),
            ("pw", level(self.pw)),
            ("mode", Reply::text(mode)),
        ])
    }

    /// Replicas that must answer a read.
    pub(super) fn r(&self) -> Level {
        self.r
    }

    fn is_strict(&self) -> bool {
        self.mode == QuorumMode::Strict
    }

    /// A key of the connection's bucket.
    pub(super) fn key(&self, name: &[u8]) -> Result<Key, KeyError> {
        Key::new(self.bucket.as_bytes(), name)
    }

    /// A read with the connection's quorums.
    pub(super) fn get(&self, key: Key) -> Get {
        let (strict, budget_ms) = (self.is_strict(), self.budget_ms);
        Get { key, r: self.r, pr: self.pr, budget_ms, strict, trace: false }
    }

    /// A write with the connection's quorums that replaces what the node's read sees.
    pub(super) fn put(&self, key: Key, write_id: crate::ids::WriteId, value: Option<Bytes>) -> Put {
        Put {
            key,
            write_id,
            attempt: 0,
            basis: Basis::Observed,
            condition: Condition::None,
            value,
            expiry: Expiry::Bucket,
            w: self.w,
            pw: self.pw,
            strict: self.is_strict(),
            budget_ms: self.budget_ms,
        }
    }
}

/// A level as `RD.QUORUM` takes it.
fn level(level: Level) -> Reply {
    match level {
        Level::Default => Reply::text("default"),
        Level::Quorum => Reply::text("quorum"),
        Level::All => Reply::text("all"),
        Level::Count(count) => Reply::text(count.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_quorum_does_not_name_stays_and_a_reset_takes_all_back() {
        let mut settings = Settings::new(2000);
        let fresh = settings.clone();
        let r = QuorumSettings { r: Some(Level::Count(2)), ..QuorumSettings::default() };
        settings.set_quorum(&r);
        let w = QuorumSettings { w: Some(Level::All), ..QuorumSettings::default() };
        settings.set_quorum(&w);
        let get = settings.get(settings.key(b"k").unwrap());
        assert_eq!((get.r, get.pr, get.budget_ms), (Level::Count(2), Level::Default, 2000));
        settings.reset();
        assert_eq!(settings, fresh);
    }
}
