//! P17: siblings and clock entries of a key stay within bounds that follow from the run.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{Fact, History};

pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut reported: BTreeSet<&str> = BTreeSet::new();
    // Nodes become a new actor of a key at most once for each restart, failed commit and loss.
    let mut actors: BTreeMap<usize, usize> = BTreeMap::new();
    for fact in &history.facts {
        match fact {
            Fact::NewActor { node } => *actors.entry(*node).or_default() += 1,
            Fact::Staged { node, key, held, .. } => {
                // Each node may have coordinated, as a primary or in the place of one, up to the cap
                // before it heard of the others.
                let siblings = history.siblings_refuse * actors.len().max(1);
                let entries: usize = actors.values().sum();
                // A further run of an actor stands behind a dot that was not shown to a writer,
                // and joins the run before it when that dot arrives.
                let known: BTreeSet<_> = held.clock.iter().map(|(actor, _)| actor).collect();
                let gaps = held.clock.len() - known.len();
                let is_over =
                    held.live.len() > siblings || known.len() > entries || gaps > siblings;
                if is_over && reported.insert(key) {
                    let what = format!(
                        "{key} on n{node} has {} siblings and {gaps} gaps (bound {siblings}) and \
                         {} actors (bound {entries})",
                        held.live.len(),
                        known.len()
                    );
                    found.push(Violation::new("P17", what, Vec::new()));
                }
            }
            _ => {}
        }
    }
    found
}
