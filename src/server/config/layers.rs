//! From texts to a checked [`Config`]: defaults, under the file, under the `--set`s.
//!
//! Each layer is taken apart into settings, each setting is checked by its row, and every problem
//! is written down with its place rather than returned at the first: an operator mends a file in
//! one round. Only a syntax error ends the reading, since nothing after it can be trusted.

use super::Config;
use super::error::{ConfigError, Place, Problem, Source, nearest};
use super::settings::{SETTINGS, Setting};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Lays the layers over each other; see [`Config::from_toml`].
pub(super) fn read(text: &str, name: &str, overrides: &[String]) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    layers.add_file(Source::File(name, text), text);
    for argument in overrides {
        layers.add_override(argument);
    }
    layers.finish()
}

#[derive(Default)]
struct Layers {
    /// What was set, by name: the last layer's value and its place.
    set: BTreeMap<&'static str, (toml::Value, Place)>,
    problems: Vec<Problem>,
}

impl Layers {
    fn add_file(&mut self, source: Source<'_>, text: &str) {
        let document = match DeTable::parse(text) {
            Ok(document) => document.into_inner(),
            Err(error) => {
                let instead = "settings are lines `key = value` under a line `[section]`, text \
                               stands in quotes, and no key comes twice";
                let wrong = format!("this is not TOML: {}", error.message());
                return self.refuse(source, error.span().unwrap_or(0..0), wrong, instead);
            }
        };
        for (section, content) in &document {
            let known = SETTINGS.iter().any(|setting| setting.section() == section.get_ref());
            match content.get_ref() {
                DeValue::Table(keys) if known => {
                    for (key, value) in keys {
                        let name = format!("{}.{}", section.get_ref(), key.get_ref());
                        match Setting::of(&name) {
                            Some(row) => self.add(source, row, value.get_ref(), value.span()),
                            None => self.refuse_unknown(source, key.span(), &name),
                        }
                    }
                }
                DeValue::Table(_) => {
                    self.refuse_section(source, section.span(), section.get_ref());
                }
                _ => self.refuse_unknown(source, section.span(), section.get_ref()),
            }
        }
        // The parser's tables are in alphabetical order; people read from the top.
        self.problems.sort_by_key(|problem| problem.place.position);
    }

    fn add_override(&mut self, argument: &str) {
        let source = Source::Override(argument);
        let Some((name, value)) = argument.split_once('=') else {
            let instead = "write key=value: `--set requests.timeout_ms=500`";
            return self.refuse(source, 0..argument.len(), "this has no value", instead);
        };
        let span = name.len() + 1..argument.len();
        let Some(row) = Setting::of(name.trim()) else {
            return self.refuse_unknown(source, 0..name.len(), name.trim());
        };
        // Shells eat quotes, so what is no value of TOML, or a value of another type where text
        // is wanted, is text.
        let value = match DeValue::parse(value.trim()).map(Spanned::into_inner) {
            Ok(parsed) if parsed.is_str() || !row.kind.is_text() => parsed,
            _ => DeValue::String(value.trim().into()),
        };
        self.add(source, row, &value, span);
    }

    fn add(&mut self, source: Source<'_>, row: &Setting, value: &DeValue<'_>, span: Range<usize>) {
        match row.kind.check(value) {
            Ok(value) => {
                self.set.insert(row.name, (value, source.place(span)));
            }
            Err(found) => {
                let range = row.kind.range();
                let wrong = format!("{}: expected {range}, found {found}", row.name);
                let line = match source {
                    Source::File(..) => format!("{} = {}", row.key(), row.default_text()),
                    Source::Override(_) => format!("{}={}", row.name, row.default_text()),
                };
                let instead = format!("write, for example, `{line}` (the default)");
                self.refuse(source, span, wrong, instead);
            }
        }
    }

