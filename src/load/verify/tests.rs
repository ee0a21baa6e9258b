//! The rules, on histories written by hand: each line of a history is one request.

use super::graph::Graph;
use super::judge::{self, Circumstances};
use super::stale;
use crate::load::ledger::{Action, Entry, Outcome};
use crate::load::record::Verification;
use crate::load::stamp::Version;

const WRITER: u64 = 7;

fn version(number: u64) -> Version {
    Version { writer: WRITER, number }
}

fn foreign(number: u64) -> Version {
    Version { writer: 99, number }
}

/// A history of one key; times in milliseconds.
#[derive(Default)]
struct History {
    graph: Graph,
    circumstances: Circumstances,
}

impl History {
    fn new() -> Self {
        let mut history = Self::default();
        history.circumstances.complete_writers.insert(WRITER);
        history
    }

    fn enter(mut self, action: Action, number: u64, ms: (u64, u64), seen: &[Version]) -> Self {
        self.enter_with(action, number, ms, seen, Outcome::Acknowledged, false);
        self
    }

    fn enter_with(
        &mut self,
        action: Action,
        number: u64,
        (sent_ms, answered_ms): (u64, u64),
        seen: &[Version],
        outcome: Outcome,
        observed: bool,
    ) {
        let (sent_us, took_us) = (sent_ms * 1000, (answered_ms - sent_ms) * 1000);
        let versions = seen.to_vec();
        let entry = Entry { action, outcome, observed, key: 1, number, sent_us, took_us, versions };
        self.graph.enter(WRITER, 1_000_000, &entry);
    }

    /// An acknowledged write that had seen some.
    fn put(self, number: u64, ms: (u64, u64), seen: &[u64]) -> Self {
        let seen: Vec<Version> = seen.iter().map(|number| version(*number)).collect();
        self.enter(Action::Put, number, ms, &seen)
    }

    fn delete(self, number: u64, ms: (u64, u64), seen: &[u64]) -> Self {
        let seen: Vec<Version> = seen.iter().map(|number| version(*number)).collect();
        self.enter(Action::Delete, number, ms, &seen)
    }

    fn read(self, ms: (u64, u64), found: &[u64]) -> Self {
        let found: Vec<Version> = found.iter().map(|number| version(*number)).collect();
        self.enter(Action::Read, 0, ms, &found)
    }

    /// A write that replaces whatever it finds.
    fn set(mut self, number: u64, ms: (u64, u64)) -> Self {
        self.enter_with(Action::Put, number, ms, &[], Outcome::Acknowledged, true);
        self
    }

    fn del(mut self, number: u64, ms: (u64, u64)) -> Self {
        self.enter_with(Action::Delete, number, ms, &[], Outcome::Acknowledged, true);
        self
    }

    fn with(mut self, action: Action, number: u64, seen: &[u64], outcome: Outcome) -> Self {
        let seen: Vec<Version> = seen.iter().map(|number| version(*number)).collect();
        self.enter_with(action, number, (500, 501), &seen, outcome, false);
        self
    }

    fn last_write_wins(mut self) -> Self {
        self.circumstances.last_write_wins = true;
        self
    }

    fn stands(self, versions: &[u64]) -> Verification {
        let versions: Vec<Version> = versions.iter().map(|number| version(*number)).collect();
        self.stand(&versions)
    }

    fn stand(mut self, versions: &[Version]) -> Verification {
        let mut found = Verification::default();
        self.graph.stand(versions);
        judge::judge("key", &mut self.graph, &self.circumstances, &mut found);
        stale::judge("key", &mut self.graph, &self.circumstances, &mut found);
        found
    }
}

/// Lost, resurrected, overwritten, undecided.
fn verdict(found: &Verification) -> [u64; 4] {
    [found.lost, found.resurrected, found.overwritten, found.undecided]
}

#[test]
fn what_stands_or_was_replaced_by_one_who_had_seen_it_is_not_lost() {
    let chain = || History::new().put(1, (0, 1), &[]).put(2, (10, 11), &[1]).put(3, (20, 21), &[2]);
    assert_eq!(verdict(&chain().stands(&[3])), [0, 0, 0, 0]);
    // Siblings, and a write that had seen both.
    let fork = || History::new().put(1, (0, 5), &[]).put(2, (0, 5), &[]);
    assert_eq!(verdict(&fork().stands(&[1, 2])), [0, 0, 0, 0]);
    assert_eq!(verdict(&fork().put(3, (9, 10), &[1, 2]).stands(&[3])), [0, 0, 0, 0]);
    // Through a write of which nobody knows whether it happened, and which somebody has read.
    let through = chain().with(Action::Put, 4, &[3], Outcome::Unknown).put(5, (600, 601), &[4]);
    assert_eq!(verdict(&through.stands(&[5])), [0, 0, 0, 0]);
}

