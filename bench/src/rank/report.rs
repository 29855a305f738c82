//! What did the measurement show?

use super::measure::Measured;
use super::request::Requests;
use super::{RankArgs, Split};
use gavel_model::{Bundle, GoldenReport};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// The figures of one run. Times of parts are medians over the requests.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The bundle's name.
    pub name: String,
    /// BLAKE3 of the packed bundle.
    pub hash: String,
    /// `on`: in three parts; `off`: the whole graph.
    pub split: &'static str,
    /// Candidates of one request.
    pub candidates: usize,
    /// Requests that counted.
    pub requests: usize,
    /// Users that took turns.
    pub users: usize,
    /// Different rows that candidates were made of.
    pub rows: usize,
    /// CPU time of the user part, microseconds; 0 without the split.
    pub user_us: f64,
    /// CPU time of the candidates' part, or of the whole graph, microseconds.
    pub candidates_us: f64,
    /// CPU time of a request, microseconds.
    pub request_us: f64,
    /// CPU time of a request divided by its candidates, nanoseconds.
    pub ns_per_candidate: f64,
    /// Candidates that one core ranks in a second.
    pub candidates_per_second: f64,
    /// Floating-point operations of a request by its CPU time, 1e9 a second.
    pub gflops: f64,
    /// Median of the time on the wall of a request, microseconds.
    pub p50_us: f64,
    /// 99th percentile of it.
    pub p99_us: f64,
    /// Mean CPU time of a request, microseconds.
    pub cpu_us: f64,
    /// Floating-point operations of the user part.
    pub flops_user: u64,
    /// Floating-point operations of a candidate.
    pub flops_per_candidate: u64,
    /// f32s of the user part.
    pub user_part_width: usize,
    /// f32s of an item's activations.
    pub activation_width: usize,
    /// Golden rows that were compared before.
    pub golden_rows: usize,
    /// Largest relative difference of them.
    pub max_rel_error: f64,
    /// BLAKE3 of the predictions of the first request.
    pub scores_hash: String,
}

impl Report {
    /// The figures of a run.
    pub(super) fn new(
        bundle: &Bundle,
        golden: GoldenReport,
        args: &RankArgs,
        requests: &Requests,
        measured: Measured,
    ) -> Self {
        let parts = bundle.partition_report();
        let (split, flops_user, flops_per_candidate) = match args.split {
            Split::On => ("on", parts.user.flops, parts.candidate.flops),
            Split::Off => ("off", 0, parts.whole.flops),
        };
        let count = measured.request.len();
        let cpu_us = measured.request.iter().sum::<u64>() as f64 / 1e3 / count.max(1) as f64;
        let wall = sorted(measured.wall);
        let request_us = quantile(&sorted(measured.request), 0.5);
        let flops = flops_user as f64 + flops_per_candidate as f64 * requests.candidates as f64;
        Self {
            name: bundle.schema().name.clone(),
            hash: blake3::Hash::from_bytes(bundle.hash()).to_hex().to_string(),
            split,
            candidates: requests.candidates,
            requests: count,
            users: requests.requests.len(),
            rows: requests.rows,
            user_us: quantile(&sorted(measured.user), 0.5),
            candidates_us: quantile(&sorted(measured.candidates), 0.5),
            request_us,
            ns_per_candidate: request_us * 1e3 / requests.candidates as f64,
            candidates_per_second: requests.candidates as f64 / request_us * 1e6,
            gflops: flops / request_us / 1e3,
            p50_us: quantile(&wall, 0.5),
            p99_us: quantile(&wall, 0.99),
            cpu_us,
            flops_user,
            flops_per_candidate,
            user_part_width: bundle.user_part_width(),
            activation_width: bundle.activation_width(),
            golden_rows: golden.rows,
            max_rel_error: golden.worst,
            scores_hash: measured.scores_hash,
        }
    }

    /// The table that the command prints.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(t, "bundle                   {} {}", self.name, &self.hash[..16]);
        let _ = writeln!(t, "golden rows, worst       {}, {:.1e}", self.golden_rows, self.max_rel_error);
        let _ = writeln!(
            t,
            "one thread, split {:<3}    {} requests of {} candidates, {} users, {} rows",
            self.split, self.requests, self.candidates, self.users, self.rows
        );
        let _ = writeln!(t, "candidates/s per core    {:.0}", self.candidates_per_second);
        let _ = writeln!(t, "ns per candidate         {:.0}", self.ns_per_candidate);
        let _ = writeln!(t, "GFLOP/s                  {:.1}", self.gflops);
        let _ = writeln!(t, "FLOPs: user + candidate  {} + {}", self.flops_user, self.flops_per_candidate);
        let _ = writeln!(
            t,
            "CPU of a request         {:.1} us: user part {:.1}, candidates {:.1}",
            self.request_us, self.user_us, self.candidates_us
        );
        let _ = writeln!(t, "CPU of a request, mean   {:.1} us", self.cpu_us);
        let _ = writeln!(t, "request, p50 and p99     {:.1}, {:.1} us", self.p50_us, self.p99_us);
        let _ = writeln!(t, "user part, activations   {} and {} f32", self.user_part_width, self.activation_width);
        let _ = writeln!(t, "hash of the scores       {}", self.scores_hash);
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

fn sorted(mut values: Vec<u64>) -> Vec<u64> {
    values.sort_unstable();
    values
}

/// A quantile of sorted nanoseconds, in microseconds.
fn quantile(sorted: &[u64], q: f64) -> f64 {
    let at = ((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |ns| *ns as f64 / 1e3)
}
