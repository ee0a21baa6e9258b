//! What both sides of the transfers share: the time, the topology, the paces, and the way out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Settings};
use crate::ids::{NodeId, Partition, Scope};
use crate::membership::{Slot, Topology};
use crate::random::Random;
use crate::replica::pace::Pace;
use crate::time::Instant;
use crate::wire::transfer::{SlotId, SlotView};

/// The first pause after a failure; each further one doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_LAST: Duration = Duration::from_secs(5);

pub(super) struct Desk {
    pub(super) settings: Settings,
    pub(super) topology: Arc<Topology>,
    pub(super) now: Instant,
    pub(super) effects: Vec<Effect>,
    pub(super) tally: Tally,
    /// What this node takes, and what it gives.
    pub(super) taking: Pace,
    pub(super) giving: Pace,
    /// Something must be kept before the effects of this call are begun.
    pub(super) keep: bool,
    pub(super) kept_at: Instant,
    pub(super) wake_at: Option<Instant>,
    random: Random,
    last_id: u64,
}

impl Desk {
    pub(super) fn new(
        settings: Settings,
        topology: Arc<Topology>,
        now: Instant,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let last_id = random.next_u64() >> 1;
        let (taking, giving) = (Pace::new(settings.rate), Pace::new(settings.rate));
        Self {
            settings,
            topology,
            now,
            effects: Vec::new(),
            tally: Tally::default(),
            taking,
            giving,
            keep: false,
            kept_at: now,
            wake_at: None,
            random,
            last_id,
        }
    }

    pub(super) fn me(&self) -> NodeId {
        self.settings.node
    }

    /// A number that stands for one thing this life of the node wants done.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A number for a note: never the same twice, whatever is forgotten.
    pub(super) fn note_number(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// How long to wait after so many failures in a row, give or take a quarter.
    pub(super) fn pause(&mut self, failures: u32) -> Duration {
        let pause = (PAUSE_FIRST * (1 << (failures.clamp(1, 10) - 1))).min(PAUSE_LAST);
        let quarter = pause.as_micros() as u64 / 4;
        pause - Duration::from_micros(quarter)
            + Duration::from_micros(self.random.below(2 * quarter))
    }

    /// Asks for a call of `handle_deadline` at `at`, unless one comes earlier.
    pub(super) fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// The scopes that have slots.
    pub(super) fn scopes(topology: &Topology) -> impl Iterator<Item = Scope> {
        topology.state().slots.keys().copied()
    }

    /// Every slot there is.
    pub(super) fn all_slots(topology: &Topology) -> impl Iterator<Item = (SlotId, Slot)> {
        let partitions = 0..topology.partitions();
        let each = partitions.flat_map(move |number| {
            let partition = Partition(number as u16);
            Self::scopes(topology).map(move |scope| (scope, partition))
        });
        each.flat_map(move |(scope, partition)| {
            let slots = topology.slots(partition, scope).iter().enumerate();
            slots.map(move |(at, slot)| (SlotId { scope, partition, slot: at as u8 }, *slot))
        })
    }

    /// The slot as this node sees it, if it has a successor.
    pub(super) fn view(&self, id: SlotId) -> Option<SlotView> {
        let slot = self.topology.slots(id.partition, id.scope).get(usize::from(id.slot))?;
        view(&self.topology, id, slot)
    }
}

/// A slot that has a successor.
pub(super) fn view(topology: &Topology, id: SlotId, slot: &Slot) -> Option<SlotView> {
    let Slot { owner, successor, version } = *slot;
    let (successor, moves) = (successor?, topology.moves_mark(id.partition, id.scope));
    Some(SlotView { id, version, owner, successor, moves })
}

/// What the transfers of a node have counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Slots this node has become the owner of.
    pub slots_taken: u64,
    /// Slots it has given away.
    pub slots_given: u64,
    /// Bytes of pages it has merged.
    pub bytes_taken: u64,
    /// Keys in them.
    pub keys_taken: u64,
    /// Bytes of pages it has given to successors.
    pub bytes_given: u64,
    /// Copies that went on from a cursor after a restart of this node.
    pub resumed: u64,
    /// Copies that had to begin again because the owner's note did not stand any more.
    pub restarted: u64,
    /// Pages that did not continue those before.
    pub bad_pages: u64,
    /// Partitions whose leftovers were deleted.
    pub cleared: u64,
}

impl Tally {
    /// The counts by name.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, u64)> {
        let rows = BTreeMap::from([
            ("transfer_slots_taken", self.slots_taken),
            ("transfer_slots_given", self.slots_given),
            ("transfer_bytes_taken", self.bytes_taken),
            ("transfer_keys_taken", self.keys_taken),
            ("transfer_bytes_given", self.bytes_given),
            ("transfers_resumed", self.resumed),
            ("transfers_restarted", self.restarted),
            ("transfer_bad_pages", self.bad_pages),
            ("partitions_cleared", self.cleared),
        ]);
        rows.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}
