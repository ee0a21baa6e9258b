//! How good the placement is: even shares, few moves, distinct zones, spread first primaries.
//!
//! Prints a table and holds each row to its limits. A debug build measures up to 32 members; a
//! release build, or `RINGDOVE_FULL=1`, up to 1,000:
//!
//! ```text
//! cargo test --release --no-default-features --test ring_quality -- --nocapture
//! ```
//!
//! What is *ideal* for a change of the member set is what must move whatever the placement: the
//! sum of what fair shares gain by it. For equal weights and no zones that is the fair share of
//! the member that joined or left.

use std::collections::{BTreeMap, BTreeSet};

use ringdove::ids::{NodeId, Partition};
use ringdove::limits::SHARE_BOUND_PERCENT;
use ringdove::random::Random;
use ringdove::ring::{Ring, RingMember, moves};

const REPLICAS: u8 = 3;

/// One row: a kind of cluster, and what was seen over several of that kind.
struct Case {
    members: usize,
    weighted: bool,
    zones: usize,
    /// Largest share of a member over its fair share.
    share: f64,
    /// What joins moved over the ideal, one by one; and what leaves did.
    joins: Vec<f64>,
    leaves: Vec<f64>,
    /// Most partitions a member is first for, over a third of its fair share.
    first: f64,
}

impl Case {
    fn partitions(&self) -> u32 {
        (32 * self.members as u32).next_power_of_two().max(1024)
    }

    fn member(&self, random: &mut Random, at: usize) -> RingMember {
        RingMember {
            id: NodeId(random.next_u128()),
            zone: format!("zone-{}", at % self.zones),
            weight: if self.weighted { [50, 100, 200][at % 3] } else { 100 },
        }
    }

    /// Measures one cluster, `changes` members that join it and as many that leave it.
    fn measure(&mut self, seed: u64, changes: usize) {
        let mut random = Random::new(seed);
        let members: Vec<_> = (0..self.members).map(|at| self.member(&mut random, at)).collect();
        let ring = self.ring(&members);
        for change in 0..changes.min(self.members) {
            let mut more = members.clone();
            more.push(self.member(&mut random, self.members + change));
            let after = self.ring(&more);
            self.joins.push(moved_per_ideal(&ring, &after));
            // Of three members all hold everything, and nothing can move when one leaves.
            if self.members > usize::from(REPLICAS) {
                let mut fewer = members.clone();
                fewer.remove(change * self.members / changes.min(self.members));
                let after = self.ring(&fewer);
                self.leaves.push(moved_per_ideal(&ring, &after));
            }
        }
    }

    /// The ring of `members`, checked for what holds without exception.
    fn ring(&mut self, members: &[RingMember]) -> Ring {
        let ring = Ring::new(members, self.partitions(), REPLICAS);
        let zone_of: BTreeMap<NodeId, &str> =
            members.iter().map(|member| (member.id, member.zone.as_str())).collect();
        let zones = zone_of.values().collect::<BTreeSet<_>>().len();
        for number in 0..self.partitions() {
            let list = ring.primaries(Partition(number as u16));
            assert_eq!(list.len(), usize::from(REPLICAS));
            assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), usize::from(REPLICAS));
            let covered = list.iter().map(|id| zone_of[id]).collect::<BTreeSet<_>>().len();
            assert_eq!(covered, zones.min(usize::from(REPLICAS)), "partition {number}");
        }
        for share in ring.shares() {
            let fair = f64::from(share.fair_thousandths) / 1000.0;
            let bound = (fair * SHARE_BOUND_PERCENT as f64 / 100.0 + 0.001).ceil();
            assert!(f64::from(share.owned) <= bound, "{share:?} is above its bound of {bound}");
            self.share = self.share.max(f64::from(share.owned) / fair);
            self.first = self.first.max(f64::from(share.first) * f64::from(REPLICAS) / fair);
        }
        ring
    }

    /// Whether this is one of the rows whose mean does **not** reach 1.20: four zones, which three
    /// replicas fill nearly but not quite, with few members. What has been tried against it is in
    /// docs/adr/0002-ring-placement.md; the limits only keep it from getting worse.
    fn is_tight(&self) -> bool {
        self.zones == 4 && (7..=16).contains(&self.members)
    }

    /// Most that joins, and most that leaves, may move over the ideal on average.
    fn mean_limit(&self) -> f64 {
        let limit = if self.is_tight() { 1.40 } else { 1.20 };
        // A debug build measures four changes a row, too few to know a mean by.
        if self.joins.len() < 10 { limit + 0.10 } else { limit }
    }

    /// Most that any single change may move over the ideal: 1.20 is **not** reached.
    fn single_limit(&self) -> f64 {
        if self.is_tight() { 2.05 } else { 1.50 }
    }

    /// Prints the row and says whether it is within its limits.
    fn print_and_check(&self) -> bool {
        let (join, join_most) = mean_and_most(&self.joins);
        let (leave, leave_most) = mean_and_most(&self.leaves);
        println!(
            "{:>7}  {:<7} {:>5}  {:>5.3}  {join:.3} {join_most:.3}  {leave:.3} {leave_most:.3}  {:.2}",
            self.members,
            if self.weighted { "unequal" } else { "equal" },
            self.zones,
            self.share,
            self.first,
        );
        let means_hold = join.max(leave) <= self.mean_limit();
        let most_hold = join_most.max(leave_most) <= self.single_limit();
        means_hold && most_hold && self.first <= 1.40
    }
}

fn moved_per_ideal(before: &Ring, after: &Ring) -> f64 {
    let fair = |ring: &Ring| -> BTreeMap<NodeId, f64> {
        let fair = |share: &ringdove::ring::Share| f64::from(share.fair_thousandths) / 1000.0;
        ring.shares().iter().map(|share| (share.id, fair(share))).collect()
    };
    let old = fair(before);
    let gained = |(id, new): (&NodeId, &f64)| (new - old.get(id).unwrap_or(&0.0)).max(0.0);
    let ideal: f64 = fair(after).iter().map(gained).sum();
    moves(before, after).len() as f64 / ideal
}

fn mean_and_most(values: &[f64]) -> (f64, f64) {
    let most = values.iter().copied().fold(0.0, f64::max);
    (values.iter().fold(0.0, |sum, value| sum + value) / values.len().max(1) as f64, most)
}

#[test]
fn shares_are_even_and_changes_move_little() {
    let full = !cfg!(debug_assertions) || std::env::var("RINGDOVE_FULL").is_ok_and(|v| v == "1");
    let sizes: &[usize] = if full {
        &[3, 4, 5, 7, 10, 16, 32, 64, 100, 300, 1000]
    } else {
        &[3, 4, 5, 7, 10, 16, 32]
    };
    let mut beyond = Vec::new();
    println!("members  weights zones  share  join: mean most  leave: mean most  first");
    for &members in sizes {
        for weighted in [false, true] {
            for zones in 1..=5 {
                let (joins, leaves) = (Vec::new(), Vec::new());
                let mut case =
                    Case { members, weighted, zones, share: 0.0, joins, leaves, first: 0.0 };
                for seed in 0..if full { 5 } else { 2 } {
                    case.measure(seed, if full { 5 } else { 2 });
                }
                if !case.print_and_check() {
                    beyond.push(format!("{members} members, weighted: {weighted}, {zones} zones"));
                }
            }
        }
    }
    assert!(beyond.is_empty(), "rows beyond their limits: {beyond:#?}");
}
