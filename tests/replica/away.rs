//! A coordinator some of whose peers are gone, or late: what it keeps for them, what it refuses at once,
//! and when it asks somebody else.

use std::time::Duration;

use ringdove::causality::{Actor, Content, Dot, Hlc, Object, Sibling, VersionVector};
use ringdove::ids::{Incarnation, NodeId, WriteId};
use ringdove::key::Key;
use ringdove::membership::Topology;
use ringdove::replica::{Input, Notice};
use ringdove::store::memory::MemoryStore;
use ringdove::store::{Store as _, StoredKey};
use ringdove::wire::messages::{
    Basis, BucketSettings, FailureCode, Get, Held, HeldObject, Level, Purpose, Put, Read, Request,
    Response, Stored, Write,
};

use crate::node::{self, ATTEMPT, ME, Node};

const THIRD: NodeId = NodeId(3);

/// One of three members that keeps so many bytes for each other; the third is gone.
fn beside_one_that_is_gone(hint_bytes: u64) -> Node {
    let change = |settings: &mut ringdove::replica::Settings| {
        settings.hint_bytes_by_owner = hint_bytes;
    };
    let mut node = Node::with(topology(3), MemoryStore::new(), Incarnation(7), change);
    node.handle(Input::Connected(NodeId(2)));
    node
}

fn topology(members: u128) -> Topology {
    node::topology(members, &[("default", BucketSettings::default())])
}

fn key(n: u32) -> Key {
    Key::new(b"default", n.to_string().as_bytes()).unwrap()
}

/// Peers answer all that they were asked: they have nothing, and take everything.
fn answer(node: &mut Node) {
    answer_but_for(node, None);
}

/// As [`answer`], while one of them is silent.
fn answer_but_for(node: &mut Node, silent: Option<NodeId>) {
    loop {
        let is_heard = |(to, ..): &mut (NodeId, u64, Request)| Some(*to) != silent;
        let asked: Vec<_> = node.sent.extract_if(.., is_heard).collect();
        if asked.is_empty() {
            break;
        }
        for (from, id, request) in asked {
            let response = match request {
                Request::Read(_) => {
                    Response::Held(Held { object: HeldObject::Missing, amnesiac: false })
                }
                Request::Write(_) => Response::Stored(Stored { fsynced: true }),
                other => panic!("nobody was to be asked {other:?}"),
            };
            node.handle(Input::Response { from, id, response });
        }
        node.commit(Ok(()));
    }
}

fn write(node: &mut Node, put: Put) -> Response {
    let asked = node.ask(Request::Put(put));
    node.commit(Ok(()));
    answer(node);
    node.answers[&asked].clone()
}

fn put(key: Key, write_id: u128, value: &'static str) -> Put {
    Put { strict: false, ..node::put(key, write_id, Basis::Observed, value) }
}

#[test]
fn what_is_missed_is_kept_until_the_bound_and_then_let_go_counted_and_marked() {
    let mut node = beside_one_that_is_gone(400);
    for n in 0..40 {
        let done = write(&mut node, put(key(n), u128::from(n), "value"));
        assert!(matches!(done, Response::Done(_)), "{done:?}");
    }
    let (kept, counters) = (node.shard.hints()[&THIRD], node.shard.counters());
    assert!(kept.count > 0 && kept.bytes <= 400, "{kept:?}");
    assert_eq!((counters.hints_kept, counters.hints_dropped), (kept.count, 40 - kept.count));
    assert!(kept.dirty_partitions > 0 && kept.dirty_partitions <= 40 - kept.count, "{kept:?}");
    assert_eq!(node.store.hints(THIRD, None, usize::MAX).unwrap().len() as u64, kept.count);
}

