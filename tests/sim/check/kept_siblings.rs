//! P3: of two acknowledged writes that did not see each other, neither pushes out the other.

use ringdove::ids::WriteId;

use super::{Relations, Violation, acked};
use crate::history::{History, Named, Outcome};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, read) in acked::final_reads(history) {
        if history.keeps_latest(key) {
            continue;
        }
        let outcome = |write: &WriteId| relations.op(history, *write).map(|op| op.outcome);
        let writes = relations.writes(key);
        for lost in writes.iter().filter(|write| outcome(write) == Some(Outcome::Ok)) {
            let op = relations.op(history, *lost).expect("every write has an operation");
            let covered = |upper: &WriteId| {
                outcome(upper) != Some(Outcome::Fail) && relations.may_cover(key, *upper, *lost)
            };
            let is_there = read.values.contains(lost) || history.may_be_hidden(op, read.returned);
            if is_there || writes.iter().any(covered) {
                continue;
            }
            // Gone, and nobody covers it: whoever is there in its stead had not seen it.
            let rival = read.values.iter().find(|rival| !relations.may_cover(key, **rival, *lost));
            if let Some(rival) = rival {
                let what = format!("{} of {key} gave way to {}", Named(*lost), Named(*rival));
                let rival = relations.op(history, *rival).map(|op| op.id);
                let ops = [op.id].into_iter().chain(rival).collect();
                found.push(Violation::new("P3", what, ops));
            }
        }
    }
    found
}
