//! Who holds what: the walk, for all partitions at once.
//!
//! Every partition sets out from its point at the same time and walks clockwise at the same
//! speed. At each virtual node it asks for the member behind it, and is refused when the member
//! already is in its list, when its zone has given enough, or when the member is full. Since all
//! walk at once, a full member is one that has been reached *by those nearest to it*: whom it
//! holds depends on distances alone, never on how partitions are numbered, and a change of the
//! member set disturbs little else than what stands near to it (docs/adr/0002 has the figures).
//!
//! A partition that comes full circle with a list too short asks a full member for an exchange:
//! the member hands one of its other partitions to somebody who has room, and takes this one.
//! Only where that fails too, a member is taken above its bound. What is never given up: members
//! of a list are distinct, and so are zones as far as there are zones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use xxhash_rust::xxh3::xxh3_64;

use super::fairness::{Quota, fair_shares, quotas};
use super::{RingMember, point_of};
use crate::ids::Partition;
use crate::limits;

/// Candidates that exchanges may look at in one placement, so that a member set made to be
/// awkward costs a second or two and not a day. Ordinary sets need a thousandth of it.
const EXCHANGE_CANDIDATES: u64 = 1 << 26;

/// Where virtual nodes stand, in order, each with the index of its member.
///
/// The hash of (id, index) says at which partition a virtual node stands, the index how deep
/// within it: the first two nodes of a member at the start and half way, the next two at the
/// quarters, and so on (a van der Corput sequence of 256 steps), shifted by what is left of the
/// hash. So no member has all its nodes near to the points and none far behind them, which
/// takes out much of the luck that shares would otherwise depend on.
///
/// Fixed for ever: a change here moves the data of every cluster.
pub(super) fn tokens(members: &[RingMember], partitions: u32) -> Vec<(u64, u16)> {
    let low_bits = u64::BITS - partitions.trailing_zeros();
    let low_mask = u64::MAX.checked_shr(partitions.trailing_zeros()).unwrap_or(0);
    let mut tokens = Vec::new();
    for (member, index) in members.iter().zip(0u16..) {
        let count = (member.weight * limits::VIRTUAL_NODES / limits::WEIGHT_NORMAL).max(1);
        let mut input = [0; 20];
        input[..16].copy_from_slice(&member.id.0.to_le_bytes());
        for node in 0..count {
            input[16..].copy_from_slice(&node.to_le_bytes());
            let hash = xxh3_64(&input);
            let step = u64::from((node as u8).reverse_bits()) << (low_bits - u8::BITS);
            let depth = step | ((hash & low_mask) >> u8::BITS);
            tokens.push(((hash & !low_mask) | depth, index));
        }
    }
    tokens.sort_unstable();
    tokens
}

/// Who holds what, members by their index.
pub(super) struct Placement {
    /// The preference list of each partition.
    pub lists: Vec<Vec<u16>>,
    /// What would be fair for each member, in fixed point.
    pub fair: Vec<u64>,
}

/// Places `replicas` of each partition. There are at least as many members.
pub(super) fn place(
    members: &[RingMember],
    tokens: &[(u64, u16)],
    partitions: u32,
    replicas: usize,
) -> Placement {
    let zones = zone_numbers(members);
    let mut sizes = vec![0; zones.iter().max().map_or(0, |last| last + 1)];
    for zone in &zones {
        sizes[*zone] += 1;
    }
    let quotas = quotas(&sizes, replicas);
    let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
    let fair = fair_shares(&weights, &zones, &quotas, partitions, replicas);
    let bound = |(fair, member): (&u64, &RingMember)| share_bound(*fair, member).min(partitions);
    let room = fair.iter().zip(members).map(bound).collect();
    let mut walks = Walks {
        tokens,
        zones,
        quotas,
        replicas,
        room,
        lists: vec![Vec::with_capacity(replicas); partitions as usize],
        held: vec![Vec::new(); members.len()],
    };
    let stuck = walks.walk_all();
    walks.settle(&stuck);
    let mut lists = walks.lists;
    balance_firsts(&mut lists, &walks.held);
    Placement { lists, fair }
}

