//! What is known of one member.

use serde::{Deserialize, Serialize};

use super::Register;
use crate::ids::NodeId;
use crate::limits;
use crate::wire::messages::PlannedChange;

/// How to reach a member. Written by the member itself, when it starts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// The name an operator gave it.
    pub name: String,
    /// `host:port` for frames.
    pub address: String,
    /// `host:port` of the text protocol; empty where it is switched off.
    pub text_address: String,
}

/// Where a member is in its life. It only moves forward, so merging takes the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// Known, and in no ring: its cluster forms, or an operator has not let it join yet.
    Candidate,
    /// On the ring.
    Member,
    /// Off the ring, and handing over what it still owns.
    Leaving,
    /// Final: an id that was removed never comes back.
    Removed,
}

impl Standing {
    /// The word that people and scripts see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Member => "member",
            Self::Leaving => "leaving",
            Self::Removed => "removed",
        }
    }
}

/// One member. Each part merges on its own, so concurrent changes of different things survive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// How to reach it.
    pub contact: Register<Contact>,
    /// What it fails together with: replicas of a key are spread over zones.
    pub zone: Register<String>,
    /// Weight in hundredths of a normal member.
    pub weight: Register<u32>,
    /// Where it is in its life.
    pub standing: Standing,
    /// The id under which it stands on the ring: its own, or that of the one it has replaced.
    pub placed_as: Register<NodeId>,
    /// What is staged for it.
    pub planned: Register<Option<PlannedChange>>,
}

impl MemberEntry {
    /// A node that nobody knows yet.
    #[must_use]
    pub fn candidate(id: NodeId, contact: Contact, zone: &str, weight: u32) -> Self {
        Self {
            contact: Register::new(contact),
            zone: Register::new(zone.to_owned()),
            weight: Register::new(weight),
            standing: Standing::Candidate,
            placed_as: Register::new(id),
            planned: Register::default(),
        }
    }

    /// The name an operator gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.contact.value.name
    }

    /// `host:port` for frames.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.contact.value.address
    }

    /// `host:port` of the text protocol; empty where it is switched off.
    #[must_use]
    pub fn text_address(&self) -> &str {
        &self.contact.value.text_address
    }

    /// What it fails together with.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone.value
    }

    /// Weight in hundredths of a normal member.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.value
    }

    /// Takes over what `other` knows better. Returns whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let further = other.standing > self.standing;
        self.standing = self.standing.max(other.standing);
        further
            | self.contact.merge(&other.contact)
            | self.zone.merge(&other.zone)
            | self.weight.merge(&other.weight)
            | self.placed_as.merge(&other.placed_as)
            | self.planned.merge(&other.planned)
    }

    /// A number that rises with every change.
    pub(super) fn epoch(&self) -> u64 {
        let registers = [
            self.contact.version,
            self.zone.version,
            self.weight.version,
            self.placed_as.version,
            self.planned.version,
        ];
        registers.iter().map(|version| u64::from(*version)).sum::<u64>() + self.standing as u64
    }

    /// Whether all parts are within their bounds.
    pub(super) fn is_sound(&self) -> bool {
        let contact = &self.contact.value;
        let zones = match &self.planned.value {
            Some(PlannedChange::Zone(zone)) => [&self.zone.value, zone],
            _ => [&self.zone.value; 2],
        };
        let weights = match self.planned.value {
            Some(PlannedChange::Weight(weight)) => [self.weight.value, weight],
            _ => [self.weight.value; 2],
        };
        contact.name.len() <= limits::NAME_BYTES
            && contact.address.len() <= limits::ADDRESS_BYTES
            && contact.text_address.len() <= limits::ADDRESS_BYTES
            && zones.iter().all(|zone| zone.len() <= limits::NAME_BYTES)
            && weights.iter().all(|weight| (1..=limits::WEIGHT_MAX).contains(weight))
    }
}
