//! What follows from a cluster state: rings, slots with their successors, and who is asked for what.
//!
//! A slot changes hands where the ring wants somebody else than its owner:
//!
//! ```text
//!   ring says   A  D  E          slot 0   owner A
//!   owners      A  B  C          slot 1   owner B   successor D
//!                                slot 2   owner C   successor E
//! ```
//!
//! Members that the ring wants and that own no slot are paired with the slots whose owner it does
//! not want, or that have none: first whoever has replaced a member with what was that member's,
//! then slots in order with members in order of preference. A pair that is done leaves the other
//! pairs as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::{ClusterState, MemberEntry, Owner, SlotTable, Standing};
use crate::ids::{NodeId, Partition, Scope};
use crate::key::Key;
use crate::limits;
use crate::ring::{self, Ring, RingMember, Share};
use crate::wire::messages::{BucketSettings, TopologyVersion};

/// One of the N places of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Who owns it: answers reads for it. Nobody, where a slot is new, or its owner was removed, or
    /// its owner owns an earlier slot of the partition as well.
    pub owner: Option<NodeId>,
    /// Who will own it: takes writes for it already.
    pub successor: Option<NodeId>,
    /// Rises each time it changes hands.
    pub version: u32,
}

/// By whose slots the keys of a bucket are kept in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Their owners answer reads.
    pub reads: Scope,
    /// Where the bucket moves to or comes from: writes need a quorum of these slots too.
    pub also: Option<Scope>,
    /// `also` is where it moves to: a slot that nobody has owned yet counts as soon as its
    /// successor has a write, for whoever owns it first has copied everything older.
    pub arriving: bool,
}

impl Scopes {
    /// All slots that a write needs a quorum of, those of reads first.
    pub fn all(self) -> impl Iterator<Item = Scope> {
        std::iter::once(self.reads).chain(self.also)
    }

    /// Whether a write counts `slot` of `scope` without an owner.
    #[must_use]
    pub fn counts(self, scope: Scope, slot: &Slot) -> bool {
        let is_first = slot.version == 0 && slot.successor.is_some();
        slot.owner.is_some() || self.arriving && self.also == Some(scope) && is_first
    }
}

/// An immutable snapshot that every shard, session and client goes by.
#[derive(Debug)]
pub struct Topology {
    state: ClusterState,
    version: TopologyVersion,
    basis: Arc<Basis>,
    placements: BTreeMap<Scope, Placement>,
    /// Where buckets are moving, with where each comes from.
    arrivals: BTreeMap<Scope, Scope>,
}

/// What placements depend on, besides the owners of slots.
#[derive(Debug, PartialEq, Eq)]
struct Basis {
    partitions: u32,
    ring_members: Vec<RingMember>,
    /// The member at each ring id.
    places: BTreeMap<NodeId, NodeId>,
    /// Who was removed, each with who stands in its place on the ring.
    removed: BTreeMap<NodeId, Option<NodeId>>,
}

/// Who should own what and who does, for one scope.
#[derive(Debug)]
struct Placement {
    ring: Arc<Ring>,
    table: SlotTable,
    partitions: Vec<Arc<Placed>>,
}

/// One partition.
#[derive(Debug)]
struct Placed {
    slots: Vec<Slot>,
    /// The owners: first those on the ring's preference list, in its order, then the others.
    primaries: Vec<NodeId>,
    fingerprint: u64,
}

impl Topology {
    /// Computes what follows from `state`. The same state gives the same topology everywhere.
    #[must_use]
    pub fn new(state: ClusterState) -> Self {
        Self::compute(state, None)
    }

    /// As [`Topology::new`], sharing what is the same in an earlier topology.
    #[must_use]
    pub fn after(earlier: &Self, state: ClusterState) -> Self {
        Self::compute(state, Some(earlier))
    }

