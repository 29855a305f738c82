//! Does a journal hold what was applied, wherever it was cut off, and notice what was altered?

use super::files::{Files, checkpoint_name, names};
use super::{Line, LineKind, audit};
use crate::convert::{ledger as wire, ledger_snapshot};
use crate::ledger::command::{Batch, Event};
use crate::ledger::{Ledger, apply};
use gavel_proto::ids::MemberId;

/// One more entry of the ledger and of its journal.
fn enter(files: &mut Files, ledger: &mut Ledger, index: u64) {
    let events = vec![Event::GrantIssuer { member: MemberId(index), incarnation: 1 }];
    let batch = Batch { elapsed_ms: 20, wall_ms: 1_000 + index, events };
    let verdicts = apply(ledger, &batch).expect("it holds");
    let payload = wire::journal_entry(&wire::encode(&batch), &verdicts);
    files.append(&Line { term: 1, index, kind: LineKind::Applied, payload }).expect("written");
}

/// A journal of some entries, with the ledger that they lead to.
fn written(folder: &std::path::Path, entries: u64) -> Ledger {
    let mut files = Files::open(folder, "test").expect("opens");
    let mut ledger = Ledger::genesis("test");
    for index in 0..entries {
        enter(&mut files, &mut ledger, index);
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

/// Entries of a journal whose files are small, with what `state` makes of the ledger sealed behind each of some.
fn sealed(folder: &std::path::Path, entries: u64, seals: &[u64], state: impl Fn(&Ledger, u64) -> Vec<u8>) -> Ledger {
    let week = 7 * 24 * 3_600_000;
    let mut files = Files::with_files_of(2_000, folder, "test").expect("opens");
    let mut ledger = Ledger::genesis("test");
    let mut waiting: Option<(u64, Vec<u8>)> = None;
    for index in 0..entries {
        enter(&mut files, &mut ledger, index);
        // A state is sealed a few entries late: it was being made meanwhile.
        if let Some((at, state)) = waiting.take_if(|(at, _)| *at + 3 <= index) {
            let turn = seals.iter().position(|seal| *seal == at).expect("one of them") as u64 + 1;
            files.seal(1, at, &state, turn * week).expect("sealed");
        }
        if seals.contains(&index) {
            waiting = Some((index, state(&ledger, index)));
        }
    }
    files.sync().expect("safe");
    ledger
}

fn age(folder: &std::path::Path, names: &[String]) {
    for name in names {
        let file = std::fs::File::options().append(true).open(folder.join(name)).expect("there");
        file.set_modified(std::time::UNIX_EPOCH).expect("aged");
    }
}

/// After 400 days the beginning goes. It was removed without anything to begin from, and the audit found every balance
/// wrong from then on.
#[test]
fn the_beginning_goes_only_behind_a_checkpoint_and_the_audit_begins_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = sealed(folder.path(), 200, &[], ledger_snapshot::encode);
    let all = names(folder.path()).expect("listed");
    assert!(all.len() > 6, "{all:?}");
    age(folder.path(), &all[..all.len() - 1]);
    let files = Files::with_files_of(2_000, folder.path(), "test").expect("opens");
    files.forget_at_once();
    assert_eq!(names(folder.path()).expect("listed"), all, "nothing to begin from");
    let audited = audit(folder.path(), "test", None).expect("read");
    assert_eq!(audited.book.differences(&ledger), Vec::<String>::new());

    let folder = tempfile::tempdir().expect("a folder");
    let ledger = sealed(folder.path(), 200, &[40, 110], ledger_snapshot::encode);
    let all = names(folder.path()).expect("listed");
    age(folder.path(), &all[..all.len() - 1]);
    let whole = audit(folder.path(), "test", None).expect("read");
    assert_eq!((whole.began_at, whole.findings.faults.len()), (None, 0), "{:?}", whole.findings.faults);
    Files::with_files_of(2_000, folder.path(), "test").expect("opens").forget_at_once();
    let left = names(folder.path()).expect("listed");
    assert!(left.len() < all.len() && left.len() > 1, "{left:?}");
    assert!(!folder.path().join(checkpoint_name(40)).exists() && folder.path().join(checkpoint_name(110)).exists());
    let audited = audit(folder.path(), "test", None).expect("read");
    assert_eq!((audited.began_at, audited.last, audited.findings.faults.len()), (Some(110), Some(199), 0));
    assert_eq!(audited.book.differences(&ledger), Vec::<String>::new());
    // It opens and goes on where it was.
    assert_eq!(Files::open(folder.path(), "test").expect("opens").last(), Some(199));
    std::fs::remove_file(folder.path().join(checkpoint_name(110))).expect("removed");
    assert!(audit(folder.path(), "test", None).is_err(), "it says so, and finds no balance wrong");
}

/// A state on the way is looked at, too: one that the voter sealed as it held it, and held wrong.
#[test]
fn a_checkpoint_that_is_not_the_balances_at_its_entry_is_a_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    sealed(folder.path(), 60, &[40], |ledger, index| {
        let other = Ledger { next_issuer: ledger.next_issuer + 1, ..ledger.clone() };
        ledger_snapshot::encode(&other, index)
    });
    let faults = audit(folder.path(), "test", None).expect("the chain agrees").findings.faults;
    assert!(faults.iter().any(|fault| fault.contains("the checkpoint at 40")), "{faults:?}");
}

#[test]
fn a_checkpoint_that_the_chain_does_not_name_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    sealed(folder.path(), 60, &[40], ledger_snapshot::encode);
    let path = folder.path().join(checkpoint_name(40));
    let whole = std::fs::read(&path).expect("read");
    let mut other = Ledger::genesis("test");
    other.next_issuer = 7;
    std::fs::write(&path, zstd::encode_all(ledger_snapshot::encode(&other, 40).as_slice(), 1).expect("packed"))
        .expect("altered");
    assert!(audit(folder.path(), "test", None).is_err(), "the chain names another");
    std::fs::write(&path, whole).expect("as it was");
    assert_eq!(audit(folder.path(), "test", None).expect("read").findings.faults.len(), 0);
}
