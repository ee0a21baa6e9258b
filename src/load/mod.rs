//! **Load**: requests at a rate that does not wait for the answers, and what became of each.
//!
//! ```text
//!   workload ──▶ runner ──▶ actors ──▶ target ──▶ any server
//!   schedule ──▶   │          │
//!                  │          └──▶ ledger ──▶ verify ──▶ reads everything back
//!                  └──▶ tally ──▶ directory: summary, seconds, histograms ──▶ compare, report
//! ```
//!
//! A [`Workload`](workload::Workload) is a sequence of requests fixed by its seed, a
//! [`Plan`] says how fast they come, and a [`Target`](target::Target) is what they are sent to.
//! [`run`] gives a [`Summary`](record::Summary), and leaves a [`Directory`] if it is given one.
//!
//! What always holds: a request is timed from when it was due, so a server that stalls cannot hide
//! it ("coordinated omission"); a request whose outcome nobody knows is counted as unknown,
//! neither done nor failed; everything runs on one thread, within a
//! [`LocalSet`](tokio::task::LocalSet), and nothing is locked.

mod actor;
mod alarm;
pub mod compare;
pub mod directory;
pub mod distribution;
mod error;
mod fill;
pub mod ledger;
mod mix;
pub mod record;
pub mod report;
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
