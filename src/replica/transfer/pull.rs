//! The successor's side: what this node is to have, from whom, and how far it has come.
//!
//! ```text
//!   for each source:   Begin ─▶ Page ─▶ merge ─▶ Page ─▶ ... ─▶ done
//!   then:              Confirm, by all sources but the owner
//!                      HandOver, by the owner; or, where there is none, taken by this node itself
//! ```
//!
//! The source of a slot is its owner. Where it has none, or the owner says that it may have
//! forgotten things, all other owners of the partition are: the first is copied in full, of the
//! others only what differs. A member that does not answer is left alone for a while, with
//! everything that needs it, and holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Effect;
use super::desk::{Desk, view};
use super::kept::{KeptPull, KeptSource};
use super::notes::{BATCH_MOST, change};
use super::page::PAGE_BYTES;
use super::show::Progress;
use crate::ids::{NodeId, Partition};
use crate::time::Instant;
use crate::wire::transfer::{
    Blob, Noted, Page, PageRequest, SlotId, SlotView, TransferReply, TransferRequest, entries,
};

/// How long finished slots wait for others, so that one change of the cluster state takes many.
const GATHER: Duration = Duration::from_millis(300);
/// How old a confirmation may be when it is used.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);
/// How often cursors are kept. What is lost between is copied twice.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// How long a slot that was given waits to be seen so, before it is asked for again.
const GIVEN_WAIT: Duration = Duration::from_secs(2);

/// Slots of one replica count in a partition: a node stands in one of them at most.
type Place = (u8, Partition);

#[derive(Default)]
pub(super) struct Pulls {
    /// Everything this node is to have.
    wanted: BTreeMap<Place, SlotView>,
    /// Of that, what has been begun.
    pulls: BTreeMap<Place, Pull>,
    peers: BTreeMap<NodeId, Peer>,
    /// Questions, merges and orders under way, by number.
    under_way: BTreeMap<u64, Matter>,
    pub(super) progress: Progress,
    dirty: bool,
}

/// One slot on its way here.
pub(super) struct Pull {
    view: SlotView,
    sources: Vec<Source>,
    /// The number of what is under way for it.
    busy: Option<u64>,
    retry_at: Instant,
    failures: u32,
    pub(super) why: String,
    /// Since when all its sources are done.
    ready_since: Option<Instant>,
}

struct Source {
    node: NodeId,
    note: Option<u64>,
    /// Only what differs is asked for.
    digests: bool,
    cursor: Blob,
    running: u64,
    done: bool,
    confirmed_at: Option<Instant>,
}

/// A member that is asked.
#[derive(Default)]
pub(super) struct Peer {
    failures: u32,
    retry_at: Instant,
    pub(super) why: String,
    /// Slots are being confirmed or given by it.
    settling: bool,
}

/// What a number stands for.
enum Matter {
    /// A source is asked.
    Ask {
        place: Place,
        node: NodeId,
    },
    /// A page is merged.
    Merge {
        place: Place,
        node: NodeId,
        page: Page,
        keys: usize,
    },
    /// A node is asked whether notes stand, or to give slots.
    Confirm {
        node: NodeId,
        places: Vec<Place>,
    },
    HandOver {
        node: NodeId,
        places: Vec<Place>,
    },
    /// This node takes slots without an owner.
    Take {
        places: Vec<Place>,
    },
}

impl Source {
    fn new(node: NodeId, digests: bool) -> Self {
        Self {
            node,
            note: None,
            digests,
            cursor: Blob::default(),
            running: 0,
            done: false,
            confirmed_at: None,
        }
    }

    /// The note is gone: everything again, but most of it is here.
    fn begin_again(&mut self) {
        *self = Self::new(self.node, true);
    }
}

impl Pull {
    fn new(desk: &Desk, view: SlotView) -> Self {
        let nodes = match view.owner {
            Some(owner) => vec![owner],
            None => other_owners(desk, view.id),
        };
        let sources = nodes.into_iter().map(|node| Source::new(node, false)).collect();
        Self::from_sources(view, sources)
    }

    fn from_sources(view: SlotView, sources: Vec<Source>) -> Self {
        let (busy, failures, ready_since) = (None, 0, None);
        let (retry_at, why) = (Instant(0), String::new());
        Self { view, sources, busy, retry_at, failures, why, ready_since }
    }

    fn is_copied(&self) -> bool {
        self.sources.iter().all(|source| source.done)
    }

