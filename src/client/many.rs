//! Many keys at once, each with an answer of its own.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Bucket, Error, Kind, Level, Read, Result, Write, Written};

/// How many operations run at the same time unless the caller says otherwise: enough to keep
/// every node's group commit busy, few enough to leave room for others on the connections.
const CONCURRENCY: usize = 64;

type Answers<T> = Vec<(Bytes, Result<T>)>;
type Answering<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Reads of many keys that have not been sent yet; awaiting them gives an answer for each key, in
/// the order in which the keys were named.
#[must_use = "reads do nothing until they are awaited"]
pub struct MultiGet {
    bucket: Bucket,
    keys: Vec<Bytes>,
    r: Level,
    pr: Level,
    concurrency: usize,
}

/// Writes of many keys that have not been sent yet; awaiting them gives an answer for each write,
/// in the order in which they were given.
#[must_use = "writes do nothing until they are awaited"]
pub struct MultiPut {
    writes: Vec<Write>,
    concurrency: usize,
}

impl MultiGet {
    pub(super) fn new(bucket: Bucket, keys: impl Iterator<Item = Bytes>) -> Self {
        let (r, pr) = (Level::Default, Level::Default);
        Self { bucket, keys: keys.collect(), r, pr, concurrency: CONCURRENCY }
    }

    /// Replicas that must answer, for each key.
    pub fn r(mut self, level: impl Into<Level>) -> Self {
        self.r = level.into();
        self
    }

    /// Of those, how many must be primaries.
    pub fn pr(mut self, level: impl Into<Level>) -> Self {
        self.pr = level.into();
        self
    }

    /// How many keys are read at the same time. Default 64.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.concurrency = most;
        self
    }
}

impl MultiPut {
    pub(super) fn new(writes: impl IntoIterator<Item = Write>) -> Self {
        Self { writes: writes.into_iter().collect(), concurrency: CONCURRENCY }
    }

    /// How many writes are under way at the same time. Default 64.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.concurrency = most;
        self
    }
}

/// Runs the operations, at most `concurrency` at a time. Dropping the future drops them all.
async fn all<T: Send + 'static>(
    operations: impl ExactSizeIterator<Item = (Bytes, Answering<T>)>,
    concurrency: usize,
) -> Answers<T> {
    let lost = || Err(Error::new(Kind::Internal, "the operation's task ended without an answer"));
    let mut answers: Answers<T> = Vec::with_capacity(operations.len());
    let mut running = JoinSet::new();
    let settle = |answers: &mut Answers<T>, ended: std::result::Result<(usize, Result<T>), _>| {
        if let Ok((index, answer)) = ended {
            answers[index].1 = answer;
        }
    };
    for (index, (key, operation)) in operations.enumerate() {
        while running.len() >= concurrency.max(1) {
            let ended = running.join_next().await.expect("it is not empty");
            settle(&mut answers, ended);
        }
        answers.push((key, lost()));
        running.spawn(async move { (index, operation.await) });
    }
    while let Some(ended) = running.join_next().await {
        settle(&mut answers, ended);
    }
    answers
}

impl IntoFuture for MultiGet {
    type Output = Answers<Read>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { bucket, keys, r, pr, concurrency } = self;
        let read = move |key: Bytes| {
            let operation = bucket.get(&key).r(r).pr(pr).into_future();
            (key, operation)
        };
        Box::pin(all(keys.into_iter().map(read), concurrency))
    }
}

impl IntoFuture for MultiPut {
    type Output = Answers<Written>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let write = |write: Write| (write.key_bytes(), write.into_future());
        Box::pin(all(self.writes.into_iter().map(write), self.concurrency))
    }
}
