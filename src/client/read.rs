//! Reading a key.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::operation::{Effect, Operation};
use super::{Context, Error, Hop, Inner, Kind, Level, Receipt, Resolve, Result, Value};
use crate::key::{Key, KeyError};
use crate::wire::messages::{self, Request, Response};

/// A read that has not been sent yet; awaiting it sends it.
#[must_use = "a read does nothing until it is awaited"]
pub struct Get {
    inner: Arc<Inner>,
    key: std::result::Result<Key, KeyError>,
    r: Level,
    pr: Level,
    strict: bool,
    trace: bool,
    timeout: Option<Duration>,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct Read {
    /// The values.
    pub values: Values,
    /// The token with which a write replaces exactly these values.
    pub context: Context,
    /// What was achieved: who answered, from where, in what time.
    pub receipt: Receipt,
    /// The hops, if [`Get::trace`] asked for them.
    pub trace: Vec<Hop>,
}

/// The values of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// Nothing was ever there, as far as those who answered know.
    None,
    /// Nothing is there, and that something was is remembered.
    Tombstone,
    /// One value.
    One(Value),
    /// Values whose writers did not see each other, newest first. Whoever writes next with the
    /// read's context replaces them all.
    Many(Vec<Value>),
}

impl From<u8> for Level {
    fn from(count: u8) -> Self {
        Self::Count(count)
    }
}

impl Get {
    pub(super) fn new(inner: Arc<Inner>, key: std::result::Result<Key, KeyError>) -> Self {
        let (r, pr) = (Level::Default, Level::Default);
        Self { inner, key, r, pr, strict: false, trace: false, timeout: None }
    }

    /// Replicas that must answer: a number, [`Level::Quorum`] or [`Level::All`]. Unless said,
    /// what the bucket says.
    pub fn r(mut self, level: impl Into<Level>) -> Self {
        self.r = level.into();
        self
    }

    /// Of those, how many must be primaries. Unless said, none.
    pub fn pr(mut self, level: impl Into<Level>) -> Self {
        self.pr = level.into();
        self
    }

    /// Only the key's own replicas count, however many of them are away. Unless said, fallbacks
    /// stand in for those, and what they have not been given is not seen.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Records what happened on the way, in [`Read::trace`].
    pub fn trace(mut self) -> Self {
        self.trace = true;
        self
    }

    /// Time the whole operation may take, instead of the client's.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn send(self) -> Result<Read> {
        let Self { inner, key, r, pr, strict, trace, timeout } = self;
        let key = key?;
        let operation = Operation::new(&inner, Some(&key), Effect::Reads, timeout);
        let build = |attempt: super::operation::Attempt| {
            let budget_ms = attempt.budget_ms;
            Request::Get(messages::Get { key: key.clone(), r, pr, budget_ms, strict, trace })
        };
        let take = |response| match response {
            Response::Got(got) => Some(got),
            _ => None,
        };
        let got = operation.run(build, take).await?;
        inner.notice(got.receipt.topology);
        Ok(Read {
            values: Values::new(got.values, got.deleted),
            context: Context::new(got.context),
            receipt: got.receipt,
            trace: got.trace,
        })
    }
}

impl IntoFuture for Get {
    type Output = Result<Read>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl Read {
    /// The one value, or `None` where no value is.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when there are siblings; the error has the context that covers them.
    pub fn one(self) -> Result<Option<Bytes>> {
        match self.values {
            Values::None | Values::Tombstone => Ok(None),
            Values::One(value) => Ok(Some(value.data)),
            Values::Many(siblings) => {
                let message = format!(
                    "the key has {} siblings: resolve them (`resolve`, `update`) and write the \
                     result with the read's context",
                    siblings.len()
                );
                Err(Error::new(Kind::Conflict, message).with_context(self.context))
            }
        }
    }
}

/// Values shorter than this are copied out of the buffer they were read into, which is tens of
/// KiB large: whoever keeps a value for long must not keep that.
const COPIED_BYTES: usize = 8 * 1024;

impl Values {
    fn new(mut values: Vec<Value>, deleted: bool) -> Self {
        for value in values.iter_mut().filter(|value| value.data.len() < COPIED_BYTES) {
            value.data = Bytes::copy_from_slice(&value.data);
        }
        match values.len() {
            0 if deleted => Self::Tombstone,
            0 => Self::None,
            1 => Self::One(values.remove(0)),
            _ => Self::Many(values),
        }
    }

    /// All of them, newest first: none, one, or the siblings.
    #[must_use]
    pub fn as_slice(&self) -> &[Value] {
        match self {
            Self::None | Self::Tombstone => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(siblings) => siblings,
        }
    }

    /// Whether no value is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The value written last, by the clocks of its coordinators. Of siblings the others are
    /// still there, and still wait for somebody to resolve them.
    #[must_use]
    pub fn newest(&self) -> Option<&Value> {
        self.as_slice().iter().max_by_key(|value| (value.hlc, value.dot))
    }

    /// One value for what is there: `None` for none, the value itself for one, and for siblings
    /// what `resolver` makes of them. Writes nothing.
    #[must_use]
    pub fn resolve(&self, resolver: &dyn Resolve) -> Option<Bytes> {
        match self {
            Self::None | Self::Tombstone => None,
            Self::One(value) => Some(value.data.clone()),
            Self::Many(siblings) => Some(resolver.resolve(siblings)),
        }
    }
}
