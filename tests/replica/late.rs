//! Requests that come late, or are held up: what is begun, and until when.

use std::time::Duration;

use ringdove::ids::{Incarnation, NodeId};
use ringdove::key::Key;
use ringdove::membership::Topology;
use ringdove::replica::{Input, Origin};
use ringdove::store::memory::MemoryStore;
use ringdove::time::{Instant, WallMs};
use ringdove::wire::messages::{
    Basis, BucketSettings, Conflicts, FailureCode, Get, Level, Outcome, Put, Request, Response,
};

use crate::node::{self, ATTEMPT, ME, Node};

const BUDGET_MS: u32 = 400;
/// Who passes a request on asks the next owner after twice an attempt; a little earlier nothing is begun
/// any more.
const BEGIN_FORWARDED: Duration = Duration::from_millis(ATTEMPT.as_millis() as u64 * 2 * 3 / 4);

/// The only replica of half of the keys.
fn node() -> Node {
    let mut node = Node::new(topology(), MemoryStore::new(), Incarnation(77));
    node.handle(Input::Connected(NodeId(2)));
    node
}

fn topology() -> Topology {
    let one = |conflicts| BucketSettings { n: 1, conflicts, ..BucketSettings::default() };
    let (siblings, latest) = (one(Conflicts::Siblings), one(Conflicts::LastWriteWins));
    node::topology(2, &[("one", siblings), ("latest", latest)])
}

/// A key of this node's.
fn key() -> Key {
    key_in("one")
}

fn key_in(bucket: &str) -> Key {
    let topology = topology();
    let mut keys = (0..50).map(|n| Key::new(bucket.as_bytes(), format!("{n}").as_bytes()).unwrap());
    let owner = |key: &Key| topology.participants(topology.partition(key), topology.home(bucket));
    keys.find(|key| owner(key) == [ME]).unwrap()
}

fn put(key: &Key) -> Request {
    let put = node::put(key.clone(), 1, Basis::Blind, "late");
    Request::Put(Put { budget_ms: BUDGET_MS, ..put })
}

fn get(key: &Key) -> Request {
    let (r, pr) = (Level::Default, Level::Default);
    let (key, budget_ms) = (key.clone(), BUDGET_MS);
    Request::Get(Get { key, r, pr, budget_ms, strict: true, trace: false })
}

/// What is answered to a request that was on its way for so long.
fn answered(age: Duration, forwarded: bool, request: fn(&Key) -> Request) -> Response {
    let mut node = node();
    let (key, received) = (key(), node.now.instant);
    let sent = Instant(received.0 - age.as_micros() as u64);
    let (from, sender) = (Origin(1), if forwarded { NodeId(2) } else { ME });
    let request = request(&key);
    let sent = Some(sent);
    node.handle(Input::Request { from, sender, received, sent, forwarded, request });
    node.commit(Ok(()));
    let expired = node.shard.counters().expired_on_arrival;
    let answer = node.answers.remove(&1).expect("an answer");
    assert_eq!(expired == 1, is_late(&answer));
    answer
}

/// Whether nothing was done because it was too late.
fn is_late(answer: &Response) -> bool {
    let Response::Failed(failure) = answer else { return false };
    assert_eq!((failure.code, failure.outcome), (FailureCode::Timeout, Outcome::NotApplied));
    true
}

#[test]
fn what_was_on_its_way_for_longer_than_its_budget_is_not_begun() {
    let (budget, ms) = (Duration::from_millis(BUDGET_MS.into()), Duration::from_millis(1));
    for request in [put, get] {
        assert!(is_late(&answered(budget, false, request)));
        assert!(!is_late(&answered(budget - ms, false, request)));
    }
    // Whoever passes a write on asks somebody else before that. Reading twice harms nobody.
    assert!(is_late(&answered(BEGIN_FORWARDED, true, put)));
    assert!(!is_late(&answered(BEGIN_FORWARDED - ms, true, put)));
    assert!(!is_late(&answered(BEGIN_FORWARDED, true, get)));
}

/// What is answered to a write whose record was read from the disk so late.
fn read_after(time: Duration, sender: NodeId) -> Response {
    let mut node = node();
    node.holds_loads = true;
    let request = put(&key());
    let asked = node.ask_for(sender, request);
    node.now.instant = node.now.instant + time;
    node.load();
    node.commit(Ok(()));
    node.answers.remove(&asked).expect("an answer")
}

#[test]
fn a_write_whose_record_is_read_too_late_is_not_begun() {
    let ms = Duration::from_millis(1);
    assert!(is_late(&read_after(BEGIN_FORWARDED, NodeId(2))));
    assert!(!is_late(&read_after(BEGIN_FORWARDED - ms, NodeId(2))));
    // Of a client of this node's own nobody else is asked meanwhile.
    assert!(!is_late(&read_after(BEGIN_FORWARDED, ME)));
    assert!(is_late(&read_after(Duration::from_millis(BUDGET_MS.into()), ME)));
}

/// What is answered to an observed write that was sent so long ago, if it says so, after the key was
/// overwritten so often since.
fn after_overwrites(count: u64, age: Option<Duration>, basis: Basis) -> Response {
    after_overwrites_of(key(), count, age, basis)
}

fn after_overwrites_of(key: Key, count: u64, age: Option<Duration>, basis: Basis) -> Response {
    let mut node = node();
    let overwrite = |node: &mut Node, number: u64| {
        node.now.wall = WallMs(node.now.wall.0 + 1);
        let asked = node.ask(Request::Put(node::put(
            key.clone(),
            100 + u128::from(number),
            Basis::Observed,
            "newer",
        )));
        node.commit(Ok(()));
        assert!(matches!(node.answers[&asked], Response::Done(_)));
    };
    (0..count).for_each(|number| overwrite(&mut node, number));
    let received = node.now.instant;
    let sent = age.map(|age| Instant(received.0 - age.as_micros() as u64));
    let put = Put { budget_ms: 2000, ..node::put(key.clone(), 1, basis, "late") };
    let (from, request) = (Origin(9999), Request::Put(put));
    node.handle(Input::Request { from, sender: ME, received, sent, forwarded: false, request });
    node.commit(Ok(()));
    node.answers.remove(&9999).expect("an answer")
}

#[test]
fn a_write_that_may_have_been_done_elsewhere_and_be_forgotten_is_not_begun() {
    let names = ringdove::limits::REPLACED_WRITES as u64;
    let (age, young) = (Some(Duration::from_millis(300)), Some(Duration::from_millis(299)));
    assert!(is_late(&after_overwrites(names + 1, age, Basis::Observed)));
    // All names are remembered; nobody was asked elsewhere yet; nobody would be; nothing is replaced.
    assert!(!is_late(&after_overwrites(names, age, Basis::Observed)));
    assert!(!is_late(&after_overwrites(names + 1, young, Basis::Observed)));
    assert!(!is_late(&after_overwrites(names + 1, None, Basis::Observed)));
    assert!(!is_late(&after_overwrites(names + 1, age, Basis::Blind)));
}

#[test]
fn where_the_last_write_wins_a_late_one_does_not_go_over_what_was_written_since() {
    let (age, young) = (Some(Duration::from_millis(300)), Some(Duration::from_millis(299)));
    let after = |count, age| after_overwrites_of(key_in("latest"), count, age, Basis::Observed);
    assert!(is_late(&after(1, age)));
    assert!(!is_late(&after(0, age)) && !is_late(&after(1, young)) && !is_late(&after(1, None)));
}
