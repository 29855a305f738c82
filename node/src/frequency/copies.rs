//! How does the other node of a user learn what was counted?
//!
//! One queue and one task for each other node. What is counted is sent at once, everything that waits in one message,
//! the next when it is acknowledged. After a change of the map the task also sends every user that the other node
//! holds from now on, in the pauses: first it reads some users, then it takes all that waits, so that a message holds
//! every op that its users already contain, and the receiver, who applies ops once and merges users by the larger
//! count, counts nothing twice. When all are sent it says so.
//!
//! A node that does not answer costs a queue: the oldest goes beyond [`WAITING_MAX`], and when the node is back all its
//! users are sent anew instead.

use super::convert::CopyMessage;
use super::kernel::Op;
use super::store::{Store, TABLES, copy_of};
use super::transport;
use arc_swap::ArcSwap;
use gavel_proto::ids::MemberId;
use gavel_proto::limits::FREQUENCY_COPIES_MAX;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::transport::Channel;

/// Ops that wait for one node: some seconds of a busy node.
const WAITING_MAX: usize = 65_536;
/// Users of one message: with a few dozen counters each still far below the limit of a message.
const USERS_MAX: usize = 256;
/// Counters of one message, counted before its last user.
const COUNTERS_MAX: usize = 16_384;
/// Between two looks when nothing is counted.
const IDLE: Duration = Duration::from_millis(100);
/// Between two tries, growing to the second.
const REST: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_secs(1);

/// The queues to all other nodes.
#[derive(Debug, Default)]
pub struct Copies {
    peers: ArcSwap<HashMap<MemberId, Arc<Peer>>>,
}

/// Another node.
#[derive(Debug)]
pub struct Peer {
    id: MemberId,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    ops: VecDeque<Arc<Op>>,
    /// Something was dropped: its users must be sent whole.
    lost: bool,
}

impl Copies {
    /// Puts an op into the queue of a node; nothing when the node has left.
    pub fn push(&self, to: MemberId, op: &Arc<Op>) {
        let peers = self.peers.load();
        let Some(peer) = peers.get(&to) else { return };
        {
            let mut queue = peer.queue();
            if queue.ops.len() >= WAITING_MAX {
                queue.ops.pop_front();
                queue.lost = true;
                metrics::counter!("gavel_frequency_copies_dropped_total").increment(1);
            }
            queue.ops.push_back(Arc::clone(op));
        }
        peer.wake.notify_one();
    }

    /// Ops that wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.peers.load().values().map(|peer| peer.queue().ops.len() as u64).sum()
    }

    /// Takes these nodes in place of those before.
    pub(super) fn replace(&self, peers: HashMap<MemberId, Arc<Peer>>) {
        self.peers.store(Arc::new(peers));
    }
}

impl Peer {
    /// Nothing waits for it.
    pub(super) fn new(id: MemberId) -> Arc<Self> {
        Arc::new(Self { id, queue: Mutex::default(), wake: Notify::new() })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Op> {
        let mut queue = self.queue();
        let count = queue.ops.len().min(FREQUENCY_COPIES_MAX);
        queue.ops.drain(..count).map(Arc::unwrap_or_clone).collect()
    }

    fn has_lost(&self) -> bool {
        std::mem::take(&mut self.queue().lost)
    }

    fn waits(&self) -> usize {
        self.queue().ops.len()
    }
}

/// Sends a node what is for it, for ever; ended from outside when the node goes.
pub(super) async fn send(peer: Arc<Peer>, channel: Channel, own: MemberId, store: Arc<Store>) {
    let (mut done, mut walk) = (0, None::<Walk>);
    loop {
        let placement = store.placement();
        let round = placement.round();
        let begins = done != round && walk.as_ref().is_none_or(|walk| walk.round != round);
        if peer.has_lost() || begins {
            (done, walk) = (0, Some(Walk::new(round)));
        }
        // Only when the next message takes all that waits: it must hold every op that its users contain.
        let has_time = peer.waits() < FREQUENCY_COPIES_MAX / 2;
        let users = walk.as_mut().filter(|_| has_time).map(|walk| walk.next(&store, peer.id)).unwrap_or_default();
        let ops = peer.take();
        let is_over = walk.as_ref().is_some_and(Walk::is_over) && peer.waits() == 0;
        if ops.is_empty() && users.is_empty() && !is_over {
            match walk {
                None => {
                    // A wake that comes before this is kept.
                    let _ = tokio::time::timeout(IDLE, peer.wake.notified()).await;
                }
                // A table of thousands of users, none of them for this node: others want the thread before the next.
                Some(_) => tokio::task::yield_now().await,
            }
            continue;
        }
        let message = CopyMessage { from: own, ops, users, settled: if is_over { round } else { 0 } };
        deliver(&channel, &message, peer.id).await;
        if is_over {
            (done, walk) = (round, None);
        }
    }
}

async fn deliver(channel: &Channel, message: &CopyMessage, to: MemberId) {
    let mut rest = REST;
    while let Err(reason) = transport::send(channel.clone(), message).await {
        metrics::counter!("gavel_frequency_copies_total", "outcome" => "failed").increment(1);
        tracing::debug!(node = %to, %reason, "counts were not taken");
        tokio::time::sleep(rest).await;
        rest = (rest * 2).min(REST_MAX);
    }
    metrics::counter!("gavel_frequency_copies_total", "outcome" => "taken").increment(1);
    metrics::counter!("gavel_frequency_moved_users_total").increment(message.users.len() as u64);
}

/// A walk over every user that a node holds.
struct Walk {
    round: u64,
    table: usize,
    /// Of the table before, still to be sent.
    users: Vec<u64>,
}

impl Walk {
    const fn new(round: u64) -> Self {
        Self { round, table: 0, users: Vec::new() }
    }

    const fn is_over(&self) -> bool {
        self.table >= TABLES && self.users.is_empty()
    }

    /// The next users, as they stand; empty when the tables looked at have none.
    fn next(&mut self, store: &Store, to: MemberId) -> Vec<(u64, Vec<super::kernel::Counter>)> {
        let placement = store.placement();
        if self.users.is_empty() && self.table < TABLES {
            self.users = store.tables().lock(self.table).table.users().collect();
            self.users.retain(|user| placement.holds(to, *user));
            self.table += 1;
        }
        let (mut copies, mut counters) = (Vec::new(), 0);
        while copies.len() < USERS_MAX && counters < COUNTERS_MAX {
            let Some(user) = self.users.pop() else { break };
            let copy = copy_of(&store.tables().lock(super::store::Tables::of(user)), user);
            counters += copy.1.len();
            copies.push(copy);
        }
        copies
    }
}
