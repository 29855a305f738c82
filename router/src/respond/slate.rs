//! Which winners stand on the page, at what price?

use super::{Entry, SlateEntry, WinnerReport};
use crate::allocation::{AllocationRule, Engagement, Entry as Place, Placed, allocate, priced_in_place};
use crate::auction::{Clearing, Winner};
use crate::clearing::slot_ads;
use crate::merge::{Candidate, Ranking};
use crate::request::Organic;
use crate::transport::{Creative, ShardBody};
use gavel_proto::ids::{ItemId, ShardId};
use std::collections::HashMap;

/// A head of this name says what an ad brings in engagement; without it an ad brings none.
const ENGAGEMENT_HEAD: &str = "engagement";

/// Everything that was decided about one request.
#[derive(Clone, Debug, Default)]
pub struct Decided {
    /// All candidates.
    pub ranking: Ranking,
    /// The auction.
    pub clearing: Clearing,
    /// The page, from the top.
    pub page: Vec<Placed>,
}

impl Decided {
    /// Places the winners on the page and prices them there.
    #[must_use]
    pub fn place(
        ranking: Ranking,
        clearing: Clearing,
        organic: &[Organic],
        rule: &AllocationRule,
        bodies: &HashMap<ShardId, ShardBody>,
    ) -> Self {
        let ads = slot_ads(&ranking, &clearing, |candidate| engagement(candidate, bodies));
        let feed: Vec<Engagement> = organic.iter().map(|o| o.engagement).collect();
        let page = allocate(&ads, &feed, rule);
        Self { ranking, clearing, page }
    }

    /// Winners on the page.
    #[must_use]
    pub fn placed(&self) -> usize {
        self.page.iter().filter(|p| matches!(p.entry, Place::Ad(_))).count()
    }
}

/// What an impression brings in engagement, as its shard predicted it.
#[must_use]
pub fn engagement(candidate: &Candidate, bodies: &HashMap<ShardId, ShardBody>) -> Engagement {
    let offer = candidate.offer();
    let mut predictions = bodies.get(&offer.shard).into_iter().flat_map(|b| b.predictions.row(offer.row));
    let engagement = predictions.find(|p| p.head == ENGAGEMENT_HEAD);
    engagement.and_then(|p| Engagement::from_units(p.value)).unwrap_or_default()
}

/// The winners that stand on the page, in page order, at the price of their position.
pub fn placed_winners(decided: &Decided) -> impl Iterator<Item = (usize, Winner)> {
    decided.page.iter().filter_map(|placed| match placed.entry {
        Place::Organic(_) => None,
        Place::Ad(index) => {
            let winner = decided.clearing.winners.get(index)?;
            Some((placed.position, priced_in_place(&decided.ranking[winner.candidate], winner, placed)))
        }
    })
}

/// The slate in page order.
#[must_use]
pub fn slate(
    decided: &Decided,
    organic: &[Organic],
    bodies: &HashMap<ShardId, ShardBody>,
    creatives: &HashMap<ItemId, Creative>,
) -> Vec<SlateEntry> {
    let mut entries: Vec<SlateEntry> = placed_winners(decided)
        .map(|(position, winner)| {
            let report = report(decided, &winner, bodies, creatives);
            // A page has at most 512 + 16 positions.
            SlateEntry { position: position as u32, entry: Entry::Ad(Box::new(report)) }
        })
        .collect();
    for placed in &decided.page {
        if let Place::Organic(index) = placed.entry
            && let Some(item) = organic.get(index)
        {
            entries.push(SlateEntry {
                position: placed.position as u32,
                entry: Entry::Organic { organic_id: item.id.clone() },
            });
        }
    }
    entries.sort_by_key(|e| e.position);
    entries
}

fn report(
    decided: &Decided,
    winner: &Winner,
    bodies: &HashMap<ShardId, ShardBody>,
    creatives: &HashMap<ItemId, Creative>,
) -> WinnerReport {
    let offer = decided.ranking[winner.candidate].offer();
    let predictions = bodies.get(&offer.shard).into_iter().flat_map(|b| b.predictions.row(offer.row));
    WinnerReport {
        ad_id: offer.ad.0,
        item_id: offer.item.0,
        campaign_id: offer.campaign.0,
        advertiser_id: offer.advertiser.0,
        slot: winner.slot as u32,
        bid_type: offer.bid_type.name(),
        bid_type_number: offer.bid_type.number(),
        price_micros: winner.billed.0,
        bid_micros: offer.bid.0,
        predictions: predictions.collect(),
        token: String::new(),
        // Two ads of one item may win: the creative is needed twice.
        creative: creatives.get(&offer.item).cloned(),
    }
}
