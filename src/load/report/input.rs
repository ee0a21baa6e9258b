//! From directories to records: what [`super::super::record`] describes, as far as it is there.
//!
//! A report is wanted most when something went wrong, so a record that is not whole is no reason
//! not to draw the rest: a scenario without a record stands in the table as such, a run that was
//! killed is summed up from its seconds, and a last line that was cut off is left out. Only a
//! directory that holds nothing at all, or a whole line that is no JSON, is refused.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::load::record::{Lab, Scenario, Second, Summary};

/// Why there is no report. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The caller's: a directory that is neither a run, nor a scenario, nor a lab.
    #[error(
        "{} holds no lab.json, scenario.json, summary.json or seconds.jsonl: name a directory that \
         `ringdove load --output` or `partition-lab --report` wrote", .0.display()
    )]
    NoRecord(PathBuf),
    /// The file system's: a file is there and cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The writer's: a file that is no record of this version.
    #[error("{} line {line}: {error}", path.display())]
    NoJson {
        /// Which file.
        path: PathBuf,
        /// From 1; 1 for a file that is one document.
        line: usize,
        /// What the parser says.
        error: serde_json::Error,
    },
}

/// A lab, or a scenario alone.
#[derive(Debug, Default)]
pub(super) struct LabRecord {
    pub lab: Lab,
    pub scenarios: Vec<ScenarioRecord>,
}

#[derive(Debug, Default)]
pub(super) struct ScenarioRecord {
    /// The directory's name.
    pub directory: String,
    pub scenario: Scenario,
    /// In the order of the scenario's sides.
    pub sides: Vec<RunRecord>,
    /// Why there is nothing to show.
    pub missing: Option<String>,
}

/// What one group of clients saw.
#[derive(Debug, Default)]
pub(super) struct RunRecord {
    /// For legends: the side's name, or the run's label or directory.
    pub name: String,
    /// The nodes that it used, where known.
    pub nodes: Vec<String>,
    pub summary: Summary,
    /// By time.
    pub seconds: Vec<Second>,
}

/// What one directory holds.
pub(super) enum Record {
    Lab(LabRecord),
    Run(Box<RunRecord>),
}

pub(super) fn read(directory: &Path) -> Result<Record, ReportError> {
    if let Some(lab) = document::<Lab>(&directory.join("lab.json"))? {
        let scenarios = lab.scenarios.iter().map(|name| read_scenario(directory, name));
        return Ok(Record::Lab(LabRecord { scenarios: scenarios.collect(), lab }));
    }
    if directory.join("scenario.json").exists() {
        let scenarios = vec![recorded(directory)?];
        return Ok(Record::Lab(LabRecord { lab: Lab::default(), scenarios }));
    }
    match read_run(directory)? {
        Some(mut run) => {
            run.name = Some(run.summary.label.clone())
                .filter(|label| !label.is_empty())
                .unwrap_or_else(|| last_name(directory));
            Ok(Record::Run(Box::new(run)))
        }
        None => Err(ReportError::NoRecord(directory.to_owned())),
    }
}

/// A scenario of a lab; one that cannot be read is there, with the reason.
fn read_scenario(lab: &Path, name: &str) -> ScenarioRecord {
    recorded(&lab.join(name)).unwrap_or_else(|error| {
        let missing = match error {
            ReportError::NoRecord(_) => "it did not run to its end".to_owned(),
            other => other.to_string(),
        };
        let mut record = ScenarioRecord { directory: name.to_owned(), ..ScenarioRecord::default() };
        let (number, rest) = name.split_once('-').unwrap_or(("", name));
        record.scenario.number = number.parse().unwrap_or(0);
        record.scenario.name = if record.scenario.number > 0 { rest } else { name }.to_owned();
        record.missing = Some(missing);
        record
    })
}

fn recorded(directory: &Path) -> Result<ScenarioRecord, ReportError> {
    let mut scenario = document::<Scenario>(&directory.join("scenario.json"))?
        .ok_or_else(|| ReportError::NoRecord(directory.to_owned()))?;
    let mut sides = Vec::new();
    for side in &scenario.sides {
        let mut run = read_run(&directory.join(&side.run))?.unwrap_or_default();
        run.name = if side.name.is_empty() { side.run.clone() } else { side.name.clone() };
        run.nodes.clone_from(&side.nodes);
        sides.push(run);
    }
    scenario.looks.sort_by_key(|look| look.at_ms);
    scenario.views.sort_by_key(|view| view.at_ms);
    let directory = last_name(directory);
    if scenario.name.is_empty() {
        scenario.name.clone_from(&directory);
    }
    let known: BTreeSet<&String> = scenario.nodes.iter().collect();
    let seen = scenario.views.iter().flat_map(|view| [&view.node, &view.peer]);
    let strangers: BTreeSet<String> = seen.filter(|node| !known.contains(node)).cloned().collect();
    scenario.nodes.extend(strangers);
    Ok(ScenarioRecord { directory, scenario, sides, missing: None })
}

fn read_run(directory: &Path) -> Result<Option<RunRecord>, ReportError> {
    let summary = document::<Summary>(&directory.join("summary.json"))?;
    let mut seconds = lines(&directory.join("seconds.jsonl"))?;
    if summary.is_none() && seconds.is_none() {
        return Ok(None);
    }
    if let Some(seconds) = &mut seconds {
        seconds.sort_by_key(|second| second.at_ms);
    }
    let seconds = seconds.unwrap_or_default();
    let summary = summary.unwrap_or_else(|| summed_up(&seconds));
    Ok(Some(RunRecord { summary, seconds, ..RunRecord::default() }))
}

/// The totals of a run that did not live to write them.
fn summed_up(seconds: &[Second]) -> Summary {
    let mut summary = Summary {
        begun_ms: seconds.first().map_or(0, |second| second.at_ms),
        measured_ms: seconds.len() as u64 * 1000,
        ..Summary::default()
    };
    for second in seconds {
        summary.due = summary.due.saturating_add(second.due);
        summary.ok = summary.ok.saturating_add(second.ok);
        summary.unknown = summary.unknown.saturating_add(second.unknown);
        summary.siblings = summary.siblings.saturating_add(second.siblings);
        for (name, count) in &second.failed {
            let total = summary.failed.entry(name.clone()).or_default();
            *total = total.saturating_add(*count);
        }
    }
    summary
}

fn text(path: &Path) -> Result<Option<String>, ReportError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(ReportError::Unreadable { path: path.to_owned(), error }),
    }
}

fn document<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReportError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|error| ReportError::NoJson {
        path: path.to_owned(),
        line: error.line().max(1),
        error,
    })
}

fn lines(path: &Path) -> Result<Option<Vec<Second>>, ReportError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let mut seconds = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(second) => seconds.push(second),
            // Whoever wrote it was stopped in the middle of it.
            Err(_) if !line.ends_with('\n') => break,
            Err(error) => {
                let path = path.to_owned();
                return Err(ReportError::NoJson { path, line: index + 1, error });
            }
        }
    }
    Ok(Some(seconds))
}

fn last_name(directory: &Path) -> String {
    let name = directory.file_name().or_else(|| {
        // `.` and `..` have no name of their own.
        directory.components().next_back().map(|component| component.as_os_str())
    });
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
