//! Which faults are in force, and what each does to what passes: decided here, without a clock and
//! without a socket.
//!
//! Every fault has a stream of random numbers for each peer, direction and carrier, drawn from its
//! seed and the peer's *name*. So the nth frame of one way meets the same fate whatever goes on
//! elsewhere, and a run can be repeated although members have new ids.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::NodeId;
use crate::random::Random;
use crate::time::Instant;
use crate::wire::faults::{Direction, Fault, FaultKind, FaultRow, Passage, Peers, WHOLE_PPM};

/// What something is sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// A frame of a connection.
    Frame,
    /// A packet of gossip.
    Packet,
}

/// What becomes of a frame or a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How many times it comes: none, one or two.
    pub copies: usize,
    /// When it comes, not before.
    pub at: Instant,
}

/// Another member, as far as faults need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Where it takes frames, as others dial it.
    pub address: String,
    /// The same, looked up: where its packets come from.
    pub socket: Option<SocketAddr>,
}

/// What the faults in force do to the node itself, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upon {
    /// Something that passes between nodes is concerned.
    pub network: bool,
    /// It stands still.
    pub paused: bool,
    /// Its disk is full.
    pub full_disk: bool,
    /// Milliseconds that each commit takes longer.
    pub slow_disk_ms: u64,
    /// Milliseconds that its clock is ahead.
    pub clock_ms: i64,
}

/// The faults in force, and whom they may concern.
#[derive(Debug, Default)]
pub struct Plan {
    last_id: u64,
    faults: BTreeMap<u64, Injected>,
    members: BTreeMap<NodeId, Member>,
}

#[derive(Debug)]
struct Injected {
    fault: Fault,
    /// When it lifts itself.
    until: Option<Instant>,
    met: u64,
    ways: BTreeMap<Way, Stream>,
}

/// One way between this node and another.
type Way = (Option<NodeId>, Direction, Carrier);

/// What a fault remembers of one way.
#[derive(Debug)]
struct Stream {
    random: Random,
    /// Throttled, when the last that passed had passed.
    free_at: Instant,
}

impl Plan {
    /// Takes note of who the other members are.
    pub fn know(&mut self, members: BTreeMap<NodeId, Member>) {
        self.members = members;
    }

    /// Adds a fault.
    ///
    /// # Errors
    /// When it names somebody who is not there; says who is.
    pub fn add(&mut self, fault: Fault, now: Instant) -> Result<FaultRow, String> {
        self.check(&fault)?;
        self.last_id += 1;
        let until = fault.for_ms.map(|ms| now + Duration::from_millis(ms));
        let injected = Injected { fault, until, met: 0, ways: BTreeMap::new() };
        let row = injected.row(self.last_id, now);
        self.faults.insert(self.last_id, injected);
        Ok(row)
    }

    fn check(&self, fault: &Fault) -> Result<(), String> {
        let Some(passage) = fault.kind.passage() else { return Ok(()) };
        let members = self.members.values();
        let (named, kind, mut there): (&str, &str, Vec<&str>) = match &passage.peers {
            Peers::Everyone => return Ok(()),
            Peers::Named(name) => {
                (name, "other member is called", members.map(|m| &*m.name).collect())
            }
            Peers::Zone(zone) => {
                (zone, "other member is in zone", members.map(|m| &*m.zone).collect())
            }
        };
        if there.contains(&named) {
            return Ok(());
        }
        there.sort_unstable();
        there.dedup();
        Err(format!("no {kind} {named:?}; there are: {}", there.join(", ")))
    }

    /// Lifts one fault, or all; returns those that were in force.
    pub fn clear(&mut self, id: Option<u64>, now: Instant) -> Vec<FaultRow> {
        let is_meant = |other: &u64, _: &mut Injected| id.is_none_or(|id| id == *other);
        let lifted = self.faults.extract_if(.., is_meant);
        lifted.map(|(id, injected)| injected.row(id, now)).collect()
    }

