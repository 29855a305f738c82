//! Does a journal hold what was applied, wherever it was cut off, and notice what was altered?

use super::files::{Files, names};
use super::{Line, LineKind, audit};
use crate::convert::{ledger as wire, ledger_snapshot};
use crate::ledger::command::{Batch, Event};
use crate::ledger::{Ledger, apply};
use gavel_proto::ids::MemberId;

/// A journal of some entries, with the ledger that they lead to.
fn written(folder: &std::path::Path, entries: u64) -> Ledger {
    let mut files = Files::open(folder, "test").expect("opens");
    let mut ledger = Ledger::genesis("test");
    for index in 0..entries {
        let events = vec![Event::GrantIssuer { member: MemberId(index), incarnation: 1 }];
        let batch = Batch { elapsed_ms: 20, wall_ms: 1_000 + index, events };
        let verdicts = apply(&mut ledger, &batch).expect("it holds");
        let payload = wire::journal_entry(&wire::encode(&batch), &verdicts);
        files.append(&Line { term: 1, index, kind: LineKind::Applied, payload }).expect("written");
        if index == entries / 2 {
            files.sync().expect("safe");
        }
    }
    ledger
}

#[test]
fn a_journal_is_audited_and_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = written(folder.path(), 20);
    let audited = audit(folder.path(), "test", None).expect("read");
    assert_eq!((audited.last, audited.findings.entries, audited.findings.faults.len()), (Some(19), 20, 0));
    assert_eq!(audited.book.differences(&ledger), Vec::<String>::new());
    // The same entries again, as after a crash, and some more.
    let ledger = written(folder.path(), 25);
    let audited = audit(folder.path(), "test", None).expect("read");
    assert_eq!((audited.last, audited.findings.entries), (Some(24), 25));
    assert_eq!(audited.book.differences(&ledger), Vec::<String>::new());
    assert_eq!(audit(folder.path(), "test", Some(9)).expect("read").last, Some(9));
    assert!(Files::open(folder.path(), "other").is_err(), "another cluster's");
}

#[test]
fn a_journal_that_was_cut_off_anywhere_opens_and_is_filled_again() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), 12);
    let path = folder.path().join(&names(folder.path()).expect("listed")[0]);
    let whole = std::fs::read(&path).expect("read");
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).expect("cut");
        let ledger = written(folder.path(), 12);
        let audited = audit(folder.path(), "test", None).expect("read");
        assert_eq!((audited.last, audited.findings.faults.len()), (Some(11), 0), "cut at {cut}");
        assert_eq!(audited.book.differences(&ledger), Vec::<String>::new());
    }
}

#[test]
fn a_bit_that_flips_in_what_was_safe_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), 12);
    let path = folder.path().join(&names(folder.path()).expect("listed")[0]);
    let whole = std::fs::read(&path).expect("read");
    for at in (0..whole.len() / 2).step_by(3) {
        let mut altered = whole.clone();
        altered[at] ^= 1 << (at % 8);
        std::fs::write(&path, &altered).expect("altered");
        assert!(Files::open(folder.path(), "test").is_err(), "byte {at}");
    }
}

#[test]
fn a_checkpoint_stands_for_what_is_missing() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let mut ledger = written(elsewhere.path(), 30);
    let mut files = Files::open(folder.path(), "test").expect("opens");
    let state = ledger_snapshot::encode(&ledger, 29);
    files.checkpoint(1, 29, &state).expect("sealed");
    let batch = Batch {
        elapsed_ms: 1,
        wall_ms: 5_000,
        events: vec![Event::GrantIssuer { member: MemberId(99), incarnation: 3 }],
    };
    let verdicts = apply(&mut ledger, &batch).expect("it holds");
    let payload = wire::journal_entry(&wire::encode(&batch), &verdicts);
    files.append(&Line { term: 1, index: 30, kind: LineKind::Applied, payload }).expect("written");
    let audited = audit(folder.path(), "test", None).expect("read");
    assert_eq!((audited.last, audited.began_at, audited.findings.faults.len()), (Some(30), Some(29), 0));
    assert_eq!(audited.book.differences(&ledger), Vec::<String>::new());
    std::fs::write(folder.path().join(format!("checkpoint-{:020}.zst", 29)), b"").expect("damaged");
    assert!(audit(folder.path(), "test", None).is_err());
}
