//! Does a lone voter form a cluster, take commands, publish Views and remember?

mod support;

use gavel_control::{ControlConfig, ControlError};
use gavel_member::{Member, MemberConfig, Shutdown};
use gavel_proto::hash::TieKey;
use gavel_proto::wire;
use support::{ask, command, lone, propose, watch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_voter_takes_commands_streams_views_and_remembers() {
    let folder = tempfile::tempdir().expect("a folder");
    let shutdown = Shutdown::new();
    let running = lone(folder.path(), &shutdown).await;
    let address = running.address.to_string();

    let mut views = watch(&address).await;
    let publish = command::publish([7; 32]);
    let answer = propose(&address, "publish-1", &publish).await;
    assert!(answer.accepted, "{}", answer.reason);
    assert_eq!(answer.number, 1);
    let pending = views.until(|view| view.pending_model.is_some()).await;
    assert_eq!(pending.pending_model.map(|m| m.version), Some(1));

    // A retry is answered as before; another command under the same id is not taken.
    let again = propose(&address, "publish-1", &publish).await;
    assert_eq!((again.accepted, again.number), (true, 1));
    let other = propose(&address, "publish-1", &command::publish([8; 32])).await;
    assert_eq!((other.accepted, other.reason.as_str()), (false, "exists_different"));

    let before = ask(&address).await;
    shutdown.trigger();
    running.task.await.expect("joined").expect("stopped as asked");

    let shutdown = Shutdown::new();
    let running = lone(folder.path(), &shutdown).await;
    let mut views = watch(&running.address.to_string()).await;
    let view = views.until(|view| view.pending_model.is_some()).await;
    assert_eq!(view.placements.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["home"]);
    assert_eq!(view.pending_model, before.view.and_then(|view| view.pending_model));
    let again = propose(&running.address.to_string(), "publish-1", &publish).await;
    assert_eq!((again.accepted, again.number), (true, 1), "receipts survive");
    shutdown.trigger();
    running.task.await.expect("joined").expect("stopped as asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_ledger_is_gone_does_not_vote_with_an_empty_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let shutdown = Shutdown::new();
    let running = lone(folder.path(), &shutdown).await;
    let formed = async {
        while !folder.path().join("ledger-formed").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, formed).await.expect("the ledger is formed");
    shutdown.trigger();
    running.task.await.expect("joined").expect("stopped as asked");

    std::fs::remove_dir_all(folder.path().join("ledger")).expect("removed");
    let config = ControlConfig::new(support::CLUSTER, 1, folder.path().to_owned(), "127.0.0.1:0", Vec::new());
    let reason = gavel_control::run(config, Shutdown::new()).await.err().expect("it does not start");
    assert!(matches!(reason, ControlError::Wiped(1)), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_refused_with_a_word() {
    let folder = tempfile::tempdir().expect("a folder");
    let shutdown = Shutdown::new();
    let running = lone(folder.path(), &shutdown).await;
    let address = running.address.to_string();
    watch(&address).await.until(|view| !view.members.is_empty()).await;

    let mut auction = support::ask(&address).await.view.and_then(|v| v.auction).expect("an auction");
    auction.position_factors_ppm = vec![500_000, 600_000];
    let body = wire::command::Body::SetAuction(wire::SetAuction { auction: Some(auction) });
    let answer = propose(&address, "auction-1", &body).await;
    assert!(!answer.accepted && answer.reason.starts_with("invalid_argument"), "{}", answer.reason);

    let alive = wire::SetAlive { member_id: 1, incarnation: 1, alive: false, draining: false };
    let status = support::try_propose(&address, "alive-1", &wire::command::Body::SetAlive(alive)).await;
    assert_eq!(status.expect_err("internal").code(), tonic::Code::InvalidArgument);
    let status = support::try_propose(&address, "", &command::publish([7; 32])).await;
    assert_eq!(status.expect_err("no id").code(), tonic::Code::InvalidArgument);
    shutdown.trigger();
    running.task.await.expect("joined").expect("stopped as asked");
}

/// The first leader draws the key, it stays over a restart, and an operator's takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cluster_makes_a_key_of_its_own_for_ties() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let made = |view: &wire::View| view.auction.as_ref().is_some_and(|auction| auction.tie_key.len() == 32);
    let mut keys = Vec::new();
    for folder in [&folders[0], &folders[1], &folders[0]] {
        let shutdown = Shutdown::new();
        let running = lone(folder.path(), &shutdown).await;
        let view = watch(&running.address.to_string()).await.until(made).await;
        keys.push(view.auction.expect("an auction").tie_key);
        shutdown.trigger();
        running.task.await.expect("joined").expect("stopped as asked");
    }
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[0], keys[2]);

    let shutdown = Shutdown::new();
    let running = lone(folders[0].path(), &shutdown).await;
    let address = running.address.to_string();
    let held = TieKey::of_config(&keys[0], 0).expect("32 bytes");
    let body = |byte| {
        let wish = wire::SetTieKey { tie_key: vec![byte; 32], replaces: held.id() };
        wire::command::Body::SetTieKey(wish)
    };
    let answer = propose(&address, "key-1", &body(7)).await;
    assert!(answer.accepted, "{}", answer.reason);
    let late = propose(&address, "key-2", &body(8)).await;
    assert!(!late.accepted && late.reason.starts_with("failed_precondition"), "{}", late.reason);
    let auction = ask(&address).await.view.and_then(|view| view.auction).expect("an auction");
    let shown = (auction.tie_key, auction.tie_key_id, auction.public_tie_key);
    assert_eq!(shown, (Vec::new(), TieKey::from_bytes([7; 32]).id(), 0), "operators see no key");
    shutdown.trigger();
    running.task.await.expect("joined").expect("stopped as asked");
}

/// Routers must know of it before the member stops to listen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stops_is_shown_as_draining_before_it_has_left() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let shutdown = Shutdown::new();
    let running = lone(folders[0].path(), &shutdown).await;
    let address = running.address.to_string();
    let config = MemberConfig {
        cluster_id: support::CLUSTER.to_owned(),
        data_dir: folders[1].path().to_owned(),
        control: vec![address.clone()],
        address: "127.0.0.1:1".to_owned(),
        name: "node".to_owned(),
    };
    let stop = Shutdown::new();
    let mut member = Member::start(config, wire::Role::Node, &stop).expect("starts");
    // Until then it is in no View as far as it knows, and need not leave.
    member.member_id.wait_for(|id| *id != 0).await.expect("joined");
    stop.trigger();
    member.left().await;
    let view = ask(&address).await.view.expect("a view");
    assert!(view.members.iter().any(|m| m.member_id == member.id() && m.draining), "{:?}", view.members);
    shutdown.trigger();
    running.task.await.expect("joined").expect("stopped as asked");
}
