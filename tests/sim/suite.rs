//! What `cargo test` runs, in the manner of the standard harness.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::time::Instant;

use crate::check::unit_tests;
use crate::plan::Bug;
use crate::report::judge;

/// Seeds that are tried at every `cargo test`.
const SEEDS: u64 = 30;
/// Seeds within which each planted bug must be found. Most are found by one of the first ten; the
/// rarest, `ReapedByQuorum`, shows in 3 of 100 (`--seeds 100 --plant ReapedByQuorum`), so that which
/// seed finds it first moves with every change to the core.
const SEEDS_TO_FIND_A_BUG: u64 = 500;
/// Seeds that have found bugs. They run first.
const REGRESSIONS: &str = include_str!("regressions.txt");

type Test = (String, Box<dyn Fn() -> Result<(), String> + std::panic::RefUnwindSafe>);

fn tests(jobs: u64) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    for (name, test) in unit_tests::cases() {
        let test = move || {
            test();
            Ok(())
        };
        tests.push((format!("checkers::{name}"), Box::new(test)));
    }
    let seeds = regressions();
    tests.push(("regressions_hold".to_owned(), Box::new(move || hold(&seeds, jobs))));
    let seeds: Vec<u64> = (1..=SEEDS).collect();
    tests.push(("fixed_seeds_hold".to_owned(), Box::new(move || hold(&seeds, jobs))));
    let same = "the_same_seed_gives_the_same_bytes".to_owned();
    tests.push((same, Box::new(same_seed_same_bytes)));
    for (bug, properties) in Bug::ALL {
        let name = format!("planted_{bug:?}_is_found");
        tests.push((name, Box::new(|| find(*bug, properties))));
    }
    tests
}

pub fn list() -> bool {
    for (name, _) in tests(1) {
        println!("{name}: test");
    }
    true
}

/// Runs the tests with `filter` in their name; whether all have passed.
pub fn run(filter: Option<&str>, jobs: u64) -> bool {
    let began = Instant::now();
    let all = tests(jobs);
    let count = all.len();
    let chosen = all.into_iter().filter(|(name, _)| filter.is_none_or(|part| name.contains(part)));
    let chosen: Vec<Test> = chosen.collect();
    let filtered = count - chosen.len();
    println!("\nrunning {} tests", chosen.len());
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in &chosen {
        let result = catch_unwind(test).unwrap_or_else(|_| Err("it panicked".to_owned()));
        match result {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(why) => {
                println!("test {name} ... FAILED\n{why}");
                failed.push(name);
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {filtered} \
         filtered out; finished in {:.2}s\n",
        failed.len(),
        began.elapsed().as_secs_f64()
    );
    failed.is_empty()
}

/// The seeds of the regressions file: a number at the start of a line.
fn regressions() -> Vec<u64> {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with(['#', ' ']));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

fn hold(seeds: &[u64], jobs: u64) -> Result<(), String> {
    let failures = Mutex::new(Vec::new());
    crate::each(seeds, None, jobs, |verdict| {
        if !verdict.is_ok() {
            failures.lock().expect("nothing panics under it").push(verdict.failure());
        }
    });
    let failures = failures.into_inner().expect("nothing panics under it");
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn same_seed_same_bytes() -> Result<(), String> {
    for seed in [1, 2, 3] {
        let (first, second) = (judge(seed, None), judge(seed, None));
        let (first, second) = (first.history, second.history);
        let differs = first.lines.iter().zip(&second.lines).find(|(a, b)| a != b);
        if let Some((a, b)) = differs {
            return Err(format!("seed {seed} ran differently:\n  {a}\n  {b}"));
        }
        if first.text() != second.text() {
            return Err(format!("seed {seed} ran on differently"));
        }
    }
    Ok(())
}

/// Whether a planted bug is found by one of the properties that are there to find it.
fn find(bug: Bug, properties: &[&str]) -> Result<(), String> {
    let mut others = Vec::new();
    for seed in 1..=SEEDS_TO_FIND_A_BUG {
        let verdict = judge(seed, Some(bug));
        if verdict.violations.iter().any(|found| properties.contains(&found.property)) {
            return Ok(());
        }
        others.extend(verdict.violations.iter().map(|found| found.property));
    }
    Err(format!("not found by {properties:?} in {SEEDS_TO_FIND_A_BUG} seeds; others: {others:?}"))
}
