//! P2: what was replaced or deleted by an acknowledged write stays away.
//!
//! (a) It is not there at the end. (b) A session that has had the answer to the replacing write
//! never gets it again. (c) It does not come back after a read at R=N that showed the replacing
//! write in its stead. Reads carry no token yet, so (b) holds for reads that overlap the write's
//! quorum (R+W>N) and (c) for reads at R=N.

use ringdove::ids::WriteId;

use super::{Relations, Violation, acked};
use crate::history::{History, Kind, Named, Op, Outcome, named};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let finals = acked::final_reads(history);
    let mut found = Vec::new();
    for (key, read) in &finals {
        for value in read.values.iter().filter(|_| !history.keeps_latest(key)) {
            for upper in replacing(history, relations, key, *value) {
                let what = format!(
                    "{} of {key} is back at the end, though {} replaced it and was acknowledged",
                    Named(*value),
                    named(&[upper])
                );
                found.push(violation(history, relations, what, &[*value, upper], None));
            }
        }
    }
    for read in history.ops.iter().filter(|op| op.kind == Kind::Get && op.outcome == Outcome::Ok) {
        if history.keeps_latest(&read.key) {
            continue;
        }
        for value in &read.values {
            let replacing = replacing(history, relations, &read.key, *value);
            for upper in replacing {
                let by = relations.op(history, upper).expect("every write has an operation");
                let overlap = read.needed + by.needed > read.n;
                if by.session == read.session && by.returned < read.invoked && overlap {
                    let what = format!("a session got {} back after replacing it", Named(*value));
                    let writes = [*value, upper];
                    found.push(violation(history, relations, what, &writes, Some(read)));
                }
                if let Some(earlier) = whole_read_of(history, read, *value, upper) {
                    let what = format!(
                        "{} is back after a read at R=N (op {}) showed {} in its stead",
                        Named(*value),
                        earlier.id,
                        Named(upper)
                    );
                    let writes = [*value, upper];
                    found.push(violation(history, relations, what, &writes, Some(read)));
                }
            }
        }
    }
    found
}

/// The acknowledged writes that had certainly seen `value`.
fn replacing(history: &History, relations: &Relations, key: &str, value: WriteId) -> Vec<WriteId> {
    let is_ok = |write: &WriteId| {
        let op = relations.op(history, *write).expect("every write has an operation");
        op.outcome == Outcome::Ok && relations.must_cover(key, *write, value)
    };
    relations.writes(key).iter().copied().filter(is_ok).collect()
}

/// An earlier read at R=N that returned `upper` and not `value`, if this one is at R=N too.
fn whole_read_of<'a>(
    history: &'a History,
    read: &Op,
    value: WriteId,
    upper: WriteId,
) -> Option<&'a Op> {
    if read.needed < read.n {
        return None;
    }
    history.ops.iter().find(|op| {
        op.kind == Kind::Get
            && op.key == read.key
            && op.outcome == Outcome::Ok
            && op.needed == op.n
            && op.returned < read.invoked
            && op.values.contains(&upper)
            && !op.values.contains(&value)
    })
}

fn violation(
    history: &History,
    relations: &Relations,
    what: String,
    writes: &[WriteId],
    read: Option<&Op>,
) -> Violation {
    let ops = writes.iter().filter_map(|write| relations.op(history, *write));
    let ops = ops.chain(read).map(|op| op.id).collect();
    let twice_made = writes.iter().any(|write| relations.is_twice_made(*write));
    Violation { twice_made, ..Violation::new("P2", what, ops) }
}
