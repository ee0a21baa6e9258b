//! What must stand of one key, and what must not.
//!
//! A version *replaced* another when its writer had seen that one, directly or through versions that
//! it had seen. The rules, for a key whose versions are all in the ledgers:
//!
//! - **Lost** is an acknowledged write that does not stand and that neither a standing version, nor
//!   an acknowledged write, nor a deletion that may have happened, has replaced. Of a chain of
//!   writes that is gone as a whole only the last one counts: the others were replaced.
//! - **Overwritten** instead of lost, in a bucket where the last write wins, if something stands, or
//!   was deleted, that the lost write had not seen.
//! - **Resurrected** is a version that stands although an acknowledged deletion, or an acknowledged
//!   write, has replaced it.
//! - **An unknown write took effect** if it stands or somebody has read it; an unknown deletion, if
//!   nothing of what it had seen stands.
//!
//! A write that replaces whatever it finds (`observed`) does not know what it has seen. It *may* have
//! replaced everything sent before it was answered, and that excuses a loss; a deletion of that kind
//! *has* replaced everything acknowledged before it was sent, which holds for a single server and
//! where R+W>N counts primaries alone. So what is claimed lost is lost, and the ledger decides
//! exactly only where writes carry contexts.
//!
//! Where a version stands that no ledger has, a write that is missing and not seen by it is
//! **undecided**: a writer who is not in the ledgers may have replaced it.

use std::collections::BTreeSet;

use super::graph::{Fate, Graph, Node};
use crate::load::actor::DAMAGED;
use crate::load::record::Verification;

/// How many examples of what is wrong are kept.
const EXAMPLES: usize = 20;

/// What is known of the ledgers and the bucket.
#[derive(Debug, Default)]
pub(super) struct Circumstances {
    /// Of two writes that did not see each other one is dropped.
    pub(super) last_write_wins: bool,
    /// Those whose ledgers have all they sent.
    pub(super) complete_writers: BTreeSet<u64>,
}

/// Judges a key by what stands, and adds to what was found so far.
pub(super) fn judge(
    key: &str,
    graph: &mut Graph,
    circumstances: &Circumstances,
    found: &mut Verification,
) {
    let standing = graph.standing();
    found.keys_with_siblings += u64::from(standing.len() > 1);
    found.most_siblings = found.most_siblings.max(standing.len() as u64);
    judge_losses(key, graph, &standing, circumstances, found);
    judge_returns(key, graph, &standing, found);
    for node in &graph.nodes {
        judge_fate(key, node, &graph.nodes, circumstances, found);
    }
}

fn judge_losses(
    key: &str,
    graph: &mut Graph,
    standing: &[usize],
    circumstances: &Circumstances,
    found: &mut Verification,
) {
    let is_root = |node: &Node| node.stands || node.is_acknowledged() || node.may_delete();
    let replaced = replaced_by(graph, is_root);
    // What a standing observed write, or one that those which stand had seen, may have found.
    let mut found_until_us = 0;
    let visible: Vec<usize> = (0..graph.nodes.len())
        .filter(|at| graph.nodes[*at].stands || graph.nodes[*at].may_delete())
        .collect();
    graph.walk(visible.clone(), |_, node| {
        if node.observed {
            found_until_us = found_until_us.max(node.answered_us);
        }
        true
    });
    let observed = graph.nodes.iter().filter(|node| node.observed && node.is_acknowledged());
    let last = observed.map(|node| (node.answered_us, node.version)).max();
    for (at, is_replaced) in replaced.into_iter().enumerate() {
        let node = &graph.nodes[at];
        let is_at_stake = node.is_acknowledged() && !node.is_delete && !node.stands;
        let may_be_replaced = node.sent_us <= found_until_us
            || last.is_some_and(|last| last > (node.answered_us, node.version));
        if !is_at_stake || is_replaced || may_be_replaced {
            continue;
        }
        let foreign: Vec<usize> =
            standing.iter().copied().filter(|s| graph.nodes[*s].fate == Fate::Foreign).collect();
        let mut has_not_seen = |others: &[usize]| others.iter().any(|o| !graph.has_seen(&[at], *o));
        if has_not_seen(&foreign) {
            found.undecided += 1;
        } else if circumstances.last_write_wins && has_not_seen(&visible) {
            found.overwritten += 1;
        } else {
            found.lost += 1;
            let stands: Vec<String> = standing.iter().map(|s| name(&graph.nodes[*s])).collect();
            let stands = if stands.is_empty() { "nothing".to_owned() } else { stands.join(", ") };
            example(found, || {
                format!(
                    "{key}: {} was acknowledged and is gone; {stands} stands",
                    name(&graph.nodes[at])
                )
            });
        }
    }
}

