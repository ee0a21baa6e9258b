//! Whoever waits for an answer of a shard.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::outbox::Outbox;
use crate::wire::codec;
use crate::wire::messages::Response;

/// Where an answer goes.
#[derive(Debug)]
pub enum ReplyTo {
    /// To the connection of a client or a peer, under the request's number.
    Connection(Arc<Outbox>, u64),
    /// To a task of this process.
    Task(oneshot::Sender<Response>),
}

impl ReplyTo {
    /// Gives the answer. Outboxes that have to be woken are added to `touched`.
    pub fn give(self, response: Response, touched: &mut Vec<Arc<Outbox>>) {
        match self {
            Self::Connection(outbox, id) => {
                outbox.release();
                if outbox.append(|buffer| codec::encode_response(buffer, id, &response)) {
                    touched.push(outbox);
                }
            }
            // The task may have given up in the meantime.
            Self::Task(sender) => drop(sender.send(response)),
        }
    }

    /// Gives the answer now.
    pub fn give_now(self, response: Response) {
        let mut touched = Vec::new();
        self.give(response, &mut touched);
        for outbox in touched {
            outbox.wake();
        }
    }
}
