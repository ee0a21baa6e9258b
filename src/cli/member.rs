//! `member`, `plan`, `commit`, `abort`: who belongs to the cluster, and changing it.
//!
//! A change is staged, looked at, and committed: nothing moves before. What would move is computed
//! here, from the cluster state and from what the nodes say of their disks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Asked, Commit, Member, MemberCommand};
use super::cluster::{ask_all, connect, name_of};
use super::exit::{Ending, Exit, Failure};
use super::output::{Form, note, table};
use super::quantity::{counted, size};
use crate::client::{Client, NodeStatus, Topology, direct};
use crate::ids::NodeId;
use crate::membership::{
    MemberEntry, MemberFacts, Moves, Plan, PlanError, PlannedChange, ShareChange, Standing, preview,
};

pub(super) const NEXT: &str = "next: `ringdove plan` shows what would move; then `ringdove commit`, or \
                    `ringdove abort`";

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::new(Exit::Refused, "invalid", error.to_string())
    }
}

pub(super) async fn run(asked: &Asked<Member>) -> Ending {
    let client = connect(&asked.cluster).await?;
    member(&client, &asked.question, asked.form()).await
}

pub(super) async fn member(client: &Client, asked: &Member, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let find = |who: &str| topology.state().find(who);
    let (member, change, force) = match &asked.command {
        MemberCommand::List => return list(&topology, form),
        MemberCommand::Join { node } => (find(node)?, PlannedChange::Join, false),
        MemberCommand::Leave { node } => (find(node)?, PlannedChange::Leave, false),
        MemberCommand::Weight { node, weight } => {
            (find(node)?, PlannedChange::Weight(*weight), false)
        }
        MemberCommand::Zone { node, zone } => {
            (find(node)?, PlannedChange::Zone(zone.clone()), false)
        }
        MemberCommand::Replace { dead, with, force } => {
            (find(with)?, PlannedChange::Replace { dead: find(dead)? }, *force)
        }
    };
    client.stage_change(member, change, force).await?;
    let topology = client.refresh().await?;
    let mut text = planned(&topology);
    let _ = writeln!(text, "\n{NEXT}");
    form.answer(
        &text,
        || json!({ "plan": mark(topology.state().plan_mark()), "changes": changes(&topology) }),
    )?;
    Ok(Exit::Done)
}

/// The members, with what each owns and what is planned for it.
fn list(topology: &Topology, form: Form) -> Ending {
    let state = topology.state();
    let mut members: Vec<_> = state.members.iter().collect();
    members.sort_by_key(|(id, entry)| (entry.standing == Standing::Removed, entry.name(), *id));
    let slots = |id: NodeId| -> u32 {
        let shares = state.slots.keys().flat_map(|n| topology.shares(*n));
        shares.filter(|share| share.id == id).map(|share| share.owned).sum()
    };
    let row = |(id, entry): &(&NodeId, &MemberEntry)| {
        vec![
            entry.name().to_owned(),
            id.short(),
            entry.standing.name().to_owned(),
            entry.zone().to_owned(),
            entry.weight().to_string(),
            slots(**id).to_string(),
            entry.address().to_owned(),
        ]
    };
    let header = ["NODE", "ID", "STANDING", "ZONE", "WEIGHT", "SLOTS", "ADDRESS"];
    let mut text = table(&header, &["WEIGHT", "SLOTS"], members.iter().map(row).collect());
    let plan = planned(topology);
    if !plan.is_empty() {
        let _ = writeln!(text, "\n{plan}\n{NEXT}");
    }
    for (_, entry) in &members {
        if entry.standing == Standing::Candidate && entry.planned.value.is_none() {
            let name = entry.name();
            let _ = writeln!(text, "\n{name} can join: `ringdove member join {name}`");
        }
    }
    form.answer(&text, || {
        let member = |(id, entry): &(&NodeId, &MemberEntry)| {
            json!({
                "id": id.to_string(),
                "name": entry.name(),
                "standing": entry.standing.name(),
                "zone": entry.zone(),
                "weight": entry.weight(),
                "slots": slots(**id),
                "address": entry.address(),
                "planned": entry.planned.value.as_ref().map(|c| state.describe(**id, c)),
            })
        };
        json!({
            "cluster": state.cluster,
            "changing": topology.changing(),
            "members": members.iter().map(member).collect::<Vec<_>>(),
        })
    })?;
    Ok(Exit::Done)
}

