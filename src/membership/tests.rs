//! Laws of merging, what follows from a state, and how slots change hands.

use std::collections::BTreeSet;

use super::*;
use crate::ids::{NodeId, Partition, Scope};
use crate::limits;
use crate::random::Random;
use crate::wire::messages::BucketSettings;

pub(super) const PARTITIONS: u32 = 64;

pub(super) fn id(number: u128) -> NodeId {
    NodeId(number)
}

pub(super) fn candidate(number: u128) -> MemberEntry {
    let contact = Contact {
        name: format!("n{number}"),
        address: format!("10.0.0.{number}:7400"),
        text_address: String::new(),
    };
    MemberEntry::candidate(id(number), contact, "a", limits::WEIGHT_NORMAL)
}

/// A state that has not formed.
pub(super) fn forming(numbers: &[u128]) -> ClusterState {
    let mut state = ClusterState::new("test", PARTITIONS);
    for number in numbers {
        state.enter(id(*number), candidate(*number));
    }
    state
}

pub(super) fn formed(numbers: &[u128]) -> ClusterState {
    let mut state = forming(numbers);
    assert!(state.form(numbers.len()));
    state
}

/// The state with one more member, which owns nothing yet.
pub(super) fn joined(mut state: ClusterState, number: u128) -> ClusterState {
    state.enter(id(number), candidate(number));
    state.members.get_mut(&id(number)).unwrap().standing = Standing::Member;
    state
}

pub(super) fn standing(mut state: ClusterState, number: u128, standing: Standing) -> ClusterState {
    state.members.get_mut(&id(number)).unwrap().standing = standing;
    state
}

pub(super) fn merged(left: &ClusterState, right: &ClusterState) -> ClusterState {
    let mut left = left.clone();
    left.merge(right).unwrap();
    left
}

pub(super) fn partitions() -> impl Iterator<Item = Partition> {
    (0..PARTITIONS).map(|number| Partition(number as u16))
}

/// Gives slots with a successor to it, `most` of them, in an order drawn from `random`.
pub(super) fn move_some(
    state: &mut ClusterState,
    scope: impl Into<Scope>,
    most: usize,
    random: &mut Random,
) -> usize {
    let (mut moved, scope) = (0, scope.into());
    while moved < most {
        let topology = Topology::new(state.clone());
        let open = partitions().flat_map(|partition| {
            let slots = topology.slots(partition, scope).iter().enumerate();
            let open = slots.filter_map(|(at, slot)| Some((at, *slot, slot.successor?)));
            open.map(move |(slot, expected, to)| HandOver { scope, partition, slot, expected, to })
        });
        let open: Vec<HandOver> = open.collect();
        if open.is_empty() {
            break;
        }
        assert!(state.hand_over(&open[random.below(open.len() as u64) as usize]));
        moved += 1;
    }
    moved
}

/// States that differ in every part that can differ.
fn various() -> Vec<ClusterState> {
    let base = formed(&[1, 2, 3]);
    let mut random = Random::new(7);
    let mut states = vec![forming(&[1]), forming(&[2, 9]), base.clone()];
    let mut state = base.clone();
    let entry = state.members.get_mut(&id(1)).unwrap();
    entry.zone.set("b".to_owned());
    entry.planned.set(Some(PlannedChange::Leave));
    states.push(state);
    let mut state = base.clone();
    let entry = state.members.get_mut(&id(1)).unwrap();
    entry.zone.set("c".to_owned());
    entry.weight.set(300);
    states.push(state);
    let mut state = joined(base.clone(), 4);
    move_some(&mut state, 3, 10, &mut random);
    assert!(state.add_bucket("few", BucketSettings { n: 2, ..BucketSettings::default() }));
    states.push(state);
    let mut state = joined(base.clone(), 5);
    move_some(&mut state, 3, 20, &mut random);
    let settings = BucketSettings { n: 2, ttl_ms: Some(9), ..BucketSettings::default() };
    assert!(state.add_bucket("few", settings));
    states.push(state);
    states.push(standing(base.clone(), 2, Standing::Leaving));
    states.push(standing(base, 2, Standing::Removed));
    states
}

#[test]
fn merging_is_idempotent_commutative_and_associative() {
    let states = various();
    for a in &states {
        assert_eq!(merged(a, a), *a);
        for b in &states {
            let both = merged(a, b);
            assert_eq!(both, merged(b, a));
            assert_eq!(both != *a, a.clone().merge(b).unwrap(), "says whether it changed");
            for c in &states {
                assert_eq!(merged(&both, c), merged(a, &merged(b, c)));
            }
        }
    }
}

