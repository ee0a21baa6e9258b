//! The successor's side: what this node is to have, from whom, and how far it has come.
//!
//! ```text
//!   for each source:   Begin ─▶ Page ─▶ merge ─▶ Page ─▶ ... ─▶ done
//!   then:              Confirm, by all sources but the owner
//!                      HandOver, by the owner; or, where there is none, taken by this node itself
//! ```
//!
//! The source of a slot is its owner. Where it has none, or the owner says that it may have
//! forgotten things, all other owners of the partition are; where a bucket arrives in new slots, all
//! owners of those that it comes from ([`Topology::sources`](crate::membership::Topology::sources)).
//! The first is copied in full, of the others only what differs. A member that does not answer is left alone for a while, with
//! everything that needs it, and holds up nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Effect;
use super::Unmerged;
use super::copy::Pull;
use super::desk::{Desk, view};
use super::kept::KeptPull;
use super::notes::BATCH_MOST;
use super::page::PAGE_BYTES;
use super::show::Progress;
use crate::ids::{NodeId, Partition, Scope};
use crate::time::Instant;
use crate::wire::transfer::{
    Noted, Page, PageRequest, SlotView, TransferReply, TransferRequest, entries,
};

/// How often cursors are kept. What is lost between is copied twice.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// Slots of one scope in a partition: a node stands in one of them at most.
pub(super) type Place = (Scope, Partition);
/// What is copied, and under which note. An answer about another note than that of the copy which is in
/// that place by now is no news of it.
pub(super) type Copied = (Place, u64);

#[derive(Default)]
pub(super) struct Pulls {
    /// Everything this node is to have.
    pub(super) wanted: BTreeMap<Place, SlotView>,
    /// Of that, what has been begun.
    pub(super) pulls: BTreeMap<Place, Pull>,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Questions, merges and orders under way, by number.
    pub(super) under_way: BTreeMap<u64, Matter>,
    pub(super) progress: Progress,
    pub(super) dirty: bool,
}

/// A member that is asked.
#[derive(Default)]
pub(super) struct Peer {
    failures: u32,
    pub(super) retry_at: Instant,
    pub(super) why: String,
    /// Slots are being confirmed or given by it.
    pub(super) settling: bool,
}

/// What a number stands for.
pub(super) enum Matter {
    /// A source is asked.
    Ask {
        place: Place,
        node: NodeId,
        note: Option<u64>,
    },
    /// A page is merged.
    Merge {
        place: Place,
        node: NodeId,
        note: Option<u64>,
        page: Page,
        keys: usize,
    },
    /// A node is asked whether notes stand, or to give slots.
    Confirm {
        node: NodeId,
        copied: Vec<Copied>,
    },
    HandOver {
        node: NodeId,
        copied: Vec<Copied>,
    },
    /// This node takes slots without an owner.
    Take {
        places: Vec<Place>,
    },
}

pub(super) fn can_be_asked(peers: &BTreeMap<NodeId, Peer>, node: NodeId, now: Instant) -> bool {
    peers.get(&node).is_none_or(|peer| peer.retry_at <= now)
}

fn place(view: &SlotView) -> Place {
    (view.id.scope, view.id.partition)
}

