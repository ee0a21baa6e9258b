//! Reads that missed what was acknowledged before they were sent.
//!
//! For each moment there is a frontier: the acknowledged writes that no other acknowledged write has
//! replaced. A read that has all of the frontier has everything. It has a write if it found it, or
//! something that has replaced it, or if a deletion that may have happened by then has. It is stale
//! as well when it found what an acknowledged deletion had replaced before it was sent.
//!
//! How stale it is counts from the acknowledgement of the oldest write that it missed.

use super::graph::{CLOCKS_US, Fate, Graph, Look};
use super::judge::{Circumstances, example};
use crate::load::record::Verification;

/// Steps back in search of the oldest write that a read has missed.
const STEPS_MOST: usize = 10_000;

/// Judges the reads of a key.
pub(super) fn judge(
    key: &str,
    graph: &mut Graph,
    circumstances: &Circumstances,
    found: &mut Verification,
) {
    let mut looks = std::mem::take(&mut graph.looks);
    looks.sort_by_key(|look| look.sent_us);
    let deletions = Deletions::of(graph);
    let mut puts: Vec<usize> = (0..graph.nodes.len())
        .filter(|at| graph.nodes[*at].is_acknowledged() && !graph.nodes[*at].is_delete)
        .collect();
    puts.sort_by_key(|at| graph.nodes[*at].answered_us);
    let mut puts = puts.into_iter().peekable();
    let mut frontier: Vec<usize> = Vec::new();
    for look in &looks {
        while let Some(put) = puts.next_if(|at| graph.nodes[*at].answered_us < look.sent_us) {
            advance(graph, &mut frontier, put);
        }
        frontier.retain(|at| !deletions.may_cover(graph, *at, look.sent_us));
        let mut judged = Judged { graph, deletions: &deletions, circumstances, look };
        let Some(since_us) = judged.oldest_missed(&frontier) else { continue };
        found.stale_reads += 1;
        let stale_ms = (look.sent_us - since_us) / 1000;
        if found.stalest_ms.is_none_or(|most| most < stale_ms) {
            found.stalest_ms = Some(stale_ms);
            if stale_ms > 0 && found.stale_reads == 1 {
                example(found, || format!("{key}: a read missed a write of {stale_ms} ms before"));
            }
        }
    }
}

/// Enters an acknowledged write into the frontier, and takes out what it has replaced.
fn advance(graph: &mut Graph, frontier: &mut Vec<usize>, put: usize) {
    let (observed, sent_us) = (graph.nodes[put].observed, graph.nodes[put].sent_us);
    frontier.retain(|at| {
        let replaced = observed && graph.nodes[*at].answered_us < sent_us;
        !replaced && !graph.has_seen(&[put], *at)
    });
    frontier.push(put);
}

/// When what was deleted.
struct Deletions {
    /// By node: when the first deletion that may have replaced it was sent.
    may_from_us: Vec<u64>,
    /// By node: when the first acknowledged deletion that has replaced it was answered.
    has_from_us: Vec<u64>,
    /// Of those that replace what they find: sent, and the latest answer of this and all before.
    may_observed: Vec<(u64, u64)>,
    /// Of those acknowledged: answered, and the latest sending of this and all before.
    has_observed: Vec<(u64, u64)>,
}

impl Deletions {
    fn of(graph: &mut Graph) -> Self {
        let mut deletions: Vec<usize> =
            (0..graph.nodes.len()).filter(|at| graph.nodes[*at].may_delete()).collect();
        deletions.sort_by_key(|at| graph.nodes[*at].sent_us);
        let may_from_us = first(graph, &deletions, |node| node.sent_us);
        let observed = |graph: &Graph, at: &usize| graph.nodes[*at].observed;
        let may_observed = deletions.iter().filter(|at| observed(graph, at));
        let may_observed = may_observed
            .map(|at| (graph.nodes[*at].sent_us, graph.nodes[*at].answered_us))
            .scan(0, running_most)
            .collect();
        deletions.retain(|at| graph.nodes[*at].is_acknowledged());
        deletions.sort_by_key(|at| graph.nodes[*at].answered_us);
        let has_from_us = first(graph, &deletions, |node| node.answered_us);
        let has_observed = deletions.iter().filter(|at| observed(graph, at));
        let has_observed = has_observed
            .map(|at| (graph.nodes[*at].answered_us, graph.nodes[*at].sent_us))
            .scan(0, running_most)
            .collect();
        Self { may_from_us, has_from_us, may_observed, has_observed }
    }

