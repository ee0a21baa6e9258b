//! A node whose disk is full, or damaged: what it may do of a write, and what its client hears.

use ringdove::ids::{Incarnation, NodeId};
use ringdove::key::Key;
use ringdove::membership::Topology;
use ringdove::replica::Input;
use ringdove::store::memory::MemoryStore;
use ringdove::wire::messages::{
    Basis, BucketSettings, Failure, FailureCode, Get, Held, HeldObject, Level, Outcome, Put,
    Request, Response,
};

use crate::node::{self, ME, Node};

const WHY: &str = "3 MiB are free and 64 MiB are kept in reserve";

/// One of so many members.
fn member_of(members: u128) -> Node {
    let mut node = Node::new(topology(members), MemoryStore::new(), Incarnation(77));
    for peer in 2..=members {
        node.handle(Input::Connected(NodeId(peer)));
    }
    node
}

/// One whose disk has no room.
fn full_node(members: u128) -> Node {
    let mut node = member_of(members);
    node.handle(Input::Room(Err(WHY.to_owned())));
    node
}

/// One from whom nobody else can be reached.
fn left_alone(mut node: Node) -> Node {
    (2..=5).for_each(|peer| lose(&mut node, NodeId(peer)));
    node
}

fn lose(node: &mut Node, peer: NodeId) {
    node.handle(Input::Disconnected(peer));
    node.handle(Input::Down(peer));
}

fn topology(members: u128) -> Topology {
    node::topology(members, &[("default", BucketSettings::default())])
}

/// A key that one of five members has no part in, and its owners.
fn foreign() -> (Key, Vec<NodeId>) {
    let topology = topology(5);
    let owners =
        |key: &Key| topology.participants(topology.partition(key), topology.home("default"));
    let key = some_keys().find(|key| !owners(key).contains(&ME)).unwrap();
    let owners = owners(&key);
    (key, owners)
}

fn some_keys() -> impl Iterator<Item = Key> {
    (0..50).map(|n| Key::new(b"default", format!("{n}").as_bytes()).unwrap())
}

fn key() -> Key {
    Key::new(b"default", b"cart").unwrap()
}

fn put(key: Key) -> Request {
    Request::Put(Put {
        strict: false,
        w: Level::Count(1),
        ..node::put(key, 1, Basis::Observed, "value")
    })
}

