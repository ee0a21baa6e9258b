//! P5: every value that is returned was written, by a write that had begun and did not fail.

use super::{Relations, Violation};
use crate::history::{History, Kind, Named, Outcome};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = Vec::new();
    for read in history.ops.iter().filter(|op| op.kind == Kind::Get) {
        for value in &read.values {
            let why = match relations.op(history, *value) {
                None => "nobody wrote it",
                Some(op) if op.key != read.key => "it was written to another key",
                Some(op) if op.kind != Kind::Put => "it is a deletion",
                Some(op) if op.invoked > read.returned => "it had not been written yet",
                Some(op) if op.outcome == Outcome::Fail => "its writer was told 'not applied'",
                Some(_) => continue,
            };
            let what = format!("{} was read from {}, but {why}", Named(*value), read.key);
            let write = relations.op(history, *value);
            let ops = write.into_iter().chain([read]).map(|op| op.id).collect();
            found.push(Violation::new("P5", what, ops));
        }
    }
    found
}
