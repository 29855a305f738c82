//! Which few of the retrieved items deserve the ranker?
//!
//! Retrieval orders by similarity, the auction by money. The light order stands between: the chance of what
//! the ad pays for (an impression, a click, a conversion), as the bundle's light order sees it, times the
//! item's best eligible bid (decision 14). A bundle that says nothing of conversions has one rate for all. Items whose
//! ads cannot bid are left out before the cut, so that they take no place of one that can.
//!
//! Ties go to the lower ordinal, so equal inputs give equal cuts on every replica.

use std::cmp::Ordering;

use gavel_proto::money::BidType;

use super::AdTable;
use super::delivery::DeliveryRow;
use super::explain::{Reason, Witness, Worth};

/// What the bundle says about the light order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LightModel {
    /// Weighted conversion rate given a click.
    pub prior_conversion: f32,
}

/// What may come of an impression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LightChance {
    /// Probability of a click.
    pub click: f64,
    /// Probability of a conversion given a click.
    pub conversion: f64,
}

impl LightModel {
    /// The chances that the light logits of an item stand for.
    #[must_use]
    pub fn chance(&self, found: &Retrieved) -> LightChance {
        let probability = |logit: f32| 1.0 / (1.0 + (-f64::from(logit)).exp());
        LightChance {
            click: probability(found.click),
            conversion: found.conversion.map_or(f64::from(self.prior_conversion), probability),
        }
    }
}

impl LightChance {
    /// Currency micros that an impression of a campaign's ad is expected to bring.
    #[must_use]
    pub fn value(&self, row: &DeliveryRow) -> f64 {
        let bid = row.paced().0 as f64;
        match row.bid_type {
            BidType::Cpm => bid / 1_000.0,
            BidType::Cpc => bid * self.click,
            BidType::Cpa | BidType::Ocpm | BidType::Ocpc => bid * self.click * self.conversion,
        }
    }
}

/// A retrieved item with what the bundle's light order says of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retrieved {
    /// Its ordinal.
    pub item: u32,
    /// Similarity to the query.
    pub similarity: f32,
    /// The light logit of a click.
    pub click: f32,
    /// That of a conversion given a click, where the bundle has one.
    pub conversion: Option<f32>,
}

impl Retrieved {
    fn is_finite(&self) -> bool {
        self.similarity.is_finite() && self.click.is_finite() && self.conversion.is_none_or(f32::is_finite)
    }
}

/// A retrieved item with what it promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LightItem {
    /// Its ordinal.
    pub item: u32,
    /// Similarity to the query.
    pub similarity: f32,
    /// The best expected value of its ads that can bid, in currency micros per impression.
    pub value: f64,
    /// The bid type of that ad.
    pub bid_type: BidType,
}

/// How the light cut went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LightFunnel {
    /// Items with at least one ad that can bid.
    pub bidding: u64,
    /// Items that are left.
    pub kept: u64,
    /// Those by the bid type of their best ad, at its wire number less one.
    pub kept_by_bid_type: [u64; BidType::ALL.len()],
    /// Items whose similarity or light logits were not finite.
    pub non_finite: u64,
}

/// Values the retrieved items, keeps the best `keep` of them in `out`, best first.
pub fn light_cut<T: AdTable, W: Witness>(
    table: &T,
    model: LightModel,
    retrieved: impl IntoIterator<Item = Retrieved>,
    keep: usize,
    out: &mut Vec<LightItem>,
    witness: &mut W,
) -> LightFunnel {
    let mut funnel = LightFunnel::default();
    out.clear();
    for found in retrieved {
        if !found.is_finite() {
            funnel.non_finite += 1;
            note_all(table, found.item, Reason::NonFinite, 0.0, witness);
        } else if let Some(valued) = best_of(table, model, found) {
            out.push(valued);
        }
    }
    funnel.bidding = out.len() as u64;
    if out.len() > keep {
        if keep > 0 {
            out.select_nth_unstable_by(keep - 1, by_value);
        }
        for cut in &out[keep..] {
            note_all(table, cut.item, Reason::CutLight, cut.value, witness);
        }
        out.truncate(keep);
    }
    out.sort_unstable_by(by_value);
    funnel.kept = out.len() as u64;
    for kept in out.iter() {
        funnel.kept_by_bid_type[kept.bid_type.number() as usize - 1] += 1;
    }
    funnel
}

/// The most valuable ad of an item that can bid.
fn best_of<T: AdTable>(table: &T, model: LightModel, found: Retrieved) -> Option<LightItem> {
    let Retrieved { item, similarity, .. } = found;
    let chance = model.chance(&found);
    let mut best: Option<LightItem> = None;
    for ad in table.ads_of(item) {
        if !table.admits(ad) {
            continue;
        }
        let row = table.delivery(ad);
        let value = chance.value(row);
        if best.is_none_or(|best| value > best.value) {
            best = Some(LightItem { item, similarity, value, bid_type: row.bid_type });
        }
    }
    best
}

/// Tells the witness about every ad of an item that could have taken part.
pub fn note_all<T: AdTable, W: Witness>(table: &T, item: u32, reason: Reason, light: f64, witness: &mut W) {
    if !W::WATCHES {
        return;
    }
    for ad in table.ads_of(item).filter(|ad| table.admits(*ad)) {
        let worth = Worth { bid_micros: table.delivery(ad).paced().0, light_micros: light, ..Worth::default() };
        witness.note(ad, reason, worth);
    }
}

fn by_value(a: &LightItem, b: &LightItem) -> Ordering {
    b.value.total_cmp(&a.value).then(a.item.cmp(&b.item))
}