    fn compute(state: ClusterState, earlier: Option<&Self>) -> Self {
        let places = state.places();
        let removed = state.members.iter();
        let removed = removed.filter(|(_, entry)| entry.standing == Standing::Removed);
        let removed = removed.map(|(id, entry)| (*id, places.get(&entry.placed_as.value).copied()));
        let basis = Basis {
            partitions: state.partitions,
            ring_members: state.ring_members(),
            removed: removed.collect(),
            places,
        };
        // Placing a large cluster takes a while, so rings are kept as long as they are the same.
        let rings = earlier.filter(|earlier| earlier.basis.ring_members == basis.ring_members);
        let earlier = earlier.filter(|earlier| *earlier.basis == basis);
        let basis = earlier.map_or_else(|| Arc::new(basis), |earlier| earlier.basis.clone());
        // One ring for all scopes of as many replicas.
        let known = rings.iter().flat_map(|rings| &rings.placements);
        let mut rings: BTreeMap<u8, Arc<Ring>> =
            known.map(|(scope, placement)| (scope.n, placement.ring.clone())).collect();
        let placement = |(scope, table): (&Scope, &SlotTable)| {
            let place = || Arc::new(Ring::new(&basis.ring_members, basis.partitions, scope.n));
            let ring = rings.entry(scope.n).or_insert_with(place).clone();
            let earlier = earlier.and_then(|earlier| earlier.placements.get(scope));
            (*scope, Placement::new(&basis, ring, table, earlier))
        };
        let placements = state.slots.iter().map(placement).collect();
        let homes = state.buckets.values().map(|bucket| &bucket.home);
        let arrivals = homes.filter_map(|home| Some((home.next?, home.scope))).collect();
        Self { version: state.version(), state, basis, placements, arrivals }
    }

    /// The state it was computed from.
    #[must_use]
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// The version of that state.
    #[must_use]
    pub fn version(&self) -> TopologyVersion {
        self.version
    }

