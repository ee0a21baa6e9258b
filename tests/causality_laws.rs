//! The laws of `causality`, through its public API.
//!
//! First an enumeration. A plain model keeps, for every write, the explicit set of writes it had
//! seen, and for every replica the explicit set of writes it has heard of; a write is alive where
//! no write that was heard of had seen it. Every schedule up to a depth is run on the model and on
//! real objects side by side, and after each step both must know and hold the same. A write brings
//! the context of the last read, or of the last write, or none. Then the laws of merging, over
//! pairs and triples of all objects the enumeration met, and hostile input.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use ringdove::causality::{Actor, Content, Context, Dot, Hlc, Object, Sibling, VersionVector};
use ringdove::codec::{CodecError, Reader, Write as _};
use ringdove::ids::{Incarnation, WriteId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::random::Random;
use ringdove::time::WallMs;

/// A set of writes, a bit for each: the `n`-th write of replica `i` is bit `8 i + n`.
type Writes = u32;

const MOST_REPLICAS: usize = 3;
const MOST_WRITES: u32 = 8;

/// Everything there is in a small system: one key, some replicas, two clients with a context. The
/// reader writes with what it read. The writer never reads: it writes with what a write answered.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    /// For each write, the writes it had seen. The history, not a summary of it.
    seen_by: [Writes; 32],
    /// For each write, when it happened.
    time: [u8; 32],
    written: Writes,
    /// For each replica, the writes it has heard of.
    known: [Writes; MOST_REPLICAS],
    /// For each client, what it has seen: a read saw all that the replica knew; a write has seen
    /// what it built on, and itself.
    seen: [Writes; 2],
}

const READER: usize = 0;
const WRITER: usize = 1;

#[derive(Clone)]
struct World {
    model: Model,
    objects: Vec<Object>,
    contexts: [Context; 2],
}

/// What an enumeration covers.
#[derive(Clone, Copy)]
struct Scope {
    replicas: usize,
    depth: usize,
    /// Off where deletes would only double the number of worlds.
    deletes: bool,
    last_write_wins: bool,
    /// The planted bug: a write is answered with the whole clock of the object it went into.
    answers_whole_clock: bool,
}

const KEEP_ALL: Scope = Scope {
    replicas: 2,
    depth: 6,
    deletes: false,
    last_write_wins: false,
    answers_whole_clock: false,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Read {
        replica: usize,
    },
    /// Without a client the write is blind.
    Write {
        replica: usize,
        client: Option<usize>,
        delete: bool,
    },
    Merge {
        from: usize,
        to: usize,
    },
}

fn writes(set: Writes) -> impl Iterator<Item = u32> {
    (0..32).filter(move |bit| set & (1 << bit) != 0)
}

fn actor(replica: usize) -> Actor {
    Actor { incarnation: Incarnation(replica as u64), k: 1 }
}

fn dot_of(bit: u32) -> Dot {
    Dot { actor: actor((bit / MOST_WRITES) as usize), counter: u64::from(bit % MOST_WRITES) + 1 }
}

fn all_dots() -> impl Iterator<Item = (u32, Dot)> {
    (0..MOST_REPLICAS as u32 * MOST_WRITES).map(|bit| (bit, dot_of(bit)))
}

impl Model {
    fn new() -> Self {
        Self {
            seen_by: [0; 32],
            time: [0; 32],
            written: 0,
            known: [0; MOST_REPLICAS],
            seen: [0; 2],
        }
    }

    /// The writes of `known` that none of `known` had seen.
    fn alive(&self, known: Writes) -> Writes {
        known & !writes(known).fold(0, |seen, write| seen | self.seen_by[write as usize])
    }

    /// The one of `known` that last-write-wins keeps.
    fn latest(&self, known: Writes) -> Writes {
        let latest = writes(known).max_by_key(|write| (self.time[*write as usize], *write));
        latest.map_or(0, |write| 1 << write)
    }
}

impl World {
    fn new(replicas: usize) -> Self {
        let objects = vec![Object::new(); replicas];
        Self { model: Model::new(), objects, contexts: Default::default() }
    }

