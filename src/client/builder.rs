//! How a client is described.

use std::time::Duration;

use super::node::Patience;
use super::{Client, Error, Inner, Kind, Result};
use crate::limits;

/// Describes a client; [`Builder::connect`] makes it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect` is called"]
pub struct Builder {
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) seeds: Vec<String>,
    /// Talk to nobody else.
    pub(super) only_seeds: bool,
    pub(super) patience: Patience,
    pub(super) attempt_timeout: Duration,
    pub(super) operation_timeout: Duration,
    pub(super) attempts: u8,
    pub(super) retry_percent: u8,
    pub(super) retry_burst: u16,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings {
                seeds: Vec::new(),
                only_seeds: false,
                patience: Patience {
                    connect: Duration::from_secs(1),
                    silence: Duration::from_millis(400),
                },
                attempt_timeout: Duration::from_secs(2),
                operation_timeout: Duration::from_secs(5),
                attempts: 3,
                retry_percent: 20,
                retry_burst: 256,
            },
        }
    }

    /// Adds the `host:port` of a node's port for frames. One is enough while that node is up
    /// when the client connects; name two or three.
    pub fn seed(mut self, address: impl Into<String>) -> Self {
        self.settings.seeds.push(address.into());
        self
    }

    /// Adds several seeds.
    pub fn seeds<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.settings.seeds.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// Talks to the seeds alone, whoever else is a member: for a client that can reach no others, or
    /// that is to find out what such a client would see. A request goes to a seed that holds the
    /// key, if there is one.
    pub fn only_seeds(mut self) -> Self {
        self.settings.only_seeds = true;
        self
    }

    /// Time for connecting to one node, greeting included. Default 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.patience.connect = timeout;
        self
    }

    /// Time for which a node may give no sign of life at all, not even to a ping, while it owes an
    /// answer. After it the connection is closed, what was under way on it goes to other nodes, and
    /// the node is passed by until it greets again. Default 400 ms: a node that hangs, or whose
    /// network has swallowed everything, delays a request by no more than that. A node that is
    /// merely slow answers the ping.
    pub fn silence(mut self, most: Duration) -> Self {
        self.settings.patience.silence = most;
        self
    }

    /// Time that one request to one node may take before the next node is asked. Default 2 s.
    /// A node from which nothing at all was heard for so long counts as gone.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings.attempt_timeout = timeout;
        self
    }

    /// Time that a whole operation may take, its repetitions included. Default 5 s, at most two
    /// minutes. A single operation can say otherwise.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.settings.operation_timeout = timeout;
        self
    }

    /// Requests that one operation may send, the first included. Default 3; 1 switches
    /// repetitions off.
    pub fn attempts(mut self, attempts: u8) -> Self {
        self.settings.attempts = attempts;
        self
    }

    /// Bounds the repetitions of all operations together: `percent` of the operations, after a
    /// one-time reserve of `burst`. Default 20 and 256: a node that dies with 256 requests
    /// under way costs none of them, and an overloaded cluster gets a fifth more load, not
    /// three times as much.
    pub fn retries(mut self, percent: u8, burst: u16) -> Self {
        self.settings.retry_percent = percent;
        self.settings.retry_burst = burst;
        self
    }

    /// Asks the seeds, in order, for the cluster; the first that answers decides.
    ///
    /// # Errors
    /// [`Kind::Config`] when the description cannot work, [`Kind::Connect`] when no seed answers
    /// within the operation's time; the message says what each of them said.
    pub async fn connect(mut self) -> Result<Client> {
        self.settings.check()?;
        // A wait for a whole attempt is what a node is judged by; let there be one.
        let attempt = &mut self.settings.attempt_timeout;
        *attempt = (*attempt).min(self.settings.operation_timeout);
        let silence = &mut self.settings.patience.silence;
        *silence = (*silence).min(*attempt);
        Ok(Client { inner: Inner::connect(self.settings).await? })
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        let longest = Duration::from_millis(limits::BUDGET_MS_MAX.into());
        let Patience { connect, silence } = self.patience;
        let timeouts = [connect, silence, self.attempt_timeout, self.operation_timeout];
        let wrong = if self.seeds.is_empty() {
            "name at least one seed: `.seed(\"127.0.0.1:7400\")`"
        } else if self.attempts == 0 {
            "`attempts` counts the first request: it is at least 1"
        } else if timeouts.iter().any(|timeout| timeout.is_zero() || *timeout > longest) {
            "timeouts are above zero and at most two minutes"
        } else {
            return Ok(());
        };
        Err(Error::new(Kind::Config, wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_what_to_write_instead() {
        let seeded = Builder::new().seed("a:1");
        assert!(seeded.settings.check().is_ok());
        let wrong = [
            Builder::new(),
            seeded.clone().attempts(0),
            seeded.clone().attempt_timeout(Duration::ZERO),
            seeded.operation_timeout(Duration::from_secs(121)),
        ];
        for builder in wrong {
            assert_eq!(builder.settings.check().unwrap_err().kind(), Kind::Config);
        }
    }
}
