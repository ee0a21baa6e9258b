//! P21: a write is begun within its budget after it was sent, or not at all.
//!
//! Later its client may have written it elsewhere, and others over it: what is begun then undoes what is
//! newer.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Fact, History, Named};

pub fn check(history: &History) -> Vec<Violation> {
    let ops = history.ops.iter().filter_map(|op| Some((op.write?, op)));
    let ops: BTreeMap<_, _> = ops.collect();
    let mut found = Vec::new();
    for fact in &history.facts {
        let Fact::Staged { time, node, key, minted: Some(dot), held } = fact else { continue };
        let Some((_, write, _)) = held.live.iter().find(|(live, ..)| live == dot) else { continue };
        let Some(op) = ops.get(write) else { continue };
        if *time > op.begin_by {
            let what = format!(
                "n{node} began {} of {key} at {:.6}, {} ms after the last time for it",
                Named(*write),
                *time as f64 / 1e6,
                (time - op.begin_by).div_ceil(1000)
            );
            found.push(Violation::new("P21", what, vec![op.id]));
        }
    }
    found
}
