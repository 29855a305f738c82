//! Where are the nodes, and over which connections are they reached?
//!
//! Two connections per node, used in turn: one slow stream cannot hold the window of both. A node that is ejected
//! gets new ones, which is what frees a router from a connection that is alive and stuck. A third one is for the small
//! questions after a user's counts, which must not wait behind candidate lists.

use arc_swap::ArcSwap;
use gavel_member::delivery::DeliveryFeed;
use gavel_member::transport::{AddressError, data_channel};
use gavel_proto::ids::MemberId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tonic::transport::Channel;

/// Connections per node.
const CONNECTIONS: usize = 2;

struct Node {
    address: String,
    channels: Vec<Channel>,
    counts: Channel,
    turn: AtomicUsize,
}

impl Node {
    fn connect(address: &str) -> Option<Arc<Self>> {
        let connect = || {
            let channels = (0..CONNECTIONS).map(|_| data_channel(address)).collect::<Result<Vec<Channel>, _>>()?;
            Ok::<_, AddressError>((channels, data_channel(address)?))
        };
        match connect() {
            Ok((channels, counts)) => {
                Some(Arc::new(Self { address: address.to_owned(), channels, counts, turn: AtomicUsize::new(0) }))
            }
            Err(error) => {
                tracing::error!(%error, "a node cannot be asked");
                None
            }
        }
    }
}

/// The nodes of the View.
#[derive(Default)]
pub struct Nodes {
    map: ArcSwap<HashMap<MemberId, Arc<Node>>>,
    /// Told which bids a node has when it lacks those of a search.
    delivery: Arc<DeliveryFeed>,
    changing: Mutex<()>,
}

impl Nodes {
    /// None yet; what they say of their bids goes to the feed.
    #[must_use]
    pub fn telling(delivery: Arc<DeliveryFeed>) -> Self {
        Self { delivery, ..Self::default() }
    }

    /// A node said which versions of bids it holds.
    pub(super) fn holds(&self, id: MemberId, generation: u64, versions: Vec<u64>) {
        self.delivery.learn(id.0, generation, versions);
    }

    /// Takes the nodes of a View; connections to those that have not moved stay. Call it inside the runtime.
    pub fn follow(&self, addresses: &[(MemberId, String)]) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.map.load();
        let unchanged = old.len() == addresses.len()
            && addresses.iter().all(|(id, address)| old.get(id).is_some_and(|n| n.address == *address));
        if unchanged {
            return;
        }
        let keep = |id: &MemberId, address: &str| match old.get(id).filter(|node| node.address == address) {
            Some(node) => Some(Arc::clone(node)),
            None => Node::connect(address),
        };
        let map = addresses.iter().filter_map(|(id, address)| Some((*id, keep(id, address)?))).collect();
        self.map.store(Arc::new(map));
    }

    /// Replaces the connections to a node.
    pub fn redial(&self, id: MemberId) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut map = HashMap::clone(&self.map.load());
        if let Some(node) = map.get(&id).and_then(|node| Node::connect(&node.address)) {
            map.insert(id, node);
            self.map.store(Arc::new(map));
        }
    }

    /// True for a node of the newest View.
    #[must_use]
    pub fn knows(&self, id: MemberId) -> bool {
        self.map.load().contains_key(&id)
    }

    /// The connection for counts; `None` for a node that has left.
    pub(super) fn counts_channel(&self, id: MemberId) -> Option<Channel> {
        Some(self.map.load().get(&id)?.counts.clone())
    }

    /// A connection to a node; `None` for one that has left.
    pub(super) fn channel(&self, id: MemberId) -> Option<Channel> {
        let map = self.map.load();
        let node = map.get(&id)?;
        node.channels.get(node.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS).cloned()
    }
}
