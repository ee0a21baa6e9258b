//! Latency: second by second, one plot for each group, and as a distribution over a whole run.

use std::collections::BTreeMap;

use crate::load::record::Latency;

use super::axis::Axis;
use super::figure::{Figure, colour};
use super::flow::Group;
use super::number;
use super::plot::{Drawing, Plot, Width, line};
use super::stage::Stage;
use super::trail::{Step, segments};

/// A percentile as the plots show it: class, name, and where it stands in a step.
type Percentile = (&'static str, &'static str, fn(&Step) -> Option<f64>);

const PERCENTILES: [Percentile; 3] = [
    ("q1", "p50", |step| step.p50_us),
    ("q2", "p99", |step| step.p99_us),
    ("q3", "p99.9", |step| step.p999_us),
];

/// One plot for each group, all with the same axis: six lines in one plot are not told apart.
pub(super) fn over_time(stage: &Stage, groups: &[Group]) -> Vec<Figure> {
    let all = groups.iter().flat_map(|group| &group.steps);
    let all: Vec<f64> = all
        .flat_map(|step| PERCENTILES.iter().filter_map(|(_, _, of)| of(step)))
        .map(milliseconds)
        .collect();
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    let most = all.iter().copied().fold(0.0, f64::max);
    if all.is_empty() {
        return Vec::new();
    }
    let axis = Axis::logarithmic(least, most);
    let figures = groups.iter().enumerate();
    figures.map(|(index, group)| one(stage, groups.len() > 1, index, group, &axis)).collect()
}

fn one(stage: &Stage, several: bool, index: usize, group: &Group, axis: &Axis) -> Figure {
    let side = colour(index);
    let draw = |width: Width| {
        let mut plot = Plot::over(stage, width, 130.0, axis.clone(), "ms, log", on_axis);
        let mut names = Vec::new();
        for (class, name, of) in PERCENTILES {
            let lines = segments(&group.steps, |step| of(step).map(milliseconds));
            plot.curve(&format!("{side} {class}"), &lines);
            if let Some((_, last)) = lines.last().and_then(|line| line.last()) {
                names.push((plot.y(*last), side.clone(), name.to_owned()));
            }
        }
        // The highest first, for where they end at the same height.
        names.reverse();
        plot.names(names);
        plot.finish()
    };
    // In a second of few requests there is no one in a thousand.
    let there =
        PERCENTILES.iter().filter(|(_, _, of)| group.steps.iter().any(|step| of(step).is_some()));
    let legend = there.map(|(class, name, _)| (format!("{side} {class}"), (*name).to_owned()));
    let of_whom = if several { format!(", {}", group.name) } else { String::new() };
    let title = format!("Latency from when a request was due{of_whom}");
    let slug = format!("latency-{}", index + 1);
    let readings = group.steps.iter().map(|step| {
        let shown = PERCENTILES
            .iter()
            .filter_map(|(_, name, of)| Some(format!("{name} {}", number::latency(of(step)?))));
        (step.from, step.to, shown.collect::<Vec<_>>().join(", "))
    });
    Figure::new(&slug, title, draw)
        .caption(worst(group))
        .legend(legend.collect())
        .readings(readings.collect())
}

/// The usual and the worst second, in words.
fn worst(group: &Group) -> String {
    let mut seconds: Vec<(f64, f64)> =
        group.steps.iter().filter_map(|step| Some((step.p99_us?, step.from))).collect();
    seconds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (Some((worst, at)), Some((usual, _))) =
        (seconds.last().copied(), seconds.get(seconds.len() / 2).copied())
    else {
        return "Nothing was answered.".to_owned();
    };
    format!(
        "99 of 100 requests were answered within {} in half of the seconds, and within {} in the \
         worst, at {}.",
        number::latency(usual),
        number::latency(worst),
        number::tick(at.floor())
    )
}

