//! Under which rules are auctions cleared and pages made?

use super::{MarketArgs, MarketError};
use gavel_proto::cut::Neighbours;
use gavel_router::allocation::{AllocationRule, ShadowBid};
use gavel_router::auction::{AuctionRule, AuctionTerms, TiePrice, UserModel};

const SLOTS: usize = 4;
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
