//! What operators decide: the settings of buckets, and changes of the members.

use serde::{Deserialize, Serialize};

use super::messages::Level;
use crate::ids::NodeId;
use crate::limits;

/// How a bucket treats writes that did not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Conflicts {
    /// Keeps them all until a writer that saw all replaces them.
    Siblings,
    /// Keeps the one with the latest timestamp and drops the others.
    LastWriteWins,
}

/// The settings of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BucketSettings {
    /// Replicas of each key, 1 to 13.
    pub n: u8,
    /// Replicas that must answer a read, unless it says otherwise.
    pub r: Level,
    /// Replicas that must confirm a write, unless it says otherwise.
    pub w: Level,
    /// What happens to concurrent writes.
    pub conflicts: Conflicts,
    /// Milliseconds after which a value reads as absent, unless the write says otherwise.
    pub ttl_ms: Option<u64>,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self {
            n: limits::REPLICAS_DEFAULT,
            r: Level::Quorum,
            w: Level::Quorum,
            conflicts: Conflicts::Siblings,
            ttl_ms: None,
        }
    }
}

/// What an operator has staged for a member; it happens when the plan is committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PlannedChange {
    /// The candidate becomes a member.
    Join,
    /// The member hands over what it owns, and is removed.
    Leave,
    /// Another weight, in hundredths of a normal member.
    Weight(u32),
    /// Another zone.
    Zone(String),
    /// The candidate becomes a member in the place of another, which is removed at once.
    Replace {
        /// The member that will not come back.
        dead: NodeId,
    },
}
