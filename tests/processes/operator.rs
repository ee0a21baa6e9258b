//! What an operator sees and waits for while a member is away, and when it is back.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::alone;
use crate::cluster::Cluster;

/// Runs `ringdove` against a node.
fn ringdove(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    command.args(words).args(["--addr", &cluster.nodes[0].frames]).output().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_a_member_that_is_away_is_shown_and_can_be_waited_for() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    let output = ringdove(&cluster, &["wait", "--timeout", "30s"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("done after "), "{output:?}");
    let output = ringdove(&cluster, &["hints"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing is kept for anybody\n");

    cluster.nodes[2].kill();
    for number in 0..20 {
        bucket.put(format!("key-{number}"), "value").blind().await.unwrap();
    }
    let output = ringdove(&cluster, &["hints", "--json"]);
    let said = document(&output);
    // Somebody did not answer.
    assert_eq!((output.status.code(), &said["no_answer"][0]), (Some(3), &"node-2".into()));
    let rows = said["hints"].as_array().unwrap();
    assert!(
        rows.iter().all(|row| row["for"] == "node-2" && row["eta_seconds"].is_null()),
        "{said}"
    );
    let keys: u64 = rows.iter().map(|row| row["keys"].as_u64().unwrap()).sum();
    assert!(keys >= 20, "{said}");
    let shown = ringdove(&cluster, &["hints"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("KEPT BY") && shown.contains("not known: node-2"), "{shown}");
    let metrics = cluster.nodes[0].page("/metrics");
    assert!(metrics.contains("ringdove_hints_for_member_keys{member=\"node-2\"}"), "{metrics}");

    let output = ringdove(&cluster, &["wait", "--json", "--hints-drained", "--timeout", "500ms"]);
    let said = document(&output);
    assert_eq!((output.status.code(), &said["done"]), (Some(3), &false.into()), "{said}");
    let open: Vec<&str> = said["open"]
        .as_array()
        .unwrap()
        .iter()
        .map(|open| open["what"].as_str().unwrap())
        .collect();
    assert!(open.contains(&"does not answer"), "{said}");
    assert!(open.iter().any(|what| what.ends_with("keys for node-2")), "{said}");

    cluster.nodes[2].start();
    let output = ringdove(&cluster, &["wait", "--healthy", "--hints-drained", "--timeout", "60s"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(cluster.equal_digests().await.0, 20);
    let output = ringdove(&cluster, &["hints"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing is kept for anybody\n");
}

/// Has `ringdove shell` obey lines; returns what it noted beside its answers.
fn shell(cluster: &Cluster, lines: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    command.args(["shell", "--addr", &cluster.nodes[0].frames]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut shell = command.spawn().unwrap();
    shell.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_replaces_what_it_wrote_itself_and_nothing_that_it_never_saw() {
    let _alone = alone().await;
    let cluster = Cluster::start(1);
    let bucket = cluster.client().await.bucket("default").unwrap();
    bucket.put("cart", "of somebody else").blind().await.unwrap();
    let noted = shell(&cluster, "put cart mine --blind\nput cart mine-again\n");
    assert!(noted.contains("replaces what was last seen here of this key"), "{noted}");
    let found = bucket.get("cart").await.unwrap();
    let mut values: Vec<_> = found.values.as_slice().iter().map(|value| &value.data).collect();
    values.sort();
    assert_eq!(values, ["mine-again", "of somebody else"]);
}
