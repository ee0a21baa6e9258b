//! What an operator may turn: one file, checked whole before the node opens anything.
//!
//! Picture three layers laid over each other, the later one winning: the defaults
//! ([`Config::default`]), the file, and the command line's `--set key=value`. What lies under all
//! three is a table with one row per setting ([`settings`]), which says what a value may be; the
//! same row checks a value, words its error and states its range.
//!
//! ```text
//!   Config::default()  <  ringdove.toml  <  --set requests.timeout_ms=500
//!          |                   |                    |
//!          |                   +--- checked against SETTINGS, every problem reported ---+
//!          |                                                                            |
//!          +------------------------------- merged, then --------------------> Config <-+
//! ```
//!
//! What always holds of a [`Config`] that [`Config::load`] returned: every value is of its type and
//! within its range, the values agree with each other, and no key of the file was
//! ignored. `config/ringdove.toml` is the manual of every setting, and a test keeps it true.

pub mod dev;
mod error;
mod layers;
pub mod settings;

pub use error::{ConfigError, Problem};

use crate::limits;
use crate::membership::swim;
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything an operator may decide about one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this node is and what of the machine it uses.
    pub node: Node,
    /// The cluster it belongs to and how to find it.
    pub cluster: Cluster,
    /// Where it listens, and to whom.
    pub listen: Listen,
    /// How it keeps data.
    pub storage: Storage,
    /// How long requests may take and how many may be under way.
    pub requests: Requests,
    /// How it finds out who is up.
    pub gossip: Gossip,
    /// The largest things it takes.
    pub limits: Limits,
    /// What it keeps for members that are away.
    pub hints: Hints,
    /// How partitions change hands.
    pub transfers: Transfers,
    /// `[sync]`.
    pub sync: Sync,
    /// `[scrub]`.
    pub scrub: Scrub,
    /// What it writes about itself.
    pub log: Log,
}

/// `[node]`: who this node is and what of the machine it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// What operators call it: 1 to [`limits::NAME_BYTES`] of `A-Za-z0-9._-`.
    pub name: String,
    /// Where everything durable lives. [`Config::load`] has already put the folder of the
    /// configuration file in front of a relative path.
    pub data_dir: PathBuf,
    /// Failure domain: replicas of a key are spread over zones before they are doubled up in one.
    pub zone: String,
    /// Share of the ring in hundredths of a normal member's, 1 to [`limits::WEIGHT_MAX`].
    pub weight: u32,
    /// Threads of the network runtime; 0 means one per core. See [`Config::threads`].
    pub threads: usize,
    /// Shards that own the partitions; 0 means by the number of cores. See [`Config::shards`].
    pub shards: usize,
    /// Whether it obeys orders to inject faults into itself. For tests.
    pub fault_injection: bool,
}

/// `[cluster]`: the cluster this node belongs to and how to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Nodes of different cluster names refuse each other.
    pub name: String,
    /// Equal parts of the ring: a power of two, fixed when the cluster is created.
    pub partitions: u32,
    /// `host:port` of the framed protocol of some members, asked in turn at start. The node's own
    /// address may be among them.
    pub seeds: Vec<String>,
    /// How many nodes begin the cluster together, so that its ring is never too small for its
    /// replicas. Not looked at once there is a cluster.
    pub initial_members: usize,
    /// Replicas of the keys of the bucket `default`; fixed when the cluster is created.
    pub replicas: u8,
}

/// `[listen]`: where this node listens. Every address is `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The framed protocol (TCP: clients and peers) and gossip (UDP, same number).
    pub address: String,
    /// What others dial; empty means [`Listen::address`]. See [`Config::advertised`].
    pub advertise: String,
    /// The text protocol; empty switches it off.
    pub text: String,
    /// Admin HTTP; empty switches it off.
    pub admin: String,
    /// What the text protocol's `AUTH` asks for; empty means that nobody is asked.
    pub password: Password,
    /// The operator's word that the network is trusted: without it, addresses that are not
    /// loopback are refused.
    pub insecure: bool,
}

/// When a write is acknowledged, named as what the setting risks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After its write-ahead log is fsynced; one fsync serves all writes under way.
    Fsync,
    /// At once; the log is fsynced every [`Storage::interval_ms`]. A power failure may lose what
    /// was acknowledged since.
    Interval,
    /// At once; the operating system writes when it likes. A power failure may lose some thirty
    /// seconds of acknowledged writes.
    None,
}

/// `[storage]`: how this node keeps data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// When a write is acknowledged.
    pub durability: Durability,
    /// Milliseconds between two fsyncs when `durability` is [`Durability::Interval`].
    pub interval_ms: u32,
    /// MiB of RocksDB's cache of blocks.
    pub cache_mb: usize,
    /// MiB of writes that RocksDB gathers in memory before it writes a file.
    pub memtable_mb: usize,
    /// Threads of RocksDB for flushes and compactions.
    pub max_background_jobs: usize,
    /// MiB a second that RocksDB writes into files, at most; 0 for as much as it can.
    pub compaction_mb_s: u32,
    /// MiB of free space below which the node refuses writes, before RocksDB fails; a little above it
    /// begins none.
    pub reserve_mb: usize,
}

