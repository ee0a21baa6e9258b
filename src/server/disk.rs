//! The data directory as a whole: opening it, and saying what it can be trusted with.
//!
//! ```text
//!   lock            held while a process has the directory open
//!   mark            whose it is, its incarnation, whether it was left in order    (mark)
//!   journal         the number of the last acknowledged commit                     (journal)
//!   db/             RocksDB                                                         (rocks)
//!   db.aside-1/ …   databases that could not be opened, kept as they were
//!   rebuild         why the database is to be built anew at the next start         (rocks)
//! ```
//!
//! A complete disk is proven, not assumed. What is found leads to one of two verdicts:
//!
//! | found | verdict | incarnation |
//! | --- | --- | --- |
//! | nothing | complete | new |
//! | left in order, database not behind the journal | complete | kept |
//! | not left in order, database not behind the journal | complete | new |
//! | database behind the journal, or no journal | amnesiac | new |
//! | RocksDB refuses, or no database | amnesiac; set aside, a copy rescued | new |
//! | a rebuild was asked for | amnesiac; set aside, built anew from what can be read | new |
//! | an earlier loss has not been repaired | amnesiac | as above |
//! | a mark that was made elsewhere | refused; amnesiac if it is [adopted](Disk::adopt) | new |
//!
//! A clean stop after a commit was refused (a full disk) leaves a new incarnation behind, too.
//!
//! An unclean start always takes a new incarnation, complete or not: dots of a batch that was
//! not acknowledged, and that this disk may have forgotten, may have reached other members.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::DB;

use super::journal::{self, Journal};
use super::mark::{self, Mark, MarkError};
use super::rocks::{self, Refusal, RocksOptions, RocksStore};
use super::slots::sync_directory_of;
use crate::ids::{Incarnation, NodeId};
use crate::store::StoreError;

/// An open data directory. Dropping it without [`Disk::close`] is what a crash is. Keep it for as
/// long as its parts: the directory is locked until it is dropped.
pub struct Disk {
    /// The records.
    pub store: Arc<RocksStore>,
    /// Who this is. Says whether losses are being repaired: whoever has fetched everything back
    /// calls [`Mark::set_repairing`] with `false`.
    pub mark: Arc<Mark>,
    /// What the directory can be trusted with.
    pub verdict: Verdict,
    _lock: File,
}

/// What a data directory can be trusted with, as found when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every acknowledged write is there.
    Complete {
        /// Whether the last process stopped in order (or there was none), so that the
        /// incarnation is the one it had.
        clean: bool,
    },
    /// Acknowledged writes are missing, or may be. This member must not count towards a read
    /// quorum of a partition until it has fetched that partition back from others.
    Amnesiac {
        /// What was found, in words for an operator.
        why: String,
    },
}

/// Why a data directory could not be opened. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "{0} is in use by another ringdove process; stop that one, or give this one its own data directory"
    )]
    InUse(PathBuf),
    /// Recovery writes, and there is no room for it.
    #[error(
        "no space is left for opening the data directory: {0}. Free some and start again; nothing is lost"
    )]
    Full(String),
    /// There is a database that has been written to, and no mark beside it.
    #[error(
        "{0} is missing although there is data beside it, so it cannot be proven whose data this is. Move the \
         data directory aside, start this node with an empty one, and let it replace the member that was here \
         (`ringdove replace`); the other replicas hold its data"
    )]
    MarkMissing(PathBuf),
    /// The directory was copied, or restored from a copy.
    #[error(
        "{0} was not made where it stands: it was copied, or restored from a copy. Two nodes must not share an \
         identity, and an old copy brings back what was deleted since. Start this node with an empty \
         node.data_dir, and let it replace the member (`ringdove member replace`). Only if the whole directory was \
         moved here after its node had stopped, and no node has run on it since: `ringdove serve --moved`"
    )]
    Copied(PathBuf),
    /// The mark cannot be read, or changed.
    #[error(transparent)]
    Mark(#[from] MarkError),
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// RocksDB cannot read its files, and not because they are damaged.
    #[error("the database cannot be opened: {0}")]
    Failed(String),
}

struct Layout {
    root: PathBuf,
    db: PathBuf,
    copy: PathBuf,
}

