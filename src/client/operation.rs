//! One operation of a caller: as many requests as it takes, within one deadline.
//!
//! ```text
//!   next node ──► connect ──► send ──► answer ──► Ok
//!       ▲            │          │         │
//!       │        not sent    no answer   failure
//!       │            │          │         │
//!       └── again? ◄─┴──────────┴─────────┘      attempts, retry budget, deadline ──► Err
//! ```
//!
//! What always holds: nothing is sent or waited for beyond the deadline; every request of one
//! write carries the same id, and each after the first says that it is a repetition; once a
//! request may have taken effect, no later refusal turns the outcome back into "not applied".

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::node::Node;
use super::route::Route;
use super::{Error, Inner, Kind, Outcome, Result, Retry};
use crate::ids::WriteId;
use crate::key::Key;
use crate::limits;
use crate::wire::messages::{Request, Response};

/// First pause before a repetition; doubles with each, and half of it is drawn by lot.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// Longest pause.
const PAUSE_MOST: Duration = Duration::from_millis(500);
/// The node gets this much of an attempt, in eighths: its own answer, which says how many
/// replicas have the write, should arrive before this side stops waiting.
const NODES_SHARE_EIGHTHS: u32 = 7;

/// What an operation does to the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    /// Nothing.
    Reads,
    /// Writes, under this id. `repeated` when an earlier operation may have sent it already.
    Writes {
        /// The write.
        id: WriteId,
        /// See above.
        repeated: bool,
    },
    /// Changes something that has no write id.
    Administers,
}

/// What the builder of a request is told.
pub(super) struct Attempt {
    /// 0 for the first request of a write, then 1, 2 and so on.
    pub(super) number: u8,
    /// The time the node has.
    pub(super) budget_ms: u32,
}

/// An operation under way.
pub(super) struct Operation<'a> {
    inner: &'a Arc<Inner>,
    key: Option<&'a Key>,
    effect: Effect,
    deadline: Instant,
    /// Requests that may have reached a node.
    sent: u8,
    /// Times that no node could be reached at all.
    rounds: u8,
    /// A request may have taken effect.
    uncertain: bool,
    /// The failure that tells most.
    failure: Option<Error>,
}

/// One request has failed.
struct Missed {
    error: Error,
    /// It may have reached the node.
    sent: bool,
}

impl<'a> Operation<'a> {
    pub(super) fn new(
        inner: &'a Arc<Inner>,
        key: Option<&'a Key>,
        effect: Effect,
        timeout: Option<Duration>,
    ) -> Self {
        let timeout = timeout.unwrap_or(inner.settings.operation_timeout);
        let deadline = Instant::now() + timeout;
        let uncertain = matches!(effect, Effect::Writes { repeated: true, .. });
        Self { inner, key, effect, deadline, sent: 0, rounds: 0, uncertain, failure: None }
    }

    /// Sends what `build` makes until an answer is one that `take` takes.
    pub(super) async fn run<T>(
        mut self,
        build: impl Fn(Attempt) -> Request,
        take: impl Fn(Response) -> Option<T>,
    ) -> Result<T> {
        self.inner.budget.deposit();
        let mut route = Route::new(self.inner.map(), self.key);
        let mut sent_before = self.sent;
        loop {
            let Some(node) = route.next(|count| self.inner.entropy.below(count)) else {
                self.rounds += u8::from(self.sent == sent_before);
                sent_before = self.sent;
                if self.is_spent() || !self.pause(None).await {
                    return Err(self.give_up());
                }
                route = Route::new(self.inner.map(), self.key);
                continue;
            };
            match self.attempt(&node, &build, &take).await {
                Ok(answer) => return Ok(answer),
                Err(missed) => {
                    if !self.may_go_on(missed).await {
                        return Err(self.give_up());
                    }
                }
            }
        }
    }

