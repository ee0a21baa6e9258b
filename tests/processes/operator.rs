//! What an operator sees and waits for while a member is away, and when it is back.

use std::process::{Command, Output};

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