    fn source(&mut self, node: NodeId) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.node == node)
    }

    fn failed(&mut self, desk: &mut Desk, why: &str) {
        self.failures += 1;
        why.clone_into(&mut self.why);
        self.retry_at = desk.now + desk.pause(self.failures);
    }

    /// Everybody who owned the partition when the copy began has to be copied, or who does now.
    fn settle_sources(&mut self, desk: &Desk, all: bool) {
        if !all {
            return;
        }
        let owners = other_owners(desk, self.view.id);
        let owner = self.view.owner;
        self.sources.retain(|source| {
            source.done || Some(source.node) == owner || owners.contains(&source.node)
        });
        for node in owners {
            if !self.sources.iter().any(|source| source.node == node) {
                let digests = self.sources.iter().any(|source| source.done);
                self.sources.push(Source::new(node, digests));
            }
        }
        if !self.is_copied() {
            self.ready_since = None;
        }
    }

    /// The source to ask now: the first that is not done and can be asked.
    fn next_source(&self, peers: &BTreeMap<NodeId, Peer>, now: Instant) -> Option<NodeId> {
        let open = self.sources.iter().filter(|source| !source.done);
        let mut usable = open.filter(|source| can_be_asked(peers, source.node, now));
        usable.next().map(|source| source.node)
    }
}

fn can_be_asked(peers: &BTreeMap<NodeId, Peer>, node: NodeId, now: Instant) -> bool {
    peers.get(&node).is_none_or(|peer| peer.retry_at <= now)
}

/// Those who own another slot of the partition.
fn other_owners(desk: &Desk, id: SlotId) -> Vec<NodeId> {
    let slots = desk.topology.slots(id.partition, id.n).iter().enumerate();
    let others = slots.filter(|(at, _)| *at != usize::from(id.slot));
    others.filter_map(|(_, slot)| slot.owner).filter(|node| *node != desk.me()).collect()
}