    /// What can happen next.
    fn steps(&self, deletes: bool) -> Vec<Step> {
        let replicas = 0..self.objects.len();
        let mut steps = Vec::new();
        for replica in replicas.clone() {
            steps.push(Step::Read { replica });
            for client in [None, Some(READER), Some(WRITER)] {
                steps.push(Step::Write { replica, client, delete: false });
            }
            if deletes {
                steps.push(Step::Write { replica, client: Some(READER), delete: true });
            }
            for to in replicas.clone().filter(|to| *to != replica) {
                steps.push(Step::Merge { from: replica, to });
            }
        }
        steps
    }

    fn take(&mut self, step: Step, scope: Scope) {
        match step {
            Step::Read { replica } => {
                let object = &self.objects[replica];
                self.contexts[READER] = whole(object);
                self.model.seen[READER] = self.model.known[replica];
            }
            Step::Write { replica, client, delete } => {
                let seen = self.write(replica, client, delete);
                self.contexts[WRITER] = match scope.answers_whole_clock {
                    true => whole(&self.objects[replica]),
                    false => seen,
                };
            }
            Step::Merge { from, to } => {
                let other = self.objects[from].clone();
                let before = self.objects[to].clone();
                let merge = match scope.last_write_wins {
                    true => self.objects[to].merge_latest(&other).0,
                    false => self.objects[to].merge(&other),
                };
                assert_eq!(merge.collisions, [], "no dot is used twice here");
                assert_eq!(merge.changed, before != self.objects[to], "changed says the truth");
                self.model.known[to] |= self.model.known[from];
            }
        }
        if scope.last_write_wins {
            for object in &mut self.objects {
                object.keep_latest();
            }
        }
    }

    /// Writes, and returns the context that the write has seen, itself included.
    fn write(&mut self, replica: usize, client: Option<usize>, delete: bool) -> Context {
        let model = &mut self.model;
        let basis = client.map_or(0, |client| model.seen[client]);
        let context = client.map_or_else(Context::default, |client| self.contexts[client].clone());
        let own = replica as u32 * MOST_WRITES;
        let bit = (own..).find(|bit| model.written & (1 << bit) == 0).unwrap();
        assert!(bit < own + MOST_WRITES, "the depth is too great for the model");
        // Clocks that disagree: replica 1 is three ahead of the others.
        let skew = if replica == 1 { 3 } else { 0 };
        let time = (context.hlc.0 + 1).max(skew + 1);
        model.written |= 1 << bit;
        model.seen_by[bit as usize] = basis;
        model.time[bit as usize] = time as u8;
        model.known[replica] |= basis | (1 << bit);
        model.seen[WRITER] = basis | (1 << bit);

        let value = Bytes::from(format!("{basis:x}"));
        let sibling = Sibling {
            dot: dot_of(bit),
            // Differs between histories, so that objects of two histories collide.
            write_id: WriteId((u128::from(basis) << 64) | u128::from(bit)),
            hlc: Hlc(time),
            after: context.hlc,
            expires_at: None,
            content: if delete { Content::Tombstone } else { Content::Value(value) },
        };
        self.objects[replica].write(&context.clock, sibling);
        let mut seen = Context { clock: context.clock, hlc: Hlc(time), ..Context::default() };
        seen.clock.insert(dot_of(bit));
        seen
    }

    /// Compares objects and contexts with the model.
    fn check(&self, last_write_wins: bool) -> Result<(), String> {
        for (context, seen) in self.contexts.iter().zip(self.model.seen) {
            for (bit, dot) in all_dots() {
                if context.clock.contains(dot) != (seen & (1 << bit) != 0) {
                    return Err(format!("a context that is wrong about {dot}: {context:?}"));
                }
            }
        }
        self.check_objects(last_write_wins)
    }

    fn check_objects(&self, last_write_wins: bool) -> Result<(), String> {
        for (replica, object) in self.objects.iter().enumerate() {
            let known = self.model.known[replica];
            let expected = match last_write_wins {
                true => self.model.latest(known),
                false => self.model.alive(known),
            };
            let held: Vec<Dot> = object.siblings().iter().map(|sibling| sibling.dot).collect();
            let alive: Vec<Dot> = writes(expected).map(dot_of).collect();
            if held != alive {
                return Err(format!("replica {replica} holds {held:?}, alive are {alive:?}"));
            }
            for (bit, dot) in all_dots() {
                if object.clock().contains(dot) != (known & (1 << bit) != 0) {
                    return Err(format!("the clock of replica {replica} is wrong about {dot}"));
                }
            }
        }
        Ok(())
    }
}

