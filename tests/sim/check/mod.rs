//! The checkers: each takes a history and names what it breaks. None looks at the world.
//!
//! Definitions, after the page of invariants. `vals(c)`: the values that were returned together
//! with token c, or the value of the write that was answered with it. A write u *must* cover v if v is in vals of its token (transitively through
//! tokens); it *may* cover v also where only the coordinator knows what it replaced (a write on
//! what is observed there). With the facts of a simulation both become exact: the state in which
//! u's dot was made shows what u had seen.

pub mod acked;
pub mod bounded;
pub mod causal_context;
pub mod convergence;
pub mod dots;
pub mod durable;
pub mod expired;
pub mod false_siblings;
pub mod freshness;
pub mod handed_over;
pub mod in_time;
pub mod kept_siblings;
pub mod last_write_wins;
pub mod phantoms;
pub mod relations;
pub mod resurrection;
pub mod sessions;
#[path = "tests.rs"]
pub mod unit_tests;

use std::fmt;

pub use relations::Relations;

use crate::history::History;

/// A property that a history breaks.
#[derive(Clone, Debug)]
pub struct Violation {
    pub property: &'static str,
    pub what: String,
    /// The operations involved.
    pub ops: Vec<usize>,
    /// A write that was made under two dots is involved: two coordinators took one write.
    pub twice_made: bool,
}

impl Violation {
    pub fn new(property: &'static str, what: impl fmt::Display, ops: Vec<usize>) -> Self {
        Self { property, what: what.to_string(), ops, twice_made: false }
    }
}

/// All checkers, over one history.
pub fn check(history: &History) -> Vec<Violation> {
    let relations = Relations::new(history);
    let mut found = Vec::new();
    found.extend(acked::check(history, &relations));
    found.extend(resurrection::check(history, &relations));
    found.extend(kept_siblings::check(history, &relations));
    found.extend(false_siblings::check(history, &relations));
    found.extend(phantoms::check(history, &relations));
    found.extend(expired::check(history, &relations));
    found.extend(convergence::check(history));
    found.extend(freshness::check(history, &relations));
    found.extend(sessions::check(history, &relations));
    found.extend(dots::check(history));
    found.extend(causal_context::check(history));
    found.extend(durable::check(history, &relations));
    found.extend(handed_over::check(history, &relations));
    found.extend(bounded::check(history));
    found.extend(in_time::check(history));
    found.extend(last_write_wins::check(history));
    found
}
