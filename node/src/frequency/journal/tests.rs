//! Does a restart find what was counted, whatever of the files is there?

use super::super::kernel::{AdToCount, Placement, Verdict};
use super::super::{CountingConfig, Store};
use super::*;
use gavel_proto::frequency::{CounterLimit, FrequencyScope, FrequencyWindow};
use gavel_proto::hash::mix64;
use gavel_proto::ids::MemberId;

fn config(folder: &Path) -> CountingConfig {
    CountingConfig { folder: folder.to_path_buf(), bytes_max: 1 << 28 }
}

/// Opens a store that is alone in its cluster.
fn open(folder: &Path) -> Arc<Store> {
    let store = Store::open(&config(folder)).expect("a store");
    store.place(Placement::default().after(MemberId(1), &[(MemberId(1), 1)]).expect("a round"));
    store
}

fn ad(n: u64) -> AdToCount {
    let window = FrequencyWindow::of_hours(24).expect("a day");
    AdToCount {
        ad: n,
        campaign: 7,
        counters: vec![CounterLimit { scope: FrequencyScope::Campaign, id: 7, window, max: 3 }],
    }
}

fn count(store: &Store, user: u64) -> u8 {
    store.counts(user).expect("held here").first().map_or(0, |seen| seen.count)
}

#[test]
fn a_restart_keeps_what_was_counted_and_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let users: Vec<u64> = (0..500).map(mix64).collect();
    let store = open(folder.path());
    for (n, user) in (0u64..).zip(&users) {
        for ad_id in 0..2 {
            assert_eq!(store.reserve(*user, n * 10 + ad_id, vec![ad(ad_id)]).expect("held"), [Verdict::Granted]);
        }
        if n % 5 == 0 {
            store.release(*user, n * 10, &[0]);
        }
    }
    store.close();
    for turn in 0..2 {
        let again = open(folder.path());
        for (n, user) in (0u64..).zip(&users) {
            assert_eq!(count(&again, *user), if n % 5 == 0 { 1 } else { 2 }, "start {turn}, user {n}");
        }
        again.close();
    }
}

/// A log that was cut anywhere gives the counts of a prefix; one that was bent no more than that.
#[test]
fn a_torn_log_costs_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let user = mix64(5);
    for n in 0..3 {
        assert_eq!(store.reserve(user, n, vec![ad(n)]).expect("held"), [Verdict::Granted]);
    }
    store.close();
    let log = folder.path().join("log-1");
    let whole = std::fs::read(&log).expect("a log");
    let mut seen = Vec::new();
    for cut in 0..=whole.len() {
        let other = tempfile::tempdir().expect("a folder");
        std::fs::write(other.path().join("log-1"), &whole[..cut]).expect("written");
        let store = open(other.path());
        seen.push(count(&store, user));
        store.close();
    }
    assert!(seen.is_sorted() && seen.first() == Some(&0) && seen.last() == Some(&3), "{seen:?}");
    let other = tempfile::tempdir().expect("a folder");
    let mut bent = whole.clone();
    bent[whole.len() / 2] ^= 4;
    std::fs::write(other.path().join("log-1"), bent).expect("written");
    let store = open(other.path());
    assert_eq!(count(&store, user), 1);
    store.close();
}

/// A snapshot stands for all logs before it; what was counted while it was made counts once.
#[test]
fn a_snapshot_replaces_the_logs() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    // In tests a log is long enough for a snapshot after 64 KiB: about a thousand reservations.
    let users: Vec<u64> = (0..3_000).map(mix64).collect();
    for (n, user) in (0u64..).zip(&users) {
        for ad_id in 0..3 {
            assert_eq!(store.reserve(*user, n * 10 + ad_id, vec![ad(ad_id)]).expect("held"), [Verdict::Granted]);
        }
    }
    store.close();
    let snapshots = numbered(folder.path(), "snapshot-").expect("a folder");
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    assert!(numbered(folder.path(), "log-").expect("a folder").iter().all(|log| *log >= snapshots[0]));
    let again = open(folder.path());
    assert!(users.iter().all(|user| count(&again, *user) == 3));
    assert_eq!(again.reserve(users[0], 1 << 40, vec![ad(9)]).expect("held"), [Verdict::Capped]);
    again.close();
}
