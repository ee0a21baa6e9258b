//! What is refused together: a batch that the disk refuses, and all that were made on top of it.
//!
//! A shard goes on while its batches are on their way to the disk, and takes what it has staged for
//! what is there:
//!
//! ```text
//!   the shard   b: a hint is kept     c: the hint grows          hears of it: everything is
//!               ─────────┬──────────────────┬──────────────────▶ read from the disk again
//!                        ▼                  ▼                    ▲
//!   the disk          refused     must not be written ───────────┘
//! ```
//!
//! Were c written, the disk would have what its client was told is not there, and the shard would count
//! one hint less than there are. So each batch says how many refusals its shard had heard of when
//! the batch was begun, and whoever commits refuses those that have heard of too few.

/// What a committer keeps for each shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals(u64);

impl Refusals {
    /// Whether a batch may be committed that was begun after so many refusals. If not, it is
    /// refused, which is no refusal of its own.
    #[must_use]
    pub fn admits(self, heard: u64) -> bool {
        heard >= self.0
    }

    /// The disk has refused admitted batches, all of them together.
    pub fn refused(&mut self) {
        self.0 += 1;
    }
}
