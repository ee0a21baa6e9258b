//! The page: HTML around the plots, with its style and its script inside.

use std::fmt::Write;

use super::Report;
use super::figure::Figure;
use super::input::{LabRecord, RunRecord, ScenarioRecord};
use super::markup::Escaped;
use super::number;
use super::plot::{Drawing, Px, Width};
use super::section;
use super::stage::Stage;
use super::tables;
use super::words::{self, Ending};

/// Everything in light colours; paper has these too.
pub(super) const STYLE: &str = include_str!("style.css");

/// The colours for screens that are dark.
const DARK: &str = include_str!("dark.css");

/// The read-out under the pointer. Nothing needs it.
const SCRIPT: &str = include_str!("readout.js");

pub(super) fn page(report: &Report) -> String {
    let title = match (report.labs.is_empty(), report.runs.len()) {
        (false, _) => "Ringdove partition lab",
        (true, 1) => "Ringdove load run",
        (true, _) => "Ringdove load runs",
    };
    let mut body = String::new();
    for (index, lab) in report.labs.iter().enumerate() {
        write_lab(&mut body, lab, index, title);
    }
    write_runs(&mut body, report, title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
         <style>\n{STYLE}{DARK}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         <footer>Times are seconds since each section began. Latency is counted from when a request \
         was due, so a stall is seen in full. Failed: certainly nothing was done. Unknown: a write \
         that nobody knows the outcome of.</footer>\n\
         <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

fn write_lab(body: &mut String, lab: &LabRecord, index: usize, title: &str) {
    let anchor = |scenario: usize| format!("lab-{}-scenario-{}", index + 1, scenario + 1);
    let _ = write!(
        body,
        "<header class=\"top\">\n<h1>{title}</h1>\n<p class=\"lead\">{}</p>\n<p class=\"meta\">{}</p>\n\
         </header>\n",
        Escaped(&words::headline(lab)),
        Escaped(&setting_of(lab))
    );
    body.push_str(&tables::verdicts(lab, anchor));
    for (scenario, record) in lab.scenarios.iter().enumerate() {
        write_scenario(body, record, &anchor(scenario));
    }
}

/// Program, seed, network and time of a lab, as far as they are known.
fn setting_of(lab: &LabRecord) -> String {
    let mut parts = Vec::new();
    if !lab.lab.program.is_empty() {
        parts.push(program(&lab.lab.program));
    }
    if !lab.lab.scenarios.is_empty() {
        parts.push(format!("seed {}", lab.lab.seed));
    }
    if !lab.lab.network.is_empty() {
        parts.push(lab.lab.network.clone());
    }
    let begun = lab.scenarios.iter().map(|record| record.scenario.begun_ms).filter(|at| *at > 0);
    if let Some(begun) = begun.min() {
        parts.push(number::moment(begun));
    }
    parts.join(" · ")
}

/// The version alone says too little.
fn program(version: &str) -> String {
    let is_number = version.starts_with(|first: char| first.is_ascii_digit());
    if is_number { format!("ringdove {version}") } else { version.to_owned() }
}

fn write_scenario(body: &mut String, record: &ScenarioRecord, anchor: &str) {
    let scenario = &record.scenario;
    let stage = Stage::of_scenario(record);
    let ending = Ending::of(record);
    let title = if scenario.title.is_empty() { &scenario.name } else { &scenario.title };
    let _ = write!(
        body,
        "<section class=\"scenario\" id=\"{anchor}\">\n<header>\n<p class=\"kicker\">Scenario {}</p>\n\
         <h2>{}</h2>\n<p class=\"{}\"><span class=\"badge\"><span aria-hidden=\"true\">{}</span> {}</span>",
        Escaped(&words::name(record)),
        Escaped(title),
        ending.class(),
        ending.sign(),
        words::ending(record),
    );
    if let Some(recovery) = stage.recovery() {
        let _ = write!(body, " <span class=\"recovered\">{}</span>", Escaped(&recovery));
    }
    body.push_str("</p>\n</header>\n");
    if let Some(missing) = &record.missing {
        let _ = write!(
            body,
            "<p class=\"missing\">There is no record of it: {}.</p>\n</section>\n",
            Escaped(missing)
        );
        return;
    }
    for (class, text) in [("teaches", &scenario.teaches), ("setting", &scenario.setting)] {
        if !text.is_empty() {
            let _ = writeln!(body, "<p class=\"{class}\">{}</p>", Escaped(text));
        }
    }
    body.push_str(&tables::evidence(record));
    write_figures(body, &section::of_scenario(record, &stage), anchor, &stage);
    if !record.sides.is_empty() {
        body.push_str("<h3>The clients</h3>\n");
        body.push_str(&tables::runs(&record.sides, "side"));
    }
    if let Some(found) = words::verification(record) {
        body.push_str("<h3>Read back afterwards</h3>\n");
        body.push_str(&tables::findings(&found));
    }
    body.push_str("</section>\n");
}

fn write_runs(body: &mut String, report: &Report, title: &str) {
    if report.runs.is_empty() {
        return;
    }
    if report.labs.is_empty() {
        let _ = writeln!(body, "<header class=\"top\">\n<h1>{title}</h1>\n</header>");
    }
    let in_table = report.runs.len() > 1;
    if in_table {
        body.push_str(&tables::runs(&report.runs, "run"));
    }
    for (index, run) in report.runs.iter().enumerate() {
        write_run(body, run, &format!("run-{}", index + 1), in_table);
    }
}

/// A run without a lab; its numbers stand above its plots, unless they stand in the table on top.
fn write_run(body: &mut String, run: &RunRecord, anchor: &str, in_table: bool) {
    let stage = Stage::of_run(run);
    let summary = &run.summary;
    let _ = write!(
        body,
        "<section class=\"scenario\" id=\"{anchor}\">\n<header>\n<p class=\"kicker\">Run</p>\n\
         <h2>{}</h2>\n</header>\n",
        Escaped(&run.name)
    );
    let mut parts = Vec::new();
    if !summary.program.is_empty() {
        parts.push(program(&summary.program));
    }
    if summary.begun_ms > 0 {
        parts.push(number::moment(summary.begun_ms));
    }
    if summary.measured_ms > 0 {
        parts.push(format!("{} measured", number::span(summary.measured_ms as f64)));
    }
    let headline = words::run_headline(summary);
    let _ = writeln!(body, "<p class=\"lead\">{}</p>", Escaped(&headline));
    let _ = writeln!(body, "<p class=\"setting\">{}</p>", Escaped(&parts.join(" · ")));
    if !in_table {
        body.push_str(&tables::runs(std::slice::from_ref(run), "run"));
    }
    write_figures(body, &section::of_run(run, &stage), anchor, &stage);
    body.push_str(&tables::latencies(summary));
    if let Some(found) = &summary.verification {
        body.push_str("<h3>Read back afterwards</h3>\n");
        body.push_str(&tables::findings(found));
    }
    body.push_str(&tables::settings(&summary.settings));
    body.push_str("</section>\n");
}

fn write_figures(body: &mut String, figures: &[Figure], anchor: &str, stage: &Stage) {
    for figure in figures {
        write_figure(body, figure, anchor, stage);
    }
}

fn write_figure(body: &mut String, figure: &Figure, anchor: &str, stage: &Stage) {
    let id = format!("{anchor}-{}", figure.slug);
    let title = Escaped(&figure.title);
    let _ = write!(body, "<figure id=\"{id}\">\n<figcaption><h3>{title}</h3>");
    if !figure.caption.is_empty() {
        let _ = write!(body, "<p>{}</p>", Escaped(&figure.caption));
    }
    body.push_str("</figcaption>\n");
    if figure.legend_always || figure.legend.len() > 1 {
        let always = if figure.legend_always { " always" } else { "" };
        let _ = write!(body, "<ul class=\"legend{always}\" aria-hidden=\"true\">");
        for (class, name) in &figure.legend {
            let _ = write!(body, "<li>{}{}</li>", swatch(class), Escaped(name));
        }
        body.push_str("</ul>\n");
    }
    body.push_str("<div class=\"plot\">");
    write_drawing(body, figure, &figure.wide, "wide", &id);
    write_drawing(body, figure, &figure.narrow, "narrow", &id);
    if !figure.readings.is_empty() {
        let (left, right) = (Px(Width::Wide.left()), Px(Width::Wide.right()));
        let _ = write!(
            body,
            "<script type=\"application/json\" data-left=\"{left}\" data-right=\"{right}\" \
             data-seconds=\"{}\">[{}]</script>",
            stage.seconds,
            readings(figure)
        );
    }
    body.push_str("</div>\n</figure>\n");
}

fn write_drawing(body: &mut String, figure: &Figure, drawing: &Drawing, class: &str, id: &str) {
    let (width, height) = (Px(drawing.width), Px(drawing.height));
    let _ = writeln!(
        body,
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"{id}-{class}-title {id}-{class}-desc\">\
         <title id=\"{id}-{class}-title\">{}</title><desc id=\"{id}-{class}-desc\">{}</desc>{}</svg>",
        Escaped(&figure.title),
        Escaped(&figure.caption),
        drawing.body
    );
}

/// A sample of a line or a box, for a legend.
fn swatch(class: &str) -> String {
    let shape = match class.strip_prefix("box ") {
        Some("is-silent") => {
            "<rect class=\"is-silent\" y=\"4\" width=\"18\" height=\"2\"/>".to_owned()
        }
        Some(class) => format!("<rect class=\"{class}\" width=\"18\" height=\"10\"/>"),
        None => format!("<line class=\"curve {class}\" x2=\"18\" y1=\"5\" y2=\"5\"/>"),
    };
    format!("<svg class=\"swatch\" viewBox=\"0 0 18 10\">{shape}</svg>")
}

/// `[from, to, "words"]` for the script, as JSON inside of HTML.
fn readings(figure: &Figure) -> String {
    let items = figure.readings.iter().map(|(from, to, text)| {
        // `<` could end the element; everything else is JSON's business.
        let text = serde_json::Value::String(text.clone()).to_string().replace('<', "\\u003c");
        format!("[{},{},{text}]", number::trimmed(*from, 2), number::trimmed(*to, 2))
    });
    items.collect::<Vec<_>>().join(",")
}
