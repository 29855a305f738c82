//! Who puts what is said of campaigns in force on this node, and who is told of it?
//!
//! A thread of its own: staging may be busy for minutes, and a pause must count within milliseconds. It follows the book
//! that the member hears, resolves it for every shard, and says which versions searches may name.

use std::sync::Arc;
use std::thread::JoinHandle;

use gavel_member::delivery::{Acknowledged, DeliveryFeed};
use gavel_member::{ReadyState, Shutdown, clock};
use tokio::runtime::Handle;

use super::holdings::SharedHoldings;
use super::worker::ready_shards;

/// What the thread works with.
pub struct Deliver {
    /// Where versions are put in force.
    pub holdings: Arc<SharedHoldings>,
    /// What is heard.
    pub feed: Arc<DeliveryFeed>,
    /// What the heartbeat reports.
    pub ready: Arc<ReadyState>,
    /// For waiting.
    pub runtime: Handle,
    /// Ends the thread.
    pub shutdown: Shutdown,
}

impl Deliver {
    /// Starts the thread.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("delivery".to_owned()).spawn(move || self.follow())
    }

    fn follow(&self) {
        let mut news = self.feed.subscribe();
        while !self.shutdown.is_triggered() {
            // Marked as seen before it is read, so that no change is lost.
            news.borrow_and_update();
            self.put_in_force();
            let stays = self.runtime.block_on(async {
                tokio::select! {
                    changed = news.changed() => changed.is_ok(),
                    () = self.shutdown.wait() => false,
                }
            });
            if !stays {
                return;
            }
        }
    }

    fn put_in_force(&self) {
        let Some(book) = self.feed.current() else { return };
        let held = self.holdings.current();
        let of = |book: &gavel_proto::delivery::Book| (book.formation, book.version);
        if held.book.as_deref().map(of) == Some(of(&book)) {
            return;
        }
        let was_ready = held.book.is_some();
        let (began, version) = (clock::now_us(), book.version);
        self.holdings.change(|holdings| holdings.take_book(book));
        let took_us = clock::now_us().0.saturating_sub(began.0);
        metrics::histogram!("gavel_node_delivery_us").record(took_us as f64);
        tracing::debug!(version, took_us, "bids are in force");
        acknowledge(&self.holdings, &self.feed);
        if !was_ready {
            // Shards that were loaded before are ready with their bids.
            self.ready.update(|ready| ready.shards = ready_shards(&self.holdings.current()));
        }
    }
}

/// Says which versions searches may name.
pub fn acknowledge(holdings: &SharedHoldings, feed: &DeliveryFeed) {
    feed.acknowledge(|| {
        let holdings = holdings.current();
        let held = holdings.deliveries.keys().map(|generation| (*generation, holdings.versions(*generation)));
        Acknowledged { held: held.collect(), pinned: 0 }
    });
}
