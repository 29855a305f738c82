//! A write may end at any byte, and any bit may flip: what opens then?
//!
//! The file is built by the writer itself. For every prefix, the log opens at the last whole record; for every
//! flipped bit below what was fsynced, it refuses to open.

use openraft::EntryPayload;
use openraft::testing::log_id;
use proptest::prelude::*;

use crate::raft::index::{Change, Contiguity, Index};
use crate::raft::log::LogStore;
use crate::raft::record;
use crate::raft::recovery::{Expected, FORMAT, Header, Recovered, recover};
use crate::raft::{DiskError, Encoded, Entry, Vote};
use openraft::storage::RaftLogStorage;
use openraft::storage::RaftLogStorageExt;

fn expected() -> Expected {
    let owner = Header { format: FORMAT, cluster_id: "torn".to_owned(), node_id: 3 };
    Expected { owner, contiguity: Contiguity::Kept, covered: None }
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(Encoded(vec![index as u8; bytes])) }
}

/// The bytes of a log with votes, entries, a truncation and a purge, as the store writes it.
fn written(entries: u64, bytes: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut log = LogStore::open(folder.path(), &expected()).expect("opens");
        log.save_vote(&Vote::new_committed(1, 1)).await.expect("voted");
        for index in 0..entries {
            log.blocking_append([entry(1, index, bytes)]).await.expect("appended");
            if index == entries / 4 {
                log.purge(log_id(1, 1, index / 2)).await.expect("purged");
            }
            log.save_committed(Some(log_id(1, 1, index / 2))).await.expect("noted");
        }
        log.truncate(log_id(1, 1, entries - 1)).await.expect("truncated");
        log.save_vote(&Vote::new(2, 2)).await.expect("voted");
        log.blocking_append([entry(2, entries - 1, bytes)]).await.expect("appended");
    });
    std::fs::read(folder.path().join("raft.log")).expect("read")
}

fn open(bytes: &[u8]) -> Result<Recovered, DiskError> {
    recover("raft.log", bytes, &expected())
}

/// Where each record ends, and whether it is one that says something.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let cluster = record::cluster_number("torn");
    let mut ends = vec![0];
    while let Some(record) = bytes.get(ends[ends.len() - 1]..).and_then(|rest| record::read(rest, cluster)) {
        ends.push(ends[ends.len() - 1] + record.bytes);
    }
    ends
}

/// 65,536 cases at least: eight logs of more than 8 KiB, cut at every byte.
#[test]
fn a_log_torn_at_any_byte_opens_at_the_last_whole_record() {
    let mut cases = 0;
    for log in 0..8 {
        let bytes = written(36 + log, 10 + 3 * log as usize);
        let ends = ends(&bytes);
        assert_eq!(ends.last(), Some(&bytes.len()), "the whole file is whole");
        // Without the first record there is nothing to go by: it was renamed into place whole.
        let first = ends[1];
        let mut whole = 1;
        for cut in first..bytes.len() {
            while ends.get(whole + 1).is_some_and(|end| *end <= cut) {
                whole += 1;
            }
            cases += 1;
            let recovered = open(&bytes[..cut]).expect("a torn tail is no fault");
            assert_eq!(recovered.bytes as usize, ends[whole], "cut at {cut}");
            assert!(recovered.index.committed <= recovered.index.last());
        }
        assert!(matches!(open(&bytes[..first - 1]), Err(DiskError::Corrupt { .. })));
    }
    assert!(cases >= 65_536, "{cases}");
}

#[test]
fn a_flipped_bit_anywhere_below_the_last_fsync_is_noticed() {
    let bytes = written(16, 20);
    let ends = ends(&bytes);
    // The last record is the witness of the last fsync: it alone has no witness of its own.
    let witnessed = ends[ends.len() - 2];
    for at in 0..witnessed {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(matches!(open(&flipped), Err(DiskError::Corrupt { .. })), "byte {at} bit {bit}");
        }
    }
    for at in witnessed..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert_eq!(open(&flipped).expect("the rest is whole").bytes as usize, witnessed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage_behind_a_torn_write_is_cut_off_and_garbage_before_one_is_not(
        tail in proptest::collection::vec(any::<u8>(), 0..400),
        zeros in 0usize..5_000,
    ) {
        static BYTES: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| written(4, 10));
        let bytes = &*BYTES;
        let mut torn = bytes.clone();
        torn.extend_from_slice(&tail);
        torn.extend(std::iter::repeat_n(0, zeros));
        let recovered = open(&torn).expect("the whole records are there");
        prop_assert_eq!(recovered.bytes as usize, bytes.len());
        // Never a panic, whatever the bytes.
        drop(open(&tail));
    }
}

