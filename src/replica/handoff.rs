//! Giving members what was kept for them, once they are back.
//!
//! ```text
//!   kept for M, and M answers ──▶ list a page ──▶ send, up to a window ──▶ M has it durably
//!        ▲                            ▲                                         │
//!        │  something was kept        └── the page is sent ◀────────────────────┤
//!        └───────── meanwhile                                                   ▼
//!                                                       drop the hint, if it still is what was sent
//! ```
//!
//! Hints go out in the order of their keys. What is delivered is dropped, so the disk itself is
//! the cursor: after a restart of either side it goes on where it was. The receiver sets the window:
//! it grows by one with each quick answer and is halved when the receiver is busy or slow. How many go
//! out in a second depends on how long this node's own clients wait (`pace`).
//!
//! A hint for somebody who is in no slot of the key any more goes to all who are, one after the
//! other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::core::{Core, OpId, participants};
use super::keys::Step;
use super::pace::Pace;
use crate::causality::Object;
use crate::ids::NodeId;
use crate::key::Key;
use crate::membership::Slot;
use crate::store::record::Record;
use crate::store::{Entry, StoreError, StoredKey};
use crate::time::Instant;
use crate::wire::messages::{Failure, FailureCode, Purpose, Request, Response, Write};

/// The bit that tells the operation numbers of what is sent from here from those of clients.
pub(super) const OPERATION: OpId = 1 << 39;

const PAGE_BYTES: usize = 256 << 10;
const WINDOW_LEAST: usize = 4;
const WINDOW_FIRST: usize = 32;
const WINDOW_MOST: usize = 256;
/// An answer later than this is a slow one.
const SLOW: Duration = Duration::from_millis(100);
/// Hints are paced as if each had so many bytes: below, what they cost does not depend on it.
const LEAST_BYTES: usize = 1 << 10;
/// What is left of the full rate under the greatest strain: a member that is back has what it missed
/// soon, or clients who read there have reads mended one by one.
const LEAST_PART: u64 = 16;
/// What may be sent at once, in time at the present rate.
const BURST: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);
/// How long to wait with the hints for a member of which none could be given, unless somebody comes back.
const IN_VAIN: Duration = Duration::from_secs(5);
/// How long to leave a member alone after it was busy, gone or full.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a receiver has for one hint.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// All that is being delivered.
#[derive(Debug)]
pub(super) struct Handoff {
    pace: Pace,
    /// When the pace was last told how long clients wait, and how many there were by then.
    told: (Instant, u64),
    replays: BTreeMap<NodeId, Replay>,
    /// By the number of the request.
    in_flight: BTreeMap<u64, Sent>,
    /// Hints that were sent so far. Each under a number of its own: the numbers of an operation's
    /// requests repeat, and these may stay unanswered while thousands of others go out.
    sent: u64,
    timer_at: Option<Instant>,
}

/// What is being delivered for one member.
#[derive(Debug)]
struct Replay {
    listing: bool,
    /// The last key of the last page.
    after: Option<StoredKey>,
    /// In this round nothing has been found yet, and when it began nothing was staged: then, what
    /// was counted by then.
    empty_since: Option<u64>,
    /// Listed and not sent yet.
    page: VecDeque<Entry>,
    in_flight: usize,
    window: usize,
    paused_until: Instant,
    /// What came of the hints of this round.
    found: bool,
    given: bool,
}

/// A hint on its way.
#[derive(Debug)]
struct Sent {
    /// Its key, with its owner.
    key: StoredKey,
    to: NodeId,
    /// Others who must have it too, before it may be dropped.
    then: Vec<NodeId>,
    object: bytes::Bytes,
    /// The slots this went by; a receiver that goes by others refuses.
    slots: u64,
    digest: u128,
    at: Instant,
}

impl Handoff {
    /// Nothing is being delivered; at most `rate` bytes a second will be.
    pub(super) fn new(rate: u64) -> Self {
        Self {
            pace: Pace::between(rate / LEAST_PART, rate),
            told: (Instant(0), 0),
            replays: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            sent: 0,
            timer_at: None,
        }
    }

