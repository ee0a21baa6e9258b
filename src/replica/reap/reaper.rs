//! What the first owner of a partition does: finds keys, asks everybody twice, has them dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Desk, Effect, Found, Scan};
use crate::ids::{NodeId, Partition};
use crate::store::StoredKey;
use crate::time::{Instant, WallMs};
use crate::wire::reap::{Candidate, HeldUp, ReapReply, ReapRequest, ReapStatus, Round};
use crate::wire::transfer::Blob;

/// Partitions that are looked into at once.
const PARTITIONS_AT_ONCE: usize = 64;
/// After a round, how many times as long as it took nothing is reaped; never longer than between two
/// sweeps.
const REST: u32 = 4;
/// The least rest.
const REST_LEAST: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct Reaper {
    phase: Phase,
    /// Partitions this node is the first owner of.
    led: Vec<Partition>,
    /// Which of them is next, and where in it.
    next: usize,
    after: Option<(WallMs, StoredKey)>,
    /// What the sweep under way has seen so far, and what the last whole one has.
    seen: Sweep,
    shown: Sweep,
    sweeps: u64,
    rounds: u64,
    dropped: u64,
}

#[derive(Debug, Default)]
struct Sweep {
    waiting: u64,
    bytes: u64,
    oldest: Option<WallMs>,
    held_up: BTreeMap<NodeId, (Option<HeldUp>, u64)>,
    /// Somebody answered nothing at all: for the rest of the sweep keys are only counted.
    stuck: bool,
}

#[derive(Debug, Default)]
enum Phase {
    /// Until when nothing is done.
    #[default]
    New,
    Resting(Instant),
    Listing(u64),
    Asking(Box<Asking>),
}

/// A round under way.
#[derive(Debug)]
struct Asking {
    round: Round,
    began: Instant,
    keys: Vec<(StoredKey, u128)>,
    standing: Vec<bool>,
    /// Questions that have not been answered.
    awaited: BTreeMap<u64, NodeId>,
    confirming: bool,
}

impl Reaper {
    pub(super) fn topology(&mut self, desk: &Desk) {
        let (topology, me) = (&desk.topology, desk.settings.node);
        let leads = |partition: &Partition| {
            let mut scopes = topology.state().slots.keys();
            scopes.any(|scope| topology.primaries(*partition, *scope).first() == Some(&me))
        };
        let all = (0..topology.partitions()).map(|number| Partition(number as u16));
        self.led = all.filter(leads).collect();
        (self.next, self.after) = (0, None);
        self.seen = Sweep::default();
        if matches!(self.phase, Phase::Listing(_)) {
            self.phase = Phase::Resting(desk.now);
        }
        // A round under way goes on: whoever goes by the new state will not let it stand.
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        match &self.phase {
            Phase::New => Some(Instant(0)),
            Phase::Resting(until) => Some(*until),
            _ => None,
        }
    }

    /// Goes on where nothing is awaited.
    pub(super) fn go_on(&mut self, desk: &mut Desk) {
        match self.phase {
            Phase::New => {}
            Phase::Resting(until) if until <= desk.now => {}
            _ => return,
        }
        self.list(desk);
    }

    fn list(&mut self, desk: &mut Desk) {
        if self.next >= self.led.len() {
            self.sweeps += 1;
            self.shown = std::mem::take(&mut self.seen);
            (self.next, self.after) = (0, None);
            self.phase = Phase::Resting(desk.now + desk.settings.interval);
            return;
        }
        let partitions = self.led[self.next..].iter().take(PARTITIONS_AT_ONCE).copied().collect();
        let id = desk.next_id();
        let scan = Scan { partitions, after: self.after.take() };
        desk.effects.push(Effect::List { id, scan });
        self.phase = Phase::Listing(id);
    }

    pub(super) fn listed(&mut self, desk: &mut Desk, id: u64, found: Option<Found>) {
        if !matches!(self.phase, Phase::Listing(of) if of == id) {
            return;
        }
        let Some(found) = found else {
            self.phase = Phase::Resting(desk.now + desk.settings.interval);
            return;
        };
        (self.next, self.after) = (self.next + found.through, found.after);
        let seen = &mut self.seen;
        seen.waiting += found.keys.len() as u64;
        seen.bytes += found.bytes;
        seen.oldest = [seen.oldest, found.oldest].into_iter().flatten().min();
        if seen.stuck {
            // Whoever has not answered would not answer about these either.
            let stuck = seen.held_up.values_mut().filter(|(why, _)| why.is_some_and(is_whole));
            stuck.for_each(|(_, keys)| *keys += found.keys.len() as u64);
        }
        if found.keys.is_empty() || seen.stuck {
            return self.list(desk);
        }
        self.rounds += 1;
        let round = Round { reaper: desk.settings.node, number: desk.random.next_u64() };
        let standing = vec![true; found.keys.len()];
        let (began, keys, awaited) = (desk.now, found.keys, BTreeMap::new());
        let mut asking = Asking { round, began, keys, standing, awaited, confirming: false };
        let topology = desk.topology.version();
        let keys = asking.candidates(|_| true);
        asking.ask_all(desk, &ReapRequest::Watch { round, topology, keys });
        self.phase = Phase::Asking(Box::new(asking));
    }

