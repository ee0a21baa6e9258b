//! The rows that a change of one key consists of.

use bytes::Bytes;
use rocksdb::{DB, WriteBatch};

use super::family;
use super::keys::{digest_key, fading_key, hint_key};
use super::options::{CONFLICTS, DIGESTS, FADING, GRAVES, HINTS, OBJECTS};
use crate::store::{Change, Imprint, StoredKey};

/// Adds a change's rows to `batch`; `before` is what the store has of the key. Returns their bytes,
/// roughly.
pub(super) fn add(
    db: &DB,
    batch: &mut WriteBatch,
    change: &Change,
    before: &Imprint,
    keeps_trees: bool,
) -> usize {
    let key = change.key.as_bytes();
    let record = change.record.as_deref();
    let bytes = 2 * key.len() + record.map_or(0, <[u8]>::len) + Imprint::BYTES;
    if let Some(owner) = change.key.owner() {
        let hints = family(db, HINTS);
        match record {
            Some(record) => batch.put_cf(hints, hint_key(owner, key), record),
            None => batch.delete_cf(hints, hint_key(owner, key)),
        }
        return bytes;
    }
    match record {
        Some(record) => batch.put_cf(family(db, OBJECTS), key, record),
        None => batch.delete_cf(family(db, OBJECTS), key),
    }
    match record {
        _ if !keeps_trees => {}
        Some(_) => {
            batch.put_cf(family(db, DIGESTS), digest_key(&change.key), change.after.encode())
        }
        None => batch.delete_cf(family(db, DIGESTS), digest_key(&change.key)),
    }
    let after = &change.after;
    if before.fades_at != after.fades_at {
        let fading = family(db, FADING);
        if let Some(at) = before.fades_at {
            batch.delete_cf(fading, fading_key(at, &change.key));
        }
        if let Some(at) = after.fades_at {
            batch.put_cf(fading, fading_key(at, &change.key), []);
        }
    }
    match (before.siblings > 1, after.siblings > 1) {
        (false, true) => batch.put_cf(family(db, CONFLICTS), key, []),
        (true, false) => batch.delete_cf(family(db, CONFLICTS), key),
        _ => {}
    }
    bytes
}

/// Adds what is remembered of a reaped key from now on, or that nothing is. Returns the bytes of it,
/// roughly.
pub(super) fn add_grave(
    db: &DB,
    batch: &mut WriteBatch,
    key: &StoredKey,
    grave: Option<&Bytes>,
) -> usize {
    let graves = family(db, GRAVES);
    match grave {
        Some(grave) => batch.put_cf(graves, key.as_bytes(), grave),
        None => batch.delete_cf(graves, key.as_bytes()),
    }
    key.as_bytes().len() + grave.map_or(0, Bytes::len)
}
