//! What is put under load, as a trait: another kind of server is one more file here.
//!
//! A [`Target`] gives [`Session`]s, and a session carries out one request at a time; the runner has
//! as many of them as requests may be under way. What a session shares with others (connections,
//! buffers) is the target's own affair.

use std::future::Future;

use bytes::Bytes;

mod address;
pub mod redis;
mod redis_link;
mod redis_reply;
pub mod ringdove;

pub use self::address::{Address, Scheme};
pub use self::redis::RedisTarget;
pub use self::ringdove::{Levels, RingdoveTarget};

/// A server, or several that are one.
pub trait Target: 'static {
    /// One of its sessions.
    type Session: Session;

    /// A session; `number` counts them from 0, and spreads them over connections.
    fn session(&self, number: usize) -> Self::Session;

    /// Whether of two writes that did not see each other one is dropped.
    fn last_write_wins(&self) -> bool;
}

/// Carries out one request at a time.
pub trait Session: 'static {
    /// What a write carries to say what it has seen.
    type Context: Clone + 'static;
    /// Whether writes say what they have seen. Where they do not, each replaces what it finds.
    const CONTEXTS: bool;

    /// Reads a key into `found`, which is empty.
    fn read(
        &mut self,
        key: &[u8],
        found: &mut Found<Self::Context>,
    ) -> impl Future<Output = Result<(), Failure>>;

    /// Reads several keys at once.
    fn read_many(&mut self, keys: &[Vec<u8>]) -> impl Future<Output = Result<(), Failure>>;

    /// Writes a value, or deletes what is there. Gives what the next write carries to replace this
    /// one, where there is such a thing.
    fn write(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        basis: Basis<'_, Self::Context>,
    ) -> impl Future<Output = Result<Option<Self::Context>, Failure>>;
}

/// What a read found.
#[derive(Debug)]
pub struct Found<C> {
    /// The values: none, one, or several that did not see each other.
    pub values: Vec<Bytes>,
    /// With it, a write replaces exactly these.
    pub context: Option<C>,
}

impl<C> Default for Found<C> {
    fn default() -> Self {
        Self { values: Vec::new(), context: None }
    }
}

impl<C> Found<C> {
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.context = None;
    }
}

/// What a write replaces.
#[derive(Clone, Copy, Debug)]
pub enum Basis<'a, C> {
    /// Whatever is there when it arrives.
    Observed,
    /// Nothing.
    Blind,
    /// What was seen.
    Context(&'a C),
}

/// A request that was not answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word that stays the same: `unavailable`, `timeout`.
    pub name: &'static str,
    /// It was a write, and may have happened.
    pub is_unknown: bool,
}
