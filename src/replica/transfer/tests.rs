//! What the harness finds, and what it must not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::harness::{Planted, World, member};
use super::*;
use crate::ids::NodeId;
use crate::membership::{ClusterState, Standing};
use crate::wire::transfer::{Noted, PageBuilder, PageRequest, SlotId};

const SECOND: Duration = Duration::from_secs(1);

/// Changes of the members while writes and faults go on; returns what was found.
fn churn(seed: u64, planted: Planted) -> World {
    let mut world = World::new(seed, 5, 3, planted);
    world.run(SECOND);
    let join = |world: &mut World, id: u128| {
        world.change(|state| {
            let entry = state.members.entry(NodeId(id)).or_insert_with(|| member(id));
            entry.standing = entry.standing.max(Standing::Member);
        });
    };
    let leave = |world: &mut World, id: u128, standing: Standing| {
        world.change(|state| state.members.get_mut(&NodeId(id)).unwrap().standing = standing);
    };
    join(&mut world, 4);
    match seed % 4 {
        0 => world.run(SECOND * 4),
        1 => {
            world.run(SECOND / 2);
            join(&mut world, 5);
            world.run(SECOND * 4);
        }
        2 => {
            world.run(SECOND * 2);
            leave(&mut world, 2, Standing::Leaving);
            world.run(SECOND * 4);
        }
        _ => {
            world.run(SECOND / 2);
            leave(&mut world, 3, Standing::Leaving);
            join(&mut world, 5);
            world.run(SECOND * 4);
        }
    }
    world.settle();
    world.check();
    world
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let first = std::env::var("RINGDOVE_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("RINGDOVE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(count);
    let first = first.unwrap_or(0);
    first..first + count
}

#[test]
fn members_change_under_writes_loss_and_restarts_and_every_read_quorum_has_every_write() {
    let (mut taken, mut restarts, mut resumed, mut writes) = (0, 0, 0, 0);
    for seed in seeds(8) {
        let world = churn(seed, Planted::Nothing);
        assert_eq!(world.found, None, "seed {seed}");
        for id in 1..=5 {
            taken += world.tally_of(id).slots_taken;
            resumed += world.tally_of(id).resumed;
        }
        restarts += world.restarts;
        writes += world.acknowledged();
        assert!(world.checked > 1000);
    }
    println!("{taken} slots, {restarts} restarts, {resumed} resumed, {writes} writes");
    assert!(taken > 100 && restarts > 10 && writes > 1000);
}

#[test]
fn planted_bugs_are_found() {
    for planted in [Planted::ReadyTooEarly, Planted::CleanupBeforeReady] {
        let is_loss = |found: Option<String>| found.is_some_and(|found| found.contains("missing"));
        let found = (0..60).find(|seed| is_loss(churn(*seed, planted).found));
        println!("{planted:?}: seed {found:?}");
        assert!(found.is_some(), "{planted:?} was not found");
    }
}

#[test]
fn a_removed_member_is_replaced_from_all_the_others() {
    for seed in seeds(5) {
        let mut world = World::new(seed, 5, 4, Planted::Nothing);
        world.run(SECOND);
        world.kill(NodeId(2));
        world.run(SECOND / 4);
        world.change(|state| {
            state.members.get_mut(&NodeId(2)).unwrap().standing = Standing::Removed;
            state.members.get_mut(&NodeId(5)).unwrap().standing = Standing::Member;
            state.members.get_mut(&NodeId(5)).unwrap().placed_as.set(NodeId(2));
        });
        world.run(SECOND * 4);
        world.settle();
        world.check();
        assert_eq!(world.found, None, "seed {seed}");
        assert!(world.slots_of(5) > 10);
    }
}

#[test]
fn what_is_left_of_a_partition_is_deleted_after_a_while() {
    let mut world = World::new(1, 4, 3, Planted::Nothing);
    world.run(SECOND);
    world.change(|state| {
        state.members.get_mut(&NodeId(4)).unwrap().standing = Standing::Member;
    });
    world.settle();
    let before: u64 = (1..=4).map(|id| world.keys_of(id)).sum();
    world.run(SECOND * 60);
    let after: u64 = (1..=4).map(|id| world.keys_of(id)).sum();
    assert_eq!(after, 3 * 32, "three copies of each key, of {before}");
    world.check();
    assert_eq!(world.found, None);
}

// ---- one node alone --------------------------------------------------------------------------

/// Three members, and others that have joined and own nothing yet.
fn joined(others: &[u128]) -> ClusterState {
    let mut state = ClusterState::new("test", 32);
    for id in 1..=3 {
        state.enter(NodeId(id), member(id));
    }
    assert!(state.form(3));
    for id in others {
        let mut entry = member(*id);
        entry.standing = Standing::Member;
        state.enter(NodeId(*id), entry);
    }
    state
}

fn standing(mut state: ClusterState, id: u128, standing: Standing) -> ClusterState {
    state.members.get_mut(&NodeId(id)).unwrap().standing = standing;
    state
}

struct Alone {
    transfers: Transfers,
    topology: Arc<Topology>,
    kept: Option<Vec<u8>>,
    now: Instant,
}

impl Alone {
    fn new(id: u128, state: ClusterState, kept: Option<&[u8]>) -> Self {
        let topology = Arc::new(Topology::new(state));
        let settings = Settings {
            node: NodeId(id),
            amnesiac: false,
            resume: true,
            at_once: 1,
            rate: 1 << 30,
            cleanup_after: Duration::from_secs(60),
        };
        let transfers = Transfers::new(settings, topology.clone(), kept, Instant(0), 7);
        Self { transfers, topology, kept: None, now: Instant(0) }
    }

    fn take(&mut self, input: Input) -> Vec<Effect> {
        if let Input::Topology(topology) = &input {
            self.topology = topology.clone();
        }
        self.now = self.now + Duration::from_millis(1);
        let mut effects = Vec::new();
        self.transfers.handle(self.now, input, &mut effects);
        for effect in &effects {
            if let Effect::Keep { bytes, .. } = effect {
                self.kept = Some(bytes.clone());
            }
        }
        effects
    }

    fn show(&mut self, state: ClusterState) -> Vec<Effect> {
        self.take(Input::Topology(Arc::new(Topology::new(state))))
    }

    fn ask(&mut self, from: u128, ask: u64, request: TransferRequest) -> Vec<Effect> {
        self.take(Input::Asked { from: NodeId(from), ask, request })
    }

    /// Slots this node owns and that one is to have.
    fn views(&self, owner: u128, successor: u128) -> Vec<SlotView> {
        let slots = Desk::all_slots(&self.topology);
        let views = slots.filter_map(|(id, slot)| desk::view(&self.topology, id, &slot));
        let views = views.filter(|view| view.owner == Some(NodeId(owner)));
        views.filter(|view| view.successor == NodeId(successor)).collect()
    }

    /// The number of the note for `view`, made and fenced.
    fn note(&mut self, view: SlotView) -> u64 {
        let effects = self.ask(view.successor.0, 1, TransferRequest::Begin(view));
        let fence = effects.iter().find_map(|effect| match effect {
            Effect::Fence { order, .. } => Some(*order),
            _ => None,
        });
        let effects = self.take(Input::Fenced { order: fence.unwrap(), done: true });
        match answer(&effects) {
            Some(TransferReply::Begun { note, amnesiac: false }) => *note,
            other => panic!("{other:?}"),
        }
    }
}

fn answer(effects: &[Effect]) -> Option<&TransferReply> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer { reply, .. } => Some(reply),
        _ => None,
    })
}

