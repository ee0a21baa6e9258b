//! A node whose disk is full, or damaged: what it may do of a write, and what its client hears.

use ringdove::causality::Object;
use ringdove::ids::{Incarnation, NodeId};
use ringdove::key::Key;
use ringdove::membership::Topology;
use ringdove::replica::{Effect, Input, Origin};
use ringdove::store::memory::MemoryStore;
use ringdove::store::record::Record;
use ringdove::store::{Store as _, StoreError};
use ringdove::wire::messages::{
    Basis, BucketSettings, Failure, FailureCode, Get, Held, HeldObject, Level, Outcome, Purpose,
    Put, Request, Response, Stored, Write,
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

/// A hint that another node's coordinator has this one keep.
fn hint(write_id: u64) -> Request {
    let purpose = Purpose::Hint(AWAY);
    let object = node::object(write_id, "value").encode();
    Request::Write(Write { key: key(), object, purpose, slots: 0, budget_ms: 0 })
}

const AWAY: NodeId = NodeId(3);

#[test]
fn what_stands_on_a_refused_change_is_refused_too_and_what_comes_later_is_not() {
    let refused = || Err(StoreError::Full(WHY.to_owned()));
    let kept = |node: &Node| {
        let on_disk = node.store.hints(AWAY, None, usize::MAX).unwrap().len() as u64;
        let counted = node.shard.hints().get(&AWAY).map_or(0, |hints| hints.count);
        assert_eq!(on_disk, counted);
        on_disk
    };
    let mut node = member_of(3);
    lose(&mut node, AWAY);
    let asked = [1, 2].map(|n| node.ask_for(NodeId(2), hint(n)));
    node.commit_first(refused());
    let later = node.ask_for(NodeId(2), hint(3));
    node.commit(Ok(()));
    for asked in asked {
        let failure = failure(&node, asked);
        assert_eq!((failure.code, failure.outcome), (FailureCode::DiskFull, Outcome::NotApplied));
    }
    assert!(matches!(node.answers[&later], Response::Stored(_)), "{:?}", node.answers[&later]);
    assert_eq!(kept(&node), 1);
    let stored = node.store.hints(AWAY, None, usize::MAX).unwrap().remove(0).record;
    let object = Object::decode(Record::decode(stored).unwrap().object).unwrap();
    let shown: Vec<u64> = object.siblings().iter().map(|sibling| sibling.hlc.0).collect();
    assert_eq!(shown, [3], "nothing of what was refused");

    // What was refused is a deletion.
    node.handle(Input::Connected(AWAY));
    node.handle(Input::Up(AWAY));
    let result = node.store.hints(AWAY, None, usize::MAX);
    node.handle(Input::Hints { owner: AWAY, result });
    let (from, id, _) = node.sent.pop().unwrap();
    let response = Response::Stored(Stored { fsynced: true });
    node.handle(Input::Response { from, id, response });
    let asked = node.ask_for(NodeId(2), hint(4));
    node.commit_first(refused());
    node.commit(Ok(()));
    assert_eq!(failure(&node, asked).code, FailureCode::DiskFull);
    assert_eq!(kept(&node), 1);
}

#[test]
fn a_change_that_is_staged_when_a_refusal_is_heard_of_is_refused_by_itself() {
    let mut node = member_of(3);
    let first = node.ask_for(NodeId(2), hint(1));
    // In one turn: something is staged, and then the refusal arrives.
    let now = node.now;
    let mut effects = Vec::new();
    let (from, sender, received) = (Origin(99), NodeId(2), now.instant);
    let request = hint(2);
    let input = Input::Request { from, sender, received, sent: None, forwarded: true, request };
    node.shard.handle(now, input, &mut effects);
    let result = Err(StoreError::Full(WHY.to_owned()));
    node.shard.handle(now, Input::Committed { batch: 1, result }, &mut effects);
    let input = Input::Request {
        from: Origin(100),
        sender,
        received,
        sent: None,
        forwarded: true,
        request: hint(3),
    };
    node.shard.handle(now, input, &mut effects);
    let loads: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Load { key } => Some(key.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(loads.len(), 1, "it is read from the disk again: {effects:?}");
    for key in loads {
        node.shard.handle(now, Input::Loaded { key, result: Ok(None) }, &mut effects);
    }
    node.shard.flush(&mut effects);
    let batches: Vec<(u64, u64)> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Commit { batch, refusals, .. } => Some((*batch, *refusals)),
            _ => None,
        })
        .collect();
    assert_eq!(batches, [(2, 0), (3, 1)]);
    let refused = |effect: &Effect| match effect {
        Effect::Respond { to, response: Response::Failed(_) } => to.0 == first,
        _ => false,
    };
    assert!(effects.iter().any(refused), "{effects:?}");
}