impl Pulls {
    pub(super) fn new(desk: &mut Desk, kept: Vec<KeptPull>) -> Self {
        let mut pulls = Self::default();
        pulls.topology(desk);
        for KeptPull { view, sources } in kept {
            if pulls.wanted.get(&place(&view)) != Some(&view) {
                continue;
            }
            desk.tally.resumed += u64::from(sources.iter().any(|source| source.note.is_some()));
            let mut pull = Pull::from_kept(KeptPull { view, sources }, desk.now);
            // It was kept before the last change of the state, perhaps.
            pull.keep_sources(desk);
            pulls.pulls.insert(place(&view), pull);
        }
        pulls
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(super) fn kept(&self) -> Vec<KeptPull> {
        self.pulls.values().map(Pull::kept).collect()
    }

    /// What is wanted now; what is not, or otherwise, is forgotten.
    pub(super) fn topology(&mut self, desk: &mut Desk) {
        let me = desk.me();
        let before = std::mem::take(&mut self.wanted);
        let topology = desk.topology.clone();
        for (id, slot) in Desk::all_slots(&topology) {
            if let Some(view) = view(&topology, id, &slot).filter(|view| view.successor == me) {
                self.wanted.insert(place(&view), view);
            }
        }
        for view in before.values().filter(|view| self.wanted.get(&place(view)) != Some(view)) {
            let slots = topology.slots(view.id.partition, view.id.scope);
            let is_mine =
                slots.get(usize::from(view.id.slot)).is_some_and(|slot| slot.owner == Some(me));
            if is_mine {
                desk.tally.slots_taken += 1;
                self.progress.taken(view.owner);
            }
        }
        if before.is_empty() && !self.wanted.is_empty() {
            self.progress = Progress::default();
        }
        let begun = self.pulls.len();
        self.pulls.retain(|place, pull| self.wanted.get(place) == Some(&pull.view));
        self.dirty |= self.pulls.len() < begun;
        for pull in self.pulls.values_mut() {
            pull.keep_sources(desk);
        }
    }

    /// There is a connection: whatever was wrong may be over.
    pub(super) fn connected(&mut self, desk: &Desk, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.retry_at, peer.failures) = (desk.now, 0);
        }
    }

    pub(super) fn second(&mut self) {
        self.progress.second();
    }

    // ---- answers -------------------------------------------------------------------------

    pub(super) fn answered(&mut self, desk: &mut Desk, id: u64, reply: Option<TransferReply>) {
        let Some(matter) = self.under_way.remove(&id) else { return };
        let node = match &matter {
            Matter::Ask { node, .. }
            | Matter::Confirm { node, .. }
            | Matter::HandOver { node, .. } => *node,
            Matter::Merge { .. } | Matter::Take { .. } => {
                self.under_way.insert(id, matter);
                return;
            }
        };
        let peer = self.peers.entry(node).or_default();
        match &reply {
            Some(_) => (peer.failures, peer.why) = (0, String::new()),
            None => {
                peer.failures += 1;
                peer.retry_at = desk.now + desk.pause(peer.failures);
                "it does not answer".clone_into(&mut peer.why);
            }
        }
        match matter {
            Matter::Ask { place, note, .. } => {
                let is_current = |pull: &&mut Pull| pull.busy == Some(id);
                let Some(pull) = self.pulls.get_mut(&place).filter(is_current) else { return };
                pull.busy = None;
                if let Some(reply) = reply {
                    self.source_answered(desk, place, (node, note), reply);
                }
            }
            Matter::Confirm { copied, .. } => {
                peer.settling = false;
                self.confirmed(desk, node, &copied, reply);
            }
            Matter::HandOver { copied, .. } => {
                peer.settling = false;
                self.given(desk, node, &copied, reply);
            }
            Matter::Merge { .. } | Matter::Take { .. } => {}
        }
    }

    fn source_answered(
        &mut self,
        desk: &mut Desk,
        place: Place,
        (node, note): (NodeId, Option<u64>),
        reply: TransferReply,
    ) {
        let Some(pull) = self.pulls.get_mut(&place) else { return };
        let owner = pull.view.owner;
        let Some(source) = pull.source_under(node, note) else { return };
        match reply {
            TransferReply::Begun { note, amnesiac } => {
                source.note = Some(note);
                // At once, so that a restart goes on under it, however small the slot.
                desk.keep = true;
                if amnesiac && Some(node) == owner {
                    pull.settle_sources(desk, true);
                }
            }
            TransferReply::Page(page) => {
                let found = match page.continues(source.running) {
                    true => entries(&page).map_err(|error| error.to_string()),
                    false => Err("a page does not continue the one before".to_owned()),
                };
                let entries = match found {
                    Ok(entries) => entries,
                    Err(why) => {
                        desk.tally.bad_pages += 1;
                        pull.failed(desk, &why);
                        return;
                    }
                };
                desk.taking.take(desk.now, page.body.0.len());
                let wait = Duration::from_millis(page.wait_ms.into());
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.retry_at = desk.now + wait.min(Duration::from_secs(60));
                }
                let id = desk.next_id();
                pull.busy = Some(id);
                let keys = entries.len();
                self.under_way.insert(id, Matter::Merge { place, node, note, page, keys });
                match entries.is_empty() {
                    true => self.merged(desk, id, Ok(())),
                    false => desk.effects.push(Effect::Merge { id, from: node, entries }),
                }
            }
            TransferReply::Gone => {
                source.begin_again();
                desk.tally.restarted += 1;
                self.dirty = true;
            }
            TransferReply::Stale => {
                pull.failed(desk, "it goes by other slots; states are being exchanged");
                desk.effects.push(Effect::Exchange(node));
            }
            TransferReply::Unreadable(why) => {
                // Nothing mends itself at once: somebody should look.
                pull.failed(desk, &why);
                pull.retry_at = desk.now + Duration::from_secs(5);
            }
            TransferReply::Busy | TransferReply::Standing(_) | TransferReply::Given(_) => {
                pull.failed(desk, "it is busy");
            }
        }
    }

    /// A page is committed here, or is not.
    pub(super) fn merged(&mut self, desk: &mut Desk, id: u64, result: Result<(), Unmerged>) {
        let Some(Matter::Merge { place, node, note, page, keys }) = self.under_way.remove(&id)
        else {
            return;
        };
        let is_current = |pull: &&mut Pull| pull.busy == Some(id);
        let Some(pull) = self.pulls.get_mut(&place).filter(is_current) else { return };
        pull.busy = None;
        if let Err(Unmerged { why, is_damaged }) = result {
            pull.failed(desk, &why);
            // What the record held had been copied, or never was: all of it again.
            if is_damaged {
                pull.begin_again();
                desk.tally.restarted += 1;
                self.dirty = true;
            }
            return;
        }
        (pull.failures, pull.why) = (0, String::new());
        let owner = pull.view.owner;
        let Some(source) = pull.source_under(node, note) else { return };
        let bytes = page.body.0.len() as u64;
        desk.tally.bytes_taken += bytes;
        desk.tally.keys_taken += keys as u64;
        self.progress.took(owner, bytes);
        (source.cursor, source.running, source.done) = (page.last, page.running, page.done);
        debug_assert!(source.note.is_some(), "a page is copied under a note");
        self.dirty = true;
        if page.done {
            // Of those that have not been begun, most is here now.
            for source in pull.sources.iter_mut().filter(|source| source.note.is_none()) {
                source.digests = true;
            }
        }
        if pull.is_copied() {
            pull.ready_since = Some(desk.now);
        }
    }

    // ---- going on ------------------------------------------------------------------------

    /// Asks for whatever can be asked for now.
    pub(super) fn go_on(&mut self, desk: &mut Desk) {
        if self.wanted.is_empty() {
            desk.keep |= std::mem::take(&mut self.dirty);
            return;
        }
        self.copy(desk);
        self.settle(desk);
        if self.dirty {
            let keep_at = desk.kept_at + KEEP_EVERY;
            if keep_at <= desk.now {
                self.dirty = false;
                desk.keep = true;
            } else {
                desk.wake(keep_at);
            }
        }
    }

    /// Goes on with what has been begun, then begins more, as long as there is room.
    fn copy(&mut self, desk: &mut Desk) {
        let now = desk.now;
        let is_copying =
            |matter: &&Matter| matches!(matter, Matter::Ask { .. } | Matter::Merge { .. });
        let mut room = desk.settings.at_once;
        room = room.saturating_sub(self.under_way.values().filter(is_copying).count());
        if desk.taking.free_at() > now {
            desk.wake(desk.taking.free_at());
            return;
        }
        let idle = self.pulls.iter().filter(|(_, pull)| pull.busy.is_none() && !pull.is_copied());
        let idle: Vec<Place> = idle.map(|(place, _)| *place).collect();
        for place in idle {
            if room == 0 {
                return;
            }
            room -= usize::from(self.ask(desk, place));
        }
        while room > 0
            && let Some(place) = self.next_to_begin(now)
        {
            let mut pull = Pull::new(desk, self.wanted[&place]);
            if pull.is_copied() {
                // Nobody has anything of it.
                pull.ready_since = Some(now);
            }
            self.pulls.insert(place, pull);
            room -= usize::from(self.ask(desk, place));
        }
        for peer in self.peers.values().filter(|peer| peer.retry_at > now) {
            desk.wake(peer.retry_at);
        }
    }

    /// What to begin next: of the owner that fewest are copied from now.
    fn next_to_begin(&self, now: Instant) -> Option<Place> {
        let mut load: BTreeMap<Option<NodeId>, usize> = BTreeMap::new();
        for pull in self.pulls.values().filter(|pull| !pull.is_copied()) {
            *load.entry(pull.view.owner).or_default() += 1;
        }
        let fresh = self.wanted.iter().filter(|(place, view)| {
            let usable = view.owner.is_none_or(|owner| can_be_asked(&self.peers, owner, now));
            usable && !self.pulls.contains_key(place)
        });
        // One that cannot be gone on with must not be joined by all its neighbours.
        let fresh = fresh.map(|(place, view)| (load.get(&view.owner).copied().unwrap_or(0), place));
        fresh.filter(|(load, _)| *load < BATCH_MOST).min().map(|(_, place)| *place)
    }

    /// Asks the next source of a slot. Returns whether there was one.
    fn ask(&mut self, desk: &mut Desk, place: Place) -> bool {
        let Some(pull) = self.pulls.get_mut(&place) else { return false };
        if pull.retry_at > desk.now {
            desk.wake(pull.retry_at);
            return false;
        }
        let Some(node) = pull.next_source(&self.peers, desk.now) else { return false };
        let view = pull.view;
        let Some(source) = pull.source(node) else { return false };
        let note = source.note;
        let request = match source.note {
            None => TransferRequest::Begin(view),
            Some(note) => TransferRequest::Page(PageRequest {
                noted: Noted { slot: view.id, note },
                after: source.cursor.clone(),
                bytes: desk.taking.piece(PAGE_BYTES),
                digests: source.digests,
                running: source.running,
            }),
        };
        let id = desk.next_id();
        pull.busy = Some(id);
        self.under_way.insert(id, Matter::Ask { place, node, note });
        desk.effects.push(Effect::Send { to: node, id, request });
        true
    }

    // ---- for people ----------------------------------------------------------------------

    pub(super) fn wanted(&self) -> impl Iterator<Item = (&SlotView, Option<&Pull>)> {
        self.wanted.iter().map(|(place, view)| (view, self.pulls.get(place)))
    }

    pub(super) fn peers(&self) -> &BTreeMap<NodeId, Peer> {
        &self.peers
    }
}
