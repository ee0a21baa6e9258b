//! Who is up: SWIM (Das, Gupta and Motivala, "SWIM: scalable weakly-consistent infection-style
//! process group membership protocol", 2002) by foca, with what a database needs around it.
//!
//! [`Swim`] is a state machine like the others of this floor: packets, members and the time go in,
//! packets and changes come out. Foca does the protocol; around it are the seal of every packet,
//! the queue of timers, this node's own health, and a view that can be shown to people.
//!
//! ```text
//!               Input                                             Effect
//!   socket ── Datagram ──▶ ┌ seal ─▶ ┌──────┐ ─▶ outbox ─▶ seal ┐ ── Send ─────▶ socket
//!   cluster ─ Members ───▶ │         │ foca │         │         │ ── Up, Down ─▶ shards
//!             Version ───▶ │ health ▶└──────┘      roster       │ ── Versions ─▶ cluster
//!   peers ─── View ──────▶ └─────── timers ────────────────────┘ ── Renew ────▶ disk
//! ```
//!
//! Liveness decides whom to ask. It never decides who is a member or where data lives: that is
//! the [`ClusterState`](super::ClusterState)'s, which only an operator changes.
//!
//! # What always holds
//!
//! - Effects are done in their order: a generation is on disk ([`Effect::Renew`]) before a packet
//!   says it.
//! - Nothing reaches foca that a holder of the cluster's key has not sealed for this cluster, and
//!   nothing reaches it twice.
//! - Up and down are told once for each change, and every few seconds what was told is compared
//!   with what foca knows, so that a lost notification does not last.
//! - Every timer is delivered, in the order of time. After a pause of this node all of them are
//!   put off by the pause and a probe's time, so that packets which waited for the pause to end are
//!   read before anybody is judged.
//!
//! # Where it differs from foca
//!
//! - Foca 2.0.0 tells a member which has *refuted* a suspicion that it is down, when the suspicion's
//!   time is over, and the member gives its identity up. Such a message to a member known to be up
//!   is held back.
//! - Foca's probe interval cannot be changed while it runs. Health stretches it from outside: foca
//!   asks for a timer, and gets it later.
//! - Announcing to those who are down is done here, from the cluster's member list, since foca
//!   forgets addresses it has never heard from.

mod codec;
mod counters;
mod health;
mod hearsay;
mod identity;
mod outbox;
mod push_pull;
mod roster;
mod seal;
mod settings;
mod timers;

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use foca::{Foca, Timer};

pub use counters::Counters;
pub use identity::Identity;
pub use roster::Row;
pub use seal::{Key, SEAL_BYTES, Sealer};
pub use settings::Settings;

use codec::{TURN_UNDEAD, WireCodec};
use health::Health;
use hearsay::{Shared, VersionNews, encode_version};
use outbox::Outbox;
use roster::{Record, Roster};
use seal::Refusal;
use timers::Timers;

use crate::ids::NodeId;
use crate::random::Random;
use crate::time::Instant;
use crate::wire::messages::TopologyVersion;

/// How often absent members are announced to: this long, and up to twice.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(5);
/// The same while nobody is known to be up.
const ANNOUNCE_ALONE_EVERY: Duration = Duration::from_secs(1);
/// To how many of them at a time.
const ANNOUNCE_FANOUT: usize = 3;
/// How often what was told is compared with what foca knows.
const RECONCILE_EVERY: Duration = Duration::from_secs(5);

/// Whether a member is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing has been heard of it since this process began.
    Unknown,
    /// It answers.
    Alive,
    /// Somebody has probed it in vain; it has some time to object. It still counts as up.
    Suspect,
    /// It did not object, or said that it leaves.
    Down,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

/// What happens to the protocol.
#[derive(Clone, Debug)]
pub enum Input {
    /// A packet, as it came from the socket.
    Datagram(Bytes),
    /// The other members of the cluster and where each takes gossip, all of them.
    Members(BTreeMap<NodeId, SocketAddr>),
    /// The version of this node's cluster state; travels to everybody.
    Version(TopologyVersion),
    /// The [`Swim::full_view`] of another node, as it came over a connection.
    View(Bytes),
    /// This node's own loop was held up by this much.
    Late(Duration),
    /// This node stops: the others need not find out by probing.
    Leave,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this packet. It may get lost.
    Send {
        /// Where to.
        to: SocketAddr,
        /// The packet.
        datagram: Bytes,
    },
    /// A member has come up.
    Up(NodeId),
    /// A member has gone down.
    Down(NodeId),
    /// A member's cluster state has another version than this node's.
    Versions {
        /// The member.
        from: NodeId,
        /// Its version.
        version: TopologyVersion,
    },
    /// This node goes on under this generation: make it durable before anything that follows.
    Renew(u32),
}

