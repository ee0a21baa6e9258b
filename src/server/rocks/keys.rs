//! Where things stand in the families that are not ordered by stored key.

use bytes::BytesMut;

use crate::ids::{NodeId, Partition};
use crate::key::Key;
use crate::store::forest::{bucket_bytes, place};
use crate::store::{Places, StoredKey};
use crate::time::WallMs;

/// Bytes of a partition.
const PARTITION_BYTES: usize = 2;
/// Bytes of a place, and of a time.
const WORD_BYTES: usize = 8;

/// Where a hint stands: behind its owner's id.
pub(super) fn hint_key(owner: NodeId, key: &[u8]) -> Vec<u8> {
    [&owner.0.to_be_bytes(), key].concat()
}

/// Where an imprint stands: its bucket's, in the order of places.
pub(super) fn digest_key(key: &StoredKey) -> Vec<u8> {
    with_word(key, place(&key.key()))
}

/// A stored key with eight bytes between its bucket and its name.
fn with_word(key: &StoredKey, word: u64) -> Vec<u8> {
    let bytes = key.as_bytes();
    let name_at = PARTITION_BYTES + bucket_bytes(&bytes[PARTITION_BYTES..]).len() + 1;
    [&bytes[..name_at], &word.to_be_bytes(), &bytes[name_at..]].concat()
}

/// Reads back what [`digest_key`] gave.
pub(super) fn read_digest_key(bytes: &[u8]) -> Option<(u64, Key)> {
    let joined = bytes.get(PARTITION_BYTES..)?;
    let word_at = bucket_bytes(joined).len() + 1;
    let word = u64::from_be_bytes(*joined.get(word_at..)?.first_chunk()?);
    let mut key = BytesMut::from(joined.get(..word_at)?);
    key.extend_from_slice(joined.get(word_at + WORD_BYTES..)?);
    Some((word, Key::from_joined(key.freeze()).ok()?))
}

/// The first key of a range of places, and one behind the last.
pub(super) fn digest_range(places: &Places) -> (Vec<u8>, Vec<u8>) {
    let tree = [&places.partition.0.to_be_bytes(), places.bucket.as_bytes(), &[0]].concat();
    let first = [tree.as_slice(), &places.first.to_be_bytes()].concat();
    let end = match places.last.checked_add(1) {
        Some(next) => [tree.as_slice(), &next.to_be_bytes()].concat(),
        // Behind the last place: a byte that ends no bucket's name.
        None => [&tree[..tree.len() - 1], &[1]].concat(),
    };
    (first, end)
}

/// The first stored key of a bucket in a partition, and one behind the last.
pub(super) fn bucket_range(partition: Partition, bucket: &str) -> (Vec<u8>, Vec<u8>) {
    let range = |ending: u8| [&partition.0.to_be_bytes(), bucket.as_bytes(), &[ending]].concat();
    (range(0), range(1))
}

/// Where a time stands that a key fades at.
pub(super) fn fading_key(at: WallMs, key: &StoredKey) -> Vec<u8> {
    with_word(key, at.0)
}

/// Reads back what [`fading_key`] gave.
pub(super) fn read_fading_key(bytes: &[u8]) -> Option<(WallMs, StoredKey)> {
    let partition = Partition(u16::from_be_bytes(*bytes.first_chunk()?));
    let (at, key) = read_digest_key(bytes)?;
    Some((WallMs(at), StoredKey::new(partition, &key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_a_range_holds_the_places_it_names() {
        for (bucket, name) in [("b", "x"), ("bucket", "name\0with\0zeros"), ("b-2", "\u{1}")] {
            let key = Key::new(bucket.as_bytes(), name.as_bytes()).unwrap();
            let stored = StoredKey::new(Partition(513), &key);
            let place = place(&key);
            assert_eq!(read_digest_key(&digest_key(&stored)), Some((place, key)));
            let at = WallMs(77);
            assert_eq!(read_fading_key(&fading_key(at, &stored)), Some((at, stored.clone())));
            let within = |first, last| {
                let partition = Partition(513);
                let places = Places { partition, bucket: bucket.to_owned(), first, last };
                let (first, end) = digest_range(&places);
                (first..end).contains(&digest_key(&stored))
            };
            let (first, end) = bucket_range(Partition(513), bucket);
            assert!((first..end).contains(&stored.as_bytes().to_vec()));
            assert!(within(0, u64::MAX) && within(place, place) && within(place, u64::MAX));
            assert!(!within(0, place - 1) && !within(place + 1, u64::MAX));
        }
        assert_eq!(read_digest_key(&[0]), None);
        assert_eq!(read_fading_key(&[0; 11]), None);
    }
}
