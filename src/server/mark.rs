//! The durable mark: who this data directory belongs to, and whether its last process said
//! good-bye.
//!
//! What it is for: a dot must never be used twice, whatever a disk forgets. The mark keeps the
//! incarnation that dots are bound to, the high end of the actor counters that were handed out,
//! and a clean flag. The flag is set as the last act of an orderly stop and taken back as the
//! first act of a start, so that a start after anything else finds it missing and takes a new
//! incarnation.
//!
//! The file `mark` has two slots (`slots`), written in turn and synced each time. Their payload:
//!
//! ```text
//!   format version  1   (1)
//!   flags           1   bit 0 clean, bit 1 repairing
//!   zeros           6
//!   member id      16
//!   incarnation     8
//!   leased          8   no actor counter at or above this was ever handed out
//!   commit          8   number of the last commit at the last clean stop
//!   generation      4   of gossip: no life of this member began under a higher one
//!   made            8   when the file system made this file, in ns since 1970; 0 unknown
//!   inode           8   the number it has there; 0 unknown
//!   zeros          40
//! ```
//!
//! The last two tell the file from its copy: a directory that was copied, or restored from one, has a
//! mark that says it was made elsewhere.
//!
//! What always holds: each method has made its change durable when it returns; after a write
//! that failed, every later one fails too; and a mark of which one slot is damaged does not count
//! as clean, since the lost slot may have been the newer.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::slots::{Origin, PAYLOAD_BYTES, Payload, Slots};
use crate::ids::{Incarnation, NodeId};

const MAGIC: [u8; 8] = *b"RDMARK\0\0";
const FORMAT: u8 = 1;
const CLEAN: u8 = 1;
const REPAIRING: u8 = 2;
/// Its name within the data directory.
pub(super) const FILE: &str = "mark";

/// Why a mark could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// Neither slot can be read, so nobody knows whose directory it is. Nothing was changed.
    #[error(
        "{path} is damaged, so it cannot be proven whose data this is. Move the data directory \
         aside, start this node with an empty one, and let it replace the member that was here \
         (`ringdove replace`); the other replicas hold its data"
    )]
    Damaged {
        /// The mark's file.
        path: PathBuf,
    },
    /// A later version of Ringdove wrote it. Nothing was changed.
    #[error(
        "{path} has format {format}; this version of ringdove reads up to {FORMAT}. Start a newer one"
    )]
    Format {
        /// The mark's file.
        path: PathBuf,
        /// The format it is of.
        format: u8,
    },
    /// The file system failed. Nobody knows which of the two states is on disk: the process
    /// must end.
    #[error("{path}: {source}")]
    Io {
        /// The mark's file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkState {
    /// The member whose directory this is.
    pub member: NodeId,
    /// The span over which its disk is known to have forgotten nothing.
    pub incarnation: Incarnation,
    /// Whether the last process stopped in order, after everything was on disk.
    pub clean: bool,
    /// Whether acknowledged writes were lost and have not all been fetched back yet. Outlives
    /// restarts.
    pub repairing: bool,
    /// No actor counter at or above this was ever handed out.
    pub leased: u64,
    /// The number of the last commit, as of the last clean stop.
    pub commit: u64,
    /// The generation of this member's last life as gossip counts them; 0 before the first.
    pub generation: u32,
}

/// The open mark. Shared by threads.
#[derive(Debug)]
pub struct Mark {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Slots,
    sequence: u64,
    state: MarkState,
    /// What the file says of itself.
    kept: Origin,
    /// What the file system says of it.
    found: Origin,
    failed: bool,
}

impl Mark {
    /// Makes the mark of a new data directory.
    ///
    /// # Errors
    /// [`MarkError::Io`].
    pub fn create(
        directory: &Path,
        member: NodeId,
        incarnation: Incarnation,
    ) -> Result<Self, MarkError> {
        let path = directory.join(FILE);
        let (clean, repairing, leased, commit, generation) = (false, false, 0, 0, 0);
        let state = MarkState { member, incarnation, clean, repairing, leased, commit, generation };
        let kept = Origin::default();
        match Slots::create(&path, MAGIC, 0, &encode(&state, kept)) {
            Ok(slots) => Self::over(path, slots, 0, state, kept),
            Err(source) => Err(MarkError::Io { path, source }),
        }
    }