impl Disk {
    /// Opens the data directory, making it when it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OpenError`]. A damaged database is no error: it is set aside, and the verdict says so.
    pub fn open(directory: &Path, options: &RocksOptions) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(io)?;
        // A path such as "." has no parent to be synced.
        let root = fs::canonicalize(directory).map_err(io)?;
        let lock = lock(&root)?;
        let mark = Mark::open(&root)?;
        if mark.as_ref().is_some_and(Mark::is_copy) {
            return Err(OpenError::Copied(root));
        }
        let layout = Layout { db: root.join("db"), copy: root.join("db.copy"), root };
        match mark {
            None => first_start(&layout, options, lock),
            Some(mark) => start_again(&layout, options, lock, mark),
        }
    }

    /// Takes a directory that was copied for one that was moved here. Whether it is as its node left it
    /// nobody can tell: so it is opened as one that may have forgotten something, until that has
    /// been fetched from others. Returns whether anything had to be done.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn adopt(directory: &Path) -> Result<bool, OpenError> {
        if !directory.join(mark::FILE).exists() {
            return Ok(false);
        }
        let _lock = lock(directory)?;
        let Some(mark) = Mark::open(directory)?.filter(Mark::is_copy) else { return Ok(false) };
        // Before it is claimed: a crash in between leaves a copy.
        mark.change(|state| (state.clean, state.repairing) = (false, true))?;
        mark.claim()?;
        Ok(true)
    }

    /// Stops in order: all that was committed is on disk and the next start keeps the incarnation,
    /// unless a commit was refused in this one. Nothing can be committed afterwards.
    ///
    /// # Errors
    /// When it cannot be proven that everything is on disk. The next start is then an unclean one.
    pub fn close(&self) -> Result<(), StoreError> {
        let commit = self.store.stop()?;
        let fatal = |error: String| StoreError::Fatal(error);
        if self.store.has_refused() {
            let incarnation = new_incarnation().map_err(|error| fatal(error.to_string()))?;
            let renewed = self.mark.renew_incarnation(incarnation);
            renewed.map_err(|error| fatal(error.to_string()))?;
        }
        self.mark.set_clean(commit).map_err(|error| StoreError::Fatal(error.to_string()))
    }
}

