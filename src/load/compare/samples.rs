//! What runs have left behind, second by second, ready to be put together and drawn from.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::load::Error;
use crate::load::directory::{LATENCY, SUMMARY, read_seconds, read_summary};
use crate::load::record::{Second, Summary};
use crate::random::Random;

/// A run's seconds are drawn in blocks of neighbours, since neighbours are alike: at least so many
/// seconds each, and at most so many blocks.
const BLOCK_SECONDS: usize = 3;
const BLOCKS_MOST: usize = 40;

/// Some time of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    seconds: f64,
    ok: u64,
    due: u64,
    /// Microseconds and how often, in order.
    latencies: Vec<(u64, u64)>,
}

impl Sample {
    fn sum<'a>(samples: impl Iterator<Item = &'a Self>) -> Self {
        let (mut sum, mut latencies) = (Self::default(), BTreeMap::new());
        for sample in samples {
            sum.seconds += sample.seconds;
            (sum.ok, sum.due) = (sum.ok + sample.ok, sum.due + sample.due);
            for (value, count) in &sample.latencies {
                *latencies.entry(*value).or_default() += count;
            }
        }
        sum.latencies = latencies.into_iter().collect();
        sum
    }

    pub(super) fn rate(&self) -> f64 {
        self.ok as f64 / self.seconds
    }

    pub(super) fn unanswered(&self) -> f64 {
        if self.due == 0 { 0.0 } else { 1.0 - (self.ok as f64 / self.due as f64).min(1.0) }
    }

    fn count(&self) -> u64 {
        self.latencies.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn mean(&self) -> f64 {
        let sum: f64 = self.latencies.iter().map(|(value, count)| (value * count) as f64).sum();
        sum / self.count() as f64
    }

    pub(super) fn percentile(&self, share: f64) -> f64 {
        let wanted = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (value, count) in &self.latencies {
            seen += count;
            if seen >= wanted {
                return *value as f64;
            }
        }
        f64::NAN
    }
}

/// The runs of one side.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Each a second at a time.
    runs: Vec<Vec<Sample>>,
    settings: BTreeMap<String, String>,
}

impl Runs {
    /// The run in a directory, or the runs in the directories in it: parts of one run are put
    /// together, all others are repetitions.
    ///
    /// # Errors
    /// When there is none, or a file cannot be read.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let directories = runs_in(directory)?;
        let mut runs = Vec::new();
        let mut all_parts: Vec<Sample> = Vec::new();
        let mut settings = None;
        for directory in &directories {
            let summary = read_summary(directory)?;
            let seconds = seconds_of(directory, &summary)?;
            let is_part = summary.settings.get("part").is_some_and(|part| !part.ends_with("/1"));
            settings.get_or_insert(summary.settings);
            if is_part {
                lay_over(&mut all_parts, &seconds);
            } else {
                runs.push(seconds);
            }
        }
        runs.extend(Some(all_parts).filter(|parts| !parts.is_empty()));
        Ok(Self { runs, settings: settings.unwrap_or_default() })
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Everything together.
    pub(super) fn whole(&self) -> Sample {
        Sample::sum(self.runs.iter().flatten())
    }

    /// Run by run.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample> {
        self.runs.iter().map(|run| Sample::sum(run.iter()))
    }

    /// Its seconds in blocks.
    pub(super) fn blocks(&self) -> Blocks {
        let seconds: Vec<&Sample> = self.runs.iter().flatten().collect();
        let length = BLOCK_SECONDS.max(seconds.len().div_ceil(BLOCKS_MOST));
        let blocks: Vec<Sample> =
            seconds.chunks(length).map(|block| Sample::sum(block.iter().copied())).collect();
        Blocks::new(&blocks)
    }

    #[cfg(test)]
    pub(super) fn of_latencies(seconds: Vec<Vec<u64>>) -> Self {
        let sample = |latencies: Vec<u64>| {
            let count = latencies.len() as u64;
            let mut latencies: Vec<(u64, u64)> = latencies.into_iter().map(|us| (us, 1)).collect();
            latencies.sort_unstable();
            Sample { seconds: 1.0, ok: count, due: count, latencies }
        };
        Self { runs: vec![seconds.into_iter().map(sample).collect()], settings: BTreeMap::new() }
    }

    #[cfg(test)]
    pub(super) fn together(runs: impl Iterator<Item = Self>) -> Self {
        let runs = runs.flat_map(|run| run.runs).collect();
        Self { runs, settings: BTreeMap::new() }
    }
}

/// Blocks to draw from, latencies by their place among all that occur: drawing adds up numbers.
pub(super) struct Blocks {
    values: Vec<u64>,
    blocks: Vec<Block>,
}

