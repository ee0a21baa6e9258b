//! Who wrote, and how much of it is known: actors, dots and version vectors.

use std::fmt;
use std::ops::RangeInclusive;

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

/// A set of dots: a version vector that can also say "the fifth, but not the fourth".
///
/// What a replica knows of an actor is nearly always everything up to some counter. What one
/// client has seen need not be: two clients may write through one replica, and each has seen its
/// own write only. So the set is kept as *runs* of consecutive dots. While nothing is missing it
/// is a plain version vector, one number for each actor; where something is, a further run stands
/// behind the gap, and joins the run before it as soon as the gap is closed.
///
/// ```text
///   {a:3, b:7}               a:1 a:2 a:3              b:1 ... b:7
///   {a:3, a:5-5, b:7}        a:1 a:2 a:3     a:5      b:1 ... b:7
///   insert a:4   {a:5, b:7}  a:1 a:2 a:3 a:4 a:5      b:1 ... b:7
/// ```
///
/// The set is the *causal context* of Almeida, Shoker and Baquero ("Delta State Replicated Data
/// Types", 2018, section 7.2); that it is kept as runs comes from the *interval version vectors*
/// of Mukund, Shenoy and Suresh ("Optimized OR-Sets Without Ordering Constraints", 2014): a
/// client that writes again and again without reading adds to its last run, not to a list.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct VersionVector {
    /// Ascending; two runs of one actor have a gap between them. So equal sets have equal runs.
    runs: Vec<Run>,
}

/// Consecutive dots of one actor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    actor: Actor,
    /// At least 1.
    first: u64,
    /// Not below `first`.
    last: u64,
}

impl VersionVector {
    /// The set without dots.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many of `actor`'s dots the set holds before the first one it does not.
    #[must_use]
    pub fn counter(&self, actor: Actor) -> u64 {
        let from_the_start =
            self.runs.binary_search_by_key(&(actor, 1), |run| (run.actor, run.first));
        from_the_start.map_or(0, |at| self.runs[at].last)
    }

    /// The highest counter of all dots of `actor` that the set holds; 0 if it holds none.
    #[must_use]
    pub fn highest(&self, actor: Actor) -> u64 {
        let behind = self.runs.partition_point(|run| run.actor <= actor);
        self.runs[..behind].last().filter(|run| run.actor == actor).map_or(0, |run| run.last)
    }

