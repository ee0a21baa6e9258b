//! What foca says within one call, kept until the call is over.

use std::time::Duration;

use bytes::Bytes;
use foca::{Notification, Runtime, Timer};

use super::identity::Identity;
use crate::ids::NodeId;

/// Collects in order. Some of what foca says can only be judged when it has finished, see
/// [`super::Swim`] on the message it sends to those who have refuted a suspicion.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) packets: Vec<(Identity, Bytes)>,
    pub(super) timers: Vec<(Duration, Timer<Identity>)>,
    /// Members that foca says have come up, gone down, or changed their identity.
    pub(super) changed: Vec<NodeId>,
    /// This node was called down and goes on under this generation.
    pub(super) renewed: Option<u32>,
}

impl Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(id) | Notification::MemberDown(id) => self.changed.push(id.node),
            Notification::Rename(_, id) => self.changed.push(id.node),
            Notification::Rejoin(id) => self.renewed = Some(id.generation),
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.push((after, timer));
    }
}