fn whole(object: &Object) -> Context {
    Context::of(object)
}

/// Runs every schedule of the scope, each world once, and returns the objects met.
fn enumerate(scope: Scope) -> Vec<Object> {
    let check = |world: &World| world.check(scope.last_write_wins);
    run(scope, check).unwrap_or_else(|(error, history)| panic!("{error} after {history:?}"))
}

/// Runs every schedule of the scope until `check` finds something, and returns that with the
/// schedule: a shortest one.
fn run(
    scope: Scope,
    check: impl Fn(&World) -> Result<(), String>,
) -> Result<Vec<Object>, (String, Vec<Step>)> {
    let Scope { replicas, depth, deletes, .. } = scope;
    let mut met = BTreeSet::new();
    let mut objects = BTreeSet::new();
    let mut worlds = vec![(World::new(replicas), Vec::new())];
    for _ in 0..depth {
        let mut next = Vec::new();
        for (world, history) in worlds {
            for step in world.steps(deletes) {
                let mut after = world.clone();
                after.take(step, scope);
                let encoded: Vec<Bytes> = after.objects.iter().map(Object::encode).collect();
                let mut history: Vec<Step> = history.clone();
                history.push(step);
                if let Err(error) = check(&after) {
                    return Err((error, history));
                }
                if met.insert((after.model.clone(), encoded.clone())) {
                    objects.extend(encoded);
                    next.push((after, history));
                }
            }
        }
        worlds = next;
    }
    println!("{replicas} replicas, depth {depth}: {} worlds, {} objects", met.len(), objects.len());
    Ok(objects.into_iter().map(|bytes| Object::decode(bytes).unwrap()).collect())
}

fn merged(a: &Object, b: &Object) -> Object {
    let mut result = a.clone();
    result.merge(b);
    result
}

#[test]
fn two_replicas_agree_with_the_model_over_all_short_schedules() {
    enumerate(Scope { deletes: true, ..KEEP_ALL });
}

#[test]
fn three_replicas_agree_with_the_model_over_all_short_schedules() {
    enumerate(Scope { replicas: 3, ..KEEP_ALL });
}

#[test]
fn last_write_wins_keeps_the_latest_write_over_all_short_schedules() {
    enumerate(Scope { depth: 7, last_write_wins: true, ..KEEP_ALL });
    enumerate(Scope { replicas: 3, depth: 5, last_write_wins: true, ..KEEP_ALL });
}

#[test]
fn a_write_that_is_answered_with_the_whole_clock_loses_a_write_nobody_saw() {
    // The planted bug. Only the objects are compared: the loss itself must be found.
    let scope = Scope { replicas: 1, answers_whole_clock: true, ..KEEP_ALL };
    let (error, history) = run(scope, |world| world.check_objects(false)).unwrap_err();
    println!("{error} after {history:?}");
    // Two writes that did not see each other; the writer of the second then replaces both.
    assert_eq!(history.len(), 3, "{history:?}");
    assert!(history.iter().all(|step| matches!(step, Step::Write { .. })), "{history:?}");
    assert!(matches!(history[2], Step::Write { client: Some(WRITER), .. }), "{history:?}");
}

#[test]
fn merging_is_idempotent_commutative_and_associative_even_with_collisions() {
    // Objects of different histories use the same dots for different writes.
    let objects = enumerate(Scope { replicas: 3, depth: 4, deletes: true, ..KEEP_ALL });
    let mut collisions = 0;
    for a in &objects {
        assert_eq!(merged(a, a), *a);
        for b in &objects {
            let mut ab = a.clone();
            let merge = ab.merge(b);
            collisions += merge.collisions.len();
            assert_eq!(merge.changed, ab != *a);
            assert_eq!(ab, merged(b, a));
            assert_eq!(merged(&ab, b), ab, "what was merged brings nothing new");
            assert_eq!(Object::decode(ab.encode()).as_ref(), Ok(&ab));
        }
    }
    assert!(collisions > 1000, "the histories do collide");

    let mut random = Random::new(7);
    let mut pick = || &objects[random.below(objects.len() as u64) as usize];
    for _ in 0..100_000 {
        let (a, b, c) = (pick(), pick(), pick());
        assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
    }
}

