//! Reaping among a few nodes, with the schedules that have brought deleted data back elsewhere.

use std::time::Duration;

use super::harness::Cluster;
use crate::causality::Object;
use crate::wire::messages::{Purpose, Request, Response, Write};
use crate::wire::reap::HeldUp;

const HINTS: u64 = 1 << 20;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// An object as a message that was sent long ago carries it.
fn late(cluster: &Cluster, object: &Object, purpose: Purpose) -> Request {
    let key = cluster.key().0;
    Request::Write(Write { key, object: object.encode(), purpose, slots: 0, budget_ms: 60_000 })
}

#[test]
fn a_deleted_key_is_forgotten_by_all_and_may_be_written_anew() {
    let mut cluster = Cluster::new(5, HINTS);
    let (_, nodes) = cluster.key();
    cluster.write(nodes[0], Some("v1"), 3);
    cluster.write(nodes[1], None, 3);
    assert!(!cluster.is_forgotten());
    cluster.wait(seconds(2));
    assert!(cluster.is_forgotten());
    assert_eq!(cluster.counters(nodes[2]).reaped, 1);
    assert_eq!(cluster.status(nodes[0]).waiting, 0);
    cluster.write(nodes[1], Some("v2"), 3);
    cluster.wait(seconds(2));
    assert_eq!(cluster.read(nodes[2], 3), ["v2"]);
}

#[test]
fn a_value_is_not_forgotten() {
    let mut cluster = Cluster::new(3, HINTS);
    cluster.write(0, Some("v1"), 3);
    cluster.wait(seconds(2));
    assert_eq!(cluster.read(1, 3), ["v1"]);
}

/// Riak's fourth: two primaries and a fallback have the tombstone, the primaries forget it, a new
/// value is written, and then the fallback hands off.
#[test]
fn a_doomstone_of_a_fallback_does_not_win_over_a_new_value() {
    let mut cluster = Cluster::new(5, HINTS);
    let (_, nodes) = cluster.key();
    cluster.write(nodes[0], Some("v1"), 3);
    cluster.down(nodes[2]);
    cluster.write(nodes[0], None, 2);
    cluster.wait(seconds(3));
    assert!((0..5).any(|node| cluster.keeps_hints(node)), "somebody keeps the tombstone");
    assert!(!cluster.is_forgotten(), "not while somebody is away");
    let held_up = cluster.status(nodes[0]).held_up;
    assert!(held_up.iter().any(|(_, why, _)| *why == HeldUp::Away), "{held_up:?}");
    // It is back, and what is handed off to it does not arrive for a while.
    cluster.up(nodes[2]);
    for node in (0..5).filter(|node| *node != nodes[2]) {
        cluster.hold(node, nodes[2]);
    }
    cluster.wait(seconds(3));
    assert!(!cluster.is_forgotten(), "not while somebody keeps a hint");
    cluster.write(nodes[1], Some("v2"), 2);
    for node in 0..5 {
        cluster.release(node, nodes[2]);
    }
    cluster.wait(seconds(10));
    assert!((0..5).all(|node| !cluster.keeps_hints(node)));
    for node in &nodes[..3] {
        assert_eq!(cluster.read(*node, 3), ["v2"]);
    }
}

/// Riak's fifth: the same, by a primary that was down and for which nobody kept anything.
#[test]
fn a_primary_that_was_down_brings_nothing_back() {
    let mut cluster = Cluster::new(3, 0);
    let (_, nodes) = cluster.key();
    cluster.write(nodes[0], Some("v1"), 3);
    cluster.down(nodes[2]);
    cluster.write(nodes[0], None, 2);
    cluster.wait(seconds(60));
    assert!(cluster.object(nodes[0]).is_some(), "not after any time");
    cluster.up(nodes[2]);
    cluster.wait(seconds(3));
    assert!(!cluster.is_forgotten(), "it holds something else");
    cluster.write(nodes[1], Some("v2"), 2);
    assert_eq!(cluster.read(nodes[2], 3), ["v2"]);
    cluster.write(nodes[1], None, 3);
    cluster.wait(seconds(3));
    assert!(cluster.is_forgotten());
    assert!(cluster.read(nodes[0], 3).is_empty());
}

#[test]
fn a_frame_that_was_sent_before_the_deletion_holds_it_up_until_it_has_arrived() {
    for purpose in [Purpose::Repair, Purpose::Handoff, Purpose::Replicate] {
        let mut cluster = Cluster::new(5, HINTS);
        let (_, nodes) = cluster.key();
        let (owner, stranger) = (nodes[2], nodes[4]);
        cluster.write(nodes[0], Some("v1"), 3);
        let old = cluster.object(owner).unwrap();
        cluster.write(nodes[0], None, 3);
        cluster.hold(stranger, owner);
        let write = late(&cluster, &old, purpose);
        cluster.inject(stranger, owner, write);
        cluster.wait(seconds(5));
        assert!(!cluster.is_forgotten());
        cluster.release(stranger, owner);
        cluster.wait(seconds(5));
        assert!(cluster.is_forgotten());
        assert!(cluster.read(owner, 3).is_empty());
        assert_eq!(cluster.counters(owner).resurrections_refused, 0, "no grave was needed");
    }
}

