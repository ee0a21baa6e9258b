//! Whom to ask for a key, and whom next.
//!
//! ```text
//!   primaries of the key's partition, in order of preference     they hold it
//!   all other members, from a random one on                      they pass it on
//!   whoever was passed by, because it has been silent lately     better than nobody
//!   the seeds                                                    the members may all have moved
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::node::{Node, Patience};
use crate::ids::NodeId;
use crate::key::Key;
use crate::membership::Topology;

/// A topology, and the nodes behind its members. Replaced as a whole.
pub(super) struct Map {
    topology: Arc<Topology>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    seeds: Arc<[Arc<Node>]>,
}

/// Which members a client uses, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Only those that are seeds.
    pub(super) only_seeds: bool,
    /// How long they are given.
    pub(super) patience: Patience,
}

impl Map {
    /// A map of `topology` that keeps the connections of `known` nodes which are still members.
    pub(super) fn new(
        topology: Topology,
        seeds: Arc<[Arc<Node>]>,
        reach: Reach,
        known: Option<&Self>,
    ) -> Self {
        let known = known.into_iter().flat_map(|map| map.nodes.values()).chain(seeds.iter());
        let mut by_address: BTreeMap<String, Arc<Node>> =
            known.map(|node| (node.address().to_owned(), node.clone())).collect();
        let mut node_of = |address: &str| {
            let fresh = || Arc::new(Node::new(address, reach.patience));
            by_address.entry(address.to_owned()).or_insert_with(fresh).clone()
        };
        let is_used =
            |address: &str| !reach.only_seeds || seeds.iter().any(|seed| seed.address() == address);
        let serving = topology.state().serving().filter(|(_, entry)| is_used(entry.address()));
        let nodes = serving.map(|(id, entry)| (id, node_of(entry.address()))).collect();
        Self { topology: Arc::new(topology), nodes, seeds }
    }

    pub(super) fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    pub(super) fn seeds(&self) -> &Arc<[Arc<Node>]> {
        &self.seeds
    }

    /// Seeds under an address that no member goes by (another name for one, often).
    pub(super) fn strangers(&self) -> impl Iterator<Item = &Arc<Node>> {
        let is_member = |seed: &Arc<Node>| self.nodes.values().any(|node| Arc::ptr_eq(node, seed));
        self.seeds.iter().filter(move |seed| !is_member(seed))
    }

    fn primaries(&self, key: &Key) -> VecDeque<Arc<Node>> {
        let partition = self.topology.partition(key);
        let scope = self.topology.read_scope(key.bucket(), partition);
        let primaries = self.topology.primaries(partition, scope);
        primaries.iter().filter_map(|id| self.nodes.get(id)).cloned().collect()
    }
}

/// The nodes to ask, one after the other, each once.
pub(super) struct Route {
    map: Arc<Map>,
    stage: Stage,
    queue: VecDeque<Arc<Node>>,
    asked: Vec<Arc<Node>>,
    passed_by: VecDeque<Arc<Node>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Primaries,
    Others,
    PassedBy,
    Seeds,
}

impl Route {
    /// The route to `key`, or, without one, to any node.
    pub(super) fn new(map: Arc<Map>, key: Option<&Key>) -> Self {
        let queue = key.map(|key| map.primaries(key)).unwrap_or_default();
        let (asked, passed_by) = (Vec::new(), VecDeque::new());
        Self { map, stage: Stage::Primaries, queue, asked, passed_by }
    }

    /// The next node; `turn` gives a number below its argument and spreads the load of requests
    /// that anybody can take.
    pub(super) fn next(&mut self, turn: impl Fn(usize) -> usize) -> Option<Arc<Node>> {
        loop {
            while let Some(node) = self.queue.pop_front() {
                let is_choosy = matches!(self.stage, Stage::Primaries | Stage::Others);
                if is_choosy && !node.admits() {
                    self.passed_by.push_back(node);
                    continue;
                }
                self.asked.push(node.clone());
                return Some(node);
            }
            (self.stage, self.queue) = match self.stage {
                Stage::Primaries => (Stage::Others, self.others(turn(self.map.nodes.len()))),
                Stage::Others => (Stage::PassedBy, std::mem::take(&mut self.passed_by)),
                Stage::PassedBy => (Stage::Seeds, self.map.strangers().cloned().collect()),
                Stage::Seeds => return None,
            };
        }
    }

