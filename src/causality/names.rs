//! Names of writes: those that were overwritten lately, and those that a client was shown.
//!
//! A client that gets no answer writes again, under the same write id, perhaps through another
//! coordinator; if the first one had written and was then cut off, there are two dots for one
//! write. While both are alive that is easy: they are shown as one. But when somebody reads the
//! first, replaces it, and only then the second turns up, dots alone cannot tell that it is the
//! same write: it would come back from the dead, beside the very write that replaced it.
//!
//! So a client's context carries the names of what it was shown, and the object into which it
//! writes remembers them: a sibling of such a name is dead, whatever its dot. With one exception.
//! Two writes that both were made twice may each have overwritten the other, A here and B there,
//! and one must stay. So a sibling knows the greatest timestamp that its writer was shown
//! ([`Sibling::after`]), a name bears the greatest that was shown with it, and **a name ends only
//! siblings whose `after` is less than its timestamp**. Nothing is lost then:
//!
//! - whoever overwrites a sibling was shown it, or what had overwritten it, and a timestamp is
//!   greater than its sibling's own `after`: so his `after` is greater;
//! - whoever brings a name has an `after` that is not less than the name's timestamp: where the
//!   name ends a sibling, his is greater again;
//! - so of writes that ended one another the one with the greatest `after` is there.
//!
//! And what was written with one context has the same `after` in every copy, which is less than
//! the timestamp of any of them: the name ends all. Of copies that took for overwritten whatever
//! their coordinators held, one may have seen something younger than the name, and stays.
//!
//! The memory is bounded by [`limits::REPLACED_WRITES`]: the newest of the union, which makes
//! bounding and uniting commute.
//! No clock decides how long a name is kept: one that is ten minutes ahead would make everyone
//! forget the others' names. What is forgotten can do harm only where a coordinator was cut off
//! with a write that somebody had retried, while the key was overwritten more often than that.

use bytes::{BufMut, BytesMut};

use super::{Hlc, Sibling};
use crate::codec::{CodecError, Reader, Write as _};
use crate::ids::WriteId;
use crate::limits;
use crate::time::WallMs;

/// Names of writes, newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Strictly ascending: the timestamp, and the low half of the write id.
    entries: Vec<(Hlc, u64)>,
}

/// Half of a write id is enough: it is random, and compared with a few dozen others.
fn name(write_id: WriteId) -> u64 {
    write_id.0 as u64
}

impl Names {
    /// Whether `sibling` is dead because its write was overwritten: see the module's text.
    pub(super) fn end(&self, sibling: &Sibling) -> bool {
        let name = name(sibling.write_id);
        self.entries.iter().any(|(hlc, held)| *held == name && *hlc > sibling.after)
    }

    /// Whether a write of this name was overwritten; one of its copies may be alive all the same.
    pub(super) fn contains(&self, write_id: WriteId) -> bool {
        self.entries.iter().any(|(_, held)| *held == name(write_id))
    }

    /// All but `write_id`.
    pub(super) fn without(&self, write_id: WriteId) -> Self {
        let other = |(_, held): &&(Hlc, u64)| *held != name(write_id);
        Self { entries: self.entries.iter().filter(other).copied().collect() }
    }

    /// Whether a write that was overwritten after this time may be forgotten.
    pub(super) fn forget_since(&self, since: WallMs) -> bool {
        let is_full = self.entries.len() >= limits::REPLACED_WRITES;
        is_full && self.entries.first().is_some_and(|(hlc, _)| hlc.wall() >= since)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a write that was shown, with `hlc` as the greatest timestamp; see [`Names::bound`].
    pub(super) fn insert(&mut self, hlc: Hlc, write_id: WriteId) {
        let entry = (hlc, name(write_id));
        if let Err(place) = self.entries.binary_search(&entry) {
            self.entries.insert(place, entry);
        }
    }

    /// Both together, not bounded yet: first whoever is named in it must be found dead.
    pub(super) fn union(&self, other: &Self) -> Self {
        let is_new = |entry: &&(Hlc, u64)| self.entries.binary_search(entry).is_err();
        let mut entries = self.entries.clone();
        entries.extend(other.entries.iter().filter(is_new));
        entries.sort_unstable();
        Self { entries }
    }

    /// Forgets all but the newest.
    pub(super) fn bound(&mut self) {
        let too_many = self.entries.len().saturating_sub(limits::REPLACED_WRITES);
        self.entries.drain(..too_many);
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
        let count = input.length(limits::REPLACED_WRITES, "names of writes")?;
        let mut read = Self { entries: Vec::with_capacity(count.min(input.remaining() / 16)) };
        for _ in 0..count {
            let entry = (Hlc(input.u64("name of a write")?), input.u64("name of a write")?);
            if read.entries.last().is_some_and(|last| *last >= entry) {
                return Err(CodecError::Invalid("order of names"));
            }
            read.entries.push(entry);
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

    fn random_set(random: &mut Random) -> Names {
        let mut set = Names::default();
        for _ in 0..random.below(3 * limits::REPLACED_WRITES as u64) {
            set.insert(hlc(random.below(100)), WriteId(u128::from(random.below(500))));
        }
        set.bound();
        set
    }

    fn joined(left: &Names, right: &Names) -> Names {
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
    fn the_oldest_are_forgotten_first() {
        let mut set = Names::default();
        for write in 0..=limits::REPLACED_WRITES as u64 {
            set.insert(hlc(write), WriteId(u128::from(write)));
        }
        set.bound();
        assert!(!set.contains(WriteId(0)) && set.contains(WriteId(1)));
        assert_eq!(set.entries.len(), limits::REPLACED_WRITES);
    }

    #[test]
    fn an_encoding_that_no_encoder_writes_is_refused() {
        let mut set = Names::default();
        set.insert(hlc(5), WriteId(5));
        set.insert(hlc(6), WriteId(6));
        let mut out = BytesMut::new();
        set.encode_to(&mut out);
        assert_eq!(Names::decode(&mut Reader::new(out.clone().freeze())), Ok(set));
        out[1..33].rotate_left(16);
        assert!(Names::decode(&mut Reader::new(out.freeze())).is_err());
    }
}
