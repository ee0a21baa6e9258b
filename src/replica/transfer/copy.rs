//! One slot on its way here: its sources, and how far each has been copied.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::Desk;
use super::kept::{KeptPull, KeptSource};
use super::pull::{Peer, can_be_asked};
use crate::ids::NodeId;
use crate::time::Instant;
use crate::wire::transfer::{Blob, SlotId, SlotView};

/// One slot on its way here.
pub(super) struct Pull {
    pub(super) view: SlotView,
    pub(super) sources: Vec<Source>,
    /// The number of what is under way for it.
    pub(super) busy: Option<u64>,
    pub(super) retry_at: Instant,
    pub(super) failures: u32,
    pub(super) why: String,
    /// Since when all its sources are done.
    pub(super) ready_since: Option<Instant>,
}

/// A node it is copied from.
pub(super) struct Source {
    pub(super) node: NodeId,
    pub(super) note: Option<u64>,
    /// Only what differs is asked for.
    pub(super) digests: bool,
    pub(super) cursor: Blob,
    pub(super) running: u64,
    pub(super) done: bool,
    pub(super) confirmed_at: Option<Instant>,
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
    pub(super) fn begin_again(&mut self) {
        *self = Self::new(self.node, true);
    }
}

impl Pull {
    pub(super) fn new(desk: &Desk, view: SlotView) -> Self {
        let nodes = match view.owner {
            Some(owner) => vec![owner],
            None => other_owners(desk, view.id),
        };
        // One of those whom the data comes from has most of it.
        let sources = desk.topology.sources(view.id.partition, view.id.scope);
        let digests = view.owner.is_none() && sources.contains(&desk.me());
        let sources = nodes.into_iter().map(|node| Source::new(node, digests)).collect();
        Self::from_sources(view, sources)
    }

    fn from_sources(view: SlotView, sources: Vec<Source>) -> Self {
        let (busy, failures, ready_since) = (None, 0, None);
        let (retry_at, why) = (Instant(0), String::new());
        Self { view, sources, busy, retry_at, failures, why, ready_since }
    }

    pub(super) fn is_copied(&self) -> bool {
        self.sources.iter().all(|source| source.done)
    }

    pub(super) fn source(&mut self, node: NodeId) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.node == node)
    }

    /// A source, as long as it is copied under this note, or has none yet.
    pub(super) fn source_under(&mut self, node: NodeId, note: Option<u64>) -> Option<&mut Source> {
        self.source(node).filter(|source| source.note == note)
    }

    pub(super) fn failed(&mut self, desk: &mut Desk, why: &str) {
        self.failures += 1;
        why.clone_into(&mut self.why);
        self.retry_at = desk.now + desk.pause(self.failures);
    }

    /// Something that was copied is lost: all sources again, but most of it is here.
    pub(super) fn begin_again(&mut self) {
        self.sources.iter_mut().for_each(Source::begin_again);
        self.ready_since = None;
    }

    /// The slots have changed: whoever is to be copied now is a source.
    pub(super) fn keep_sources(&mut self, desk: &Desk) {
        let all = self.sources.iter().any(|source| Some(source.node) != self.view.owner);
        self.settle_sources(desk, all || self.view.owner.is_none());
    }

    /// Everybody who owned the partition when the copy began has to be copied, or who does now.
    pub(super) fn settle_sources(&mut self, desk: &Desk, all: bool) {
        if !all {
            return;
        }
        let owners = other_owners(desk, self.view.id);
        let owner = self.view.owner;
        self.sources.retain(|source| {
            // Whoever was removed confirms nothing any more, and counts in no quorum either.
            let is_done = source.done && desk.topology.is_present(source.node);
            is_done || Some(source.node) == owner || owners.contains(&source.node)
        });
        for node in owners {
            if !self.sources.iter().any(|source| source.node == node) {
                let digests = self.sources.iter().any(|source| source.done);
                self.sources.push(Source::new(node, digests));
            }
        }
        self.ready_since = match self.is_copied() {
            // The last that was open may be a source no more.
            true => self.ready_since.or(Some(desk.now)),
            false => None,
        };
    }

    /// As it was kept.
    pub(super) fn from_kept(kept: KeptPull, now: Instant) -> Self {
        let source = |kept: KeptSource| {
            let KeptSource { node, note, digests, cursor, running, done } = kept;
            Source { node, note, digests, cursor, running, done, confirmed_at: None }
        };
        let sources = kept.sources.into_iter().map(source).collect();
        let mut pull = Self::from_sources(kept.view, sources);
        pull.ready_since = pull.is_copied().then_some(now);
        pull
    }

    /// What outlives a restart.
    pub(super) fn kept(&self) -> KeptPull {
        let source = |source: &Source| {
            let Source { node, note, digests, ref cursor, running, done, .. } = *source;
            KeptSource { node, note, digests, cursor: cursor.clone(), running, done }
        };
        KeptPull { view: self.view, sources: self.sources.iter().map(source).collect() }
    }

    /// Sources that are not done.
    pub(super) fn open_sources(&self) -> BTreeSet<NodeId> {
        let open = self.sources.iter().filter(|source| !source.done);
        open.map(|source| source.node).collect()
    }

    /// The source to ask now: the first that is not done and can be asked.
    pub(super) fn next_source(
        &self,
        peers: &BTreeMap<NodeId, Peer>,
        now: Instant,
    ) -> Option<NodeId> {
        let open = self.sources.iter().filter(|source| !source.done);
        let mut usable = open.filter(|source| can_be_asked(peers, source.node, now));
        usable.next().map(|source| source.node)
    }
}

/// Those whom a slot without an owner is copied from, or one whose owner may have forgotten things.
fn other_owners(desk: &Desk, id: SlotId) -> Vec<NodeId> {
    let slots = desk.topology.slots(id.partition, id.scope);
    let owner = slots.get(usize::from(id.slot)).and_then(|slot| slot.owner);
    let sources = desk.topology.sources(id.partition, id.scope).iter().copied();
    sources.filter(|node| Some(*node) != owner && *node != desk.me()).collect()
}
