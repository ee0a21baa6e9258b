//! A scenario or a run as one picture, for a README: the plots of its section below each other, in
//! light colours, with the verdict on top.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::Report;
use super::figure::Figure;
use super::input::{RunRecord, ScenarioRecord};
use super::markup::{Escaped, shortened};
use super::page::STYLE;
use super::plot::{Px, Width, label};
use super::section;
use super::stage::Stage;
use super::words;

/// Around everything.
const MARGIN: f64 = 20.0;

/// Above each plot, for its title.
const HEADING: f64 = 24.0;

/// Plots that a page has and a picture does without: others show the same more strikingly, and a
/// README is no place for everything.
const LEFT_OUT: &[&str] = &["outcomes"];

/// One picture, as a page that holds nothing but an SVG.
#[derive(Debug, Clone)]
pub struct Picture {
    /// For its file, without an ending: `01-split-sloppy`.
    pub name: String,
    /// Pixels of the page.
    pub width: u32,
    /// Pixels of the page.
    pub height: u32,
    /// The page.
    pub html: String,
}

pub(super) fn pictures(report: &Report) -> Vec<Picture> {
    let scenarios = report.labs.iter().flat_map(|lab| &lab.scenarios);
    let scenarios = scenarios.filter(|record| record.missing.is_none()).map(of_scenario);
    let mut pictures: Vec<Picture> = scenarios.chain(report.runs.iter().map(of_run)).collect();
    // Two labs have scenarios of the same names, and none may take another's place.
    let mut taken = BTreeSet::new();
    for picture in &mut pictures {
        let name = picture.name.clone();
        let mut number = 2;
        while !taken.insert(picture.name.clone()) {
            picture.name = format!("{name}-{number}");
            number += 1;
        }
    }
    pictures
}

fn of_scenario(record: &ScenarioRecord) -> Picture {
    let stage = Stage::of_scenario(record);
    let scenario = &record.scenario;
    let title = if scenario.title.is_empty() { &scenario.name } else { &scenario.title };
    let mut words = vec![words::ending(record)];
    words.extend(stage.recovery());
    if words::verification(record).is_some() {
        words.push(format!("lost: {}", words::losses(record)));
    }
    let name = match record.directory.as_str() {
        "" => &scenario.name,
        directory => directory,
    };
    compose(name, title, &words.join(" · "), &section::of_scenario(record, &stage))
}

fn of_run(run: &RunRecord) -> Picture {
    let stage = Stage::of_run(run);
    compose(&run.name, &run.name, &words::run_headline(&run.summary), &section::of_run(run, &stage))
}

fn compose(name: &str, title: &str, words: &str, figures: &[Figure]) -> Picture {
    let mut body = String::new();
    let inside = Width::Wide.total();
    label(&mut body, (0.0, 18.0), "picture-title", "start", &shortened(title, 88));
    let mut top = 42.0;
    for line in lines(words) {
        label(&mut body, (0.0, top), "picture-words", "start", &line);
        top += 20.0;
    }
    for figure in figures.iter().filter(|figure| !LEFT_OUT.contains(&figure.slug.as_str())) {
        label(&mut body, (0.0, top + 14.0), "heading", "start", &figure.title);
        if figure.legend_always {
            legend(&mut body, &figure.legend, top + 14.0);
        }
        let y = Px(top + HEADING);
        let _ = write!(body, r#"<g transform="translate(0 {y})">{}</g>"#, figure.wide.body);
        top += HEADING + figure.wide.height + 10.0;
    }
    let width = (inside + 2.0 * MARGIN).ceil() as u32;
    let height = (top + 2.0 * MARGIN).ceil() as u32;
    let title = Escaped(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>\n{STYLE}html {{ color-scheme: light }} svg {{ display: block }}</style></head>\n\
         <body><svg width=\"{width}\" height=\"{height}\" role=\"img\"><title>{title}</title>\
         <g transform=\"translate({MARGIN} {MARGIN})\">{body}</g></svg></body></html>\n"
    );
    Picture { name: file_name(name), width, height, html }
}

/// Words in lines that fit: SVG does not break them by itself.
fn lines(words: &str) -> Vec<String> {
    const LETTERS: usize = 118;
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_ascii_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LETTERS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(shortened(word, LETTERS)),
        }
    }
    lines
}

/// The legend of the strip, right of its title.
fn legend(body: &mut String, legend: &[(String, String)], y: f64) {
    let mut x = 400.0;
    for (class, name) in legend {
        let class = class.strip_prefix("box ").unwrap_or(class);
        let (top, height) = if class == "is-silent" { (y - 5.0, 2.0) } else { (y - 9.0, 10.0) };
        super::plot::rectangle(body, class, (x, top), (18.0, height));
        label(body, (x + 24.0, y), "", "start", name);
        x += 24.0 + name.chars().count() as f64 * 6.5 + 22.0;
    }
}

/// A name that stays in its directory.
fn file_name(name: &str) -> String {
    let kept = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let name: String = name.chars().map(|one| if kept(one) { one } else { '-' }).collect();
    let name = name.trim_matches(['.', '-']).to_owned();
    if name.is_empty() { "picture".to_owned() } else { name }
}
