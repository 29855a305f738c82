//! What did every request of the storm come back with?
//!
//! Open-loop load over the routers that are up, as a balancer in front of them would spread it. Every response is
//! looked at when it comes: which version it names, and which bundle scored each of its shards.

use crate::transport::{self, TransportError};
use crate::workload::{self, TimedRequest};
use gavel_proto::wire;
use gavel_proto::wire::ad_service_client::AdServiceClient;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Every request's own: the longest that is allowed, because two cores hold the whole cluster and its load.
const DEADLINE_MS: u32 = 500;
/// Any, because it is counted.
const MIN_COVERAGE: f64 = 0.000_1;
/// Beyond it requests are not sent, and counted.
const IN_FLIGHT_MAX: u64 = 512;

/// A request that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The router that was asked, by its place in the list.
    pub router: usize,
    /// When it was sent and when it failed, microseconds since the storm began.
    pub during: (u64, u64),
    /// gRPC code.
    pub code: String,
}

/// A response that was not whole.
#[derive(Clone, Copy, Debug)]
pub struct Partial {
    /// When the request was sent and answered, microseconds since the storm began.
    pub during: (u64, u64),
    /// Shards that did not have the version.
    pub version_unavailable: u32,
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub struct Answered {
    /// Responses.
    pub responses: u64,
    /// Answers of shards in them.
    pub shard_answers: u64,
    /// Responses whose shards were not all scored with one bundle.
    pub mixed: u64,
    /// By version: fingerprints that its responses named, with how often.
    pub bundles: BTreeMap<(u64, u64), u64>,
    /// By auction: the version that its response named.
    pub versions: BTreeMap<u64, u64>,
    /// Requests that failed.
    pub failed: Vec<Failed>,
    /// Responses below full coverage.
    pub partial: Vec<Partial>,
    /// Requests that were not sent.
    pub unsent: u64,
    /// Microseconds of answered requests.
    pub latency_us: Vec<u32>,
}

/// The load.
pub struct Load {
    clients: Vec<AdServiceClient<Channel>>,
    /// Which routers a balancer would send to.
    up: Vec<AtomicBool>,
    requests: Vec<TimedRequest>,
    in_flight: AtomicU64,
    answered: Mutex<Answered>,
    clock: fn() -> u64,
}

impl Load {
    /// Connects to the routers, lazily: one that is started again is found again.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(routers: &[String], requests: Vec<TimedRequest>, clock: fn() -> u64) -> Result<Self, TransportError> {
        let connect = |address: &String| {
            let bad = |_| TransportError::Address { address: address.clone() };
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(bad)?;
            let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true);
            Ok(AdServiceClient::new(endpoint.connect_lazy()))
        };
        Ok(Self {
            clients: routers.iter().map(connect).collect::<Result<_, _>>()?,
            up: routers.iter().map(|_| AtomicBool::new(true)).collect(),
            requests,
            in_flight: AtomicU64::new(0),
            answered: Mutex::default(),
            clock,
        })
    }

    /// Takes a router out of the balancer, or puts it back.
    pub fn set_up(&self, router: usize, is_up: bool) {
        if let Some(up) = self.up.get(router) {
            up.store(is_up, Ordering::Release);
        }
    }

    /// Sends until `stop` and waits for what is under way.
    pub async fn run(self: &Arc<Self>, qps: f64, seed: u64, stop: Arc<AtomicBool>) {
        // A day of arrivals would be more than any run needs; they are drawn piece by piece.
        const PIECE_SECONDS: f64 = 30.0;
        let (mut number, mut piece) = (0u64, 0u64);
        while !stop.load(Ordering::Acquire) {
            let from = (self.clock)();
            for at in workload::arrivals(qps, PIECE_SECONDS, seed.wrapping_add(piece)) {
                let wait = (from + at).saturating_sub((self.clock)());
                if wait > 0 {
                    tokio::time::sleep(Duration::from_micros(wait)).await;
                }
                if stop.load(Ordering::Acquire) {
                    break;
                }
                self.send(number);
                number += 1;
            }
            piece += 1;
        }
        while self.in_flight.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What was counted.
    pub fn take(&self) -> Answered {
        std::mem::take(&mut *self.answered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send(self: &Arc<Self>, number: u64) {
        let n = self.clients.len() as u64;
        let is_up = |router: &u64| self.up[*router as usize].load(Ordering::Acquire);
        let router = (0..n).map(|turn| (number + turn) % n).find(is_up).unwrap_or(number % n) as usize;
        if self.in_flight.load(Ordering::Acquire) >= IN_FLIGHT_MAX {
            self.count(|a| a.unsent += 1);
            return;
        }
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        let request = &self.requests[(number % self.requests.len() as u64) as usize];
        let request = transport::ad_request(request, number, DEADLINE_MS, MIN_COVERAGE);
        let (this, mut client) = (Arc::clone(self), self.clients[router].clone());
        tokio::spawn(async move {
            let sent = (this.clock)();
            let answer = client.get_ads(request).await;
            let during = (sent, (this.clock)());
            this.count(|a| match answer {
                Ok(response) => take(a, during, &response.into_inner()),
                Err(status) => {
                    a.failed.push(Failed {
                        router,
                        during,
                        code: format!("{:?}: {}", status.code(), status.message()),
                    });
                }
            });
            this.in_flight.fetch_sub(1, Ordering::AcqRel);
        });
    }

    fn count(&self, change: impl FnOnce(&mut Answered)) {
        change(&mut self.answered.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn take(a: &mut Answered, during: (u64, u64), response: &wire::AdResponse) {
    a.responses += 1;
    a.latency_us.push(u32::try_from(during.1 - during.0).unwrap_or(u32::MAX));
    let version = response.epoch.map_or(0, |e| e.model_version);
    a.versions.insert(response.auction_id, version);
    let shards = response.timings.iter().flat_map(|t| &t.shards);
    let fingerprints: Vec<u64> = shards.map(|s| s.model_fingerprint).collect();
    a.shard_answers += fingerprints.len() as u64;
    // One that does not say what it was scored with counts as mixed: nothing shows that it is not.
    if fingerprints.windows(2).any(|pair| pair[0] != pair[1]) || fingerprints.contains(&0) {
        a.mixed += 1;
    }
    for fingerprint in fingerprints {
        *a.bundles.entry((version, fingerprint)).or_insert(0) += 1;
    }
    let coverage = response.coverage.unwrap_or_default();
    if coverage.fraction < 1.0 {
        a.partial.push(Partial { during, version_unavailable: coverage.shards_version_unavailable });
    }
}