fn judge_returns(key: &str, graph: &mut Graph, standing: &[usize], found: &mut Verification) {
    let replaced = replaced_by(graph, Node::is_acknowledged);
    let deletions =
        graph.nodes.iter().filter(|node| node.is_delete && node.observed && node.is_acknowledged());
    let last_deleted_us = deletions.map(|node| node.sent_us).max();
    for at in standing {
        let node = &graph.nodes[*at];
        let deleted = node.is_acknowledged() && last_deleted_us > Some(node.answered_us);
        if replaced[*at] || deleted {
            found.resurrected += 1;
            let what = if deleted { "deleted" } else { "replaced or deleted" };
            example(found, || format!("{key}: {} was {what} and stands again", name(node)));
        }
    }
}

fn judge_fate(
    key: &str,
    node: &Node,
    nodes: &[Node],
    circumstances: &Circumstances,
    found: &mut Verification,
) {
    let is_there = node.stands || node.is_read;
    match node.fate {
        Fate::Acknowledged => {}
        Fate::Unknown => {
            let took_effect = if node.is_delete { deletion_took(node, nodes) } else { is_there };
            let count = if took_effect {
                &mut found.unknown_took_effect
            } else {
                &mut found.unknown_did_not
            };
            *count += 1;
        }
        Fate::Foreign if node.version == DAMAGED => {
            found.damaged += 1;
            example(found, || format!("{key}: a value is damaged"));
        }
        // Its writer's ledger has all that was written, and not this.
        Fate::Foreign if !circumstances.complete_writers.contains(&node.version.writer) => {}
        Fate::Refused | Fate::Foreign if is_there => {
            found.refused_took_effect += 1;
            example(found, || format!("{key}: {} was never written, and is there", name(node)));
        }
        Fate::Refused | Fate::Foreign => {}
    }
}

fn deletion_took(deletion: &Node, nodes: &[Node]) -> bool {
    if deletion.observed {
        return !nodes.iter().any(|node| node.stands && node.answered_us < deletion.sent_us);
    }
    !deletion.seen.is_empty() && !deletion.seen.iter().any(|at| nodes[*at].stands)
}

/// By node: whether the writer of a root had seen it.
fn replaced_by(graph: &mut Graph, is_root: impl Fn(&Node) -> bool) -> Vec<bool> {
    let mut replaced = vec![false; graph.nodes.len()];
    let roots: Vec<usize> =
        (0..graph.nodes.len()).filter(|at| is_root(&graph.nodes[*at])).collect();
    graph.walk(roots, |_, node| {
        node.seen.iter().for_each(|at| replaced[*at] = true);
        true
    });
    replaced
}

/// A version in words.
fn name(node: &Node) -> String {
    let version = node.version;
    match version.writer {
        0 => "a value of somebody else".to_owned(),
        writer => format!("write {} of {writer:016x}", version.number),
    }
}

pub(super) fn example(found: &mut Verification, say: impl FnOnce() -> String) {
    if found.examples.len() < EXAMPLES {
        found.examples.push(say());
    }
}
