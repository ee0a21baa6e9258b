//! What every member does for somebody who reaps.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ask, Desk, Effect};
use crate::ids::{NodeId, Partition};
use crate::limits;
use crate::membership::Topology;
use crate::replica::Order;
use crate::store::StoredKey;
use crate::wire::messages::TopologyVersion;
use crate::wire::reap::{Candidate, HeldUp, ReapReply, ReapRequest, Round};

/// What this node watches for others, and for itself.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// By reaper: each has one round at a time.
    watched: BTreeMap<NodeId, Watched>,
    /// Orders to the shards, by their number: whose they are, and which of its keys they name.
    orders: BTreeMap<u64, (Round, Vec<usize>)>,
    /// Barriers under way: whose they are, and to whom.
    barriers: BTreeMap<u64, (Round, NodeId)>,
    /// Partitions of which objects are moving outside of the shards: by how many movements.
    moving: BTreeMap<Partition, u32>,
}

#[derive(Debug)]
struct Watched {
    round: Round,
    /// Who waits.
    ask: Option<Ask>,
    partitions: Vec<Partition>,
    standing: Vec<bool>,
    /// Which keys each shard has.
    by_shard: BTreeMap<usize, Vec<usize>>,
    /// Shards that have not answered yet.
    ordered: usize,
    /// Members whose barriers have not been answered yet.
    awaited: BTreeSet<NodeId>,
    /// Everything was witnessed and has arrived.
    ready: bool,
}

impl Member {
    pub(super) fn topology(&mut self, desk: &mut Desk) {
        // What was looked at was looked at under other slots, or among other members.
        self.orders.clear();
        self.barriers.clear();
        for watched in std::mem::take(&mut self.watched).into_values() {
            if let Some(ask) = watched.ask {
                desk.answer(ask, ReapReply::NotNow(HeldUp::OtherState));
            }
        }
    }

    pub(super) fn asked(&mut self, desk: &mut Desk, ask: Ask, request: ReapRequest) {
        match request {
            ReapRequest::Watch { round, topology, keys } => {
                if let Err(why) = self.watch(desk, ask, round, topology, &keys) {
                    desk.answer(ask, ReapReply::NotNow(why));
                }
            }
            ReapRequest::Confirm(round) => self.confirm(desk, ask, round),
            ReapRequest::Drop(keys) => {
                let keys = stored(&desk.topology, &keys).unwrap_or_default();
                for (shard, places) in by_shard(desk, &keys) {
                    let keys = places.iter().map(|at| keys[*at].clone()).collect();
                    let id = desk.next_id();
                    desk.effects.push(Effect::Order { id, shard, order: Order::Drop(keys) });
                }
                desk.answer(ask, ReapReply::Done);
            }
            // The driver answers those in their place in the connection.
            ReapRequest::Barrier => desk.answer(ask, ReapReply::Done),
        }
    }

    fn watch(
        &mut self,
        desk: &mut Desk,
        ask: Ask,
        round: Round,
        topology: TopologyVersion,
        keys: &[Candidate],
    ) -> Result<(), HeldUp> {
        if topology != desk.topology.version() {
            return Err(HeldUp::OtherState);
        }
        if !desk.settings.durable {
            return Err(HeldUp::NotDurable);
        }
        if keys.is_empty() || keys.len() > limits::REAPED_AT_ONCE {
            return Err(HeldUp::Again);
        }
        let keys = stored(&desk.topology, keys).ok_or(HeldUp::Again)?;
        let partitions: Vec<Partition> = keys.iter().map(|(key, _)| key.partition()).collect();
        let stands = |(key, _): &(StoredKey, u128)| {
            is_settled(&desk.topology, key) && !self.moving.contains_key(&key.partition())
        };
        let standing = keys.iter().map(stands).collect();
        let by_shard = by_shard(desk, &keys);
        let (awaited, ordered, ready) = (BTreeSet::new(), 0, false);
        let ask = Some(ask);
        let watched =
            Watched { round, ask, partitions, standing, by_shard, ordered, awaited, ready };
        if let Some(ask) = self.watched.insert(round.reaper, watched).and_then(|w| w.ask) {
            desk.answer(ask, ReapReply::NotNow(HeldUp::Again));
        }
        self.order(desk, round, |places| {
            Order::Watch(round, places.iter().map(|at| keys[*at].clone()).collect())
        });
        Ok(())
    }

    /// Gives each shard that has some of the keys its order.
    fn order(&mut self, desk: &mut Desk, round: Round, order: impl Fn(&[usize]) -> Order) {
        let Some(watched) = self.watched.get_mut(&round.reaper) else { return };
        watched.ordered = watched.by_shard.len();
        for (shard, places) in &watched.by_shard {
            let id = desk.next_id();
            self.orders.insert(id, (round, places.clone()));
            desk.effects.push(Effect::Order { id, shard: *shard, order: order(places) });
        }
    }