    /// The settings of a bucket.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Option<&BucketSettings> {
        self.state.buckets.get(name).map(|entry| &entry.settings)
    }

    /// A member's entry.
    #[must_use]
    pub fn member(&self, id: NodeId) -> Option<&MemberEntry> {
        self.state.members.get(&id)
    }

    /// Whether somebody is known and has not been removed: what is theirs is kept for them.
    #[must_use]
    pub fn is_present(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|member| member.standing != Standing::Removed)
    }

    /// Whether somebody was removed: nothing is taken of theirs any more.
    #[must_use]
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|member| member.standing == Standing::Removed)
    }

    /// Partitions of the ring.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.state.partitions
    }

    /// The partition `key` falls into.
    #[must_use]
    pub fn partition(&self, key: &Key) -> Partition {
        ring::partition_of(key.token(), self.state.partitions)
    }

    /// By whose slots a bucket is kept in `partition`.
    #[must_use]
    pub fn scopes(&self, bucket: &str, partition: Partition) -> Option<Scopes> {
        let home = &self.state.buckets.get(bucket)?.home;
        let Some(next) = home.next else {
            return Some(Scopes { reads: home.scope, also: None, arriving: false });
        };
        Some(match self.has_arrived(partition, next) {
            true => Scopes { reads: next, also: Some(home.scope), arriving: false },
            false => Scopes { reads: home.scope, also: Some(next), arriving: true },
        })
    }

    /// The slots that a bucket has, or is leaving; of a bucket that is not known, those of the default
    /// count.
    #[must_use]
    pub fn home(&self, bucket: &str) -> Scope {
        let entry = self.state.buckets.get(bucket);
        entry.map_or(limits::REPLICAS_DEFAULT.into(), |entry| entry.home.scope)
    }

    /// By whose slots a bucket is read in `partition`; of a bucket that is not known, those of the
    /// default count.
    #[must_use]
    pub fn read_scope(&self, bucket: &str, partition: Partition) -> Scope {
        let scopes = self.scopes(bucket, partition);
        scopes.map_or(limits::REPLICAS_DEFAULT.into(), |scopes| scopes.reads)
    }

    /// Whether each slot of `partition` has had an owner in a scope that a bucket moves to.
    fn has_arrived(&self, partition: Partition, next: Scope) -> bool {
        let table = self.state.slots.get(&next);
        table.is_some_and(|table| table.of(partition).iter().all(|owner| owner.version > 0))
    }

    /// In how many partitions a bucket that moves is read by the slots it moves to.
    #[must_use]
    pub fn arrived(&self, bucket: &str) -> usize {
        let next = self.state.buckets.get(bucket).and_then(|entry| entry.home.next);
        let partitions = (0..self.state.partitions).map(|number| Partition(number as u16));
        next.map_or(0, |next| partitions.filter(|of| self.has_arrived(*of, next)).count())
    }

    /// Buckets that are moving to other slots.
    #[must_use]
    pub fn moving(&self) -> usize {
        self.arrivals.len()
    }

    /// Whether `me` holds data of the bucket in `partition`, or is to.
    #[must_use]
    pub fn stands_for(&self, bucket: &str, partition: Partition, me: NodeId) -> bool {
        let scopes = self.scopes(bucket, partition).into_iter().flat_map(Scopes::all);
        scopes.into_iter().any(|scope| self.stands_in(partition, scope, me))
    }

    /// Whether `me` owns a slot, or is to.
    #[must_use]
    pub fn stands_in(&self, partition: Partition, scope: Scope, me: NodeId) -> bool {
        let mut slots = self.slots(partition, scope).iter();
        slots.any(|slot| slot.owner == Some(me) || slot.successor == Some(me))
    }

    /// Of the buckets at home in `scope`, those of which `me` is not to have anything in
    /// `partition`.
    #[must_use]
    pub fn strange_buckets(&self, partition: Partition, scope: Scope, me: NodeId) -> Vec<String> {
        let at_home = self.state.buckets.iter().filter(|(_, entry)| entry.home.scope == scope);
        let strange = at_home.filter(|(name, _)| !self.stands_for(name, partition, me));
        strange.map(|(name, _)| name.clone()).collect()
    }

    /// Whether keys of `bucket` belong to the slots of `scope`. Those of an unknown bucket may
    /// belong to any that buckets share.
    #[must_use]
    pub fn is_kept_in(&self, bucket: &str, scope: Scope) -> bool {
        let entry = self.state.buckets.get(bucket);
        entry.map_or(scope.number == 0, |entry| entry.home.names(scope))
    }

    /// From whom a slot without an owner is filled: the owners of the partition's other slots; while
    /// a bucket arrives, those of the slots that it comes from.
    #[must_use]
    pub fn sources(&self, partition: Partition, scope: Scope) -> &[NodeId] {
        let from = self.comes_from(scope).filter(|_| self.is_arriving(partition, scope));
        self.primaries(partition, from.unwrap_or(scope))
    }

    /// The scope that a bucket comes from which moves to this one.
    #[must_use]
    pub fn comes_from(&self, scope: Scope) -> Option<Scope> {
        self.arrivals.get(&scope).copied()
    }

    /// Whether a bucket moves to `scope` that is still read by the slots it comes from.
    #[must_use]
    pub fn is_arriving(&self, partition: Partition, scope: Scope) -> bool {
        self.arrivals.contains_key(&scope) && !self.has_arrived(partition, scope)
    }

    /// Whether a bucket is at home in `scope`.
    #[must_use]
    pub fn is_home(&self, scope: Scope) -> bool {
        self.state.buckets.values().any(|bucket| bucket.home.scope == scope)
    }

    /// Tells how far the moves are that touch any of these slots; 0 where there are none.
    #[must_use]
    pub fn moves_marks(&self, partition: Partition, scopes: &[Scope]) -> u64 {
        let mark = |scope: &Scope| self.moves_mark(partition, *scope);
        scopes.iter().fold(0, |marks: u64, scope| marks.rotate_left(1) ^ mark(scope))
    }

    /// Tells how far the moves are that touch these slots; 0 where there are none.
    #[must_use]
    pub fn moves_mark(&self, partition: Partition, scope: Scope) -> u64 {
        let mut hasher = Xxh3::new();
        let mut any = false;
        for (next, from) in &self.arrivals {
            if *next == scope || *from == scope {
                any = true;
                hasher.update(&next.number.to_le_bytes());
                hasher.update(&[next.n, u8::from(self.has_arrived(partition, *next))]);
            }
        }
        if any { hasher.digest().max(1) } else { 0 }
    }

    fn placed(&self, partition: Partition, scope: Scope) -> Option<&Placed> {
        let placement = self.placements.get(&scope)?;
        placement.partitions.get(usize::from(partition.0)).map(Arc::as_ref)
    }

    /// The slots of `partition`: as many as the ring's preference list is long, and more while others
    /// own some.
    ///
    /// Empty for a scope that no bucket has, and while the cluster forms; so is everything below.
    #[must_use]
    pub fn slots(&self, partition: Partition, scope: impl Into<Scope>) -> &[Slot] {
        self.placed(partition, scope.into()).map_or(&[], |placed| &placed.slots)
    }

    /// Tells the slots of `partition` apart from all that they were and will be; never 0, except
    /// where there are none. It differs between partitions and scopes by their slots only.
    #[must_use]
    pub fn fingerprint(&self, partition: Partition, scope: impl Into<Scope>) -> u64 {
        self.placed(partition, scope.into()).map_or(0, |placed| placed.fingerprint)
    }

    /// The fingerprint of all slots that a bucket's keys are written by in `partition`, and of how
    /// they are read.
    #[must_use]
    pub fn bucket_fingerprint(&self, bucket: &str, partition: Partition) -> u64 {
        let Some(Scopes { reads, also, .. }) = self.scopes(bucket, partition) else { return 0 };
        let first = self.fingerprint(partition, reads);
        let Some(also) = also else { return first };
        let mut hasher = Xxh3::new();
        hasher.update(&first.to_le_bytes());
        hasher.update(&self.fingerprint(partition, also).to_le_bytes());
        hasher.digest().max(1)
    }

    /// The owners of `partition`: those whom the ring wants, in order of preference, then the rest.
    #[must_use]
    pub fn primaries(&self, partition: Partition, scope: impl Into<Scope>) -> &[NodeId] {
        self.placed(partition, scope.into()).map_or(&[], |placed| &placed.primaries)
    }

    /// Everybody who is in a slot of `partition`: the primaries, then successors in order of slot.
    #[must_use]
    pub fn participants(&self, partition: Partition, scope: impl Into<Scope>) -> Vec<NodeId> {
        let scope = scope.into();
        let successors = self.slots(partition, scope).iter().filter_map(|slot| slot.successor);
        self.primaries(partition, scope).iter().copied().chain(successors).collect()
    }

    /// Who stands in for participants that are away: the members on the ring that are in no slot
    /// of `partition`, in the order in which the walk meets them.
    #[must_use]
    pub fn fallbacks(&self, partition: Partition, scope: impl Into<Scope>) -> Vec<NodeId> {
        let scope = scope.into();
        let Some(placement) = self.placements.get(&scope) else { return Vec::new() };
        let participants = self.participants(partition, scope);
        // Who is on the preference list owns a slot or will: only the rest of the walk is left.
        let walk = placement.ring.fallbacks(partition).into_iter();
        let members = walk.map(|place| self.basis.places[&place]);
        members.filter(|id| !participants.contains(id)).collect()
    }

    /// What each member owns in a scope, and what would be fair; in order of id. Those who
    /// are on the ring are listed, and those who own something.
    #[must_use]
    pub fn shares(&self, scope: impl Into<Scope>) -> Vec<Share> {
        let Some(placement) = self.placements.get(&scope.into()) else { return Vec::new() };
        let mut shares: BTreeMap<NodeId, Share> = BTreeMap::new();
        for share in placement.ring.shares() {
            let id = self.basis.places[&share.id];
            shares.insert(id, Share { id, owned: 0, first: 0, owned_per_fair: 0, ..share });
        }
        let none = |id| Share { id, owned: 0, first: 0, fair_thousandths: 0, owned_per_fair: 0 };
        for placed in &placement.partitions {
            for (at, id) in placed.primaries.iter().enumerate() {
                let share = shares.entry(*id).or_insert_with(|| none(*id));
                share.owned += 1;
                share.first += u32::from(at == 0);
            }
        }
        for share in shares.values_mut() {
            let owned = u64::from(share.owned) * 10_000 * 1000;
            let per_fair = owned.checked_div(u64::from(share.fair_thousandths)).unwrap_or(0);
            share.owned_per_fair = u32::try_from(per_fair).unwrap_or(u32::MAX);
        }
        shares.into_values().collect()
    }

    /// The slots that have a successor, of all scopes: how much is still to change hands.
    #[must_use]
    pub fn changing(&self) -> usize {
        let placed = self.placements.values().flat_map(|placement| &placement.partitions);
        placed.flat_map(|placed| &placed.slots).filter(|slot| slot.successor.is_some()).count()
    }
}

