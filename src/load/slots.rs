//! Places for requests that are under way: a task each, made when first needed, and used again.
//!
//! ```text
//!   dispatcher ── job ──▶ idle slot ── wakes ──▶ its task performs the job
//!        ▲                                          │
//!        └──────────────── idle again ◄─────────────┘
//! ```
//!
//! Handing over a job allocates nothing and waits for nobody: there is a slot, or there is none.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// One place.
pub(super) struct Slot<J> {
    job: Cell<Option<J>>,
    waker: RefCell<Option<Waker>>,
}

impl<J> Slot<J> {
    /// Gives a slot that was just made its first job.
    pub(super) fn give(&self, job: J) {
        self.job.set(Some(job));
    }

    /// Waits for a job.
    pub(super) async fn job(&self) -> J {
        poll_fn(|context| match self.job.take() {
            Some(job) => Poll::Ready(job),
            None => {
                let mut waker = self.waker.borrow_mut();
                match &mut *waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    waker @ None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        })
        .await
    }
}

/// All places.
pub(super) struct Slots<J> {
    idle: RefCell<Vec<Rc<Slot<J>>>>,
    made: Cell<usize>,
    most: usize,
}

/// What became of a job that was to be handed over.
pub(super) enum Handed<J> {
    /// A slot has it.
    Over,
    /// It needs a new slot, which the caller is to give a task and the job.
    ToNew(Rc<Slot<J>>, J),
    /// As many are under way as there may be.
    Full(J),
}

impl<J> Slots<J> {
    pub(super) fn new(most: usize) -> Self {
        Self { idle: RefCell::default(), made: Cell::new(0), most }
    }

    /// Hands a job to an idle slot.
    pub(super) fn hand(&self, job: J) -> Handed<J> {
        if let Some(slot) = self.idle.borrow_mut().pop() {
            slot.give(job);
            if let Some(waker) = &*slot.waker.borrow() {
                waker.wake_by_ref();
            }
            return Handed::Over;
        }
        if self.made.get() == self.most {
            return Handed::Full(job);
        }
        self.made.set(self.made.get() + 1);
        Handed::ToNew(Rc::new(Slot { job: Cell::new(None), waker: RefCell::default() }), job)
    }

    /// The number of a slot that was just made.
    pub(super) fn last_number(&self) -> usize {
        self.made.get() - 1
    }

    /// A slot has finished its job.
    pub(super) fn free(&self, slot: &Rc<Slot<J>>) {
        self.idle.borrow_mut().push(slot.clone());
    }
}
