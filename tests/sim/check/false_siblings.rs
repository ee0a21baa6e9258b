//! P4: no reply shows a value beside another that had seen it.

use super::{Relations, Violation};
use crate::history::{History, Kind, Named, Outcome};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in history.ops.iter().filter(|op| op.kind == Kind::Get && op.outcome == Outcome::Ok) {
        if history.keeps_latest(&read.key) {
            continue;
        }
        for upper in &read.values {
            for lower in &read.values {
                if !relations.must_cover(&read.key, *upper, *lower) {
                    continue;
                }
                let what = format!(
                    "one reply of {} shows {} beside {}, which had seen it",
                    read.key,
                    Named(*lower),
                    Named(*upper)
                );
                let ops = [*lower, *upper].map(|write| relations.op(history, write));
                let ops = ops.into_iter().flatten().chain([read]).map(|op| op.id).collect();
                let twice_made = relations.is_twice_made(*lower);
                found.push(Violation { twice_made, ..Violation::new("P4", what, ops) });
            }
        }
    }
    found
}