#[test]
fn what_is_gone_and_was_replaced_by_nobody_is_lost() {
    let one = || History::new().put(1, (0, 1), &[]);
    assert_eq!(verdict(&one().stands(&[])), [1, 0, 0, 0]);
    // One of two siblings; then one that a later write had not seen.
    assert_eq!(verdict(&one().put(2, (0, 1), &[]).stands(&[2])), [1, 0, 0, 0]);
    let unseen = one().put(2, (0, 1), &[]).put(3, (9, 10), &[2]);
    assert_eq!(verdict(&unseen.stands(&[3])), [1, 0, 0, 0]);
    // An old value stands in the place of the new: the new one is lost, and the old one is back.
    assert_eq!(verdict(&one().put(2, (10, 11), &[1]).stands(&[1])), [1, 1, 0, 0]);
    // Of a chain that is gone only the last was not replaced.
    let chain = one().put(2, (10, 11), &[1]).put(3, (20, 21), &[2]);
    assert_eq!(verdict(&chain.stands(&[])), [1, 0, 0, 0]);
    // A write that was refused has replaced nothing, and one that is unknown and that nobody has
    // seen neither.
    for outcome in [Outcome::Refused, Outcome::Unknown] {
        let history = one().with(Action::Put, 2, &[1], outcome);
        assert_eq!(verdict(&history.stands(&[])), [1, 0, 0, 0], "{outcome:?}");
    }
}

#[test]
fn a_deletion_takes_what_it_had_seen_and_that_must_not_come_back() {
    let deleted = || History::new().put(1, (0, 1), &[]).delete(2, (10, 11), &[1]);
    assert_eq!(verdict(&deleted().stands(&[])), [0, 0, 0, 0]);
    assert_eq!(verdict(&deleted().stands(&[1])), [0, 1, 0, 0]);
    // What it had not seen stays.
    assert_eq!(verdict(&deleted().put(3, (5, 6), &[]).stands(&[3])), [0, 0, 0, 0]);
    assert_eq!(verdict(&deleted().put(3, (5, 6), &[]).stands(&[])), [1, 0, 0, 0]);
    // What its victim had replaced comes back just as wrongly.
    let behind = History::new().put(1, (0, 1), &[]).put(2, (5, 6), &[1]).delete(3, (9, 10), &[2]);
    assert_eq!(verdict(&behind.stands(&[1])), [0, 1, 0, 0]);
    // One of which nobody knows: both is right.
    for (stands, took) in [(&[][..], [1, 0]), (&[1][..], [0, 1])] {
        let history = History::new().put(1, (0, 1), &[]);
        let found = history.with(Action::Delete, 2, &[1], Outcome::Unknown).stands(stands);
        assert_eq!(verdict(&found), [0, 0, 0, 0]);
        assert_eq!([found.unknown_took_effect, found.unknown_did_not], took);
    }
}

#[test]
fn where_the_last_write_wins_a_concurrent_one_overwrites_and_its_own_past_does_not() {
    let fork = || History::new().last_write_wins().put(1, (0, 1), &[]).put(2, (0, 1), &[]);
    assert_eq!(verdict(&fork().stands(&[2])), [0, 0, 1, 0]);
    assert_eq!(verdict(&fork().stands(&[])), [2, 0, 0, 0]);
    let past = History::new().last_write_wins().put(1, (0, 1), &[]).put(2, (9, 10), &[1]);
    assert_eq!(verdict(&past.stands(&[1])), [1, 1, 0, 0]);
}

#[test]
fn without_contexts_the_order_of_time_decides_as_far_as_it_can() {
    let two = || History::new().set(1, (0, 1)).set(2, (10, 11));
    assert_eq!(verdict(&two().stands(&[2])), [0, 0, 0, 0]);
    assert_eq!(verdict(&two().stands(&[1])), [1, 0, 0, 0]);
    assert_eq!(verdict(&two().stands(&[])), [1, 0, 0, 0]);
    // Both were under way at the same time: either may have come last.
    let both = || History::new().set(1, (0, 9)).set(2, (5, 12));
    for stands in [[1], [2]] {
        assert_eq!(verdict(&both().stands(&stands)), [0, 0, 0, 0], "{stands:?}");
    }
    assert_eq!(verdict(&both().stands(&[])), [1, 0, 0, 0]);
    let deleted = || History::new().set(1, (0, 1)).del(2, (10, 11));
    assert_eq!(verdict(&deleted().stands(&[])), [0, 0, 0, 0]);
    assert_eq!(verdict(&deleted().stands(&[1])), [0, 1, 0, 0]);
    assert_eq!(verdict(&deleted().set(3, (20, 21)).stands(&[3])), [0, 0, 0, 0]);
    assert_eq!(verdict(&deleted().set(3, (20, 21)).stands(&[])), [1, 0, 0, 0]);
}

