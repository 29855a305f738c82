//! Which few of the retrieved items deserve the ranker?
//!
//! Retrieval orders by similarity, the auction by money. The light order stands between: the click
//! probability that the two towers imply, times what a click (or an impression, or a conversion at its
//! prior rate) is worth under the item's best eligible bid (decision 14). Items whose ads cannot bid are
//! left out before the cut, so that they take no place of one that can.
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

impl LightModel {
    /// The click probability of the bundle's light logit.
    #[must_use]
    pub fn click(logit: f32) -> f64 {
        1.0 / (1.0 + (-f64::from(logit)).exp())
    }

    /// Currency micros that an impression of a campaign's ad is expected to bring.
    #[must_use]
    pub fn value(&self, row: &DeliveryRow, click: f64) -> f64 {
        let bid = row.paced().0 as f64;
        match row.bid_type {
            BidType::Cpm => bid / 1_000.0,
            BidType::Cpc => bid * click,
            BidType::Cpa | BidType::Ocpm | BidType::Ocpc => bid * click * f64::from(self.prior_conversion),
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
    pub logit: f32,
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
    /// Items whose similarity or light logit was not finite.
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
        if !found.similarity.is_finite() || !found.logit.is_finite() {
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
    let Retrieved { item, similarity, logit } = found;
    let click = LightModel::click(logit);
    let mut best: Option<LightItem> = None;
    for ad in table.ads_of(item) {
        if !table.admits(ad) {
            continue;
        }
        let row = table.delivery(ad);
        let value = model.value(row, click);
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