struct Block {
    seconds: f64,
    ok: u64,
    due: u64,
    /// Place and how often.
    latencies: Vec<(usize, u64)>,
}

impl Blocks {
    fn new(blocks: &[Sample]) -> Self {
        let all = Sample::sum(blocks.iter());
        let values: Vec<u64> = all.latencies.into_iter().map(|(value, _)| value).collect();
        let place = |value: &u64| values.binary_search(value).expect("it is among all");
        let block = |of: &Sample| {
            let latencies = of.latencies.iter().map(|(value, count)| (place(value), *count));
            let latencies = latencies.collect();
            Block { seconds: of.seconds, ok: of.ok, due: of.due, latencies }
        };
        let blocks = blocks.iter().map(block).collect();
        Self { values, blocks }
    }

    /// As many blocks as there are, each drawn from all of them.
    pub(super) fn draw(&self, random: &mut Random) -> Sample {
        let mut drawn = Sample::default();
        let mut counts = vec![0; self.values.len()];
        for _ in &self.blocks {
            let block = &self.blocks[random.below(self.blocks.len() as u64) as usize];
            drawn.seconds += block.seconds;
            (drawn.ok, drawn.due) = (drawn.ok + block.ok, drawn.due + block.due);
            block.latencies.iter().for_each(|(place, count)| counts[*place] += count);
        }
        drawn.latencies = self.values.iter().copied().zip(counts).collect();
        drawn
    }
}

/// The directory itself, if it is a run, or those in it that are.
fn runs_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    if directory.join(SUMMARY).exists() {
        return Ok(vec![directory.to_owned()]);
    }
    let entries = fs::read_dir(directory).map_err(|error| Error::file(directory, error))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut runs: Vec<PathBuf> = paths.filter(|path| path.join(SUMMARY).exists()).collect();
    runs.sort();
    if runs.is_empty() {
        let what = "it is no run and holds none: `ringdove load --output DIR` leaves one";
        return Err(Error::damaged(directory, what));
    }
    Ok(runs)
}

/// The measured seconds of a run. What was answered after its end belongs to the last one.
fn seconds_of(directory: &Path, summary: &Summary) -> Result<Vec<Sample>, Error> {
    let count = (summary.measured_ms as f64 / 1000.0).round().max(1.0) as usize;
    let second_of = |at_ms: u64| {
        let since_ms = (at_ms + 500).checked_sub(summary.begun_ms)?;
        Some((since_ms as usize / 1000).min(count - 1))
    };
    let mut samples = vec![Sample { seconds: 1.0, ..Sample::default() }; count];
    for Second { at_ms, due, ok, .. } in read_seconds(directory)? {
        if let Some(second) = second_of(at_ms) {
            samples[second].ok += ok;
            samples[second].due += due;
        }
    }
    for (at, histogram) in histograms(&directory.join(LATENCY))? {
        let Some(second) = second_of(at.as_millis() as u64) else { continue };
        let recorded = histogram.iter_recorded();
        let latencies = recorded.map(|value| (value.value_iterated_to(), value.count_at_value()));
        let answered = Sample { latencies: latencies.collect(), ..Sample::default() };
        samples[second] = Sample::sum([&samples[second], &answered].into_iter());
    }
    Ok(samples)
}

/// The histograms of a log, and when each began.
fn histograms(path: &Path) -> Result<Vec<(Duration, Histogram<u64>)>, Error> {
    let log = fs::read(path).map_err(|error| Error::file(path, error))?;
    let damaged = |what: String| Error::damaged(path, what);
    let (mut base, mut found) = (Duration::ZERO, Vec::new());
    let mut deserializer = Deserializer::new();
    for entry in IntervalLogIterator::new(&log) {
        match entry.map_err(|error| damaged(format!("{error:?}")))? {
            LogEntry::StartTime(_) => {}
            LogEntry::BaseTime(time) => base = time,
            LogEntry::Interval(interval) => {
                let bytes = STANDARD.decode(interval.encoded_histogram());
                let bytes = bytes.map_err(|error| damaged(error.to_string()))?;
                let histogram = deserializer.deserialize(&mut Cursor::new(bytes));
                let histogram = histogram.map_err(|error| damaged(error.to_string()))?;
                found.push((base + interval.start_timestamp(), histogram));
            }
        }
    }
    Ok(found)
}

/// Adds the seconds of one part to those of the others.
fn lay_over(all: &mut Vec<Sample>, part: &[Sample]) {
    for (at, second) in part.iter().enumerate() {
        match all.get_mut(at) {
            None => all.push(second.clone()),
            Some(sum) => {
                *sum = Sample { seconds: 1.0, ..Sample::sum([&*sum, second].into_iter()) };
            }
        }
    }
}
