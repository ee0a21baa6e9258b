//! The directory that a run leaves behind: see [`super::record`] for the JSON files, and
//! [`super::ledger`] for the ledger.
//!
//! `latency.hlog` is an HdrHistogram log (V2, compressed) with one interval a second, in
//! microseconds: HistogramLogAnalyzer and hdrhistogram's plotter read it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use super::Error;
use super::record::{Second, Summary};

/// The names of the files.
pub const SUMMARY: &str = "summary.json";
const SECONDS: &str = "seconds.jsonl";
/// See the module.
pub const LATENCY: &str = "latency.hlog";

/// A run's directory that is being written.
pub struct Directory {
    path: PathBuf,
    seconds: BufWriter<File>,
    latency: BufWriter<File>,
    serializer: V2DeflateSerializer,
}

impl Directory {
    /// Makes it.
    ///
    /// # Errors
    /// When a run is there already, or it cannot be written.
    pub fn create(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|error| Error::file(path, error))?;
        if path.join(SECONDS).exists() || path.join(SUMMARY).exists() {
            return Err(Error::settings(format!(
                "{} holds a run already: name another directory with --output, or remove it",
                path.display()
            )));
        }
        let create = |name: &str| {
            let path = path.join(name);
            File::create(&path).map(BufWriter::new).map_err(|error| Error::file(&path, error))
        };
        let (seconds, latency) = (create(SECONDS)?, create(LATENCY)?);
        let serializer = V2DeflateSerializer::new();
        Ok(Self { path: path.to_owned(), seconds, latency, serializer })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says when the run began, from which the seconds are counted.
    pub(super) fn begin(&mut self, begun_us: u64) -> Result<(), Error> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(begun_us);
        let log = IntervalLogWriterBuilder::new()
            .add_comment("microseconds from when each request was due to its answer")
            .with_start_time(at)
            .with_base_time(at)
            .begin_log_with(&mut self.latency, &mut self.serializer)
            .map(drop);
        log.map_err(|error| Error::file(&self.path.join(LATENCY), error))
    }

    /// Adds a second that began `since` the run did.
    pub(super) fn add(
        &mut self,
        second: &Second,
        latencies: &Histogram<u64>,
        since: Duration,
        length: Duration,
    ) -> Result<(), Error> {
        let line = serde_json::to_string(second).expect("a second has no unusual keys");
        let written = writeln!(self.seconds, "{line}").and_then(|()| self.seconds.flush());
        written.map_err(|error| Error::file(&self.path.join(SECONDS), error))?;
        let failed = |error: String| Error::damaged(&self.path.join(LATENCY), error);
        IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.latency, &mut self.serializer)
            .map_err(|error| failed(error.to_string()))?
            .write_histogram(latencies, since, length, None)
            .map_err(|error| failed(error.to_string()))?;
        self.latency.flush().map_err(|error| failed(error.to_string()))
    }
}

/// Writes a summary, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_summary(directory: &Path, summary: &Summary) -> Result<(), Error> {
    let (path, draft) = (directory.join(SUMMARY), directory.join("summary.json.new"));
    let text = serde_json::to_string_pretty(summary).expect("a summary has no unusual keys");
    let written = fs::write(&draft, text + "\n").and_then(|()| fs::rename(&draft, &path));
    written.map_err(|error| Error::file(&path, error))
}

/// Reads the summary of a run.
///
/// # Errors
/// When there is none, or it is something else.
pub fn read_summary(directory: &Path) -> Result<Summary, Error> {
    let path = directory.join(SUMMARY);
    let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
    serde_json::from_str(&text).map_err(|error| Error::damaged(&path, error))
}

/// Reads the seconds of a run.
///
/// # Errors
/// As [`read_summary`].
pub fn read_seconds(directory: &Path) -> Result<Vec<Second>, Error> {
    let path = directory.join(SECONDS);
    let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
    let seconds = text.lines().map(serde_json::from_str);
    seconds.collect::<Result<_, _>>().map_err(|error| Error::damaged(&path, error))
}
