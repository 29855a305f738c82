//! What came back for each scheduled arrival?

use crate::transport::{self, Member, TransportError};
use crate::workload::TimedRequest;
use gavel_proto::wire;
use gavel_proto::wire::ad_service_client::AdServiceClient;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Longest latency that is told apart: a minute, where the longest deadline is half a second.
const LATENCY_US_MAX: u64 = 60_000_000;

/// Connections to each router: one HTTP/2 connection serialises its frames.
const CONNECTIONS: usize = 4;
/// Requests under way at most; beyond it the generator itself is the bottleneck, and counts what it could not send.
const IN_FLIGHT_MAX: usize = 4_096;
/// Coverage asked of every answer: any, because it is counted.
const MIN_COVERAGE: f64 = 0.000_1;

/// The routers under load.
pub struct Target {
    clients: Vec<AdServiceClient<Channel>>,
    deadline_ms: u32,
}

impl Target {
    /// Connects to every router of the cluster; `None` when there is none.
    ///
    /// # Errors
    /// When a router does not answer.
    pub async fn connect(members: &[Member], deadline_ms: u32) -> Result<Option<Self>, TransportError> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            for router in members.iter().filter(|m| m.role == "router") {
                clients.push(AdServiceClient::new(transport::connect(&router.address).await?));
            }
        }
        Ok((!clients.is_empty()).then_some(Self { clients, deadline_ms }))
    }
}

/// Everything that was counted in one run.
#[derive(Debug)]
pub struct Outcome {
    /// Microseconds from the scheduled arrival, of answered requests.
    pub latency_us: Histogram<u64>,
    /// Requests by error code.
    pub errors: BTreeMap<String, u64>,
    /// Arrivals that were never sent, because too many were under way.
    pub unsent: u64,
    /// Sum of coverage, and how many answers were not whole.
    pub coverage_sum: f64,
    /// Answers below full coverage.
    pub partial: u64,
    /// Sums over the answers.
    pub funnel: Sums,
    /// Microseconds of retrieval, one a shard and request.
    pub shard_retrieval_us: Histogram<u64>,
    /// Microseconds of features, light ranking and ranking, one a shard and request.
    pub shard_ranking_us: Histogram<u64>,
    /// Seconds from the first arrival to the last answer.
    pub seconds: f64,
    /// Arrivals of the schedule.
    pub scheduled: u64,
}

/// Sums over answers of counts and times by name.
pub type Sums = BTreeMap<&'static str, u64>;

/// Sends every request at its time and waits for all answers.
pub async fn run(target: &Target, requests: &[TimedRequest], schedule: &[u64]) -> Outcome {
    let (sender, receiver) = tokio::sync::mpsc::channel(IN_FLIGHT_MAX);
    let counting = tokio::spawn(count_all(receiver));
    let slots = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT_MAX));
    let start = clock();
    let mut unsent = 0;
    for (number, at_us) in schedule.iter().enumerate() {
        let due = start + Duration::from_micros(*at_us);
        if let Some(wait) = due.checked_duration_since(clock()) {
            tokio::time::sleep(wait).await;
        }
        let Ok(permit) = Arc::clone(&slots).try_acquire_owned() else {
            unsent += 1;
            continue;
        };
        let mut client = target.clients[number % target.clients.len()].clone();
        let request =
            transport::ad_request(&requests[number % requests.len()], number as u64, target.deadline_ms, MIN_COVERAGE);
        let sender = sender.clone();
        tokio::spawn(async move {
            let answer = client.get_ads(request).await;
            // The receiver lives until every sender is gone.
            let _ = sender.send((due.elapsed(), answer.map(tonic::Response::into_inner))).await;
            drop(permit);
        });
    }
    drop(sender);
    let mut outcome = counting.await.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()));
    outcome.unsent = unsent;
    outcome.scheduled = schedule.len() as u64;
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome
}

