//! The floors: who may import whom, and what the lower ones may not touch.

use crate::source::{Offence, Source, blank, end_of_item, tokens};

/// The last floor without I/O.
const CORE: u32 = 3;

/// The floor whose modules know nothing of each other.
const ALGORITHMS: u32 = 1;

/// Paths that read a clock, entropy, the environment, a socket or a disk, or whose order is
/// random; each with what to do instead. The path is forbidden with all that is below it.
const OUTSIDE: &[(&[&str], &str)] = &[
    (&["tokio"], "async is floor 4's: return effects"),
    (&["rocksdb"], "the disk is behind `store`"),
    (&["axum"], "HTTP is floor 4's"),
    (&["std", "time", "Instant"], "take the time as an argument: crate::time"),
    (&["std", "time", "SystemTime"], "take the time as an argument: crate::time"),
    (&["std", "time", "*"], "name what you take of std::time: Duration"),
    (&["Instant", "now"], "take the time as an argument: crate::time"),
    (&["SystemTime"], "take the time as an argument: crate::time"),
    (&["std", "net"], "sockets are floor 4's; addresses as data are in core::net"),
    (&["std", "fs"], "the disk is behind `store`"),
    (&["std", "env"], "settings are handed in"),
    (&["std", "process"], "processes are floor 4's"),
    (&["std", "thread"], "one owner, no threads: floor 4 drives"),
    (&["rand"], "take random numbers from crate::random, seeded by the caller"),
    (&["getrandom"], "take random numbers from crate::random, seeded by the caller"),
    (&["HashMap"], "its order is random: BTreeMap, or a fixed hasher and a row in CORE_MAY_USE"),
    (&["HashSet"], "its order is random: BTreeSet, or a fixed hasher and a row in CORE_MAY_USE"),
];

/// The modules of `src/lib.rs` in their order, each with its floor.
pub struct Floors {
    modules: Vec<(String, u32)>,
}

impl Floors {
    /// Reads `// Floor N` comments and `mod name;` lines.
    pub fn parse(lib: &str) -> Self {
        let mut floor = None;
        let mut modules = Vec::new();
        for line in lib.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("// Floor ") {
                let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
                floor = number.parse().ok();
            }
            let words: Vec<&str> = line.trim_end_matches(';').split(' ').collect();
            let name = match words.as_slice() {
                ["mod", name] | ["pub" | "pub(crate)", "mod", name] if line.ends_with(';') => name,
                _ => continue,
            };
            if let Some(floor) = floor {
                modules.push((name.to_string(), floor));
            }
        }
        Self { modules }
    }

    /// How many floors have a module.
    pub fn count(&self) -> usize {
        let mut floors: Vec<u32> = self.modules.iter().map(|(_, floor)| *floor).collect();
        floors.dedup();
        floors.len()
    }

    fn position(&self, module: &str) -> Option<usize> {
        self.modules.iter().position(|(name, _)| name == module)
    }
}

/// A file whose top module has no floor: no other rule would look at it.
pub fn homeless(floors: &Floors, source: &Source) -> Option<Offence> {
    let top = *source.module().first()?;
    let message = format!("module `{top}` stands on no floor of src/lib.rs");
    floors.position(top).is_none().then(|| source.offence(0, top, message))
}

/// Imports of what is declared below the importing module, or through the crate's root. Tests
/// are held to it too: what a test needs from above belongs above.
pub fn upward(floors: &Floors, source: &Source) -> Vec<Offence> {
    let module = source.module();
    let Some(own) = floors.position(module[0]) else { return Vec::new() };
    let mut offences = Vec::new();
    for (offset, path) in paths(&source.code) {
        let supers = path.iter().filter(|segment| *segment == "super").count();
        if supers > 0 && supers >= module.len() + inline_depth(&source.code, offset) {
            let message = format!("`{}` leaves `{}`: write crate::…", path.join("::"), module[0]);
            offences.push(source.offence(offset, "super", message));
        }
        let [first, target, ..] = path.as_slice() else { continue };
        if first != "crate" {
            continue;
        }
        let problem = match floors.position(target) {
            None => "is no module of src/lib.rs: nothing is imported through the crate's root",
            Some(position) if position > own => "is declared below it",
            Some(position)
                if position != own
                    && floors.modules[own].1 == ALGORITHMS
                    && floors.modules[position].1 == ALGORITHMS =>
            {
                "is on the same floor, whose modules know nothing of each other"
            }
            Some(_) => continue,
        };
        let message = format!("`{}` uses `crate::{target}`, which {problem}", module[0]);
        offences.push(source.offence(offset, target, message));
    }
    offences
}