/// The number of each member's zone, zones numbered in the order in which they are first met.
fn zone_numbers<'a>(members: &'a [RingMember]) -> Vec<usize> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let number = |member: &'a RingMember| {
        let next = numbers.len();
        *numbers.entry(&member.zone).or_insert(next)
    };
    members.iter().map(number).collect()
}

/// Most replicas that a member takes: [`limits::SHARE_BOUND_PERCENT`] of its fair share, rounded
/// up for some members and down for others, by id. If all rounded alike, then all bounds of a
/// large cluster would step down in the same join, and each full member give something up.
fn share_bound(fair: u64, member: &RingMember) -> u32 {
    let rounding = xxh3_64(&member.id.0.to_le_bytes()) >> 32;
    let bound = u128::from(fair) * u128::from(limits::SHARE_BOUND_PERCENT) / 100;
    // At least one: else a tiny weight among many members could leave nobody with room.
    (((bound + u128::from(rounding)) >> 32) as u32).max(1)
}

struct Walks<'a> {
    tokens: &'a [(u64, u16)],
    /// The zone of each member.
    zones: Vec<usize>,
    /// What each zone may give to one partition.
    quotas: Vec<Quota>,
    replicas: usize,
    /// How many more partitions each member takes.
    room: Vec<u32>,
    /// What each partition has, nearest first.
    lists: Vec<Vec<u16>>,
    /// What each member holds, nearest first.
    held: Vec<Vec<u16>>,
}

impl Walks<'_> {
    /// Walks until every list is full or has come full circle; the latter are returned.
    fn walk_all(&mut self) -> Vec<u16> {
        let partitions = self.lists.len() as u32;
        let mut stuck = Vec::new();
        if self.tokens.is_empty() {
            return stuck;
        }
        // (distance walked, partition, the virtual node it has come to)
        let mut walkers = BinaryHeap::new();
        for number in 0..partitions {
            let point = point_of(Partition(number as u16), partitions);
            let at = self.tokens.partition_point(|(token, _)| *token < point) % self.tokens.len();
            walkers.push(Reverse((self.tokens[at].0.wrapping_sub(point), number as u16, at)));
        }
        while let Some(Reverse((distance, partition, at))) = walkers.pop() {
            let (token, member) = self.tokens[at];
            if self.room[usize::from(member)] > 0 && self.fits(partition, member) {
                self.take(partition, member);
            }
            if self.lists[usize::from(partition)].len() == self.replicas {
                continue;
            }
            let next = (at + 1) % self.tokens.len();
            let step = self.tokens[next].0.wrapping_sub(token);
            match distance.checked_add(step) {
                Some(distance) if self.tokens.len() > 1 => {
                    walkers.push(Reverse((distance, partition, next)));
                }
                _ => stuck.push(partition),
            }
        }
        stuck.sort_unstable();
        stuck
    }

    /// Fills the lists that the walk could not fill.
    fn settle(&mut self, stuck: &[u16]) {
        let mut budget = EXCHANGE_CANDIDATES;
        for partition in stuck {
            let point = point_of(Partition(*partition), self.lists.len() as u32);
            let order = walk_order(self.tokens, self.zones.len(), point);
            while self.lists[usize::from(*partition)].len() < self.replicas {
                let fitting = order.iter().copied().filter(|member| self.fits(*partition, *member));
                let fitting: Vec<u16> = fitting.collect();
                let with_room = |member: &u16| self.room[usize::from(*member)] > 0;
                let member = (fitting.iter().copied().find(with_room))
                    .or_else(|| self.make_room(&fitting, &mut budget))
                    .or(fitting.first().copied());
                self.take(*partition, member.expect("the quotas add up to a full list"));
            }
        }
    }

    /// Makes room at one of `members` by giving a partition of its own to a member that has room.
    fn make_room(&mut self, members: &[u16], budget: &mut u64) -> Option<u16> {
        let roomy: Vec<u16> = (0u16..)
            .zip(&self.room)
            .filter(|(_, room)| **room > 0)
            .map(|(member, _)| member)
            .collect();
        for giver in members {
            // The farthest first: they are the ones that only just found a place here.
            for at in (0..self.held[usize::from(*giver)].len()).rev() {
                *budget = budget.checked_sub(roomy.len() as u64)?;
                let partition = self.held[usize::from(*giver)][at];
                let list = &mut self.lists[usize::from(partition)];
                let place = list.iter().position(|member| member == giver)?;
                list.remove(place);
                let taker = roomy.iter().find(|member| self.fits(partition, **member));
                if let Some(taker) = taker {
                    self.held[usize::from(*giver)].remove(at);
                    self.room[usize::from(*giver)] += 1;
                    self.take(partition, *taker);
                    return Some(*giver);
                }
                self.lists[usize::from(partition)].insert(place, *giver);
            }
        }
        None
    }

    /// Whether `member` may join the list of `partition`, its share aside.
    fn fits(&self, partition: u16, member: u16) -> bool {
        let list = &self.lists[usize::from(partition)];
        if list.contains(&member) {
            return false;
        }
        let given = |zone| list.iter().filter(|m| self.zones[usize::from(**m)] == zone).count();
        let zone = self.zones[usize::from(member)];
        let Quota { least, most } = self.quotas[zone];
        if given(zone) < least {
            return true;
        }
        // More than its least only from what is not owed to other zones.
        let owed = |(zone, quota): (usize, &Quota)| quota.least.saturating_sub(given(zone));
        given(zone) < most
            && list.len() + self.quotas.iter().enumerate().map(owed).sum::<usize>() < self.replicas
    }

    fn take(&mut self, partition: u16, member: u16) {
        self.lists[usize::from(partition)].push(member);
        self.held[usize::from(member)].push(partition);
        let room = &mut self.room[usize::from(member)];
        *room = room.saturating_sub(1);
    }
}

