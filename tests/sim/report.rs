//! What people read: a seed's outcome, and of a failure the property, the operations and the
//! command that replays it.

use std::collections::BTreeMap;

use crate::check::{self, Violation};
use crate::history::{History, Kind, Outcome, Time};
use crate::plan::{Bug, Plan};
use crate::run;

/// Violations of one property that are shown in full.
const SHOWN: usize = 3;

/// A finished run.
pub struct Verdict {
    pub seed: u64,
    pub history: History,
    /// What makes the seed fail.
    pub violations: Vec<Violation>,
    /// Replies in which a write that two coordinators took shows again after one of its copies
    /// was replaced: counted, and a known limit (`docs/SIMULATION.md`).
    pub twice_made: Vec<Violation>,
}

/// Runs a seed and checks its history.
pub fn judge(seed: u64, bug: Option<Bug>) -> Verdict {
    let history = run::run(Plan::new(seed, bug));
    let found = check::check(&history);
    let (twice_made, violations) = found.into_iter().partition(|found| found.twice_made);
    Verdict { seed, history, violations, twice_made }
}

impl Verdict {
    pub fn is_ok(&self) -> bool {
        self.violations.is_empty()
    }

    /// One line on what the run was.
    pub fn summary(&self) -> String {
        let ops = &self.history.ops;
        let count = |outcome| ops.iter().filter(|op| op.outcome == outcome).count();
        let gets = ops.iter().filter(|op| op.kind == Kind::Get).count();
        let last = ops.iter().map(|op| op.returned).filter(|at| *at < Time::MAX).max();
        format!(
            "seed {}: {} operations ({gets} reads) in {:.0} simulated seconds: {} ok, {} failed, \
             {} unknown; {} lines of history; {} violations, {} sights of writes made twice",
            self.seed,
            ops.len(),
            last.unwrap_or_default() as f64 / 1e6,
            count(Outcome::Ok),
            count(Outcome::Fail),
            count(Outcome::Info),
            self.history.lines.len(),
            self.violations.len(),
            self.twice_made.len(),
        )
    }

    /// The violations, with the operations involved.
    pub fn details(&self) -> String {
        self.describe(&self.violations)
    }

    /// The same for writes that were made twice.
    pub fn twice_made_details(&self) -> String {
        self.describe(&self.twice_made)
    }

    fn describe(&self, violations: &[Violation]) -> String {
        let mut by_property: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
        for violation in violations {
            by_property.entry(violation.property).or_default().push(violation);
        }
        let mut text = String::new();
        for (property, violations) in by_property {
            for violation in violations.iter().take(SHOWN) {
                text.push_str(&format!("  {property}: {}\n", violation.what));
                for op in &violation.ops {
                    text.push_str(&format!("      {}\n", self.history.ops[*op]));
                }
            }
            if violations.len() > SHOWN {
                text.push_str(&format!("  {property}: and {} more\n", violations.len() - SHOWN));
            }
        }
        text
    }

    /// What to print of a seed that fails.
    pub fn failure(&self) -> String {
        let plan = self.history.lines.first().map_or("", String::as_str).trim_start();
        format!(
            "seed {} FAILED\n  {plan}\n{}  replay it: ./scripts/dev sim {}\n",
            self.seed,
            self.details(),
            self.seed
        )
    }
}
