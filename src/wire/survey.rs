//! What all members say when they are asked at once, and what is still open by that.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::messages::{HintStatus, TopologyVersion};
use super::reap::ReapStatus;
use crate::ids::NodeId;

/// What one member said, or that it did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The member.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What it said; none where it did not answer.
    pub said: Option<MemberState>,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// As in [`NodeStatus::state`](super::messages::NodeStatus::state).
    pub state: String,
    /// The cluster state it goes by.
    pub topology: TopologyVersion,
    /// Slots that change hands, by that cluster state.
    pub slots_changing: u64,
    /// Buckets that move to other slots, for another number of replicas.
    pub buckets_moving: u64,
    /// Names of the members it has no connection to.
    pub apart_from: Vec<String>,
    /// What it keeps for members that are away.
    pub hints: Vec<HintStatus>,
    /// How it stands with the other owners of what it owns.
    pub sync: SyncState,
    /// What waits to be forgotten, of partitions it comes first in.
    pub reaping: ReapStatus,
}

/// The anti-entropy of a member, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncState {
    /// As in [`SyncStatus::pairs`](super::sync::SyncStatus::pairs).
    pub pairs: u32,
    /// As in [`SyncStatus::oldest_ms`](super::sync::SyncStatus::oldest_ms).
    pub oldest_ms: Option<u64>,
    /// An operator has paused it.
    pub paused: bool,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goals {
    /// Every member serves, is connected to all others, and goes by the same cluster state.
    pub healthy: bool,
    /// Nobody keeps anything for anybody.
    pub hints_drained: bool,
    /// No slot changes hands, and nobody is leaving.
    pub transfers_done: bool,
    /// Everything that was acknowledged before the waiting began is on all its owners.
    pub synced: bool,
}

impl Goals {
    /// All there are.
    pub const ALL: Self =
        Self { healthy: true, hints_drained: true, transfers_done: true, synced: true };
    /// None yet.
    pub const NONE: Self =
        Self { healthy: false, hints_drained: false, transfers_done: false, synced: false };

    /// All, where none was named.
    #[must_use]
    pub fn or_all(self) -> Self {
        if self == Self::NONE { Self::ALL } else { self }
    }
}

/// Somebody who waits until [`Goals`] are reached, and asks all members again and again.
///
/// What is *synced* follows from what members say of themselves, in two steps:
///
/// ```text
///   begins        every member has been seen       every pair of owners has been in sync,
///     │           to keep nothing for anybody      by a comparison that began after that
///     ├──────────────────────┼────────────────────────────────────┤ done
/// ```
///
/// After the first step everything that was acknowledged before the beginning is on one owner at
/// least, for what stand-ins had taken is delivered; after the second on all. Times are
/// milliseconds on the clock of whoever waits, since it began to.
#[derive(Debug)]
pub struct Waiting {
    goals: Goals,
    /// When each member was first seen to keep nothing for anybody.
    drained_ms: BTreeMap<NodeId, u64>,
    /// The first step is done, since then.
    all_drained_ms: Option<u64>,
    /// The longest that answers have taken.
    slowest_ms: u64,
    told_ms: Option<u64>,
}

/// How often everybody is told to compare, while somebody waits for it: a member may have been
/// away the first time.
const TELL_EVERY_MS: u64 = 5000;

impl Waiting {
    /// Begins to wait.
    #[must_use]
    pub fn new(goals: Goals) -> Self {
        let (drained_ms, all_drained_ms) = (BTreeMap::new(), None);
        Self { goals, drained_ms, all_drained_ms, slowest_ms: 0, told_ms: None }
    }

    /// Whether all members are to be told now to compare everything; true is taken for done.
    pub fn tells_to_compare(&mut self, now_ms: u64) -> bool {
        let Some(drained) = self.all_drained_ms else { return false };
        // An age is known to within the time that its answer took: what begins too soon after the
        // first step cannot be told from what began before it.
        let earliest = drained + 2 * self.slowest_ms;
        let is_due = |told: u64| told < earliest || now_ms - told >= TELL_EVERY_MS;
        let tells = self.goals.synced && now_ms >= earliest && self.told_ms.is_none_or(is_due);
        if tells {
            self.told_ms = Some(now_ms);
        }
        tells
    }