    /// Goes on with everything that can go on. Called at the end of each turn.
    pub(super) fn turn(&mut self, core: &mut Core) {
        self.tell_pace(core);
        let owners: Vec<NodeId> = core.hints.owners().collect();
        self.replays.retain(|owner, replay| replay.in_flight > 0 || owners.contains(owner));
        for owner in owners {
            self.pump(core, owner);
        }
        self.arm(core);
    }

    /// The keys of hints that are here in memory, listed or sent, whether they still are kept or not.
    pub(super) fn holds(&self) -> impl Iterator<Item = StoredKey> {
        let listed = self.replays.values().flat_map(|replay| &replay.page).map(|entry| &entry.key);
        listed.chain(self.in_flight.values().map(|sent| &sent.key)).map(StoredKey::own)
    }

    /// Whether a listing is under way, which may bring a hint that is gone by then.
    pub(super) fn is_listing(&self) -> bool {
        self.replays.values().any(|replay| replay.listing)
    }

    /// Wakes up when a pause ends, when more may be sent, or when something may have been lost.
    fn arm(&mut self, core: &mut Core) {
        let now = core.now.instant;
        if self.replays.is_empty() {
            return;
        }
        // Where the pace holds nothing up, an answer goes on with it, or whoever is away comes back.
        let is_paced = self.pace.free_at() > now + BURST;
        let waits = self.replays.values().any(|replay| !replay.page.is_empty());
        let pause = match is_paced && waits {
            true => (self.pace.free_at() - now).min(PAUSE),
            false => PAUSE,
        };
        // A timer comes an eighth late at most.
        if self.timer_at.is_none_or(|at| at <= now || at > now + pause * 9 / 8) {
            self.timer_at = Some(core.attempt_timer(OPERATION, pause));
        }
    }

    /// Once a second: how long clients wait.
    fn tell_pace(&mut self, core: &Core) {
        let (now, samples) = (core.now.instant, core.strain.samples());
        if now - self.told.0 < SECOND {
            return;
        }
        let p99 = if samples == self.told.1 { Duration::ZERO } else { core.strain.p99() };
        self.pace.observe(p99, !self.replays.is_empty());
        self.told = (now, samples);
    }

    /// A while has passed: what was sent long ago is taken for lost.
    pub(super) fn tick(&mut self, core: &mut Core) {
        self.timer_at = None;
        let now = core.now.instant;
        let late = |(id, sent): (&u64, &Sent)| (now - sent.at > ANSWER_WITHIN).then_some(*id);
        let late: Vec<u64> = self.in_flight.iter().filter_map(late).collect();
        for id in late {
            self.forget(core, id, PAUSE);
        }
    }

    fn pump(&mut self, core: &mut Core, owner: NodeId) {
        let now = core.now.instant;
        // Whoever is a member and away is waited for; for everybody else the others take it.
        if core.topology.is_present(owner) && !core.usable(owner) {
            return;
        }
        let replay = self.replays.entry(owner).or_insert(Replay {
            listing: false,
            after: None,
            empty_since: None,
            page: VecDeque::new(),
            in_flight: 0,
            window: WINDOW_FIRST,
            paused_until: now,
            found: false,
            given: false,
        });
        if replay.paused_until > now {
            return;
        }
        while replay.in_flight < replay.window
            && self.pace.free_at() <= now + BURST
            && let Some(entry) = replay.page.pop_front()
        {
            let prepared = prepare(core, owner, entry);
            replay.given |= !matches!(prepared, Prepared::NotNow);
            if let Prepared::Send(sent) = prepared {
                replay.in_flight += 1;
                self.sent += 1;
                let id = core.send(OPERATION | self.sent, sent.to, false, write(&sent));
                self.pace.take(now, sent.object.len().max(LEAST_BYTES));
                self.in_flight.insert(id, sent);
            }
        }
        if replay.page.is_empty()
            && !replay.listing
            && (replay.after.is_some() || replay.in_flight == 0)
        {
            replay.listing = true;
            let after = replay.after.clone();
            if after.is_none() {
                replay.empty_since = core.hints.at_rest();
            }
            core.effects.push(super::Effect::ListHints { owner, after, bytes: PAGE_BYTES });
        }
    }

