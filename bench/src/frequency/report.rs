//! What did the calls take, for people and for programs?

use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// A check and a reservation end within so long, 99 of 100 over loopback: both stand on the path of a request.
pub const P99_BOUND_US: u64 = 1_000;

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

    /// Whether the bound holds; of no calls at all it does not.
    pub(super) const fn is_within_bound(&self) -> bool {
        self.calls > 0 && self.p99_us <= P99_BOUND_US
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
    /// What both are held to at the 99th percentile.
    pub p99_bound_us: u64,
    /// Whether checks end within it.
    pub counts_met: bool,
    /// Whether reservations do.
    pub reserve_met: bool,
    /// Requests without an answer; they are in no percentile.
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
        let bound = self.p99_bound_us;
        for (name, of, met) in [("check", &self.counts, self.counts_met), ("reserve", &self.reserve, self.reserve_met)]
        {
            let Latency { calls, p50_us, p90_us, p99_us, max_us } = of;
            let verdict = if met { "met" } else { "missed" };
            let _ = writeln!(
                out,
                "{name:8} {calls} calls  p50 {p50_us} us  p90 {p90_us}  p99 {p99_us} (at most {bound}: {verdict})  max {max_us}"
            );
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(mut counts: Vec<u64>, mut reserve: Vec<u64>) -> Report {
        let (counts, reserve) = (Latency::of(&mut counts), Latency::of(&mut reserve));
        Report {
            users: 1,
            rate: 1,
            seconds: 1.0,
            ads_a_reservation: 1,
            p99_bound_us: P99_BOUND_US,
            counts_met: counts.is_within_bound(),
            reserve_met: reserve.is_within_bound(),
            counts,
            reserve,
            failed: 0,
            granted: 0,
            refused: 0,
            node_cpu_us_per_call: 0.0,
            node_cpu_share: 0.0,
            held_users: 0,
            counters_per_user: 0.0,
            bytes_per_user: 0.0,
            fill_seconds: 0.0,
        }
    }

    /// One call of a hundred may be late, two may not.
    #[test]
    fn the_bound_is_of_the_99th_percentile() {
        let with_late = |late: usize| [vec![1_000; 100 - late], vec![5_000; late]].concat();
        let report = report(with_late(1), with_late(2));
        assert_eq!((report.counts_met, report.reserve_met), (true, false));
        let table = report.table();
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).expect("a line");
        assert!(line("check").contains("p99 1000 (at most 1000: met)  max 5000"), "{table}");
        assert!(line("reserve").contains("p99 5000 (at most 1000: missed)"), "{table}");
        let written = serde_json::to_value(&report).expect("JSON");
        let told = ["p99_bound_us", "counts_met", "reserve_met"].map(|name| written[name].clone());
        assert_eq!(told, [json!(1_000), json!(true), json!(false)]);
        assert!(!Latency::of(&mut []).is_within_bound(), "nothing was measured");
    }
}
