//! Listing keys while nodes die, come back and join; counting them; keys in conflict.

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Instant;

use ringdove::client::{Bucket, BucketSettings, Client, Conflicts, Level};
use ringdove::ids::Partition;
use ringdove::membership::PlannedChange;
use serde_json::Value;

use crate::alone;
use crate::cluster::{Cluster, PATIENCE};

/// Runs `ringdove` against a node.
fn ringdove(cluster: &Cluster, node: usize, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringdove"));
    command.args(words).args(["--addr", &cluster.nodes[node].frames]).output().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn name(number: usize) -> String {
    format!("key-{number:06}")
}

/// Writes keys, some of them at a time.
async fn write(bucket: &Bucket, keys: std::ops::Range<usize>) {
    let writes = keys.map(|number| bucket.put(name(number), "value").blind());
    for (key, answer) in bucket.multi_put(writes).await {
        answer.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }
}

async fn delete(bucket: &Bucket, keys: std::ops::Range<usize>) {
    let deletions = keys.map(|number| bucket.delete(name(number)).observed());
    for (key, answer) in bucket.multi_put(deletions).await {
        answer.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }
}

/// The keys of a bucket. `meanwhile` is called once, when so many have been seen.
async fn listed(
    bucket: &Bucket,
    at: usize,
    mut meanwhile: impl AsyncFnMut(),
) -> (BTreeSet<String>, usize) {
    let (mut found, mut seen) = (BTreeSet::new(), 0);
    let mut keys = bucket.keys();
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        match keys.next().await {
            Ok(None) => return (found, seen),
            Ok(Some(listed)) => {
                seen += 1;
                found.insert(String::from_utf8(listed.key).unwrap());
                if seen == at {
                    meanwhile().await;
                }
            }
            // Too few owners for a moment: asked again, the listing goes on where it was.
            Err(error) => {
                assert!(Instant::now() < deadline, "{error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

fn expected(keys: impl Iterator<Item = usize>) -> BTreeSet<String> {
    keys.map(name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_of_100_000_keys_misses_none_when_a_node_dies_and_another_comes_back_on_the_way()
{
    const KEYS: usize = 100_000;
    let _alone = alone().await;
    let mut cluster = Cluster::start(4);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    // What is written while a node is away, that node has not: the union of two owners has it.
    write(&bucket, 0..KEYS / 2).await;
    cluster.nodes[0].kill();
    write(&bucket, KEYS / 2..KEYS).await;
    delete(&bucket, 0..500).await;
    cluster.nodes[0].start();
    cluster.wait_ready(0);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    let began = Instant::now();
    let (found, seen) = listed(&bucket, KEYS / 3, async || cluster.nodes[1].kill()).await;
    println!("{seen} keys listed, {} of them different, in {:?}", found.len(), began.elapsed());
    assert!(found == expected(500..KEYS), "{} keys", found.len());

    cluster.nodes[1].start();
    cluster.wait_ready(1);
    cluster.wait_drained().await;
    // A node that was killed counts its trees anew, and says of how many partitions it cannot tell yet.
    let deadline = Instant::now() + PATIENCE;
    let mut tally = client.tallies().await.unwrap();
    while tally.uncounted > 0 {
        assert!(Instant::now() < deadline, "{tally:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        tally = client.tallies().await.unwrap();
    }
    let of = &tally.buckets[0];
    assert_eq!((of.keys, of.conflicts), (KEYS as u64 - 500, 0), "{tally:?}");
    // Some may have been forgotten meanwhile: all members are there.
    assert!(of.deleted <= 500, "{tally:?}");
    // Half of the members cannot answer: others count for them as far as they own the same.
    cluster.nodes[2].kill();
    let tally = client.tallies().await.unwrap();
    assert_eq!((&tally.silent[..], tally.uncounted), (&["node-2".to_owned()][..], 0));
    assert_eq!(tally.buckets[0].keys, KEYS as u64 - 500);

    let output = ringdove(&cluster, 0, &["keys", "--prefix", "key-0999", "--json"]);
    let said = document(&output);
    assert_eq!(said["keys"].as_array().unwrap().len(), 100, "{said}");
    let output = ringdove(&cluster, 0, &["keys", "default", "--limit", "1500"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_misses_no_key_while_a_member_joins_and_partitions_change_hands() {
    const KEYS: usize = 20_000;
    let _alone = alone().await;
    // One slot after the other, so that it takes a while.
    let quick = "[transfers]\ncleanup_after_s = 1\nat_once = 1\n";
    let mut cluster = Cluster::start_with(3, quick);
    let client = cluster.client().await;
    let bucket = client.bucket("default").unwrap();
    write(&bucket, 0..KEYS).await;
    let newcomer = cluster.start_newcomer_with(quick);
    cluster.wait_log(newcomer, "known as a candidate").await;
    let id = client.refresh().await.unwrap().state().find("node-3").unwrap();
    client.stage_change(id, PlannedChange::Join, false).await.unwrap();
    // Begun before the member joins, and again and again until it has all that it will own.
    let (found, _) =
        listed(&bucket, KEYS / 4, async || client.commit_plan(None).await.unwrap()).await;
    assert!(found == expected(0..KEYS), "{} keys", found.len());
    let (deadline, mut rounds, mut quiet) = (Instant::now() + PATIENCE * 2, 0, 0);
    while quiet < 3 {
        let (found, _) = listed(&bucket, 0, async || {}).await;
        assert!(found == expected(0..KEYS), "{} keys in round {rounds}", found.len());
        rounds += 1;
        quiet = if cluster.nodes[newcomer].counter("slots_changing").await == 0 {
            quiet + 1
        } else {
            0
        };
        assert!(Instant::now() < deadline);
    }
    let taken = cluster.nodes[newcomer].counter("transfer_slots_taken").await;
    println!("{rounds} listings while {taken} slots changed hands");
    assert!(taken > 0);
    assert_eq!(client.tallies().await.unwrap().buckets[0].keys, KEYS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_go_on_at_any_node_and_after_a_restart() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3);
    let bucket = cluster.client().await.bucket("default").unwrap();
    write(&bucket, 0..1000).await;
    let (mut cursor, mut found, mut pages) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let node = pages % 3;
        if pages == 30 {
            cluster.nodes[node].kill();
            cluster.nodes[node].start();
            cluster.wait_ready(node);
        }
        let address = format!("redis://{}/", cluster.nodes[node].text);
        let mut connection = redis::Client::open(address).unwrap().get_connection().unwrap();
        let page: Result<(String, Vec<String>), _> =
            redis::cmd("SCAN").arg(&cursor).query(&mut connection);
        // The node that was started again may not be connected to two owners yet.
        let Ok((next, keys)) = page else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        found.extend(keys);
        pages += 1;
        if next == "0" {
            break;
        }
        cursor = next;
    }
    assert!(found == expected(0..1000), "{} keys in {pages} pages", found.len());
}

async fn conflict(bucket: &Bucket, key: &str, values: usize) {
    for value in 0..values {
        bucket.put(key, format!("{value}")).blind().w(Level::All).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_in_conflict_are_counted_once_shown_and_gone_when_they_are_resolved() {
    let _alone = alone().await;
    let cluster = Cluster::start(3);
    let client: Client = cluster.client().await;
    let settings = BucketSettings { conflicts: Conflicts::LastWriteWins, ..Default::default() };
    client.create_bucket("latest", settings).await.unwrap();
    client.create_bucket("carts", BucketSettings::default()).await.unwrap();
    let carts = client.bucket("carts").unwrap();
    write(&carts, 0..100).await;
    for (key, values) in [("two", 2), ("five", 5), ("three", 3)] {
        conflict(&carts, key, values).await;
    }
    carts.put("large", vec![b'x'; 500_000]).blind().w(Level::All).await.unwrap();
    let mut listing = carts.conflicts();
    let mut found = BTreeSet::new();
    while let Some(listed) = listing.next().await.unwrap() {
        found.insert((String::from_utf8(listed.key).unwrap(), listed.siblings));
    }
    let all = [("five", 5), ("three", 3), ("two", 2)].map(|(key, n)| (key.to_owned(), n));
    assert_eq!(found, BTreeSet::from(all));

    let said = document(&ringdove(&cluster, 0, &["conflicts", "--json"]));
    let row = said["buckets"].as_array().unwrap().iter().find(|row| row["bucket"] == "carts");
    let row = row.unwrap_or_else(|| panic!("{said}"));
    assert_eq!((&row["keys"], &row["conflicts"]), (&104.into(), &3.into()), "{said}");
    let said = document(&ringdove(&cluster, 1, &["conflicts", "carts", "--json", "--limit", "2"]));
    assert_eq!((said["keys"].as_array().unwrap().len(), &said["more"]), (2, &true.into()));
    let output = ringdove(&cluster, 2, &["conflicts", "carts"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("five") && shown.contains("VALUES"), "{shown}");

    let said = document(&ringdove(&cluster, 0, &["top", "--json"]));
    for node in said["nodes"].as_array().unwrap() {
        assert_eq!(node["most_values"][0]["key"], "five", "{said}");
        assert_eq!(node["largest"][0]["key"], "large", "{said}");
    }

    let read = carts.get("five").await.unwrap();
    carts.put("five", "one").context(&read.context).w(Level::All).await.unwrap();
    let said = document(&ringdove(&cluster, 0, &["conflicts", "--json"]));
    let row = said["buckets"].as_array().unwrap().iter().find(|row| row["bucket"] == "carts");
    assert_eq!(row.unwrap()["conflicts"], 2, "{said}");
    println!("{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_value_is_absent_at_every_node_and_a_bucket_s_time_to_live_can_be_taken_away() {
    let _alone = alone().await;
    let cluster = Cluster::start(3);
    let client = cluster.client().await;
    let settings = BucketSettings { ttl_ms: Some(3_600_000), ..Default::default() };
    client.create_bucket("sessions", settings).await.unwrap();
    let sessions = client.bucket("sessions").unwrap();
    sessions.put("stays", "v").observed().never_expires().await.unwrap();
    for node in &cluster.nodes {
        let client = redis::Client::open(format!("redis://{}/", node.text)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut ask = |words: &[&str]| -> redis::Value {
            redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
        };
        let int = redis::Value::Int;
        ask(&["RD.BUCKET", "sessions"]);
        assert_eq!(ask(&["TTL", "stays"]), int(-1));
        ask(&["SET", "k", "v"]);
        let redis::Value::Int(left) = ask(&["TTL", "k"]) else { panic!("no number") };
        assert!((3500..=3600).contains(&left), "{left}");
        assert_eq!(ask(&["PERSIST", "k"]), int(1));
        ask(&["SET", "k", "w", "KEEPTTL"]);
        assert_eq!(ask(&["TTL", "k"]), int(-1), "it is kept that there is none");
        assert_eq!(ask(&["PEXPIRE", "k", "200"]), int(1));
        let deadline = Instant::now() + PATIENCE;
        while ask(&["EXISTS", "k"]) == int(1) {
            assert!(Instant::now() < deadline, "it does not expire");
        }
        for node in &cluster.nodes {
            let client = redis::Client::open(format!("redis://{}/", node.text)).unwrap();
            let mut connection = client.get_connection().unwrap();
            redis::cmd("RD.BUCKET").arg("sessions").exec(&mut connection).unwrap();
            let nothing = redis::Value::Nil;
            for (words, expected) in [
                (&["GET", "k"][..], nothing.clone()),
                (&["MGET", "k"], redis::Value::Array(vec![nothing])),
                (&["EXISTS", "k", "k"], int(0)),
                (&["TTL", "k"], int(-2)),
                (&["EXPIRE", "k", "10"], int(0)),
            ] {
                let mut command = redis::cmd(words[0]);
                let found: redis::Value = command.arg(&words[1..]).query(&mut connection).unwrap();
                assert_eq!(found, expected, "{words:?}");
            }
        }
        let (found, _) = listed(&sessions, 0, async || {}).await;
        assert_eq!(found, BTreeSet::from(["stays".to_owned()]));
    }
}

/// Writes the same keys as others do at other nodes, at the same time.
fn write_beside_others(address: &str, value: usize) {
    let client = redis::Client::open(format!("redis://{address}/")).unwrap();
    let mut connection = client.get_connection().unwrap();
    redis::cmd("RD.BUCKET").arg("latest").exec(&mut connection).unwrap();
    for round in 0..300 {
        let key = format!("key-{}", round % 3);
        redis::cmd("SET").arg(key).arg(value).exec(&mut connection).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_last_write_wins_drops_is_counted_by_bucket_and_at_one_owner_only() {
    let _alone = alone().await;
    let cluster = Cluster::start(3);
    let client = cluster.client().await;
    let settings = BucketSettings { conflicts: Conflicts::LastWriteWins, ..Default::default() };
    client.create_bucket("latest", settings).await.unwrap();
    let mut discarded = 0;
    let deadline = Instant::now() + PATIENCE;
    let mut writes = 0;
    while discarded == 0 {
        assert!(Instant::now() < deadline, "no two writes met in {writes}");
        std::thread::scope(|scope| {
            for (value, node) in cluster.nodes.iter().enumerate() {
                scope.spawn(move || write_beside_others(&node.text, value));
            }
        });
        writes += 900;
        let tally = client.tallies().await.unwrap();
        let of = tally.buckets.iter().find(|of| of.bucket == "latest").unwrap();
        assert_eq!((of.keys, of.conflicts), (3, 0), "{of:?}");
        discarded = of.discarded;
    }
    println!("{discarded} versions of {writes} were dropped");
    assert!(discarded < writes);
    let by_node = cluster.nodes[0].counter("discarded_by_last_write_wins").await;
    println!("node 0 has dropped {by_node}");
}

/// `RINGDOVE_TOMBSTONES` says how many (`1000000` for the figure in the report).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_keys_are_passed_over_and_pages_of_nothing_but_them_go_on() {
    let deleted: usize =
        std::env::var("RINGDOVE_TOMBSTONES").map_or(40_000, |count| count.parse().unwrap());
    let _alone = alone().await;
    let cluster = Cluster::start(1);
    let bucket = cluster.client().await.bucket("default").unwrap();
    write(&bucket, deleted..deleted + 100).await;
    for first in (0..deleted).step_by(50_000) {
        let last = (first + 50_000).min(deleted);
        write(&bucket, first..last).await;
        delete(&bucket, first..last).await;
    }
    let began = Instant::now();
    let (found, seen) = listed(&bucket, 0, async || {}).await;
    println!("{seen} keys listed behind {deleted} deleted ones in {:?}", began.elapsed());
    assert!(found == expected(deleted..deleted + 100) && seen == 100, "{} keys", found.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_misses_no_key_while_a_dead_member_is_replaced_and_its_slots_have_no_owner() {
    const KEYS: usize = 3_000;
    let _alone = alone().await;
    // The newcomer copies one slot after the other, so that it takes a while.
    let slow = "[transfers]\nat_once = 1\n";
    let mut cluster = Cluster::start_with(3, slow);
    let newcomer = cluster.start_newcomer_with(slow);
    cluster.wait_log(newcomer, "known as a candidate").await;
    // Nobody compares, so that node 1 goes on lacking what it misses.
    let pause = ringdove(&cluster, 0, &["sync", "pause"]);
    assert!(pause.status.success(), "{}", String::from_utf8_lossy(&pause.stderr));
    cluster.nodes[1].kill();
    let through = Client::builder().seeds([cluster.nodes[2].frames.clone()]).only_seeds();
    let client = through.connect().await.unwrap();
    write(&client.bucket("default").unwrap(), 0..KEYS).await;
    // What was kept for node 1 is lost with node 2: node 0 alone has all keys.
    cluster.nodes[2].kill();
    cluster.nodes[1].start();
    cluster.wait_ready(1);
    cluster.nodes[1].wait_connected_to(&cluster.nodes[0].frames.clone()).await;
    // It fails for node 2, which is away.
    let pause = ringdove(&cluster, 1, &["sync", "pause"]);
    assert!(!pause.status.success(), "{pause:?}");

    let through = Client::builder().seeds([cluster.nodes[1].frames.clone()]).only_seeds();
    let client = through.connect().await.unwrap();
    let state = client.refresh().await.unwrap();
    let id = |name: &str| state.state().find(name).unwrap();
    let change = PlannedChange::Replace { dead: id("node-2") };
    let deadline = Instant::now() + PATIENCE;
    while client.stage_change(id("node-3"), change.clone(), false).await.is_err() {
        assert!(Instant::now() < deadline, "the others see that it is gone");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    client.commit_plan(None).await.unwrap();
    let mut open = 0;
    let count_open = async || {
        let topology = client.refresh().await.unwrap();
        let owners = |partition| {
            let partition = Partition(partition as u16);
            topology.primaries(partition, topology.read_scope("default", partition)).len()
        };
        open = (0..topology.partitions()).filter(|partition| owners(*partition) < 3).count();
    };
    let bucket = client.bucket("default").unwrap();
    let (found, _) = listed(&bucket, KEYS / 4, count_open).await;
    println!("a quarter was listed when slots of {open} partitions had no owner");
    assert!(open > 0, "it was over before the listing was");
    assert!(found == expected(0..KEYS), "{} keys", found.len());
}