/// Uses of [`OUTSIDE`] in what a core module ships; its tests may read files and clocks.
pub fn outside(floors: &Floors, source: &Source) -> Vec<Offence> {
    let position = floors.position(source.module()[0]);
    if position.is_none_or(|position| floors.modules[position].1 > CORE) {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for (offset, path) in paths(&source.production) {
        // `use std::time;` or `use std::time::{self}` would hide the clock behind `time::Instant`.
        let bare = path.iter().filter(|segment| *segment != "self").eq(["std", "time"]);
        if bare {
            let message = "name what you take of std::time: Duration".to_string();
            offences.push(source.offence(offset, "time", message));
        }
        for (forbidden, instead) in OUTSIDE {
            // A crate's or a type's own name anywhere but as a variable; a longer path as a whole.
            let found = path.windows(forbidden.len()).any(|window| window.iter().eq(*forbidden));
            let is_ours = path.first().is_some_and(|first| first == "crate");
            let is_variable = path.len() == 1 && path[0].starts_with(char::is_lowercase);
            if found && !is_ours && !is_variable {
                let what = forbidden[forbidden.len() - 1];
                let message = format!("`{}` on floor 0 to {CORE}: {instead}", path.join("::"));
                offences.push(source.offence(offset, what, message));
            }
        }
    }
    offences
}

/// Every path in blanked code: those of `use` written out one by one, and those in between.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let all: Vec<(usize, &str)> = tokens(code).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let (offset, word) = all[at];
        at += 1;
        if word == "use" && all.get(at).is_some_and(|(_, next)| *next != "<") {
            let mut expanded = Vec::new();
            expand(&all, &mut at, &mut Vec::new(), &mut expanded);
            found.extend(expanded.into_iter().map(|path| (offset, path)));
        } else if is_name(word) {
            let mut path = vec![word.to_string()];
            while let [(_, "::"), (_, name), ..] = all[at..] {
                if !is_name(name) {
                    break;
                }
                path.push(name.to_string());
                at += 2;
            }
            found.push((offset, path));
        }
    }
    found
}

/// Writes out one tree of a `use`, up to the `,`, `}` or `;` that ends it.
fn expand(
    all: &[(usize, &str)],
    at: &mut usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) {
    let depth = prefix.len();
    let mut grouped = false;
    while let Some((_, word)) = all.get(*at).copied() {
        if matches!(word, "," | "}" | ";") {
            break;
        }
        *at += 1;
        match word {
            "::" => {}
            "as" => *at += 1,
            "{" => {
                grouped = true;
                while all.get(*at).is_some_and(|(_, word)| *word != "}") {
                    expand(all, at, prefix, found);
                    *at += usize::from(all.get(*at).is_some_and(|(_, word)| *word == ","));
                    if all.get(*at).is_some_and(|(_, word)| *word == ";") {
                        break;
                    }
                }
                *at += 1;
            }
            name => prefix.push(name.to_string()),
        }
    }
    if !grouped && prefix.len() > depth {
        found.push(prefix.clone());
    }
    prefix.truncate(depth);
}

fn is_name(word: &str) -> bool {
    word.starts_with(|char: char| char.is_alphabetic() || char == '_')
}

/// How many `mod name { … }` are open at `offset`.
fn inline_depth(code: &str, offset: usize) -> usize {
    let all: Vec<(usize, &str)> = tokens(code).take_while(|(start, _)| *start < offset).collect();
    let opened = all.windows(3).filter(|window| window[0].1 == "mod" && window[2].1 == "{");
    opened.filter(|window| end_of_item(code, window[2].0) > offset).count()
}

#[cfg(test)]
const LIB: &str = "// Floor 0: words.\npub mod key;\n// Floor 1: algorithms.\npub mod causality;\n\
    pub mod ring;\n// Floor 3: machines.\npub mod replica;\n// Floor 4: drivers.\n\
    #[cfg(feature = \"server\")]\npub mod server;\n";

