//! How anti-entropy stands, for people and for metrics.

use std::cmp::Reverse;

use super::{Pair, Syncs};
use crate::time::Instant;
use crate::wire::sync::{SyncPair, SyncStatus};

/// Pairs that a status names.
const SHOWN: usize = 32;

/// What was done since the node was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pairs whose roots were compared.
    pub compared: u64,
    /// Those that were equal.
    pub equal: u64,
    /// Exchanges of one bucket in one partition.
    pub exchanges: u64,
    /// Exchanges in which every difference was gone at the second look.
    pub in_flight: u64,
    /// Keys that were mended, at either end.
    pub repaired: u64,
    /// Bytes of objects that went either way.
    pub bytes: u64,
    /// Exchanges that failed.
    pub failed: u64,
    /// Partitions that were counted again, because an exchange doubted their trees.
    pub doubted: u64,
}

impl Syncs {
    /// How things stand, for people.
    #[must_use]
    pub fn status(&self) -> SyncStatus {
        let age = |at: &Instant| (self.now - *at).as_millis() as u64;
        let alarm_ms = self.settings.alarm.as_millis() as u64;
        let is_in_sync = |pair: &Pair| pair.in_sync.as_ref().is_some_and(|at| age(at) <= alarm_ms);
        let ages = self.pairs.values().map(|pair| pair.in_sync.as_ref().map(age));
        let oldest_ms = ages.collect::<Option<Vec<u64>>>();
        let mut overdue: Vec<SyncPair> = (self.pairs.iter())
            .filter(|(id, pair)| !is_in_sync(pair) || self.jobs.values().any(|j| j.pair == **id))
            .map(|((partition, peer), pair)| SyncPair {
                partition: *partition,
                peer: *peer,
                in_sync_ms: pair.in_sync.as_ref().map(age),
                repaired: pair.repaired,
                bytes: pair.bytes,
            })
            .collect();
        overdue.sort_by_key(|pair| Reverse(pair.in_sync_ms.unwrap_or(u64::MAX)));
        overdue.truncate(SHOWN);
        let exchanging = self.jobs.values().filter_map(|job| {
            let exchange = job.exchange.as_ref()?;
            Some((exchange.tree.clone(), exchange.peer, exchange.repaired))
        });
        SyncStatus {
            pairs: self.pairs.len() as u32,
            in_sync: self.pairs.values().filter(|pair| is_in_sync(pair)).count() as u32,
            oldest_ms: oldest_ms.map(|ages| ages.into_iter().max().unwrap_or(0)),
            overdue,
            alarm_ms,
            exchanging: exchanging.collect(),
            paused: self.paused,
            counters: self.tally.rows(),
        }
    }

    /// What was done since the start.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

impl Tally {
    /// Names and counts, in the order to show them.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, u64)> {
        let rows = [
            ("compared", self.compared),
            ("equal", self.equal),
            ("exchanges", self.exchanges),
            ("in_flight", self.in_flight),
            ("repaired", self.repaired),
            ("bytes", self.bytes),
            ("failed", self.failed),
            ("doubted", self.doubted),
        ];
        rows.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}
