//! Where each `SCAN` stands.
//!
//! A cursor is one number, too short to say which key a page ended with. So the node keeps the
//! place and gives out a number for it. Pages may be asked for again: a cursor stays good until
//! the page behind the next one is answered, or until many other scans have pushed it out.
//!
//! The numbers begin at a random one, so that a cursor given out before a restart is unknown
//! after it, instead of leading to a place in somebody else's scan.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::ids::Partition;

/// Places that are kept. With keys of 4 KiB these are 16 MiB.
const PLACES: usize = 4096;
/// Cursors stay below 2^53, since some clients keep numbers as floating point.
const FIRST_MASK: u64 = (1 << 52) - 1;

/// Where a scan goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) partition: Partition,
    /// Behind this key; empty for the beginning of the partition.
    pub(super) after: Vec<u8>,
    /// The cursor that led to the page before: once this place is asked for, the client has
    /// moved on from there.
    pub(super) before: u64,
}

/// The places of all scans of this node.
#[derive(Debug)]
pub(super) struct Cursors {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    next: u64,
    places: BTreeMap<u64, Place>,
}

impl Cursors {
    pub(super) fn new(random: u64) -> Self {
        let next = (random & FIRST_MASK).max(1);
        Self { kept: Mutex::new(Kept { next, places: BTreeMap::new() }) }
    }

    /// A cursor for a place. The oldest makes room where there is none.
    pub(super) fn keep(&self, place: Place) -> u64 {
        let mut kept = self.kept.lock().expect("no method panics while it holds the lock");
        if kept.places.len() >= PLACES {
            kept.places.pop_first();
        }
        let cursor = kept.next;
        kept.next += 1;
        kept.places.insert(cursor, place);
        cursor
    }

    /// The place of a cursor.
    pub(super) fn find(&self, cursor: u64) -> Option<Place> {
        let mut kept = self.kept.lock().expect("no method panics while it holds the lock");
        let place = kept.places.get(&cursor)?.clone();
        kept.places.remove(&place.before);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(after: &str, before: u64) -> Place {
        let (bucket, after) = ("default".to_owned(), after.into());
        Place { bucket, partition: Partition(1), after, before }
    }

    #[test]
    fn a_page_can_be_asked_for_again_until_the_scan_has_moved_on() {
        let cursors = Cursors::new(7);
        let one = cursors.keep(place("a", 0));
        let two = cursors.keep(place("b", one));
        assert_eq!(cursors.find(one), Some(place("a", 0)));
        assert_eq!(cursors.find(two), Some(place("b", one)));
        assert_eq!(cursors.find(one), None);
        assert_eq!(cursors.find(two), Some(place("b", one)));
        assert_eq!(cursors.find(0), None);
    }

    #[test]
    fn many_scans_that_are_never_finished_push_out_the_oldest() {
        let cursors = Cursors::new(u64::MAX);
        let first = cursors.keep(place("a", 0));
        assert!(first < 1 << 53);
        let others: Vec<u64> = (0..PLACES).map(|_| cursors.keep(place("b", 0))).collect();
        assert_eq!(cursors.find(first), None);
        assert!(others.iter().all(|cursor| cursors.find(*cursor).is_some()));
    }
}
