//! Keys that are watched because they may be forgotten.

use ringdove::ids::{Incarnation, NodeId};
use ringdove::key::Key;
use ringdove::replica::{Input, Order, Origin};
use ringdove::store::StoredKey;
use ringdove::store::memory::MemoryStore;

use ringdove::wire::messages::{BucketSettings, ControlReply, Response};
use ringdove::wire::reap::{HeldUp, ReapReply, Round};

use crate::node::{self, Node};

#[test]
fn a_round_that_is_watched_already_is_not_begun_again() {
    let topology = node::topology(1, &[("default", BucketSettings::default())]);
    let keys = (0..4).map(|n| Key::new(b"default", format!("key-{n}").as_bytes()).unwrap());
    let keys: Vec<(StoredKey, u128)> =
        keys.map(|key| (StoredKey::new(topology.partition(&key), &key), 0)).collect();
    let mut node = Node::new(topology, MemoryStore::new(), Incarnation(7));
    node.holds_loads = true;
    let round = Round { reaper: NodeId(2), number: 5 };
    let watch = |node: &mut Node, from, keys: &[(StoredKey, u128)]| {
        node.handle(Input::Reap { from: Origin(from), order: Order::Watch(round, keys.to_vec()) });
    };
    watch(&mut node, 901, &keys);
    // Fewer than before: what is read for the first would be looked up among these.
    watch(&mut node, 902, &keys[..1]);
    node.load();
    let reply = |node: &Node, from: u64| match &node.answers[&from] {
        Response::Control(ControlReply::Reap(reply)) => reply.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reply(&node, 901), ReapReply::Standing(vec![false; 4]));
    assert_eq!(reply(&node, 902), ReapReply::NotNow(HeldUp::Again));
}
