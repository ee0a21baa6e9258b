//! What a look at the whole cluster counted: hints that wait, keys whose copies differ, siblings.

use crate::load::record::Look;

use super::axis::Axis;
use super::figure::Figure;
use super::input::ScenarioRecord;
use super::number;
use super::plot::{Plot, Width};
use super::stage::Stage;

/// Looks further apart than this are not joined by a line.
const HOLE_S: f64 = 5.5;

/// Something that is counted: slug, title, unit, class of its colour, and where it stands in a look.
type Counted = (&'static str, &'static str, &'static str, &'static str, fn(&Look) -> Option<u64>);

const COUNTED: [Counted; 3] = [
    ("hints", "Hinted writes that wait for their owners", "hints", "c3", |look| look.hints),
    ("differing", "Keys whose owners' copies differ", "keys", "c4", |look| look.differing),
    ("siblings", "Keys with siblings", "keys", "c5", |look| look.siblings),
];

/// One plot for each kind that was counted at least once: a thousand hints and three siblings do not
/// share an axis.
pub(super) fn counts(stage: &Stage, record: &ScenarioRecord) -> Vec<Figure> {
    let looks = &record.scenario.looks;
    COUNTED.iter().filter_map(|counted| one(stage, looks, counted)).collect()
}

fn one(stage: &Stage, looks: &[Look], counted: &Counted) -> Option<Figure> {
    let (slug, title, unit, class, of) = *counted;
    let points: Vec<(f64, u64)> = looks
        .iter()
        .filter_map(|look| Some((stage.at(look.at_ms), of(look)?)))
        .filter(|(at, _)| (0.0..=stage.seconds).contains(at))
        .collect();
    let (peak_at, peak) = points.iter().copied().max_by_key(|(_, count)| *count)?;
    let (_, last) = points.last().copied()?;
    let segments = joined(&points);
    // Nothing at any time is worth a line, not a field.
    let height = if peak == 0 { 24.0 } else { 80.0 };
    let draw = |width: Width| {
        let mut plot =
            Plot::over(stage, width, height, Axis::of_counts(peak as f64), unit, Axis::count);
        plot.ground(class, &segments);
        plot.curve(class, &segments);
        plot.finish()
    };
    let caption = if peak == 0 {
        "None at any time.".to_owned()
    } else {
        let at = number::tick(peak_at.floor());
        format!("{} at most, at {at}; {} at the end.", number::count(peak), number::count(last))
    };
    let readings = points.iter().enumerate().map(|(index, (at, count))| {
        let to = points.get(index + 1).map_or(stage.seconds, |(next, _)| *next);
        (*at, to, number::count(*count))
    });
    Some(Figure::new(slug, title, draw).caption(caption).readings(readings.collect()))
}

fn joined(points: &[(f64, u64)]) -> Vec<Vec<(f64, f64)>> {
    let parts = points.chunk_by(|(one, _), (next, _)| next - one <= HOLE_S);
    parts.map(|part| part.iter().map(|(at, count)| (*at, *count as f64)).collect()).collect()
}
