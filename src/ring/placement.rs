//! Who holds what: the walk, for all partitions at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::fairness::{ONE, Quota, fair_shares, quotas};
use super::{RingMember, point_of, tokens_of};
use crate::ids::{NodeId, Partition};
use crate::limits;

/// The tokens of all members, in order, each with the index of its member.
pub(super) fn tokens(members: &[RingMember]) -> Vec<(u64, u16)> {
    let indexed = members.iter().zip(0..=u16::MAX);
    let mut tokens: Vec<(u64, u16)> = indexed
        .flat_map(|(member, index)| tokens_of(member).map(move |token| (token, index)))
        .collect();
    tokens.sort_unstable();
    tokens
}

/// Result of a placement.
pub(super) struct Placement {
    /// Member indexes, `replicas` for each partition.
    pub primaries: Vec<u16>,
    /// Fair shares by member index, in fixed point.
    pub fair: Vec<u64>,
}

struct Walks<'a> {
    tokens: &'a [(u64, u16)],
    zones: Vec<usize>,
    quotas: Vec<Quota>,
    room: Vec<u32>,
    chosen: Vec<Vec<u16>>,
    replicas: usize,
}

impl Walks<'_> {
    fn zone_has_room(&self, chosen: &[u16], zone: usize) -> bool {
        let in_zone = |zone| chosen.iter().filter(|m| self.zones[usize::from(**m)] == zone).count();
        let Quota { least, most } = self.quotas[zone];
        let taken = in_zone(zone);
        if taken < least {
            return true;
        }
        let owed: usize =
            (0..self.quotas.len()).map(|z| self.quotas[z].least.saturating_sub(in_zone(z))).sum();
        taken < most && chosen.len() + owed < self.replicas
    }

    fn fits(&self, partition: usize, member: u16) -> bool {
        let chosen = &self.chosen[partition];
        !chosen.contains(&member) && self.zone_has_room(chosen, self.zones[usize::from(member)])
    }

    fn take(&mut self, partition: usize, member: u16) {
        self.chosen[partition].push(member);
        let room = &mut self.room[usize::from(member)];
        *room = room.saturating_sub(1);
    }
}

pub(super) fn place(
    members: &[RingMember],
    tokens: &[(u64, u16)],
    partitions: u32,
    replicas: usize,
) -> Placement {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for member in members {
        let next = names.len();
        names.entry(&member.zone).or_insert(next);
    }
    let zones: Vec<usize> = members.iter().map(|member| names[member.zone.as_str()]).collect();
    let mut sizes = vec![0; names.len()];
    for zone in &zones {
        sizes[*zone] += 1;
    }
    let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
    let quotas = quotas(&sizes, replicas);
    let fair = fair_shares(&weights, &zones, &quotas, partitions, replicas);
    let bound = |fair: &u64| {
        let bound = u128::from(*fair) * u128::from(limits::SHARE_BOUND_PERCENT);
        bound.div_ceil(u128::from(ONE) * 100).min(u128::from(partitions)) as u32
    };
    let room = fair.iter().map(bound).collect();
    let chosen = vec![Vec::with_capacity(replicas); partitions as usize];
    let mut walks = Walks { tokens, zones, quotas, room, chosen, replicas };
    walks.all_at_once(partitions);
    let primaries = walks.chosen.concat();
    Placement { primaries, fair }
}

impl Walks<'_> {
    fn all_at_once(&mut self, partitions: u32) {
        let mut heap = BinaryHeap::new();
        for number in 0..partitions {
            let point = point_of(Partition(number as u16), partitions);
            let start = self.tokens.partition_point(|(token, _)| *token < point);
            if let Some((token, _)) = self.tokens.get(start % self.tokens.len().max(1)) {
                heap.push(Reverse((token.wrapping_sub(point), number, start)));
            }
        }
        let mut stuck = Vec::new();
        while let Some(Reverse((distance, number, at))) = heap.pop() {
            let partition = number as usize;
            let (token, member) = self.tokens[at % self.tokens.len()];
            if self.room[usize::from(member)] > 0 && self.fits(partition, member) {
                self.take(partition, member);
            }
            if self.chosen[partition].len() == self.replicas {
                continue;
            }
            let next = self.tokens[(at + 1) % self.tokens.len()].0;
            let step = next.wrapping_sub(token);
            match distance.checked_add(step) {
                Some(further) => heap.push(Reverse((further, number, at + 1))),
                None => stuck.push((number, at + 1)),
            }
        }
        for (number, at) in stuck {
            for (_, member) in self.tokens[at % self.tokens.len()..].iter().chain(self.tokens) {
                if self.chosen[number as usize].len() < self.replicas
                    && self.fits(number as usize, *member)
                {
                    self.take(number as usize, *member);
                }
            }
        }
    }
}

/// Members in the order in which the walk from `partition` meets them.
pub(super) fn walk_order(tokens: &[(u64, u16)], members: &[NodeId], point: u64) -> Vec<NodeId> {
    let start = tokens.partition_point(|(token, _)| *token < point);
    let mut met = vec![false; members.len()];
    let mut order = Vec::with_capacity(members.len());
    for (_, member) in tokens[start..].iter().chain(&tokens[..start]) {
        let met = &mut met[usize::from(*member)];
        if !*met {
            *met = true;
            order.push(members[usize::from(*member)]);
        }
        if order.len() == members.len() {
            break;
        }
    }
    order
}