    /// A page of hints has been read.
    pub(super) fn listed(
        &mut self,
        core: &mut Core,
        owner: NodeId,
        result: Result<Vec<Entry>, StoreError>,
    ) {
        let Some(replay) = self.replays.get_mut(&owner) else { return };
        replay.listing = false;
        let entries = match result {
            Ok(entries) => entries,
            Err(error) => {
                let (key, why) = (format!("hints for {owner}"), error.to_string());
                core.notice(super::Notice::Corrupt { key, why });
                replay.paused_until = core.now.instant + PAUSE * 10;
                return;
            }
        };
        replay.after = entries.last().map(|entry| entry.key.clone());
        if entries.is_empty() {
            // The end. What was kept meanwhile, or could not be given, is for the next round.
            let in_vain = replay.found && !replay.given;
            replay.paused_until = core.now.instant + if in_vain { IN_VAIN } else { PAUSE };
            (replay.found, replay.given) = (false, false);
            if replay.empty_since.is_some() && replay.empty_since == core.hints.at_rest() {
                core.hints.none_found(owner);
            }
        }
        let before = replay.page.len();
        replay.page.extend(entries.into_iter().filter(|entry| core.is_mine(&entry.key)));
        if replay.page.len() > before {
            replay.found = true;
            replay.empty_since = None;
        }
    }

    /// A receiver has answered.
    pub(super) fn answered(
        &mut self,
        core: &mut Core,
        (from, id): (NodeId, u64),
        response: &Response,
    ) {
        if self.in_flight.get(&id).is_none_or(|sent| sent.to != from) {
            return;
        }
        let Some(sent) = self.in_flight.remove(&id) else { return };
        let now = core.now.instant;
        let owner = sent.key.owner().expect("hints have owners");
        let Some(replay) = self.replays.get_mut(&owner) else { return };
        replay.in_flight = replay.in_flight.saturating_sub(1);
        match response {
            Response::Stored(_) => {
                let slow = now - sent.at > SLOW;
                replay.window = match slow {
                    true => (replay.window / 2).max(WINDOW_LEAST),
                    false => (replay.window + 1).min(WINDOW_MOST),
                };
                if sent.then.is_empty() {
                    let step = Step::Delivered { digest: sent.digest };
                    core.steps.push_back((sent.key, step));
                } else {
                    replay.in_flight += 1;
                    self.pass_on(core, sent);
                }
            }
            Response::Failed(Failure { code: FailureCode::Stale, .. }) => {
                core.exchange(sent.to);
                replay.paused_until = now + PAUSE;
            }
            // Its copy of this key is damaged, and will be restored by whoever reads it: then.
            Response::Failed(Failure { code: FailureCode::Corrupt, .. }) => {}
            _ => {
                replay.window = (replay.window / 2).max(WINDOW_LEAST);
                replay.paused_until = now + PAUSE;
            }
        }
    }

    /// One of several has it: the next.
    fn pass_on(&mut self, core: &mut Core, mut sent: Sent) {
        sent.to = sent.then.remove(0);
        self.sent += 1;
        let id = core.send(OPERATION | self.sent, sent.to, false, write(&sent));
        sent.at = core.now.instant;
        self.in_flight.insert(id, sent);
    }

    /// Somebody is back, or the slots are others: what could not be given to anybody may be.
    pub(super) fn retry(&mut self, core: &Core) {
        let most = core.now.instant + PAUSE;
        for replay in self.replays.values_mut() {
            replay.paused_until = replay.paused_until.min(most);
        }
    }

    /// The connection to `node` is gone, and what was on its way with it.
    pub(super) fn lost(&mut self, core: &Core, node: NodeId) {
        let to = |(id, sent): (&u64, &Sent)| (sent.to == node).then_some(*id);
        let lost: Vec<u64> = self.in_flight.iter().filter_map(to).collect();
        for id in lost {
            self.forget(core, id, PAUSE);
        }
    }

