//! The framed protocol: what nodes and clients say to each other, and its bytes.

pub mod control;
pub mod messages;
