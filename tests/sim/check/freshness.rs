//! P7: a read whose quorum overlaps that of a write shows the write, once it was acknowledged.

use super::{Relations, Violation};
use crate::history::{History, Kind, Named, Outcome, named};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in history.ops.iter().filter(|op| op.kind == Kind::Get && op.outcome == Outcome::Ok) {
        if history.keeps_latest(&read.key) {
            continue;
        }
        for write in relations.writes(&read.key) {
            let op = relations.op(history, *write).expect("every write has an operation");
            // What one owner only has confirmed, the others being stood in for, may be gone with it for
            // those who read owners: until a hint brings it.
            let due = op.outcome == Outcome::Ok
                && op.needed > history.owners_lost
                && op.returned < read.invoked
                && op.needed + read.needed > read.n;
            if !due || relations.shows(history, &read.key, &read.values, *write, read.returned) {
                continue;
            }
            let what = format!(
                "a read of {} at R={} shows {} and neither {} (W={}) nor what replaced it",
                read.key,
                read.needed,
                named(&read.values),
                Named(*write),
                op.needed
            );
            found.push(Violation::new("P7", what, vec![op.id, read.id]));
        }
    }
    found
}
