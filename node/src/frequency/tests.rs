//! Do the nodes of a user hold the same, whoever joins and leaves?
//!
//! Real stores that talk to each other over loopback, with Views made by hand.

use super::kernel::{AdToCount, Verdict};
use super::*;
use crate::rpc::FrequencyRpc;
use gavel_member::Shutdown;
use gavel_member::clock::now_us;
use gavel_member::serve::{self, Exposure};
use gavel_member::view::ViewFeed;
use gavel_proto::frequency::{CounterLimit, FrequencyScope, FrequencyWindow, owners};
use gavel_proto::hash::mix64;
use gavel_proto::ids::MemberId;
use gavel_proto::wire::frequency_service_server::FrequencyServiceServer;
use gavel_proto::wire::{MemberView, Role, View};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::service::Routes;

/// Longest wait for what the nodes do by themselves.
const PATIENCE_US: u64 = 20_000_000;

struct Node {
    id: MemberId,
    address: String,
    store: Arc<Store>,
    view: Arc<ViewFeed>,
    shutdown: Shutdown,
    own: watch::Sender<u64>,
    folder: tempfile::TempDir,
}

async fn node(id: u64, folder: tempfile::TempDir) -> Node {
    let (view, shutdown, (own, receiver)) = (Arc::new(ViewFeed::default()), Shutdown::new(), watch::channel(id));
    let config = CountingConfig { folder: folder.path().join("frequency"), bytes_max: 1 << 26 };
    let store = start(&config, Arc::clone(&view), receiver, shutdown.clone()).expect("a store");
    let bound = serve::bind("127.0.0.1:0").await.expect("a port");
    let address = bound.address.to_string();
    let routes = Routes::new(FrequencyServiceServer::new(FrequencyRpc(Arc::clone(&store))));
    bound.serve(routes, Exposure::Internal, shutdown.clone()).await.expect("serves");
    Node { id: MemberId(id), address, store, view, shutdown, own, folder }
}

/// Shows all of them a View in which these live.
fn show(epoch: u64, to: &[&Node], live: &[&Node]) {
    let member = |node: &&Node| MemberView {
        member_id: node.id.0,
        role: Role::Node.into(),
        address: node.address.clone(),
        incarnation: node.address.bytes().map(u64::from).sum(),
        alive: true,
        ..MemberView::default()
    };
    let view = View { map_epoch: epoch, members: live.iter().map(member).collect(), ..View::default() };
    to.iter().for_each(|node| assert!(node.view.offer(view.clone()).is_some()));
}

