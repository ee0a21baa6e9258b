//! What happened in a run, as data: the operations of the clients, and what only a simulator can
//! see. The checkers work on this and on nothing else, so that the history of real processes can
//! be put before them too (without the facts; a checker then works with what clients saw).

use std::collections::BTreeMap;
use std::fmt;

use ringdove::causality::{Dot, VersionVector};
use ringdove::ids::WriteId;
use ringdove::time::WallMs;
use ringdove::wire::messages::Expiry;

use crate::plan::MS;

/// Simulated time in microseconds since the run began.
pub type Time = u64;

/// A context token, numbered in the order in which clients first got to see it. Its bytes are
/// never looked into: equal bytes have equal numbers, and that is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u32);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Get,
    Put,
    Delete,
}

/// What a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// What was returned together with this token.
    Context(Token),
    /// Nothing.
    Blind,
    /// What the coordinator's read sees.
    Observed,
}

/// How an operation ended, for its client. A timeout is never `Fail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// Definitely not applied.
    Fail,
    /// Nobody knows.
    Info,
}

/// One operation of a client, with all its retries.
#[derive(Clone, Debug)]
pub struct Op {
    pub id: usize,
    pub session: u32,
    pub kind: Kind,
    pub key: String,
    /// Names the value, or the deletion; unique.
    pub write: Option<WriteId>,
    pub basis: Option<Basis>,
    /// When its value is to expire; what the bucket says is written out.
    pub expiry: Expiry,
    pub n: u8,
    /// Replicas that had to answer: R of a read, W of a write.
    pub needed: u8,
    /// How often its client has sent it.
    pub attempts: u8,
    /// Until when what its client sent last may be begun.
    pub begin_by: Time,
    pub invoked: Time,
    /// When it ended for its client; `Time::MAX` while it has not.
    pub returned: Time,
    pub outcome: Outcome,
    /// What a read returned.
    pub values: Vec<WriteId>,
    pub context_out: Option<Token>,
    /// The node that coordinated, as the receipt says.
    pub coordinator: Option<usize>,
    /// One of the reads at R=N after everything was healed.
    pub is_final: bool,
}

impl Op {
    pub fn is_write(&self) -> bool {
        self.kind != Kind::Get
    }

    pub fn token_in(&self) -> Option<Token> {
        match self.basis {
            Some(Basis::Context(token)) => Some(token),
            _ => None,
        }
    }
}

/// What a replica held for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub clock: VersionVector,
    /// Live siblings, tombstones too.
    pub live: Vec<(Dot, WriteId, u64)>,
    /// The encoded object's digest.
    pub digest: u128,
}

/// What only a simulator sees.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A shard gave its disk this state of a key; `minted` is the dot it made for it, if any.
    Staged { time: Time, node: usize, key: String, minted: Option<Dot>, held: Held },
    /// The disk has it now.
    Stored { time: Time, node: usize, key: String, held: Held },
    /// The disk has lost or forgotten data: of one key or, with `None`, of any.
    Forgot { node: usize, key: Option<String> },
    /// All have agreed to forget a key: what these writes had deleted, and that they had.
    Agreed { key: String, writes: Vec<WriteId> },
    /// The disk has dropped a key that all had agreed to forget.
    Reaped { node: usize, key: String },
    /// All processes were down: this stood on the disks. `victims` have lost data of their own.
    AllDown { time: Time, disks: Vec<BTreeMap<String, Held>>, victims: usize },
    /// Slots of a partition changed hands: what the owners' disks have of each of its keys, as far as
    /// clients use them. `victims` have lost data of their own.
    Handed { time: Time, what: String, owners: BTreeMap<String, Vec<Held>>, victims: usize },
    /// What was left of a partition was deleted where nobody looks for it.
    Cleared { node: usize, keys: Vec<String> },
    /// An actor may have been replaced by a new one: a restart, a failed commit, lost memory.
    NewActor { node: usize },
}

/// Everything about a run that a checker may ask for.
#[derive(Default)]
pub struct History {
    /// One line for each thing that happened, in order. Same seed, same bytes.
    pub lines: Vec<String>,
    pub ops: Vec<Op>,
    pub facts: Vec<Fact>,
    /// The disks at the very end, by node: only the keys a node is a primary of.
    pub final_disks: Vec<BTreeMap<String, Held>>,
    /// Primaries of each key.
    pub primaries: BTreeMap<String, Vec<usize>>,
    /// Tombstones that were reaped by agreement, with their timestamps, and when that was last agreed: as
    /// good as alive where it is asked what has replaced a write.
    pub reaped: BTreeMap<String, BTreeMap<(WriteId, u64), Time>>,
    /// How far wall clocks are from the true time, in milliseconds, the least and the most of all nodes:
    /// from each of these moments on. Without an entry nobody's is wrong.
    pub skews: BTreeMap<Time, (i64, i64)>,
    /// Keys of the bucket that keeps the latest only.
    pub last_write_wins: Vec<String>,
    /// How many owners may lose a disk, or be replaced, and what they have confirmed with it.
    pub owners_lost: u8,
    /// Siblings at which the cluster refuses a client's write.
    pub siblings_refuse: usize,
    /// Things that must have worked at the end and have not.
    pub stuck: Vec<String>,
}

