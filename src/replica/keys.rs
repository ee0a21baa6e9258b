//! The records a shard is working on, and the steps that wait for them.
//!
//! A record is in one of three places: on disk only; on its way here, with steps waiting in line
//! behind it; or here, because a change to it has not been committed yet. Whoever asks for it
//! meanwhile is served from here, so a batch on its way to the disk is never read past.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Origin;
use super::core::OpId;
use crate::causality::Object;
use crate::codec::CodecError;
use crate::ids::{NodeId, Partition};
use crate::store::record::{Mint, Record};
use crate::store::{Change, Imprint, StoredKey};
use crate::wire::messages::Purpose;
use crate::wire::reap::Round;

/// Something to do with one key's record, in one piece.
#[derive(Debug)]
pub(super) enum Step {
    /// Tell an operation of this shard what is held.
    Read(OpId),
    /// Tell a coordinator on another node what is held; by its digest, if that was asked for.
    ReadFor { origin: Origin, digest: bool, slots: u64 },
    /// Tell what is held of a key for the members in `left`, as well as what was `found` so far.
    ReadKept { reader: Reader, left: Vec<NodeId>, found: Object },
    /// Merge an object that another node's coordinator sent.
    MergeFor { origin: Origin, sender: NodeId, object: Object, purpose: Purpose, slots: u64 },
    /// Keep an object for a member that is away, on behalf of an operation of this shard.
    Keep { object: Object, op: Option<OpId> },
    /// What is kept under `hint`, in the state of this digest, belongs here, by these slots: merge
    /// it, and drop it there once it is durable.
    Take { object: Object, hint: StoredKey, digest: u128, slots: u64 },
    /// A member has been given what is kept for it, in the state of this digest.
    Delivered { digest: u128 },
    /// Merge what a read of this shard found missing here; `from` had something of it.
    Mend { object: Object, purpose: Purpose, from: Vec<NodeId> },
    /// Have the operation make its dot and write.
    Mint(OpId),
    /// Tell a watch whether the record is as it must be: of this digest (`None`: nothing), and no
    /// hint kept for those in `left`.
    Witness { round: Round, at: usize, digest: Option<u128>, left: Vec<NodeId> },
    /// Forget the record, if it has this digest.
    Reap { digest: u128 },
}

impl Step {
    /// Whether it may bring an object to the record.
    pub(super) fn brings(&self) -> bool {
        match self {
            Self::MergeFor { .. }
            | Self::Keep { .. }
            | Self::Take { .. }
            | Self::Mend { .. }
            | Self::Mint(_) => true,
            Self::Read(_)
            | Self::ReadFor { .. }
            | Self::ReadKept { .. }
            | Self::Delivered { .. }
            | Self::Witness { .. }
            | Self::Reap { .. } => false,
        }
    }
}

/// Who wants to know what is held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    /// An operation of this shard.
    Op(OpId),
    /// A coordinator on another node.
    Peer(Origin),
}

/// A record, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyState {
    pub(super) mint: Option<Mint>,
    pub(super) object: Object,
    /// Bytes of its record when it was last staged or read; 0 where there is none.
    pub(super) record_bytes: usize,
    /// What the store's trees have of it.
    stored: Stored,
}

/// What was last staged or read of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stored {
    /// Its imprint.
    Imprint(Imprint),
    /// Its bytes: most reads need no digest, and are not made to compute one.
    Encoded(Bytes),
    /// Only the store knows: the record is damaged.
    Unreadable,
}

impl Default for Stored {
    fn default() -> Self {
        Self::Imprint(Imprint::NONE)
    }
}

impl KeyState {
    pub(super) fn decode(bytes: Option<Bytes>) -> Result<Self, CodecError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let record_bytes = bytes.len();
        let Record { mint, object } = Record::decode(bytes)?;
        let stored = Stored::Encoded(object.clone());
        Ok(Self { mint, object: Object::decode(object)?, record_bytes, stored })
    }

    /// Of a record that cannot be read, and is about to be written anew.
    pub(super) fn unreadable() -> Self {
        Self { stored: Stored::Unreadable, ..Self::default() }
    }

    /// What has to be written; from now on the store is taken to have it. Nothing is kept of an
    /// object that holds nothing: a mint that is forgotten with it is not used again.
    pub(super) fn change(&mut self, key: &StoredKey) -> Change {
        let is_hint = key.owner().is_some();
        let record = (!self.object.is_empty()).then(|| self.object.encode());
        let (mut before, mut after) = (Some(Imprint::NONE), Imprint::NONE);
        if !is_hint {
            before = match std::mem::take(&mut self.stored) {
                Stored::Imprint(imprint) => Some(imprint),
                Stored::Encoded(bytes) => {
                    let object = Object::decode(bytes.clone()).expect("it was decoded before");
                    Some(imprint(key, &object, &bytes))
                }
                Stored::Unreadable => None,
            };
            after = record.as_ref().map_or(after, |bytes| imprint(key, &self.object, bytes));
            self.stored = Stored::Imprint(after);
        }
        let record = record.map(|object| Record { mint: self.mint, object }.encode());
        Change { key: key.clone(), record, before, after }
    }
}

