//! Threads for reads that would block.
//!
//! A shard reads what memory can tell by itself; what only the disk knows is read here, so that
//! one slow block does not hold up everyone whose keys are in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use super::committer;
use super::mailbox::{Mail, Mailbox};
use crate::replica::Input;
use crate::store::{Store, StoreError, StoredKey};

/// Enough to keep a disk's queue busy; threads that wait cost nothing else.
const THREADS: usize = 4;

/// The way to the threads.
#[derive(Clone)]
pub struct Loader {
    shared: Arc<Shared>,
}

struct Shared {
    /// First come, first served: under a backlog nobody waits for ever.
    queue: Mutex<VecDeque<(usize, StoredKey)>>,
    wake: Condvar,
}

impl Loader {
    /// Starts the threads. They end with the process.
    #[must_use]
    pub fn start(store: &Arc<dyn Store>, mailboxes: &[Arc<Mailbox>]) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        for index in 0..THREADS {
            let (shared, store) = (shared.clone(), store.clone());
            let mailboxes = mailboxes.to_vec();
            let builder = std::thread::Builder::new().name(format!("ringdove-read-{index}"));
            let thread = builder.spawn(move || run(&shared, store.as_ref(), &mailboxes));
            thread.expect("a thread can be started at start");
        }
        Self { shared }
    }

    /// Reads `key` for `shard`.
    pub fn load(&self, shard: usize, key: StoredKey) {
        self.shared.queue.lock().expect("no holder of the lock panics").push_back((shard, key));
        self.shared.wake.notify_one();
    }
}

fn run(shared: &Shared, store: &dyn Store, mailboxes: &[Arc<Mailbox>]) {
    loop {
        let mut queue = shared.queue.lock().expect("no holder of the lock panics");
        let (shard, key) = loop {
            match queue.pop_front() {
                Some(next) => break next,
                None => queue = shared.wake.wait(queue).expect("no holder of the lock panics"),
            }
        };
        drop(queue);
        let result = store.read(&key);
        if let Err(StoreError::Fatal(why)) = &result {
            committer::die(why);
        }
        mailboxes[shard].post([Mail::Input(Input::Loaded { key, result })]);
    }
}
