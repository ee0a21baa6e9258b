//! Reads back what runs have written, and says what is missing, what came back, and which reads of
//! the runs were stale.
//!
//! ```text
//!   ledgers ──▶ bins of keys, on disk ──▶ one bin at a time: graph of each key
//!                                                              │   ▲
//!                                                    read the key   └── what stands
//!                                                              ▼
//!                                          judge (what must stand)   stale (the run's reads)
//! ```
//!
//! The rules stand at the top of `judge` and `stale`. What always holds: memory is bounded by a bin, however
//! long the runs were; all ledgers of those who wrote the same keys must be given together, or what
//! the others wrote is somebody else's.

mod graph;
mod judge;
mod stale;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Error;
use super::actor::version_of;
use super::directory::{read_summary, write_summary};
use super::ledger::{self, Action, Entries, FILE, Header};
use super::record::Verification;
use super::target::{Found, Session, Target};
use super::workload::name_key;
use crate::codec::{Reader, Write as _};
use graph::Graph;
use judge::{Circumstances, example};

/// Bytes of ledger whose keys are judged together; in memory they are some twenty times as large.
const BIN_BYTES: u64 = 16 * 1024 * 1024;
/// Keys that are read back at a time.
const READERS: usize = 64;
/// How often a key is read that cannot be, and the pause between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(300);

/// What stands at the beginnings of the ledgers of some runs.
///
/// # Errors
/// When a ledger is missing or damaged, or they are of different buckets.
pub fn headers(directories: &[PathBuf]) -> Result<Vec<Header>, Error> {
    let open = |directory: &PathBuf| Entries::open(directory).map(|ledger| ledger.header().clone());
    let headers: Vec<Header> = directories.iter().map(open).collect::<Result<_, _>>()?;
    match headers.iter().find(|header| header.bucket != headers[0].bucket) {
        Some(other) => Err(Error::settings(format!(
            "these runs wrote to different buckets, {:?} and {:?}: verify them one by one",
            headers[0].bucket, other.bucket
        ))),
        None => Ok(headers),
    }
}

/// Reads back every key that the runs in `directories` wrote, judges them, and enters what it found
/// into their summaries. `tell` hears of how many keys were read. Must run within a
/// [`LocalSet`](tokio::task::LocalSet).
///
/// # Errors
/// When a ledger or a summary cannot be read or written. Keys that cannot be read back are counted.
pub async fn verify<T: Target>(
    target: &T,
    directories: &[PathBuf],
    mut tell: impl FnMut(u64),
) -> Result<Verification, Error> {
    headers(directories)?;
    let mut bins = Bins::create(&directories[0], directories)?;
    let complete_writers = bins.fill(directories)?;
    let last_write_wins = target.last_write_wins();
    let circumstances = Rc::new(Circumstances { last_write_wins, complete_writers });
    let found = Rc::new(RefCell::new(Verification::default()));
    for bin in bins.paths()? {
        let graphs = bins.graphs(&bin)?;
        read_back(target, graphs, &circumstances, &found).await;
        tell(found.borrow().keys);
    }
    let found = found.borrow().clone();
    for directory in directories {
        let mut summary = read_summary(directory)?;
        summary.verification = Some(found.clone());
        write_summary(directory, &summary)?;
    }
    Ok(found)
}

type Keys = Rc<RefCell<Vec<(u64, Graph)>>>;

async fn read_back<T: Target>(
    target: &T,
    graphs: Vec<(u64, Graph)>,
    circumstances: &Rc<Circumstances>,
    found: &Rc<RefCell<Verification>>,
) {
    let keys: Keys = Rc::new(RefCell::new(graphs));
    let mut readers = JoinSet::new();
    for number in 0..READERS {
        let mut session = target.session(number);
        let (keys, found, circumstances) = (keys.clone(), found.clone(), circumstances.clone());
        readers.spawn_local(async move {
            let (mut name, mut read) = (Vec::new(), Found::default());
            loop {
                let Some((key, mut graph)) = keys.borrow_mut().pop() else { return };
                name_key(key, &mut name);
                let answer = read_key(&mut session, &name, &mut read).await;
                let mut found = found.borrow_mut();
                let name = String::from_utf8_lossy(&name);
                found.keys += 1;
                if let Err(why) = answer {
                    found.unread += 1;
                    example(&mut found, || format!("{name}: cannot be read back: {why}"));
                    continue;
                }
                let versions: Vec<_> = read.values.iter().map(|value| version_of(value)).collect();
                graph.stand(&versions);
                judge::judge(&name, &mut graph, &circumstances, &mut found);
                stale::judge(&name, &mut graph, &circumstances, &mut found);
            }
        });
    }
    readers.join_all().await;
}

