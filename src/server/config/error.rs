//! What is wrong with a configuration, where, and what to write instead.
//!
//! Reads like this, once for each problem, in the order of the file:
//!
//! ```text
//! ringdove.toml:12:1: requests.atempt_ms: there is no such setting
//!    |
//! 12 | atempt_ms = 100
//!    | ^^^^^^^^^
//!    = write `attempt_ms`; the keys of [requests] are timeout_ms, attempt_ms, …
//! ```

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Why a configuration was refused. The operator's to mend; nothing was opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {}: {reason}\n  \
         = give the path of a readable file; config/ringdove.toml of the source is the manual of \
         every setting and can be copied as it is", path.display()
    )]
    Unreadable {
        /// The path that was asked for.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        reason: io::Error,
    },
    /// What it says cannot be: every problem found, in the order of the file, then of the
    /// `--set`s, then where settings contradict each other. Never empty.
    #[error("{}", join(problems))]
    Refused {
        /// The problems.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) place: Place,
    pub(super) wrong: String,
    pub(super) instead: String,
}

/// Where a key or a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `ringdove.toml` or `--set`.
    origin: String,
    /// Line and column, both from 1. A `--set` has one line, which is not numbered.
    pub(super) position: Option<(usize, usize)>,
    line: String,
    /// Characters of the line before the caret, and under it.
    before: usize,
    width: usize,
}

/// A text that settings are read from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A file's name and its text.
    File(&'a str, &'a str),
    /// The argument of a `--set`.
    Override(&'a str),
}

impl Source<'_> {
    /// The place of these bytes of the text. A place of several lines is shown by its first.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let (Source::File(_, text) | Source::Override(text)) = *self;
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[line_start..].lines().next().unwrap_or("").to_string();
        let before = text[line_start..start].chars().count();
        let rest = line.chars().count().saturating_sub(before);
        let end = text.floor_char_boundary(span.end.max(start));
        let width = text[start..end].chars().count().min(rest).max(1);
        match *self {
            Source::File(name, _) => {
                let number = text[..line_start].matches('\n').count() + 1;
                let position = Some((number, before + 1));
                Place { origin: name.into(), position, line, before, width }
            }
            Source::Override(_) => {
                Place { origin: "--set".into(), position: None, line, before, width }
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { origin, position, line, before, width } = &self.place;
        let (number, header) = match position {
            Some((number, column)) => (number.to_string(), format!("{origin}:{number}:{column}")),
            None => (String::new(), format!("{origin} {line}")),
        };
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands under what it means in every terminal.
        let indent: String =
            line.chars().take(*before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{header}: {}", self.wrong)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {line}")?;
        writeln!(f, "{gutter} | {indent}{}", "^".repeat(*width))?;
        write!(f, "{gutter} = {}", self.instead)
    }
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n\n")
}

/// The candidate nearest to a misspelt word, if one is near enough to have been meant. A unit left
/// out (`timeout` for `timeout_ms`) is the nearest miss.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| match candidate.rsplit_once('_') {
            Some((unitless, _)) if unitless == word => (0, candidate),
            _ => (edits(word, candidate), candidate),
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: insertions, deletions and substitutions from one word to the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[to.len()]
}
