//! Listing the keys of a bucket, and counting them: what nodes and clients say to each other.

use serde::{Deserialize, Serialize};

use super::messages::Level;

/// Which keys of a bucket are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// Those that have a value.
    #[default]
    Live,
    /// Those that have more than one.
    Conflicts,
}

/// A client asks for one page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The bucket.
    pub bucket: String,
    /// Which of its keys.
    pub which: Which,
    /// Only those that begin with this.
    pub prefix: Vec<u8>,
    /// What the page before has answered; 0 begins. Any node can go on.
    pub cursor: u64,
    /// Keys after which the page is full. It may hold fewer, or none, or a few more.
    pub count: u32,
    /// Owners of each partition that must answer. By default N-W+1 by the bucket's W.
    pub r: Level,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingPage {
    /// Where to go on; 0 where the listing is over.
    pub cursor: u64,
    /// The keys.
    pub keys: Vec<Listed>,
}

/// A key of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The key within its bucket.
    pub key: Vec<u8>,
    /// How many values it has. One that has expired beside others counts until it is replaced.
    pub siblings: u16,
    /// Bytes of the key and all that is kept of it, on the replica where they are most.
    pub bytes: u32,
}

/// A node asks an owner for what it has of one partition, in the order of places
/// (`store::forest`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerListing {
    /// The bucket.
    pub bucket: String,
    /// Which of its keys.
    pub which: Which,
    /// Only those that begin with this.
    pub prefix: Vec<u8>,
    /// The partition.
    pub partition: u16,
    /// The first place to look at.
    pub from: u64,
    /// Keys after which the page is full.
    pub count: u32,
    /// The fingerprint of the slots that the asker goes by. An owner that goes by others answers
    /// `Stale`: it may have given the partition away, and its records with it.
    pub slots: u64,
}

/// What one owner has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerPage {
    /// The keys, in order of place and name.
    pub keys: Vec<Listed>,
    /// The first place that was not looked at; `None` at the end of the partition. Keys at this
    /// place or behind it do not count.
    pub next: Option<u64>,
    /// The owner's disk can be proven complete.
    pub complete: bool,
}

/// What is in one bucket, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketTally {
    /// The bucket.
    pub bucket: String,
    /// Keys with a value. One that has expired counts until it is dropped from the disk.
    pub keys: u64,
    /// Keys of which only the deletion is remembered.
    pub deleted: u64,
    /// Keys with more than one value.
    pub conflicts: u64,
    /// Bytes of keys and all that is kept of them.
    pub bytes: u64,
    /// Concurrent versions that last-write-wins has dropped since the nodes started.
    pub discarded: u64,
}

/// What one node counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTally {
    /// By bucket.
    pub buckets: Vec<BucketTally>,
    /// Partitions that it still counts, after a stop that was not in order: they are missing.
    pub uncounted: u32,
}

/// What is in the cluster, each key counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterTally {
    /// By bucket, in the order of their names.
    pub buckets: Vec<BucketTally>,
    /// Members that did not answer: others have counted for them.
    pub silent: Vec<String>,
    /// Partitions that nobody could count.
    pub uncounted: u32,
}

/// The keys of one node that stand out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outliers {
    /// The keys with the most values, most first.
    pub siblings: Vec<Outlier>,
    /// The largest keys, largest first.
    pub largest: Vec<Outlier>,
    /// Keys that were looked at.
    pub seen: u64,
    /// That is all of them.
    pub complete: bool,
}

/// A key that stands out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlier {
    /// Its bucket.
    pub bucket: String,
    /// The rest.
    pub listed: Listed,
}
