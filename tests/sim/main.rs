//! The simulator: the production state machines on a simulated network, disks and clocks.
//! `docs/SIMULATION.md` says what is simulated, what is checked and how to read a failure.
//!
//! ```text
//! sim                                      the tests: what `cargo test` runs
//! sim SEED [--dump FILE] [--plant BUG]     one seed, in detail
//! sim --seeds N [--start SEED] [--jobs J]  a search
//! ```

mod check;
mod clients;
mod disk;
mod faults;
mod history;
mod members;
mod network;
mod node;
mod plan;
mod reap;
mod report;
mod run;
mod suite;
mod sync;
mod transfers;
mod world;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use plan::Bug;
use report::Verdict;

/// What the command line asks for.
#[derive(Default)]
struct Arguments {
    seed: Option<u64>,
    seeds: Option<u64>,
    start: Option<u64>,
    jobs: Option<u64>,
    dump: Option<String>,
    plant: Option<Bug>,
    list: bool,
    /// Only tests with this in their name.
    filter: Option<String>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!(
                "{why}\nusage: sim [SEED [--dump FILE] | --seeds N [--start SEED] [--jobs J]] [--plant BUG]"
            );
            return ExitCode::from(2);
        }
    };
    let jobs = arguments.jobs.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
    });
    let good = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => one(seed, &arguments),
        (None, Some(count)) => {
            let start = arguments.start.unwrap_or(1);
            search(&(start..start + count).collect::<Vec<u64>>(), arguments.plant, jobs)
        }
        (None, None) if arguments.list => suite::list(),
        (None, None) => suite::run(arguments.filter.as_deref(), jobs),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments::default();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = |what: &str| {
            arguments.next().ok_or_else(|| format!("{argument} wants {what} behind it"))
        };
        let number =
            |text: String| text.parse().map_err(|_| format!("{text:?} is not a whole number"));
        match argument.as_str() {
            "--seeds" => parsed.seeds = Some(number(value("how many")?)?),
            "--start" => parsed.start = Some(number(value("a seed")?)?),
            "--jobs" => parsed.jobs = Some(number(value("how many at once")?)?.max(1)),
            "--dump" => parsed.dump = Some(value("a file")?),
            "--plant" => parsed.plant = Some(planted(&value("the name of a bug")?)?),
            "--list" => parsed.list = true,
            // Words for the standard harness, which `cargo test` passes to every test.
            "--quiet" | "-q" | "--nocapture" | "--no-capture" | "--exact" | "--ignored"
            | "--include-ignored" | "--show-output" => {}
            "--test-threads" | "--format" | "--color" | "--skip" => drop(value("a value")?),
            other if other.starts_with('-') && !other.contains('=') => {
                return Err(format!("unknown option {other}"));
            }
            other if other.starts_with('-') => {}
            other => match other.parse() {
                Ok(seed) => parsed.seed = Some(seed),
                Err(_) => parsed.filter = Some(other.to_owned()),
            },
        }
    }
    Ok(parsed)
}

fn planted(name: &str) -> Result<Bug, String> {
    let bugs = Bug::ALL.iter().map(|(bug, _)| *bug);
    let names: Vec<String> = bugs.clone().map(|bug| format!("{bug:?}")).collect();
    let found = bugs.into_iter().find(|bug| format!("{bug:?}").eq_ignore_ascii_case(name));
    found.ok_or_else(|| format!("no bug {name:?}; there are {}", names.join(" ")))
}

/// One seed, in detail.
fn one(seed: u64, arguments: &Arguments) -> bool {
    let verdict = report::judge(seed, arguments.plant);
    println!("{}", verdict.history.lines.first().map_or("", String::as_str).trim_start());
    println!("{}", verdict.summary());
    let made_twice = verdict.twice_made_details();
    if !made_twice.is_empty() {
        print!("writes made twice, seen again (a known limit, no failure):\n{made_twice}");
    }
    if let Some(file) = &arguments.dump {
        match std::fs::write(file, verdict.history.text()) {
            Ok(()) => println!("history: {file}"),
            Err(error) => eprintln!("cannot write {file}: {error}"),
        }
    }
    if verdict.is_ok() {
        println!("seed {seed} holds every property");
    } else {
        print!("{}", verdict.failure());
    }
    verdict.is_ok()
}

/// Many seeds, several at once. Prints failures as they come and a summary at the end.
fn search(seeds: &[u64], plant: Option<Bug>, jobs: u64) -> bool {
    let began = Instant::now();
    let failed = Mutex::new(Vec::new());
    let (done, ops) = (AtomicU64::new(0), AtomicU64::new(0));
    let twice = AtomicU64::new(0);
    let is_terminal = std::io::stderr().is_terminal();
    each(seeds, plant, jobs, |verdict| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        ops.fetch_add(verdict.history.ops.len() as u64, Ordering::Relaxed);
        twice.fetch_add(u64::from(!verdict.twice_made.is_empty()), Ordering::Relaxed);
        let mut failed = failed.lock().expect("printing does not panic");
        if !verdict.is_ok() {
            failed.push(verdict.seed);
            print!("{}", verdict.failure());
        }
        let rate = done as f64 / began.elapsed().as_secs_f64();
        let line =
            format!("{done} of {} seeds, {} failed, {rate:.1} seeds/s", seeds.len(), failed.len());
        if is_terminal {
            eprint!("\r{line}   ");
            let _ = std::io::stderr().flush();
        } else if done % 25 == 0 {
            println!("{line}");
        }
    });
    if is_terminal {
        eprintln!();
    }
    let mut failed = failed.into_inner().expect("printing does not panic");
    failed.sort_unstable();
    println!(
        "{} seeds, {} client operations, {:.1} s, {:.1} seeds/s: {} failed {failed:?}; in {} a write \
         made twice was seen again",
        seeds.len(),
        ops.into_inner(),
        began.elapsed().as_secs_f64(),
        seeds.len() as f64 / began.elapsed().as_secs_f64(),
        failed.len(),
        twice.into_inner(),
    );
    failed.is_empty()
}

/// Judges seeds in `jobs` threads. A run that panics is a defect of the product or of the
/// simulator: its seed is named before the panic goes on.
fn each(seeds: &[u64], plant: Option<Bug>, jobs: u64, then: impl Fn(Verdict) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match std::panic::catch_unwind(|| report::judge(*seed, plant)) {
                        Ok(verdict) => then(verdict),
                        Err(panic) => {
                            println!("seed {seed} panicked; replay it: ./scripts/dev sim {seed}");
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
}
