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
//!   digests      : partition  bucket  0x00  place (8 bytes)  name -> imprint, 38 bytes
//!   fading       : partition  bucket  0x00  time (8 bytes, big-endian)  name -> nothing
//!   conflicts    : stored key -> nothing
//!   hints        : owner (16 bytes, big-endian)  stored key -> record
//!   graves       : stored key -> grave
//! ```
//!
//! Digests stand in the order of their places in the trees ([`forest`]), so that a leaf is one range. The
//! last four families are small: most keys are not in them.

pub mod forest;
pub mod memory;
pub mod record;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::{NodeId, Partition};
use crate::key::{Key, KeyError};
use crate::time::WallMs;
use forest::{Leaves, Root, Tally};

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

    /// This node's own record of the same key.
    #[must_use]
    pub fn own(&self) -> Self {
        Self { owner: None, bytes: self.bytes.clone() }
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

/// What the store knows of a record without looking into it. A hint has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imprint {
    /// The digest of key and object; 0 where there is no record.
    pub digest: u128,
    /// Siblings that are values, expired ones included.
    pub siblings: u16,
    /// Bytes of key and object.
    pub bytes: u32,
    /// When its youngest sibling was written: an HLC, to guess who is behind.
    pub latest: u64,
    /// From when on nothing in it is shown, if no write comes: all its siblings are tombstones, or
    /// have expired by then.
    pub fades_at: Option<WallMs>,
}

impl Imprint {
    /// Of a key without a record.
    pub const NONE: Self = Self { digest: 0, siblings: 0, bytes: 0, latest: 0, fades_at: None };
    /// Bytes of an encoded imprint.
    pub const BYTES: usize = 38;

    /// Whether there is a record.
    #[must_use]
    pub fn is_some(&self) -> bool {
        *self != Self::NONE
    }

    /// The bytes on disk: digest, siblings, bytes, HLC, time (`u64::MAX`: never); little-endian.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.digest.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.siblings.to_le_bytes());
        bytes[18..22].copy_from_slice(&self.bytes.to_le_bytes());
        let fades_at = self.fades_at.map_or(u64::MAX, |at| at.0);
        bytes[22..30].copy_from_slice(&self.latest.to_le_bytes());
        bytes[30..].copy_from_slice(&fades_at.to_le_bytes());
        bytes
    }

    /// Reads back what [`Imprint::encode`] gave; `None` where the bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let fades_at = u64::from_le_bytes(*bytes.last_chunk()?);
        Some(Self {
            digest: u128::from_le_bytes(*bytes.first_chunk()?),
            siblings: u16::from_le_bytes([bytes[16], bytes[17]]),
            bytes: u32::from_le_bytes(*bytes[18..].first_chunk()?),
            latest: u64::from_le_bytes(*bytes[22..].first_chunk()?),
            fades_at: (fades_at != u64::MAX).then_some(WallMs(fades_at)),
        })
    }
}

/// The new state of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: StoredKey,
    /// Its record ([`record::Record::encode`]), or `None` to have none from now on.
    pub record: Option<Bytes>,
    /// What was there before; `None` where the record could not be read, so that only the store knows,
    /// from the imprint it keeps beside it.
    pub before: Option<Imprint>,
    /// What is there from now on.
    pub after: Imprint,
}

impl Change {
    /// A change of a key that had no record, or of which no store has to know what it had: a hint.
    #[must_use]
    pub fn fresh(key: StoredKey, record: Option<Bytes>, after: Imprint) -> Self {
        Self { key, record, before: Some(Imprint::NONE), after }
    }
}

/// A digest of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// Where it stands in its tree.
    pub place: u64,
    /// The key.
    pub key: Key,
    /// What is known of the record.
    pub imprint: Imprint,
}

/// A range of places of one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The partition.
    pub partition: Partition,
    /// The bucket.
    pub bucket: String,
    /// The first place.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

/// Changes that take place together or not at all. A later change to a key wins over an earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they were made.
    pub changes: Vec<Change>,
    /// What is remembered of reaped keys from now on, or `None` for what is forgotten of one.
    pub graves: Vec<(StoredKey, Option<Bytes>)>,
}

impl Batch {
    /// Changes of records.
    #[must_use]
    pub fn of(changes: Vec<Change>) -> Self {
        Self { changes, graves: Vec::new() }
    }
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

    /// What is remembered of reaped keys, in order of key.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn graves(&self) -> Result<Vec<Entry>, StoreError>;

    /// The digests in `places`, in order of place and key: all behind `after`, or the first `count`.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn digests(
        &self,
        places: &Places,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<Digest>, StoreError>;

    /// Shows the digests of a tree whose places are in one of `ranges`, in order of place and key. The ranges
    /// are in order and do not overlap; many small ones cost little more than reading what lies between them.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn each_digest(
        &self,
        partition: Partition,
        bucket: &str,
        ranges: &[RangeInclusive<u64>],
        visit: &mut dyn FnMut(Digest),
    ) -> Result<(), StoreError>;

    /// The roots of a partition's trees, by bucket; `None` while they are being counted.
    fn roots(&self, partition: Partition) -> Option<Vec<Root>>;

    /// The leaves of a tree; `None` while its partition is being counted.
    fn leaves(&self, partition: Partition, bucket: &str) -> Option<Leaves>;

    /// Counts the trees of a partition again from its digests. Commits go on meanwhile. Returns whether
    /// they were wrong; not at all while another count is under way.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn recount(&self, partition: Partition) -> Result<bool, StoreError>;

    /// What is there by bucket, as far as it is counted.
    fn tallies(&self) -> BTreeMap<String, Tally>;

    /// Up to `count` keys of `partition` of which nothing is shown at `until`, behind `after`, in order
    /// of bucket and of the time from which that is so.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn faded(
        &self,
        partition: Partition,
        until: WallMs,
        after: Option<&(WallMs, StoredKey)>,
        count: usize,
    ) -> Result<Vec<(WallMs, StoredKey)>, StoreError>;

    /// Up to `count` keys of a bucket in `partition` with several values that nothing has overwritten,
    /// behind `after`, in order.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn conflicts(
        &self,
        partition: Partition,
        bucket: &str,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<Key>, StoreError>;

    /// How many keys there are and the XOR of their digests.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn digest(&self) -> Result<(u64, u128), StoreError>;

    /// How many bytes the records take, roughly, without looking.
    fn estimated_bytes(&self) -> u64;

    /// How many keys there are, roughly, without looking.
    fn estimated_keys(&self) -> u64;

    /// How many groups of batches have been committed, in all of this store's life: the fewer for as many
    /// writes, the more of them share what a commit costs the disk.
    fn commits(&self) -> u64;
}
