//! What a node asks of a disk.
//!
//! The seam between the state machines and whatever keeps bytes. A [`Store`] keeps one record for
//! each key, and a digest beside each record; a [`Batch`] changes several of them at once or not
//! at all; and once [`Store::commit`] has returned, the batch outlives the process and, where the
//! durability in force says so, the machine's power. [`memory::MemoryStore`] is the store of the
//! simulator and of tests; RocksDB stands behind the same trait in `server::rocks`. One suite of
//! contract tests runs against both.
//!
//! ```text
//!   stored key   = partition (2 bytes, big-endian)  bucket  0x00  name
//!   objects      : stored key -> record  (replica-local metadata, encoded object)
//!   digests      : stored key -> xxh3_128 of key and object, 16 bytes
//!   hints        : owner (16 bytes, big-endian)  stored key -> record
//! ```

pub mod memory;
pub mod record;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::{NodeId, Partition};
use crate::key::{Key, KeyError};

/// A key as it stands on disk: its partition in front, so that a partition is one range.
///
/// It names a record of this node's own, or, with an owner, one that is kept for a member that is
/// away: a **hint**.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredKey {
    owner: Option<NodeId>,
    bytes: Bytes,
}

impl StoredKey {
    /// Where `key` stands within `partition`.
    #[must_use]
    pub fn new(partition: Partition, key: &Key) -> Self {
        let mut bytes = BytesMut::with_capacity(2 + key.joined().len());
        bytes.put_u16(partition.0);
        bytes.put_slice(key.joined());
        Self { owner: None, bytes: bytes.freeze() }
    }

    /// Reads back what [`StoredKey::as_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are no stored key.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, KeyError> {
        if bytes.len() < 2 {
            return Err(KeyError::BucketName);
        }
        Key::from_joined(bytes.slice(2..))?;
        Ok(Self { owner: None, bytes })
    }

    /// The record of the same key that is kept for `owner`.
    #[must_use]
    pub fn kept_for(&self, owner: NodeId) -> Self {
        Self { owner: Some(owner), bytes: self.bytes.clone() }
    }

    /// Whom the record is kept for; `None` for this node's own.
    #[must_use]
    pub fn owner(&self) -> Option<NodeId> {
        self.owner
    }

    /// The bytes on disk, without the owner.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The partition it falls into.
    #[must_use]
    pub fn partition(&self) -> Partition {
        Partition(u16::from_be_bytes([self.bytes[0], self.bytes[1]]))
    }

    /// The key it is of.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::from_joined(self.bytes.slice(2..)).expect("both constructors checked the key")
    }
}

/// The new state of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: StoredKey,
    /// Its record ([`record::Record::encode`]), or `None` to have none from now on.
    pub record: Option<Bytes>,
    /// The digest of the object in it. Of no use for a hint.
    pub digest: u128,
}

/// Changes that take place together or not at all. A later change to a key wins over an earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they were made.
    pub changes: Vec<Change>,
}

/// Why a disk could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space is left. Nothing was written; reads go on; it recovers when space is back.
    #[error("the disk is full: {0}")]
    Full(String),
    /// What is on disk under this key is damaged. Never answered as "not there".
    #[error("damaged data: {0}")]
    Corrupt(String),
    /// The disk failed in a way after which nothing it says can be relied on (a failed fsync,
    /// above all). The process must end.
    #[error("the disk failed: {0}")]
    Fatal(String),
}

/// What a look into memory found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// The record, or the certainty that there is none.
    Known(Option<Bytes>),
    /// Only the disk knows: ask [`Store::read`], from a thread that may block.
    WouldBlock,
}

/// A record of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: StoredKey,
    /// Its record.
    pub record: Bytes,
}

/// What keeps records. Shared by threads; a batch that is being committed is seen whole or not
/// at all.
pub trait Store: Send + Sync {
    /// The record of `key`. May block on the disk.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] or [`StoreError::Fatal`]; never for an absent key.
    fn read(&self, key: &StoredKey) -> Result<Option<Bytes>, StoreError>;

    /// The record of `key` if memory can tell. Never blocks.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn read_cached(&self, key: &StoredKey) -> Result<Cached, StoreError>;

    /// Makes all of the `batches` durable, in order. Many batches cost one sync: this is where a
    /// group commit happens.
    ///
    /// # Errors
    /// [`StoreError::Full`] when nothing was written, [`StoreError::Fatal`] when nobody knows.
    fn commit(&self, batches: &[Batch]) -> Result<(), StoreError>;

    /// Deletes every record of `partition` that is this node's own, or of one bucket in it, as one
    /// range; as durable as a commit. It takes its place among the commits: what was committed
    /// before is gone, what is committed later stays.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn clear(&self, partition: Partition, bucket: Option<&str>) -> Result<(), StoreError>;

    /// Up to `count` records of `partition` in key order, behind `after`.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn page(
        &self,
        partition: Partition,
        after: Option<&StoredKey>,
        count: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Records kept for `owner` in key order, behind `after`: as many as make up `bytes`, and at
    /// least one if there is one. Their keys carry the owner.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn hints(
        &self,
        owner: NodeId,
        after: Option<&StoredKey>,
        bytes: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// The owners that records are kept for.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn hint_owners(&self) -> Result<Vec<NodeId>, StoreError>;

    /// How many keys there are and the XOR of their digests.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn digest(&self) -> Result<(u64, u128), StoreError>;

    /// How many bytes the records take, roughly, without looking.
    fn estimated_bytes(&self) -> u64;

    /// How many keys there are, roughly, without looking.
    fn estimated_keys(&self) -> u64;
}