    pub(super) fn answered(&mut self, desk: &mut Desk, id: u64, reply: Option<ReapReply>) {
        let Phase::Asking(asking) = &mut self.phase else { return };
        let Some(node) = asking.awaited.remove(&id) else { return };
        let why = match reply {
            Some(ReapReply::Standing(standing)) if standing.len() == asking.standing.len() => {
                let mut held = 0;
                for (stands, still) in asking.standing.iter_mut().zip(standing) {
                    held += u64::from(!still);
                    *stands &= still;
                }
                (held > 0).then_some((HeldUp::Keys, held))
            }
            Some(ReapReply::NotNow(why)) => Some((why, asking.keys.len() as u64)),
            Some(_) => Some((HeldUp::Again, asking.keys.len() as u64)),
            None => Some((HeldUp::Away, asking.keys.len() as u64)),
        };
        if let Some((why, keys)) = why {
            if why != HeldUp::Keys {
                asking.standing.fill(false);
            }
            self.seen.stuck |= is_whole(why);
            let held_up = self.seen.held_up.entry(node).or_default();
            (held_up.0, held_up.1) = (Some(why), held_up.1 + keys);
        }
        if !asking.awaited.is_empty() {
            return;
        }
        if !asking.standing.contains(&true) {
            return self.rest(desk);
        }
        if !std::mem::replace(&mut asking.confirming, true) {
            // Only now: every second look must come after every first one.
            let round = asking.round;
            return asking.ask_all(desk, &ReapRequest::Confirm(round));
        }
        self.drop_them(desk);
    }

    /// All have looked twice and found nothing: the owners forget.
    fn drop_them(&mut self, desk: &mut Desk) {
        let Phase::Asking(asking) = &self.phase else { return };
        let topology = desk.topology.clone();
        let owners = |key: &StoredKey| {
            let scope = topology.read_scope(key.key().bucket(), key.partition());
            topology.participants(key.partition(), scope)
        };
        let mut all: BTreeSet<NodeId> = BTreeSet::new();
        for (key, _) in &asking.keys {
            all.extend(owners(key));
        }
        let count = asking.standing.iter().filter(|stands| **stands).count() as u64;
        for to in all {
            let keys = asking
                .candidates(|at| asking.standing[at] && owners(&asking.keys[at].0).contains(&to));
            if !keys.is_empty() {
                desk.send(to, ReapRequest::Drop(keys));
            }
        }
        self.dropped += count;
        self.seen.waiting = self.seen.waiting.saturating_sub(count);
        self.rest(desk);
    }

    fn rest(&mut self, desk: &mut Desk) {
        let Phase::Asking(asking) = &self.phase else { return };
        let took = desk.now - asking.began;
        let rest = (took * REST).min(desk.settings.interval).max(REST_LEAST);
        self.phase = Phase::Resting(desk.now + rest);
    }

    pub(super) fn status(&self) -> ReapStatus {
        let shown = &self.shown;
        let held_up = shown.held_up.iter();
        let counters = [("sweeps", self.sweeps), ("rounds", self.rounds), ("agreed", self.dropped)];
        ReapStatus {
            waiting: shown.waiting,
            bytes: shown.bytes,
            oldest: shown.oldest.filter(|_| shown.waiting > 0),
            held_up: held_up
                .filter_map(|(node, (why, keys))| Some((*node, (*why)?, *keys)))
                .collect(),
            counters: counters.map(|(name, count)| (name.to_owned(), count)).to_vec(),
        }
    }
}

/// Whether somebody holds up whatever it is asked about.
fn is_whole(why: HeldUp) -> bool {
    !matches!(why, HeldUp::Keys | HeldUp::Again)
}

impl Asking {
    fn candidates(&self, which: impl Fn(usize) -> bool) -> Vec<Candidate> {
        let keys = self.keys.iter().enumerate().filter(|(at, _)| which(*at));
        let candidate = |(_, (key, digest)): (usize, &(StoredKey, u128))| Candidate {
            key: Blob(key.key().joined().clone()),
            digest: *digest,
        };
        keys.map(candidate).collect()
    }

    /// Asks all members, this node among them.
    fn ask_all(&mut self, desk: &mut Desk, request: &ReapRequest) {
        for to in desk.present() {
            let id = desk.send(to, request.clone());
            self.awaited.insert(id, to);
        }
    }
}