#[test]
fn concurrent_changes_of_different_things_of_one_member_both_survive() {
    let (mut left, mut right) = (formed(&[1, 2, 3]), formed(&[1, 2, 3]));
    left.members.get_mut(&id(1)).unwrap().weight.set(200);
    right.members.get_mut(&id(1)).unwrap().zone.set("b".to_owned());
    let both = merged(&left, &right);
    let entry = &both.members[&id(1)];
    assert_eq!((entry.weight(), entry.zone()), (200, "b"));
}

#[test]
fn removed_is_final() {
    let gone = standing(formed(&[1, 2]), 1, Standing::Removed);
    let mut back = formed(&[1, 2]);
    back.members.get_mut(&id(1)).unwrap().contact.version = 9;
    assert_eq!(merged(&gone, &back).members[&id(1)].standing, Standing::Removed);
    assert_eq!(merged(&gone, &back).present().count(), 1);
}

#[test]
fn states_of_other_clusters_are_refused_and_change_nothing() {
    let mut ours = formed(&[1]);
    let before = ours.clone();
    let mut theirs = forming(&[2]);
    theirs.cluster = "other".to_owned();
    assert!(matches!(ours.merge(&theirs), Err(StateError::OtherCluster { .. })));
    let mut theirs = forming(&[2]);
    theirs.partitions = 128;
    assert!(matches!(ours.merge(&theirs), Err(StateError::OtherPartitions { .. })));
    assert!(matches!(ours.merge(&formed(&[1, 2])), Err(StateError::OtherFormation { .. })));
    assert_eq!(ours, before);
}

#[test]
fn nodes_that_know_the_same_candidates_form_the_same_cluster_each_alone() {
    let mut one = forming(&[1, 2]);
    assert!(!one.form(3), "one is missing");
    one.merge(&forming(&[3])).unwrap();
    let mut two = forming(&[3, 2, 1]);
    assert!(one.form(3) && two.form(3));
    assert_eq!(one, two);
    assert!(!one.form(3), "it has formed");
    let topology = Topology::new(one);
    for partition in partitions() {
        let primaries = topology.primaries(partition, 3);
        assert_eq!(primaries.iter().collect::<BTreeSet<_>>().len(), 3);
        let slots = topology.slots(partition, 3).iter();
        assert!(slots.clone().all(|slot| slot.version == 1 && slot.successor.is_none()));
        let owners: Vec<NodeId> = slots.filter_map(|slot| slot.owner).collect();
        assert_eq!(owners, primaries, "as the ring says");
    }
}

#[test]
fn a_newcomer_brings_itself_and_nothing_else_into_a_formed_cluster() {
    let cluster = formed(&[1, 2, 3]);
    let mut newcomer = forming(&[4]);
    let default = newcomer.buckets.get_mut("default").unwrap();
    default.settings.n = 13;
    default.version = 9;
    let both = merged(&newcomer, &cluster);
    assert_eq!(both.members[&id(4)].standing, Standing::Candidate);
    assert_eq!((&both.buckets, &both.slots), (&cluster.buckets, &cluster.slots));
    assert_eq!(both, merged(&cluster, &newcomer));
    assert_eq!(Topology::new(both).changing(), 0, "a candidate is in no ring");
}

#[test]
fn a_formed_cluster_takes_note_of_so_many_candidates_and_no_more() {
    let mut state = formed(&[1, 2, 3]);
    let candidates = limits::CANDIDATES as u128;
    for number in 10..10 + candidates {
        assert_eq!(state.admits(id(number)), Ok(()));
        state.merge(&forming(&[number])).unwrap();
    }
    assert_eq!(state.admits(id(9)), Err(StateError::TooManyCandidates));
    assert_eq!(state.admits(id(1)), Ok(()), "a member is known");
    assert_eq!(state.admits(id(10)), Ok(()), "and so is a candidate");
    state.members.get_mut(&id(10)).unwrap().standing = Standing::Removed;
    assert_eq!(state.admits(id(9)), Ok(()));
}

