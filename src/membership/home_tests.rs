//! Buckets that get another replica count: the plan, the move, and two sides that do it at once.

use super::tests::{formed, id, joined, merged, move_some, partitions};
use super::*;
use crate::ids::{Partition, Scope};
use crate::random::Random;
use crate::wire::messages::{BucketSettings, Level};

const BUCKET: &str = "default";

fn planned(mut state: ClusterState, n: u8) -> ClusterState {
    let settings = BucketSettings { n, ..state.buckets[BUCKET].settings };
    state.set_bucket(BUCKET, settings).unwrap();
    state
}

fn moving(state: ClusterState, n: u8) -> ClusterState {
    let mut state = planned(state, n);
    state.commit_plan(None).unwrap();
    state
}

fn next(state: &ClusterState) -> Scope {
    state.buckets[BUCKET].home.next.unwrap()
}

/// Has all slots of `partition` taken that nobody has owned.
fn arrive(state: &mut ClusterState, scope: Scope, partition: Partition) {
    let topology = Topology::new(state.clone());
    for (slot, expected) in topology.slots(partition, scope).iter().enumerate() {
        let to = expected.successor.unwrap();
        assert!(state.hand_over(&HandOver { scope, partition, slot, expected: *expected, to }));
    }
}

#[test]
fn another_count_is_staged_and_nothing_happens_before_it_is_committed() {
    let before = formed(&[1, 2, 3, 4]);
    let mut state = planned(before.clone(), 4);
    assert_eq!(state.planned_counts().collect::<Vec<_>>(), [(BUCKET, 4)]);
    assert_ne!(state.plan_mark(), 0);
    assert_eq!(state.buckets[BUCKET].home, before.buckets[BUCKET].home);
    let plan = preview(&Topology::new(state.clone()), &std::collections::BTreeMap::new());
    assert_eq!(plan.counts, [(BUCKET.to_owned(), 4)]);
    assert_eq!(plan.moves.iter().map(|moves| moves.slots).sum::<u32>(), 4 * 64);
    state.abort_plan();
    assert_eq!((state.plan_mark(), state.slots.len()), (0, 1));
    let state = moving(state, 4);
    assert_eq!((state.plan_mark(), state.slots.len()), (0, 2));
    assert_eq!(state.buckets[BUCKET].settings.n, 3, "it is 3 until it has arrived");
}

#[test]
fn a_partition_is_read_by_new_slots_as_soon_as_each_has_had_an_owner() {
    for n in [2, 4] {
        let mut state = moving(formed(&[1, 2, 3, 4]), n);
        let (old, new, partition) = (Scope::from(3), next(&state), Partition(7));
        let mut seen = std::collections::BTreeSet::new();
        for slot in 0..usize::from(n) {
            let topology = Topology::new(state.clone());
            assert!(seen.insert(topology.bucket_fingerprint(BUCKET, partition)));
            let scopes = topology.scopes(BUCKET, partition).unwrap();
            assert_eq!(scopes, Scopes { reads: old, also: Some(new), arriving: true });
            let slots = topology.slots(partition, new);
            assert!(slots.iter().all(|slot| scopes.counts(new, slot)), "who comes counts");
            assert_eq!(topology.sources(partition, new), topology.primaries(partition, old));
            let (expected, to) = (slots[slot], slots[slot].successor.unwrap());
            let change = HandOver { scope: new, partition, slot, expected, to };
            assert!(state.hand_over(&change));
        }
        let topology = Topology::new(state.clone());
        assert!(seen.insert(topology.bucket_fingerprint(BUCKET, partition)));
        let expected = Scopes { reads: new, also: Some(old), arriving: false };
        assert_eq!(topology.scopes(BUCKET, partition), Some(expected));
        assert_eq!(topology.sources(partition, new), topology.primaries(partition, new));
        let other = topology.scopes(BUCKET, Partition(8)).unwrap();
        assert_eq!(other.reads, old, "each partition by itself");
        // Its owner is removed: it has arrived all the same.
        let owner = topology.primaries(partition, new)[0];
        state.members.get_mut(&owner).unwrap().standing = Standing::Removed;
        assert_eq!(Topology::new(state).scopes(BUCKET, partition).unwrap().reads, new);
    }
}

