//! The laws of the ring on small member sets, and its golden placements.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::*;
use crate::random::Random;

fn member(id: u128, zone: &str, weight: u32) -> RingMember {
    RingMember { id: NodeId(id), zone: zone.to_owned(), weight }
}

/// `count` members of random ids, with weights 50, 100, 200 in turn when `weighted`.
fn members(seed: u64, count: usize, zones: usize, weighted: bool) -> Vec<RingMember> {
    let mut random = Random::new(seed);
    let weight = |at: usize| if weighted { [50, 100, 200][at % 3] } else { 100 };
    let one = |at| member(random.next_u128(), &format!("zone-{}", at % zones), weight(at));
    (0..count).map(one).collect()
}

fn lists(ring: &Ring) -> Vec<Vec<NodeId>> {
    (0..ring.partitions()).map(|number| ring.primaries(Partition(number as u16)).to_vec()).collect()
}

#[test]
fn a_token_falls_into_the_partition_named_by_its_top_bits() {
    assert_eq!(partition_of(u64::MAX, 1), Partition(0));
    assert_eq!(partition_of(u64::MAX, 1024), Partition(1023));
    assert_eq!(partition_of(0x8000_0000_0000_0000, 65_536), Partition(0x8000));
    assert_eq!(partition_of(0x7fff_ffff_ffff_ffff, 65_536), Partition(0x7fff));
    for number in [0, 1, 513, 1023] {
        let point = point_of(Partition(number), 1024);
        assert_eq!(partition_of(point, 1024), Partition(number));
        assert_ne!(partition_of(point.wrapping_sub(1), 1024), Partition(number));
    }
}

#[test]
fn the_same_members_in_any_order_give_the_same_ring() {
    let mut random = Random::new(5);
    for seed in 0..5 {
        let mut members = members(seed, 9, 4, true);
        let before = Ring::new(&members, 64, 3);
        for at in (1..members.len()).rev() {
            members.swap(at, random.below(at as u64 + 1) as usize);
        }
        let after = Ring::new(&members, 64, 3);
        assert_eq!(lists(&before), lists(&after));
        assert_eq!(before.shares(), after.shares());
        assert!(moves(&before, &after).is_empty());
    }
}

#[test]
fn every_list_is_distinct_as_long_as_it_can_be_and_spread_over_the_zones() {
    for count in 0..=8 {
        for zones in 1..=5 {
            for replicas in 0..=5 {
                let members = members(7, count, zones, count % 2 == 0);
                let ring = Ring::new(&members, 32, replicas);
                let expected = count.min(usize::from(replicas));
                let all_zones: BTreeSet<&str> = members.iter().map(|m| m.zone.as_str()).collect();
                for list in lists(&ring) {
                    assert_eq!(list.len(), expected);
                    assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), expected);
                    let held = members.iter().filter(|m| list.contains(&m.id));
                    let held: BTreeSet<&str> = held.map(|m| m.zone.as_str()).collect();
                    assert_eq!(held.len(), all_zones.len().min(expected));
                }
            }
        }
    }
}

#[test]
fn primaries_and_fallbacks_together_name_every_member_once() {
    for count in [0, 1, 2, 7] {
        let members = members(11, count, 3, false);
        let ring = Ring::new(&members, 32, 3);
        let everyone: BTreeSet<NodeId> = members.iter().map(|m| m.id).collect();
        for number in 0..32 {
            let mut named = ring.primaries(Partition(number)).to_vec();
            named.extend(ring.fallbacks(Partition(number)));
            assert_eq!(named.len(), count);
            assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), everyone);
        }
    }
}

#[test]
fn sets_made_to_be_awkward_still_get_a_ring() {
    let heavy_and_light: Vec<_> =
        (1..=40).map(|id| member(id, "z", if id == 1 { 1000 } else { 1 })).collect();
    let one_zone_for_most: Vec<_> =
        (1..=40).map(|id| member(id, if id > 3 { "big" } else { "small" }, 100)).collect();
    for members in [heavy_and_light, one_zone_for_most] {
        for partitions in [1, 32, 1024] {
            let ring = Ring::new(&members, partitions, 3);
            let owned: u32 = ring.shares().iter().map(|share| share.owned).sum();
            assert_eq!(owned, partitions * 3);
        }
    }
    // 65,536 is the most there can be: partition numbers reach the end of their type.
    let ring = Ring::new(&members(1, 5, 1, false), 65_536, 3);
    assert_eq!(ring.primaries(Partition(u16::MAX)).len(), 3);
}

#[test]
fn moves_name_exactly_what_must_be_copied() {
    let mut members = members(3, 6, 1, false);
    let after = Ring::new(&members, 128, 3);
    let joined = members.pop().unwrap().id;
    let before = Ring::new(&members, 128, 3);
    let mut copied = lists(&before);
    for step in moves(&before, &after) {
        let list = &mut copied[usize::from(step.partition.0)];
        list.retain(|id| Some(*id) != step.from);
        list.push(step.to);
    }
    for (copied, wanted) in copied.iter_mut().zip(lists(&after)) {
        copied.sort_unstable();
        let mut wanted = wanted;
        wanted.sort_unstable();
        assert_eq!(*copied, wanted);
    }
    let gained = moves(&before, &after).iter().filter(|step| step.to == joined).count();
    let owned = after.shares().iter().find(|share| share.id == joined).unwrap().owned;
    assert_eq!(gained as u32, owned);

    let first = Ring::new(&members[..2], 32, 3);
    let third = Ring::new(&members[..3], 32, 3);
    assert!(moves(&first, &third).iter().all(|step| step.from.is_none()));
}

/// The lists as text, members named by their place in `members`.
fn drawing(members: &[RingMember], replicas: u8) -> String {
    let name = |id: &NodeId| members.iter().position(|m| m.id == *id).unwrap().to_string();
    let names = |ids: &[NodeId]| ids.iter().map(name).collect::<Vec<_>>().join(" ");
    let ring = Ring::new(members, 32, replicas);
    let mut text = String::from("# partition: primaries | fallbacks, members by number\n");
    for (number, member) in members.iter().enumerate() {
        let RingMember { id, zone, weight } = member;
        writeln!(text, "# {number} = {id} in {zone} of weight {weight}").unwrap();
    }
    for partition in (0..32).map(Partition) {
        let primaries = names(ring.primaries(partition));
        let fallbacks = names(&ring.fallbacks(partition));
        writeln!(text, "{partition}: {primaries} | {fallbacks}").unwrap();
    }
    text
}

#[test]
fn placements_are_what_they_were() {
    // Golden: a change here moves the data of every cluster. RINGDOVE_GOLDEN=write rewrites them.
    let cases = [
        ("one", members(1, 1, 1, false)),
        ("three", members(2, 3, 1, false)),
        ("five", members(3, 5, 1, false)),
        ("five-weighted", members(4, 5, 1, true)),
        ("six-in-three-zones", members(5, 6, 3, false)),
        ("seven-weighted-in-four-zones", members(6, 7, 4, true)),
    ];
    for (name, members) in cases {
        let path = format!("{}/tests/golden/ring/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let drawn = drawing(&members, 3);
        if std::env::var("RINGDOVE_GOLDEN").is_ok_and(|mode| mode == "write") {
            std::fs::write(&path, &drawn).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), drawn, "{name}");
    }
}
