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

pub mod record;