#[test]
fn a_join_gives_slots_successors_and_hand_overs_end_where_the_ring_is() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut state = joined(joined(formed(&[1, 2, 3, 4]), 5), 6);
        let before = Topology::new(state.clone());
        let changing = before.changing();
        assert!(changing > 0);
        for partition in partitions() {
            let slots = before.slots(partition, 3);
            assert!(slots.iter().all(|slot| slot.owner.is_some()), "nobody loses a slot by a join");
            let participants = before.participants(partition, 3);
            assert_eq!(participants.iter().collect::<BTreeSet<_>>().len(), participants.len());
            let fallbacks = before.fallbacks(partition, 3);
            assert!(fallbacks.iter().all(|id| !participants.contains(id)));
            assert_eq!(fallbacks.len() + participants.len(), 6);
        }
        let half = changing / 2;
        assert_eq!(move_some(&mut state, 3, half, &mut random), half);
        // Whatever has moved so far, the other pairs are as they were.
        let between = Topology::after(&before, state.clone());
        for partition in partitions() {
            let slots = before.slots(partition, 3).iter().zip(between.slots(partition, 3));
            for (before, between) in slots.filter(|(before, slot)| slot.version == before.version) {
                assert_eq!(before, between);
            }
        }
        assert_eq!(move_some(&mut state, 3, usize::MAX, &mut random), changing - half);
        let after = Topology::new(state.clone());
        let fresh = Topology::new(formed(&[1, 2, 3, 4, 5, 6]));
        for partition in partitions() {
            assert_eq!(after.primaries(partition, 3), fresh.primaries(partition, 3));
        }
    }
}

#[test]
fn a_topology_that_shares_parts_of_an_earlier_one_is_the_same_as_one_from_scratch() {
    let states = various();
    for earlier in &states {
        for later in &states {
            let earlier = Topology::new(earlier.clone());
            let shared = Topology::after(&earlier, later.clone());
            let fresh = Topology::new(later.clone());
            for n in [2, 3] {
                assert_eq!(shared.shares(n), fresh.shares(n));
                for partition in partitions() {
                    assert_eq!(shared.slots(partition, n), fresh.slots(partition, n));
                    assert_eq!(shared.primaries(partition, n), fresh.primaries(partition, n));
                    assert_eq!(shared.fallbacks(partition, n), fresh.fallbacks(partition, n));
                    let prints =
                        (shared.fingerprint(partition, n), fresh.fingerprint(partition, n));
                    assert_eq!(prints.0, prints.1);
                }
            }
        }
    }
}

#[test]
fn a_fingerprint_changes_with_the_slots_of_its_partition_and_with_nothing_else() {
    let before = Topology::new(joined(formed(&[1, 2, 3, 4]), 5));
    let mut state = before.state().clone();
    move_some(&mut state, 3, 1, &mut Random::new(1));
    state.members.get_mut(&id(1)).unwrap().contact.version += 1;
    let after = Topology::after(&before, state);
    let print = |topology: &Topology, partition| topology.fingerprint(partition, 3);
    let changed = partitions().filter(|p| print(&before, *p) != print(&after, *p));
    assert_eq!(changed.count(), 1);
    assert!(partitions().all(|partition| print(&after, partition) != 0));
    assert_eq!(after.fingerprint(Partition(0), 7), 0, "no bucket has seven replicas");
}

#[test]
fn a_slot_changes_hands_only_as_expected_and_never_to_an_owner_of_another() {
    let mut state = joined(formed(&[1, 2, 3, 4]), 5);
    let topology = Topology::new(state.clone());
    let moving = |partition: &Partition| {
        topology.slots(*partition, 3).iter().any(|slot| slot.successor.is_some())
    };
    let partition = partitions().find(moving).unwrap();
    let slots = topology.slots(partition, 3);
    let slot = slots.iter().position(|slot| slot.successor.is_some()).unwrap();
    let good = HandOver { scope: 3.into(), partition, slot, expected: slots[slot], to: id(5) };
    let other = slots[(slot + 1) % 3].owner.unwrap();
    let older = Slot { version: 0, ..slots[slot] };
    let others = Slot { owner: Some(other), ..slots[slot] };
    for bad in [
        HandOver { to: other, ..good },
        HandOver { to: id(77), ..good },
        HandOver { expected: older, ..good },
        HandOver { expected: others, ..good },
        HandOver { scope: 7.into(), ..good },
        HandOver { slot: 3, ..good },
        HandOver { partition: Partition(999), ..good },
    ] {
        let before = state.clone();
        assert!(!state.hand_over(&bad), "{bad:?}");
        assert_eq!(state, before);
    }
    assert_eq!(state.hand_over_all(&[good, good]), 1, "the second time it is not as expected");
    let topology = Topology::new(state);
    assert_eq!(topology.slots(partition, 3)[slot].owner, Some(id(5)));
    assert_eq!(topology.slots(partition, 3)[slot].version, 2);
}

