//! **Ringdove** is a leaderless, always-writable key-value database in the line of Amazon's
//! Dynamo.
//!
//! (The front page is written last; see `docs/ARCHITECTURE.md` for the map.)

// Floor 0: vocabulary.
pub mod codec;
pub mod ids;
pub mod key;
pub mod limits;
pub mod random;
pub mod time;

// Floor 1: pure algorithms that know nothing of each other.
pub mod causality;
pub mod ring;

// Floor 2: languages.
pub mod resp;
pub mod wire;

// Floor 3: state machines without I/O.
pub mod membership;
pub mod replica;
pub mod store;

// Floor 4: drivers.
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod server;
