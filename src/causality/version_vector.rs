//! Who wrote, and how much of it is known: actors, dots and version vectors.

use std::fmt;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader, Write as _};
use crate::ids::Incarnation;
use crate::limits;

/// Who mints the dots of one key: a replica within one incarnation, for that key alone.
///
/// `k` comes from a leased counter that is never reused, so a replica that forgot what it minted
/// for a key becomes another actor instead of counting from one again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The span of the replica's life in which its disk has forgotten nothing.
    pub incarnation: Incarnation,
    /// Tells the actors of one incarnation apart.
    pub k: u64,
}

/// One write: the `counter`-th of its actor. Counters start at 1; no dot is ever used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who minted it.
    pub actor: Actor,
    /// How many dots the actor has minted with this one.
    pub counter: u64,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.k)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actor({self})")
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dot({self})")
    }
}

/// A set of dots that holds, for each of its actors, all dots up to some counter.
///
/// That shape is what makes it small: one number for each actor that ever wrote the key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct VersionVector {
    /// By actor, each once; no counter is 0.
    entries: Vec<(Actor, u64)>,
}

impl VersionVector {
    /// The set without dots.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, actor: Actor) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&actor, |entry| entry.0)
    }

    /// The highest counter held of `actor`; 0 if none.
    #[must_use]
    pub fn counter(&self, actor: Actor) -> u64 {
        self.find(actor).map_or(0, |at| self.entries[at].1)
    }

    /// Whether the set holds `dot`.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        dot.counter <= self.counter(dot.actor)
    }

    /// Adds `dot` and all dots its actor minted before it.
    pub fn advance(&mut self, dot: Dot) {
        match self.find(dot.actor) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(dot.counter),
            Err(at) if dot.counter > 0 => self.entries.insert(at, (dot.actor, dot.counter)),
            Err(_) => {}
        }
    }

    /// Adds all dots of `other`: for each actor the higher counter.
    pub fn join(&mut self, other: &Self) {
        if self.covers(other) {
            return;
        }
        let mine = std::mem::take(&mut self.entries);
        self.entries.reserve(mine.len() + other.entries.len());
        let mut theirs = other.entries.iter().copied().peekable();
        for (actor, counter) in mine {
            while let Some(entry) = theirs.next_if(|entry| entry.0 < actor) {
                self.entries.push(entry);
            }
            let seen = theirs.next_if(|entry| entry.0 == actor).map_or(0, |entry| entry.1);
            self.entries.push((actor, counter.max(seen)));
        }
        self.entries.extend(theirs);
    }

    /// Whether the set holds every dot of `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut mine = self.entries.iter();
        other.entries.iter().all(|(actor, counter)| {
            mine.by_ref()
                .find(|entry| entry.0 >= *actor)
                .is_some_and(|entry| entry.0 == *actor && entry.1 >= *counter)
        })
    }

    /// How many actors a join with `other` would leave, without joining.
    ///
    /// A vector of more than [`limits::CLOCK_ENTRIES`] is refused by every decoder, so whoever
    /// takes a vector from outside asks first.
    #[must_use]
    pub fn joined_len(&self, other: &Self) -> usize {
        let new = other.entries.iter().filter(|entry| self.find(entry.0).is_err());
        self.len() + new.count()
    }

    /// Whether the set holds no dot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many actors it has dots of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Each actor with its highest counter, by actor.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, u64)> {
        self.entries.iter().copied()
    }

    /// Where `actor` stands among the entries, for encodings that name an actor by its place.
    pub(super) fn position(&self, actor: Actor) -> Option<usize> {
        self.find(actor).ok()
    }

    /// The entry at a place that [`VersionVector::position`] gave.
    pub(super) fn at(&self, position: usize) -> Option<(Actor, u64)> {
        self.entries.get(position).copied()
    }

    /// The most bytes the encoding may have.
    pub(super) fn encoded_len_max(&self) -> usize {
        VARINT_BYTES + self.len() * ENTRY_BYTES
    }

    /// Writes the vector: the number of entries, then each entry's incarnation (8 bytes), `k` and
    /// counter (varints), by actor.
    pub fn encode_to(&self, out: &mut BytesMut) {
        out.put_varint(self.entries.len() as u64);
        for (actor, counter) in &self.entries {
            out.put_u64_le(actor.incarnation.0);
            out.put_varint(actor.k);
            out.put_varint(*counter);
        }
    }

    /// Reads what [`VersionVector::encode_to`] wrote.
    ///
    /// # Errors
    /// When the bytes end early, name more than [`limits::CLOCK_ENTRIES`] actors, or are not what
    /// an encoder writes: actors strictly ascending, no counter of 0.
    pub fn decode(input: &mut Reader) -> Result<Self, CodecError> {
        let count = input.length(limits::CLOCK_ENTRIES, "clock entries")?;
        let mut entries = Vec::<(Actor, u64)>::with_capacity(count);
        for _ in 0..count {
            let incarnation = Incarnation(input.u64("clock incarnation")?);
            let actor = Actor { incarnation, k: input.varint("clock actor")? };
            let counter = input.varint("clock counter")?;
            if counter == 0 {
                return Err(CodecError::Invalid("clock counter"));
            }
            if entries.last().is_some_and(|last| last.0 >= actor) {
                return Err(CodecError::Invalid("order of clock entries"));
            }
            entries.push((actor, counter));
        }
        Ok(Self { entries })
    }
}

/// Most bytes of a varint.
pub(super) const VARINT_BYTES: usize = 10;
/// Most bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 8 + 2 * VARINT_BYTES;

impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (actor, counter)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{actor}:{counter}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionVector({self})")
    }
}
