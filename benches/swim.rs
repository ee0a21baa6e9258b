//! Failure detection at 100 and 1,000 nodes: false verdicts, detection times, bytes.
//!
//! The production state machine under simulated time, 30 minutes for each row, at 0, 1 and 5 %
//! loss. Every three minutes a node crashes, and comes back 90 seconds later. Run it by
//! `./scripts/dev swim`; with numbers, other sizes: `./scripts/dev swim 30`.

#[path = "../tests/swim/cluster.rs"]
mod cluster;

use std::time::Duration;

use cluster::Cluster;
use ringdove::membership::swim::{Settings, State};
use ringdove::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
const MINUTES: u32 = 30;
const LASTS: Duration = Duration::from_secs(10);

struct Figures {
    false_downs: usize,
    lasting: usize,
    renewals: u64,
    /// Until the first node knew of each crash, and until all did; sorted.
    first: Vec<Duration>,
    all: Vec<Duration>,
    unknown: usize,
    bytes: f64,
    view_bytes: f64,
    joined: Option<Duration>,
}

fn measure(count: usize, loss: u64, settings: Settings) -> Figures {
    let mut cluster = Cluster::new(count, count as u64 + loss, settings, loss);
    let joined = cluster.run_until_true(2 * MINUTE, Cluster::views_are_right);
    cluster.run_until(Instant(0) + 3 * MINUTE);
    let (bytes, views) = (cluster.count(|counters| counters.bytes_out), cluster.view_bytes);
    let (mut first, mut all, mut unknown) = (Vec::new(), Vec::new(), 0);
    for crash in 1..MINUTES / 3 {
        let victim = (crash as usize * 7919) % count;
        let at = cluster.now;
        cluster.crash(victim);
        cluster.run_for(MINUTE + MINUTE / 2);
        let seen =
            cluster.detected.iter().filter(|(_, about, when)| *about == victim && *when >= at);
        let mut times: Vec<Duration> = seen.map(|(.., when)| *when - at).collect();
        times.sort();
        first.extend(times.first());
        // Whoever knew already needs no telling: only the nodes that still see it up count.
        let is_up = |by: &usize| *by != victim && cluster.state(*by, victim) < State::Down;
        unknown += (0..count).filter(is_up).count();
        all.extend(times.last());
        cluster.restart(victim);
        cluster.run_for(MINUTE + MINUTE / 2);
    }
    first.sort();
    all.sort();
    let seconds = (cluster.now - Instant(0)).as_secs_f64() - 180.0;
    let rate = |bytes: u64| bytes as f64 / seconds / count as f64;
    let false_downs = cluster.all_false_downs();
    Figures {
        false_downs: false_downs.len(),
        lasting: false_downs.iter().filter(|verdict| verdict.lasted > LASTS).count(),
        renewals: cluster.count(|counters| counters.renewals),
        first,
        all,
        unknown,
        // Counters of crashed processes are gone with them; they are few.
        bytes: rate(cluster.count(|counters| counters.bytes_out).saturating_sub(bytes)),
        view_bytes: rate(cluster.view_bytes - views),
        joined,
    }
}

fn middle_and_last(times: &[Duration]) -> String {
    let seconds = |time: Option<&Duration>| time.map_or(f64::NAN, Duration::as_secs_f64);
    format!("{:.1} / {:.1}", seconds(times.get(times.len() / 2)), seconds(times.last()))
}

fn main() {
    // `cargo bench` and `cargo test` hand over flags of their own.
    let sizes: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![100, 1000] } else { sizes };
    let settings = Settings::default();
    println!("{settings:?}\n");
    println!(
        "| nodes | loss | false downs | over 10 s | renewals | first knows, median / worst s | \
              all know, median / worst s | bound s | never knew | gossip B/s a node | views B/s a node | joined s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for count in sizes {
        for loss in [0, 10, 50] {
            let began = std::time::Instant::now();
            let figures = measure(count, loss, settings);
            println!(
                "| {count} | {} % | {} | {} | {} | {} | {} | {:.1} | {} | {:.0} | {:.0} | {:.1} |",
                loss as f64 / 10.0,
                figures.false_downs,
                figures.lasting,
                figures.renewals,
                middle_and_last(&figures.first),
                middle_and_last(&figures.all),
                settings.detection_bound(count).as_secs_f64(),
                figures.unknown,
                figures.bytes,
                figures.view_bytes,
                figures.joined.map_or(f64::NAN, |time| time.as_secs_f64()),
            );
            eprintln!("{count} nodes at {loss} in 1,000: {:.0} s", began.elapsed().as_secs_f64());
        }
    }
}