fn sibling(dot: Dot, write_id: u128, value: &'static str) -> Sibling {
    Sibling {
        dot,
        write_id: WriteId(write_id),
        hlc: Hlc(write_id as u64),
        after: Hlc::default(),
        expires_at: None,
        content: Content::Value(Bytes::from_static(value.as_bytes())),
    }
}

fn object_of(siblings: &[Sibling]) -> Object {
    let mut object = Object::new();
    for sibling in siblings {
        object.write(&VersionVector::new(), sibling.clone());
    }
    object
}

#[test]
fn a_dot_used_twice_keeps_both_writes_and_is_reported_once_by_each_who_learns_it() {
    let one = object_of(&[sibling(dot_of(0), 1, "one")]);
    let two = object_of(&[sibling(dot_of(0), 2, "two")]);
    let same_write = object_of(&[sibling(dot_of(0), 1, "other")]);

    let mut both = one.clone();
    assert_eq!(both.merge(&two).collisions, [dot_of(0)]);
    assert_eq!(both.siblings().len(), 2);
    assert_eq!(both.merge(&two).collisions, [], "known by now");
    let mut third = Object::new();
    assert_eq!(third.merge(&both).collisions, [dot_of(0)], "a third learns of it");
    assert_eq!(both.merge(&same_write).collisions, [dot_of(0)], "same dot, same write id");
    assert_eq!(both.siblings().len(), 3);
    assert_eq!(Object::decode(both.encode()).as_ref(), Ok(&both));
}

#[test]
fn without_growing_timestamps_last_write_wins_may_lose_all() {
    // The reason for the condition on `keep_latest`: `late` has overwritten `high` with a lower
    // timestamp than both, so the replicas discard each other's choice.
    let high = sibling(dot_of(0), 9, "high");
    let middle = sibling(dot_of(MOST_WRITES), 5, "middle");
    let late = sibling(dot_of(2 * MOST_WRITES), 1, "late");
    let mut first = object_of(&[high.clone(), middle.clone()]);
    assert_eq!(first.keep_latest(), 1);
    let mut overwritten = object_of(std::slice::from_ref(&high));
    let basis = overwritten.clock().clone();
    overwritten.write(&basis, late);
    first.merge(&overwritten);
    let mut second = merged(&overwritten, &object_of(&[middle]));
    assert_eq!(second.keep_latest(), 1);
    assert_eq!(merged(&first, &second).siblings(), []);
}

#[test]
fn only_live_values_are_shown_newest_first_and_each_write_once() {
    let mut expired = sibling(dot_of(1), 50, "expired");
    expired.expires_at = Some(WallMs(100));
    let mut expiring = sibling(dot_of(2), 40, "expiring");
    expiring.expires_at = Some(WallMs(101));
    let mut deleted = sibling(dot_of(3), 60, "");
    deleted.content = Content::Tombstone;
    let old = sibling(dot_of(4), 10, "old");
    let twice = [sibling(dot_of(5), 20, "twice"), sibling(dot_of(9), 20, "twice")];
    let all = [&[expired, expiring, deleted, old], twice.as_slice()].concat();
    let object = object_of(&all);

    let shown: Vec<Dot> = object.values(WallMs(100)).iter().map(|s| s.dot).collect();
    assert_eq!(shown, [dot_of(2), dot_of(9), dot_of(4)]);
    assert_eq!(object.tombstones(), 1);
    assert!(object.has_write(WriteId(60)) && !object.has_write(WriteId(61)));
    assert_eq!(object.latest_hlc(), Hlc(60));
    assert_eq!(Object::new().latest_hlc(), Hlc(0));
}

/// All dots of `actor` up to `last`.
fn up_to(actor: Actor, last: u64) -> VersionVector {
    let mut bytes = BytesMut::new();
    bytes.put_varint(u64::from(last > 0));
    if last > 0 {
        bytes.put_u64_le(actor.incarnation.0);
        bytes.put_varint(actor.k);
        bytes.put_varint(last);
    }
    bytes.put_varint(0);
    VersionVector::decode(&mut Reader::new(bytes.freeze())).unwrap()
}

