//! The write ids a shard has seen lately, so that a repeated put is known for one.
//!
//! A put that arrives twice (a duplicated frame, a retry) usually finds its own sibling in the
//! object. It does not when somebody has replaced that sibling in between; writing it again would
//! bring an old value back. This memory covers that case for as long as retries live. It is
//! bounded and volatile: it narrows a window, correctness of what is stored does not rest on it.

use std::collections::{BTreeMap, VecDeque};

use crate::causality::Dot;
use crate::ids::WriteId;

/// A bounded memory of write ids and their dots; the oldest is forgotten first.
///
/// The dot tells whether a record has really seen the write: one whose commit failed, or that was
/// lost with a damaged record, is remembered here and known to no clock, and must be done again.
#[derive(Debug)]
pub(super) struct Recent {
    dots: BTreeMap<WriteId, Dot>,
    order: VecDeque<WriteId>,
    most: usize,
}

impl Recent {
    /// Remembers up to `most` ids.
    pub(super) fn new(most: usize) -> Self {
        Self { dots: BTreeMap::new(), order: VecDeque::new(), most }
    }

    /// The dot under which the write was last seen.
    pub(super) fn dot(&self, id: WriteId) -> Option<Dot> {
        self.dots.get(&id).copied()
    }

    /// Remembers a write.
    pub(super) fn insert(&mut self, id: WriteId, dot: Dot) {
        if self.dots.insert(id, dot).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.dots.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::Actor;
    use crate::ids::Incarnation;

    #[test]
    fn the_oldest_is_forgotten_first_and_the_bound_is_kept() {
        let actor = Actor { incarnation: Incarnation(1), k: 1 };
        let dot = |counter| Dot { actor, counter };
        let mut recent = Recent::new(2);
        for id in [1, 2, 2, 3] {
            recent.insert(WriteId(id), dot(id as u64));
        }
        assert_eq!(recent.dot(WriteId(1)), None);
        assert_eq!(recent.dot(WriteId(2)), Some(dot(2)));
        assert_eq!(recent.dot(WriteId(3)), Some(dot(3)));
        assert_eq!(recent.dots.len(), 2);
    }
}
