//! The node: what turns the state machines of the floors below into a process that serves.
//!
//! Everything here touches a disk, a socket, a clock or an operator, and decides as little as it
//! can: a decision belongs below, where the simulator can reach it.
//!
//! ```text
//!   frames  text  admin          sessions: bytes to requests and back
//!      └──────┴─────┴──▶ node ──▶ mailbox ──▶ driver ──▶ replica::Shard
//!                                             │   │  └──▶ links ──▶ the other members
//!                                     loader ◀┘   └▶ committer
//!                                        └──▶ rocks, journal, mark ◀──┘
//!   UDP ──▶ gossip ──▶ membership::swim      who is up, told to the shards
//! ```
//!
//! In a node that was started for it, `faults` gets in the way of connections, gossip, disk and
//! clock, as it is told.

pub mod config;

mod admin;
mod background;
mod clock;
mod cluster;
mod committer;
mod descriptors;
pub mod disk;
mod driver;
mod faults;
mod frames;
mod gates;
mod gossip;
pub mod journal;
mod links;
mod listing;
mod loader;
mod mailbox;
pub mod mark;
mod merge;
mod node;
mod outbox;
mod reaping;
mod reply;
pub mod rocks;
mod room;
mod run;
mod scrub;
mod slots;
mod status;
mod survey;
mod tally;
mod text;
mod sync;
mod transfers;
mod window;

pub use run::run;
