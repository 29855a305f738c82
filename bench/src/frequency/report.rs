//! What did the calls take, for people and for programs?

use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// Times of one kind of call.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Calls.
    pub calls: u64,
    /// Half of them were faster.
    pub p50_us: u64,
    /// Nine of ten.
    pub p90_us: u64,
    /// Ninety-nine of a hundred.
    pub p99_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Latency {
    pub(super) fn of(times: &mut [u64]) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
            times.get(place).copied().unwrap_or(0)
        };
        Self { calls: times.len() as u64, p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), max_us: at(1.0) }
    }
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Users that were counted.
    pub users: u64,
    /// Requests a second.
    pub rate: u32,
    /// How long was measured.
    pub seconds: f64,
    /// Ads of a reservation, each with three counters.
    pub ads_a_reservation: u64,
    /// The check.
    pub counts: Latency,
    /// The reservation.
    pub reserve: Latency,
    /// Requests without an answer.
    pub failed: u64,
    /// Impressions that were granted.
    pub granted: u64,
    /// Impressions that were refused.
    pub refused: u64,
    /// CPU time of both nodes for one call, with its copy and its record on disk.
    pub node_cpu_us_per_call: f64,
    /// Cores that both nodes kept busy.
    pub node_cpu_share: f64,
    /// Users of both nodes after the first impression of each: every user is on both.
    pub held_users: u64,
    /// Counters of one of them.
    pub counters_per_user: f64,
    /// Memory of one of them, on each of its nodes.
    pub bytes_per_user: f64,
    /// How long the first impressions took.
    pub fill_seconds: f64,
}

impl Report {
    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{} users, {} requests/s for {:.0} s", self.users, self.rate, self.seconds);
        for (name, of) in [("check", &self.counts), ("reserve", &self.reserve)] {
            let Latency { calls, p50_us, p90_us, p99_us, max_us } = of;
            let _ = writeln!(out, "{name:8} {calls} calls  p50 {p50_us} us  p90 {p90_us}  p99 {p99_us}  max {max_us}");
        }
        let _ = writeln!(out, "{} granted, {} refused, {} failed", self.granted, self.refused, self.failed);
        let (cpu, share) = (self.node_cpu_us_per_call, self.node_cpu_share);
        let _ = writeln!(out, "nodes: {cpu:.0} us CPU a call, {share:.2} cores");
        let (bytes, counters) = (self.bytes_per_user, self.counters_per_user);
        let _ = writeln!(out, "memory: {bytes:.0} bytes a user with {counters:.1} counters");
        out
    }

    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}
