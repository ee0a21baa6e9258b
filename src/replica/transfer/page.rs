//! Reading one page of a partition from a store.

use crate::causality::digest_of;
use crate::membership::Topology;
use crate::store::record::Record;
use crate::store::{Store, StoreError, StoredKey};
use crate::wire::transfer::{Page, PageBuilder, PageRequest};

/// Most bytes of a page, whatever is asked for. Reading and merging one takes milliseconds of a
/// processor: larger ones are felt by clients, smaller ones are mostly round trips.
pub const PAGE_BYTES: u32 = 256 << 10;
/// Rows looked at for one page: pages of digests, and of keys that are passed over, must end too.
const PAGE_ROWS: usize = 4096;
/// A larger object is named in the page and fetched alone: a page must fit a control message.
const OBJECT_IN_PAGE: usize = 4 << 20;
/// Rows of the first read; how many the next reads ask for follows from their sizes.
const FIRST_ROWS: usize = 16;

/// Reads what `request` asks for. Blocks on the disk.
///
/// Of keys whose bucket is known to go by other slots nothing is said. What was committed before the call is in the page.
///
/// # Errors
/// When a record cannot be read; a page never passes one over.
pub fn read_page(
    store: &dyn Store,
    topology: &Topology,
    request: &PageRequest,
) -> Result<Page, StoreError> {
    let slot = request.noted.slot;
    let most = request.bytes.clamp(1, PAGE_BYTES) as usize;
    let mut after = position(request)?;
    let (mut builder, mut rows, mut read_bytes) = (PageBuilder::default(), 0, 0);
    let mut done = false;
    while rows < PAGE_ROWS && builder.len() < most {
        let average = (read_bytes / rows.max(1)).max(1);
        let room = (most - builder.len()).div_ceil(average);
        let count = if rows == 0 { FIRST_ROWS } else { room.clamp(1, 256) };
        let page = store.page(slot.partition, after.as_ref(), count)?;
        done = page.len() < count;
        for entry in page {
            rows += 1;
            read_bytes += entry.record.len();
            let key = entry.key.key();
            after = Some(entry.key);
            if !topology.is_kept_in(key.bucket(), slot.scope) {
                continue;
            }
            let record = Record::decode(entry.record)
                .map_err(|error| StoreError::Corrupt(format!("the record of {key}: {error}")))?;
            let is_sent = !request.digests && record.object.len() <= OBJECT_IN_PAGE;
            let object = is_sent.then_some(&record.object[..]);
            builder.push(&key, digest_of(&key, &record.object), object);
            if builder.len() >= most {
                done = false;
                break;
            }
        }
        if done {
            break;
        }
    }
    let last = after.map(|after| after.key().joined().clone()).unwrap_or_default();
    Ok(builder.finish(&last, done, request.running))
}

fn position(request: &PageRequest) -> Result<Option<StoredKey>, StoreError> {
    if request.after.0.is_empty() {
        return Ok(None);
    }
    let key = crate::key::Key::from_joined(request.after.0.clone());
    let key = key.map_err(|error| StoreError::Corrupt(format!("the cursor: {error}")))?;
    Ok(Some(StoredKey::new(request.noted.slot.partition, &key)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::Partition;
    use crate::key::Key;
    use crate::membership::ClusterState;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, Change, Imprint};
    use crate::wire::messages::BucketSettings;
    use crate::wire::transfer::{Blob, Noted, SlotId, entries};

    const PARTITION: Partition = Partition(5);

    fn store(rows: &[(&str, &str, usize)]) -> MemoryStore {
        let store = MemoryStore::new();
        let change = |(bucket, name, size): &(&str, &str, usize)| {
            let key = Key::new(bucket.as_bytes(), name.as_bytes()).unwrap();
            let object = Bytes::from(vec![7; *size]);
            let digest = digest_of(&key, &object);
            let record = Record { mint: None, object }.encode();
            let after = Imprint { digest, ..Imprint::NONE };
            Change::fresh(StoredKey::new(PARTITION, &key), Some(record), after)
        };
        store.commit(&[Batch::of(rows.iter().map(change).collect())]).unwrap();
        store
    }

    fn all(store: &MemoryStore, n: u8, bytes: u32, digests: bool) -> (Vec<String>, usize) {
        let mut state = ClusterState::new("test", 64);
        let few = BucketSettings { n: 2, ..BucketSettings::default() };
        assert!(state.add_bucket("few", few));
        let topology = Topology::new(state);
        let slot = SlotId { scope: n.into(), partition: PARTITION, slot: 0 };
        let noted = Noted { slot, note: 1 };
        let (mut after, mut running, mut names, mut pages) = (Blob::default(), 0, Vec::new(), 0);
        loop {
            let request = PageRequest { noted, after, bytes, digests, running };
            let page = read_page(store, &topology, &request).unwrap();
            assert!(page.continues(running));
            pages += 1;
            for entry in entries(&page).unwrap() {
                assert_eq!(entry.object.is_some(), !digests);
                names.push(entry.key.to_string());
            }
            if page.done {
                return (names, pages);
            }
            (after, running) = (page.last, page.running);
        }
    }

    #[test]
    fn pages_bring_every_key_of_the_replica_count_once_and_in_order() {
        let names: Vec<String> = (0..500).map(|number| format!("k{number:03}")).collect();
        let rows: Vec<(&str, &str, usize)> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (["default", "few", "unknown"][at % 3], name.as_str(), at % 97))
            .collect();
        let store = store(&rows);
        let mut three: Vec<String> = rows
            .iter()
            .filter(|(bucket, ..)| *bucket != "few")
            .map(|(bucket, name, _)| {
                Key::new(bucket.as_bytes(), name.as_bytes()).unwrap().to_string()
            })
            .collect();
        three.sort();
        for bytes in [1, 100, 5_000, PAGE_BYTES] {
            let (found, pages) = all(&store, 3, bytes, false);
            assert_eq!(found, three, "pages of {bytes} bytes");
            assert!(bytes != 1 || pages >= three.len());
        }
        assert_eq!(all(&store, 2, PAGE_BYTES, true).0.len(), 500 - three.len() + 166);
    }

    #[test]
    fn an_empty_partition_is_one_page() {
        assert_eq!(all(&MemoryStore::new(), 3, PAGE_BYTES, false), (Vec::new(), 1));
    }

    #[test]
    fn a_damaged_record_is_an_error_and_never_passed_over() {
        let store = store(&[("default", "a", 10)]);
        let key = StoredKey::new(PARTITION, &Key::new(b"default", b"b").unwrap());
        let record = Some(Bytes::from_static(b"\x09"));
        let change = Change::fresh(key, record, Imprint::NONE);
        store.commit(&[Batch::of(vec![change])]).unwrap();
        let topology = Topology::new(ClusterState::new("test", 64));
        let slot = SlotId { scope: 3.into(), partition: PARTITION, slot: 0 };
        let request = PageRequest {
            noted: Noted { slot, note: 1 },
            after: Blob::default(),
            bytes: PAGE_BYTES,
            digests: false,
            running: 0,
        };
        assert!(matches!(read_page(&store, &topology, &request), Err(StoreError::Corrupt(_))));
    }
}
