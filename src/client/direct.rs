//! One given node, without routing and without repetitions: for tools that must know who says
//! what.
//!
//! ```no_run
//! # async fn run() -> ringdove::client::Result<()> {
//! use std::time::Duration;
//! let status = ringdove::client::direct::status("127.0.0.1:7400", Duration::from_secs(1)).await?;
//! println!("{} has been up for {} ms", status.name, status.uptime_ms);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::{Error, Kind, NodeStatus, Result};
use crate::wire::messages::{Control, ControlReply, Request, Response};

/// A connection to one node. Requests may be under way at the same time; closes when dropped.
pub struct Direct {
    address: String,
    connection: Arc<Connection>,
}

impl Direct {
    /// Connects to the node at `address`, within `timeout`.
    ///
    /// # Errors
    /// [`Kind::Connect`] when nobody listens there, [`Kind::Protocol`] when it is no node,
    /// [`Kind::Timeout`] when the time was up.
    pub async fn connect(address: &str, timeout: Duration) -> Result<Self> {
        let deadline = Instant::now() + timeout;
        let opened = timeout_at(deadline, Connection::open(address, None)).await;
        let connection = Arc::new(opened.unwrap_or_else(|_| Err(too_late(address, timeout)))?);
        Ok(Self { address: address.to_owned(), connection })
    }

    /// Sends one request and waits for its answer, once, within `timeout`.
    ///
    /// # Errors
    /// Whatever the node answers in place of an answer, and what can happen to a connection. If
    /// the request is a write, [`Error::outcome`] says what became of it.
    pub async fn request(&self, request: &Request, timeout: Duration) -> Result<Response> {
        let mut sent = false;
        let answer = timeout_at(Instant::now() + timeout, async {
            let ticket = self.connection.clone().send(request).await?;
            sent = true;
            ticket.answer().await
        });
        let answer = answer.await.unwrap_or_else(|_| Err(too_late(&self.address, timeout)));
        match answer {
            Ok(Response::Failed(failure)) => Err(Error::answered(&self.address, failure)),
            Err(error) if sent && changes_something(request) => Err(error.unknown()),
            answer => answer,
        }
    }
}

/// Connects, sends one request, and closes: all within `timeout`.
///
/// # Errors
/// As [`Direct::connect`] and [`Direct::request`].
pub async fn request(address: &str, request: &Request, timeout: Duration) -> Result<Response> {
    let deadline = Instant::now() + timeout;
    let node = Direct::connect(address, timeout).await?;
    node.request(request, deadline.saturating_duration_since(Instant::now())).await
}

/// How the node at `address` is, and how it sees the others.
///
/// # Errors
/// As [`request`].
pub async fn status(address: &str, timeout: Duration) -> Result<NodeStatus> {
    match request(address, &Request::Control(Control::Status), timeout).await? {
        Response::Control(ControlReply::Status(status)) => Ok(status),
        _ => Err(Error::new(Kind::Protocol, "the answer is to another question").at(address)),
    }
}

fn too_late(address: &str, timeout: Duration) -> Error {
    Error::new(Kind::Timeout, format!("no answer within {timeout:?}")).at(address)
}

fn changes_something(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::Write(_) => true,
        Request::Get(_) | Request::Read(_) => false,
        Request::Control(control) => matches!(
            control,
            Control::CreateBucket { .. }
                | Control::SetBucket { .. }
                | Control::StageChange { .. }
                | Control::CommitPlan { .. }
                | Control::AbortPlan
        ),
    }
}