impl History {
    pub fn keeps_latest(&self, key: &str) -> bool {
        self.last_write_wins.iter().any(|name| name == key)
    }

    /// What any node's wall clock may have shown from `begin` to `end`: the earliest and the latest.
    pub fn clocks(&self, begin: Time, end: Time) -> (WallMs, WallMs) {
        let before = self.skews.range(..begin).next_back().map_or((0, 0), |(_, skews)| *skews);
        let (least, most) = (self.skews.range(begin..=end.max(begin)))
            .fold(before, |(least, most), (_, skews)| (least.min(skews.0), most.max(skews.1)));
        (wall(begin, least), wall(end, most))
    }

    /// Between which times by the nodes' clocks a write's value expires; none if it stays.
    fn expires(&self, write: &Op) -> Option<(WallMs, WallMs)> {
        let after = |at: WallMs, ttl_ms| WallMs(at.0.saturating_add(ttl_ms));
        match write.expiry {
            Expiry::At(at) => Some((at, at)),
            Expiry::After(ttl_ms) => {
                let (earliest, latest) = self.clocks(write.invoked, write.begin_by);
                Some((after(earliest, ttl_ms), after(latest, ttl_ms)))
            }
            Expiry::Bucket | Expiry::Never => None,
        }
    }

    /// Whether replies before `by` may not show a write although it is there: deletions are never shown,
    /// nor is what has expired by the clock of whoever answers.
    pub fn may_be_hidden(&self, write: &Op, by: Time) -> bool {
        let has_expired = |(earliest, _)| earliest <= self.clocks(write.invoked, by).1;
        write.kind == Kind::Delete || self.expires(write).is_some_and(has_expired)
    }

    /// Whether a value has expired by everybody's clock at all times from `begin` to `end`.
    pub fn must_be_hidden(&self, write: &Op, begin: Time, end: Time) -> bool {
        self.expires(write).is_some_and(|(_, latest)| latest <= self.clocks(begin, end).0)
    }

    /// The whole run as text.
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }

    pub fn note(&mut self, time: Time, line: impl fmt::Display) {
        self.lines.push(format!("{:>10.6} {line}", time as f64 / 1e6));
    }
}

/// How a value id is written.
pub struct Named(pub WriteId);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0.0)
    }
}

/// Several value ids.
pub fn named(writes: &[WriteId]) -> String {
    let names: Vec<String> = writes.iter().map(|write| Named(*write).to_string()).collect();
    format!("[{}]", names.join(" "))
}

impl fmt::Display for Op {
    /// One line, in the words of the invariants' history format.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Delete => "del",
        };
        write!(f, "op{{{} s{} {kind} {}", self.id, self.session, self.key)?;
        if let Some(write) = self.write {
            write!(f, " value={}", Named(write))?;
        }
        match self.expiry {
            Expiry::At(at) => write!(f, " expires={}", at.0 as i64 - WALL_EPOCH.0 as i64)?,
            Expiry::After(ttl_ms) => write!(f, " ttl={ttl_ms}")?,
            Expiry::Bucket | Expiry::Never => {}
        }
        match self.basis {
            Some(Basis::Context(token)) => write!(f, " ctx_in=c{}", token.0)?,
            Some(Basis::Blind) => f.write_str(" blind")?,
            Some(Basis::Observed) => f.write_str(" observed")?,
            None => {}
        }
        let letter = if self.is_write() { 'W' } else { 'R' };
        write!(f, " N={} {letter}={} inv={:.6}", self.n, self.needed, self.invoked as f64 / 1e6)?;
        if self.returned == Time::MAX {
            return f.write_str(" open}");
        }
        write!(f, " ret={:.6} {:?}", self.returned as f64 / 1e6, self.outcome)?;
        if self.kind == Kind::Get && self.outcome == Outcome::Ok {
            write!(f, " values={}", named(&self.values))?;
        }
        if let Some(token) = self.context_out {
            write!(f, " ctx_out=c{}", token.0)?;
        }
        if let Some(node) = self.coordinator {
            write!(f, " coord=n{node}")?;
        }
        f.write_str("}")
    }
}

/// The wall clock that all skews are relative to: some day in 2025.
pub const WALL_EPOCH: WallMs = WallMs(1_750_000_000_000);

/// What a wall clock shows that is wrong by so many milliseconds.
pub fn wall(now: Time, skew_ms: i64) -> WallMs {
    WallMs((WALL_EPOCH.0 as i64 + (now / MS) as i64 + skew_ms) as u64)
}
