//! Which ads go to the merged auction, and with which integers?
//!
//! The weight of each (item, ad) is computed once, in f64 from the calibrated predictions, and rounded
//! once; from there on everything is integers (decision 10). An item is shown with one ad, its best; then
//! the ads are ordered by (score desc, tie asc) and the exact cut keeps the prefix that can still
//! matter once all shards are merged (decision 11, ME1).
//!
//! A cost per hide makes the score of an ad `bid * weight - cost`, a value of long clicks adds to it; an ad
//! that would cost more than it brings is below its reserve, so that no price can ever be lower than the harm.

use gavel_proto::cut::{CutRule, cut};
use gavel_proto::hash::{TieKey, Ties};
use gavel_proto::money::BidType;
use gavel_proto::score::{QualityRule, reserve_from_cpm, score};

use super::AdTable;
use super::explain::{Reason, Witness, Worth};
use super::light::note_all;

/// What a search says about its auction.
#[derive(Clone, Copy, Debug)]
pub struct AuctionTerms {
    /// Names the auction; ties are broken by it.
    pub auction_id: u64,
    /// The key of the tie hash.
    pub tie_key: TieKey,
    /// Floor per thousand impressions.
    pub reserve_cpm_micros: u64,
    /// What counts besides bid and event probability.
    pub quality: QualityRule,
    /// The slate's limits; `None` returns every scored ad.
    pub cut: Option<CutRule>,
}

/// Which column of the predictions plays which role.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadRoles {
    /// Predictions of a candidate.
    pub heads: usize,
    /// P(click).
    pub click: usize,
    /// P(conversion given click); without one the prior stands in.
    pub conversion: Option<usize>,
    /// P(hide).
    pub hide: Option<usize>,
    /// P(long click): quality, and worth to the user.
    pub long_click: Option<usize>,
    /// Weighted conversion rate given a click.
    pub prior_conversion: f32,
}

/// An ad that takes part, with everything that its price depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Ordinal of the ad.
    pub ad: u32,
    /// Ordinal of its item.
    pub item: u32,
    /// Row of its predictions: position among the ranked items.
    pub row: u32,
    /// Its id.
    pub ad_id: u64,
    /// Who pays.
    pub advertiser: u64,
    /// Hashed category that limits count; 0 = none.
    pub limit_category: u64,
    /// Its campaign.
    pub campaign: u64,
    /// The event of its bid.
    pub bid_type: BidType,
    /// Paced bid.
    pub bid_micros: u64,
    /// Score units per bid micro.
    pub weight: u64,
    /// 1e15 times the probability of the bid's event, without quality; what bills.
    pub event_weight: u64,
    /// Additive value in score units.
    pub value: i128,
    /// Least price per event.
    pub reserve_micros: u64,
    /// `bid * weight + value`.
    pub score: i128,
    /// Lower wins among equal scores.
    pub tie: u64,
}

impl Candidate {
    fn worth(&self) -> Worth {
        Worth { bid_micros: self.bid_micros, weight: self.weight, score: self.score, light_micros: 0.0 }
    }

    fn order(&self) -> (std::cmp::Reverse<i128>, u64, u64) {
        (std::cmp::Reverse(self.score), self.tie, self.ad_id)
    }
}

/// How the scoring went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScoreFunnel {
    /// Ads at or above their reserve.
    pub scored: u64,
    /// Items with a prediction that is not a number.
    pub non_finite: u64,
    /// Ads within the cut.
    pub returned: u64,
}

/// Scores the ranked items' ads and cuts; `out` is in the order of the auction.
pub fn score_and_cut<T: AdTable, W: Witness>(
    table: &T,
    items: &[u32],
    predictions: &[f32],
    roles: HeadRoles,
    terms: &AuctionTerms,
    out: &mut Vec<Candidate>,
    witness: &mut W,
) -> ScoreFunnel {
    let mut funnel = ScoreFunnel::default();
    let ties = Ties::new(terms.tie_key, terms.auction_id);
    out.clear();
    for ((row, item), predicted) in (0..).zip(items).zip(predictions.chunks_exact(roles.heads.max(1))) {
        if predicted.iter().any(|p| !p.is_finite()) {
            funnel.non_finite += 1;
            note_all(table, *item, Reason::NonFinite, 0.0, witness);
            continue;
        }
        let offer = Offer { item: *item, row, predicted, roles, ties };
        out.extend(offer.best(table, terms, &mut funnel, witness));
    }
    out.sort_unstable_by_key(Candidate::order);
    keep_prefix(terms.cut, out, witness);
    funnel.returned = out.len() as u64;
    funnel
}

