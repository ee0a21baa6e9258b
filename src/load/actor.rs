//! Carries out requests in a session, one at a time, and keeps the books.
//!
//! ```text
//!   update, fresh      read ──▶ write with the context of that read
//!   update, kept       write with what this process last got for the key, else blind
//!   update, observed   write over whatever is there when it arrives
//!   update, blind      write beside whatever is there
//!   delete             read ──▶ delete with the context of that read (kept: as update)
//! ```
//!
//! A deletion without a read would not know what it deletes, and nobody could say afterwards what
//! must not come back. Where a server knows no contexts, everything is observed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;

use super::Error;
use super::ledger::{Action, Entry, Ledger, Outcome};
use super::stamp::{Press, Stamp, Version};
use super::target::{Basis, Failure, Found, Session};
use super::workload::{Kind, Request, name_key};

/// Keys whose contexts are kept; beyond it all are forgotten, and writers begin anew.
const CONTEXTS_KEPT: usize = 100_000;
/// Stands in a ledger for a value that was damaged.
pub(super) const DAMAGED: Version = Version { writer: 0, number: 0 };
/// Values are cut from blocks of this size.
const VALUE_BLOCK_BYTES: usize = 64 * 1024;

/// What writes say that they have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nothing: they replace whatever is there when they arrive, as `SET` in Redis.
    Observed,
    /// What they have read just before.
    Fresh,
    /// Nothing: they stand beside what is there.
    Blind,
    /// What this process last got for the key.
    Kept,
}

impl Manner {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Fresh => "fresh",
            Self::Blind => "blind",
            Self::Kept => "kept",
        }
    }
}

impl FromStr for Manner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::Observed, Self::Fresh, Self::Blind, Self::Kept];
        all.into_iter().find(|manner| manner.name() == text).ok_or_else(|| {
            Error::settings(format!(
                "{text:?} says nothing about contexts: write observed, fresh, blind or kept"
            ))
        })
    }
}

/// Time since the run began, and the wall clock as it was then: it never goes backwards.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begun: Instant,
    begun_us: u64,
}

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { begun: Instant::now(), begun_us: micros(since) }
    }

    /// When it began.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// When it began, microseconds since 1970.
    #[must_use]
    pub fn begun_us(&self) -> u64 {
        self.begun_us
    }

    /// Microseconds since it began.
    #[must_use]
    pub fn elapsed_us(&self) -> u64 {
        micros(self.begun.elapsed())
    }

    /// Milliseconds since 1970, at so many microseconds since it began.
    #[must_use]
    pub fn wall_ms(&self, elapsed_us: u64) -> u64 {
        (self.begun_us + elapsed_us) / 1000
    }
}

/// Whole microseconds.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// What all actors of a run share.
pub(super) struct Books<C> {
    clock: Clock,
    keeps_ledger: bool,
    manner: Manner,
    /// Who writes.
    writer: u64,
    /// Writes so far.
    written: Cell<u64>,
    pub(super) ledger: RefCell<Option<Ledger>>,
    /// What was last got for a key, with [`Manner::Kept`].
    kept: RefCell<HashMap<u64, (C, Vec<Version>)>>,
    press: Press,
}

/// A request was answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// A read found more than one version.
    pub(super) siblings: bool,
}

/// Carries out one request at a time.
pub(super) struct Actor<S: Session> {
    session: S,
    books: Rc<Books<S::Context>>,
    found: Found<S::Context>,
    /// Of the values in `found`, in a run that keeps a ledger.
    versions: Vec<Version>,
    key: Vec<u8>,
    values: BytesMut,
}

impl<S: Session> Actor<S> {
    pub(super) fn new(session: S, books: Rc<Books<S::Context>>) -> Self {
        let (found, versions, key) = (Found::default(), Vec::new(), Vec::new());
        Self { session, books, found, versions, key, values: BytesMut::new() }
    }

    /// Carries out a request.
    pub(super) async fn perform(&mut self, request: &Request) -> Result<Done, Failure> {
        let key = request.key;
        match request.kind {
            Kind::Read => self.read(key).await,
            Kind::Scan => self.scan(key, request.size).await,
            Kind::Update | Kind::Insert => self.update(key, Some(request.size)).await,
            Kind::Delete => self.update(key, None).await,
            Kind::ReadModifyWrite => {
                let siblings = self.read(key).await?;
                self.write_over(key, Some(request.size)).await.map(|_| siblings)
            }
        }
    }

    async fn read(&mut self, key: u64) -> Result<Done, Failure> {
        name_key(key, &mut self.key);
        self.found.clear();
        let sent_us = self.books.clock.elapsed_us();
        self.session.read(&self.key, &mut self.found).await?;
        if self.books.keeps_ledger {
            self.versions.clear();
            self.versions.extend(self.found.values.iter().map(|value| version_of(value)));
            self.note(Action::Read, Outcome::Acknowledged, false, key, 0, sent_us);
        }
        if self.books.manner == Manner::Kept
            && let Some(context) = &self.found.context
        {
            self.books.keep(key, context.clone(), self.versions.clone());
        }
        Ok(Done { siblings: self.found.values.len() > 1 })
    }

    async fn scan(&mut self, first: u64, length: usize) -> Result<Done, Failure> {
        let named = |key| {
            let mut name = Vec::new();
            name_key(key, &mut name);
            name
        };
        let keys: Vec<Vec<u8>> = (first..).take(length).map(named).collect();
        self.session.read_many(&keys).await.map(|()| Done { siblings: false })
    }

