//! The versions of one key, and which of them its writer had seen.
//!
//! ```text
//!   w1 ◄── w2 ◄── w4        an arrow: had seen it when it wrote, and replaced it
//!    ▲             │
//!    └──── w3 ◄────┘        w4 had seen w2 and w3, which had not seen each other
//! ```

use std::collections::HashMap;

use crate::load::ledger::{Action, Entry, Outcome};
use crate::load::stamp::Version;

/// Clocks of two processes may differ by so much; those of one do not.
pub(super) const CLOCKS_US: u64 = 50_000;

/// What is known of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its write was acknowledged.
    Acknowledged,
    /// Its write was answered with "nothing happened".
    Refused,
    /// Nobody knows what became of its write.
    Unknown,
    /// No ledger has its write.
    Foreign,
}

/// A version of the key.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) version: Version,
    pub(super) fate: Fate,
    pub(super) is_delete: bool,
    /// It replaced what it found, seen or not.
    pub(super) observed: bool,
    /// Microseconds since 1970; 0 for a foreign one.
    pub(super) sent_us: u64,
    /// When its writer knew that it was done; for ever where he never did.
    pub(super) answered_us: u64,
    /// What its writer had seen.
    pub(super) seen: Vec<usize>,
    /// Somebody has read it.
    pub(super) is_read: bool,
    /// It is there when everything is read back.
    pub(super) stands: bool,
}

impl Node {
    /// It may have taken effect.
    pub(super) fn is_possible(&self) -> bool {
        self.fate != Fate::Refused
    }

    /// It is a deletion that may have taken effect.
    pub(super) fn may_delete(&self) -> bool {
        self.is_delete && self.is_possible()
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        self.fate == Fate::Acknowledged
    }
}

/// A read during the run.
#[derive(Debug)]
pub(super) struct Look {
    /// Who read.
    pub(super) writer: u64,
    pub(super) sent_us: u64,
    pub(super) answered_us: u64,
    pub(super) values: Vec<usize>,
}

/// Everything about one key.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) looks: Vec<Look>,
    index: HashMap<Version, usize>,
    /// The walk that has last come by each node.
    walks: Vec<u32>,
    walk: u32,
}

impl Graph {
    /// Enters a request of `writer`, whose run began at `begun_us`.
    pub(super) fn enter(&mut self, writer: u64, begun_us: u64, entry: &Entry) {
        let (sent_us, took_us) = (begun_us + entry.sent_us, entry.took_us);
        let versions: Vec<usize> = entry.versions.iter().map(|seen| self.node(*seen)).collect();
        versions.iter().for_each(|at| self.nodes[*at].is_read = true);
        if entry.action == Action::Read {
            let answered_us = sent_us + took_us;
            self.looks.push(Look { writer, sent_us, answered_us, values: versions });
            return;
        }
        let (fate, answered_us) = match entry.outcome {
            Outcome::Acknowledged => (Fate::Acknowledged, sent_us + took_us),
            Outcome::Refused => (Fate::Refused, sent_us + took_us),
            Outcome::Unknown => (Fate::Unknown, u64::MAX),
        };
        let at = self.node(Version { writer, number: entry.number });
        let node = &mut self.nodes[at];
        (node.fate, node.is_delete) = (fate, entry.action == Action::Delete);
        (node.observed, node.seen) = (entry.observed, versions);
        (node.sent_us, node.answered_us) = (sent_us, answered_us);
    }

    /// Enters what stands.
    pub(super) fn stand(&mut self, versions: &[Version]) {
        for version in versions {
            let at = self.node(*version);
            self.nodes[at].stands = true;
        }
    }

    /// The node of a version.
    fn node(&mut self, version: Version) -> usize {
        let next = self.nodes.len();
        let at = *self.index.entry(version).or_insert(next);
        if at == next {
            self.walks.push(0);
            self.nodes.push(Node {
                version,
                fate: Fate::Foreign,
                is_delete: false,
                observed: false,
                sent_us: 0,
                answered_us: u64::MAX,
                seen: Vec::new(),
                is_read: false,
                stands: false,
            });
        }
        at
    }

    /// Those that stand.
    pub(super) fn standing(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].stands).collect()
    }

    /// Whether the writer of one of `from` had seen `target`, directly or through others, or is its
    /// writer.
    pub(super) fn has_seen(&mut self, from: &[usize], target: usize) -> bool {
        self.reaches(from, target, false)
    }

    /// As [`Graph::has_seen`], or may have: where a write replaces what it finds, it may have found
    /// all that was sent before it was answered.
    pub(super) fn may_have_seen(&mut self, from: &[usize], target: usize) -> bool {
        self.reaches(from, target, true)
    }

    fn reaches(&mut self, from: &[usize], target: usize, may: bool) -> bool {
        let sent_us = self.nodes[target].sent_us;
        let mut is_reached = false;
        self.walk(from.to_vec(), |at, node| {
            let replaced = may && node.observed && node.answered_us >= sent_us;
            is_reached |= at == target || replaced;
            // Who wrote before it was sent has not seen it.
            !is_reached && node.sent_us + CLOCKS_US > sent_us
        });
        is_reached
    }

    /// Goes back from some nodes over what their writers had seen, each node once; no further from
    /// one where `go_on` says no.
    pub(super) fn walk(
        &mut self,
        mut ahead: Vec<usize>,
        mut go_on: impl FnMut(usize, &Node) -> bool,
    ) {
        self.walk += 1;
        while let Some(at) = ahead.pop() {
            if std::mem::replace(&mut self.walks[at], self.walk) == self.walk {
                continue;
            }
            if go_on(at, &self.nodes[at]) {
                ahead.extend(&self.nodes[at].seen);
            }
        }
    }
}
