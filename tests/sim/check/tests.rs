//! Small histories by hand: for each property one that holds it and one that breaks it.
//!
//! Unless a test says otherwise there is one key of three replicas, and every operation has a
//! quorum of two and takes one microsecond.

use std::collections::BTreeMap;

use ringdove::causality::{Actor, Dot, VersionVector};
use ringdove::ids::{Incarnation, WriteId};
use ringdove::wire::messages::Expiry;

use super::{Violation, check};
use crate::history::{Basis, Fact, Held, History, Kind, Op, Outcome, Token, wall};

const KEY: &str = "sib/k";
const BLIND: Basis = Basis::Blind;

fn context(token: u32) -> Basis {
    Basis::Context(Token(token))
}

/// Writes a history down, operation by operation.
struct Script {
    history: History,
    time: u64,
}

impl Script {
    fn new() -> Self {
        let history = History { siblings_refuse: 2, ..History::default() };
        Self { history, time: 0 }
    }

    fn op(&mut self, session: u32, kind: Kind) -> &mut Op {
        let id = self.history.ops.len();
        self.time += 10;
        self.history.ops.push(Op {
            id,
            session,
            kind,
            key: KEY.to_owned(),
            write: None,
            basis: None,
            expiry: Expiry::Never,
            n: 3,
            needed: 2,
            attempts: 1,
            begin_by: u64::MAX,
            invoked: self.time,
            returned: self.time + 1,
            outcome: Outcome::Ok,
            values: Vec::new(),
            context_out: None,
            coordinator: None,
            is_final: false,
        });
        &mut self.history.ops[id]
    }

    fn put(&mut self, session: u32, write: u128, basis: Basis) -> &mut Op {
        let op = self.op(session, Kind::Put);
        (op.write, op.basis) = (Some(WriteId(write)), Some(basis));
        op
    }

    fn delete(&mut self, session: u32, write: u128, basis: Basis) -> &mut Op {
        let op = self.put(session, write, basis);
        op.kind = Kind::Delete;
        op
    }

    fn get(&mut self, session: u32, values: &[u128], token: u32) -> &mut Op {
        let op = self.op(session, Kind::Get);
        op.values = values.iter().map(|write| WriteId(*write)).collect();
        op.context_out = Some(Token(token));
        op
    }

    /// The read at R=N at the end.
    fn finally(&mut self, values: &[u128]) {
        let op = self.get(99, values, 99);
        (op.needed, op.is_final) = (3, true);
    }

    fn stored(&mut self, node: usize, held: Held) {
        let (time, key) = (self.time, KEY.to_owned());
        self.history.facts.push(Fact::Stored { time, node, key, held });
    }

    fn staged(&mut self, minted: Option<Dot>, held: Held) {
        let key = KEY.to_owned();
        self.history.facts.push(Fact::Staged { time: 0, node: 0, key, minted, held });
    }

    fn holds(&self) {
        let found = check(&self.history);
        assert!(found.is_empty(), "{found:?}");
    }

    /// The properties that do not hold.
    #[track_caller]
    fn breaks(&self, property: &str) {
        let found: Vec<Violation> = check(&self.history);
        assert!(found.iter().any(|found| found.property == property), "{property}: {found:?}");
    }
}

fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: Actor { incarnation: Incarnation(actor), k: 0 }, counter }
}

fn held(clock: &[Dot], live: &[(Dot, u128)]) -> Held {
    let mut vector = VersionVector::new();
    clock.iter().for_each(|dot| vector.insert(*dot));
    let live = live.iter().map(|(dot, write)| (*dot, WriteId(*write), dot.counter)).collect();
    Held { clock: vector, live, digest: clock.len() as u128 }
}

