//! Real `ringdove` processes on real sockets and disks: killed, stopped, paused, fed nonsense.
//!
//! One cluster at a time: two cores do not carry more, and what is slow here should be the fault's
//! doing.

mod cluster;
mod hostile;
mod kill;
mod life;
mod load;

use std::sync::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other test has a cluster.
fn alone() -> MutexGuard<'static, ()> {
    // A test that failed has stopped its cluster all the same.
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
