//! What can be staged, what a plan says it would do, and that it does so.

use std::collections::BTreeMap;

use super::tests::{
    PARTITIONS, candidate, formed, forming, id, joined, merged, move_some, partitions, standing,
};
use super::*;
use crate::random::Random;

fn nobody(_: crate::ids::NodeId) -> bool {
    false
}

fn stage(state: &mut ClusterState, number: u128, change: PlannedChange) -> Result<(), PlanError> {
    state.stage(id(number), change, nobody, false)
}

/// Members 1 to 3, and candidates.
fn with_candidates(candidates: &[u128]) -> ClusterState {
    let mut state = formed(&[1, 2, 3]);
    for number in candidates {
        state.enter(id(*number), candidate(*number));
    }
    state
}

fn reachable(state: &ClusterState, used_bytes: u64) -> BTreeMap<crate::ids::NodeId, MemberFacts> {
    let used_bytes = Some(used_bytes);
    let facts = MemberFacts { reachable: true, used_bytes, free_bytes: Some(1 << 40) };
    state.members.keys().map(|id| (*id, facts)).collect()
}

#[test]
fn a_member_is_found_by_name_by_id_and_by_the_beginning_of_its_id() {
    let mut state = standing(formed(&[1, 2, 3]), 3, Standing::Removed);
    assert_eq!(state.find("n1"), Ok(id(1)));
    assert_eq!(state.find(&id(1).to_string()), Ok(id(1)));
    assert_eq!(state.find("n3"), Ok(id(3)), "who was removed is known too");
    assert_eq!(state.find("n9"), Err(PlanError::Unknown("n9".to_owned())));
    let short = state.find("00000000").unwrap_err();
    assert_eq!(short, PlanError::Ambiguous { name: "00000000".to_owned(), count: 3 });
    let mut again = candidate(4);
    again.contact.value.name = "n3".to_owned();
    state.enter(id(4), again);
    assert_eq!(state.find("n3"), Ok(id(4)), "the living one is meant");
}

#[test]
fn what_makes_no_sense_is_not_staged_and_changes_nothing() {
    let state = standing(with_candidates(&[4]), 3, Standing::Leaving);
    let mut state = merged(&state, &standing(with_candidates(&[4, 7]), 7, Standing::Removed));
    let before = state.clone();
    let zone = |zone: &str| PlannedChange::Zone(zone.to_owned());
    for (number, change, refusal) in [
        (9, PlannedChange::Join, PlanError::Unknown(id(9).to_string())),
        (7, PlannedChange::Join, PlanError::Removed("n7".to_owned())),
        (
            1,
            PlannedChange::Join,
            PlanError::NotCandidate { name: "n1".to_owned(), standing: "member" },
        ),
        (3, PlannedChange::Leave, PlanError::Leaving("n3".to_owned())),
        (1, PlannedChange::Weight(0), PlanError::Weight),
        (1, zone("a b"), PlanError::Zone),
        (1, zone(""), PlanError::Zone),
        (
            1,
            PlannedChange::Replace { dead: id(2) },
            PlanError::NotCandidate { name: "n1".to_owned(), standing: "member" },
        ),
        (4, PlannedChange::Replace { dead: id(7) }, PlanError::Removed("n7".to_owned())),
        (
            1,
            PlannedChange::Leave,
            PlanError::TooFew { left: 1, bucket: "default".to_owned(), n: 3 },
        ),
    ] {
        assert_eq!(stage(&mut state, number, change), Err(refusal));
        assert_eq!(state, before);
    }
    let mut forming = forming(&[1]);
    assert_eq!(stage(&mut forming, 1, PlannedChange::Leave), Err(PlanError::Forming));
}

#[test]
fn a_living_member_is_replaced_only_by_force() {
    let mut state = with_candidates(&[4]);
    let change = PlannedChange::Replace { dead: id(2) };
    let refused = state.stage(id(4), change.clone(), |_| true, false);
    assert_eq!(refused, Err(PlanError::Alive("n2".to_owned())));
    state.stage(id(4), change.clone(), |_| true, true).unwrap();
    state.stage(id(4), change, |_| true, false).expect("the same again is no error");
}

#[test]
fn a_member_is_in_a_plan_once() {
    let mut state = with_candidates(&[4, 5]);
    stage(&mut state, 4, PlannedChange::Replace { dead: id(2) }).unwrap();
    for (number, change) in [
        (4, PlannedChange::Join),
        (2, PlannedChange::Weight(50)),
        (5, PlannedChange::Replace { dead: id(2) }),
    ] {
        let refused = stage(&mut state, number, change).unwrap_err();
        assert!(matches!(refused, PlanError::Planned { .. }), "{refused}");
        assert!(refused.to_string().contains("n4 takes the place of n2"), "{refused}");
    }
}

