//! **The report**: from the directories of runs and labs to one page that can be sent by mail.
//!
//! ```text
//!   DIR ──input──▶ records ──stage, trail──▶ section ──plot──▶ figures ──page──▶ report.html
//!                                                                 └─────picture──▶ NN-name.png
//! ```
//!
//! A reader wants, in this order: did everything hold; if not, where; and then to see it. So a page
//! begins with the verdicts in words, and each scenario is a column of plots over one time axis with
//! a band wherever something was broken, so that cause and effect stand above each other.
//!
//! What always holds: the page needs no network and, but for the read-out under the pointer, no
//! script; the same records give the same bytes; no text of a record reaches the page unescaped; and
//! a record that is not whole still gives a page that says what is missing.

mod axis;
mod chromium;
mod cluster;
mod figure;
mod flow;
mod input;
mod latency;
mod markup;
mod number;
mod page;
mod picture;
mod plot;
mod section;
mod stage;
mod tables;
mod timeline;
mod trail;
mod views;
mod words;

use std::path::Path;

use input::{LabRecord, Record, RunRecord};

pub use chromium::{ChromiumError, paint};
pub use input::ReportError;
pub use picture::Picture;

/// What several directories hold, ready to be drawn.
#[derive(Debug, Default)]
pub struct Report {
    labs: Vec<LabRecord>,
    runs: Vec<RunRecord>,
}

impl Report {
    /// Reads the directories of runs, scenarios and labs, in the order in which they are to be shown.
    /// What a run or lab that was cut short left out is left out here too.
    ///
    /// # Errors
    ///
    /// [`ReportError`] if a directory holds no record at all, or one that cannot be read.
    pub fn read<P: AsRef<Path>>(directories: &[P]) -> Result<Self, ReportError> {
        let mut report = Self::default();
        for directory in directories {
            match input::read(directory.as_ref())? {
                Record::Lab(lab) => report.labs.push(lab),
                Record::Run(run) => report.runs.push(*run),
            }
        }
        Ok(report)
    }

    /// The whole page, as HTML in UTF-8.
    #[must_use]
    pub fn html(&self) -> String {
        page::page(self)
    }

    /// A picture for each scenario and each run, for places where a page cannot be shown.
    #[must_use]
    pub fn pictures(&self) -> Vec<Picture> {
        picture::pictures(self)
    }
}
