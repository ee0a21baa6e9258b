//! Every fixed bound of the system, in one place, each with its reason.
//!
//! A length that comes from outside is compared with one of these *before* anything is allocated
//! for it. A number an operator may turn lives in the configuration; where it appears here it is
//! the hard cap that the configuration cannot pass. The relations between bounds are asserted at
//! compile time, at the end of the file.

/// Longest key a bucket may be asked to hold. 64 KiB: RocksDB keeps whole keys in its index
/// blocks, so longer keys belong in the value.
pub const KEY_BYTES_HARD: usize = 64 * 1024;
/// Longest key by default. 4 KiB is four times the longest URL that browsers agree on.
pub const KEY_BYTES_DEFAULT: usize = 4 * 1024;

/// Largest value an operator may allow. A value is read, hashed and sent as one piece, and a
/// frame must hold a whole object: 16 MiB keeps the slowest of those under a second.
pub const VALUE_BYTES_HARD: usize = 16 * 1024 * 1024;
/// Largest value by default.
pub const VALUE_BYTES_DEFAULT: usize = 1024 * 1024;

/// Longest bucket name. It is part of every key on disk and on the wire, and its length must
/// fit one byte.
pub const BUCKET_NAME_BYTES: usize = 64;
/// Buckets in one cluster: the catalogue travels whole between nodes.
pub const BUCKETS: usize = 4096;
/// Buckets whose replica count changes at once: each notes who goes by how far it is.
pub const BUCKETS_MOVING: usize = 32;

/// Longest name of a member, a zone or a cluster: they are shown in an 80-column table.
pub const NAME_BYTES: usize = 48;
/// Longest `host:port`. A DNS name has at most 253 characters.
pub const ADDRESS_BYTES: usize = 262;

/// Most members. The full member set is known to everyone and travels whole.
pub const MEMBERS: usize = 4096;
/// Candidates that a formed cluster takes note of: whoever was entered is known for ever, and a
/// machine that starts again and again with an empty data directory is a new node each time.
pub const CANDIDATES: usize = 256;
/// Fewest partitions: below this even three members cannot be given even shares.
pub const PARTITIONS_MIN: u32 = 32;
/// Most partitions: a partition number is two bytes in every stored key.
pub const PARTITIONS_MAX: u32 = 65_536;
/// Partitions of a cluster unless its creator says otherwise: good up to 32 members.
pub const PARTITIONS_DEFAULT: u32 = 1024;
/// Virtual nodes of a member of normal weight. With 256 the largest share before bounding is
/// within some 20 % of the mean, which the bound then cuts to 10 %.
pub const VIRTUAL_NODES: u32 = 256;
/// Weight of a normal member. Weights are whole hundredths, so equal inputs give equal rings on
/// every machine; floating point would not.
pub const WEIGHT_NORMAL: u32 = 100;
/// Largest weight: ten normal members in one.
pub const WEIGHT_MAX: u32 = 1000;
/// No member owns more than this many hundredths of its fair share of the ring.
pub const SHARE_BOUND_PERCENT: u64 = 110;

/// Most replicas of a key. More than this buys latency, not safety.
pub const REPLICAS_MAX: u8 = 13;
/// Slots of a cluster: partitions times replica counts in use. At 65,536 partitions buckets may have
/// N = 3, 5 and 7 and one more; at 1,024 all there are. All slots travel whole between nodes.
pub const SLOTS: usize = 1 << 20;
/// Replicas of a key unless the bucket says otherwise: the Dynamo paper's (3, 2, 2).
pub const REPLICAS_DEFAULT: u8 = 3;

/// Siblings of one key at which a warning is counted and logged.
pub const SIBLINGS_WARN: usize = 25;
/// Siblings of one key at which a *client's* write is refused. Repairs are never refused:
/// a cap on them would stop replicas from converging (basho/riak_kv#1156).
pub const SIBLINGS_REFUSE: usize = 100;
/// Siblings a decoder accepts in one object. Above the refusal, since merging may exceed it.
pub const SIBLINGS_DECODE: usize = 4096;
/// Entries a decoder accepts in one version vector: replicas of a key, times restarts since the
/// last pruning, with room.
pub const CLOCK_ENTRIES: usize = 1024;
/// Entries past which a *client's* context may not grow a key's version vector. A quarter of what
/// decodes: three replicas that cannot reach each other may each let a hostile client come this
/// far, and what they hold must still decode when it is merged.
pub const CLOCK_ENTRIES_REFUSE: usize = 256;
/// Longest context token, as printable characters. 1,024 entries of 40 bytes, in base64.
pub const CONTEXT_BYTES: usize = 64 * 1024;

/// Largest payload of a frame. An object of one value at its hard cap, its siblings refused
/// earlier by size, plus a header's worth of room.
pub const FRAME_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;
/// Largest payload before the handshake is done: nobody has said who they are yet.
pub const FRAME_PAYLOAD_BYTES_GREETING: usize = 16 * 1024;
/// Largest encoded object. A put that would make one larger is refused.
pub const OBJECT_BYTES: usize = 48 * 1024 * 1024;
/// Largest control message (bincode). The full member set, catalogue and slots fit.
pub const CONTROL_BYTES: usize = 16 * 1024 * 1024;