#[test]
fn several_changes_are_one_plan_and_nothing_happens_before_it_is_committed() {
    let mut state = with_candidates(&[4, 5]);
    stage(&mut state, 4, PlannedChange::Join).unwrap();
    stage(&mut state, 1, PlannedChange::Leave).expect("with the join enough are left");
    stage(&mut state, 2, PlannedChange::Weight(200)).unwrap();
    stage(&mut state, 3, PlannedChange::Zone("b".to_owned())).unwrap();
    stage(&mut state, 5, PlannedChange::Leave).unwrap();
    assert_eq!(Topology::new(state.clone()).changing(), 0);
    let mark = state.plan_mark();
    assert_eq!(state.commit_plan(Some(mark ^ 1)), Err(PlanError::Changed));
    let epoch = state.version().epoch;
    state.commit_plan(Some(mark)).unwrap();
    assert!(state.version().epoch > epoch);
    let standing = |number| state.members[&id(number)].standing;
    assert_eq!([1, 4, 5].map(standing), [Standing::Leaving, Standing::Member, Standing::Removed]);
    assert_eq!(state.members[&id(2)].weight(), 200);
    assert_eq!(state.members[&id(3)].zone(), "b");
    assert_eq!((state.planned().count(), state.plan_mark()), (0, 0));
    assert!(Topology::new(state.clone()).changing() > 0);
    assert_eq!(state.commit_plan(None), Err(PlanError::Nothing));
}

#[test]
fn an_aborted_plan_leaves_no_trace_but_newer_registers() {
    let mut state = with_candidates(&[4]);
    stage(&mut state, 4, PlannedChange::Join).unwrap();
    let planned = state.clone();
    state.abort_plan();
    let state = merged(&planned, &state);
    assert_eq!(state.planned().count(), 0);
    assert_eq!(state.members[&id(4)].standing, Standing::Candidate);
}

#[test]
fn a_merged_plan_that_leaves_too_few_is_refused_when_it_is_committed() {
    let base = joined(formed(&[1, 2, 3]), 4);
    let (mut left, mut right) = (base.clone(), base);
    stage(&mut left, 1, PlannedChange::Leave).unwrap();
    stage(&mut right, 2, PlannedChange::Leave).unwrap();
    let mut both = merged(&left, &right);
    let refused = both.commit_plan(None).unwrap_err();
    assert_eq!(refused, PlanError::TooFew { left: 2, bucket: "default".to_owned(), n: 3 });
    assert_eq!(both, merged(&right, &left));
}

#[test]
fn changes_made_on_two_sides_of_a_partition_give_one_ring_in_whatever_order_they_meet() {
    let base = with_candidates(&[4, 5, 6]);
    let side = |changes: &[(u128, PlannedChange)]| {
        let mut state = base.clone();
        for (number, change) in changes {
            stage(&mut state, *number, change.clone()).unwrap();
        }
        state.commit_plan(None).unwrap();
        move_some(&mut state, 3, 7, &mut Random::new(5));
        state
    };
    let sides = [
        side(&[(4, PlannedChange::Join), (1, PlannedChange::Weight(300))]),
        side(&[
            (5, PlannedChange::Replace { dead: id(2) }),
            (1, PlannedChange::Zone("b".to_owned())),
        ]),
        side(&[(6, PlannedChange::Replace { dead: id(2) })]),
        side(&[(4, PlannedChange::Join), (3, PlannedChange::Leave)]),
    ];
    let mut found = None;
    for order in permutations(&[0, 1, 2, 3]) {
        let mut state = base.clone();
        for at in &order {
            state.merge(&sides[*at]).unwrap();
        }
        assert_eq!(found.get_or_insert_with(|| state.clone()), &state, "{order:?}");
    }
    let state = found.unwrap();
    let standing = |number| state.members[&id(number)].standing;
    assert_eq!([2, 3].map(standing), [Standing::Removed, Standing::Leaving]);
    assert!([1, 4, 5, 6].iter().all(|number| standing(*number) == Standing::Member));
    let mut state = state;
    move_some(&mut state, 3, usize::MAX, &mut Random::new(6));
    let topology = Topology::new(state);
    assert_eq!(topology.changing(), 0);
    for partition in partitions() {
        let primaries = topology.primaries(partition, 3);
        assert!([2, 3].iter().all(|number| !primaries.contains(&id(*number))));
        assert_eq!(primaries.len(), 3);
    }
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |at: usize| {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        permutations(&rest).into_iter().map(move |tail| [vec![first], tail].concat())
    };
    (0..items.len()).flat_map(with_first).collect()
}

