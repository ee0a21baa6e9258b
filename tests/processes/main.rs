//! Real `ringdove` processes on real sockets and disks: killed, stopped, paused, fed nonsense.
//!
//! One cluster at a time: two cores do not carry more, and what is slow here should be the fault's
//! doing.

mod book;
mod cluster;
mod converge;
mod corruption;
mod counts;
mod failover;
mod faults;
mod gossip;
mod hostile;
mod hung;
mod kill;
mod late;
mod life;
mod listing;
mod load;
mod machine;
mod members;
mod moves;
mod operator;
mod ports;
mod reap;
mod rejoin;
mod sync;
mod transfer;

use tokio::sync::{Mutex, MutexGuard};

static ALONE: Mutex<()> = Mutex::const_new(());

/// Waits until no other test has a cluster.
async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}
