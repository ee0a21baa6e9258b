//! Load against servers whose misdeeds are known: what it measures and what its verification finds
//! must be exactly those.

mod command_line;
mod compared;
mod measured;
mod memory;
mod stub;
mod verified;

use std::path::Path;
use std::time::Duration;

use ringdove::load::record::{Summary, Verification};
use ringdove::load::schedule::Schedule;
use ringdove::load::target::{RedisTarget, Target};
use ringdove::load::verify;
use ringdove::load::workload::{Mix, Part, Workload};
use ringdove::load::{self, Directory, Manner, Pacing, Plan};
use stub::Stub;

const TIMEOUT: Duration = Duration::from_secs(5);

/// An open loop over a thousand keys, for so long at so many requests a second.
fn plan(mix: &str, rate: f64, measured: Duration) -> Plan {
    let mix: Mix = mix.parse().unwrap();
    let schedule = Schedule { rate, ramp: Duration::ZERO, warmup: Duration::ZERO, measured };
    Plan {
        workload: Workload {
            seed: 3,
            distribution: "uniform".parse().unwrap(),
            mix,
            keys: 1000,
            value_size: "64..256".parse().unwrap(),
        },
        part: Part::WHOLE,
        pacing: Pacing::Open { schedule, in_flight: 4096 },
        manner: Manner::Observed,
        writer: 0x1234,
        fill: false,
        timeout: TIMEOUT,
        ledger: None,
    }
}

/// Runs on one thread, as the command does.
fn on_one_thread<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

async fn run<T: Target>(target: &T, plan: &Plan, directory: Option<&mut Directory>) -> Summary {
    load::run(target, plan, directory, std::future::pending(), |_| {}).await.unwrap()
}

async fn redis(stub: &Stub) -> RedisTarget {
    RedisTarget::connect(std::slice::from_ref(&stub.address), 4, TIMEOUT).await.unwrap()
}

/// Runs with a ledger, and reads everything back after `between`.
async fn run_and_verify<T: Target>(
    target: &T,
    plan: &mut Plan,
    path: &Path,
    between: impl FnOnce(),
) -> (Summary, Verification) {
    plan.ledger = Some(("stub".to_owned(), "default".to_owned()));
    let mut directory = Directory::create(path).unwrap();
    let summary = run(target, plan, Some(&mut directory)).await;
    load::directory::write_summary(path, &summary).unwrap();
    between();
    let found = verify::verify(target, &[path.to_owned()], |_| {}).await.unwrap();
    let written = load::directory::read_summary(path).unwrap();
    assert_eq!(written.verification.as_ref(), Some(&found));
    (summary, found)
}
