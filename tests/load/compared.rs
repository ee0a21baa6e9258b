//! Runs side by side.

use std::path::Path;
use std::time::Duration;

use ringdove::load::Directory;
use ringdove::load::compare::{Comparison, Runs, compare};
use ringdove::load::directory::write_summary;

use crate::memory::Memory;
use crate::{on_one_thread, plan, run};

/// Runs one part of a run in a directory.
fn leave(path: &Path, part: &str) {
    on_one_thread(async {
        let mut plan = plan("a", 500.0, Duration::from_secs(2));
        plan.part = part.parse().unwrap();
        let mut directory = Directory::create(path).unwrap();
        let mut summary = run(&Memory::default(), &plan, Some(&mut directory)).await;
        summary.settings.insert("part".to_owned(), part.to_owned());
        write_summary(path, &summary).unwrap();
    });
}

fn compared(before: &Path, after: &Path) -> Comparison {
    compare(&Runs::open(before).unwrap(), &Runs::open(after).unwrap()).unwrap()
}

#[test]
fn the_parts_of_a_run_count_as_one_and_the_logs_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, parts) = (directory.path().join("whole"), directory.path().join("parts"));
    leave(&whole, "1/1");
    leave(&parts.join("1"), "1/2");
    leave(&parts.join("2"), "2/2");
    let comparison = compared(&whole, &parts);
    assert_eq!(comparison.runs, (1, 1));
    let rate = &comparison.rows[0];
    assert!((rate.before - 500.0).abs() < 5.0, "{rate:?}");
    assert!((rate.ratio - 1.0).abs() < 0.02, "{rate:?}");
    // The store takes a millisecond for everything, or two where a timer is late.
    let p50 = &comparison.rows[2];
    assert!((500.0..10_000.0).contains(&p50.before), "{p50:?}");
}

#[test]
fn a_directory_without_a_run_is_refused_with_what_makes_one() {
    let directory = tempfile::tempdir().unwrap();
    let error = Runs::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("ringdove load --output DIR"), "{error}");
}
