//! Whether the disk has room, known without asking it for every commit.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An answer is good for this long …
const GOOD_FOR: Duration = Duration::from_millis(100);
/// … or for this many bytes of commits.
const GOOD_FOR_BYTES: usize = 8 << 20;
/// How much more than the reserve must be free for writes to be begun: a quarter of it, within these.
const LEAST_SPARE: u64 = 1 << 20;
const MOST_SPARE: u64 = 64 << 20;

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
            self.free_bytes = free_bytes(&self.directory);
            self.asked = Some(Instant::now());
            self.bytes_since = bytes;
        }
        let free = if self.is_pretended { 0 } else { self.free_bytes };
        let reserve = self.reserve_bytes;
        if free.saturating_sub(self.bytes_since as u64) < reserve {
            return Err(too_little(free, reserve));
        }
        Ok(())
    }
}

/// Whether the disk of `directory` has room for more than the reserve: for what will have been begun
/// before this is asked again, too. A disk that was full has room only when twice that is free, for flushes
/// and merges make and free some all the time.
pub(super) fn look(
    directory: &Path,
    reserve_bytes: u64,
    was_full: bool,
    is_pretended: bool,
) -> Result<(), String> {
    let free = if is_pretended { 0 } else { free_bytes(directory) };
    judge(free, reserve_bytes, was_full)
}

fn judge(free: u64, reserve_bytes: u64, was_full: bool) -> Result<(), String> {
    let spare = (reserve_bytes / 4).clamp(LEAST_SPARE, MOST_SPARE);
    let least = reserve_bytes.saturating_add(spare);
    let again = least.saturating_mul(2);
    match free < if was_full { again } else { least } {
        true => Err(format!(
            "less than {} MiB are free (storage.reserve_mb, and some to spare); it takes writes again when {} are",
            least >> 20,
            again >> 20
        )),
        false => Ok(()),
    }
}

/// Who cannot be asked is not known to be full: the write itself will tell.
fn free_bytes(directory: &Path) -> u64 {
    let status = rustix::fs::statvfs(directory);
    status.map_or(u64::MAX, |status| status.f_bavail.saturating_mul(status.f_frsize))
}

fn too_little(free: u64, reserve: u64) -> String {
    format!(
        "{} MiB are free and {} MiB are kept in reserve; free some space, or lower storage.reserve_mb",
        free >> 20,
        reserve >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn there_is_no_room_a_little_above_the_reserve_and_again_from_twice_that_on() {
        for (reserve, least) in [(1, 2), (64, 80), (1024, 1088)] {
            let judge = |free, was_full| judge(free, reserve * MIB, was_full);
            assert!(judge(least * MIB, false).is_ok() && judge(least * MIB - 1, false).is_err());
            assert!(judge(2 * least * MIB, true).is_ok(), "{reserve}");
            let why = judge(2 * least * MIB - 1, true).unwrap_err();
            assert!(why.contains(&format!("less than {least} MiB")), "{why}");
            assert!(why.contains(&format!("when {} are", 2 * least)), "{why}");
        }
        assert!(judge(u64::MAX - 1, u64::MAX, false).is_err());
    }
}
