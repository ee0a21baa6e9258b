//! What changes hands between two rings.

use super::Ring;
use crate::ids::{NodeId, Partition};

/// One replica of a partition that goes to a member that did not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: Partition,
    /// A member that held it before and no longer does; `None` when the partition gains a replica.
    pub from: Option<NodeId>,
    /// The member that holds it from now on.
    pub to: NodeId,
}

/// The replicas that change hands from `before` to `after`, partition by partition.
///
/// Only what has to be copied is a move: a new order of the same members is none. Who gives and
/// who takes are paired in order of preference; any other owner could give just as well.
///
/// # Panics
/// When the rings do not have the same number of partitions, which never changes in a cluster.
#[must_use]
pub fn moves(before: &Ring, after: &Ring) -> Vec<Move> {
    assert_eq!(before.partitions(), after.partitions(), "a cluster's partitions are fixed");
    let mut moves = Vec::new();
    for number in 0..after.partitions() {
        let partition = Partition(number as u16);
        let (old, new) = (before.primaries(partition), after.primaries(partition));
        let mut leavers = old.iter().filter(|id| !new.contains(id)).copied();
        for to in new.iter().filter(|id| !old.contains(id)).copied() {
            moves.push(Move { partition, from: leavers.next(), to });
        }
    }
    moves
}
