//! How anti-entropy stands, for people and for metrics.

use std::cmp::Reverse;

use std::collections::BTreeSet;

use super::{Pair, PairId, Syncs};
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
    /// How things stand at `now`, for people and for those who wait.
    #[must_use]
    pub fn status(&self, now: Instant) -> SyncStatus {
        let alarm_ms = self.settings.alarm.as_millis() as u64;
        let mended: BTreeSet<PairId> = self.jobs.values().map(|job| job.pair).collect();
        let mut status = SyncStatus {
            pairs: self.pairs.len() as u32,
            oldest_ms: Some(0),
            alarm_ms,
            paused: self.paused,
            counters: self.tally.rows(),
            ..SyncStatus::default()
        };
        for (id, pair) in &self.pairs {
            let pair = self.shown(now, *id, pair);
            status.in_sync += u32::from(pair.in_sync_ms.is_some() && !pair.is_overdue);
            status.overdue += u32::from(pair.is_overdue);
            status.waits_ms = status.waits_ms.max(pair.waits_ms);
            status.oldest_ms = status.oldest_ms.zip(pair.in_sync_ms).map(|(a, b)| a.max(b));
            if pair.is_overdue || mended.contains(id) {
                status.shown.push(pair);
            }
        }
        status.shown.sort_by_key(|pair| Reverse(pair.waits_ms));
        status.shown.truncate(SHOWN);
        let exchanging = self.jobs.values().filter_map(|job| {
            let exchange = job.exchange.as_ref()?;
            Some((exchange.tree.clone(), exchange.peer, exchange.repaired))
        });
        status.exchanging = exchanging.collect();
        status
    }

    /// At most `count` pairs of a partition and another owner, in order, from this one on.
    #[must_use]
    pub fn pairs_from(&self, now: Instant, from: PairId, count: usize) -> Vec<SyncPair> {
        let pairs = self.pairs.range(from..).take(count);
        pairs.map(|(id, pair)| self.shown(now, *id, pair)).collect()
    }

    fn shown(&self, now: Instant, (partition, peer): PairId, pair: &Pair) -> SyncPair {
        let age = |at: Instant| (now - at).as_millis() as u64;
        let Pair { repaired, bytes, .. } = *pair;
        let in_sync_ms = pair.in_sync.map(age);
        let waits_ms = in_sync_ms.unwrap_or_else(|| age(pair.since));
        let is_overdue = waits_ms > self.settings.alarm.as_millis() as u64;
        SyncPair { partition, peer, in_sync_ms, waits_ms, is_overdue, repaired, bytes }
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