fn failure(node: &Node, asked: u64) -> &Failure {
    match node.answers.get(&asked) {
        Some(Response::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

fn refusal(node: &Node, asked: u64) {
    let failure = failure(node, asked);
    assert_eq!((failure.code, failure.outcome), (FailureCode::DiskFull, Outcome::NotApplied));
    assert!(failure.message.contains(WHY), "{}", failure.message);
}

/// What a peer says whose disk is full.
fn theirs() -> Response {
    let message = format!("the disk of another is full: {WHY}");
    Response::Failed(Failure::not_applied(FailureCode::DiskFull, message))
}

/// Nobody holds anything yet.
fn answer_reads(node: &mut Node) {
    let reads = std::mem::take(&mut node.sent);
    assert!(!reads.is_empty());
    for (from, id, request) in reads {
        assert!(matches!(request, Request::Read(_)), "{request:?}");
        let held = Held { object: HeldObject::Missing, amnesiac: false };
        node.handle(Input::Response { from, id, response: Response::Held(held) });
    }
}

/// The write that was passed on, and to whom.
fn passed_on(node: &mut Node) -> (NodeId, u64) {
    let (to, id, request) = node.sent.pop().expect("it is passed on");
    assert!(matches!(request, Request::Put(_)) && node.sent.is_empty(), "{request:?}");
    (to, id)
}

#[test]
fn alone_it_refuses_writes_says_why_and_goes_on_reading() {
    let mut node = full_node(1);
    let asked = node.ask(put(key()));
    refusal(&node, asked);
    let (r, pr) = (Level::Count(1), Level::Default);
    let asked = node.ask(Request::Get(Get {
        key: key(),
        r,
        pr,
        budget_ms: 0,
        strict: false,
        trace: false,
    }));
    assert!(matches!(node.answers[&asked], Response::Got(_)), "{:?}", node.answers[&asked]);
    node.handle(Input::Room(Ok(())));
    let asked = node.ask(put(key()));
    node.commit(Ok(()));
    assert!(matches!(node.answers[&asked], Response::Done(_)), "{:?}", node.answers[&asked]);
}

#[test]
fn another_owner_coordinates_and_only_when_none_can_is_the_write_refused() {
    let mut node = full_node(3);
    let asked = node.ask(put(key()));
    let (from, id) = passed_on(&mut node);
    let another = Failure::not_applied(FailureCode::Siblings, "too many siblings");
    node.handle(Input::Response { from, id, response: Response::Failed(another) });
    assert_eq!(failure(&node, asked).code, FailureCode::Siblings, "what it says counts");

    let asked = node.ask(put(key()));
    for _ in 0..2 {
        let (from, id) = passed_on(&mut node);
        assert!(!node.answers.contains_key(&asked));
        node.handle(Input::Response { from, id, response: theirs() });
    }
    refusal(&node, asked);
}

#[test]
fn it_stands_in_for_nobody() {
    let mut node = left_alone(full_node(5));
    for key in some_keys() {
        let asked = node.ask(put(key));
        refusal(&node, asked);
    }
    assert!(node.sent.is_empty(), "{:?}", node.sent);
}

#[test]
fn who_cannot_read_what_it_keeps_for_others_refuses_to_stand_in() {
    let mut node = left_alone(member_of(5));
    node.is_damaged = true;
    for key in some_keys() {
        let asked = node.ask(put(key));
        let failure = failure(&node, asked);
        assert_eq!((failure.code, failure.outcome), (FailureCode::Corrupt, Outcome::NotApplied));
    }
}

#[test]
fn a_write_that_looks_around_when_the_disk_becomes_full_is_passed_on() {
    let mut node = member_of(3);
    let asked = node.ask(put(key()));
    node.handle(Input::Room(Err(WHY.to_owned())));
    answer_reads(&mut node);
    passed_on(&mut node);
    assert!(!node.answers.contains_key(&asked));
}

#[test]
fn what_was_passed_on_to_it_is_refused_before_and_after_it_has_looked_around() {
    let mut node = full_node(3);
    let asked = node.ask_for(NodeId(2), put(key()));
    refusal(&node, asked);
    node.handle(Input::Room(Ok(())));
    let asked = node.ask_for(NodeId(2), put(key()));
    node.handle(Input::Room(Err(WHY.to_owned())));
    answer_reads(&mut node);
    refusal(&node, asked);
    assert!(node.sent.is_empty(), "{:?}", node.sent);
}

#[test]
fn where_the_only_owner_that_is_left_is_full_another_member_stands_in() {
    let (key, owners) = foreign();
    let mut node = member_of(5);
    owners[1..].iter().for_each(|owner| lose(&mut node, *owner));
    let asked = node.ask(put(key));
    let (from, id) = passed_on(&mut node);
    assert_eq!(from, owners[0]);
    node.handle(Input::Response { from, id, response: theirs() });
    answer_reads(&mut node);
    node.commit(Ok(()));
    assert!(matches!(node.answers[&asked], Response::Done(_)), "{:?}", node.answers[&asked]);
}

#[test]
fn where_all_owners_are_there_and_full_nobody_stands_in() {
    let (key, owners) = foreign();
    let mut node = member_of(5);
    let asked = node.ask(put(key));
    for _ in owners {
        let (from, id) = passed_on(&mut node);
        node.handle(Input::Response { from, id, response: theirs() });
    }
    refusal(&node, asked);
}

#[test]
fn what_may_have_been_done_elsewhere_is_not_said_to_be_undone() {
    let (key, owners) = foreign();
    let mut node = full_node(5);
    let asked = node.ask(put(key));
    let (from, _) = passed_on(&mut node);
    owners.iter().filter(|owner| **owner != from).for_each(|owner| lose(&mut node, *owner));
    lose(&mut node, from);
    let failure = failure(&node, asked);
    assert_eq!((failure.code, failure.outcome), (FailureCode::Unknown, Outcome::Unknown));
}
