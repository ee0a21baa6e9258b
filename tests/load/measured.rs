//! Rates, percentiles, and what happens when a server does not answer.

use std::time::Duration;

use ringdove::load::directory::read_seconds;
use ringdove::load::record::Summary;
use ringdove::load::runner::NOT_SENT;
use ringdove::load::{Directory, Pacing};

use crate::stub::{Faults, Stub};
use crate::{on_one_thread, plan, redis, run};

const SECOND: Duration = Duration::from_secs(1);

fn percentile_ms(summary: &Summary, name: &str) -> f64 {
    summary.latency["all"].percentile_us[name] as f64 / 1000.0
}

fn assert_near(what: &str, is_ms: f64, expected_ms: f64) {
    // Timers, and other work on the machine; a generator that waits for answers is off by hundreds.
    assert!((is_ms - expected_ms).abs() < 40.0, "{what} is {is_ms} ms, not {expected_ms} ms");
}

#[test]
fn a_second_of_standstill_shows_in_the_percentiles_as_it_must() {
    let summary = on_one_thread(async {
        let stall = Some((SECOND, SECOND));
        let stub = Stub::start(Faults { stall, ..Faults::default() }).await;
        run(&redis(&stub).await, &plan("a", 1000.0, 4 * SECOND), None).await
    });
    assert_eq!((summary.due, summary.ok), (4000, 4000));
    // 1,000 of 4,000 requests were due during the standstill, one a millisecond, and the n-th from
    // its end waited for n ms. So 40 of 4,000 waited for more than 960 ms, and 400 for more than 600.
    assert_near("p99", percentile_ms(&summary, "99"), 960.0);
    assert_near("p99.9", percentile_ms(&summary, "99.9"), 996.0);
    assert_near("p90", percentile_ms(&summary, "90"), 600.0);
    assert_near("the longest", percentile_ms(&summary, "100"), 1000.0);
    assert_near("p50", percentile_ms(&summary, "50"), 0.0);
    // A mean that leaves out who had to wait would be near nothing: a quarter waited for half a
    // second on average.
    assert_near("mean", summary.latency["all"].mean_us / 1000.0, 125.0);
}

#[test]
fn a_closed_loop_sees_the_same_standstill_once_for_each_connection() {
    let summary = on_one_thread(async {
        let stall = Some((SECOND / 2, SECOND));
        let stub = Stub::start(Faults { stall, ..Faults::default() }).await;
        let mut plan = plan("c", 1.0, SECOND);
        plan.pacing = Pacing::Closed { workers: 4, warmup: Duration::ZERO, measured: 2 * SECOND };
        run(&redis(&stub).await, &plan, None).await
    });
    assert!(summary.ok > 1000 && summary.due == summary.ok, "{}", summary.ok);
    assert_near("p99", percentile_ms(&summary, "99"), 0.0);
    assert_near("the longest", percentile_ms(&summary, "100"), 1000.0);
}

#[test]
fn past_the_bound_requests_are_counted_and_the_rate_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let summary = on_one_thread(async {
        let stall = Some((SECOND / 2, SECOND));
        let stub = Stub::start(Faults { stall, ..Faults::default() }).await;
        let mut plan = plan("a", 1000.0, 2 * SECOND);
        let Pacing::Open { in_flight, .. } = &mut plan.pacing else { unreachable!() };
        *in_flight = 100;
        let mut directory = Directory::create(&path).unwrap();
        run(&redis(&stub).await, &plan, Some(&mut directory)).await
    });
    assert_eq!(summary.due, 2000);
    let not_sent = summary.failed[NOT_SENT];
    // Some more where this process is held up, and sends all that was due meanwhile at once.
    assert!((850..=1300).contains(&not_sent), "{not_sent}");
    assert_eq!(summary.ok + not_sent + summary.unknown, 2000);
    let seconds = read_seconds(&path).unwrap();
    assert_eq!(seconds.iter().map(|second| second.due).sum::<u64>(), 2000);
    assert!(seconds[..2].iter().all(|second| (800..=1200).contains(&second.due)));
}

