//! `INFO` and `CONFIG GET`: what clients made for Redis look for, and what there is to tell here.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Server;
use crate::resp::{Reply, glob};
use crate::store::Store as _;
use crate::wire::messages::HintStatus;

/// The version of Redis whose commands of the same names these are. Clients that look at it
/// decide by it what they may send.
const REDIS_VERSION: &str = "7.4.0";

/// Appends the lines of a section.
type Section = fn(&Server, &mut String);

/// The sections of `INFO`, in order.
const SECTIONS: [(&str, Section); 12] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Replication", replication),
    ("Cluster", cluster),
    ("Members", members),
    ("Hints", hints),
    ("Tombstones", tombstones),
    ("Sync", sync),
    ("Counters", counters),
    ("Keyspace", keyspace),
];

/// The answer to `INFO`, of these sections; all for none.
pub(super) fn info(node: &Server, names: &[String]) -> Reply {
    let all = names.is_empty()
        || names.iter().any(|name| ["all", "default", "everything"].contains(&name.as_str()));
    let mut out = String::new();
    for (title, section) in SECTIONS {
        if all || names.iter().any(|name| name.eq_ignore_ascii_case(title)) {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            let _ = write!(out, "# {title}\r\n");
            section(node, &mut out);
        }
    }
    Reply::Verbatim(out)
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = write!(out, "{name}:{value}\r\n");
}

fn server(server: &Server, out: &mut String) {
    let node = &server.node;
    let uptime = node.clock.instant().0 / 1_000_000;
    line(out, "redis_version", REDIS_VERSION);
    line(out, "ringdove_version", env!("CARGO_PKG_VERSION"));
    line(out, "redis_mode", "standalone");
    line(out, "process_id", std::process::id());
    line(out, "tcp_port", port(server));
    line(out, "uptime_in_seconds", uptime);
    line(out, "uptime_in_days", uptime / 86_400);
    line(out, "node_id", node.id);
    line(out, "node_name", &node.config.node.name);
    line(out, "node_state", node.state());
    line(out, "node_incarnation", node.incarnation);
    line(out, "node_amnesiac", u8::from(node.amnesiac.load(Ordering::Relaxed)));
    if node.faults.are_allowed() {
        line(out, "faults_in_force", node.faults.count());
    }
}

fn clients(server: &Server, out: &mut String) {
    line(out, "connected_clients", server.clients.count());
    line(out, "maxclients", server.node.config.limits.connections);
}

fn memory(_: &Server, out: &mut String) {
    let bytes = resident_bytes();
    line(out, "used_memory", bytes);
    line(out, "used_memory_rss", bytes);
    line(out, "maxmemory", 0);
}

fn persistence(_: &Server, out: &mut String) {
    // Whoever can ask is not kept waiting for data to be read.
    line(out, "loading", 0);
}

fn replication(_: &Server, out: &mut String) {
    // No node leads; but clients look for one that takes writes, and every node does.
    line(out, "role", "master");
    line(out, "connected_slaves", 0);
}

fn cluster(_: &Server, out: &mut String) {
    // Redis' clusters are meant.
    line(out, "cluster_enabled", 0);
}

fn members(server: &Server, out: &mut String) {
    let node = &server.node;
    let topology = node.topology();
    line(out, "cluster_name", &node.config.cluster.name);
    line(out, "partitions", topology.state().partitions);
    line(out, "epoch", topology.version().epoch);
    line(out, "buckets", topology.state().buckets.len());
    line(out, "members", topology.state().present().count());
    let shown = node.gossip.shown();
    for (id, entry) in topology.state().present() {
        let up = u8::from(id == node.id || node.links.is_up(id));
        let (name, address, zone) = (entry.name(), entry.address(), entry.zone());
        let state = node.liveness(id, &shown).state;
        let value = format_args!("node={id},address={address},zone={zone},up={up},state={state}");
        line(out, &format!("member_{name}"), value);
    }
}

/// What waits to be forgotten in the partitions this node comes first in; `RD.TOMBSTONES` asks all
/// nodes.
fn tombstones(server: &Server, out: &mut String) {
    let (status, now) = (server.node.reaping.status(), server.node.clock.now().wall);
    let counters = server.node.counters();
    line(out, "tombstones_waiting", status.waiting);
    line(out, "tombstones_bytes", status.bytes);
    line(out, "tombstones_oldest_ms", status.age_ms(now));
    line(out, "tombstones_reaped", counters.reaped);
    line(out, "resurrections_refused", counters.resurrections_refused);
}

/// What this node keeps for members that are away; `RD.HINTS` asks all nodes.
fn hints(server: &Server, out: &mut String) {
    let hints = server.node.hints();
    line(out, "hints_keys", hints.iter().map(|hint| hint.count).sum::<u64>());
    line(out, "hints_bytes", hints.iter().map(|hint| hint.bytes).sum::<u64>());
    for hint in &hints {
        let HintStatus { count, bytes, oldest_ms, rate, dirty_partitions, .. } = hint;
        let value = format_args!(
            "keys={count},bytes={bytes},oldest_ms={oldest_ms},rate={rate},\
             marked_partitions={dirty_partitions}"
        );
        line(out, &format!("hints_for_{}", hint.label()), value);
    }
}

/// How the comparisons with other owners stand; `RD.SYNC STATUS` asks all nodes.
fn sync(server: &Server, out: &mut String) {
    for (name, count) in server.node.sync.counters() {
        line(out, &name, count);
    }
}

fn counters(server: &Server, out: &mut String) {
    let node = &server.node;
    for (name, count) in node.counters().rows() {
        line(out, name, count);
    }
    for (name, count) in node.gossip.shown().counters.rows() {
        line(out, name, count);
    }
    line(out, "in_flight", node.in_flight());
    let traffic = &node.traffic;
    for (name, count) in [
        ("frame_connections", &traffic.frame_connections),
        ("text_connections", &traffic.text_connections),
        ("malformed_connections", &traffic.malformed_connections),
        ("refused_connections", &traffic.refused_connections),
    ] {
        line(out, name, count.load(Ordering::Relaxed));
    }
}

fn keyspace(server: &Server, out: &mut String) {
    let keys = server.node.store.estimated_keys();
    line(out, "db0", format_args!("keys={keys},expires=0,avg_ttl=0"));
}

/// Bytes of memory the process has, where the system tells.
fn resident_bytes() -> u64 {
    // Pages, in the second field; Linux' pages are 4 KiB on the machines this is built for.
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|fields| fields.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn port(server: &Server) -> &str {
    server.node.config.listen.text.rsplit_once(':').map_or("", |(_, port)| port)
}

/// The answer to `CONFIG GET`: settings of Redis that clients ask for, and what is true of them.
pub(super) fn config(server: &Server, patterns: &[Bytes]) -> Reply {
    let settings = [
        ("appendonly", "yes".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", server.node.config.limits.connections.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", port(server).to_owned()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ];
    let asked = |name: &str| {
        let matches =
            |pattern: &Bytes| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes());
        patterns.iter().any(matches)
    };
    Reply::map(
        settings
            .into_iter()
            .filter(|(name, _)| asked(name))
            .map(|(name, value)| (name, Reply::text(value))),
    )
}