#[test]
fn a_hint_that_grew_while_it_was_delivered_stays() {
    let mut node = beside_one_that_is_gone(1 << 20);
    write(&mut node, put(key(0), 1, "old"));
    let digest = |node: &Node| node.store.hints(THIRD, None, usize::MAX).unwrap()[0].record.clone();
    let old = digest(&node);
    node.handle(Input::Connected(THIRD));
    let delivery = replay(&mut node);
    // The key is written anew, and the third says nothing: what is kept for it is newer now.
    node.ask(Request::Put(put(key(0), 2, "new")));
    for _ in 0..5 {
        answer_but_for(&mut node, Some(THIRD));
        node.wait(ATTEMPT);
        node.commit(Ok(()));
    }
    assert_ne!(digest(&node), old);
    take(&mut node, delivery);
    assert_eq!(node.shard.hints()[&THIRD].count, 1, "the newer one was not delivered");
    // There is nothing behind it, so the queue begins anew.
    assert_eq!(node.lists.pop(), Some(THIRD));
    node.handle(Input::Hints { owner: THIRD, result: Ok(Vec::new()) });
    node.sent.clear();
    node.wait(Duration::from_secs(1));
    let delivery = replay(&mut node);
    take(&mut node, delivery);
    assert!(!node.shard.hints().contains_key(&THIRD));
}

/// Shows the node what it keeps for the third; returns the number under which that went out.
fn replay(node: &mut Node) -> u64 {
    assert_eq!(node.lists.pop(), Some(THIRD));
    let result = node.store.hints(THIRD, None, usize::MAX);
    node.handle(Input::Hints { owner: THIRD, result });
    let (to, id, request) = node.sent.pop().unwrap();
    assert!(to == THIRD && matches!(request, Request::Write(_)), "{request:?}");
    id
}

/// The third has it.
fn take(node: &mut Node, id: u64) {
    let response = Response::Stored(Stored { fsynced: true });
    node.handle(Input::Response { from: THIRD, id, response });
    node.commit(Ok(()));
}

#[test]
fn what_asks_for_owners_that_are_gone_is_refused_at_once() {
    let topology = topology(5);
    let owners =
        |key: &Key| topology.participants(topology.partition(key), topology.home("default"));
    let own = (0..50).map(key).find(|key| owners(key).contains(&ME)).unwrap();
    let foreign = (0..50).map(key).find(|key| !owners(key).contains(&ME)).unwrap();
    let without_owners = |key: &Key| {
        let mut node = Node::new(self::topology(5), MemoryStore::new(), Incarnation(7));
        let gone = owners(key);
        (2..=5).map(NodeId).filter(|id| !gone.contains(id)).for_each(|id| {
            node.handle(Input::Connected(id));
        });
        node
    };
    let two = Level::Count(2);
    let writes = |key: &Key| {
        let put = || put(key.clone(), 1, "value");
        [Put { strict: true, w: two, ..put() }, Put { pw: two, ..put() }].map(Request::Put)
    };
    let reads = |key: &Key| {
        let (r, pr) = (Level::Default, Level::Default);
        let get = || Get { key: key.clone(), r, pr, budget_ms: 0, strict: false, trace: false };
        [Get { strict: true, r: two, ..get() }, Get { pr: two, ..get() }].map(Request::Get)
    };
    for (key, says) in [(&own, "1 of 3 primaries"), (&foreign, "0 of 3 primaries")] {
        let mut node = without_owners(key);
        let strict = &writes(key)[0];
        let requests = match key == &own {
            true => writes(key).into_iter().chain(reads(key)).collect::<Vec<_>>(),
            false => vec![strict.clone()],
        };
        for request in requests {
            let asked = node.ask(request.clone());
            let Some(Response::Failed(failure)) = node.answers.get(&asked) else {
                panic!("{request:?}: {:?}", node.answers.get(&asked))
            };
            assert_eq!(failure.code, FailureCode::Unavailable, "{request:?}");
            assert!(failure.message.starts_with(says), "{request:?}: {}", failure.message);
            let is_read = |request: &Request| matches!(request, Request::Read(_));
            assert!(node.sent.iter().all(|(.., sent)| is_read(sent)), "{:?}", node.sent);
            node.sent.clear();
        }
        // Whoever asks for nobody in particular is served by others.
        let done = write(&mut node, put(key.clone(), 2, "value"));
        assert!(matches!(done, Response::Done(_)), "{done:?}");
    }
}

