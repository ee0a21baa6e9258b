//! What a shard counts. Read by `status`, by the metrics and by tests.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a shard has counted since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Name and count of each.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// Adds what another shard has counted.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Reads of clients that were answered with a result.
    reads,
    /// Writes of clients that were acknowledged.
    writes,
    /// Requests passed on to a replica.
    forwarded,
    /// Requests refused because too much was under way.
    busy,
    /// Reads and writes refused because too few replicas could be reached.
    unavailable,
    /// Writes answered with "unknown".
    unknown,
    /// Reads that ran out of time.
    timeouts,
    /// Requests whose budget was spent before they were begun.
    expired_on_arrival,
    /// Replicas that a read found behind, and mended.
    read_repairs,
    /// Reads for which a further replica was asked because one was slow or failed.
    hedged_reads,
    /// Reads for which one more replica was asked because the first took longer than it usually does.
    early_hedges,
    /// Writes acknowledged with the help of fallbacks.
    sloppy_writes,
    /// Reads answered with the help of fallbacks.
    sloppy_reads,
    /// Writes coordinated here though this node owns no slot of the key: nobody who does could be
    /// reached.
    stood_in,
    /// Times something was kept for a member that was away.
    hints_kept,
    /// Hints that their member has now.
    hints_delivered,
    /// Hints that were let go because there was no room; their partitions are marked.
    hints_dropped,
    /// Times a peer went by other slots than this node.
    stale,
    /// Writes that were sent to a replica again.
    resent_writes,
    /// Puts recognised as ones that had been done already.
    repeated_writes,
    /// Objects that replicas were given and merged.
    merges,
    /// Times a disk turned out to have forgotten a dot.
    amnesia,
    /// Times one dot stood for two values.
    dot_collisions,
    /// Records that could not be read.
    corrupt_reads,
    /// Writes that left a key with many siblings.
    many_siblings,
    /// Writes refused because of too many siblings.
    siblings_refused,
    /// Concurrent versions that last-write-wins buckets have discarded.
    discarded_by_last_write_wins,
    /// Context tokens that were refused.
    bad_contexts,
    /// Messages of peers that did not decode.
    malformed,
    /// Times a peer's circuit breaker opened.
    breakers_opened,
    /// Keys forgotten after all members had agreed that nothing older is left of them.
    reaped,
    /// Values of reaped keys that came back and were refused.
    resurrections_refused,
    /// Batches given to the disk.
    batches,
    /// Changes in those batches.
    changes,
}
