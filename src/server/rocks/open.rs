//! Opening a database, and getting out of a damaged one what can be had.

use std::fs;
use std::io;
use std::path::Path;

use rocksdb::{DB, Error, ErrorKind, WriteOptions};

use super::options::{self, META, Recovery, RocksOptions};
use super::{NUMBER_KEY, is_no_space};

/// Why RocksDB did not open a directory. Nothing was lost by asking.
#[derive(Debug)]
pub(in crate::server) enum Refusal {
    /// Another process has it open.
    InUse,
    /// Recovery needs space that is not there.
    Full(String),
    /// Something that was there is missing or does not match its checksum.
    Damaged(String),
    /// It cannot be read, for a reason that lies outside of the data.
    Other(String),
}

/// Opens the database in `path`, trusting nothing that is not whole. With `create`, an absent
/// one is made.
pub(in crate::server) fn open_strictly(
    path: &Path,
    options: &RocksOptions,
    create: bool,
) -> Result<DB, Refusal> {
    open(path, options, Recovery::Strict, create)
}

/// Opens the database in `path` for reading, and changes nothing in it.
pub(super) fn open_read_only(path: &Path, options: &RocksOptions) -> Result<DB, Refusal> {
    let database = options::database(options, Recovery::Strict, false);
    let families = options::families(options);
    let opened = DB::open_cf_descriptors_read_only(&database, path, families, false);
    opened.map_err(|error| refusal(&error))
}

/// Copies the database in `from` to `to` and brings the copy to the last point that it can be
/// read up to. What was in `to` before is removed.
pub(in crate::server) fn salvage(
    from: &Path,
    to: &Path,
    options: &RocksOptions,
) -> Result<(), Refusal> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => Refusal::Full(error.to_string()),
        _ => Refusal::Other(format!("copying {}: {error}", from.display())),
    };
    copy(from, to).map_err(failed)?;
    let db = open(to, options, Recovery::PointInTime, false)?;
    // Everything goes to tables now: the next open is a strict one, and the log is damaged.
    let families: Vec<_> = options::families(options).iter().map(|f| f.name().to_owned()).collect();
    let families: Vec<_> = families.iter().filter_map(|name| db.cf_handle(name)).collect();
    let flushed = db.flush_cfs_opt(&families, &rocksdb::FlushOptions::default());
    flushed.map_err(|error| refusal(&error))?;
    drop(families);
    drop(db);
    open_strictly(to, options, false).map(drop)
}

/// Sets the number of the last commit, durably.
pub(in crate::server) fn set_number(db: &DB, number: u64) -> Result<(), Refusal> {
    let meta = db.cf_handle(META).expect("every family was opened");
    let mut durable = WriteOptions::default();
    durable.set_sync(true);
    let put = db.put_cf_opt(meta, NUMBER_KEY, number.to_le_bytes(), &durable);
    put.map_err(|error| refusal(&error))
}

/// The number of the last commit in `db`; 0 when there was none.
pub(in crate::server) fn number_of(db: &DB) -> Result<u64, Refusal> {
    let meta = db.cf_handle(META).expect("every family was opened");
    match db.get_cf(meta, NUMBER_KEY) {
        Ok(None) => Ok(0),
        Ok(Some(bytes)) => match bytes.as_slice().try_into() {
            Ok(bytes) => Ok(u64::from_le_bytes(bytes)),
            Err(_) => Err(Refusal::Damaged(format!("a commit number of {} bytes", bytes.len()))),
        },
        Err(error) => Err(refusal(&error)),
    }
}

fn open(
    path: &Path,
    options: &RocksOptions,
    recovery: Recovery,
    create: bool,
) -> Result<DB, Refusal> {
    let database = options::database(options, recovery, create);
    let opened = DB::open_cf_descriptors(&database, path, options::families(options));
    opened.map_err(|error| refusal(&error))
}

/// The binding hands on the text of a status only.
pub(super) fn refusal(error: &Error) -> Refusal {
    let text = error.as_ref();
    let has = |part: &str| text.contains(part);
    match error.kind() {
        ErrorKind::IOError if has("lock") && (has("LOCK") || has("lock hold")) => Refusal::InUse,
        _ if is_no_space(error) => Refusal::Full(text.to_owned()),
        ErrorKind::Corruption => Refusal::Damaged(text.to_owned()),
        // A file that the manifest names, or the manifest itself.
        ErrorKind::IOError if has("No such file or directory") => Refusal::Damaged(text.to_owned()),
        // CURRENT is gone: RocksDB sees no database and was told to make none.
        ErrorKind::InvalidArgument if has("does not exist") => Refusal::Damaged(text.to_owned()),
        _ => Refusal::Other(text.to_owned()),
    }
}

/// Copies a database's files. Tables never change once written, so a second name will do for
/// them where the file system allows it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if !entry.file_type()?.is_file() || entry.file_name() == "LOCK" {
            continue;
        }
        let is_table = target.extension().is_some_and(|extension| extension == "sst");
        if !is_table || fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    fs::File::open(to)?.sync_all()
}
