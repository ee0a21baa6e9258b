//! Writes that were made twice, through the public API of `causality`.
//!
//! A client that hears nothing makes its write again through another coordinator. Here some
//! replicas of one key take such copies, of blind writes (which replace what their replica holds)
//! and of writes with a context (which is the same in every copy), merge at random, and at last
//! all with all. Against the whole history it must then hold that
//!
//! - all replicas have the same, whatever the order in which they were merged;
//! - every write *stands*: it is there, or a write that has seen it is there, or one that has seen
//!   that one, and so on;
//! - a write with a context is gone, in all its copies, once another that has seen one of them was
//!   made.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringdove::causality::{Actor, Content, Context, Dot, Hlc, Object, Sibling};
use ringdove::ids::{Incarnation, WriteId};
use ringdove::random::Random;

const REPLICAS: usize = 4;

/// One replica of the key.
#[derive(Clone)]
struct Replica {
    actor: Actor,
    minted: u64,
    object: Object,
    /// How far this one's clock is ahead.
    skew: u64,
}

/// A write whose client may make it again.
struct Write {
    id: WriteId,
    /// What it brings in every copy; a blind write brings nothing and builds on what is there.
    context: Option<Context>,
}

struct World {
    random: Random,
    replicas: Vec<Replica>,
    writes: Vec<Write>,
    time: u64,
    /// For each write, the writes of which it has seen a copy.
    seen: BTreeMap<WriteId, BTreeSet<WriteId>>,
    /// For each dot, its write.
    made: BTreeMap<Dot, WriteId>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut replica = |n| Replica {
            actor: Actor { incarnation: Incarnation(n as u64), k: 1 },
            minted: 0,
            object: Object::new(),
            skew: random.below(3) * random.below(30),
        };
        let replicas = (0..REPLICAS).map(&mut replica).collect();
        let (writes, seen, made) = Default::default();
        Self { random, replicas, writes, time: 0, seen, made }
    }

    fn pick(&mut self) -> usize {
        self.random.below(REPLICAS as u64) as usize
    }

    fn step(&mut self) {
        self.time += 1;
        let replica = self.pick();
        match self.random.below(10) {
            0..2 => {
                let from = self.pick_other(replica);
                let from = self.replicas[from].object.clone();
                self.replicas[replica].object.merge(&from);
            }
            2..6 => {
                let seen = &self.replicas[replica].object;
                let context = self.random.chance(50).then(|| Context::of(seen));
                let id = WriteId(u128::from(self.random.next_u64()));
                self.writes.push(Write { id, context });
            }
            // One of the last few, so that copies and what replaces them are near each other.
            _ if !self.writes.is_empty() => {
                let back = self.random.below(self.writes.len().min(4) as u64) as usize;
                self.make(replica, self.writes.len() - 1 - back);
            }
            _ => {}
        }
    }

    fn pick_other(&mut self, replica: usize) -> usize {
        (replica + 1 + self.random.below(REPLICAS as u64 - 1) as usize) % REPLICAS
    }

    /// What a coordinator does with a write: see `replica::put`.
    fn make(&mut self, replica: usize, write: usize) {
        let Write { id, context } = &self.writes[write];
        let Replica { actor, minted, object, skew } = &mut self.replicas[replica];
        if object.has_write(*id) || object.has_replaced(*id) {
            return;
        }
        let basis = context.clone().unwrap_or_else(|| Context::of(object));
        *minted += 1;
        let dot = Dot { actor: *actor, counter: *minted };
        let latest = object.latest_hlc().max(basis.hlc);
        let sibling = Sibling {
            dot,
            write_id: *id,
            hlc: Hlc((self.time + *skew).max(latest.0 + 1)),
            after: basis.hlc,
            expires_at: None,
            content: Content::Value(Bytes::new()),
        };
        let covered = self.made.iter().filter(|(dot, _)| basis.clock.contains(**dot));
        let seen = covered.map(|(_, id)| *id).filter(|seen| seen != id);
        self.seen.entry(*id).or_default().extend(seen);
        object.overwrite(&basis.names, *id);
        object.write(&basis.clock, sibling);
        self.made.insert(dot, *id);
        assert_eq!(Object::decode(object.encode()).as_ref(), Ok(&*object));
    }

    /// All replicas merged, each with all others, in a random order.
    fn merged(&mut self) -> Object {
        let mut left: Vec<Object> = self.replicas.iter().map(|r| r.object.clone()).collect();
        while left.len() > 1 {
            let one = left.swap_remove(self.random.below(left.len() as u64) as usize);
            let into = self.random.below(left.len() as u64) as usize;
            left[into].merge(&one);
        }
        left.remove(0)
    }

    /// What is wrong with the end of this history.
    fn check(&mut self) -> Result<(), String> {
        let end = self.merged();
        for _ in 0..6 {
            let other = self.merged();
            if other != end {
                return Err(format!("one order gives {end:?}, another {other:?}"));
            }
        }
        let there: BTreeSet<WriteId> = end.siblings().iter().map(|s| s.write_id).collect();
        let mut stands = there.clone();
        loop {
            let before = stands.len();
            let seen: Vec<WriteId> = stands.iter().flat_map(|id| self.seen[id].clone()).collect();
            stands.extend(seen);
            if stands.len() == before {
                break;
            }
        }
        if let Some(lost) = self.made.values().find(|id| !stands.contains(id)) {
            return Err(format!("{lost:?} is lost; left is {there:?}"));
        }
        let overwritten: BTreeSet<&WriteId> = self.seen.values().flatten().collect();
        let again = self.writes.iter().find(|write| {
            write.context.is_some() && overwritten.contains(&write.id) && there.contains(&write.id)
        });
        again.map_or(Ok(()), |again| Err(format!("{:?} is back from the dead", again.id)))
    }
}

#[test]
fn of_writes_that_were_made_twice_none_is_lost_and_none_comes_back() {
    for seed in 0..20_000 {
        let mut world = World::new(seed);
        for _ in 0..world.random.below(30) {
            world.step();
        }
        if let Err(error) = world.check() {
            panic!("seed {seed}: {error}");
        }
    }
}
