//! Watching keys that are to be reaped: the shard's part of [`super::reap`].
//!
//! A **watch** is what one reaper has asked about: some keys, each *untouched* until something that
//! may carry an old version of it comes by. A key is touched by a step that brings an object of it
//! (in the moment in which it is handed in, wherever it then waits), and by an operation on it, for
//! as long as there is one.
//!
//! When a watch begins, each key is *witnessed*: an owner must hold the object that was asked about,
//! durably; everybody else nothing; nobody a hint. Witnessing a record is a step like any other, so it
//! comes after everything that was handed in before.
//!
//! What always holds: a key that stands when its watch is confirmed was, at every moment in between,
//! nowhere in this shard but in the owner's record.

use std::collections::BTreeMap;

use super::commits::Waiter;
use super::keys::{KeyState, Step};
use super::shard::{Op, Shard};
use super::{Notice, Origin};
use crate::causality::Object;
use crate::ids::NodeId;
use crate::store::StoredKey;
use crate::wire::messages::{ControlReply, Purpose, Response};
use crate::wire::reap::{HeldUp, ReapReply, Round};

/// What a shard is to do about keys that are reaped.
#[derive(Clone, Debug)]
pub enum Order {
    /// Witness these keys, and watch them from now on.
    Watch(Round, Vec<(StoredKey, u128)>),
    /// Which of them stand? Ends the watch.
    Confirm(Round),
    /// Forget these, where they are as they were.
    Drop(Vec<(StoredKey, u128)>),
}

/// The watches of a shard: one for each reaper.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeMap<NodeId, Watch>);

#[derive(Debug)]
struct Watch {
    round: Round,
    /// In the order asked; whether it stands.
    keys: Vec<(StoredKey, bool)>,
    places: BTreeMap<StoredKey, usize>,
    /// Who waits for the keys to be witnessed, and how many are not yet.
    from: Option<Origin>,
    left: usize,
}

impl Watch {
    fn standing(&self) -> Response {
        let standing = self.keys.iter().map(|(_, stands)| *stands).collect();
        Response::Control(ControlReply::Reap(ReapReply::Standing(standing)))
    }
}

