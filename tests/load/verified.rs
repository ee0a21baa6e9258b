//! What a server did wrong, and whether that is what the verification finds.

use std::time::Duration;

use ringdove::load::record::Verification;
use ringdove::load::{Directory, Manner, verify};

use crate::memory::{self, Memory};
use crate::stub::{Faults, Stub};
use crate::{on_one_thread, plan, redis, run, run_and_verify};

const SPAN: Duration = Duration::from_secs(2);
const MIX: &str = "read=40,update=50,delete=10";

/// Runs against a stub with faults; gives what it did wrong, and what was found.
fn against_stub(mix: &str, faults: Faults) -> (u64, u64, Verification) {
    let directory = tempfile::tempdir().unwrap();
    on_one_thread(async {
        let stub = Stub::start(faults).await;
        let target = redis(&stub).await;
        let mut plan = plan(mix, 1000.0, SPAN);
        plan.fill = true;
        let path = directory.path().join("run");
        let (summary, found) = run_and_verify(&target, &mut plan, &path, || stub.mend()).await;
        assert_eq!((summary.ok, found.keys), (2000, 1000));
        (stub.wrong_keys(), stub.stale_gets(), found)
    })
}

fn wrong(found: &Verification) -> [u64; 5] {
    let Verification { lost, resurrected, undecided, refused_took_effect, damaged, .. } = *found;
    [lost, resurrected, undecided, refused_took_effect, damaged]
}

#[test]
fn a_server_that_does_what_it_says_is_found_faultless() {
    let (_, _, found) = against_stub(MIX, Faults::default());
    assert_eq!((wrong(&found), found.stale_reads), ([0; 5], 0));
}

#[test]
fn writes_that_were_acknowledged_and_dropped_are_found_all_of_them() {
    let (planted, _, found) =
        against_stub(MIX, Faults { drops_set: Some(20), ..Faults::default() });
    assert!(planted > 10, "{planted}");
    assert_eq!(wrong(&found), [planted, 0, 0, 0, 0]);
    // Reads that missed one of them are among the examples too.
    let says_so = |example: &String| example.contains("was acknowledged and is gone");
    assert!(found.examples.iter().any(says_so), "{:?}", found.examples);
}

#[test]
fn deletions_that_were_acknowledged_and_not_done_are_found_all_of_them() {
    let (planted, _, found) = against_stub(MIX, Faults { drops_del: Some(5), ..Faults::default() });
    assert!(planted > 10, "{planted}");
    assert_eq!(wrong(&found), [0, planted, 0, 0, 0]);
}

#[test]
fn reads_of_what_was_overwritten_are_found_all_of_them() {
    // Nothing is deleted: a deletion on its way excuses a read, and the stub cannot know of it.
    let faults = Faults { stale_get: Some(10), ..Faults::default() };
    let (_, planted, found) = against_stub("read=40,update=60", faults);
    assert!(planted > 10, "{planted}");
    assert_eq!((wrong(&found), found.stale_reads), ([0; 5], planted));
    assert!(found.stalest_ms.is_some_and(|ms| ms >= 50), "{:?}", found.stalest_ms);
}

/// Few keys and many writers, so that they meet.
fn against_memory(
    manner: Manner,
    faults: memory::Faults,
    forgets: usize,
) -> (u64, memory::Planted, Verification) {
    let directory = tempfile::tempdir().unwrap();
    on_one_thread(async {
        let target = Memory::with(faults);
        let mut plan = plan(MIX, 2000.0, SPAN);
        (plan.workload.keys, plan.manner) = (100, manner);
        let mut forgotten = 0;
        let between = || forgotten = target.forget(forgets);
        let path = directory.path().join("run");
        let (_, found) = run_and_verify(&target, &mut plan, &path, between).await;
        (forgotten, target.planted(), found)
    })
}

#[test]
fn with_contexts_every_sibling_that_is_gone_is_found() {
    for manner in [Manner::Fresh, Manner::Kept] {
        let (_, _, found) = against_memory(manner, memory::Faults::default(), 0);
        assert_eq!((wrong(&found), found.stale_reads), ([0; 5], 0), "{manner:?}");
        let (forgotten, _, found) = against_memory(manner, memory::Faults::default(), 20);
        assert!(forgotten >= 20);
        assert_eq!(wrong(&found), [forgotten, 0, 0, 0, 0], "{manner:?}");
    }
}

#[test]
fn with_contexts_losses_on_the_way_are_found_although_others_wrote_after_them() {
    let faults = memory::Faults { loses: Some(100), ..memory::Faults::default() };
    let (_, _, found) = against_memory(Manner::Fresh, faults, 0);
    // Every hundredth write of some 2,400; one in six is a deletion, which loses nothing. What is
    // lost was never read, so nobody can have replaced it.
    assert!((12..=24).contains(&found.lost), "{}", found.lost);
    assert_eq!(wrong(&found)[1..], [0; 4]);
}

#[test]
fn with_contexts_what_was_deleted_and_stayed_is_found() {
    let faults = memory::Faults { keeps_deleted: Some(3), ..memory::Faults::default() };
    let (_, _, found) = against_memory(Manner::Fresh, faults, 0);
    assert!(found.resurrected + found.stale_reads > 10, "{found:?}");
    assert_eq!(found.lost, 0);
}

#[test]
fn unknown_outcomes_are_told_apart_by_what_anybody_has_seen() {
    let faults = memory::Faults { unknown: Some(20), ..memory::Faults::default() };
    let (_, planted, found) = against_memory(Manner::Fresh, faults, 0);
    assert_eq!(wrong(&found), [0; 5]);
    assert!(planted.unknown_done > 10 && planted.unknown_not_done > 10);
    // Deletions are unknown, too; and a write that was replaced before anybody read it cannot be,
    // where every writer reads first.
    assert!(found.unknown_took_effect >= planted.unknown_done, "{planted:?} {found:?}");
    assert!(found.unknown_did_not >= planted.unknown_not_done, "{planted:?} {found:?}");
}

#[test]
fn runs_that_wrote_the_same_keys_are_verified_together() {
    let directory = tempfile::tempdir().unwrap();
    on_one_thread(async {
        let target = Memory::default();
        let mut paths = Vec::new();
        for (number, part) in ["1/2", "2/2"].into_iter().enumerate() {
            let mut plan = plan("a", 1000.0, SPAN / 4);
            (plan.part, plan.writer) = (part.parse().unwrap(), number as u64 + 1);
            (plan.manner, plan.workload.keys) = (Manner::Fresh, 50);
            plan.ledger = Some(("memory".to_owned(), "default".to_owned()));
            let path = directory.path().join(number.to_string());
            let mut directory = Directory::create(&path).unwrap();
            let summary = run(&target, &plan, Some(&mut directory)).await;
            ringdove::load::directory::write_summary(&path, &summary).unwrap();
            paths.push(path);
        }
        let found = verify::verify(&target, &paths, |_| {}).await.unwrap();
        assert_eq!(wrong(&found), [0; 5]);
        // The first alone finds values of the second where its own were.
        let found = verify::verify(&target, &paths[..1], |_| {}).await.unwrap();
        assert!(found.undecided > 0 && found.lost == 0, "{found:?}");
    });
}
