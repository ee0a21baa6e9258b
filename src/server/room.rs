//! Whether the disk has room for writes, told to the shards before a commit fails for want of it.
//!
//! A write whose commit is refused may stand on other replicas already, and its client hears "unknown".
//! One that is not begun is passed on to another replica, or refused with nothing done. So the disk is
//! asked again and again how much is free, and shards stop beginning writes a little above what is kept
//! in reserve. What that does not show, a commit larger than what is left for one, the first refused
//! commit does; a second later it is tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::mailbox::{Mail, Mailbox};
use crate::replica::Input;

/// How often the disk is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long after a refused commit the next may be tried, where the disk says that it has room.
const TRY_AFTER: Duration = Duration::from_secs(1);

/// Asks the disk: whether it has room or, if it was full, enough again; if not, why.
type Look = Box<dyn Fn(bool) -> Result<(), String> + Send + Sync>;

/// What is known of the room on a disk.
pub struct Room {
    look: Look,
    mailboxes: Vec<Arc<Mailbox>>,
    state: Mutex<State>,
    /// The log says that the disk is full.
    is_reported: AtomicBool,
}

#[derive(Default)]
struct State {
    is_full: bool,
    /// The last commit that was refused, until one was not.
    refused: Option<Instant>,
}

impl Room {
    /// Takes the disk to have room.
    #[must_use]
    pub fn new(look: Look, mailboxes: Vec<Arc<Mailbox>>) -> Arc<Self> {
        let (state, is_reported) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { look, mailboxes, state, is_reported })
    }

    /// Asks the disk from now on.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || this.look(Instant::now())).await;
            if let Err(error) = looked {
                tracing::error!(%error, "the disk could not be asked how much is free");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Whether no writes are begun here.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().is_full
    }

    /// A commit was refused for want of room.
    pub fn refused(&self, now: Instant, why: &str) {
        let mut state = self.state();
        state.refused = Some(now);
        self.become_full(&mut state, why);
    }

    /// A commit was not refused.
    pub fn committed(&self) {
        // The usual case costs no lock.
        if self.is_reported.load(Ordering::Relaxed) {
            let mut state = self.state();
            state.refused = None;
            if !state.is_full {
                self.report_room();
            }
        }
    }

    fn look(&self, now: Instant) {
        let was_full = self.is_full();
        let room = (self.look)(was_full);
        let mut state = self.state();
        match room {
            Err(why) => self.become_full(&mut state, &why),
            Ok(()) if state.is_full && state.refused.is_none_or(|at| now - at >= TRY_AFTER) => {
                state.is_full = false;
                self.tell(&Ok(()));
                // Otherwise a commit has to show it first.
                if state.refused.is_none() {
                    self.report_room();
                }
            }
            Ok(()) => {}
        }
    }

    fn become_full(&self, state: &mut State, why: &str) {
        if !std::mem::replace(&mut state.is_full, true) {
            self.tell(&Err(why.to_owned()));
            if !self.is_reported.swap(true, Ordering::Relaxed) {
                tracing::error!(why, "the disk is full: writes are refused here, reads go on");
            }
        }
    }

    fn report_room(&self) {
        self.is_reported.store(false, Ordering::Relaxed);
        tracing::info!("the disk has room again: writes are taken");
    }

    fn tell(&self, room: &Result<(), String>) {
        for mailbox in &self.mailboxes {
            mailbox.post([Mail::Input(Input::Room(room.clone()))]);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Disk {
        has_room: Arc<AtomicBool>,
        mailbox: Arc<Mailbox>,
        room: Arc<Room>,
        now: Instant,
    }

    impl Disk {
        fn new() -> Self {
            let has_room = Arc::new(AtomicBool::new(true));
            let asked = has_room.clone();
            let look = move |_| match asked.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err("no room".to_owned()),
            };
            let mailbox = Arc::new(Mailbox::new(1));
            let room = Room::new(Box::new(look), vec![mailbox.clone()]);
            Self { has_room, mailbox, room, now: Instant::now() }
        }

        fn look(&self, has_room: bool) {
            self.has_room.store(has_room, Ordering::Relaxed);
            self.room.look(self.now);
        }

        /// What the shard was told: whether there is room.
        fn told(&self) -> Vec<bool> {
            let mut mail = Vec::new();
            self.mailbox.take(&mut mail, Some(Instant::now()));
            let room = |mail| match mail {
                Mail::Input(Input::Room(room)) => room.is_ok(),
                other => panic!("{other:?}"),
            };
            mail.into_iter().map(room).collect()
        }

        fn is_reported(&self) -> bool {
            self.room.is_reported.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn the_shard_is_told_once_when_the_disk_says_that_it_is_full_and_when_it_is_not() {
        let disk = Disk::new();
        disk.look(true);
        assert!(disk.told().is_empty());
        disk.look(false);
        disk.look(false);
        assert!(disk.told() == [false] && disk.room.is_full() && disk.is_reported());
        // What replicas are given is committed meanwhile.
        disk.room.committed();
        assert!(disk.room.is_full() && disk.is_reported());
        disk.look(true);
        disk.look(true);
        assert!(disk.told() == [true] && !disk.room.is_full() && !disk.is_reported());
    }

    #[test]
    fn after_a_refused_commit_it_is_tried_again_a_second_later_and_reported_once() {
        let mut disk = Disk::new();
        for _ in 0..3 {
            disk.room.refused(disk.now, "no space left");
            disk.look(true);
            assert_eq!(disk.told(), [false], "too early to try");
            disk.now += TRY_AFTER;
            disk.look(true);
            assert_eq!(disk.told(), [true]);
            assert!(disk.is_reported(), "nothing has been committed");
        }
        disk.room.committed();
        assert!(!disk.is_reported());
    }
}
