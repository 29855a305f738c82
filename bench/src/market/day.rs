//! What happens, in which order?
//!
//! One loop in virtual time: before each visit the events that are due happen and the controllers that are due run; then
//! the visit has its auction, its page is allocated, and its impressions are shown, paid and perhaps followed by a click
//! and a conversion, later. Every 10 s pacing looks at what was charged and what is in flight, and moves multipliers and
//! says which budgets are gone. What is billed at the impression is looked at every 200 ms, because routers hold its money.
//! Both are what the cluster promises, not what it does at best.

use super::accounts::{Account, Accounts};
use super::arrivals::{Arrival, Arrivals, DAY_MS};
use super::flights::Flights;
use super::world::World;
use super::{Days, MarketArgs, MarketError, PacingChoice, candidates};
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
/// Between two looks at the budgets of what is billed at the impression.
const HELD_MS: u64 = 200;
/// Between two runs of pacing.
const PACING_MS: u64 = 10_000;
/// The same on the panel's days, which have a visit in 200 s.
const PACING_PANEL_MS: u64 = 600_000;
/// Runs of pacing between two in which flights are made coarser.
const COMPACT_RUNS: u64 = 6;
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
    /// Per campaign: charged nanos at each of [`POINTS`] equal times of the run.
    pub curves: Vec<Vec<i64>>,
    /// Multipliers in ppm at the same times.
    pub multipliers: Vec<Vec<u32>>,
    pub totals: Totals,
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
    /// Sums of the multipliers of this period, and how many runs they are of.
    sums: Vec<f64>,
    runs: u32,
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
            PacingChoice::Throttle => self.takes_part(place, auction, self.curve[place].multiplier_ppm()),
            PacingChoice::Linkedin => self.takes_part(place, auction, self.throttle[place].probability_ppm()),
        }
    }

    /// The whole bid, in a share of the auctions.
    fn takes_part(&self, place: usize, auction: u64, share_ppm: u32) -> u32 {
        if participates(auction, self.ids[place], share_ppm) { PPM } else { 0 }
    }

    /// Ends an interval of every campaign that can spend; what cannot learns nothing, and its multiplier waits.
    fn observe(&mut self, accounts: &[Account], share: f64) {
        if !matches!(self.pacing, PacingChoice::Multiplier | PacingChoice::Throttle) {
            return;
        }
        let open = self.open.iter();
        for (((pacing, account), open), sum) in self.curve.iter_mut().zip(accounts).zip(open).zip(&mut self.sums) {
            if *open {
                pacing.observe(account.budget as f64, account.committed() as f64, share);
            }
            *sum += pacing.multiplier();
        }
        self.runs += 1;
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
    period: u64,
    campaign: u32,
    nanos: i64,
    delay_ms: u64,
}

struct Play<'a> {
    args: &'a MarketArgs,
    world: &'a World,
    arrivals: &'a Arrivals,
    budgets: Budgets,
    rule: AuctionRule,
    page: AllocationRule,
    controls: Controls,
    flights: Flights,
    late: BinaryHeap<Reverse<Late>>,
    random: Seeded,
    played: Played,
}