    fn confirm(&mut self, desk: &mut Desk, ask: Ask, round: Round) {
        match self.watched.get_mut(&round.reaper) {
            Some(watched) if watched.round == round && watched.ready && watched.ask.is_none() => {
                watched.ask = Some(ask);
                self.order(desk, round, |_| Order::Confirm(round));
            }
            _ => desk.answer(ask, ReapReply::NotNow(HeldUp::Again)),
        }
    }

    /// A shard has answered.
    pub(super) fn ordered(&mut self, desk: &mut Desk, id: u64, reply: Option<ReapReply>) {
        let Some((round, places)) = self.orders.remove(&id) else { return };
        let Some(watched) = self.watched.get_mut(&round.reaper).filter(|w| w.round == round) else {
            return;
        };
        let standing = match reply {
            Some(ReapReply::Standing(standing)) if standing.len() == places.len() => standing,
            _ => return self.give_up(desk, round, HeldUp::Again),
        };
        for (at, still) in places.into_iter().zip(standing) {
            watched.standing[at] &= still;
        }
        watched.ordered -= 1;
        if watched.ordered > 0 {
            return;
        }
        if watched.ready || !watched.standing.contains(&true) {
            return self.answer(desk, round);
        }
        // From here on whatever was sent of these keys was sent before the barriers.
        let me = desk.settings.node;
        watched.awaited = desk.present().into_iter().filter(|node| *node != me).collect();
        if watched.awaited.is_empty() {
            return self.answer(desk, round);
        }
        for to in watched.awaited.clone() {
            let id = desk.next_id();
            self.barriers.insert(id, (round, to));
            desk.effects.push(Effect::Send { to, id, request: ReapRequest::Barrier });
        }
    }

    /// The answer to a barrier. Returns whether the question was one.
    pub(super) fn passed(&mut self, desk: &mut Desk, id: u64, reply: Option<&ReapReply>) -> bool {
        let Some((round, to)) = self.barriers.remove(&id) else { return false };
        let Some(watched) = self.watched.get_mut(&round.reaper).filter(|w| w.round == round) else {
            return true;
        };
        if reply != Some(&ReapReply::Done) {
            self.give_up(desk, round, HeldUp::AwayFrom(to));
            return true;
        }
        watched.awaited.remove(&to);
        if watched.awaited.is_empty() && !watched.ready {
            self.answer(desk, round);
        }
        true
    }

    fn answer(&mut self, desk: &mut Desk, round: Round) {
        let Some(watched) = self.watched.get_mut(&round.reaper) else { return };
        let standing = ReapReply::Standing(watched.standing.clone());
        if let Some(ask) = watched.ask.take() {
            desk.answer(ask, standing);
        }
        match watched.ready {
            true => drop(self.watched.remove(&round.reaper)),
            false => watched.ready = true,
        }
    }

    fn give_up(&mut self, desk: &mut Desk, round: Round, why: HeldUp) {
        if let Some(ask) = self.watched.remove(&round.reaper).and_then(|watched| watched.ask) {
            desk.answer(ask, ReapReply::NotNow(why));
        }
    }

    pub(super) fn begin_move(&mut self, partition: Partition) {
        *self.moving.entry(partition).or_default() += 1;
        for watched in self.watched.values_mut() {
            for (of, stands) in watched.partitions.iter().zip(&mut watched.standing) {
                *stands &= *of != partition;
            }
        }
    }

    pub(super) fn end_move(&mut self, partition: Partition) {
        if let Some(count) = self.moving.get_mut(&partition) {
            *count -= 1;
            if *count == 0 {
                self.moving.remove(&partition);
            }
        }
    }
}

/// The keys as the shards name them; `None` where one is none.
fn stored(topology: &Topology, keys: &[Candidate]) -> Option<Vec<(StoredKey, u128)>> {
    let stored = |candidate: &Candidate| {
        let key = candidate.key().ok()?;
        Some((StoredKey::new(topology.partition(&key), &key), candidate.digest))
    };
    keys.iter().map(stored).collect()
}

/// Which of the keys each shard has.
fn by_shard(desk: &Desk, keys: &[(StoredKey, u128)]) -> BTreeMap<usize, Vec<usize>> {
    let mut by_shard: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, (key, _)) in keys.iter().enumerate() {
        let shard = usize::from(key.partition().0) % desk.settings.shards;
        by_shard.entry(shard).or_default().push(at);
    }
    by_shard
}

/// Whether the key's bucket is not on its way to other slots, each of those it has has an owner, and
/// none a successor.
fn is_settled(topology: &Topology, key: &StoredKey) -> bool {
    let scopes = topology.scopes(key.key().bucket(), key.partition());
    let Some(scopes) = scopes.filter(|scopes| scopes.also.is_none()) else { return false };
    let slots = topology.slots(key.partition(), scopes.reads);
    !slots.is_empty() && slots.iter().all(|slot| slot.owner.is_some() && slot.successor.is_none())
}
