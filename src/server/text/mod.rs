//! (the text protocol's sessions)

use std::sync::Arc;

use tokio::net::TcpListener;

use super::node::Node;

/// Serves the text protocol until the process ends.
pub async fn serve(_node: Arc<Node>, _listener: TcpListener) {}