#[test]
fn ramp_and_warm_up_are_sent_and_not_measured() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let summary = on_one_thread(async {
        let stub = Stub::start(Faults::default()).await;
        let mut plan = plan("a", 1000.0, SECOND);
        let Pacing::Open { schedule, .. } = &mut plan.pacing else { unreachable!() };
        (schedule.ramp, schedule.warmup) = (SECOND, SECOND / 2);
        let mut directory = Directory::create(&path).unwrap();
        run(&redis(&stub).await, &plan, Some(&mut directory)).await
    });
    assert_eq!((summary.due, summary.ok), (1000, 1000));
    assert!(summary.measured_ms.abs_diff(1000) <= 1, "{}", summary.measured_ms);
    let seconds = read_seconds(&path).unwrap();
    // Half of a second's requests in the ramp, 500 of warm-up, 1,000 that are measured.
    assert_eq!(seconds.iter().map(|second| second.due).sum::<u64>(), 2000);
    assert!((400..600).contains(&seconds[0].due), "{}", seconds[0].due);
    assert_eq!(summary.begun_ms, seconds[0].at_ms + 1500);
}

#[test]
fn a_server_that_never_answers_leaves_writes_unknown_and_reads_failed() {
    let summary = on_one_thread(async {
        let stall = Some((Duration::ZERO, 60 * SECOND));
        let stub = Stub::start(Faults { stall, ..Faults::default() }).await;
        let target = ringdove::load::target::RedisTarget::connect(
            std::slice::from_ref(&stub.address),
            2,
            SECOND / 2,
        );
        let mut plan = plan("a", 200.0, SECOND);
        plan.timeout = SECOND / 2;
        run(&target.await.unwrap(), &plan, None).await
    });
    assert_eq!((summary.due, summary.ok), (200, 0));
    assert_eq!(summary.unknown + summary.failed["timeout"], 200);
    assert!(summary.unknown > 60 && summary.failed["timeout"] > 60);
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_request() {
    let summary = on_one_thread(async {
        let stall = Some((SECOND / 4, SECOND));
        let stub = Stub::start(Faults { stall, ..Faults::default() }).await;
        let hosts = std::slice::from_ref(&stub.address);
        let target = ringdove::load::target::RedisTarget::connect(hosts, 2, SECOND / 4);
        let mut plan = plan("a", 100.0, 2 * SECOND);
        let workers = 2;
        plan.pacing = Pacing::Closed { workers, warmup: Duration::ZERO, measured: 2 * SECOND };
        run(&target.await.unwrap(), &plan, None).await
    });
    // Each of the two connections gives up a request every quarter of a second, until the server
    // goes on; then each answer belongs to its own request again.
    let given_up = summary.unknown + summary.failed.values().sum::<u64>();
    assert!((4..=10).contains(&given_up), "{given_up}");
    assert!(percentile_ms(&summary, "100") < 300.0, "{}", percentile_ms(&summary, "100"));
    assert!(summary.ok > 1000, "{}", summary.ok);
}

#[test]
fn the_same_seed_sends_the_same_requests() {
    let requests = |seed: u64| {
        on_one_thread(async {
            let stub = Stub::start(Faults::default()).await;
            let mut plan = plan("read=5,update=4,insert=2,delete=1,scan=1", 2000.0, SECOND / 4);
            plan.workload.seed = seed;
            let hosts = std::slice::from_ref(&stub.address);
            let target = ringdove::load::target::RedisTarget::connect(hosts, 1, SECOND);
            run(&target.await.unwrap(), &plan, None).await;
            stub.log()
        })
    };
    let first = requests(5);
    assert_eq!(first.len(), 500);
    assert_eq!(first, requests(5));
    assert_ne!(first, requests(6));
}
