//! P12: after a power cut of everything, each acknowledged write stands on W disks; on one less
//! where a victim's disk has lost data of its own.

use super::{Relations, Violation};
use crate::history::{Fact, History, Named, Outcome};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = Vec::new();
    for fact in &history.facts {
        let Fact::AllDown { time, disks, victims } = fact else { continue };
        let ok = history.ops.iter().filter(|op| op.outcome == Outcome::Ok);
        for op in ok.filter(|op| op.returned < *time) {
            let Some(write) = op.write else { continue };
            // It may be dead there: then what replaced it was written over it.
            let knows = |held: &crate::history::Held| {
                relations.dots(write).any(|dot| held.clock.contains(dot))
            };
            let copies = disks.iter().filter_map(|disk| disk.get(&op.key)).filter(|h| knows(h));
            let copies = copies.count();
            if copies + victims < usize::from(op.needed) {
                let what = format!(
                    "{} of {} was acknowledged at W={}; {copies} disks have it after the power cut",
                    Named(write),
                    op.key,
                    op.needed
                );
                found.push(Violation::new("P12", what, vec![op.id]));
            }
        }
    }
    found
}
