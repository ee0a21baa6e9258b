//! **Ringdove** is a leaderless, always-writable key-value database in the line of Amazon's
//! Dynamo.
//!
//! (The front page is written last; see `docs/ARCHITECTURE.md` for the map.)

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
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod cli;