/// `[requests]`: how long requests may take and how many may be under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Requests {
    /// Budget in milliseconds of a request that names none.
    pub timeout_ms: u32,
    /// Milliseconds a coordinator waits for one replica before it asks the next.
    pub attempt_ms: u32,
    /// Requests of all connections under way at once; past it the answer is "busy".
    pub max_in_flight: usize,
    /// Requests of one connection under way at once.
    pub max_in_flight_per_connection: usize,
    /// Requests and peers' messages that may wait for one shard.
    pub queue: usize,
    /// Failures in a row after which a peer is not asked for a while.
    pub breaker_failures: u32,
    /// Milliseconds of that while.
    pub breaker_open_ms: u32,
    /// Milliseconds a connection to a peer may take to stand.
    pub connect_ms: u32,
    /// Milliseconds that requests under way are given to finish when the node is asked to stop.
    pub drain_ms: u32,
}

/// `[gossip]`: how this node finds out who is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gossip {
    /// Secrets of the cluster. The first seals, all open; none means one that follows from the
    /// cluster's name. See [`Config::gossip_secrets`].
    pub keys: Vec<Password>,
    /// Milliseconds between two probes.
    pub probe_interval_ms: u32,
    /// Milliseconds an answer may take before others are asked to probe as well.
    pub probe_timeout_ms: u32,
    /// How many others.
    pub indirect_probes: usize,
    /// Milliseconds a suspect has to object, in a cluster of up to ten.
    pub suspicion_ms: u32,
    /// Milliseconds between two rounds of news.
    pub interval_ms: u32,
    /// Members that each round goes to.
    pub fanout: usize,
    /// Bytes of the largest packet.
    pub packet_bytes: usize,
    /// Milliseconds between two comparisons of the whole view with another node's.
    pub push_pull_ms: u32,
}

/// `[limits]`: the largest things this node takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a key, at most [`limits::KEY_BYTES_HARD`].
    pub key_bytes: usize,
    /// Bytes of a value, at most [`limits::VALUE_BYTES_HARD`].
    pub value_bytes: usize,
    /// Siblings of one key at which a warning is counted and logged.
    pub siblings_warn: usize,
    /// Siblings of one key at which a client's write is refused.
    pub siblings_refuse: usize,
    /// Connections of all protocols together.
    pub connections: usize,
}

/// `[hints]`: what this node keeps for members that are away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hints {
    /// MiB for all of them together.
    pub mb: u64,
    /// MiB for one of them.
    pub mb_by_member: u64,
    /// MiB of hints a second that are given to members that are back, at most.
    pub rate_mb_s: u64,
}

/// `[transfers]`: how partitions change hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transfers {
    /// MiB a second that are taken at most, and given at most; less while clients wait longer.
    pub rate_mb_s: u64,
    /// Slots that are copied to this node at once.
    pub at_once: usize,
    /// Seconds for which a partition's slots must not have changed before what is left of it on this
    /// node is deleted.
    pub cleanup_after_s: u32,
}

/// `[sync]`: how owners of a partition find out where they differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sync {
    /// Seconds after which two owners that were in sync compare again.
    pub interval_s: u32,
    /// Milliseconds for which a difference may be a write on its way.
    pub settle_ms: u32,
    /// Partitions that are mended at once.
    pub at_once: usize,
    /// MiB of objects a second, at most; less while clients wait longer.
    pub rate_mb_s: u64,
    /// Seconds without being seen in sync after which a pair of owners is overdue.
    pub alarm_s: u32,
}

/// `[scrub]`: how often this node reads what is on its disk, and looks for damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// Days over which one pass is spread; 0 for none.
    pub days: u32,
    /// MiB a second, at most; less while clients wait longer.
    pub rate_mb_s: u64,
}

/// `[log]`: what this node writes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A filter in the language of `tracing`: `info`, or `warn,ringdove=debug`.
    pub level: String,
}

/// A password that a log line does not show.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl Deref for Password {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

