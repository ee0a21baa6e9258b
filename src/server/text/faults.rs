//! `RD.FAULT`: what this node does to itself, because it is told to.

use crate::resp::Reply;
use crate::server::node::Node;
use crate::wire::faults::{FaultOrder, FaultRow};

/// Obeys, and answers with the number of the new fault, with all that are in force, or with how
/// many were lifted.
pub(super) fn obey(node: &Node, order: FaultOrder) -> Reply {
    let number = |number: usize| Reply::Integer(number as i64);
    match (node.faults.obey(order.clone()), order) {
        (Ok(rows), FaultOrder::List) => Reply::Array(rows.iter().map(row).collect()),
        (Ok(rows), FaultOrder::Clear(_)) => number(rows.len()),
        (Ok(rows), FaultOrder::Add(_)) => {
            rows.first().map_or(Reply::Null, |row| Reply::Integer(row.id as i64))
        }
        (Err(why), _) => Reply::error("ERR", why),
    }
}

fn row(row: &FaultRow) -> Reply {
    let FaultRow { id, fault, left_ms, met } = row;
    let passage = fault.kind.passage();
    let between = passage.map_or_else(String::new, |passage| passage.peers.words());
    let direction = passage.map_or("", |passage| passage.direction.name());
    Reply::map([
        ("id", Reply::Integer(*id as i64)),
        ("fault", Reply::text(fault.kind.name())),
        ("between", Reply::text(between)),
        ("direction", Reply::text(direction)),
        ("how", Reply::text(fault.kind.measure())),
        ("seed", Reply::Integer(fault.seed as i64)),
        ("left_ms", left_ms.map_or(Reply::Null, |ms| Reply::Integer(ms as i64))),
        ("met", Reply::Integer(*met as i64)),
    ])
}
