//! Graves: what this shard remembers of keys that were reaped.
//!
//! Once all members have agreed that nothing old is left of a deleted key (`reap`), its owners forget
//! it, tombstone and clock. For what the agreement cannot see (a disk that has lost what it had
//! synced, a client that repeats a write of an hour ago) a grave keeps the clock and the names of
//! writes, for a bounded number of keys, the oldest dropped first. A value that a grave's clock knows
//! is *risen*: it is refused, counted and reported, and the key is deleted once more, so that whoever
//! brought it is mended too. A fresh write has a dot that no grave knows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use crate::causality::{Dot, Object};
use crate::codec::{CodecError, Reader, Write as _};
use crate::ids::WriteId;
use crate::store::StoredKey;

/// What the store is to remember or to forget.
pub(super) type GraveChange = (StoredKey, Option<Bytes>);

/// The graves of one shard.
#[derive(Debug)]
pub(super) struct Graves {
    /// What remains of each key, and the grave's number: numbers rise.
    graves: BTreeMap<StoredKey, (u64, Object)>,
    order: BTreeSet<(u64, StoredKey)>,
    last: u64,
    most: usize,
}

impl Graves {
    /// Keeps up to `most`.
    pub(super) fn new(most: usize) -> Self {
        let (graves, order) = (BTreeMap::new(), BTreeSet::new());
        Self { graves, order, last: 0, most }
    }

    /// A grave that is on the disk.
    ///
    /// # Errors
    /// When the bytes are none. Nothing is changed.
    pub(super) fn found(&mut self, key: StoredKey, bytes: Bytes) -> Result<(), CodecError> {
        let mut input = Reader::new(bytes);
        let number = input.varint("grave")?;
        let remains = Object::decode(input.take(input.remaining(), "grave")?)?;
        self.last = self.last.max(number);
        self.order.insert((number, key.clone()));
        self.graves.insert(key, (number, remains));
        Ok(())
    }

    /// Buries what remains of a key. Returns what the store has to change.
    pub(super) fn bury(&mut self, key: &StoredKey, mut remains: Object) -> Vec<GraveChange> {
        if let Some((number, earlier)) = self.graves.remove(key) {
            self.order.remove(&(number, key.clone()));
            remains.merge(&earlier);
        }
        self.last += 1;
        let mut bytes = BytesMut::new();
        bytes.put_varint(self.last);
        bytes.put_slice(&remains.encode());
        let mut changes = vec![(key.clone(), Some(bytes.freeze()))];
        self.order.insert((self.last, key.clone()));
        self.graves.insert(key.clone(), (self.last, remains));
        while self.graves.len() > self.most {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.graves.remove(&oldest);
            changes.push((oldest, None));
        }
        changes
    }

    /// What remains of a key, if it was reaped.
    pub(super) fn of(&self, key: &StoredKey) -> Option<&Object> {
        if self.graves.is_empty() {
            return None;
        }
        self.graves.get(&key.own()).map(|(_, remains)| remains)
    }

    /// Takes out of what was read what is known to be dead: a disk that is not as its node left it
    /// may have brought it back.
    pub(super) fn hide(&self, key: &StoredKey, read: &mut Object, keeps_latest: bool) {
        let Some(remains) = self.of(key) else { return };
        if read.siblings().iter().any(|sibling| remains.is_dead(sibling.dot)) {
            match keeps_latest {
                true => drop(read.merge_latest(remains)),
                false => drop(read.merge(remains)),
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.graves.is_empty()
    }

    /// Whether a write was made, and is dead since.
    pub(super) fn knows(&self, key: &StoredKey, write: WriteId, dot: Option<Dot>) -> bool {
        self.of(key).is_some_and(|remains| {
            remains.has_replaced(write) || dot.is_some_and(|dot| remains.clock().contains(dot))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::{Actor, Content, Hlc, Sibling, VersionVector};
    use crate::ids::{Incarnation, Partition};
    use crate::key::Key;

    fn key(n: u64) -> StoredKey {
        StoredKey::new(Partition(1), &Key::new(b"b", n.to_string().as_bytes()).unwrap())
    }

    fn deleted(n: u64) -> Object {
        let dot = Dot { actor: Actor { incarnation: Incarnation(n), k: 1 }, counter: 1 };
        let content = Content::Tombstone;
        let write_id = WriteId(u128::from(n));
        let mut object = Object::new();
        let after = Hlc::default();
        let sibling = Sibling { dot, write_id, hlc: Hlc(n), after, expires_at: None, content };
        object.write(&VersionVector::new(), sibling);
        object
    }

    #[test]
    fn the_oldest_grave_is_forgotten_first_and_a_restart_knows_the_others() {
        let mut graves = Graves::new(2);
        let mut disk = BTreeMap::new();
        for n in [1, 2, 1, 3] {
            for (key, bytes) in graves.bury(&key(n), deleted(n).remains()) {
                match bytes {
                    Some(bytes) => drop(disk.insert(key, bytes)),
                    None => drop(disk.remove(&key)),
                }
            }
        }
        let mut again = Graves::new(2);
        for (key, bytes) in disk {
            again.found(key, bytes).unwrap();
        }
        for graves in [&graves, &again] {
            assert_eq!(graves.graves.len(), 2);
            assert!(graves.of(&key(2)).is_none(), "buried once, and first");
            assert!(graves.knows(&key(1), WriteId(1), None));
            assert!(!graves.knows(&key(1), WriteId(3), None));
        }
        assert!(again.bury(&key(4), deleted(4).remains()).contains(&(key(1), None)));
    }
}