/// A vector of random actors, some of them the replicas', with counters up to the last.
fn hostile_clock(random: &mut Random) -> VersionVector {
    let mut clock = VersionVector::new();
    for _ in 0..random.below(6) {
        let counter = match random.below(3) {
            0 => u64::MAX - random.below(2),
            _ => random.below(6),
        };
        let actor = match random.chance(50) {
            true => actor(random.below(3) as usize),
            false => Actor { incarnation: Incarnation(random.next_u64()), k: random.next_u64() },
        };
        match random.chance(50) {
            true => clock.insert(Dot { actor, counter }),
            false => clock.join(&up_to(actor, counter)),
        }
    }
    clock
}

#[test]
fn a_vector_is_the_set_of_its_dots_whatever_the_order() {
    // Against a plain set, over all small sets: two actors with five dots each.
    let dots: Vec<Dot> =
        (0..10).map(|n| Dot { actor: actor(n / 5), counter: n as u64 % 5 + 1 }).collect();
    let vector = |set: u32, dots: &mut dyn Iterator<Item = (usize, &Dot)>| {
        let mut vector = VersionVector::new();
        for (_, dot) in dots.filter(|(bit, _)| set & (1 << bit) != 0) {
            vector.insert(*dot);
        }
        vector
    };
    let all: Vec<VersionVector> =
        (0..1 << 10).map(|set| vector(set, &mut dots.iter().enumerate())).collect();
    for (set, a) in (0_u32..).zip(&all) {
        assert_eq!(*a, vector(set, &mut dots.iter().enumerate().rev()), "{a}");
        for (bit, dot) in dots.iter().enumerate() {
            assert_eq!(a.contains(*dot), set & (1 << bit) != 0, "{dot} in {a}");
        }
        for (number, bits) in [set & 31, set >> 5].into_iter().enumerate() {
            assert_eq!(a.counter(actor(number)), u64::from(bits.trailing_ones()));
            assert_eq!(a.highest(actor(number)), u64::from(32 - bits.leading_zeros()));
        }
        let runs = |bits: u32| (bits & !(bits << 1)).count_ones() as usize;
        assert_eq!(a.len(), runs(set & 31) + runs(set >> 5), "{a}");
        let mut out = BytesMut::new();
        a.encode_to(&mut out);
        assert_eq!(VersionVector::decode(&mut Reader::new(out.freeze())).as_ref(), Ok(a));
        for (other, b) in (0_u32..).zip(&all) {
            let mut joined = a.clone();
            joined.join(b);
            assert_eq!(joined, all[(set | other) as usize], "{a} and {b}");
            assert_eq!(a.covers(b), set & other == other, "{a} and {b}");
            assert_eq!(a.joined_len(b), joined.len());
        }
    }
}

#[test]
fn a_vector_shows_its_gaps() {
    let mut clock = up_to(actor(1), 3);
    clock.insert(Dot { actor: actor(1), counter: 5 });
    clock.insert(Dot { actor: actor(2), counter: u64::MAX });
    let (one, two) = (actor(1), actor(2));
    assert_eq!(clock.to_string(), format!("{{{one}:3, {one}:5-5, {two}:{0}-{0}}}", u64::MAX));
}

#[test]
fn hostile_contexts_crash_nothing_and_overwrite_only_what_they_cover() {
    let key = Key::new(b"carts", b"k").unwrap();
    let mut random = Random::new(11);
    for _ in 0..300 {
        let mut objects = vec![Object::new(); 3];
        let mut minted = [0_u64; 3];
        let mut actors = [actor(0), actor(1), actor(2)];
        for step in 0..30 {
            let replica = random.below(3) as usize;
            let object = &mut objects[replica];
            let context = Context {
                clock: hostile_clock(&mut random),
                hlc: Hlc(u64::MAX),
                ..Context::default()
            };
            let basis = Context::parse(&key, &context.token(&key)).unwrap().clock;
            // The rule for whoever mints: more of the own actor than was minted, a new actor.
            let mut known = object.clock().clone();
            known.join(&basis);
            if known.highest(actors[replica]) > minted[replica] {
                actors[replica].k = 100 + step;
                minted[replica] = 0;
            }
            minted[replica] += 1;
            let dot = Dot { actor: actors[replica], counter: minted[replica] };
            let before = object.clone();
            object.write(&basis, sibling(dot, u128::from(step), "v"));
            assert_eq!(object.siblings().iter().filter(|held| held.dot == dot).count(), 1);
            for held in before.siblings().iter().filter(|held| !basis.contains(held.dot)) {
                assert!(object.siblings().contains(held));
            }
            assert_eq!(Object::decode(object.encode()).as_ref(), Ok(&*object));
            let other = objects[random.below(3) as usize].clone();
            assert_eq!(objects[replica].merge(&other).collisions, []);
        }
    }
}

