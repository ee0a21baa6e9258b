//! What a shard owes a partition that changes hands.
//!
//! A **fence** is answered once everything that the shard has staged is committed. It is only put up
//! in a shard that goes by a topology with the successor in it. Every step looks at the slots when
//! it runs, so whatever runs behind the fence, also what arrived before it, was sent to the
//! successor as well or is refused; and what ran before it is on the disk, for the pages that the
//! successor copies.

use super::Origin;
use super::commits::Waiter;
use super::shard::{Shard, stale};
use crate::ids::{Partition, Scope};
use crate::store::StoredKey;
use crate::wire::messages::{Response, Stored};
use crate::wire::transfer::{SlotId, SlotView};

impl Shard {
    /// Answers `to` with [`Response::Stored`] once everything staged so far is committed.
    pub(super) fn fence(&mut self, to: Origin, view: SlotView) {
        let SlotId { scope, partition, slot } = view.id;
        let topology = &self.core.topology;
        let slot = topology.slots(partition, scope).get(usize::from(slot));
        let is_shown = slot.is_some_and(|slot| {
            (slot.version, slot.owner) == (view.version, view.owner)
                && slot.successor == Some(view.successor)
                && topology.moves_mark(partition, scope) == view.moves
        });
        if !is_shown {
            self.core.fail(to, stale());
            return;
        }
        match self.core.last_batch() {
            Some(batch) => self.core.wait_for(batch, Waiter::Replica(to)),
            None => {
                let fsynced = self.core.settings.fsync;
                self.core.respond(to, Response::Stored(Stored { fsynced }));
            }
        }
    }

    /// What may be deleted of a partition, as far as it belongs to buckets at home in `scope`;
    /// `None` while a record of that is under way. Nothing of it can follow when it is deleted, as
    /// long as no input comes in between.
    #[must_use]
    pub fn strange(&self, partition: Partition, scope: Scope) -> Option<Strange> {
        let (topology, me) = (&self.core.topology, self.core.settings.node);
        let mut scopes = topology.state().slots.keys();
        if !scopes.any(|scope| topology.stands_in(partition, *scope, me)) {
            let is_busy = self.keys.is_busy_with(partition, |_| true);
            return (!is_busy).then_some(Strange::Everything);
        }
        let buckets = topology.strange_buckets(partition, scope, me);
        let is_busy = |key: &StoredKey| buckets.iter().any(|name| name == key.key().bucket());
        let is_busy = self.keys.is_busy_with(partition, is_busy);
        (!is_busy).then_some(Strange::Buckets(buckets))
    }
}

