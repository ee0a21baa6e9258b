//! One row per setting: its name and what its value may be.
//!
//! The row is the only place that knows a range. Checking a value, wording what is wrong with it
//! and saying what to write instead all derive from it; the default comes from
//! [`Config::default`]. A test holds the rows and the fields of [`Config`] to each other, and
//! another holds the manual, `config/ringdove.toml`, to both.

use super::Config;
use crate::limits;
use std::net::SocketAddr;
use toml::de::DeValue;
use toml::{Spanned, Value};
use tracing_subscriber::EnvFilter;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `section.key`, as `--set` takes it.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, both ends included. The unit is the end of the setting's name.
    Whole(u64, u64),
    /// A power of two, both ends included.
    PowerOfTwo(u64, u64),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// 1 to [`limits::NAME_BYTES`] of `A-Za-z0-9._-`.
    Name,
    /// A folder.
    Folder,
    /// `host:port`.
    Address,
    /// `host:port`, or nothing.
    AddressOrNone,
    /// A list of `host:port`.
    Addresses,
    /// What to log, in the language of `tracing`.
    Filter,
    /// A list of at most two texts that nobody guesses.
    Secrets,
}

/// Every setting, in the order of the manual.
pub const SETTINGS: &[Setting] = &[
    setting("node.name", Kind::Name),
    setting("node.data_dir", Kind::Folder),
    setting("node.zone", Kind::Name),
    setting("node.weight", Kind::Whole(1, limits::WEIGHT_MAX as u64)),
    setting("node.threads", Kind::Whole(0, 1024)),
    setting("node.shards", Kind::Whole(0, 256)),
    setting("node.fault_injection", Kind::Switch),
    setting("cluster.name", Kind::Name),
    setting(
        "cluster.partitions",
        Kind::PowerOfTwo(limits::PARTITIONS_MIN as u64, limits::PARTITIONS_MAX as u64),
    ),
    setting("cluster.seeds", Kind::Addresses),
    setting("cluster.initial_members", Kind::Whole(1, limits::MEMBERS as u64)),
    setting("cluster.replicas", Kind::Whole(1, limits::REPLICAS_MAX as u64)),
    setting("listen.address", Kind::Address),
    setting("listen.advertise", Kind::AddressOrNone),
    setting("listen.text", Kind::AddressOrNone),
    setting("listen.admin", Kind::AddressOrNone),
    setting("listen.password", Kind::Text),
    setting("listen.insecure", Kind::Switch),
    setting("storage.durability", Kind::Choice(&["fsync", "interval", "none"])),
    setting("storage.interval_ms", Kind::Whole(1, 60_000)),
    setting("storage.cache_mb", Kind::Whole(1, 1024 * 1024)),
    setting("storage.memtable_mb", Kind::Whole(1, 4096)),
    setting("storage.max_background_jobs", Kind::Whole(1, 64)),
    setting("storage.compaction_mb_s", Kind::Whole(0, 10_000)),
    setting("storage.reserve_mb", Kind::Whole(1, 1024 * 1024)),
    setting("requests.timeout_ms", Kind::Whole(1, limits::BUDGET_MS_MAX as u64)),
    setting("requests.attempt_ms", Kind::Whole(1, limits::BUDGET_MS_MAX as u64)),
    setting("requests.max_in_flight", Kind::Whole(1, 1_000_000)),
    setting("requests.max_in_flight_per_connection", Kind::Whole(1, 65_536)),
    setting("requests.queue", Kind::Whole(1, 1_000_000)),
    setting("requests.breaker_failures", Kind::Whole(1, 1000)),
    setting("requests.breaker_open_ms", Kind::Whole(1, 60_000)),
    setting("requests.connect_ms", Kind::Whole(1, 60_000)),
    setting("requests.drain_ms", Kind::Whole(0, 600_000)),
    setting("gossip.keys", Kind::Secrets),
    setting("gossip.probe_interval_ms", Kind::Whole(100, 60_000)),
    setting("gossip.probe_timeout_ms", Kind::Whole(10, 30_000)),
    setting("gossip.indirect_probes", Kind::Whole(1, 16)),
    setting("gossip.suspicion_ms", Kind::Whole(100, 600_000)),
    setting("gossip.interval_ms", Kind::Whole(20, 10_000)),
    setting("gossip.fanout", Kind::Whole(1, 16)),
    setting("gossip.packet_bytes", Kind::Whole(600, limits::GOSSIP_PACKET_BYTES as u64)),
    setting("gossip.push_pull_ms", Kind::Whole(1000, 3_600_000)),
    setting("limits.key_bytes", Kind::Whole(1, limits::KEY_BYTES_HARD as u64)),
    setting("limits.value_bytes", Kind::Whole(1, limits::VALUE_BYTES_HARD as u64)),
    setting("limits.siblings_warn", Kind::Whole(1, SIBLINGS_MAX)),
    setting("limits.siblings_refuse", Kind::Whole(1, SIBLINGS_MAX)),
    setting("limits.connections", Kind::Whole(1, 1_000_000)),
    setting("hints.mb", Kind::Whole(0, 1024 * 1024)),
    setting("hints.mb_by_member", Kind::Whole(0, 1024 * 1024)),
    setting("hints.rate_mb_s", Kind::Whole(1, 10_000)),
    setting("transfers.rate_mb_s", Kind::Whole(1, 10_000)),
    setting("transfers.at_once", Kind::Whole(1, 64)),
    setting("transfers.cleanup_after_s", Kind::Whole(1, 30 * 24 * 3600)),
    setting("sync.interval_s", Kind::Whole(1, 24 * 3600)),
    setting("sync.settle_ms", Kind::Whole(10, 60_000)),
    setting("sync.at_once", Kind::Whole(1, 64)),
    setting("sync.rate_mb_s", Kind::Whole(1, 10_000)),
    setting("sync.alarm_s", Kind::Whole(1, 30 * 24 * 3600)),
    setting("scrub.days", Kind::Whole(0, 365)),
    setting("scrub.rate_mb_s", Kind::Whole(1, 10_000)),
    setting("log.level", Kind::Filter),
];