pub fn cases() -> Vec<(&'static str, fn())> {
    vec![
        ("an_acknowledged_write_may_be_covered_but_not_lost", acked),
        ("a_write_may_be_replaced_only_by_one_that_had_seen_it", wrongful_death),
        ("what_an_acknowledged_write_replaced_stays_away", resurrection),
        ("what_was_absent_from_a_whole_read_does_not_come_back", resurrection_after_whole_read),
        ("of_concurrent_writes_both_stay", kept_siblings),
        ("a_value_is_not_shown_beside_one_that_had_seen_it", false_sibling),
        ("only_what_was_written_is_read", phantom),
        ("replicas_agree_at_the_end", convergence),
        ("overlapping_quorums_show_what_was_acknowledged", freshness),
        ("a_deletion_hides_what_it_covers", freshness_and_deletion),
        ("a_session_sees_its_own_writes", sessions),
        ("a_dot_stands_for_one_write", dots),
        ("what_a_disk_knows_grows_unless_it_was_told_to_forget", causal_context),
        ("a_power_cut_leaves_w_copies", durable),
        ("siblings_and_actors_are_bounded", bounded),
        ("the_latest_write_wins", last_write_wins),
        ("a_timeout_is_no_failure", timeouts),
        ("what_has_expired_is_not_shown_and_what_has_not_is", expired),
    ]
}

fn acked() {
    let mut script = Script::new();
    script.put(0, 1, BLIND);
    script.get(0, &[1], 1);
    script.put(0, 2, context(1));
    script.finally(&[2]);
    script.holds();

    let mut script = Script::new();
    script.put(0, 1, BLIND);
    script.put(1, 2, BLIND);
    script.finally(&[2]);
    script.breaks("P1");
}

fn wrongful_death() {
    let run = |basis: Basis| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(0, &[1], 1);
        script.put(0, 2, basis);
        script.staged(Some(dot(1, 1)), held(&[dot(1, 1)], &[(dot(1, 1), 1)]));
        script.staged(Some(dot(1, 2)), held(&[dot(1, 1), dot(1, 2)], &[(dot(1, 2), 2)]));
        script.history.facts.insert(0, Fact::NewActor { node: 0 });
        script.history.primaries.insert(KEY.to_owned(), vec![0]);
        let end = held(&[dot(1, 1), dot(1, 2)], &[(dot(1, 2), 2)]);
        script.history.final_disks = vec![BTreeMap::from([(KEY.to_owned(), end)])];
        script
    };
    run(context(1)).holds();
    run(BLIND).breaks("P1");
}

fn resurrection() {
    let run = |last: &[u128]| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(0, &[1], 1);
        script.delete(0, 2, context(1));
        script.get(0, last, 2);
        script
    };
    run(&[]).holds();
    run(&[1]).breaks("P2");
    let mut at_the_end = run(&[]);
    at_the_end.finally(&[1]);
    at_the_end.breaks("P2");
}

fn resurrection_after_whole_read() {
    let run = |last: &[u128]| {
        let mut script = Script::new();
        script.put(0, 1, BLIND).needed = 1;
        script.get(0, &[1], 1);
        script.put(0, 2, context(1)).needed = 1;
        script.get(1, &[2], 2).needed = 3;
        script.get(2, last, 3).needed = 3;
        script
    };
    run(&[2]).holds();
    run(&[1]).breaks("P2");
}

fn kept_siblings() {
    let run = |last: &[u128]| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.put(1, 2, BLIND);
        script.finally(last);
        script
    };
    run(&[1, 2]).holds();
    run(&[2]).breaks("P3");
}

fn false_sibling() {
    let run = |last: &[u128]| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(0, &[1], 1);
        let put = script.put(0, 2, context(1));
        put.outcome = Outcome::Info;
        script.get(1, last, 2);
        script
    };
    run(&[2]).holds();
    run(&[1]).holds();
    run(&[1, 2]).breaks("P4");
    // The token of a write's own answer covers the write.
    let mut script = Script::new();
    script.put(0, 1, BLIND).context_out = Some(Token(1));
    script.put(0, 2, context(1));
    script.get(1, &[1, 2], 2);
    script.breaks("P4");
}