impl Placement {
    /// Who owns what by `table`, and should by `ring`; `earlier` is one of the same basis.
    fn new(basis: &Basis, ring: Arc<Ring>, table: &SlotTable, earlier: Option<&Self>) -> Self {
        let placed = |number: u32| {
            let partition = Partition(number as u16);
            let owners = table.of(partition);
            let before = earlier.filter(|earlier| earlier.table.of(partition) == owners);
            if let Some(before) = before {
                return before.partitions[number as usize].clone();
            }
            let list = ring.primaries(partition).iter().map(|place| basis.places[place]);
            Arc::new(Placed::new(owners, &list.collect::<Vec<_>>(), &basis.removed))
        };
        let partitions = match earlier {
            Some(earlier) if earlier.table.is_shared_with(table) => earlier.partitions.clone(),
            _ => (0..basis.partitions).map(placed).collect(),
        };
        Self { ring, table: table.clone(), partitions }
    }
}

impl Placed {
    /// Pairs the slots with whom the ring wants: `list`, in order of preference.
    fn new(owners: &[Owner], list: &[NodeId], removed: &BTreeMap<NodeId, Option<NodeId>>) -> Self {
        let mut slots: Vec<Slot> = Vec::with_capacity(owners.len());
        for Owner { version, value } in owners {
            let is_first = |id: &NodeId| !slots.iter().any(|slot| slot.owner == Some(*id));
            let owner = value.filter(|id| !removed.contains_key(id) && is_first(id));
            slots.push(Slot { owner, successor: None, version: *version });
        }
        while slots.len() > list.len() && slots.last().is_some_and(|slot| slot.owner.is_none()) {
            slots.pop();
        }
        let is_owner = |id: &NodeId| slots.iter().any(|slot| slot.owner == Some(*id));
        let mut newcomers: Vec<NodeId> = list.iter().copied().filter(|id| !is_owner(id)).collect();
        for (slot, owner) in slots.iter_mut().zip(owners) {
            let heir = owner.value.and_then(|owner| *removed.get(&owner)?);
            let heir = newcomers.iter().position(|newcomer| Some(*newcomer) == heir);
            slot.successor = heir.map(|heir| newcomers.remove(heir));
        }
        let is_wanted = |slot: &Slot| slot.owner.is_some_and(|owner| list.contains(&owner));
        let open = slots.iter_mut().filter(|slot| !is_wanted(slot) && slot.successor.is_none());
        for (slot, newcomer) in open.zip(newcomers) {
            slot.successor = Some(newcomer);
        }
        let owners = slots.iter().filter_map(|slot| slot.owner);
        let mut primaries: Vec<NodeId> = owners.collect();
        primaries
            .sort_by_key(|id| list.iter().position(|wanted| wanted == id).unwrap_or(list.len()));
        let fingerprint = fingerprint(&slots);
        Self { slots, primaries, fingerprint }
    }
}

fn fingerprint(slots: &[Slot]) -> u64 {
    if slots.is_empty() {
        return 0;
    }
    let mut hasher = Xxh3::new();
    for Slot { owner, successor, version } in slots {
        hasher.update(&version.to_le_bytes());
        for member in [owner, successor] {
            hasher.update(&[u8::from(member.is_some())]);
            hasher.update(&member.map_or(0, |id| id.0).to_le_bytes());
        }
    }
    hasher.digest().max(1)
}
