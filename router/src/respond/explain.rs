//! Why did each ad of the catalogue not win?
//!
//! Every ad is in exactly one reason, so the counts sum to the ads of the map. The shards say it for what they left
//! out; what they returned gets the word of the auction or of the page; a shard without an answer has one reason for
//! all its ads. A difference between a shard's account and the map (a replica that holds a little more or less) is
//! shown as `unaccounted` or taken off the largest count: the sum is a promise.

use super::Decided;
use crate::allocation::Entry as Place;
use crate::auction::{AuctionRule, Limit, Outcome, outcomes};
use crate::merge::Candidate;
use crate::topology::RouteTable;
use crate::transport::{Explained, ShardBody};
use gavel_proto::ids::{AdId, ShardId};
use gavel_proto::limits::EXPLAINED_ADS_MAX;
use gavel_proto::money::Micros;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// What a shard says of an ad that it sent to the auction.
const RETURNED: &str = "returned";

/// Reasons from winning on, the nearest first; any other one comes after.
const NEARNESS: [&str; 13] = [
    "won",
    "no_slot",
    "lost_auction",
    "below_page_threshold",
    "limit_advertiser",
    "limit_category",
    "limit_neighbour",
    "below_reserve",
    "worth_less",
    "cut_shard",
    "non_finite",
    "cut_light",
    "not_retrieved",
];

/// How many ads have one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// In one word.
    pub reason: String,
    /// Ads.
    pub ads: u64,
}

/// The single ads nearest to winning, and the reason of every ad of the table. `refused` are winners that no impression
/// was left for.
#[must_use]
pub fn reasons(
    table: &RouteTable,
    (decided, refused): (&Decided, &[AdId]),
    rule: &AuctionRule,
    bodies: &HashMap<ShardId, ShardBody>,
) -> (Vec<Explained>, Vec<ReasonCount>) {
    let judged = judged(decided, refused, rule);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for route in &table.shards {
        let of_shard = match bodies.get(&route.shard) {
            Some(body) => shard_counts(body, route.shard, route.ads, &judged),
            None => BTreeMap::from([("shard_unanswered".to_owned(), route.ads)]),
        };
        for (reason, ads) in of_shard {
            *counts.entry(reason).or_insert(0) += ads;
        }
    }
    let mut reasons: Vec<ReasonCount> =
        counts.into_iter().filter(|(_, ads)| *ads > 0).map(|(reason, ads)| ReasonCount { reason, ads }).collect();
    reasons.sort_by_key(|r| (nearness(&r.reason), r.reason.clone()));
    (nearest(bodies, &judged), reasons)
}

/// The word of the auction and the page on each candidate.
fn judged(decided: &Decided, refused: &[AdId], rule: &AuctionRule) -> HashMap<AdId, Explained> {
    let on_page = |slot: usize| {
        let is_it = |index: usize| decided.clearing.winners.get(index).is_some_and(|w| w.slot == slot);
        decided.page.iter().any(|p| matches!(p.entry, Place::Ad(index) if is_it(index)))
    };
    let outcomes = outcomes(&decided.ranking, rule, &decided.clearing);
    let explained = |(candidate, outcome): (&Candidate, Outcome)| {
        let (reason, detail) = match outcome {
            Outcome::Won { slot } if on_page(slot) => ("won", format!("slot {slot}")),
            Outcome::Won { slot } => ("no_slot", format!("won slot {slot}, and the page had no place for it")),
            Outcome::BelowReserve { short_by } => ("below_reserve", format!("by {short_by}")),
            Outcome::WorthLess { score_gap } => ("worth_less", format!("by {:.0} micros", micros(score_gap))),
            Outcome::Limited(Limit::Advertiser) => ("limit_advertiser", "its advertiser has its share".to_owned()),
            Outcome::Limited(Limit::Category) => ("limit_category", "its category has its share".to_owned()),
            Outcome::Limited(Limit::Neighbour) => ("limit_neighbour", "the slot before holds its category".to_owned()),
            Outcome::Lost { score_gap, bid_needed } => ("lost_auction", behind(score_gap, bid_needed)),
            Outcome::BelowThreshold { score_gap, bid_needed } => {
                ("below_page_threshold", behind(score_gap, bid_needed))
            }
            Outcome::Removed if refused.contains(&candidate.offer().ad) => {
                ("not_eligible_frequency", "it won, and no impression was left for it".to_owned())
            }
            Outcome::Removed => {
                ("not_eligible_budget", "it won, and this router has no money leased for it".to_owned())
            }
        };
        let offer = candidate.offer();
        let explained = Explained {
            ad_id: offer.ad.0,
            item_id: offer.item.0,
            campaign_id: offer.campaign.0,
            advertiser_id: offer.advertiser.0,
            shard: offer.shard.0,
            reason: reason.to_owned(),
            detail,
            bid_micros: offer.bid.0,
            weight: offer.weight,
            // For reading only.
            score: candidate.score() as f64,
            predictions: Vec::new(),
        };
        (offer.ad, explained)
    };
    decided.ranking.iter().zip(outcomes).map(explained).collect()
}

