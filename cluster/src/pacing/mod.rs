//! Who is out of budget, and with what are bids multiplied?
//!
//! Every five seconds the leader looks at each campaign that has a budget: at its accounts in the ledger ([`books`]), at
//! what routers say is in flight ([`heard`]), at the share of the period's traffic that has come ([`traffic`]). From these
//! follow:
//!
//! * whether its budget is gone: what is left of any account, what is in flight taken off, does not pay for one more event;
//! * the multiplier of its bids, or the share of auctions that it takes part in, which keeps each day's and week's spending
//!   on the curve of the traffic ([`plan`]); the smaller one of both periods. "Most conversions within the budget" is the
//!   same below the campaign's bid: with the budget alone the best bid is the value over one dual variable;
//! * what a campaign with a target cost bids ([`cost`]).
//!
//! Only what differs noticeably from what stands is a decision. What the pacer holds is its leader's own: another leader
//! goes on from the standing multipliers, and from where the accounts are then ([`plan::Plan::begin`]). It never writes to the
//! ledger: what is in flight is a throttle, and holds nothing (decision 17).
//!
//! It does not pace a budget over a campaign's life, which has no end, and nothing of a campaign without a budget.

pub mod books;
pub mod cost;
pub mod heard;
pub mod plan;
pub mod traffic;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use books::{Books, Paying};
use cost::TargetCost;
use gavel_proto::ids::CampaignId;
use gavel_proto::money::PPM;
use heard::Sold;
use plan::{Plan, Standing};

/// What differs by less is no decision: bids that move by a fiftieth change few auctions. A version of every change would
/// be one of every campaign, every round.
const NOTICEABLE: f64 = 0.02;

/// What is left of a budget that was gone a moment ago is a rest up to a tenth, and a larger budget beyond it.
const REST: f64 = 0.1;

/// Is there money for one more event?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Budget {
    /// There is.
    #[default]
    Left,
    /// There is none.
    Gone,
}

/// What is published of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What bids are multiplied with, in millionths.
    pub multiplier_ppm: u32,
    /// The share of the auctions that it takes part in, in millionths.
    pub throttle_ppm: u32,
    /// What a target cost bids in place of the campaign's bid; 0 for nothing.
    pub auto_bid_micros: u64,
    /// Whether it takes part at all.
    pub budget: Budget,
}

impl Default for Decision {
    fn default() -> Self {
        Self { multiplier_ppm: PPM, throttle_ppm: PPM, auto_bid_micros: 0, budget: Budget::Left }
    }
}

impl Decision {
    /// The same, with what does not differ noticeably as it stands.
    #[must_use]
    pub fn settled(self, standing: &Self) -> Self {
        let near = |now: u64, before: u64| {
            now == before || (now > 0 && before > 0 && (now as f64 / before as f64).ln().abs() < NOTICEABLE)
        };
        // A whole multiplier is a decision of its own: nothing is held back any more.
        let ppm = |now: u32, before: u32| if now != PPM && near(now.into(), before.into()) { before } else { now };
        Self {
            multiplier_ppm: ppm(self.multiplier_ppm, standing.multiplier_ppm),
            throttle_ppm: ppm(self.throttle_ppm, standing.throttle_ppm),
            auto_bid_micros: if near(self.auto_bid_micros, standing.auto_bid_micros) {
                standing.auto_bid_micros
            } else {
                self.auto_bid_micros
            },
            budget: self.budget,
        }
    }
}

/// By what spending is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Means {
    /// Lower bids.
    #[default]
    Bid,
    /// Fewer auctions.
    Participation,
}

/// What the campaign wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Goal {
    /// Its bid, or the most conversions below it.
    #[default]
    Bid,
    /// Events at this cost on average, micros.
    Cost(u64),
}

/// What there is to know of one campaign in a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Look<'a> {
    /// Its accounts.
    pub books: &'a Books,
    /// Of each account what is in flight, and of each day and week the share of its traffic that has come.
    pub now: Vec<(i64, f64)>,
    /// What routers sold of it; `None` when none has said anything since this leader leads.
    pub sold: Option<Sold>,
    /// What stands; `None` what was never published.
    pub standing: Option<Decision>,
    /// How it is held back.
    pub means: Means,
    /// What it wants.
    pub goal: Goal,
}

/// What is held of one campaign.
#[derive(Clone, Debug, Default)]
struct Campaign {
    /// Of its day and its week.
    plans: Vec<Plan>,
    cost: Option<TargetCost>,
    /// The multiplier of one whose budget was gone before it had a plan.
    waits: f64,
    round: u64,
}

/// The pacer of one leader.
#[derive(Clone, Debug, Default)]
pub struct Pacer {
    campaigns: BTreeMap<CampaignId, Campaign>,
    round: u64,
}

