//! The one rule by which states merge: the higher version wins, then the greater value.

use serde::{Deserialize, Serialize};

/// A value that is replaced as a whole.
///
/// Of two registers the one with the higher version wins, of two with one version the one with the
/// greater value: nothing is more right about it, but every node picks the same. That is the
/// derived order, so merging is taking the maximum: idempotent, commutative and associative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Register<T> {
    /// Rises with each change; 0 for a value that nobody has set.
    pub version: u32,
    /// What it says.
    pub value: T,
}

impl<T: Ord + Clone> Register<T> {
    /// A register that has been set once.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { version: 1, value }
    }

    /// Changes the value, if it is another. Returns whether it was.
    pub fn set(&mut self, value: T) -> bool {
        let is_news = self.value != value;
        if is_news {
            *self = Self { version: self.version.saturating_add(1), value };
        }
        is_news
    }

    /// Takes over `other` if it wins. Returns whether it did.
    pub fn merge(&mut self, other: &Self) -> bool {
        let wins = other > self;
        if wins {
            self.clone_from(other);
        }
        wins
    }
}
