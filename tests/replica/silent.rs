//! A coordinator whose peers have been silent for a moment: silence is not absence, and nobody is
//! refused for it whom an answer would have served.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use ringdove::ids::{Incarnation, NodeId};
use ringdove::key::Key;
use ringdove::membership::Topology;
use ringdove::replica::Input;
use ringdove::store::memory::MemoryStore;
use ringdove::wire::messages::{
    Basis, BucketSettings, Condition, FailureCode, Get, Held, HeldObject, Level, Put, Request,
    Response, Stored,
};

use crate::node::{self, ATTEMPT, FAILURES, ME, Node};

/// A node whose own disk is quick.
struct Coordinator(Node);

impl Coordinator {
    /// One of so many members, each connected.
    fn of(members: u128) -> Self {
        let mut this = Self(Node::new(topology(members), MemoryStore::new(), Incarnation(77)));
        for peer in 2..=members {
            this.handle(Input::Connected(NodeId(peer)));
        }
        this
    }

    /// All its peers have been silent for so long that their breakers are open.
    fn among_the_silent(members: u128) -> Self {
        let mut this = Self::of(members);
        for id in 0..20 {
            for key in keys() {
                this.ask(Request::Put(put(key, 1000 + id, false)));
            }
        }
        for _ in 0..FAILURES {
            this.wait(ATTEMPT);
        }
        assert_eq!(this.shard.counters().breakers_opened, members as u64 - 1);
        this.sent.clear();
        this
    }

    fn ask(&mut self, request: Request) -> u64 {
        let asked = self.0.ask(request);
        self.commit(Ok(()));
        asked
    }

    fn wait(&mut self, time: Duration) {
        self.0.wait(time);
        self.commit(Ok(()));
    }

    /// Peers wake up, and answer what they were asked.
    fn wake(&mut self) {
        for (from, id, request) in std::mem::take(&mut self.sent) {
            let response = match request {
                Request::Read(_) => {
                    let object = HeldObject::Missing;
                    Response::Held(Held { object, amnesiac: false })
                }
                Request::Write(_) => Response::Stored(Stored { fsynced: true }),
                other => panic!("nobody was to be asked {other:?}"),
            };
            self.handle(Input::Response { from, id, response });
            self.commit(Ok(()));
        }
    }
}

impl Deref for Coordinator {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.0
    }
}

impl DerefMut for Coordinator {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.0
    }
}

fn topology(members: u128) -> Topology {
    node::topology(members, &[("default", BucketSettings::default())])
}

fn keys() -> impl Iterator<Item = Key> {
    (0..4).map(|n| Key::new(b"default", format!("cart{n}").as_bytes()).unwrap())
}

fn key() -> Key {
    keys().next().unwrap()
}

fn put(key: Key, write_id: u128, strict: bool) -> Put {
    Put { strict, ..node::put(key, write_id, Basis::Observed, "value") }
}

fn get(r: Level, pr: Level, strict: bool) -> Get {
    Get { key: key(), r, pr, budget_ms: 0, strict, trace: false }
}

#[test]
fn a_write_waits_for_silent_peers_where_there_is_nobody_else() {
    for strict in [false, true] {
        for condition in [Condition::None, Condition::Absent] {
            let mut node = Coordinator::among_the_silent(3);
            let key = Key::new(b"default", b"new").unwrap();
            let asked = node.ask(Request::Put(Put { condition, ..put(key, 1, strict) }));
            assert_eq!(node.answers.get(&asked), None, "strict {strict}, {condition:?}");
            // They read for it, and then they write.
            node.wake();
            node.wake();
            let answer = &node.answers[&asked];
            assert!(matches!(answer, Response::Done(_)), "{strict} {condition:?} {answer:?}");
        }
    }
}

#[test]
fn a_read_waits_for_silent_peers_where_there_is_nobody_else() {
    for strict in [false, true] {
        for pr in [Level::Default, Level::Count(2)] {
            let mut node = Coordinator::among_the_silent(3);
            let asked = node.ask(Request::Get(get(Level::Default, pr, strict)));
            assert_eq!(node.answers.get(&asked), None, "strict {strict}, {pr:?}");
            node.wake();
            let answer = &node.answers[&asked];
            assert!(matches!(answer, Response::Got(_)), "strict {strict}, {pr:?}: {answer:?}");
        }
    }
}

#[test]
fn a_read_during_which_its_peers_fall_silent_goes_on_waiting() {
    let mut node = Coordinator::of(3);
    let reads: Vec<u64> = (0..FAILURES)
        .map(|_| node.ask(Request::Get(get(Level::Default, Level::Default, false))))
        .collect();
    let are_open = |node: &mut Coordinator| {
        node.wait(ATTEMPT);
        node.shard.counters().breakers_opened == 2
    };
    assert!((0..10).any(|_| are_open(&mut node)), "neither has answered anything");
    assert!(node.answers.is_empty(), "{:?}", node.answers);
    node.wake();
    for asked in reads {
        assert!(matches!(node.answers[&asked], Response::Got(_)), "{:?}", node.answers[&asked]);
    }
}