#[test]
fn a_move_ends_when_everybody_who_serves_has_noted_it() {
    let mut state = moving(formed(&[1, 2, 3, 4]), 2);
    let scope = next(&state);
    assert!(!state.advance(id(1)), "nothing has arrived");
    for partition in partitions() {
        arrive(&mut state, scope, partition);
    }
    assert!(!state.advance(id(9)), "a stranger counts for nothing");
    let mut epoch = state.version().epoch;
    for member in [1, 2, 3, 4] {
        assert_eq!(state.buckets[BUCKET].home.next, Some(scope));
        assert!(state.advance(id(member)));
        assert_eq!(ClusterState::decode(&state.encode()), Ok(state.clone()));
        assert!(state.version().epoch > epoch);
        epoch = state.version().epoch;
    }
    assert!(!state.advance(id(1)));
    let entry = &state.buckets[BUCKET];
    assert_eq!((entry.settings.n, entry.home.scope, entry.home.next), (2, scope, None));
    // And on, from slots of its own: those are dropped, and an older state brings nothing back.
    let before = state.clone();
    let mut state = moving(state, 4);
    let again = next(&state);
    partitions().for_each(|partition| arrive(&mut state, again, partition));
    let mut epoch = state.version().epoch;
    for member in [1, 2, 3, 4] {
        state.advance(id(member));
        assert!(state.version().epoch > epoch);
        epoch = state.version().epoch;
    }
    assert!(!state.slots.contains_key(&scope) && state.slots.contains_key(&again));
    assert_eq!(merged(&state, &before), state);
}

#[test]
fn of_two_moves_begun_apart_one_wins_and_the_same_one_is_one() {
    let both = joined(formed(&[1, 2, 3, 4]), 5);
    let (left, right) = (moving(both.clone(), 2), moving(both.clone(), 4));
    let winner = merged(&left, &right);
    let scope = next(&winner);
    assert!(scope == next(&left) || scope == next(&right));
    assert_eq!(winner.slots.len(), 2, "the other's slots are gone");
    let (mut left, mut right) = (moving(both.clone(), 4), moving(both, 4));
    assert_eq!(next(&left), next(&right));
    let scope = next(&left);
    arrive(&mut left, scope, Partition(1));
    arrive(&mut right, scope, Partition(2));
    let topology = Topology::new(merged(&left, &right));
    assert_eq!(topology.arrived(BUCKET), 2);
}

#[test]
fn merging_states_with_moves_is_idempotent_commutative_and_associative() {
    let mut random = Random::new(11);
    let mut states = Vec::new();
    for _ in 0..12 {
        let mut state = joined(formed(&[1, 2, 3, 4]), 5);
        for _ in 0..random.below(3) {
            let n = 2 + random.below(3) as u8;
            let ttl_ms = random.chance(50).then(|| random.below(1000));
            let settings = BucketSettings { n, ttl_ms, ..state.buckets[BUCKET].settings };
            if state.set_bucket(BUCKET, settings).is_ok() {
                let _ = state.commit_plan(None);
            }
            let scopes: Vec<Scope> = state.slots.keys().copied().collect();
            for scope in scopes {
                move_some(&mut state, scope, random.below(300) as usize, &mut random);
            }
            for member in 1..=5 {
                state.advance(id(member));
            }
        }
        states.push(state);
    }
    for a in &states {
        assert_eq!(merged(a, a), *a);
        for b in &states {
            assert_eq!(merged(a, b), merged(b, a));
            for c in &states {
                assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
            }
        }
    }
}

#[test]
fn counts_that_cannot_be_are_refused_and_change_nothing() {
    let state = formed(&[1, 2, 3]);
    let refused = |state: &ClusterState, settings| {
        let mut tried = state.clone();
        let refused = tried.set_bucket(BUCKET, settings).unwrap_err();
        assert_eq!(&tried, state);
        refused
    };
    let sound = BucketSettings::default();
    let more = BucketSettings { n: 4, ..sound };
    assert!(matches!(refused(&state, more), BucketError::FewMembers { members: 3, .. }));
    let few = BucketSettings { n: 2, w: Level::Count(2), r: Level::Count(2), ..sound };
    let mut state = planned(state, 2);
    assert!(matches!(refused(&state, BucketSettings { n: 1, ..few }), BucketError::Range { .. }));
    let three = BucketSettings { w: Level::Count(3), ..sound };
    assert!(matches!(refused(&state, three), BucketError::Level { n: 2, .. }), "the plan says 2");
    let one = BucketSettings { n: 1, ..sound };
    assert!(matches!(refused(&state, one), BucketError::Planned { planned: 2, .. }));
    state.set_bucket(BUCKET, few).unwrap();
    state.commit_plan(None).unwrap();
    assert!(matches!(refused(&state, one), BucketError::Moving { n: 3, next: 2, .. }));
    let mut leaving = moving(formed(&[1, 2, 3, 4]), 4);
    let left = leaving.stage(id(4), PlannedChange::Leave, |_| true, false);
    assert!(matches!(left, Err(PlanError::TooFew { left: 3, n: 4, .. })), "four are to keep it");
}

#[test]
fn a_merged_plan_for_a_bucket_that_moves_is_refused() {
    let state = formed(&[1, 2, 3, 4]);
    let (staged, committed) = (planned(state.clone(), 4), moving(state, 2));
    let mut both = merged(&staged, &committed);
    // The commit has settled what was staged before, on either side.
    both.buckets.get_mut(BUCKET).unwrap().planned.set(Some(4));
    assert_eq!(both.commit_plan(None), Err(PlanError::Moving(BUCKET.to_owned())));
    both.abort_plan();
    assert_eq!(both.plan_mark(), 0);
}
