//! What of the transfers outlives a restart.
//!
//! It is a few hundred rows at most, so it is one small file that is rewritten as a whole, and not
//! rows in the store: it has to be known before the shards run, it belongs to no shard, and a
//! cursor that is behind the data costs some pages twice and nothing else.

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, Partition};
use crate::wire::control;
use crate::wire::transfer::{Blob, SlotView};

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) notes: Vec<KeptNote>,
    pub(super) pulls: Vec<KeptPull>,
    /// Partitions that were lost without being handed over.
    pub(super) set_aside: Vec<Partition>,
}

/// A note: this slot's successor is copying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptNote {
    pub(super) view: SlotView,
    pub(super) note: u64,
}

/// How far a slot that this node is to have has been copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptPull {
    pub(super) view: SlotView,
    pub(super) sources: Vec<KeptSource>,
}

/// How far one source of it has been copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptSource {
    pub(super) node: NodeId,
    pub(super) note: Option<u64>,
    pub(super) digests: bool,
    pub(super) cursor: Blob,
    pub(super) running: u64,
    pub(super) done: bool,
}

impl Kept {
    pub(super) fn encode(&self) -> Vec<u8> {
        control::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, control::ControlError> {
        control::decode(bytes)
    }
}
