//! Rust text made easy to search: comments and literals blanked, tests told from the rest.
//!
//! Everything keeps its place: a blanked byte becomes a space, a line stays a line, so an offset
//! in the blanked text is an offset in the file.

use std::fmt;

/// One thing that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offence {
    /// What a [`Row`] would have to name to excuse it.
    pub at: String,
    /// The file, and the line where there is one.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// An exception from a rule: `(what, why)`.
pub type Row = (&'static str, &'static str);

/// The offences that no row excuses, and the rows that excuse nothing or give no reason.
pub fn excuse(offences: Vec<Offence>, rows: &[Row]) -> Vec<Offence> {
    let stale = rows.iter().filter_map(|(at, reason)| {
        let message = if reason.is_empty() {
            "this row of exceptions gives no reason"
        } else if !offences.iter().any(|offence| offence.at == *at) {
            "this row of exceptions is no longer needed"
        } else {
            return None;
        };
        Some(Offence { at: at.to_string(), place: at.to_string(), message: message.to_string() })
    });
    let stale: Vec<Offence> = stale.collect();
    let excused = |offence: &Offence| rows.iter().any(|(at, _)| *at == offence.at);
    offences.into_iter().filter(|offence| !excused(offence)).chain(stale).collect()
}

/// A Rust file.
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// As it is on disk.
    pub text: String,
    /// Without comments and literals.
    pub code: String,
    /// `code` without what is compiled for tests only.
    pub production: String,
    /// The whole file is compiled for tests only.
    pub is_test: bool,
}

impl Source {
    /// Reads a file that stands by itself; [`mark_test_files`] knows about its parents.
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let production = without_tests(&code);
        let (path, text) = (path.to_string(), text.to_string());
        Self { path, text, code, production, is_test: false }
    }

    /// The modules this file is in, from the crate's root: `src/ring/walk.rs` is `[ring, walk]`.
    pub fn module(&self) -> Vec<&str> {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut names: Vec<&str> = inside.split('/').collect();
        if matches!(names.last(), Some(&"mod" | &"lib" | &"main")) {
            names.pop();
        }
        names
    }

    /// An offence at an offset of this file.
    pub fn offence(&self, offset: usize, what: &str, message: String) -> Offence {
        let line = self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
        let at = if what.is_empty() { self.path.clone() } else { format!("{}::{what}", self.path) };
        Offence { at, place: format!("{}:{line}", self.path), message }
    }
}

/// Finds the files that a parent declares as `#[cfg(test)] mod name;`: their code is no production
/// code, all of it.
pub fn mark_test_files(mut sources: Vec<Source>) -> Vec<Source> {
    let mut test_files = Vec::new();
    for source in &sources {
        let directory = match source.path.rsplit_once('/') {
            Some((directory, "mod.rs" | "lib.rs" | "main.rs")) => directory.to_string(),
            _ => source.path.trim_end_matches(".rs").to_string(),
        };
        for (start, end) in test_items(&source.code) {
            let words: Vec<&str> = tokens(&source.code[start..end]).map(|(_, word)| word).collect();
            if let [.., "mod", name, ";"] = words.as_slice() {
                test_files.push(format!("{directory}/{name}.rs"));
                test_files.push(format!("{directory}/{name}/"));
            }
        }
    }
    for source in &mut sources {
        let is_below = |file: &String| file.ends_with('/') && source.path.starts_with(file);
        if test_files.iter().any(|file| *file == source.path || is_below(file)) {
            source.is_test = true;
            source.production = source.code.chars().filter(|char| *char == '\n').collect();
        }
    }
    sources
}

/// Blanks comments, strings and characters.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = if bytes[at..].starts_with(b"//") {
            find(bytes, at, b"\n")
        } else if bytes[at..].starts_with(b"/*") {
            end_of_block_comment(bytes, at)
        } else if let Some(end) = end_of_literal(bytes, at) {
            end
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).expect("only whole characters are blanked")
}

/// The offset of `wanted` from `at` on, or the end.
fn find(bytes: &[u8], at: usize, wanted: &[u8]) -> usize {
    let found = bytes[at..].windows(wanted.len()).position(|window| window == wanted);
    found.map_or(bytes.len(), |position| at + position)
}

