//! What did the comparison show?

use super::cascade::{self, Reader, Users};
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
    /// Requests left out because a shard did not answer in full, or not in time, or too many winners could not be served.
    pub incomplete: u64,
    /// Mean recall of the exact best items.
    pub recall_at_200: f64,
    /// Smallest recall of one request.
    pub recall_min: f64,
    /// Slates compared with the single auction.
    pub slates_compared: u64,
    /// Slates whose ads and prices are all equal.
    pub slates_equal: u64,
    /// Slates that were compared without winners that could not be served.
    pub cleared_anew: u64,
    /// Winners that were compared, by bid type.
    pub winners: BTreeMap<&'static str, u64>,
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
        let scored = probed.shards.iter().flat_map(|s| s.scored.iter().zip(s.goes_on_ppm.iter().copied()));
        let (ads, goes_on): (Vec<oracle::Ad>, Vec<u32>) = scored
            .filter(|(ad, _)| !probed.removed.contains(&ad.ad))
            .map(|(ad, goes_on_ppm)| (ad.clone(), goes_on_ppm))
            .unzip();
        self.slates_compared += 1;
        self.cleared_anew += u64::from(!probed.removed.is_empty());
        for winner in probed.slate.iter().filter_map(|(ad, _)| ads.iter().find(|one| one.ad == *ad)) {
            *self.winners.entry(winner.bid_type.name()).or_default() += 1;
        }
        if probed.users == Users::Separable && probed.shards.iter().any(|s| !s.exhaustive.is_empty()) {
            let all: Vec<oracle::Ad> = probed.shards.iter().flat_map(|s| s.exhaustive.iter().cloned()).collect();
            self.worth.get_or_insert_default().count(&ads, &all, &probed.rule);
        }
        match difference(probed, &ads, &goes_on) {
            None => self.slates_equal += 1,
            Some(difference) if self.differences.len() < DIFFERENCES_MAX => self.differences.push(difference),
            Some(_) => {}
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
        let winners: Vec<String> = self.winners.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(t, "their winners                {}", winners.join(", "));
        let _ = writeln!(t, "cleared anew for a winner    {}", self.cleared_anew);
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

/// How the served slate differs from that of one auction over all these ads; past each of them so many users go on.
fn difference(probed: &Probed, ads: &[oracle::Ad], goes_on_ppm: &[u32]) -> Option<String> {
    let expected: Result<Vec<(u64, u64)>, String> = match probed.users {
        Users::Separable => {
            Ok(oracle::clear(ads, &probed.rule).into_iter().map(|(i, price)| (ads[i].ad, price)).collect())
        }
        Users::Cascade => {
            let both = ads.iter().zip(goes_on_ppm);
            let readers: Vec<Reader<'_>> =
                both.map(|(ad, goes_on_ppm)| Reader { ad, goes_on_ppm: *goes_on_ppm }).collect();
            let slate: Vec<u64> = probed.slate.iter().map(|(ad, _)| *ad).collect();
            cascade::bill(&readers, &probed.rule, &slate)
        }
    };
    let (auction, served) = (probed.rule.auction_id, &probed.slate);
    match expected {
        Ok(expected) if expected == *served => None,
        Ok(expected) => Some(format!("auction {auction}: served {served:?}, single auction {expected:?}")),
        Err(reason) => Some(format!("auction {auction}: served {served:?}: {reason}")),
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
    use gavel_proto::money::BidType;

    #[test]
    fn recall_is_of_the_global_best() {
        let shard = |served: &[u64], exact: &[(u64, f32)]| ProbedShard {
            plan: "graph".into(),
            eligible_items: 10,
            served: served.to_vec(),
            exact: exact.to_vec(),
            scored: Vec::new(),
            goes_on_ppm: Vec::new(),
            exhaustive: Vec::new(),
        };
        let rule = oracle::Rule {
            mechanism: oracle::Mechanism::Gsp,
            slots: 1,
            per_advertiser: 1,
            per_category: 0,
            apart: oracle::Apart::No,
            factors: Vec::new(),
            tie_key: gavel_proto::hash::TieKey::from_number(0),
            auction_id: 1,
            page_threshold: 0,
        };
        let shards = vec![shard(&[1], &[(1, 0.9), (2, 0.1)]), shard(&[], &[(3, 0.8), (4, 0.7)])];
        let probed = Probed { rule, users: Users::Separable, slate: Vec::new(), removed: Vec::new(), shards };
        assert!((recall(&probed, 2) - 0.5).abs() < 1e-9);
        let mut truth = Truth::new(2, 0);
        truth.count(&probed);
        assert_eq!((truth.requests, truth.slates_equal), (1, 1));
        assert!((truth.graph_share() - 1.0).abs() < 1e-9);
    }

    /// Two ads on two shards: what is served is compared with both, by the rule's users, and each winner is counted.
    #[test]
    fn a_slate_is_compared_with_one_auction_over_all_shards() {
        let ad = |ad: u64, bid_type, bid| oracle::Ad {
            ad,
            advertiser: ad,
            category: 0,
            bid_type,
            bid,
            weight: 1_000,
            event_weight: 1_000,
            click_weight: 2_000,
            value: 0,
            reserve: 0,
        };
        let shard = |ad: oracle::Ad, goes_on_ppm| ProbedShard {
            plan: "exact".into(),
            eligible_items: 1,
            served: Vec::new(),
            exact: Vec::new(),
            scored: vec![ad],
            goes_on_ppm: vec![goes_on_ppm],
            exhaustive: Vec::new(),
        };
        let shards = vec![shard(ad(1, BidType::Cpc, 100), 0), shard(ad(2, BidType::Ocpc, 80), 750_000)];
        let rule = oracle::Rule {
            mechanism: oracle::Mechanism::FirstPrice,
            slots: 2,
            per_advertiser: 1,
            per_category: 0,
            apart: oracle::Apart::No,
            factors: Vec::new(),
            tie_key: gavel_proto::hash::TieKey::from_number(0),
            auction_id: 1,
            page_threshold: 0,
        };
        // 80 per conversion are 40 per click. Users who go on past the second ad alone have it stand first.
        let (falling, rising, alone) = (vec![(1, 100), (2, 40)], vec![(2, 40), (1, 100)], vec![(2, 40)]);
        let mut truth = Truth::new(1, 0);
        for (users, slate, removed) in [
            (Users::Separable, &falling, vec![]),
            (Users::Separable, &rising, vec![]),
            (Users::Cascade, &rising, vec![]),
            (Users::Cascade, &falling, vec![]),
            (Users::Separable, &alone, vec![1]),
        ] {
            let probed = Probed { rule: rule.clone(), users, slate: slate.clone(), removed, shards: shards.clone() };
            truth.count(&probed);
        }
        let counts = (truth.slates_equal, truth.slates_compared, truth.cleared_anew);
        assert_eq!(counts, (3, 5, 1), "{:?}", truth.differences);
        assert!(truth.differences[0].contains("single auction [(1, 100), (2, 40)]"), "{:?}", truth.differences);
        assert!(truth.differences[1].contains("another slate"), "{:?}", truth.differences);
        assert_eq!(truth.winners, BTreeMap::from([("cpc", 4), ("ocpc", 5)]));
        assert!(truth.table().contains("their winners                cpc 4, ocpc 5"), "{}", truth.table());
    }
}
