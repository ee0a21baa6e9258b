//! What members say to each other before deleted keys are forgotten (`replica::reap`).
//!
//! ```text
//!   reaper                                     every member
//!      │  Watch: these keys, in these states       │
//!      ├──────────────────────────────────────────▶│  looks, and from now on notes what touches them
//!      │                                           │── Barrier ──▶ every other member
//!      │                                           │◀── Done ─────
//!      │                     Standing: yes, no ... │
//!      │◀──────────────────────────────────────────┤
//!      │  Confirm                                  │
//!      ├──────────────────────────────────────────▶│
//!      │                     Standing: yes, no ... │  nothing has touched those since
//!      │◀──────────────────────────────────────────┤
//!      │  Drop: these                              │
//!      ├──────────────────────────────────────────▶│  owners only
//! ```

use serde::{Deserialize, Serialize};

use super::messages::TopologyVersion;
use super::transfer::Blob;
use crate::ids::NodeId;
use crate::key::{Key, KeyError};
use crate::time::WallMs;

/// Names one attempt to reap some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Round {
    /// Who asks. It has one round at a time.
    pub reaper: NodeId,
    /// Drawn anew for each.
    pub number: u64,
}

/// A key of which nothing is shown any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The key: bucket 0x00 name.
    pub key: Blob,
    /// The digest of the object that all its owners must have.
    pub digest: u128,
}

impl Candidate {
    /// The key.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn key(&self) -> Result<Key, KeyError> {
        Key::from_joined(self.key.0.clone())
    }
}

/// What one member asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReapRequest {
    /// Owners: is this what you hold? All: is there nothing else of it with you, and has what you
    /// have ever sent of it arrived? From now on note what touches it.
    Watch {
        /// The round.
        round: Round,
        /// The cluster state the reaper goes by.
        topology: TopologyVersion,
        /// The keys.
        keys: Vec<Candidate>,
    },
    /// Which of the keys has nothing touched since [`ReapRequest::Watch`]?
    Confirm(Round),
    /// Forget these, where you hold them so.
    Drop(Vec<Candidate>),
    /// Answered once everything that this member has sent before has been handed to whom it
    /// concerns, on this connection, and nothing that comes on an older one will be.
    Barrier,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReapReply {
    /// For each key, in the order asked.
    Standing(Vec<bool>),
    /// Not at all.
    NotNow(HeldUp),
    /// To [`ReapRequest::Drop`] and [`ReapRequest::Barrier`].
    Done,
}

/// Why a member holds reaping up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldUp {
    /// It does not answer.
    Away,
    /// It does not answer another member.
    AwayFrom(NodeId),
    /// It goes by another cluster state.
    OtherState,
    /// It does not sync what it acknowledges (`storage.durability`).
    NotDurable,
    /// It has something else of some keys, or works on them.
    Keys,
    /// It was asked too much, or was started again meanwhile.
    Again,
}

impl HeldUp {
    /// In a few words.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::AwayFrom(_) => "cannot reach another member",
            Self::OtherState => "goes by another cluster state",
            Self::NotDurable => "does not sync what it acknowledges",
            Self::Keys => "keeps or works on something older",
            Self::Again => "asked again",
        }
    }
}

/// How reaping stands on one node: of the partitions it comes first in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReapStatus {
    /// Keys that wait to be reaped, as of the last look at each partition.
    pub waiting: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// When the oldest of them was deleted, or written with its expiry; by the writer's clock.
    pub oldest: Option<WallMs>,
    /// Who held it up at the last look: why, and how many keys.
    pub held_up: Vec<(NodeId, HeldUp, u64)>,
    /// Counters by name.
    pub counters: Vec<(String, u64)>,
}

impl ReapStatus {
    /// For how many milliseconds the oldest has waited; 0 if none does.
    #[must_use]
    pub fn age_ms(&self, now: WallMs) -> u64 {
        self.oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0))
    }
}