/// The disk of an owner has lost the deletion, and that all had agreed to forget it.
#[test]
fn what_was_forgotten_is_not_shown_by_who_remembers_it() {
    let actor = Actor { incarnation: Incarnation(9), k: 0 };
    let old = |counter| {
        let sibling = Sibling {
            dot: Dot { actor, counter },
            write_id: WriteId(counter.into()),
            hlc: Hlc(counter),
            after: Hlc::default(),
            expires_at: None,
            content: Content::Value("old".into()),
        };
        let mut object = Object::new();
        object.write(&VersionVector::new(), sibling);
        object
    };
    for (counter, shown) in [(1, 0), (2, 1)] {
        let mut node = Node::new(topology(3), MemoryStore::new(), Incarnation(7));
        (2..=3).for_each(|peer| node.handle(Input::Connected(NodeId(peer))));
        // The first write is forgotten; the second came later.
        let partition = topology(3).partition(&key(0));
        let grave = [&[1][..], &old(1).remains().encode()].concat();
        node.handle(Input::GraveFound {
            key: StoredKey::new(partition, &key(0)),
            bytes: grave.into(),
        });
        let (r, pr) = (Level::Count(2), Level::Default);
        let get = Get { key: key(0), r, pr, budget_ms: 0, strict: false, trace: false };
        let asked = node.ask(Request::Get(get));
        let (from, id, _) = node.sent.remove(0);
        let object = HeldObject::Full(old(counter).encode());
        let response = Response::Held(Held { object, amnesiac: false });
        node.handle(Input::Response { from, id, response });
        let Response::Got(got) = &node.answers[&asked] else { panic!("{:?}", node.answers) };
        assert_eq!(got.values.len(), shown, "write {counter}");
        // And it is mended and told all the same.
        node.commit(Ok(()));
        let risen = |notice: &Notice| matches!(notice, Notice::Risen { .. });
        assert_eq!(node.notices.iter().any(risen), shown == 0, "{:?}", node.notices);
    }
}

#[test]
fn a_read_asks_another_once_the_first_is_later_than_it_usually_is() {
    let mut node = Node::new(topology(3), MemoryStore::new(), Incarnation(7));
    (2..=3).for_each(|peer| node.handle(Input::Connected(NodeId(peer))));
    let (r, pr) = (Level::Count(2), Level::Default);
    let get = || Get { key: key(0), r, pr, budget_ms: 0, strict: false, trace: false };
    for _ in 0..200 {
        node.ask(Request::Get(get()));
        node.now.instant = node.now.instant + Duration::from_millis(2);
        answer(&mut node);
    }
    let asked = node.ask(Request::Get(get()));
    let [(first, ..)] = node.sent[..] else { panic!("{:?}", node.sent) };
    let mut waited = Duration::ZERO;
    while node.sent.len() == 1 && waited < ATTEMPT {
        waited += Duration::from_millis(1);
        node.wait(Duration::from_millis(1));
    }
    println!("another one is asked after {waited:?}");
    assert!(
        waited >= Duration::from_millis(2) && waited <= Duration::from_millis(20),
        "{waited:?}"
    );
    assert_ne!(node.sent[1].0, first);
    assert_eq!(node.shard.counters().early_hedges, 1);
    node.sent.remove(0);
    answer(&mut node);
    assert!(matches!(node.answers[&asked], Response::Got(_)));
}

#[test]
fn an_answer_counts_for_what_was_asked_however_many_other_requests_went_out_meanwhile() {
    let mut node = beside_one_that_is_gone(1 << 20);
    write(&mut node, put(key(0), 1, "value"));
    node.handle(Input::Connected(THIRD));
    let first = replay(&mut node);
    // Another's answer is none.
    let response = Response::Stored(Stored { fsynced: true });
    node.handle(Input::Response { from: NodeId(2), id: first, response });
    node.commit(Ok(()));
    assert_eq!(node.shard.hints()[&THIRD].count, 1);
    // The numbers of a shard's requests repeat after so many.
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..=1 << 16 {
        let (r, pr) = (Level::Count(2), Level::Default);
        node.ask(Request::Get(Get {
            key: key(n),
            r,
            pr,
            budget_ms: 0,
            strict: true,
            trace: false,
        }));
        seen.extend(node.sent.iter().map(|(_, id, _)| *id));
        answer(&mut node);
    }
    assert!(seen.len() > 1 << 16 && !seen.contains(&first));
    take(&mut node, first);
    assert!(!node.shard.hints().contains_key(&THIRD));
}

