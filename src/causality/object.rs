//! What a replica holds for one key: its siblings, and the clock that says which dots it knows.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::hlc::MAX_SKEW_MS;
use super::names::Names;
use super::{Context, Dot, Hlc, VersionVector};
use crate::ids::WriteId;
use crate::time::WallMs;

/// What a write left behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// A value.
    Value(Bytes),
    /// A deletion. It is kept until every owner is known to have it, or else an owner that was
    /// away would bring back what was deleted.
    Tombstone,
}

/// One write that no known write has overwritten.
///
/// The order of the fields is the order of siblings in an object and in its encoding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sibling {
    /// Which write of which actor this is.
    pub dot: Dot,
    /// The client's name for the write, the same in every retry.
    pub write_id: WriteId,
    /// When it was written, to show and for last-write-wins.
    pub hlc: Hlc,
    /// The greatest timestamp of what its writer had seen, less than `hlc`; zero if that was
    /// nothing. It says which names of overwritten writes end it, see [`Names`].
    pub after: Hlc,
    /// From when on it is no longer shown; never, if absent.
    pub expires_at: Option<WallMs>,
    /// What was written.
    pub content: Content,
}

/// The siblings of a key under one clock.
///
/// Always: the clock contains every sibling's dot; the siblings are strictly ascending. A dot
/// that the clock contains and no sibling has is *dead*: it was overwritten, deleted and reaped,
/// or discarded as older.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    clock: VersionVector,
    siblings: Vec<Sibling>,
    /// Names of writes that were overwritten: none of them ends a sibling that is here.
    replaced: Names,
}

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// Whether the object is another than before.
    pub changed: bool,
    /// Dots that this merge found used for different writes, ascending. Each must be reported: it
    /// means that an actor counted twice, which no part of the system may do.
    pub collisions: Vec<Dot>,
}

impl Object {
    /// A key that nobody wrote.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The parts of an object that a decoder has checked to be one.
    pub(super) fn from_checked(
        clock: VersionVector,
        siblings: Vec<Sibling>,
        replaced: Names,
    ) -> Self {
        Self { clock, siblings, replaced }
    }

    pub(super) fn replaced(&self) -> &Names {
        &self.replaced
    }

    /// All dots this object knows, alive and dead.
    #[must_use]
    pub fn clock(&self) -> &VersionVector {
        &self.clock
    }