/// What is planned, one change a line.
fn planned(topology: &Topology) -> String {
    let state = topology.state();
    let line = |(id, change)| format!("planned: {}\n", state.describe(id, change));
    let mut lines: Vec<String> = state.planned().map(line).collect();
    lines.sort_unstable();
    let count = |(name, n)| format!("planned: {}\n", describe_count(topology, name, n));
    lines.extend(state.planned_counts().map(count));
    lines.concat()
}

fn changes(topology: &Topology) -> Vec<Value> {
    let state = topology.state();
    let change = |(id, change): (NodeId, &PlannedChange)| {
        json!({
            "id": id.to_string(),
            "name": name_of(topology, id),
            "change": state.describe(id, change),
        })
    };
    let count = |(name, n): (&str, u8)| json!({ "bucket": name, "n": n, "change": describe_count(topology, name, n) });
    state.planned().map(change).chain(state.planned_counts().map(count)).collect()
}

/// "bucket carts gets n=4 (now 3)".
fn describe_count(topology: &Topology, name: &str, n: u8) -> String {
    let now = topology.bucket(name).map_or(0, |settings| settings.n);
    format!("bucket {name} gets n={n} (now {now})")
}

fn mark(mark: u64) -> Option<String> {
    (mark != 0).then(|| format!("{mark:016x}"))
}

pub(super) async fn run_plan(asked: &Asked<super::args::Plan>) -> Ending {
    let client = connect(&asked.cluster).await?;
    plan(&client, asked.cluster.timeout, asked.form()).await
}

/// Shows what the plan would do. The time is for all nodes together.
pub(super) async fn plan(client: &Client, time: Duration, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let ask = |address: String| async move { direct::status(&address, time).await };
    let answers = ask_all(&topology, ask).await;
    let facts = |status: &NodeStatus| {
        let counter = |name: &str| {
            let counter = status.counters.iter().find(|(counter, _)| counter == name);
            counter.map(|(_, value)| *value)
        };
        let (used_bytes, free_bytes) = (counter("disk_used_bytes"), counter("disk_free_bytes"));
        MemberFacts { reachable: true, used_bytes, free_bytes }
    };
    let facts: BTreeMap<NodeId, MemberFacts> = answers
        .iter()
        .map(|(id, _, answer)| (*id, answer.as_ref().map(facts).unwrap_or_default()))
        .collect();
    let plan = preview(&topology, &facts);
    form.answer(&text(&topology, &plan), || document(&topology, &plan))?;
    Ok(Exit::Done)
}