/// Plays all visits.
pub fn play(args: &MarketArgs, world: &World, arrivals: &Arrivals, budgets: Budgets) -> Result<Played, MarketError> {
    let mut play = Play::new(args, world, arrivals, budgets)?;
    let every_ms = match args.days {
        Days::Market => PACING_MS,
        Days::Panel => PACING_PANEL_MS,
    };
    let (mut next_look, mut next_pacing, mut next_throttle, mut period) = (0, every_ms, THROTTLE_MS, 0);
    for (number, arrival) in (1u64..).zip(&arrivals.all) {
        while next_pacing <= arrival.at_ms {
            if period < arrivals.period(next_pacing) {
                period += 1;
                play.happen(next_pacing);
                play.next_period();
            }
            play.happen(next_pacing);
            play.pace(next_pacing, next_pacing / every_ms);
            while next_throttle <= next_pacing {
                play.throttle(next_throttle);
                next_throttle += THROTTLE_MS;
            }
            next_pacing += every_ms;
        }
        play.happen(arrival.at_ms);
        if next_look <= arrival.at_ms {
            play.look_at_held();
            next_look = arrival.at_ms + HELD_MS;
        }
        play.visit(arrival, number);
    }
    play.happen(u64::MAX);
    play.note_until(arrivals.length_ms());
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
            sums: vec![0.0; count],
            runs: 0,
            ids: world.campaigns.iter().map(|c| c.id).collect(),
            open: vec![true; count],
        };
        let played = Played {
            accounts: Accounts::open(&world.campaigns, budgets),
            curves: vec![Vec::with_capacity(POINTS); count],
            multipliers: vec![Vec::with_capacity(POINTS); count],
            totals: Totals::default(),
        };
        let (late, random, flights) = (BinaryHeap::new(), Seeded::new(mix64(args.seed)), Flights::new(count));
        Ok(Self { args, world, arrivals, budgets, rule, page, controls, flights, late, random, played })
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
            if self.played.accounts.charge(late.period, late.campaign, late.nanos) {
                self.flights.charged(self.world.campaigns[late.campaign as usize].bid_type, late.delay_ms);
            }
        }
    }

    /// Whether the budgets that routers hold money of pay for one more impression.
    fn look_at_held(&mut self) {
        for (campaign, open) in (0u32..).zip(&mut self.controls.open) {
            if is_held(self.world.campaigns[campaign as usize].bid_type) {
                *open = self.played.accounts.has(campaign, self.flights.price(campaign));
            }
        }
    }

    /// Looks at every budget, moves every multiplier and notes the curves.
    fn pace(&mut self, at_ms: u64, run: u64) {
        if self.budgets == Budgets::Kept {
            self.look_at_flights(at_ms, run);
            let share = self.arrivals.share(at_ms);
            self.controls.observe(&self.played.accounts.current, share);
        }
        self.note_until(at_ms);
    }

    /// What is in flight of what is billed later, and whether what is left beside it pays for one more event.
    fn look_at_flights(&mut self, at_ms: u64, run: u64) {
        let since_ms = self.arrivals.period(at_ms) * self.arrivals.period_days * DAY_MS;
        let ages = self.flights.ages();
        for (campaign, seller) in (0u32..).zip(&self.world.campaigns) {
            if is_held(seller.bid_type) {
                continue;
            }
            if run.is_multiple_of(COMPACT_RUNS) {
                self.flights.compact(campaign, seller.bid_type, at_ms);
            }
            let in_flight = self.flights.in_flight(campaign, seller.bid_type, (since_ms, at_ms), &ages);
            self.played.accounts.current[campaign as usize].in_flight = in_flight;
            let open = self.played.accounts.has(campaign, self.flights.price(campaign));
            self.controls.open[campaign as usize] = open;
        }
    }

    /// Notes the points of the curves until an instant.
    fn note_until(&mut self, at_ms: u64) {
        let noted = self.played.curves.first().map_or(POINTS, Vec::len);
        let due = (at_ms as f64 / self.arrivals.length_ms() as f64 * POINTS as f64) as usize;
        let Played { accounts, curves, multipliers, .. } = &mut self.played;
        for _ in noted..due.min(POINTS) {
            for (place, (curve, multipliers)) in curves.iter_mut().zip(&mut *multipliers).enumerate() {
                curve.push(accounts.charged(place));
                multipliers.push(self.controls.curve[place].multiplier_ppm());
            }
        }
    }

    fn throttle(&mut self, at_ms: u64) {
        if self.controls.pacing != PacingChoice::Linkedin {
            return;
        }
        let share = self.arrivals.share(at_ms);
        for (throttle, account) in self.controls.throttle.iter_mut().zip(&self.played.accounts.current) {
            throttle.observe(account.committed() as f64, account.budget as f64 * share);
        }
    }

    /// A new period begins with fresh budgets, and with the mean multipliers of the one before.
    fn next_period(&mut self) {
        self.played.accounts.next_period();
        let Controls { curve, sums, runs, open, .. } = &mut self.controls;
        if *runs > 0 {
            for (pacing, sum) in curve.iter_mut().zip(sums) {
                *pacing = CurvePacing::new(*sum / f64::from(*runs));
                *sum = 0.0;
            }
            *runs = 0;
        }
        open.fill(true);
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
        let offer = candidate.offer();
        let ad = self.world.ads[offer.row as usize];
        let (campaign, bid_type) = (ad.campaign, offer.bid_type);
        let nanos = price_nanos(bid_type, billed);
        if is_held(bid_type) && !self.played.accounts.has(campaign, nanos) {
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
        let (events, charged, expected, delay_ms) = match bid_type {
            BidType::Cpm => (seen / 1_000.0, self.uniform() < seen, 0.0, 0.0),
            BidType::Cpc => (click * seen, clicked, predicted_click * seen, CLICK_MS),
            BidType::Cpa | BidType::Ocpm | BidType::Ocpc => {
                let expected = predicted_click * predicted_conversion * seen;
                (click * conversion * seen, converted, expected, CONVERSION_MS)
            }
        };
        let full_bid = self.world.campaigns[campaign as usize].bid_micros as f64;
        self.played.totals.welfare_micros += full_bid * events;
        if self.budgets == Budgets::Kept {
            // An impression is held at its bid.
            let price = if is_held(bid_type) { price_nanos(bid_type, offer.bid.0) } else { nanos };
            self.flights.serve(campaign, arrival.at_ms, price, (nanos as f64 * expected) as i64);
        }
        if charged {
            let delay_ms = if delay_ms > 0.0 { self.delay_ms(delay_ms) } else { 0 };
            let (at_ms, period) = (arrival.at_ms + delay_ms, self.arrivals.period(arrival.at_ms));
            if is_held(bid_type) {
                self.played.accounts.charge(period, campaign, nanos);
            } else {
                self.late.push(Reverse(Late { at_ms, period, campaign, nanos, delay_ms }));
            }
        }
    }
}

/// Whether routers hold the price before they serve.
const fn is_held(bid_type: BidType) -> bool {
    matches!(bid_type, BidType::Cpm)
}

/// The price of one billed event; one per mille in micros is one of an impression in nanos.
fn price_nanos(bid_type: BidType, billed: u64) -> i64 {
    i64::try_from(if is_held(bid_type) { billed } else { billed.saturating_mul(1_000) }).unwrap_or(i64::MAX)
}
