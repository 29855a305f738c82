//! How differently do two bundles see the same candidates?
//!
//! Of the ads that both scored: how alike they order them (Spearman's correlation of the places in auction order), what
//! they predict in sum, and what the auction's winners would be expected to pay under each: price times the weight of
//! one impression. All of it is a function of the two lists.

use crate::auction::{AuctionRule, clear};
use crate::merge::{Candidate, Ranking};
use crate::staging::Compared;
use gavel_proto::ids::AdId;
use std::collections::HashMap;

/// Score units per currency micro: weights are 1e15 times a probability (decision 10).
const UNITS_A_MICRO: f64 = 1e15;

/// An ad as one bundle sees it.
#[derive(Clone, Copy, Debug)]
pub struct ScoredAd {
    /// With its score.
    pub candidate: Candidate,
    /// Predicted click probability.
    pub click: f32,
}

/// Compares two lists; `None` when they have no ad in common.
#[must_use]
pub fn compare(active: &[ScoredAd], candidate: &[ScoredAd], rule: &AuctionRule) -> Option<Compared> {
    let by_ad: HashMap<AdId, &ScoredAd> = candidate.iter().map(|ad| (ad.candidate.offer().ad, ad)).collect();
    let pairs: Vec<(&ScoredAd, &ScoredAd)> =
        active.iter().filter_map(|ad| Some((ad, *by_ad.get(&ad.candidate.offer().ad)?))).collect();
    if pairs.is_empty() {
        return None;
    }
    let sum = |click: fn(&(&ScoredAd, &ScoredAd)) -> f32| pairs.iter().map(|p| f64::from(click(p))).sum();
    let first: Vec<Candidate> = pairs.iter().map(|(a, _)| a.candidate).collect();
    let second: Vec<Candidate> = pairs.iter().map(|(_, b)| b.candidate).collect();
    Some(Compared {
        candidates: pairs.len() as u64,
        rank_correlation: correlation(&places(&first), &places(&second)),
        predictions: (sum(|p| p.0.click), sum(|p| p.1.click)),
        revenue: (revenue(&first, rule), revenue(&second, rule)),
        rank_us: (0, 0),
    })
}

/// The place of each candidate in auction order.
fn places(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|a, b| candidates[*a].auction_order(&candidates[*b]));
    let mut places = vec![0; order.len()];
    for (place, index) in order.into_iter().enumerate() {
        places[index] = place;
    }
    places
}

/// Spearman's correlation of two orders without ties; 1 for a single place.
fn correlation(a: &[usize], b: &[usize]) -> f64 {
    let n = a.len() as f64;
    if a.len() < 2 {
        return 1.0;
    }
    let squares: f64 = a.iter().zip(b).map(|(x, y)| (*x as f64 - *y as f64).powi(2)).sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

/// Expected currency micros of the winners' impressions.
fn revenue(candidates: &[Candidate], rule: &AuctionRule) -> f64 {
    let Ok(ranking) = Ranking::sorted(candidates) else { return 0.0 };
    let expected = |winner: &crate::auction::Winner| {
        winner.price.0 as f64 * ranking[winner.candidate].offer().weight as f64 / UNITS_A_MICRO
    };
    clear(&ranking, rule).winners.iter().map(expected).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::{AuctionTerms, Mechanism};
    use crate::merge::Offer;
    use gavel_proto::money::{BidType, Micros};

    fn ad(id: u64, click: f32) -> ScoredAd {
        let weight = (f64::from(click) * 1e15) as u64;
        let offer = Offer::plain(AdId(id), BidType::Cpc, Micros(1_000_000), weight);
        ScoredAd { candidate: Candidate::new(offer).expect("in bounds"), click }
    }

    fn rule() -> AuctionRule {
        AuctionRule::new(AuctionTerms::plain(Mechanism::FirstPrice, 2)).expect("a rule")
    }

    #[test]
    fn equal_lists_agree_and_a_reversed_one_does_not() {
        let list = [ad(1, 0.1), ad(2, 0.2), ad(3, 0.3)];
        let same = compare(&list, &list, &rule()).expect("compared");
        assert_eq!((same.candidates, same.rank_correlation), (3, 1.0));
        assert_eq!(same.predictions.0, same.predictions.1);
        // The bids of the two best at their click probabilities.
        assert!((same.revenue.0 - 500_000.0).abs() < 1.0, "{same:?}");
        let other = [ad(1, 0.3), ad(2, 0.2), ad(3, 0.1), ad(9, 0.9)];
        let turned = compare(&list, &other, &rule()).expect("compared");
        assert_eq!((turned.candidates, turned.rank_correlation), (3, -1.0), "an ad that one has not seen is left out");
        assert!(compare(&list, &[ad(9, 0.1)], &rule()).is_none());
    }
}