impl Config {
    /// Reads a file, with `overrides` of the form `section.key=value` over it.
    ///
    /// A relative `node.data_dir` comes back with the file's folder in front.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] if there is no such text; [`ConfigError::Refused`] with every
    /// problem of the file and the overrides. Nothing but the file was touched.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::Unreadable { path: path.into(), reason })?;
        let mut config = Config::from_toml(&text, &path.display().to_string(), overrides)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.node.data_dir = folder.join(&config.node.data_dir);
        Ok(config)
    }

    /// Reads a text that is called `name` in errors, with `overrides` over it. A relative
    /// `node.data_dir` is left as it stands.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] with every problem of the text and the overrides.
    pub fn from_toml(text: &str, name: &str, overrides: &[String]) -> Result<Config, ConfigError> {
        layers::read(text, name, overrides)
    }

    /// The address that peers and clients dial.
    pub fn advertised(&self) -> &str {
        if self.listen.advertise.is_empty() { &self.listen.address } else { &self.listen.advertise }
    }

    /// The seeds that are not this node.
    pub fn other_seeds(&self) -> impl Iterator<Item = &String> {
        let own = [self.advertised(), &self.listen.address];
        self.cluster.seeds.iter().filter(move |seed| !own.contains(&seed.as_str()))
    }

    /// How many nodes form the cluster together; `None` for a node that waits for the cluster of its
    /// seeds. With seeds, one is no count to begin with: a node that is to join would make a
    /// cluster of its own instead.
    pub fn founders(&self) -> Option<usize> {
        let is_alone = self.cluster.initial_members == 1 && self.other_seeds().next().is_some();
        (!is_alone).then_some(self.cluster.initial_members)
    }

    /// How failure detection is set. A probe's answer may take half the interval at most, since
    /// the other half is for those who are asked to help.
    pub fn swim(&self) -> swim::Settings {
        let gossip = &self.gossip;
        let millis = |ms: u32| Duration::from_millis(ms.into());
        swim::Settings {
            probe_interval: millis(gossip.probe_interval_ms),
            probe_timeout: millis(gossip.probe_timeout_ms.min(gossip.probe_interval_ms / 2)),
            indirect_probes: gossip.indirect_probes,
            suspicion: millis(gossip.suspicion_ms),
            gossip_interval: millis(gossip.interval_ms),
            gossip_fanout: gossip.fanout,
            packet_bytes: gossip.packet_bytes,
        }
    }

    /// What gossip is sealed with: `gossip.keys`, or else the cluster's name, which keeps clusters
    /// apart and nobody out. A node without keys does not start where others than its own machine
    /// can reach it, unless `listen.insecure` says that they are trusted.
    pub fn gossip_secrets(&self) -> Vec<&[u8]> {
        match self.gossip.keys.is_empty() {
            true => vec![b"no key was configured"],
            false => self.gossip.keys.iter().map(|key| key.as_bytes()).collect(),
        }
    }

    /// Threads of the network runtime.
    pub fn threads(&self) -> usize {
        if self.node.threads == 0 { cores() } else { self.node.threads }
    }

    /// Shards that own the partitions. By default half the cores: the other half parse frames,
    /// flush and compact.
    pub fn shards(&self) -> usize {
        if self.node.shards == 0 { (cores() / 2).clamp(1, 8) } else { self.node.shards }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Default for Node {
    fn default() -> Self {
        Node {
            name: "node-0".into(),
            data_dir: "data".into(),
            zone: "default".into(),
            weight: limits::WEIGHT_NORMAL,
            threads: 0,
            shards: 0,
            fault_injection: false,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            name: "ringdove".into(),
            partitions: limits::PARTITIONS_DEFAULT,
            seeds: vec!["127.0.0.1:7400".into()],
            initial_members: 1,
            replicas: limits::REPLICAS_DEFAULT,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Listen {
            address: "127.0.0.1:7400".into(),
            advertise: String::new(),
            text: "127.0.0.1:7401".into(),
            admin: "127.0.0.1:7402".into(),
            password: Password::default(),
            insecure: false,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            durability: Durability::Fsync,
            interval_ms: 100,
            cache_mb: 256,
            memtable_mb: 128,
            max_background_jobs: 2,
            compaction_mb_s: 0,
            reserve_mb: 64,
        }
    }
}

impl Default for Requests {
    fn default() -> Self {
        Requests {
            timeout_ms: 2000,
            attempt_ms: 250,
            max_in_flight: 4096,
            max_in_flight_per_connection: 512,
            queue: 8192,
            breaker_failures: 3,
            breaker_open_ms: 500,
            connect_ms: 500,
            drain_ms: 8000,
        }
    }
}

impl Default for Gossip {
    fn default() -> Self {
        Gossip {
            keys: Vec::new(),
            probe_interval_ms: 1000,
            probe_timeout_ms: 300,
            indirect_probes: 5,
            suspicion_ms: 4000,
            interval_ms: 200,
            fanout: 3,
            packet_bytes: limits::GOSSIP_PACKET_BYTES,
            push_pull_ms: 30_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            key_bytes: limits::KEY_BYTES_DEFAULT,
            value_bytes: limits::VALUE_BYTES_DEFAULT,
            siblings_warn: limits::SIBLINGS_WARN,
            siblings_refuse: limits::SIBLINGS_REFUSE,
            connections: 10_000,
        }
    }
}

impl Default for Hints {
    fn default() -> Self {
        Hints { mb: 4096, mb_by_member: 2048, rate_mb_s: 64 }
    }
}

impl Default for Transfers {
    fn default() -> Self {
        Transfers { rate_mb_s: 64, at_once: 4, cleanup_after_s: 900 }
    }
}

impl Default for Sync {
    fn default() -> Self {
        Sync { interval_s: 30, settle_ms: 1000, at_once: 2, rate_mb_s: 32, alarm_s: 600 }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Scrub { days: 7, rate_mb_s: 4 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".into() }
    }
}
