//! **Ringdove** is a leaderless, always-writable key-value database in the line of Amazon's
//! Dynamo.
//!
//! Any node takes any read and any write. A key is kept by N nodes, a write is acknowledged when W
//! of them have it on their disks, and a read asks R. Two writes that did not know of each other
//! are both kept, as *siblings*, until a writer who has seen both replaces them; who has seen what
//! travels with the client, as a *context*, and is never guessed from clocks.
//!
//! # To use a cluster
//!
//! [`client`] is the whole of it:
//!
//! ```no_run
//! # #[cfg(feature = "client")]
//! # async fn run() -> ringdove::client::Result<()> {
//! use ringdove::client::Client;
//!
//! let client = Client::builder().seed("127.0.0.1:7400").connect().await?;
//! let carts = client.bucket("default")?;
//! let read = carts.get("alice").await?;
//! carts.put("alice", "apples").context(&read.context).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With `default-features = false, features = ["client"]` nothing of the node comes along.
//!
//! # To read the code
//!
//! A node, seen from outside in:
//!
//! ```text
//!   clients, other nodes ──▶ sessions ──▶ mailbox ──▶ driver ┌───────────────────┐
//!                                                     thread │  replica::Shard   │ ──▶ answers
//!                            disk: loader, committer ◀────── │  decides, no I/O  │ ──▶ peers
//!                                       └──────────────────▶ └───────────────────┘
//! ```
//!
//! Everything that decides is a state machine without I/O; everything that does is around it. So
//! the simulator (`tests/sim`) runs the production code through any fault, from a seed.
//!
//! The modules stand on floors, in the order of this file, and import only from above:
//!
//! | floor | what | modules |
//! | --- | --- | --- |
//! | 0 | vocabulary | [`codec`] [`ids`] [`limits`] [`key`] [`random`] [`time`] |
//! | 1 | pure algorithms | [`causality`]: who has seen which write; [`ring`]: where a key lives |
//! | 2 | languages | [`wire`]: the framed protocol; [`resp`]: the text protocol |
//! | 3 | state machines without I/O | [`store`] [`membership`] [`replica`] |
//! | 4 | drivers: clocks, sockets, disks | [`client`] [`server`] [`cli`] |
//!
//! Floors 0 to 3 build without any feature, and so without tokio and RocksDB. A good way in:
//! [`causality`], then [`replica`], then `docs/ARCHITECTURE.md`. What all of it promises is in
//! `docs/CONSISTENCY.md`.

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
