//! P16: whenever a slot changes hands, each acknowledged write stands on as many owners' disks as
//! confirmed it; on one less where a victim's disk has lost data of its own.
//!
//! This is what lets a read quorum meet every write quorum while members change: a slot that was
//! counted by a write stays with it.

use super::{Relations, Violation};
use crate::history::{Fact, History, Named, Outcome};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = Vec::new();
    for fact in &history.facts {
        let Fact::Handed { time, what, owners, victims } = fact else { continue };
        let ok = history.ops.iter().filter(|op| op.outcome == Outcome::Ok);
        for op in ok.filter(|op| op.returned < *time) {
            let (Some(write), Some(held)) = (op.write, owners.get(&op.key)) else { continue };
            let knows = |held: &&crate::history::Held| {
                relations.dots(write).any(|dot| held.clock.contains(dot))
            };
            let copies = held.iter().filter(knows).count();
            if copies + victims < usize::from(op.needed) {
                let what = format!(
                    "{} of {} was confirmed by {} owners; {copies} owners have it after {what}",
                    Named(write),
                    op.key,
                    op.needed
                );
                found.push(Violation::new("P16", what, vec![op.id]));
            }
        }
    }
    found
}
