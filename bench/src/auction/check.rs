//! Does the clearing that serves equal the one that tries every price?

use crate::truth::oracle;
use crate::workload::Seeded;
use gavel_proto::cut::Neighbours;
use gavel_proto::hash::tie_key;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, ShardId};
use gavel_proto::money::{BidType, Micros};
use gavel_router::auction::{AuctionRule, AuctionTerms, Mechanism, TiePrice, UserModel, clear};
use gavel_router::merge::{Candidate, Offer, Ranking};
use serde::Serialize;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Checked {
    /// Auctions cleared twice.
    pub auctions: u64,
    /// Winners whose slot and price were compared.
    pub winners: u64,
    /// Differences; a run with any fails.
    pub differences: u64,
    /// Auctions by mechanism: second price, VCG, first price.
    pub by_mechanism: [u64; 3],
    /// Auctions in which a limit kept a better ad out of a slot.
    pub limited: u64,
}

/// Clears random auctions twice.
///
/// # Errors
/// The first difference, with its case.
pub fn check(seed: u64, auctions: u64) -> Result<Checked, String> {
    let mut checked = Checked::default();
    for number in 0..auctions {
        let mut random = Seeded::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let case = Case::draw(&mut random);
        let (served, limited) = case.served()?;
        let expected = case.expected();
        if served != expected {
            return Err(format!(
                "auction {number} of seed {seed}: served {served:?}, the twin says {expected:?}: {case:?}"
            ));
        }
        checked.auctions += 1;
        checked.winners += served.len() as u64;
        checked.limited += u64::from(limited);
        let place = match case.rule.mechanism {
            oracle::Mechanism::Gsp => 0,
            oracle::Mechanism::Vcg => 1,
            oracle::Mechanism::FirstPrice => 2,
        };
        checked.by_mechanism[place] += 1;
    }
    Ok(checked)
}

#[derive(Debug)]
struct Case {
    rule: oracle::Rule,
    ads: Vec<oracle::Ad>,
}

impl Case {
    /// Few distinct amounts, so that ties, full limits and empty slots are common; one case in sixteen has real ones.
    fn draw(random: &mut Seeded) -> Self {
        let mut roll = |below: u64| random.next_u64() % below;
        let slots = roll(5) as usize;
        let mut factors: Vec<u32> = (0..roll(5)).map(|_| 1 + roll(6) as u32).collect();
        factors.sort_unstable_by(|a, b| b.cmp(a));
        let rule = oracle::Rule {
            mechanism: [oracle::Mechanism::Gsp, oracle::Mechanism::Vcg, oracle::Mechanism::FirstPrice]
                [roll(3) as usize],
            slots,
            per_advertiser: 1 + (roll(4) / 3) as usize,
            per_category: [0, 0, 1, 1, 2][roll(5) as usize],
            apart: if roll(3) == 0 { oracle::Apart::Yes } else { oracle::Apart::No },
            factors,
            tie_key: roll(4),
            auction_id: roll(1_000),
        };
        let large = roll(16) == 0;
        let (bids, weights) = if large { (5_000_000, 40_000_000_000_000) } else { (1 + roll(12), 4) };
        let (advertisers, categories, with_value) = (1 + roll(6), 1 + roll(4), roll(3) == 0);
        let mut ad = |ad: u64| {
            let weight = 1 + roll(weights);
            let bid = roll(bids + 1);
            oracle::Ad {
                ad,
                advertiser: roll(advertisers),
                category: roll(categories),
                // What else is billed than bid is a division that the other tests hold.
                bid_type: [BidType::Cpc, BidType::Cpm, BidType::Cpa, BidType::Ocpm][roll(4) as usize],
                bid,
                weight,
                event_weight: 1 + roll(weights),
                value: if with_value { i128::from(roll(13)) - 6 } else { 0 } * i128::from(weights / 4),
                reserve: roll(2) * roll(1 + bid.min(5)),
            }
        };
        let count = ad(0).advertiser * 2 + 1;
        let ads = (0..count).map(ad).collect();
        Self { rule, ads }
    }

    fn expected(&self) -> Vec<(u64, u64)> {
        oracle::clear(&self.ads, &self.rule).into_iter().map(|(index, billed)| (self.ads[index].ad, billed)).collect()
    }

    /// (ad, billed) by slot, and whether a limit mattered.
    fn served(&self) -> Result<(Vec<(u64, u64)>, bool), String> {
        let rule = AuctionRule::new(AuctionTerms {
            mechanism: match self.rule.mechanism {
                oracle::Mechanism::Gsp => Mechanism::Gsp,
                oracle::Mechanism::Vcg => Mechanism::Vcg,
                oracle::Mechanism::FirstPrice => Mechanism::FirstPrice,
            },
            slots: self.rule.slots,
            per_advertiser: self.rule.per_advertiser,
            per_category: Some(self.rule.per_category).filter(|limit| *limit > 0),
            position_factors_ppm: self.rule.factors.clone(),
            tie_price: TiePrice::Keyed,
            neighbours: match self.rule.apart {
                oracle::Apart::Yes => Neighbours::Apart,
                oracle::Apart::No => Neighbours::Any,
            },
            users: UserModel::Separable,
        });
        let candidates: Result<Vec<Candidate>, _> = self.ads.iter().map(|ad| Candidate::new(self.offer(ad))).collect();
        let ranking = Ranking::sorted(&candidates.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let clearing = clear(&ranking, &rule.map_err(|e| e.to_string())?);
        let limited = clearing
            .winners
            .iter()
            .any(|winner| ranking[..winner.candidate].iter().filter(|c| c.eligible()).count() > winner.slot);
        let sold = clearing.winners.iter().map(|w| (ranking[w.candidate].offer().ad.0, w.billed.0)).collect();
        Ok((sold, limited))
    }

    fn offer(&self, ad: &oracle::Ad) -> Offer {
        Offer {
            ad: AdId(ad.ad),
            item: ItemId(ad.ad),
            campaign: CampaignId(ad.ad),
            advertiser: AdvertiserId(ad.advertiser),
            limit_category: ad.category,
            bid_type: ad.bid_type,
            bid: Micros(ad.bid),
            weight: ad.weight,
            event_weight: ad.event_weight,
            click_weight: 0,
            continuation_ppm: 0,
            value: ad.value,
            reserve: Micros(ad.reserve),
            tie: tie_key(self.rule.tie_key, self.rule.auction_id, ad.ad),
            shard: ShardId(0),
            row: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bounded share of what the command checks.
    #[test]
    fn the_clearing_equals_its_twin() {
        let checked = check(7, 20_000).unwrap_or_else(|difference| panic!("{difference}"));
        assert!(checked.winners > 12_000 && checked.limited > 500, "{checked:?} say little");
        assert!(checked.by_mechanism.iter().all(|count| *count > 5_000), "{checked:?}");
    }
}
