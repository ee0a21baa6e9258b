//! A small file of two slots, written in turn: how the mark and the journal survive a torn write.
//!
//! ```text
//!   0                                4096                             8192
//!   | slot A (128 bytes), zeros      | slot B (128 bytes), zeros      |
//!
//!   slot:  magic 8 | sequence 8 | payload 108 | crc32 of the 124 bytes before 4
//! ```
//!
//! A write replaces the older slot, so the newer one is intact whatever happens during it: a
//! machine that stops half way leaves one slot with a wrong checksum and the other as it was. The
//! slots are 4096 bytes apart because a disk may tear a whole sector and not only the bytes that
//! were written. The file is written out in full when it is made, so that a later write changes
//! no metadata of the file system and one `fdatasync` is all it needs.
//!
//! All numbers are little-endian.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Bytes that a slot carries for its owner.
pub(super) const PAYLOAD_BYTES: usize = 108;
const SLOT_BYTES: usize = 128;
const CHECKED_BYTES: usize = SLOT_BYTES - 4;
const DISTANCE: u64 = 4096;

/// What a slot carries for its owner.
pub(super) type Payload = [u8; PAYLOAD_BYTES];

/// What tells a file from its copy: when the file system made it, and the number it has there. Kept
/// within the file. An image of a whole file system copies both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// Nanoseconds since 1970; 0 where the file system does not say.
    pub made_ns: u64,
    /// 0 where nothing is known yet.
    pub inode: u64,
}

impl Origin {
    /// Whether a file that says this of itself was copied to one that was `found` so.
    pub fn is_of_another(self, found: Self) -> bool {
        match (self.made_ns, found.made_ns) {
            _ if self.inode == 0 => false,
            // The time says more: some file systems give a file another number each time.
            (0, _) | (_, 0) => self.inode != found.inode,
            (kept, found) => kept != found,
        }
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    magic: [u8; 8],
    /// The slot that the next write replaces: 0 or 1.
    older: u64,
}

/// What the newest intact slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub sequence: u64,
    pub payload: Payload,
    /// Whether the other slot is unreadable, so that it may have been newer than this one.
    pub other_damaged: bool,
}

impl Slots {
    /// Makes the file, durably, with both slots alike. Under its name there is either nothing or
    /// the whole file.
    pub fn create(
        path: &Path,
        magic: [u8; 8],
        sequence: u64,
        payload: &Payload,
    ) -> io::Result<Self> {
        let unfinished = path.with_extension("new");
        let slot = encode(magic, sequence, payload);
        let mut whole = vec![0; 2 * DISTANCE as usize];
        whole[..SLOT_BYTES].copy_from_slice(&slot);
        whole[DISTANCE as usize..][..SLOT_BYTES].copy_from_slice(&slot);
        fs::write(&unfinished, whole)?;
        let file = OpenOptions::new().read(true).write(true).open(&unfinished)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_directory_of(path)?;
        Ok(Self { file, magic, older: 0 })
    }

    /// Opens the file and reads the newest slot; `None` when neither is intact.
    pub fn open(path: &Path, magic: [u8; 8]) -> io::Result<(Self, Option<Newest>)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let slots = [read(&file, magic, 0)?, read(&file, magic, 1)?];
        let newest = match slots {
            [None, None] => None,
            [Some(_), None] => Some(0),
            [None, Some(_)] => Some(1),
            [Some(a), Some(b)] => Some(usize::from(b.0 > a.0)),
        };
        let other_damaged = slots.contains(&None);
        let found = newest.and_then(|index| slots[index]);
        let found = found.map(|(sequence, payload)| Newest { sequence, payload, other_damaged });
        let older = newest.map_or(0, |index| 1 - index as u64);
        Ok((Self { file, magic, older }, found))
    }

    /// What the file system says of the file.
    pub fn origin(&self) -> io::Result<Origin> {
        let metadata = self.file.metadata()?;
        let made = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let made_ns = made.map_or(0, |made| made.as_nanos() as u64);
        Ok(Origin { made_ns, inode: metadata.ino() })
    }

    /// Replaces the older slot. Durable after [`Slots::sync`].
    pub fn write(&mut self, sequence: u64, payload: &Payload) -> io::Result<()> {
        let slot = encode(self.magic, sequence, payload);
        self.file.write_all_at(&slot, self.older * DISTANCE)?;
        self.older = 1 - self.older;
        Ok(())
    }

    /// Makes what was written outlive the machine's power.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Makes the names in the directory of `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn encode(magic: [u8; 8], sequence: u64, payload: &Payload) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&magic);
    slot[8..16].copy_from_slice(&sequence.to_le_bytes());
    slot[16..CHECKED_BYTES].copy_from_slice(payload);
    let sum = crc32fast::hash(&slot[..CHECKED_BYTES]);
    slot[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
    slot
}

/// `None` when the slot is torn, damaged or of something else.
fn read(file: &File, magic: [u8; 8], index: u64) -> io::Result<Option<(u64, Payload)>> {
    let mut slot = [0; SLOT_BYTES];
    match file.read_exact_at(&mut slot, index * DISTANCE) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let sequence = u64::from_le_bytes(slot[8..16].try_into().expect("eight bytes"));
    let payload: Payload = slot[16..CHECKED_BYTES].try_into().expect("the payload's length");
    let intact = slot[..8] == magic && slot == encode(magic, sequence, &payload);
    Ok(intact.then_some((sequence, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 8] = *b"SLOTTEST";

    fn payload(byte: u8) -> Payload {
        [byte; PAYLOAD_BYTES]
    }

    #[test]
    fn the_newest_of_two_slots_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut slots = Slots::create(&path, MAGIC, 0, &payload(0)).unwrap();
        for sequence in 1..6 {
            slots.write(sequence, &payload(sequence as u8)).unwrap();
            let (_, found) = Slots::open(&path, MAGIC).unwrap();
            let expected =
                Newest { sequence, payload: payload(sequence as u8), other_damaged: false };
            assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn every_torn_length_of_a_write_leaves_the_slot_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut slots = Slots::create(&path, MAGIC, 0, &payload(0)).unwrap();
        slots.write(1, &payload(1)).unwrap();
        let before = fs::read(&path).unwrap();
        slots.write(2, &payload(2)).unwrap();
        let after = fs::read(&path).unwrap();
        let start = DISTANCE as usize;
        assert_eq!(before[..start], after[..start]);
        for written in 0..=SLOT_BYTES {
            let mut torn = before.clone();
            torn[start..start + written].copy_from_slice(&after[start..start + written]);
            fs::write(&path, &torn).unwrap();
            let (_, found) = Slots::open(&path, MAGIC).unwrap();
            let sequence = found.unwrap().sequence;
            // Slot B held sequence 0: a prefix that changes nothing leaves it intact.
            assert!(sequence == 1 || torn == after, "{written} bytes: sequence {sequence}");
        }
    }

    #[test]
    fn two_damaged_slots_and_another_files_slots_are_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        Slots::create(&path, MAGIC, 7, &payload(7)).unwrap();
        assert_eq!(Slots::open(&path, *b"ANOTHER!").unwrap().1, None);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        bytes[4096 + 20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Slots::open(&path, MAGIC).unwrap().1, None);
        fs::write(&path, b"short").unwrap();
        assert_eq!(Slots::open(&path, MAGIC).unwrap().1, None);
    }
}
