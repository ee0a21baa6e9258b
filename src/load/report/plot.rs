//! Drawing: a plot over the time axis of its stage, as the inside of an SVG.
//!
//! ```text
//!   ops/s        n1 n2 n3 | n4 n5     healed        <- unit, labels of bands and marks
//!   3,000 ┤      ░░░░░░░░░░░░░░░░░░░░┆
//!         │──────╮░░░░░░░░░░░░░░░░░░░┆╭─────── all  <- each line named where it ends
//!       0 ┼──────╰───────────────────┆╯───────
//!         0 s        20 s        40 s
//! ```
//!
//! Every plot is drawn twice: wide, and narrow for a phone, where scaling the wide one down would
//! leave letters nobody can read. What always holds: nothing is drawn outside of the plot; colours
//! are names of classes, so that the style sheet has one set for light and one for dark.

use std::fmt::Write;

use super::axis::{Axis, time_ticks};
use super::markup::{Escaped, shortened};
use super::number;
use super::stage::Stage;

/// The width of a letter of 11 pixels, on average and rather more than less.
const LETTER: f64 = 6.2;

/// The strip above a plot, for its unit and the labels of bands.
const HEAD: f64 = 20.0;

/// The strip below, for the numbers of the time axis.
const FOOT: f64 = 20.0;

/// The least distance of two names at the end of their lines.
const NAME_HEIGHT: f64 = 14.0;

/// For which page a plot is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// A screen, or paper.
    Wide,
    /// A phone held upright.
    Narrow,
}

impl Width {
    pub fn total(self) -> f64 {
        match self {
            Self::Wide => 960.0,
            Self::Narrow => 360.0,
        }
    }

    /// Where the plot begins: right of the numbers of its axis.
    pub fn left(self) -> f64 {
        match self {
            Self::Wide => 60.0,
            Self::Narrow => 44.0,
        }
    }

    /// Where the plot ends; beside it stand the names of its lines, if there is room.
    pub fn right(self) -> f64 {
        match self {
            Self::Wide => 830.0,
            Self::Narrow => 350.0,
        }
    }
}

/// The inside of an SVG, and its size.
#[derive(Debug, Clone, Default)]
pub(super) struct Drawing {
    pub width: f64,
    pub height: f64,
    pub body: String,
}

/// A plot that is being drawn.
pub(super) struct Plot<'a> {
    pub width: Width,
    stage: &'a Stage,
    axis: Option<Axis>,
    /// The top and bottom of the inside.
    pub top: f64,
    pub bottom: f64,
    pub body: String,
    names_bands: bool,
    /// Where the unit ends in the strip above the plot.
    unit_end: f64,
}

impl<'a> Plot<'a> {
    /// Everything behind the lines: bands, the time axis, and the vertical one with its unit.
    pub fn over(
        stage: &'a Stage,
        width: Width,
        height: f64,
        axis: Axis,
        unit: &str,
        number: impl Fn(&Axis, f64) -> String,
    ) -> Self {
        let mut plot = Self::rows(stage, width, height);
        plot.vertical(axis, unit, number);
        plot
    }

    /// As [`Plot::over`], without the time: the caller draws the horizontal axis.
    pub fn scaled(
        stage: &'a Stage,
        width: Width,
        height: f64,
        axis: Axis,
        unit: &str,
        number: impl Fn(&Axis, f64) -> String,
    ) -> Self {
        let mut plot = Self::bare(stage, width, height);
        plot.vertical(axis, unit, number);
        plot
    }

    fn vertical(&mut self, axis: Axis, unit: &str, number: impl Fn(&Axis, f64) -> String) {
        self.text(0.0, 11.0, "unit", "start", unit);
        self.unit_end = unit.chars().count() as f64 * LETTER + 4.0;
        let (left, right) = (self.width.left(), self.width.right());
        for tick in &axis.ticks {
            let y = self.bottom - axis.share(*tick) * (self.bottom - self.top);
            let class = if *tick == axis.ticks[0] { "base" } else { "grid" };
            line(&mut self.body, class, (left, y), (right, y));
            self.text(left - 7.0, y + 4.0, "tick", "end", &number(&axis, *tick));
        }
        self.axis = Some(axis);
    }

