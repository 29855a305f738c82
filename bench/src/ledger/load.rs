//! How do tokens come from ads, and go back as events, more often than once and out of order?

use super::LedgerArgs;
use super::kills;
use super::oracle::{IMPRESSION, Sold};
use crate::transport::TransportError;
use crate::workload::{Seeded, TimedRequest};
use gavel_proto::hash::combine;
use gavel_proto::wire;
use gavel_proto::wire::ad_service_client::AdServiceClient;
use gavel_proto::wire::event_service_client::EventServiceClient;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::{Channel, Endpoint};

/// The longest that is allowed: two cores hold the whole cluster and its load.
const DEADLINE_MS: u32 = 500;
/// Events of one report.
const EVENTS_MAX: usize = 64;
/// Copies that wait to be sent, so that some go out long after others.
const SHUFFLED: usize = 2_000;
/// Reports under way.
const REPORTS_MAX: usize = 16;
/// Longer than a router waits for the ledger.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries of what was not answered.
const PAUSE: Duration = Duration::from_millis(100);
/// Most copies of one event.
const COPIES_MAX: u64 = 5;
/// One of so many impressions is never reported, as of a page that was closed: it is over-delivered.
const WITHHELD_ONE_IN: u64 = 100;

/// A copy of an event: which token, and its bytes.
#[derive(Clone, Debug)]
struct Repeat {
    token: usize,
    kind: i32,
    text: Arc<str>,
}

/// Askers and senders.
pub struct Load {
    ads: Vec<AdServiceClient<Channel>>,
    events: Vec<EventServiceClient<Channel>>,
    requests: Vec<TimedRequest>,
    wanted: u64,
    /// Tokens that may be sold before the next kill.
    allowed: AtomicU64,
    seed: u64,
    asked: AtomicU64,
    /// Events that were put on the wire, tries included.
    pub sent: AtomicU64,
    /// Requests for ads that failed.
    pub failed: AtomicU64,
    sold: Mutex<Vec<Sold>>,
    /// Tokens of impressions, and those of them that are never reported; they change with what is sold.
    impressions: AtomicU64,
    withheld: AtomicU64,
    /// Microseconds from a report to its answer.
    pub report_us: Mutex<Vec<u64>>,
    clock: fn() -> u64,
}