    /// Writes, or deletes without a `size`, in the manner of the run.
    async fn update(&mut self, key: u64, size: Option<usize>) -> Result<Done, Failure> {
        if !S::CONTEXTS {
            return self.write(key, size, Basis::Observed).await;
        }
        match self.books.manner {
            Manner::Kept => {
                let kept = self.books.kept.borrow().get(&key).cloned();
                match kept {
                    Some((context, versions)) => {
                        (self.found.context, self.versions) = (Some(context), versions);
                        self.write_over(key, size).await
                    }
                    None if size.is_some() => self.write(key, size, Basis::Blind).await,
                    None => self.read_and_write_over(key, size).await,
                }
            }
            Manner::Fresh => self.read_and_write_over(key, size).await,
            Manner::Observed | Manner::Blind if size.is_none() => {
                self.read_and_write_over(key, size).await
            }
            Manner::Observed => self.write(key, size, Basis::Observed).await,
            Manner::Blind => self.write(key, size, Basis::Blind).await,
        }
    }

    async fn read_and_write_over(
        &mut self,
        key: u64,
        size: Option<usize>,
    ) -> Result<Done, Failure> {
        // The read is half of a write: that it found siblings is no answer to a reader.
        self.read(key).await?;
        self.write_over(key, size).await
    }

    /// Writes with the context of what was read last.
    async fn write_over(&mut self, key: u64, size: Option<usize>) -> Result<Done, Failure> {
        match self.found.context.take() {
            Some(context) => self.write(key, size, Basis::Context(&context)).await,
            None => self.write(key, size, Basis::Observed).await,
        }
    }

    async fn write(
        &mut self,
        key: u64,
        size: Option<usize>,
        basis: Basis<'_, S::Context>,
    ) -> Result<Done, Failure> {
        let number = self.books.written.get() + 1;
        self.books.written.set(number);
        let version = Version { writer: self.books.writer, number };
        let sent_us = self.books.clock.elapsed_us();
        let value = size.map(|size| self.value(version, sent_us, size));
        let observed = matches!(basis, Basis::Observed);
        if !matches!(basis, Basis::Context(_)) {
            self.versions.clear();
        }
        name_key(key, &mut self.key);
        let written = self.session.write(&self.key, value, basis).await;
        let outcome = match &written {
            Ok(_) => Outcome::Acknowledged,
            Err(failure) if failure.is_unknown => Outcome::Unknown,
            Err(_) => Outcome::Refused,
        };
        let action = if size.is_some() { Action::Put } else { Action::Delete };
        self.note(action, outcome, observed, key, number, sent_us);
        if let (Manner::Kept, Ok(Some(context))) = (self.books.manner, &written) {
            // What it had built on it has seen in turn; a deletion leaves nothing to be seen.
            let mut seen = if size.is_some() { vec![version] } else { self.versions.clone() };
            seen.truncate(crate::limits::SIBLINGS_DECODE);
            self.books.keep(key, context.clone(), seen);
        }
        written.map(|_| Done { siblings: false })
    }

    /// A value that says who wrote it. Memory is taken from a block that is used again once nobody
    /// holds values of it any more.
    fn value(&mut self, version: Version, sent_us: u64, size: usize) -> bytes::Bytes {
        if self.values.capacity() < size {
            self.values.reserve(size.max(VALUE_BLOCK_BYTES));
        }
        let at_ms = self.books.clock.wall_ms(sent_us);
        self.books.press.value(version, at_ms, size, &mut self.values);
        self.values.split().freeze()
    }

    /// Enters a request that was answered, with `self.versions`, into the ledger.
    fn note(
        &mut self,
        action: Action,
        outcome: Outcome,
        observed: bool,
        key: u64,
        number: u64,
        sent_us: u64,
    ) {
        let mut ledger = self.books.ledger.borrow_mut();
        let Some(ledger) = &mut *ledger else { return };
        let took_us = self.books.clock.elapsed_us() - sent_us;
        let versions = std::mem::take(&mut self.versions);
        let entry = Entry { action, outcome, observed, key, number, sent_us, took_us, versions };
        ledger.append(&entry);
        self.versions = entry.versions;
    }
}

impl<C> Books<C> {
    pub(super) fn new(clock: Clock, manner: Manner, writer: u64, ledger: Option<Ledger>) -> Self {
        Self {
            clock,
            manner,
            writer,
            written: Cell::new(0),
            keeps_ledger: ledger.is_some(),
            ledger: RefCell::new(ledger),
            kept: RefCell::new(HashMap::new()),
            press: Press::new(),
        }
    }

    fn keep(&self, key: u64, context: C, versions: Vec<Version>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= CONTEXTS_KEPT && !kept.contains_key(&key) {
            kept.clear();
        }
        kept.insert(key, (context, versions));
    }
}

/// What a value is in a ledger. Whoever wrote a foreign one, it is told from others by its bytes.
pub(super) fn version_of(value: &[u8]) -> Version {
    match Stamp::of(value) {
        Stamp::Version(version) => version,
        Stamp::Damaged => DAMAGED,
        Stamp::Foreign => {
            let number = xxhash_rust::xxh3::xxh3_64(value) >> 1 | 1;
            Version { writer: 0, number }
        }
    }
}