#[test]
fn a_hint_on_its_way_to_a_fallback_holds_it_up() {
    let mut cluster = Cluster::new(5, HINTS);
    let (_, nodes) = cluster.key();
    let (owner, fallback, stranger) = (nodes[2], nodes[3], nodes[4]);
    cluster.write(nodes[0], Some("v1"), 3);
    let old = cluster.object(owner).unwrap();
    cluster.write(nodes[0], None, 3);
    cluster.hold(stranger, fallback);
    let hint = late(&cluster, &old, Purpose::Hint(crate::ids::NodeId(owner as u128 + 1)));
    cluster.inject(stranger, fallback, hint);
    cluster.wait(seconds(5));
    assert!(!cluster.is_forgotten(), "no owner has to do with that link");
    cluster.release(stranger, fallback);
    cluster.wait(seconds(5));
    assert!(cluster.is_forgotten());
    assert!(cluster.read(owner, 3).is_empty());
}

#[test]
fn what_moves_beside_the_messages_holds_it_up() {
    let mut cluster = Cluster::new(4, HINTS);
    let (key, nodes) = cluster.key();
    let partition = crate::membership::Topology::partition;
    cluster.write(nodes[0], Some("v1"), 3);
    let partition = partition(&cluster.topology(), &key);
    cluster.reap(nodes[3]).begin_move(partition);
    cluster.write(nodes[0], None, 3);
    cluster.wait(seconds(3));
    assert!(!cluster.is_forgotten());
    cluster.reap(nodes[3]).end_move(partition);
    cluster.wait(seconds(3));
    assert!(cluster.is_forgotten());
}

#[test]
fn a_value_from_a_disk_that_has_lost_the_deletion_is_refused_and_mended() {
    let mut cluster = Cluster::new(3, HINTS);
    let (_, nodes) = cluster.key();
    cluster.write(nodes[0], Some("v1"), 3);
    let old = cluster.object(nodes[0]).unwrap();
    cluster.write(nodes[0], None, 3);
    cluster.wait(seconds(2));
    assert!(cluster.is_forgotten());
    // A fresh write is no resurrection.
    cluster.write(nodes[1], Some("v2"), 3);
    let write = late(&cluster, &old, Purpose::Repair);
    cluster.inject(nodes[0], nodes[2], write);
    cluster.wait(seconds(1));
    assert_eq!(cluster.counters(nodes[2]).resurrections_refused, 1);
    assert_eq!(cluster.risen_from(nodes[2]), [nodes[0]]);
    for node in &nodes {
        assert_eq!(cluster.read(*node, 3), ["v2"]);
    }
    // What was learned goes to the others, and so the old value is dead for them, too.
    assert!(cluster.object(nodes[0]).unwrap().clock().covers(old.clock()));
}

/// In a bucket that keeps the latest it could pass for the later of the two.
#[test]
fn the_old_tombstone_of_a_key_that_was_written_since_is_dead_on_arrival() {
    let mut cluster = Cluster::new(3, HINTS);
    let (_, nodes) = cluster.key();
    cluster.write(nodes[0], Some("v1"), 3);
    cluster.write(nodes[0], None, 3);
    let deleted = cluster.object(nodes[0]).unwrap();
    cluster.wait(seconds(2));
    assert!(cluster.is_forgotten());
    cluster.write(nodes[1], Some("v2"), 3);
    let write = late(&cluster, &deleted, Purpose::Handoff);
    cluster.inject(nodes[0], nodes[2], write);
    cluster.wait(seconds(1));
    let held = cluster.object(nodes[2]).unwrap();
    assert_eq!((held.siblings().len(), held.tombstones()), (1, 0));
    assert!(held.clock().covers(deleted.clock()), "whoever still has it learns so");
    assert_eq!(cluster.counters(nodes[2]).resurrections_refused, 0, "no value has come back");
}

#[test]
fn a_write_that_is_repeated_after_its_key_was_reaped_is_done_already() {
    let mut cluster = Cluster::new(3, HINTS);
    let (_, nodes) = cluster.key();
    let first = cluster.write(nodes[0], Some("v1"), 3);
    cluster.write(nodes[0], None, 3);
    cluster.wait(seconds(2));
    assert!(cluster.is_forgotten());
    let again = cluster.put(nodes[1], first, 1, Some("v1"), 3);
    assert!(matches!(again, Response::Done(_)), "{again:?}");
    assert!(cluster.read(nodes[2], 3).is_empty());
    assert_eq!(cluster.counters(nodes[1]).repeated_writes, 1);
}

#[test]
fn a_crash_between_the_owners_leaves_a_tombstone_that_is_reaped_later() {
    let mut cluster = Cluster::new(3, HINTS);
    let (_, nodes) = cluster.key();
    cluster.write(nodes[0], Some("v1"), 3);
    cluster.write(nodes[0], None, 3);
    let tombstone = cluster.object(nodes[0]).unwrap();
    cluster.wait(seconds(2));
    assert!(cluster.is_forgotten());
    // One owner had it still, and gave it to the others.
    for (from, to) in [(1, 0), (2, 1), (0, 2)] {
        let write = late(&cluster, &tombstone, Purpose::Repair);
        cluster.inject(nodes[from], nodes[to], write);
    }
    cluster.wait(seconds(3));
    assert!(cluster.is_forgotten());
    assert_eq!(cluster.counters(nodes[0]).resurrections_refused, 0, "a tombstone is no value");
    assert_eq!(cluster.counters(nodes[0]).reaped, 2);
}

#[test]
fn an_expired_value_is_forgotten_only_when_no_clock_can_show_it_any_more() {
    let mut cluster = Cluster::new(3, HINTS);
    let (_, nodes) = cluster.key();
    cluster.write_expiring(nodes[0], "v1", 1000);
    cluster.wait(seconds(2));
    assert!(cluster.read(nodes[1], 3).is_empty());
    cluster.wait(Duration::from_millis(crate::causality::MAX_SKEW_MS) - seconds(3));
    assert!(!cluster.is_forgotten());
    cluster.wait(seconds(5));
    assert!(cluster.is_forgotten());
}