/// Percentiles of a whole run, by kind of operation, with the axis of the HdrHistogram tools: each
/// step to the right is a tenth of the requests to its left.
pub(super) fn distribution(kinds: &BTreeMap<String, Latency>) -> Option<Figure> {
    let curves: Vec<(&str, Vec<(f64, f64)>)> = kinds
        .iter()
        .map(|(kind, latency)| (kind.as_str(), by_rarity(latency)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    if curves.is_empty() {
        return None;
    }
    let points = || curves.iter().flat_map(|(_, points)| points);
    let axis = Axis::logarithmic(
        points().map(|(_, ms)| *ms).fold(f64::INFINITY, f64::min),
        points().map(|(_, ms)| *ms).fold(0.0, f64::max),
    );
    let rarest = points().map(|(rarity, _)| *rarity).fold(0.0, f64::max).ceil().max(2.0);
    // No band and no time: what stands in place of seconds are nines.
    let stage = Stage::of_length(rarest);
    let draw = |width| draw_distribution(width, &stage, &axis, &curves);
    let legend = curves.iter().enumerate();
    let legend = legend.map(|(index, (kind, _))| (colour(index), (*kind).to_owned())).collect();
    let whole = kinds.get("all").map_or_else(String::new, |all| {
        format!(
            "Of {}, the mean is {}.",
            number::counted(all.count, "request"),
            number::latency(all.mean_us)
        )
    });
    Some(
        Figure::new("distribution", "Latency by percentile, over the whole run", draw)
            .caption(whole)
            .legend(legend),
    )
}

fn draw_distribution(
    width: Width,
    stage: &Stage,
    axis: &Axis,
    curves: &[(&str, Vec<(f64, f64)>)],
) -> Drawing {
    let mut plot = Plot::scaled(stage, width, 220.0, axis.clone(), "ms, log", on_axis);
    let nines = stage.seconds as usize;
    // A phone has no room for all of six long numbers.
    let every = if width == Width::Narrow { nines.div_ceil(3) } else { 1 };
    for tick in (0..=nines).step_by(every.max(1)) {
        let x = plot.x(tick as f64);
        let (top, bottom) = (plot.top, plot.bottom);
        line(&mut plot.body, "grid", (x, top), (x, bottom));
        plot.below(x, &percentile(tick));
    }
    let mut names = Vec::new();
    for (index, (kind, points)) in curves.iter().enumerate() {
        let class = colour(index);
        plot.curve(&class, std::slice::from_ref(points));
        for point in points {
            plot.curve(&class, &[vec![*point]]);
        }
        if let Some((_, last)) = points.last() {
            names.push((plot.y(*last), class, (*kind).to_owned()));
        }
    }
    plot.names(names);
    plot.finish()
}

/// Points of (nines, milliseconds): 90 % has one nine, 99.9 % three. The slowest of all is as rare as
/// one in as many as there were; what would be rarer than that is the slowest too, and left out.
fn by_rarity(latency: &Latency) -> Vec<(f64, f64)> {
    let rarest = (latency.count.max(1) as f64).log10();
    let point = |(name, us): (&String, &u64)| {
        let percent: f64 = name.parse().ok().filter(|p| (0.0..=100.0).contains(p))?;
        let rarity = if percent < 100.0 { -(1.0 - percent / 100.0).log10() } else { rarest };
        (rarity <= rarest).then(|| (rarity, milliseconds(*us as f64)))
    };
    let mut points: Vec<(f64, f64)> = latency.percentile_us.iter().filter_map(point).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)));
    points
}

/// `0 %`, `90 %`, `99 %`, `99.9 %`.
fn percentile(nines: usize) -> String {
    match nines {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

/// Milliseconds that have a logarithm.
fn milliseconds(us: f64) -> f64 {
    us.max(1.0) / 1e3
}

/// A power of ten of milliseconds, as a number on the axis.
fn on_axis(_: &Axis, ms: f64) -> String {
    number::short(ms)
}
