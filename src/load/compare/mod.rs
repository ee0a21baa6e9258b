//! What changed from one run to another, and whether that can be told from chance.
//!
//! - With as many runs of each, at least three, done in turn: the ratio of each pair, and Student's
//!   interval for the mean of their logarithms. This sees how runs differ among themselves.
//! - With one run of each: its seconds in blocks, drawn with replacement (bootstrap). This sees how
//!   much a run sways within itself, and not whether the next would be another one.
//!
//! An interval is for 99 in 100: with half a dozen figures in a table, one of twenty would be
//! "significant" by chance too often. Where it holds "no change", no difference is seen.

mod samples;
mod statistics;

use std::collections::BTreeMap;

use serde::Serialize;

use super::Error;
pub use samples::Runs;
use samples::Sample;
use statistics::{interval_of_draws, interval_of_pairs};

use crate::random::Random;

/// How often the blocks are drawn anew.
const DRAWS: usize = 4000;
/// Fewest pairs from which a spread is estimated.
const PAIRS_LEAST: usize = 3;
/// Settings that may differ without making two runs strangers.
const FREE: [&str; 4] = ["target", "seed", "part", "label"];

/// A figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Requests answered, a second.
    Rate,
    /// Mean latency.
    Mean,
    /// Median latency.
    P50,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P999,
}

impl Figure {
    const ALL: [Self; 5] = [Self::Rate, Self::Mean, Self::P50, Self::P99, Self::P999];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "answered/s",
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
        }
    }

    fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Rate => sample.rate(),
            Self::Mean => sample.mean(),
            Self::P50 => sample.percentile(0.5),
            Self::P99 => sample.percentile(0.99),
            Self::P999 => sample.percentile(0.999),
        }
    }
}

/// One figure of both sides.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub figure: Figure,
    /// Of the first side; microseconds, or requests a second.
    pub before: f64,
    /// Of the second.
    pub after: f64,
    /// Second by first.
    pub ratio: f64,
    /// Where that ratio lies, in 99 of 100 cases; `None` where nothing can be said.
    pub interval: Option<(f64, f64)>,
}

impl Row {
    /// Whether a difference can be told from chance.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.interval.is_some_and(|(least, most)| least > 1.0 || most < 1.0)
    }
}

/// Two sides side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Runs of the first side and of the second.
    pub runs: (usize, usize),
    /// Figure by figure.
    pub rows: Vec<Row>,
    /// Requests that failed or whose outcome is unknown, as parts of all that were due.
    pub unanswered: (f64, f64),
    /// Settings that differ, with both values.
    pub settings: BTreeMap<String, (String, String)>,
}

/// Compares two sides.
///
/// # Errors
/// [`Error::Settings`] when the sides have several runs, and not as many of each.
pub fn compare(before: &Runs, after: &Runs) -> Result<Comparison, Error> {
    let runs = (before.len(), after.len());
    let are_pairs = runs.0 == runs.1 && runs.0 >= PAIRS_LEAST;
    if !are_pairs && runs != (1, 1) {
        return Err(Error::settings(format!(
            "there are {} and {} runs: compare one with one, or at least {PAIRS_LEAST} with as many, \
             done in turn",
            runs.0, runs.1
        )));
    }
    let whole = (before.whole(), after.whole());
    let intervals = if are_pairs { pairs(before, after) } else { draws(before, after) };
    let row = |(figure, interval): (Figure, Option<(f64, f64)>)| {
        let (before, after) = (figure.of(&whole.0), figure.of(&whole.1));
        Row { figure, before, after, ratio: after / before, interval }
    };
    Ok(Comparison {
        runs,
        rows: Figure::ALL.into_iter().zip(intervals).map(row).collect(),
        unanswered: (whole.0.unanswered(), whole.1.unanswered()),
        settings: differing(before.settings(), after.settings()),
    })
}

fn pairs(before: &Runs, after: &Runs) -> Vec<Option<(f64, f64)>> {
    let samples: Vec<(Sample, Sample)> = before.samples().zip(after.samples()).collect();
    let of = |figure: Figure| {
        let logs =
            samples.iter().map(|(before, after)| (figure.of(after) / figure.of(before)).ln());
        interval_of_pairs(&logs.collect::<Vec<f64>>())
    };
    Figure::ALL.into_iter().map(of).collect()
}

fn draws(before: &Runs, after: &Runs) -> Vec<Option<(f64, f64)>> {
    let mut random = Random::new(1);
    let (before, after) = (before.blocks(), after.blocks());
    let mut ratios = vec![Vec::with_capacity(DRAWS); Figure::ALL.len()];
    for _ in 0..DRAWS {
        let (before, after) = (before.draw(&mut random), after.draw(&mut random));
        for (figure, ratios) in Figure::ALL.into_iter().zip(&mut ratios) {
            ratios.push(figure.of(&after) / figure.of(&before));
        }
    }
    ratios.into_iter().map(interval_of_draws).collect()
}

fn differing(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> BTreeMap<String, (String, String)> {
    let names = before.keys().chain(after.keys()).filter(|name| !FREE.contains(&name.as_str()));
    let value = |of: &BTreeMap<String, String>, name: &String| {
        of.get(name).cloned().unwrap_or_else(|| "-".to_owned())
    };
    let both = names.map(|name| (name.clone(), (value(before, name), value(after, name))));
    both.filter(|(_, (before, after))| before != after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of 30 seconds, each with latencies around `mean_us`; seconds sway by some percent.
    fn run(random: &mut Random, mean_us: u64) -> Runs {
        let second = |_| {
            let sway = 90 + random.below(20);
            let draw = |_| (mean_us * sway / 100) * (50 + random.below(100)) / 2000 * 20;
            (0..200).map(draw).collect::<Vec<u64>>()
        };
        Runs::of_latencies((0..30).map(second).collect::<Vec<_>>())
    }

    fn seen(comparison: &Comparison, figure: Figure) -> bool {
        comparison.rows.iter().any(|row| row.figure == figure && row.differs())
    }

    #[test]
    fn a_difference_is_seen_and_chance_is_not() {
        let (mut wrong, mut right) = (0, 0);
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let before = run(&mut random, 1000);
            let same = compare(&before, &run(&mut random, 1000)).unwrap();
            wrong += usize::from(seen(&same, Figure::P50)) + usize::from(seen(&same, Figure::P99));
            let slower = compare(&before, &run(&mut random, 1200)).unwrap();
            right +=
                usize::from(seen(&slower, Figure::P50)) + usize::from(seen(&slower, Figure::P99));
        }
        assert!(wrong <= 2, "{wrong} of 40 figures differ where nothing does");
        assert!(right >= 38, "{right} of 40 figures differ where all do");
    }

    #[test]
    fn runs_are_compared_in_pairs_or_one_with_one() {
        let mut random = Random::new(7);
        let several = |random: &mut Random, count: usize, mean_us| {
            let runs = (0..count).map(|_| run(random, mean_us));
            Runs::together(runs)
        };
        let five = several(&mut random, 5, 1000);
        assert!(seen(&compare(&five, &several(&mut random, 5, 1200)).unwrap(), Figure::P50));
        assert!(!seen(&compare(&five, &several(&mut random, 5, 1000)).unwrap(), Figure::P50));
        assert!(compare(&five, &several(&mut random, 4, 1000)).is_err());
        assert!(compare(&five, &run(&mut random, 1000)).is_err());
    }
}