fn asked(effects: &[Effect]) -> Option<(u64, NodeId, &TransferRequest)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { id, to, request } => Some((*id, *to, request)),
        _ => None,
    })
}

#[test]
fn a_note_is_kept_and_fenced_before_it_is_answered() {
    let mut owner = Alone::new(1, joined(&[4]), None);
    let view = owner.views(1, 4)[0];
    let effects = owner.ask(4, 1, TransferRequest::Begin(view));
    assert!(matches!(effects[0], Effect::Keep { .. }), "{effects:?}");
    let Effect::Fence { order, .. } = effects[1] else { panic!("{effects:?}") };
    assert!(answer(&effects).is_none());
    let early = Noted { slot: view.id, note: 0 };
    assert_eq!(
        answer(&owner.ask(4, 2, TransferRequest::HandOver(vec![early]))),
        Some(&TransferReply::Given(vec![false]))
    );
    let effects = owner.take(Input::Fenced { order, done: false });
    assert_eq!(answer(&effects), Some(&TransferReply::Busy));
    let first = owner.note(view);
    let again = owner.ask(4, 3, TransferRequest::Begin(view));
    let same = TransferReply::Begun { note: first, amnesiac: false };
    assert_eq!(answer(&again), Some(&same), "asked again it is the same note");
    // After a restart, too.
    let mut owner = Alone::new(1, joined(&[4]), owner.kept.as_deref());
    let again = owner.ask(4, 1, TransferRequest::Begin(view));
    assert_eq!(answer(&again), Some(&same));
}

