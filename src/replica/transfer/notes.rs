//! The owner's side: who is copying which of this node's slots.

use std::collections::{BTreeMap, BTreeSet};

use super::Effect;
use super::desk::Desk;
use super::kept::KeptNote;
use crate::ids::NodeId;
use crate::membership::HandOver;
use crate::store::StoreError;
use crate::wire::transfer::{Noted, Page, SlotId, SlotView, TransferReply, TransferRequest};

/// Pages that are read for others at once; past it the answer is "busy".
const READS_MOST: usize = 16;
/// Slots one message may name.
pub(super) const BATCH_MOST: usize = 64;

#[derive(Default)]
pub(super) struct Notes {
    notes: BTreeMap<SlotId, Note>,
    /// Fences under way, by number, each with the note it is for.
    fences: BTreeMap<u64, (SlotId, u64)>,
    /// Pages being read: who asked, and how many bytes.
    reading: BTreeSet<u64>,
    /// Slots being given away, by the number of the order.
    orders: BTreeMap<u64, Order>,
}

struct Note {
    view: SlotView,
    note: u64,
    /// Everything taken before the note was made is committed.
    fenced: bool,
    /// Who waits for that.
    waiting: Vec<u64>,
}

struct Order {
    ask: u64,
    /// Which of the slots that were asked for are in it.
    given: Vec<bool>,
    changes: Vec<HandOver>,
}

