//! Do three voters elect, survive their leader, refuse without a majority, and catch up by snapshot?
//!
//! Each voter has a runtime of its own; killing it drops every task at once, as a crash does.

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gavel_control::{ControlConfig, ControlError, Pace};
use gavel_member::{Shutdown, clock};
use gavel_proto::wire;
use support::{CLUSTER, PATIENCE, ask, command, healthy, propose_to, reached, try_propose};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// A voter that can be killed.
struct Process {
    runtime: Option<Runtime>,
    task: Option<JoinHandle<Result<(), ControlError>>>,
}

struct Cluster {
    folder: TempDir,
    addresses: Vec<String>,
    processes: Vec<Process>,
    pace: Pace,
}

/// An address that nobody listens at. Not one that the system chooses: before the voter starts, it could give the same port
/// to a connection from here to somewhere.
fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let port = 18_000 + (std::process::id() * 31 + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let address = format!("127.0.0.1:{port}");
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

impl Cluster {
    /// Three voters that have not started.
    fn new(pace: Pace) -> Self {
        // A voter's address must be known before it starts.
        let addresses = std::iter::repeat_with(free_address).take(3).collect();
        let processes = (0..3).map(|_| Process { runtime: None, task: None }).collect();
        Self { folder: tempfile::tempdir().expect("a folder"), addresses, processes, pace }
    }

    fn folder(&self, voter: usize) -> PathBuf {
        self.folder.path().join(format!("voter-{voter}"))
    }

    fn start(&mut self, voter: usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let peers = (1..).zip(self.addresses.iter().cloned()).collect();
        let own = &self.addresses[voter];
        let mut config = ControlConfig::new(CLUSTER, voter as u64 + 1, self.folder(voter), own, peers);
        config.pace = self.pace;
        let started = std::thread::scope(|scope| {
            scope.spawn(|| runtime.block_on(gavel_control::run(config, Shutdown::new()))).join().expect("joined")
        });
        self.processes[voter] = Process { task: Some(started.expect("runs").task), runtime: Some(runtime) };
    }

    fn kill(&mut self, voter: usize) {
        if let Some(runtime) = self.processes[voter].runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(2));
        }
    }

    fn write(&self, client: &Runtime, id: &str) -> wire::ProposeResponse {
        let answer = client.block_on(propose_to(&self.addresses, id, &command::placement(id)));
        assert!(answer.accepted, "{}", answer.reason);
        answer
    }

    /// The voter that leads, by what `witness` says.
    fn leader(&self, client: &Runtime, witness: usize) -> usize {
        wait(|| match client.block_on(ask(&self.addresses[witness])).leader_id {
            0 => None,
            id => Some(id as usize - 1),
        })
    }

    /// Waits until these voters have applied `index` and hold the same state.
    fn agree(&self, client: &Runtime, voters: &[usize], index: u64) {
        wait(|| {
            let states: Vec<_> = voters.iter().map(|v| client.block_on(ask(&self.addresses[*v]))).collect();
            let same = states
                .windows(2)
                .all(|p| p[0].state_digest == p[1].state_digest && p[0].applied_index == p[1].applied_index);
            (same && states[0].applied_index >= index).then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..3).for_each(|voter| self.kill(voter));
    }
}

/// Asks again until there is an answer.
fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let from = clock::now_us().0;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock::now_us().0 - from < PATIENCE.as_micros() as u64, "it took too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn client() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

#[test]
fn three_voters_survive_their_leader_and_refuse_without_a_majority() {
    let client = client();
    let mut cluster = Cluster::new(Pace::default());
    (0..3).for_each(|voter| cluster.start(voter));
    let first = cluster.write(&client, "one");
    cluster.agree(&client, &[0, 1, 2], first.log_index);

    let leader = cluster.leader(&client, 0);
    let others: Vec<usize> = (0..3).filter(|v| *v != leader).collect();
    cluster.kill(leader);
    let from = clock::now_us().0;
    let second = cluster.write(&client, "two");
    let gap_ms = (clock::now_us().0 - from) / 1_000;
    println!("writes were away for {gap_ms} ms");
    assert!(gap_ms < 6_000, "{gap_ms} ms");
    assert!(second.log_term > first.log_term);

    cluster.start(leader);
    cluster.agree(&client, &[0, 1, 2], second.log_index);
    let again = cluster.write(&client, "one");
    assert_eq!(again.number, first.number, "the receipt survived the leader");

    // Without a majority a write ends soon, and is not queued for later.
    let leader = cluster.leader(&client, others[0]);
    (0..3).filter(|v| *v != leader).for_each(|v| cluster.kill(v));
    let from = clock::now_us().0;
    let answer = client.block_on(try_propose(&cluster.addresses[leader], "three", &command::placement("three")));
    let took_ms = (clock::now_us().0 - from) / 1_000;
    assert_eq!(answer.expect_err("no majority").code(), tonic::Code::Unavailable);
    assert!(took_ms < 2_500, "{took_ms} ms");

    // All dead, all back: nothing that was acknowledged is gone.
    cluster.kill(leader);
    (0..3).for_each(|voter| cluster.start(voter));
    let third = cluster.write(&client, "four");
    cluster.agree(&client, &[0, 1, 2], third.log_index);
    let view = client.block_on(ask(&cluster.addresses[0])).view.expect("a view");
    for name in ["one", "two", "four"] {
        assert!(view.placements.iter().any(|p| p.name == name), "{name} is gone");
    }
}

