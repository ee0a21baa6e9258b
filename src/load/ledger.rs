//! What a run did, on disk: for each write and each read what it was, when, what it had seen, and
//! what came of it. The verification decides by it what must stand.
//!
//! ```text
//!   {"format":"ringdove ledger 1","writer":"5e1f…","begun_us":…,"bucket":"default", …} LF
//!   length  flags  key  number  sent  took  count  versions …        one entry a request, as it ends
//!   length  flags = END  entries                                     only when the run came to its end
//! ```
//!
//! Numbers are varints; times are microseconds since the run began, by a clock that only goes
//! forward. An entry takes about twenty bytes. Nothing is kept in memory but a buffer.
//!
//! What always holds: an entry is whole or absent; a ledger without its last entry was cut off, and
//! says nothing about requests that are not in it.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Error;
use super::stamp::Version;
use crate::codec::{CodecError, Reader, Write as _};

/// The name of the file in a run's directory.
pub const FILE: &str = "ledger";

const FORMAT: &str = "ringdove ledger 1";
/// An entry with more bytes than this is none: 100 siblings take less than 2 KiB.
const ENTRY_BYTES: usize = 1024 * 1024;
const ENTRIES_BUFFERED_BYTES: usize = 256 * 1024;

/// What a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A read; its versions are the values it found.
    Read,
    /// A write of a value; its versions are those it had seen.
    Put,
    /// A deletion; its versions are those it had seen.
    Delete,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered as asked.
    Acknowledged,
    /// It certainly did nothing.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it was.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
    /// It replaced whatever was there when it arrived, seen or not; `versions` says nothing.
    pub observed: bool,
    /// The number of the key.
    pub key: u64,
    /// The number of the write, of this writer; 0 for a read.
    pub number: u64,
    /// When it was sent, microseconds since the run began.
    pub sent_us: u64,
    /// How long it took.
    pub took_us: u64,
    /// See [`Action`].
    pub versions: Vec<Version>,
}

/// What stands at the beginning of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    format: String,
    #[serde(with = "hexadecimal")]
    writer: u64,
    /// When the run began, microseconds since 1970.
    pub begun_us: u64,
    /// The target of the run.
    pub target: String,
    /// The bucket it wrote to.
    pub bucket: String,
}

impl Header {
    /// Of a writer that begins now.
    #[must_use]
    pub fn new(writer: u64, begun_us: u64, target: &str, bucket: &str) -> Self {
        let (target, bucket) = (target.to_owned(), bucket.to_owned());
        Self { format: FORMAT.to_owned(), writer, begun_us, target, bucket }
    }

    /// Who wrote.
    #[must_use]
    pub fn writer(&self) -> u64 {
        self.writer
    }
}

/// JSON numbers are not good for 64 bits everywhere.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        u64::from_str_radix(&String::deserialize(from)?, 16).map_err(D::Error::custom)
    }
}

/// A ledger that is being written.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: BufWriter<File>,
    writer: u64,
    entries: u64,
    /// The entry that is being added, and with its length before it: memory that is used again.
    scratch: Vec<u8>,
    framed: Vec<u8>,
    /// The first failure; after it nothing more is written.
    failed: Option<std::io::Error>,
}

const END: u8 = 0xff;
const OBSERVED: u8 = 0x10;

impl Ledger {
    /// Begins one in a run's directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(directory: &Path, header: &Header) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let file = File::create_new(&path).map_err(|error| Error::file(&path, error))?;
        let mut file = BufWriter::with_capacity(ENTRIES_BUFFERED_BYTES, file);
        let line = serde_json::to_string(header).expect("a header has no unusual keys");
        writeln!(file, "{line}").map_err(|error| Error::file(&path, error))?;
        let (writer, scratch, framed) = (header.writer, Vec::new(), Vec::new());
        Ok(Self { path, file, writer, entries: 0, scratch, framed, failed: None })
    }

    /// Adds what came of a request. A failure is told by [`Ledger::finish`].
    pub fn append(&mut self, entry: &Entry) {
        self.entries += 1;
        self.scratch.clear();
        encode(entry, self.writer, &mut self.scratch);
        self.put_scratch();
    }

    fn put_scratch(&mut self) {
        self.framed.clear();
        self.framed.put_bytes_with_length(&self.scratch);
        let written = self.file.write_all(&self.framed);
        if let (Err(error), None) = (written, &self.failed) {
            self.failed = Some(error);
        }
    }

    /// Ends it: every request that was sent is in it.
    ///
    /// # Errors
    /// When anything could not be written.
    pub fn finish(mut self) -> Result<(), Error> {
        self.scratch.clear();
        self.scratch.push(END);
        self.scratch.put_varint(self.entries);
        self.put_scratch();
        self.flush()
    }

    /// Leaves it without an end: requests were under way when the run was given up.
    ///
    /// # Errors
    /// As [`Ledger::finish`].
    pub fn abandon(mut self) -> Result<(), Error> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Error> {
        let flushed = self.failed.take().map_or_else(|| self.file.flush(), Err);
        flushed.map_err(|error| Error::file(&self.path, error))
    }
}

fn encode(entry: &Entry, writer: u64, out: &mut Vec<u8>) {
    let observed = if entry.observed { OBSERVED } else { 0 };
    out.push(entry.action as u8 | (entry.outcome as u8) << 2 | observed);
    for number in [entry.key, entry.number, entry.sent_us, entry.took_us] {
        out.put_varint(number);
    }
    out.put_varint(entry.versions.len() as u64);
    for version in &entry.versions {
        let is_foreign = version.writer != writer;
        out.put_varint(version.number << 1 | u64::from(is_foreign));
        if is_foreign {
            out.extend_from_slice(&version.writer.to_le_bytes());
        }
    }
}

