//! Under which rules are auctions cleared and pages made, and what do their ads cost?

use super::routers::is_held;
use super::{MarketArgs, MarketError};
use gavel_proto::cut::Neighbours;
use gavel_proto::money::{BidType, PPM};
use gavel_router::allocation::{AllocationRule, Engagement, ShadowBid, SlotAd};
use gavel_router::auction::{AuctionRule, AuctionTerms, Clearing, TiePrice, UserModel, Winner};
use gavel_router::merge::Ranking;

pub const SLOTS: usize = 4;
/// How often each slot is seen.
pub const FACTORS_PPM: [u32; SLOTS] = [1_000_000, 750_000, 560_000, 420_000];
/// Organic items of a page.
pub const ORGANIC: usize = 12;

/// One ad an advertiser, two a category.
pub fn rule(args: &MarketArgs) -> Result<AuctionRule, MarketError> {
    let terms = AuctionTerms {
        mechanism: args.mechanism.into(),
        slots: SLOTS,
        per_advertiser: 1,
        per_category: Some(2),
        position_factors_ppm: FACTORS_PPM.to_vec(),
        tie_price: TiePrice::Keyed,
        neighbours: Neighbours::Any,
        users: UserModel::Separable,
        page_threshold: 0,
    };
    Ok(AuctionRule::new(terms)?)
}

/// At most a quarter of the page, two organic items between ads.
pub fn page(args: &MarketArgs) -> Result<AllocationRule, MarketError> {
    let shadow_bid = ShadowBid::from_micros(args.shadow_bid);
    Ok(AllocationRule {
        positions: ORGANIC + SLOTS,
        first_position: 1,
        min_gap: 2,
        max_ads: SLOTS,
        max_load_ppm: 250_000,
        shadow_bid: shadow_bid.ok_or_else(|| MarketError::Usage("--shadow-bid is no amount".to_owned()))?,
        gap_effect_ppm: Vec::new(),
        category_spacing: 0,
    })
}

/// The winners as the page takes them.
pub fn slot_ads(ranking: &Ranking, clearing: &Clearing) -> Vec<SlotAd> {
    let ad = |winner: &Winner| SlotAd {
        slot: winner.slot,
        score: ranking[winner.candidate].score(),
        engagement: Engagement::default(),
        category: ranking[winner.candidate].offer().limit_category,
    };
    clearing.winners.iter().map(ad).collect()
}

/// How likely an ad in a slot is seen.
pub fn seen_chance(slot: usize) -> f64 {
    f64::from(FACTORS_PPM[slot]) / f64::from(PPM)
}

/// How likely an ad in a slot leads to the event that it is billed by, when users click and convert like this.
pub fn charged_chance(bid_type: BidType, (click, conversion): (f64, f64), slot: usize) -> f64 {
    let seen = seen_chance(slot);
    match bid_type {
        BidType::Cpm => seen,
        BidType::Cpc => click * seen,
        BidType::Cpa | BidType::Ocpm | BidType::Ocpc => click * conversion * seen,
    }
}

/// The price of one billed event; one per mille in micros is one of an impression in nanos.
pub fn price_nanos(bid_type: BidType, billed: u64) -> i64 {
    i64::try_from(if is_held(bid_type) { billed } else { billed.saturating_mul(1_000) }).unwrap_or(i64::MAX)
}