    /// What keeps the goals from being reached, and where, by the answers to what was asked at
    /// `asked_ms` and answered before `answered_ms`. Empty when nothing does.
    pub fn open(&mut self, asked_ms: u64, answered_ms: u64, reports: &[MemberReport]) -> Vec<Open> {
        self.note_drained(answered_ms, reports);
        self.slowest_ms = self.slowest_ms.max(answered_ms.saturating_sub(asked_ms));
        let goals = self.goals;
        let said = reports.iter().filter_map(|report| report.said.as_ref());
        let newest = said.map(|state| state.topology).max_by_key(|version| version.epoch);
        let mut open = Vec::new();
        for MemberReport { id, name, said } in reports {
            let mut add = |what: String| open.push(Open { node: name.clone(), what });
            let Some(said) = said else {
                // Whatever is waited for: it may be there that it is not so.
                add("does not answer".to_owned());
                continue;
            };
            if goals.healthy && !["serving", "leaving"].contains(&said.state.as_str()) {
                add(format!("is {}", said.state));
            }
            // By another one, a member may not know yet that it is an owner.
            if (goals.healthy || goals.synced) && Some(said.topology) != newest {
                add(format!("goes by another cluster state (epoch {})", said.topology.epoch));
            }
            if goals.healthy {
                for other in &said.apart_from {
                    add(format!("has no connection to {other}"));
                }
            }
            if goals.hints_drained || (goals.synced && !self.drained_ms.contains_key(id)) {
                for hint in said.hints.iter().filter(|hint| hint.count > 0) {
                    add(format!("keeps {} keys for {}", hint.count, hint.label()));
                }
            }
            if goals.transfers_done && said.slots_changing > 0 {
                add(format!("knows of {} slots that change hands", said.slots_changing));
            }
            if goals.transfers_done && said.state == "leaving" {
                // Its slots are handed over before it may be stopped: what it keeps for others, too.
                add("has not left yet".to_owned());
            }
            if goals.transfers_done && said.buckets_moving > 0 {
                add(format!("knows of {} buckets that get another n", said.buckets_moving));
            }
            if goals.synced
                && let Some(why) = self.not_in_sync(asked_ms, &said.sync)
            {
                add(why);
            }
        }
        open
    }

    fn note_drained(&mut self, answered_ms: u64, reports: &[MemberReport]) {
        for MemberReport { id, said, .. } in reports {
            if said.as_ref().is_some_and(|said| said.hints.iter().all(|hint| hint.count == 0)) {
                self.drained_ms.entry(*id).or_insert(answered_ms);
            }
        }
        let drained = reports.iter().map(|report| self.drained_ms.get(&report.id).copied());
        let since = drained.collect::<Option<Vec<u64>>>();
        self.all_drained_ms = since.map(|since| since.into_iter().max().unwrap_or(0));
    }

    /// Why a member that said this may lack something; none when it lacks nothing.
    fn not_in_sync(&self, asked_ms: u64, sync: &SyncState) -> Option<String> {
        let paused = if sync.paused { "; its anti-entropy is paused" } else { "" };
        let Some(age) = sync.oldest_ms else {
            return Some(format!(
                "has not been in sync with all other owners since its start{paused}"
            ));
        };
        // The age is rounded down, and clocks run at rates that differ, by less than one in 1000.
        let age_at_most = age + age / 1000 + 1;
        let since = self.all_drained_ms;
        let is_late = since.is_none_or(|since| since + age_at_most > asked_ms);
        (sync.pairs > 0 && is_late).then(|| {
            let seconds = age as f64 / 1000.0;
            format!("was last in sync with all other owners {seconds:.1} s ago{paused}")
        })
    }
}

/// Something that keeps a goal from being reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The name of the member that it is about.
    pub node: String,
    /// What it does, or does not: a sentence with the member before it.
    pub what: String,
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.node, self.what)
    }
}

