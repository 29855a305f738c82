//! How much longer do requests take while a bundle is staged?
//!
//! `gavel bench rollout --while-staging ROUNDS` starts a small cluster of its own at the default share of staging, finds
//! what it can answer at most, and offers 0.3 of that open-loop. Then it alternates: a period without staging, and a
//! period from the command that stages a new bundle to the moment when every replica is ready. Both are measured in
//! pieces of one second, in the same run and by the same histogram, so that what else the machine does meets both.
//!
//! Bundles are published before their period, because packing and uploading is the work of whoever publishes.

use super::RolloutArgs;
use crate::fleet::{CLUSTER, Fleet, FleetError, Role, Size};
use crate::serve::load::{self, Outcome, Target};
use crate::transport;
use crate::workload::{self, TimedRequest};
use gavel_client::AdminClient;
use gavel_proto::wire::{ReplicaState, StatusResponse};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::path::Path;

/// One voter and one router, and two nodes with a shard each: what two cores can hold with a load beside it.
const SIZE: Size =
    Size { controls: 1, nodes: 2, routers: 1, shards: 2, replicas: 1, staging_cpu_share: 0.25, ..Size::STORM };
/// Of what the cluster answers at most.
const LOAD_SHARE: f64 = 0.3;
/// Requests at once while that is found out.
const CLOSED_LOOP: usize = 16;
/// For so long, seconds.
const CLOSED_LOOP_SECONDS: f64 = 8.0;
/// Seconds of a piece.
const PIECE_SECONDS: f64 = 1.0;
/// Pieces of a period after which staging is given up.
const PIECES_MAX: u64 = 600;
/// Every request's own, milliseconds.
const DEADLINE_MS: u32 = 500;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Staged {
    /// Requests a second that the cluster answers at most.
    pub saturation_qps: f64,
    /// Requests a second that were offered.
    pub offered_qps: f64,
    /// Periods of each kind.
    pub rounds: u64,
    /// Seconds that staging took, mean.
    pub staging_seconds: f64,
    /// All periods together.
    pub idle: Latency,
    /// All periods together.
    pub staging: Latency,
    /// p99 of staging to p99 idle, of each round.
    pub p99_ratio_by_round: Vec<f64>,
    /// p99 of staging to p99 idle, all periods together.
    pub p99_ratio: f64,
}

/// Of one kind of period.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Answered requests.
    pub answered: u64,
    /// Requests that failed or were not sent.
    pub failed: u64,
    /// Milliseconds from the scheduled arrival.
    pub p50_ms: f64,
    /// The same.
    pub p90_ms: f64,
    /// The same.
    pub p99_ms: f64,
}

/// Requests of one kind of period.
struct Period {
    latency_us: Histogram<u64>,
    failed: u64,
}

impl Period {
    fn of(outcome: &Outcome) -> Self {
        let failed = outcome.errors.values().sum::<u64>() + outcome.unsent;
        Self { latency_us: outcome.latency_us.clone(), failed }
    }

    /// Of the same range, with nothing in it.
    fn emptied(mut self) -> Self {
        self.latency_us.reset();
        Self { failed: 0, ..self }
    }

    fn add(&mut self, other: &Self) {
        // Of one range: a histogram of another would not be taken.
        let _ = self.latency_us.add(&other.latency_us);
        self.failed += other.failed;
    }

    fn ms(&self, q: f64) -> f64 {
        self.latency_us.value_at_quantile(q) as f64 / 1e3
    }

    fn latency(&self) -> Latency {
        let (answered, failed) = (self.latency_us.len(), self.failed);
        Latency { answered, failed, p50_ms: self.ms(0.5), p90_ms: self.ms(0.9), p99_ms: self.ms(0.99) }
    }
}

/// Sends requests, a piece at a time.
struct Load {
    target: Target,
    requests: Vec<TimedRequest>,
    qps: f64,
    seed: u64,
}

impl Load {
    async fn piece(&mut self) -> Period {
        self.seed += 1;
        let schedule = workload::arrivals(self.qps, PIECE_SECONDS, self.seed);
        Period::of(&load::run(&self.target, &self.requests, &schedule).await)
    }
}

/// Measures.
///
/// # Errors
/// When the cluster cannot be started or asked.
pub async fn run(args: &RolloutArgs, rounds: u64, requests: Vec<TimedRequest>) -> Result<Staged, FleetError> {
    let RolloutArgs { ranked, retrieved, .. } = *args;
    let mut fleet = Fleet::start(&args.fleet, Size { ranked, retrieved, ..SIZE })?;
    let measured = measure(args, rounds, requests, &fleet).await;
    fleet.stop();
    measured
}

