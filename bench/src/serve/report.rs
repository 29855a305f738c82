//! What did the run show, for people and for programs?

use super::load::Outcome;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// One run, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Requests a second of the schedule.
    pub offered_qps: f64,
    /// Answered requests a second.
    pub achieved_qps: f64,
    /// Arrivals of the schedule.
    pub scheduled: u64,
    /// Answered requests.
    pub answered: u64,
    /// Requests with an error, and arrivals that could not be sent.
    pub errors: u64,
    /// Errors by code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Milliseconds from the scheduled arrival.
    pub p50_ms: f64,
    /// Milliseconds from the scheduled arrival.
    pub p90_ms: f64,
    /// Milliseconds from the scheduled arrival.
    pub p99_ms: f64,
    /// Milliseconds from the scheduled arrival.
    pub p999_ms: f64,
    /// Mean coverage of the answers.
    pub coverage_mean: f64,
    /// Share of answers below full coverage.
    pub partial_share: f64,
    /// CPU milliseconds per answered request, by role.
    pub cpu_ms_per_request: BTreeMap<String, f64>,
    /// Milliseconds by shard and request, p50 and p99: retrieval.
    pub shard_retrieval_ms: [f64; 2],
    /// Milliseconds by shard and request, p50 and p99: features, light ranking and ranking.
    pub shard_ranking_ms: [f64; 2],
    /// Means per answered request of every stage's counts and microseconds.
    pub per_request: BTreeMap<String, f64>,
}

impl Report {
    /// Sums up a run; `cpu_us` is what each role spent during it.
    #[must_use]
    pub fn of(offered_qps: f64, outcome: &Outcome, cpu_us: &BTreeMap<&'static str, u64>) -> Self {
        let answered = outcome.latency_us.len();
        let per = |sum: f64| if answered == 0 { 0.0 } else { sum / answered as f64 };
        let quantile = |q| outcome.latency_us.value_at_quantile(q) as f64 / 1_000.0;
        let of_shards = |h: &Histogram<u64>| [0.5, 0.99].map(|q| h.value_at_quantile(q) as f64 / 1_000.0);
        let mut errors_by_code = outcome.errors.clone();
        if outcome.unsent > 0 {
            errors_by_code.insert("unsent".to_owned(), outcome.unsent);
        }
        Self {
            offered_qps,
            achieved_qps: answered as f64 / outcome.seconds.max(1e-9),
            scheduled: outcome.scheduled,
            answered,
            errors: errors_by_code.values().sum(),
            errors_by_code,
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            coverage_mean: per(outcome.coverage_sum),
            partial_share: per(outcome.partial as f64),
            cpu_ms_per_request: cpu_us.iter().map(|(r, us)| ((*r).to_owned(), per(*us as f64) / 1_000.0)).collect(),
            shard_retrieval_ms: of_shards(&outcome.shard_retrieval_us),
            shard_ranking_ms: of_shards(&outcome.shard_ranking_us),
            per_request: outcome.funnel.iter().map(|(n, sum)| ((*n).to_owned(), per(*sum as f64))).collect(),
        }
    }

    /// The table that the command prints.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(t, "{name:<28} {value}");
        };
        row("offered requests/s", format!("{:.1}", self.offered_qps));
        row("achieved requests/s", format!("{:.1}", self.achieved_qps));
        row("answered / scheduled", format!("{} / {}", self.answered, self.scheduled));
        row("errors", format!("{} {:?}", self.errors, self.errors_by_code));
        row(
            "latency ms p50/p90/p99/p99.9",
            format!("{:.2} / {:.2} / {:.2} / {:.2}", self.p50_ms, self.p90_ms, self.p99_ms, self.p999_ms),
        );
        row("coverage mean, partial share", format!("{:.4}, {:.4}", self.coverage_mean, self.partial_share));
        let ms = |of: [f64; 2]| of.map(|ms| format!("{ms:.3}")).join(" / ");
        row("shard retrieval ms p50/p99", ms(self.shard_retrieval_ms));
        row("shard ranking ms p50/p99", ms(self.shard_ranking_ms));
        for (role, ms) in &self.cpu_ms_per_request {
            row(&format!("CPU ms per request, {role}"), format!("{ms:.3}"));
        }
        for (name, mean) in &self.per_request {
            row(&format!("per request, {name}"), format!("{mean:.1}"));
        }
        t
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(self).map_err(std::io::Error::other)?;
        text.push('\n');
        std::fs::write(path, text)
    }
}
