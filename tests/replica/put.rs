//! Writes of a cluster of one: what a put promises, and what it refuses.

use bytes::Bytes;
use ringdove::causality::{Actor, Content, Context, Dot, Hlc, Object, Sibling, VersionVector};
use ringdove::ids::{Incarnation, WriteId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::replica::Notice;
use ringdove::store::StoreError;
use ringdove::store::memory::MemoryStore;
use ringdove::time::WallMs;
use ringdove::wire::messages::{
    Basis, BucketSettings, Condition, Conflicts, Done, Expiry, Failure, FailureCode, Get, Got,
    Level, Outcome, Purpose, Put, Request, Response, Write,
};

use crate::node::{self, FIRST_ACTOR, Node, SIBLINGS, WALL};

const LIFE: Incarnation = Incarnation(77);

/// The bucket `default` keeps siblings, the bucket `latest` the latest.
fn node() -> Node {
    node_with(MemoryStore::new(), LIFE)
}

fn node_with(disk: MemoryStore, incarnation: Incarnation) -> Node {
    let bucket = |conflicts| BucketSettings { n: 1, conflicts, ..BucketSettings::default() };
    let buckets =
        [("default", bucket(Conflicts::Siblings)), ("latest", bucket(Conflicts::LastWriteWins))];
    Node::new(node::topology(1, &buckets), disk, incarnation)
}

impl Node {
    fn answer(&mut self, request: Request) -> Response {
        let asked = self.ask(request);
        self.commit(Ok(()));
        assert!(self.sent.is_empty(), "a cluster of one does not ask {:?}", self.sent);
        self.answers.remove(&asked).expect("an answer")
    }

    fn put(&mut self, put: Put) -> Done {
        match self.answer(Request::Put(put)) {
            Response::Done(done) => done,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, put: Put) -> Failure {
        match self.answer(Request::Put(put)) {
            Response::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, key: &Key) -> Got {
        let (r, pr) = (Level::Default, Level::Default);
        let get = Get { key: key.clone(), r, pr, budget_ms: 0, strict: true, trace: false };
        match self.answer(Request::Get(get)) {
            Response::Got(got) => got,
            other => panic!("{other:?}"),
        }
    }

    /// The values of a key, in order.
    fn values(&mut self, key: &Key) -> Vec<String> {
        let text = |data: &Bytes| String::from_utf8(data.to_vec()).unwrap();
        let mut values: Vec<String> =
            self.get(key).values.iter().map(|value| text(&value.data)).collect();
        values.sort();
        values
    }

    fn dot_of(&mut self, key: &Key, value: &str) -> Dot {
        let got = self.get(key);
        got.values.iter().find(|held| held.data == value).expect("the value").dot
    }

    /// A replica elsewhere sends what it holds.
    fn merge(&mut self, key: &Key, sibling: Sibling) -> u64 {
        let mut object = Object::new();
        object.write(&VersionVector::new(), sibling);
        self.merge_object(key, &object)
    }

    fn merge_object(&mut self, key: &Key, object: &Object) -> u64 {
        let (key, purpose) = (key.clone(), Purpose::Replicate);
        self.ask(Request::Write(Write {
            key,
            object: object.encode(),
            purpose,
            slots: 0,
            budget_ms: 0,
        }))
    }
}

fn key() -> Key {
    Key::new(b"default", b"cart").unwrap()
}

fn put(write_id: u128, basis: Basis, value: &'static str) -> Put {
    node::put(key(), write_id, basis, value)
}

fn with(context: &Bytes) -> Basis {
    Basis::Context(context.clone())
}

fn sibling(actor: Actor, counter: u64, value: &'static str) -> Sibling {
    Sibling {
        dot: Dot { actor, counter },
        write_id: WriteId(u128::from(counter) << 64),
        hlc: Hlc(WALL << 16),
        after: Hlc::default(),
        expires_at: None,
        content: Content::Value(Bytes::from_static(value.as_bytes())),
    }
}

fn elsewhere() -> Actor {
    Actor { incarnation: Incarnation(5), k: 1 }
}

fn forged(clock: VersionVector) -> Basis {
    Basis::Context(Context { clock, ..Context::default() }.token(&key()))
}

fn holding(dots: impl IntoIterator<Item = Dot>) -> VersionVector {
    let mut clock = VersionVector::new();
    dots.into_iter().for_each(|dot| clock.insert(dot));
    clock
}

#[test]
fn a_put_s_context_replaces_that_put_only() {
    let mut node = node();
    node.put(put(1, Basis::Blind, "first"));
    let second = node.put(put(2, Basis::Blind, "second"));
    let third = node.put(put(3, with(&second.context), "third"));
    assert_eq!(node.values(&key()), ["first", "third"], "nobody who wrote had seen the first");
    node.put(put(4, with(&third.context), "fourth"));
    assert_eq!(node.values(&key()), ["first", "fourth"]);
    let read = node.get(&key());
    node.put(put(5, with(&read.context), "merged"));
    assert_eq!(node.values(&key()), ["merged"]);
}

#[test]
fn a_put_s_context_also_holds_what_the_put_was_built_on() {
    let mut node = node();
    let first = node.put(put(1, Basis::Blind, "first"));
    let first_dot = node.dot_of(&key(), "first");
    node.put(put(2, Basis::Blind, "beside"));
    let second = node.put(put(3, with(&first.context), "second"));
    let second_dot = node.dot_of(&key(), "second");
    let seen = Context::parse(&key(), &second.context).unwrap();
    assert_eq!(seen.clock, holding([first_dot, second_dot]));
    let observed = node.put(put(4, Basis::Observed, "all"));
    let got = node.get(&key());
    assert_eq!(observed.context, got.context, "it replaced all there was");
}

#[test]
fn a_client_that_never_reads_keeps_a_short_context() {
    let mut node = node();
    node.put(put(1, Basis::Blind, "beside"));
    let mut context = node.put(put(2, Basis::Blind, "mine")).context;
    for n in 3..1000 {
        context = node.put(put(n, with(&context), "mine")).context;
    }
    assert_eq!(Context::parse(&key(), &context).unwrap().clock.len(), 1);
    assert_eq!(node.values(&key()), ["beside", "mine"]);
}

#[test]
fn create_only_creates_once_and_its_refusal_gives_no_context() {
    let create =
        |id, value| Put { condition: Condition::Absent, ..put(id, Basis::Observed, value) };
    let mut node = node();
    let done = node.put(create(1, "first"));
    let failure = node.refused(create(2, "second"));
    assert_eq!((failure.code, failure.outcome), (FailureCode::Exists, Outcome::NotApplied));
    assert!(failure.context.is_empty(), "whoever was refused has not seen the value");
    assert_eq!(node.values(&key()), ["first"]);

    node.put(Put { value: None, ..put(3, with(&done.context), "") });
    node.put(create(4, "anew"));
    assert_eq!(node.values(&key()), ["anew"], "a tombstone is no value");
    let absent = Key::new(b"default", b"absent").unwrap();
    let replace = Put { condition: Condition::Present, ..put(5, Basis::Observed, "x") };
    let failure = node.refused(Put { key: absent, ..replace });
    assert_eq!((failure.code, failure.context), (FailureCode::Absent, Bytes::new()));
}

#[test]
fn a_write_of_what_was_read_is_refused_once_somebody_has_written_since() {
    let again = |id, basis| Put {
        condition: Condition::Unchanged,
        expiry: Expiry::At(WallMs(WALL + 60_000)),
        ..put(id, basis, "first")
    };
    let mut node = node();
    node.put(put(1, Basis::Blind, "first"));
    let read = node.get(&key());
    node.put(again(2, with(&read.context)));
    assert_eq!(node.get(&key()).values[0].expires_at, Some(WallMs(WALL + 60_000)));
    let read = node.get(&key());
    node.put(put(3, Basis::Observed, "second"));
    let failure = node.refused(again(4, with(&read.context)));
    assert_eq!((failure.code, failure.outcome), (FailureCode::Exists, Outcome::NotApplied));
    assert_eq!(node.values(&key()), ["second"], "what was replaced is not brought back");
}

#[test]
fn a_write_says_when_its_value_expires_or_leaves_it_to_the_bucket() {
    let mut node = node();
    let expiries = [
        (Expiry::Bucket, None),
        (Expiry::Never, None),
        (Expiry::After(5), Some(WallMs(WALL + 5))),
        (Expiry::At(WallMs(WALL + 7)), Some(WallMs(WALL + 7))),
    ];
    for (id, (expiry, expected)) in (1..).zip(expiries) {
        node.put(Put { expiry, ..put(id, Basis::Observed, "v") });
        assert_eq!(node.get(&key()).values[0].expires_at, expected, "{expiry:?}");
    }
    node.put(Put { expiry: Expiry::At(WallMs(WALL - 1)), ..put(9, Basis::Observed, "v") });
    assert!(node.get(&key()).values.is_empty(), "what is past is not shown");
}

#[test]
fn past_the_cap_only_writes_that_merge_are_taken() {
    let mut node = node();
    let mut last = Bytes::new();
    for id in 1..=SIBLINGS {
        last = node.put(put(id as u128, Basis::Blind, "v")).context;
    }
    let failure = node.refused(put(9, Basis::Blind, "more"));
    assert_eq!((failure.code, failure.outcome), (FailureCode::Siblings, Outcome::NotApplied));
    let got = node.get(&key());
    assert_eq!(failure.context, got.context);
    node.put(put(10, with(&last), "instead of one"));
    assert_eq!(node.get(&key()).values.len(), SIBLINGS);
    let got = node.get(&key());
    node.put(put(11, with(&got.context), "merged"));
    assert_eq!(node.values(&key()), ["merged"]);
}

#[test]
fn a_repeated_write_makes_no_second_sibling() {
    let mut node = node();
    let first = node.put(put(1, Basis::Blind, "first"));
    node.put(put(2, Basis::Blind, "beside"));
    for attempt in 0..3 {
        let again = node.put(Put { attempt, ..put(1, Basis::Blind, "first") });
        assert_eq!(again.context, first.context, "the same answer, without what came beside it");
    }
    assert_eq!(node.values(&key()), ["beside", "first"]);
    assert_eq!(node.shard.counters().repeated_writes, 3);
}

#[test]
fn a_repeated_write_does_not_bring_back_what_was_overwritten_since() {
    let mut node = node();
    let first = node.put(put(1, Basis::Blind, "first"));
    let second = node.put(put(2, with(&first.context), "second"));
    let again = node.put(put(1, Basis::Blind, "first"));
    assert_eq!(again.context, Context::default().token(&key()), "it has seen nothing");
    let again = node.put(put(2, with(&first.context), "second"));
    assert_eq!(again.context, second.context);
    node.put(put(3, with(&second.context), "third"));
    let again = node.put(put(2, with(&first.context), "second"));
    assert_eq!(again.context, first.context, "what it came with");
    assert_eq!(node.values(&key()), ["third"]);
}

#[test]
fn a_delete_with_a_context_keeps_what_was_written_beside() {
    let mut node = node();
    let first = node.put(put(1, Basis::Blind, "first"));
    node.put(put(2, Basis::Blind, "beside"));
    node.put(Put { value: None, ..put(3, with(&first.context), "") });
    assert_eq!(node.values(&key()), ["beside"]);
    node.put(Put { value: None, ..put(4, Basis::Blind, "") });
    let got = node.get(&key());
    assert!(got.values.is_empty() && got.deleted, "a blind delete takes what is there");
}

#[test]
fn nothing_is_acknowledged_before_it_is_committed() {
    let mut node = node();
    let write = node.ask(Request::Put(put(1, Basis::Blind, "mine")));
    let merge = node.merge(&key(), sibling(elsewhere(), 1, "theirs"));
    let repeated = node.ask(Request::Put(put(1, Basis::Blind, "mine")));
    let merged_again = node.merge(&key(), sibling(elsewhere(), 1, "theirs"));
    assert!(node.answers.is_empty(), "{:?}", node.answers);
    node.commit(Ok(()));
    for asked in [write, repeated] {
        assert!(matches!(node.answers[&asked], Response::Done(_)));
    }
    for asked in [merge, merged_again] {
        assert!(matches!(node.answers[&asked], Response::Stored(_)));
    }
    assert_eq!(node.values(&key()), ["mine", "theirs"]);
}

#[test]
fn a_failed_commit_ends_the_actor() {
    let mut node = node();
    node.put(put(1, Basis::Blind, "kept"));
    let kept = node.dot_of(&key(), "kept");
    let lost = node.ask(Request::Put(put(2, Basis::Blind, "lost")));
    node.commit(Err(StoreError::Full("no space".to_owned())));
    let Some(Response::Failed(failure)) = node.answers.remove(&lost) else { panic!("refused") };
    assert_eq!(failure.outcome, Outcome::Unknown, "a peer could have it");

    assert_eq!(node.values(&key()), ["kept"]);
    node.put(put(3, Basis::Blind, "next"));
    let next = node.dot_of(&key(), "next");
    assert_eq!((next.actor.incarnation, next.counter), (LIFE, 1));
    assert_ne!(next.actor, kept.actor, "its second dot may stand on a peer");
    assert_eq!(node.values(&key()), ["kept", "next"]);
}

#[test]
fn a_write_whose_commit_failed_is_done_again_when_it_is_repeated() {
    let mut node = node();
    let first = node.ask(Request::Put(put(1, Basis::Blind, "first")));
    node.commit(Err(StoreError::Full("no space".to_owned())));
    assert!(matches!(node.answers[&first], Response::Failed(_)));
    node.put(Put { attempt: 1, ..put(1, Basis::Blind, "first") });
    assert_eq!(node.values(&key()), ["first"], "acknowledged, so it must be there");
}

#[test]
fn a_new_incarnation_does_not_go_on_counting() {
    let mut before = node();
    before.put(put(1, Basis::Blind, "before"));
    let old = before.dot_of(&key(), "before");
    let mut after = node_with(before.store, Incarnation(78));
    after.put(put(2, Basis::Blind, "after"));
    let new = after.dot_of(&key(), "after");
    assert_eq!((new.actor.incarnation, new.counter), (Incarnation(78), 1));
    assert_eq!((old.actor.incarnation, old.counter), (LIFE, 1));
    assert_eq!(after.values(&key()), ["after", "before"]);

    let mut same = node_with(after.store, Incarnation(78));
    same.put(put(3, Basis::Blind, "same"));
    assert_eq!(same.dot_of(&key(), "same"), Dot { counter: 2, ..new }, "a clean restart does");
}

#[test]
fn a_replica_that_is_shown_more_of_its_actor_than_it_knows_becomes_another() {
    let mut node = node();
    node.put(put(1, Basis::Blind, "known"));
    let known = node.dot_of(&key(), "known");
    // The dots between are known to nobody here: only the highest gives it away.
    node.merge(&key(), sibling(known.actor, 5, "forgotten"));
    node.commit(Ok(()));
    assert!(matches!(&node.notices[..], [Notice::Amnesia { .. }]), "{:?}", node.notices);
    node.put(put(2, Basis::Blind, "new"));
    let new = node.dot_of(&key(), "new");
    assert_eq!(new.counter, 1);
    assert_ne!(new.actor, known.actor);
    assert_eq!(node.values(&key()), ["forgotten", "known", "new"]);
}

#[test]
fn amnesia_that_a_refused_write_has_shown_is_remembered() {
    let mut node = node();
    for id in 1..=SIBLINGS {
        node.put(put(id as u128, Basis::Blind, "v"));
    }
    let actor = node.dot_of(&key(), "v").actor;
    let failure = node.refused(put(9, forged(holding([Dot { actor, counter: 9 }])), "refused"));
    assert_eq!(failure.code, FailureCode::Siblings);
    let got = node.get(&key());
    node.put(put(10, with(&got.context), "merged"));
    assert_ne!(node.dot_of(&key(), "merged").actor, actor);
    assert_eq!(node.shard.counters().amnesia, 1);
}

#[test]
fn a_context_that_names_the_next_actor_does_not_swallow_its_dots() {
    let mut node = node();
    let actor = |k| Actor { incarnation: LIFE, k };
    let invented = [FIRST_ACTOR, FIRST_ACTOR + 1].map(|k| Dot { actor: actor(k), counter: 1 });
    node.put(put(1, forged(holding(invented)), "first"));
    let first = Dot { actor: actor(FIRST_ACTOR + 2), counter: 1 };
    assert_eq!(node.dot_of(&key(), "first"), first);
    node.put(put(2, Basis::Blind, "second"));
    assert_eq!(node.dot_of(&key(), "second"), Dot { counter: 2, ..first });
}

#[test]
fn a_context_cannot_grow_the_clock_without_end() {
    let mut node = node();
    let invented = |count: usize| {
        let actor = |n| Actor { incarnation: Incarnation(n as u64), k: 1 };
        holding((0..count).map(|n| Dot { actor: actor(n), counter: 1 }))
    };
    let most = limits::CLOCK_ENTRIES_REFUSE;
    let failure = node.refused(put(1, forged(invented(most + 1)), "refused"));
    assert_eq!((failure.code, failure.outcome), (FailureCode::BadContext, Outcome::NotApplied));
    assert!(node.values(&key()).is_empty());
    let done = node.put(put(2, forged(invented(most)), "taken"));
    // The key's own dot made it one longer. That is no reason to refuse who adds nothing.
    node.put(put(3, with(&done.context), "next"));
    node.put(put(4, Basis::Blind, "beside"));
    assert_eq!(node.values(&key()), ["beside", "next"]);
}

#[test]
fn a_copy_dies_by_its_name_unless_its_writer_was_shown_something_as_young() {
    for younger in [0, 1] {
        let mut node = node();
        let first = node.put(put(1, Basis::Blind, "first"));
        let shown = node.get(&key()).values[0].hlc;
        node.put(put(2, with(&first.context), "twice"));
        assert_eq!(node.values(&key()), ["twice"]);

        // Elsewhere somebody was shown another copy of the second write, and replaced it.
        let mut copy = Object::new();
        let hlc = Hlc(shown.0 + younger);
        let write_id = WriteId(2);
        copy.write(
            &VersionVector::new(),
            Sibling { hlc, write_id, ..sibling(elsewhere(), 1, "twice") },
        );
        let context = Context::of(&copy);
        copy.overwrite(&context.names, WriteId(3));
        copy.write(&context.clock, Sibling { after: hlc, ..sibling(elsewhere(), 2, "instead") });
        node.merge_object(&key(), &copy);
        node.commit(Ok(()));
        let values = node.values(&key());
        assert_eq!(values.contains(&"twice".to_owned()), younger == 0, "{values:?}");
        assert!(values.contains(&"instead".to_owned()), "{values:?}");
    }
}

#[test]
fn where_the_latest_wins_a_write_is_dated_after_all_it_replaces() {
    let mut node = node();
    let key = Key::new(b"latest", b"cart").unwrap();
    let latest = |id, basis, value| Put { key: key.clone(), ..put(id, basis, value) };
    node.put(latest(1, Basis::Blind, "first"));
    node.put(latest(2, Basis::Blind, "second"));
    assert_eq!(node.values(&key), ["second"]);

    // An hour ahead, by the clock of another node: too far for this one's clock to follow.
    let ahead = Hlc((WALL + 3_600_000) << 16);
    node.merge(&key, Sibling { hlc: ahead, ..sibling(elsewhere(), 1, "ahead") });
    node.commit(Ok(()));
    assert_eq!(node.values(&key), ["ahead"]);
    let done = node.put(latest(3, Basis::Observed, "after"));
    assert_eq!(node.values(&key), ["after"]);
    assert_eq!(node.get(&key).values[0].hlc, Hlc(ahead.0 + 1));
    assert_eq!(done.context, node.get(&key).context);

    // A context shows something later that has not arrived here: it must not win when it does.
    let later = Hlc((WALL + 7_200_000) << 16);
    let context = Context { hlc: later, ..Context::default() }.token(&key);
    node.put(latest(4, with(&context), "last"));
    node.merge(&key, Sibling { hlc: later, ..sibling(elsewhere(), 2, "late to arrive") });
    node.commit(Ok(()));
    assert_eq!(node.values(&key), ["last"]);
}
