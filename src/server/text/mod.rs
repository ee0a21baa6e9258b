//! The text protocol's sessions: one task for each connection.
//!
//! The language is `resp`, the promises are `docs/TEXT_PROTOCOL.md`; here the two meet the node.
//!
//! ```text
//!   socket ─▶ input ─▶ parser ─▶ Command ─┬─ about itself ──────────────────────▶ Reply ─┐
//!                                         └─ about keys ─▶ asks ─▶ mailboxes             │
//!                                                             (each once a batch)        ▼
//!   socket ◀─ output ◀──────── in the order of the commands ◀──────────────────────── queue
//! ```
//!
//! A client may send many commands without waiting. All that are complete are taken at once, the
//! requests they make go to each shard's mailbox together, and the answers that are there go out
//! in one write: with sixteen commands in a packet, a system call serves sixteen.
//!
//! What always holds:
//!
//! - Answers leave in the order of the commands.
//! - Commands of one connection on one key take effect in their order: one that would overtake a
//!   write of the key, or a write that would overtake anything on it, waits before it is begun.
//! - Everything a connection can make grow has a bound: what it sends (`resp`), commands under
//!   way, bytes it has not read, time for one command to arrive, time without reading.
//! - What a connection does wrong costs that connection and nothing else.

mod answers;
mod asks;
mod clients;
mod expiring;
mod faults;
mod information;
mod inside;
mod keyed;
mod lists;
mod many;
mod output;
mod pulse;
mod queue;
mod session;
mod settings;
mod sync;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use self::clients::{Client, Clients};
use self::output::Waiting;
use self::pulse::Pulse;
use self::session::Session;
use super::node::Node;

/// Told to the connection that is one too many, in Redis' words.
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// What all sessions share.
struct Server {
    node: Arc<Node>,
    clients: Clients,
    waiting: Waiting,
    pulse: Arc<Pulse>,
}

/// Serves the text protocol until the process ends.
pub async fn serve(node: Arc<Node>, listener: TcpListener) {
    let pulse = Pulse::start(node.clock);
    let (clients, waiting) = (Clients::default(), Waiting::default());
    let server = Arc::new(Server { node, clients, waiting, pulse });
    loop {
        match listener.accept().await {
            Ok((stream, address)) => accept(&server, stream, address),
            Err(error) => {
                // Out of file descriptors, most likely: waiting lets some be closed.
                tracing::warn!(%error, "cannot accept a text connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn accept(server: &Arc<Server>, mut stream: TcpStream, address: SocketAddr) {
    let traffic = &server.node.traffic;
    let open = traffic.text_connections.fetch_add(1, Ordering::Relaxed)
        + traffic.frame_connections.load(Ordering::Relaxed);
    let counted = Counted(server.clone());
    if open >= server.node.config.limits.connections as u64 {
        traffic.refused_connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // A line fits every socket's buffer: nobody can hold this up.
            let _ = stream.write_all(TOO_MANY).await;
            drop(counted);
        });
        return;
    }
    tokio::spawn(async move {
        let server = &counted.0;
        let _ = stream.set_nodelay(true);
        let client = Client::new(address, server.node.clock.instant());
        let registered = server.clients.register(client);
        let session = Session::new(server.clone(), registered.id());
        if let Err(why) = session.run(stream).await {
            server.node.traffic.malformed_connections.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%address, %why, "closed a text connection");
        }
    });
}

/// A connection that is counted as open for as long as this lives, however its task ends.
struct Counted(Arc<Server>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.node.traffic.text_connections.fetch_sub(1, Ordering::Relaxed);
    }
}
