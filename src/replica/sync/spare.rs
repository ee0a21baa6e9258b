//! Sparing each other: whoever is asked for objects, or given some, says when to come again.

use std::time::Duration;

use super::{Purpose, Syncs};
use crate::time::Instant;
use crate::wire::sync::{SyncAnswer, SyncReply};

/// The longest that a peer is left alone because it says so.
const SPARED_MOST: Duration = Duration::from_secs(60);

impl Syncs {
    /// What this node says to one who has asked and has `brought` so many bytes of objects: the reply,
    /// and when to come again. A node that has just started takes the strain of the moment for what is
    /// usual; those it takes from and brings to know better.
    pub fn serve(&mut self, now: Instant, brought: usize, reply: SyncReply) -> SyncAnswer {
        let bytes = brought + reply.object_bytes();
        if bytes == 0 {
            return SyncAnswer::at_ease(reply);
        }
        self.has_served = true;
        let wait = self.serving.take(now, bytes);
        SyncAnswer { reply, wait_ms: wait.as_millis().try_into().unwrap_or(u32::MAX) }
    }

    /// The peer that this question was put to would be left alone for so long.
    pub(super) fn leave_alone(&mut self, id: u64, wait: Duration) {
        let Some(question) = self.questions.get(&id) else { return };
        let (Purpose::Fetch(number) | Purpose::Push(number)) = &question.purpose else { return };
        let Some(job) = self.jobs.get(number) else { return };
        let until = self.now + wait.min(SPARED_MOST);
        let spared = self.spared.entry(job.pair.1).or_insert(until);
        *spared = until.max(*spared);
    }

    /// Until when nothing of this job may move.
    pub(super) fn spared_until(&self, number: u64) -> Instant {
        let peer = self.jobs.get(&number).map(|job| job.pair.1);
        peer.and_then(|peer| self.spared.get(&peer)).copied().unwrap_or(self.now)
    }
}
