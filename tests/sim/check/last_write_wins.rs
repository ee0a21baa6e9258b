//! Buckets that keep the latest write only: at the end one write is left, all replicas agree on it
//! (P6 sees to that), and no acknowledged write is younger than it.

use std::collections::BTreeMap;

use ringdove::ids::WriteId;

use super::Violation;
use crate::history::{Fact, History, Named, Outcome};

pub fn check(history: &History) -> Vec<Violation> {
    let mut ages: BTreeMap<WriteId, u64> = BTreeMap::new();
    for fact in &history.facts {
        if let Fact::Staged { held, .. } = fact {
            for (_, write, hlc) in &held.live {
                // A write that was made twice counts as its older copy.
                let age = ages.entry(*write).or_insert(*hlc);
                *age = (*age).min(*hlc);
            }
        }
    }
    let mut found = Vec::new();
    for key in &history.last_write_wins {
        let disks = history.final_disks.iter().filter_map(|disk| disk.get(key));
        let Some(held) = disks.max_by_key(|held| held.live.len()) else { continue };
        let ok = history.ops.iter().filter(|op| op.key == *key && op.outcome == Outcome::Ok);
        let ok: Vec<_> = ok.filter_map(|op| Some((op.id, op.write?))).collect();
        let last = match held.live.as_slice() {
            [(_, _, hlc)] => *hlc,
            [] if ok.is_empty() => continue,
            live => {
                let what = format!("{key} has {} writes left, not one", live.len());
                found.push(Violation::new("LWW", what, Vec::new()));
                continue;
            }
        };
        // What was deleted and forgotten is gone with its timestamps: what is written afterwards is a
        // new key.
        let forgotten = history.reaped.get(key).into_iter().flatten();
        let forgotten = forgotten.filter_map(|write| ages.get(write)).max().copied();
        let last = last.max(forgotten.unwrap_or(0));
        for (id, write) in ok {
            if ages.get(&write).is_some_and(|age| *age > last) {
                let what = format!("{} of {key} is younger than what was kept", Named(write));
                found.push(Violation::new("LWW", what, vec![id]));
            }
        }
    }
    found
}
