//! What a node says about itself.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::gossip::Shown;
use super::node::Node;
use crate::ids::NodeId;
use crate::membership::Standing;
use crate::membership::Topology;
use crate::membership::swim::State;
use crate::replica::HintTally;
use crate::store::Store as _;
use crate::time::Instant;
use crate::wire::messages::{HintStatus, Liveness, NodeStatus, PeerStatus};

impl Node {
    /// How this node is, and how it sees the others.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let topology = self.topology();
        let shares = topology.shares(topology.home("default"));
        let share = |id: NodeId| shares.iter().find(|share| share.id == id);
        let slots: u64 = shares.iter().map(|share| u64::from(share.owned)).sum();
        let shown = self.gossip.shown();
        let peers = topology.state().present().map(|(id, entry)| PeerStatus {
            id,
            name: entry.name().to_owned(),
            address: entry.address().to_owned(),
            zone: entry.zone().to_owned(),
            up: id == self.id || self.links.is_up(id),
            liveness: self.liveness(id, &shown),
            share: share(id)
                .map_or(0, |share| (u64::from(share.owned) * 10_000 / slots.max(1)) as u32),
        });
        let rows = self.counters().rows();
        let mut counters: Vec<(String, u64)> =
            rows.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let rows = shown.counters.rows();
        counters.extend(rows.into_iter().map(|(name, count)| (name.to_owned(), count)));
        let traffic = &self.traffic;
        for (name, count) in [
            ("frame_connections", &traffic.frame_connections),
            ("text_connections", &traffic.text_connections),
            ("malformed_connections", &traffic.malformed_connections),
            ("refused_connections", &traffic.refused_connections),
        ] {
            counters.push((name.to_owned(), count.load(Ordering::Relaxed)));
        }
        counters.push(("disk_commits".to_owned(), self.store.commits()));
        counters.extend(self.transfers.status().counters);
        counters.extend(self.sync.counters());
        counters.extend(self.scrub.counters(self));
        counters.extend(
            self.gauges(&topology).into_iter().map(|(name, value)| (name.to_owned(), value)),
        );
        NodeStatus {
            id: self.id,
            name: self.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: self.clock.instant().0 / 1000,
            state: self.state().to_owned(),
            topology: topology.version(),
            keys: self.store.estimated_keys(),
            amnesiac: self.amnesiac.load(Ordering::Relaxed),
            peers: peers.collect(),
            counters,
        }
    }

    /// What is so now, by its name.
    fn gauges(&self, topology: &Topology) -> Vec<(&'static str, u64)> {
        let hints = self.hints();
        let reaping = self.reaping.status();
        let now = self.clock.now().wall;
        let mut gauges = vec![
            ("in_flight", self.in_flight() as u64),
            ("slots_changing", topology.changing() as u64),
            ("buckets_moving", topology.moving() as u64),
            ("hints_keys", hints.iter().map(|hint| hint.count).sum()),
            ("hints_bytes", hints.iter().map(|hint| hint.bytes).sum()),
            ("hints_oldest_ms", hints.iter().map(|hint| hint.oldest_ms).max().unwrap_or(0)),
            ("hints_marked_partitions", hints.iter().map(|hint| hint.dirty_partitions).sum()),
            ("tombstones_waiting", reaping.waiting),
            ("tombstones_bytes", reaping.bytes),
            ("tombstones_oldest_ms", reaping.age_ms(now)),
            ("disk_used_bytes", self.store.estimated_bytes()),
        ];
        if self.faults.are_allowed() {
            gauges.push(("faults_in_force", self.faults.count() as u64));
        }
        // A disk that cannot be asked is not known to be full.
        let space = rustix::fs::statvfs(&self.config.node.data_dir);
        gauges.extend(
            space
                .ok()
                .map(|space| ("disk_free_bytes", space.f_bavail.saturating_mul(space.f_frsize))),
        );
        gauges
    }

    /// What this node keeps for members that are away.
    #[must_use]
    pub fn hints(&self) -> Vec<HintStatus> {
        let (topology, now) = (self.topology(), self.clock.now().wall);
        let mut by_owner: BTreeMap<NodeId, HintTally> = BTreeMap::new();
        for gauge in &self.gauges {
            for (owner, tally) in &gauge.lock().expect("no holder of the lock panics").hints {
                by_owner.entry(*owner).or_default().add(tally);
            }
        }
        let status = |(owner, tally): (NodeId, HintTally)| HintStatus {
            owner,
            name: topology.member(owner).map_or(String::new(), |member| member.name().to_owned()),
            count: tally.count,
            bytes: tally.bytes,
            oldest_ms: if tally.count == 0 { 0 } else { now.0.saturating_sub(tally.since.0) },
            rate: tally.rate,
            dirty_partitions: tally.dirty_partitions,
        };
        by_owner.into_iter().map(status).collect()
    }

    /// What failure detection says about a member.
    #[must_use]
    pub fn liveness(&self, id: NodeId, shown: &Shown) -> Liveness {
        let now = self.clock.instant();
        let ago = |then: Instant| (now - then).as_millis() as u64;
        match shown.rows.iter().find(|row| row.node == id) {
            Some(row) => Liveness {
                state: row.state.to_string(),
                since_ms: ago(row.since),
                suspected_by: row.suspected_by.clone(),
                refuted_ms: row.refuted.map(ago),
                flaps: row.flaps,
            },
            None => Liveness { state: State::Unknown.to_string(), ..Liveness::default() },
        }
    }

    /// `draining`, `forming`, `candidate`, `leaving`, `removed`, `read-only` or `serving`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.cluster.standing() {
            Standing::Removed if self.cluster.is_gone() => "removed",
            Standing::Removed => Standing::Leaving.name(),
            _ if *self.draining.borrow() => "draining",
            _ if !self.cluster.is_formed() => "forming",
            Standing::Member if self.room.is_full() => "read-only",
            Standing::Member => "serving",
            other => other.name(),
        }
    }
}
