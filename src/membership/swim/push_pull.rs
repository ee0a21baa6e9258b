//! The full view, for comparing notes over a connection.
//!
//! Gossip passes each piece of news on a bounded number of times, so now and then a node misses
//! one. Two nodes that exchange their whole views mend that: in a join, and every so often. They
//! compare digests first, so that it costs nothing where they agree.
//!
//! A view is sealed as packets are: a connection is no proof of who is at its other end. Its
//! payload is one byte, 32, which no message of foca has, and the members one behind the other.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use foca::{Codec, Member, State};
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{WireCodec, put_member};
use super::identity::Identity;
use super::{Effect, Swim, Timed};
use crate::codec::CodecError;
use crate::ids::NodeId;
use crate::limits;
use crate::time::Instant;

/// The first byte of a view, where a packet has the number of its message.
const VIEW: u8 = 32;
/// Rows a view from outside may have: every member, with room for those removed meanwhile.
const VIEW_ROWS: usize = 2 * limits::MEMBERS;

impl Swim {
    /// A number that two nodes have in common exactly when their views agree.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut row = BytesMut::new();
        let digest_of = |member: Member<Identity>| {
            row.clear();
            put_member(&mut row, &member);
            xxh3_64(&row)
        };
        self.members().map(digest_of).fold(0, |sum, digest| sum ^ digest)
    }

    /// Everything this node knows of who is up, itself included, sealed; for
    /// [`super::Input::View`] of another.
    #[must_use]
    pub fn full_view(&mut self) -> Bytes {
        let mut codec = WireCodec { me: self.me().node, hearsay: self.hearsay.clone() };
        let mut out = BytesMut::from(&[VIEW][..]);
        for member in self.members() {
            codec.encode_member(&member, &mut out).expect("this buffer grows");
        }
        self.sealer.seal(&out)
    }

    /// All that is in a view. Who is down and no member any more is of no interest to anybody.
    fn members(&self) -> impl Iterator<Item = Member<Identity>> {
        let me = *self.me();
        let incarnation = self.hearsay.lock().incarnation(me.generation);
        let is_told = |member: &&Member<Identity>| {
            member.state() != State::Down || self.is_member(member.id().node)
        };
        let others = self.foca.iter_membership_state().filter(is_told).cloned();
        others.chain([Member::new(me, incarnation, State::Alive)])
    }

    /// Takes over what another node knows better.
    pub(super) fn take_view(&mut self, now: Instant, view: &Bytes, effects: &mut Vec<Effect>) {
        let (from, payload) = match self.sealer.open(view) {
            Ok(opened) => opened,
            Err(refusal) => return self.counters.refuse(refusal),
        };
        let Ok(theirs) = self.read_view(payload) else {
            self.counters.refused += 1;
            return;
        };
        let mine: BTreeMap<NodeId, Member<Identity>> = self
            .foca
            .iter_membership_state()
            .map(|member| (member.id().node, member.clone()))
            .collect();
        // Only these are news to others: the rest is being gossiped already, or long known.
        let (mut told, mut quiet) = (Vec::new(), Vec::new());
        for member in theirs {
            match (member.state(), mine.get(&member.id().node)) {
                (State::Down, Some(known)) if is_up_as(known, &member) => {
                    told.push(self.doubt(now, from, known));
                }
                (State::Alive, _) if member.id().node != from => quiet.push(member),
                _ => told.push(member),
            }
        }
        let _ = self.foca.apply_many(quiet.into_iter(), false, &mut self.out);
        let _ = self.foca.apply_many(told.into_iter(), true, &mut self.out);
        self.finish(now, effects);
    }

    fn read_view(&self, mut view: Bytes) -> Result<Vec<Member<Identity>>, CodecError> {
        let mut codec = WireCodec { me: self.me().node, hearsay: self.hearsay.clone() };
        let mut members = Vec::new();
        if view.try_get_u8() != Ok(VIEW) {
            return Err(CodecError::Invalid("view"));
        }
        while !view.is_empty() {
            if members.len() == VIEW_ROWS {
                let (actual, most) = (VIEW_ROWS as u64 + 1, VIEW_ROWS as u64);
                return Err(CodecError::TooLong { what: "view", actual, most });
            }
            members.push(codec.decode_member(&mut view)?);
        }
        Ok(members)
    }

    /// Another node says that somebody who is up here is down. That may be old news from beyond a
    /// partition that has healed, and down is final for an identity: so it counts as a suspicion,
    /// which the member can refute, and becomes true if it does not.
    fn doubt(&mut self, now: Instant, from: NodeId, known: &Member<Identity>) -> Member<Identity> {
        let (identity, incarnation) = (*known.id(), known.incarnation());
        self.hearsay.lock().accuse(&identity, incarnation, from);
        let at = now + self.suspicion();
        self.timers.set(at, Timed::Confirm { identity, incarnation });
        Member::new(identity, incarnation, State::Suspect)
    }

    /// A member that was doubted has had its time to object.
    pub(super) fn confirm(&mut self, identity: Identity, incarnation: u16) {
        let has_not_objected = |member: &Member<Identity>| {
            *member.id() == identity
                && member.state() == State::Suspect
                && member.incarnation() == incarnation
        };
        if self.foca.iter_membership_state().any(has_not_objected) {
            let down = Member::new(identity, incarnation, State::Down);
            let _ = self.foca.apply_many([down].into_iter(), true, &mut self.out);
        }
    }
}

fn is_up_as(known: &Member<Identity>, other: &Member<Identity>) -> bool {
    known.id() == other.id() && known.state() != State::Down
}