/// What of a partition is not this node's to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strange {
    /// It stands in no slot of the partition.
    Everything,
    /// It stands in no slot of these buckets.
    Buckets(Vec<String>),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::causality::{Content, Hlc, Object, Sibling};
    use crate::ids::{Incarnation, NodeId, WriteId};
    use crate::key::Key;
    use crate::membership::{ClusterState, Contact, MemberEntry, Standing, Topology};
    use crate::replica::{Effect, Input, Settings};
    use crate::time::{Instant, Now};
    use crate::wire::messages::{FailureCode, Purpose, Request, Write};

    const ME: NodeId = NodeId(1);

    /// Three members, and a fourth that has joined.
    fn topology() -> Arc<Topology> {
        let mut state = ClusterState::new("test", 32);
        let member = |id: u128| {
            let (name, address) = (format!("n{id}"), format!("n{id}:7400"));
            let contact = Contact { name, address, text_address: String::new() };
            MemberEntry::candidate(NodeId(id), contact, "", 100)
        };
        for id in 1..=3 {
            state.enter(NodeId(id), member(id));
        }
        assert!(state.form(3));
        let mut entry = member(4);
        entry.standing = Standing::Member;
        state.enter(NodeId(4), entry);
        Arc::new(Topology::new(state))
    }

    fn shard(topology: &Arc<Topology>) -> Shard {
        let settings = Settings {
            shard: 0,
            shards: 1,
            node: ME,
            incarnation: Incarnation(1),
            amnesiac: false,
            fsync: true,
            attempt: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
            key_bytes: 1000,
            value_bytes: 1000,
            siblings_warn: 10,
            siblings_refuse: 10,
            max_in_flight: 10,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(1),
            hint_bytes_by_owner: 1000,
            hint_bytes: 1000,
            hint_rate: 1 << 20,
            graves: 100,
        };
        Shard::new(settings, topology.clone(), 0..1 << 20, 1)
    }

    fn handle(shard: &mut Shard, input: Input) -> Vec<Effect> {
        let now = Now { instant: Instant(1), ..Now::default() };
        let mut effects = Vec::new();
        shard.handle(now, input, &mut effects);
        shard.flush(&mut effects);
        effects
    }

    /// A slot of the key's partition that this node owns and the fourth member is to have.
    fn moving(topology: &Topology) -> (Key, SlotView) {
        let named = (0..).map(|n| Key::new(b"default", format!("k{n}").as_bytes()).unwrap());
        let view = |key: &Key| {
            let partition = topology.partition(key);
            let slots = topology.slots(partition, 3).iter().enumerate();
            let mut mine = slots.filter(|(_, slot)| slot.owner == Some(ME));
            let (at, slot) = mine.find(|(_, slot)| slot.successor == Some(NodeId(4)))?;
            let id = SlotId { scope: 3.into(), partition, slot: at as u8 };
            let (version, successor) = (slot.version, NodeId(4));
            Some(SlotView { id, version, owner: Some(ME), successor, moves: 0 })
        };
        named
            .map(|key| (key.clone(), view(&key)))
            .find_map(|(key, view)| Some((key, view?)))
            .unwrap()
    }

    #[test]
    fn a_fence_is_up_when_what_was_staged_before_it_is_committed() {
        let topology = topology();
        let mut shard = shard(&topology);
        let (key, view) = moving(&topology);
        let fence = |from| Input::Fence { from: Origin(from), view };
        let answered = |effects: &[Effect], who| {
            effects.iter().any(|effect| {
                matches!(effect, Effect::Respond { to: Origin(to), response: Response::Stored(_) } if *to == who)
            })
        };
        assert!(answered(&handle(&mut shard, fence(1)), 1), "nothing is staged");
        let write_id = WriteId(7);
        let content = Content::Value(bytes::Bytes::from_static(b"v"));
        let actor = crate::causality::Actor { incarnation: Incarnation(9), k: 1 };
        let dot = crate::causality::Dot { actor, counter: 1 };
        let after = Hlc::default();
        let sibling = Sibling { dot, write_id, hlc: Hlc(1), after, expires_at: None, content };
        let mut object = Object::new();
        object.write(&crate::causality::VersionVector::default(), sibling);
        let (purpose, slots, budget_ms) = (Purpose::Repair, 0, 1000);
        let write = Write { key, object: object.encode(), purpose, slots, budget_ms };
        let request = Request::Write(write);
        let (from, sender, received) = (Origin(2), NodeId(1), Instant(1));
        let asked =
            Input::Request { from, sender, received, sent: None, forwarded: false, request };
        let effects = handle(&mut shard, asked);
        let Some(Effect::Load { key }) = effects.into_iter().next() else { panic!("no load") };
        let effects = handle(&mut shard, Input::Loaded { key, result: Ok(None) });
        let commit = effects.iter().find_map(|effect| match effect {
            Effect::Commit { batch, .. } => Some(*batch),
            _ => None,
        });
        assert!(!answered(&handle(&mut shard, fence(3)), 3));
        let strange = shard.strange(view.id.partition, view.id.scope);
        assert_eq!(strange, Some(Strange::Buckets(Vec::new())));
        let (batch, result) = (commit.unwrap(), Ok(()));
        assert!(answered(&handle(&mut shard, Input::Committed { batch, result }), 3));
    }

    #[test]
    fn a_shard_that_goes_by_other_slots_puts_up_no_fence() {
        let topology = topology();
        let (_, view) = moving(&topology);
        let mut shard = shard(&topology);
        for wrong in [
            SlotView { version: 9, ..view },
            SlotView { successor: NodeId(5), ..view },
            SlotView { owner: None, ..view },
        ] {
            let effects = handle(&mut shard, Input::Fence { from: Origin(1), view: wrong });
            let is_stale = matches!(&effects[..],
                [Effect::Respond { response: Response::Failed(failure), .. }]
                    if failure.code == FailureCode::Stale);
            assert!(is_stale, "{effects:?}");
        }
    }
}