impl Pacer {
    /// Ends a round for one campaign: what is to be published, if it differs noticeably.
    pub fn decide(&mut self, look: &Look<'_>) -> Option<Decision> {
        let standing = look.standing.unwrap_or_default();
        let budget = budget(look);
        let campaign = self.campaigns.entry(look.books.campaign).or_default();
        campaign.round = self.round;
        let stands = f64::from(standing.multiplier_ppm.min(standing.throttle_ppm)) / f64::from(PPM);
        // What cannot spend learns nothing: its multiplier waits.
        if budget == Budget::Left {
            // Back with more than a rest: the budget has grown, by how much is not known here.
            let has_grown = standing.budget == Budget::Gone && rest(look) > REST;
            campaign.pace(look, if has_grown { 1.0 } else { stands });
        } else if campaign.plans.is_empty() {
            campaign.waits = stands;
        }
        let paced = campaign.plans.iter().map(Plan::multiplier).fold(1.0, f64::min);
        let multiplier = if campaign.plans.is_empty() && budget == Budget::Gone { campaign.waits } else { paced };
        // At least a millionth, so that the market goes on being seen; at most 1, as the plans are.
        let ppm = ((multiplier * f64::from(PPM)) as u32).clamp(1, PPM);
        let (multiplier_ppm, throttle_ppm) = match look.means {
            Means::Bid => (ppm, PPM),
            Means::Participation => (PPM, ppm),
        };
        let auto_bid_micros = campaign.auto_bid(look, standing.auto_bid_micros);
        let decision = Decision { multiplier_ppm, throttle_ppm, auto_bid_micros, budget }.settled(&standing);
        (decision != standing).then_some(decision)
    }

    /// Every campaign was looked at: those that were not have no budget any more.
    pub fn end_round(&mut self) {
        let round = self.round;
        self.campaigns.retain(|_, campaign| campaign.round == round);
        self.round += 1;
    }

    /// Campaigns that are followed.
    #[must_use]
    pub fn followed(&self) -> usize {
        self.campaigns.len()
    }
}

impl Campaign {
    /// Ends a round for its day and week.
    fn pace(&mut self, look: &Look<'_>, start: f64) {
        let mut kept = Vec::with_capacity(2);
        for (paying, (in_flight, share)) in look.books.paying.iter().zip(&look.now) {
            if paying.span_ms.is_none() {
                continue;
            }
            let at = Standing {
                period: paying.period,
                budget: paying.account.deposited,
                spent: spent(paying, *in_flight),
                share: *share,
            };
            let held = self.plans.iter().position(|plan| plan.span() == paying.period.span);
            let mut plan = held.map_or_else(|| Plan::begin(&at, start), |held| self.plans.swap_remove(held));
            plan.observe(&at);
            kept.push(plan);
        }
        self.plans = kept;
    }

    /// What its goal bids.
    fn auto_bid(&mut self, look: &Look<'_>, standing_micros: u64) -> u64 {
        let Goal::Cost(target) = look.goal else {
            self.cost = None;
            return 0;
        };
        let cost = match &mut self.cost {
            Some(cost) if cost.target_micros() == target => cost,
            held => {
                // Another target begins like a new campaign; another leader goes on.
                let stands = Some(standing_micros).filter(|bid| *bid > 0 && held.is_none());
                held.insert(TargetCost::new(target, stands))
            }
        };
        if let Some(sold) = &look.sold {
            cost.observe(sold.spend_nanos, sold.events_nano);
        }
        cost.bid_micros()
    }
}

/// Charged, refunded, leased, and in flight.
fn spent(paying: &Paying, in_flight: i64) -> f64 {
    let account = &paying.account;
    (account.posted.0 + account.refunded.0 + account.pending.0) as f64 + in_flight as f64
}

/// Gone when in any account what is neither charged, nor in flight, nor behind impressions that were served does not pay
/// for one more event. Of one that was gone, and of which nobody has said since what an event costs, more than a rest must
/// be left: it would win auctions that nothing can be held for.
#[must_use]
pub fn budget(look: &Look<'_>) -> Budget {
    let was_gone = look.standing.is_some_and(|standing| standing.budget == Budget::Gone);
    if look.sold.is_none() && was_gone && rest(look) <= REST {
        return Budget::Gone;
    }
    let price = look.sold.map_or(1, |sold| sold.price_nanos).max(1);
    let lacks = |(paying, (in_flight, _)): (&Paying, &(i64, f64))| {
        let left = paying.account.available.0.saturating_add(look.books.leased.0.max(0));
        left.saturating_sub(*in_flight) < price
    };
    if look.books.paying.iter().zip(&look.now).any(lacks) { Budget::Gone } else { Budget::Left }
}

/// The least share of a day's or week's budget that is left.
fn rest(look: &Look<'_>) -> f64 {
    let share = |(paying, (in_flight, _)): (&Paying, &(i64, f64))| {
        let budget = (paying.account.deposited.0 as f64).max(1.0);
        1.0 - spent(paying, *in_flight) / budget
    };
    look.books.paying.iter().zip(&look.now).map(share).fold(1.0, f64::min)
}

/// The instant, in seconds, from which on what is served counts in an account.
#[must_use]
pub fn since_s(paying: &Paying) -> u32 {
    paying.span_ms.map_or(0, |(start, _)| u32::try_from(start / 1_000).unwrap_or(u32::MAX))
}
