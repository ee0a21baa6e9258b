//! Who has seen whom: what the other checkers are built on.

use std::collections::{BTreeMap, BTreeSet};

use ringdove::causality::Dot;
use ringdove::ids::WriteId;

use crate::history::{Basis, Fact, History, Kind, Op, Outcome, Time, Token};

/// The writes of one key, as places in a list, and relations between them as matrices.
#[derive(Default)]
struct OfKey {
    writes: Vec<WriteId>,
    must: Matrix,
    may: Matrix,
}

#[derive(Default)]
struct Matrix {
    side: usize,
    cells: Vec<bool>,
}

impl Matrix {
    fn new(side: usize) -> Self {
        Self { side, cells: vec![false; side * side] }
    }

    fn set(&mut self, upper: usize, lower: usize) {
        if upper != lower {
            self.cells[upper * self.side + lower] = true;
        }
    }

    fn get(&self, upper: usize, lower: usize) -> bool {
        self.cells[upper * self.side + lower]
    }

    /// Adds what follows by going from one to the next: a walk from each write.
    fn close(&mut self) {
        let direct: Vec<Vec<usize>> =
            (0..self.side).map(|u| (0..self.side).filter(|v| self.get(u, *v)).collect()).collect();
        for upper in 0..self.side {
            let mut open = direct[upper].clone();
            while let Some(next) = open.pop() {
                for lower in &direct[next] {
                    if *lower != upper && !self.get(upper, *lower) {
                        self.set(upper, *lower);
                        open.push(*lower);
                    }
                }
            }
        }
    }
}

/// What the operations and, where there are any, the facts say about who has seen whom.
pub struct Relations {
    /// The operation that made each write.
    ops: BTreeMap<WriteId, usize>,
    /// Values returned together with each token.
    values: BTreeMap<Token, BTreeSet<WriteId>>,
    keys: BTreeMap<String, OfKey>,
    places: BTreeMap<WriteId, usize>,
    dots: BTreeMap<WriteId, BTreeSet<Dot>>,
    /// Whether `may` is exact.
    pub is_exact: bool,
}

impl Relations {
    pub fn new(history: &History) -> Self {
        let mut this = Self {
            ops: BTreeMap::new(),
            values: BTreeMap::new(),
            keys: BTreeMap::new(),
            places: BTreeMap::new(),
            dots: BTreeMap::new(),
            is_exact: history.facts.iter().any(|fact| matches!(fact, Fact::Staged { .. })),
        };
        for op in &history.ops {
            if let Some(write) = op.write {
                this.ops.insert(write, op.id);
                let of_key = this.keys.entry(op.key.clone()).or_default();
                this.places.insert(write, of_key.writes.len());
                of_key.writes.push(write);
            }
            if let (Kind::Get, Some(token)) = (op.kind, op.context_out) {
                this.values.entry(token).or_default().extend(&op.values);
            }
        }
        this.relate_tokens(history);
        // A token's clock holds all that the writes behind its values had seen, whichever of
        // their dots it was: what must follow from tokens goes on through tokens.
        for of_key in this.keys.values_mut() {
            of_key.must.close();
        }
        // A state's clock is closed already, and says nothing of the other dots of its write.
        this.relate_states(history);
        for of_key in this.keys.values_mut() {
            of_key.may.close();
        }
        this
    }