impl Load {
    /// Connects to the routers, lazily: one that is started again is found again.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(
        args: &LedgerArgs,
        routers: &[String],
        requests: Vec<TimedRequest>,
        clock: fn() -> u64,
    ) -> Result<Arc<Self>, TransportError> {
        let connect = |address: &String| {
            let bad = |_| TransportError::Address { address: address.clone() };
            let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(bad)?;
            Ok(endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect_lazy())
        };
        let channels = routers.iter().map(connect).collect::<Result<Vec<_>, TransportError>>()?;
        Ok(Arc::new(Self {
            ads: channels.iter().cloned().map(AdServiceClient::new).collect(),
            events: channels.into_iter().map(EventServiceClient::new).collect(),
            requests,
            wanted: args.charges,
            allowed: AtomicU64::new(if args.kill { kills::allowed(args.charges, 0) } else { args.charges }),
            seed: args.seed,
            asked: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            sold: Mutex::default(),
            impressions: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
            report_us: Mutex::default(),
            clock,
        }))
    }

    /// What was sold, with all answers; call it when [`Self::run`] has ended.
    pub fn take(&self) -> Vec<Sold> {
        std::mem::take(&mut *self.sold())
    }

    /// So many tokens may be sold from now on.
    pub fn allow(&self, tokens: u64) {
        self.allowed.fetch_max(tokens, Ordering::Release);
    }

    /// Tokens so far whose events are sent.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count_of(&self.sold())
    }

    fn count_of(&self, sold: &[Sold]) -> u64 {
        sold.len() as u64 - self.withheld.load(Ordering::Relaxed)
    }

    fn sold(&self) -> MutexGuard<'_, Vec<Sold>> {
        self.sold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for ads until there are enough tokens, and returns when every copy of every event is answered.
    pub async fn run(self: &Arc<Self>, askers: usize) {
        let (sender, copies) = mpsc::channel(SHUFFLED);
        let sending = tokio::spawn(Arc::clone(self).send(copies));
        let asking: Vec<_> = (0..askers).map(|_| tokio::spawn(Arc::clone(self).ask(sender.clone()))).collect();
        drop(sender);
        for task in asking {
            // A task that panicked has printed why.
            let _ = task.await;
        }
        let _ = sending.await;
    }

    /// Asks one request after the other.
    async fn ask(self: Arc<Self>, copies: mpsc::Sender<Repeat>) {
        while self.count() < self.wanted {
            if self.count() >= self.allowed.load(Ordering::Acquire) {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let number = self.asked.fetch_add(1, Ordering::Relaxed);
            let request = request(&self.requests[number as usize % self.requests.len()], number);
            let router = (combine(self.seed, number) % self.ads.len() as u64) as usize;
            let asked = tokio::time::timeout(Duration::from_secs(2), self.ads[router].clone().get_ads(request)).await;
            let Ok(Ok(answer)) = asked else {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            for copy in self.sell(answer.into_inner()) {
                if copies.send(copy).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Notes the winners of an answer; the copies of their events.
    fn sell(&self, answer: wire::AdResponse) -> Vec<Repeat> {
        let mut copies = Vec::new();
        let winners = answer.slate.into_iter().filter_map(|entry| match entry.entry {
            Some(wire::slate_entry::Entry::Ad(winner)) if !winner.token.is_empty() => Some(winner),
            Some(_) | None => None,
        });
        let mut sold = self.sold();
        for winner in winners {
            if self.count_of(&sold) >= self.wanted {
                break;
            }
            let token = sold.len();
            // A price per mille in micros is one impression's in nanos.
            let (kind, factor) = match winner.bid_type() {
                wire::BidType::Cpm | wire::BidType::Ocpm | wire::BidType::Unspecified => (IMPRESSION, 1),
                wire::BidType::Cpc | wire::BidType::Ocpc => (2, 1_000),
                wire::BidType::Cpa => (3, 1_000),
            };
            let price_nanos = i64::try_from(winner.price_micros).unwrap_or(i64::MAX).saturating_mul(factor);
            let (text, campaign): (Arc<str>, u64) = (winner.token.into(), winner.campaign_id);
            let count =
                if kind == IMPRESSION && is_withheld(self.seed, self.impressions.fetch_add(1, Ordering::Relaxed)) {
                    self.withheld.fetch_add(1, Ordering::Relaxed);
                    0
                } else {
                    1 + combine(self.seed ^ 0x636f_7079, token as u64) % COPIES_MAX
                };
            let answers = Vec::new();
            sold.push(Sold { text: Arc::clone(&text), campaign, kind, price_nanos, copies: count, answers });
            copies.extend((0..count).map(|_| Repeat { token, kind: kind.into(), text: Arc::clone(&text) }));
        }
        copies
    }

    /// Shuffles copies and sends them until all are answered.
    async fn send(self: Arc<Self>, mut copies: mpsc::Receiver<Repeat>) {
        let room = Arc::new(Semaphore::new(REPORTS_MAX));
        let mut random = Seeded::new(self.seed ^ 0x7365_6e64);
        let mut waiting: Vec<Repeat> = Vec::new();
        let mut is_over = false;
        while !(is_over && waiting.is_empty()) {
            // An impression must be reported within its minute, so nothing waits for company for long.
            match tokio::time::timeout(PAUSE, copies.recv()).await {
                Ok(Some(copy)) if !is_over => {
                    waiting.push(copy);
                    if waiting.len() < EVENTS_MAX * 4 {
                        continue;
                    }
                }
                Ok(Some(copy)) => waiting.push(copy),
                Ok(None) => is_over = true,
                Err(_) => {}
            }
            let mut batch = Vec::new();
            while batch.len() < EVENTS_MAX && !waiting.is_empty() {
                let at = random.next_u64() as usize % waiting.len();
                batch.push(waiting.swap_remove(at));
            }
            if batch.is_empty() {
                continue;
            }
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let (this, draw) = (Arc::clone(&self), random.next_u64());
            tokio::spawn(async move {
                this.report(batch, draw).await;
                drop(permit);
            });
        }
        // Everything that is under way has answered.
        let all = u32::try_from(REPORTS_MAX).unwrap_or(u32::MAX);
        drop(room.acquire_many(all).await);
    }

    /// Reports events to a router, and those that were not answered to another, until all are.
    async fn report(&self, mut batch: Vec<Repeat>, draw: u64) {
        let mut turn = 0u64;
        while !batch.is_empty() {
            let router = (combine(draw, turn) % self.events.len() as u64) as usize;
            turn += 1;
            let event = |copy: &Repeat| wire::AdEvent { kind: copy.kind, token: copy.text.to_string() };
            let events = batch.iter().map(event).collect();
            self.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
            let from = (self.clock)();
            let mut client = self.events[router].clone();
            let asked = client.report(wire::EventBatch { events });
            let Ok(Ok(answers)) = tokio::time::timeout(REPORT_TIMEOUT, asked).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let took = (self.clock)().saturating_sub(from);
            self.report_us.lock().unwrap_or_else(PoisonError::into_inner).push(took);
            let mut sold = self.sold();
            let mut again = Vec::new();
            for (copy, answer) in batch.into_iter().zip(answers.into_inner().answers) {
                if answer == "unavailable" {
                    again.push(copy);
                } else {
                    sold[copy.token].answers.push(answer);
                }
            }
            batch = again;
        }
    }
}

/// Whether an impression, counted from 0, is never reported: one of each hundred, which one is drawn.
const fn is_withheld(seed: u64, number: u64) -> bool {
    number % WITHHELD_ONE_IN == combine(seed ^ 0x636c_6f73, number / WITHHELD_ONE_IN) % WITHHELD_ONE_IN
}

fn request(timed: &TimedRequest, number: u64) -> wire::AdRequest {
    let term = |term: &crate::workload::Term| wire::RequestTerm {
        dimension: term.dimension.clone(),
        values: term.values.clone(),
        number: None,
    };
    wire::AdRequest {
        request_id: format!("ledger-{number}"),
        user_id: timed.user_id.clone(),
        placement: timed.placement.clone(),
        terms: timed.terms.iter().map(term).collect(),
        slots: timed.slots,
        deadline_ms: DEADLINE_MS,
        min_coverage: 0.000_1,
        ..wire::AdRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_hundred_impressions_is_never_reported() {
        let withheld: Vec<u64> = (0..1_000).filter(|number| is_withheld(7, *number)).collect();
        assert_eq!(withheld.iter().map(|number| number / 100).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert!(withheld.windows(2).any(|pair| pair[1] - pair[0] != 100), "not at one place: {withheld:?}");
    }
}