    /// Whether a deletion sent until `by_us` may have replaced a version.
    fn may_cover(&self, graph: &Graph, at: usize, by_us: u64) -> bool {
        let before = self.may_observed.partition_point(|(sent_us, _)| *sent_us <= by_us);
        let latest = before.checked_sub(1).map(|last| self.may_observed[last].1);
        self.may_from_us[at] <= by_us || latest >= Some(graph.nodes[at].sent_us)
    }

    /// When the first acknowledged deletion that has replaced a version was answered, if that was
    /// before `by_us`.
    fn covered_since(&self, graph: &Graph, at: usize, by_us: u64) -> Option<u64> {
        if self.has_from_us[at] < by_us {
            return Some(self.has_from_us[at]);
        }
        if !graph.nodes[at].is_acknowledged() {
            return None;
        }
        // The latest sending only grows from one to the next.
        let answered_us = graph.nodes[at].answered_us;
        let first = self.has_observed.partition_point(|(_, sent_us)| *sent_us <= answered_us);
        self.has_observed.get(first).map(|(since_us, _)| *since_us).filter(|us| *us < by_us)
    }
}

/// Turns the second of each pair into the most of it so far.
#[expect(clippy::unnecessary_wraps, reason = "`scan` asks for it")]
fn running_most(most: &mut u64, (key, value): (u64, u64)) -> Option<(u64, u64)> {
    *most = value.max(*most);
    Some((key, *most))
}

/// By node: the time of the first of `deletions`, which are in that order, that had seen it.
fn first(
    graph: &mut Graph,
    deletions: &[usize],
    time: impl Fn(&super::graph::Node) -> u64,
) -> Vec<u64> {
    let mut times = vec![u64::MAX; graph.nodes.len()];
    for deletion in deletions {
        let (seen, at_us) = (graph.nodes[*deletion].seen.clone(), time(&graph.nodes[*deletion]));
        graph.walk(seen, |at, _| {
            // Who was marked before has marked all that lies behind.
            let is_new = times[at] == u64::MAX;
            times[at] = times[at].min(at_us);
            is_new
        });
    }
    times
}

/// A read, and what it is judged by.
struct Judged<'a> {
    graph: &'a mut Graph,
    deletions: &'a Deletions,
    circumstances: &'a Circumstances,
    look: &'a Look,
}

impl Judged<'_> {
    /// When the oldest write that it missed was acknowledged.
    fn oldest_missed(&mut self, frontier: &[usize]) -> Option<u64> {
        let missed: Vec<usize> = frontier.iter().copied().filter(|at| !self.has(*at)).collect();
        let puts = self.oldest_behind(missed);
        let look = self.look;
        let deleted = look.values.iter().filter_map(|at| {
            self.deletions.covered_since(self.graph, *at, look.sent_us.saturating_sub(CLOCKS_US))
        });
        deleted.chain(puts).min()
    }

    /// The oldest acknowledgement among missed writes and those missed writes that they replaced.
    fn oldest_behind(&mut self, missed: Vec<usize>) -> Option<u64> {
        let mut oldest: Option<u64> = None;
        let (mut ahead, mut steps) = (missed, 0);
        while let Some(at) = ahead.pop() {
            let node = &self.graph.nodes[at];
            if node.is_acknowledged() {
                oldest = Some(oldest.map_or(node.answered_us, |time| time.min(node.answered_us)));
            }
            steps += 1;
            if steps > STEPS_MOST {
                break;
            }
            let seen = node.seen.clone();
            ahead.extend(
                seen.into_iter()
                    .filter(|at| self.graph.nodes[*at].fate != Fate::Foreign && !self.has(*at)),
            );
        }
        oldest
    }

    /// Whether the read has a version, or what has replaced it.
    fn has(&mut self, at: usize) -> bool {
        let (look, node) = (self.look, &self.graph.nodes[at]);
        let slack_us = if node.version.writer == look.writer { 0 } else { CLOCKS_US };
        if node.is_acknowledged() && node.answered_us.saturating_add(slack_us) >= look.sent_us {
            return true;
        }
        if self.deletions.may_cover(self.graph, at, look.answered_us) {
            return true;
        }
        if self.graph.may_have_seen(&look.values, at) {
            return true;
        }
        // Somebody who is not in the ledgers may have replaced it, or, where the last write wins,
        // anybody; only not those that it had seen itself.
        let may_win = |graph: &Graph, value: usize| {
            self.circumstances.last_write_wins || graph.nodes[value].fate == Fate::Foreign
        };
        let others = look.values.iter().filter(|value| may_win(self.graph, **value));
        let others: Vec<usize> = others.copied().collect();
        others.into_iter().any(|value| !self.graph.has_seen(&[at], value))
    }
}
