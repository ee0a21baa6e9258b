//! Axes: where a value stands, and which values are worth a line and a number.
//!
//! What always holds: a value outside of an axis stands at its end, never outside of the plot; there
//! are at least two ticks and at most a dozen, whatever the values.

use super::number;

/// The vertical axis of a plot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// The values that get a line and a number.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// From nothing to a round number that holds `most` whole things.
    pub fn of_counts(most: f64) -> Self {
        let most = most.max(1.0);
        let step = match round_step(most / 4.0).max(1.0) {
            // A quarter of a thousand is round enough where it saves half of an empty plot.
            step if step >= 50.0 && most <= step * 2.5 => step / 2.0,
            step => step,
        };
        let steps = (most / step).ceil().max(1.0);
        let ticks = (0..=steps as usize).map(|tick| tick as f64 * step).collect();
        Self { low: 0.0, high: steps * step, logarithmic: false, ticks }
    }

    /// From 0 to 100 percent, for shares of 0 to 1.
    pub fn of_shares() -> Self {
        let ticks = vec![0.0, 0.25, 0.5, 0.75, 1.0];
        // A little air, so that a line along 100 % is seen whole.
        Self { low: 0.0, high: 1.03, logarithmic: false, ticks }
    }

    /// Whole powers of ten around `least` and `most`, which are above 0 and below 10^21.
    pub fn logarithmic(least: f64, most: f64) -> Self {
        let (least, most) = (least.clamp(1e-9, 1e21), most.clamp(1e-9, 1e21));
        let from = least.log10().floor();
        let to = most.log10().ceil().max(from + 1.0);
        let every = ((to - from) / 6.0).ceil().max(1.0);
        let mut ticks = Vec::new();
        let mut power = from;
        while power <= to {
            ticks.push(10f64.powf(power));
            power += every;
        }
        Self { low: from, high: to, logarithmic: true, ticks }
    }

    /// A tick of an axis of counts, in thousands where the others are.
    pub fn count(&self, tick: f64) -> String {
        match tick {
            1e3..1e4 if self.high >= 1e4 => format!("{}k", number::trimmed(tick / 1e3, 1)),
            _ => number::short(tick),
        }
    }

    /// How far up a value stands: 0 at the bottom, 1 at the top.
    pub fn share(&self, value: f64) -> f64 {
        let place = if self.logarithmic { value.log10() } else { value };
        // The logarithm of nothing is below everything, and so at the bottom.
        ((place - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// The ticks of a time axis of so many seconds, at most `most` of them beside 0.
pub(super) fn time_ticks(seconds: f64, most: usize) -> Vec<f64> {
    const STEPS: [f64; 14] = [
        1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
    ];
    let least = seconds / most as f64;
    let step = STEPS.into_iter().find(|step| *step >= least);
    let step = step.unwrap_or_else(|| round_step(least / 3600.0) * 3600.0);
    (0..=(seconds / step).floor() as usize).map(|tick| tick as f64 * step).collect()
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_axis_has_a_few_round_ticks() {
        for most in [0.0, 1.0, 3.0, 7.0, 99.0, 2512.0, 1e9, u64::MAX as f64] {
            let axis = Axis::of_counts(most);
            assert!((2..=6).contains(&axis.ticks.len()), "{most}: {:?}", axis.ticks);
            assert!(axis.share(most) <= 1.0 && axis.high >= most);
        }
        for (least, most) in
            [(0.001, 0.001), (0.2, 9.0), (1.0, 1.0), (0.001, 1.8e16), (f64::INFINITY, 0.0)]
        {
            let axis = Axis::logarithmic(least, most);
            assert!((2..=12).contains(&axis.ticks.len()), "{axis:?}");
        }
        for seconds in [1.0, 59.0, 90.0, 3600.0, 1e6, u64::MAX as f64] {
            assert!((1..=11).contains(&time_ticks(seconds, 10).len()), "{seconds}");
        }
    }

    #[test]
    fn ticks_are_those_one_would_write() {
        assert_eq!(Axis::of_counts(2512.0).ticks, [0.0, 1000.0, 2000.0, 3000.0]);
        assert_eq!(Axis::of_counts(1011.0).ticks, [0.0, 250.0, 500.0, 750.0, 1000.0, 1250.0]);
        assert_eq!(Axis::logarithmic(0.2, 900.0).ticks, [0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(time_ticks(90.0, 10), (0..=9).map(|t| f64::from(t) * 10.0).collect::<Vec<_>>());
    }

    #[test]
    fn a_value_outside_stands_at_the_end() {
        let axis = Axis::logarithmic(1.0, 100.0);
        assert_eq!([0.0, 1.0, 10.0, 1e9].map(|value| axis.share(value)), [0.0, 0.0, 0.5, 1.0]);
    }
}
