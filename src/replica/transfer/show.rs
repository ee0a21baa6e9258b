//! What people see of what moves: how much, how fast, how long, and who holds it up.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::Desk;
use super::pull::Pulls;
use crate::ids::NodeId;
use crate::wire::transfer::Incoming;

/// What has come from each owner since there was nothing to do.
#[derive(Default)]
pub(super) struct Progress {
    by_owner: BTreeMap<Option<NodeId>, Meter>,
}

#[derive(Clone, Copy, Default)]
struct Meter {
    slots: u32,
    bytes: u64,
    bytes_a_second_ago: u64,
    /// Bytes a second, smoothed over some eight seconds.
    rate: u64,
}

impl Progress {
    /// A slot has become this node's.
    pub(super) fn taken(&mut self, owner: Option<NodeId>) {
        self.by_owner.entry(owner).or_default().slots += 1;
    }

    /// Bytes have been merged.
    pub(super) fn took(&mut self, owner: Option<NodeId>, bytes: u64) {
        self.by_owner.entry(owner).or_default().bytes += bytes;
    }

    pub(super) fn second(&mut self) {
        for meter in self.by_owner.values_mut() {
            let news = meter.bytes - std::mem::replace(&mut meter.bytes_a_second_ago, meter.bytes);
            meter.rate = (meter.rate * 7 + news) / 8;
        }
    }
}

impl Pulls {
    /// What this node is to have, by owner.
    pub(super) fn incoming(&self, desk: &Desk) -> Vec<Incoming> {
        let mut rows: BTreeMap<Option<NodeId>, Incoming> = BTreeMap::new();
        let row = |from, meter: Meter| Incoming {
            from,
            done: meter.slots,
            left: 0,
            begun: 0,
            bytes: meter.bytes,
            rate: meter.rate,
            eta_s: None,
            held_up: String::new(),
        };
        if !self.is_empty() {
            for (from, meter) in &self.progress.by_owner {
                rows.insert(*from, row(*from, *meter));
            }
        }
        for (view, pull) in self.wanted() {
            let line = rows.entry(view.owner).or_insert_with(|| row(view.owner, Meter::default()));
            line.left += 1;
            line.begun += u32::from(pull.is_some());
            let mut needed: BTreeSet<NodeId> = view.owner.into_iter().collect();
            needed.extend(pull.iter().flat_map(|pull| pull.open_sources()));
            if line.held_up.is_empty() {
                line.held_up = self.held_up(desk, &needed, pull.map_or("", |pull| &pull.why));
            }
        }
        for line in rows.values_mut() {
            let each = line.bytes.checked_div(line.done.into());
            line.eta_s = each.and_then(|each| (each * u64::from(line.left)).checked_div(line.rate));
        }
        rows.into_values().collect()
    }

    fn held_up(&self, desk: &Desk, needed: &BTreeSet<NodeId>, why: &str) -> String {
        let name = |node: &NodeId| {
            let member = desk.topology.member(*node);
            member.map_or_else(|| node.short(), |member| member.name().to_owned())
        };
        for node in needed {
            if let Some(peer) = self.peers().get(node).filter(|peer| !peer.why.is_empty()) {
                return format!("{}: {}", name(node), peer.why);
            }
        }
        match why.is_empty() {
            true => String::new(),
            false => {
                let names: Vec<String> = needed.iter().map(name).collect();
                format!("{}: {why}", names.join(", "))
            }
        }
    }
}
