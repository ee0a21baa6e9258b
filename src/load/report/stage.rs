//! What stands behind every plot of one scenario or run: the time axis, and what was broken when.
//!
//! What always holds: all plots of one section have the same stage, so that a dip in one and a band
//! in another stand above each other; time is in seconds since the section's first moment.

use super::input::{RunRecord, ScenarioRecord};
use super::number;

/// The common time axis of a section.
#[derive(Debug, Default)]
pub(super) struct Stage {
    begun_ms: f64,
    /// How long the axis is, at least a second.
    pub seconds: f64,
    /// In the order in which they began.
    pub bands: Vec<Band>,
    /// When the last fault was lifted.
    pub healed: Option<f64>,
    /// When all copies were equal after it.
    pub converged: Option<f64>,
}

/// A time in which something was not as usual.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Band {
    pub from: f64,
    pub to: f64,
    pub label: String,
}

impl Stage {
    pub fn of_scenario(record: &ScenarioRecord) -> Self {
        let scenario = &record.scenario;
        let seconds = record.sides.iter().flat_map(|run| &run.seconds);
        let seen: Vec<u64> = seconds
            .map(|second| second.at_ms)
            .chain(scenario.looks.iter().map(|look| look.at_ms))
            .chain(scenario.faults.iter().map(|fault| fault.from_ms))
            .collect();
        let mut stage = Self::over(scenario.begun_ms, scenario.ended_ms, &seen);
        for fault in &scenario.faults {
            let from = stage.at(fault.from_ms).max(0.0);
            // A fault that nobody lifted lasts to the end.
            let to = if fault.to_ms == 0 { stage.seconds } else { stage.at(fault.to_ms).max(from) };
            if from <= stage.seconds {
                let to = to.min(stage.seconds);
                stage.bands.push(Band { from, to, label: fault.label.clone() });
            }
        }
        stage.bands.sort_by(|one, other| one.from.total_cmp(&other.from));
        stage.healed = scenario.healed_ms.map(|at| stage.at(at));
        stage.converged = scenario.converged_ms.map(|at| stage.at(at));
        stage
    }

    /// A run without a lab begins with its warm-up.
    pub fn of_run(run: &RunRecord) -> Self {
        let seen: Vec<u64> = run.seconds.iter().map(|second| second.at_ms).collect();
        let first = seen.first().copied().unwrap_or(run.summary.begun_ms);
        let ended = run.summary.begun_ms.saturating_add(run.summary.measured_ms);
        let mut stage = Self::over(first, ended, &seen);
        let measured = stage.at(run.summary.begun_ms);
        if measured > 0.0 && measured < stage.seconds {
            stage.bands.push(Band { from: 0.0, to: measured, label: "warm-up".to_owned() });
        }
        stage
    }

    /// A stage that is not of time: an axis from 0 to so many of something.
    pub fn of_length(seconds: f64) -> Self {
        Self { seconds, ..Self::default() }
    }

    fn over(begun_ms: u64, ended_ms: u64, seen: &[u64]) -> Self {
        let earliest = seen.iter().copied().filter(|at| *at > 0).min();
        let begun = if begun_ms > 0 { begun_ms } else { earliest.unwrap_or(0) };
        let latest = seen.iter().copied().max().map_or(0, |at| at.saturating_add(1000));
        let ended = ended_ms.max(latest).max(begun);
        // Two steps, since a difference of whole milliseconds is exact where that of floats is not.
        let seconds = (ended - begun) as f64 / 1e3;
        Self { begun_ms: begun as f64, seconds: seconds.max(1.0), ..Self::default() }
    }

    /// Seconds since the beginning; before it, less than 0.
    pub fn at(&self, ms: u64) -> f64 {
        (ms as f64 - self.begun_ms) / 1e3
    }

    /// Whether something was broken at this time.
    pub fn is_broken(&self, at: f64) -> bool {
        self.bands.iter().any(|band| band.from <= at && at < band.to)
    }

    /// Bands that overlap, as one with all their labels.
    pub fn merged_bands(&self) -> Vec<Band> {
        let mut merged: Vec<Band> = Vec::new();
        for band in &self.bands {
            match merged.last_mut() {
                Some(last) if band.from < last.to => {
                    last.to = last.to.max(band.to);
                    if !last.label.split(", ").any(|label| label == band.label) {
                        last.label = format!("{}, {}", last.label, band.label);
                    }
                }
                _ => merged.push(band.clone()),
            }
        }
        merged
    }

    /// What came after the last fault, in words.
    pub fn recovery(&self) -> Option<String> {
        let healed = self.healed?;
        Some(match self.converged {
            Some(converged) => {
                let after = number::span((converged - healed).max(0.0) * 1e3);
                format!("all copies equal {after} after the last fault was lifted")
            }
            None => {
                let left = number::span((self.seconds - healed).max(0.0) * 1e3);
                format!("copies not seen equal by the end, {left} after the last fault was lifted")
            }
        })
    }
}