/// Arguments of one text command. `MSET` of 512 Ki pairs is somebody's mistake.
pub const TEXT_ARGUMENTS: usize = 1024 * 1024;
/// Arguments of a text command before `AUTH`, where a password is asked for.
pub const TEXT_ARGUMENTS_UNAUTHENTICATED: usize = 10;
/// Longest inline command, the length Redis uses.
pub const TEXT_INLINE_BYTES: usize = 64 * 1024;
/// Bytes of one whole text command, all its arguments together: what a frame may have. It is in
/// memory before anything of it is done.
pub const TEXT_COMMAND_BYTES: usize = FRAME_PAYLOAD_BYTES;
/// Commands of one text connection that may be under way at once.
pub const TEXT_PIPELINE: usize = 1024;

/// Largest gossip packet. It must travel in one piece everywhere: 1,500 bytes of an Ethernet, less
/// the headers of IPv6, UDP and a tunnel.
pub const GOSSIP_PACKET_BYTES: usize = 1400;

/// Longest budget a request may ask for. Nobody waits longer, and a longer one would keep
/// bookkeeping for clients long gone.
pub const BUDGET_MS_MAX: u32 = 120_000;
/// Longest message of an error that travels.
pub const MESSAGE_BYTES: usize = 4 * 1024;
/// Keys of one page of a listing.
pub const PAGE_KEYS: usize = 1000;

/// Write ids a shard remembers, so that a repeated put is recognised after it was overwritten.
/// 65,536 of 40 bytes are some 3 MiB, and hold two minutes at 500 writes a second and shard.
pub const RECENT_WRITES: usize = 65_536;

/// Names of overwritten writes an object remembers, so that a write which was retried through
/// another coordinator does not come back when it was overwritten in between. 16 bytes each.
pub const REPLACED_WRITES: usize = 64;
/// Numbers for actors that a node leases at once: one durable write for a million new keys.
pub const ACTORS_LEASED: u64 = 1 << 20;
/// Numbers left at which a shard asks for the next lease.
pub const ACTORS_LOW: u64 = 1 << 16;

/// Objects larger than this are answered by their digest where the digest is enough: below it,
/// asking twice costs more than the bytes.
pub const DIGEST_ABOVE_BYTES: usize = 512;

/// Leaves of a Merkle tree: one for each value of a byte. 4 KiB of memory for each bucket in each
/// partition.
pub const TREE_LEAVES: usize = 256;

/// Graves a node keeps: what it remembers of reaped keys, to know an old version of one when it sees
/// it. Some 200 bytes each, up to 2 KiB where a key was overwritten often.
pub const GRAVES: usize = 65_536;
/// Keys that are reaped together: enough that three rounds of questions cost each of them little.
pub const REAPED_AT_ONCE: usize = 256;

const _: () = {
    assert!(ACTORS_LOW < ACTORS_LEASED);
    assert!(KEY_BYTES_DEFAULT <= KEY_BYTES_HARD);
    assert!(VALUE_BYTES_DEFAULT <= VALUE_BYTES_HARD);
    assert!(BUCKET_NAME_BYTES <= u8::MAX as usize);
    assert!(PARTITIONS_MIN.is_power_of_two() && PARTITIONS_MAX.is_power_of_two());
    assert!(PARTITIONS_DEFAULT.is_power_of_two() && PARTITIONS_DEFAULT <= PARTITIONS_MAX);
    assert!(PARTITIONS_MAX as usize == u16::MAX as usize + 1);
    assert!(SIBLINGS_WARN < SIBLINGS_REFUSE && SIBLINGS_REFUSE < SIBLINGS_DECODE);
    // An object at its cap, its key and the rest of the message fit one frame.
    assert!(OBJECT_BYTES + KEY_BYTES_HARD + 64 * 1024 < FRAME_PAYLOAD_BYTES);
    assert!(VALUE_BYTES_HARD * 2 < OBJECT_BYTES);
    assert!(CLOCK_ENTRIES_REFUSE * (REPLICAS_DEFAULT as usize) + 1 < CLOCK_ENTRIES);
    // A context of the longest clock fits its token: 40 bytes an entry, 4 characters for 3 bytes.
    assert!((CLOCK_ENTRIES * 40 + 64).div_ceil(3) * 4 <= CONTEXT_BYTES);
    // A cluster state whose every part is as large as it may be. A slot takes at most 8 bytes; 256
    // and 128 are for the numbers of a member and a bucket, with room.
    assert!(
        MEMBERS * (3 * NAME_BYTES + 2 * ADDRESS_BYTES + 256)
            + BUCKETS * (BUCKET_NAME_BYTES + 128)
            + BUCKETS_MOVING * MEMBERS * 19
            + SLOTS * 8
            < CONTROL_BYTES
    );
    assert!(CONTROL_BYTES < FRAME_PAYLOAD_BYTES);
    assert!(MEMBERS <= u16::MAX as usize);
};
