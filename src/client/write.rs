//! Writing and deleting a key.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::operation::{Attempt, Effect, Operation};
use super::{Context, Error, Inner, Kind, Level, Receipt, Result, WriteId};
use crate::key::{Key, KeyError};
use crate::limits;
use crate::time::WallMs;
use crate::wire::messages::{self, Basis, Condition, Expiry, Request, Response};

/// A value on its way to a key that does not say yet what it builds on. Nothing to be awaited:
/// one of its methods makes it a [`Write`].
#[must_use = "say what the write builds on: `.context(&read.context)`, `.create_only()`, \
              `.observed()` or `.blind()`; then await it"]
pub struct Put {
    target: Target,
    value: Bytes,
}

/// A deletion that does not say yet what it builds on, as [`Put`].
#[must_use = "say what the deletion builds on: `.context(&read.context)` or `.observed()`; \
              then await it"]
pub struct Delete {
    target: Target,
}

/// A write or a deletion that has not been sent yet; awaiting it sends it.
#[must_use = "a write does nothing until it is awaited"]
pub struct Write {
    target: Target,
    value: Option<Bytes>,
    basis: Basis,
    condition: Condition,
    w: Level,
    pw: Level,
    strict: bool,
    expiry: Expiry,
    timeout: Option<Duration>,
    repeats: Option<WriteId>,
}

/// A write was acknowledged by as many replicas as it had to be.
#[derive(Clone, Debug)]
pub struct Written {
    /// The token that covers what this write built on, and the write itself: with it, the same
    /// writer's next write replaces this one without reading again, and stands beside what others
    /// wrote meanwhile.
    pub context: Context,
    /// What was achieved: who has it, who of them on disk, where, in what time.
    pub receipt: Receipt,
    /// The id under which it was written.
    pub write_id: WriteId,
}

struct Target {
    inner: Arc<Inner>,
    key: std::result::Result<Key, KeyError>,
}

impl Put {
    pub(super) fn new(
        inner: Arc<Inner>,
        key: std::result::Result<Key, KeyError>,
        value: Bytes,
    ) -> Self {
        Self { target: Target { inner, key }, value }
    }

    /// Replaces exactly what the read or write that gave this context saw. What others have
    /// written since then stays, as a sibling.
    pub fn context(self, context: &Context) -> Write {
        self.on(Basis::Context(context.token()), Condition::None)
    }

    /// Writes only where no value is; else fails with [`Kind::Exists`]. Two writers at the same
    /// time may both find none, and then both values stay.
    pub fn create_only(self) -> Write {
        self.on(Basis::Observed, Condition::Absent)
    }

    /// Replaces whatever a read by the coordinator sees when the write arrives, seen by this
    /// writer or not. This is what `SET` does in the text protocol.
    pub fn observed(self) -> Write {
        self.on(Basis::Observed, Condition::None)
    }

    /// Replaces nothing: stands beside whatever is there, as a sibling. Right for keys that are
    /// written once, and for values that are merged when they are read; elsewhere it piles up
    /// siblings until [`Kind::Siblings`].
    pub fn blind(self) -> Write {
        self.on(Basis::Blind, Condition::None)
    }

    fn on(self, basis: Basis, condition: Condition) -> Write {
        Write::new(self.target, Some(self.value), basis, condition)
    }
}

impl Delete {
    pub(super) fn new(inner: Arc<Inner>, key: std::result::Result<Key, KeyError>) -> Self {
        Self { target: Target { inner, key } }
    }

    /// Deletes exactly what the read or write that gave this context saw.
    pub fn context(self, context: &Context) -> Write {
        Write::new(self.target, None, Basis::Context(context.token()), Condition::None)
    }

    /// Deletes whatever a read by the coordinator sees when the deletion arrives.
    pub fn observed(self) -> Write {
        Write::new(self.target, None, Basis::Observed, Condition::None)
    }
}

impl Write {
    fn new(target: Target, value: Option<Bytes>, basis: Basis, condition: Condition) -> Self {
        Self {
            target,
            value,
            basis,
            condition,
            w: Level::Default,
            pw: Level::Default,
            strict: false,
            expiry: Expiry::Bucket,
            timeout: None,
            repeats: None,
        }
    }

    /// Replicas that must have it durably: a number, [`Level::Quorum`] or [`Level::All`]. Unless
    /// said, what the bucket says.
    pub fn w(mut self, level: impl Into<Level>) -> Self {
        self.w = level.into();
        self
    }

    /// Of those, how many must be primaries. Unless said, none.
    pub fn pw(mut self, level: impl Into<Level>) -> Self {
        self.pw = level.into();
        self
    }

    /// Only the key's own replicas count, however many of them are away. Unless said, fallbacks
    /// stand in for those and keep the write for them.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The value reads as absent once this has passed. Counted in whole milliseconds.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.expiry = Expiry::After(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The value reads as absent from this time on, by the nodes' clocks. In whole milliseconds.
    pub fn expires_at(mut self, at: SystemTime) -> Self {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The last millisecond that there is stands for "never".
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).min(u64::MAX - 1);
        self.expiry = Expiry::At(WallMs(millis));
        self
    }

    /// The value stays, whatever time to live the bucket gives its values.
    pub fn never_expires(mut self) -> Self {
        self.expiry = Expiry::Never;
        self
    }

    /// Time the whole operation may take, instead of the client's.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Carries on a write whose outcome is unknown ([`Error::write_id`]), or one that the caller
    /// has named. Replicas are asked for a write of that id first, and if one has it, this one
    /// is acknowledged without writing twice: a round more than a fresh write takes.
    ///
    /// The id must have been used for no other key, value or context.
    pub fn write_id(mut self, id: WriteId) -> Self {
        self.repeats = Some(id);
        self
    }

    /// The key it goes to; empty if what was named can be no key.
    pub(super) fn key_bytes(&self) -> Bytes {
        self.target.key.as_ref().map(Key::name_bytes).unwrap_or_default()
    }

    async fn send(self) -> Result<Written> {
        let Self { target: Target { inner, key }, value, basis, condition, w, pw, strict, .. } =
            self;
        let key = key?;
        if let Some(actual) = value.as_ref().map(Bytes::len)
            && actual > limits::VALUE_BYTES_HARD
        {
            let most = limits::VALUE_BYTES_HARD;
            let message = format!("the value has {actual} bytes; at most {most} are ever taken");
            return Err(Error::new(Kind::TooLarge, message));
        }
        let expiry = self.expiry;
        let write_id = self.repeats.unwrap_or_else(|| inner.entropy.write_id());
        let effect = Effect::Writes { id: write_id, repeated: self.repeats.is_some() };
        let build = |Attempt { number, budget_ms }| {
            Request::Put(messages::Put {
                key: key.clone(),
                write_id,
                attempt: number,
                basis: basis.clone(),
                condition,
                value: value.clone(),
                expiry,
                w,
                pw,
                strict,
                budget_ms,
            })
        };
        let take = |response| match response {
            Response::Done(done) => Some(done),
            _ => None,
        };
        let operation = Operation::new(&inner, Some(&key), effect, self.timeout);
        let done = operation.run(build, take).await?;
        inner.notice(done.receipt.topology);
        Ok(Written { context: Context::new(done.context), receipt: done.receipt, write_id })
    }
}

impl IntoFuture for Write {
    type Output = Result<Written>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
