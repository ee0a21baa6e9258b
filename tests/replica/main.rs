//! One shard of a node, driven by hand, input by input: its disk commits and its peers answer when
//! the test says so.

mod away;
mod damaged;
mod full;
mod late;
mod node;
mod put;
mod silent;
mod watched;
