//! `ring`: the members, and how the partitions are spread over them.

use std::fmt::Write as _;

use serde_json::json;

use super::args::{Asked, Ring};
use super::cluster::{connect, name_of};
use super::exit::{Ending, Exit, Failure};
use super::output::{Form, table};
use super::quantity::percent;
use crate::client::{Client, Topology};
use crate::ids::{NodeId, Partition, Scope};
use crate::membership::MemberEntry;

pub(super) async fn run(asked: &Asked<Ring>) -> Ending {
    let client = connect(&asked.cluster).await?;
    ring(&client, &asked.question, "default", asked.form()).await
}

/// Shows the ring of a bucket: of the one that `asked` names, or else of `bucket`.
pub(super) async fn ring(client: &Client, asked: &Ring, bucket: &str, form: Form) -> Ending {
    let topology = client.refresh().await?;
    let bucket = asked.bucket.as_deref().unwrap_or(bucket);
    if topology.bucket(bucket).is_none() {
        return Err(super::bucket::unknown(bucket));
    }
    match asked.partition {
        None => show_shares(&topology, topology.home(bucket), form),
        Some(partition) => {
            let partition = Partition(partition);
            show_partition(&topology, topology.read_scope(bucket, partition), partition, form)
        }
    }
}

fn show_shares(topology: &Topology, scope: Scope, form: Form) -> Ending {
    let n = scope.n;
    let mut shares = topology.shares(scope);
    shares.sort_by_key(|share| name_of(topology, share.id));
    let all: u64 = shares.iter().map(|share| u64::from(share.owned)).sum();
    let row = |share: &crate::ring::Share| {
        let member = topology.member(share.id);
        vec![
            name_of(topology, share.id),
            share.id.short(),
            member.map_or_else(String::new, |member| member.zone().to_owned()),
            member.map_or_else(String::new, |member| member.weight().to_string()),
            share.owned.to_string(),
            share.first.to_string(),
            percent(share.owned.into(), all),
            format!("{:.2}", f64::from(share.owned_per_fair) / 1e4),
        ]
    };
    let header = ["NODE", "ID", "ZONE", "WEIGHT", "PARTITIONS", "FIRST", "SHARE", "TO FAIR"];
    let numbers = ["WEIGHT", "PARTITIONS", "FIRST", "SHARE", "TO FAIR"];
    let mut text = table(&header, &numbers, shares.iter().map(row).collect());
    let version = topology.version();
    let _ = writeln!(
        text,
        "\ncluster {}: {} partitions, {n} replicas of each, epoch {}{}",
        topology.state().cluster,
        topology.partitions(),
        version.epoch,
        super::status::changing(topology)
    );
    form.answer(&text, || {
        let member = |share: &crate::ring::Share| {
            let member = topology.member(share.id);
            json!({
                "id": share.id.to_string(),
                "name": name_of(topology, share.id),
                "address": member.map(MemberEntry::address),
                "zone": member.map(MemberEntry::zone),
                "weight": member.map(MemberEntry::weight),
                "partitions": share.owned,
                "first": share.first,
                "share": if all == 0 { 0.0 } else { f64::from(share.owned) / all as f64 },
                "to_fair": f64::from(share.owned_per_fair) / 1e4,
            })
        };
        json!({
            "cluster": topology.state().cluster,
            "partitions": topology.partitions(),
            "replicas": n,
            "epoch": version.epoch,
            "changing": topology.changing(),
            "ring": format!("{:016x}", version.hash),
            "members": shares.iter().map(member).collect::<Vec<_>>(),
        })
    })?;
    Ok(Exit::Done)
}

fn show_partition(topology: &Topology, scope: Scope, partition: Partition, form: Form) -> Ending {
    let last = topology.partitions() - 1;
    if u32::from(partition.0) > last {
        let message = format!("there is no partition {partition}");
        return Err(Failure::usage(message).hint(format!("they are numbered from 0 to {last}")));
    }
    let primaries = topology.primaries(partition, scope);
    let fallbacks = topology.fallbacks(partition, scope);
    let slots = topology.slots(partition, scope);
    let changing = slots.iter().filter_map(|slot| Some((slot.successor?, slot.owner)));
    let (successors, owners): (Vec<NodeId>, Vec<Option<NodeId>>) = changing.unzip();
    let heir = |(id, owner): (_, &Option<NodeId>)| match owner {
        Some(owner) => (id, format!("successor of {}", name_of(topology, *owner))),
        None => (id, "successor".to_owned()),
    };
    let roles = primaries.iter().map(|id| (id, "owner".to_owned()));
    let roles = roles.chain(successors.iter().zip(&owners).map(heir));
    let roles = roles.chain(fallbacks.iter().map(|id| (id, "fallback".to_owned())));
    let row = |(at, (id, role)): (usize, (&NodeId, String))| {
        let member = topology.member(*id);
        let (address, zone) =
            member.map_or_else(Default::default, |m| (m.address().to_owned(), m.zone().to_owned()));
        vec![(at + 1).to_string(), role, name_of(topology, *id), address, zone]
    };
    let rows = roles.enumerate().map(row).collect();
    let text = table(&["#", "ROLE", "NODE", "ADDRESS", "ZONE"], &["#"], rows);
    let named = |ids: &[NodeId]| {
        let one = |id: &NodeId| json!({ "id": id.to_string(), "name": name_of(topology, *id) });
        ids.iter().map(one).collect::<Vec<_>>()
    };
    form.answer(&text, || {
        json!({
            "partition": partition.0,
            "primaries": named(primaries),
            "successors": named(&successors),
            "fallbacks": named(&fallbacks),
        })
    })?;
    Ok(Exit::Done)
}