fn text(topology: &Topology, plan: &Plan) -> String {
    let mut text = planned(topology);
    let is_empty = plan.changes.is_empty() && plan.counts.is_empty();
    if is_empty {
        text += "nothing is planned\n";
    }
    if !plan.moves.is_empty() {
        text.push('\n');
        text += &tables(topology, plan);
        let bytes = size(plan.moves.iter().map(|moves| moves.bytes).sum());
        let slots: u32 = plan.moves.iter().map(|moves| moves.slots).sum();
        let slots = counted(slots as usize, "slot");
        let _ = match (plan.under_way, is_empty) {
            (0, _) => writeln!(text, "\n{slots} would change hands, about {bytes}"),
            (_, true) => writeln!(text, "\n{slots} changing hands, about {bytes}"),
            (busy, false) => {
                let busy = counted(busy, "slot");
                writeln!(text, "\n{slots} would change hands, about {bytes}; {busy} already are")
            }
        };
    }
    if !plan.counts.is_empty() {
        text += "\nOf a bucket that gets another n nothing but its own keys is copied, from \"the others\":\n\
                 the bytes above are as if the data were all of its.\n";
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    match (mark(plan.mark), plan.moves.is_empty()) {
        (Some(mark), _) => drop(writeln!(
            text,
            "\nnext: `ringdove commit --plan {mark}` makes it happen; `ringdove abort` forgets it"
        )),
        (None, true) => {
            text += "next: `ringdove member join|leave|replace|weight|zone` or `ringdove bucket set \
                     NAME --n COUNT` plans something\n"
        }
        (None, false) => text += "next: `ringdove status` shows how far it is\n",
    }
    text
}

fn tables(topology: &Topology, plan: &Plan) -> String {
    let share = |share: &ShareChange| {
        let to_fair = match share.fair_thousandths {
            0 => "-".to_owned(),
            fair => format!("{:.2}", f64::from(share.after) * 1000.0 / fair as f64),
        };
        vec![
            name_of(topology, share.id),
            share.before.to_string(),
            share.after.to_string(),
            to_fair,
            size(share.arriving_bytes),
        ]
    };
    let numbers = ["SLOTS", "AFTER", "TO FAIR", "RECEIVES"];
    let header = ["NODE", "SLOTS", "AFTER", "TO FAIR", "RECEIVES"];
    let mut shares: Vec<&ShareChange> = plan.shares.iter().collect();
    shares.sort_by_key(|share| name_of(topology, share.id));
    let mut text = table(&header, &numbers, shares.into_iter().map(share).collect());
    let moves = |moves: &Moves| {
        let from = moves.from.map_or_else(|| "the others".to_owned(), |id| name_of(topology, id));
        vec![from, name_of(topology, moves.to), moves.slots.to_string(), size(moves.bytes)]
    };
    text.push('\n');
    let header = ["FROM", "TO", "SLOTS", "BYTES"];
    let mut all: Vec<&Moves> = plan.moves.iter().collect();
    all.sort_by_key(|moves| {
        (moves.from.map(|id| name_of(topology, id)), name_of(topology, moves.to))
    });
    text + &table(&header, &["SLOTS", "BYTES"], all.into_iter().map(moves).collect())
}

fn document(topology: &Topology, plan: &Plan) -> Value {
    let share = |share: &ShareChange| {
        json!({
            "id": share.id.to_string(),
            "name": name_of(topology, share.id),
            "slots_before": share.before,
            "slots_after": share.after,
            "fair": share.fair_thousandths as f64 / 1000.0,
            "arriving_bytes": share.arriving_bytes,
        })
    };
    let moves = |moves: &Moves| {
        json!({
            "from": moves.from.map(|id| name_of(topology, id)),
            "to": name_of(topology, moves.to),
            "slots": moves.slots,
            "bytes": moves.bytes,
        })
    };
    json!({
        "plan": mark(plan.mark),
        "changes": changes(topology),
        "members": plan.shares.iter().map(share).collect::<Vec<_>>(),
        "moves": plan.moves.iter().map(moves).collect::<Vec<_>>(),
        "under_way": plan.under_way,
        "warnings": plan.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

pub(super) async fn run_commit(asked: &Asked<Commit>) -> Ending {
    let client = connect(&asked.cluster).await?;
    commit(&client, &asked.question, asked.form()).await
}

pub(super) async fn commit(client: &Client, asked: &Commit, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let (text, changes) = (planned(&topology), changes(&topology));
    client.commit_plan(asked.plan).await?;
    let changing = client.refresh().await?.changing();
    let text = format!(
        "{}\n{} to change hands\n\nnext: `ringdove status` shows how far it is\n",
        text.replace("planned:", "committed:"),
        counted(changing, "slot")
    );
    form.answer(&text, || json!({ "committed": changes, "changing": changing }))?;
    Ok(Exit::Done)
}

pub(super) async fn run_abort(asked: &Asked<super::args::Abort>) -> Ending {
    let client = connect(&asked.cluster).await?;
    abort(&client, asked.form()).await
}

pub(super) async fn abort(client: &Client, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let changes = changes(&topology);
    client.abort_plan().await?;
    if changes.is_empty() && form == Form::Text {
        note("nothing was planned");
    }
    let text = planned(&topology).replace("planned:", "forgotten:");
    form.answer(&text, || json!({ "aborted": changes }))?;
    Ok(Exit::Done)
}
