//! (server)
pub mod disk;
pub mod journal;
pub mod mark;
pub mod rocks;
mod slots;