    /// Lifts those whose time is up.
    pub fn expire(&mut self, now: Instant) {
        self.faults.retain(|_, injected| injected.until.is_none_or(|until| until > now));
    }

    /// What is in force, in the order in which it was added.
    pub fn rows(&self, now: Instant) -> Vec<FaultRow> {
        self.faults.iter().map(|(id, injected)| injected.row(*id, now)).collect()
    }

    /// What the node itself suffers.
    pub fn upon(&self) -> Upon {
        let mut upon = Upon::default();
        for Injected { fault, .. } in self.faults.values() {
            match fault.kind {
                FaultKind::Pause => upon.paused = true,
                FaultKind::FullDisk => upon.full_disk = true,
                FaultKind::SlowDisk(ms) => upon.slow_disk_ms = upon.slow_disk_ms.saturating_add(ms),
                FaultKind::Clock(ms) => upon.clock_ms = upon.clock_ms.saturating_add(ms),
                _ => upon.network = true,
            }
        }
        upon
    }

    /// Counts something that met with every fault of a kind.
    pub fn count(&mut self, is_meant: impl Fn(&FaultKind) -> bool) {
        for injected in self.faults.values_mut().filter(|injected| is_meant(&injected.fault.kind)) {
            injected.met += 1;
        }
    }

    /// The member whose packets come from there.
    pub fn sender(&self, socket: SocketAddr) -> Option<NodeId> {
        let mut members = self.members.iter();
        members.find(|(_, member)| member.socket == Some(socket)).map(|(id, _)| *id)
    }

    /// The member that is dialled there.
    pub fn listener(&self, address: &str) -> Option<NodeId> {
        let mut members = self.members.iter();
        members.find(|(_, member)| member.address == address).map(|(id, _)| *id)
    }

    /// What becomes of `bytes` on their way; `peer` is none for somebody who is no member.
    pub fn fate(&mut self, (peer, way, carrier): Way, bytes: usize, now: Instant) -> Fate {
        let member = peer.and_then(|peer| self.members.get(&peer));
        let mut fate = Fate { copies: 1, at: now };
        for injected in self.faults.values_mut() {
            let passage = injected.fault.kind.passage();
            if !passage.is_some_and(|passage| covers(passage, member, way)) {
                continue;
            }
            let seed = injected.fault.seed;
            let stream = injected.ways.entry((peer, way, carrier));
            let stream = stream.or_insert_with(|| Stream::new(seed, member, way, carrier));
            if stream.befall(&injected.fault.kind, bytes, now, &mut fate) {
                injected.met += 1;
            }
            if fate.copies == 0 {
                break;
            }
        }
        fate
    }
}

fn covers(passage: &Passage, member: Option<&Member>, way: Direction) -> bool {
    passage.direction.covers(way)
        && match &passage.peers {
            Peers::Everyone => true,
            Peers::Named(name) => member.is_some_and(|member| member.name == *name),
            Peers::Zone(zone) => member.is_some_and(|member| member.zone == *zone),
        }
}

impl Injected {
    fn row(&self, id: u64, now: Instant) -> FaultRow {
        let left_ms = self.until.map(|until| (until - now).as_millis() as u64);
        FaultRow { id, fault: self.fault.clone(), left_ms, met: self.met }
    }
}

impl Stream {
    fn new(seed: u64, member: Option<&Member>, way: Direction, carrier: Carrier) -> Self {
        let name = member.map_or("", |member| &member.name);
        let label = format!("{name}/{}/{carrier:?}", way.name());
        let random = Random::new(xxh3_64_with_seed(label.as_bytes(), seed));
        Self { random, free_at: Instant(0) }
    }

