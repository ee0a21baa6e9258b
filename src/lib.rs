//! **Ringdove** is a distributed key-value database without a leader, in the line of Amazon's
//! Dynamo. Every node takes reads and writes for every key, each key is kept on N nodes, and each
//! request says how many of them must answer. Writes that did not see each other are all kept, as
//! siblings, until a writer who has seen them replaces them.
//!
//! This crate is the node, its command line, and the client library. Programs that use a cluster
//! want [`client`] alone (`default-features = false, features = ["client"]`), which brings no
//! RocksDB and no HTTP. What is promised, and what is not, stands in `docs/CONSISTENCY.md`; the
//! README has the first steps.
//!
//! # How to picture it
//!
//! The modules are floors: each uses only what is declared above it in this file. Up to floor 3
//! there is no I/O, no clock and no entropy: events, the time and random numbers go in, effects come
//! out. The simulator drives the same code as the server does, and replays a failure from its seed.
//!
//! ```text
//!   4  drivers          client   load   server      cli     sockets, RocksDB, clocks, entropy
//!                          |             |
//!   3  state machines      |   replica  membership  store   coordinator and replica of a key;
//!                          |             |                  who is a member; what a disk must do
//!   2  languages          wire         resp                 frames; the Redis protocol
//!   1  algorithms       causality      ring                 who has seen what; who holds what
//!   0  vocabulary       key  ids  limits  time  codec  random
//! ```
//!
//! A write, from top to bottom: [`server`] reads a frame ([`wire`]) and hands it to the
//! [`replica`] shard that owns the key's partition ([`ring`]); the shard names the version
//! ([`causality`]), puts it into its [`store`], sends it to the key's other replicas, and answers
//! when W of them have it on their disks.
//!
//! # What always holds
//!
//! - What is acknowledged is on W disks, synced (unless a node's settings ask for less).
//! - A version is named once, whatever a disk forgets; only versions that a writer has seen are
//!   replaced by it. Clocks on walls decide neither, except in a last-write-wins bucket.
//! - An error says whether the write happened: no, or unknown.
//! - Whatever comes from outside is bounded before it is allocated: see [`limits`].
//!
//! `docs/ARCHITECTURE.md` is the map of the code, `docs/PROTOCOL.md` the framed protocol byte by
//! byte, `docs/STORAGE.md` what stands on a disk, and `docs/SIMULATION.md` how all of it is checked.

// Floor 0: vocabulary.
pub mod codec;
pub mod ids;
pub mod limits;
pub mod key;
pub mod random;
pub mod time;

// Floor 1: pure algorithms that know nothing of each other.
pub mod causality;
pub mod ring;

// Floor 2: languages.
pub mod wire;
pub mod resp;

// Floor 3: state machines without I/O.
pub mod store;
pub mod membership;
pub mod replica;

// Floor 4: drivers.
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "load")]
pub mod load;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod cli;
