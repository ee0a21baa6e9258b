//! Counts as text: the line that changes while a run goes on, and the table at its end.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use crate::cli::output::{note, table};
use crate::cli::quantity::micros;
use crate::load::Progress;
use crate::load::record::{Summary, Verification};

/// A line on standard error that is written over, where that is a terminal.
pub(super) struct Line {
    is_shown: bool,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal() }
    }

    /// Shows how far a run is.
    pub(super) fn progress(&self, progress: &Progress<'_>) {
        let second = progress.second;
        let span = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), latency);
        let mut line = format!(
            "{:>4}/{}s  {:>6}/s  p50 {}  p99 {}  under way {}",
            progress.elapsed.as_secs(),
            progress.whole.as_secs(),
            second.ok,
            span(second.p50_us),
            span(second.p99_us),
            progress.under_way,
        );
        for (name, count) in &second.failed {
            let _ = write!(line, "  {name} {count}");
        }
        for (name, count) in [("siblings", second.siblings), ("unknown", second.unknown)] {
            if count > 0 {
                let _ = write!(line, "  {name} {count}");
            }
        }
        self.show(&line);
    }

    pub(super) fn show(&self, text: &str) {
        if self.is_shown {
            // Nobody is left to tell that standard error is gone.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    /// Leaves the line empty.
    pub(super) fn end(&self) {
        self.show("");
    }
}

fn latency(us: u64) -> String {
    micros(u32::try_from(us).unwrap_or(u32::MAX))
}

/// A summary for people.
pub(super) fn summary(summary: &Summary) -> String {
    let columns = ["50", "90", "99", "99.9", "100"];
    let row = |(kind, one): (&String, &crate::load::record::Latency)| {
        let mut cells = vec![kind.clone(), one.count.to_string()];
        cells.extend(columns.iter().map(|column| {
            one.percentile_us.get(*column).map_or_else(|| "-".to_owned(), |us| latency(*us))
        }));
        cells
    };
    let header = ["KIND", "COUNT", "P50", "P90", "P99", "P99.9", "MOST"];
    // `all` is the sum: it stands last.
    let (all, kinds): (Vec<_>, Vec<_>) =
        summary.latency.iter().partition(|(kind, _)| *kind == "all");
    let rows = kinds.into_iter().chain(all).map(row).collect();
    let mut text = table(&header, &header[1..], rows);
    let seconds = (summary.measured_ms as f64 / 1000.0).max(0.001);
    let _ = write!(
        text,
        "\n{:.0} requests/s answered, of {:.0} due",
        summary.ok as f64 / seconds,
        summary.due as f64 / seconds
    );
    for (name, count) in &summary.failed {
        let _ = write!(text, "; {name} {count}");
    }
    for (name, count) in [("unknown", summary.unknown), ("with siblings", summary.siblings)] {
        if count > 0 {
            let _ = write!(text, "; {name} {count}");
        }
    }
    text.push('\n');
    text
}

/// What reading everything back has found, for people.
pub(super) fn verification(found: &Verification) -> String {
    let stale = found.stalest_ms.map(|ms| format!(" (up to {ms} ms)")).unwrap_or_default();
    let mut text = format!(
        "{} keys read back: {} lost, {} resurrected, {} overwritten, {} damaged\n\
         {} stale reads{stale}; of unknown outcomes {} took effect and {} did not\n",
        found.keys,
        found.lost,
        found.resurrected,
        found.overwritten,
        found.damaged,
        found.stale_reads,
        found.unknown_took_effect,
        found.unknown_did_not,
    );
    if found.keys_with_siblings > 0 {
        let (keys, most) = (found.keys_with_siblings, found.most_siblings);
        let _ = writeln!(text, "{keys} keys have siblings, up to {most}");
    }
    let rest = [
        (
            "writes undecided: verify together with the runs that wrote the same keys",
            found.undecided,
        ),
        ("values that were refused or never written", found.refused_took_effect),
        ("keys that could not be read back", found.unread),
    ];
    for (what, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
        let _ = writeln!(text, "{count} {what}");
    }
    found.examples.iter().for_each(|example| note(example));
    text
}
