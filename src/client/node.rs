//! One node as the client sees it: its address, its connection, and how it has behaved.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::{Error, Kind};

/// How long a node is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a connection, greeting included.
    pub(super) connect: Duration,
    /// For a sign of life while it owes an answer.
    pub(super) silence: Duration,
}

/// How long a node is passed by after its first failure; doubles with each further one.
const SHUN_FIRST: Duration = Duration::from_millis(50);
/// Longest time a node is passed by before one request tries it again.
const SHUN_MOST: Duration = Duration::from_secs(2);

/// A node that requests can be sent to. Shared by all maps that name its address.
pub(super) struct Node {
    address: String,
    patience: Patience,
    connection: Mutex<Option<Arc<Connection>>>,
    /// Held by whoever connects, so that a hundred requests open one connection.
    connecting: tokio::sync::Mutex<()>,
    health: Mutex<Health>,
}

/// A circuit breaker: closed while `failures` is 0, open until `shunned_until`, then half open.
#[derive(Default)]
struct Health {
    failures: u32,
    shunned_until: Option<Instant>,
    /// Why the last connect failed, if it did, and how long that is taken for an answer.
    refused: Option<Error>,
    refused_until: Option<Instant>,
}

impl Node {
    pub(super) fn new(address: &str, patience: Patience) -> Self {
        Self {
            address: address.to_owned(),
            patience,
            connection: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(()),
            health: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whether to prefer this node. Of those who ask when the time is up only the first is let
    /// through: if the node is still silent, it is one request that has waited for it. Where there
    /// is no connection, not even one waits: the node is passed by until there is.
    pub(super) fn admits(self: &Arc<Self>) -> bool {
        let leaves = |connection: &Arc<Connection>| connection.has_left_within(SHUN_MOST);
        let is_leaving = self.slot().as_ref().is_some_and(leaves);
        if is_leaving || !self.health().admits(Instant::now()) {
            return false;
        }
        if self.health().failures == 0 || self.connected().is_some() {
            return true;
        }
        let node = self.clone();
        // What comes of it stands in its health.
        tokio::spawn(async move { drop(node.connect().await) });
        false
    }

    /// The node answered, whatever it said.
    pub(super) fn has_answered(&self) {
        let mut health = self.health();
        if health.failures > 0 {
            *health = Health::default();
        }
    }

    /// The node did not answer, or asks to be left alone.
    pub(super) fn shun(&self) {
        self.health().fail(Instant::now(), None);
    }

    /// The connection broke. Of all who were waiting on it the first says so.
    pub(super) fn lost(&self, connection: &Arc<Connection>) {
        let is_news = self.slot().take_if(|held| Arc::ptr_eq(held, connection)).is_some();
        if is_news {
            self.shun();
        }
    }

    /// The open connection, or a new one. Fails at once while the last refusal is fresh.
    pub(super) async fn connect(&self) -> Result<Arc<Connection>, Error> {
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        if let Some(refused) = self.health().fresh_refusal(Instant::now()) {
            return Err(refused);
        }
        let Patience { connect: timeout, silence } = self.patience;
        let opening = Connection::open(&self.address, Some(silence));
        let opened = tokio::time::timeout(timeout, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            let message = format!("no connection within {timeout:?}");
            Err(Error::new(Kind::Connect, message).at(&self.address))
        });
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *self.slot() = Some(connection.clone());
                // It has greeted. How often it has failed stays, until it answers a question.
                let mut health = self.health();
                (health.refused, health.shunned_until) = (None, None);
                Ok(connection)
            }
            Err(error) => {
                self.health().fail(Instant::now(), Some(error.clone()));
                Err(error)
            }
        }
    }

    /// Closes the connection once nothing is under way on it.
    pub(super) fn disconnect(&self) {
        self.slot().take();
    }

    fn connected(&self) -> Option<Arc<Connection>> {
        self.slot().as_ref().filter(|connection| connection.is_open()).cloned()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().expect("nothing panics while it holds this lock")
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("nothing panics while it holds this lock")
    }
}

impl Health {
    fn admits(&mut self, now: Instant) -> bool {
        match self.shunned_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.shunned_until = Some(now + SHUN_MOST);
                true
            }
        }
    }

    fn fail(&mut self, now: Instant, refused: Option<Error>) {
        let pause = SHUN_FIRST.saturating_mul(1 << self.failures.min(8)).min(SHUN_MOST);
        self.failures = self.failures.saturating_add(1);
        self.shunned_until = Some(now + pause);
        self.refused_until = Some(now + pause).filter(|_| refused.is_some());
        self.refused = refused;
    }

    fn fresh_refusal(&self, now: Instant) -> Option<Error> {
        self.refused.clone().filter(|_| self.refused_until.is_some_and(|until| now < until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_is_passed_by_and_then_tried_by_one_request_at_a_time() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert!(health.admits(now) && health.admits(now));
        health.fail(now, None);
        assert!(!health.admits(now));
        assert!(health.admits(now + SHUN_FIRST));
        assert!(!health.admits(now + SHUN_FIRST));
        assert!(health.admits(now + SHUN_FIRST + SHUN_MOST));
    }

    #[test]
    fn a_refusal_stands_for_longer_each_time_but_never_for_long() {
        let (mut health, now) = (Health::default(), Instant::now());
        let refused = || Some(Error::new(Kind::Connect, "refused"));
        health.fail(now, refused());
        assert!(health.fresh_refusal(now).is_some());
        assert!(health.fresh_refusal(now + SHUN_FIRST).is_none());
        for _ in 0..100 {
            health.fail(now, refused());
        }
        assert!(health.fresh_refusal(now + SHUN_MOST - SHUN_FIRST).is_some());
        assert!(health.fresh_refusal(now + SHUN_MOST).is_none());
        // Being slow is no refusal: a connection that stands may be used again.
        health.fail(now, None);
        assert!(health.fresh_refusal(now).is_none());
    }
}
