//! P1: no acknowledged write is lost.
//!
//! Three looks at it. As a client: each acknowledged value is in the last reads at R=N, or a write
//! that may have seen it (and did not certainly fail) covers it. With the facts: each acknowledged
//! write is alive on the disks at the end, or covered by a chain of writes that had seen it, the
//! last of which is alive. And at its death: a dot may only die at the hands of a write that was
//! entitled to replace it.

use std::collections::{BTreeMap, BTreeSet};

use ringdove::causality::Dot;
use ringdove::ids::WriteId;

use super::{Relations, Violation};
use crate::history::{Basis, Fact, History, Named, Op, Outcome};

pub fn check(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut found = black_box(history, relations);
    if relations.is_exact {
        found.extend(at_the_end(history, relations));
        found.extend(wrongful_deaths(history, relations));
    }
    found
}

/// The last read at R=N of each key.
pub fn final_reads(history: &History) -> BTreeMap<&str, &Op> {
    let reads = history.ops.iter().filter(|op| op.is_final && op.outcome == Outcome::Ok);
    reads.map(|op| (op.key.as_str(), op)).collect()
}

fn acknowledged(history: &History) -> impl Iterator<Item = (&Op, WriteId)> {
    let ok = history.ops.iter().filter(|op| op.outcome == Outcome::Ok);
    let ok = ok.filter(|op| !history.keeps_latest(&op.key));
    ok.filter_map(|op| Some((op, op.write?)))
}

fn black_box(history: &History, relations: &Relations) -> Vec<Violation> {
    let finals = final_reads(history);
    let mut found = Vec::new();
    for (op, write) in acknowledged(history) {
        let Some(read) = finals.get(op.key.as_str()) else { continue };
        if history.may_be_hidden(op, read.returned) {
            continue;
        }
        let covered = |upper: &WriteId| {
            let by = relations.op(history, *upper).expect("every write has an operation");
            by.outcome != Outcome::Fail && relations.may_cover(&op.key, *upper, write)
        };
        if !read.values.contains(&write) && !relations.writes(&op.key).iter().any(covered) {
            let what = format!(
                "{} of {} was acknowledged; at the end it is gone and nothing covers it",
                Named(write),
                op.key
            );
            found.push(Violation::new("P1", what, vec![op.id]));
        }
    }
    found
}

fn at_the_end(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut alive: BTreeMap<&str, BTreeSet<WriteId>> = BTreeMap::new();
    for (key, held) in history.final_disks.iter().flatten() {
        alive.entry(key).or_default().extend(held.live.iter().map(|(_, write, _)| write));
    }
    for (key, writes) in &history.reaped {
        alive.entry(key).or_default().extend(writes.keys().map(|(write, _)| write));
    }
    let mut found = Vec::new();
    for (op, write) in acknowledged(history) {
        let none = BTreeSet::new();
        let alive = alive.get(op.key.as_str()).unwrap_or(&none);
        let covered = alive.iter().any(|upper| relations.may_cover(&op.key, *upper, write));
        if !alive.contains(&write) && !covered {
            let what = format!(
                "{} of {} was acknowledged; no disk has it at the end, nor a write that saw it",
                Named(write),
                op.key
            );
            found.push(Violation::new("P1", what, vec![op.id]));
        }
    }
    found
}

/// Follows each dot to the first state that knows it as dead.
fn wrongful_deaths(history: &History, relations: &Relations) -> Vec<Violation> {
    let mut alive: BTreeMap<&str, BTreeMap<Dot, WriteId>> = BTreeMap::new();
    let mut dead: BTreeSet<(&str, Dot)> = BTreeSet::new();
    // Objects remember what was replaced by its name: the other dots of a write that was made
    // twice die in merges, where nobody writes.
    let mut replaced: BTreeSet<(&str, WriteId)> = BTreeSet::new();
    // A deletion that all have agreed to forget may come back from an owner that had not forgotten it
    // yet, and is forgotten there by merging, too.
    let mut agreed: BTreeSet<(&str, WriteId)> = BTreeSet::new();
    let mut found = Vec::new();
    for fact in &history.facts {
        if let Fact::Agreed { key, writes } = fact {
            agreed.extend(writes.iter().map(|write| (key.as_str(), *write)));
        }
        let Fact::Staged { key, minted, held, .. } = fact else { continue };
        if history.keeps_latest(key) {
            continue;
        }
        let known = alive.entry(key).or_default();
        // A replica that is behind shows as alive what has died elsewhere: the first death counts.
        let live = held.live.iter().filter(|(dot, ..)| !dead.contains(&(key.as_str(), *dot)));
        known.extend(live.map(|(dot, write, _)| (*dot, *write)));
        let is_live = |dot: &Dot| held.live.iter().any(|(live, ..)| live == dot);
        let died: Vec<(Dot, WriteId)> = known
            .iter()
            .filter(|(dot, _)| held.clock.contains(**dot) && !is_live(dot))
            .map(|(dot, write)| (*dot, *write))
            .collect();
        for (dot, victim) in died {
            known.remove(&dot);
            dead.insert((key, dot));
            let killer = minted.and_then(|minted| {
                held.live.iter().find(|(live, ..)| *live == minted).map(|(_, write, _)| *write)
            });
            if is_entitled(history, relations, killer, victim) {
                replaced.insert((key, victim));
            } else if !replaced.contains(&(key.as_str(), victim))
                && !agreed.contains(&(key.as_str(), victim))
            {
                let by = killer.map_or("no write at all".to_owned(), |k| Named(k).to_string());
                let what = format!(
                    "{} ({dot}) of {key} was replaced by {by}, which had not seen it",
                    Named(victim)
                );
                let op_of = |write| relations.op(history, write).map(|op| op.id);
                let ops = op_of(victim).into_iter().chain(killer.and_then(op_of)).collect();
                found.push(Violation::new("P1", what, ops));
            }
        }
    }
    found
}

fn is_entitled(
    history: &History,
    relations: &Relations,
    killer: Option<WriteId>,
    victim: WriteId,
) -> bool {
    let Some(killer) = killer else { return false };
    let Some(op) = relations.op(history, killer) else { return false };
    match op.basis {
        Some(Basis::Observed) => true,
        Some(Basis::Context(token)) => entitles(history, relations, token, victim),
        _ => false,
    }
}

/// Whether a token was returned together with `victim`, or by a write of it, or by a write that
/// had itself replaced it.
fn entitles(
    history: &History,
    relations: &Relations,
    token: crate::history::Token,
    victim: WriteId,
) -> bool {
    let answers = history.ops.iter().filter(|op| op.context_out == Some(token));
    let by_answer = |write: WriteId| {
        let op = relations.op(history, write).expect("every write has an operation");
        write == victim || relations.may_cover(&op.key, write, victim)
    };
    relations.values(token).any(|seen| seen == victim)
        || answers.filter_map(|op| op.write).any(by_answer)
        // The reply hid it because of something it did return.
        || relations.values(token).any(by_answer)
        || may_hide(history, relations, token, victim)
}

/// Replies do not list deletions, nor what has expired: it may be the victim, or may have hidden it.
fn may_hide(
    history: &History,
    relations: &Relations,
    token: crate::history::Token,
    victim: WriteId,
) -> bool {
    let replies = history.ops.iter().filter(|op| op.context_out == Some(token));
    let Some(reply) = replies.max_by_key(|op| op.returned) else { return false };
    relations.writes(&reply.key).iter().any(|write| {
        let op = relations.op(history, *write).expect("every write has an operation");
        history.may_be_hidden(op, reply.returned)
            && (*write == victim || relations.may_cover(&reply.key, *write, victim))
    })
}
