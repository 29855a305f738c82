//! What happens, in which order?
//!
//! One loop in virtual time: before each visit the events that are due happen and the controllers that are due run; then
//! the visit has its auction, its page is allocated, and its impressions are shown, paid and perhaps followed by a click
//! and a conversion, later. Budgets that ran out are known everywhere after 200 ms, pacing runs every 10 s, as the
//! cluster does it.

use super::accounts::{Account, Accounts};
use super::arrivals::{Arrival, Arrivals, DAY_MS};
use super::world::World;
use super::{MarketArgs, MarketError, PacingChoice, candidates};
use crate::workload::Seeded;
use gavel_proto::cut::Neighbours;
use gavel_proto::hash::mix64;
use gavel_proto::money::{BidType, PPM};
use gavel_proto::pacing::{CurvePacing, Throttle, participates};
use gavel_router::allocation::{AllocationRule, Engagement, Entry, ShadowBid, SlotAd, allocate, priced_in_place};
use gavel_router::auction::{AuctionRule, AuctionTerms, TiePrice, UserModel, clear};
use gavel_router::merge::Candidate;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use super::accounts::Budgets;

const SLOTS: usize = 4;
const FACTORS_PPM: [u32; SLOTS] = [1_000_000, 750_000, 560_000, 420_000];
/// Organic items of a page.
const ORGANIC: usize = 12;
/// A budget that ran out is known everywhere after it.
const STALENESS_MS: u64 = 200;
/// Between two runs of pacing.
const PACING_MS: u64 = 10_000;
/// Between two steps of throttling, as published.
const THROTTLE_MS: u64 = 60_000;
/// Mean delays of a click and of a conversion after it.
const CLICK_MS: f64 = 20_000.0;
const CONVERSION_MS: f64 = 600_000.0;
/// Points of a spend curve.
pub const POINTS: usize = 200;

/// What was played.
pub struct Played {
    pub accounts: Accounts,
    /// Per campaign: charged nanos at each of [`POINTS`] equal times of the first day.
    pub curves: Vec<Vec<i64>>,
    /// Multipliers in ppm at the same times.
    pub multipliers: Vec<Vec<u32>>,
    pub totals: Totals,
    /// Charged events of each campaign, and what they cost in nanos.
    pub prices: Vec<Account>,
}

/// Sums over the run.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Totals {
    pub auctions: u64,
    pub candidates: u64,
    pub winners: u64,
    pub impressions: u64,
    pub clicks: u64,
    pub conversions: u64,
    pub predicted_clicks: f64,
    /// What the shown ads are worth to their advertisers, by behaviour and full bids.
    pub welfare_micros: f64,
}

/// What the controllers say.
pub struct Controls {
    pacing: PacingChoice,
    curve: Vec<CurvePacing>,
    throttle: Vec<Throttle>,
    ids: Vec<u64>,
    open: Vec<bool>,
}

impl Controls {
    /// What bids of this campaign are multiplied with in this auction; 0 leaves it out.
    pub fn multiplier_ppm(&self, campaign: u32, auction: u64) -> u32 {
        let place = campaign as usize;
        match self.pacing {
            PacingChoice::Multiplier => self.curve[place].multiplier_ppm(),
            PacingChoice::None => PPM,
            PacingChoice::Throttle => {
                let in_it = participates(auction, self.ids[place], self.throttle[place].probability_ppm());
                if in_it { PPM } else { 0 }
            }
        }
    }

    /// Whether its budget lasts, as far as routers know.
    pub fn is_open(&self, campaign: u32) -> bool {
        self.open[campaign as usize]
    }
}

/// An event that comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    at_ms: u64,
    day: u64,
    campaign: u32,
    /// Expected until now.
    expected: i64,
    /// Charged when it comes; `None` when it does not.
    charge: Option<i64>,
}

struct Play<'a> {
    args: &'a MarketArgs,
    world: &'a World,
    arrivals: &'a Arrivals,
    rule: AuctionRule,
    page: AllocationRule,
    controls: Controls,
    late: BinaryHeap<Reverse<Late>>,
    random: Seeded,
    played: Played,
}