/// Applies the exact cut to ads in the order of the auction.
fn keep_prefix<W: Witness>(rule: Option<CutRule>, out: &mut Vec<Candidate>, witness: &mut W) {
    let kept = match rule {
        Some(rule) => cut(out.iter().map(|ad| (ad.advertiser, ad.limit_category)), rule),
        None => (0..out.len()).collect(),
    };
    if W::WATCHES {
        out.iter().for_each(|ad| witness.note(ad.ad, Reason::CutShard, ad.worth()));
        kept.iter().for_each(|index| witness.note(out[*index].ad, Reason::Returned, out[*index].worth()));
    }
    // Indexes ascend, so each goes to a place at or before its own.
    for (place, index) in kept.iter().enumerate() {
        out.swap(place, *index);
    }
    out.truncate(kept.len());
}

/// A ranked item with its predictions.
struct Offer<'a> {
    item: u32,
    row: u32,
    predicted: &'a [f32],
    roles: HeadRoles,
    ties: Ties,
}

impl Offer<'_> {
    /// The item's best ad that clears its reserve.
    fn best<T: AdTable, W: Witness>(
        &self,
        table: &T,
        terms: &AuctionTerms,
        funnel: &mut ScoreFunnel,
        witness: &mut W,
    ) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        for ad in table.ads_of(self.item).filter(|ad| table.admits(*ad)) {
            let candidate = match self.candidate(table, ad, terms) {
                Ok(candidate) => candidate,
                Err((reason, worth)) => {
                    witness.note(ad, reason, worth);
                    continue;
                }
            };
            funnel.scored += 1;
            let better = best.is_none_or(|best| candidate.order() < best.order());
            let loser = if better { best.replace(candidate) } else { Some(candidate) };
            if let Some(loser) = loser {
                witness.note(loser.ad, Reason::CutShard, loser.worth());
            }
        }
        best
    }

    /// The integers of one ad, or why it does not take part.
    fn candidate<T: AdTable>(&self, table: &T, ad: u32, terms: &AuctionTerms) -> Result<Candidate, (Reason, Worth)> {
        let row = table.delivery(ad);
        let bid = row.paced();
        let worth = Worth { bid_micros: bid.0, ..Worth::default() };
        let (click, conversion) = (self.probability(Some(self.roles.click)), self.probability(self.roles.conversion));
        let conversion = conversion.unwrap_or(f64::from(self.roles.prior_conversion));
        // A weight that rounds to nothing is a bid of nothing.
        let below = (Reason::BelowReserve, worth);
        let long_click = self.probability(self.roles.long_click);
        let quality = &terms.quality;
        let weights = quality.weights(row.bid_type, click.unwrap_or(0.0), conversion, long_click.unwrap_or(1.0));
        let weights = weights.ok_or(below)?;
        let weight = weights.rank;
        let value = quality.value(long_click, self.probability(self.roles.hide)).ok_or((Reason::NonFinite, worth))?;
        let score = score(bid, weight, value).ok_or((Reason::NonFinite, worth))?;
        let reserve = row
            .reserve_micros
            // What the floor is measured against is what an impression pays: the event, not the quality.
            .max(reserve_from_cpm(terms.reserve_cpm_micros, weights.event))
            .max(quality.reserve(weight, value));
        if bid.0 < reserve {
            return Err((Reason::BelowReserve, Worth { weight, score, ..worth }));
        }
        let ad_id = table.ad_id(ad);
        Ok(Candidate {
            ad,
            item: self.item,
            row: self.row,
            ad_id,
            advertiser: table.advertiser(self.item),
            limit_category: table.limit_category(self.item),
            campaign: row.campaign,
            bid_type: row.bid_type,
            bid_micros: bid.0,
            weight,
            event_weight: weights.event,
            value,
            reserve_micros: reserve,
            score,
            tie: self.ties.of(ad_id),
        })
    }

    /// The prediction of a head that is a probability.
    fn probability(&self, head: Option<usize>) -> Option<f64> {
        self.predicted.get(head?).map(|p| f64::from(*p))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
