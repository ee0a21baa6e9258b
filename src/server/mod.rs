//! The node: what turns the state machines of the floors below into a process that serves.
//!
//! Everything here touches a disk, a socket, a clock or an operator, and decides as little as it
//! can: a decision belongs below, where the simulator can reach it.

pub mod config;

pub mod disk;
pub mod journal;
pub mod mark;
pub mod rocks;
mod slots;