#[cfg(test)]
fn offences_of(
    rule: fn(&Floors, &Source) -> Vec<Offence>,
    path: &str,
    text: &str,
) -> Vec<(String, String)> {
    let offences = rule(&Floors::parse(LIB), &Source::new(path, text));
    offences.into_iter().map(|offence| (offence.place, offence.at)).collect()
}

#[test]
fn the_floors_are_read_from_the_front_page() {
    let floors = Floors::parse(LIB);
    assert_eq!(floors.count(), 4);
    assert_eq!(floors.modules[3], ("replica".to_string(), 3));
    assert!(homeless(&floors, &Source::new("src/key.rs", "")).is_none());
    assert!(homeless(&floors, &Source::new("src/stray/mod.rs", "")).is_some());
}

#[test]
fn a_planted_import_from_above_is_caught_in_every_spelling() {
    let caught = |text: &str| offences_of(upward, "src/ring/walk.rs", text);
    for planted in [
        "use crate::replica::Shard;",
        "use crate::{key::Key, replica::{Shard, Put}};",
        "fn f() { crate::replica::run() }",
        "use crate::key;\nuse crate::causality::Dot;",
        "use crate::Client;",
        "use super::super::key;",
        "use super::{super::key};",
        "#[cfg(test)]\nmod tests { use crate::server::Node; }",
    ] {
        assert!(!caught(planted).is_empty(), "not caught: {planted}");
    }
    assert_eq!(caught("\n\nuse crate::replica::A;")[0].0, "src/ring/walk.rs:3");
    for fine in [
        "use crate::{key::Key, ring::Token};",
        "pub(crate) fn f() {} // crate::server",
        "use super::Token;\nmod tests { use super::super::Token; use super::*; }",
        "const S: &str = \"crate::server\";",
    ] {
        assert!(caught(fine).is_empty(), "wrongly caught: {fine}");
    }
    assert!(!offences_of(upward, "src/key.rs", "use super::ring;").is_empty());
    assert!(offences_of(upward, "src/key.rs", "mod tests { use super::*; }").is_empty());
    assert!(offences_of(upward, "src/server/mod.rs", "use crate::replica::Shard;").is_empty());
}

#[test]
fn planted_io_in_the_core_is_caught_in_every_spelling() {
    let caught = |text: &str| offences_of(outside, "src/replica/mod.rs", text);
    for planted in [
        "use tokio::sync::mpsc;",
        "fn f() { tokio::spawn(x) }",
        "use std::time::{Duration, Instant};",
        "fn f() { std::time::SystemTime::now(); }",
        "use std::time;",
        "use std::time::{self, Duration};",
        "use std::time::*;",
        "use std::{collections::BTreeMap, net};",
        "use std::fs::{self, File};",
        "fn f() { std::env::var(x); std::thread::sleep(y); }",
        "use rand::Rng;",
        "fn f() { getrandom::fill(x) }",
        "use std::collections::{BTreeMap, HashMap};",
        "struct S { seen: HashSet<u64> }",
    ] {
        assert!(!caught(planted).is_empty(), "not caught: {planted}");
    }
    assert_eq!(caught("struct S { seen: HashSet<u64> }")[0].1, "src/replica/mod.rs::HashSet");
    for fine in [
        "use crate::time::Instant;\nuse std::time::Duration;",
        "/// Like `std::fs`.\nfn f(rand: u64) { g(rand) }",
        "#[cfg(test)]\nmod tests { use std::fs; use std::collections::HashMap; }",
        "use core::net::SocketAddr;",
    ] {
        assert!(caught(fine).is_empty(), "wrongly caught: {fine}");
    }
    assert!(offences_of(outside, "src/server/mod.rs", "use std::fs;").is_empty());
}

#[test]
fn a_use_is_written_out_path_by_path() {
    let written: Vec<String> = paths(&blank("use a::{b, c::{self, d as e}, f::*};"))
        .iter()
        .map(|(_, path)| path.join("::"))
        .collect();
    assert_eq!(written, ["a::b", "a::c::self", "a::c::d", "a::f::*"]);
}
