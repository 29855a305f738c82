//! When does this node begin to answer for a user?
//!
//! It follows the View: which nodes live and do not leave, each with the incarnation of its process. A change makes a
//! new round: everybody sends everybody else the users that it holds from now on ([`super::copies`]), and says when
//! that is done; until all have, those that held a user before answer. A node that does not speak within
//! [`SETTLE_MS`] has gone or hangs: what it alone knew is lost, and the others go on without.

use super::copies::{self, Peer};
use super::store::{Store, StoreError, TABLES};
use super::{CountingConfig, convert};
use gavel_member::Shutdown;
use gavel_member::clock::now_us;
use gavel_member::transport::data_channel;
use gavel_member::view::ViewFeed;
use gavel_proto::ids::MemberId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait for what the others send. A million users take some seconds; a node that dies is off the View before.
const SETTLE_MS: u64 = 10_000;
/// Between two looks whether all have spoken, and at the next table to sweep.
const BEAT: Duration = Duration::from_millis(50);
/// Beats between two looks at what is held.
const BEATS_PER_LOOK: u32 = 20;

/// Opens the counts and follows the View until the shutdown.
///
/// # Errors
/// When the folder cannot be used.
pub fn start(
    config: &CountingConfig,
    view: Arc<ViewFeed>,
    own: watch::Receiver<u64>,
    shutdown: Shutdown,
) -> Result<Arc<Store>, StoreError> {
    let store = Store::open(config)?;
    let mover = Mover { store: Arc::clone(&store), own, peers: HashMap::new(), since_us: 0 };
    tokio::spawn(mover.follow(view, shutdown));
    Ok(store)
}

/// A node of the View that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LiveNode {
    pub id: MemberId,
    pub incarnation: u64,
    pub address: String,
}

struct Sender {
    node: LiveNode,
    own: MemberId,
    peer: Arc<Peer>,
    task: JoinHandle<()>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Mover {
    store: Arc<Store>,
    own: watch::Receiver<u64>,
    peers: HashMap<MemberId, Sender>,
    since_us: u64,
}

impl Mover {
    async fn follow(mut self, view: Arc<ViewFeed>, shutdown: Shutdown) {
        let mut changes = view.subscribe();
        let mut beat = tokio::time::interval(BEAT);
        for turn in 0u32.. {
            tokio::select! {
                // What is counted until the very end is copied: the node listens for a while after this.
                () = shutdown.wait() => break,
                changed = changes.changed() => if changed.is_err() { break },
                _ = beat.tick() => {
                    self.store.sweep(turn as usize % TABLES);
                    if turn.is_multiple_of(BEATS_PER_LOOK) {
                        look(&self.store);
                    }
                }
            }
            let own = MemberId(*self.own.borrow());
            if let Some(view) = view.current().filter(|_| own.0 != 0) {
                self.round(own, &convert::live_nodes(&view));
                self.settle();
            }
        }
        self.leave(&view).await;
    }

    /// Begins a round when the nodes have changed.
    fn round(&mut self, own: MemberId, live: &[LiveNode]) {
        let nodes: Vec<(MemberId, u64)> = live.iter().map(|node| (node.id, node.incarnation)).collect();
        let Some(next) = self.store.placement().after(own, &nodes) else { return };
        tracing::debug!(nodes = nodes.len(), round = next.round(), "counts move");
        self.since_us = now_us().0;
        self.connect(own, live);
        self.store.place(next);
    }

    fn connect(&mut self, own: MemberId, live: &[LiveNode]) {
        let others = || live.iter().filter(|node| node.id != own);
        self.peers.retain(|id, sender| sender.own == own && others().any(|n| n.id == *id && *n == sender.node));
        for node in others() {
            if self.peers.contains_key(&node.id) {
                continue;
            }
            match data_channel(&node.address) {
                Ok(channel) => {
                    let peer = Peer::new(node.id);
                    let task = copies::send(Arc::clone(&peer), channel, own, Arc::clone(&self.store));
                    let sender = Sender { node: node.clone(), own, peer, task: tokio::spawn(task) };
                    self.peers.insert(node.id, sender);
                }
                Err(error) => tracing::error!(%error, node = %node.id, "counts cannot be copied to a node"),
            }
        }
        let peers = self.peers.iter().map(|(id, sender)| (*id, Arc::clone(&sender.peer)));
        self.store.copies().replace(peers.collect());
    }

    /// Ends a round when everything has come, or nobody can be waited for any longer.
    fn settle(&self) {
        let placement = self.store.placement();
        if placement.is_settled() || placement.round() == 0 {
            return;
        }
        let (came, waited_ms) = (self.store.has_come(&placement), now_us().0.saturating_sub(self.since_us) / 1_000);
        if !came && waited_ms < SETTLE_MS {
            return;
        }
        if !came {
            tracing::warn!(waited_ms, "a node did not send its counts: what it alone knew is not counted");
            metrics::counter!("gavel_frequency_unsettled_total").increment(1);
        }
        metrics::histogram!("gavel_frequency_settle_us").record((now_us().0 - self.since_us) as f64);
        self.store.place(placement.settled());
    }

    /// Goes on to copy while the node takes its leave, and hands its users over once the View says that it leaves.
    async fn leave(&mut self, view: &ViewFeed) {
        for _ in 0..(1_500 / BEAT.as_millis()) {
            let own = MemberId(*self.own.borrow());
            if let Some(view) = view.current() {
                self.round(own, &convert::live_nodes(&view));
            }
            tokio::time::sleep(BEAT).await;
        }
    }
}

fn look(store: &Store) {
    let held = store.held();
    metrics::gauge!("gavel_frequency_users_count").set(held.users as f64);
    metrics::gauge!("gavel_frequency_bytes").set(held.bytes as f64);
    metrics::gauge!("gavel_frequency_copies_waiting_count").set(store.copies().waiting() as f64);
}