async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let from = now_us().0;
    while !condition() {
        assert!(now_us().0 - from < PATIENCE_US, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn settled(nodes: &[&Node], round_of: usize) {
    let all = || {
        nodes.iter().all(|n| n.store.placement().is_settled() && n.store.placement().others().count() == round_of - 1)
    };
    wait("all to settle", all).await;
}

fn ad(n: u64) -> AdToCount {
    let window = FrequencyWindow::of_hours(24).expect("a day");
    let counters = vec![CounterLimit { scope: FrequencyScope::Campaign, id: 7, window, max: 3 }];
    AdToCount { ad: n, campaign: 7, counters }
}

fn count(node: &Node, user: u64) -> Option<u8> {
    Some(node.store.counts(user).ok()?.first().map_or(0, |seen| seen.count))
}

fn of<'a>(nodes: &[&'a Node], user: u64) -> [&'a Node; 2] {
    let ids: Vec<MemberId> = nodes.iter().map(|node| node.id).collect();
    let owners = owners(&ids, user);
    [owners.owner, owners.replica].map(|id| *nodes.iter().find(|n| Some(n.id) == id).expect("two nodes"))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_follow_their_users() {
    let (a, b, c) = (node(1, folder()).await, node(2, folder()).await, node(3, folder()).await);
    assert!(a.store.counts(5).is_err(), "before the first View");
    show(1, &[&a, &b], &[&a, &b]);
    settled(&[&a, &b], 2).await;

    // What the owner counts is on the replica; what is given back goes there, too.
    let users: Vec<u64> = (0..300).map(mix64).collect();
    for (n, user) in (0u64..).zip(&users) {
        let [owner, _] = of(&[&a, &b], *user);
        for reservation in [2 * n, 2 * n + 1] {
            let verdicts = owner.store.reserve(*user, reservation, vec![ad(1)]).expect("it owns the user");
            assert_eq!(verdicts, [Verdict::Granted]);
        }
        if n % 3 == 0 {
            owner.store.release(*user, 2 * n, &[1]);
        }
    }
    let expected = |n: usize| if n.is_multiple_of(3) { 1 } else { 2 };
    let hold = |nodes: &[&Node]| {
        users.iter().enumerate().all(|(n, u)| of(nodes, *u).iter().all(|x| count(x, *u) == Some(expected(n))))
    };
    wait("the copies", || hold(&[&a, &b])).await;
    // Asked again of the replica, a reservation is the same one.
    let [owner, replica] = of(&[&a, &b], users[1]);
    assert_eq!(replica.store.reserve(users[1], 2, vec![ad(1)]).expect("held"), [Verdict::Granted]);
    assert_eq!((count(owner, users[1]), count(replica, users[1])), (Some(2), Some(2)));

    // A node that joins answers for its users once it has them; nobody else loses one.
    show(2, &[&a, &b, &c], &[&a, &b, &c]);
    settled(&[&a, &b, &c], 3).await;
    assert!(hold(&[&a, &b, &c]));
    assert!(users.iter().any(|user| count(&c, *user).is_none()), "it does not hold everybody");

    // The owner of some goes: its replica has them, and the third gets the copy.
    a.shutdown.trigger();
    show(3, &[&b, &c], &[&b, &c]);
    settled(&[&b, &c], 2).await;
    assert!(hold(&[&b, &c]));

    // One that comes back with its disk takes what it missed.
    let [owner, _] = of(&[&b, &c], users[1]);
    let third = owner.store.reserve(users[1], 1 << 40, vec![ad(1)]).expect("held");
    assert_eq!(third, [Verdict::Granted]);
    a.store.close();
    let again = node(1, a.folder).await;
    show(4, &[&again, &b, &c], &[&again, &b, &c]);
    settled(&[&again, &b, &c], 3).await;
    for (n, user) in users.iter().enumerate() {
        let expected = if n == 1 { 3 } else { expected(n) };
        for holder in of(&[&again, &b, &c], *user) {
            assert_eq!(count(holder, *user), Some(expected), "user {n} on {}", holder.id);
        }
    }
    let [owner, _] = of(&[&again, &b, &c], users[1]);
    assert_eq!(owner.store.reserve(users[1], 1 << 41, vec![ad(1)]).expect("held"), [Verdict::Capped]);
    drop(a.own);
    for node in [&again, &b, &c] {
        node.shutdown.trigger();
        node.store.close();
        assert!(!node.own.is_closed());
    }
}

/// Both nodes of a user gone, and back with their disks: what was counted is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_bring_back_what_nobody_else_had() {
    let (a, b) = (node(1, folder()).await, node(2, folder()).await);
    show(1, &[&a, &b], &[&a, &b]);
    settled(&[&a, &b], 2).await;
    let users: Vec<u64> = (0..50).map(mix64).collect();
    for (n, user) in (0u64..).zip(&users) {
        let [owner, _] = of(&[&a, &b], *user);
        assert_eq!(owner.store.reserve(*user, n, vec![ad(1)]).expect("held"), [Verdict::Granted]);
    }
    wait("the copies", || users.iter().all(|user| count(&a, *user) == Some(1) && count(&b, *user) == Some(1))).await;
    for node in [&a, &b] {
        node.shutdown.trigger();
        node.store.close();
    }
    let (a, b) = (node(1, a.folder).await, node(2, b.folder).await);
    show(1, &[&a, &b], &[&a, &b]);
    settled(&[&a, &b], 2).await;
    assert!(users.iter().all(|user| count(&a, *user) == Some(1) && count(&b, *user) == Some(1)));
}