#[derive(Debug)]
enum Timed {
    Foca(Timer<Identity>),
    Announce,
    Reconcile,
    /// A member was said to be down by a view and has had its time to object.
    Confirm {
        identity: Identity,
        incarnation: u16,
    },
}

/// The numbers foca asks for, from our own generator.
#[derive(Debug)]
struct Chance(Random);

impl rand::TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.next_u64() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.next_u64().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// One member's part in the protocol; see the module's page.
///
/// The owner calls [`Swim::handle`] for each input and [`Swim::handle_deadline`] at
/// [`Swim::next_deadline`], that first where both are due, and does the effects in their order.
pub struct Swim {
    settings: Settings,
    foca: Foca<Identity, WireCodec, Chance, VersionNews>,
    out: Outbox,
    hearsay: Shared,
    sealer: Sealer,
    timers: Timers<Timed>,
    roster: Roster,
    /// This node, as it sees itself.
    own: Row,
    health: Health,
    random: Random,
    version: Option<TopologyVersion>,
    counters: Counters,
    /// When absent members are announced to next; timers set for earlier are stale.
    announce_next: Instant,
    /// The life and incarnation of this node that were last suspected.
    objected: Option<(u32, u16)>,
    /// Anything at all has arrived since the last probe began.
    has_heard: bool,
    has_postponed: bool,
    has_left: bool,
}

impl Swim {
    /// A member that has not spoken yet. `me` has a generation that was never used before and is
    /// durable already.
    #[must_use]
    pub fn new(
        now: Instant,
        settings: Settings,
        me: Identity,
        mut sealer: Sealer,
        seed: u64,
    ) -> Self {
        let hearsay = Shared::new();
        let mut random = Random::new(seed);
        let foca = Foca::with_custom_broadcast(
            me,
            settings.foca(1),
            Chance(Random::new(random.next_u64())),
            WireCodec { me: me.node, hearsay: hearsay.clone() },
            VersionNews(hearsay.clone()),
        );
        sealer.begin(me.generation);
        let mut timers = Timers::new();
        timers.set(now + RECONCILE_EVERY, Timed::Reconcile);
        Self {
            settings,
            foca,
            out: Outbox::default(),
            hearsay,
            sealer,
            timers,
            roster: Roster::default(),
            own: Row { state: State::Alive, ..Row::new(me.node, now) },
            health: Health::default(),
            random,
            version: None,
            counters: Counters::default(),
            announce_next: now,
            objected: None,
            has_heard: false,
            has_postponed: false,
            has_left: false,
        }
    }