/// The highest refusal an operator may set: merging may exceed it, and what it then makes must
/// still be decoded.
const SIBLINGS_MAX: u64 = 1000;
const _: () = assert!(SIBLINGS_MAX < limits::SIBLINGS_DECODE as u64);

/// Lengths of a secret. Sixteen random characters are more than anybody tries; a word is not.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

const fn setting(name: &'static str, kind: Kind) -> Setting {
    Setting { name, kind }
}

impl Setting {
    /// The row of `section.key`, if there is one.
    pub fn of(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The part before the dot.
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The part after the dot.
    pub fn key(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, key)| key)
    }

    /// The default, written as the file would.
    pub fn default_text(&self) -> String {
        let defaults = toml::Table::try_from(Config::default()).unwrap_or_default();
        let value = defaults.get(self.section()).and_then(|section| section.get(self.key()));
        value.map_or(String::new(), Value::to_string)
    }
}

impl Kind {
    /// What a value may be, as the end of "expected …".
    pub fn range(&self) -> String {
        match self {
            Kind::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Kind::PowerOfTwo(min, max) => format!("a power of two from {min} to {max}"),
            Kind::Switch => "true or false".into(),
            Kind::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Kind::Text => "text in quotes".into(),
            Kind::Name => {
                format!(
                    "1 to {} of the characters A-Z a-z 0-9 . _ -, in quotes",
                    limits::NAME_BYTES
                )
            }
            Kind::Folder => "the path of a folder, in quotes".into(),
            Kind::Address => "\"host:port\"".into(),
            Kind::AddressOrNone => "\"host:port\", or \"\" for none".into(),
            Kind::Addresses => "a list of \"host:port\"".into(),
            Kind::Filter => {
                "a log filter: error, warn, info, debug, trace or off, for all or by module".into()
            }
            Kind::Secrets => {
                let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
                format!("a list of at most two secrets of {least} to {most} characters, in quotes")
            }
        }
    }

