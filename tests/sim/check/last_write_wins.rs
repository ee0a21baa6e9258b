//! Buckets that keep the latest write only: at the end one write is left, all replicas agree on it
//! (P6 sees to that), and no acknowledged write is younger than it.

use std::collections::BTreeMap;

use ringdove::ids::WriteId;

use super::Violation;
use crate::history::{Fact, Held, History, Named, Outcome, Time};

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
        let held = disks.max_by_key(|held| held.live.len());
        let ok = history.ops.iter().filter(|op| op.key == *key && op.outcome == Outcome::Ok);
        let ok: Vec<_> = ok.filter_map(|op| Some((op.id, op.write?, op.invoked))).collect();
        let last = match held.map_or(&[][..], |held| &held.live) {
            [(_, _, hlc)] => *hlc,
            // Nothing is left of it: all that was acknowledged must have been forgotten.
            [] => 0,
            live => {
                let what = format!("{key} has {} writes left, not one", live.len());
                found.push(Violation::new("LWW", what, Vec::new()));
                continue;
            }
        };
        // A deletion that all have agreed to forget is gone with its timestamp: what is written
        // afterwards is a new key. It stands for what was asked for before the agreement, and is older.
        let forgotten = |age: u64, asked: Time| {
            let mut reaped = history.reaped.get(key).into_iter().flatten();
            reaped.any(|((_, by), agreed)| asked < *agreed && *by >= age)
        };
        found.extend(back_again(history, key, held, &ages));
        for (id, write, asked) in ok {
            if ages.get(&write).is_some_and(|age| *age > last && !forgotten(*age, asked)) {
                let what = format!("{} of {key} is younger than what was kept", Named(write));
                found.push(Violation::new("LWW", what, vec![id]));
            }
        }
    }
    found
}

/// What is left although all had agreed to forget a younger write, when it could not be begun any more.
fn back_again(
    history: &History,
    key: &str,
    held: Option<&Held>,
    ages: &BTreeMap<WriteId, u64>,
) -> Option<Violation> {
    let (_, left, _) = held?.live.first()?;
    let op = history.ops.iter().find(|op| op.write == Some(*left))?;
    let mut reaped = history.reaped.get(key)?.iter();
    let ((younger, _), _) = reaped.find(|((write, by), agreed)| {
        write != left && op.begin_by < **agreed && ages.get(left).is_some_and(|age| age < by)
    })?;
    let what = format!(
        "{} of {key} is back, though {} was younger and is forgotten",
        Named(*left),
        Named(*younger)
    );
    Some(Violation::new("LWW", what, vec![op.id]))
}
