//! P9: a dot stands for one write, over the whole run, whatever disks forget.

use std::collections::{BTreeMap, BTreeSet};

use ringdove::causality::Dot;
use ringdove::ids::WriteId;

use super::Violation;
use crate::history::{Fact, History, named};

pub fn check(history: &History) -> Vec<Violation> {
    let mut writes: BTreeMap<(&str, Dot), BTreeSet<WriteId>> = BTreeMap::new();
    for fact in &history.facts {
        if let Fact::Staged { key, held, .. } | Fact::Stored { key, held, .. } = fact {
            for (dot, write, _) in &held.live {
                writes.entry((key, *dot)).or_default().insert(*write);
            }
        }
    }
    let mut found = Vec::new();
    for ((key, dot), writes) in writes.into_iter().filter(|(_, writes)| writes.len() > 1) {
        let writes: Vec<WriteId> = writes.into_iter().collect();
        let what = format!("{dot} of {key} stands for {}", named(&writes));
        let is_one = |write: Option<WriteId>| write.is_some_and(|w| writes.contains(&w));
        let ops = history.ops.iter().filter(|op| is_one(op.write)).map(|op| op.id).collect();
        found.push(Violation::new("P9", what, ops));
    }
    found
}
