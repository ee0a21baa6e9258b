//! What a plan would do: shares, moves, and what an operator should think about first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{ClusterState, HandOver, PlannedChange, Topology};
use crate::ids::{NodeId, Partition, Scope};
use crate::limits;
use crate::ring::Share;

/// What is known of a member besides the cluster state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberFacts {
    /// It answers.
    pub reachable: bool,
    /// Bytes of the records on its disk.
    pub used_bytes: Option<u64>,
    /// Bytes that are free on its disk.
    pub free_bytes: Option<u64>,
}

/// What a plan would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Tells this plan from others; 0 when nothing is planned.
    pub mark: u64,
    /// What is planned for members, in order of id.
    pub changes: Vec<(NodeId, PlannedChange)>,
    /// The replica counts that buckets are to have.
    pub counts: Vec<(String, u8)>,
    /// What each member owns before and after, in order of id.
    pub shares: Vec<ShareChange>,
    /// Who gives how much to whom.
    pub moves: Vec<Moves>,
    /// Slots that are changing hands already, of earlier plans. They are in `moves` too.
    pub under_way: usize,
    /// What to think about before committing.
    pub warnings: Vec<Warning>,
}

/// What a member owns before and after, over all replica counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareChange {
    /// The member.
    pub id: NodeId,
    /// Slots it owns now.
    pub before: u32,
    /// Slots it will own.
    pub after: u32,
    /// What would be fair then, in thousandths of a slot.
    pub fair_thousandths: u64,
    /// Bytes it will receive, estimated.
    pub arriving_bytes: u64,
}

/// Slots that one member gives to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The owner; none where it was removed, or there was none: then any other owner gives.
    pub from: Option<NodeId>,
    /// Who will own them.
    pub to: NodeId,
    /// How many slots.
    pub slots: u32,
    /// Bytes in them, estimated.
    pub bytes: u64,
}

/// Something to think about before a plan is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A member that takes part does not answer: its slots wait for it.
    Unreachable {
        /// Its name.
        name: String,
    },
    /// There are fewer members than copies are asked for.
    FewMembers {
        /// The replica count.
        n: u8,
        /// Members on the ring.
        members: usize,
    },
    /// Partitions would have no owner left.
    Orphans {
        /// The replica count.
        n: u8,
        /// How many partitions.
        partitions: usize,
    },
    /// Two replicas of a partition would be in one zone.
    OneZone {
        /// The replica count.
        n: u8,
        /// Partitions of which that is true.
        partitions: usize,
    },
    /// Two replicas of a partition would be on one machine.
    OneMachine {
        /// The replica count.
        n: u8,
        /// Partitions of which that is true.
        partitions: usize,
    },
    /// A member would own more than the bound allows.
    OverBound {
        /// Its name.
        name: String,
        /// What it would own, in hundredths of its fair share.
        percent: u64,
    },
    /// A member would receive more than its disk has room for.
    TooFull {
        /// Its name.
        name: String,
        /// Bytes it would receive.
        arriving_bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { name } => {
                write!(f, "{name} does not answer: what it owns or receives waits for it")
            }
            Self::FewMembers { n, members } => {
                write!(f, "{members} members cannot keep {n} copies of a key: join some more")
            }
            Self::Orphans { n, partitions } => write!(
                f,
                "{partitions} partitions would lose the last of their {n} replicas, and with it all data"
            ),
            Self::OneZone { n, partitions } => write!(
                f,
                "{partitions} partitions would have two of their {n} replicas in one zone"
            ),
            Self::OneMachine { n, partitions } => write!(
                f,
                "{partitions} partitions would have two of their {n} replicas on one machine"
            ),
            Self::OverBound { name, percent } => write!(
                f,
                "{name} would own {}.{:02} of its fair share: look at weights and zones",
                percent / 100,
                percent % 100
            ),
            Self::TooFull { name, arriving_bytes, free_bytes } => write!(
                f,
                "{name} would receive {} MiB and has {} MiB free: make room, or lower its weight",
                arriving_bytes >> 20,
                free_bytes >> 20
            ),
        }
    }
}

