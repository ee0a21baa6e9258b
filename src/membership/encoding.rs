//! The bytes of a state: what travels, and what stands in a node's data directory.
//!
//! Owners are written as numbers of members in their order by id, so a slot takes two or three
//! bytes, and at most eight: [`limits::SLOTS`] of them fit a control message whatever they say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BucketEntry, ClusterState, MemberEntry, Owner, SlotTable, StateError};
use crate::ids::{NodeId, Scope};
use crate::limits;
use crate::wire::control;

#[derive(Serialize, Deserialize)]
struct Encoded {
    cluster: String,
    partitions: u32,
    formation: u64,
    members: BTreeMap<NodeId, MemberEntry>,
    buckets: BTreeMap<String, BucketEntry>,
    tables: Vec<EncodedTable>,
}

#[derive(Serialize, Deserialize)]
struct EncodedTable {
    scope: Scope,
    origin: u64,
    /// Partition by partition: the number of the owner, from 1 (0 is nobody), and the version.
    owners: Vec<(u16, u32)>,
}

impl ClusterState {
    /// The bytes that travel and that stand in the node's metadata.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let numbers: BTreeMap<NodeId, u16> = self.members.keys().copied().zip(1..).collect();
        let number = |owner: &Owner| {
            let number = owner.value.and_then(|id| numbers.get(&id)).copied();
            (number.unwrap_or(0), owner.version)
        };
        let table = |(scope, table): (&Scope, &SlotTable)| EncodedTable {
            scope: *scope,
            origin: table.origin,
            owners: table.all().iter().map(number).collect(),
        };
        control::encode(&Encoded {
            cluster: self.cluster.clone(),
            partitions: self.partitions,
            formation: self.formation,
            members: self.members.clone(),
            buckets: self.buckets.clone(),
            tables: self.slots.iter().map(table).collect(),
        })
    }

    /// Reads a state from outside.
    ///
    /// # Errors
    /// [`StateError::Malformed`] when it does not decode or breaks a bound.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let malformed = |why: String| StateError::Malformed(why);
        let encoded: Encoded =
            control::decode(bytes).map_err(|error| malformed(error.to_string()))?;
        let Encoded { cluster, partitions, formation, members, buckets, tables } = encoded;
        if members.len() > limits::MEMBERS || buckets.len() > limits::BUCKETS {
            return Err(malformed("too many members or buckets".to_owned()));
        }
        let bounds = limits::PARTITIONS_MIN..=limits::PARTITIONS_MAX;
        if !partitions.is_power_of_two() || !bounds.contains(&partitions) {
            return Err(malformed(format!("{partitions} partitions")));
        }
        if let Some(entry) = members.values().find(|entry| !entry.is_sound()) {
            return Err(malformed(format!("member {:?}", entry.name())));
        }
        let counts = 1..=limits::REPLICAS_MAX;
        let is_sound = |(name, entry): (&String, &BucketEntry)| {
            let BucketEntry { settings, home, planned, .. } = entry;
            let next = home.next.map(|next| next.n).into_iter().chain(planned.value);
            let is_moving = home.next.is_none_or(|next| next.number > 0 && next != home.scope);
            crate::key::is_bucket_name(name.as_bytes())
                && next.chain([settings.n]).all(|n| counts.contains(&n))
                && home.scope.n == settings.n
                && is_moving
                && home.noted.len() <= limits::MEMBERS
        };
        if let Some((name, _)) = buckets.iter().find(|bucket| !is_sound(*bucket)) {
            return Err(malformed(format!("bucket {name:?}")));
        }
        let ids: Vec<NodeId> = members.keys().copied().collect();
        let mut slots = BTreeMap::new();
        let mut total = 0;
        for table in tables {
            let (scope, n) = (table.scope, table.scope.n);
            total += table.owners.len();
            let is_sized = counts.contains(&n)
                && total <= limits::SLOTS
                && table.owners.len() == partitions as usize * usize::from(n);
            let table = if is_sized { table.decode(&ids) } else { None };
            if table.is_none_or(|table| slots.insert(scope, table).is_some()) {
                return Err(malformed(format!("slots for {n} replicas")));
            }
        }
        let has_slots = |bucket: &BucketEntry| {
            let mut scopes = bucket.home.next.into_iter().chain([bucket.home.scope]);
            scopes.all(|scope| slots.contains_key(&scope))
        };
        let is_whole =
            if formation == 0 { slots.is_empty() } else { buckets.values().all(has_slots) };
        if !is_whole {
            return Err(malformed("slots and buckets do not fit each other".to_owned()));
        }
        Ok(Self { cluster, partitions, formation, members, buckets, slots })
    }
}

impl EncodedTable {
    /// The table, if all owners are among `ids`.
    fn decode(self, ids: &[NodeId]) -> Option<SlotTable> {
        let owner = |(number, version): &(u16, u32)| {
            let value = match usize::from(*number).checked_sub(1) {
                None => None,
                Some(index) => Some(*ids.get(index)?),
            };
            Some(Owner { version: *version, value })
        };
        let owners: Option<Vec<Owner>> = self.owners.iter().map(owner).collect();
        Some(SlotTable::new(self.origin, self.scope.n, owners?))
    }
}
