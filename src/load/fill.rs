//! Writes every key once before a run, so that its reads find something.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::task::JoinSet;

use super::Error;
use super::actor::{Actor, Books};
use super::runner::Plan;
use super::target::{Failure, Session, Target};
use super::workload::{Kind, Request};

/// Writers at a time: enough to share syncs, few enough for any server.
const WRITERS: usize = 64;
/// How often a key is tried.
const ATTEMPTS: u32 = 5;

/// Writes the keys of the plan's part.
///
/// # Errors
/// When a key cannot be written.
pub(super) async fn fill<T: Target>(
    target: &T,
    plan: &Plan,
    books: &Rc<Books<<T::Session as Session>::Context>>,
) -> Result<(), Error> {
    let next = Rc::new(Cell::new(0));
    let failed: Rc<RefCell<Option<Failure>>> = Rc::default();
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let mut actor = Actor::new(target.session(number), books.clone());
        let (next, failed) = (next.clone(), failed.clone());
        let (keys, part, sizes) = (plan.workload.keys, plan.part, plan.workload.value_size);
        writers.spawn_local(async move {
            while failed.borrow().is_none() {
                let key = next.get();
                next.set(key + 1);
                if key >= keys {
                    return;
                }
                if !part.has(key) {
                    continue;
                }
                let request = Request { kind: Kind::Update, key, size: sizes.of(key) };
                if let Err(failure) = write(&mut actor, &request).await {
                    *failed.borrow_mut() = Some(failure);
                }
            }
        });
    }
    writers.join_all().await;
    match failed.take() {
        None => Ok(()),
        Some(failure) => Err(Error::Unreachable(format!(
            "the keys could not be filled: a write failed {ATTEMPTS} times, the last time with \
             {:?}; is the server whole?",
            failure.name
        ))),
    }
}

async fn write<S: Session>(actor: &mut Actor<S>, request: &Request) -> Result<(), Failure> {
    let mut attempt = 1;
    loop {
        match actor.perform(request).await {
            Ok(_) => return Ok(()),
            Err(failure) if attempt == ATTEMPTS => return Err(failure),
            Err(_) => attempt += 1,
        }
    }
}
