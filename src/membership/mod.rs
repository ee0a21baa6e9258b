//! Who belongs to the cluster, who owns which partition, and which buckets there are.
//!
//! [`ClusterState`] is what every node keeps and exchanges. It is a CRDT, made of registers of
//! which the one of the higher version wins, and of standings that only move forward: the order in
//! which nodes hear of changes does not matter, and changes made on two sides of a network
//! partition both survive. Nobody is ever dropped from it for being silent.
//!
//! ```text
//!   ClusterState                               Topology
//!     members   contact, zone, weight ───────▶   rings     who should own a partition
//!               standing, placed_as                │
//!     slots     owners, by scope ───────────▶    slots     who owns it, and who is its successor
//!     buckets   settings, home  ────────────▶    scopes    by whose slots a bucket is read and written
//!     formation
//! ```
//!
//! [`Topology`] is what follows from a state. It is computed once for each and shared. The same
//! state gives the same topology everywhere, so nobody has to agree on anything else.
//!
//! A state begins *unformed*: nodes that start together enter themselves as candidates, and once
//! as many know each other as the cluster begins with, each of them forms it, alone and with the
//! same result. From then on the members change by plans ([`ClusterState::stage`], [`preview`],
//! [`ClusterState::commit_plan`]), and ownership by [`ClusterState::hand_over`] only
//! (docs/adr/0009-slots.md). A bucket gets another replica count by moving to slots of its own
//! (`home`, docs/adr/0011-scopes.md).
//!
//! [`swim`] says who is up (feature `swim`). It decides nothing about the above.

mod buckets;
mod changes;
mod encoding;
mod home;
mod member;
mod plan;
mod register;
mod slots;
mod staging;
mod state;
#[cfg(feature = "swim")]
pub mod swim;
mod topology;

#[cfg(test)]
mod home_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod tests;

pub use buckets::BucketError;
pub use changes::HandOver;
pub use home::{BucketEntry, Home};
pub use member::{Contact, MemberEntry, Standing};
pub use plan::{MemberFacts, Moves, Plan, ShareChange, Warning, preview};
pub use register::Register;
pub use slots::{Owner, SlotTable};
pub use staging::PlanError;
pub use state::{ClusterState, StateError};
pub use topology::{Scopes, Slot, Topology};

pub use crate::wire::messages::PlannedChange;
