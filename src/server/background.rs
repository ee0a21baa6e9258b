//! A thread for reads that no request waits for: those of anti-entropy, of transfers and of reaping.
//!
//! It reads one thing after the other, at a low priority: of a core that is busy with requests it gets a
//! tenth, and all of one that is not.

use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

/// The nice value of the thread: a tenth of the usual weight.
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// The way to the thread.
pub struct Background {
    sender: Sender<Work>,
}

impl Background {
    /// Starts the thread. It ends when this is dropped.
    #[must_use]
    pub fn start() -> Self {
        let (sender, receiver) = channel::<Work>();
        let builder = std::thread::Builder::new().name("ringdove-later".to_owned());
        let thread = builder.spawn(move || {
            // On Linux a thread has a priority of its own, and "none" is the calling one. Where that may
            // not be changed, it goes on with that of all others.
            let _ = rustix::process::setpriority_process(None, NICE);
            receiver.into_iter().for_each(|work| work());
        });
        thread.expect("a thread can be started at start");
        Self { sender }
    }

    /// Does `work` when what was given before is done; returns what it gave.
    ///
    /// # Panics
    /// When it, or work before it, has panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (give, given) = oneshot::channel();
        let work = Box::new(move || drop(give.send(work())));
        self.sender.send(work).expect("the thread lives as long as this");
        given.await.expect("work does not panic")
    }
}
