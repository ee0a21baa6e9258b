//! Names for things that must not be mixed up: members, incarnations, writes, partitions.
//!
//! Each is a plain number with a type of its own. None is ever *drawn* here: random bits come
//! from floor 4 (or from the simulator's seed) as arguments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A member of the cluster: 128 random bits, drawn when its data directory is created.
///
/// Shown as 32 hexadecimal digits. A member keeps its id across restarts, addresses and names;
/// a wiped, copied or restored data directory gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u128);

/// A span of a member's life over which its disk is known to have forgotten nothing: 64 random
/// bits, minted at first start and after every start that was not preceded by a clean stop.
///
/// Dots are bound to it, which is why a dot is never used twice whatever a disk forgets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// Names one write of one client: 128 random bits drawn by whoever first asked for it.
///
/// A retry carries the same id, so that it never makes a second sibling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId(pub u128);

/// One of the Q equal slices of the ring: the unit of placement, storage prefix and hand-over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

/// Names a table of slots: who owns what, for the buckets that go by it.
///
/// Buckets of one replica count share the slots of number 0. A bucket whose count was changed has
/// slots of its own from then on, under a number that was never used before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Scope {
    /// Replicas of each key.
    pub n: u8,
    /// Tells it from other scopes of as many replicas; 0 is the one that buckets share.
    pub number: u64,
}

impl From<u8> for Scope {
    /// The scope that buckets of `n` replicas share.
    fn from(n: u8) -> Self {
        Self { n, number: 0 }
    }
}

/// The text was not the hexadecimal form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} hexadecimal digits")]
pub struct NotAnId {
    digits: usize,
}

macro_rules! hexadecimal {
    ($name:ident, $digits:literal, $number:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let well_formed =
                    text.len() == $digits && text.bytes().all(|b| b.is_ascii_hexdigit());
                let number = <$number>::from_str_radix(text, 16);
                match number {
                    Ok(number) if well_formed => Ok(Self(number)),
                    _ => Err(NotAnId { digits: $digits }),
                }
            }
        }
    };
}

hexadecimal!(NodeId, 32, u128);
hexadecimal!(WriteId, 32, u128);
hexadecimal!(Incarnation, 16, u64);

impl NodeId {
    /// The first eight digits: enough to tell members apart in a table or a log line.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_what_it_shows() {
        let id = NodeId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.short(), "01234567");
        let incarnation = Incarnation(7);
        assert_eq!(incarnation.to_string(), "0000000000000007");
    }

    #[test]
    fn a_sign_a_short_text_and_a_stray_letter_are_not_ids() {
        for text in
            ["", "+0000000000000000000000000000001", "12", "g0000000000000000000000000000000"]
        {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
    }
}