    /// As [`Plot::over`], for rows of boxes: without a vertical axis.
    pub fn rows(stage: &'a Stage, width: Width, height: f64) -> Self {
        let mut plot = Self::unlabelled(stage, width, height);
        plot.names_bands = true;
        plot
    }

    /// As [`Plot::rows`], for a plot that names the bands itself.
    pub fn unlabelled(stage: &'a Stage, width: Width, height: f64) -> Self {
        let mut plot = Self::bare(stage, width, height);
        for band in stage.merged_bands() {
            let (from, to) = (plot.x(band.from), plot.x(band.to));
            let size = ((to - from).max(2.5), plot.bottom - plot.top);
            rectangle(&mut plot.body, "band", (from, plot.top), size);
        }
        plot.time_axis();
        plot
    }

    fn bare(stage: &'a Stage, width: Width, height: f64) -> Self {
        Self {
            width,
            stage,
            axis: None,
            top: HEAD,
            bottom: HEAD + height,
            body: String::new(),
            names_bands: false,
            unit_end: 0.0,
        }
    }

    pub fn x(&self, at: f64) -> f64 {
        let share = (at / self.stage.seconds).clamp(0.0, 1.0);
        self.width.left() + share * (self.width.right() - self.width.left())
    }

    pub fn y(&self, value: f64) -> f64 {
        let share = self.axis.as_ref().map_or(0.0, |axis| axis.share(value));
        self.bottom - share * (self.bottom - self.top)
    }

    /// The name of each band above it, once for those that share it; a little beside it where that
    /// shows more of it, but never as far as halfway to the next, nor over other names.
    fn band_labels(&mut self) {
        let bands = self.stage.merged_bands();
        let ends: Vec<(f64, f64)> =
            bands.iter().map(|band| (self.x(band.from), self.x(band.to))).collect();
        let healed = self.stage.healed.map_or(f64::INFINITY, |at| self.x(at));
        for (index, (band, (from, to))) in bands.iter().zip(&ends).enumerate() {
            let before = index.checked_sub(1).and_then(|before| ends.get(before));
            let least = self.width.left().max(self.unit_end);
            let left = before.map_or(least, |(_, end)| f64::midpoint(*end, *from)).max(least);
            let after = ends.get(index + 1);
            let right = after.map_or(self.width.right(), |(next, _)| f64::midpoint(*to, *next));
            let right = if *to <= healed { right.min(healed) } else { right };
            let letters = ((right - left).max(0.0) / LETTER) as usize;
            let is_repeated = bands[..index].iter().any(|other| other.label == band.label);
            if letters < 5 || band.label.is_empty() || is_repeated {
                continue;
            }
            let label = shortened(&band.label, letters);
            let half = label.chars().count() as f64 * LETTER / 2.0;
            let middle = f64::midpoint(*from, *to).min(right - half).max(left + half);
            self.text(middle, HEAD - 6.0, "band-label", "middle", &label);
        }
    }

    fn time_axis(&mut self) {
        let most = if self.width == Width::Wide { 10 } else { 4 };
        let ticks = time_ticks(self.stage.seconds, most);
        for tick in ticks {
            let x = self.x(tick);
            line(&mut self.body, "grid", (x, self.bottom), (x, self.bottom + 4.0));
            self.below(x, &number::tick(tick));
        }
    }

    /// A number below the plot, kept on the page.
    pub fn below(&mut self, x: f64, number: &str) {
        let half = number.chars().count() as f64 * LETTER / 2.0;
        let anchor = if x + half > self.width.total() { "end" } else { "middle" };
        let x = if anchor == "end" { self.width.total() } else { x };
        self.text(x, self.bottom + 16.0, "tick", anchor, number);
    }

    /// The moments of healing and convergence, above everything else.
    fn marks(&mut self) {
        let marks = [(self.stage.healed, "healed"), (self.stage.converged, "converged")];
        let on_stage = |at: &f64| (0.0..=self.stage.seconds).contains(at);
        let marks: Vec<(f64, &str)> = marks
            .into_iter()
            .filter_map(|(at, name)| Some((self.x(at.filter(on_stage)?), name)))
            .collect();
        let room = |name: &str| name.len() as f64 * LETTER + 6.0;
        let beside = self.width.total() - 4.0;
        for (x, name) in &marks {
            line(&mut self.body, &format!("mark {name}"), (*x, self.top), (*x, self.bottom));
        }
        // Of two names that would overlap, convergence is the one that a band does not say already.
        let crowded = matches!(marks[..], [(healed, _), (converged, _)] if converged - healed < room("healed"));
        for (x, name) in marks.into_iter().skip(usize::from(crowded)) {
            let (at, anchor) =
                if x + room(name) <= beside { (x + 3.0, "start") } else { (x - 3.0, "end") };
            self.text(at, HEAD - 6.0, "mark-label", anchor, name);
        }
    }