/// Keeps so many requests under way for so long; how many a second were answered.
pub async fn closed(target: &Target, requests: &[TimedRequest], at_once: usize, seconds: f64) -> f64 {
    let of = |(number, request)| transport::ad_request(request, number as u64, target.deadline_ms, MIN_COVERAGE);
    let requests: Arc<Vec<wire::AdRequest>> = Arc::new(requests.iter().enumerate().map(of).collect());
    let start = clock();
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..at_once {
        let (mut client, requests) = (target.clients[first % target.clients.len()].clone(), Arc::clone(&requests));
        tasks.spawn(async move {
            let (mut number, mut answered) = (first, 0u64);
            while start.elapsed().as_secs_f64() < seconds {
                let request = requests[number % requests.len()].clone();
                answered += u64::from(client.get_ads(request).await.is_ok());
                number += at_once;
            }
            answered
        });
    }
    let answered: u64 = tasks.join_all().await.into_iter().sum();
    answered as f64 / start.elapsed().as_secs_f64()
}

/// One answered or failed request: its latency from the scheduled arrival, and what came.
type Answered = (Duration, Result<wire::AdResponse, tonic::Status>);

/// Counts while requests are sent, so that a long run keeps no answers.
async fn count_all(mut receiver: tokio::sync::mpsc::Receiver<Answered>) -> Outcome {
    let mut outcome = Outcome {
        latency_us: microseconds(),
        errors: BTreeMap::new(),
        unsent: 0,
        coverage_sum: 0.0,
        partial: 0,
        funnel: Sums::new(),
        shard_retrieval_us: microseconds(),
        shard_ranking_us: microseconds(),
        seconds: 0.0,
        scheduled: 0,
    };
    while let Some((latency, answer)) = receiver.recv().await {
        count(&mut outcome, latency, answer);
    }
    outcome
}

/// A histogram with a range of its own: one that grows by itself does not grow for a saturating record.
fn microseconds() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).unwrap_or_else(|_| unreachable!("the range and three digits are legal"))
}

#[expect(clippy::disallowed_methods, reason = "the load generator is a shell: it measures time")]
fn clock() -> Instant {
    Instant::now()
}

fn count(outcome: &mut Outcome, latency: Duration, answer: Result<wire::AdResponse, tonic::Status>) {
    let response = match answer {
        Ok(response) => response,
        Err(status) => {
            *outcome.errors.entry(format!("{:?}", status.code())).or_insert(0) += 1;
            return;
        }
    };
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    outcome.latency_us.saturating_record(us.max(1));
    let coverage = response.coverage.unwrap_or_default();
    outcome.coverage_sum += coverage.fraction;
    outcome.partial += u64::from(coverage.fraction < 1.0);
    let mut add = |name, value: u64| *outcome.funnel.entry(name).or_insert(0) += value;
    let funnel = response.funnel.unwrap_or_default();
    add("items_seen", funnel.items_seen);
    add("eligible", funnel.eligible);
    add("retrieved", funnel.retrieved);
    add("light_kept", funnel.light_kept);
    add("ranked", funnel.ranked);
    add("scored", funnel.scored);
    add("returned", funnel.returned);
    add("merged", funnel.merged);
    add("winners", funnel.winners);
    add("placed", funnel.placed);
    let timings = response.timings.unwrap_or_default();
    add("features_us", timings.features_us);
    add("user_tower_us", timings.user_tower_us);
    add("fanout_us", timings.fanout_us);
    add("merge_us", timings.merge_us);
    add("auction_us", timings.auction_us);
    for shard in timings.shards {
        let ranking_us = shard.features_us + shard.light_us + shard.rank_us;
        outcome.shard_retrieval_us.saturating_record(shard.retrieval_us.max(1));
        outcome.shard_ranking_us.saturating_record(ranking_us.max(1));
        add("shard_answers", 1);
        add("shard_retrieval_us", shard.retrieval_us);
        add("shard_ranking_us", ranking_us);
        add("shard_auction_us", shard.auction_us);
        add("shard_queue_us", shard.queue_us);
        add(if shard.plan.starts_with("graph") { "plan_graph" } else { "plan_exact" }, 1);
    }
}
