//! Looks at how much of the disk is free, and says so to the shards and in the log; what follows from it
//! is decided in [`room`](crate::replica::room).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::clock::Clock;
use super::mailbox::{Mail, Mailbox};
use crate::replica::Input;
use crate::replica::room::{self, Change, IsThere, LOOK_EVERY};

/// Asks the disk: whether it has room or, if it was full, enough again; if not, why.
type Look = Box<dyn Fn(bool) -> IsThere + Send + Sync>;

/// The room on a disk.
pub struct Room {
    look: Look,
    clock: Clock,
    mailboxes: Vec<Arc<Mailbox>>,
    state: Mutex<room::Room>,
    /// Commits are waited for with news.
    is_reported: AtomicBool,
}

impl Room {
    /// Takes the disk to have room.
    #[must_use]
    pub fn new(look: Look, clock: Clock, mailboxes: Vec<Arc<Mailbox>>) -> Arc<Self> {
        let (state, is_reported) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { look, clock, mailboxes, state, is_reported })
    }

    /// Looks at the disk from now on.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let shown = (this.look)(this.is_full());
                this.change(|room| room.looked(this.clock.instant(), shown));
            });
            if let Err(error) = looked.await {
                tracing::error!(%error, "the disk could not be asked how much is free");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether no writes are begun here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().is_full()
    }

    /// A commit was refused for want of room.
    pub fn refused(&self, why: &str) {
        self.change(|room| room.refused(self.clock.instant(), why));
    }

    /// A commit was not refused.
    pub fn committed(&self) {
        // The usual case costs no lock.
        if self.is_reported.load(Ordering::Relaxed) {
            self.change(room::Room::committed);
        }
    }

    /// Lets the state change, and says to everybody what has changed, in that order for all.
    fn change(&self, how: impl FnOnce(&mut room::Room) -> Change) {
        let mut state = self.state();
        let Change { tell, report } = how(&mut state);
        self.is_reported.store(state.is_reported(), Ordering::Relaxed);
        for mailbox in self.mailboxes.iter().filter(|_| tell.is_some()) {
            mailbox.post(tell.clone().map(|room| Mail::Input(Input::Room(room))));
        }
        match report {
            Some(Ok(())) => tracing::info!("the disk has room again: writes are taken"),
            Some(Err(why)) => {
                tracing::error!(why, "the disk is full: writes are refused here, reads go on");
            }
            None => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, room::Room> {
        self.state.lock().expect("no holder of the lock panics")
    }
}