    /// Whether its values are text, so that `--set` may leave the quotes out.
    pub fn is_text(&self) -> bool {
        !matches!(
            self,
            Kind::Whole(..) | Kind::PowerOfTwo(..) | Kind::Switch | Kind::Addresses | Kind::Secrets
        )
    }

    /// The value, if it may be one; else what was found, as the end of "expected …, found …".
    pub(super) fn check(&self, found: &DeValue<'_>) -> Result<Value, String> {
        match (self, found) {
            (Kind::Whole(..) | Kind::PowerOfTwo(..), DeValue::Integer(digits)) => {
                match i64::from_str_radix(digits.as_str(), digits.radix()) {
                    Ok(number) if self.admits_number(number) => Ok(Value::Integer(number)),
                    _ => Err(digits.to_string()),
                }
            }
            (Kind::Switch, DeValue::Boolean(on)) => Ok(Value::Boolean(*on)),
            (Kind::Addresses, DeValue::Array(items)) => {
                let check = |item: &Spanned<DeValue<'_>>| Kind::Address.check(item.get_ref());
                let checked: Result<Vec<Value>, String> = items.iter().map(check).collect();
                checked.map(Value::Array).map_err(|found| format!("a list with {found}"))
            }
            (Kind::Secrets, DeValue::Array(items)) => check_secrets(items),
            (_, DeValue::String(text)) if self.admits_text(text) => {
                Ok(Value::String(text.to_string()))
            }
            _ => Err(describe(found)),
        }
    }

    fn admits_number(&self, number: i64) -> bool {
        let Ok(number) = u64::try_from(number) else { return false };
        match self {
            Kind::Whole(min, max) => (*min..=*max).contains(&number),
            Kind::PowerOfTwo(min, max) => {
                number.is_power_of_two() && (*min..=*max).contains(&number)
            }
            _ => false,
        }
    }

    fn admits_text(&self, text: &str) -> bool {
        match self {
            Kind::Whole(..)
            | Kind::PowerOfTwo(..)
            | Kind::Switch
            | Kind::Addresses
            | Kind::Secrets => false,
            Kind::Choice(words) => words.contains(&text),
            Kind::Text => true,
            Kind::Folder => !text.is_empty(),
            Kind::Name => {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                (1..=limits::NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
            }
            Kind::Address => is_address(text),
            Kind::AddressOrNone => text.is_empty() || is_address(text),
            Kind::Filter => is_filter(text),
        }
    }
}

/// Two keys at most: the one in use and the one it replaces.
fn check_secrets(items: &[Spanned<DeValue<'_>>]) -> Result<Value, String> {
    let secret = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::String(text) if SECRET_BYTES.contains(&text.len()) => {
            Ok(Value::String(text.to_string()))
        }
        DeValue::String(text) => Err(format!("one of {} characters", text.len())),
        other => Err(format!("a list with {}", describe(other))),
    };
    if items.len() > 2 {
        return Err(format!("{} of them", items.len()));
    }
    items.iter().map(secret).collect::<Result<_, _>>().map(Value::Array)
}

/// `127.0.0.1:7400`, `[::1]:7400` or `name:7400`.
fn is_address(text: &str) -> bool {
    if text.len() > limits::ADDRESS_BYTES {
        return false;
    }
    if text.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let host_character = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.bytes().all(host_character) && port.parse::<u16>().is_ok()
    })
}

/// A filter that `tracing` takes. It would take a misspelt level as a module's name and then log
/// nothing, so a word that stands alone must be a level.
fn is_filter(text: &str) -> bool {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_lowercase().as_str())
    };
    let stands_alone = |part: &&str| !part.contains(['=', ':', '[']);
    let parts = || text.split(',').map(str::trim);
    !text.trim().is_empty()
        && parts().filter(stands_alone).all(is_level)
        && EnvFilter::builder().parse(text).is_ok()
}

fn describe(found: &DeValue<'_>) -> String {
    match found {
        DeValue::String(text) => format!("the text {}", Value::from(text.as_ref())),
        DeValue::Integer(digits) => format!("the number {digits}"),
        DeValue::Float(digits) => format!("the number {digits}"),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a section".into(),
    }
}
