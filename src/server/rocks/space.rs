//! Whether the disk has room, known without asking it for every commit.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An answer is good for this long …
const GOOD_FOR: Duration = Duration::from_millis(100);
/// … or for this many bytes of commits.
const GOOD_FOR_BYTES: usize = 8 << 20;

/// Watches the free space of the file system that a directory is on.
#[derive(Debug)]
pub(super) struct Space {
    directory: PathBuf,
    reserve_bytes: u64,
    asked: Option<Instant>,
    bytes_since: usize,
    free_bytes: u64,
    /// A fault that is injected says that there is no room.
    is_pretended: bool,
}

impl Space {
    pub fn new(directory: &Path, reserve_bytes: u64) -> Self {
        let directory = directory.to_owned();
        let (asked, bytes_since, free_bytes, is_pretended) = (None, 0, 0, false);
        Self { directory, reserve_bytes, asked, bytes_since, free_bytes, is_pretended }
    }

    /// From now on refuses everything, or goes by what there is.
    pub fn pretend_full(&mut self, is_full: bool) {
        self.is_pretended = is_full;
    }

    /// Refuses a commit of `bytes` when it would reach into the reserve. Names both numbers.
    pub fn admit(&mut self, bytes: usize) -> Result<(), String> {
        let fresh = self.asked.is_some_and(|asked| asked.elapsed() < GOOD_FOR);
        self.bytes_since = self.bytes_since.saturating_add(bytes);
        if !fresh || self.bytes_since > GOOD_FOR_BYTES {
            // Who cannot be asked is not known to be full: the write itself will tell.
            let status = rustix::fs::statvfs(&self.directory);
            self.free_bytes = status.map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize));
            self.asked = Some(Instant::now());
            self.bytes_since = bytes;
        }
        let free = if self.is_pretended { 0 } else { self.free_bytes };
        let reserve = self.reserve_bytes;
        if free.saturating_sub(self.bytes_since as u64) < reserve {
            return Err(format!(
                "{} MiB are free and {} MiB are kept in reserve; free some space, or lower the reserve",
                free >> 20,
                reserve >> 20
            ));
        }
        Ok(())
    }
}
