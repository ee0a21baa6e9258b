//! How RocksDB is set up, each setting with its reason.

use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, Options,
};

use crate::server::descriptors::TABLES;

/// Records, by stored key.
pub(super) const OBJECTS: &str = "objects";
/// The imprint of each record, in the order of the trees' places.
pub(super) const DIGESTS: &str = "digests";
/// Keys of which nothing is shown from some time on, in order of partition and time.
pub(super) const FADING: &str = "fading";
/// Keys with several values that nothing has overwritten, by stored key.
pub(super) const CONFLICTS: &str = "conflicts";
/// Objects kept for owners that are away.
pub(super) const HINTS: &str = "hints";
/// What is remembered of reaped keys, by stored key.
pub(super) const GRAVES: &str = "graves";
/// What the database says about itself: the number of its last commit.
pub(super) const META: &str = "meta";

/// Memtables that have become files are merged so many at once, into a level that is no smaller than
/// they are together. Each merge rewrites all of that level: with 4 at once, and memtables of half
/// the size, loading 1,000,000 keys of 1 KiB had a node write 3.2 GiB in merges, and so 1.5. What it
/// costs is up to four more Bloom filters for a read.
const GATHERED: i32 = 8;

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it outlives the machine's power: each group of commits is synced.
    Fsync,
    /// When it outlives the process. Synced this often; a power cut loses what was acknowledged
    /// since.
    Interval(Duration),
    /// When it outlives the process. Synced when the operating system likes to; a power cut
    /// loses what it had not.
    None,
}

/// What an operator may turn.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// When a commit counts as done.
    pub durability: Durability,
    /// Bytes of the block cache, shared by all families.
    pub cache_bytes: usize,
    /// Bytes of all memtables together.
    pub memtable_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: u16,
    /// Bytes a second that flushes and compactions write, at most; 0 for no bound.
    pub compaction_bytes: u64,
    /// With less free space than this on the disk, commits are refused. What is below is for
    /// compactions, logs and the operator's own work.
    pub reserve_bytes: u64,
    /// Whether digests and trees are kept. A store without them cannot serve a member: off is only
    /// for measuring what they cost.
    pub trees: bool,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            cache_bytes: 256 << 20,
            memtable_bytes: 128 << 20,
            background_jobs: 2,
            compaction_bytes: 0,
            reserve_bytes: 512 << 20,
            trees: true,
        }
    }
}

/// How much of a log that is not whole may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// A torn last record is what a crash leaves; anything else is damage and refuses to open.
    Strict,
    /// Everything before the first damage. Only for a copy, and the result is never taken for
    /// complete.
    PointInTime,
}

pub(super) fn database(options: &RocksOptions, recovery: Recovery, create: bool) -> Options {
    let mut db = Options::default();
    db.create_if_missing(create);
    db.create_missing_column_families(true);
    db.set_max_background_jobs(i32::from(options.background_jobs.max(2)));
    db.set_db_write_buffer_size(options.memtable_bytes);
    // All families reach their files together, so that whatever happens to a log, a record and
    // its digest, and the commit number beside them, are of one age.
    db.set_atomic_flush(true);
    // `manual_wal_flush` stays off: with it, a batch is visible before its log reaches the
    // kernel, and a full disk would refuse a write that has already happened. One batch a commit
    // is one system call either way.
    match recovery {
        Recovery::Strict => {
            db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
            db.set_track_and_verify_wals(true);
            db.set_track_and_verify_wals_in_manifest(true);
        }
        Recovery::PointInTime => db.set_wal_recovery_mode(DBRecoveryMode::PointInTime),
    }
    // Tables reach the disk while they are written: left to the end, all of one at once stands
    // before the log in the disk's queue, and every commit waits for it.
    db.set_bytes_per_sync(1 << 20);
    if let Ok(most @ 1..) = i64::try_from(options.compaction_bytes) {
        // In portions of 20 ms: what commits wait for behind one is short. Flushes come first.
        db.set_ratelimiter(most, 20_000, 10);
    }
    db.set_max_open_files(TABLES as i32);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(8 << 20);
    db
}

/// All families, `default` included: RocksDB wants it named, and nothing is kept in it.
pub(super) fn families(options: &RocksOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_hyper_clock_cache(options.cache_bytes, 0);
    let family = |name: &str, share: usize, compression| {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&cache);
        // 10 bits a key: one look in a hundred for an absent key reads a block in vain. Nobody looks
        // for the digest of an absent key.
        if name != DIGESTS {
            table.set_bloom_filter(10.0, false);
        }
        let mut family = Options::default();
        family.set_block_based_table_factory(&table);
        family.set_compression_type(compression);
        let memtable = (options.memtable_bytes / share).max(64 << 10);
        family.set_write_buffer_size(memtable);
        family.set_level_zero_file_num_compaction_trigger(GATHERED);
        family.set_level_zero_slowdown_writes_trigger(3 * GATHERED);
        family.set_level_zero_stop_writes_trigger(5 * GATHERED);
        family.set_max_bytes_for_level_base((memtable as u64 * GATHERED as u64).max(256 << 20));
        ColumnFamilyDescriptor::new(name, family)
    };
    let (lz4, none) = (DBCompressionType::Lz4, DBCompressionType::None);
    vec![
        family("default", 8, none),
        family(OBJECTS, 2, lz4),
        // Digests are random bytes: there is nothing to compress.
        family(DIGESTS, 4, none),
        family(FADING, 8, lz4),
        family(CONFLICTS, 8, lz4),
        family(HINTS, 4, lz4),
        family(GRAVES, 8, lz4),
        family(META, 8, none),
    ]
}
