//! What waits for a shard.
//!
//! Sessions, peers and the disk put mail in; the shard's thread takes all of it at once and sleeps
//! when there is none. Requests are bounded: past the bound they are handed back, and the session
//! answers "busy". Everything else finishes work that was admitted before, and is never refused.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::oneshot;

use super::reply::ReplyTo;
use crate::ids::{NodeId, Partition, Scope};
use crate::membership::Topology;
use crate::replica::{Input, Order};
use crate::wire::messages::Request;
use crate::wire::transfer::SlotView;

/// Something for a shard.
#[derive(Debug)]
pub enum Mail {
    /// Somebody asks.
    Request(Ask),
    /// Anything else.
    Input(Input),
    /// The cluster state has changed. The sender is told, by being dropped, at the end of the turn
    /// that takes this: from then on nothing goes by what was before.
    Topology(Arc<Topology>, oneshot::Sender<()>),
    /// A successor is to copy this slot: answer when everything taken before is committed.
    Fence(SlotView, ReplyTo),
    /// Something about keys that are to be reaped.
    Reap(Order, ReplyTo),
    /// Delete what this partition has of buckets at home in this scope, as far as the node has no
    /// part in them. Says whether there was anything, or nothing if it could not be done.
    Clear(Partition, Scope, oneshot::Sender<Option<bool>>),
    /// Finish this turn and end.
    Stop,
}

/// A request, and who waits for its answer.
#[derive(Debug)]
pub struct Ask {
    /// Who waits.
    pub reply: ReplyTo,
    /// The member that has sent it; this node itself for what its clients ask.
    pub sender: NodeId,
    /// When it arrived at this node.
    pub received: crate::time::Instant,
    /// When it was sent, by this node's clock, if it says so.
    pub sent: Option<crate::time::Instant>,
    /// Another node has passed it on already.
    pub forwarded: bool,
    /// The request.
    pub request: Request,
}

/// The mailbox of one shard.
#[derive(Debug)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    wake: Condvar,
    most_requests: usize,
}

#[derive(Debug, Default)]
struct Queue {
    mail: Vec<Mail>,
    requests: usize,
}

impl Mailbox {
    /// A mailbox in which up to `most_requests` may wait.
    #[must_use]
    pub fn new(most_requests: usize) -> Self {
        Self { queue: Mutex::default(), wake: Condvar::new(), most_requests }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no method panics while it holds the lock")
    }

    /// Puts in what may not be refused.
    pub fn post(&self, mail: impl IntoIterator<Item = Mail>) {
        let mut queue = self.queue();
        let was_empty = queue.mail.is_empty();
        queue.mail.extend(mail);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Puts in requests, as many as there is room for; the others stay in `asks`.
    pub fn offer(&self, asks: &mut Vec<Ask>) {
        let mut queue = self.queue();
        let was_empty = queue.mail.is_empty();
        let room = self.most_requests.saturating_sub(queue.requests).min(asks.len());
        queue.requests += room;
        queue.mail.extend(asks.drain(..room).map(Mail::Request));
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Takes everything, into an empty `mail`; waits for something, at most until `until`.
    pub fn take(&self, mail: &mut Vec<Mail>, until: Option<Instant>) {
        let mut queue = self.queue();
        while queue.mail.is_empty() {
            let Some(until) = until else {
                queue = self.wake.wait(queue).expect("no method panics while it holds the lock");
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.wake.wait_timeout(queue, left);
            queue = waited.expect("no method panics while it holds the lock").0;
        }
        std::mem::swap(&mut queue.mail, mail);
        queue.requests = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;
    use crate::wire::messages::Control;

    fn ask() -> Ask {
        Ask {
            reply: ReplyTo::Task(oneshot::channel().0),
            sender: NodeId(1),
            received: time::Instant(0),
            sent: None,
            forwarded: false,
            request: Request::Control(Control::Status),
        }
    }

    #[test]
    fn requests_past_the_bound_are_handed_back_and_other_mail_is_not() {
        let mailbox = Mailbox::new(2);
        let mut asks = vec![ask(), ask(), ask()];
        mailbox.offer(&mut asks);
        assert_eq!(asks.len(), 1);
        mailbox.post([Mail::Input(Input::Drain), Mail::Stop]);
        let mut mail = Vec::new();
        mailbox.take(&mut mail, None);
        assert_eq!(mail.len(), 4);
        mailbox.offer(&mut asks);
        assert!(asks.is_empty(), "what was taken makes room");
    }

    #[test]
    fn taking_ends_at_its_time_with_nothing() {
        let mailbox = Mailbox::new(1);
        let mut mail = Vec::new();
        mailbox.take(&mut mail, Some(Instant::now()));
        assert!(mail.is_empty());
    }
}
