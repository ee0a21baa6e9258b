//! The seal of gossip packets: who may speak, and that nothing is heard twice.
//!
//! Three forged datagrams are enough to have every member of an unsealed SWIM cluster declared
//! down. So nothing reaches the protocol that a holder of the cluster's key has not sealed:
//!
//! ```text
//!   version  1   (1)
//!   cluster  4   tag of the cluster's name
//!   key      4   tag of the key, so that a rotation can be told from a forgery
//!   sender  16   member id
//!   counter  8   generation of the sender << 32, counting up from there
//!   payload  …   at most the packet size, less the seal
//!   seal    16   keyed BLAKE3 of everything before, cut to 128 bits
//! ```
//!
//! The secret of the settings is never used itself: key and tag are derived from it and from the
//! cluster's name. The payload is not hidden; it holds ids, addresses and who is up.
//!
//! What always holds: a packet is opened at most once, whoever sends it again, as long as the
//! receiver runs. The window of counters is in memory only; what a restart forgets is still no
//! use to an attacker, since a packet names the generation of the member it is for.

use std::collections::BTreeMap;

use blake3::{derive_key, keyed_hash};
use bytes::{BufMut, Bytes, BytesMut};
use constant_time_eq::constant_time_eq_16;

use crate::codec::{CodecError, Reader};
use crate::ids::NodeId;
use crate::limits;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 + 4 + 16 + 8;
const MAC_BYTES: usize = 16;
/// What a packet has besides its payload.
pub const SEAL_BYTES: usize = HEADER_BYTES + MAC_BYTES;
/// How far behind the newest packet of a sender one may arrive, in packets of that sender. Those
/// that are older are dropped as if they had been heard: gossip that late says nothing new.
const WINDOW: u64 = 128;
/// Generations stand above this many bits of a counter.
const GENERATION_SHIFT: u32 = 32;

/// One secret of a cluster, ready for use.
#[derive(Clone)]
pub struct Key {
    tag: u32,
    key: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:08x})", self.tag)
    }
}

impl Key {
    /// The key of `cluster` that follows from a secret.
    #[must_use]
    pub fn new(cluster: &str, secret: &[u8]) -> Self {
        // The length first, so that no two pairs of name and secret give the same bytes.
        let mut material = vec![u8::try_from(cluster.len()).unwrap_or(u8::MAX)];
        material.extend(cluster.as_bytes());
        material.extend(secret);
        let tag = derive_key("ringdove 2026-11 tag of a gossip key", &material);
        let key = derive_key("ringdove 2026-11 gossip key", &material);
        Self { tag: first_four(&tag), key }
    }

    fn seal(&self, packet: &[u8]) -> [u8; MAC_BYTES] {
        let hash = keyed_hash(&self.key, packet);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

fn first_four(bytes: &[u8; 32]) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().expect("32 bytes"))
}

/// Why a packet was dropped before the protocol saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too short, or of another version of the seal.
    Malformed,
    /// Sealed for a cluster of another name.
    OtherCluster,
    /// Sealed with a key this node does not hold (any more).
    UnknownKey,
    /// The seal does not fit the bytes, or the payload claims another sender.
    Forged,
    /// Heard before, or too far behind what was heard of that sender.
    Replayed,
}

/// Seals what this node sends and opens what it receives.
#[derive(Debug)]
pub struct Sealer {
    me: NodeId,
    cluster: u32,
    /// The first seals; all open.
    keys: Vec<Key>,
    counter: u64,
    windows: BTreeMap<NodeId, Window>,
}

impl Sealer {
    /// For a member of `cluster`. The first of `keys` seals, all of them open: to rotate, add the
    /// new key behind the old one everywhere, then put it first everywhere, then take the old one
    /// away.
    ///
    /// # Panics
    /// Without any key.
    #[must_use]
    pub fn new(cluster: &str, me: NodeId, keys: Vec<Key>) -> Self {
        assert!(!keys.is_empty(), "gossip without a key is refused by the configuration");
        let cluster =
            first_four(&derive_key("ringdove 2026-11 tag of a cluster", cluster.as_bytes()));
        Self { me, cluster, keys, counter: 0, windows: BTreeMap::new() }
    }

    /// Counts from the beginning of `generation` on, which nobody has done before.
    pub(super) fn begin(&mut self, generation: u32) {
        let first = u64::from(generation) << GENERATION_SHIFT;
        self.counter = self.counter.max(first);
    }

    /// The next number of this node, also for things within a packet: they only grow, over
    /// restarts too.
    pub(super) fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// The packet that carries `payload`.
    #[must_use]
    pub fn seal(&mut self, payload: &[u8]) -> Bytes {
        let counter = self.next_number();
        let key = &self.keys[0];
        let mut packet = BytesMut::with_capacity(payload.len() + SEAL_BYTES);
        packet.put_u8(VERSION);
        packet.put_u32_le(self.cluster);
        packet.put_u32_le(key.tag);
        packet.put_u128_le(self.me.0);
        packet.put_u64_le(counter);
        packet.put_slice(payload);
        let mac = key.seal(&packet);
        packet.put_slice(&mac);
        packet.freeze()
    }

    /// The payload of a packet and the member that sealed it.
    ///
    /// # Errors
    /// When it is to be dropped; the window is as before then.
    pub(super) fn open(&mut self, packet: &Bytes) -> Result<(NodeId, Bytes), Refusal> {
        if packet.len() < SEAL_BYTES {
            return Err(Refusal::Malformed);
        }
        let (sealed, mac) = packet.split_at(packet.len() - MAC_BYTES);
        let header = Header::read(packet).map_err(|_| Refusal::Malformed)?;
        if header.version != VERSION {
            return Err(Refusal::Malformed);
        }
        if header.cluster != self.cluster {
            return Err(Refusal::OtherCluster);
        }
        let key = self.keys.iter().find(|key| key.tag == header.key);
        let key = key.ok_or(Refusal::UnknownKey)?;
        let mac = mac.first_chunk().expect("it was split off at its length");
        if !constant_time_eq_16(&key.seal(sealed), mac) {
            return Err(Refusal::Forged);
        }
        self.pass(header.sender, header.counter)?;
        Ok((header.sender, packet.slice(HEADER_BYTES..packet.len() - MAC_BYTES)))
    }

