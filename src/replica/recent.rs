//! The write ids a shard has seen lately, so that a repeated put is known for one.
//!
//! A put that arrives twice (a duplicated frame, a retry) usually finds its own sibling in the
//! object. It does not when somebody has replaced that sibling in between; writing it again would
//! bring an old value back. This memory covers that case for as long as retries live. It is
//! bounded and volatile: it narrows a window, correctness of what is stored does not rest on it.
//! What it must not do is to remember a write that was not stored: after a failed commit it is
//! emptied.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::WriteId;

/// A bounded memory of write ids; the oldest is forgotten first.
#[derive(Debug)]
pub(super) struct Recent {
    ids: BTreeSet<WriteId>,
    order: VecDeque<WriteId>,
    most: usize,
}

impl Recent {
    /// Remembers up to `most` ids.
    pub(super) fn new(most: usize) -> Self {
        Self { ids: BTreeSet::new(), order: VecDeque::new(), most }
    }

    /// Whether `id` was seen lately.
    pub(super) fn contains(&self, id: WriteId) -> bool {
        self.ids.contains(&id)
    }

    /// Remembers `id`.
    pub(super) fn insert(&mut self, id: WriteId) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first_and_the_bound_is_kept() {
        let mut recent = Recent::new(2);
        for id in [1, 2, 2, 3] {
            recent.insert(WriteId(id));
        }
        assert!(!recent.contains(WriteId(1)));
        assert!(recent.contains(WriteId(2)) && recent.contains(WriteId(3)));
        assert_eq!(recent.ids.len(), 2);
    }
}
