//! P10: what a disk knows of a key only grows, except where the disk was made to forget.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Fact, Held, History};

pub fn check(history: &History) -> Vec<Violation> {
    let mut last: BTreeMap<(usize, &str), &Held> = BTreeMap::new();
    let mut found = Vec::new();
    for fact in &history.facts {
        match fact {
            Fact::Stored { time, node, key, held } => {
                let before = last.insert((*node, key), held);
                if let Some(before) = before.filter(|b| !held.clock.covers(&b.clock)) {
                    let what = format!(
                        "n{node} at {:.6} replaced {} of {key} by {}",
                        *time as f64 / 1e6,
                        before.clock,
                        held.clock
                    );
                    found.push(Violation::new("P10", what, Vec::new()));
                }
            }
            Fact::Forgot { node, key: Some(key), .. } => {
                last.remove(&(*node, key.as_str()));
            }
            Fact::Reaped { node, key } => {
                last.remove(&(*node, key.as_str()));
            }
            Fact::Cleared { node, keys } => {
                last.retain(|(of, key), _| of != node || !keys.iter().any(|gone| gone == key));
            }
            Fact::Forgot { node, key: None, .. } => last.retain(|(of, _), _| of != node),
            _ => {}
        }
    }
    found
}
