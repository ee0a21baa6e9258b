//! Threads for reads that would block.
//!
//! A shard reads what memory can tell by itself; what only the disk knows is read here, so that
//! one slow block does not hold up everyone whose keys are in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use super::committer;
use super::mailbox::{Mail, Mailbox};
use crate::ids::NodeId;
use crate::replica::Input;
use crate::store::{Store, StoreError, StoredKey};

/// Enough to keep a disk's queue busy; threads that wait cost nothing else.
const THREADS: usize = 4;

/// What is to be read.
enum Wanted {
    Record(StoredKey),
    Hints { owner: NodeId, after: Option<StoredKey>, bytes: usize },
}

/// The way to the threads.
#[derive(Clone)]
pub struct Loader {
    shared: Arc<Shared>,
}

struct Shared {
    /// First come, first served: under a backlog nobody waits for ever.
    queue: Mutex<VecDeque<(usize, Wanted)>>,
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
        self.push(shard, Wanted::Record(key));
    }

    /// Reads a page of what is kept for `owner`, for `shard`.
    pub fn list_hints(&self, shard: usize, owner: NodeId, after: Option<StoredKey>, bytes: usize) {
        self.push(shard, Wanted::Hints { owner, after, bytes });
    }

    fn push(&self, shard: usize, wanted: Wanted) {
        self.shared.queue.lock().expect("no holder of the lock panics").push_back((shard, wanted));
        self.shared.wake.notify_one();
    }
}

fn run(shared: &Shared, store: &dyn Store, mailboxes: &[Arc<Mailbox>]) {
    loop {
        let mut queue = shared.queue.lock().expect("no holder of the lock panics");
        let (shard, wanted) = loop {
            match queue.pop_front() {
                Some(next) => break next,
                None => queue = shared.wake.wait(queue).expect("no holder of the lock panics"),
            }
        };
        drop(queue);
        let input = match wanted {
            Wanted::Record(key) => {
                let result = alive(store.read(&key));
                Input::Loaded { key, result }
            }
            Wanted::Hints { owner, after, bytes } => {
                let result = alive(store.hints(owner, after.as_ref(), bytes));
                Input::Hints { owner, result }
            }
        };
        mailboxes[shard].post([Mail::Input(input)]);
    }
}

/// What a read gave; does not return where the disk can no longer be relied on.
fn alive<T>(result: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(StoreError::Fatal(why)) = &result {
        committer::die(why);
    }
    result
}
