//! `RD.SYNC`: what all nodes say of their anti-entropy, and telling them about it.

use crate::ids::{NodeId, Partition};
use crate::limits;
use crate::membership::Topology;
use crate::resp::Reply;
use crate::resp::command::SyncCommand;
use crate::server::node::Node;
use crate::server::survey::Said;
use crate::wire::messages::{Control, ControlReply, Failure, FailureCode};
use crate::wire::sync::{SyncPair, SyncStatus};

/// Asks or tells all nodes.
pub(super) async fn run(node: &Node, command: SyncCommand) -> Reply {
    let control = match command {
        SyncCommand::Status => {
            let topology = node.topology();
            let said = node.ask_all(Control::SyncStatus).await;
            let row = |said: &Said| status(&topology, said);
            return Reply::Array(said.iter().map(row).collect());
        }
        SyncCommand::Partition(number) => return partition(node, Partition(number)).await,
        SyncCommand::Now => Control::SyncNow,
        SyncCommand::Pause => Control::SyncPause(true),
        SyncCommand::Resume => Control::SyncPause(false),
    };
    let said = node.ask_all(control).await;
    let silent = said.iter().filter(|said| said.reply.is_none());
    let silent: Vec<&str> = silent.map(|said| said.name.as_str()).collect();
    if silent.is_empty() {
        return Reply::Ok;
    }
    let silent = silent.join(", ");
    let message = format!("all but {silent}, who did not answer, have done it; repeat it then");
    super::answers::failed(&Failure::not_applied(FailureCode::Unavailable, message))
}

/// What each owner of a partition knows of each other one.
async fn partition(node: &Node, partition: Partition) -> Reply {
    let topology = node.topology();
    let last = topology.partitions() - 1;
    if u32::from(partition.0) > last {
        return Reply::error("ERR", format!("the partitions of this cluster are 0 to {last}"));
    }
    let count = limits::PAGE_KEYS as u32;
    let said = node.ask_all(Control::SyncPairs { from: (partition, NodeId(0)), count }).await;
    let rows = said.iter().map(|said| {
        let mut row = vec![
            ("node", Reply::text(said.id.to_string())),
            ("name", Reply::text(said.name.clone())),
        ];
        if let Some(ControlReply::SyncPairs(pairs)) = &said.reply {
            let of = pairs.iter().filter(|pair| pair.partition == partition);
            row.push(("pairs", Reply::Array(of.map(|shown| pair(&topology, shown)).collect())));
        }
        Reply::map(row)
    });
    Reply::Array(rows.collect())
}

/// One member's row. One that did not answer has no more than its name.
fn status(topology: &Topology, said: &Said) -> Reply {
    let mut row =
        vec![("node", Reply::text(said.id.to_string())), ("name", Reply::text(said.name.clone()))];
    if let Some(ControlReply::SyncStatus(status)) = &said.reply {
        row.extend(figures(status));
        let pairs = status.shown.iter().map(|shown| pair(topology, shown));
        row.push(("shown", Reply::Array(pairs.collect())));
    }
    Reply::map(row)
}

fn figures(status: &SyncStatus) -> Vec<(&'static str, Reply)> {
    let integer = |number: u64| Reply::Integer(number as i64);
    vec![
        ("pairs", integer(status.pairs.into())),
        ("in_sync", integer(status.in_sync.into())),
        ("overdue", integer(status.overdue.into())),
        ("waits_ms", integer(status.waits_ms)),
        ("mending", integer(status.exchanging.len() as u64)),
        ("repaired", integer(status.counter("repaired"))),
        ("bytes", integer(status.counter("bytes"))),
        ("paused", integer(status.paused.into())),
    ]
}

fn pair(topology: &Topology, pair: &SyncPair) -> Reply {
    let name = topology.member(pair.peer).map_or("", |member| member.name()).to_owned();
    let in_sync = pair.in_sync_ms.map_or(Reply::Null, |age| Reply::Integer(age as i64));
    Reply::map([
        ("partition", Reply::Integer(pair.partition.0.into())),
        ("with", Reply::text(pair.peer.to_string())),
        ("with_name", Reply::text(name)),
        ("in_sync_ms", in_sync),
        ("waits_ms", Reply::Integer(pair.waits_ms as i64)),
        ("overdue", Reply::Integer(pair.is_overdue.into())),
        ("repaired", Reply::Integer(pair.repaired as i64)),
        ("bytes", Reply::Integer(pair.bytes as i64)),
    ])
}