#[test]
fn what_somebody_else_wrote_leaves_a_loss_undecided_unless_it_was_replaced() {
    let one = || History::new().put(1, (0, 1), &[]);
    assert_eq!(verdict(&one().stand(&[foreign(5)])), [0, 0, 0, 1]);
    let over = History::new().enter(Action::Put, 1, (0, 1), &[foreign(5)]);
    assert_eq!(verdict(&over.stand(&[foreign(5)])), [1, 1, 0, 0]);
}

#[test]
fn what_was_refused_or_never_written_must_not_be_there() {
    let found = History::new().with(Action::Put, 1, &[], Outcome::Refused).stands(&[1]);
    assert_eq!(found.refused_took_effect, 1);
    let found = History::new().put(1, (0, 1), &[]).stands(&[1, 8]);
    assert_eq!(found.refused_took_effect, 1);
    let found = History::new().with(Action::Put, 1, &[], Outcome::Refused).stands(&[]);
    assert_eq!(found.refused_took_effect, 0);
}

#[test]
fn unknown_writes_took_effect_if_anybody_has_seen_them() {
    let unknown = || History::new().with(Action::Put, 1, &[], Outcome::Unknown);
    let counts = |found: Verification| [found.unknown_took_effect, found.unknown_did_not];
    assert_eq!(counts(unknown().stands(&[1])), [1, 0]);
    assert_eq!(counts(unknown().stands(&[])), [0, 1]);
    assert_eq!(counts(unknown().put(2, (600, 601), &[1]).stands(&[2])), [1, 0]);
    assert_eq!(
        counts(unknown().read((600, 601), &[1]).put(2, (700, 701), &[]).stands(&[2])),
        [1, 0]
    );
}

#[test]
fn a_read_that_misses_what_was_acknowledged_before_is_stale_by_as_much() {
    let stale = |found: Verification| (found.stale_reads, found.stalest_ms);
    let two = || History::new().put(1, (0, 1), &[]).put(2, (100, 101), &[1]);
    assert_eq!(stale(two().read((300, 301), &[2]).stands(&[2])), (0, None));
    assert_eq!(stale(two().read((300, 301), &[1]).stands(&[2])), (1, Some(199)));
    assert_eq!(stale(two().read((300, 301), &[]).stands(&[2])), (1, Some(299)));
    // It was sent before the write was acknowledged.
    assert_eq!(stale(two().read((100, 301), &[1]).stands(&[2])), (0, None));
    // A deletion under way may have come first; one that was not sent yet has not.
    let deleted = || two().delete(3, (400, 500), &[2]);
    assert_eq!(stale(deleted().read((450, 451), &[]).stands(&[])), (0, None));
    assert_eq!(stale(deleted().read((450, 451), &[2]).stands(&[])), (0, None));
    assert_eq!(stale(deleted().read((300, 301), &[]).stands(&[])), (1, Some(299)));
    // What was deleted is read again.
    assert_eq!(stale(deleted().read((700, 701), &[2]).stands(&[])), (1, Some(200)));
    // One of two siblings is missing.
    let fork = || History::new().put(1, (0, 1), &[]).put(2, (0, 5), &[]);
    assert_eq!(stale(fork().read((100, 101), &[1, 2]).stands(&[1, 2])), (0, None));
    assert_eq!(stale(fork().read((100, 101), &[1]).stands(&[1, 2])), (1, Some(95)));
    assert_eq!(stale(fork().last_write_wins().read((100, 101), &[1]).stands(&[1])), (0, None));
    // Without contexts.
    let set = || History::new().set(1, (0, 1)).set(2, (100, 101));
    assert_eq!(stale(set().read((300, 301), &[2]).stands(&[2])), (0, None));
    assert_eq!(stale(set().read((300, 301), &[1]).stands(&[2])), (1, Some(199)));
    assert_eq!(stale(set().del(3, (400, 401)).read((600, 601), &[2]).stands(&[])), (1, Some(199)));
}
