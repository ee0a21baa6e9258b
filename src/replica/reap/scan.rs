//! Finding keys to reap on this node's disk.

use crate::causality::{MAX_SKEW_MS, Object};
use crate::ids::{NodeId, Partition};
use crate::limits;
use crate::membership::Topology;
use crate::store::record::Record;
use crate::store::{Store, StoreError, StoredKey};
use crate::time::WallMs;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The partitions, one after the other.
    pub partitions: Vec<Partition>,
    /// Behind which entry to begin in the first of them.
    pub after: Option<(WallMs, StoredKey)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys, and the digests of their objects.
    pub keys: Vec<(StoredKey, u128)>,
    /// Bytes of their records.
    pub bytes: u64,
    /// When the oldest was written last.
    pub oldest: Option<WallMs>,
    /// How many of the partitions have nothing more.
    pub through: usize,
    /// Where to go on in the partition behind those.
    pub after: Option<(WallMs, StoredKey)>,
}

/// The first keys of which nothing is shown, in partitions where `node` is the first owner: up to
/// [`limits::REAPED_AT_ONCE`]. For the driver, to be called where the disk may be waited for.
///
/// # Errors
/// As [`Store::read`]. A record that is damaged is passed over.
pub fn scan(
    store: &dyn Store,
    topology: &Topology,
    node: NodeId,
    scan: &Scan,
    now: WallMs,
) -> Result<Found, StoreError> {
    let mut found = Found { after: scan.after.clone(), ..Found::default() };
    // Tombstones stand at time zero: this is about what expires.
    let until = WallMs(now.0.saturating_sub(MAX_SKEW_MS));
    for partition in &scan.partitions {
        loop {
            let room = limits::REAPED_AT_ONCE - found.keys.len();
            if room == 0 {
                return Ok(found);
            }
            let faded = store.faded(*partition, until, found.after.as_ref(), room)?;
            let is_last = faded.len() < room;
            found.after = faded.last().cloned().or(found.after);
            for (_, key) in faded {
                found.look_at(store, topology, node, key, now)?;
            }
            if is_last {
                break;
            }
        }
        (found.through, found.after) = (found.through + 1, None);
    }
    Ok(found)
}

impl Found {
    fn look_at(
        &mut self,
        store: &dyn Store,
        topology: &Topology,
        node: NodeId,
        key: StoredKey,
        now: WallMs,
    ) -> Result<(), StoreError> {
        let name = key.key();
        let scope = topology.read_scope(name.bucket(), key.partition());
        if topology.primaries(key.partition(), scope).first() != Some(&node) {
            return Ok(());
        }
        let record = match store.read(&key) {
            Ok(Some(record)) => record,
            Ok(None) | Err(StoreError::Corrupt(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let bytes = record.len();
        let object = Record::decode(record).and_then(|record| Object::decode(record.object));
        let Ok(object) = object else { return Ok(()) };
        if object.has_faded(now) {
            let written = object.latest_hlc().wall();
            self.bytes += bytes as u64;
            self.oldest = Some(self.oldest.map_or(written, |oldest| oldest.min(written)));
            self.keys.push((key, object.digest(&name)));
        }
        Ok(())
    }
}