impl HintStatus {
    /// The member's name, or its id where nobody knows the name any more.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name.is_empty() { self.owner.short() } else { self.name.clone() }
    }

    /// Seconds until all of it is delivered, at the rate of now; none while nothing is.
    #[must_use]
    pub fn eta_seconds(&self) -> Option<u64> {
        (self.rate > 0).then(|| self.count.div_ceil(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str) -> MemberReport {
        let topology = TopologyVersion { epoch: 3, hash: 7 };
        let said = MemberState {
            state: "serving".to_owned(),
            topology,
            slots_changing: 0,
            buckets_moving: 0,
            apart_from: Vec::new(),
            hints: Vec::new(),
            sync: SyncState { oldest_ms: Some(0), ..SyncState::default() },
            reaping: Default::default(),
        };
        let id = NodeId(name.as_bytes()[0].into());
        MemberReport { id, name: name.to_owned(), said: Some(said) }
    }

    fn open(goals: Goals, change: impl FnOnce(&mut MemberState)) -> Vec<String> {
        let mut reports = [report("a"), report("b")];
        change(reports[1].said.as_mut().unwrap());
        lines(&Waiting::new(goals).open(10, 10, &reports))
    }

    fn lines(open: &[Open]) -> Vec<String> {
        open.iter().map(ToString::to_string).collect()
    }

    fn hint(count: u64, rate: u64) -> HintStatus {
        HintStatus {
            owner: NodeId(9),
            name: "c".to_owned(),
            count,
            bytes: 10,
            oldest_ms: 5,
            rate,
            dirty_partitions: 1,
        }
    }

    #[test]
    fn each_goal_says_what_keeps_it_and_only_that() {
        let healthy = Goals { healthy: true, ..Goals::NONE };
        let drained = Goals { hints_drained: true, ..Goals::NONE };
        let done = Goals { transfers_done: true, ..Goals::NONE };
        assert_eq!(Goals::NONE.or_all(), Goals::ALL);
        assert!(open(Goals::ALL, |_| ()).is_empty());

        let draining = |said: &mut MemberState| said.state = "draining".to_owned();
        assert_eq!(open(healthy, draining), ["b is draining"]);
        assert!(open(drained, draining).is_empty());
        let behind = |said: &mut MemberState| said.topology.epoch = 2;
        assert_eq!(open(healthy, behind), ["b goes by another cluster state (epoch 2)"]);
        let apart = |said: &mut MemberState| said.apart_from = vec!["a".to_owned()];
        assert_eq!(open(healthy, apart), ["b has no connection to a"]);

        let leaving = |said: &mut MemberState| said.state = "leaving".to_owned();
        assert_eq!(open(done, leaving), ["b has not left yet"]);
        assert!(open(healthy, leaving).is_empty());

        let keeps = |said: &mut MemberState| said.hints = vec![hint(12, 5)];
        assert_eq!(open(drained, keeps), ["b keeps 12 keys for c"]);
        assert!(open(healthy, keeps).is_empty());
        // What had to be let go is not waited for: it will never be delivered.
        assert!(open(drained, |said| said.hints = vec![hint(0, 0)]).is_empty());
        assert_eq!((hint(12, 5).eta_seconds(), hint(12, 0).eta_seconds()), (Some(3), None));

        let changing = |said: &mut MemberState| said.slots_changing = 4;
        assert_eq!(open(done, changing), ["b knows of 4 slots that change hands"]);
    }

    #[test]
    fn who_does_not_answer_keeps_every_goal_open() {
        let mut reports = [report("a"), report("b")];
        reports[0].said = None;
        for goals in [Goals::ALL, Goals { hints_drained: true, ..Goals::NONE }] {
            let open = Waiting::new(goals).open(10, 10, &reports);
            assert_eq!(open.len(), 1);
            assert_eq!(open[0].to_string(), "a does not answer");
        }
    }

    #[test]
    fn synced_is_what_was_compared_after_all_hints_were_gone() {
        let mut reports = [report("a"), report("b")];
        let mut waiting = Waiting::new(Goals { synced: true, ..Goals::NONE });
        let sync = |age| SyncState { pairs: 64, oldest_ms: age, paused: false };
        let mut look = |asked, waiting: &mut Waiting, ages: [Option<u64>; 2], kept: [u64; 2]| {
            for (report, (age, kept)) in reports.iter_mut().zip(ages.into_iter().zip(kept)) {
                let said = report.said.as_mut().unwrap();
                (said.sync, said.hints) = (sync(age), vec![hint(kept, 1)]);
            }
            lines(&waiting.open(asked, asked + 10, &reports))
        };
        // Both were in sync a moment ago; what b keeps for c may be news to both.
        let open = look(1000, &mut waiting, [Some(5), Some(5)], [0, 7]);
        assert!(open.contains(&"b keeps 7 keys for c".to_owned()) && open.len() == 3, "{open:?}");
        assert!(!waiting.tells_to_compare(1010), "in vain before b has delivered");
        // It is gone. That it keeps newer ones later changes nothing.
        assert_eq!(look(2000, &mut waiting, [Some(5), Some(5)], [3, 0]).len(), 2);
        assert!(!waiting.tells_to_compare(2029), "it could not be told from what was before");
        assert!(waiting.tells_to_compare(2030) && !waiting.tells_to_compare(2040));
        // Compared since 2010: an age of 188 is up to 189, by a clock that may be slower.
        let open = look(2200, &mut waiting, [Some(188), Some(190)], [3, 3]);
        assert_eq!(open, ["b was last in sync with all other owners 0.2 s ago"]);
        let open = look(2200, &mut waiting, [None, Some(188)], [3, 3]);
        assert_eq!(open, ["a has not been in sync with all other owners since its start"]);
        assert!(look(2200, &mut waiting, [Some(188), Some(188)], [3, 3]).is_empty());
        assert!(waiting.tells_to_compare(7030), "somebody may not have heard it");
    }

    #[test]
    fn a_member_that_owns_nothing_or_is_paused_is_told_from_others() {
        let synced = Goals { synced: true, ..Goals::NONE };
        let mut waiting = Waiting::new(synced);
        let mut reports = [report("a"), report("b")];
        assert!(waiting.open(0, 0, &reports).is_empty(), "alone, everything is everywhere");
        let said = reports[1].said.as_mut().unwrap();
        said.sync = SyncState { pairs: 3, oldest_ms: Some(9000), paused: true };
        let shown = lines(&waiting.open(100, 100, &reports));
        let paused =
            "b was last in sync with all other owners 9.0 s ago; its anti-entropy is paused";
        assert_eq!(shown, [paused]);
        // Whoever goes by an older cluster state may not know what it owns.
        let mut behind = report("b");
        behind.said.as_mut().unwrap().topology.epoch = 1;
        reports[1] = behind;
        assert_eq!(
            lines(&waiting.open(200, 200, &reports)),
            ["b goes by another cluster state (epoch 1)"]
        );
        reports[0].said = None;
        assert!(lines(&waiting.open(300, 300, &reports)).contains(&"a does not answer".to_owned()));
    }
}