    /// Takes one input; appends what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        if self.has_left {
            return;
        }
        match input {
            Input::Datagram(packet) => self.datagram(now, &packet, effects),
            Input::Members(members) => {
                if self.roster.set(now, &members) {
                    self.announce_soon(now);
                }
                self.reconcile(now, effects);
            }
            Input::Version(version) => self.set_version(now, version, effects),
            Input::View(view) => self.take_view(now, &view, effects),
            Input::Late(by) => {
                if by > self.settings.probe_timeout {
                    self.counters.late += 1;
                    self.health.worsen();
                }
            }
            Input::Leave => {
                let _ = self.foca.leave_cluster(&mut self.out);
                self.finish(now, effects);
                self.has_left = true;
            }
        }
    }

    /// When [`Swim::handle_deadline`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_left { None } else { self.timers.next() }
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(due) = self.next_deadline().filter(|due| *due <= now) else { return };
        let late = now - due;
        if late > self.settings.probe_timeout {
            self.counters.late += 1;
            self.health.worsen();
            // Once in a row: a node that is always late must get on with it, too.
            if !self.has_postponed {
                self.has_postponed = true;
                self.timers.postpone(late + self.settings.probe_timeout);
                return;
            }
        }
        self.has_postponed = false;
        while let Some(timed) = self.timers.take_due(now) {
            self.fire(now, timed, effects);
        }
    }

    /// How this node sees the members, itself included, in the order of their ids.
    #[must_use]
    pub fn view(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.roster.records().map(|record| record.row.clone()).collect();
        let hearsay = self.hearsay.lock();
        let by = |node| {
            let accusation = hearsay.accusation(node);
            accusation.map(|accusation| accusation.by.iter().copied().collect())
        };
        let own = Row { suspected_by: by(self.own.node).unwrap_or_default(), ..self.own.clone() };
        for row in rows.iter_mut().filter(|row| row.state == State::Suspect) {
            row.suspected_by = by(row.node).unwrap_or_default();
        }
        rows.push(own);
        rows.sort_by_key(|row| row.node);
        rows
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { health: u64::from(self.health.score()), ..self.counters }
    }

    /// This node's identity now.
    #[must_use]
    pub fn me(&self) -> &Identity {
        self.foca.identity()
    }

    fn is_member(&self, node: NodeId) -> bool {
        node == self.own.node || self.roster.contains(node)
    }

    /// How long a suspect has now.
    fn suspicion(&self) -> Duration {
        self.health.stretch(self.settings.suspicion_of(self.roster.len() + 1))
    }

    // ---- in ------------------------------------------------------------------------------

    fn datagram(&mut self, now: Instant, packet: &Bytes, effects: &mut Vec<Effect>) {
        let opened = self.sealer.open(packet).and_then(|(sender, payload)| {
            // Behind the message's number stands the id of whoever claims to speak.
            let claimed = payload.get(1..17).and_then(|id| id.try_into().ok());
            let is_sender = claimed.map(u128::from_le_bytes) == Some(sender.0);
            if is_sender { Ok(payload) } else { Err(Refusal::Forged) }
        });
        let payload = match opened {
            Ok(payload) => payload,
            Err(refusal) => return self.counters.refuse(refusal),
        };
        self.counters.packets_in += 1;
        self.has_heard = true;
        if self.foca.handle_data(&payload, &mut self.out).is_err() {
            self.counters.refused += 1;
        }
        self.finish(now, effects);
    }

    fn set_version(&mut self, now: Instant, version: TopologyVersion, effects: &mut Vec<Effect>) {
        if self.version.replace(version) == Some(version) {
            return;
        }
        // Somebody else has said it to everybody: no need for a hundred members to repeat it.
        if self.hearsay.lock().has_heard(version) {
            return;
        }
        let number = self.sealer.next_number();
        let news = encode_version(self.own.node, number, version);
        let added = self.foca.add_broadcast(&news);
        debug_assert!(added.is_ok(), "40 bytes fit any packet: {added:?}");
        self.finish(now, effects);
    }

    fn fire(&mut self, now: Instant, timed: Timed, effects: &mut Vec<Effect>) {
        match timed {
            Timed::Foca(timer) => {
                let is_probe = matches!(timer, Timer::ProbeRandomMember(_));
                // It says so when it is not connected; nothing follows from that.
                let _ = self.foca.handle_timer(timer, &mut self.out);
                if is_probe {
                    return self.end_probe(now, effects);
                }
            }
            Timed::Announce if self.announce_next > now => {}
            Timed::Announce => self.announce(now),
            Timed::Reconcile => {
                self.timers.set(now + RECONCILE_EVERY, Timed::Reconcile);
                let _ = self.foca.set_config(self.settings.foca(self.roster.len() + 1));
                self.reconcile(now, effects);
            }
            Timed::Confirm { identity, incarnation } => self.confirm(identity, incarnation),
        }
        self.finish(now, effects);
    }

    /// One probe is over and the next has begun. If it failed, foca has just asked to be reminded
    /// of the suspect.
    fn end_probe(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let suspect = self.out.timers.iter().find_map(|(_, timer)| match timer {
            Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                Some((*member_id, *incarnation))
            }
            _ => None,
        });
        if let Some((member, incarnation)) = suspect {
            self.counters.suspicions += 1;
            self.hearsay.lock().accuse(&member, incarnation, self.own.node);
        }
        // What this probe led to is timed by the health that it was begun with.
        self.finish(now, effects);
        match suspect {
            None => self.health.mend(),
            // Where others were heard meanwhile, it was not our network that failed.
            Some(_) if self.has_heard => {}
            Some(_) => self.health.worsen(),
        }
        self.has_heard = false;
    }

    /// Says hello to members that are not known to be up: they may have come back, or never have
    /// heard of us.
    fn announce(&mut self, now: Instant) {
        let is_alone = self.foca.num_members() == 0;
        let is_absent = |row: &Row| matches!(row.state, State::Unknown | State::Down);
        let absent = self.roster.records().filter(|record| is_alone || is_absent(&record.row));
        // Whoever it is now, an announcement reaches every identity of a member.
        let identity = |record: &Record| Identity::new(record.row.node, 0, record.address);
        let mut absent: Vec<Identity> = absent.map(identity).collect();
        for _ in 0..ANNOUNCE_FANOUT.min(absent.len()) {
            let at = self.random.below(absent.len() as u64) as usize;
            let _ = self.foca.announce(absent.swap_remove(at), &mut self.out);
        }
        let jitter = self.random.below(ANNOUNCE_EVERY.as_micros() as u64);
        let wait = match is_alone {
            true => ANNOUNCE_ALONE_EVERY,
            false => ANNOUNCE_EVERY + Duration::from_micros(jitter),
        };
        self.announce_soon(now + wait);
    }

    fn announce_soon(&mut self, at: Instant) {
        self.announce_next = at;
        self.timers.set(at, Timed::Announce);
    }

    // ---- out -----------------------------------------------------------------------------

    /// Does what foca has said within the call that is over.
    fn finish(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(generation) = self.out.renewed.take() {
            self.counters.renewals += 1;
            self.sealer.begin(generation);
            (self.own.since, self.own.flaps) = (now, self.own.flaps + 1);
            effects.push(Effect::Renew(generation));
        }
        for (after, timer) in std::mem::take(&mut self.out.timers) {
            let after = match timer {
                Timer::SendIndirectProbe { .. } | Timer::ProbeRandomMember(_) => {
                    self.health.stretch(after)
                }
                Timer::ChangeSuspectToDown { .. } => self.suspicion(),
                _ => after,
            };
            self.timers.set(now + after, Timed::Foca(timer));
        }
        for (to, payload) in std::mem::take(&mut self.out.packets) {
            if payload.first() == Some(&TURN_UNDEAD) && self.is_up(to.node) {
                self.counters.held_back += 1;
                continue;
            }
            let datagram = self.sealer.seal(&payload);
            self.counters.packets_out += 1;
            self.counters.bytes_out += datagram.len() as u64;
            effects.push(Effect::Send { to: to.address, datagram });
        }
        let mut touched = self.hearsay.lock().take_touched();
        touched.extend(self.out.changed.drain(..));
        for node in touched {
            self.refresh(now, node, effects);
        }
        for (from, version) in self.hearsay.lock().take_news() {
            if from != self.own.node && self.version.is_some_and(|own| own != version) {
                effects.push(Effect::Versions { from, version });
            }
        }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.foca.iter_members().any(|member| member.id().node == node)
    }

    /// Looks up how foca sees `node` now.
    fn refresh(&mut self, now: Instant, node: NodeId, effects: &mut Vec<Effect>) {
        if node == self.own.node {
            return self.object(now);
        }
        let known = self.foca.iter_membership_state().find(|member| member.id().node == node);
        let state = known.map_or(State::Unknown, |member| state_of(member.state()));
        self.settle(now, node, state, effects);
    }

    /// Compares everything that was told with what foca knows.
    fn reconcile(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let known: Vec<(NodeId, State)> = self
            .foca
            .iter_membership_state()
            .map(|member| (member.id().node, state_of(member.state())))
            .collect();
        for (node, state) in known {
            self.settle(now, node, state, effects);
        }
    }

    fn settle(&mut self, now: Instant, node: NodeId, state: State, effects: &mut Vec<Effect>) {
        let mut hearsay = self.hearsay.lock();
        let accusers = hearsay.accusation(node).map(|accusation| &accusation.by);
        let accusers = accusers.map_or_else(Vec::new, |by| by.iter().copied().collect());
        if state != State::Suspect {
            hearsay.acquit(node);
        }
        drop(hearsay);
        self.roster.settle(now, node, state, accusers, effects);
    }

    /// Somebody suspects this node. Foca has objected to it already.
    fn object(&mut self, now: Instant) {
        let hearsay = self.hearsay.lock();
        let Some(accusation) = hearsay.accusation(self.own.node) else { return };
        let life = (accusation.generation, accusation.incarnation);
        drop(hearsay);
        if life.0 == self.me().generation && self.objected < Some(life) {
            self.objected = Some(life);
            self.own.refuted = Some(now);
            self.counters.refutations += 1;
            self.health.worsen();
        }
    }
}

fn state_of(state: foca::State) -> State {
    match state {
        foca::State::Alive => State::Alive,
        foca::State::Suspect => State::Suspect,
        foca::State::Down => State::Down,
    }
}
