//! File descriptors: a node needs many, and without one it can neither read a table nor take a
//! connection.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Tables that are open at once.
pub(super) const TABLES: u32 = 512;
/// What RocksDB's other files, ports and the connections of a small cluster need at least.
const OTHERS_LEAST: u64 = 256;
/// And of a cluster of 300.
const OTHERS: u64 = 2048;
/// Connections that a node takes however few descriptors it has.
const CONNECTIONS_LEAST: u64 = 16;

/// Raises the limit of this process, as far as it may, to what so many connections of clients need.
/// Returns how many there can be.
pub fn make_room(connections: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let (current, room) = fit(limit, connections as u64);
    if current != limit.current {
        let raised = Rlimit { current, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files could not be raised");
            return fit(Rlimit { maximum: limit.current, ..limit }, connections as u64).1 as usize;
        }
    }
    if room < connections as u64 {
        tracing::warn!(
            connections,
            room,
            "too few files may be open for so many connections, so fewer are taken; raise the limit \
             (systemd: LimitNOFILE, a shell: ulimit -n) or lower limits.connections"
        );
    }
    room as usize
}

/// The limit to set, and how many connections there can be below it.
fn fit(limit: Rlimit, connections: u64) -> (Option<u64>, u64) {
    let tables = u64::from(TABLES);
    let wanted = (connections + tables + OTHERS).min(limit.maximum.unwrap_or(u64::MAX));
    let current = limit.current.map(|current| current.max(wanted));
    let room = current.unwrap_or(u64::MAX).saturating_sub(tables + OTHERS_LEAST);
    let room = room.max(CONNECTIONS_LEAST);
    (current, room.min(connections))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_rises_as_far_as_needed_and_allowed_and_never_falls() {
        let limit = |current, maximum| Rlimit { current, maximum };
        assert_eq!(fit(limit(Some(1024), Some(1 << 20)), 10_000), (Some(12_560), 10_000));
        assert_eq!(fit(limit(Some(1024), None), 10_000), (Some(12_560), 10_000));
        assert_eq!(fit(limit(Some(1024), Some(4096)), 10_000), (Some(4096), 3328));
        assert_eq!(fit(limit(Some(1 << 20), Some(1 << 20)), 100), (Some(1 << 20), 100));
        assert_eq!(fit(limit(None, None), 10_000), (None, 10_000));
        assert_eq!(fit(limit(Some(256), Some(256)), 10_000), (Some(256), CONNECTIONS_LEAST));
    }
}