#[test]
fn nobody_waits_for_the_silent_where_others_will_do() {
    let mut node = Coordinator::among_the_silent(3);
    let write = put(Key::new(b"default", b"new").unwrap(), 1, false);
    let written = node.ask(Request::Put(Put { w: Level::Count(1), ..write }));
    let read = node.ask(Request::Get(get(Level::Count(1), Level::Default, false)));
    assert!(matches!(node.answers[&written], Response::Done(_)));
    assert!(matches!(node.answers[&read], Response::Got(_)));
    assert!(node.sent.is_empty(), "{:?}", node.sent);
}

#[test]
fn who_owns_nothing_of_a_key_asks_its_silent_owners_and_takes_a_sloppy_write_itself() {
    let topology = topology(5);
    let is_foreign = |key: &Key| {
        let partition = topology.partition(key);
        !topology.participants(partition, topology.home("default")).contains(&ME)
    };
    let some = (0..100).map(|n| Key::new(b"default", format!("{n}").as_bytes()).unwrap());
    let key = some.into_iter().find(is_foreign).unwrap();
    let read = |strict| {
        Request::Get(Get { key: key.clone(), ..get(Level::Default, Level::Default, strict) })
    };
    for request in [read(false), read(true)] {
        let mut node = Coordinator::among_the_silent(5);
        let asked = node.ask(request);
        assert_eq!(node.answers.get(&asked), None);
        node.wake();
        assert!(matches!(node.answers[&asked], Response::Got(_)), "{:?}", node.answers[&asked]);
    }
    let mut node = Coordinator::among_the_silent(5);
    let asked = node.ask(Request::Put(put(key.clone(), 1, true)));
    assert_eq!(node.answers.get(&asked), None);
    assert!(matches!(node.sent[..], [(_, _, Request::Put(_))]), "{:?}", node.sent);

    let mut node = Coordinator::among_the_silent(5);
    let asked = node.ask(Request::Put(put(key, 1, false)));
    assert_eq!(node.answers.get(&asked), None);
    assert!(node.sent.iter().all(|(_, _, request)| matches!(request, Request::Write(_))));
    node.wake();
    assert!(matches!(node.answers[&asked], Response::Done(_)), "{:?}", node.answers[&asked]);
}

#[test]
fn peers_that_are_gone_are_no_silent_ones() {
    let mut node = Coordinator::among_the_silent(3);
    node.handle(Input::Disconnected(NodeId(2)));
    node.handle(Input::Down(NodeId(3)));
    for request in [
        Request::Put(put(key(), 1, false)),
        Request::Get(get(Level::Default, Level::Default, false)),
    ] {
        let asked = node.ask(request);
        let Response::Failed(failure) = &node.answers[&asked] else {
            panic!("{:?}", node.answers[&asked])
        };
        assert_eq!(failure.code, FailureCode::Unavailable);
        assert!(failure.message.starts_with("1 of 3 primaries"), "{}", failure.message);
    }
}

#[test]
fn a_read_does_not_wait_for_the_object_from_one_who_is_silent() {
    let topology = topology(5);
    let owners = |key: &Key| {
        let partition = topology.partition(key);
        topology.participants(partition, topology.home("default"))
    };
    let some = (0..100).map(|n| Key::new(b"default", format!("{n}").as_bytes()).unwrap());
    let (ours, foreign): (Vec<Key>, Vec<Key>) = some.partition(|key| owners(key).contains(&ME));
    let object = node::object(1, "a value that is large enough for a digest to be asked for");
    for (key, own_disk_is_slow) in [(&ours[0], true), (&foreign[0], false)] {
        let mut node = Coordinator::of(5);
        node.holds_loads = own_disk_is_slow;
        let get = Get { key: key.clone(), ..get(Level::Default, Level::Default, true) };
        let asked = node.ask(Request::Get(get));
        let is_full = |(_, _, request): &(NodeId, u64, Request)| matches!(request, Request::Read(read) if !read.digest);
        // Whoever is to send the object never does: this node's disk, or the first that was asked.
        let silent =
            if own_disk_is_slow { ME } else { node.sent.iter().find(|s| is_full(s)).unwrap().0 };
        let began = node.now.instant;
        while !node.answers.contains_key(&asked) {
            for (from, id, request) in std::mem::take(&mut node.sent) {
                let Request::Read(read) = request else { panic!("{request:?}") };
                if from == silent {
                    continue;
                }
                let object = match read.digest {
                    true => HeldObject::Digest(object.digest(key)),
                    false => HeldObject::Full(object.encode()),
                };
                let response = Response::Held(Held { object, amnesiac: false });
                node.handle(Input::Response { from, id, response });
            }
            node.wait(ATTEMPT / 4);
            assert!(node.now.instant - began < ATTEMPT * 4, "it waits for {silent:?}");
        }
        assert!(matches!(node.answers[&asked], Response::Got(_)), "{:?}", node.answers[&asked]);
    }
}