    fn others(&self, from: usize) -> VecDeque<Arc<Node>> {
        let known = |node: &&Arc<Node>| {
            self.asked.iter().chain(&self.passed_by).any(|other| Arc::ptr_eq(other, node))
        };
        let nodes = self.map.nodes.values();
        let in_turn = nodes.clone().skip(from).chain(nodes.take(from));
        in_turn.filter(|node| !known(node)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits;
    use crate::membership::{ClusterState, Contact, MemberEntry};

    const PATIENCE: Patience =
        Patience { connect: Duration::from_secs(1), silence: Duration::from_secs(1) };
    const REACH: Reach = Reach { only_seeds: false, patience: PATIENCE };

    fn map(members: u128, seeds: &[&str]) -> Arc<Map> {
        let mut state = ClusterState::new("test", 64);
        for id in 0..members {
            let contact = Contact {
                name: format!("n{id}"),
                address: format!("10.0.0.{id}:7400"),
                text_address: String::new(),
            };
            let entry = MemberEntry::candidate(NodeId(id), contact, "", limits::WEIGHT_NORMAL);
            state.enter(NodeId(id), entry);
        }
        state.form(1);
        let seeds = seeds.iter().map(|address| Arc::new(Node::new(address, PATIENCE))).collect();
        Arc::new(Map::new(Topology::new(state), seeds, REACH, None))
    }

    fn addresses(mut route: Route) -> Vec<String> {
        let next = || route.next(|count| count / 2).map(|node| node.address().to_owned());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn everybody_is_asked_once_and_those_who_hold_the_key_first() {
        let map = map(5, &["10.0.0.1:7400", "elsewhere:7400"]);
        let key = Key::new(b"default", b"alice").unwrap();
        let primaries: Vec<String> =
            map.primaries(&key).iter().map(|node| node.address().to_owned()).collect();
        let order = addresses(Route::new(map, Some(&key)));
        assert_eq!(primaries.len(), 3);
        assert_eq!(order[..3], primaries[..]);
        assert_eq!(order.last().unwrap(), "elsewhere:7400");
        let distinct: std::collections::BTreeSet<_> = order.iter().collect();
        assert_eq!((order.len(), distinct.len()), (6, 6));
    }

    #[test]
    fn a_silent_primary_is_asked_after_members_that_answer() {
        let map = map(5, &[]);
        let key = Key::new(b"default", b"alice").unwrap();
        let first = map.primaries(&key)[0].clone();
        first.shun();
        let order = addresses(Route::new(map, Some(&key)));
        assert_eq!(order.len(), 5);
        assert_eq!(order[4], first.address());
    }

    #[test]
    fn a_new_map_keeps_the_nodes_it_already_knew() {
        let old = map(2, &["10.0.0.1:7400"]);
        let mut state = old.topology().state().clone();
        let entry = state.members.get_mut(&NodeId(0)).unwrap();
        entry.contact.value.address = "10.0.0.9:7400".to_owned();
        let topology = Topology::after(old.topology(), state);
        let new = Map::new(topology, old.seeds.clone(), REACH, Some(&old));
        assert!(Arc::ptr_eq(&old.nodes[&NodeId(1)], &new.nodes[&NodeId(1)]));
        assert!(Arc::ptr_eq(&new.nodes[&NodeId(1)], &new.seeds[0]));
        assert!(!Arc::ptr_eq(&old.nodes[&NodeId(0)], &new.nodes[&NodeId(0)]));
        assert_eq!(new.strangers().count(), 0);
    }
}
