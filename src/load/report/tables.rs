//! The tables of a report: the verdicts on top, and for each section who asked what and got what.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::load::record::{Summary, Verification};

use super::input::{LabRecord, RunRecord, ScenarioRecord};
use super::markup::Escaped;
use super::number;
use super::stage::Stage;
use super::words::{self, Ending};

/// All scenarios in a line each, with links to their sections.
pub(super) fn verdicts(lab: &LabRecord, anchor: impl Fn(usize) -> String) -> String {
    let mut rows = String::new();
    for (index, record) in lab.scenarios.iter().enumerate() {
        let ending = Ending::of(record);
        let stage = Stage::of_scenario(record);
        let number = match record.scenario.number {
            0 => String::new(),
            number => number.to_string(),
        };
        let title = if record.scenario.title.is_empty() {
            String::new()
        } else {
            format!(" <span class=\"what\">{}</span>", Escaped(&record.scenario.title))
        };
        let _ = writeln!(
            rows,
            "<tr><td class=\"number\">{number}</td>\
             <th scope=\"row\"><a href=\"#{}\">{}</a>{title}</th>\
             <td class=\"{}\"><span class=\"badge\"><span aria-hidden=\"true\">{}</span> {}</span></td>\
             <td data-name=\"Heal to equal copies\">{}</td><td data-name=\"Lost\">{}</td></tr>",
            anchor(index),
            Escaped(&record.scenario.name),
            ending.class(),
            ending.sign(),
            words::ending(record),
            Escaped(&words::convergence(&stage)),
            Escaped(&words::losses(record)),
        );
    }
    format!(
        "<div class=\"wide-table\"><table class=\"verdicts\"><thead><tr><th scope=\"col\">No.</th>\
         <th scope=\"col\">Scenario</th><th scope=\"col\">Verdict</th>\
         <th scope=\"col\">Heal to equal copies</th><th scope=\"col\">What was lost</th></tr></thead>\
         <tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// A row for each run: what it asked and what it got.
pub(super) fn runs(runs: &[RunRecord], first: &str) -> String {
    let mut rows = String::new();
    for run in runs {
        let (name, nodes) = (Escaped(&run.name), run.nodes.join(" "));
        let nodes = if nodes.is_empty() {
            String::new()
        } else {
            format!(" <span class=\"what\">{}</span>", Escaped(&nodes))
        };
        let summary = &run.summary;
        let _ = write!(rows, "<tr><th scope=\"row\">{name}{nodes}</th>");
        let _ = write!(rows, "<td>{}</td>", rate(summary));
        let _ = write!(rows, "<td>{}</td>", number::count(summary.ok));
        let _ = write!(rows, "<td>{}</td>", failures(&summary.failed));
        let _ = write!(rows, "<td>{}</td>", number::count(summary.unknown));
        let all = summary.latency.get("all");
        for name in ["50", "99", "99.9"] {
            let value = all.and_then(|all| all.percentile_us.get(name));
            let shown = value.map_or_else(|| "–".to_owned(), |us| number::latency(*us as f64));
            let _ = write!(rows, "<td>{shown}</td>");
        }
        rows.push_str("</tr>\n");
    }
    format!(
        "<div class=\"wide-table\"><table class=\"runs\"><thead><tr><th scope=\"col\">{}</th>\
         <th scope=\"col\">rate</th><th scope=\"col\">acknowledged</th><th scope=\"col\">failed</th>\
         <th scope=\"col\">unknown</th><th scope=\"col\">p50</th><th scope=\"col\">p99</th>\
         <th scope=\"col\">p99.9</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n",
        Escaped(first)
    )
}

/// Requests answered a second, over the measured time.
fn rate(summary: &Summary) -> String {
    match summary.measured_ms {
        0 => "–".to_owned(),
        ms => number::per_second(summary.ok as f64 * 1e3 / ms as f64),
    }
}

/// How many failed, and of which errors.
fn failures(failed: &BTreeMap<String, u64>) -> String {
    let total = failed.values().fold(0u64, |sum, count| sum.saturating_add(*count));
    let mut kinds: Vec<(&String, &u64)> = failed.iter().filter(|(_, count)| **count > 0).collect();
    kinds.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    let kinds: Vec<String> = kinds
        .iter()
        .map(|(name, count)| format!("{} {}", Escaped(name), number::count(**count)))
        .collect();
    if kinds.is_empty() {
        return number::count(total);
    }
    format!("{} <span class=\"what\">{}</span>", number::count(total), kinds.join(", "))
}

/// Latency by kind of operation.
pub(super) fn latencies(summary: &Summary) -> String {
    const COLUMNS: [&str; 6] = ["50", "90", "99", "99.9", "99.99", "100"];
    if summary.latency.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for (kind, latency) in &summary.latency {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>",
            Escaped(kind),
            number::count(latency.count),
            number::latency(latency.mean_us)
        );
        for column in COLUMNS {
            let value = latency.percentile_us.get(column);
            let shown = value.map_or_else(|| "–".to_owned(), |us| number::latency(*us as f64));
            let _ = write!(rows, "<td>{shown}</td>");
        }
        rows.push_str("</tr>\n");
    }
    let head: String = COLUMNS
        .iter()
        .map(|column| match *column {
            "100" => "<th scope=\"col\">slowest</th>".to_owned(),
            column => format!("<th scope=\"col\">p{column}</th>"),
        })
        .collect();
    format!(
        "<div class=\"wide-table\"><table class=\"runs\"><thead><tr>\
         <th scope=\"col\">latency of</th><th scope=\"col\">requests</th><th scope=\"col\">mean</th>\
         {head}</tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// What must hold, and whether it did.
pub(super) fn evidence(record: &ScenarioRecord) -> String {
    let mut items = String::new();
    for verdict in &record.scenario.verdicts {
        let ending = words::verdict(verdict);
        let said = if verdict.holds { "holds" } else { "does not hold" };
        let _ = write!(
            items,
            "<li class=\"{}\"><span class=\"sign\" aria-hidden=\"true\">{}</span>\
             <span class=\"unseen\">{said}: </span>{}",
            ending.class(),
            ending.sign(),
            Escaped(&verdict.text)
        );
        if !verdict.evidence.is_empty() {
            let _ = write!(items, " <span class=\"what\">{}</span>", Escaped(&verdict.evidence));
        }
        items.push_str("</li>\n");
    }
    if items.is_empty() { items } else { format!("<ul class=\"evidence\">\n{items}</ul>\n") }
}

/// What reading everything back found.
pub(super) fn findings(found: &Verification) -> String {
    let mut items = String::new();
    for (what, count) in words::findings(found) {
        let _ = write!(items, "<div><dt>{}</dt><dd>{}</dd></div>", Escaped(what), Escaped(&count));
    }
    let mut text = format!("<dl class=\"findings\">{items}</dl>\n");
    if !found.examples.is_empty() {
        text.push_str("<details><summary>Some of them</summary><ul>");
        for example in &found.examples {
            let _ = write!(text, "<li>{}</li>", Escaped(example));
        }
        text.push_str("</ul></details>\n");
    }
    text
}

/// What a run was started with.
pub(super) fn settings(settings: &BTreeMap<String, String>) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for (option, value) in settings {
        let _ = write!(
            rows,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td></tr>",
            Escaped(option),
            Escaped(value)
        );
    }
    format!(
        "<details><summary>What it was started with</summary>\
         <table class=\"settings\"><tbody>{rows}</tbody></table></details>\n"
    )
}
