//! From a request that was answered to its line.

use super::SALT;
use crate::auction::{AuctionRule, Limit, Outcome, Winner, outcomes};
use crate::ledger::Bank;
use crate::logged::{FORMAT, ScoredCandidate, ScoredLine, ScoredReason, TokenId, features};
use crate::merge::Candidate;
use crate::respond::{Answer, Decided, Entry, placed_winners};
use crate::transport::{Predictions, ScoredFeatures, ShardBody};
use gavel_model::{Bundle, FeatureRow};
use gavel_proto::epoch::Epoch;
use gavel_proto::hash::{combine, mix64};
use gavel_proto::ids::{AuctionId, ShardId};
use gavel_proto::money::PPM;
use std::collections::HashMap;
use std::sync::Arc;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Requests, in a million.
    pub requests_ppm: u32,
    /// Candidates of such a request that are not on the page, in a million.
    pub others_ppm: u32,
}

impl Shares {
    /// Whether a candidate without a place is logged.
    fn samples(self, auction: AuctionId, ad: u64) -> bool {
        mix64(combine(auction.0 ^ SALT, ad)) % u64::from(PPM) < u64::from(self.others_ppm)
    }

    /// How many candidates one on the page, or beside it, stands for.
    fn weights(self) -> (f64, f64) {
        let times = |ppm: u32| f64::from(PPM) / f64::from(ppm.max(1));
        (times(self.requests_ppm), times(self.requests_ppm) * times(self.others_ppm))
    }
}

/// A request that was answered and sampled.
pub struct Scored {
    auction: AuctionId,
    time_ms: u64,
    user_id: Option<String>,
    placement: String,
    bundle: Arc<Bundle>,
    epoch: Epoch,
    user: FeatureRow,
    decided: Decided,
    rule: AuctionRule,
    /// The request's name, and the tokens by position.
    answered: (String, HashMap<u32, String>),
    shards: HashMap<ShardId, (Predictions, ScoredFeatures)>,
}

/// What of a request is kept as it is.
pub struct Course<'a> {
    /// That scored.
    pub bundle: &'a Arc<Bundle>,
    /// The pinned versions.
    pub epoch: Epoch,
    /// Names the auction.
    pub auction: AuctionId,
    /// By which rule.
    pub rule: &'a AuctionRule,
    /// User and context, parallel to the schema.
    pub user: &'a FeatureRow,
    /// Whose features were looked up.
    pub user_id: Option<&'a str>,
    /// Where the ads stand.
    pub placement: &'a str,
}

impl Scored {
    /// Keeps what the line is made of.
    #[must_use]
    pub fn of(
        course: &Course<'_>,
        decided: &Decided,
        bodies: &HashMap<ShardId, ShardBody>,
        answer: &Answer,
        time_ms: u64,
    ) -> Self {
        let token = |entry: &crate::respond::SlateEntry| match &entry.entry {
            Entry::Ad(report) if !report.token.is_empty() => Some((entry.position, report.token.clone())),
            Entry::Ad(_) | Entry::Organic { .. } => None,
        };
        let kept =
            |(shard, body): (&ShardId, &ShardBody)| Some((*shard, (body.predictions.clone(), body.features.clone()?)));
        Self {
            auction: course.auction,
            time_ms,
            user_id: course.user_id.map(str::to_owned),
            placement: course.placement.to_owned(),
            bundle: Arc::clone(course.bundle),
            epoch: course.epoch,
            user: course.user.clone(),
            decided: decided.clone(),
            rule: course.rule.clone(),
            answered: (answer.request_id.clone(), answer.slate.iter().filter_map(token).collect()),
            shards: bodies.iter().filter_map(kept).collect(),
        }
    }

