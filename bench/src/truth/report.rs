//! What did the comparison show?

use super::worth::Worth;
use super::{Probed, oracle};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

/// Upper ends of the bands of eligible items by which recall is broken down.
const BANDS: [u64; 6] = [2_000, 5_000, 20_000, 100_000, 500_000, u64::MAX];
/// Differences that are printed one by one.
const DIFFERENCES_MAX: usize = 5;

/// Sums over the sample.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Truth {
    /// Requests counted.
    pub requests: u64,
    /// Requests left out because too few items were eligible.
    pub left_out: u64,
    /// Requests left out because a shard did not answer in full, or not in time.
    pub incomplete: u64,
    /// Mean recall of the exact best items.
    pub recall_at_200: f64,
    /// Smallest recall of one request.
    pub recall_min: f64,
    /// Slates compared with the single auction.
    pub slates_compared: u64,
    /// Slates whose ads and prices are all equal.
    pub slates_equal: u64,
    /// Mean recall by plan, with its requests.
    pub by_plan: BTreeMap<String, Mean>,
    /// Mean recall by band of eligible items, with its requests.
    pub by_eligible: BTreeMap<String, Mean>,
    /// What the served slates are worth against an exhaustive ranking, if that was asked for.
    pub worth: Option<Worth>,
    /// The first differences, for a person.
    pub differences: Vec<String>,
    #[serde(skip)]
    top: usize,
    #[serde(skip)]
    min_eligible: u64,
}

/// A mean and how many it is of.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Mean {
    /// Requests.
    pub requests: u64,
    /// Mean.
    pub recall: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.requests += 1;
        self.recall += (value - self.recall) / self.requests as f64;
    }
}

impl Truth {
    /// An empty comparison of the best `top` items, over requests with at least `min_eligible` eligible items.
    #[must_use]
    pub fn new(top: u32, min_eligible: u64) -> Self {
        Self { top: top as usize, min_eligible, recall_min: 1.0, ..Self::default() }
    }

    /// Adds one request.
    pub fn count(&mut self, probed: &Probed) {
        let eligible: u64 = probed.shards.iter().map(|s| s.eligible_items).sum();
        if eligible < self.min_eligible {
            self.left_out += 1;
            return;
        }
        let recall = recall(probed, self.top);
        self.requests += 1;
        self.recall_at_200 += (recall - self.recall_at_200) / self.requests as f64;
        self.recall_min = self.recall_min.min(recall);
        let graph = probed.shards.iter().any(|s| s.plan.starts_with("graph"));
        self.by_plan.entry(if graph { "graph" } else { "exact" }.to_owned()).or_default().add(recall);
        let band = BANDS.iter().find(|b| eligible < **b).copied().unwrap_or(u64::MAX);
        let name = if band == u64::MAX { "500000 or more".to_owned() } else { format!("below {band:>6}") };
        self.by_eligible.entry(name).or_default().add(recall);
        self.compare(probed);
    }

    fn compare(&mut self, probed: &Probed) {
        let ads: Vec<oracle::Ad> = probed.shards.iter().flat_map(|s| s.scored.iter().cloned()).collect();
        let expected: Vec<(u64, u64)> =
            oracle::clear(&ads, &probed.rule).into_iter().map(|(i, price)| (ads[i].ad, price)).collect();
        self.slates_compared += 1;
        if probed.shards.iter().any(|s| !s.exhaustive.is_empty()) {
            let all: Vec<oracle::Ad> = probed.shards.iter().flat_map(|s| s.exhaustive.iter().cloned()).collect();
            self.worth.get_or_insert_default().count(&ads, &all, &probed.rule);
        }
        if expected == probed.slate {
            self.slates_equal += 1;
        } else if self.differences.len() < DIFFERENCES_MAX {
            let auction = probed.rule.auction_id;
            self.differences.push(format!("auction {auction}: served {:?}, single auction {expected:?}", probed.slate));
        }
    }

    /// Share of the counted requests in which a shard walked its graph.
    #[must_use]
    pub fn graph_share(&self) -> f64 {
        let graph = self.by_plan.get("graph").map_or(0, |m| m.requests);
        if self.requests == 0 { 0.0 } else { graph as f64 / self.requests as f64 }
    }

    /// The table that the command prints.
    #[must_use]
    pub fn table(&self) -> String {
        let mut t = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(t, "requests counted, left out   {}, {}", self.requests, self.left_out);
        let _ = writeln!(t, "answers incomplete           {}", self.incomplete);
        let _ = writeln!(t, "recall@{}, smallest          {:.4}, {:.4}", self.top, self.recall_at_200, self.recall_min);
        let _ = writeln!(t, "slates equal / compared      {} / {}", self.slates_equal, self.slates_compared);
        if let Some(worth) = &self.worth {
            let (welfare, revenue) = worth.shares();
            let _ = writeln!(t, "welfare, revenue             {welfare:.4}, {revenue:.4} of the exhaustive ranking's");
            let _ = writeln!(t, "same winners as it           {} / {}", worth.equal, worth.slates);
        }
        for (kind, rows) in [("plan", &self.by_plan), ("eligible", &self.by_eligible)] {
            for (name, mean) in rows {
                let _ = writeln!(t, "{kind:<8} {name:<19} recall {:.4} of {} requests", mean.recall, mean.requests);
            }
        }
        for difference in &self.differences {
            let _ = writeln!(t, "{difference}");
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

/// The share of the exact best `top` items over all shards that the served retrieval found.
fn recall(probed: &Probed, top: usize) -> f64 {
    let mut exact: Vec<(u64, f32)> = probed.shards.iter().flat_map(|s| s.exact.iter().copied()).collect();
    exact.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    exact.truncate(top);
    let served: HashSet<u64> = probed.shards.iter().flat_map(|s| s.served.iter().copied()).collect();
    if exact.is_empty() {
        return 1.0;
    }
    exact.iter().filter(|(item, _)| served.contains(item)).count() as f64 / exact.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::ProbedShard;
    use super::*;

    #[test]
    fn recall_is_of_the_global_best() {
        let shard = |served: &[u64], exact: &[(u64, f32)]| ProbedShard {
            plan: "graph".into(),
            eligible_items: 10,
            served: served.to_vec(),
            exact: exact.to_vec(),
            scored: Vec::new(),
            exhaustive: Vec::new(),
        };
        let rule = oracle::Rule {
            mechanism: oracle::Mechanism::Gsp,
            slots: 1,
            per_advertiser: 1,
            per_category: 0,
            apart: oracle::Apart::No,
            factors: Vec::new(),
            tie_key: 0,
            auction_id: 1,
        };
        let shards = vec![shard(&[1], &[(1, 0.9), (2, 0.1)]), shard(&[], &[(3, 0.8), (4, 0.7)])];
        let probed = Probed { rule, slate: Vec::new(), shards };
        assert!((recall(&probed, 2) - 0.5).abs() < 1e-9);
        let mut truth = Truth::new(2, 0);
        truth.count(&probed);
        assert_eq!((truth.requests, truth.slates_equal), (1, 1));
        assert!((truth.graph_share() - 1.0).abs() < 1e-9);
    }
}