    fn pass(&mut self, sender: NodeId, counter: u64) -> Result<(), Refusal> {
        // Only holders of the key come this far; the bound is for a defect of ours, not for them.
        if self.windows.len() >= 2 * limits::MEMBERS && !self.windows.contains_key(&sender) {
            self.windows.pop_first();
        }
        match self.windows.entry(sender).or_default().take(counter) {
            true => Ok(()),
            false => Err(Refusal::Replayed),
        }
    }
}

struct Header {
    version: u8,
    cluster: u32,
    key: u32,
    sender: NodeId,
    counter: u64,
}

impl Header {
    fn read(packet: &Bytes) -> Result<Self, CodecError> {
        let mut input = Reader::new(packet.clone());
        Ok(Self {
            version: input.u8("version")?,
            cluster: input.u32("cluster")?,
            key: input.u32("key")?,
            sender: NodeId(input.u128("sender")?),
            counter: input.u64("counter")?,
        })
    }
}

/// Which of a sender's latest counters have been heard (the anti-replay window of RFC 4303,
/// section 3.4.3).
#[derive(Debug, Default)]
struct Window {
    highest: u64,
    /// Bit i: `highest - i` has been heard.
    heard: u128,
}

impl Window {
    /// Whether `counter` is new; from now on it is not.
    fn take(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let ahead = counter - self.highest;
            let older = if ahead < WINDOW { self.heard << ahead } else { 0 };
            (self.highest, self.heard) = (counter, older | 1);
            return true;
        }
        let behind = self.highest - counter;
        if behind >= WINDOW || self.heard >> behind & 1 == 1 {
            return false;
        }
        self.heard |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const ME: NodeId = NodeId(7);

    fn sealer(cluster: &str, me: u128, secrets: &[&str]) -> Sealer {
        let keys = secrets.iter().map(|secret| Key::new(cluster, secret.as_bytes())).collect();
        Sealer::new(cluster, NodeId(me), keys)
    }

    #[test]
    fn a_packet_opens_once_and_says_who_sealed_it() {
        let mut sender = sealer("c", 7, &["secret"]);
        let mut receiver = sealer("c", 8, &["secret"]);
        let packet = sender.seal(b"hello");
        assert_eq!(packet.len(), 5 + SEAL_BYTES);
        assert_eq!(receiver.open(&packet), Ok((ME, Bytes::from_static(b"hello"))));
        assert_eq!(receiver.open(&packet), Err(Refusal::Replayed));
    }

    #[test]
    fn no_bit_of_a_packet_can_be_turned_and_no_length_is_too_short_to_be_refused() {
        let mut sender = sealer("c", 7, &["secret"]);
        let packet = sender.seal(b"hello");
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(sealer("c", 8, &["secret"]).open(&forged.into()).is_err(), "bit {bit}");
        }
        for length in 0..packet.len() {
            assert!(sealer("c", 8, &["secret"]).open(&packet.slice(..length)).is_err());
        }
    }

    #[test]
    fn other_clusters_and_unknown_keys_are_told_apart_from_forgeries() {
        let packet = sealer("c", 7, &["secret"]).seal(b"hello");
        assert_eq!(sealer("d", 8, &["secret"]).open(&packet), Err(Refusal::OtherCluster));
        assert_eq!(sealer("c", 8, &["other"]).open(&packet), Err(Refusal::UnknownKey));
    }

    #[test]
    fn two_keys_are_live_while_one_replaces_the_other() {
        let mut steps = [vec!["old"], vec!["old", "new"], vec!["new", "old"], vec!["new"]];
        // Neighbouring steps of a rotation understand each other in both directions.
        for step in 1..steps.len() {
            let (before, after) = steps.split_at_mut(step);
            let (before, after) = (&before[step - 1], &after[0]);
            for (from, to) in [(before, after), (after, before)] {
                let packet = sealer("c", 7, from).seal(b"x");
                assert!(sealer("c", 8, to).open(&packet).is_ok(), "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_restart_of_the_sender_counts_on_above_what_was_heard() {
        let mut receiver = sealer("c", 8, &["secret"]);
        let mut first = sealer("c", 7, &["secret"]);
        first.begin(3);
        let old = first.seal(b"old");
        receiver.open(&old).unwrap();
        let mut restarted = sealer("c", 7, &["secret"]);
        restarted.begin(4);
        receiver.open(&restarted.seal(b"new")).unwrap();
        assert_eq!(receiver.open(&first.seal(b"late")), Err(Refusal::Replayed));
    }

    #[test]
    fn the_window_agrees_with_a_set_of_everything_heard() {
        let mut random = Random::new(1);
        let (mut window, mut heard, mut highest) = (Window::default(), Vec::new(), 0_u64);
        for _ in 0..20_000 {
            let counter = (highest + 20).saturating_sub(random.below(200)).max(1);
            let is_new = !heard.contains(&counter) && highest.saturating_sub(counter) < WINDOW;
            assert_eq!(window.take(counter), is_new, "{counter} with {highest}");
            highest = highest.max(counter);
            heard.push(counter);
            if heard.len() > 600 {
                heard.drain(..200);
            }
        }
    }
}