    fn relate_tokens(&mut self, history: &History) {
        // The token of a write's answer holds what that write had built on, and the write itself
        // unless it had been replaced before it was answered: a retry may find that. Then the
        // token is one that clients have seen before, or that of no value at all.
        let mut first: BTreeMap<Token, usize> = BTreeMap::new();
        let mut ended: Vec<&Op> = history.ops.iter().collect();
        ended.sort_by_key(|op| (op.returned, op.id));
        for op in ended {
            if let Some(token) = op.context_out {
                first.entry(token).or_insert(op.id);
            }
        }
        let holds_itself = |op: &Op, token: Token| {
            let is_plain = op.attempts == 1 || op.token_in().is_some();
            is_plain && first.get(&token) == Some(&op.id)
        };
        let mut answers: BTreeMap<Token, Vec<&Op>> = BTreeMap::new();
        for op in history.ops.iter().filter(|op| op.is_write()) {
            if let Some(token) = op.context_out {
                answers.entry(token).or_default().push(op);
            }
        }
        for (key, of_key) in &mut self.keys {
            let side = of_key.writes.len();
            (of_key.must, of_key.may) = (Matrix::new(side), Matrix::new(side));
            for upper in 0..side {
                let op = &history.ops[self.ops[&of_key.writes[upper]]];
                debug_assert_eq!(op.key, *key);
                match op.basis {
                    Some(Basis::Context(token)) => {
                        for lower in self.values.get(&token).into_iter().flatten() {
                            let lower = self.places[lower];
                            of_key.must.set(upper, lower);
                            of_key.may.set(upper, lower);
                        }
                        for answer in answers.get(&token).into_iter().flatten() {
                            let lower = answer.write.map(|write| self.places[&write]);
                            let lower = lower.expect("only writes are listed");
                            if holds_itself(answer, token) {
                                of_key.must.set(upper, lower);
                            }
                            of_key.may.set(upper, lower);
                        }
                    }
                    Some(Basis::Observed) if !self.is_exact => {
                        for lower in 0..side {
                            let seen = &history.ops[self.ops[&of_key.writes[lower]]];
                            if seen.invoked < end(op) {
                                of_key.may.set(upper, lower);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// From the states in which dots were made: what is dead there, the write had seen.
    fn relate_states(&mut self, history: &History) {
        let mut writes: BTreeMap<(&str, Dot), WriteId> = BTreeMap::new();
        for fact in &history.facts {
            let Fact::Staged { key, held, .. } = fact else { continue };
            for (dot, write, _) in &held.live {
                writes.insert((key, *dot), *write);
                self.dots.entry(*write).or_default().insert(*dot);
            }
        }
        let mut by_key: BTreeMap<&str, Vec<(Dot, WriteId)>> = BTreeMap::new();
        for ((key, dot), write) in &writes {
            by_key.entry(key).or_default().push((*dot, *write));
        }
        for fact in &history.facts {
            let Fact::Staged { key, held, minted: Some(dot), .. } = fact else { continue };
            let Some(of_key) = self.keys.get_mut(key) else { continue };
            let Some(upper) = writes.get(&(key.as_str(), *dot)) else { continue };
            let is_twice_made = self.dots[upper].len() > 1;
            let Some(upper) = self.places.get(upper).copied() else { continue };
            for (dot, write) in &by_key[key.as_str()] {
                let is_live = held.live.iter().any(|(live, ..)| live == dot);
                let seen = held.clock.contains(*dot) && !is_live;
                if let (true, Some(lower)) = (seen, self.places.get(write)) {
                    of_key.may.set(upper, *lower);
                    if !is_twice_made {
                        of_key.must.set(upper, *lower);
                    }
                }
            }
        }
    }

    /// The operation behind a write.
    pub fn op<'a>(&self, history: &'a History, write: WriteId) -> Option<&'a Op> {
        self.ops.get(&write).map(|op| &history.ops[*op])
    }

    fn related(
        &self,
        key: &str,
        upper: WriteId,
        lower: WriteId,
        of: fn(&OfKey) -> &Matrix,
    ) -> bool {
        let (Some(of_key), Some(upper), Some(lower)) =
            (self.keys.get(key), self.places.get(&upper), self.places.get(&lower))
        else {
            return false;
        };
        of(of_key).get(*upper, *lower)
    }

    /// Whether `upper` had certainly seen `lower`, so that `lower` must be gone where it is known.
    pub fn must_cover(&self, key: &str, upper: WriteId, lower: WriteId) -> bool {
        self.related(key, upper, lower, |of_key| &of_key.must)
    }

    /// Whether `upper` may have seen `lower`, so that `lower` may be gone.
    pub fn may_cover(&self, key: &str, upper: WriteId, lower: WriteId) -> bool {
        self.related(key, upper, lower, |of_key| &of_key.may)
    }

    /// The writes of a key.
    pub fn writes(&self, key: &str) -> &[WriteId] {
        self.keys.get(key).map_or(&[], |of_key| &of_key.writes)
    }

    /// Values that were returned together with a token.
    pub fn values(&self, token: Token) -> impl Iterator<Item = WriteId> {
        self.values.get(&token).into_iter().flatten().copied()
    }

    /// The dots under which a write was made; more than one when two coordinators took it.
    pub fn dots(&self, write: WriteId) -> impl Iterator<Item = Dot> {
        self.dots.get(&write).into_iter().flatten().copied()
    }

    pub fn is_twice_made(&self, write: WriteId) -> bool {
        self.dots(write).count() > 1
    }

    /// Whether a reply with `values` shows `write`, or something that may have replaced it: a
    /// value in the reply, or what had begun before `by` and may be hidden, as deletions are.
    pub fn shows(
        &self,
        history: &History,
        key: &str,
        values: &[WriteId],
        write: WriteId,
        by: Time,
    ) -> bool {
        values.contains(&write)
            || values.iter().any(|value| self.may_cover(key, *value, write))
            || self.writes(key).iter().any(|hidden| {
                let op = self.op(history, *hidden).expect("every write has an operation");
                op.invoked < by
                    && (*hidden == write || self.may_cover(key, *hidden, write))
                    && op.outcome != Outcome::Fail
                    && history.may_be_hidden(op, by)
            })
    }
}

/// When an operation can no longer take effect, as far as its client knows.
pub fn end(op: &Op) -> Time {
    if op.outcome == Outcome::Ok { op.returned } else { Time::MAX }
}