#[test]
fn a_preview_says_what_then_happens() {
    let mut state = with_candidates(&[4]);
    stage(&mut state, 4, PlannedChange::Join).unwrap();
    let plan = preview(&Topology::new(state.clone()), &reachable(&state, 64_000));
    assert_eq!((plan.mark, plan.under_way), (state.plan_mark(), 0));
    assert_eq!(plan.changes, [(id(4), PlannedChange::Join)]);
    state.commit_plan(None).unwrap();
    let moved: u32 = plan.moves.iter().map(|moves| moves.slots).sum();
    assert_eq!(moved as usize, Topology::new(state.clone()).changing());
    assert!(plan.moves.iter().all(|moves| moves.to == id(4) && moves.from.is_some()));
    // Each of the three has 64 slots of 1,000 bytes.
    assert_eq!(plan.moves.iter().map(|moves| moves.bytes).sum::<u64>(), u64::from(moved) * 1000);
    move_some(&mut state, 3, usize::MAX, &mut Random::new(1));
    let after = Topology::new(state);
    for share in &plan.shares {
        let owned = after.shares(3).iter().find(|s| s.id == share.id).map_or(0, |s| s.owned);
        assert_eq!(share.after, owned);
        assert_eq!(share.before, if share.id == id(4) { 0 } else { PARTITIONS });
        assert_eq!(
            share.arriving_bytes,
            if share.id == id(4) { u64::from(moved) * 1000 } else { 0 }
        );
    }
    assert_eq!(plan.warnings, [], "four machines in one zone");
}

#[test]
fn a_preview_of_a_replacement_moves_the_places_of_the_dead_from_the_others() {
    let mut state = with_candidates(&[4]);
    stage(&mut state, 4, PlannedChange::Replace { dead: id(2) }).unwrap();
    let mut facts = reachable(&state, 64_000);
    facts.insert(id(2), MemberFacts::default());
    let plan = preview(&Topology::new(state), &facts);
    let moves = Moves { from: None, to: id(4), slots: PARTITIONS, bytes: 64_000 };
    assert_eq!(plan.moves, [moves]);
    assert_eq!(plan.warnings, [], "the dead is not waited for");
}

#[test]
fn a_preview_warns_of_what_an_operator_should_think_about() {
    let warnings = |change: fn(&mut ClusterState, &mut BTreeMap<_, MemberFacts>)| {
        let mut state = with_candidates(&[4]);
        stage(&mut state, 4, PlannedChange::Join).unwrap();
        let mut facts = reachable(&state, 64 << 20);
        change(&mut state, &mut facts);
        preview(&Topology::new(state), &facts).warnings
    };
    let silent = warnings(|_, facts| facts.get_mut(&id(1)).unwrap().reachable = false);
    assert_eq!(silent, [Warning::Unreachable { name: "n1".to_owned() }]);
    let full = warnings(|_, facts| facts.get_mut(&id(4)).unwrap().free_bytes = Some(1 << 20));
    assert!(matches!(&full[..], [Warning::TooFull { name, .. }] if name == "n4"), "{full:?}");
    let zones = warnings(|state, _| {
        state.members.get_mut(&id(4)).unwrap().zone.set("b".to_owned());
    });
    let partitions = PARTITIONS as usize;
    assert!(zones.contains(&Warning::OneZone { n: 3, partitions }), "{zones:?}");
    let machine = warnings(|state, _| {
        for entry in state.members.values_mut() {
            entry.contact.value.address = "10.0.0.1:7400".to_owned();
        }
    });
    assert_eq!(machine, [Warning::OneMachine { n: 3, partitions }]);
    let few = warnings(|state, _| {
        let settings = crate::wire::messages::BucketSettings { n: 5, ..Default::default() };
        assert!(state.add_bucket("many", settings));
    });
    assert!(few.contains(&Warning::FewMembers { n: 5, members: 4 }), "{few:?}");
    let orphans = warnings(|state, _| {
        for (number, dead) in [(5, 1), (6, 2), (7, 3)] {
            state.enter(id(number), candidate(number));
            stage(state, number, PlannedChange::Replace { dead: id(dead) }).unwrap();
        }
    });
    assert!(orphans.contains(&Warning::Orphans { n: 3, partitions }), "{orphans:?}");
    for warning in [silent, full, zones, machine, few, orphans].concat() {
        assert!(warning.to_string().len() < 100, "{warning}");
    }
}