#[test]
fn a_note_falls_when_its_slot_looks_otherwise_and_stays_down_when_it_looks_the_same_again() {
    let one = joined(&[4]);
    let two = joined(&[4, 5]);
    let three = standing(two.clone(), 5, Standing::Leaving);
    let mut owner = Alone::new(1, one.clone(), None);
    let before = owner.views(1, 4);
    let after = Alone::new(1, two.clone(), None).views(1, 4);
    let lost = before.iter().find(|view| !after.contains(view)).expect("5 takes some of them");
    assert!(Alone::new(1, three.clone(), None).views(1, 4).contains(lost));
    let note = owner.note(*lost);
    let effects = owner.show(two);
    assert!(matches!(effects[0], Effect::Keep { .. }), "durably, and before all else: {effects:?}");
    let kept = owner.kept.clone();
    owner.show(three.clone());
    let noted = Noted { slot: lost.id, note };
    let ask = TransferRequest::HandOver(vec![noted]);
    assert_eq!(answer(&owner.ask(4, 9, ask)), Some(&TransferReply::Given(vec![false])));
    let ask = TransferRequest::Confirm(vec![noted]);
    assert_eq!(answer(&owner.ask(4, 9, ask)), Some(&TransferReply::Standing(vec![false])));
    let mut restarted = Alone::new(1, three, kept.as_deref());
    let ask = TransferRequest::Confirm(vec![noted]);
    assert_eq!(answer(&restarted.ask(4, 9, ask)), Some(&TransferReply::Standing(vec![false])));
}

#[test]
fn only_the_successor_in_the_owners_own_view_is_noted_and_given_to() {
    let mut owner = Alone::new(1, joined(&[4]), None);
    let view = owner.views(1, 4)[0];
    let other = owner.views(2, 4)[0];
    let wrong = SlotView { version: view.version + 1, ..view };
    for (from, view) in [(5, view), (4, wrong), (4, SlotView { successor: NodeId(5), ..view })] {
        let effects = owner.ask(from, 1, TransferRequest::Begin(view));
        assert_eq!(answer(&effects), Some(&TransferReply::Stale), "{from} {view:?}");
    }
    // An owner of another slot notes it too, for one who copies from all, but does not give it.
    let note = owner.note(other);
    let noted = Noted { slot: other.id, note };
    let effects = owner.ask(4, 2, TransferRequest::HandOver(vec![noted]));
    assert_eq!(answer(&effects), Some(&TransferReply::Given(vec![false])));
    let note = owner.note(view);
    let effects = owner.ask(4, 3, TransferRequest::HandOver(vec![Noted { slot: view.id, note }]));
    let Some(Effect::HandOver { order, basis, changes }) = effects.into_iter().next() else {
        panic!("no order")
    };
    assert_eq!((basis, changes.len()), (owner.topology.version(), 1));
    let mut state = owner.topology.state().clone();
    assert!(state.hand_over(&changes[0]));
    owner.show(state);
    let effects = owner.take(Input::HandedOver { order, given: true });
    assert_eq!(answer(&effects), Some(&TransferReply::Given(vec![true])));
    assert_eq!(owner.transfers.status().set_aside, 0, "it was given and not lost");
}

#[test]
fn a_slot_that_is_lost_without_being_given_is_set_aside_and_never_deleted() {
    let mut owner = Alone::new(1, joined(&[4]), None);
    let view = owner.views(1, 4)[0];
    let mut state = owner.topology.state().clone();
    assert!(state.hand_over(&notes::change(&owner.transfers.desk, view)));
    let effects = owner.show(state.clone());
    assert!(matches!(effects[0], Effect::Keep { .. }), "{effects:?}");
    assert_eq!(owner.transfers.status().set_aside, 1);
    let mut owner = Alone::new(1, state, owner.kept.as_deref());
    owner.now = Instant(3_600_000_000);
    let effects = owner.take(Input::Second { p99: Duration::ZERO });
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Clear { .. })), "{effects:?}");
}

