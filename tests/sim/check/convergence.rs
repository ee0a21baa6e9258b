//! P6: after healing, all primaries of a key hold the same, and everything can be read.

use super::Violation;
use crate::history::{History, named};

pub fn check(history: &History) -> Vec<Violation> {
    let mut found: Vec<Violation> = Vec::new();
    for line in &history.stuck {
        found.push(Violation::new("P6", format!("after healing, {line}"), Vec::new()));
    }
    if history.final_disks.is_empty() {
        return found;
    }
    for (key, primaries) in &history.primaries {
        let held = |node: &usize| history.final_disks[*node].get(key);
        let digests: Vec<_> = primaries.iter().map(|n| held(n).map(|held| held.digest)).collect();
        if digests.iter().any(|digest| *digest != digests[0]) {
            let show = |node: &usize| match held(node) {
                None => format!("n{node} nothing"),
                Some(held) => {
                    let live: Vec<_> = held.live.iter().map(|(_, write, _)| *write).collect();
                    format!("n{node} {} {}", named(&live), held.clock)
                }
            };
            let shown: Vec<String> = primaries.iter().map(show).collect();
            let what = format!("{key} differs: {}", shown.join("; "));
            found.push(Violation::new("P6", what, Vec::new()));
        }
    }
    found
}
