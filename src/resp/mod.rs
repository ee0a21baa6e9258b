//! The text protocol: RESP2, RESP3 and inline commands, as bytes and values.
//!
//! A connection's bytes become commands in two steps, and its answers become bytes in one:
//!
//! ```text
//!   bytes ──Parser──▶ arguments ──Command::parse──▶ Command ─ ─(server)─ ─▶ Reply ──encode──▶ bytes
//!                                       │
//!                                     table  one row per command: name, arity, syntax, parser, help
//! ```
//!
//! Nothing here knows a socket or a server's state. What can be decided from the language alone
//! (arity, options, the command table, help) is decided here; the rest is a [`command::Command`]
//! for the server to carry out.
//!
//! What always holds: no length from outside is believed before it is compared with its cap; no
//! input is read twice; nesting does not exist on the way in, so there is no depth to bound; a
//! protocol error ends the connection, a command error does not.
//!
//! Absent on purpose: RESP3 attributes (hiredis, redis-py and ioredis break on them), RESP3 push
//! messages, and any claim to be Redis.

pub mod command;
mod expiry;
mod extensions;
mod faults;
pub mod glob;
mod options;
mod parse;
pub mod parser;
pub mod reply;
pub mod table;

pub use command::{Command, CommandError};
pub use parser::{Parser, ParserLimits, ProtocolError};
pub use reply::{Reply, Version};