#[test]
fn what_was_kept_is_given_back_at_a_pace() {
    // A 16th of it at first: ten hints a second, each counted as 1 KiB.
    let change = |settings: &mut ringdove::replica::Settings| settings.hint_rate = 160 << 10;
    let mut node = Node::with(topology(3), MemoryStore::new(), Incarnation(7), change);
    node.handle(Input::Connected(NodeId(2)));
    for n in 0..30 {
        write(&mut node, put(key(n), n.into(), "value"));
    }
    assert_eq!(node.shard.hints()[&THIRD].count, 30);
    node.handle(Input::Connected(THIRD));
    assert_eq!(node.lists.pop(), Some(THIRD));
    let result = node.store.hints(THIRD, None, usize::MAX);
    node.handle(Input::Hints { owner: THIRD, result });
    assert_eq!(node.sent.len(), 1, "no more than a burst at once");
    for _ in 0..100 {
        node.wait(Duration::from_millis(10));
    }
    assert!((9..=13).contains(&node.sent.len()), "{} in a second", node.sent.len());
    while let Some((_, id, _)) = node.sent.pop() {
        take(&mut node, id);
    }
    // Gone again, with some of it listed: nobody looks for it more often than a timer's pause.
    node.handle(Input::Disconnected(THIRD));
    node.wait(Duration::from_secs(1));
    node.wait(Duration::from_secs(1));
    let next = node.shard.next_deadline().expect("it looks for what may be lost");
    assert!(next - node.now.instant > Duration::from_millis(50), "{:?}", next - node.now.instant);
}

#[test]
fn hints_that_nobody_can_take_are_read_again_when_somebody_is_back_and_seldom_before() {
    let mut node = beside_one_that_is_gone(1 << 20);
    // For one who is no member any more: it belongs to all owners, of whom the third is away.
    let (object, purpose) = (node::object(1, "value").encode(), Purpose::Hint(NodeId(9)));
    let hint = Write { key: key(0), object, purpose, slots: 0, budget_ms: 0 };
    node.ask_for(NodeId(2), Request::Write(hint));
    node.commit(Ok(()));
    let rounds = |node: &mut Node, time: Duration| {
        let mut rounds = 0;
        for _ in 0..time.as_millis() / 50 {
            while let Some(owner) = node.lists.pop() {
                let after = (rounds % 2 == 1)
                    .then(|| node.store.hints(owner, None, 1).unwrap().pop().unwrap().key);
                let result = node.store.hints(owner, after.as_ref(), usize::MAX);
                node.handle(Input::Hints { owner, result });
                rounds += 1;
            }
            node.wait(Duration::from_millis(50));
            node.commit(Ok(()));
        }
        rounds / 2
    };
    let in_vain = rounds(&mut node, Duration::from_secs(20));
    assert!((1..=6).contains(&in_vain), "{in_vain} rounds in 20 s");
    node.handle(Input::Connected(THIRD));
    rounds(&mut node, Duration::from_millis(200));
    let given = node.sent.iter().any(|(to, _, request)| {
        *to != ME && matches!(request, Request::Write(write) if write.purpose == Purpose::Handoff)
    });
    assert!(given, "{:?}", node.sent);
}

#[test]
fn what_waits_for_a_slow_disk_is_bounded_and_the_rest_is_told_to_come_again() {
    let mut node = Node::with(topology(3), MemoryStore::new(), Incarnation(7), |settings| {
        settings.max_in_flight = 5;
    });
    node.handle(Input::Connected(NodeId(2)));
    node.holds_loads = true;
    let read = |node: &mut Node, n| {
        let read = Read { key: key(n), digest: false, fallback: false, slots: 0, budget_ms: 0 };
        node.ask_for(NodeId(2), Request::Read(read))
    };
    let asked: Vec<u64> = (0..100).map(|n| read(&mut node, n)).collect();
    let busy = |node: &Node, asked: &u64| match node.answers.get(asked) {
        Some(Response::Failed(failure)) => failure.code == FailureCode::Busy,
        other => panic!("{other:?}"),
    };
    let (waiting, refused): (Vec<u64>, Vec<u64>) =
        asked.into_iter().partition(|asked| !node.answers.contains_key(asked));
    assert_eq!((waiting.len(), refused.len()), (20, 80));
    assert!(refused.iter().all(|asked| busy(&node, asked)));
    node.load();
    assert!(waiting.iter().all(|asked| node.answers.contains_key(asked)));
    let again = read(&mut node, 200);
    node.load();
    assert!(!matches!(node.answers[&again], Response::Failed(_)), "{:?}", node.answers[&again]);
}
