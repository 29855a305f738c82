//! Which auction rules and placements are allowed?
//!
//! The defaults are part of the genesis, so a fresh cluster answers without being configured. So is the key of the ties
//! that every cluster begins with. It is the same everywhere and so keeps nothing secret: the leader has it replaced
//! by a random one of the cluster's own, before which no router serves.

use gavel_proto::cut::Neighbours;
use gavel_proto::hash::TieKey;
use gavel_proto::limits::{BID_MICROS_MAX, CANDIDATES_MAX, ORGANIC_MAX, PLACEMENTS_MAX, SHADOW_BID_MAX, SLOTS_MAX};
use gavel_proto::money::PPM;
use gavel_proto::score::QualityRule;

use super::types::{Auction, Mechanism, Placement};
use super::{State, Verdict, check_text};

/// GSP over eight positions whose factors fall by a quarter each, as in the auction chapter's examples.
pub fn auction_of_genesis() -> Auction {
    Auction {
        mechanism: Mechanism::Gsp,
        tie_key: TieKey::from_number(0x6761_7665_6c00_0001),
        per_advertiser: 1,
        per_category: 0,
        position_factors_ppm: vec![1_000_000, 750_000, 560_000, 420_000, 320_000, 240_000, 180_000, 130_000],
        reserve_cpm_micros: 0,
        ranked_total: 200,
        retrieved_total: 200,
        shadow_bid: 0.0,
        neighbours: Neighbours::Any,
        quality: QualityRule::default(),
        cascade_ppm: 0,
        gap_effect_ppm: Vec::new(),
        page_threshold_cpm_micros: 0,
    }
}

/// Four ads among organic items, at most every fourth position, none above the first.
pub fn placement_of_genesis() -> Placement {
    Placement {
        name: "home".to_owned(),
        slots: 4,
        first_position: 1,
        min_gap: 2,
        max_load_ppm: 250_000,
        reserve_cpm_micros: 0,
        category_spacing: 0,
    }
}

/// The rules of the auction. A key that was made stays, because whoever changes the rules may have read them before it,
/// and none comes this way, past the look at what it replaces: only a public one is set in place of a public one.
pub fn set_auction(state: &mut State, wish: &Auction) -> Verdict {
    check_auction(wish)?;
    let held = state.auction.tie_key;
    let are_public = held.public().is_some() && wish.tie_key.public().is_some();
    let tie_key = if are_public { wish.tie_key } else { held };
    let wish = Auction { tie_key, ..wish.clone() };
    if state.auction != wish {
        state.auction = wish;
        state.map_epoch += 1;
    }
    Ok(state.map_epoch)
}

/// The key of the ties, while the one in force is still the one that it replaces.
pub fn set_tie_key(state: &mut State, key: TieKey, replaces: u64) -> Verdict {
    if key.public().is_some() {
        return Err("invalid_argument: a tie key is 32 random bytes".to_owned());
    }
    if state.auction.tie_key.id() != replaces {
        return Err("failed_precondition: the tie key was changed meanwhile: try again".to_owned());
    }
    state.auction.tie_key = key;
    state.map_epoch += 1;
    Ok(state.map_epoch)
}

/// Where ads may stand.
pub fn set_placement(state: &mut State, wish: &Placement) -> Verdict {
    check_placement(wish)?;
    if !state.placements.contains_key(&wish.name) && state.placements.len() >= PLACEMENTS_MAX {
        return Err("resource_exhausted: too many placements".to_owned());
    }
    if state.placements.get(&wish.name) != Some(wish) {
        state.placements.insert(wish.name.clone(), wish.clone());
        state.map_epoch += 1;
    }
    Ok(state.map_epoch)
}

/// A placement goes.
pub fn remove_placement(state: &mut State, name: &str) -> Verdict {
    if state.placements.remove(name).is_none() {
        return Err("not_found: placement".to_owned());
    }
    state.map_epoch += 1;
    Ok(state.map_epoch)
}

fn check_auction(wish: &Auction) -> Result<(), String> {
    let invalid = |what: &str| Err(format!("invalid_argument: {what}"));
    let factors = &wish.position_factors_ppm;
    if factors.is_empty() || factors.len() > SLOTS_MAX as usize {
        return invalid("position_factors_ppm needs 1 to 16 factors");
    }
    if factors.iter().any(|x| *x == 0 || *x > PPM) || factors.windows(2).any(|pair| matches!(pair, [a, b] if a < b)) {
        return invalid("position_factors_ppm must be above 0, at most 1,000,000 and never increase");
    }
    if wish.per_advertiser == 0 || wish.per_advertiser > SLOTS_MAX || wish.per_category > SLOTS_MAX {
        return invalid("per_advertiser is 1 to 16, per_category 0 to 16");
    }
    if wish.ranked_total == 0 || wish.ranked_total > wish.retrieved_total || wish.retrieved_total > CANDIDATES_MAX {
        return invalid("1 <= ranked_total <= retrieved_total <= 1,000");
    }
    if wish.reserve_cpm_micros > BID_MICROS_MAX {
        return invalid("reserve_cpm_micros is above the largest bid");
    }
    if wish.page_threshold_cpm_micros > BID_MICROS_MAX {
        return invalid("page_threshold_cpm_micros is above the largest bid");
    }
    if !(0.0..=SHADOW_BID_MAX).contains(&wish.shadow_bid) {
        return invalid("shadow_bid is 0 to 1e13");
    }
    if wish.gap_effect_ppm.len() > ORGANIC_MAX || wish.gap_effect_ppm.iter().any(|x| *x > PPM) {
        return invalid("gap_effect_ppm has at most 512 entries of at most 1,000,000");
    }
    if !wish.quality.is_within_limits() {
        return invalid("quality: ppm are at most 1,000,000 (quality_ppm 4,000,000), micros at most the largest bid");
    }
    check_cascade(wish)
}

/// Cascading users and limits of the slate do not go together, nor a threshold by position factors, which they do not look
/// at; no second price is defined for them.
fn check_cascade(wish: &Auction) -> Result<(), String> {
    if wish.cascade_ppm == 0 {
        return Ok(());
    }
    let free = wish.per_advertiser == 1
        && wish.per_category == 0
        && wish.neighbours == Neighbours::Any
        && wish.page_threshold_cpm_micros == 0;
    if wish.cascade_ppm >= PPM || wish.mechanism == Mechanism::Gsp || !free {
        let what = "cascade_ppm is below 1,000,000 and needs vcg or first_price, one ad an advertiser, no other limit and \
                    no page threshold";
        return Err(format!("invalid_argument: {what}"));
    }
    Ok(())
}

fn check_placement(wish: &Placement) -> Result<(), String> {
    check_text("name", &wish.name)?;
    let organic = u32::try_from(ORGANIC_MAX).unwrap_or(u32::MAX);
    let fits = (1..=SLOTS_MAX).contains(&wish.slots)
        && wish.first_position <= organic
        && wish.min_gap <= organic
        && wish.category_spacing <= organic
        && (1..=PPM).contains(&wish.max_load_ppm)
        && wish.reserve_cpm_micros <= BID_MICROS_MAX;
    if fits { Ok(()) } else { Err("invalid_argument: a number of the placement is out of range".to_owned()) }
}