    /// A key that no row has: `section.key`, or a word without a section.
    fn refuse_unknown(&mut self, source: Source<'_>, span: Range<usize>, name: &str) {
        let (section, key) = name.split_once('.').unwrap_or(("", name));
        let list = if sections().contains(&section) {
            format!("the keys of [{section}] are {}", keys(section).join(", "))
        } else if sections().contains(&key) {
            format!("{key} is a section with the keys {}", keys(key).join(", "))
        } else {
            format!("the sections are {}", sections().join(", "))
        };
        let elsewhere = SETTINGS.iter().find(|row| row.key() == key);
        let instead = match (nearest(key, keys(section).into_iter()), elsewhere) {
            (_, Some(row)) if matches!(source, Source::File(..)) => {
                format!("put `{key}` under a line `[{}]`", row.section())
            }
            (_, Some(row)) => format!("write `{}`", row.name),
            (Some(meant), None) => format!("write `{meant}`; {list}"),
            (None, None) => list,
        };
        self.refuse(source, span, format!("{name}: there is no such setting"), instead);
    }

    fn refuse_section(&mut self, source: Source<'_>, span: Range<usize>, section: &str) {
        let list = format!("the sections are {}", sections().join(", "));
        let instead = match nearest(section, sections().into_iter()) {
            Some(meant) => format!("write `[{meant}]`; {list}"),
            None => list,
        };
        self.refuse(source, span, format!("[{section}]: there is no such section"), instead);
    }

    fn refuse(
        &mut self,
        source: Source<'_>,
        span: Range<usize>,
        wrong: impl Into<String>,
        instead: impl Into<String>,
    ) {
        let place = source.place(span);
        self.problems.push(Problem { place, wrong: wrong.into(), instead: instead.into() });
    }

    fn finish(self) -> Result<Config, ConfigError> {
        let Layers { set, mut problems } = self;
        let mut merged = toml::Table::new();
        for (name, (value, _)) in &set {
            let row = Setting::of(name).expect("only known settings are kept");
            let section = merged.entry(row.section()).or_insert_with(|| toml::Table::new().into());
            let keys = section.as_table_mut().expect("sections are tables");
            keys.insert(row.key().into(), value.clone());
        }
        // Every value has passed its row, and a test holds the rows to the fields.
        let config = Config::deserialize(merged).expect("the rows admit only what the fields hold");
        for (name, wrong, instead) in disagreements(&config) {
            // Defaults agree with each other, so the one to blame was set and has its place.
            let (_, place) = &set[name];
            problems.push(Problem { place: place.clone(), wrong, instead });
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Refused { problems }) }
    }
}

/// What no single setting shows: the setting to blame, what is wrong, and what to write instead.
fn disagreements(config: &Config) -> Vec<(&'static str, String, String)> {
    let listen = &config.listen;
    let mut found = Vec::new();
    let addresses = [
        ("listen.address", &listen.address),
        ("listen.text", &listen.text),
        ("listen.admin", &listen.admin),
    ];
    for (name, address) in addresses {
        if !listen.insecure && !address.is_empty() && !is_loopback(address) {
            let wrong = format!(
                "{name}: {address} is not loopback, and there is no encryption or peer \
                 authentication in this release"
            );
            let instead = "set listen.insecure = true only on a trusted network, or write an \
                           address of 127.0.0.1";
            found.push((name, wrong, instead.into()));
        }
    }
    let everywhere = |address: &str| {
        address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
    };
    if everywhere(config.advertised()) {
        let to_blame =
            if listen.advertise.is_empty() { "listen.address" } else { "listen.advertise" };
        let wrong = format!("{to_blame}: nobody can dial {}", config.advertised());
        let instead = "set listen.advertise to the host:port at which others reach this node";
        found.push((to_blame, wrong, instead.into()));
    }
    found
}

/// A name other than `localhost` may resolve to anything, so it does not count.
fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

fn sections() -> Vec<&'static str> {
    let mut names: Vec<&str> = SETTINGS.iter().map(Setting::section).collect();
    names.dedup();
    names
}

fn keys(section: &str) -> Vec<&'static str> {
    SETTINGS.iter().filter(|row| row.section() == section).map(Setting::key).collect()
}