async fn read_key<S: Session>(
    session: &mut S,
    key: &[u8],
    found: &mut Found<S::Context>,
) -> Result<(), &'static str> {
    let mut attempt = 1;
    loop {
        found.clear();
        match session.read(key, found).await {
            Ok(()) => return Ok(()),
            Err(failure) if attempt == ATTEMPTS => return Err(failure.name),
            Err(_) => attempt += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Entries of all ledgers, sorted roughly by key, in files that go when this is dropped.
struct Bins {
    directory: PathBuf,
    count: u64,
    /// By ledger.
    headers: Vec<Header>,
}

impl Bins {
    fn create(home: &Path, directories: &[PathBuf]) -> Result<Self, Error> {
        let directory = home.join("verify.bins");
        let size = |of: &PathBuf| fs::metadata(of.join(FILE)).map_or(0, |metadata| metadata.len());
        let bytes: u64 = directories.iter().map(size).sum();
        // What a verification that was cut off has left.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).map_err(|error| Error::file(&directory, error))?;
        Ok(Self { directory, count: 1 + bytes / BIN_BYTES, headers: Vec::new() })
    }

    fn paths(&self) -> Result<Vec<PathBuf>, Error> {
        Ok((0..self.count).map(|number| self.directory.join(number.to_string())).collect())
    }

    /// Sorts the entries of all ledgers into the bins. Gives the writers whose ledgers are whole.
    fn fill(&mut self, directories: &[PathBuf]) -> Result<std::collections::BTreeSet<u64>, Error> {
        let paths = self.paths()?;
        let create = |path: &PathBuf| {
            File::create(path).map(BufWriter::new).map_err(|error| Error::file(path, error))
        };
        let mut bins: Vec<BufWriter<File>> = paths.iter().map(create).collect::<Result<_, _>>()?;
        let mut complete = std::collections::BTreeSet::new();
        for (number, directory) in directories.iter().enumerate() {
            let mut entries = Entries::open(directory)?;
            let writer = entries.header().writer();
            while let Some(bytes) = entries.next_bytes()? {
                let entry = ledger::decode(bytes.clone(), writer);
                let entry = entry.map_err(|error| entries.damaged(error))?;
                let bin = (entry.key % self.count) as usize;
                let mut framed = Vec::with_capacity(bytes.len() + 4);
                let mut numbered = Vec::with_capacity(bytes.len() + 2);
                numbered.put_varint(number as u64);
                numbered.extend_from_slice(&bytes);
                framed.put_bytes_with_length(&numbered);
                let written = bins[bin].write_all(&framed);
                written.map_err(|error| Error::file(&paths[bin], error))?;
            }
            if entries.is_complete() {
                complete.insert(writer);
            }
            self.headers.push(entries.header().clone());
        }
        for (bin, path) in bins.iter_mut().zip(&paths) {
            bin.flush().map_err(|error| Error::file(path, error))?;
        }
        Ok(complete)
    }

    /// The keys of a bin that were written, and what is known of them.
    fn graphs(&self, bin: &Path) -> Result<Vec<(u64, Graph)>, Error> {
        let file = File::open(bin).map_err(|error| Error::file(bin, error))?;
        let mut file = BufReader::new(file);
        let mut graphs: BTreeMap<u64, (bool, Graph)> = BTreeMap::new();
        while let Some(bytes) =
            ledger::next_framed(&mut file).map_err(|error| Error::file(bin, error))?
        {
            let damaged = |error| Error::damaged(bin, error);
            let mut reader = Reader::new(bytes);
            let number = reader.varint("ledger").map_err(damaged)?;
            let header = &self.headers[number as usize];
            let rest = reader.take(reader.remaining(), "entry").map_err(damaged)?;
            let entry = ledger::decode(rest, header.writer()).map_err(damaged)?;
            let (is_written, graph) = graphs.entry(entry.key).or_default();
            *is_written |= entry.action != Action::Read;
            graph.enter(header.writer(), header.begun_us, &entry);
        }
        let written = graphs.into_iter().filter(|(_, (is_written, _))| *is_written);
        Ok(written.map(|(key, (_, graph))| (key, graph)).collect())
    }
}

impl Drop for Bins {
    fn drop(&mut self) {
        // The next verification removes what could not be removed.
        let _ = fs::remove_dir_all(&self.directory);
    }
}