    /// One request to one node.
    async fn attempt<T>(
        &self,
        node: &Arc<Node>,
        build: &impl Fn(Attempt) -> Request,
        take: &impl Fn(Response) -> Option<T>,
    ) -> std::result::Result<T, Missed> {
        let not_sent = |error: Error| Missed { error: error.at(node.address()), sent: false };
        let settings = &self.inner.settings;
        let connection = timeout_at(self.deadline, node.connect()).await;
        let connection = connection
            .unwrap_or_else(|_| Err(Error::new(Kind::Connect, "no connection in time")))
            .map_err(not_sent)?;
        let now = Instant::now();
        let until = self.deadline.min(now + settings.attempt_timeout);
        let request = build(Attempt { number: self.number(), budget_ms: budget_ms(until - now) });
        let mut sent = false;
        let answered = timeout_at(until, async {
            let ticket = connection.clone().send(&request).await?;
            sent = true;
            ticket.answer().await
        });
        match answered.await {
            Ok(Ok(Response::Failed(failure))) => {
                node.has_answered();
                let error = Error::answered(node.address(), failure);
                if error.kind() == Kind::Draining {
                    node.shun();
                }
                Err(Missed { error, sent: true })
            }
            Ok(Ok(response)) => {
                node.has_answered();
                take(response).ok_or_else(|| {
                    let error = Error::new(Kind::Protocol, "the answer is to another question");
                    Missed { error: error.at(node.address()).unknown(), sent: true }
                })
            }
            Ok(Err(error)) if sent => {
                node.lost(&connection);
                Err(Missed { error: error.unknown(), sent })
            }
            Ok(Err(error)) => Err(not_sent(error)),
            Err(_) if sent => {
                // An impatient caller says nothing about the node.
                if until - now >= settings.attempt_timeout {
                    node.shun();
                    connection.end_if_silent_since(now);
                }
                let message = format!("no answer within {:?}", until - now);
                let error = Error::new(Kind::Timeout, message).at(node.address());
                Err(Missed { error: error.unknown(), sent })
            }
            Err(_) => {
                let message = "too much is under way on this client's connection to the node";
                Err(not_sent(Error::new(Kind::Busy, message)))
            }
        }
    }

    /// Takes note of a failure, and waits as long as is proper before the next attempt. False
    /// when there must be none.
    async fn may_go_on(&mut self, missed: Missed) -> bool {
        let Missed { error, sent } = missed;
        let (kind, retry) = (error.kind(), error.retry());
        self.uncertain |= error.outcome() == Outcome::Unknown;
        self.sent = self.sent.saturating_add(u8::from(sent));
        // That one more node cannot be reached says less than what an earlier one answered.
        if sent || self.failure.is_none() {
            self.failure = Some(error);
        }
        let is_ours_to_know = kind == Kind::NoBucket && self.knows_bucket();
        if retry == Retry::Never && sent && !is_ours_to_know {
            return false;
        }
        if retry == Retry::Never && !sent && matches!(kind, Kind::TooLarge) {
            return false;
        }
        if !sent {
            return Instant::now() < self.deadline;
        }
        if self.is_spent() || !self.inner.budget.withdraw() {
            return false;
        }
        match (retry, kind) {
            (Retry::After(hint), _) => self.pause(Some(hint)).await,
            // The trouble is that one node's: the next can be asked at once.
            (_, Kind::Lost | Kind::Draining | Kind::Protocol | Kind::Timeout | Kind::Forming) => {
                Instant::now() < self.deadline
            }
            _ => self.pause(None).await,
        }
    }

    /// A bucket that this client knows may be news to the node that was asked.
    fn knows_bucket(&self) -> bool {
        let map = self.inner.map();
        self.key.is_some_and(|key| map.topology().bucket(key.bucket()).is_some())
    }

    fn is_spent(&self) -> bool {
        self.sent.saturating_add(self.rounds) >= self.inner.settings.attempts
    }

    fn number(&self) -> u8 {
        let repeated = matches!(self.effect, Effect::Writes { repeated: true, .. });
        self.sent.saturating_add(u8::from(repeated))
    }

    /// Waits; false, at once, when there would be no time left.
    async fn pause(&self, hint: Option<Duration>) -> bool {
        let doublings = u32::from(self.sent.saturating_add(self.rounds)).saturating_sub(1);
        let longest = PAUSE_FIRST.saturating_mul(1 << doublings.min(8)).min(PAUSE_MOST);
        let pause = hint.unwrap_or(longest / 2) + self.inner.entropy.jitter(longest / 2);
        let until = Instant::now() + pause;
        if until >= self.deadline {
            return false;
        }
        tokio::time::sleep_until(until).await;
        true
    }

    fn give_up(mut self) -> Error {
        let error = self.failure.take().unwrap_or_else(|| {
            Error::new(Kind::Connect, "no node could be asked before the operation's time was up")
        });
        match self.effect {
            Effect::Reads => error.after(self.sent, Outcome::NotApplied, None),
            Effect::Writes { id, .. } => error.after(self.sent, self.outcome(), Some(id)),
            Effect::Administers => error.after(self.sent, self.outcome(), None),
        }
    }

    fn outcome(&self) -> Outcome {
        if self.uncertain { Outcome::Unknown } else { Outcome::NotApplied }
    }
}

/// The node's share of an attempt.
fn budget_ms(attempt: Duration) -> u32 {
    let share = attempt * NODES_SHARE_EIGHTHS / 8;
    let most = u128::from(limits::BUDGET_MS_MAX);
    u32::try_from(share.as_millis().clamp(1, most)).unwrap_or(limits::BUDGET_MS_MAX)
}
