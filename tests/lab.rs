//! The partition lab as a person runs it: `scripts/partition-lab`, what it says, how it ends, and what
//! it leaves behind. The scenarios run in their short form, one after the other: each has a cluster.
//!
//! Skipped, and it says so, where there is no Python 3.11.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ringdove::load::record::{Lab, Scenario, Summary};

/// How many scenarios there are.
const SCENARIOS: usize = 16;

/// Runs the lab with this build of the program; none where there is no Python for it.
fn lab(words: &[&str]) -> Option<Output> {
    let newer = "import sys; sys.exit(sys.version_info < (3, 11))";
    let python = Command::new("python3").args(["-c", newer]).status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("skipped: the partition lab needs Python 3.11");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/partition-lab");
    let mut command = Command::new(script);
    command.args(words).args(["--binary", env!("CARGO_BIN_EXE_ringdove")]).stdin(Stdio::null());
    Some(command.output().expect("the script can be run"))
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn both(output: &Output) -> String {
    out(output) + &String::from_utf8_lossy(&output.stderr)
}

fn read<T: serde::de::DeserializeOwned>(path: PathBuf) -> T {
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

#[test]
fn every_scenario_file_is_sound_and_listed() {
    let Some(output) = lab(&["list"]) else { return };
    assert!(output.status.success(), "{}", both(&output));
    for number in 1..=SCENARIOS {
        assert!(out(&output).contains(&format!("{number:>2}  ")), "{}", both(&output));
    }
}

#[test]
fn a_seed_makes_one_plan_and_another_seed_another() {
    let Some(first) = lab(&["plan", "all", "--seed", "5"]) else { return };
    assert!(first.status.success(), "{}", both(&first));
    assert!(out(&first).lines().count() > 5 * SCENARIOS, "{}", both(&first));
    assert_eq!(out(&first), out(&lab(&["plan", "all", "--seed", "5"]).unwrap()));
    assert_ne!(out(&first), out(&lab(&["plan", "all", "--seed", "6"]).unwrap()));
}

#[test]
fn a_mistake_in_a_scenario_is_named_with_its_line_and_what_to_write() {
    let sound = "title = \"t\"\nteaches = \"t\"\n[cluster]\nnodes = 3\n[buckets.b]\nn = 3\n\
        [[clients]]\nside = \"all\"\nnodes = \"n1\"\nmix = \"a\"\nrate = 1\nkeys = 1\n\
        [[timeline]]\nat = 1\nfor = 2\ndo = \"crash\"\nnodes = \"n2\"\n\
        [[holds]]\ncheck = \"nothing_lost\"\n";
    let mistakes = [
        ("n = 3", "n = 5", "line 6", "write a number from 1 to 3"),
        ("nodes = \"n2\"", "nodes = \"n9\"", "line 17", "n1, n2, n3"),
        ("do = \"crash\"", "do = \"crush\"", "line 16", "\"crash\""),
        ("for = 2", "fro = 2", "line 15", "did you mean `for`?"),
        ("for = 2", "for = 99", "line 14", "more `seconds`"),
        ("rate = 1\n", "", "line 7", "rate"),
        ("check = \"nothing_lost\"", "check = \"lost\"", "line 19", "\"nothing_lost\""),
        ("nodes = 3", "nodes = \"three", "is no TOML", "line 4"),
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("42-mistake.toml");
    let plan = |text: &str| {
        fs::write(&file, text).unwrap();
        lab(&["plan", file.to_str().unwrap()])
    };
    let Some(output) = plan(sound) else { return };
    assert!(output.status.success(), "{}", both(&output));
    for (right, wrong, place, fix) in mistakes {
        assert!(sound.contains(right), "{right}");
        let output = plan(&sound.replacen(right, wrong, 1)).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {}", both(&output));
        let said = both(&output);
        assert!(said.contains(place) && said.contains(fix), "{wrong}: {said}");
    }
}

#[test]
fn a_scenario_that_is_not_there_is_refused_and_the_nearest_is_named() {
    let Some(output) = lab(&["split-slopy"]) else { return };
    assert_eq!(output.status.code(), Some(2), "{}", both(&output));
    assert!(both(&output).contains("split-sloppy"), "{}", both(&output));
}

/// A split both ways of counting, a crash, and deletes on both sides of a split: all that must hold
/// holds, and the records say what happened.
#[test]
fn short_runs_of_four_scenarios_hold_and_leave_their_records() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report");
    let words = ["1", "2", "7", "9", "--short", "--seed", "1", "--no-pictures", "--report"];
    let Some(output) = lab(&[&words[..], &[report.to_str().unwrap()]].concat()) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));

    let kept: Lab = read(report.join("lab.json"));
    let expected = ["01-split-sloppy", "02-split-strict", "07-crash", "09-deletes"];
    assert_eq!(kept.scenarios, expected);
    for name in &kept.scenarios {
        let scenario: Scenario = read(report.join(name).join("scenario.json"));
        assert!(scenario.verdicts.len() >= 4, "{name}");
        for verdict in &scenario.verdicts {
            assert!(verdict.holds, "{name}: {verdict:?}");
        }
        let fault = &scenario.faults[0];
        assert!(scenario.begun_ms < fault.from_ms && fault.from_ms < fault.to_ms, "{name}");
        assert!(fault.to_ms <= scenario.healed_ms.unwrap(), "{name}");
        assert!(scenario.healed_ms <= scenario.converged_ms, "{name}");
        assert!(scenario.looks.len() >= 8, "{name}: {} looks", scenario.looks.len());
        assert!(!scenario.views.is_empty(), "{name}: nobody has noticed anything");
        for side in &scenario.sides {
            let run: Summary = read(report.join(name).join(&side.run).join("summary.json"));
            let keys = run.verification.map_or(0, |found| found.keys);
            assert!(run.ok > 0 && keys > 0, "{name}: {} read {keys} keys back", side.name);
        }
    }
    assert!(report.join("report.html").exists());
}
