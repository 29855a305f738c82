//! Which requests are replayed, and when does each arrive?
//!
//! Requests come from a file of real timed requests. The arrival schedule is fixed before the first one is sent
//! (open loop): a slow answer delays nothing that follows, and latency counts from the scheduled arrival, so a stall
//! of the server is seen by every request that it would have kept waiting.

use crate::lines;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Longest line of a request file.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One request of the file.
#[derive(Clone, Debug, Deserialize)]
pub struct TimedRequest {
    /// Unix seconds at which it really came.
    pub ts: i64,
    /// Who asked.
    pub user_id: String,
    /// Where ads may stand.
    pub placement: String,
    /// What targeting sees.
    #[serde(default)]
    pub terms: Vec<Term>,
    /// Context features by name.
    #[serde(default)]
    pub context: BTreeMap<String, serde_json::Value>,
    /// Ads wanted; 0 = the placement's.
    #[serde(default)]
    pub slots: u32,
}

/// What a request states of one dimension.
#[derive(Clone, Debug, Deserialize)]
pub struct Term {
    /// Its name.
    pub dimension: String,
    /// Its values.
    pub values: Vec<String>,
}

/// Why a workload could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is no request.
    #[error("{path}:{line}: {reason}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, 1-based.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing to replay.
    #[error("{0}: no requests in it")]
    Empty(PathBuf),
}

/// Reads a file of requests: JSONL, also compressed (`.zst`, `.gz`).
///
/// # Errors
/// When the file cannot be read, a line is no request, or there is none.
pub fn read(path: &Path) -> Result<Vec<TimedRequest>, WorkloadError> {
    let io = |source| WorkloadError::Io { path: path.to_path_buf(), source };
    let requests = parse(BufReader::new(lines::open(path).map_err(io)?), path)?;
    if requests.is_empty() {
        return Err(WorkloadError::Empty(path.to_path_buf()));
    }
    Ok(requests)
}

fn parse(reader: impl BufRead, path: &Path) -> Result<Vec<TimedRequest>, WorkloadError> {
    let mut requests = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.map_err(|source| WorkloadError::Io { path: path.to_path_buf(), source })?;
        let wrong = |reason: String| WorkloadError::Line { path: path.to_path_buf(), line: index + 1, reason };
        if line.len() > LINE_BYTES_MAX {
            return Err(wrong(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if !line.trim().is_empty() {
            requests.push(serde_json::from_str(&line).map_err(|e| wrong(e.to_string()))?);
        }
    }
    Ok(requests)
}

/// A small seeded generator (SplitMix64, Steele et al. 2014): the same seed gives the same schedule everywhere.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// A generator that starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        gavel_proto::hash::mix64(self.0)
    }

    /// The next number in `(0, 1]`.
    pub fn unit(&mut self) -> f64 {
        // 53 bits fit an f64 exactly.
        ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// Arrival times in microseconds from the start: a Poisson process of `qps` arrivals a second over `seconds`.
#[must_use]
pub fn arrivals(qps: f64, seconds: f64, seed: u64) -> Vec<u64> {
    let mut random = Seeded::new(seed);
    let (mut at, mut out) = (0.0f64, Vec::new());
    loop {
        at += -random.unit().ln() / qps;
        if at >= seconds || !at.is_finite() {
            return out;
        }
        out.push((at * 1e6) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_poisson_and_repeatable() {
        let a = arrivals(1_000.0, 20.0, 7);
        assert_eq!(a, arrivals(1_000.0, 20.0, 7));
        // 20,000 expected, standard deviation 141: five of them.
        assert!((19_293..=20_707).contains(&a.len()), "{}", a.len());
        assert!(a.windows(2).all(|w| w[0] <= w[1]));
        let gaps: Vec<f64> = a.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let variation = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&variation), "exponential gaps have a variation of 1, not {variation}");
    }

    #[test]
    fn a_bad_line_is_named() {
        let text = "{\"ts\":1,\"user_id\":\"a\",\"placement\":\"home\"}\n\n{oops\n";
        let error = parse(text.as_bytes(), Path::new("r.jsonl")).expect_err("a bad line");
        assert!(error.to_string().starts_with("r.jsonl:3: "), "{error}");
    }
}