#[test]
fn lost_repeated_and_foreign_records_are_noticed() {
    let bytes = written(10, 10);
    let ends = ends(&bytes);
    let [a, b, c] = [ends[4], ends[5], ends[6]];
    let lost = [&bytes[..a], &bytes[b..]].concat();
    assert!(matches!(open(&lost), Err(DiskError::Corrupt { .. })));
    let twice = [&bytes[..b], &bytes[a..]].concat();
    assert!(matches!(open(&twice), Err(DiskError::Corrupt { .. })));
    let swapped = [&bytes[..a], &bytes[b..c], &bytes[a..b], &bytes[c..]].concat();
    assert!(matches!(open(&swapped), Err(DiskError::Corrupt { .. })));
    let mut other = expected();
    other.owner.node_id = 4;
    assert!(matches!(recover("raft.log", &bytes, &other), Err(DiskError::Foreign { .. })));
    other.owner.cluster_id = "other".to_owned();
    assert!(matches!(recover("raft.log", &bytes, &other), Err(DiskError::Corrupt { .. })));
}

#[test]
fn a_hole_or_a_step_back_is_never_taken() {
    let mut index = Index::new(Contiguity::Kept);
    assert!(index.apply(&Change::Append(entry(1, 5, 1)), 1).is_err(), "an empty log begins at 0");
    index.apply(&Change::Append(entry(2, 0, 1)), 1).expect("the first");
    assert!(index.apply(&Change::Append(entry(2, 2, 1)), 1).is_err(), "a hole");
    assert!(index.apply(&Change::Append(entry(1, 1, 1)), 1).is_err(), "an older term");
    assert!(index.apply(&Change::Append(entry(2, 0, 1)), 1).is_err(), "twice");
    index.apply(&Change::Append(entry(3, 1, 1)), 1).expect("the next");
    index.apply(&Change::Committed(Some(log_id(2, 1, 0))), 1).expect("noted");
    assert!(index.apply(&Change::Truncated(0), 1).is_err(), "a committed entry stays");
    index.apply(&Change::Truncated(1), 1).expect("an uncommitted one may go");
    assert_eq!(index.last(), Some(log_id(2, 1, 0)));
}

#[test]
fn what_is_purged_is_gone_after_a_restart_and_the_rest_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut log = LogStore::open(folder.path(), &expected()).expect("opens");
        for index in 0..20 {
            log.blocking_append([entry(1, index, 100)]).await.expect("appended");
        }
        log.save_committed(Some(log_id(1, 1, 15))).await.expect("noted");
        log.purge(log_id(1, 1, 9)).await.expect("purged");
        log.blocking_append([entry(1, 20, 100)]).await.expect("appended");
    });
    let bytes = std::fs::read(folder.path().join("raft.log")).expect("read");
    let recovered = open(&bytes).expect("opens");
    assert_eq!(recovered.index.purged, Some(log_id(1, 1, 9)));
    assert_eq!(recovered.index.committed, Some(log_id(1, 1, 15)));
    assert_eq!(recovered.index.range(..).len(), 11);
    assert!(!recovered.index.is_pristine());
}

#[test]
fn a_snapshot_that_was_touched_is_not_read() {
    use crate::raft::SnapshotMeta;
    use crate::raft::snapshot::{Kept, SnapshotFolder};
    let folder = tempfile::tempdir().expect("a folder");
    let snapshots = SnapshotFolder::new(folder.path(), "torn");
    let meta = |index| SnapshotMeta { last_log_id: Some(log_id(1, 1, index)), ..SnapshotMeta::default() };
    for index in [3, 7] {
        let bytes = std::sync::Arc::new(vec![index as u8; 500]);
        snapshots.keep(&Kept { meta: meta(index), bytes }).expect("kept");
    }
    assert_eq!(snapshots.newest().expect("read").expect("there").meta, meta(7));
    let files: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").flatten().collect();
    assert_eq!(files.len(), 1, "the older one is gone");
    let (path, whole) = (files[0].path(), std::fs::read(files[0].path()).expect("read"));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        std::fs::write(&path, &flipped).expect("written");
        assert!(matches!(snapshots.newest(), Err(DiskError::Corrupt { .. })), "byte {at}");
    }
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..length]).expect("written");
        assert!(matches!(snapshots.newest(), Err(DiskError::Corrupt { .. })), "length {length}");
    }
    std::fs::write(&path, &whole).expect("written");
    let foreign = SnapshotFolder::new(folder.path(), "other");
    assert!(matches!(foreign.newest(), Err(DiskError::Foreign { .. })));
}