/// Computes what the plan in the state of `topology` would do.
#[must_use]
pub fn preview(topology: &Topology, facts: &BTreeMap<NodeId, MemberFacts>) -> Plan {
    let state = topology.state();
    let projected = Topology::after(topology, state.projected());
    let counts: Vec<Scope> = projected.state().slots.keys().copied().collect();
    let mut arrived = projected.state().clone();
    let mut preview = Preview { state, facts, counts, slot_bytes: BTreeMap::new() };
    preview.weigh_slots(topology);
    let (moves, hand_overs) = preview.moves(&projected);
    arrived.hand_over_all(&hand_overs);
    let after = Topology::after(&projected, arrived);
    let shares = preview.shares(topology, &after, &moves);
    Plan {
        mark: state.plan_mark(),
        changes: state.planned().map(|(id, change)| (id, change.clone())).collect(),
        counts: state.planned_counts().map(|(name, n)| (name.to_owned(), n)).collect(),
        under_way: topology.changing(),
        warnings: [orphans(&projected, &preview.counts), preview.warnings(&after, &shares, &moves)]
            .concat(),
        shares,
        moves,
    }
}

struct Preview<'a> {
    state: &'a ClusterState,
    facts: &'a BTreeMap<NodeId, MemberFacts>,
    /// The scopes in use, also those that buckets are to move to.
    counts: Vec<Scope>,
    /// Bytes of one slot of each member that has said how much it has.
    slot_bytes: BTreeMap<NodeId, u64>,
}

impl Preview<'_> {
    fn weigh_slots(&mut self, topology: &Topology) {
        for (id, slots) in owned(topology, &self.counts) {
            let used = self.facts.get(&id).and_then(|facts| facts.used_bytes);
            if let Some(bytes) = used.and_then(|used| used.checked_div(u64::from(slots))) {
                self.slot_bytes.insert(id, bytes);
            }
        }
    }

    /// Everything that has to move, and how it would change hands.
    fn moves(&self, projected: &Topology) -> (Vec<Moves>, Vec<HandOver>) {
        let mut moves: BTreeMap<(Option<NodeId>, NodeId), (u32, u64)> = BTreeMap::new();
        let mut hand_overs = Vec::new();
        for scope in self.counts.iter().copied() {
            for partition in partitions(projected) {
                // What another owner has is as much as the owner itself would give.
                let owners = projected.sources(partition, scope);
                let known = owners.iter().find_map(|id| self.slot_bytes.get(id)).copied();
                for (slot, expected) in projected.slots(partition, scope).iter().enumerate() {
                    let Some(to) = expected.successor else { continue };
                    let own = expected.owner.and_then(|owner| self.slot_bytes.get(&owner)).copied();
                    // Whoever has the data of the slots a bucket comes from compares digests.
                    let is_here = expected.owner.is_none() && owners.contains(&to);
                    let (slots, bytes) = moves.entry((expected.owner, to)).or_default();
                    *slots += 1;
                    *bytes += if is_here { 0 } else { own.or(known).unwrap_or(0) };
                    let expected = *expected;
                    hand_overs.push(HandOver { scope, partition, slot, expected, to });
                }
            }
        }
        let one = |((from, to), (slots, bytes))| Moves { from, to, slots, bytes };
        (moves.into_iter().map(one).collect(), hand_overs)
    }

    fn shares(&self, before: &Topology, after: &Topology, moves: &[Moves]) -> Vec<ShareChange> {
        let (before, owned_after) = (owned(before, &self.counts), owned(after, &self.counts));
        let mut fair: BTreeMap<NodeId, u64> = BTreeMap::new();
        for share in self.counts.iter().flat_map(|scope| after.shares(*scope)) {
            *fair.entry(share.id).or_default() += u64::from(share.fair_thousandths);
        }
        let ids: BTreeSet<NodeId> = before.keys().chain(fair.keys()).copied().collect();
        let share = |id: NodeId| ShareChange {
            id,
            before: before.get(&id).copied().unwrap_or(0),
            after: owned_after.get(&id).copied().unwrap_or(0),
            fair_thousandths: fair.get(&id).copied().unwrap_or(0),
            arriving_bytes: moves.iter().filter(|m| m.to == id).map(|m| m.bytes).sum(),
        };
        ids.into_iter().map(share).collect()
    }

    fn warnings(&self, after: &Topology, shares: &[ShareChange], moves: &[Moves]) -> Vec<Warning> {
        let name = |id: NodeId| self.state.members[&id].name().to_owned();
        let mut warnings = Vec::new();
        let busy = moves.iter().flat_map(|moves| moves.from.into_iter().chain([moves.to]));
        let reachable = |id: &NodeId| self.facts.get(id).is_some_and(|facts| facts.reachable);
        let silent: BTreeSet<NodeId> = busy.filter(|id| !reachable(id)).collect();
        warnings.extend(silent.into_iter().map(|id| Warning::Unreachable { name: name(id) }));
        let members = after.state().placed().count();
        for scope in self.counts.iter().copied() {
            let n = scope.n;
            if members < usize::from(n) {
                warnings.push(Warning::FewMembers { n, members });
            }
            warnings.extend(crowding(after, scope));
            for Share { id, owned, fair_thousandths, owned_per_fair, .. } in after.shares(scope) {
                // The bound is rounded, up for some.
                let fair = u64::from(fair_thousandths);
                let most = (fair * limits::SHARE_BOUND_PERCENT / 100).div_ceil(1000);
                if fair > 0 && u64::from(owned) > most {
                    let percent = u64::from(owned_per_fair) / 100;
                    warnings.push(Warning::OverBound { name: name(id), percent });
                }
            }
        }
        for ShareChange { id, arriving_bytes, .. } in shares.iter().copied() {
            let free = self.facts.get(&id).and_then(|facts| facts.free_bytes);
            if let Some(free_bytes) = free.filter(|free| *free < arriving_bytes) {
                warnings.push(Warning::TooFull { name: name(id), arriving_bytes, free_bytes });
            }
        }
        warnings
    }
}