/// Plays all visits.
pub fn play(args: &MarketArgs, world: &World, arrivals: &Arrivals, budgets: Budgets) -> Result<Played, MarketError> {
    let mut play = Play::new(args, world, arrivals, budgets)?;
    let (mut next_open, mut next_pacing, mut next_throttle, mut day) = (0, PACING_MS, THROTTLE_MS, 0);
    for (number, arrival) in (1u64..).zip(&arrivals.all) {
        while day < arrival.at_ms / DAY_MS {
            day += 1;
            play.happen(day * DAY_MS);
            play.played.accounts.next_day();
            play.next_day();
        }
        while next_pacing <= arrival.at_ms {
            play.happen(next_pacing);
            play.pace(next_pacing);
            if next_throttle <= next_pacing {
                play.throttle(next_throttle);
                next_throttle += THROTTLE_MS;
            }
            next_pacing += PACING_MS;
        }
        play.happen(arrival.at_ms);
        if next_open <= arrival.at_ms {
            play.look_at_budgets();
            next_open = arrival.at_ms + STALENESS_MS;
        }
        play.visit(arrival, number);
    }
    play.happen(u64::MAX);
    play.played.accounts.close();
    Ok(play.played)
}

impl<'a> Play<'a> {
    fn new(
        args: &'a MarketArgs,
        world: &'a World,
        arrivals: &'a Arrivals,
        budgets: Budgets,
    ) -> Result<Self, MarketError> {
        let count = world.campaigns.len();
        let rule = AuctionRule::new(AuctionTerms {
            mechanism: args.mechanism.into(),
            slots: SLOTS,
            per_advertiser: 1,
            per_category: Some(2),
            position_factors_ppm: FACTORS_PPM.to_vec(),
            tie_price: TiePrice::Keyed,
            neighbours: Neighbours::Any,
            users: UserModel::Separable,
        })?;
        let shadow_bid = ShadowBid::from_micros(args.shadow_bid);
        let page = AllocationRule {
            positions: ORGANIC + SLOTS,
            first_position: 1,
            min_gap: 2,
            max_ads: SLOTS,
            max_load_ppm: 250_000,
            shadow_bid: shadow_bid.ok_or_else(|| MarketError::Usage("--shadow-bid is no amount".to_owned()))?,
            gap_effect_ppm: Vec::new(),
            category_spacing: 0,
        };
        let pacing = match budgets {
            Budgets::Unlimited => PacingChoice::None,
            Budgets::Kept => args.pacing,
        };
        let controls = Controls {
            pacing,
            curve: vec![CurvePacing::new(1.0); count],
            throttle: vec![Throttle::default(); count],
            ids: world.campaigns.iter().map(|c| c.id).collect(),
            open: vec![true; count],
        };
        let played = Played {
            accounts: Accounts::open(&world.campaigns, budgets),
            curves: vec![Vec::with_capacity(POINTS); count],
            multipliers: vec![Vec::with_capacity(POINTS); count],
            totals: Totals::default(),
            prices: vec![Account::default(); count],
        };
        let (late, random) = (BinaryHeap::new(), Seeded::new(mix64(args.seed)));
        Ok(Self { args, world, arrivals, rule, page, controls, late, random, played })
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with this mean, in whole milliseconds.
    fn delay_ms(&mut self, mean_ms: f64) -> u64 {
        (-(1.0 - self.uniform()).ln() * mean_ms) as u64
    }

    /// Events until a time.
    fn happen(&mut self, until_ms: u64) {
        while let Some(Reverse(late)) = self.late.peek().copied().filter(|late| late.0.at_ms <= until_ms) {
            self.late.pop();
            self.played.accounts.expect(late.day, late.campaign, -late.expected);
            if let Some(nanos) = late.charge {
                self.charge(late.day, late.campaign, nanos);
            }
        }
    }

    fn charge(&mut self, day: u64, campaign: u32, nanos: i64) {
        self.played.accounts.charge(day, campaign, nanos);
        let prices = &mut self.played.prices[campaign as usize];
        prices.events += 1;
        prices.charged += nanos;
    }

    fn look_at_budgets(&mut self) {
        for (place, open) in self.controls.open.iter_mut().enumerate() {
            *open = self.played.accounts.has(place as u32, 1);
        }
    }

    /// Moves every multiplier and notes the curves.
    fn pace(&mut self, at_ms: u64) {
        let of_day = (at_ms % DAY_MS) as f64 / DAY_MS as f64;
        let share = self.arrivals.forecast.share(of_day);
        if self.controls.pacing == PacingChoice::Multiplier {
            for (pacing, account) in self.controls.curve.iter_mut().zip(&self.played.accounts.today) {
                pacing.observe(account.budget as f64, account.committed() as f64, share);
            }
        }
        let noted = self.played.curves.first().map_or(POINTS, Vec::len);
        if at_ms < DAY_MS && of_day * POINTS as f64 >= (noted + 1) as f64 {
            for (place, account) in self.played.accounts.today.iter().enumerate() {
                self.played.curves[place].push(account.charged);
                self.played.multipliers[place].push(self.controls.curve[place].multiplier_ppm());
            }
        }
    }

    fn throttle(&mut self, at_ms: u64) {
        let share = self.arrivals.forecast.share((at_ms % DAY_MS) as f64 / DAY_MS as f64);
        for (throttle, account) in self.controls.throttle.iter_mut().zip(&self.played.accounts.today) {
            throttle.observe(account.committed() as f64, account.budget as f64 * share);
        }
    }

    /// A new day begins where the controllers ended.
    fn next_day(&mut self) {
        for pacing in &mut self.controls.curve {
            *pacing = CurvePacing::new(pacing.multiplier());
        }
    }

    /// A visit's auction, page and impressions.
    fn visit(&mut self, arrival: &Arrival, number: u64) {
        let auction = mix64(self.args.seed ^ mix64(number));
        let ranking = candidates::draw(self.args, self.world, arrival, auction, &self.controls, &mut self.random);
        let clearing = clear(&ranking, &self.rule);
        let feed: Vec<Engagement> = (0..ORGANIC)
            .filter_map(|item| Engagement::from_units((1.0 - item as f64 / ORGANIC as f64) * 2.0 * self.uniform()))
            .collect();
        let ads: Vec<SlotAd> = clearing
            .winners
            .iter()
            .map(|winner| SlotAd {
                slot: winner.slot,
                score: ranking[winner.candidate].score(),
                engagement: Engagement::default(),
                category: ranking[winner.candidate].offer().limit_category,
            })
            .collect();
        let page = allocate(&ads, &feed, &self.page);
        let totals = &mut self.played.totals;
        totals.auctions += 1;
        totals.candidates += ranking.len() as u64;
        totals.winners += clearing.winners.len() as u64;
        for placed in &page {
            if let Entry::Ad(index) = placed.entry
                && let Some(winner) = clearing.winners.get(index)
            {
                let candidate = &ranking[winner.candidate];
                self.show(arrival, candidate, winner.slot, priced_in_place(candidate, winner, placed).billed.0);
            }
        }
    }

    /// One impression and what follows from it; `billed` is the price of one billed event.
    fn show(&mut self, arrival: &Arrival, candidate: &Candidate, slot: usize, billed: u64) {
        let ad = self.world.ads[candidate.offer().row as usize];
        let (campaign, day) = (ad.campaign, arrival.at_ms / DAY_MS);
        let bid_type = candidate.offer().bid_type;
        // A price per mille in micros is one of an impression in nanos.
        let nanos = i64::try_from(if bid_type == BidType::Cpm { billed } else { billed * 1_000 }).unwrap_or(i64::MAX);
        if bid_type == BidType::Cpm && !self.played.accounts.has(campaign, nanos) {
            // The hold is refused: the slot stays empty.
            return;
        }
        let seen = f64::from(FACTORS_PPM[slot]) / f64::from(PPM);
        let (click, conversion) = self.world.behaviour(arrival.household, ad.kind);
        let (predicted_click, predicted_conversion) = self.world.predicted(arrival.household, ad.kind);
        let clicked = self.uniform() < click * seen;
        let converted = clicked && self.uniform() < conversion;
        let totals = &mut self.played.totals;
        totals.impressions += 1;
        totals.clicks += u64::from(clicked);
        totals.conversions += u64::from(converted);
        totals.predicted_clicks += predicted_click * seen;
        let full_bid = self.world.campaigns[campaign as usize].bid_micros as f64;
        let (events, charged, expected, delay_ms) = match bid_type {
            BidType::Cpm => (seen / 1_000.0, self.uniform() < seen, seen, 0.0),
            BidType::Cpc => (click * seen, clicked, predicted_click * seen, CLICK_MS),
            BidType::Cpa | BidType::Ocpm | BidType::Ocpc => {
                let expected = predicted_click * predicted_conversion * seen;
                (click * conversion * seen, converted, expected, CONVERSION_MS)
            }
        };
        self.played.totals.welfare_micros += full_bid * events;
        if delay_ms == 0.0 {
            if charged {
                self.charge(day, campaign, nanos);
            }
            return;
        }
        let expected = (nanos as f64 * expected) as i64;
        self.played.accounts.expect(day, campaign, expected);
        // What does not come is expected for three times the mean delay, when nineteen of twenty have come.
        let wait_ms = if charged { self.delay_ms(delay_ms) } else { (3.0 * delay_ms) as u64 };
        let charge = charged.then_some(nanos);
        self.late.push(Reverse(Late { at_ms: arrival.at_ms + wait_ms, day, campaign, expected, charge }));
    }
}