    /// Changes the fate of something by one fault. Returns whether that did anything.
    fn befall(&mut self, kind: &FaultKind, bytes: usize, now: Instant, fate: &mut Fate) -> bool {
        let mut happens = |ppm: u32| self.random.below(WHOLE_PPM.into()) < u64::from(ppm);
        match *kind {
            FaultKind::Drop(_, ppm) => {
                let drops = happens(ppm);
                fate.copies *= usize::from(!drops);
                drops
            }
            FaultKind::Duplicate(_, ppm) => {
                let doubles = happens(ppm);
                fate.copies = fate.copies.max(1 + usize::from(doubles));
                doubles
            }
            FaultKind::Delay { by_ms, jitter_ms, .. } => {
                let jitter = self.random.below(jitter_ms.saturating_mul(1000).saturating_add(1));
                fate.at = fate.at + Duration::from_millis(by_ms) + Duration::from_micros(jitter);
                true
            }
            FaultKind::Throttle(_, rate) => {
                let takes = (bytes as u64).saturating_mul(1_000_000) / rate.max(1);
                self.free_at = self.free_at.max(now) + Duration::from_micros(takes);
                fate.at = fate.at + (self.free_at - now);
                true
            }
            FaultKind::Pause
            | FaultKind::SlowDisk(_)
            | FaultKind::FullDisk
            | FaultKind::Clock(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000);
    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    fn plan() -> Plan {
        let member = |name: &str, zone: &str, port: u16| Member {
            name: name.to_owned(),
            zone: zone.to_owned(),
            address: format!("127.0.0.1:{port}"),
            socket: Some(SocketAddr::from(([127, 0, 0, 1], port))),
        };
        let mut plan = Plan::default();
        plan.know(BTreeMap::from([(B, member("b", "east", 1)), (C, member("c", "west", 2))]));
        plan
    }

    fn passage(peers: Peers, direction: Direction) -> Passage {
        Passage { peers, direction }
    }

    fn everyone() -> Passage {
        passage(Peers::Everyone, Direction::Both)
    }

    fn add(plan: &mut Plan, kind: FaultKind) -> u64 {
        plan.add(Fault { kind, for_ms: None, seed: 7 }, NOW).unwrap().id
    }

    fn passes(plan: &mut Plan, peer: NodeId, way: Direction) -> bool {
        plan.fate((Some(peer), way, Carrier::Frame), 100, NOW).copies > 0
    }

    #[test]
    fn a_drop_concerns_whom_and_what_way_it_names_and_nobody_else() {
        let mut plan = plan();
        let cases = [
            (Peers::Named("b".to_owned()), Direction::Out, [true, false, true, true]),
            (Peers::Zone("west".to_owned()), Direction::Both, [true, true, false, false]),
            (Peers::Everyone, Direction::In, [false, true, false, true]),
        ];
        for (peers, direction, expected) in cases {
            let id = add(&mut plan, FaultKind::Drop(passage(peers, direction), WHOLE_PPM));
            let ways =
                [(B, Direction::In), (B, Direction::Out), (C, Direction::In), (C, Direction::Out)];
            assert_eq!(ways.map(|(peer, way)| passes(&mut plan, peer, way)), expected);
            assert_eq!(plan.clear(Some(id), NOW).len(), 1);
        }
        assert!(passes(&mut plan, B, Direction::In) && plan.rows(NOW).is_empty());
    }

    #[test]
    fn the_same_seed_drops_the_same_frames_of_a_way_whatever_passes_elsewhere() {
        let sequence = |noise: bool, seed: u64| {
            let mut plan = plan();
            let kind = FaultKind::Drop(everyone(), WHOLE_PPM / 2);
            plan.add(Fault { kind, for_ms: None, seed }, NOW).unwrap();
            let one = |_| {
                if noise {
                    passes(&mut plan, C, Direction::Out);
                    plan.fate((Some(B), Direction::Out, Carrier::Packet), 1, NOW);
                }
                passes(&mut plan, B, Direction::Out)
            };
            (0..64).map(one).collect::<Vec<bool>>()
        };
        assert_eq!(sequence(false, 7), sequence(true, 7));
        assert_ne!(sequence(false, 7), sequence(false, 8));
        let dropped = sequence(false, 7).iter().filter(|passes| !**passes).count();
        assert!((16..48).contains(&dropped), "{dropped} of 64");
    }

    #[test]
    fn delays_add_up_and_jitter_stays_within_its_bound() {
        let mut plan = plan();
        for jitter_ms in [0, 10] {
            add(&mut plan, FaultKind::Delay { passage: everyone(), by_ms: 50, jitter_ms });
        }
        let lateness = |_| plan.fate((Some(B), Direction::In, Carrier::Frame), 1, NOW).at - NOW;
        let lateness: Vec<Duration> = (0..100).map(lateness).collect();
        let bounds = Duration::from_millis(100)..=Duration::from_millis(110);
        assert!(lateness.iter().all(|late| bounds.contains(late)), "{lateness:?}");
        assert!(lateness.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_throttle_lets_its_rate_through_for_each_peer_and_way() {
        let mut plan = plan();
        add(&mut plan, FaultKind::Throttle(everyone(), 1000));
        let mut late = |peer, way| {
            (plan.fate((Some(peer), way, Carrier::Frame), 100, NOW).at - NOW).as_millis()
        };
        let to_b: Vec<u128> = (0..3).map(|_| late(B, Direction::Out)).collect();
        assert_eq!(to_b, [100, 200, 300]);
        assert_eq!((late(B, Direction::In), late(C, Direction::Out)), (100, 100));
    }

    #[test]
    fn a_duplicate_comes_twice_and_what_vanishes_does_not_come_at_all() {
        let mut plan = plan();
        add(&mut plan, FaultKind::Duplicate(everyone(), WHOLE_PPM));
        let way = (Some(B), Direction::Out, Carrier::Packet);
        assert_eq!(plan.fate(way, 1, NOW).copies, 2);
        add(&mut plan, FaultKind::Drop(everyone(), WHOLE_PPM));
        assert_eq!(plan.fate(way, 1, NOW).copies, 0);
        assert_eq!(plan.rows(NOW).iter().map(|row| row.met).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn strangers_meet_only_what_concerns_everyone() {
        let mut plan = plan();
        let stranger = (None, Direction::In, Carrier::Frame);
        add(
            &mut plan,
            FaultKind::Drop(passage(Peers::Named("b".to_owned()), Direction::Both), WHOLE_PPM),
        );
        assert_eq!(plan.fate(stranger, 1, NOW).copies, 1);
        add(&mut plan, FaultKind::Drop(everyone(), WHOLE_PPM));
        assert_eq!(plan.fate(stranger, 1, NOW).copies, 0);
    }

    #[test]
    fn whoever_is_not_there_is_named_with_those_who_are() {
        let mut plan = plan();
        let kind = FaultKind::Drop(passage(Peers::Named("d".to_owned()), Direction::Both), 1);
        let refused = plan.add(Fault { kind, for_ms: None, seed: 0 }, NOW).unwrap_err();
        assert_eq!(refused, "no other member is called \"d\"; there are: b, c");
        assert_eq!(plan.upon(), Upon::default());
    }

    #[test]
    fn what_the_node_suffers_is_the_sum_and_ends_with_its_time() {
        let mut plan = plan();
        for (kind, for_ms) in [
            (FaultKind::Clock(3000), None),
            (FaultKind::Clock(-500), Some(10)),
            (FaultKind::SlowDisk(20), Some(10)),
            (FaultKind::SlowDisk(5), None),
            (FaultKind::Pause, Some(10)),
        ] {
            plan.add(Fault { kind, for_ms, seed: 0 }, NOW).unwrap();
        }
        let upon = Upon { paused: true, slow_disk_ms: 25, clock_ms: 2500, ..Upon::default() };
        assert_eq!(plan.upon(), upon);
        plan.expire(NOW + Duration::from_millis(9));
        assert_eq!(plan.upon(), upon);
        plan.expire(NOW + Duration::from_millis(10));
        assert_eq!(plan.upon(), Upon { slow_disk_ms: 5, clock_ms: 3000, ..Upon::default() });
    }
}