fn end_of_block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The end of the string or character that starts at `at`, if one does.
fn end_of_literal(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if at > 0 && is_word(bytes[at - 1]) {
        // The `r` of `for"`, were that Rust; but a quote after a word is a quote (`concat!x"`).
        return if rest[0] == b'"' { Some(end_of_quoted(bytes, at + 1, b'"')) } else { None };
    }
    let prefix = rest.iter().take_while(|byte| b"bcr".contains(byte)).count().min(2);
    let after = &rest[prefix..];
    if rest[..prefix].contains(&b'r') {
        let hashes = after.iter().take_while(|byte| **byte == b'#').count();
        if after.get(hashes) == Some(&b'"') {
            let mut close = vec![b'"'];
            close.resize(1 + hashes, b'#');
            let end = find(bytes, at + prefix + hashes + 1, &close) + close.len();
            return Some(end.min(bytes.len()));
        }
    }
    match after.first()? {
        b'"' => Some(end_of_quoted(bytes, at + prefix + 1, b'"')),
        b'\'' if after.get(1) == Some(&b'\\') => Some(end_of_quoted(bytes, at + prefix + 1, b'\'')),
        b'\'' => {
            // A character, unless no quote closes it right away: then it is a lifetime.
            let first = after[1..].utf8_chunks().next()?.valid().chars().next()?;
            let close = 1 + first.len_utf8();
            (after.get(close) == Some(&b'\'')).then_some(at + prefix + close + 1)
        }
        _ => None,
    }
}

fn end_of_quoted(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The words and signs of blanked code with their offsets; `::` is one sign.
pub fn tokens(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        let start = at;
        let length = match bytes.get(at)? {
            byte if is_word(*byte) => bytes[at..].iter().take_while(|byte| is_word(**byte)).count(),
            b':' if bytes.get(at + 1) == Some(&b':') => 2,
            _ => 1,
        };
        at += length;
        Some((start, &code[start..at]))
    })
}

/// Where the block ends whose `{` is the first one at or after `start`, or the item's `;`.
pub fn end_of_item(code: &str, start: usize) -> usize {
    let (mut braces, mut others) = (0, 0);
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => braces += 1,
            b'}' => braces -= 1,
            b'(' | b'[' => others += 1,
            b')' | b']' => others -= 1,
            _ => {}
        }
        if braces == 0 && (byte == b'}' || byte == b';' && others == 0) {
            return offset + 1;
        }
    }
    code.len()
}

/// The spans of items that are compiled for tests only, with their attribute.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items: Vec<(usize, usize)> = Vec::new();
    for attribute in ["#[cfg(test)]", "#[cfg(all(test,"] {
        for (start, _) in code.match_indices(attribute) {
            let close = start + code[start..].find(']').map_or(0, |position| position + 1);
            items.push((start, end_of_item(code, close)));
        }
    }
    items
}

fn without_tests(code: &str) -> String {
    let mut production = code.as_bytes().to_vec();
    for (start, end) in test_items(code) {
        for byte in &mut production[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(production).expect("whole items are blanked")
}

#[test]
fn comments_strings_and_characters_are_blanked_and_lifetimes_stay() {
    let text =
        "a // x\n/* y /* z */ */ b \"s \\\" t\" r#\"q \" q\"# 'c' '\\'' '{' &'d e b'{' br\"k\" f";
    let words: Vec<&str> = blank(text).leak().split_whitespace().collect();
    assert_eq!(words, ["a", "b", "&'d", "e", "f"]);
    assert_eq!(blank(text).len(), text.len());
    assert_eq!(blank("\"ü\" '–' r#type 'x"), format!("{} r#type 'x", " ".repeat(10)));
}

#[test]
fn a_test_module_is_told_from_what_is_shipped() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { [1; 2]; } }\nfn c() {}";
    let words: Vec<&str> = without_tests(code).leak().split_whitespace().collect();
    assert_eq!(words, ["fn", "a()", "{}", "fn", "c()", "{}"]);
}

#[test]
fn a_file_that_is_declared_for_tests_only_is_a_test_file() {
    let parent = Source::new("src/ring/mod.rs", "#[cfg(test)]\nmod laws;\nmod walk;");
    let laws = Source::new("src/ring/laws.rs", "fn long() {}");
    let walk = Source::new("src/ring/walk.rs", "fn short() {}");
    let marked = mark_test_files(vec![parent, laws, walk]);
    assert_eq!(
        marked.iter().map(|source| source.is_test).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert!(marked[1].production.trim().is_empty());
}

#[test]
fn a_row_excuses_one_offence_and_a_stale_row_is_one() {
    let source = Source::new("src/key.rs", "x");
    let offences = vec![source.offence(0, "", "too long".into())];
    assert_eq!(excuse(offences.clone(), &[]), offences);
    assert!(excuse(offences.clone(), &[("src/key.rs", "a table")]).is_empty());
    assert_eq!(excuse(offences, &[("src/key.rs", "a table"), ("src/x.rs", "gone")]).len(), 1);
}