#[test]
fn what_is_left_is_deleted_partition_by_partition_with_a_pause_after_each_that_had_something() {
    let mut member = Alone::new(4, joined(&[4]), None);
    let cleared = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Clear { partition, scope } => Some((*partition, *scope)),
            _ => None,
        })
    };
    member.now = Instant(60_000_000);
    let mut effects = member.take(Input::Second { p99: Duration::ZERO });
    for found in [false, false, true] {
        let (partition, scope) = cleared(&effects).expect("the next one, at once");
        effects = member.take(Input::Cleared { partition, scope, found: Some(found) });
    }
    let until = member.now + leftovers::APART;
    assert_eq!(cleared(&effects), None);
    assert_eq!(member.transfers.next_deadline(), Some(until));
    member.transfers.handle_deadline(until, &mut effects);
    assert!(cleared(&effects).is_some());
}

#[test]
fn a_copy_goes_on_from_its_cursor_after_a_restart() {
    let mut successor = Alone::new(4, joined(&[4]), None);
    let effects = successor.take(Input::Second { p99: Duration::ZERO });
    let (id, owner, request) = asked(&effects).unwrap();
    assert!(matches!(request, TransferRequest::Begin(_)));
    let reply = Some(TransferReply::Begun { note: 77, amnesiac: false });
    let effects = successor.take(Input::Answered { id, reply });
    let (id, _, request) = asked(&effects).unwrap();
    assert!(matches!(request, TransferRequest::Page(page) if page.after.0.is_empty()));
    let key = crate::key::Key::new(b"default", b"key").unwrap();
    let mut builder = PageBuilder::default();
    builder.push(&key, 1, Some(b"object"));
    let page = builder.finish(key.joined(), false, 0);
    let running = page.running;
    let reply = Some(TransferReply::Page(page.clone()));
    let effects = successor.take(Input::Answered { id, reply });
    let merge = effects.iter().find_map(|effect| match effect {
        Effect::Merge { id, .. } => Some(*id),
        _ => None,
    });
    successor.now = Instant(10_000_000);
    let effects = successor.take(Input::Merged { id: merge.unwrap(), result: Ok(()) });
    let (id, _, request) = asked(&effects).unwrap();
    let TransferRequest::Page(next) = request else { panic!("{request:?}") };
    assert_eq!((&next.after.0, next.running), (key.joined(), running));
    // A page that does not continue is asked for again, from the same place.
    let reply = Some(TransferReply::Page(page));
    successor.take(Input::Answered { id, reply });
    assert_eq!(successor.transfers.desk.tally.bad_pages, 1);
    let mut successor = Alone::new(4, joined(&[4]), successor.kept.as_deref());
    let effects = successor.take(Input::Second { p99: Duration::ZERO });
    let (_, to, request) = asked(&effects).unwrap();
    let TransferRequest::Page(next) = request else { panic!("{request:?}") };
    assert_eq!((to, next.noted.note, &next.after.0), (owner, 77, key.joined()));
    assert_eq!(successor.transfers.desk.tally.resumed, 1);
}

/// Answers what the successor asks, each owner as one who may have forgotten things and has no keys,
/// until it asks for something that `holds_back` names; returns that one's number.
fn copy_until(
    successor: &mut Alone,
    effects: Vec<Effect>,
    holds_back: impl Fn(NodeId, &TransferRequest) -> bool,
) -> u64 {
    let (mut asks, mut notes) = (VecDeque::from(effects), 100);
    loop {
        let Some(effect) = asks.pop_front() else {
            assert!(successor.now < Instant(600_000_000), "it is never asked for");
            successor.now = successor.now + SECOND;
            asks.extend(successor.take(Input::Second { p99: Duration::ZERO }));
            continue;
        };
        let Effect::Send { id, to, request } = effect else { continue };
        if holds_back(to, &request) {
            return id;
        }
        let reply = match &request {
            TransferRequest::Begin(_) => {
                notes += 1;
                TransferReply::Begun { note: notes, amnesiac: true }
            }
            TransferRequest::Page(page) => {
                TransferReply::Page(PageBuilder::default().finish(b"", true, page.running))
            }
            TransferRequest::Confirm(noted) => TransferReply::Standing(vec![true; noted.len()]),
            TransferRequest::HandOver(noted) => TransferReply::Given(vec![false; noted.len()]),
        };
        asks.extend(successor.take(Input::Answered { id, reply: Some(reply) }));
    }
}

