//! The commit journal: the number of the last commit that was acknowledged, kept apart from the
//! database that it speaks of.
//!
//! A database cannot prove by itself that its end is its end: a log that was cut short reads like
//! a log that was never longer. So each group of commits has a number, which goes into the
//! group's own batch, and, before anyone is told that the group is durable, into this file as
//! well. On open, a database whose number is behind the journal's has lost acknowledged writes.
//! The other way round is no fault: a group that had reached the database, and nobody was told.
//!
//! Only the last number is kept, in two slots (`slots`), so the file never grows and a torn write
//! costs nothing: the slot before it holds the number before it, which was the last acknowledged.

use std::io;
use std::path::Path;

use super::slots::{PAYLOAD_BYTES, Slots};

const MAGIC: [u8; 8] = *b"RDJRNL\0\x01";
/// Its name within the data directory.
pub(super) const FILE: &str = "journal";

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    slots: Slots,
    last: u64,
}

impl Journal {
    /// Makes the journal of `directory`, durably, with `last` as its number. Replaces one that
    /// is there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(directory: &Path, last: u64) -> io::Result<Self> {
        let slots = Slots::create(&directory.join(FILE), MAGIC, last, &[0; PAYLOAD_BYTES])?;
        Ok(Self { slots, last })
    }

    /// Opens the journal of `directory`. `None` when there is none or nothing in it can be read.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(directory: &Path) -> io::Result<Option<Self>> {
        let opened = match Slots::open(&directory.join(FILE), MAGIC) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let (slots, newest) = opened;
        Ok(newest.map(|newest| Self { slots, last: newest.sequence }))
    }

    /// The last number that was entered.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Enters `number`, unless a later one stands already.
    ///
    /// # Errors
    /// What the file system says. Nobody may be told that the commit is durable.
    pub fn enter(&mut self, number: u64) -> io::Result<()> {
        if number > self.last {
            self.slots.write(number, &[0; PAYLOAD_BYTES])?;
            self.last = number;
        }
        Ok(())
    }

    /// Makes what was entered outlive the machine's power.
    ///
    /// # Errors
    /// What the file system says. After a failed sync nothing the disk says can be relied on.
    pub fn sync(&self) -> io::Result<()> {
        self.slots.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_keeps_the_highest_number() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Journal::open(directory.path()).unwrap().is_none());
        let mut journal = Journal::create(directory.path(), 0).unwrap();
        for number in [1, 2, 5, 4] {
            journal.enter(number).unwrap();
        }
        journal.sync().unwrap();
        assert_eq!(Journal::open(directory.path()).unwrap().unwrap().last(), 5);
    }

    #[test]
    fn a_damaged_journal_is_none_and_one_damaged_slot_is_the_number_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut journal = Journal::create(directory.path(), 0).unwrap();
        journal.enter(1).unwrap();
        journal.enter(2).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4096] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Journal::open(directory.path()).unwrap().unwrap().last(), 1);
        bytes[0] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(Journal::open(directory.path()).unwrap().is_none());
    }
}
