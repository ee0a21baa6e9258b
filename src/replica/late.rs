//! Writes that come late: when nobody can tell whether they were done before.
//!
//! Whoever says when a write was sent sends the same elsewhere when nothing is heard. It is known again by
//! its name, wherever it comes late, as long as that is remembered: of a key's overwritten writes the
//! last [`REPLACED_WRITES`](crate::limits::REPLACED_WRITES), in last-write-wins buckets none. Where it may
//! be forgotten, doing it now could go over all that was written since (`docs/adr/0014`).
//!
//! This goes by the clocks of the coordinators, as names do.

use std::time::Duration;

use crate::causality::Object;
use crate::time::{Instant, Now, WallMs};
use crate::wire::messages::{Failure, FailureCode};

/// How soon the sender of a write may turn to somebody else without having heard that its connection is
/// gone: before a client's patience with a silent node (400 ms), and before the next owner is asked.
const ASKED_ELSEWHERE_AFTER: Duration = Duration::from_millis(300);
/// By how much the clocks of coordinators may differ before the names of writes that were forgotten are
/// taken for older ones.
const CLOCKS_APART_MS: u64 = 1_000;

/// When a write was sent by the wall clock, if its sender may have turned to somebody else since.
fn may_be_elsewhere_since(sent: Instant, now: Now) -> Option<WallMs> {
    let age = now.instant - sent;
    let sent_at = now.wall.0.saturating_sub(age.as_millis() as u64);
    (age >= ASKED_ELSEWHERE_AFTER).then_some(WallMs(sent_at))
}

/// Whether a write that was sent then may have been done elsewhere, overwritten, and be forgotten.
pub(super) fn may_be_forgotten(sent: Instant, now: Now, object: &Object) -> bool {
    let since = may_be_elsewhere_since(sent, now);
    since.is_some_and(|at| object.forgets_since(WallMs(at.0.saturating_sub(CLOCKS_APART_MS))))
}

/// The same where the last write wins: anything at all was written since.
pub(super) fn is_written_since(sent: Instant, now: Now, object: &Object) -> bool {
    may_be_elsewhere_since(sent, now).is_some_and(|at| object.latest_hlc().wall() >= at)
}

/// The answer to what would be begun when its sender does not count on it any more.
pub(super) fn too_late() -> Failure {
    let message = "the request's time was spent before it was begun; nothing was done";
    Failure::not_applied(FailureCode::Timeout, message)
}

/// The answer to a write that may be forgotten.
pub(super) fn forgotten() -> Failure {
    let message = "the write came late, and the key was overwritten too often meanwhile to tell that it was \
                   not done before; nothing was done: try again";
    Failure::not_applied(FailureCode::Timeout, message)
}