/// Seed 239 of the simulator: a source came to be done without a note, and nobody could confirm it.
#[test]
fn an_answer_about_the_note_of_an_earlier_copy_is_no_news_of_the_one_that_took_its_place() {
    let one = joined(&[4]);
    let two = joined(&[4, 5]);
    let three = standing(two.clone(), 5, Standing::Leaving);
    let views = |state: &ClusterState| {
        let owners = 1..=3;
        let alone = |owner| Alone::new(owner, state.clone(), None).views(owner, 4);
        owners.flat_map(alone).collect::<Vec<_>>()
    };
    let after = views(&two);
    // This slot is to be 4's, then 5's, then 4's again.
    let lost = views(&one).into_iter().find(|view| !after.contains(view)).unwrap();
    assert!(views(&three).contains(&lost));
    let other = (1..=3).map(NodeId).find(|node| lost.owner != Some(*node)).unwrap();

    let mut successor = Alone::new(4, one, None);
    let effects = successor.take(Input::Second { p99: Duration::ZERO });
    let confirm = copy_until(&mut successor, effects, |to, request| {
        let is_lost = |noted: &Noted| noted.slot == lost.id;
        let has_lost = matches!(request, TransferRequest::Confirm(all) if all.iter().any(is_lost));
        to == other && has_lost
    });
    let mut effects = successor.show(two);
    effects.extend(successor.show(three));
    let page = copy_until(&mut successor, effects, |to, request| {
        let is_lost = |page: &PageRequest| page.noted.slot == lost.id;
        to == other && matches!(request, TransferRequest::Page(page) if is_lost(page))
    });
    let asked = &successor.transfers.pulls.under_way[&confirm];
    let pull::Matter::Confirm { copied, .. } = asked else { panic!("it was asked to confirm") };
    let fallen = Some(TransferReply::Standing(vec![false; copied.len()]));
    successor.take(Input::Answered { id: confirm, reply: fallen });
    let last = PageBuilder::default().finish(b"", true, 0);
    successor.take(Input::Answered { id: page, reply: Some(TransferReply::Page(last)) });

    let pull = &successor.transfers.pulls.pulls[&(lost.id.scope, lost.id.partition)];
    let source = pull.sources.iter().find(|source| source.node == other).unwrap();
    assert!(source.done && source.note.is_some(), "its page was the last");
}

#[test]
fn a_member_that_does_not_answer_holds_up_its_own_slots_only() {
    let mut successor = Alone::new(4, joined(&[4]), None);
    let mut effects = successor.take(Input::Second { p99: Duration::ZERO });
    let mut silent = None;
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let Some((id, to, _)) = asked(&effects) else { break };
        let silent = *silent.get_or_insert(to);
        let reply = (to != silent).then_some(TransferReply::Busy);
        others.extend((to != silent).then_some(to));
        effects = successor.take(Input::Answered { id, reply });
    }
    assert_eq!(others.len(), 2);
    let status = successor.transfers.status();
    let row = status.incoming.iter().find(|row| row.from == silent).unwrap();
    assert!(row.held_up.contains("does not answer"), "{row:?}");
}

#[test]
fn slot_ids_of_other_counts_and_places_are_answered_and_not_followed() {
    let mut owner = Alone::new(1, joined(&[4]), None);
    let view = owner.views(1, 4)[0];
    for id in [
        SlotId { scope: 9.into(), ..view.id },
        SlotId { partition: Partition(40_000), ..view.id },
        SlotId { slot: 200, ..view.id },
    ] {
        let effects = owner.ask(4, 1, TransferRequest::Begin(SlotView { id, ..view }));
        assert_eq!(answer(&effects), Some(&TransferReply::Stale));
    }
}
