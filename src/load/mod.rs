//! **Load**: requests at a rate that does not wait for the answers, and what became of each.
//!
//! ```text
//!   workload ──▶ runner ──▶ target ──▶ any server
//!                  │
//!                  ├──▶ a line a second ──▶ record ──▶ report, comparison
//!                  └──▶ ledger of what was written ──▶ verification
//! ```
//!
//! What always holds: a request is timed from when it was due, so a server that stalls cannot hide
//! it ("coordinated omission"); and a request whose outcome nobody knows is counted as unknown,
//! neither done nor failed.

mod actor;
pub mod compare;
pub mod directory;
pub mod distribution;
mod error;
mod fill;
pub mod ledger;
pub mod record;
pub mod runner;
pub mod schedule;
mod slots;
pub mod stamp;
mod tally;
pub mod target;
pub mod verify;
pub mod workload;

pub use actor::{Clock, Manner};
pub use directory::Directory;
pub use error::Error;
pub use runner::{Pacing, Plan, Progress, run};
pub use tally::{latencies, latency_of};
