//! Nodes that do to themselves what they are told: cut off, late, asleep, full, and wrong about the
//! time.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::alone;
use crate::cluster::{Cluster, Node, PATIENCE};
use crate::gossip::{QUICK, wait_for, wait_for_all};

/// Nodes that obey.
fn started(count: usize) -> Cluster {
    let mut cluster = Cluster::prepare(count, &format!("{QUICK}[sync]\ninterval_s = 1\n"));
    for node in &mut cluster.nodes {
        node.configure("[node]\n", "[node]\nfault_injection = true\n");
        node.start();
    }
    for index in 0..count {
        cluster.wait_ready(index);
    }
    cluster
}

/// Runs `ringdove` against a node.
fn ringdove(node: &Node, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    command.args(words.split_whitespace()).args(["--addr", &node.frames]).output().unwrap()
}

/// Runs `ringdove fault` against a node, which obeys.
fn fault(node: &Node, words: &str) -> String {
    let output = ringdove(node, &format!("fault {words}"));
    assert!(output.status.success(), "{words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A connection to a node's text port.
struct Text(BufReader<TcpStream>);

impl Text {
    fn of(node: &Node) -> Self {
        let stream = TcpStream::connect(&node.text).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// The first line of the answer, or the value if that is one.
    fn ask(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.hear()
    }

    fn hear(&mut self) -> String {
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        if answer.starts_with('$') && answer != "$-1\r\n" {
            answer.clear();
            self.0.read_line(&mut answer).unwrap();
        }
        answer.trim_end().to_owned()
    }

    /// As `ask`, and how long that took.
    fn time(&mut self, line: &str) -> (String, Duration) {
        let began = Instant::now();
        (self.ask(line), began.elapsed())
    }
}

/// Waits until this is so.
async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_not_started_for_it_has_no_such_commands() {
    let _alone = alone().await;
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let mut text = Text::of(node);
    let unknown = text.ask("RD.NOSUCH LIST").replace("RD.NOSUCH", "RD.FAULT");
    assert_eq!(text.ask("RD.FAULT LIST"), unknown);
    assert!(unknown.starts_with("-ERR unknown command"), "{unknown}");
    assert_eq!(text.ask("COMMAND INFO RD.FAULT"), "*1");
    assert_eq!(text.hear(), "*-1");
    let output = ringdove(node, "fault add pause");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--fault-injection"), "{output:?}");
    assert!(!node.page("/status").contains("faults_in_force"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_down_for_the_others_until_the_fault_is_lifted() {
    let _alone = alone().await;
    let cluster = started(3);
    wait_for_all(&cluster, "alive").await;
    assert!(cluster.nodes[2].log().contains("never in production"), "nobody is warned");
    fault(&cluster.nodes[2], "add drop --everyone");
    wait_for(&cluster, 0, 2, "down").await;
    wait_for(&cluster, 2, 0, "down").await;
    let mut text = Text::of(&cluster.nodes[0]);
    for number in 0..20 {
        assert_eq!(text.ask(&format!("SET key-{number} value")), "+OK");
    }
    assert!(cluster.nodes[0].hints().await + cluster.nodes[1].hints().await >= 20);
    assert_eq!(cluster.nodes[2].hints().await, 0);
    // Commands about faults are heard, and nobody needs to be puzzled.
    let mut away = Text::of(&cluster.nodes[2]);
    assert_eq!(away.ask("RD.FAULT LIST"), "*1");
    let output = ringdove(&cluster.nodes[2], "fault --json");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &said["faults"][0];
    assert_eq!(
        (&row["kind"], &row["everyone"], &row["share"]),
        (&"drop".into(), &true.into(), &1.0.into())
    );
    assert!(row["met"].as_u64().unwrap() > 0, "{said}");
    assert!(cluster.nodes[2].page("/status").contains("[\"faults_in_force\",1]"));
    let output = ringdove(&cluster.nodes[0], "status --timeout 5s");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("node-2 injects 1 fault into itself"), "{shown}");

    assert_eq!(fault(&cluster.nodes[2], "clear"), "1 fault lifted\n");
    assert_eq!(fault(&cluster.nodes[2], ""), "no faults are in force\n");
    wait_for_all(&cluster, "alive").await;
    cluster.wait_drained().await;
    assert_eq!(cluster.equal_digests().await.0, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_one_way_still_comes_the_other() {
    let _alone = alone().await;
    let cluster = started(2);
    wait_for_all(&cluster, "alive").await;
    let objects = || async {
        let output = ringdove(&cluster.nodes[1], "digest --json");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let node = said["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "node-1");
        node.unwrap()["objects"].as_u64().unwrap()
    };
    let mut text = Text::of(&cluster.nodes[0]);
    assert_eq!(text.ask("RD.QUORUM W ALL STRICT"), "+OK");
    let mut unconfirmed = async |direction: &str, key: &str| {
        fault(&cluster.nodes[1], &format!("add drop --peer node-0 --direction {direction}"));
        let answer = text.ask(&format!("RD.PUT {key} value BLIND"));
        assert!(answer.starts_with("-UN"), "{direction}: {answer}");
        let objects = objects().await;
        fault(&cluster.nodes[1], "clear");
        wait_for_all(&cluster, "alive").await;
        objects
    };
    assert_eq!(unconfirmed("out", "arrived").await, 1, "only the acknowledgement is lost");
    cluster.equal_digests().await;
    assert_eq!(unconfirmed("in", "lost").await, 1, "the write itself is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_is_felt_by_whoever_waits_for_the_node_and_order_is_kept() {
    let _alone = alone().await;
    let cluster = started(2);
    wait_for_all(&cluster, "alive").await;
    let mut text = Text::of(&cluster.nodes[0]);
    assert_eq!(text.ask("RD.QUORUM W ALL STRICT"), "+OK");
    assert_eq!(text.ask("SET key before"), "+OK");
    fault(&cluster.nodes[1], "add delay --everyone --by 40ms --jitter 5ms");
    for number in 0..5 {
        let (answer, took) = text.time(&format!("SET key value-{number}"));
        assert_eq!(answer, "+OK");
        // There and back.
        assert!(took >= Duration::from_millis(80), "{took:?}");
    }
    fault(&cluster.nodes[1], "clear");
    let mut quickest = PATIENCE;
    for number in 0..10 {
        let (answer, took) = text.time(&format!("SET key after-{number}"));
        assert_eq!(answer, "+OK");
        quickest = quickest.min(took);
    }
    assert!(quickest < Duration::from_millis(80), "{quickest:?}");
    assert_eq!(Text::of(&cluster.nodes[1]).ask("GET key"), "after-9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_twice_change_nothing() {
    let _alone = alone().await;
    let cluster = started(3);
    wait_for_all(&cluster, "alive").await;
    for node in &cluster.nodes {
        fault(node, "add duplicate --everyone");
    }
    let mut text = Text::of(&cluster.nodes[0]);
    for number in 0..100 {
        assert_eq!(text.ask(&format!("RD.PUT key-{} value-{number} BLIND", number % 50)), "*2");
        text = Text::of(&cluster.nodes[number % 3]);
    }
    for node in &cluster.nodes {
        assert!(node.counter("faults_in_force").await == 1);
        fault(node, "clear");
    }
    assert_eq!(cluster.equal_digests().await.0, 50);
    // Each of two writes of each key once.
    let mut text = Text::of(&cluster.nodes[0]);
    assert_eq!(text.ask("RD.SIBLINGS key-7"), "*2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_slow_delays_writes_and_one_that_is_full_refuses_them_until_it_is_not() {
    let _alone = alone().await;
    let cluster = started(1);
    let mut text = Text::of(&cluster.nodes[0]);
    assert_eq!(text.ask("SET key value"), "+OK");
    fault(&cluster.nodes[0], "add slow-disk --by 150ms");
    let (answer, took) = text.time("SET key slow");
    assert!(answer == "+OK" && took >= Duration::from_millis(150), "{answer} {took:?}");
    assert_eq!(text.ask("RD.FAULT CLEAR"), ":1");
    assert_eq!(text.ask("RD.FAULT ADD FULL-DISK FOR 3000"), ":2");
    // A write that finds out before the node does may have been given to others, as far as it knows.
    let refused = text.ask("SET key full");
    assert!(refused.starts_with("-UNKNOWN") || refused.starts_with("-DISKFULL"), "{refused}");
    for _ in 0..10 {
        let refused = text.ask("SET key full");
        assert!(refused.starts_with("-DISKFULL"), "{refused}");
        assert!(refused.contains("are free"), "{refused}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.nodes[0].log().contains("the disk is full: writes are refused here"));
    assert_eq!(text.ask("GET key"), "slow");
    wait_until("it stays full", async || text.ask("SET key again") == "+OK").await;
    assert_eq!(text.ask("RD.FAULT LIST"), "*0");
    assert!(cluster.nodes[0].log().contains("the disk has room again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_ahead_wins_where_the_last_write_wins() {
    let _alone = alone().await;
    let cluster = started(2);
    wait_for_all(&cluster, "alive").await;
    let output =
        ringdove(&cluster.nodes[0], "bucket create lww --n 2 --r one --w one --conflicts lww");
    assert!(output.status.success(), "{output:?}");
    let mut texts = [Text::of(&cluster.nodes[0]), Text::of(&cluster.nodes[1])];
    for text in &mut texts {
        let deadline = Instant::now() + PATIENCE;
        while text.ask("RD.BUCKET lww") != "+OK" {
            assert!(Instant::now() < deadline, "the bucket is not known");
        }
    }
    let [first, second] = &mut texts;
    fault(&cluster.nodes[0], "add clock --by +1m");
    fault(&cluster.nodes[0], "add drop --everyone");
    assert_eq!(first.ask("SET key earlier"), "+OK");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(second.ask("SET key later"), "+OK");
    fault(&cluster.nodes[0], "clear");
    wait_for_all(&cluster, "alive").await;
    cluster.wait_drained().await;
    cluster.equal_digests().await;
    assert_eq!((first.ask("GET key"), second.ask("GET key")), ("earlier".into(), "earlier".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_hangs_for_its_time_and_hears_only_commands_about_faults() {
    let _alone = alone().await;
    let cluster = started(3);
    wait_for_all(&cluster, "alive").await;
    let mut earlier = Text::of(&cluster.nodes[1]);
    assert_eq!(earlier.ask("PING"), "+PONG");
    let began = Instant::now();
    fault(&cluster.nodes[1], "add pause --for 8s");
    assert_eq!(Text::of(&cluster.nodes[1]).ask("RD.FAULT LIST"), "*1");
    assert!(cluster.nodes[1].page("/health").is_empty(), "it answers");
    assert!(!ringdove(&cluster.nodes[1], "get key --timeout 500ms").status.success());
    wait_for(&cluster, 0, 1, "down").await;
    wait_for(&cluster, 2, 1, "down").await;
    let mut text = Text::of(&cluster.nodes[0]);
    for number in 0..10 {
        assert_eq!(text.ask(&format!("SET key-{number} value")), "+OK");
    }
    assert_eq!(earlier.ask("PING"), "+PONG");
    assert!(began.elapsed() >= Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(fault(&cluster.nodes[1], ""), "no faults are in force\n");
    wait_for_all(&cluster, "alive").await;
    cluster.wait_drained().await;
    assert_eq!(cluster.equal_digests().await.0, 10);
    // Stops in order although it is asleep.
    let mut cluster = cluster;
    fault(&cluster.nodes[1], "add pause");
    let (status, took) = cluster.nodes[1].terminate();
    assert!(status.success() && took < Duration::from_secs(10), "{status} {took:?}");
}