/// Counts partitions whose owners would all be removed at once.
fn orphans(projected: &Topology, counts: &[Scope]) -> Vec<Warning> {
    let orphans = counts.iter().map(|scope| {
        let is_orphan = |partition: &Partition| {
            let slots = projected.slots(*partition, *scope);
            let owners = projected.primaries(*partition, *scope);
            owners.is_empty() && slots.iter().any(|slot| slot.version > 0)
        };
        Warning::Orphans { n: scope.n, partitions: partitions(projected).filter(is_orphan).count() }
    });
    orphans.filter(|o| !matches!(o, Warning::Orphans { partitions: 0, .. })).collect()
}

/// Counts partitions of which two replicas would fail together.
fn crowding(after: &Topology, scope: Scope) -> Vec<Warning> {
    let zone = |id: &NodeId| after.member(*id).map_or("", |entry| entry.zone()).to_owned();
    let machine = |id: &NodeId| {
        let address = after.member(*id).map_or("", |entry| entry.address());
        address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
    };
    let crowded = |place: &dyn Fn(&NodeId) -> String| {
        let is_crowded = |partition: &Partition| {
            let owners = after.primaries(*partition, scope);
            owners.iter().map(place).collect::<BTreeSet<String>>().len() < owners.len()
        };
        partitions(after).filter(is_crowded).count()
    };
    let n = scope.n;
    let mut warnings = Vec::new();
    // With all nodes in one zone, zones mean nothing.
    let zones: BTreeSet<&str> = after.state().placed().map(|(_, entry)| entry.zone()).collect();
    let partitions = if zones.len() > 1 { crowded(&zone) } else { 0 };
    if partitions > 0 {
        warnings.push(Warning::OneZone { n, partitions });
    }
    let partitions = crowded(&machine);
    if partitions > 0 {
        warnings.push(Warning::OneMachine { n, partitions });
    }
    warnings
}

fn partitions(topology: &Topology) -> impl Iterator<Item = Partition> {
    (0..topology.partitions()).map(|number| Partition(number as u16))
}

/// Slots that each member owns, over all replica counts.
fn owned(topology: &Topology, counts: &[Scope]) -> BTreeMap<NodeId, u32> {
    let mut owned = BTreeMap::new();
    for share in counts.iter().flat_map(|scope| topology.shares(*scope)) {
        *owned.entry(share.id).or_default() += share.owned;
    }
    owned
}