    /// The siblings, tombstones and expired ones too, ascending by dot and write id.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// Whether nothing is known: no sibling, and no dead dot either.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clock.is_empty()
    }

    /// Adds a write that has seen `basis`: what `basis` contains is overwritten, everything else
    /// stays beside the new sibling.
    ///
    /// The caller mints `sibling.dot` and must never have used it. That neither the clock nor
    /// `basis` has it yet is asserted in debug builds. A `basis` from outside may name dots that
    /// do not exist, so whoever mints looks at [`VersionVector::highest`] of both first, and
    /// becomes a new actor when one of them shows more of the own actor than was minted. `basis`
    /// may also name actors without end: see [`VersionVector::joined_len`].
    ///
    /// What the writer has seen from now on is `basis` and the new dot, *not* the clock.
    pub fn write(&mut self, basis: &VersionVector, sibling: Sibling) {
        let dot = sibling.dot;
        debug_assert!(!self.clock.contains(dot) && !basis.contains(dot), "{dot} was used before");
        self.siblings.retain(|held| !basis.contains(held.dot));
        self.clock.join(basis);
        self.clock.insert(dot);
        if let Err(place) = self.siblings.binary_search(&sibling) {
            self.siblings.insert(place, sibling);
        }
    }

    fn holds(&self, dot: Dot) -> bool {
        self.siblings.binary_search_by_key(&dot, |sibling| sibling.dot).is_ok()
    }

    /// Whether this object knows `dot` and no longer holds it.
    #[must_use]
    pub fn is_dead(&self, dot: Dot) -> bool {
        self.clock.contains(dot) && !self.holds(dot)
    }

    /// Takes over all that `other` knows: a sibling stays unless the other side knows its dot as
    /// dead, or a name that ends it ([`Names`]), and the clocks join.
    ///
    /// Merging is idempotent, commutative and associative, because names unite, and because it
    /// works on each dot alone and there takes the greater of two states in a lattice:
    ///
    /// ```text
    /// unknown  <  alive with a set of writes  <  dead
    /// ```
    ///
    /// In a sound system the set has one member. After a collision (a dot used for two writes)
    /// it has more, two alive sets unite, and all three laws still hold. What can't be given then
    /// is that nothing is lost: whoever knows the dot as dead through one of the writes takes the
    /// other for dead, too, and nobody can tell. And what is *reported* depends on the order:
    /// a collision is reported by each merge that brings a further write of its dot.
    pub fn merge(&mut self, other: &Self) -> Merge {
        self.merge_dots(other, &other.replaced)
    }

    /// [`Object::merge`] and [`Object::keep_latest`] in one: also returns how many were discarded.
    ///
    /// Here names of dead writes mean nothing: of a write that was made twice, the older dot dies
    /// at the hands of the younger.
    pub fn merge_latest(&mut self, other: &Self) -> (Merge, usize) {
        let merge = self.merge_dots(other, &Names::default());
        (merge, self.keep_latest())
    }

    fn merge_dots(&mut self, other: &Self, replaced: &Names) -> Merge {
        let is_gain =
            |s: &&Sibling| !self.is_dead(s.dot) && self.siblings.binary_search(s).is_err();
        let gained: Vec<Sibling> = other.siblings.iter().filter(is_gain).cloned().collect();
        let held = self.siblings.len();
        self.siblings.retain(|sibling| !other.is_dead(sibling.dot));
        let (gained, learned) = self.bury(gained, replaced);
        let learned = learned || !self.clock.covers(&other.clock);
        let changed = learned || !gained.is_empty() || self.siblings.len() < held;
        self.clock.join(&other.clock);
        if gained.is_empty() {
            return Merge { changed, collisions: Vec::new() };
        }
        let mut collisions: Vec<Dot> = gained.iter().map(|sibling| sibling.dot).collect();
        self.siblings.extend(gained);
        self.siblings.sort_unstable();
        collisions.dedup();
        collisions.retain(|dot| self.siblings.iter().filter(|s| s.dot == *dot).count() > 1);
        Merge { changed, collisions }
    }

    /// Takes over names of overwritten writes, and drops what they end, here and of `gained`.
    /// Returns what is left of those, and whether a name was new.
    fn bury(&mut self, mut gained: Vec<Sibling>, replaced: &Names) -> (Vec<Sibling>, bool) {
        if self.replaced.is_empty() && replaced.is_empty() {
            return (gained, false);
        }
        let mut union = self.replaced.union(replaced);
        let is_live = |sibling: &Sibling| !union.end(sibling);
        gained.retain(is_live);
        self.siblings.retain(is_live);
        union.bound();
        let learned = union != self.replaced;
        self.replaced = union;
        (gained, learned)
    }

    /// Last-write-wins: keeps the sibling with the greatest (timestamp, dot, write id) and makes
    /// the others' dots dead. Returns how many were discarded.
    ///
    /// Replicas that do this after every write and merge agree, in whatever order they merge,
    /// *provided that every write has a greater timestamp than all it has seen*. Without that,
    /// two replicas may each discard what the other kept, and nothing is left. So where
    /// [`super::HybridClock::observe`] refuses a timestamp of the basis, the write must be dated
    /// after it all the same.
    pub fn keep_latest(&mut self) -> usize {
        self.replaced = Names::default();
        let age = |sibling: &&Sibling| (sibling.hlc, sibling.dot, sibling.write_id);
        let Some(latest) = self.siblings.iter().max_by_key(age).cloned() else { return 0 };
        let discarded = self.siblings.len() - 1;
        self.siblings = vec![latest];
        discarded
    }

    /// The values to show at `now`: no tombstones, nothing expired, newest first. A write that
    /// two coordinators took (one write id, two dots) is shown once.
    #[must_use]
    pub fn values(&self, now: WallMs) -> Vec<&Sibling> {
        let is_live = |sibling: &&Sibling| {
            matches!(sibling.content, Content::Value(_))
                && sibling.expires_at.is_none_or(|expiry| expiry > now)
        };
        let mut live: Vec<&Sibling> = self.siblings.iter().filter(is_live).collect();
        if live.len() > 1 {
            live.sort_by_key(|sibling| std::cmp::Reverse((sibling.hlc, sibling.dot)));
            let mut shown = BTreeSet::new();
            live.retain(|sibling| shown.insert(sibling.write_id));
        }
        live
    }

    /// From when on nothing is shown, if no write comes: the time at which the last of its values
    /// expires, and zero where it has none, whatever clock its tombstones were dated by. `None`
    /// while there is a value that stays.
    #[must_use]
    pub fn fades_at(&self) -> Option<WallMs> {
        let fades_at = |sibling: &Sibling| match (&sibling.content, sibling.expires_at) {
            (Content::Tombstone, _) => Some(WallMs::default()),
            (Content::Value(_), expires_at) => expires_at,
        };
        let times = self.siblings.iter().map(fades_at);
        times.collect::<Option<Vec<_>>>().map(|times| times.into_iter().max().unwrap_or_default())
    }

    /// Whether nothing in it is shown by any clock that is at most [`MAX_SKEW_MS`] off: its values
    /// have expired by more than that.
    #[must_use]
    pub fn has_faded(&self, now: WallMs) -> bool {
        let fades_at = self.fades_at().map(|at| match at.0 {
            0 => 0,
            at => at.saturating_add(MAX_SKEW_MS),
        });
        fades_at.is_some_and(|at| at <= now.0)
    }

    /// What there is to remember of it once it is reaped: all that it knew is dead.
    #[must_use]
    pub fn remains(&self) -> Self {
        let Context { clock, names: replaced, .. } = Context::of(self);
        Self { clock, siblings: Vec::new(), replaced }
    }

    /// The values shown by `other` that are dead here, by their dots.
    pub fn risen<'a>(&'a self, other: &'a Self, now: WallMs) -> impl Iterator<Item = &'a Sibling> {
        other.values(now).into_iter().filter(|sibling| self.is_dead(sibling.dot))
    }

    /// How many siblings are tombstones.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.siblings.iter().filter(|sibling| sibling.content == Content::Tombstone).count()
    }

    /// Whether a sibling comes from the write `write_id`. One that was overwritten is not found.
    #[must_use]
    pub fn has_write(&self, write_id: WriteId) -> bool {
        self.siblings.iter().any(|sibling| sibling.write_id == write_id)
    }

    /// Takes the writes of these names for overwritten, all but `write_id`: what the context of that
    /// write was shown, under whatever dots they turn up. Goes before [`Object::write`].
    pub fn overwrite(&mut self, names: &Names, write_id: WriteId) {
        self.bury(Vec::new(), &names.without(write_id));
    }

    /// Whether the write `write_id` was overwritten, as far as that is remembered.
    #[must_use]
    pub fn has_replaced(&self, write_id: WriteId) -> bool {
        self.replaced.contains(write_id)
    }

    /// Whether a write that was overwritten here after this time, by the clocks of those who wrote over
    /// it, may be forgotten: [`Object::has_replaced`] says nothing of it then.
    #[must_use]
    pub fn forgets_since(&self, since: WallMs) -> bool {
        self.replaced.forget_since(since)
    }

    /// The greatest timestamp of all siblings; zero if there are none.
    #[must_use]
    pub fn latest_hlc(&self) -> Hlc {
        self.siblings.iter().map(|sibling| sibling.hlc).max().unwrap_or_default()
    }
}