/// Sees to it that members are first in their lists in proportion to what they hold, since the
/// first of a list does most of the coordinating. This moves no data.
///
/// The nearest stays first unless it already is first as often as the bound allows; then the
/// next does it, and when all have reached theirs the one that is first least often.
fn balance_firsts(lists: &mut [Vec<u16>], held: &[Vec<u16>]) {
    let replicas = lists.first().map_or(1, Vec::len).max(1) as u64;
    let bound = |held: &Vec<u16>| {
        (held.len() as u64 * limits::SHARE_BOUND_PERCENT).div_ceil(100 * replicas)
    };
    let bounds: Vec<u64> = held.iter().map(bound).collect();
    let mut firsts = vec![0u64; held.len()];
    // Partitions in an order that has nothing to do with their place: neighbours meet the same
    // virtual nodes, and would fill up the same members one after the other.
    let mut order: Vec<(u64, usize)> =
        (0..lists.len()).map(|number| (xxh3_64(&(number as u64).to_le_bytes()), number)).collect();
    order.sort_unstable();
    for (_, number) in order {
        let list = &mut lists[number];
        let over = |member: &u16| {
            let (firsts, bound) = (firsts[usize::from(*member)], bounds[usize::from(*member)]);
            // Below the bound all are alike, and the nearest is taken.
            if firsts < bound { 0 } else { 1 + firsts - bound }
        };
        let Some(place) = (0..list.len()).min_by_key(|place| over(&list[*place])) else { return };
        firsts[usize::from(list[place])] += 1;
        list[..=place].rotate_right(1);
    }
}

/// The indexes of `members` members, in the order in which a walk from `point` meets them.
pub(super) fn walk_order(tokens: &[(u64, u16)], members: usize, point: u64) -> Vec<u16> {
    let start = tokens.partition_point(|(token, _)| *token < point);
    let mut met = vec![false; members];
    let mut order = Vec::with_capacity(members);
    for (_, member) in tokens[start..].iter().chain(&tokens[..start]) {
        if order.len() == members {
            break;
        }
        if !std::mem::replace(&mut met[usize::from(*member)], true) {
            order.push(*member);
        }
    }
    order
}