/// How far a loser was behind, and what would have won.
fn behind(score_gap: i128, bid_needed: Option<Micros>) -> String {
    let needed = bid_needed.map_or(String::new(), |bid| format!(", a bid of {bid} would have won"));
    format!("by {:.3} micros an impression{needed}", micros(score_gap))
}

/// Score units as micros.
fn micros(score_units: i128) -> f64 {
    score_units as f64 / gavel_proto::score::UNIT
}

/// The reasons of one shard's ads; they sum to `ads`.
fn shard_counts(
    body: &ShardBody,
    shard: ShardId,
    ads: u64,
    judged: &HashMap<AdId, Explained>,
) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (reason, count) in body.reasons.iter().filter(|(reason, _)| reason != RETURNED) {
        *counts.entry(reason.clone()).or_insert(0) += count;
    }
    for explained in judged.values().filter(|e| e.shard == shard.0) {
        *counts.entry(explained.reason.clone()).or_insert(0) += 1;
    }
    let mut over = counts.values().sum::<u64>();
    if over < ads {
        // A shard that ran out of time says nothing of its ads.
        let reason = if body.reasons.is_empty() { "shard_unanswered" } else { "unaccounted" };
        counts.insert(reason.to_owned(), ads - over);
    }
    while over > ads {
        let Some(largest) = counts.values_mut().max() else { break };
        let less = (over - ads).min(*largest);
        *largest -= less;
        over -= less;
    }
    counts
}

fn nearness(reason: &str) -> usize {
    NEARNESS.iter().position(|r| *r == reason).unwrap_or(NEARNESS.len())
}

fn nearest(bodies: &HashMap<ShardId, ShardBody>, judged: &HashMap<AdId, Explained>) -> Vec<Explained> {
    let mut told: HashMap<AdId, Explained> = HashMap::new();
    for explained in bodies.values().flat_map(|b| &b.explained) {
        let mut explained = explained.clone();
        if let Some(word) = judged.get(&AdId(explained.ad_id)) {
            explained.reason.clone_from(&word.reason);
            explained.detail.clone_from(&word.detail);
            explained.score = word.score;
        }
        told.insert(AdId(explained.ad_id), explained);
    }
    for (ad, word) in judged {
        told.entry(*ad).or_insert_with(|| {
            let mut word = word.clone();
            let body = bodies.get(&ShardId(word.shard));
            let candidate = body.and_then(|b| Some((b, b.list.candidates.iter().find(|c| c.offer().ad == *ad)?)));
            if let Some((body, candidate)) = candidate {
                word.predictions = body.predictions.row(candidate.offer().row).collect();
            }
            word
        });
    }
    let mut ads: Vec<Explained> = told.into_values().collect();
    let order = |e: &Explained| (nearness(&e.reason), std::cmp::Reverse(ordered(e.score)), e.ad_id);
    ads.sort_by_key(order);
    ads.truncate(EXPLAINED_ADS_MAX);
    ads
}

/// A float's bits in the order of its values.
fn ordered(x: f64) -> i64 {
    let bits = x.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}
