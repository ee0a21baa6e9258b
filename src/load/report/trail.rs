//! Seconds as points of a plot.
//!
//! A long run has more seconds than a plot has pixels. What always holds: at most [`STEPS_MAX`]
//! points, each of a whole number of seconds; counts are means over them, latencies the worst of
//! them; where seconds are missing there is a hole, not a line across it.

use crate::load::record::Second;

use super::stage::Stage;

/// About two pixels a point in the widest plot.
const STEPS_MAX: usize = 400;

/// More than a second and a half from one to the next: one is missing.
const HOLE_MS: u64 = 1500;

/// A few seconds of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Step {
    /// Seconds since the stage's beginning.
    pub from: f64,
    pub to: f64,
    /// The one before it is missing.
    pub after_hole: bool,
    /// Sums over the step.
    pub due: f64,
    pub ok: f64,
    pub failed: f64,
    pub unknown: f64,
    /// The worst of its seconds, in microseconds.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
}

impl Step {
    pub fn middle(&self) -> f64 {
        f64::midpoint(self.from, self.to)
    }

    /// How long it is, in seconds.
    pub fn length(&self) -> f64 {
        (self.to - self.from).max(1.0)
    }

    /// Requests that ended in it, one way or the other.
    pub fn ended(&self) -> f64 {
        self.ok + self.failed + self.unknown
    }

    /// The share of requests answered as asked. When nothing ended although something was due, none
    /// was; when nothing was due either, there is nothing to say.
    pub fn available(&self) -> Option<f64> {
        if self.ended() > 0.0 {
            Some(self.ok / self.ended())
        } else if self.due > 0.0 {
            Some(0.0)
        } else {
            None
        }
    }
}

/// How many seconds one point stands for.
pub(super) fn seconds_per_step(seconds: &[Second]) -> usize {
    seconds.len().div_ceil(STEPS_MAX).max(1)
}

/// The seconds of a run that lie on the stage, as points.
pub(super) fn steps(seconds: &[Second], stage: &Stage, per_step: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut taken = 0;
    let mut before: Option<u64> = None;
    for second in seconds {
        let from = stage.at(second.at_ms);
        if from < -0.5 || from >= stage.seconds {
            continue;
        }
        let after_hole = before.is_some_and(|at| second.at_ms.saturating_sub(at) > HOLE_MS);
        before = Some(second.at_ms);
        if taken == 0 || taken == per_step || after_hole {
            steps.push(Step { from: from.max(0.0), after_hole, ..Step::default() });
            taken = 0;
        }
        taken += 1;
        if let Some(step) = steps.last_mut() {
            step.to = (from + 1.0).min(stage.seconds);
            add(step, second);
        }
    }
    steps
}

fn add(step: &mut Step, second: &Second) {
    step.due += second.due as f64;
    step.ok += second.ok as f64;
    step.failed += second.failed.values().map(|count| *count as f64).sum::<f64>();
    step.unknown += second.unknown as f64;
    let worst = |so_far: Option<f64>, now: Option<u64>| {
        let now = now.map(|us| us as f64);
        so_far.map_or(now, |so_far| Some(now.map_or(so_far, |now| now.max(so_far))))
    };
    step.p50_us = worst(step.p50_us, second.p50_us);
    step.p99_us = worst(step.p99_us, second.p99_us);
    step.p999_us = worst(step.p999_us, second.p999_us);
}

/// Runs of points without a hole between them.
pub(super) fn segments(
    steps: &[Step],
    value: impl Fn(&Step) -> Option<f64>,
) -> Vec<Vec<(f64, f64)>> {
    let mut segments: Vec<Vec<(f64, f64)>> = vec![Vec::new()];
    for step in steps {
        if step.after_hole {
            segments.push(Vec::new());
        }
        match (value(step), segments.last_mut()) {
            (Some(value), Some(segment)) => segment.push((step.middle(), value)),
            _ => segments.push(Vec::new()),
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at_ms: u64, ok: u64) -> Second {
        Second { at_ms, ok, due: 10, p99_us: Some(ok * 100), ..Second::default() }
    }

    fn stage(seconds: f64) -> Stage {
        Stage::of_length(seconds)
    }

    #[test]
    fn a_missing_second_is_a_hole_in_the_line() {
        let seconds = [second(0, 10), second(1000, 9), second(3000, 8)];
        let steps = steps(&seconds, &stage(10.0), 1);
        let lines = segments(&steps, |step| Some(step.ok));
        assert_eq!(lines, [vec![(0.5, 10.0), (1.5, 9.0)], vec![(3.5, 8.0)]]);
    }

    #[test]
    fn many_seconds_become_one_point_with_their_worst_latency() {
        let seconds: Vec<Second> = (0..4).map(|at| second(at * 1000, at + 1)).collect();
        let steps = steps(&seconds, &stage(10.0), 2);
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[1].ok, steps[1].length(), steps[1].p99_us), (7.0, 2.0, Some(400.0)));
    }

    #[test]
    fn a_second_in_which_nothing_ended_is_unavailable_only_if_something_was_due() {
        let mut step = Step { due: 5.0, ..Step::default() };
        assert_eq!(step.available(), Some(0.0));
        step.due = 0.0;
        assert_eq!(step.available(), None);
    }
}
