//! Headers, lengths, names, and what may not be left lying about.

use crate::source::{Offence, Source, end_of_item, tokens};

/// A file's lines without tests.
const FILE_LINES_MAX: usize = 600;

/// A function's lines, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Names of drawers. What belongs together has a noun of its own.
const VAGUE: &[&str] = &["util", "utils", "common", "types", "helpers", "misc", "manager"];

/// A file without a `//!` header in its first line.
pub fn headless(source: &Source) -> Option<Offence> {
    let message = "begins without saying what it is for: `//! …`".to_string();
    (!source.text.starts_with("//! ")).then(|| source.offence(0, "", message))
}

/// A file that is too long to be read at a sitting.
pub fn long_file(source: &Source) -> Option<Offence> {
    let tests = source.code.lines().zip(source.production.lines());
    let in_tests = tests.filter(|(code, production)| code != production).count();
    let lines = source.text.lines().count().saturating_sub(in_tests);
    let message = format!("{lines} lines without tests; {FILE_LINES_MAX} are allowed");
    (!source.is_test && lines > FILE_LINES_MAX).then(|| source.offence(0, "", message))
}

/// Functions that are too long to be seen at once, tests left out.
pub fn long_functions(source: &Source) -> Vec<Offence> {
    let all: Vec<(usize, &str)> = tokens(&source.production).collect();
    let mut offences = Vec::new();
    for pair in all.windows(2) {
        let [(start, "fn"), (_, name)] = *pair else { continue };
        // `fn(u8) -> u8` is a type, without a body of its own.
        if name == "(" {
            continue;
        }
        let body = &source.production[start..end_of_item(&source.production, start)];
        let lines = body.lines().count();
        if lines > FUNCTION_LINES_MAX {
            let message = format!("`{name}` has {lines} lines; {FUNCTION_LINES_MAX} are allowed");
            offences.push(source.offence(start, name, message));
        }
    }
    offences
}

/// A file or directory named as a drawer.
pub fn vague_path(path: &str) -> Option<Offence> {
    let names = path.split('/').map(|name| name.split('.').next().unwrap_or(name));
    let vague = names.into_iter().find(|name| VAGUE.contains(name))?;
    let message = format!("`{vague}` says nothing: a noun of the field, or two files");
    Some(Offence { at: path.to_string(), place: path.to_string(), message })
}

/// Inline modules named as a drawer.
pub fn vague_modules(source: &Source) -> Vec<Offence> {
    let all: Vec<(usize, &str)> = tokens(&source.code).collect();
    let vague = all.windows(2).filter(|pair| pair[0].1 == "mod" && VAGUE.contains(&pair[1].1));
    vague.map(|pair| source.offence(pair[0].0, pair[1].1, format!("`mod {}`", pair[1].1))).collect()
}

/// Stubs, debugging, notes to oneself, and tests that are not run.
pub fn unfinished(source: &Source) -> Vec<Offence> {
    let mut offences = Vec::new();
    let all: Vec<(usize, &str)> = tokens(&source.code).collect();
    for window in all.windows(3) {
        let (offset, word) = window[0];
        let is_macro = window[1].1 == "!" && ["todo", "unimplemented", "dbg"].contains(&word);
        let is_ignored = window[0].1 == "#" && window[1].1 == "[" && window[2].1 == "ignore";
        if is_macro {
            offences.push(source.offence(offset, word, format!("`{word}!` is left in")));
        } else if is_ignored {
            offences.push(source.offence(offset, "ignore", "a test that is not run".to_string()));
        }
    }
    // In comments too; written apart here, so that this file does not catch itself.
    for note in [concat!("FIX", "ME"), concat!("X", "XX")] {
        for (offset, word) in tokens(&source.text).filter(|(_, word)| *word == note) {
            offences.push(source.offence(
                offset,
                word,
                format!("`{word}`: do it, or open an issue"),
            ));
        }
    }
    offences
}

/// A file with `unsafe` in it.
pub fn has_unsafe(source: &Source) -> Option<Offence> {
    let (offset, _) = tokens(&source.code).find(|(_, word)| *word == "unsafe")?;
    Some(source.offence(offset, "", "`unsafe` in a file that is not listed".to_string()))
}

#[test]
fn a_planted_file_without_a_header_is_caught() {
    assert!(headless(&Source::new("src/key.rs", "use x;\n//! Late.")).is_some());
    assert!(headless(&Source::new("src/key.rs", "//! Keys.\nuse x;")).is_none());
}

#[test]
fn a_planted_long_file_is_caught_and_tests_do_not_count() {
    let lines = "fn f() {}\n".repeat(FILE_LINES_MAX);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{lines}}}\n");
    assert!(long_file(&Source::new("src/key.rs", &format!("{lines}fn g() {{}}\n"))).is_some());
    assert!(long_file(&Source::new("src/key.rs", &lines)).is_none());
    assert!(long_file(&Source::new("src/key.rs", &format!("{lines}{tests}"))).is_none());
}

#[test]
fn a_planted_long_function_is_caught_and_its_neighbours_are_not() {
    let body = |lines: usize| "    g();\n".repeat(lines);
    let text = |lines: usize| {
        format!("trait T {{ fn h(a: [u8; 4]); }}\nfn f(g: fn() -> u8) {{\n{}}}\n", body(lines))
    };
    let caught = |lines: usize| long_functions(&Source::new("src/key.rs", &text(lines)));
    assert_eq!(caught(FUNCTION_LINES_MAX - 2), []);
    assert_eq!(caught(FUNCTION_LINES_MAX - 1)[0].at, "src/key.rs::f");
}

#[test]
fn planted_drawers_are_caught() {
    assert!(vague_path("src/ring/utils.rs").is_some());
    assert!(vague_path("src/common/mod.rs").is_some());
    assert!(vague_path("src/ring/walk.rs").is_none());
    let inline = Source::new("src/key.rs", "pub mod helpers { }\nmod ring;");
    assert_eq!(vague_modules(&inline).len(), 1);
}

#[test]
fn planted_leftovers_are_caught() {
    let note = format!("//! {}: later\nfn f() {{}}", concat!("FIX", "ME"));
    for planted in
        ["fn f() { todo!() }", "fn f() { dbg!(x); }", "#[ignore = \"slow\"]\nfn f() {}", &note]
    {
        assert_eq!(unfinished(&Source::new("src/key.rs", planted)).len(), 1, "{planted}");
    }
    let fine = "// todo! in a comment\nfn ignore() { f(\"dbg!(x)\") }";
    assert!(unfinished(&Source::new("src/key.rs", fine)).is_empty());
}

#[test]
fn planted_unsafe_is_caught() {
    assert!(has_unsafe(&Source::new("src/key.rs", "fn f() { unsafe { g() } }")).is_some());
    assert!(has_unsafe(&Source::new("src/key.rs", "#![deny(unsafe_code)] // unsafe")).is_none());
}