fn phantom() {
    let mut script = Script::new();
    script.put(0, 1, BLIND).outcome = Outcome::Info;
    script.get(0, &[1], 1);
    script.holds();
    script.get(0, &[7], 2);
    script.breaks("P5");

    let mut script = Script::new();
    script.put(0, 1, BLIND).outcome = Outcome::Fail;
    script.get(0, &[1], 1);
    script.breaks("P5");

    let mut script = Script::new();
    script.get(0, &[1], 1);
    script.put(0, 1, BLIND);
    script.breaks("P5");
}

fn convergence() {
    let run = |other: &[Dot]| {
        let mut script = Script::new();
        script.history.primaries.insert(KEY.to_owned(), vec![0, 1]);
        let disk = |clock| BTreeMap::from([(KEY.to_owned(), held(clock, &[]))]);
        script.history.final_disks = vec![disk(&[dot(1, 1)]), disk(other)];
        script
    };
    run(&[dot(1, 1)]).holds();
    run(&[dot(1, 1), dot(1, 2)]).breaks("P6");
    let mut stuck = Script::new();
    stuck.history.stuck.push("a read at R=N failed".to_owned());
    stuck.breaks("P6");
}

fn freshness() {
    let run = |values: &[u128], needed: u8| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(0, &[1], 1);
        script.put(1, 2, context(1));
        script.get(2, values, 2).needed = needed;
        script
    };
    run(&[2], 2).holds();
    run(&[1], 1).holds();
    run(&[1], 2).breaks("P7");
    run(&[], 2).breaks("P7");
}

fn freshness_and_deletion() {
    let run = |basis: Basis| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(0, &[1], 1);
        script.delete(1, 2, basis);
        script.get(2, &[], 2);
        script
    };
    run(context(1)).holds();
    run(BLIND).breaks("P7");
}

fn sessions() {
    let run = |session: u32, values: &[u128]| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(1, &[1], 1);
        script.put(1, 2, context(1));
        script.get(session, values, 2);
        script
    };
    run(1, &[2]).holds();
    run(1, &[]).breaks("P8");
    // It had seen 1, then wrote 2 in its place: 1 must not come back to it.
    run(1, &[1, 2]).breaks("P8");
}

fn dots() {
    let run = |write: u128| {
        let mut script = Script::new();
        script.stored(0, held(&[dot(1, 1)], &[(dot(1, 1), 1)]));
        script.stored(1, held(&[dot(1, 1)], &[(dot(1, 1), write)]));
        script
    };
    run(1).holds();
    run(2).breaks("P9");
}

fn causal_context() {
    let run = |forgets: bool| {
        let mut script = Script::new();
        script.stored(0, held(&[dot(1, 1), dot(1, 2)], &[]));
        if forgets {
            script.history.facts.push(Fact::Forgot { node: 0, key: None });
        }
        script.stored(0, held(&[dot(2, 1)], &[]));
        script
    };
    run(true).holds();
    run(false).breaks("P10");
}

fn durable() {
    let run = |copies: usize, victims: usize| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        let state = held(&[dot(1, 1)], &[(dot(1, 1), 1)]);
        script.history.facts.push(Fact::NewActor { node: 0 });
        script.history.primaries.insert(KEY.to_owned(), vec![0]);
        script.staged(Some(dot(1, 1)), state.clone());
        let disk = BTreeMap::from([(KEY.to_owned(), state)]);
        script.history.final_disks = vec![disk.clone()];
        let disks = (0..3).map(|n| if n < copies { disk.clone() } else { BTreeMap::new() });
        let (time, disks) = (script.time + 5, disks.collect());
        script.history.facts.push(Fact::AllDown { time, disks, victims });
        script
    };
    run(2, 0).holds();
    run(1, 1).holds();
    run(1, 0).breaks("P12");
}

fn bounded() {
    let run = |actors: usize, siblings: u64| {
        let mut script = Script::new();
        script.history.primaries.insert(KEY.to_owned(), vec![0]);
        for _ in 0..actors {
            script.history.facts.push(Fact::NewActor { node: 0 });
        }
        let dots: Vec<Dot> = (1..=siblings).map(|counter| dot(counter % 2, counter)).collect();
        let live: Vec<_> = dots.iter().map(|dot| (*dot, u128::from(dot.counter))).collect();
        script.staged(None, held(&dots, &live));
        script
    };
    run(2, 2).holds();
    run(1, 2).breaks("P17");
    run(2, 3).breaks("P17");
}