    /// Opens the mark of `directory`; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn open(directory: &Path) -> Result<Option<Self>, MarkError> {
        let path = directory.join(FILE);
        let (slots, newest) = match Slots::open(&path, MAGIC) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MarkError::Io { path, source }),
            Ok((_, None)) => return Err(MarkError::Damaged { path }),
            Ok((slots, Some(newest))) => (slots, newest),
        };
        let format = newest.payload[0];
        if format != FORMAT {
            return Err(MarkError::Format { path, format });
        }
        let (mut state, kept) = decode(&newest.payload);
        state.clean &= !newest.other_damaged;
        Self::over(path, slots, newest.sequence, state, kept).map(Some)
    }

    fn over(
        path: PathBuf,
        slots: Slots,
        sequence: u64,
        state: MarkState,
        kept: Origin,
    ) -> Result<Self, MarkError> {
        let found = match slots.origin() {
            Ok(found) => found,
            Err(source) => return Err(MarkError::Io { path, source }),
        };
        // Only the file itself can say it first: it does with its next change.
        let kept = if kept == Origin::default() { found } else { kept };
        let inner = Inner { slots, sequence, state, kept, found, failed: false };
        Ok(Self { path, inner: Mutex::new(inner) })
    }

    /// Whether this file is a copy of the one that was made for its member, and has not been
    /// [claimed](Self::claim). Copies of a whole file system are not found out.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        let inner = self.lock();
        inner.kept.is_of_another(inner.found)
    }

    /// Says that this is the file from now on, and no copy.
    ///
    /// # Errors
    /// [`MarkError::Io`].
    pub fn claim(&self) -> Result<(), MarkError> {
        {
            let mut inner = self.lock();
            inner.kept = inner.found;
        }
        // Into both slots: either may be the one that is left.
        self.change(|_| {})?;
        self.change(|_| {})
    }

    /// What it says now.
    #[must_use]
    pub fn state(&self) -> MarkState {
        self.lock().state
    }

    /// Hands out the next `count` actor counters. No number is handed out twice by one mark,
    /// whenever a process or a machine stops: those that were not used are lost.
    ///
    /// # Errors
    /// [`MarkError::Io`]; no number was handed out.
    pub fn lease(&self, count: u32) -> Result<Range<u64>, MarkError> {
        let mut range = 0..0;
        self.change(|state| {
            let end = state.leased.checked_add(u64::from(count));
            let end = end.expect("2^32 leases of 2^32 numbers need centuries of syncs");
            range = state.leased..end;
            state.leased = end;
        })?;
        Ok(range)
    }

    /// Opens a new span of this member's life, which no dot was made in yet.
    ///
    /// # Errors
    /// [`MarkError::Io`].
    pub fn renew_incarnation(&self, incarnation: Incarnation) -> Result<(), MarkError> {
        self.change(|state| state.incarnation = incarnation)
    }

    /// Begins the next life, as gossip counts them; no other was ever given its number.
    ///
    /// # Errors
    /// [`MarkError::Io`]; nobody has heard of the number.
    pub fn begin_generation(&self) -> Result<u32, MarkError> {
        let mut generation = 0;
        self.change(|state| {
            state.generation = state.generation.saturating_add(1);
            generation = state.generation;
        })?;
        Ok(generation)
    }

    /// Goes on under this generation, or stays at a higher one.
    ///
    /// # Errors
    /// [`MarkError::Io`].
    pub fn renew_generation(&self, generation: u32) -> Result<(), MarkError> {
        self.change(|state| state.generation = state.generation.max(generation))
    }

    /// Says whether lost writes are still being fetched back.
    ///
    /// # Errors
    /// [`MarkError::Io`].
    pub fn set_repairing(&self, repairing: bool) -> Result<(), MarkError> {
        self.change(|state| state.repairing = repairing)
    }

    /// Says that everything up to `commit` is on disk and that nothing will follow.
    ///
    /// # Errors
    /// [`MarkError::Io`].
    pub fn set_clean(&self, commit: u64) -> Result<(), MarkError> {
        self.change(|state| (state.clean, state.commit) = (true, commit))
    }

    /// Changes several things in one durable step.
    pub(super) fn change(&self, change: impl FnOnce(&mut MarkState)) -> Result<(), MarkError> {
        let mut inner = self.lock();
        let io = |source| MarkError::Io { path: self.path.clone(), source };
        if inner.failed {
            return Err(io(io::Error::other("an earlier write of it failed")));
        }
        let mut state = inner.state;
        change(&mut state);
        let sequence = inner.sequence + 1;
        // Failed until proven otherwise: after an error nobody knows what is on disk.
        inner.failed = true;
        let payload = encode(&state, inner.kept);
        inner.slots.write(sequence, &payload).map_err(io)?;
        inner.slots.sync().map_err(io)?;
        (inner.sequence, inner.state, inner.failed) = (sequence, state, false);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no method panics while it holds the lock")
    }
}

fn encode(state: &MarkState, origin: Origin) -> Payload {
    let mut payload = [0; PAYLOAD_BYTES];
    payload[0] = FORMAT;
    payload[1] = u8::from(state.clean) * CLEAN + u8::from(state.repairing) * REPAIRING;
    payload[8..24].copy_from_slice(&state.member.0.to_le_bytes());
    payload[24..32].copy_from_slice(&state.incarnation.0.to_le_bytes());
    payload[32..40].copy_from_slice(&state.leased.to_le_bytes());
    payload[40..48].copy_from_slice(&state.commit.to_le_bytes());
    payload[48..52].copy_from_slice(&state.generation.to_le_bytes());
    payload[52..60].copy_from_slice(&origin.made_ns.to_le_bytes());
    payload[60..68].copy_from_slice(&origin.inode.to_le_bytes());
    payload
}

