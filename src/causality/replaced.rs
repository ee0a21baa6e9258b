//! The writes that were overwritten lately, by name.
//!
//! A client that gets no answer writes again, under the same write id, perhaps through another
//! coordinator; if the first one had written and was then cut off, there are two dots for one
//! write. While both are alive that is easy: they are shown as one. But when somebody reads the
//! first, replaces it, and only then the second turns up, dots alone cannot tell that it is the
//! same write: it would come back from the dead, beside the very write that replaced it.
//!
//! So an object remembers the names of the writes that were overwritten, and a sibling of such a
//! name is dead, whatever its dot. The memory is bounded by [`limits::REPLACED_WRITES`] and
//! [`limits::REPLACED_FOR_MS`]: the newest of the union, by timestamp, which makes bounding and
//! uniting commute. What is forgotten can do harm only where a coordinator was cut off for longer
//! than that, with a write of its own that somebody had retried.

use bytes::{BufMut, BytesMut};

use super::Hlc;
use crate::codec::{CodecError, Reader, Write as _};
use crate::ids::WriteId;
use crate::limits;

/// The names of overwritten writes, newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Replaced {
    /// Strictly ascending: when it was overwritten, and the low half of the write id.
    entries: Vec<(Hlc, u64)>,
}

/// Half of a write id is enough: it is random, and compared with a few dozen others.
fn name(write_id: WriteId) -> u64 {
    write_id.0 as u64
}

impl Replaced {
    pub(super) fn contains(&self, write_id: WriteId) -> bool {
        self.entries.iter().any(|(_, held)| *held == name(write_id))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a write that was overwritten at `hlc`.
    pub(super) fn insert(&mut self, hlc: Hlc, write_id: WriteId) {
        let entry = (hlc, name(write_id));
        if let Err(place) = self.entries.binary_search(&entry) {
            self.entries.insert(place, entry);
        }
        self.bound();
    }

    /// Both together, not bounded yet: first whoever is named in it must be found dead.
    pub(super) fn union(&self, other: &Self) -> Self {
        let is_new = |entry: &&(Hlc, u64)| self.entries.binary_search(entry).is_err();
        let mut entries = self.entries.clone();
        entries.extend(other.entries.iter().filter(is_new));
        entries.sort_unstable();
        Self { entries }
    }

    /// When the newest was overwritten.
    pub(super) fn newest(&self) -> Hlc {
        self.entries.last().map_or(Hlc(0), |(hlc, _)| *hlc)
    }

    /// Keeps the newest, up to the bound, of those not much older than the newest of all.
    pub(super) fn bound(&mut self) {
        let Some((newest, _)) = self.entries.last() else { return };
        let oldest = newest.wall().0.saturating_sub(limits::REPLACED_FOR_MS);
        let too_old = self.entries.partition_point(|(hlc, _)| hlc.wall().0 < oldest);
        let too_many = self.entries.len().saturating_sub(limits::REPLACED_WRITES);
        self.entries.drain(..too_old.max(too_many));
    }

    pub(super) fn encoded_len_max(&self) -> usize {
        2 + 16 * self.entries.len()
    }

    pub(super) fn encode_to(&self, out: &mut BytesMut) {
        out.put_varint(self.entries.len() as u64);
        for (hlc, name) in &self.entries {
            out.put_u64_le(hlc.0);
            out.put_u64_le(*name);
        }
    }

    pub(super) fn decode(input: &mut Reader) -> Result<Self, CodecError> {
        let count = input.length(limits::REPLACED_WRITES, "replaced writes")?;
        let mut read = Self { entries: Vec::with_capacity(count.min(input.remaining() / 16)) };
        for _ in 0..count {
            let entry = (Hlc(input.u64("replaced write")?), input.u64("replaced write")?);
            if read.entries.last().is_some_and(|last| *last >= entry) {
                return Err(CodecError::Invalid("order of replaced writes"));
            }
            read.entries.push(entry);
        }
        let mut bounded = read.clone();
        bounded.bound();
        if bounded != read {
            return Err(CodecError::Invalid("age of replaced writes"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn hlc(ms: u64) -> Hlc {
        Hlc(ms << 16)
    }

    fn random_set(random: &mut Random) -> Replaced {
        let mut set = Replaced::default();
        for _ in 0..random.below(3 * limits::REPLACED_WRITES as u64) {
            let ms = random.below(2 * limits::REPLACED_FOR_MS);
            set.insert(hlc(ms), WriteId(u128::from(random.below(500))));
        }
        set
    }

    fn joined(left: &Replaced, right: &Replaced) -> Replaced {
        let mut union = left.union(right);
        union.bound();
        union
    }

    #[test]
    fn bounding_and_uniting_commute() {
        let mut random = Random::new(7);
        for _ in 0..200 {
            let [a, b, c] = [(); 3].map(|()| random_set(&mut random));
            assert!(a.entries.len() <= limits::REPLACED_WRITES);
            assert_eq!(joined(&a, &a), a);
            assert_eq!(joined(&a, &b), joined(&b, &a));
            assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        }
    }

    #[test]
    fn what_is_much_older_than_the_newest_is_forgotten() {
        let mut set = Replaced::default();
        set.insert(hlc(1), WriteId(1));
        set.insert(hlc(limits::REPLACED_FOR_MS), WriteId(2));
        assert!(set.contains(WriteId(1)) && set.contains(WriteId(2)));
        set.insert(hlc(limits::REPLACED_FOR_MS + 2), WriteId(3));
        assert!(!set.contains(WriteId(1)) && set.contains(WriteId(2)));
    }

    #[test]
    fn an_encoding_that_no_encoder_writes_is_refused() {
        let mut set = Replaced::default();
        set.insert(hlc(5), WriteId(5));
        set.insert(hlc(6), WriteId(6));
        let mut out = BytesMut::new();
        set.encode_to(&mut out);
        assert_eq!(Replaced::decode(&mut Reader::new(out.clone().freeze())), Ok(set));
        out[1..33].rotate_left(16);
        assert!(Replaced::decode(&mut Reader::new(out.freeze())).is_err());
    }
}
