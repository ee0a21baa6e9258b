//! Counting what is in the cluster, each key once.
//!
//! Every owner of a partition has its keys, and knows how many without looking. So that a key
//! counts once, a partition is counted by the first of its owners that is among those asked: who
//! that is everybody knows from the same ring. Whoever does not answer is left out, and the others
//! are asked again. (Dividing by N would be wrong wherever replicas differ, or one is away.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};

use super::node::Node;
use crate::ids::{NodeId, Partition, Scope};
use crate::store::Store as _;
use crate::wire::messages::{
    BucketTally, ClusterTally, Control, ControlReply, NodeTally, Response,
};

/// How long one member may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(700);

type Tallies = BTreeMap<String, BucketTally>;

impl Node {
    /// What is in each bucket, over the cluster.
    pub async fn tallies(&self) -> ClusterTally {
        let topology = self.topology();
        let members: BTreeSet<NodeId> = topology.state().serving().map(|(id, _)| id).collect();
        let is_there = |id: &NodeId| *id == self.id || self.links.is_up(*id);
        let mut among: Vec<NodeId> = members.iter().copied().filter(is_there).collect();
        let mut answers = self.ask_for_tallies(&among).await;
        if answers.len() < among.len() {
            among.retain(|id| answers.contains_key(id));
            answers = self.ask_for_tallies(&among).await;
        }
        let mut sum = Tallies::new();
        let mut uncounted = 0;
        for said in answers.values() {
            uncounted += said.uncounted;
            said.buckets.iter().for_each(|tally| add(&mut sum, tally));
        }
        uncounted += partitions_without(&topology, &among);
        let silent = members.iter().filter(|id| !answers.contains_key(id));
        let name = |id: &NodeId| topology.member(*id).map(|entry| entry.name().to_owned());
        ClusterTally {
            buckets: sum.into_values().collect(),
            silent: silent.filter_map(name).collect(),
            uncounted,
        }
    }

    async fn ask_for_tallies(&self, among: &[NodeId]) -> BTreeMap<NodeId, NodeTally> {
        let mut asking = JoinSet::new();
        for id in among.iter().copied().filter(|id| *id != self.id) {
            let (links, control) = (self.links.clone(), Control::Tally(among.to_vec()));
            asking.spawn(async move { (id, links.ask(id, control, ANSWER_WITHIN).await) });
        }
        let mut answers = BTreeMap::new();
        if among.contains(&self.id) {
            answers.insert(self.id, self.tally(among.to_vec()).await);
        }
        while let Some(answered) = asking.join_next().await {
            if let Ok((id, Some(Response::Control(ControlReply::Tally(said))))) = answered {
                answers.insert(id, said);
            }
        }
        answers
    }

    /// What this node has of the partitions of which it is the first owner among these.
    pub async fn tally(&self, among: Vec<NodeId>) -> NodeTally {
        let (topology, store, id) = (self.topology(), self.store.clone(), self.id);
        let discarded = self.discarded();
        // All trees are looked at: a millisecond for a thousand partitions, more for more.
        let counting = spawn_blocking(move || {
            let among: BTreeSet<NodeId> = among.into_iter().collect();
            let (mut sum, mut uncounted) = (Tallies::new(), 0);
            for partition in (0..topology.partitions()).map(|at| Partition(at as u16)) {
                let comes_first = |scope: Scope| {
                    let owners = topology.primaries(partition, scope).iter();
                    owners.copied().find(|owner| among.contains(owner)) == Some(id)
                };
                let Some(roots) = store.roots(partition) else {
                    uncounted += u32::from(topology.state().slots.keys().copied().any(comes_first));
                    continue;
                };
                for root in roots {
                    let is_known = topology.bucket(&root.bucket).is_some();
                    if is_known && comes_first(topology.read_scope(&root.bucket, partition)) {
                        let tally = root.tally;
                        let counted = BucketTally {
                            bucket: root.bucket,
                            keys: tally.keys.saturating_sub(tally.deleted),
                            deleted: tally.deleted,
                            conflicts: tally.conflicts,
                            bytes: tally.bytes,
                            discarded: 0,
                        };
                        add(&mut sum, &counted);
                    }
                }
            }
            for (bucket, discarded) in discarded {
                add(&mut sum, &BucketTally { bucket, discarded, ..BucketTally::default() });
            }
            NodeTally { buckets: sum.into_values().collect(), uncounted }
        });
        counting.await.expect("counting does not panic, and nobody aborts it")
    }

    /// By bucket, what last-write-wins has dropped here of keys whose first owner this node is.
    #[must_use]
    pub fn discarded(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for gauge in &self.gauges {
            for (bucket, count) in &gauge.lock().expect("no holder of the lock panics").discarded {
                *sum.entry(bucket.clone()).or_default() += count;
            }
        }
        sum
    }
}

/// Partitions of which no owner is among these.
fn partitions_without(topology: &crate::membership::Topology, among: &[NodeId]) -> u32 {
    let is_without = |at: &u32| {
        let partition = Partition(*at as u16);
        let is_here = |owner: &NodeId| among.contains(owner);
        let scopes = topology.state().slots.keys();
        scopes.into_iter().any(|scope| !topology.primaries(partition, *scope).iter().any(is_here))
    };
    (0..topology.partitions()).filter(is_without).count() as u32
}

fn add(sum: &mut Tallies, tally: &BucketTally) {
    let BucketTally { bucket, keys, deleted, conflicts, bytes, discarded } = tally;
    let known = sum
        .entry(bucket.clone())
        .or_insert_with(|| BucketTally { bucket: bucket.clone(), ..BucketTally::default() });
    known.keys += keys;
    known.deleted += deleted;
    known.conflicts += conflicts;
    known.bytes += bytes;
    known.discarded += discarded;
}
