//! `load report`: from what runs and labs left behind to a page.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Ending, Exit, Failure};
use super::output;
use crate::load::report::{Report, paint};

const EXAMPLES: &str = "\
Examples:
  ringdove load report out/ --output report.html
  ringdove load report monday/ tuesday/ --output both.html --png

The page needs no network: send it by mail. With --png there is a picture for
each scenario beside it, named as the scenario's directory.";

/// Draw runs and labs as one HTML page
///
/// DIR is what `ringdove load --output` or `partition-lab --report` wrote: a run, a scenario or a
/// whole lab.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LoadReport {
    /// Directories of runs, scenarios or labs
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// The page to write
    #[arg(long, short, value_name = "FILE.html")]
    output: PathBuf,
    /// Draw a picture for each scenario beside it too, with the Chromium on PATH
    #[arg(long)]
    png: bool,
}

pub(super) fn run(asked: &LoadReport) -> Ending {
    let refused = |error: String| Failure::new(Exit::Usage, "report", error);
    let report = Report::read(&asked.directories).map_err(|error| refused(error.to_string()))?;
    let cannot = |error: std::io::Error| {
        let output = asked.output.display();
        refused(format!("cannot write {output}: {error}"))
            .hint("name a file in a directory that is there with --output")
    };
    fs::write(&asked.output, report.html()).map_err(cannot)?;
    let mut written = vec![asked.output.clone()];
    if asked.png {
        let beside = asked.output.parent().filter(|parent| !parent.as_os_str().is_empty());
        let pictures = paint(&report.pictures(), beside.unwrap_or(Path::new(".")));
        let failed = |error: String| {
            let hint = format!("the page is there: {}", asked.output.display());
            Failure::new(Exit::No, "png", error).hint(hint)
        };
        written.extend(pictures.map_err(|error| failed(error.to_string()))?);
    }
    let lines: String = written.iter().map(|path| format!("{}\n", path.display())).collect();
    output::print(lines.as_bytes())?;
    Ok(Exit::Done)
}
