//! The thread that makes batches durable.
//!
//! It takes every batch that is waiting, from all shards, and commits them as one group: one write
//! to the log and one sync. While it waits for the disk the next group gathers, so the busier the
//! node, the more writes share a sync.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use super::mailbox::{Mail, Mailbox};
use super::room::Room;
use crate::replica::{Input, Refusals};
use crate::store::{Batch, Store, StoreError};

/// The way to the thread.
#[derive(Clone)]
pub struct Committer {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    stopped: bool,
}

/// A batch, and whose it is.
struct Waiting {
    shard: usize,
    number: u64,
    /// The refusals that the shard had heard of when it was begun.
    refusals: u64,
    batch: Batch,
}

impl Committer {
    /// Starts the thread; it tells the shards through their mailboxes.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        mailboxes: &[Arc<Mailbox>],
        room: &Arc<Room>,
    ) -> (Self, JoinHandle<()>) {
        let (mailboxes, room) = (mailboxes.to_vec(), room.clone());
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        let committer = Self { shared: shared.clone() };
        let builder = std::thread::Builder::new().name("ringdove-commit".to_owned());
        let thread = builder.spawn(move || run(&shared, store.as_ref(), &mailboxes, &room));
        (committer, thread.expect("a thread can be started at start"))
    }

    /// Hands a shard's batch in. Batches of one shard are committed in the order they come.
    pub fn submit(&self, shard: usize, (number, refusals): (u64, u64), batch: Batch) {
        let mut queue = self.shared.queue.lock().expect("no holder of the lock panics");
        queue.waiting.push(Waiting { shard, number, refusals, batch });
        self.shared.wake.notify_one();
    }

    /// Ends the thread once everything handed in is committed.
    pub fn stop(&self) {
        self.shared.queue.lock().expect("no holder of the lock panics").stopped = true;
        self.shared.wake.notify_one();
    }
}

fn run(shared: &Shared, store: &dyn Store, mailboxes: &[Arc<Mailbox>], room: &Room) {
    let mut refusals = vec![Refusals::default(); mailboxes.len()];
    loop {
        let mut queue = shared.queue.lock().expect("no holder of the lock panics");
        while queue.waiting.is_empty() {
            if queue.stopped {
                return;
            }
            queue = shared.wake.wait(queue).expect("no holder of the lock panics");
        }
        let group = std::mem::take(&mut queue.waiting);
        drop(queue);
        let (group, unfounded): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|w| refusals[w.shard].admits(w.refusals));
        tell(mailboxes, unfounded.iter().map(|w| (w.shard, w.number)), &Err(unfounded_error()));
        if group.is_empty() {
            continue;
        }
        let (owners, batches): (Vec<_>, Vec<_>) =
            group.into_iter().map(|w| ((w.shard, w.number), w.batch)).unzip();
        let result = store.commit(&batches);
        match &result {
            Err(StoreError::Fatal(why)) => die(why),
            Err(StoreError::Full(why)) => room.refused(why),
            Err(StoreError::Corrupt(_)) => {}
            Ok(()) => room.committed(),
        }
        if result.is_err() {
            let shards: BTreeSet<usize> = owners.iter().map(|(shard, _)| *shard).collect();
            shards.into_iter().for_each(|shard| refusals[shard].refused());
        }
        tell(mailboxes, owners.into_iter(), &result);
    }
}

/// The answer to a batch that stands on one that was refused.
fn unfounded_error() -> StoreError {
    StoreError::Full("a change before this one was refused".to_owned())
}

/// Tells the shards what has become of their batches.
fn tell(
    mailboxes: &[Arc<Mailbox>],
    batches: impl Iterator<Item = (usize, u64)>,
    result: &Result<(), StoreError>,
) {
    let mut mail: BTreeMap<usize, Vec<Mail>> = BTreeMap::new();
    for (shard, batch) in batches {
        let input = Input::Committed { batch, result: result.clone() };
        mail.entry(shard).or_default().push(Mail::Input(input));
    }
    for (shard, mail) in mail {
        mailboxes[shard].post(mail);
    }
}

/// Ends the process: the disk can no longer be relied on. After a failed sync the kernel may have
/// dropped the pages and a second sync would lie; restarting finds out what is really there.
pub fn die(why: &str) -> ! {
    tracing::error!(
        why,
        "the disk failed; ending the process so that nothing false is acknowledged"
    );
    std::process::exit(70);
}
