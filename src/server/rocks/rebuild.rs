//! Building a database anew from what can be read of another.
//!
//! Needed where a table is damaged: writing over a record mends what is read, but the damaged block
//! stays, and RocksDB closes itself to writes as soon as a compaction meets it.
//!
//! Only records that read well are taken, and their digests are made from them. A key whose newest
//! state cannot be read is left out, however much of an older one there may be: what a lost table
//! said could be that a key is gone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use rocksdb::{DB, WriteBatch};

use super::keys::read_digest_key;
use super::open::{Refusal, open_read_only, open_strictly, refusal};
use super::options::{DIGESTS, GRAVES, HINTS, OBJECTS, RocksOptions};
use super::{OWNER_BYTES, each, family, rows, scan};
use crate::causality::Object;
use crate::replica::imprint;
use crate::store::record::Record;
use crate::store::{Change, Imprint, StoreError, StoredKey};

/// Bytes of one batch.
const BATCH_BYTES: usize = 4 << 20;

/// What a rebuild has taken over, and what not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records taken over.
    pub records: u64,
    /// Records that are known to have been there, and cannot be read.
    pub unreadable: u64,
    /// Records kept for other members that were taken over.
    pub hints: u64,
}

/// Builds the database in `to` from that in `from`, which is only read. What was in `to` before is
/// removed.
pub(in crate::server) fn rebuild(
    from: &Path,
    to: &Path,
    options: &RocksOptions,
) -> Result<Rebuilt, Refusal> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Refusal::Other(format!("{}: {error}", to.display())));
        }
        _ => {}
    }
    let old = open_read_only(from, options)?;
    let mut new = Builder::new(open_strictly(to, options, true)?);
    take_records(&old, &mut new)?;
    take_hints(&old, &mut new)?;
    take_graves(&old, &mut new)?;
    new.finish()
}

struct Builder {
    db: DB,
    batch: WriteBatch,
    bytes: usize,
    rebuilt: Rebuilt,
}

impl Builder {
    fn new(db: DB) -> Self {
        Self { db, batch: WriteBatch::default(), bytes: 0, rebuilt: Rebuilt::default() }
    }

    fn add(&mut self, change: &Change) -> Result<(), StoreError> {
        self.bytes += rows::add(&self.db, &mut self.batch, change, &Imprint::NONE, true);
        self.write_if_full()
    }

    fn grave(&mut self, key: &StoredKey, grave: &[u8]) -> Result<(), StoreError> {
        let grave = Bytes::copy_from_slice(grave);
        self.bytes += rows::add_grave(&self.db, &mut self.batch, key, Some(&grave));
        self.write_if_full()
    }

    fn write_if_full(&mut self) -> Result<(), StoreError> {
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let written = self.db.write(&self.batch);
        self.batch.clear();
        self.bytes = 0;
        written.map_err(|error| match super::is_no_space(&error) {
            true => StoreError::Full(error.to_string()),
            false => StoreError::Fatal(error.to_string()),
        })
    }

    fn record(&mut self, key: StoredKey, bytes: &[u8]) -> Result<(), StoreError> {
        let bytes = Bytes::copy_from_slice(bytes);
        let record = Record::decode(bytes.clone()).ok();
        let object = record
            .and_then(|record| Some((Object::decode(record.object.clone()).ok()?, record.object)));
        let Some((object, encoded)) = object else {
            self.rebuilt.unreadable += 1;
            return Ok(());
        };
        let after = imprint(&key, &object, &encoded);
        self.rebuilt.records += 1;
        self.add(&Change::fresh(key, Some(bytes), after))
    }

    fn finish(mut self) -> Result<Rebuilt, Refusal> {
        self.write().map_err(failed)?;
        let families: Vec<_> = super::FAMILIES.iter().map(|name| family(&self.db, name)).collect();
        let flushed = self.db.flush_cfs_opt(&families, &rocksdb::FlushOptions::default());
        flushed.map_err(|error| refusal(&error))?;
        Ok(self.rebuilt)
    }
}

fn failed(error: StoreError) -> Refusal {
    match error {
        StoreError::Full(why) => Refusal::Full(why),
        StoreError::Corrupt(why) => Refusal::Damaged(why),
        StoreError::Fatal(why) => Refusal::Other(why),
    }
}