    /// The line. A candidate whose node sent no features (one of an older version) is left out.
    #[must_use]
    pub fn line(&self, bank: &Bank, shares: Shares) -> ScoredLine {
        let names = self.bundle.schema().user.iter().map(|spec| spec.name.as_str());
        let outcomes = outcomes(&self.decided.ranking, &self.rule, &self.decided.clearing);
        let mut placed: HashMap<usize, (usize, Winner)> =
            placed_winners(&self.decided).map(|(position, winner)| (winner.candidate, (position, winner))).collect();
        let candidates = self.decided.ranking.iter().zip(outcomes).enumerate();
        let one =
            |(index, (candidate, outcome))| self.candidate((candidate, outcome), placed.remove(&index), bank, shares);
        ScoredLine {
            format: FORMAT,
            request_id: self.answered.0.clone(),
            auction_id: self.auction.0,
            time_ms: self.time_ms,
            user_id: self.user_id.clone(),
            placement: self.placement.clone(),
            epoch: self.epoch,
            model: self.bundle.hash().iter().map(|byte| format!("{byte:02x}")).collect(),
            user: features(names, &self.user.values),
            candidates: candidates.filter_map(one).collect(),
        }
    }

    fn candidate(
        &self,
        (candidate, outcome): (&Candidate, Outcome),
        placed: Option<(usize, Winner)>,
        bank: &Bank,
        shares: Shares,
    ) -> Option<ScoredCandidate> {
        let offer = candidate.offer();
        if placed.is_none() && !shares.samples(self.auction, offer.ad.0) {
            return None;
        }
        let (predictions, scored) = self.shards.get(&offer.shard)?;
        let slot = match outcome {
            Outcome::Won { slot } => Some(slot as u32),
            Outcome::BelowReserve { .. }
            | Outcome::WorthLess { .. }
            | Outcome::Limited(_)
            | Outcome::Lost { .. }
            | Outcome::BelowThreshold { .. }
            | Outcome::Removed => None,
        };
        // A page has at most 512 + 16 positions.
        let position = placed.map(|(position, _)| position as u32);
        let text = position.and_then(|position| self.answered.1.get(&position));
        let token = text.and_then(|text| bank.opened(text));
        let (on_page, beside) = shares.weights();
        Some(ScoredCandidate {
            ad: offer.ad.0,
            item: offer.item.0,
            campaign: offer.campaign.0,
            advertiser: offer.advertiser.0,
            reason: reason(outcome, placed.is_some()),
            slot,
            position,
            price_micros: placed.map(|(_, winner)| winner.billed.0),
            bid_type: offer.bid_type,
            bid_micros: offer.bid.0,
            weight: offer.weight,
            sampling_weight: if placed.is_some() { on_page } else { beside },
            token: token.map(|token| TokenId { issuer: token.issuer, sequence: token.sequence }),
            predictions: predictions.row(offer.row).map(|p| (p.head, p.value as f32)).collect(),
            features: features(scored.item.iter().map(String::as_str), scored.values(offer.row)),
            matches: scored.matches.iter().cloned().zip(scored.weights(offer.row).iter().copied()).collect(),
        })
    }
}

fn reason(outcome: Outcome, stands: bool) -> ScoredReason {
    match outcome {
        Outcome::Won { .. } if stands => ScoredReason::Won,
        Outcome::Won { .. } => ScoredReason::NoSlot,
        Outcome::BelowReserve { .. } => ScoredReason::BelowReserve,
        Outcome::WorthLess { .. } => ScoredReason::WorthLess,
        Outcome::Limited(Limit::Advertiser) => ScoredReason::LimitAdvertiser,
        Outcome::Limited(Limit::Category) => ScoredReason::LimitCategory,
        Outcome::Limited(Limit::Neighbour) => ScoredReason::LimitNeighbour,
        Outcome::Lost { .. } => ScoredReason::LostAuction,
        Outcome::BelowThreshold { .. } => ScoredReason::BelowPageThreshold,
        Outcome::Removed => ScoredReason::NotEligibleBudget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sampled_stands_for_all() {
        let shares = Shares { requests_ppm: 500_000, others_ppm: 100_000 };
        let (on_page, beside) = shares.weights();
        assert_eq!((on_page, beside), (2.0, 20.0));
        let sampled = (0..40_000).filter(|ad| shares.samples(AuctionId(9), *ad)).count();
        assert!((3_600..4_400).contains(&sampled), "{sampled}");
        assert!((0..100).all(|ad| shares.samples(AuctionId(9), ad) == shares.samples(AuctionId(9), ad)));
        let all = Shares { requests_ppm: PPM, others_ppm: PPM };
        assert!((0..100).all(|ad| all.samples(AuctionId(9), ad)));
        assert!(!(0..100).any(|ad| Shares { others_ppm: 0, ..all }.samples(AuctionId(9), ad)));
    }
}