fn decode(payload: &Payload) -> (MarkState, Origin) {
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
    let member = u128::from_le_bytes(payload[8..24].try_into().expect("16 bytes"));
    let state = MarkState {
        member: NodeId(member),
        incarnation: Incarnation(number(24)),
        clean: payload[1] & CLEAN != 0,
        repairing: payload[1] & REPAIRING != 0,
        leased: number(32),
        commit: number(40),
        generation: u32::from_le_bytes(payload[48..52].try_into().expect("4 bytes")),
    };
    (state, Origin { made_ns: number(52), inode: number(60) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fresh(directory: &Path) -> Mark {
        Mark::create(directory, NodeId(0xabc), Incarnation(1)).unwrap()
    }

    fn reopened(directory: &Path) -> Mark {
        Mark::open(directory).unwrap().unwrap()
    }

    #[test]
    fn everything_said_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Mark::open(directory.path()).unwrap().is_none());
        let mark = fresh(directory.path());
        mark.lease(10).unwrap();
        mark.renew_incarnation(Incarnation(2)).unwrap();
        mark.set_repairing(true).unwrap();
        assert_eq!(mark.begin_generation().unwrap(), 1);
        mark.renew_generation(5).unwrap();
        mark.renew_generation(3).unwrap();
        mark.set_clean(77).unwrap();
        let expected = MarkState {
            member: NodeId(0xabc),
            incarnation: Incarnation(2),
            clean: true,
            repairing: true,
            leased: 10,
            commit: 77,
            generation: 5,
        };
        assert_eq!(reopened(directory.path()).state(), expected);
    }

    #[test]
    fn a_copy_is_found_out_until_it_is_claimed() {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fresh(directory.path()).lease(1).unwrap();
        assert!(!reopened(directory.path()).is_copy());
        fs::rename(directory.path().join(FILE), directory.path().join("moved")).unwrap();
        fs::rename(directory.path().join("moved"), directory.path().join(FILE)).unwrap();
        assert!(!reopened(directory.path()).is_copy(), "moved within its file system");
        fs::copy(directory.path().join(FILE), other.path().join(FILE)).unwrap();
        let copy = reopened(other.path());
        assert!(copy.is_copy());
        copy.lease(1).unwrap();
        assert!(reopened(other.path()).is_copy(), "whatever else is written");
        copy.claim().unwrap();
        assert!(!copy.is_copy() && !reopened(other.path()).is_copy());
        assert!(!reopened(directory.path()).is_copy());
    }

    #[test]
    fn a_file_is_another_when_it_was_made_at_another_time() {
        let file = |made_ns, inode| Origin { made_ns, inode };
        assert!(file(1, 5).is_of_another(file(2, 5)));
        assert!(!file(1, 5).is_of_another(file(1, 6)));
        // Where only the number is known, that decides; where nothing is, nothing.
        assert!(file(0, 5).is_of_another(file(1, 6)) && file(1, 5).is_of_another(file(0, 6)));
        assert!(!file(0, 5).is_of_another(file(1, 5)));
        assert!(!file(0, 0).is_of_another(file(1, 5)));
    }

    #[test]
    fn no_number_is_leased_twice_across_stops_at_any_point() {
        let directory = tempfile::tempdir().unwrap();
        let mut next = 0;
        drop(fresh(directory.path()));
        for round in 1..10 {
            let mark = reopened(directory.path());
            for _ in 0..round {
                let range = mark.lease(round).unwrap();
                assert!(range.start >= next, "{range:?} begins below {next}");
                assert_eq!(range.end - range.start, u64::from(round));
                next = range.end;
            }
        }
    }

    #[test]
    fn a_damaged_slot_is_never_clean_and_the_other_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let mark = fresh(directory.path());
        mark.lease(5).unwrap();
        mark.set_clean(9).unwrap();
        let path = directory.path().join(FILE);
        let intact = fs::read(&path).unwrap();
        for slot in [0, 4096] {
            let mut damaged = intact.clone();
            damaged[slot + 40] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let state = reopened(directory.path()).state();
            assert!(!state.clean);
            assert_eq!((state.member, state.leased), (NodeId(0xabc), 5));
        }
    }

    #[test]
    fn two_damaged_slots_and_a_newer_format_are_errors_that_say_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        drop(fresh(directory.path()));
        let path = directory.path().join(FILE);
        fs::write(&path, vec![0; 8192]).unwrap();
        let error = Mark::open(directory.path()).unwrap_err();
        assert!(error.to_string().contains("ringdove replace"), "{error}");
        let mut payload = [0; PAYLOAD_BYTES];
        payload[0] = FORMAT + 1;
        Slots::create(&path, MAGIC, 0, &payload).unwrap();
        assert!(matches!(Mark::open(directory.path()), Err(MarkError::Format { format: 2, .. })));
    }
}
