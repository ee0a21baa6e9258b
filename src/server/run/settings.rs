//! What the settings of a node mean to each of its parts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::ids::NodeId;
use crate::limits::GRAVES;
use crate::replica::{Settings, reap, sync, transfer};
use crate::server::config::{Config, Durability as ConfiguredDurability};
use crate::server::disk::Verdict;
use crate::server::node::Node;
use crate::server::rocks::{Durability, RocksOptions};

/// How long to rest after everything that was deleted has been looked at.
const REAP_EVERY: Duration = Duration::from_secs(5);

pub(super) fn rocks_options(config: &Config) -> RocksOptions {
    let storage = &config.storage;
    let interval = Duration::from_millis(u64::from(storage.interval_ms));
    RocksOptions {
        durability: match storage.durability {
            ConfiguredDurability::Fsync => Durability::Fsync,
            ConfiguredDurability::Interval => Durability::Interval(interval),
            ConfiguredDurability::None => Durability::None,
        },
        cache_bytes: storage.cache_mb << 20,
        memtable_bytes: storage.memtable_mb << 20,
        background_jobs: storage.max_background_jobs as u16,
        compaction_bytes: u64::from(storage.compaction_mb_s) << 20,
        reserve_bytes: (storage.reserve_mb as u64) << 20,
        trees: !cfg!(feature = "without-trees"),
    }
}

pub(super) fn shard_settings(node: &Node, index: usize) -> Settings {
    let (requests, limits, hints) =
        (&node.config.requests, &node.config.limits, &node.config.hints);
    let shards = node.mailboxes.len() as u64;
    let millis = |ms: u32| Duration::from_millis(u64::from(ms));
    Settings {
        shard: u8::try_from(index).expect("the configuration allows few shards"),
        shards: u8::try_from(node.mailboxes.len()).expect("the configuration allows few shards"),
        node: node.id,
        incarnation: node.incarnation,
        amnesiac: node.amnesiac.load(Ordering::Relaxed),
        fsync: node.config.storage.durability == ConfiguredDurability::Fsync,
        attempt: millis(requests.attempt_ms),
        timeout: millis(requests.timeout_ms),
        key_bytes: limits.key_bytes,
        value_bytes: limits.value_bytes,
        siblings_warn: limits.siblings_warn,
        siblings_refuse: limits.siblings_refuse,
        max_in_flight: requests.max_in_flight.div_ceil(node.mailboxes.len()),
        breaker_failures: requests.breaker_failures,
        breaker_open: millis(requests.breaker_open_ms),
        hint_bytes_by_owner: (hints.mb_by_member << 20) / shards,
        hint_bytes: (hints.mb << 20) / shards,
        hint_rate: (hints.rate_mb_s << 20) / shards,
        graves: GRAVES / node.mailboxes.len(),
    }
}

pub(super) fn transfer_settings(
    config: &Config,
    node: NodeId,
    verdict: &Verdict,
) -> transfer::Settings {
    let transfers = &config.transfers;
    let is_synced = config.storage.durability == ConfiguredDurability::Fsync;
    transfer::Settings {
        node,
        amnesiac: matches!(verdict, Verdict::Amnesiac { .. }),
        resume: is_synced || matches!(verdict, Verdict::Complete { clean: true }),
        at_once: transfers.at_once,
        rate: transfers.rate_mb_s << 20,
        cleanup_after: Duration::from_secs(transfers.cleanup_after_s.into()),
    }
}

pub(super) fn reap_settings(config: &Config, node: NodeId, shards: usize) -> reap::Settings {
    let durable = config.storage.durability == ConfiguredDurability::Fsync;
    reap::Settings { node, shards, durable, interval: REAP_EVERY }
}

pub(super) fn sync_settings(config: &Config, node: NodeId) -> sync::Settings {
    let settings = &config.sync;
    sync::Settings {
        node,
        interval: Duration::from_secs(settings.interval_s.into()),
        settle: Duration::from_millis(settings.settle_ms.into()),
        alarm: Duration::from_secs(settings.alarm_s.into()),
        at_once: settings.at_once,
        rate: settings.rate_mb_s << 20,
    }
}
