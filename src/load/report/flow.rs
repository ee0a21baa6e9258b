//! What became of the requests, second by second: how many were answered, which share of them, and
//! what happened to the others.

use super::axis::Axis;
use super::figure::{Figure, colour};
use super::markup::listed;
use super::number;
use super::plot::{Drawing, Plot, Width, rectangle};
use super::stage::Stage;
use super::trail::{Step, segments};

/// A group of clients as the plots see it.
pub(super) struct Group {
    pub name: String,
    pub steps: Vec<Step>,
}

/// A side's name before its number; nothing where there is only one side.
fn named(group: &Group, groups: &[Group]) -> String {
    if groups.len() > 1 { format!("{} ", group.name) } else { String::new() }
}

impl Group {
    /// The steps while requests were sent; after them, only late answers come in.
    fn asking(&self) -> &[Step] {
        let asking = self.steps.iter().rposition(|step| step.due > 0.0);
        asking.map_or(&self.steps[..], |last| &self.steps[..=last])
    }
}

/// Requests answered a second, for each group, and how many were due.
pub(super) fn throughput(stage: &Stage, groups: &[Group]) -> Figure {
    let answered = |step: &Step| Some(step.ok / step.length());
    let due = |step: &Step| Some(step.due / step.length()).filter(|due| *due > 0.0);
    let most = groups.iter().flat_map(|group| &group.steps);
    let most = most.map(|step| step.ok.max(step.due) / step.length()).fold(0.0, f64::max);
    let draw = |width: Width| {
        let axis = Axis::of_counts(most);
        let mut plot = Plot::over(stage, width, 170.0, axis, "per second", Axis::count);
        let mut names = Vec::new();
        for group in groups {
            plot.curve("due", &segments(group.asking(), due));
        }
        for (index, group) in groups.iter().enumerate() {
            let class = colour(index);
            plot.curve(&class, &segments(group.asking(), answered));
            if let Some(last) = group.asking().last() {
                names.push((plot.y(last.ok / last.length()), class, group.name.clone()));
            }
        }
        if let Some(due) = groups.iter().filter_map(|group| due(group.asking().last()?)).next() {
            names.push((plot.y(due) - 1.0, "muted".to_owned(), "due (dotted)".to_owned()));
        }
        plot.names(names);
        plot.finish()
    };
    let mean = |steps: &[&Step]| {
        let length: f64 = steps.iter().map(|step| step.length()).sum();
        (length > 0.0).then(|| steps.iter().map(|step| step.ok).sum::<f64>() / length)
    };
    let caption = in_phases("On average", stage, groups, |steps| {
        mean(steps).map_or("nothing".to_owned(), number::per_second)
    });
    Figure::new("throughput", "Requests answered as asked, per second", draw)
        .caption(caption)
        .legend(legend(groups, Some("due")))
        .readings(readings(groups, |step| Some(number::per_second(answered(step)?))))
}

/// The share of requests answered as asked, for each group.
pub(super) fn availability(stage: &Stage, groups: &[Group]) -> Figure {
    let draw = |width: Width| {
        let percent = |_: &Axis, share: f64| number::trimmed(share * 100.0, 0);
        let mut plot = Plot::over(stage, width, 120.0, Axis::of_shares(), "%", percent);
        let mut names = Vec::new();
        // The first side last: where two lines lie on each other, it is the one above.
        for (index, group) in groups.iter().enumerate().rev() {
            let class = colour(index);
            let lines = segments(&group.steps, Step::available);
            plot.curve(&class, &lines);
            if let Some((_, last)) = lines.last().and_then(|line| line.last()) {
                names.push((plot.y(*last), class, group.name.clone()));
            }
        }
        names.reverse();
        plot.names(names);
        plot.finish()
    };
    let share = |steps: &[&Step]| {
        let ended: f64 = steps.iter().map(|step| step.ended()).sum();
        (ended > 0.0).then(|| steps.iter().map(|step| step.ok).sum::<f64>() / ended)
    };
    let caption = in_phases("Of all that ended", stage, groups, |steps| {
        share(steps).map_or("nothing asked".to_owned(), number::percent)
    });
    let title = if groups.len() > 1 {
        "Availability for each side: share of requests answered as asked"
    } else {
        "Availability: share of requests answered as asked"
    };
    Figure::new("availability", title, draw)
        .caption(caption)
        .legend(legend(groups, None))
        .readings(readings(groups, |step| Some(number::percent(step.available()?))))
}