impl Notes {
    /// Those that still stand of what was kept. They were fenced before they were answered, and
    /// what they stood for has not changed since: the shards start anew with what is committed.
    pub(super) fn new(desk: &Desk, kept: &[KeptNote]) -> Self {
        let stands = kept.iter().filter(|kept| desk.view(kept.view.id) == Some(kept.view));
        let note = |kept: &KeptNote| {
            let KeptNote { view, note } = *kept;
            (view.id, Note { view, note, fenced: true, waiting: Vec::new() })
        };
        Self { notes: stands.map(note).collect(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub(super) fn kept(&self) -> Vec<KeptNote> {
        let kept = |note: &Note| KeptNote { view: note.view, note: note.note };
        self.notes.values().map(kept).collect()
    }

    /// Whether this node is giving the slot to this node, now.
    pub(super) fn is_giving(&self, id: SlotId, to: NodeId) -> bool {
        let mut changes = self.orders.values().flat_map(|order| &order.changes);
        changes.any(|change| slot_id(change) == id && change.to == to)
    }

    /// Drops what does not stand any more.
    pub(super) fn topology(&mut self, desk: &mut Desk) {
        let before = self.notes.len();
        let mut left_waiting = Vec::new();
        self.notes.retain(|id, note| {
            let stands = desk.view(*id) == Some(note.view);
            if !stands {
                left_waiting.append(&mut note.waiting);
            }
            stands
        });
        desk.keep |= self.notes.len() < before;
        for ask in left_waiting {
            answer(desk, ask, TransferReply::Stale);
        }
    }

    /// A successor asks.
    pub(super) fn asked(
        &mut self,
        desk: &mut Desk,
        from: NodeId,
        ask: u64,
        request: TransferRequest,
    ) {
        match request {
            TransferRequest::Begin(view) => self.begin(desk, from, ask, view),
            TransferRequest::Page(request) => {
                if !self.stands(from, request.noted) {
                    answer(desk, ask, TransferReply::Gone);
                } else if self.reading.len() >= READS_MOST {
                    answer(desk, ask, TransferReply::Busy);
                } else {
                    self.reading.insert(ask);
                    desk.effects.push(Effect::ReadPage { ask, request });
                }
            }
            TransferRequest::Confirm(noted) => {
                let noted = noted.iter().take(BATCH_MOST);
                let standing = noted.map(|noted| self.stands(from, *noted)).collect();
                answer(desk, ask, TransferReply::Standing(standing));
            }
            TransferRequest::HandOver(noted) => self.hand_over(desk, from, ask, &noted),
        }
    }

    fn stands(&self, from: NodeId, noted: Noted) -> bool {
        let note = self.notes.get(&noted.slot);
        note.is_some_and(|note| {
            note.note == noted.note && note.view.successor == from && note.fenced
        })
    }

    fn begin(&mut self, desk: &mut Desk, from: NodeId, ask: u64, view: SlotView) {
        let me = desk.me();
        // One whom slots without an owner are copied from is also asked where this one's owner has
        // forgotten things.
        let is_source = desk.topology.sources(view.id.partition, view.id.scope).contains(&me);
        let is_owner = is_source || view.owner == Some(me);
        if desk.view(view.id) != Some(view) || view.successor != from || !is_owner {
            answer(desk, ask, TransferReply::Stale);
            return;
        }
        if let Some(note) = self.notes.get_mut(&view.id) {
            match note.fenced {
                true => begun(desk, ask, note.note),
                false => note.waiting.push(ask),
            }
            return;
        }
        let note = desk.note_number();
        let order = desk.next_id();
        self.notes.insert(view.id, Note { view, note, fenced: false, waiting: vec![ask] });
        self.fences.insert(order, (view.id, note));
        desk.keep = true;
        desk.effects.push(Effect::Fence { order, view });
    }

    /// The shard has committed what it had taken, or has not.
    pub(super) fn fenced(&mut self, desk: &mut Desk, order: u64, done: bool) {
        let Some((id, number)) = self.fences.remove(&order) else { return };
        let Some(note) = self.notes.get_mut(&id).filter(|note| note.note == number) else {
            return;
        };
        note.fenced = done;
        let waiting = std::mem::take(&mut note.waiting);
        if !done {
            self.notes.remove(&id);
            desk.keep = true;
        }
        for ask in waiting {
            match done {
                true => begun(desk, ask, number),
                false => answer(desk, ask, TransferReply::Busy),
            }
        }
    }

    pub(super) fn page_read(
        &mut self,
        desk: &mut Desk,
        ask: u64,
        result: Result<Page, StoreError>,
    ) {
        if !self.reading.remove(&ask) {
            return;
        }
        let reply = match result {
            Ok(mut page) => {
                let bytes = page.body.0.len();
                desk.tally.bytes_given += bytes as u64;
                let wait = desk.giving.take(desk.now, bytes);
                page.wait_ms = wait.as_millis() as u32;
                TransferReply::Page(page)
            }
            Err(error) => TransferReply::Unreadable(error.to_string()),
        };
        answer(desk, ask, reply);
    }

    fn hand_over(&mut self, desk: &mut Desk, from: NodeId, ask: u64, noted: &[Noted]) {
        let me = desk.me();
        let (mut given, mut changes) = (Vec::new(), Vec::new());
        for noted in noted.iter().take(BATCH_MOST) {
            let note = self.notes.get(&noted.slot).filter(|_| self.stands(from, *noted));
            let view = note.map(|note| note.view).filter(|view| view.owner == Some(me));
            let is_free = !self.is_giving(noted.slot, from);
            given.push(view.is_some() && is_free);
            if let Some(view) = view.filter(|_| is_free) {
                changes.push(change(desk, view));
            }
        }
        if changes.is_empty() {
            answer(desk, ask, TransferReply::Given(given));
            return;
        }
        let (order, basis) = (desk.next_id(), desk.topology.version());
        desk.effects.push(Effect::HandOver { order, basis, changes: changes.clone() });
        self.orders.insert(order, Order { ask, given, changes });
    }

    pub(super) fn handed_over(&mut self, desk: &mut Desk, order: u64, given: bool) {
        let Some(mut order) = self.orders.remove(&order) else { return };
        if given {
            desk.tally.slots_given += order.changes.len() as u64;
        } else {
            order.given.fill(false);
        }
        answer(desk, order.ask, TransferReply::Given(order.given));
    }

    /// Who copies, and how many slots.
    pub(super) fn outgoing(&self) -> Vec<(NodeId, u32)> {
        let mut by_successor: BTreeMap<NodeId, u32> = BTreeMap::new();
        for note in self.notes.values() {
            *by_successor.entry(note.view.successor).or_default() += 1;
        }
        by_successor.into_iter().collect()
    }
}

fn begun(desk: &mut Desk, ask: u64, note: u64) {
    let amnesiac = desk.settings.amnesiac;
    answer(desk, ask, TransferReply::Begun { note, amnesiac });
}

fn answer(desk: &mut Desk, ask: u64, reply: TransferReply) {
    desk.effects.push(Effect::Answer { ask, reply });
}

fn slot_id(change: &HandOver) -> SlotId {
    SlotId { scope: change.scope, partition: change.partition, slot: change.slot as u8 }
}

/// The change that makes the successor the owner.
pub(super) fn change(desk: &Desk, view: SlotView) -> HandOver {
    let SlotId { scope, partition, slot } = view.id;
    let slot = usize::from(slot);
    let expected = desk.topology.slots(partition, scope)[slot];
    HandOver { scope, partition, slot, expected, to: view.successor }
}