/// What the store should know of an object.
pub(crate) fn imprint(key: &StoredKey, object: &Object, encoded: &Bytes) -> Imprint {
    let values = object.siblings().len() - object.tombstones();
    Imprint {
        digest: crate::causality::digest_of(&key.key(), encoded),
        siblings: u16::try_from(values).unwrap_or(u16::MAX),
        bytes: u32::try_from(key.as_bytes().len() + encoded.len()).unwrap_or(u32::MAX),
        latest: object.latest_hlc().0,
        fades_at: object.fades_at(),
    }
}

/// Where a record is, as far as it is not on disk only.
enum Place {
    Loading(Vec<Step>),
    /// Changed; `batch` is the last batch with a change of it.
    Changed {
        state: KeyState,
        batch: u64,
    },
}

/// What came of handing a step in.
// Taken apart where it is returned: a box would cost an allocation for each step.
#[expect(clippy::large_enum_variant)]
pub(super) enum Handed {
    /// Run it now, on this record, last changed in this batch; then [`Keys::put_back`].
    Run(Step, KeyState, u64),
    /// It waits; the record must be loaded.
    Load,
    /// It waits behind others.
    Waits,
}

/// The records that are not on disk only.
#[derive(Default)]
pub(super) struct Keys {
    places: BTreeMap<StoredKey, Place>,
    /// Which records each batch changes, until it is settled.
    batches: BTreeMap<u64, Vec<StoredKey>>,
    /// Steps that wait for records.
    waiting: usize,
}

impl Keys {
    pub(super) fn hand_in(&mut self, key: &StoredKey, step: Step) -> Handed {
        match self.places.get_mut(key) {
            Some(Place::Changed { state, batch }) => {
                Handed::Run(step, std::mem::take(state), *batch)
            }
            Some(Place::Loading(waiting)) => {
                waiting.push(step);
                self.waiting += 1;
                Handed::Waits
            }
            None => {
                self.places.insert(key.clone(), Place::Loading(vec![step]));
                self.waiting += 1;
                Handed::Load
            }
        }
    }

    /// The record has arrived, or will not: the steps that waited for it, in order.
    pub(super) fn loaded(&mut self, key: &StoredKey) -> Vec<Step> {
        match self.places.remove(key) {
            Some(Place::Loading(waiting)) => {
                self.waiting -= waiting.len();
                waiting
            }
            Some(changed) => {
                self.places.insert(key.clone(), changed);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// How many steps wait for records to be read.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Keeps a record whose last change is in `batch`.
    pub(super) fn put_back(&mut self, key: &StoredKey, state: KeyState, batch: u64) {
        self.places.insert(key.clone(), Place::Changed { state, batch });
        let keys = self.batches.entry(batch).or_default();
        if keys.last() != Some(key) {
            keys.push(key.clone());
        }
    }

    /// Whether any own record of `partition` that is `meant` is here or on its way.
    pub(super) fn is_busy_with(
        &self,
        partition: Partition,
        meant: impl Fn(&StoredKey) -> bool,
    ) -> bool {
        let own = |key: &&StoredKey| key.owner().is_none() && key.partition() == partition;
        self.places.keys().filter(own).any(meant)
    }

    /// Of records kept for others that are on their way here, whom they are for, by their own key.
    pub(super) fn hints_on_their_way(&self) -> BTreeMap<StoredKey, Vec<NodeId>> {
        let mut coming: BTreeMap<StoredKey, Vec<NodeId>> = BTreeMap::new();
        for (key, place) in &self.places {
            if let (Some(owner), Place::Loading(_)) = (key.owner(), place) {
                coming.entry(key.own()).or_default().push(owner);
            }
        }
        coming
    }

    /// None of the changes that are not committed will be: all records are read from the disk again.
    pub(super) fn refused(&mut self) {
        self.places.retain(|_, place| matches!(place, Place::Loading(_)));
        self.batches.clear();
    }

    /// `batch` has been committed, or has not: from now on, records without a later change are
    /// read from the disk.
    pub(super) fn settled(&mut self, batch: u64) {
        for key in self.batches.remove(&batch).unwrap_or_default() {
            if let Some(Place::Changed { batch: last, .. }) = self.places.get(&key)
                && *last <= batch
            {
                self.places.remove(&key);
            }
        }
    }
}
