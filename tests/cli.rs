//! The command line as a script meets it: words in, an exit code and two streams out. No test here
//! needs a node that answers.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn ringdove(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    command.args(words).env_remove("RINGDOVE_ADDR").stdin(Stdio::null());
    command.output().expect("the program was built with the test")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("these answers are text")
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("what people read is text")
}

fn document(output: &Output) -> serde_json::Value {
    serde_json::from_str(out(output)).expect("one JSON document, and nothing else")
}

/// An address where nobody listens: it was free a moment ago.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn write(dir: &Path, text: &str) -> String {
    let file = dir.join("node.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn words_that_make_no_command_end_with_2_and_say_what_is_meant() {
    let wrong: [(&[&str], &str); 9] = [
        (&[], "Usage"),
        (&["stauts"], "status"),
        (&["get"], "<KEY>"),
        (&["get", "k", "--r", "0"], "quorum"),
        (&["get", "k", "--addr", "7400"], "HOST:PORT"),
        (&["get", "k", "--timeout", "2"], "500ms"),
        (&["put", "k", "v", "--new", "--blind"], "--new"),
        (&["put", "k", "v", "--context", "two words"], "context"),
        (&["bucket", "create", "b", "--n", "14"], "1..=13"),
    ];
    for (words, hint) in wrong {
        let output = ringdove(words);
        assert_eq!(code(&output), 2, "{words:?}");
        assert!(err(&output).contains(hint), "{words:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{words:?}");
    }
}

#[test]
fn help_teaches_by_examples_and_lists_the_exit_codes() {
    let output = ringdove(&["--help"]);
    assert_eq!(code(&output), 0);
    assert!(out(&output).contains("ringdove put greeting hello"));
    for command in ["get", "put", "del"] {
        let output = ringdove(&[command, "--help"]);
        let text = out(&output);
        assert!(text.contains("Examples:") && text.contains("Exit codes:"), "{command}");
    }
}

#[test]
fn a_refused_connection_ends_with_7_and_names_what_to_do() {
    let nobody = nobody();
    let asking: [&[&str]; 13] = [
        &["get", "k"],
        &["put", "k", "v"],
        &["del", "k", "--direct"],
        &["status"],
        &["ring"],
        &["explain", "k"],
        &["bucket", "list"],
        &["transfers"],
        &["digest"],
        &["hints"],
        &["sync", "status"],
        &["sync", "pause"],
        &["wait", "--healthy", "--timeout", "100ms"],
    ];
    for words in asking {
        let output = ringdove(&[words, &["--addr", &nobody]].concat());
        assert_eq!(code(&output), 7, "{words:?}: {}", err(&output));
        assert!(err(&output).starts_with("error: "), "{words:?}");
        assert!(err(&output).contains(&nobody), "{words:?}: {}", err(&output));
        assert!(err(&output).contains("\nhint: start a cluster with `ringdove dev`"), "{words:?}");
        assert_eq!(out(&output), "", "{words:?}");
    }
}

#[test]
fn with_json_a_failure_is_a_document_too() {
    let output = ringdove(&["get", "k", "--json", "--addr", &nobody()]);
    let error = &document(&output)["error"];
    assert_eq!((code(&output), &error["exit"]), (7, &serde_json::json!(7)));
    assert_eq!(error["kind"], "connect");
    assert_eq!(error["may_be_applied"], false);
}

#[test]
fn the_environment_says_whom_to_ask() {
    let nobody = nobody();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    let output = command.args(["status"]).env("RINGDOVE_ADDR", &nobody).output().unwrap();
    assert!(err(&output).contains(&nobody), "{}", err(&output));
}

#[test]
fn a_key_that_cannot_be_ends_with_2_before_anybody_is_asked() {
    let output = ringdove(&["get", "", "--addr", &nobody()]);
    assert_eq!(code(&output), 2, "{}", err(&output));
    let output = ringdove(&["get", "k", "--bucket", "no spaces", "--addr", &nobody()]);
    assert_eq!(code(&output), 2, "{}", err(&output));
}

#[test]
fn config_check_answers_ok_or_every_problem_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/config/ringdove.toml");
    let output = ringdove(&["config", "check", manual]);
    assert_eq!((code(&output), out(&output)), (0, format!("{manual}: ok\n").as_str()));

    let file = write(dir.path(), "[requests]\natempt_ms = 100\ntimeout_ms = \"soon\"\n");
    let output = ringdove(&["config", "check", &file]);
    assert_eq!((code(&output), out(&output)), (2, ""));
    assert!(err(&output).contains(&format!("{file}:2:1: ")), "{}", err(&output));
    assert!(err(&output).contains("write `attempt_ms`"), "{}", err(&output));
    assert!(err(&output).contains(&format!("{file}:3:")), "{}", err(&output));

    let output = ringdove(&["config", "check", &file, "--json"]);
    let document = document(&output);
    assert_eq!((code(&output), &document["ok"]), (2, &serde_json::json!(false)));
    assert_eq!(document["problems"].as_array().unwrap().len(), 2);

    let output = ringdove(&["config", "check", "/nowhere/node.toml"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("/nowhere/node.toml"));
}

#[test]
fn config_show_lists_what_is_in_force_and_hides_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "[listen]\npassword = \"sesame\"\n");
    let output = ringdove(&["config", "show", &file, "--set", "node.zone=b"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("zone = \"b\"") && out(&output).contains("timeout_ms = 2000"));
    assert!(!out(&output).contains("sesame"));
    let output = ringdove(&["config", "show", &file, "--json"]);
    assert_eq!(document(&output)["listen"]["password"], "(hidden)");
}

#[test]
fn a_node_with_a_bad_configuration_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "[node]\nnam = \"x\"\n");
    let output = ringdove(&["serve", "--config", &file]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("write `name`"), "{}", err(&output));
}

#[test]
fn a_cluster_whose_ports_are_taken_is_not_started() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let file = dir.path().join("node-0/ringdove.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let text = format!("[listen]\naddress = \"127.0.0.1:{port}\"\ntext = \"\"\nadmin = \"\"\n");
    std::fs::write(&file, &text).unwrap();
    let output = ringdove(&["dev", "--nodes", "1", "--dir", dir.path().to_str().unwrap()]);
    assert_eq!(code(&output), 2, "{}", err(&output));
    assert!(err(&output).contains("listen.address = "), "{}", err(&output));
    assert!(err(&output).contains("hint: is another cluster running?"), "{}", err(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = ringdove(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(out(&output).contains("explain") && out(&output).contains("base-port"), "{shell}");
    }
}