#[test]
fn a_context_can_be_asked_how_far_it_would_grow_the_clock() {
    let mut random = Random::new(3);
    for _ in 0..2000 {
        let (a, b) = (hostile_clock(&mut random), hostile_clock(&mut random));
        let mut joined = a.clone();
        joined.join(&b);
        assert_eq!(a.joined_len(&b), joined.len());
        assert!(joined.covers(&a) && joined.covers(&b));
        assert_eq!(a.covers(&b), joined == a);
        for (actor, counters) in joined.iter() {
            for counter in [*counters.start(), *counters.end()] {
                let dot = Dot { actor, counter };
                assert!(a.contains(dot) || b.contains(dot), "{dot} in {a} or {b}");
            }
            assert_eq!(joined.highest(actor), a.highest(actor).max(b.highest(actor)));
        }
    }
}

#[test]
fn the_longest_clock_that_decodes_also_makes_a_token_that_parses() {
    let key = Key::new(b"b", b"k").unwrap();
    let mut clock = VersionVector::new();
    for n in 0..limits::CLOCK_ENTRIES as u64 {
        let actor = Actor { incarnation: Incarnation(n), k: u64::MAX };
        clock.insert(Dot { actor, counter: u64::MAX });
    }
    let context = Context { clock: clock.clone(), hlc: Hlc(u64::MAX), ..Context::default() };
    assert_eq!(Context::parse(&key, &context.token(&key)), Ok(context));

    clock.insert(Dot { actor: Actor { incarnation: Incarnation(0), k: 1 }, counter: u64::MAX });
    assert_eq!(clock.len(), limits::CLOCK_ENTRIES + 1);
    let mut out = BytesMut::new();
    clock.encode_to(&mut out);
    let refused = VersionVector::decode(&mut Reader::new(out.freeze()));
    assert!(matches!(refused, Err(CodecError::TooLong { .. })));
}

#[test]
fn a_decoded_value_shares_the_memory_it_was_read_from() {
    let bytes = object_of(&[sibling(dot_of(0), 1, "a value of some length")]).encode();
    let object = Object::decode(bytes.clone()).unwrap();
    let Content::Value(value) = &object.siblings()[0].content else { panic!("a value") };
    assert!(bytes.as_ptr_range().contains(&value.as_ptr()));
}

/// A write that two coordinators took, because its client got no answer from the first: two dots.
/// Somebody has seen and replaced the first only.
#[test]
fn a_write_that_was_made_twice_and_replaced_once_is_dead_in_every_order_of_merging() {
    let dot = |replica, counter| Dot { actor: actor(replica), counter };
    let first = object_of(&[sibling(dot(0, 1), 7, "twice")]);
    let second = object_of(&[sibling(dot(1, 1), 7, "twice")]);
    let mut replacement = first.clone();
    let shown = Context::of(&first);
    replacement.overwrite(&shown.names, WriteId(8));
    replacement.write(&shown.clock, sibling(dot(2, 1), 8, "instead"));
    let parts = [&first, &second, &replacement];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut merged = Object::new();
        for part in order {
            merged.merge(parts[part]);
        }
        let values = merged.values(WallMs(0));
        assert_eq!(values.len(), 1, "in order {order:?}");
        assert_eq!(values[0].write_id, WriteId(8));
        assert!(merged.has_replaced(WriteId(7)));
    }
    // While nobody has replaced it, it is one value, and replacing either dot replaces both.
    let mut both = first.clone();
    both.merge(&second);
    assert_eq!((both.siblings().len(), both.values(WallMs(0)).len()), (2, 1));
    both.overwrite(&shown.names, WriteId(8));
    both.write(&shown.clock, sibling(dot(2, 1), 8, "instead"));
    assert_eq!(both.siblings().len(), 1);
}