/// Takes record after record. Where one cannot be read, the digests say which keys are left in its
/// partition, and each is read by itself.
fn take_records(old: &DB, new: &mut Builder) -> Result<(), Refusal> {
    let mut objects = old.raw_iterator_cf_opt(family(old, OBJECTS), scan());
    objects.seek_to_first();
    // The partition that was last begun.
    let mut begun = 0;
    loop {
        let mut last: Option<StoredKey> = None;
        let read = each(&mut objects, |key, record| {
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(key));
            let Ok(key) = key else { return Ok(true) };
            last = Some(key.clone());
            new.record(key, record)?;
            Ok(true)
        });
        match read {
            Ok(()) => return Ok(()),
            Err(StoreError::Corrupt(why)) => {
                tracing::error!(
                    why,
                    "records cannot be read; those around them are taken one by one"
                );
            }
            Err(other) => return Err(failed(other)),
        }
        let partition = last.as_ref().map_or(begun, |key| key.partition().0);
        // The damage may begin with the next partition: it is all looked at by name.
        let partitions = partition..=partition.saturating_add(1);
        for partition in partitions {
            let after = last.as_ref().filter(|key| key.partition().0 == partition);
            take_by_name(old, new, partition, after)?;
            begun = partition;
        }
        let Some(next) = begun.checked_add(1) else { return Ok(()) };
        begun = next;
        objects = old.raw_iterator_cf_opt(family(old, OBJECTS), scan());
        objects.seek(begun.to_be_bytes());
        if !objects.valid() && objects.status().is_ok() {
            return Ok(());
        }
    }
}

/// Takes the records of a partition behind `after` whose digests can be read.
fn take_by_name(
    old: &DB,
    new: &mut Builder,
    partition: u16,
    after: Option<&StoredKey>,
) -> Result<(), Refusal> {
    let mut digests = old.raw_iterator_cf_opt(family(old, DIGESTS), scan());
    digests.seek(partition.to_be_bytes());
    let mut keys = BTreeSet::new();
    let listed = each(&mut digests, |row, _| {
        if !row.starts_with(&partition.to_be_bytes()) {
            return Ok(false);
        }
        let key = read_digest_key(row).map(|(_, key)| key);
        let key = key.map(|key| StoredKey::new(crate::ids::Partition(partition), &key));
        keys.extend(key.filter(|key| after.is_none_or(|after| key > after)));
        Ok(true)
    });
    if let Err(error) = listed {
        tracing::error!(%error, partition, "nor can its digests: a part is left to the other replicas");
    }
    for key in keys {
        match old.get_pinned_cf(family(old, OBJECTS), key.as_bytes()) {
            Ok(Some(record)) => new.record(key, &record).map_err(failed)?,
            Ok(None) => {}
            Err(_) => new.rebuilt.unreadable += 1,
        }
    }
    Ok(())
}

/// Takes what is kept for each member, up to the first that cannot be read: anti-entropy gives its
/// owner the rest.
fn take_hints(old: &DB, new: &mut Builder) -> Result<(), Refusal> {
    let mut from: u128 = 0;
    loop {
        let mut hints = old.raw_iterator_cf_opt(family(old, HINTS), scan());
        hints.seek(from.to_be_bytes());
        let read = each(&mut hints, |row, record| {
            let Some((owner, key)) = row.split_first_chunk::<OWNER_BYTES>() else {
                return Ok(true);
            };
            from = u128::from_be_bytes(*owner);
            let Ok(key) = StoredKey::from_bytes(Bytes::copy_from_slice(key)) else {
                return Ok(true);
            };
            let key = key.kept_for(crate::ids::NodeId(from));
            new.rebuilt.hints += 1;
            new.add(&Change::fresh(key, Some(Bytes::copy_from_slice(record)), Imprint::NONE))?;
            Ok(true)
        });
        match read {
            Ok(()) => return Ok(()),
            Err(StoreError::Corrupt(why)) => {
                let owner = crate::ids::NodeId(from);
                tracing::error!(why, %owner, "some of what is kept for a member cannot be read");
            }
            Err(other) => return Err(failed(other)),
        }
        let Some(next) = from.checked_add(1) else { return Ok(()) };
        from = next;
    }
}

/// Takes what is remembered of reaped keys; of a partition, up to the first that cannot be read. That
/// is a second guard only: what is lost of it is not known to be lost by anybody.
fn take_graves(old: &DB, new: &mut Builder) -> Result<(), Refusal> {
    let mut from: u16 = 0;
    loop {
        let mut graves = old.raw_iterator_cf_opt(family(old, GRAVES), scan());
        graves.seek(from.to_be_bytes());
        let read = each(&mut graves, |key, grave| {
            let key = StoredKey::from_bytes(Bytes::copy_from_slice(key));
            let Ok(key) = key else { return Ok(true) };
            from = key.partition().0;
            new.grave(&key, grave)?;
            Ok(true)
        });
        match read {
            Ok(()) => return Ok(()),
            Err(StoreError::Corrupt(why)) => {
                tracing::error!(
                    why,
                    partition = from,
                    "some of what is remembered of forgotten keys \
                    cannot be read"
                );
            }
            Err(other) => return Err(failed(other)),
        }
        let Some(next) = from.checked_add(1) else { return Ok(()) };
        from = next;
    }
}