fn last_write_wins() {
    let run = |kept: u128| {
        let mut script = Script::new();
        script.history.last_write_wins.push(KEY.to_owned());
        script.history.primaries.insert(KEY.to_owned(), vec![0]);
        for write in [1, 2] {
            script.put(0, write, BLIND);
            let dot = dot(write as u64, write as u64);
            script.history.facts.push(Fact::NewActor { node: 0 });
            script.staged(Some(dot), held(&[dot], &[(dot, write)]));
        }
        let last = dot(kept as u64, kept as u64);
        let disk = held(&[dot(1, 1), dot(2, 2)], &[(last, kept)]);
        script.history.final_disks = vec![BTreeMap::from([(KEY.to_owned(), disk)])];
        script
    };
    run(2).holds();
    run(1).breaks("LWW");
    let mut lost = run(2);
    for disk in &mut lost.history.final_disks {
        disk.values_mut().for_each(|held| held.live.clear());
    }
    lost.breaks("LWW");
    // All had agreed to forget the younger one, when the older could not be begun any more, or still
    // could.
    let forgotten = |begin_by: u64| {
        let mut script = run(1);
        script.history.ops[0].begin_by = begin_by;
        let reaped = BTreeMap::from([((WriteId(2), 2), 1_000)]);
        script.history.reaped.insert(KEY.to_owned(), reaped);
        script
    };
    forgotten(999).breaks("LWW");
    forgotten(1_000).holds();
}

fn timeouts() {
    // A write of unknown outcome may be there or not, and may cover what it had seen.
    for last in [&[1][..], &[2], &[1, 2]] {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.put(1, 2, BLIND).outcome = Outcome::Info;
        script.finally(last);
        if last == [2] {
            script.breaks("P1");
        } else {
            script.holds();
        }
    }
    for (last, holds) in [(&[1][..], true), (&[2], true), (&[], false)] {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(0, &[1], 1);
        script.put(0, 2, context(1)).outcome = Outcome::Info;
        script.finally(last);
        if holds { script.holds() } else { script.breaks("P7") }
    }
}

fn expired() {
    let run = |expiry: Expiry, most_ms: i64, values: &[u128]| {
        let mut script = Script::new();
        script.history.skews.insert(0, (0, most_ms));
        script.time = 1_000_000;
        let put = script.put(0, 1, BLIND);
        (put.expiry, put.begin_by) = (expiry, put.returned);
        script.get(1, values, 1);
        script.get(0, values, 1);
        script.finally(values);
        script
    };
    let (before, later) = (Expiry::At(wall(0, 999)), Expiry::At(wall(0, 2_000)));
    run(before, 0, &[]).holds();
    run(before, 0, &[1]).breaks("P22");
    run(Expiry::After(0), 0, &[]).holds();
    run(Expiry::After(0), 0, &[1]).breaks("P22");
    for expiry in [later, Expiry::After(1_000), Expiry::Never] {
        run(expiry, 0, &[1]).holds();
        for property in ["P1", "P7", "P8"] {
            run(expiry, 0, &[]).breaks(property);
        }
    }
    // By somebody's clock it has expired, by another's not.
    for values in [&[][..], &[1]] {
        run(later, 60_000, values).holds();
        run(Expiry::After(1_000), 60_000, values).holds();
    }
    // An expired value hides what it has replaced, and nothing else.
    let replaced = |basis: Basis| {
        let mut script = Script::new();
        script.put(0, 1, BLIND);
        script.get(0, &[1], 1);
        script.put(0, 2, basis).expiry = before;
        script.time = 1_000_000;
        script.get(0, &[], 2);
        script
    };
    replaced(context(1)).holds();
    replaced(BLIND).breaks("P7");
}