/// Keeps other processes out of a directory, for as long as the file is open.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let io = |source| OpenError::Io { path: directory.to_owned(), source };
    let lock = File::create(directory.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Makes the mark last: a directory that has data and no mark is not a first start, and one that
/// was left half made has no data.
fn first_start(layout: &Layout, options: &RocksOptions, lock: File) -> Result<Disk, OpenError> {
    let io = |source| OpenError::Io { path: layout.root.clone(), source };
    let missing = || OpenError::MarkMissing(layout.root.join(mark::FILE));
    let journal = Journal::open(&layout.root).map_err(io)?;
    if journal.is_some_and(|journal| journal.last() > 0) {
        return Err(missing());
    }
    let refused = |refusal| match refusal {
        // Not a database of ours, or one whose mark is gone too: not for us to set aside.
        Refusal::Damaged(_) => missing(),
        other => layout.error(other),
    };
    let db = rocks::open_strictly(&layout.db, options, true).map_err(refused)?;
    if rocks::number_of(&db).map_err(refused)? > 0 {
        return Err(missing());
    }
    let journal = Journal::create(&layout.root, 0).map_err(io)?;
    let member = NodeId(u128::from_le_bytes(entropy().map_err(io)?));
    let mark = Mark::create(&layout.root, member, new_incarnation().map_err(io)?)?;
    sync_directory_of(&layout.root).map_err(io)?;
    let store = RocksStore::over(db, &layout.root, journal, 0, options);
    let verdict = Verdict::Complete { clean: true };
    Ok(Disk { store, mark: Arc::new(mark), verdict, _lock: lock })
}

fn start_again(
    layout: &Layout,
    options: &RocksOptions,
    lock: File,
    mark: Mark,
) -> Result<Disk, OpenError> {
    let io = |source| OpenError::Io { path: layout.root.clone(), source };
    let before = mark.state();
    let incarnation = new_incarnation().map_err(io)?;
    layout.finish_rescue().map_err(io)?;
    let journal = Journal::open(&layout.root).map_err(io)?;
    let Found { db, number, damage } = find(layout, options, &mark, incarnation)?;
    let acknowledged = journal.as_ref().map_or(0, Journal::last).max(before.commit);
    let lost = if damage.is_some() {
        damage
    } else if journal.is_none() {
        Some(format!("{} is missing or damaged", layout.root.join(journal::FILE).display()))
    } else if number < acknowledged {
        Some(format!(
            "the database ends at commit {number}, and commit {acknowledged} was acknowledged"
        ))
    } else {
        None
    };
    mark.change(|state| {
        state.clean = false;
        if lost.is_some() || !before.clean {
            state.incarnation = incarnation;
        }
        state.repairing |= lost.is_some();
    })?;
    let number = number.max(acknowledged);
    if lost.is_some() {
        // From here on the database is level with the journal: the loss is told once, and the
        // mark remembers it until it is repaired.
        rocks::set_number(&db, number).map_err(|refusal| layout.error(refusal))?;
    }
    let journal = match journal {
        Some(journal) => journal,
        None => Journal::create(&layout.root, number).map_err(io)?,
    };
    let earlier = || before.repairing.then(|| "an earlier loss has not been repaired".to_owned());
    let verdict = match lost.or_else(earlier) {
        Some(why) => Verdict::Amnesiac { why },
        None => Verdict::Complete { clean: before.clean },
    };
    let store = RocksStore::over(db, &layout.root, journal, number, options);
    Ok(Disk { store, mark: Arc::new(mark), verdict, _lock: lock })
}

struct Found {
    db: DB,
    number: u64,
    /// What was wrong with the database that has been set aside, if one was.
    damage: Option<String>,
}

/// Opens the database, or what can be rescued of it.
fn find(
    layout: &Layout,
    options: &RocksOptions,
    mark: &Mark,
    incarnation: Incarnation,
) -> Result<Found, OpenError> {
    let io = |source| OpenError::Io { path: layout.root.clone(), source };
    let demand = rocks::demanded_rebuild(&layout.root).map_err(io)?;
    let is_demanded = demand.is_some();
    let opened = match demand {
        None => open_with_number(layout, options),
        Some(why) => Err(Refusal::Damaged(why)),
    };
    let why = match opened {
        Ok((db, number)) => return Ok(Found { db, number, damage: None }),
        Err(Refusal::Damaged(why)) => why,
        Err(other) => return Err(layout.error(other)),
    };
    tracing::error!(%why, "the database is damaged; setting it aside and rescuing a copy");
    // Before anything is moved, so that no later start takes what was rescued for whole.
    mark.change(|state| {
        (state.clean, state.repairing, state.incarnation) = (false, true, incarnation);
    })?;
    layout.rescue(options, is_demanded)?;
    rocks::forget_demand(&layout.root).map_err(io)?;
    let opened = open_with_number(layout, options);
    let (db, number) = opened.map_err(|refusal| layout.error(refusal))?;
    let damage = Some(format!("the database was damaged ({why}) and has been set aside"));
    Ok(Found { db, number, damage })
}

fn open_with_number(layout: &Layout, options: &RocksOptions) -> Result<(DB, u64), Refusal> {
    let db = rocks::open_strictly(&layout.db, options, false)?;
    let number = rocks::number_of(&db)?;
    Ok((db, number))
}

impl Layout {
    fn error(&self, refusal: Refusal) -> OpenError {
        match refusal {
            Refusal::InUse => OpenError::InUse(self.root.clone()),
            Refusal::Full(text) => OpenError::Full(text),
            Refusal::Damaged(text) | Refusal::Other(text) => OpenError::Failed(text),
        }
    }

    /// Ends what a crash interrupted. The database is moved aside only when its copy is good, so a
    /// copy without a database is the database; with one, it may be half a copy.
    fn finish_rescue(&self) -> io::Result<()> {
        if !self.copy.exists() {
            return Ok(());
        }
        if self.db.exists() {
            return fs::remove_dir_all(&self.copy);
        }
        fs::rename(&self.copy, &self.db)?;
        sync_directory_of(&self.db)
    }

    /// Puts a copy of the database, read up to the point that can be reached, or one that is built
    /// anew, in its place, and the database itself aside. What cannot be read at all is replaced by an
    /// empty one.
    fn rescue(&self, options: &RocksOptions, anew: bool) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { path: self.root.clone(), source };
        let rescued = match anew {
            true => rocks::rebuild(&self.db, &self.copy, options).map(|rebuilt| {
                tracing::warn!(?rebuilt, "the database has been built anew");
            }),
            false => Err(Refusal::Damaged(String::new())),
        };
        let rescued = rescued.or_else(|refusal| match refusal {
            full @ Refusal::Full(_) => Err(full),
            _ => rocks::salvage(&self.db, &self.copy, options),
        });
        match rescued {
            Ok(()) => {}
            Err(full @ Refusal::Full(_)) => return Err(self.error(full)),
            Err(refusal) => {
                tracing::error!(
                    ?refusal,
                    "nothing can be rescued; starting from an empty database"
                );
                match fs::remove_dir_all(&self.copy) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                    _ => {}
                }
                let empty = rocks::open_strictly(&self.copy, options, true);
                drop(empty.map_err(|refusal| self.error(refusal))?);
            }
        }
        if self.db.exists() {
            let aside = |n: &u32| self.root.join(format!("db.aside-{n}"));
            let free = (1..).map(|n| aside(&n)).find(|path| !path.exists());
            let aside = free.expect("there are more numbers than directories");
            fs::rename(&self.db, &aside).map_err(io)?;
            tracing::warn!(path = %aside.display(), "the damaged database is kept");
        }
        fs::rename(&self.copy, &self.db).map_err(io)?;
        sync_directory_of(&self.db).map_err(io)
    }
}

fn new_incarnation() -> io::Result<Incarnation> {
    Ok(Incarnation(u64::from_le_bytes(entropy()?)))
}

/// Random bytes of the operating system. No generator of our own: these name members, and two
/// that agree would be a disaster.
fn entropy<const BYTES: usize>() -> io::Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
