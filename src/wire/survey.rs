//! What all members say when they are asked at once, and what is still open by that.

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
    /// Names of the members it has no connection to.
    pub apart_from: Vec<String>,
    /// What it keeps for members that are away.
    pub hints: Vec<HintStatus>,
    /// What waits to be forgotten, of partitions it comes first in.
    pub reaping: ReapStatus,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goals {
    /// Every member serves, is connected to all others, and goes by the same cluster state.
    pub healthy: bool,
    /// Nobody keeps anything for anybody.
    pub hints_drained: bool,
    /// No slot changes hands.
    pub transfers_done: bool,
}

impl Goals {
    /// All there are.
    pub const ALL: Self = Self { healthy: true, hints_drained: true, transfers_done: true };
    /// None yet.
    pub const NONE: Self = Self { healthy: false, hints_drained: false, transfers_done: false };

    /// All, where none was named.
    #[must_use]
    pub fn or_all(self) -> Self {
        if self == Self::NONE { Self::ALL } else { self }
    }

    /// What keeps these goals from being reached, and where. Empty when they are.
    #[must_use]
    pub fn open(self, reports: &[MemberReport]) -> Vec<Open> {
        let said = reports.iter().filter_map(|report| report.said.as_ref());
        let newest = said.map(|state| state.topology).max_by_key(|version| version.epoch);
        let mut open = Vec::new();
        for MemberReport { name, said, .. } in reports {
            let mut add = |what: String| open.push(Open { node: name.clone(), what });
            let Some(said) = said else {
                // Whatever is waited for: it may be there that it is not so.
                add("does not answer".to_owned());
                continue;
            };
            if self.healthy {
                if !["serving", "leaving"].contains(&said.state.as_str()) {
                    add(format!("is {}", said.state));
                }
                if Some(said.topology) != newest {
                    add(format!("goes by another cluster state (epoch {})", said.topology.epoch));
                }
                for other in &said.apart_from {
                    add(format!("has no connection to {other}"));
                }
            }
            if self.hints_drained {
                for hint in said.hints.iter().filter(|hint| hint.count > 0) {
                    add(format!("keeps {} keys for {}", hint.count, hint.label()));
                }
            }
            if self.transfers_done && said.slots_changing > 0 {
                add(format!("knows of {} slots that change hands", said.slots_changing));
            }
        }
        open
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
            apart_from: Vec::new(),
            hints: Vec::new(),
            reaping: Default::default(),
        };
        MemberReport { id: NodeId(1), name: name.to_owned(), said: Some(said) }
    }

    fn open(goals: Goals, change: impl FnOnce(&mut MemberState)) -> Vec<String> {
        let mut reports = [report("a"), report("b")];
        change(reports[1].said.as_mut().unwrap());
        goals.open(&reports).iter().map(ToString::to_string).collect()
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

        let hint = |count, rate| HintStatus {
            owner: NodeId(9),
            name: "c".to_owned(),
            count,
            bytes: 10,
            oldest_ms: 5,
            rate,
            dirty_partitions: 1,
        };
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
            let open = goals.open(&reports);
            assert_eq!(open.len(), 1);
            assert_eq!(open[0].to_string(), "a does not answer");
        }
    }
}
