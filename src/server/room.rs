//! Whether the disk has room for writes, told to the shards before a commit fails for want of it.
//!
//! A write whose commit is refused may stand on other replicas already, and its client hears "unknown".
//! One that is not begun is passed on to another replica, or refused with nothing done. So the disk is
//! asked again and again how much is free, and shards stop beginning writes a little above what is kept
//! in reserve. What the answer does not show, a quota for one, the first refused commit does.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::mailbox::{Mail, Mailbox};
use super::rocks::RocksStore;
use crate::replica::Input;

/// How often the disk is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long after a refused commit the next may be tried, where the disk says that it has room.
const TRY_AFTER: Duration = Duration::from_secs(1);

/// What is known of the room on a disk.
pub struct Room {
    store: Arc<RocksStore>,
    mailboxes: Vec<Arc<Mailbox>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_full: bool,
    /// The last commit that was refused.
    refused: Option<Instant>,
}

impl Room {
    /// Takes the disk to have room.
    #[must_use]
    pub fn new(store: Arc<RocksStore>, mailboxes: Vec<Arc<Mailbox>>) -> Arc<Self> {
        Arc::new(Self { store, mailboxes, state: Mutex::default() })
    }

    /// Asks the disk from now on.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || this.look());
            if looked.await.is_err() {
                return;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// A commit was refused for want of room.
    pub fn refused(&self, why: &str) {
        let mut state = self.state();
        state.refused = Some(Instant::now());
        self.become_full(&mut state, why);
    }

    /// Whether writes are refused here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().is_full
    }

    fn look(&self) {
        let was_full = self.state().is_full;
        let room = self.store.room(was_full);
        let mut state = self.state();
        match room {
            Err(why) => self.become_full(&mut state, &why),
            Ok(()) if state.is_full => {
                if state.refused.is_none_or(|refused| refused.elapsed() >= TRY_AFTER) {
                    state.is_full = false;
                    tracing::info!("the disk has room again: writes are taken");
                    self.tell(&Ok(()));
                }
            }
            Ok(()) => {}
        }
    }

    fn become_full(&self, state: &mut State, why: &str) {
        if !std::mem::replace(&mut state.is_full, true) {
            tracing::error!(why, "the disk is full: writes are refused here, reads go on");
            self.tell(&Err(why.to_owned()));
        }
    }

    fn tell(&self, room: &Result<(), String>) {
        for mailbox in &self.mailboxes {
            mailbox.post([Mail::Input(Input::Room(room.clone()))]);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}
