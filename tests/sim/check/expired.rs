//! P22: what has expired by everybody's clock is shown by nobody, whatever has moved or mended it.

use super::{Relations, Violation};
use crate::history::{History, Kind, Named, Outcome};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in history.ops.iter().filter(|op| op.kind == Kind::Get && op.outcome == Outcome::Ok) {
        for value in &read.values {
            let Some(op) = relations.op(history, *value) else { continue };
            if history.must_be_hidden(op, read.invoked, read.returned) {
                let what = format!("{} of {} is shown after its time", Named(*value), read.key);
                found.push(Violation::new("P22", what, vec![op.id, read.id]));
            }
        }
    }
    found
}