fn place(view: &SlotView) -> Place {
    (view.id.n, view.id.partition)
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
            let source = |kept: KeptSource| {
                let KeptSource { node, note, digests, cursor, running, done } = kept;
                Source { node, note, digests, cursor, running, done, confirmed_at: None }
            };
            let sources = sources.into_iter().map(source).collect();
            let mut pull = Pull::from_sources(view, sources);
            pull.ready_since = pull.is_copied().then_some(desk.now);
            pulls.pulls.insert(place(&view), pull);
        }
        pulls
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(super) fn kept(&self) -> Vec<KeptPull> {
        let source = |source: &Source| {
            let Source { node, note, digests, ref cursor, running, done, .. } = *source;
            KeptSource { node, note, digests, cursor: cursor.clone(), running, done }
        };
        let kept = |pull: &Pull| {
            let sources = pull.sources.iter().map(source).collect();
            KeptPull { view: pull.view, sources }
        };
        self.pulls.values().map(kept).collect()
    }

    /// What is wanted now; what is not, or otherwise, is forgotten.
    pub(super) fn topology(&mut self, desk: &mut Desk) {
        let me = desk.me();
        let before = std::mem::take(&mut self.wanted);
        let topology = desk.topology.clone();
        for (id, slot) in Desk::all_slots(&topology) {
            if let Some(view) = view(id, &slot).filter(|view| view.successor == me) {
                self.wanted.insert(place(&view), view);
            }
        }
        for view in before.values().filter(|view| self.wanted.get(&place(view)) != Some(view)) {
            let slots = topology.slots(view.id.partition, view.id.n);
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
            let all = pull.sources.iter().any(|source| Some(source.node) != pull.view.owner);
            pull.settle_sources(desk, all || pull.view.owner.is_none());
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
            Matter::Ask { place, .. } => {
                let is_current = |pull: &&mut Pull| pull.busy == Some(id);
                let Some(pull) = self.pulls.get_mut(&place).filter(is_current) else { return };
                pull.busy = None;
                if let Some(reply) = reply {
                    self.source_answered(desk, place, node, reply);
                }
            }
            Matter::Confirm { places, .. } => {
                peer.settling = false;
                self.confirmed(desk, node, &places, reply);
            }
            Matter::HandOver { places, .. } => {
                peer.settling = false;
                self.given(desk, node, &places, reply);
            }
            Matter::Merge { .. } | Matter::Take { .. } => {}
        }
    }

    fn source_answered(
        &mut self,
        desk: &mut Desk,
        place: Place,
        node: NodeId,
        reply: TransferReply,
    ) {
        let Some(pull) = self.pulls.get_mut(&place) else { return };
        let owner = pull.view.owner;
        let Some(source) = pull.source(node) else { return };
        match reply {
            TransferReply::Begun { note, amnesiac } => {
                source.note = Some(note);
                self.dirty = true;
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
                self.under_way.insert(id, Matter::Merge { place, node, page, keys });
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
    pub(super) fn merged(&mut self, desk: &mut Desk, id: u64, result: Result<(), String>) {
        let Some(Matter::Merge { place, node, page, keys }) = self.under_way.remove(&id) else {
            return;
        };
        let is_current = |pull: &&mut Pull| pull.busy == Some(id);
        let Some(pull) = self.pulls.get_mut(&place).filter(is_current) else { return };
        pull.busy = None;
        if let Err(why) = result {
            pull.failed(desk, &why);
            return;
        }
        (pull.failures, pull.why) = (0, String::new());
        let owner = pull.view.owner;
        let Some(source) = pull.source(node) else { return };
        let bytes = page.body.0.len() as u64;
        desk.tally.bytes_taken += bytes;
        desk.tally.keys_taken += keys as u64;
        self.progress.took(owner, bytes);
        (source.cursor, source.running, source.done) = (page.last, page.running, page.done);
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

    fn confirmed(
        &mut self,
        desk: &mut Desk,
        node: NodeId,
        places: &[Place],
        reply: Option<TransferReply>,
    ) {
        let standing = match reply {
            Some(TransferReply::Standing(standing)) if standing.len() == places.len() => standing,
            _ => return self.settle_later(desk, places, "it does not confirm"),
        };
        for (place, stands) in places.iter().zip(standing) {
            let Some(pull) = self.pulls.get_mut(place) else { continue };
            let Some(source) = pull.source(node) else { continue };
            if stands {
                source.confirmed_at = Some(desk.now);
                continue;
            }
            source.begin_again();
            desk.tally.restarted += 1;
            pull.ready_since = None;
            self.dirty = true;
        }
    }

    fn given(
        &mut self,
        desk: &mut Desk,
        node: NodeId,
        places: &[Place],
        reply: Option<TransferReply>,
    ) {
        let given = match reply {
            Some(TransferReply::Given(given)) if given.len() == places.len() => given,
            _ => return self.settle_later(desk, places, "it does not hand over"),
        };
        for (place, given) in places.iter().zip(given) {
            let Some(pull) = self.pulls.get_mut(place) else { continue };
            if given {
                pull.retry_at = desk.now + GIVEN_WAIT;
                continue;
            }
            pull.failed(desk, "it does not hand over");
            // Whatever the reason, the note may be gone: asking for a page tells.
            if let Some(source) = pull.source(node) {
                source.done = false;
                pull.ready_since = None;
            }
        }
        desk.effects.push(Effect::Exchange(node));
    }

    fn settle_later(&mut self, desk: &mut Desk, places: &[Place], why: &str) {
        for place in places {
            if let Some(pull) = self.pulls.get_mut(place) {
                pull.failed(desk, why);
            }
        }
    }

    /// The slots this node took for itself are its own, or are not.
    pub(super) fn handed_over(&mut self, desk: &mut Desk, order: u64, given: bool) {
        let Some(Matter::Take { places }) = self.under_way.remove(&order) else { return };
        if !given {
            self.settle_later(desk, &places, "the cluster state has changed meanwhile");
        }
        for place in places {
            if let Some(pull) = self.pulls.get_mut(&place) {
                pull.busy = None;
            }
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
        let request = match source.note {
            None => TransferRequest::Begin(view),
            Some(note) => TransferRequest::Page(PageRequest {
                noted: Noted { slot: view.id, note },
                after: source.cursor.clone(),
                bytes: PAGE_BYTES,
                digests: source.digests,
                running: source.running,
            }),
        };
        let id = desk.next_id();
        pull.busy = Some(id);
        self.under_way.insert(id, Matter::Ask { place, node });
        desk.effects.push(Effect::Send { to: node, id, request });
        true
    }

    /// Has slots that are copied confirmed and given, in batches.
    fn settle(&mut self, desk: &mut Desk) {
        let now = desk.now;
        let ready: Vec<Place> = self
            .pulls
            .iter()
            .filter(|(_, pull)| pull.ready_since.is_some() && pull.busy.is_none())
            .map(|(place, _)| *place)
            .collect();
        let (mut confirm, mut give) = (BTreeMap::new(), BTreeMap::new());
        let mut take: Vec<Place> = Vec::new();
        for place in ready {
            let pull = &self.pulls[&place];
            if pull.retry_at > now {
                desk.wake(pull.retry_at);
                continue;
            }
            let fresh = |at: Instant| now - at < CONFIRMED_FOR;
            let others = pull.sources.iter().filter(|s| Some(s.node) != pull.view.owner);
            let unconfirmed: Vec<NodeId> = others
                .filter(|source| !source.confirmed_at.is_some_and(fresh))
                .map(|source| source.node)
                .collect();
            for node in &unconfirmed {
                confirm.entry(*node).or_insert_with(Vec::new).push(place);
            }
            match pull.view.owner {
                _ if !unconfirmed.is_empty() => {}
                Some(owner) => give.entry(owner).or_insert_with(Vec::new).push(place),
                None => take.push(place),
            }
        }
        for (node, places) in confirm {
            self.settle_with(desk, node, places, true);
        }
        for (node, places) in give {
            self.settle_with(desk, node, places, false);
        }
        self.take(desk, take);
    }

    /// Whether these have waited long enough for more to join them.
    fn is_batch(&self, desk: &mut Desk, places: &[Place]) -> bool {
        let since = places.iter().filter_map(|place| self.pulls[place].ready_since).min();
        let due = since.unwrap_or(desk.now) + GATHER;
        let is_last = self.wanted.len() == self.pulls.len()
            && self.pulls.values().all(|pull| pull.ready_since.is_some());
        let is_batch = places.len() >= BATCH_MOST || due <= desk.now || is_last;
        if !is_batch {
            desk.wake(due);
        }
        is_batch
    }

    fn settle_with(
        &mut self,
        desk: &mut Desk,
        node: NodeId,
        mut places: Vec<Place>,
        is_confirm: bool,
    ) {
        let peer = self.peers.entry(node).or_default();
        if peer.settling || peer.retry_at > desk.now {
            desk.wake(peer.retry_at.max(desk.now + GATHER));
            return;
        }
        if !self.is_batch(desk, &places) {
            return;
        }
        places.truncate(BATCH_MOST);
        let noted = |place: &Place| {
            let pull = &self.pulls[place];
            let source = pull.sources.iter().find(|source| source.node == node)?;
            Some(Noted { slot: pull.view.id, note: source.note? })
        };
        let noted: Vec<Noted> = places.iter().filter_map(noted).collect();
        debug_assert_eq!(noted.len(), places.len(), "what is copied was copied under a note");
        let id = desk.next_id();
        let (matter, request) = match is_confirm {
            true => (Matter::Confirm { node, places }, TransferRequest::Confirm(noted)),
            false => (Matter::HandOver { node, places }, TransferRequest::HandOver(noted)),
        };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.settling = true;
        }
        self.under_way.insert(id, matter);
        desk.effects.push(Effect::Send { to: node, id, request });
    }

    /// Takes slots that have no owner.
    fn take(&mut self, desk: &mut Desk, mut places: Vec<Place>) {
        places.truncate(BATCH_MOST);
        if places.is_empty() || !self.is_batch(desk, &places) {
            return;
        }
        let changes = places.iter().map(|place| change(desk, self.pulls[place].view)).collect();
        let (order, basis) = (desk.next_id(), desk.topology.version());
        for place in &places {
            if let Some(pull) = self.pulls.get_mut(place) {
                pull.busy = Some(order);
            }
        }
        self.under_way.insert(order, Matter::Take { places });
        desk.effects.push(Effect::HandOver { order, basis, changes });
    }

    // ---- for people ----------------------------------------------------------------------

    pub(super) fn wanted(&self) -> impl Iterator<Item = (&SlotView, Option<&Pull>)> {
        self.wanted.iter().map(|(place, view)| (view, self.pulls.get(place)))
    }

    pub(super) fn peers(&self) -> &BTreeMap<NodeId, Peer> {
        &self.peers
    }
}

impl Pull {
    /// Sources that are not done.
    pub(super) fn open_sources(&self) -> BTreeSet<NodeId> {
        let open = self.sources.iter().filter(|source| !source.done);
        open.map(|source| source.node).collect()
    }
}
