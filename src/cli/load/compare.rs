//! `load compare`: what changed from one run to another.

use std::fmt::Write as _;

use serde_json::json;

use super::args::Compare;
use crate::cli::exit::{Ending, Exit};
use crate::cli::output::{Form, table};
use crate::cli::quantity::micros;
use crate::load::compare::{Comparison, Figure, Row, Runs, compare};

pub(super) fn run(asked: &Compare, form: Form) -> Ending {
    let (before, after) = (Runs::open(&asked.before)?, Runs::open(&asked.after)?);
    let comparison = compare(&before, &after)?;
    form.answer(&text(&comparison), || json!(comparison))?;
    Ok(Exit::Done)
}

fn text(comparison: &Comparison) -> String {
    let header = ["FIGURE", "BEFORE", "AFTER", "RATIO", "99 IN 100", ""];
    let rows = comparison.rows.iter().map(cells).collect();
    let mut text = table(&header, &header[1..5], rows);
    let (before, after) = comparison.unanswered;
    if before + after > 0.0 {
        let (before, after) = (before * 100.0, after * 100.0);
        let _ = writeln!(text, "\nfailed or unknown: {before:.3}% before, {after:.3}% after");
    }
    if comparison.runs == (1, 1) {
        text.push_str(
            "\nOne run of each: how runs differ among themselves is not seen. Three or more of each,\n\
             done in turn, in two directories, are compared in pairs.\n",
        );
    }
    for (name, (before, after)) in &comparison.settings {
        let _ = writeln!(text, "different settings: {name} was {before} and is {after}");
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let figure = |value: f64| match row.figure {
        Figure::Rate => format!("{value:.0}"),
        _ if value.is_nan() => "-".to_owned(),
        _ => micros(value as u32),
    };
    let interval = row
        .interval
        .map_or_else(|| "-".to_owned(), |(least, most)| format!("{least:.3} to {most:.3}"));
    let verdict = match (row.figure, row.differs(), row.ratio > 1.0) {
        (_, false, _) => "no difference seen",
        (Figure::Rate, true, true) => "more",
        (Figure::Rate, true, false) => "fewer",
        (_, true, true) => "slower",
        (_, true, false) => "faster",
    };
    vec![
        row.figure.name().to_owned(),
        figure(row.before),
        figure(row.after),
        format!("{:.3}", row.ratio),
        interval,
        verdict.to_owned(),
    ]
}
