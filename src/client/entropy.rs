//! Random bits: ids of writes, and jitter.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use crate::ids::WriteId;
use crate::random::Random;

/// Where a client draws from.
///
/// The upper half of a write id is 64 bits of the operating system's, drawn once for the client;
/// the lower half comes from a generator that gives each 64-bit number once before any comes
/// again. So one client never repeats an id, and two clients would have to share both halves.
pub(super) struct Entropy {
    client: u64,
    random: Mutex<Random>,
}

impl Entropy {
    pub(super) fn new() -> Self {
        Self { client: from_system(), random: Mutex::new(Random::new(from_system())) }
    }

    pub(super) fn write_id(&self) -> WriteId {
        WriteId((u128::from(self.client) << 64) | u128::from(self.draw(Random::next_u64)))
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub(super) fn below(&self, bound: usize) -> usize {
        self.draw(|random| random.below(bound as u64)) as usize
    }

    /// Between nothing and `most`: whoever failed together does not come back together.
    pub(super) fn jitter(&self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.draw(|random| random.below(micros)))
    }

    fn draw(&self, with: impl FnOnce(&mut Random) -> u64) -> u64 {
        with(&mut self.random.lock().expect("nothing panics while it holds this lock"))
    }
}

/// 64 bits that stem from the operating system: the standard library seeds its hasher with them.
fn from_system() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_client_share_its_half_and_those_of_two_do_not() {
        let (one, other) = (Entropy::new(), Entropy::new());
        let (first, second) = (one.write_id(), one.write_id());
        assert_eq!(first.0 >> 64, second.0 >> 64);
        assert_ne!(first, second);
        assert_ne!(first.0 >> 64, other.write_id().0 >> 64);
    }

    #[test]
    fn jitter_stays_within_its_bound() {
        let entropy = Entropy::new();
        let most = Duration::from_millis(5);
        assert!((0..1000).all(|_| entropy.jitter(most) < most));
        assert_eq!(entropy.jitter(Duration::ZERO), Duration::ZERO);
    }
}