impl Watches {
    /// Something that may carry an old version of `key` has come by. The key may be a hint's.
    pub(super) fn touch(&mut self, key: &StoredKey) {
        for watch in self.0.values_mut() {
            if let Some(place) = watch.places.get(&key.own()) {
                watch.keys[*place].1 = false;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Other slots, other owners: whatever was witnessed says nothing any more.
    pub(super) fn clear(&mut self) -> Vec<Origin> {
        let waiting = self.0.values().filter_map(|watch| watch.from).collect();
        self.0.clear();
        waiting
    }
}

impl Shard {
    pub(super) fn reap(&mut self, from: Origin, order: Order) {
        match order {
            Order::Watch(round, keys) => self.begin_watch(from, round, keys),
            Order::Confirm(round) => {
                let watch = self.core.watches.0.remove(&round.reaper);
                let response = match watch.filter(|watch| watch.round == round && watch.left == 0) {
                    Some(watch) => watch.standing(),
                    None => not_now(HeldUp::Again),
                };
                self.core.respond(from, response);
            }
            Order::Drop(keys) => {
                for (key, digest) in keys {
                    self.core.steps.push_back((key, Step::Reap { digest }));
                }
                let done = Response::Control(ControlReply::Reap(ReapReply::Done));
                self.core.respond(from, done);
            }
        }
    }

    fn begin_watch(&mut self, from: Origin, round: Round, keys: Vec<(StoredKey, u128)>) {
        let places = keys.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
        let watch = Watch {
            round,
            keys: keys.iter().map(|(key, _)| (key.clone(), true)).collect(),
            places,
            from: Some(from),
            left: keys.len(),
        };
        if keys.is_empty() {
            self.core.respond(from, watch.standing());
            return;
        }
        // What is under way for a round would be taken for the answers of another one's keys.
        if self.core.watches.0.get(&round.reaper).is_some_and(|earlier| earlier.round == round) {
            self.core.respond(from, not_now(HeldUp::Again));
            return;
        }
        let earlier = self.core.watches.0.insert(round.reaper, watch);
        if let Some(waiting) = earlier.and_then(|earlier| earlier.from) {
            self.core.respond(waiting, not_now(HeldUp::Again));
        }
        let under_way = self.ops.values().chain(self.stragglers.values()).filter_map(Op::key);
        let mut touched: Vec<StoredKey> = under_way.map(|key| self.core.stored_key(key)).collect();
        touched.extend(self.handoff.holds());
        for key in &touched {
            self.core.watches.touch(key);
        }
        let is_listing = self.handoff.is_listing();
        let kept_for: Vec<NodeId> = self.core.hints.possible_owners().into_iter().collect();
        let mut coming = self.keys.hints_on_their_way();
        for (at, (key, digest)) in keys.into_iter().enumerate() {
            if is_listing {
                self.core.watches.touch(&key);
            }
            let mut left = kept_for.clone();
            left.extend(coming.remove(&key).unwrap_or_default());
            let step = Step::Witness { round, at, digest: Some(digest), left };
            self.core.steps.push_back((key, step));
        }
    }

    /// Looks at a record of a watched key, its own first and then one hint after the other. Changes
    /// nothing, in no batch.
    pub(super) fn witness(
        &mut self,
        key: &StoredKey,
        state: &Result<KeyState, String>,
        batch: Option<u64>,
        (round, at): (Round, usize),
        (digest, mut left): (Option<u128>, Vec<NodeId>),
    ) -> Option<u64> {
        let core = &mut self.core;
        let stands = match (state, digest) {
            // A change that is not committed may never have been.
            _ if batch.is_some() => false,
            (Err(_), _) => false,
            (Ok(state), Some(digest)) if core.takes(key, Purpose::Repair, 0) => {
                !core.is_amnesiac(key.partition())
                    && state.object.has_faded(core.now.wall)
                    && state.object.digest(&key.key()) == digest
            }
            (Ok(state), _) => state.object.is_empty(),
        };
        let watch = core.watches.0.get_mut(&round.reaper).filter(|watch| watch.round == round)?;
        watch.keys[at].1 &= stands;
        if let (true, Some(owner)) = (watch.keys[at].1, left.pop()) {
            let step = Step::Witness { round, at, digest: None, left };
            core.steps.push_back((key.kept_for(owner), step));
            return None;
        }
        watch.left -= 1;
        if watch.left == 0 {
            let response = watch.standing();
            if let Some(from) = watch.from.take() {
                core.respond(from, response);
            }
        }
        None
    }

    /// Forgets a key, if it still is as all have agreed. Returns the batch of the change.
    pub(super) fn reap_step(
        &mut self,
        key: &StoredKey,
        state: &mut Result<KeyState, String>,
        digest: u128,
    ) -> Option<u64> {
        let Ok(state) = state else { return None };
        if state.object.is_empty() || state.object.digest(&key.key()) != digest {
            return None;
        }
        let remains = state.object.remains();
        self.core.bury(key, remains);
        // The mint goes too: what is written next is written by a new actor.
        (state.object, state.mint) = (Object::new(), None);
        self.core.counters.reaped += 1;
        Some(self.core.stage(key, state, Waiter::Nobody))
    }

    /// Notes that `key` is touched, if anybody watches.
    pub(super) fn touch_by(&mut self, op: &Op) {
        if self.core.watches.is_empty() {
            return;
        }
        if let Some(key) = op.key() {
            let key = self.core.stored_key(key);
            self.core.watches.touch(&key);
        }
    }

    pub(super) fn end_watches(&mut self) {
        for from in self.core.watches.clear() {
            self.core.respond(from, not_now(HeldUp::OtherState));
        }
    }

    /// A grave that is on the disk.
    pub(super) fn grave_found(&mut self, key: StoredKey, bytes: bytes::Bytes) {
        if !self.core.is_mine(&key) {
            return;
        }
        let name = key.key().to_string();
        if let Err(error) = self.core.graves.found(key, bytes) {
            self.core.notice(Notice::Corrupt { key: name, why: format!("its grave: {error}") });
        }
    }
}

fn not_now(why: HeldUp) -> Response {
    Response::Control(ControlReply::Reap(ReapReply::NotNow(why)))
}
