//! What is fair: how many partition replicas each member should hold.
//!
//! In proportion to its weight, would be the answer, if a member could hold two replicas of one
//! partition and zones did not matter. Both do, so the answer is *water-filling*. Pour replicas
//! over the members at one level for all, `level × weight` each, where
//!
//! - a member takes no more than one replica of each partition, and
//! - a zone takes no more and no less than the rule of distinct zones gives it: with [`Quota`]s
//!   `least` and `most`, between `least × Q` and `most × Q`;
//!
//! and raise the level until all `N × Q` replicas are poured. What a full member cannot take so
//! goes to the others, and within a zone that was held back (or filled up) the zone's members
//! share in proportion to their weights again. Where no member and no zone is at its limit this
//! is exactly `N × Q × weight / sum of weights`.
//!
//! Everything is in fixed point, 2⁻³² of a replica, so that all machines agree.

/// One replica in fixed point.
pub(super) const ONE: u64 = 1 << 32;

/// How many replicas of *one* partition a zone takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Always as many as this.
    pub least: usize,
    /// Never more than this.
    pub most: usize,
}

/// Spreads `replicas` of one partition over zones of the given sizes as evenly as they allow: no
/// zone takes one more than another that still has a member to offer.
///
/// With at least as many zones as replicas no zone takes two; with fewer every zone takes one.
pub(super) fn quotas(zone_sizes: &[usize], replicas: usize) -> Vec<Quota> {
    let filled_to = |level: usize| zone_sizes.iter().map(|size| (*size).min(level)).sum::<usize>();
    let level = (0..=replicas).rev().find(|level| filled_to(*level) <= replicas).unwrap_or(0);
    // What is left over goes, partition by partition, to zones that have one more to offer.
    let next = level + usize::from(filled_to(level) < replicas);
    let quota = |size: &usize| Quota { least: (*size).min(level), most: (*size).min(next) };
    zone_sizes.iter().map(quota).collect()
}

/// The fair share of each member, in the order of `weights`.
///
/// `zones[i]` is the number of member i's zone, an index of `quotas`. `replicas` is for one
/// partition and no more than there are members.
pub(super) fn fair_shares(
    weights: &[u32],
    zones: &[usize],
    quotas: &[Quota],
    partitions: u32,
    replicas: usize,
) -> Vec<u64> {
    let all = u64::from(partitions) * ONE;
    let share = |level: u64, member: usize| (level * u64::from(weights[member])).min(all);
    let mut members_of = vec![Vec::new(); quotas.len()];
    for (member, zone) in zones.iter().enumerate() {
        members_of[*zone].push(member);
    }
    let unbounded = |level, zone: usize| -> u64 {
        members_of[zone].iter().map(|member| share(level, *member)).sum()
    };
    let bounded = |level, zone: usize| {
        let Quota { least, most } = quotas[zone];
        unbounded(level, zone).clamp(least as u64 * all, most as u64 * all)
    };
    let total = |level| (0..quotas.len()).map(|zone| bounded(level, zone)).sum();
    let level = lowest_level(all, replicas as u64 * all, total);

    let mut shares = vec![0; weights.len()];
    for (zone, members) in members_of.iter().enumerate() {
        let goal = bounded(level, zone);
        let level = lowest_level(all, goal, |level| unbounded(level, zone));
        for member in members {
            shares[*member] = share(level, *member);
        }
    }
    shares
}

/// The lowest level at which `poured` reaches `goal`; `most` when none does. `poured` never falls.
fn lowest_level(most: u64, goal: u64, poured: impl Fn(u64) -> u64) -> u64 {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low.midpoint(high);
        if poured(middle) >= goal {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32], zones: &[usize], partitions: u32, replicas: usize) -> Vec<u64> {
        let mut sizes = vec![0; zones.iter().max().map_or(0, |last| last + 1)];
        for zone in zones {
            sizes[*zone] += 1;
        }
        let exact = fair_shares(weights, zones, &quotas(&sizes, replicas), partitions, replicas);
        // The fixed point is off by far less than half a replica.
        exact.iter().map(|share| (share + ONE / 2) / ONE).collect()
    }

    #[test]
    fn without_limits_in_the_way_shares_follow_weights() {
        assert_eq!(shares(&[100; 6], &[0; 6], 1024, 3), [512; 6]);
        assert_eq!(
            shares(&[50, 100, 200, 50, 100, 200, 300], &[0; 7], 1000, 2).iter().sum::<u64>(),
            2000
        );
        assert_eq!(shares(&[50, 100, 150, 200], &[0; 4], 1000, 1), [100, 200, 300, 400]);
    }

    #[test]
    fn nobody_takes_two_replicas_of_a_partition_and_the_others_share_the_rest() {
        assert_eq!(shares(&[1000, 100, 100], &[0; 3], 1000, 2), [1000, 500, 500]);
        assert_eq!(shares(&[1, 1000, 30], &[0; 3], 1000, 3), [1000; 3]);
    }

    #[test]
    fn three_zones_take_a_replica_each_whatever_their_size() {
        assert_eq!(shares(&[100; 4], &[0, 0, 1, 2], 1000, 3), [500, 500, 1000, 1000]);
        assert_eq!(shares(&[100, 300, 100, 7], &[0, 0, 1, 2], 1000, 3), [250, 750, 1000, 1000]);
    }

    #[test]
    fn with_fewer_zones_than_replicas_each_zone_takes_one_before_any_takes_another() {
        let quota = |least, most| Quota { least, most };
        assert_eq!(quotas(&[3, 3], 3), [quota(1, 2), quota(1, 2)]);
        assert_eq!(quotas(&[3, 3], 4), [quota(2, 2), quota(2, 2)]);
        assert_eq!(quotas(&[5, 1], 4), [quota(3, 3), quota(1, 1)]);
        assert_eq!(quotas(&[1, 2, 9, 1], 3), [quota(0, 1); 4]);
        assert_eq!(quotas(&[], 0), []);
        assert_eq!(
            shares(&[100; 6], &[0, 0, 0, 0, 0, 1], 1000, 3),
            [400, 400, 400, 400, 400, 1000]
        );
    }
}
