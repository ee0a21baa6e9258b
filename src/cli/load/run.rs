//! `load`: a run.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Connected;
use super::args::Run;
use super::live::{self, Line};
use super::verify::{exit_of, read_back};
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::output::Form;
use crate::cli::quantity::{exact_span, level};
use crate::load::directory::write_summary;
use crate::load::record::Summary;
use crate::load::schedule::Schedule;
use crate::load::stamp::STAMP_BYTES;
use crate::load::target::{Address, Scheme};
use crate::load::workload::Workload;
use crate::load::{self, Directory, Manner, Pacing, Plan};

/// Requests at a time in a closed loop: what redis-benchmark has.
const WORKERS: u16 = 50;
/// Connections of an open loop to a Redis server.
const CONNECTIONS: u16 = 8;

pub(super) async fn run(asked: &Run, form: Form) -> Ending {
    let address = asked.whom.address(None);
    check(asked, &address)?;
    let bucket = asked.work.bucket.as_deref().unwrap_or("default");
    let target =
        super::connect(&address, &asked.whom, bucket, connections(asked, &address)).await?;
    let directory = asked.kept.output.as_deref().map(Directory::create).transpose()?;
    let plan = plan(asked, &address, bucket);
    let mut summary = carry_out(&target, &plan, directory).await?;
    summary.label.clone_from(&asked.kept.label);
    summary.program = concat!("ringdove ", env!("CARGO_PKG_VERSION")).to_owned();
    summary.settings = settings(asked, &address, bucket);
    let mut exit = Exit::Done;
    if let Some(directory) = &asked.kept.output {
        write_summary(directory, &summary)?;
        if asked.kept.verify {
            let found = read_back(&target, &[PathBuf::from(directory)]).await?;
            exit = exit_of(&found);
            summary.verification = Some(found);
        }
    }
    let mut text = live::summary(&summary);
    if let Some(found) = &summary.verification {
        text += &live::verification(found);
    }
    form.answer(&text, || json!(summary))?;
    Ok(exit)
}

async fn carry_out(
    target: &Connected,
    plan: &Plan,
    mut directory: Option<Directory>,
) -> Result<Summary, Failure> {
    let line = Line::new();
    let tell = |progress: &load::Progress<'_>| line.progress(progress);
    if plan.fill {
        line.show("writing every key once");
    }
    let (directory, stop) = (directory.as_mut(), interrupted());
    let ran = match target {
        Connected::Ringdove(target) => load::run(target, plan, directory, stop, tell).await,
        Connected::Redis(target) => load::run(target, plan, directory, stop, tell).await,
    };
    line.end();
    Ok(ran?)
}

/// Waits for Ctrl-C or SIGTERM, which end a run early and in order.
async fn interrupted() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// Refuses what cannot work, before anything is sent.
fn check(asked: &Run, address: &Address) -> Result<(), Failure> {
    let Run { work, pace, kept, .. } = asked;
    let keeps_ledger = kept.verify || kept.verify_later;
    let (message, hint) = if !(pace.rate > 0.0 && pace.rate <= 10_000_000.0) {
        ("--rate is above 0 and at most 10000000", "write --rate 1000")
    } else if keeps_ledger && work.value_size.least() < STAMP_BYTES {
        (
            "with --verify a value says who wrote it and when, in 55 bytes, and --value-size \
             allows shorter ones",
            "write --value-size 55 or more",
        )
    } else if kept.verify && pace.part.count() > 1 {
        (
            "--verify would read back what the other parts of this run have written",
            "write --verify-later, and `ringdove load verify DIR DIR …` when all have ended",
        )
    } else if address.scheme == Scheme::Redis && work.context != Manner::Observed {
        ("contexts are Ringdove's own", "leave --context away with redis://")
    } else {
        return Ok(());
    };
    Err(Failure::usage(message).hint(hint))
}

/// Connections to open, or clients.
fn connections(asked: &Run, address: &Address) -> usize {
    let default = match (address.scheme, asked.pace.closed) {
        // One connection to each node carries any number of requests.
        (Scheme::Ringdove, true) => return 1,
        (Scheme::Ringdove, false) => 1,
        (Scheme::Redis, true) => WORKERS,
        (Scheme::Redis, false) => CONNECTIONS,
    };
    asked.pace.connections.unwrap_or(default).into()
}

fn plan(asked: &Run, address: &Address, bucket: &str) -> Plan {
    let Run { work, pace, kept, whom, .. } = asked;
    let (measured, warmup) = (pace.duration, pace.warmup.unwrap_or_default());
    let pacing = if pace.closed {
        let workers = pace.connections.unwrap_or(WORKERS).into();
        Pacing::Closed { workers, warmup, measured }
    } else {
        let ramp = pace.ramp.unwrap_or_default();
        let schedule = Schedule { rate: pace.rate, ramp, warmup, measured };
        Pacing::Open { schedule, in_flight: pace.in_flight as usize }
    };
    let keeps_ledger = kept.verify || kept.verify_later;
    Plan {
        workload: Workload {
            seed: work.seed,
            mix: work.mix.clone(),
            distribution: work.distribution.unwrap_or(work.mix.distribution()),
            keys: work.keys,
            value_size: work.value_size,
        },
        part: pace.part,
        pacing,
        manner: work.context,
        writer: fresh_writer(),
        fill: work.fill,
        timeout: whom.timeout,
        ledger: keeps_ledger.then(|| (address.to_string(), bucket.to_owned())),
    }
}

/// 64 bits that stem from the operating system; never 0, which stands for somebody else.
fn fresh_writer() -> u64 {
    RandomState::new().hash_one(std::process::id()) | 1
}

/// Everything that was asked for, as it would be typed.
fn settings(asked: &Run, address: &Address, bucket: &str) -> BTreeMap<String, String> {
    let Run { work, pace, kept, whom, .. } = asked;
    let span = |span: Duration| exact_span(span.as_millis() as u64);
    let distribution = work.distribution.unwrap_or(work.mix.distribution());
    let mut settings = BTreeMap::from(
        [
            ("target", address.to_string()),
            ("bucket", bucket.to_owned()),
            ("mix", work.mix.to_string()),
            ("distribution", distribution.name().to_owned()),
            ("keys", work.keys.to_string()),
            ("value-size", work.value_size.to_string()),
            ("seed", work.seed.to_string()),
            ("context", work.context.name().to_owned()),
            ("connections", connections(asked, address).to_string()),
            ("duration", span(pace.duration)),
            ("part", pace.part.to_string()),
            ("timeout", span(whom.timeout)),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let mut add = |name: &str, value: Option<String>| {
        settings.extend(value.map(|value| (name.to_owned(), value)));
    };
    if pace.closed {
        add("closed", Some(String::new()));
        add("connections", Some(pace.connections.unwrap_or(WORKERS).to_string()));
    } else {
        add("rate", Some(pace.rate.to_string()));
        add("in-flight", Some(pace.in_flight.to_string()));
    }
    add("warmup", pace.warmup.map(span));
    add("ramp", pace.ramp.map(span));
    add("r", whom.r.map(level));
    add("w", whom.w.map(level));
    let flags = [
        ("strict", whom.strict),
        ("only-given", whom.only_given),
        ("fill", work.fill),
        ("verify", kept.verify),
        ("verify-later", kept.verify_later),
    ];
    for (name, _) in flags.into_iter().filter(|(_, given)| *given) {
        add(name, Some(String::new()));
    }
    settings
}