/// What became of the requests of all groups: acknowledged, failed, unknown, on top of each other.
/// The rare kinds stand at the bottom, where the eye compares best.
pub(super) fn outcomes(stage: &Stage, groups: &[Group]) -> Figure {
    const KINDS: [(&str, &str); 3] =
        [("failed", "failed"), ("unknown", "unknown"), ("answered", "acknowledged")];
    let bars = summed(groups);
    let most = bars.iter().map(|(_, _, parts)| parts.iter().sum::<f64>()).fold(0.0, f64::max);
    let draw = |width: Width| {
        let axis = Axis::of_counts(most);
        let mut plot = Plot::over(stage, width, 130.0, axis, "per second", Axis::count);
        for (from, to, parts) in &bars {
            bar(&mut plot, (*from, *to), parts, &KINDS.map(|(class, _)| class));
        }
        let step = (plot.bottom - plot.top) / 4.0;
        let names = KINDS.iter().enumerate().map(|(index, (class, name))| {
            let y = plot.bottom - 8.0 - index as f64 * step.min(20.0);
            (y, format!("of-{class}"), (*name).to_owned())
        });
        let names = names.collect();
        plot.names(names);
        plot.finish()
    };
    let steps = || groups.iter().flat_map(|group| &group.steps);
    let total = |part: fn(&Step) -> f64| number::count(steps().map(part).sum::<f64>() as u64);
    let caption = format!(
        "{} acknowledged, {} failed (certainly nothing done), {} of unknown outcome.",
        total(|step| step.ok),
        total(|step| step.failed),
        total(|step| step.unknown)
    );
    let legend =
        KINDS.iter().rev().map(|(class, name)| (format!("box of-{class}"), (*name).to_owned()));
    let whose = if groups.len() > 1 { ", all sides together" } else { "" };
    Figure::new("outcomes", format!("What became of the requests, per second{whose}"), draw)
        .caption(caption)
        .legend(legend.collect())
        .readings(
            bars.iter()
                .map(|(from, to, [failed, unknown, answered])| {
                    let [failed, unknown, answered] =
                        [failed, unknown, answered].map(|part| number::per_second(*part));
                    let text =
                        format!("acknowledged {answered}, failed {failed}, unknown {unknown}");
                    (*from, *to, text)
                })
                .collect(),
        )
}

/// One bar of a stack. What is there but too little to be seen gets a pixel and a half.
fn bar(plot: &mut Plot<'_>, span: (f64, f64), parts: &[f64; 3], classes: &[&str; 3]) {
    let (from, to) = (plot.x(span.0), plot.x(span.1));
    // Bars that are wide enough to be told apart are; the others overlap by a hair, since scaled to
    // paper they would show a pattern of gaps that means nothing.
    let gap = if to - from > 12.0 { 1.0 } else { -0.2 };
    let mut bottom = plot.bottom;
    for (part, class) in parts.iter().zip(classes) {
        if *part <= 0.0 {
            continue;
        }
        let height = (plot.bottom - plot.y(*part)).max(1.5).min(bottom - plot.top);
        bottom -= height;
        let size = ((to - from - gap).max(0.5), height);
        rectangle(&mut plot.body, &format!("of-{class}"), (from, bottom), size);
    }
}

/// Failed, unknown and answered requests a second, over all groups, on whole seconds of the stage:
/// the groups' own seconds need not begin together.
fn summed(groups: &[Group]) -> Vec<(f64, f64, [f64; 3])> {
    let steps = || groups.iter().flat_map(|group| &group.steps);
    let length = steps().map(Step::length).fold(1.0, f64::max);
    let mut bars: Vec<(f64, f64, [f64; 3])> = Vec::new();
    let mut by_time: Vec<&Step> = steps().collect();
    by_time.sort_by(|one, other| one.from.total_cmp(&other.from));
    for step in by_time {
        let rates = [step.failed, step.unknown, step.ok].map(|sum| sum / step.length());
        match bars.last_mut() {
            // Of another group, and nearer to the last bar than to the next.
            Some((from, _, parts)) if groups.len() > 1 && step.from < *from + length / 2.0 => {
                parts.iter_mut().zip(rates).for_each(|(part, rate)| *part += rate);
            }
            _ => bars.push((step.from, step.to, rates)),
        }
    }
    bars
}

/// What came out for each group while something was broken, and otherwise.
fn in_phases(
    what: &str,
    stage: &Stage,
    groups: &[Group],
    shown: impl Fn(&[&Step]) -> String,
) -> String {
    let phase = |broken: bool| {
        let values = groups.iter().filter_map(|group| {
            let steps = group.asking().iter();
            let kept: Vec<&Step> =
                steps.filter(|step| stage.is_broken(step.middle()) == broken).collect();
            (!kept.is_empty()).then(|| format!("{}{}", named(group, groups), shown(&kept)))
        });
        listed(&values.collect::<Vec<_>>())
    };
    match (phase(true), phase(false)) {
        (broken, usual) if broken.is_empty() => format!("{what} {usual}."),
        (broken, usual) if usual.is_empty() => format!("{what} {broken}."),
        (broken, usual) => {
            format!("{what} while something was broken: {broken}. Otherwise: {usual}.")
        }
    }
}

fn legend(groups: &[Group], further: Option<&str>) -> Vec<(String, String)> {
    let groups =
        groups.iter().enumerate().map(|(index, group)| (colour(index), group.name.clone()));
    groups.chain(further.map(|name| ("due".to_owned(), name.to_owned()))).collect()
}

/// What to read at each moment: the value of each group.
fn readings(groups: &[Group], shown: impl Fn(&Step) -> Option<String>) -> Vec<(f64, f64, String)> {
    let Some(first) = groups.iter().max_by_key(|group| group.steps.len()) else {
        return Vec::new();
    };
    let at = |moment: f64| {
        let values = groups.iter().filter_map(|group| {
            let index = group.steps.partition_point(|step| step.to <= moment);
            let step = group.steps.get(index).filter(|step| step.from <= moment)?;
            Some(format!("{}{}", named(group, groups), shown(step)?))
        });
        listed(&values.collect::<Vec<_>>())
    };
    first.steps.iter().map(|step| (step.from, step.to, at(step.middle()))).collect()
}

/// Nothing drawn, for a figure without data.
pub(super) fn empty(stage: &Stage, width: Width) -> Drawing {
    let mut plot = Plot::rows(stage, width, 40.0);
    let middle = f64::midpoint(width.left(), width.right());
    plot.text(middle, plot.bottom - 16.0, "none", "middle", "nothing was recorded");
    plot.finish()
}
