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
use crate::store::record::{Mint, Record};
use crate::store::{Change, StoredKey};
use crate::wire::messages::Purpose;

/// Something to do with one key's record, in one piece.
#[derive(Debug)]
pub(super) enum Step {
    /// Tell an operation of this shard what is held.
    Read(OpId),
    /// Tell a coordinator on another node what is held; by its digest, if that was asked for.
    ReadFor { origin: Origin, digest: bool },
    /// Merge an object that another node's coordinator sent.
    MergeFor { origin: Origin, object: Object, purpose: Purpose },
    /// Merge what a read of this shard found missing here.
    Mend { object: Object, purpose: Purpose },
    /// Have the operation make its dot and write.
    Mint(OpId),
}

/// A record, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyState {
    pub(super) mint: Option<Mint>,
    pub(super) object: Object,
}

impl KeyState {
    pub(super) fn decode(bytes: Option<Bytes>) -> Result<Self, CodecError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let Record { mint, object } = Record::decode(bytes)?;
        Ok(Self { mint, object: Object::decode(object)? })
    }

    pub(super) fn change(&self, key: &StoredKey) -> Change {
        let object = self.object.encode();
        let digest = crate::causality::digest_of(&key.key(), &object);
        let record = Record { mint: self.mint, object }.encode();
        Change { key: key.clone(), record, digest }
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
}

impl Keys {
    pub(super) fn hand_in(&mut self, key: &StoredKey, step: Step) -> Handed {
        match self.places.get_mut(key) {
            Some(Place::Changed { state, batch }) => {
                Handed::Run(step, std::mem::take(state), *batch)
            }
            Some(Place::Loading(waiting)) => {
                waiting.push(step);
                Handed::Waits
            }
            None => {
                self.places.insert(key.clone(), Place::Loading(vec![step]));
                Handed::Load
            }
        }
    }

    /// The record has arrived, or will not: the steps that waited for it, in order.
    pub(super) fn loaded(&mut self, key: &StoredKey) -> Vec<Step> {
        match self.places.remove(key) {
            Some(Place::Loading(waiting)) => waiting,
            Some(changed) => {
                self.places.insert(key.clone(), changed);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Keeps a record whose last change is in `batch`.
    pub(super) fn put_back(&mut self, key: &StoredKey, state: KeyState, batch: u64) {
        self.places.insert(key.clone(), Place::Changed { state, batch });
        let keys = self.batches.entry(batch).or_default();
        if keys.last() != Some(key) {
            keys.push(key.clone());
        }
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
