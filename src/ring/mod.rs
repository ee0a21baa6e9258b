//! Where a key lives: partitions, tokens, preference lists, and what moves between two rings.
//!
//! The tokens, 64-bit hashes of keys, close to a ring. It is cut into Q equal **partitions**, and
//! each member stands on it at many points, its **virtual nodes**, in proportion to its weight.
//! The **preference list** of a partition is found by walking clockwise from its first token:
//!
//! ```text
//!        p7   0   p0
//!      .----------c-.        p0 walks:  c, a, (c again), b      list of p0: c a b
//!  p6 b    ---->     a p1
//!     |              c       N = 3 members, all distinct, zones distinct while there are any
//!  p5 a              b p2    left to choose from; a member that has its share is passed by.
//!      `-a----------'        The walk goes on to name the fallbacks.
//!        p4       p3
//! ```
//!
//! What always holds:
//!
//! - The same members give the same ring, on every machine, in whatever order they are listed:
//!   integers only, nothing random, no state from earlier rings.
//! - The members of a list are distinct, and there are N of them, or all when there are fewer.
//! - A list covers as many zones as there are, up to N, and its replicas are spread over them as
//!   evenly as their members allow.
//! - No member holds more than 1.10 of its fair share, rounded up ("Consistent Hashing with
//!   Bounded Loads", Mirrokni, Thorup and Zadimoghaddam, 2018). What is fair when weights and zones
//!   pull in different directions is defined in `fairness`; how the bound is kept, in `placement`.
//! - A join or a leave moves little more than it must: docs/adr/0002-ring-placement.md has the
//!   figures and what else was tried, `tests/ring_quality.rs` measures them.

mod fairness;
mod moves;
mod placement;

pub use moves::{Move, moves};

use crate::ids::{NodeId, Partition};
use crate::limits;

/// A member, as far as the ring is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingMember {
    /// Who it is.
    pub id: NodeId,
    /// Where it stands: replicas of a partition avoid sharing a zone.
    pub zone: String,
    /// Its capacity in hundredths of a normal member, 1 to [`limits::WEIGHT_MAX`].
    pub weight: u32,
}

/// How much of the ring a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The member.
    pub id: NodeId,
    /// Partition replicas it holds.
    pub owned: u32,
    /// Partitions of which it is the first primary.
    pub first: u32,
    /// Its fair share in thousandths of a partition replica.
    pub fair_thousandths: u32,
    /// What it holds over its fair share, in hundredths of a percent: 10,000 is exactly fair.
    pub owned_per_fair: u32,
}

/// The partition that `token` falls into: its top log2(`partitions`) bits.
///
/// `partitions` is a power of two, at most [`limits::PARTITIONS_MAX`].
#[must_use]
pub fn partition_of(token: u64, partitions: u32) -> Partition {
    debug_assert!(partitions.is_power_of_two() && partitions <= limits::PARTITIONS_MAX);
    // A product instead of a shift: a shift by 64, for one partition, is not defined.
    Partition(((u128::from(token) * u128::from(partitions)) >> 64) as u16)
}

/// The first token of a partition, where its walk begins.
fn point_of(partition: Partition, partitions: u32) -> u64 {
    ((u128::from(partition.0) << 64) / u128::from(partitions)) as u64
}

/// An immutable placement: a pure function of the member set.
#[derive(Debug)]
pub struct Ring {
    partitions: u32,
    replicas: u8,
    /// Length of each preference list: `replicas`, or all members when they are fewer.
    list: usize,
    /// In order of id.
    members: Vec<NodeId>,
    /// Fair shares of `members`.
    fair: Vec<u64>,
    /// Virtual nodes in order, each with an index of `members`.
    tokens: Vec<(u64, u16)>,
    /// The preference lists, one behind the other.
    primaries: Vec<NodeId>,
}

impl Ring {
    /// Places `n` replicas of each of `partitions` partitions over `members`, in any order.
    ///
    /// Without members, or with an `n` of 0, all lists are empty.
    ///
    /// # Panics
    /// When `partitions` is not a power of two, or there are more members than [`limits::MEMBERS`].
    #[must_use]
    pub fn new(members: &[RingMember], partitions: u32, n: u8) -> Self {
        assert!(partitions.is_power_of_two() && partitions <= limits::PARTITIONS_MAX);
        assert!(members.len() <= limits::MEMBERS);
        let mut members = members.to_vec();
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        let list = usize::from(n).min(members.len());
        let tokens = placement::tokens(&members, partitions);
        let placement = placement::place(&members, &tokens, partitions, list);
        let members: Vec<NodeId> = members.iter().map(|member| member.id).collect();
        let named = placement.lists.iter().flatten().map(|member| members[usize::from(*member)]);
        let primaries = named.collect();
        Self { partitions, replicas: n, list, fair: placement.fair, members, tokens, primaries }
    }

    /// Partitions of the ring.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Replicas asked for. A preference list is shorter when there are fewer members.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// Who holds `partition`, in order of preference.
    #[must_use]
    pub fn primaries(&self, partition: Partition) -> &[NodeId] {
        let start = usize::from(partition.0) * self.list;
        &self.primaries[start..start + self.list]
    }

    /// Who stands in for a primary that is down, in order of preference: all other members, in
    /// the order in which the walk meets them. Their zones play no part.
    #[must_use]
    pub fn fallbacks(&self, partition: Partition) -> Vec<NodeId> {
        let point = point_of(partition, self.partitions);
        let order = placement::walk_order(&self.tokens, self.members.len(), point);
        let primaries = self.primaries(partition);
        let named = order.into_iter().map(|member| self.members[usize::from(member)]);
        named.filter(|id| !primaries.contains(id)).collect()
    }

    /// What each member holds, in order of id.
    #[must_use]
    pub fn shares(&self) -> Vec<Share> {
        let mut shares: Vec<Share> = self
            .members
            .iter()
            .map(|id| Share { id: *id, owned: 0, first: 0, fair_thousandths: 0, owned_per_fair: 0 })
            .collect();
        if self.list == 0 {
            return shares;
        }
        let index = |id: &NodeId| self.members.binary_search(id).expect("a primary is a member");
        for list in self.primaries.chunks(self.list) {
            shares[index(&list[0])].first += 1;
            for id in list {
                shares[index(id)].owned += 1;
            }
        }
        for (share, fair) in shares.iter_mut().zip(&self.fair) {
            let owned = u128::from(share.owned) * 10_000 * u128::from(fairness::ONE);
            share.fair_thousandths = ((u128::from(*fair) * 1000) >> 32) as u32;
            share.owned_per_fair = owned.checked_div(u128::from(*fair)).unwrap_or(0) as u32;
        }
        shares
    }
}

#[cfg(test)]
mod tests;
