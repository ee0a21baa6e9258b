//! Counts: what was due, what came of it, how long it took. One second at a time for the plots, and
//! over the measured time for the summary.
//!
//! What always holds: over the measured time, due = ok + failed + unknown; a latency is that of a
//! request that was answered as asked, from when it was due.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::actor::{Done, micros};
use super::record::{Latency, Second, Summary};
use super::target::Failure;
use super::workload::Kind;

/// The longest latency that is told from longer ones: the longest a request may take.
const LATENCY_MOST_US: u64 = 130_000_000;
/// Digits to which latencies are kept.
const DIGITS: u8 = 3;
const PERCENTILES: [(&str, f64); 6] =
    [("50", 50.0), ("90", 90.0), ("99", 99.0), ("99.9", 99.9), ("99.99", 99.99), ("100", 100.0)];

/// A histogram of latencies in microseconds.
#[must_use]
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MOST_US, DIGITS).expect("the bounds are sound")
}

/// A distribution as it stands in a summary.
#[must_use]
pub fn latency_of(histogram: &Histogram<u64>) -> Latency {
    let percentile = |(name, at): (&str, f64)| (name.to_owned(), histogram.value_at_percentile(at));
    Latency {
        count: histogram.len(),
        mean_us: histogram.mean(),
        percentile_us: PERCENTILES.into_iter().map(percentile).collect(),
    }
}

/// The counts of a run.
pub(super) struct Tally {
    second: Counts,
    interval: Histogram<u64>,
    /// As `interval`, of what failed.
    refusals: Histogram<u64>,
    measured: Counts,
    by_kind: BTreeMap<Kind, Histogram<u64>>,
    all: Histogram<u64>,
    under_way: UnderWay,
}

/// Requests that are due and have not ended.
#[derive(Default)]
struct UnderWay {
    all: usize,
    measured_reads: u64,
    measured_writes: u64,
}

impl UnderWay {
    fn measured(&mut self, kind: Kind) -> &mut u64 {
        if kind.writes() { &mut self.measured_writes } else { &mut self.measured_reads }
    }
}

#[derive(Default)]
struct Counts {
    due: u64,
    ok: u64,
    failed: BTreeMap<&'static str, u64>,
    unknown: u64,
    siblings: u64,
}

impl Counts {
    fn add(&mut self, answer: Result<Done, Failure>) {
        match answer {
            Ok(done) => {
                self.ok += 1;
                self.siblings += u64::from(done.siblings);
            }
            Err(failure) if failure.is_unknown => self.unknown += 1,
            Err(failure) => *self.failed.entry(failure.name).or_default() += 1,
        }
    }

    fn failed(&self) -> BTreeMap<String, u64> {
        self.failed.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            second: Counts::default(),
            interval: latencies(),
            refusals: latencies(),
            measured: Counts::default(),
            by_kind: BTreeMap::new(),
            all: latencies(),
            under_way: UnderWay::default(),
        }
    }

    /// A request is due.
    pub(super) fn due(&mut self, kind: Kind, is_measured: bool) {
        self.second.due += 1;
        self.measured.due += u64::from(is_measured);
        self.under_way.all += 1;
        *self.under_way.measured(kind) += u64::from(is_measured);
    }

    /// How many requests are due and have not ended.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.all
    }

    /// Whether anything was counted since the last second ended.
    pub(super) fn has_news(&self) -> bool {
        let Counts { due, ok, failed, unknown, .. } = &self.second;
        due + ok + unknown > 0 || !failed.is_empty()
    }

    /// Nobody waits any more for what is under way.
    pub(super) fn give_up(&mut self) {
        let UnderWay { measured_reads, measured_writes, .. } = std::mem::take(&mut self.under_way);
        self.measured.unknown += measured_writes;
        if measured_reads > 0 {
            *self.measured.failed.entry("timeout").or_default() += measured_reads;
        }
    }

    /// A request that was due at `due` has ended now.
    pub(super) fn ended(
        &mut self,
        kind: Kind,
        due: Instant,
        is_measured: bool,
        answer: Result<Done, Failure>,
    ) {
        self.under_way.all -= 1;
        *self.under_way.measured(kind) -= u64::from(is_measured);
        self.second.add(answer);
        let elapsed_us = micros(due.elapsed()).max(1);
        if answer.is_err_and(|failure| !failure.is_unknown) {
            self.refusals.saturating_record(elapsed_us);
        }
        let took_us = answer.is_ok().then_some(elapsed_us);
        if let Some(took_us) = took_us {
            self.interval.saturating_record(took_us);
        }
        if is_measured {
            self.measured.add(answer);
            if let Some(took_us) = took_us {
                self.all.saturating_record(took_us);
                self.by_kind.entry(kind).or_insert_with(latencies).saturating_record(took_us);
            }
        }
    }

    /// Ends the second that began at `at_ms`, and gives its latencies to `keep`.
    pub(super) fn end_second<K>(
        &mut self,
        at_ms: u64,
        keep: impl FnOnce(&Second, &Histogram<u64>) -> K,
    ) -> K {
        let counts = std::mem::take(&mut self.second);
        let interval = &self.interval;
        let percentile = |at| (!interval.is_empty()).then(|| interval.value_at_percentile(at));
        let second = Second {
            at_ms,
            due: counts.due,
            ok: counts.ok,
            failed: counts.failed(),
            unknown: counts.unknown,
            siblings: counts.siblings,
            p50_us: percentile(50.0),
            p99_us: percentile(99.0),
            p999_us: percentile(99.9),
            max_us: (!interval.is_empty()).then(|| interval.max()),
            refused_p99_us: (!self.refusals.is_empty())
                .then(|| self.refusals.value_at_percentile(99.0)),
        };
        let kept = keep(&second, interval);
        self.interval.reset();
        self.refusals.reset();
        kept
    }

    /// Puts what was measured into a summary.
    pub(super) fn summarize(&self, summary: &mut Summary, measured: Duration) {
        let counts = &self.measured;
        summary.measured_ms = measured.as_millis() as u64;
        (summary.due, summary.ok) = (counts.due, counts.ok);
        summary.failed = counts.failed();
        (summary.unknown, summary.siblings) = (counts.unknown, counts.siblings);
        let by_kind =
            self.by_kind.iter().map(|(kind, one)| (kind.name().to_owned(), latency_of(one)));
        summary.latency = by_kind.collect();
        summary.latency.insert("all".to_owned(), latency_of(&self.all));
    }
}
