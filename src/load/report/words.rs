//! What came out of a scenario, in words: the sentences of the table on top of a report.

use crate::load::record::{Summary, Verdict, Verification};

use super::input::{LabRecord, ScenarioRecord};
use super::markup::listed;
use super::number;
use super::stage::Stage;

/// How a scenario ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Everything that must hold did.
    Holds,
    /// Something did not.
    Fails,
    /// Nobody knows: it has no record, or nothing was to hold.
    Open,
}

impl Ending {
    pub fn of(record: &ScenarioRecord) -> Self {
        let verdicts = &record.scenario.verdicts;
        if record.missing.is_some() || verdicts.is_empty() {
            Self::Open
        } else if verdicts.iter().all(|verdict| verdict.holds) {
            Self::Holds
        } else {
            Self::Fails
        }
    }

    /// A sign that says it without its colour.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Holds => "✓",
            Self::Fails => "✗",
            Self::Open => "?",
        }
    }

    /// The class of its colour.
    pub fn class(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails => "fails",
            Self::Open => "open",
        }
    }
}

/// `holds`, `1 of 4 fails`, `no record`.
pub(super) fn ending(record: &ScenarioRecord) -> String {
    let verdicts = &record.scenario.verdicts;
    let failed = verdicts.iter().filter(|verdict| !verdict.holds).count();
    match Ending::of(record) {
        Ending::Holds => "all holds".to_owned(),
        Ending::Fails => {
            let fails = if failed == 1 { "fails" } else { "fail" };
            format!("{failed} of {} {fails}", verdicts.len())
        }
        Ending::Open if record.missing.is_some() => "no record".to_owned(),
        Ending::Open => "no verdict".to_owned(),
    }
}

/// `4.23 s`, `not seen by the end`, or a dash where nothing was to heal.
pub(super) fn convergence(stage: &Stage) -> String {
    match (stage.healed, stage.converged) {
        (Some(healed), Some(converged)) => number::span((converged - healed).max(0.0) * 1e3),
        (Some(_), None) => "not seen by the end".to_owned(),
        (None, _) => "–".to_owned(),
    }
}

/// What reading everything back found, over all sides. Sides that wrote the same keys were read back
/// together and say the same: that counts once.
pub(super) fn verification(record: &ScenarioRecord) -> Option<Verification> {
    let mut found: Vec<&Verification> = Vec::new();
    for verification in record.sides.iter().filter_map(|run| run.summary.verification.as_ref()) {
        if !found.contains(&verification) {
            found.push(verification);
        }
    }
    let mut found = found.into_iter().cloned();
    let first = found.next()?;
    Some(found.fold(first, |sum, one| Verification {
        keys: sum.keys.saturating_add(one.keys),
        lost: sum.lost.saturating_add(one.lost),
        resurrected: sum.resurrected.saturating_add(one.resurrected),
        overwritten: sum.overwritten.saturating_add(one.overwritten),
        stale_reads: sum.stale_reads.saturating_add(one.stale_reads),
        stalest_ms: sum.stalest_ms.max(one.stalest_ms),
        unknown_took_effect: sum.unknown_took_effect.saturating_add(one.unknown_took_effect),
        unknown_did_not: sum.unknown_did_not.saturating_add(one.unknown_did_not),
        keys_with_siblings: sum.keys_with_siblings.saturating_add(one.keys_with_siblings),
        most_siblings: sum.most_siblings.max(one.most_siblings),
        undecided: sum.undecided.saturating_add(one.undecided),
        refused_took_effect: sum.refused_took_effect.saturating_add(one.refused_took_effect),
        damaged: sum.damaged.saturating_add(one.damaged),
        unread: sum.unread.saturating_add(one.unread),
        examples: sum.examples.into_iter().chain(one.examples).collect(),
    }))
}

/// `nothing`, `3 writes and 1 value came back`, `not checked`.
pub(super) fn losses(record: &ScenarioRecord) -> String {
    let Some(found) = verification(record) else { return "not checked".to_owned() };
    let mut parts = Vec::new();
    if found.lost > 0 {
        parts.push(number::counted(found.lost, "write"));
    }
    if found.resurrected > 0 {
        parts.push(format!("{} came back", number::counted(found.resurrected, "value")));
    }
    if found.overwritten > 0 {
        let writes = number::counted(found.overwritten, "write");
        parts.push(format!("{writes} to a later one"));
    }
    if found.damaged > 0 {
        parts.push(format!("{} damaged", number::counted(found.damaged, "value")));
    }
    if found.unread > 0 {
        parts.push(format!("{} not read back", number::counted(found.unread, "key")));
    }
    if parts.is_empty() { "nothing".to_owned() } else { listed(&parts) }
}

