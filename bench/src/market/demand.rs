//! What would a campaign have spent, had it bid in full and had money to the end?
//!
//! Of some campaigns, in each auction of a run: everybody else bids as in the run, this one bids in full, whether it is held
//! back, out of budget, or without a lease. What its ads would have cost on that page is its *demand at the prices in
//! force*, as expected from how users behave. A campaign whose demand is less than its budget cannot spend it, whatever its
//! pacing does: the others are paced, so there is less to buy than at the prices by which budgets were scaled.

use super::accounts::Account;
use super::arrivals::Arrival;
use super::candidates::Drawn;
use super::terms::{SLOTS, charged_chance, price_nanos, slot_ads};
use super::world::World;
use gavel_proto::ids::CampaignId;
use gavel_router::allocation::{AllocationRule, Engagement, Entry, allocate, priced_in_place};
use gavel_router::auction::{AuctionRule, Clearing, clear};
use gavel_router::merge::{Candidate, Ranking};

/// The demand of the campaigns that are watched.
#[derive(Clone, Debug)]
pub struct Demand {
    is_watched: Vec<bool>,
    /// By the campaign's place, in nanos.
    pub nanos: Vec<f64>,
}

/// A visit whose page is made.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    pub world: &'a World,
    pub arrival: &'a Arrival,
    pub feed: &'a [Engagement],
    pub rule: &'a AuctionRule,
    pub page: &'a AllocationRule,
}

impl Demand {
    /// Nobody is watched.
    pub fn of_nobody(campaigns: usize) -> Self {
        Self { is_watched: vec![false; campaigns], nanos: vec![0.0; campaigns] }
    }

    /// Watches the campaigns that spend their whole budgets where nobody has one, in so many events at least.
    pub fn of_the_able(world: &World, unlimited: &[Account], events_min: f64) -> Self {
        let is_able = |(campaign, account): (&super::world::MarketCampaign, &Account)| {
            account.charged >= campaign.budget_nanos && account.events as f64 >= events_min
        };
        let is_watched: Vec<bool> = world.campaigns.iter().zip(unlimited).map(is_able).collect();
        Self { nanos: vec![0.0; is_watched.len()], is_watched }
    }

    /// Whether a campaign is watched, by its place.
    pub fn watches(&self, campaign: u32) -> bool {
        self.is_watched[campaign as usize]
    }

    /// Adds what the watched campaigns would have spent on this page.
    pub fn add(&mut self, visit: Visit<'_>, drawn: &Drawn) {
        let ranking = &drawn.ranking;
        let clearing = clear(ranking, visit.rule);
        // Who bids in full as it is: one page for all of them.
        let is_paced = |of| drawn.in_full.iter().any(|candidate| campaign(candidate) == of);
        self.add_page(visit, ranking, &clearing, |of| !is_paced(of));
        let lowest = clearing.winners.get(SLOTS - 1).map(|winner| ranking[winner.candidate].score());
        let mut rest = drawn.in_full.as_slice();
        while let Some(of) = rest.first().map(campaign) {
            let (own, others) = rest.split_at(rest.iter().take_while(|candidate| campaign(candidate) == of).count());
            rest = others;
            let is_there = clearing.winners.iter().any(|winner| campaign(&ranking[winner.candidate]) == of);
            // Behind the last winner of a full page it would change nothing.
            if is_there || lowest.is_none_or(|lowest| own.iter().any(|candidate| candidate.score() >= lowest)) {
                let others = ranking.iter().filter(|candidate| campaign(candidate) != of);
                let all: Vec<Candidate> = others.chain(own).copied().collect();
                // Distinct ads: nothing can be there twice.
                let ranking = Ranking::sorted(&all).unwrap_or_default();
                let clearing = clear(&ranking, visit.rule);
                self.add_page(visit, &ranking, &clearing, |other| other == of);
            }
        }
    }

    /// Adds what some campaigns would pay on the page of an auction.
    fn add_page(
        &mut self,
        visit: Visit<'_>,
        ranking: &Ranking,
        clearing: &Clearing,
        is_counted: impl Fn(CampaignId) -> bool,
    ) {
        let Visit { world, arrival, feed, page, .. } = visit;
        for placed in allocate(&slot_ads(ranking, clearing), feed, page) {
            let Entry::Ad(index) = placed.entry else { continue };
            let Some(winner) = clearing.winners.get(index) else { continue };
            let candidate = &ranking[winner.candidate];
            let ad = &world.ads[candidate.offer().row as usize];
            if self.watches(ad.campaign) && is_counted(candidate.offer().campaign) {
                let bid_type = candidate.offer().bid_type;
                let nanos = price_nanos(bid_type, priced_in_place(candidate, winner, &placed).billed.0);
                let behaviour = world.behaviour(arrival.household, ad.kind);
                self.nanos[ad.campaign as usize] += nanos as f64 * charged_chance(bid_type, behaviour, winner.slot);
            }
        }
    }
}

const fn campaign(candidate: &Candidate) -> CampaignId {
    candidate.offer().campaign
}
