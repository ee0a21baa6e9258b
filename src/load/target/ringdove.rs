//! The framed protocol, through the Rust client.

use std::time::Duration;

use bytes::Bytes;

use super::{Basis, Failure, Found, Session, Target};
use crate::client::{self, Bucket, Client, Context, Level, Outcome, Values, Write};
use crate::load::Error;
use crate::wire::messages::Conflicts;

/// How many replicas requests ask for, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Replicas that must answer a read.
    pub r: Level,
    /// Replicas that must confirm a write.
    pub w: Level,
    /// Only the key's own replicas count.
    pub strict: bool,
    /// Time for one request, its repetitions included.
    pub timeout: Duration,
}

/// A cluster of Ringdove, through one or more clients.
pub struct RingdoveTarget {
    buckets: Vec<Bucket>,
    levels: Levels,
    last_write_wins: bool,
}

impl RingdoveTarget {
    /// Connects `clients` clients, each of which keeps a connection to each node it uses. With
    /// `only_given` these are the nodes at `addresses` and no others.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when no node answers, [`Error::Settings`] when there is no such bucket.
    pub async fn connect(
        addresses: &[String],
        only_given: bool,
        bucket: &str,
        clients: usize,
        levels: Levels,
    ) -> Result<Self, Error> {
        let mut buckets = Vec::new();
        let mut last_write_wins = false;
        for _ in 0..clients.max(1) {
            let mut builder = Client::builder().seeds(addresses).operation_timeout(levels.timeout);
            if only_given {
                builder = builder.only_seeds();
            }
            let client = builder.connect().await.map_err(unreachable)?;
            let topology = client.topology();
            let Some(settings) = topology.bucket(bucket) else {
                return Err(Error::settings(format!(
                    "there is no bucket {bucket:?}: `ringdove bucket create {bucket}` makes it"
                )));
            };
            last_write_wins = settings.conflicts == Conflicts::LastWriteWins;
            buckets.push(client.bucket(bucket).map_err(unreachable)?);
        }
        Ok(Self { buckets, levels, last_write_wins })
    }
}

fn unreachable(error: client::Error) -> Error {
    match error.kind() {
        client::Kind::Config | client::Kind::Key => Error::Settings(error.to_string()),
        _ => Error::Unreachable(format!(
            "{error}; `ringdove dev` starts a cluster, --target ringdove://HOST:PORT names another"
        )),
    }
}

impl Target for RingdoveTarget {
    type Session = RingdoveSession;

    fn session(&self, number: usize) -> RingdoveSession {
        let bucket = self.buckets[number % self.buckets.len()].clone();
        RingdoveSession { bucket, levels: self.levels }
    }

    fn last_write_wins(&self) -> bool {
        self.last_write_wins
    }
}

/// One request at a time, over connections that all share.
pub struct RingdoveSession {
    bucket: Bucket,
    levels: Levels,
}

impl Session for RingdoveSession {
    type Context = Context;
    const CONTEXTS: bool = true;

    async fn read(&mut self, key: &[u8], found: &mut Found<Context>) -> Result<(), Failure> {
        let mut get = self.bucket.get(key).r(self.levels.r);
        if self.levels.strict {
            get = get.strict();
        }
        let read = get.await.map_err(failure)?;
        match read.values {
            Values::None | Values::Tombstone => {}
            Values::One(value) => found.values.push(value.data),
            Values::Many(values) => {
                found.values.extend(values.into_iter().map(|value| value.data));
            }
        }
        found.context = Some(read.context);
        Ok(())
    }

    async fn read_many(&mut self, keys: &[Vec<u8>]) -> Result<(), Failure> {
        let reads = self.bucket.multi_get(keys).r(self.levels.r).concurrency(keys.len());
        reads.await.into_iter().try_for_each(|(_, answer)| answer.map(drop)).map_err(failure)
    }

    async fn write(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        basis: Basis<'_, Context>,
    ) -> Result<Option<Context>, Failure> {
        let mut write = match value {
            Some(value) => put(&self.bucket, key, value, basis),
            None => match basis {
                Basis::Context(context) => self.bucket.delete(key).context(context),
                // A deletion always replaces something.
                Basis::Observed | Basis::Blind => self.bucket.delete(key).observed(),
            },
        };
        write = write.w(self.levels.w);
        if self.levels.strict {
            write = write.strict();
        }
        write.await.map(|written| Some(written.context)).map_err(failure)
    }
}

fn put(bucket: &Bucket, key: &[u8], value: Bytes, basis: Basis<'_, Context>) -> Write {
    let put = bucket.put(key, value);
    match basis {
        Basis::Observed => put.observed(),
        Basis::Blind => put.blind(),
        Basis::Context(context) => put.context(context),
    }
}

fn failure(error: client::Error) -> Failure {
    Failure { name: error.kind().word(), is_unknown: error.outcome() == Outcome::Unknown }
}
