//! Read, resolve, write.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Bucket, Context, Error, Kind, Level, Outcome, Result, Values, Write, Written};

/// What an update makes of what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This value, in place of all that was read.
    Put(Bytes),
    /// Nothing any more.
    Delete,
    /// Leaves everything as it is, siblings too.
    Keep,
}

macro_rules! from_value {
    ($($value:ty),*) => {
        $(impl From<$value> for Change {
            fn from(value: $value) -> Self {
                Self::Put(value.into())
            }
        })*
    };
}

from_value!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl<T: Into<Change>> From<Option<T>> for Change {
    /// `None` leaves everything as it is.
    fn from(change: Option<T>) -> Self {
        change.map_or(Self::Keep, Into::into)
    }
}

/// An update that has not begun yet; awaiting it carries it out.
///
/// It reads, applies the closure, and writes with the context of the read, so that every sibling
/// the closure was given is replaced. **The closure's result takes effect at most once.** A write
/// that certainly did not happen (a lost race: the key had too many siblings to take another, or
/// a replica could not take it) is repeated from the read on, and the closure runs again. After a
/// write whose outcome is unknown it does not: counting twice would be worse than an error that
/// says so.
///
/// Two updates at the same time may both succeed, and then leave two siblings, of which neither
/// has seen the other: the next update gets both, and its closure must be able to merge them.
#[must_use = "an update does nothing until it is awaited"]
pub struct Update<F> {
    bucket: Bucket,
    key: Bytes,
    change: F,
    attempts: u32,
    r: Level,
    w: Level,
    timeout: Option<Duration>,
}

/// An update was carried out.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The write; `None` when the closure left everything as it was.
    pub written: Option<Written>,
    /// How many times it was begun: 1 without a lost race.
    pub attempts: u32,
}

impl<F> Update<F> {
    pub(super) fn new(bucket: Bucket, key: &[u8], change: F) -> Self {
        Self {
            bucket,
            key: Bytes::copy_from_slice(key),
            change,
            attempts: 3,
            r: Level::Default,
            w: Level::Default,
            timeout: None,
        }
    }

    /// How many times to begin, at most. Default 3.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Replicas that must answer the read.
    pub fn r(mut self, level: impl Into<Level>) -> Self {
        self.r = level.into();
        self
    }

    /// Replicas that must have the result durably.
    pub fn w(mut self, level: impl Into<Level>) -> Self {
        self.w = level.into();
        self
    }

    /// Time that all of it may take, instead of the client's for one operation.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn send<C>(mut self) -> Result<Updated>
    where
        F: FnMut(&Values) -> C,
        C: Into<Change>,
    {
        let timeout = self.timeout.unwrap_or(self.bucket.operation_timeout());
        let deadline = Instant::now() + timeout;
        let mut attempts = 1;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let read = self.bucket.get(&self.key).r(self.r).timeout(left).await?;
            let change = (self.change)(&read.values).into();
            let left = deadline.saturating_duration_since(Instant::now());
            let written = match write_of(&self.bucket, &self.key, change, &read.context) {
                None => Ok(None),
                Some(write) => write.w(self.w).timeout(left).await.map(Some),
            };
            match written {
                Err(error) if attempts < self.attempts && is_lost_race(&error) => attempts += 1,
                written => return written.map(|written| Updated { written, attempts }),
            }
        }
    }
}

fn write_of(bucket: &Bucket, key: &[u8], change: Change, context: &Context) -> Option<Write> {
    match change {
        Change::Keep => None,
        Change::Put(value) => Some(bucket.put(key, value).context(context)),
        Change::Delete => Some(bucket.delete(key).context(context)),
    }
}

/// What was read has been overtaken, and nothing was written.
fn is_lost_race(error: &Error) -> bool {
    error.outcome() == Outcome::NotApplied
        && matches!(error.kind(), Kind::Siblings | Kind::Exists | Kind::Absent)
}

impl<F, C> IntoFuture for Update<F>
where
    F: FnMut(&Values) -> C + Send + 'static,
    C: Into<Change> + Send + 'static,
{
    type Output = Result<Updated>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
