//! Who asks for ads meanwhile, and when was each request under way?

use crate::transport::{self, TransportError};
use crate::workload::TimedRequest;
use gavel_proto::wire::ad_service_client::AdServiceClient;
use gavel_proto::wire::slate_entry::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The longest that is allowed: two cores hold the whole cluster and its load.
const DEADLINE_MS: u32 = 500;
/// A request without an answer from most items says nothing of who was left out.
const MIN_COVERAGE: f64 = 0.0001;
/// Campaigns that won lately.
const WINNERS_MAX: usize = 64;

/// What was asked and answered.
#[derive(Debug, Default)]
pub struct Asked {
    /// By the number of the request: when it was sent and answered, microseconds.
    pub during: HashMap<u64, (u64, u64)>,
    /// Requests that failed.
    pub failed: u64,
    /// Answers below full coverage.
    pub partial: u64,
    winners: VecDeque<u64>,
}

/// The load.
pub struct Load {
    clients: Vec<AdServiceClient<Channel>>,
    requests: Vec<TimedRequest>,
    number: AtomicU64,
    asked: Mutex<Asked>,
    stop: AtomicBool,
    clock: fn() -> u64,
}

impl Load {
    /// Connects to the routers.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(
        routers: &[String],
        requests: Vec<TimedRequest>,
        clock: fn() -> u64,
    ) -> Result<Arc<Self>, TransportError> {
        let connect = |address: &String| {
            let bad = |_| TransportError::Address { address: address.clone() };
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(bad)?;
            let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true);
            Ok(AdServiceClient::new(endpoint.connect_lazy()))
        };
        Ok(Arc::new(Self {
            clients: routers.iter().map(connect).collect::<Result<_, TransportError>>()?,
            requests,
            number: AtomicU64::new(0),
            asked: Mutex::default(),
            stop: AtomicBool::new(false),
            clock,
        }))
    }

    /// Asks one request after the other, on so many tasks, until [`Self::stop`].
    pub async fn run(self: &Arc<Self>, askers: usize) {
        let tasks: Vec<_> = (0..askers).map(|_| tokio::spawn(Arc::clone(self).ask())).collect();
        for task in tasks {
            // A task that panicked has printed why.
            let _ = task.await;
        }
    }

    /// Ends the load after what is under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// A campaign that won lately; none before the first answer. The same number gives another one later.
    pub fn winner(&self, turn: u64) -> Option<u64> {
        self.change(|asked| {
            let at = turn as usize % asked.winners.len().max(1);
            asked.winners.get(at).copied()
        })
    }

    /// What was asked.
    pub fn take(&self) -> Asked {
        self.change(std::mem::take)
    }

    async fn ask(self: Arc<Self>) {
        while !self.stop.load(Ordering::Acquire) {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let request = &self.requests[(number % self.requests.len() as u64) as usize];
            let request = transport::ad_request(request, number, DEADLINE_MS, MIN_COVERAGE);
            let mut client = self.clients[(number % self.clients.len() as u64) as usize].clone();
            let sent = (self.clock)();
            let answer = client.get_ads(request).await;
            let during = (sent, (self.clock)());
            self.change(|asked| {
                let Ok(answer) = answer else {
                    asked.failed += 1;
                    return;
                };
                let answer = answer.into_inner();
                asked.during.insert(number, during);
                asked.partial += u64::from(answer.coverage.is_some_and(|c| c.fraction < 1.0));
                let entries = answer.slate.into_iter().filter_map(|place| place.entry);
                asked.winners.extend(entries.filter_map(|entry| match entry {
                    Entry::Ad(winner) => Some(winner.campaign_id),
                    Entry::OrganicId(_) => None,
                }));
                let old = asked.winners.len().saturating_sub(WINNERS_MAX);
                asked.winners.drain(..old);
            });
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Asked) -> T) -> T {
        change(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