    /// Whether the set holds `dot`.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.position(dot).is_some()
    }

    /// Adds `dot` and no other. A counter of 0, which no dot has, adds nothing.
    pub fn insert(&mut self, dot: Dot) {
        let Dot { actor, counter } = dot;
        if counter == 0 || self.contains(dot) {
            return;
        }
        let at = self.begun_by(dot);
        let before = at.checked_sub(1).map(|at| self.runs[at]);
        let closes_left = before.is_some_and(|run| run.actor == actor && run.last == counter - 1);
        let behind = self.runs.get(at);
        let closes_right = behind.is_some_and(|run| run.actor == actor && run.first - 1 == counter);
        match (closes_left, closes_right) {
            (true, true) => self.runs[at - 1].last = self.runs.remove(at).last,
            (true, false) => self.runs[at - 1].last = counter,
            (false, true) => self.runs[at].first = counter,
            (false, false) => self.runs.insert(at, Run { actor, first: counter, last: counter }),
        }
    }

    /// Adds all dots of `other`.
    pub fn join(&mut self, other: &Self) {
        if self.covers(other) {
            return;
        }
        let mine = std::mem::take(&mut self.runs);
        self.runs.reserve(mine.len() + other.runs.len());
        let mut theirs = other.runs.iter().copied().peekable();
        for run in mine {
            while let Some(before) = theirs.next_if(|theirs| *theirs < run) {
                self.append(before);
            }
            self.append(run);
        }
        for run in theirs {
            self.append(run);
        }
    }

    /// Adds a run that begins nowhere before the last one.
    fn append(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.actor == run.actor && run.first - 1 <= last.last => {
                last.last = last.last.max(run.last);
            }
            _ => self.runs.push(run),
        }
    }

    /// Whether the set holds every dot of `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mut mine = self.runs.iter().peekable();
        other.runs.iter().all(|run| {
            while mine.next_if(|mine| (mine.actor, mine.last) < (run.actor, run.last)).is_some() {}
            // This one ends no earlier. With gaps between runs, it holds all of `run` or misses some.
            mine.peek().is_some_and(|mine| mine.actor == run.actor && mine.first <= run.first)
        })
    }

    /// How long a join with `other` would be, without joining.
    ///
    /// A vector of more than [`limits::CLOCK_ENTRIES`] is refused by every decoder, so whoever
    /// takes a vector from outside asks first.
    #[must_use]
    pub fn joined_len(&self, other: &Self) -> usize {
        if self.covers(other) {
            return self.len();
        }
        let mut joined = self.clone();
        joined.join(other);
        joined.len()
    }

    /// Whether the set holds no dot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Its length in runs: as many as it has actors, and one more for each gap.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// The runs: actors with the counters held, ascending. An actor comes once for each run.
    pub fn iter(&self) -> impl Iterator<Item = (Actor, RangeInclusive<u64>)> {
        self.runs.iter().map(|run| (run.actor, run.first..=run.last))
    }

    /// How many runs begin at `dot` or before.
    fn begun_by(&self, dot: Dot) -> usize {
        self.runs.partition_point(|run| (run.actor, run.first) <= (dot.actor, dot.counter))
    }

    /// Which run `dot` stands in, for encodings that name an actor by the place of its run.
    pub(super) fn position(&self, dot: Dot) -> Option<usize> {
        let at = self.begun_by(dot).checked_sub(1)?;
        let run = self.runs[at];
        (run.actor == dot.actor && run.last >= dot.counter).then_some(at)
    }

    /// The run at a place that [`VersionVector::position`] gave.
    pub(super) fn at(&self, position: usize) -> Option<(Actor, RangeInclusive<u64>)> {
        self.runs.get(position).map(|run| (run.actor, run.first..=run.last))
    }

    /// The most bytes the encoding may have.
    pub(super) fn encoded_len_max(&self) -> usize {
        COUNTS_BYTES + self.len() * ENTRY_BYTES
    }

    /// Writes the set.
    ///
    /// ```text
    /// runs  varint count, then ascending: incarnation u64 | k varint | last counter varint
    /// gaps  varint count, then for each run that does not begin at 1, ascending:
    ///                                     place of the run varint | first counter varint
    /// ```
    pub fn encode_to(&self, out: &mut BytesMut) {
        out.put_varint(self.runs.len() as u64);
        for run in &self.runs {
            out.put_u64_le(run.actor.incarnation.0);
            out.put_varint(run.actor.k);
            out.put_varint(run.last);
        }
        let gaps = self.runs.iter().enumerate().filter(|(_, run)| run.first > 1);
        out.put_varint(gaps.clone().count() as u64);
        for (place, run) in gaps {
            out.put_varint(place as u64);
            out.put_varint(run.first);
        }
    }

    /// Reads what [`VersionVector::encode_to`] wrote.
    ///
    /// # Errors
    /// When the bytes end early, name more than [`limits::CLOCK_ENTRIES`] runs, or are not what an
    /// encoder writes: runs ascending with gaps between them, no counter of 0.
    pub fn decode(input: &mut Reader) -> Result<Self, CodecError> {
        let count = input.length(limits::CLOCK_ENTRIES, "clock entries")?;
        let mut runs = Vec::with_capacity(count);
        for _ in 0..count {
            let incarnation = Incarnation(input.u64("clock incarnation")?);
            let actor = Actor { incarnation, k: input.varint("clock actor")? };
            let last = input.varint("clock counter")?;
            runs.push(Run { actor, first: 1, last });
        }
        let mut next = 0;
        for _ in 0..input.length(count, "clock gaps")? {
            let place = input.length(count, "clock gap")?;
            let first = input.varint("clock gap")?;
            let run = runs.get_mut(place).filter(|_| place >= next && first > 1);
            run.ok_or(CodecError::Invalid("clock gap"))?.first = first;
            next = place + 1;
        }
        if runs.iter().any(|run| run.last < run.first) {
            return Err(CodecError::Invalid("clock counter"));
        }
        let apart = |pair: &[Run]| {
            let [one, two] = pair else { return false };
            (one.actor, one.last) < (two.actor, two.first - 1)
        };
        if !runs.windows(2).all(apart) {
            return Err(CodecError::Invalid("order of clock entries"));
        }
        Ok(Self { runs })
    }
}

/// Most bytes of a varint.
pub(super) const VARINT_BYTES: usize = 10;
/// Most bytes of the two counts of an encoded vector.
pub(super) const COUNTS_BYTES: usize = 2 * PLACE_BYTES;
/// Most bytes of a run and the gap before it.
pub(super) const ENTRY_BYTES: usize = 8 + 2 * VARINT_BYTES + PLACE_BYTES + VARINT_BYTES;
/// Most bytes of a run's place, or of a count of runs.
pub(super) const PLACE_BYTES: usize = 2;

const _: () = assert!(limits::CLOCK_ENTRIES < 1 << (7 * PLACE_BYTES));

impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, Run { actor, first, last }) in self.runs.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{actor}:")?;
            match first {
                1 => write!(f, "{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionVector({self})")
    }
}
