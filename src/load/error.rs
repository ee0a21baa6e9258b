//! What can go wrong with a run as a whole. What becomes of single requests is no error: it is
//! what a run counts.

use std::io;
use std::path::{Path, PathBuf};

/// A run, a verification or a comparison could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot work; the message says what to write instead. Nothing was sent.
    #[error("{0}")]
    Settings(String),
    /// No server answers at the target. Nothing was written to it.
    #[error("{0}")]
    Unreachable(String),
    /// A file of a run's directory could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file of a run's directory is not what a run leaves behind.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    pub(super) fn settings(message: impl Into<String>) -> Self {
        Self::Settings(message.into())
    }

    pub(super) fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.to_owned(), error }
    }

    pub(super) fn damaged(path: &Path, what: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.to_string() }
    }
}
