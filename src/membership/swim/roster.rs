//! The cluster's members as this node sees them: what operators are shown, and what the rest of the
//! node has been told.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use super::{Effect, State};
use crate::ids::NodeId;
use crate::time::Instant;

/// How this node sees one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The member.
    pub node: NodeId,
    /// Whether it is up.
    pub state: State,
    /// Since when it is seen so.
    pub since: Instant,
    /// Who suspects it, or did when it was last suspected: those who probed it in vain, as far as
    /// news of it came here.
    pub suspected_by: Vec<NodeId>,
    /// When it last objected to a suspicion.
    pub refuted: Option<Instant>,
    /// How many times it was taken to be down.
    pub flaps: u32,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) address: SocketAddr,
    pub(super) row: Row,
    /// What the rest of the node was last told: up or down.
    told: Option<bool>,
}

/// The members but this node itself.
#[derive(Debug, Default)]
pub(super) struct Roster {
    records: BTreeMap<NodeId, Record>,
}

impl Roster {
    /// Takes over who the members are and where; returns whether any is new.
    pub(super) fn set(&mut self, now: Instant, members: &BTreeMap<NodeId, SocketAddr>) -> bool {
        self.records.retain(|node, _| members.contains_key(node));
        let before = self.records.len();
        for (node, address) in members {
            let fresh = || Record { address: *address, row: Row::new(*node, now), told: None };
            self.records.entry(*node).or_insert_with(fresh).address = *address;
        }
        self.records.len() > before
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.records.contains_key(&node)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Takes down how `node` is seen now, and tells the rest of the node if it has come up or gone
    /// down. `accusers` are those who suspect it, or did until now.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        node: NodeId,
        state: State,
        accusers: Vec<NodeId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(record) = self.records.get_mut(&node) else { return };
        let row = &mut record.row;
        if !accusers.is_empty() {
            row.suspected_by = accusers;
        }
        if state != row.state {
            if (row.state, state) == (State::Suspect, State::Alive) {
                row.refuted = Some(now);
            }
            row.flaps += u32::from(state == State::Down);
            (row.state, row.since) = (state, now);
        }
        let told = match state {
            State::Unknown => return,
            State::Alive | State::Suspect => true,
            State::Down => false,
        };
        if record.told != Some(told) {
            record.told = Some(told);
            effects.push(if told { Effect::Up(node) } else { Effect::Down(node) });
        }
    }
}

impl Row {
    pub(super) fn new(node: NodeId, since: Instant) -> Self {
        let (suspected_by, refuted, flaps) = (Vec::new(), None, 0);
        Self { node, state: State::Unknown, since, suspected_by, refuted, flaps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told_and_a_suspect_is_still_up() {
        let node = NodeId(1);
        let mut roster = Roster::default();
        let members = BTreeMap::from([(node, "127.0.0.1:1".parse().unwrap())]);
        assert!(roster.set(Instant(0), &members));
        assert!(!roster.set(Instant(0), &members));
        let mut effects = Vec::new();
        let states = [
            State::Unknown,
            State::Alive,
            State::Suspect,
            State::Alive,
            State::Suspect,
            State::Down,
            State::Down,
            State::Alive,
        ];
        for (at, state) in states.into_iter().enumerate() {
            let accusers = if state == State::Suspect { vec![NodeId(9)] } else { Vec::new() };
            roster.settle(Instant(at as u64), node, state, accusers, &mut effects);
        }
        assert_eq!(effects, [Effect::Up(node), Effect::Down(node), Effect::Up(node)]);
        let row = &roster.records().next().unwrap().row;
        assert_eq!((row.flaps, row.since, row.refuted), (1, Instant(7), Some(Instant(3))));
        assert_eq!(row.suspected_by, [NodeId(9)]);
        roster.settle(Instant(9), NodeId(2), State::Alive, Vec::new(), &mut effects);
        assert_eq!(effects.len(), 3, "nothing is said of who is no member");
    }
}