#[test]
fn who_leaves_owns_until_its_successors_have_taken_over_and_who_is_removed_owns_nothing() {
    let state = formed(&[1, 2, 3, 4, 5]);
    let leaving = Topology::new(standing(state.clone(), 1, Standing::Leaving));
    let removed = Topology::new(standing(state, 1, Standing::Removed));
    let mut of_one = 0;
    for partition in partitions() {
        let pairs = leaving.slots(partition, 3).iter().zip(removed.slots(partition, 3));
        for (slot, gone) in pairs {
            assert_eq!((slot.successor, slot.version), (gone.successor, gone.version));
            if slot.owner == Some(id(1)) {
                of_one += 1;
                assert!(slot.successor.is_some());
                assert_eq!(gone.owner, None);
                assert_eq!(leaving.primaries(partition, 3).last(), Some(&id(1)), "asked last");
                assert!(!removed.primaries(partition, 3).contains(&id(1)));
            } else {
                assert_eq!((slot.successor, slot.owner), (None, gone.owner));
            }
        }
        assert!(!leaving.fallbacks(partition, 3).contains(&id(1)));
    }
    assert!(of_one > 0);
    assert_eq!(leaving.changing(), of_one);
}

#[test]
fn who_replaces_a_member_gets_exactly_its_places() {
    let state = formed(&[1, 2, 3, 4, 5]);
    let before = Topology::new(state.clone());
    let mut state = standing(joined(state, 9), 2, Standing::Removed);
    state.members.get_mut(&id(9)).unwrap().placed_as.set(id(2));
    let after = Topology::new(state);
    for partition in partitions() {
        for (was, is) in before.slots(partition, 3).iter().zip(after.slots(partition, 3)) {
            match was.owner == Some(id(2)) {
                true => assert_eq!((is.owner, is.successor), (None, Some(id(9)))),
                false => assert_eq!(is, was),
            }
        }
    }
}

#[test]
fn a_replacement_leaves_what_is_changing_hands_already_as_it_is() {
    let state = joined(formed(&[1, 2, 3, 4]), 5);
    let before = Topology::new(state.clone());
    let mut state = standing(joined(state, 9), 2, Standing::Removed);
    state.members.get_mut(&id(9)).unwrap().placed_as.set(id(2));
    let after = Topology::new(state);
    for partition in partitions() {
        for (was, is) in before.slots(partition, 3).iter().zip(after.slots(partition, 3)) {
            if was.owner != Some(id(2)) {
                assert_eq!(is, was);
            } else {
                // Where 5 is to have what 2 owned, 9 is not wanted.
                assert_eq!((is.owner, is.successor), (None, was.successor.or(Some(id(9)))));
            }
        }
    }
}

#[test]
fn two_who_replaced_the_same_member_stand_at_different_places() {
    let mut state = joined(joined(formed(&[1, 2, 3]), 8), 9);
    state.members.get_mut(&id(2)).unwrap().standing = Standing::Removed;
    for number in [8, 9] {
        state.members.get_mut(&id(number)).unwrap().placed_as.set(id(2));
    }
    let places = state.places();
    assert_eq!((places[&id(2)], places[&id(9)]), (id(8), id(9)));
    assert_eq!(places.len(), 4);
}

#[test]
fn slots_grow_with_the_members_up_to_n() {
    let mut state = formed(&[1]);
    let lengths = |state: &ClusterState| {
        let topology = Topology::new(state.clone());
        partitions().map(|p| topology.slots(p, 3).len()).collect::<BTreeSet<usize>>()
    };
    assert_eq!(lengths(&state), BTreeSet::from([1]));
    state = joined(state, 2);
    let topology = Topology::new(state.clone());
    let new = topology.slots(Partition(0), 3)[1];
    assert_eq!(new, Slot { owner: None, successor: Some(id(2)), version: 0 });
    assert_eq!(topology.primaries(Partition(0), 3), [id(1)]);
    state = joined(joined(state, 3), 4);
    assert_eq!(lengths(&state), BTreeSet::from([3]));
    move_some(&mut state, 3, usize::MAX, &mut Random::new(3));
    let (grown, fresh) = (Topology::new(state), Topology::new(formed(&[1, 2, 3, 4])));
    for partition in partitions() {
        assert_eq!(grown.primaries(partition, 3), fresh.primaries(partition, 3));
    }
}

