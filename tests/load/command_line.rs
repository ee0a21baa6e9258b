//! What is typed wrong is answered with what to type.

use std::process::{Command, Output};

fn load(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_ringdove");
    Command::new(program).arg("load").args(arguments).output().unwrap()
}

#[test]
fn bad_input_is_refused_with_what_to_write_instead() {
    let cases: [(&[&str], &str); 14] = [
        (&["--mix", "g"], "read=50,update=40,delete=10"),
        (&["--mix", "read=0"], "read=50,update=40,delete=10"),
        (&["--distribution", "normal"], "zipfian, uniform, latest or hotspot"),
        (&["--value-size", "1KB"], "1KiB"),
        (&["--target", "http://localhost"], "redis://HOST:PORT"),
        (&["--part", "3/2"], "1/3, 2/3 and 3/3"),
        (&["--context", "none"], "observed, fresh, blind or kept"),
        (&["--rate", "0"], "--rate 1000"),
        (&["--rate", "5", "--closed"], "cannot be used with"),
        (&["--verify"], "--output"),
        (&["--verify", "--output", "x", "--value-size", "10"], "--value-size 55"),
        (&["--verify", "--output", "x", "--part", "1/2"], "--verify-later"),
        (&["--target", "redis://a:1", "--context", "fresh"], "leave --context away"),
        (&["--target", "redis://a:1", "--strict"], "leave them away with redis://"),
    ];
    for (arguments, hint) in cases {
        let output = load(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(hint), "{arguments:?}: {said}");
    }
}

#[test]
fn nobody_there_is_told_from_a_server_under_load() {
    for target in ["redis://127.0.0.1:1", "ringdove://127.0.0.1:1"] {
        let output = load(&["--target", target, "--duration", "1s"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{said}");
        assert!(said.contains("--target"), "{said}");
    }
}

#[test]
fn a_directory_with_a_run_is_not_written_over() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("summary.json"), "{}").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("redis://{}", listener.local_addr().unwrap());
    let output = load(&["--target", &target, "--output", directory.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("name another directory with --output"), "{said}");
}