/// The voter that forms must not do so before a majority may vote: it would wait for votes that nobody may give.
#[test]
fn three_voters_form_in_any_order() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    std::thread::scope(|scope| {
        for order in orders {
            scope.spawn(move || {
                let client = client();
                let mut cluster = Cluster::new(Pace::default());
                for voter in order {
                    cluster.start(voter);
                    // Each is in the middle of its rounds when the next one comes.
                    wait(|| client.block_on(reached(&cluster.addresses[voter])).then_some(()));
                }
                let formed = cluster.write(&client, "formed");
                cluster.agree(&client, &[0, 1, 2], formed.log_index);
            });
        }
    });
}

/// A member must not follow a voter that no longer hears what happens.
#[test]
fn a_voter_without_a_leader_ends_its_streams_and_is_not_healthy() {
    let client = client();
    let mut cluster = Cluster::new(Pace::default());
    (0..3).for_each(|voter| cluster.start(voter));
    cluster.write(&client, "one");
    for witness in [cluster.leader(&client, 0), (cluster.leader(&client, 0) + 1) % 3] {
        let others: Vec<usize> = (0..3).filter(|v| *v != witness).collect();
        let address = cluster.addresses[witness].clone();
        wait(|| client.block_on(healthy(&address)).then_some(()));
        let mut views = client.block_on(support::watch(&address));
        others.iter().for_each(|v| cluster.kill(*v));
        let ended = client.block_on(async { tokio::time::timeout(PATIENCE, views.end()).await });
        ended.expect("the stream ended");
        assert!(!client.block_on(healthy(&address)));
        others.iter().for_each(|v| cluster.start(*v));
        wait(|| client.block_on(healthy(&address)).then_some(()));
    }
}

#[test]
fn a_voter_that_lags_behind_a_purged_log_gets_a_snapshot_and_a_wiped_one_must_not_vote() {
    let client = client();
    let mut cluster = Cluster::new(Pace { snapshot_every: 40, entries_kept: 5, ..Pace::default() });
    (0..3).for_each(|voter| cluster.start(voter));
    let first = cluster.write(&client, "first");
    // Everybody is in the View, so everybody's disk is known.
    wait(|| {
        let view = client.block_on(ask(&cluster.addresses[0])).view.expect("a view");
        (view.members.len() == 3).then_some(())
    });
    cluster.agree(&client, &[0, 1, 2], first.log_index);
    let lagging = (cluster.leader(&client, 0) + 1) % 3;
    cluster.kill(lagging);
    let mut last = first;
    let from = clock::now_us().0;
    for n in 0..100 {
        last = cluster.write(&client, &format!("p-{n}"));
    }
    println!("{} us per commit, connection included", (clock::now_us().0 - from) / 100);
    cluster.start(lagging);
    cluster.agree(&client, &[0, 1, 2], last.log_index);
    let snapshots = |voter| {
        let files = std::fs::read_dir(cluster.folder(voter)).expect("listed").flatten();
        files.filter(|f| f.file_name().to_string_lossy().starts_with("snap-")).count()
    };
    assert_eq!((0..3).map(snapshots).collect::<Vec<_>>(), [1, 1, 1]);

    cluster.kill(lagging);
    std::fs::remove_dir_all(cluster.folder(lagging)).expect("wiped");
    cluster.start(lagging);
    let task = cluster.processes[lagging].task.take().expect("started");
    let ended = client.block_on(async { tokio::time::timeout(PATIENCE, task).await });
    let reason = ended.expect("it ends").expect("joined").expect_err("for a reason");
    assert!(matches!(reason, ControlError::Wiped(_)), "{reason}");
    assert_eq!(reason.exit_code(), 66);
    cluster.write(&client, "without-it");
}
