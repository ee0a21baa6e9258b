//! The house rules, as a test.
//!
//! Each rule is a pure function from text to offences (in `tidy/`), tried there on a planted
//! offender; here the rules meet the repository. What has to break a rule is named in a list below
//! with its reason, and a row that nothing needs any more is an offence too, so the lists only
//! hold what is true today.
//!
//! The rules read text, not syntax trees: comments and string literals are blanked out first,
//! which is enough for code that `cargo fmt` has formatted, and keeps this test free of a parser.

#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/text_rules.rs"]
mod text_rules;

use floors::Floors;
use source::{Offence, Row, Source, excuse};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of more than 600 lines without their tests.
const LONG_FILES: &[Row] = &[];

/// Functions of more than 70 lines, as `file::function`.
const LONG_FUNCTIONS: &[Row] = &[];

/// What a core module may use although its floor forbids it, as `file::word`.
const CORE_MAY_USE: &[Row] = &[(
    "src/membership/swim/mod.rs::rand",
    "foca asks for rand's trait; it is implemented over crate::random, seeded by the caller",
)];

/// Files that may contain `unsafe`.
const UNSAFE_FILES: &[Row] = &[];

#[test]
fn modules_import_only_what_is_declared_above_them() {
    let floors = Floors::parse(&read("src/lib.rs"));
    assert!(floors.count() >= 5, "src/lib.rs no longer names its floors as `// Floor N`");
    let offences = library().iter().flat_map(|source| floors::upward(&floors, source)).collect();
    report("A module imports only modules declared above it in src/lib.rs.", offences);
}

#[test]
fn every_module_of_the_library_stands_on_a_floor() {
    let floors = Floors::parse(&read("src/lib.rs"));
    let offences =
        library().iter().filter_map(|source| floors::homeless(&floors, source)).collect();
    report("Every module is declared in src/lib.rs, below a `// Floor N` comment.", offences);
}

#[test]
fn the_core_touches_no_clock_entropy_environment_socket_or_disk() {
    let floors = Floors::parse(&read("src/lib.rs"));
    let offences = library().iter().flat_map(|source| floors::outside(&floors, source)).collect();
    report(
        "Floors 0 to 3 do no I/O and depend on no random order; the facts are handed in.",
        excuse(offences, CORE_MAY_USE),
    );
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    let offences = rust().iter().filter_map(text_rules::headless).collect();
    report("Every Rust file begins with a `//!` header.", offences);
}

#[test]
fn files_are_short() {
    let offences = library().iter().filter_map(text_rules::long_file).collect();
    report("A file has at most 600 lines without tests.", excuse(offences, LONG_FILES));
}

#[test]
fn functions_are_short() {
    let offences = library().iter().flat_map(text_rules::long_functions).collect();
    report("A function has at most 70 lines.", excuse(offences, LONG_FUNCTIONS));
}

#[test]
fn modules_are_named_after_what_they_hold() {
    let mut offences: Vec<Offence> = rust().iter().flat_map(text_rules::vague_modules).collect();
    let mut paths = Vec::new();
    for top in ["src", "tests", "benches", "scripts", "examples", "config", "docs"] {
        walk(&root().join(top), &mut paths);
    }
    offences.extend(paths.iter().filter_map(|path| text_rules::vague_path(&relative(path))));
    report("A module is named by a noun of the field, not as a drawer.", offences);
}

#[test]
fn nothing_unfinished_is_left_in_the_code() {
    let offences = rust().iter().flat_map(text_rules::unfinished).collect();
    report("Nothing unfinished, no leftovers of debugging, no test that is not run.", offences);
}

#[test]
fn unsafe_code_is_only_where_it_is_listed() {
    let offences = rust().iter().filter_map(text_rules::has_unsafe).collect();
    report("`unsafe` is only where UNSAFE_FILES says why.", excuse(offences, UNSAFE_FILES));
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut paths = Vec::new();
    walk(root(), &mut paths);
    let documents: Vec<(String, String)> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| (relative(path), fs::read_to_string(path).expect("a document is UTF-8")))
        .collect();
    let exists = |path: &str| root().join(path).exists();
    let offences = documents
        .iter()
        .flat_map(|(path, text)| links::dead(path, text, &documents, &exists))
        .collect();
    report("Every relative link in a document leads to a file and a heading.", offences);
}

// --- reading the repository --------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn relative(path: &Path) -> String {
    let inside = path.strip_prefix(root()).expect("walked from the root");
    inside.to_str().expect("names are UTF-8").replace('\\', "/")
}

/// All files below `directory`, sorted; what is built, hidden or a cluster's data is passed over.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || ["target", "ringdove-dev"].contains(&name) {
            continue;
        }
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

fn rust_below(tops: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for top in tops {
        walk(&root().join(top), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!paths.is_empty(), "no Rust files below {tops:?}");
    let sources = paths.iter().map(|path| Source::new(&relative(path), &read(&relative(path))));
    source::mark_test_files(sources.collect())
}

/// The library: everything in `src` but the binary's own file.
fn library() -> Vec<Source> {
    let mut sources = rust_below(&["src"]);
    sources.retain(|source| source.path != "src/main.rs" && source.path != "src/lib.rs");
    sources
}

fn rust() -> Vec<Source> {
    rust_below(&["src", "tests", "benches", "examples"])
}

fn report(rule: &str, offences: Vec<Offence>) {
    let lines: Vec<String> = offences.iter().map(|offence| format!("  {offence}")).collect();
    assert!(offences.is_empty(), "\n{rule}\n{}\n", lines.join("\n"));
}