    /// A line through points of the same colour as its name. A point without neighbours is a dot.
    pub fn curve(&mut self, class: &str, segments: &[Vec<(f64, f64)>]) {
        for segment in segments {
            if let [(at, value)] = segment[..] {
                let (x, y) = (Px(self.x(at)), Px(self.y(value)));
                let _ =
                    write!(self.body, r#"<circle class="dot {class}" cx="{x}" cy="{y}" r="2.2"/>"#);
                continue;
            }
            let path = self.path(segment.iter().copied());
            let _ = write!(self.body, r#"<path class="curve {class}" d="M{path}"/>"#);
        }
    }

    /// What lies between a line and the bottom.
    pub fn ground(&mut self, class: &str, segments: &[Vec<(f64, f64)>]) {
        for segment in segments {
            let [(first, _), .., (last, _)] = segment[..] else { continue };
            let path = self.path(segment.iter().copied());
            let (from, to, bottom) = (Px(self.x(first)), Px(self.x(last)), Px(self.bottom));
            let _ = write!(
                self.body,
                r#"<path class="ground {class}" d="M{path}L{to} {bottom}L{from} {bottom}Z"/>"#
            );
        }
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let points: Vec<String> =
            points.map(|(at, value)| format!("{} {}", Px(self.x(at)), Px(self.y(value)))).collect();
        points.join("L")
    }

    /// Names at the right end of the lines, each at the height of its line's last point and moved
    /// only as far as the others need. On a narrow page the legend says it instead.
    pub fn names(&mut self, mut names: Vec<(f64, String, String)>) {
        if self.width == Width::Narrow {
            return;
        }
        names.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut lowest = self.top - NAME_HEIGHT;
        for name in &mut names {
            name.0 = name.0.max(lowest + NAME_HEIGHT);
            lowest = name.0;
        }
        let mut highest = self.bottom + NAME_HEIGHT;
        for name in names.iter_mut().rev() {
            name.0 = name.0.min(highest - NAME_HEIGHT);
            highest = name.0;
        }
        let letters = ((self.width.total() - self.width.right() - 8.0) / LETTER) as usize;
        for (y, class, name) in names {
            let class = format!("name {class}");
            let name = shortened(&name, letters);
            self.text(self.width.right() + 8.0, y + 4.0, &class, "start", &name);
        }
    }

    pub fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        label(&mut self.body, (x, y), class, anchor, text);
    }

    pub fn finish(mut self) -> Drawing {
        self.marks();
        if self.names_bands {
            self.band_labels();
        }
        Drawing { width: self.width.total(), height: self.bottom + FOOT, body: self.body }
    }
}

/// Writes a text whose start, middle or end stands at a point.
pub(super) fn label(body: &mut String, at: (f64, f64), class: &str, anchor: &str, text: &str) {
    let (x, y, text) = (Px(at.0), Px(at.1), Escaped(text));
    let anchor = match anchor {
        "start" => String::new(),
        other => format!(r#" text-anchor="{other}""#),
    };
    let _ = write!(body, r#"<text class="{class}" x="{x}" y="{y}"{anchor}>{text}</text>"#);
}

pub(super) fn line(body: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let (x1, y1, x2, y2) = (Px(from.0), Px(from.1), Px(to.0), Px(to.1));
    let _ = write!(body, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
}

pub(super) fn rectangle(body: &mut String, class: &str, at: (f64, f64), size: (f64, f64)) {
    let (x, y, width, height) = (Px(at.0), Px(at.1), Px(size.0), Px(size.1));
    let _ = write!(
        body,
        r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#
    );
}

/// A coordinate: a tenth of a pixel is as fine as a screen shows.
pub(super) struct Px(pub f64);

impl std::fmt::Display for Px {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&number::trimmed(self.0, 1))
    }
}
