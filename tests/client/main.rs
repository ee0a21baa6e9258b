//! The client against fake nodes that behave well, badly, or not at all.
#![cfg(feature = "client")]

mod fake;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fake::{Call, Cluster, contact, done, got};
use ringdove::client::{
    BucketSettings, Client, Context, Kind, Level, Outcome, Retry, Union, Values, direct,
};
use ringdove::ids::{NodeId, WriteId};
use ringdove::membership::Standing;
use ringdove::wire::messages::{
    self, Basis, Condition, Control, ControlReply, Expiry, Failure, FailureCode, Request, Response,
};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Waits for something that another task brings about.
async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(ms(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it never came about");
}

fn flag() -> (Arc<AtomicBool>, impl Fn() -> bool) {
    let flag = Arc::new(AtomicBool::new(false));
    let first_time = flag.clone();
    (flag, move || !first_time.swap(true, Ordering::SeqCst))
}

// -- one connection, many requests ------------------------------------------------------------

#[tokio::test]
async fn requests_share_one_connection_and_are_answered_in_any_order() {
    let held: Mutex<Vec<Call>> = Mutex::default();
    let cluster = Cluster::start(1, move |call| {
        let mut held = held.lock().unwrap();
        held.push(call);
        if held.len() == 100 {
            held.drain(..).rev().for_each(Call::succeed);
        }
    })
    .await;
    let client = cluster.builder().connect().await.unwrap();
    let bucket = client.bucket("default").unwrap();
    let keys: Vec<String> = (0..100).map(|index| format!("key-{index}")).collect();
    let answers = bucket.multi_get(&keys).concurrency(100).await;
    for (key, (name, read)) in keys.iter().zip(answers) {
        assert_eq!(name, key.as_bytes());
        assert_eq!(read.unwrap().one().unwrap().unwrap(), *key);
    }
    assert_eq!(cluster.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn futures_that_are_dropped_leave_their_room_to_others() {
    let (is_awake, _) = flag();
    let awake = is_awake.clone();
    let cluster = Cluster::start(1, move |call| {
        if awake.load(Ordering::SeqCst) {
            call.succeed();
        }
    })
    .await;
    let client = cluster.builder().operation_timeout(ms(3000)).connect().await.unwrap();
    let bucket = client.bucket("default").unwrap();
    for _ in 0..3 {
        // As many as fit on one connection, all given up while they are under way.
        let reads = (0..1024).map(|_| tokio::spawn(bucket.get("k").into_future()));
        let reads: Vec<_> = reads.collect();
        let mut seen = 0;
        while seen < 1024 {
            seen += cluster.calls().len();
            tokio::time::sleep(ms(1)).await;
        }
        reads.iter().for_each(|read| read.abort());
        for read in reads {
            assert!(read.await.unwrap_err().is_cancelled());
        }
    }
    is_awake.store(true, Ordering::SeqCst);
    assert!(bucket.get("k").await.is_ok());
}

#[tokio::test]
async fn connections_close_with_the_last_handle() {
    let cluster = Cluster::start(1, Call::succeed).await;
    let client = cluster.builder().connect().await.unwrap();
    let bucket = client.bucket("default").unwrap();
    drop(client);
    assert!(bucket.get("k").await.is_ok());
    assert_eq!(cluster.open.load(Ordering::SeqCst), 1);
    drop(bucket);
    until(|| cluster.open.load(Ordering::SeqCst) == 0).await;
}

// -- where requests go --------------------------------------------------------------------------

#[tokio::test]
async fn a_request_goes_to_the_first_replica_of_its_key() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let cluster = Cluster::start(5, move |call| {
        log.lock().unwrap().push(call.node);
        call.succeed();
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    for index in 0..50 {
        let key = format!("key-{index}");
        assert!(bucket.get(&key).await.is_ok());
        assert_eq!(asked.lock().unwrap().pop().unwrap(), cluster.primaries(&key)[0]);
    }
}

#[tokio::test]
async fn a_write_moves_on_from_a_draining_node_under_the_same_id() {
    let (_, is_first) = flag();
    let cluster = Cluster::start(3, move |call| match is_first() {
        true => call.fail(FailureCode::Draining),
        false => call.succeed(),
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let written = bucket.put("k", "v").blind().w(2).pw(1).await.unwrap();
    let puts = cluster.puts();
    assert_eq!(puts.len(), 2);
    assert_eq!(puts[0].write_id, puts[1].write_id);
    assert_eq!(puts[0].write_id, written.write_id);
    assert_eq!((puts[0].attempt, puts[1].attempt), (0, 1));
    assert_eq!((puts[0].w, puts[0].pw), (Level::Count(2), Level::Count(1)));
}

#[tokio::test]
async fn a_connection_that_breaks_fails_all_on_it_at_once_and_all_move_on() {
    let first = Arc::new(AtomicUsize::new(usize::MAX));
    let (broken, held) = (first.clone(), Mutex::new(Vec::new()));
    let cluster = Cluster::start(3, move |call| {
        if call.node != broken.load(Ordering::SeqCst) {
            return call.succeed();
        }
        let mut held = held.lock().unwrap();
        held.push(call);
        if held.len() == 40 {
            held.pop().unwrap().close();
        }
    })
    .await;
    first.store(cluster.primaries("k")[0], Ordering::SeqCst);
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let begun = Instant::now();
    let writes = (0..40).map(|_| bucket.put("k", "v").blind());
    let answers = bucket.multi_put(writes).await;
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
    assert!(begun.elapsed() < ms(1500), "nobody waited for a timeout");
    let puts = cluster.puts();
    assert_eq!(puts.len(), 80);
    for put in puts.iter().filter(|put| put.attempt == 0) {
        let again = puts.iter().filter(|other| other.write_id == put.write_id).count();
        assert_eq!(again, 2);
    }
}

#[tokio::test]
async fn a_node_that_goes_away_answers_what_is_under_way_and_gets_nothing_new() {
    let first = Arc::new(AtomicUsize::new(usize::MAX));
    let (leaving, held) = (first.clone(), Arc::new(Mutex::new(Vec::new())));
    let under_way = held.clone();
    let cluster = Cluster::start(3, move |call| {
        if call.node != leaving.load(Ordering::SeqCst) {
            return call.succeed();
        }
        call.go_away();
        under_way.lock().unwrap().push(call);
    })
    .await;
    first.store(cluster.primaries("k")[0], Ordering::SeqCst);
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let early = tokio::spawn(bucket.get("k").into_future());
    until(|| held.lock().unwrap().len() == 1).await;
    // The farewell is on its way; once it is read, requests go elsewhere.
    tokio::time::sleep(ms(50)).await;
    for _ in 0..10 {
        assert!(bucket.get("k").await.is_ok());
    }
    let mut held: Vec<Call> = held.lock().unwrap().drain(..).collect();
    assert_eq!(held.len(), 1);
    held.pop().unwrap().succeed();
    assert_eq!(early.await.unwrap().unwrap().one().unwrap().unwrap(), "k");
}

#[tokio::test]
async fn the_only_node_is_asked_again_on_a_new_connection_after_it_went_away() {
    let (_, is_first) = flag();
    let cluster = Cluster::start(1, move |call| {
        if is_first() {
            call.go_away();
        }
        call.succeed();
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    for _ in 0..3 {
        assert!(bucket.get("k").await.is_ok());
        tokio::time::sleep(ms(20)).await;
    }
    assert_eq!(cluster.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_silent_node_is_waited_for_once_and_then_passed_by() {
    let first = Arc::new(AtomicUsize::new(usize::MAX));
    let silent = first.clone();
    let cluster = Cluster::start(3, move |call| {
        if call.node != silent.load(Ordering::SeqCst) {
            call.succeed();
        }
    })
    .await;
    first.store(cluster.primaries("k")[0], Ordering::SeqCst);
    let builder = cluster.builder().attempt_timeout(ms(300));
    let bucket = builder.connect().await.unwrap().bucket("default").unwrap();
    assert!(bucket.get("k").await.is_ok());
    assert_eq!(cluster.calls().len(), 2);
    let begun = Instant::now();
    assert!(bucket.get("k").await.is_ok());
    assert!(begun.elapsed() < ms(40), "the silent node is tried again after 50 ms, not before");
    assert_eq!(cluster.calls().len(), 1);
}

#[tokio::test]
async fn a_node_without_a_sign_of_life_delays_nobody_for_long_and_a_slow_one_may_be_slow() {
    let first = Arc::new(AtomicUsize::new(usize::MAX));
    let slow = first.clone();
    let cluster = Cluster::start(3, move |call| match call.node == slow.load(Ordering::SeqCst) {
        false => call.succeed(),
        true => drop(tokio::spawn(async move {
            tokio::time::sleep(ms(250)).await;
            call.succeed();
        })),
    })
    .await;
    first.store(cluster.primaries("k")[0], Ordering::SeqCst);
    let builder = cluster.builder().silence(ms(100));
    let bucket = builder.connect().await.unwrap().bucket("default").unwrap();
    let begun = Instant::now();
    assert!(bucket.get("k").await.is_ok());
    assert!(begun.elapsed() >= ms(250), "it answers pings, so it is waited for");
    assert_eq!(cluster.calls().len(), 1);

    cluster.is_hung.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let both = tokio::join!(bucket.get("k"), bucket.get("k").r(2));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert!(begun.elapsed() < ms(240), "{:?}", begun.elapsed());
    assert_eq!(cluster.calls().len(), 4, "what waited went to another node");
    assert!(bucket.get("k").await.is_ok());
    assert_eq!(cluster.calls().len(), 1, "it is passed by");
    let opened = cluster.connections.load(Ordering::SeqCst);
    let back = async {
        while cluster.connections.load(Ordering::SeqCst) == opened {
            let begun = Instant::now();
            assert!(bucket.get("k").await.is_ok());
            assert!(begun.elapsed() < ms(90), "nobody waits while it is tried again");
        }
    };
    tokio::time::timeout(Duration::from_secs(5), back).await.expect("it is tried again");
}

#[tokio::test]
async fn an_impatient_caller_says_nothing_about_the_node() {
    let (is_awake, _) = flag();
    let awake = is_awake.clone();
    let cluster = Cluster::start(2, move |call| {
        if awake.load(Ordering::SeqCst) {
            call.succeed();
        }
    })
    .await;
    let builder = cluster.builder().attempt_timeout(ms(200));
    let bucket = builder.connect().await.unwrap().bucket("default").unwrap();
    tokio::time::sleep(ms(210)).await;
    assert!(bucket.get("k").timeout(ms(20)).await.is_err());
    is_awake.store(true, Ordering::SeqCst);
    let opened = cluster.connections.load(Ordering::SeqCst);
    cluster.calls();
    assert!(bucket.get("k").await.is_ok());
    assert_eq!((cluster.calls().len(), cluster.connections.load(Ordering::SeqCst)), (1, opened));
}

#[tokio::test]
async fn news_in_receipts_are_looked_up_once_and_followed() {
    let cluster = Cluster::start(3, Call::succeed).await;
    let client = cluster.builder().seed("127.0.0.1:1").connect().await.unwrap();
    let bucket = client.bucket("default").unwrap();
    assert_eq!(cluster.lookups.load(Ordering::SeqCst), 1);
    let gone = NodeId(cluster.primaries("k")[0] as u128);
    {
        let mut state = cluster.state.lock().unwrap();
        let entry = state.members.get_mut(&gone).unwrap();
        entry.standing = Standing::Removed;
    }
    tokio::time::sleep(ms(110)).await;
    let keys: Vec<String> = (0..200).map(|index| format!("key-{index}")).collect();
    assert!(bucket.multi_get(&keys).await.iter().all(|(_, read)| read.is_ok()));
    until(|| client.topology().state().serving().count() == 2).await;
    assert_eq!(cluster.lookups.load(Ordering::SeqCst), 2);
    assert_eq!(client.topology().version(), cluster.state.lock().unwrap().version());
    assert_eq!(client.refresh().await.unwrap().version(), client.topology().version());
}

#[tokio::test]
async fn states_that_keep_differing_do_not_turn_every_answer_into_a_lookup() {
    let cluster = Cluster::start(1, |call| {
        let mut version = call.version();
        version.hash ^= 1;
        call.answer(got(version, &[]));
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < ms(350) {
        assert!(bucket.get("k").await.is_ok());
    }
    let lookups = cluster.lookups.load(Ordering::SeqCst);
    assert!((2..=5).contains(&lookups), "{lookups}");
}

// -- outcomes -----------------------------------------------------------------------------------

#[tokio::test]
async fn a_write_that_is_lost_each_time_is_unknown_and_named() {
    let cluster = Cluster::start(1, Call::close).await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let error = bucket.put("k", "v").blind().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Lost, Outcome::Unknown));
    assert_eq!((error.attempts(), error.retry()), (3, Retry::NextNode));
    assert_eq!(error.node(), Some(cluster.addresses[0].as_str()));
    let puts = cluster.puts();
    assert_eq!(puts.iter().map(|put| put.attempt).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(puts.iter().all(|put| Some(put.write_id) == error.write_id()));
    // The same read changes nothing.
    let error = bucket.get("k").await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Lost, Outcome::NotApplied));
}

#[tokio::test]
async fn after_perhaps_a_refusal_does_not_say_no() {
    let (_, is_first) = flag();
    let cluster = Cluster::start(3, move |call| match is_first() {
        true => call.close(),
        false => call.fail(FailureCode::TooLarge),
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let error = bucket.put("k", "v").blind().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::TooLarge, Outcome::Unknown));
    let error = bucket.put("k", "v").blind().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::TooLarge, Outcome::NotApplied));
    let error = bucket.put("k", "v").blind().write_id(WriteId(7)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "an earlier operation may have sent it");
}

#[tokio::test]
async fn a_write_that_is_carried_on_is_sent_as_a_repetition() {
    let cluster = Cluster::start(1, Call::succeed).await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let written = bucket.put("k", "v").blind().write_id(WriteId(7)).await;
    assert_eq!(Outcome::of(&written), Outcome::Applied);
    let put = &cluster.puts()[0];
    assert_eq!((put.write_id, put.attempt), (WriteId(7), 1));
}

#[tokio::test]
async fn what_a_node_reports_reaches_the_caller() {
    let cluster = Cluster::start(1, |call| {
        let mut failure = Failure::not_applied(FailureCode::Unknown, "two are silent");
        failure.outcome = messages::Outcome::Unknown;
        (failure.acks, failure.needed) = (1, 3);
        call.answer(Response::Failed(failure));
    })
    .await;
    let builder = cluster.builder().attempts(1);
    let bucket = builder.connect().await.unwrap().bucket("default").unwrap();
    let error = bucket.put("k", "v").create_only().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unconfirmed, Outcome::Unknown));
    assert_eq!(error.acks(), (1, 3));
    assert!(error.to_string().contains("two are silent"), "{error}");
    assert!(error.to_string().contains(&error.write_id().unwrap().to_string()), "{error}");
}

// -- time and load ------------------------------------------------------------------------------

#[tokio::test]
async fn no_operation_outlives_its_deadline_and_the_nodes_are_told() {
    let cluster = Cluster::start(3, drop).await;
    let builder = cluster.builder().attempt_timeout(ms(120)).operation_timeout(ms(300));
    let bucket = builder.connect().await.unwrap().bucket("default").unwrap();
    let begun = Instant::now();
    let error = bucket.put("k", "v").blind().await.unwrap_err();
    let elapsed = begun.elapsed();
    assert!(elapsed >= ms(290) && elapsed < ms(400), "{elapsed:?}");
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown));
    let puts = cluster.puts();
    assert_eq!(puts.len(), 3);
    assert_eq!(puts[0].budget_ms, 105);
    assert!(puts[2].budget_ms <= 60, "{}", puts[2].budget_ms);
    let begun = Instant::now();
    let error = bucket.get("k").timeout(ms(40)).await.unwrap_err();
    assert!(begun.elapsed() < ms(100));
    assert_eq!(error.outcome(), Outcome::NotApplied);
    assert!(cluster.gets().iter().all(|get| get.budget_ms <= 35));
}

#[tokio::test]
async fn a_pause_that_would_end_behind_the_deadline_is_not_begun() {
    let cluster = Cluster::start(1, |call| {
        let mut failure = Failure::not_applied(FailureCode::Busy, "come back later");
        failure.retry_after_ms = 60_000;
        call.answer(Response::Failed(failure));
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let begun = Instant::now();
    let error = bucket.get("k").await.unwrap_err();
    assert!(begun.elapsed() < ms(500));
    assert_eq!(error.retry(), Retry::After(Duration::from_secs(60)));
    assert_eq!(cluster.calls().len(), 1);
}

#[tokio::test]
async fn the_retry_budget_ends_a_storm() {
    let cluster = Cluster::start(3, |call| call.fail(FailureCode::Unavailable)).await;
    let client = cluster.builder().retries(10, 5).connect().await.unwrap();
    let bucket = client.bucket("default").unwrap();
    for _ in 0..100 {
        assert_eq!(bucket.get("k").await.unwrap_err().kind(), Kind::Unavailable);
    }
    // One request for each operation, the reserve, and a tenth.
    let sent = cluster.calls().len();
    assert!((110..=115).contains(&sent), "{sent}");
}

#[tokio::test]
async fn at_most_as_many_are_under_way_as_was_said() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (count, peak) = (under_way.clone(), most.clone());
    let cluster = Cluster::start(1, move |call| {
        peak.fetch_max(count.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let count = count.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ms(2)).await;
            count.fetch_sub(1, Ordering::SeqCst);
            call.succeed();
        });
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let writes = (0..100).map(|index| bucket.put(format!("{index}"), "v").create_only());
    let answers = bucket.multi_put(writes).concurrency(8).await;
    assert_eq!(answers.len(), 100);
    assert_eq!(most.load(Ordering::SeqCst), 8);
}

// -- nodes that misbehave -------------------------------------------------------------------------

#[tokio::test]
async fn a_malformed_frame_ends_the_connection_and_nothing_else() {
    let (_, is_first) = flag();
    let cluster = Cluster::start(1, move |call| match is_first() {
        true => call.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        false => call.succeed(),
    })
    .await;
    let bucket = cluster.builder().attempts(1).connect().await.unwrap().bucket("default").unwrap();
    let error = bucket.get("k").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol, "{error}");
    assert!(bucket.get("k").await.is_ok());
    assert_eq!(cluster.connections.load(Ordering::SeqCst), 2);
    until(|| cluster.open.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_ends_the_connection() {
    let (_, is_first) = flag();
    let cluster = Cluster::start(1, move |call| match is_first() {
        true => call.answer_nonsense(),
        false => call.succeed(),
    })
    .await;
    let bucket = cluster.builder().attempts(1).connect().await.unwrap().bucket("default").unwrap();
    assert_eq!(bucket.get("k").await.unwrap_err().kind(), Kind::Protocol);
    assert!(bucket.get("k").await.is_ok());
    assert_eq!(cluster.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_to_another_question_is_an_error_and_a_write_unknown() {
    let cluster = Cluster::start(1, |call| call.answer(Response::Control(ControlReply::Ok))).await;
    let bucket = cluster.builder().attempts(1).connect().await.unwrap().bucket("default").unwrap();
    assert_eq!(bucket.get("k").await.unwrap_err().kind(), Kind::Protocol);
    let error = bucket.put("k", "v").blind().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::Unknown));
}

#[tokio::test]
async fn seeds_that_are_no_nodes_say_what_they_are_within_the_connect_timeout() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute_address = mute.local_addr().unwrap().to_string();
    let builder = Client::builder().seed("127.0.0.1:1").seed(&mute_address).connect_timeout(ms(80));
    let begun = Instant::now();
    let error = builder.connect().await.unwrap_err();
    assert!(begun.elapsed() < ms(500));
    assert_eq!(error.kind(), Kind::Connect);
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("is the node running"), "{text}");
    assert!(text.contains(&mute_address) && text.contains("no connection within"), "{text}");
}

#[tokio::test]
async fn a_cluster_that_is_gone_fails_at_once_and_is_found_again_when_it_is_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap().to_string();
    drop(listener);
    let cluster = Cluster::start(1, Call::succeed).await;
    let client = cluster.builder().connect().await.unwrap();
    {
        // The only member moves to an address where nobody is.
        let mut state = cluster.state.lock().unwrap();
        let entry = state.members.get_mut(&NodeId(0)).unwrap();
        entry.contact.set(contact(0, &gone));
    }
    client.refresh().await.unwrap();
    // The seed still answers.
    assert!(client.bucket("default").unwrap().get("k").await.is_ok());
}

// -- reads, writes, updates -----------------------------------------------------------------------

#[tokio::test]
async fn each_way_to_write_says_what_it_builds_on() {
    let cluster = Cluster::start(1, Call::succeed).await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let context: Context = "token".parse().unwrap();
    bucket.put("k", "v").context(&context).ttl(ms(1500)).await.unwrap();
    bucket.put("k", "v").create_only().await.unwrap();
    bucket.put("k", "v").observed().await.unwrap();
    bucket.put("k", "v").blind().await.unwrap();
    bucket.delete("k").context(&context).await.unwrap();
    bucket.delete("k").observed().await.unwrap();
    let seen = Basis::Context(Bytes::from_static(b"token"));
    let expected = [
        (seen.clone(), Condition::None, true),
        (Basis::Observed, Condition::Absent, true),
        (Basis::Observed, Condition::None, true),
        (Basis::Blind, Condition::None, true),
        (seen, Condition::None, false),
        (Basis::Observed, Condition::None, false),
    ];
    let puts = cluster.puts();
    let actual = puts.iter().map(|p| (p.basis.clone(), p.condition, p.value.is_some()));
    assert_eq!(actual.collect::<Vec<_>>(), expected);
    assert_eq!(puts[0].expiry, Expiry::After(1500));
    let ids: std::collections::BTreeSet<_> = puts.iter().map(|put| put.write_id).collect();
    assert_eq!(ids.len(), puts.len());
}

#[tokio::test]
async fn siblings_are_an_error_for_whoever_wants_one_value_and_merge_for_whoever_resolves() {
    let cluster = Cluster::start(1, |call| {
        let values = [Bytes::from_static(b"a\nb\n"), Bytes::from_static(b"b\nc\n")];
        let answer = match &call.request {
            Request::Get(_) => got(call.version(), &values),
            _ => done(call.version()),
        };
        call.answer(answer);
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let read = bucket.get("k").await.unwrap();
    assert!(matches!(&read.values, Values::Many(siblings) if siblings.len() == 2));
    let error = read.one().unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(error.context().unwrap().to_string(), "seen");
    let updated =
        bucket.update("k", |values| values.resolve(&Union::of_lines())).w(3).await.unwrap();
    assert_eq!((updated.attempts, updated.written.is_some()), (1, true));
    let put = cluster.puts().pop().unwrap();
    assert_eq!(put.basis, Basis::Context(Bytes::from_static(b"seen")));
    assert_eq!((put.value.unwrap(), put.w), (Bytes::from_static(b"a\nb\nc\n"), Level::Count(3)));
}

#[tokio::test]
async fn an_update_begins_again_after_a_lost_race_but_not_after_an_unknown_write() {
    let (_, is_first) = flag();
    let cluster = Cluster::start(1, move |call| match &call.request {
        Request::Put(put) if put.key.name() == b"raced" && is_first() => {
            call.fail(FailureCode::Siblings);
        }
        Request::Put(put) if put.key.name() == b"lost" => call.close(),
        _ => call.succeed(),
    })
    .await;
    let bucket = cluster.builder().connect().await.unwrap().bucket("default").unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let count = || {
        let runs = runs.clone();
        move |_: &Values| format!("run {}", runs.fetch_add(1, Ordering::SeqCst))
    };
    let updated = bucket.update("raced", count()).attempts(5).await.unwrap();
    assert_eq!((updated.attempts, runs.swap(0, Ordering::SeqCst)), (2, 2));
    assert_eq!(cluster.puts().pop().unwrap().value.unwrap(), "run 1");
    let error = bucket.update("lost", count()).attempts(5).await.unwrap_err();
    assert_eq!((error.outcome(), runs.load(Ordering::SeqCst)), (Outcome::Unknown, 1));
    let kept = bucket.update("kept", |_| None::<Bytes>).await.unwrap();
    assert!(kept.written.is_none());
}

#[tokio::test]
async fn names_that_no_key_can_have_are_refused_without_asking() {
    let cluster = Cluster::start(1, Call::succeed).await;
    let client = cluster.builder().connect().await.unwrap();
    assert_eq!(client.bucket("no spaces").unwrap_err().kind(), Kind::Key);
    let bucket = client.bucket("default").unwrap();
    assert_eq!(bucket.get("").await.unwrap_err().kind(), Kind::Key);
    let answers = bucket.multi_get(["", "k"]).await;
    assert!(answers[0].1.is_err() && answers[1].1.is_ok());
    let large = vec![0; ringdove::limits::VALUE_BYTES_HARD + 1];
    assert_eq!(bucket.put("k", large).blind().await.unwrap_err().kind(), Kind::TooLarge);
    assert!(cluster.puts().is_empty());
}

// -- the cluster itself ---------------------------------------------------------------------------

#[tokio::test]
async fn a_bucket_that_is_there_with_the_same_settings_is_created_once_more_without_complaint() {
    let cluster = Cluster::start(1, |call| call.fail(FailureCode::Exists)).await;
    let client = cluster.builder().connect().await.unwrap();
    assert!(client.create_bucket("default", BucketSettings::default()).await.is_ok());
    let other = BucketSettings { n: 5, ..BucketSettings::default() };
    let error = client.create_bucket("default", other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
}

#[tokio::test]
async fn a_bucket_the_client_knows_is_asked_for_again_where_it_is_still_news() {
    let (_, is_first) = flag();
    let cluster = Cluster::start(3, move |call| match is_first() {
        true => call.fail(FailureCode::NoBucket),
        false => call.succeed(),
    })
    .await;
    let client = cluster.builder().connect().await.unwrap();
    assert!(client.bucket("default").unwrap().get("k").await.is_ok());
    assert_eq!(cluster.calls().len(), 2);
}

#[tokio::test]
async fn one_given_node_is_asked_directly_and_once() {
    let cluster = Cluster::start(2, |call| call.fail(FailureCode::Unavailable)).await;
    let digest = Request::Control(Control::Digest);
    let error = direct::request(&cluster.addresses[1], &digest, ms(500)).await.unwrap_err();
    assert_eq!((error.kind(), error.node()), (Kind::Unavailable, Some(&*cluster.addresses[1])));
    assert_eq!(cluster.calls(), [digest]);
    until(|| cluster.open.load(Ordering::SeqCst) == 0).await;
}