/// The sentence below the title of a report.
pub(super) fn headline(lab: &LabRecord) -> String {
    let all = lab.scenarios.len();
    let which = |ending: Ending| {
        let named = lab.scenarios.iter().filter(|record| Ending::of(record) == ending);
        named.map(name).collect::<Vec<_>>()
    };
    let (failed, open) = (which(Ending::Fails), which(Ending::Open));
    let mut text = match (all, failed.len()) {
        (1, 0) if open.is_empty() => "The scenario ended as it must.".to_owned(),
        (_, 0) if open.is_empty() => format!("All {all} scenarios ended as they must."),
        (_, 0) => format!("{} of {all} scenarios ended as they must.", all - open.len()),
        (_, count) => format!("{count} of {all} did not end as it must: {}.", listed(&failed)),
    };
    if !open.is_empty() {
        text.push_str(&format!(" Without a verdict: {}.", listed(&open)));
    }
    let found: Vec<Verification> = lab.scenarios.iter().filter_map(verification).collect();
    let lost = found.iter().fold(0u64, |sum, one| sum.saturating_add(one.lost));
    let back = found.iter().fold(0u64, |sum, one| sum.saturating_add(one.resurrected));
    if !found.is_empty() {
        let checked = if found.len() == all {
            "Everything written was read back afterwards".to_owned()
        } else {
            format!("Everything written was read back afterwards in {} of them", found.len())
        };
        let outcome = lost_and_back(lost, back);
        text.push_str(&format!(" {checked}: {outcome}."));
    }
    text
}

fn lost_and_back(lost: u64, back: u64) -> String {
    match (lost, back) {
        (0, 0) => {
            "no acknowledged write was lost, nothing deleted or replaced came back".to_owned()
        }
        _ => format!(
            "{} lost, {} came back",
            number::counted(lost, "acknowledged write"),
            number::counted(back, "value")
        ),
    }
}

/// The sentence below the title of a run.
pub(super) fn run_headline(summary: &Summary) -> String {
    let failed = summary.failed.values().fold(0u64, |sum, count| sum.saturating_add(*count));
    let ended = summary.ok as f64 + failed as f64 + summary.unknown as f64;
    if ended == 0.0 || summary.measured_ms == 0 {
        return "No request ended.".to_owned();
    }
    let mut text = format!(
        "{} answered over {}, {} of those that ended",
        number::per_second(summary.ok as f64 * 1e3 / summary.measured_ms as f64),
        number::span(summary.measured_ms as f64),
        number::percent(summary.ok as f64 / ended)
    );
    if let Some(p99) = summary.latency.get("all").and_then(|all| all.percentile_us.get("99")) {
        text.push_str(&format!("; 99 of 100 within {}", number::latency(*p99 as f64)));
    }
    let unknown = summary.unknown;
    text.push_str(&match (failed, unknown) {
        (0, 0) => ". None failed.".to_owned(),
        _ => format!(
            ". {} failed, {} of unknown outcome.",
            number::count(failed),
            number::count(unknown)
        ),
    });
    if let Some(found) = &summary.verification {
        text.push_str(&format!(
            " Everything written was read back afterwards: {}.",
            lost_and_back(found.lost, found.resurrected)
        ));
    }
    text
}

/// `3 one-way`.
pub(super) fn name(record: &ScenarioRecord) -> String {
    match record.scenario.number {
        0 => record.scenario.name.clone(),
        number => format!("{number} {}", record.scenario.name),
    }
}

/// What reading everything back found, a line for each thing: what, and how many.
pub(super) fn findings(found: &Verification) -> Vec<(&'static str, String)> {
    let stale = match found.stalest_ms {
        Some(ms) if found.stale_reads > 0 => format!(
            "{}, the stalest by {}",
            number::count(found.stale_reads),
            number::span(ms as f64)
        ),
        _ => number::count(found.stale_reads),
    };
    let siblings = match found.keys_with_siblings {
        0 => "0".to_owned(),
        keys => format!("{}, at most {} versions", number::count(keys), found.most_siblings),
    };
    let mut findings = vec![
        ("keys read back", number::count(found.keys)),
        ("acknowledged writes lost", number::count(found.lost)),
        ("deleted or replaced values that came back", number::count(found.resurrected)),
        ("lost to a later write (last write wins)", number::count(found.overwritten)),
        ("stale reads", stale),
        ("unknown outcomes that took effect", number::count(found.unknown_took_effect)),
        ("unknown outcomes that did not", number::count(found.unknown_did_not)),
        ("keys left with siblings", siblings),
    ];
    // Worth a line only when they happen.
    let rare = [
        ("writes nobody can judge: their writers' ledgers are missing", found.undecided),
        ("refused writes that took effect", found.refused_took_effect),
        ("values with a wrong checksum", found.damaged),
        ("keys that could not be read back", found.unread),
    ];
    let rare = rare.into_iter().filter(|(_, count)| *count > 0);
    findings.extend(rare.map(|(what, count)| (what, number::count(count))));
    findings
}

/// A verdict's sign and class.
pub(super) fn verdict(verdict: &Verdict) -> Ending {
    if verdict.holds { Ending::Holds } else { Ending::Fails }
}
