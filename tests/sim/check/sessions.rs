//! P8: what a session has written or read, it does not lose sight of.
//!
//! Reads carry no token yet, so this holds where quorums overlap (R+W>N): a session's read shows,
//! or shows covered, every acknowledged write that the session made (read your writes) and every
//! value it ever got whose write was acknowledged when the read began (monotonic reads). The same
//! goes for what those values had replaced (writes follow reads, monotonic writes): somebody who
//! has seen the later write does not get back what it replaced.

use std::collections::{BTreeMap, BTreeSet};

use ringdove::ids::WriteId;

use super::{Relations, Violation};
use crate::history::{History, Kind, Named, Op, Outcome, named};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut known: BTreeMap<(u32, &str), BTreeSet<WriteId>> = BTreeMap::new();
    let mut found = Vec::new();
    let mut ops: Vec<&Op> = history.ops.iter().filter(|op| op.outcome == Outcome::Ok).collect();
    ops.sort_by_key(|op| (op.returned, op.id));
    for op in ops.into_iter().filter(|op| !history.keeps_latest(&op.key)) {
        let known = known.entry((op.session, &op.key)).or_default();
        if op.kind == Kind::Get {
            for write in known.iter() {
                if let Some(what) = forgets(history, relations, op, *write) {
                    let of_write = relations.op(history, *write).map(|op| op.id);
                    let ops = of_write.into_iter().chain([op.id]).collect();
                    let twice = op.values.iter().any(|value| relations.is_twice_made(*value));
                    found.push(Violation { twice_made: twice, ..Violation::new("P8", what, ops) });
                }
            }
            known.extend(&op.values);
        }
        known.extend(op.write);
    }
    found
}

/// Whether a read has lost sight of a write its session knew, and how.
fn forgets(history: &History, relations: &Relations, read: &Op, write: WriteId) -> Option<String> {
    let op = relations.op(history, write)?;
    let due =
        op.outcome == Outcome::Ok && op.returned < read.invoked && op.needed + read.needed > read.n;
    if !due {
        return None;
    }
    if !relations.shows(history, &read.key, &read.values, write, read.returned) {
        return Some(format!(
            "session {} knew {} of {} and then read {}",
            read.session,
            Named(write),
            read.key,
            named(&read.values)
        ));
    }
    let back = read.values.iter().find(|value| relations.must_cover(&read.key, write, **value))?;
    Some(format!(
        "session {} knew {} of {} and then got {} back, which that had replaced",
        read.session,
        Named(write),
        read.key,
        Named(*back)
    ))
}
