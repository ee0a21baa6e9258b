//! Requests that a batch of commands has made, on their way to the shards.
//!
//! They are gathered so that each mailbox is opened once for the batch: the shard then finds all
//! of them in one turn, and a turn is one commit.

use tokio::sync::oneshot;

use crate::membership::Topology;
use crate::server::mailbox::Ask;
use crate::server::node::{Node, busy};
use crate::server::reply::ReplyTo;
use crate::time::Instant;
use crate::wire::messages::{Failure, FailureCode, Request, Response};
use std::sync::Arc;

/// An answer that is still to come.
pub(super) type Answer = oneshot::Receiver<Response>;

/// Requests by shard.
pub(super) struct Asks {
    topology: Arc<Topology>,
    received: Instant,
    refusal: Option<Failure>,
    by_shard: Vec<Vec<Ask>>,
}

impl Asks {
    /// An empty batch, of commands that have just arrived.
    pub(super) fn new(node: &Node) -> Self {
        let by_shard = node.mailboxes.iter().map(|_| Vec::new()).collect();
        let (topology, received) = (node.topology(), node.clock.instant());
        Self { topology, received, refusal: node.refusal(), by_shard }
    }

    /// Brings an offered batch up to date for the commands that have arrived now.
    pub(super) fn renew(&mut self, node: &Node) {
        self.topology = node.topology();
        self.received = node.clock.instant();
        self.refusal = node.refusal();
    }

    /// Adds a request about a key.
    pub(super) fn ask(&mut self, node: &Node, request: Request) -> Answer {
        let (sender, answer) = oneshot::channel();
        let key = match &request {
            Request::Get(get) => &get.key,
            Request::Put(put) => &put.key,
            _ => unreachable!("a text session reads and writes, and asks the node for the rest"),
        };
        if let Some(refusal) = &self.refusal {
            let _ = sender.send(Response::Failed(refusal.clone()));
            return answer;
        }
        let shard = node.shard_of(&self.topology, key);
        let reply = ReplyTo::Task(sender);
        self.by_shard[shard].push(Ask {
            reply,
            sender: node.id,
            received: self.received,
            sent: None,
            forwarded: false,
            request,
        });
        answer
    }

    /// Gives the requests to their shards.
    pub(super) fn offer(&mut self, node: &Node) {
        for (mailbox, asks) in node.mailboxes.iter().zip(&mut self.by_shard) {
            if asks.is_empty() {
                continue;
            }
            mailbox.offer(asks);
            for ask in asks.drain(..) {
                ask.reply.give_now(Response::Failed(busy()));
            }
        }
    }
}

/// What came of an answer's channel: a shard that ends takes its requests with it.
pub(super) fn response(received: Result<Response, oneshot::error::RecvError>) -> Response {
    received.unwrap_or_else(|_| {
        Response::Failed(Failure::not_applied(FailureCode::Draining, "this node has stopped"))
    })
}
