//! A record that cannot be read: who may replace it, and by what.

use std::time::Duration;

use ringdove::causality::Object;
use ringdove::ids::{Incarnation, NodeId};
use ringdove::key::Key;
use ringdove::replica::Input;
use ringdove::store::memory::MemoryStore;
use ringdove::store::record::Record;
use ringdove::store::{Batch, Change, Imprint, Store as _, StoredKey};
use ringdove::wire::messages::{
    BucketSettings, FailureCode, Get, Held, HeldObject, Level, Purpose, Request, Response, Stored,
    Write,
};

use crate::node::{self, Node};

fn key() -> Key {
    Key::new(b"default", b"cart").unwrap()
}

/// One of so many owners, with a record that it cannot read.
fn damaged(owners: u8) -> (Node, StoredKey) {
    let settings = BucketSettings { n: owners, ..BucketSettings::default() };
    let topology = node::topology(owners.into(), &[("default", settings)]);
    let stored = StoredKey::new(topology.partition(&key()), &key());
    let store = MemoryStore::new();
    let record =
        Record { mint: None, object: node::object(1, "what nobody can read").encode() }.encode();
    let (key, record, before) = (stored.clone(), Some(record), Some(Imprint::NONE));
    let change = Change { key, record, before, after: Imprint::NONE };
    store.commit(&[Batch::of(vec![change])]).unwrap();
    let mut node = Node::new(topology, store, Incarnation(7));
    (2..=owners).for_each(|peer| node.handle(Input::Connected(NodeId(peer.into()))));
    node.is_damaged = true;
    (node, stored)
}

fn read(node: &mut Node, r: u8) -> u64 {
    let (r, pr) = (Level::Count(r), Level::Default);
    node.ask(Request::Get(Get { key: key(), r, pr, budget_ms: 0, strict: true, trace: false }))
}

/// All peers answer what they are asked with this.
fn answer(node: &mut Node, object: &HeldObject) {
    let asked = std::mem::take(&mut node.sent);
    assert!(!asked.is_empty());
    for (from, id, request) in asked {
        assert!(matches!(request, Request::Read(_)), "{request:?}");
        let held = Held { object: object.clone(), amnesiac: false };
        node.handle(Input::Response { from, id, response: Response::Held(held) });
    }
    node.commit(Ok(()));
}

fn held(node: &Node, key: &StoredKey) -> Option<Object> {
    let record = node.store.read(key).unwrap()?;
    Some(Object::decode(Record::decode(record).unwrap().object).unwrap())
}

fn refusal(node: &Node, asked: u64) -> FailureCode {
    match &node.answers[&asked] {
        Response::Failed(failure) => failure.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_that_wants_more_than_can_answer_is_refused_and_restores_all_the_same() {
    let (mut node, stored) = damaged(2);
    let asked = read(&mut node, 2);
    answer(&mut node, &HeldObject::Full(node::object(1, "theirs").encode()));
    assert_eq!(refusal(&node, asked), FailureCode::Unavailable);
    assert_eq!(held(&node, &stored), Some(node::object(1, "theirs")));
}

#[test]
fn where_all_others_have_nothing_nothing_replaces_it() {
    let (mut node, stored) = damaged(3);
    let asked = read(&mut node, 2);
    while !node.sent.is_empty() {
        answer(&mut node, &HeldObject::Missing);
    }
    assert!(matches!(node.answers[&asked], Response::Got(_)), "{:?}", node.answers[&asked]);
    assert_eq!(held(&node, &stored), None);
}

/// The peers answer a read in their order, each amnesiac or not. Returns whether the record was replaced.
fn replaced_beside(amnesiacs: &[bool]) -> bool {
    let (mut node, stored) = damaged(amnesiacs.len() as u8 + 1);
    let before = held(&node, &stored);
    read(&mut node, 1);
    while !node.sent.is_empty() {
        for (from, id, request) in std::mem::take(&mut node.sent) {
            let Request::Read(_) = request else { continue };
            let object = HeldObject::Full(node::object(1, "theirs").encode());
            let amnesiac = amnesiacs[from.0 as usize - 2];
            let response = Response::Held(Held { object, amnesiac });
            node.handle(Input::Response { from, id, response });
        }
        node.commit(Ok(()));
    }
    held(&node, &stored) != before
}

#[test]
fn an_amnesiac_owner_holds_up_no_restoring_unless_there_is_no_other() {
    assert!(replaced_beside(&[false, false]));
    assert!(replaced_beside(&[true, false]));
    assert!(!replaced_beside(&[true, true]));
    assert!(!replaced_beside(&[true]));
}

#[test]
fn where_there_is_no_other_it_stays() {
    let (mut node, stored) = damaged(1);
    let asked = read(&mut node, 1);
    node.commit(Ok(()));
    assert_eq!(refusal(&node, asked), FailureCode::Unavailable);
    assert!(held(&node, &stored).is_some());
}

#[test]
fn a_damaged_hint_that_is_written_anew_is_one_hint() {
    let away = NodeId(3);
    let topology = node::topology(3, &[("default", BucketSettings::default())]);
    let mut node = Node::new(topology, MemoryStore::new(), Incarnation(7));
    node.handle(Input::Connected(NodeId(2)));
    let hint = |n| {
        let (object, purpose) = (node::object(n, "value").encode(), Purpose::Hint(away));
        Request::Write(Write { key: key(), object, purpose, slots: 0, budget_ms: 0 })
    };
    node.ask_for(NodeId(2), hint(1));
    node.commit(Ok(()));
    node.is_damaged = true;
    node.ask_for(NodeId(2), hint(2));
    node.commit(Ok(()));
    node.is_damaged = false;
    node.handle(Input::Connected(away));
    node.handle(Input::Up(away));
    let list = |node: &mut Node| {
        assert_eq!(node.lists.pop(), Some(away));
        let result = node.store.hints(away, None, usize::MAX);
        node.handle(Input::Hints { owner: away, result });
    };
    list(&mut node);
    let (from, id, _) = node.sent.pop().unwrap();
    let response = Response::Stored(Stored { fsynced: true });
    node.handle(Input::Response { from, id, response });
    node.commit(Ok(()));
    // The end of this round, and a round that finds nothing.
    for _ in 0..2 {
        list(&mut node);
        node.wait(Duration::from_secs(1));
    }
    assert!(node.shard.hints().is_empty(), "{:?}", node.shard.hints());
}

#[test]
fn versions_whose_clocks_no_decoder_would_take_together_stay_apart() {
    let topology = node::topology(3, &[("default", BucketSettings::default())]);
    let stored = StoredKey::new(topology.partition(&key()), &key());
    let mut node = Node::new(topology, MemoryStore::new(), Incarnation(7));
    node.handle(Input::Connected(NodeId(2)));
    let give = |node: &mut Node, object: &Object| {
        let (object, purpose) = (object.encode(), Purpose::Repair);
        let write = Write { key: key(), object, purpose, slots: 0, budget_ms: 0 };
        let asked = node.ask_for(NodeId(2), Request::Write(write));
        node.commit(Ok(()));
        asked
    };
    // Of 600 actors each, none of them the same.
    let (first, second) = (node::overwritten(1000..1600), node::overwritten(3000..3600));
    let asked = give(&mut node, &first);
    assert!(matches!(node.answers[&asked], Response::Stored(_)), "{:?}", node.answers[&asked]);
    let asked = give(&mut node, &second);
    assert_eq!(refusal(&node, asked), FailureCode::TooLarge);
    assert_eq!(held(&node, &stored), Some(first));
}