    fn forget(&mut self, core: &Core, id: u64, pause: Duration) {
        let Some(sent) = self.in_flight.remove(&id) else { return };
        let owner = sent.key.owner().expect("hints have owners");
        if let Some(replay) = self.replays.get_mut(&owner) {
            replay.in_flight = replay.in_flight.saturating_sub(1);
            (replay.page, replay.after) = (VecDeque::new(), None);
            replay.paused_until = core.now.instant + pause;
        }
    }
}

fn write(sent: &Sent) -> Request {
    Request::Write(Write {
        key: sent.key.key(),
        object: sent.object.clone(),
        purpose: Purpose::Handoff,
        slots: sent.slots,
        budget_ms: ANSWER_WITHIN.as_millis() as u32,
    })
}

/// What comes of a hint.
enum Prepared {
    Send(Sent),
    /// It belongs to this node alone.
    Taken,
    /// Not all to whom it belongs can be reached, or it cannot be read.
    NotNow,
}

/// To whom one hint belongs, and whether it can be sent; what belongs to this node is merged here.
fn prepare(core: &mut Core, owner: NodeId, entry: Entry) -> Prepared {
    let name = entry.key.key();
    let Some(mut targets) = targets(core, owner, &name) else { return Prepared::NotNow };
    let me = core.settings.node;
    let is_mine = targets.contains(&me);
    targets.retain(|target| *target != me);
    let are_usable = targets.iter().all(|target| core.usable(*target));
    if !are_usable && !is_mine {
        return Prepared::NotNow;
    }
    let record = Record::decode(entry.record).map_err(|error| error.to_string());
    let object = record.and_then(|record| {
        Object::decode(record.object.clone()).map_err(|error| error.to_string())?;
        Ok(record.object)
    });
    let object = match object {
        Ok(object) => object,
        Err(why) => {
            core.notice(super::Notice::Corrupt { key: format!("{name} kept for {owner}"), why });
            return Prepared::NotNow;
        }
    };
    let slots = core.fingerprint(&name);
    let digest = crate::causality::digest_of(&name, &object);
    if is_mine {
        let own = core.stored_key(&name);
        let decoded = Object::decode(object.clone()).expect("it was decoded above");
        if targets.is_empty() {
            let step = Step::Take { object: decoded, hint: entry.key, digest, slots };
            core.steps.push_back((own, step));
            return Prepared::Taken;
        }
        let (purpose, from) = (Purpose::Handoff, vec![me]);
        core.steps.push_back((own, Step::Mend { object: decoded, purpose, from }));
    }
    if targets.is_empty() || !are_usable {
        return Prepared::NotNow;
    }
    let to = targets.remove(0);
    let at = core.now.instant;
    Prepared::Send(Sent { key: entry.key, to, then: targets, object, slots, digest, at })
}

/// To whom what was kept for `owner` belongs.
fn targets(core: &Core, owner: NodeId, name: &Key) -> Option<Vec<NodeId>> {
    let scopes = core.scopes(name)?;
    // Its successor too: who has the owner's slot next must have all that was meant for it. And
    // where it is in no slot, all who are, in each of the scopes: one of them will be left.
    let stands = |slot: &&Slot| slot.owner == Some(owner) || slot.successor == Some(owner);
    let mut targets: Vec<NodeId> = Vec::new();
    for scope in scopes.all() {
        let slots = core.slots(name, scope);
        let its = match slots.iter().find(stands) {
            Some(slot) => participants(std::slice::from_ref(slot)),
            None => participants(slots),
        };
        targets.extend(its.into_iter().filter(|node| !targets.contains(node)).collect::<Vec<_>>());
    }
    Some(targets)
}

/// Whether an operation's number is one of a delivery.
pub(super) fn is_delivery(op: OpId) -> bool {
    op & OPERATION != 0
}