/// Reads an entry of `writer`.
///
/// # Errors
/// When the bytes are no entry.
pub fn decode(bytes: Bytes, writer: u64) -> Result<Entry, CodecError> {
    let mut reader = Reader::new(bytes);
    let flags = reader.u8("flags")?;
    let action = match flags & 3 {
        0 => Action::Read,
        1 => Action::Put,
        2 => Action::Delete,
        _ => return Err(CodecError::Invalid("action")),
    };
    let outcome = match flags >> 2 & 3 {
        0 => Outcome::Acknowledged,
        1 => Outcome::Refused,
        2 => Outcome::Unknown,
        _ => return Err(CodecError::Invalid("outcome")),
    };
    let (key, number) = (reader.varint("key")?, reader.varint("number")?);
    let (sent_us, took_us) = (reader.varint("sent")?, reader.varint("took")?);
    let count = reader.length(ENTRY_BYTES, "versions")?;
    let mut versions = Vec::with_capacity(count.min(128));
    for _ in 0..count {
        let number = reader.varint("version")?;
        let writer = if number & 1 == 1 { reader.u64("writer")? } else { writer };
        versions.push(Version { writer, number: number >> 1 });
    }
    reader.finish()?;
    let observed = flags & OBSERVED != 0;
    Ok(Entry { action, outcome, observed, key, number, sent_us, took_us, versions })
}

/// A ledger that is being read.
#[derive(Debug)]
pub struct Entries {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
    read: u64,
    is_complete: bool,
}

impl Entries {
    /// Opens the ledger in a run's directory.
    ///
    /// # Errors
    /// When there is none, or it is something else.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let file = File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let what =
                    "there is no ledger: the run was not started with --verify or --verify-later";
                Error::damaged(&path, what)
            }
            _ => Error::file(&path, error),
        })?;
        let mut file = BufReader::with_capacity(ENTRIES_BUFFERED_BYTES, file);
        let mut line = String::new();
        file.read_line(&mut line).map_err(|error| Error::file(&path, error))?;
        let header: Header =
            serde_json::from_str(&line).map_err(|error| Error::damaged(&path, error))?;
        if header.format != FORMAT {
            let what = format!("it is {:?} and this program reads {FORMAT:?}", header.format);
            return Err(Error::damaged(&path, what));
        }
        Ok(Self { path, file, header, read: 0, is_complete: false })
    }

    /// What stands at its beginning.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether its end was reached and it has one: every request that was sent is in it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The bytes of the next entry; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged. An entry that was cut off is an end.
    pub fn next_bytes(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(bytes) =
            next_framed(&mut self.file).map_err(|error| Error::file(&self.path, error))?
        else {
            return Ok(None);
        };
        if bytes.first() != Some(&END) {
            self.read += 1;
            return Ok(Some(bytes));
        }
        let count = Reader::new(bytes.slice(1..)).varint("entries");
        self.is_complete = count == Ok(self.read);
        if self.is_complete {
            return Ok(None);
        }
        Err(Error::damaged(&self.path, format!("it has {} entries and says {count:?}", self.read)))
    }

    /// An error about an entry.
    pub(super) fn damaged(&self, error: CodecError) -> Error {
        Error::damaged(&self.path, format!("entry {}: {error}", self.read))
    }
}

/// Bytes behind their length; `None` where the file ends, also in the middle of them.
pub(super) fn next_framed(file: &mut impl Read) -> std::io::Result<Option<Bytes>> {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let mut byte = [0];
        if file.read(&mut byte)? == 0 {
            return Ok(None);
        }
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            break;
        }
        if length > ENTRY_BYTES || shift > 28 {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "an entry too long"));
        }
    }
    let mut bytes = vec![0; length];
    match file.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let seen = |writer, number| Version { writer, number };
        let entry = |action, outcome, number, versions| Entry {
            action,
            outcome,
            observed: number == 3,
            key: 1_000_000_000,
            number,
            sent_us: 12_345_678,
            took_us: 250,
            versions,
        };
        vec![
            entry(Action::Read, Outcome::Acknowledged, 0, vec![]),
            entry(Action::Put, Outcome::Acknowledged, 1, vec![seen(7, 9), seen(8, u64::MAX >> 2)]),
            entry(Action::Delete, Outcome::Refused, 2, vec![seen(7, 1)]),
            entry(Action::Put, Outcome::Unknown, 3, vec![]),
        ]
    }

    fn read(directory: &Path) -> (Vec<Entry>, bool) {
        let mut ledger = Entries::open(directory).unwrap();
        assert_eq!(ledger.header(), &Header::new(7, 99, "redis://a:1", "b"));
        let mut found = Vec::new();
        while let Some(bytes) = ledger.next_bytes().unwrap() {
            found.push(decode(bytes, 7).unwrap());
        }
        (found, ledger.is_complete())
    }

    #[test]
    fn entries_read_back_and_a_cut_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let header = Header::new(7, 99, "redis://a:1", "b");
        let mut ledger = Ledger::create(directory.path(), &header).unwrap();
        entries().iter().for_each(|entry| ledger.append(entry));
        ledger.finish().unwrap();
        assert_eq!(read(directory.path()), (entries(), true));
        let path = directory.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(read(directory.path()), (entries()[..3].to_vec(), false));
    }
}
