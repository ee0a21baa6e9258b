//! The end of a copy: notes are confirmed, slots are given or taken, many at once.
//!
//! Every change of owners is a new cluster state for everybody, so finished slots wait a while for
//! others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Effect;
use super::desk::Desk;
use super::notes::{BATCH_MOST, change};
use super::pull::{Copied, Matter, Place, Pulls};
use crate::ids::NodeId;
use crate::time::Instant;
use crate::wire::transfer::{Noted, TransferReply, TransferRequest};

/// How long finished slots wait for others, so that one change of the cluster state takes many. To
/// wait costs nothing, they get every write already; each change is work for every node, and for
/// every client, which their requests wait for. The last ones of a move do not wait.
const GATHER: Duration = Duration::from_secs(5);
/// How long to wait for a node that is settling other slots.
const AGAIN: Duration = Duration::from_millis(300);
/// How old a confirmation may be when it is used.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);
/// How long a slot that was given waits to be seen so, before it is asked for again.
const GIVEN_WAIT: Duration = Duration::from_secs(2);

impl Pulls {
    /// Has slots that are copied confirmed and given, in batches.
    pub(super) fn settle(&mut self, desk: &mut Desk) {
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
            desk.wake(peer.retry_at.max(desk.now + AGAIN));
            return;
        }
        if !self.is_batch(desk, &places) {
            return;
        }
        places.truncate(BATCH_MOST);
        let note_of = |place: &Place| {
            let mut sources = self.pulls[place].sources.iter();
            Some((*place, sources.find(|source| source.node == node)?.note?))
        };
        let copied: Vec<Copied> = places.iter().filter_map(note_of).collect();
        debug_assert_eq!(copied.len(), places.len(), "what is copied was copied under a note");
        let noted = |(place, note): &Copied| Noted { slot: self.pulls[place].view.id, note: *note };
        let noted: Vec<Noted> = copied.iter().map(noted).collect();
        let id = desk.next_id();
        let (matter, request) = match is_confirm {
            true => (Matter::Confirm { node, copied }, TransferRequest::Confirm(noted)),
            false => (Matter::HandOver { node, copied }, TransferRequest::HandOver(noted)),
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

    pub(super) fn confirmed(
        &mut self,
        desk: &mut Desk,
        node: NodeId,
        copied: &[Copied],
        reply: Option<TransferReply>,
    ) {
        let standing = match reply {
            Some(TransferReply::Standing(standing)) if standing.len() == copied.len() => standing,
            _ => {
                return self.settle_later(
                    desk,
                    copied.iter().map(|(place, _)| place),
                    "it does not confirm",
                );
            }
        };
        for ((place, note), stands) in copied.iter().zip(standing) {
            let Some(pull) = self.pulls.get_mut(place) else { continue };
            let Some(source) = pull.source_under(node, Some(*note)) else { continue };
            if stands {
                source.confirmed_at = Some(desk.now);
                continue;
            }
            source.begin_again();
            pull.ready_since = None;
            desk.tally.restarted += 1;
            self.dirty = true;
        }
    }

    pub(super) fn given(
        &mut self,
        desk: &mut Desk,
        node: NodeId,
        copied: &[Copied],
        reply: Option<TransferReply>,
    ) {
        let given = match reply {
            Some(TransferReply::Given(given)) if given.len() == copied.len() => given,
            _ => {
                return self.settle_later(
                    desk,
                    copied.iter().map(|(place, _)| place),
                    "it does not hand over",
                );
            }
        };
        for ((place, note), given) in copied.iter().zip(given) {
            let Some(pull) = self.pulls.get_mut(place) else { continue };
            if pull.source_under(node, Some(*note)).is_none() {
                continue;
            }
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

    fn settle_later<'a>(
        &mut self,
        desk: &mut Desk,
        places: impl IntoIterator<Item = &'a Place>,
        why: &str,
    ) {
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
}