async fn measure(
    args: &RolloutArgs,
    rounds: u64,
    requests: Vec<TimedRequest>,
    fleet: &Fleet,
) -> Result<Staged, FleetError> {
    let members = transport::members(&fleet.addresses(Role::Control)[0]).await?;
    let target = Target::connect(&members, DEADLINE_MS).await?;
    let target = target.ok_or_else(|| FleetError::Process("no router has joined".to_owned()))?;
    let admin = AdminClient::new(CLUSTER, fleet.addresses(Role::Control))?;
    // The first one is for caches and connections.
    load::closed(&target, &requests, CLOSED_LOOP, CLOSED_LOOP_SECONDS / 4.0).await;
    let saturation_qps = load::closed(&target, &requests, CLOSED_LOOP, CLOSED_LOOP_SECONDS).await;
    let mut load = Load { target, requests, qps: saturation_qps * LOAD_SHARE, seed: args.seed };
    eprintln!("{saturation_qps:.0} requests/s at most, {:.0} offered", load.qps);
    let (mut idle, mut staging) = (load.piece().await.emptied(), load.piece().await.emptied());
    let (mut ratios, mut pieces) = (Vec::new(), 0);
    for round in 1..=rounds {
        let bundle = fleet.bundle(&args.fleet, round)?;
        fleet.ctl(&["model", "publish", &bundle.display().to_string(), "--no-stage", "--no-skew"])?;
        remove(&bundle)?;
        let version = newest(&admin.status().await?);
        fleet.ctl(&["model", "stage", &version.to_string(), "--no-wait"])?;
        let mut staged = load.piece().await;
        let mut length = 1;
        while !is_ready(&admin.status().await?, version)? {
            if length == PIECES_MAX {
                return Err(FleetError::Process(format!("version {version} is not staged after {length} s")));
            }
            staged.add(&load.piece().await);
            length += 1;
        }
        // Without staging for as long, and not at once: what was dropped is freed meanwhile.
        load.piece().await;
        let mut alone = load.piece().await;
        for _ in 1..length {
            alone.add(&load.piece().await);
        }
        let ratio = staged.ms(0.99) / alone.ms(0.99).max(1e-3);
        eprintln!(
            "round {round}: p99 {:.2} ms while staging for {length} s, {:.2} ms idle",
            staged.ms(0.99),
            alone.ms(0.99)
        );
        ratios.push(ratio);
        pieces += length;
        staging.add(&staged);
        idle.add(&alone);
    }
    Ok(Staged {
        saturation_qps,
        offered_qps: load.qps,
        rounds,
        staging_seconds: pieces as f64 * PIECE_SECONDS / rounds.max(1) as f64,
        idle: idle.latency(),
        staging: staging.latency(),
        p99_ratio_by_round: ratios,
        p99_ratio: staging.ms(0.99) / idle.ms(0.99).max(1e-3),
    })
}

/// The bundle is with the voters.
fn remove(bundle: &Path) -> Result<(), FleetError> {
    std::fs::remove_dir_all(bundle).map_err(FleetError::io(bundle))
}

fn newest(status: &StatusResponse) -> u64 {
    status.models.iter().filter_map(|m| m.model.as_ref()).map(|m| m.version).max().unwrap_or_default()
}

fn is_ready(status: &StatusResponse, version: u64) -> Result<bool, FleetError> {
    let model = status.models.iter().find(|m| m.model.as_ref().is_some_and(|m| m.version == version));
    let replicas = model.map(|m| m.replicas.as_slice()).unwrap_or_default();
    if let Some(refused) = replicas.iter().find(|r| r.state() == ReplicaState::ReplicaRefused) {
        return Err(FleetError::Process(format!("version {version} is refused: {}", refused.reason)));
    }
    Ok(!replicas.is_empty() && replicas.iter().all(|r| r.state() == ReplicaState::ReplicaReady))
}

/// A request may take so many times as long while a bundle is staged.
const P99_RATIO_MAX: f64 = 1.5;

impl Staged {
    /// Whether the p99 while staging is within its limit.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let is_measured = self.idle.answered > 0 && self.staging.answered > 0;
        is_measured && self.p99_ratio <= P99_RATIO_MAX && self.idle.failed + self.staging.failed == 0
    }

    /// The table that the command prints.
    #[must_use]
    pub fn table(&self) -> String {
        let row = |name: &str, l: &Latency| {
            format!(
                "{name:<28} {:>9} {:>7} {:>8.2} {:>8.2} {:>8.2}\n",
                l.answered, l.failed, l.p50_ms, l.p90_ms, l.p99_ms
            )
        };
        let ratios: Vec<String> = self.p99_ratio_by_round.iter().map(|r| format!("{r:.2}")).collect();
        format!(
            "{:.0} requests/s at most, {:.0} offered; staging took {:.1} s, {} rounds\n{:<28} {:>9} {:>7} {:>8} {:>8} {:>8}\n{}{}\
             p99 while staging / idle: {:.2} (by round {})\n",
            self.saturation_qps,
            self.offered_qps,
            self.staging_seconds,
            self.rounds,
            "",
            "answered",
            "failed",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            row("idle", &self.idle),
            row("while a bundle is staged", &self.staging),
            self.p99_ratio,
            ratios.join(" ")
        )
    }
}
