//! Which ads meet in the auction of this visit?
//!
//! Half of them are of the types that the household buys most, the others any that may be shown in the store: what a
//! retrieval would bring is drawn here. Weights are made as nodes make them, and the ads go through the same checks. Of
//! the campaigns whose demand is watched there are also the bids that are held back, in full.

use super::MarketArgs;
use super::arrivals::Arrival;
use super::controls::Controls;
use super::demand::Demand;
use super::world::{Place, World};
use crate::workload::Seeded;
use gavel_proto::hash::{TieKey, tie_key};
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId, ShardId};
use gavel_proto::money::Micros;
use gavel_proto::score::QualityRule;
use gavel_router::merge::{Candidate, Offer, Ranking};

/// The key of the ties.
const TIE_KEY: TieKey = TieKey::from_number(0x6d61_726b_6574);

/// The candidates of one visit; the row of an offer is the ad's place in the world.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    pub ranking: Ranking,
    /// Ads of watched campaigns that bid less than in full or nothing, at their full bids, by campaign.
    pub in_full: Vec<Candidate>,
}

/// Draws the candidates of one visit.
pub fn draw(
    args: &MarketArgs,
    world: &World,
    arrival: &Arrival,
    auction: u64,
    (controls, demand): (&Controls, &Demand),
    random: &mut Seeded,
) -> Drawn {
    let nobody = Place::default();
    let store = world.stores.get(&arrival.store).unwrap_or(&nobody);
    let mut drawn: Vec<u32> = Vec::with_capacity(args.candidates);
    let favourites = world.households.get(&arrival.household).map_or(&[][..], |h| &h.favourites);
    for place in [&world.everywhere, store].into_iter().cycle().take(args.candidates) {
        let word = random.next_u64();
        let by_taste = (word & 1 == 0 && !favourites.is_empty())
            .then(|| favourites[(word >> 8) as usize % favourites.len()])
            .and_then(|kind| place.by_kind.get(&kind));
        let among = by_taste.unwrap_or(&place.all);
        if let Some(ad) = among.get(((word >> 32) as usize) % among.len().max(1)) {
            drawn.push(*ad);
        }
    }
    drawn.sort_unstable();
    drawn.dedup();
    let (mut candidates, mut in_full): (Vec<Candidate>, Vec<Candidate>) = (Vec::new(), Vec::new());
    for ad in drawn {
        let campaign = world.ads[ad as usize].campaign;
        let bid_micros = world.campaigns[campaign as usize].bid_micros;
        let bid = controls.bid(campaign, bid_micros, auction);
        let full = Micros(controls.in_force(campaign as usize, bid_micros));
        candidates.extend(bid.and_then(|bid| offer(world, arrival, auction, ad, bid)));
        if demand.watches(campaign) && bid != Some(full) {
            in_full.extend(offer(world, arrival, auction, ad, full));
        }
    }
    in_full.sort_by_key(|candidate| candidate.offer().campaign);
    // Distinct ads: nothing can be there twice.
    Drawn { ranking: Ranking::sorted(&candidates).unwrap_or_default(), in_full }
}

fn offer(world: &World, arrival: &Arrival, auction: u64, ad: u32, bid: Micros) -> Option<Candidate> {
    let place = world.ads[ad as usize];
    let campaign = &world.campaigns[place.campaign as usize];
    let (click, conversion) = world.predicted(arrival.household, place.kind);
    let weights = QualityRule::default().weights(campaign.bid_type, click, conversion, 1.0)?;
    let offer = Offer {
        ad: AdId(place.id),
        item: ItemId(place.id),
        campaign: CampaignId(campaign.id),
        advertiser: AdvertiserId(campaign.advertiser),
        limit_category: place.category,
        bid_type: campaign.bid_type,
        bid,
        weight: weights.rank,
        event_weight: weights.event,
        click_weight: 0,
        continuation_ppm: 0,
        value: 0,
        reserve: Micros(0),
        tie: tie_key(TIE_KEY, auction, place.id),
        shard: ShardId(0),
        row: ad,
    };
    Candidate::new(offer).ok()
}