#[test]
fn one_member_never_counts_for_two_slots() {
    let mut state = formed(&[1, 2, 3, 4]);
    let owners = |state: &ClusterState| state.slots[&3.into()].of(Partition(0)).to_vec();
    let first = owners(&state)[0].value.unwrap();
    // Two owners gave their slots to the same successor, neither knowing of the other.
    state.slots.get_mut(&3.into()).unwrap().give(Partition(0), 2, first);
    let topology = Topology::new(state.clone());
    let slots = topology.slots(Partition(0), 3);
    assert_eq!((slots[0].owner, slots[2].owner), (Some(first), None));
    assert!(slots[2].successor.is_some(), "the slot finds another owner");
    let repair = HandOver {
        scope: 3.into(),
        partition: Partition(0),
        slot: 2,
        expected: slots[2],
        to: slots[2].successor.unwrap(),
    };
    assert!(state.hand_over(&repair));
    assert_eq!(Topology::new(state).primaries(Partition(0), 3).len(), 3);
}

#[test]
fn a_bucket_with_a_new_count_gets_slots_from_the_ring_of_that_moment() {
    let mut state = joined(formed(&[1, 2, 3]), 4);
    assert!(state.add_bucket("more", BucketSettings { n: 4, ..BucketSettings::default() }));
    let topology = Topology::new(state.clone());
    assert_eq!(topology.slots(Partition(0), 4).len(), 4);
    assert!(partitions().all(|p| topology.slots(p, 4).iter().all(|s| s.successor.is_none())));
    let before = state.slots.clone();
    assert!(state.add_bucket("again", BucketSettings { n: 4, ..BucketSettings::default() }));
    assert_eq!(state.slots, before);
}

#[test]
fn tables_that_were_begun_apart_never_mix() {
    let (mut left, mut right) = (joined(formed(&[1, 2, 3]), 4), joined(formed(&[1, 2, 3]), 5));
    let settings = BucketSettings { n: 2, ..BucketSettings::default() };
    assert!(left.add_bucket("few", settings) && right.add_bucket("few", settings));
    let both = merged(&left, &right);
    assert!(
        both.slots[&2.into()] == left.slots[&2.into()]
            || both.slots[&2.into()] == right.slots[&2.into()]
    );
    assert_eq!(both.slots[&3.into()], left.slots[&3.into()]);
}

#[test]
fn a_state_reads_back_and_bounds_are_checked() {
    for state in various() {
        assert_eq!(ClusterState::decode(&state.encode()), Ok(state.clone()));
    }
    let state = formed(&[1, 2, 3]);
    let refused = |change: fn(&mut ClusterState)| {
        let mut bad = state.clone();
        change(&mut bad);
        ClusterState::decode(&bad.encode()).is_err()
    };
    assert!(refused(|bad| bad.partitions = 100));
    assert!(refused(|bad| bad.partitions = 128), "a table that is too short");
    assert!(refused(|bad| bad.formation = 0), "slots of a cluster that has not formed");
    assert!(refused(|bad| bad.slots.clear()), "a bucket without slots");
    assert!(refused(|bad| bad.members.get_mut(&id(1)).unwrap().weight.value = 0));
    assert!(refused(|bad| bad.members.get_mut(&id(1)).unwrap().zone.value = "z".repeat(99)));
    assert!(refused(|bad| {
        let planned = &mut bad.members.get_mut(&id(1)).unwrap().planned;
        planned.set(Some(PlannedChange::Weight(0)));
    }));
}

#[test]
fn states_stay_small() {
    let sized = |partitions, members: u128| {
        let mut state = ClusterState::new("test", partitions);
        for number in 1..=members {
            state.enter(NodeId(number << 64 | 77), candidate(number));
        }
        state.form(1);
        state.encode().len()
    };
    let small = sized(limits::PARTITIONS_DEFAULT, 5);
    assert!(small < 10_000, "{small} bytes for 1,024 partitions of 3 slots and 5 members");
    let large = sized(limits::PARTITIONS_MAX, 300);
    assert!(large < limits::CONTROL_BYTES / 10, "{large} bytes for the largest ring");
}

#[test]
fn the_epoch_rises_with_every_change() {
    let base = formed(&[1, 2, 3]);
    for state in various() {
        let both = merged(&base, &state);
        let (before, after) = (base.version(), both.version());
        assert_eq!(before == after, both == base);
        assert!(after.epoch > before.epoch || both == base);
    }
}
