//! Who belongs to the cluster, and which buckets it has.
//!
//! [`ClusterState`] is what every node keeps and exchanges: a set of members and a catalogue of
//! buckets. It is a CRDT: merging two states takes, entry by entry, the one of the higher version,
//! so the order in which nodes hear of changes does not matter, and changes made on two sides of
//! a network partition both survive. Nobody is ever dropped from it for being silent.
//!
//! [`Topology`] is what follows from a state: rings, by replica count. It is computed once for
//! each state and shared.
//!
//! [`swim`] says who is up (feature `swim`). It decides nothing about the above.

mod state;
#[cfg(feature = "swim")]
pub mod swim;
mod topology;

pub use state::{BucketEntry, ClusterState, MemberEntry, StateError};
pub use topology::Topology;
