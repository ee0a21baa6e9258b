//! The admin port: HTTP for load balancers, Prometheus and people with a browser.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response as AnyResponse};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::node::Node;
use crate::store::Store as _;
use crate::store::forest::Tally;
use crate::wire::messages::{Control, ControlReply, HintStatus, Response};

/// Serves until the process ends.
pub async fn serve(node: Arc<Node>, listener: TcpListener) {
    let router = Router::new()
        .route("/health", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .layer(from_fn_with_state(node.clone(), stand_still))
        .with_state(node);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin port has stopped");
    }
}

/// Holds every answer up while the node stands still: else it would not look like a node that hangs.
async fn stand_still(State(node): State<Arc<Node>>, request: Request, next: Next) -> AnyResponse {
    node.faults.pass_pause().await;
    next.run(request).await
}

/// 200 while clients are served, 503 with the reason while they are not.
async fn ready(State(node): State<Arc<Node>>) -> impl IntoResponse {
    match node.refusal() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", refusal.message)),
    }
}

async fn status(State(node): State<Arc<Node>>) -> impl IntoResponse {
    match node.control(node.id, Control::Status).await {
        Response::Control(ControlReply::Status(status)) => Json(status).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Those of `status` that tell what is kept now; `hints_kept` and others count what has been.
const GAUGES_OF_HINTS: [&str; 4] =
    ["hints_keys", "hints_bytes", "hints_oldest_ms", "hints_marked_partitions"];
/// Those that tell what waits to be forgotten.
const GAUGES_OF_TOMBSTONES: [&str; 3] =
    ["tombstones_waiting", "tombstones_bytes", "tombstones_oldest_ms"];

/// Those of `status` that tell how the comparisons with other owners stand.
const GAUGES_OF_SYNC: [&str; 5] =
    ["sync_pairs", "sync_in_sync", "sync_overdue", "sync_waits_ms", "sync_paused"];
/// Those that tell how the scrub stands.
const GAUGES_OF_SCRUB: [&str; 4] =
    ["scrub_last_pass_ms", "scrub_partitions_left", "scrub_waiting", "scrub_rebuild_due"];

/// What is kept for each member.
fn hints(node: &Node, text: &mut String) {
    let kept = node.hints();
    type Figure = (&'static str, fn(&HintStatus) -> u64);
    let figures: [Figure; 5] = [
        ("keys", |hint| hint.count),
        ("bytes", |hint| hint.bytes),
        ("oldest_ms", |hint| hint.oldest_ms),
        ("delivered_per_second", |hint| hint.rate),
        ("marked_partitions", |hint| hint.dirty_partitions),
    ];
    for (name, figure) in figures {
        let _ = writeln!(text, "# TYPE ringdove_hints_for_member_{name} gauge");
        for hint in &kept {
            let (member, value) = (hint.label(), figure(hint));
            let _ = writeln!(text, "ringdove_hints_for_member_{name}{{member={member:?}}} {value}");
        }
    }
}

/// What is on this node's disk, by bucket.
fn buckets(node: &Node, text: &mut String) {
    let tallies = node.store.tallies();
    type Figure = (&'static str, fn(&Tally) -> u64);
    let figures: [Figure; 4] = [
        ("keys", |tally| tally.keys.saturating_sub(tally.deleted)),
        ("deleted_keys", |tally| tally.deleted),
        ("conflicts", |tally| tally.conflicts),
        ("bytes", |tally| tally.bytes),
    ];
    for (name, figure) in figures {
        let _ = writeln!(text, "# TYPE ringdove_bucket_{name} gauge");
        for (bucket, tally) in &tallies {
            let _ = writeln!(text, "ringdove_bucket_{name}{{bucket={bucket:?}}} {}", figure(tally));
        }
    }
    let _ = writeln!(text, "# TYPE ringdove_bucket_discarded_total counter");
    for (bucket, count) in node.discarded() {
        let _ = writeln!(text, "ringdove_bucket_discarded_total{{bucket={bucket:?}}} {count}");
    }
}

/// Every counter of `status` in Prometheus' text format.
async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    let mut text = String::new();
    if let Response::Control(ControlReply::Status(status)) =
        node.control(node.id, Control::Status).await
    {
        for (name, count) in &status.counters {
            let is_gauge = ["in_flight", "slots_changing", "buckets_moving", "faults_in_force"]
                .contains(&name.as_str())
                || GAUGES_OF_HINTS.contains(&name.as_str())
                || GAUGES_OF_TOMBSTONES.contains(&name.as_str())
                || GAUGES_OF_SYNC.contains(&name.as_str())
                || GAUGES_OF_SCRUB.contains(&name.as_str())
                || name.ends_with("_connections")
                || (name.starts_with("disk_") && name.ends_with("_bytes"));
            let kind = if is_gauge { "gauge" } else { "counter" };
            let suffix = if is_gauge { "" } else { "_total" };
            let _ = writeln!(text, "# TYPE ringdove_{name}{suffix} {kind}");
            let _ = writeln!(text, "ringdove_{name}{suffix} {count}");
        }
        hints(&node, &mut text);
        buckets(&node, &mut text);
        let up = status.peers.iter().filter(|peer| peer.up).count();
        let members = status.peers.len();
        for (name, value) in [
            ("keys", status.keys),
            ("members", members as u64),
            ("members_up", up as u64),
            ("amnesiac", u64::from(status.amnesiac)),
            ("uptime_seconds", status.uptime_ms / 1000),
        ] {
            let _ = writeln!(text, "# TYPE ringdove_{name} gauge");
            let _ = writeln!(text, "ringdove_{name} {value}");
        }
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
