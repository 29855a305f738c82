//! How well were budgets spent?

use super::arrivals::Arrivals;
use super::day::{POINTS, Played, Totals};
use super::world::{MarketCampaign, World};
use super::{Days, Largest, MarketArgs, MechanismChoice, PacingChoice};
use gavel_proto::money::BidType;
use serde::Serialize;
use std::fmt::Write as _;

/// Charge events that a campaign must be expected to have, so that chance moves its curve little.
const EVENTS_MIN: f64 = 400.0;
/// Share of the run's traffic that is warm-up.
const WARM_UP: f64 = 0.1;
/// How far a curve may be from its target, as a share of the budget.
const BAND: f64 = 0.1;
/// Routers that leases are computed for, as the reference cluster has them.
const ROUTERS: i64 = 2;
/// Curves that are written out.
const CURVES_MAX: usize = 24;

/// The figures of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub days: &'static str,
    pub arrivals: u64,
    pub mechanism: &'static str,
    pub pacing: &'static str,
    pub seed: u64,
    /// Of one auction, before those that are out of budget have left.
    pub candidates: usize,
    /// Days of a budget, and how many such budgets each campaign had.
    pub period_days: u64,
    pub periods: u64,
    pub campaigns: usize,
    pub ads: usize,
    /// What all budgets were multiplied with, by which campaigns.
    pub budget_factor: f64,
    pub largest: &'static str,
    pub unlimited: Run,
    pub paced: Run,
    /// CPM, CPC and CPA apart.
    pub judged: Vec<Judged>,
    /// The largest judged campaigns.
    pub curves: Vec<Curve>,
    /// Every campaign that spent anything.
    pub accounts: Vec<Line>,
    /// Traffic until each point of a curve.
    pub target: Vec<f64>,
    /// Wall time of the run.
    pub seconds: f64,
}

/// Sums of one of the two runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Run {
    #[serde(flatten)]
    pub totals: Totals,
    pub revenue_micros: i64,
    /// Delivered beyond budgets, for nothing.
    pub free_micros: i64,
    /// Observed clicks by predicted ones.
    pub calibration: f64,
}

/// The pacing of the campaigns of one bid type.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    pub bid_type: &'static str,
    /// Campaigns with 400 expected charge events and as much demand as budget: what the budget buys at unpaced prices.
    pub qualifying: usize,
    /// Of them, within a tenth of the target at every point after warm-up.
    pub within_band: usize,
    pub within_band_share: f64,
    /// Largest distance from the target after warm-up: median and 90th percentile over the campaigns.
    pub error_median: f64,
    pub error_p90: f64,
    /// Spend by budget over the qualifying campaigns: mean, and the smallest.
    pub utilisation_mean: f64,
    pub utilisation_min: f64,
    /// Of them, with at least 97 %.
    pub utilised_share: f64,
    /// Delivered beyond the budget, of all campaigns of the type with a budget that bound, as a share of their budgets.
    pub over_delivery: f64,
    /// The same of the worst qualifying campaign.
    pub over_delivery_max: f64,
    /// Charged beyond a budget; must be 0.
    pub overspend_micros: i64,
    /// Of campaigns that pay for impressions: what two leases of each of two routers hold at the day's busiest hour, as a
    /// share of the budgets. What is delivered beyond budgets may not exceed it.
    pub lease_bound: Option<f64>,
    /// Campaigns with 400 expected charge events and less demand than budget, and how many of their curves stay within a
    /// tenth of the traffic's, by their own spend: nothing holds them back, so there is no budget to keep.
    pub demand_limited: usize,
    pub demand_limited_on_traffic: usize,
    /// Not what is judged, but beside it: campaigns with as much demand as budget that were charged 400 events or more,
    /// at paced prices, and how many of them were within the band.
    pub charged_often: usize,
    pub charged_often_within_band: usize,
}

/// What one campaign would have spent without budgets, and what it did with them.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub campaign: u64,
    pub bid_type: &'static str,
    /// All its budgets.
    pub budget_nanos: i64,
    pub unlimited_nanos: i64,
    pub unlimited_events: u64,
    pub charged_nanos: i64,
    pub events: u64,
    pub free_nanos: i64,
    /// Charge events that are expected of it.
    pub expected: f64,
    pub qualifies: bool,
    /// Largest distance from the target after warm-up.
    pub error: f64,
}

/// One campaign's run.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    pub campaign: u64,
    pub bid_type: &'static str,
    pub budget_micros: i64,
    /// Spend by budget at each point.
    pub spent: Vec<f64>,
    pub multiplier_ppm: Vec<u32>,
}

impl Report {
    /// Judges a run.
    pub fn of(
        args: &MarketArgs,
        world: &World,
        arrivals: &Arrivals,
        budget_factor: f64,
        free: &Played,
        paced: &Played,
    ) -> Self {
        let length_ms = arrivals.length_ms();
        let target: Vec<f64> =
            (1..=POINTS as u64).map(|point| arrivals.target(length_ms * point / POINTS as u64)).collect();
        let view = |at| View::of(world, arrivals, (free, paced), &target, at);
        let views: Vec<View> = (0..world.campaigns.len()).map(view).collect();
        let judged = [BidType::Cpm, BidType::Cpc, BidType::Cpa].map(|bid_type| Judged::of(bid_type, &views));
        let mut largest: Vec<&View> = views.iter().filter(|v| v.qualifies).collect();
        largest.sort_by_key(|view| std::cmp::Reverse(view.budget));
        let curve = |view: &&View| Curve {
            campaign: world.campaigns[view.at].id,
            bid_type: name(view.bid_type),
            budget_micros: view.budget / 1_000,
            spent: paced.curves[view.at].iter().map(|spent| *spent as f64 / view.budget as f64).collect(),
            multiplier_ppm: paced.multipliers[view.at].clone(),
        };
        Self {
            days: match args.days {
                Days::Market => "market",
                Days::Panel => "panel",
            },
            arrivals: arrivals.all.len() as u64,
            mechanism: match args.mechanism {
                MechanismChoice::Gsp => "gsp",
                MechanismChoice::Vcg => "vcg",
                MechanismChoice::FirstPrice => "first_price",
            },
            pacing: match args.pacing {
                PacingChoice::Multiplier => "multiplier",
                PacingChoice::Throttle => "throttle",
                PacingChoice::Linkedin => "linkedin",
                PacingChoice::None => "none",
            },
            seed: args.seed,
            candidates: args.candidates,
            period_days: arrivals.period_days,
            periods: arrivals.periods,
            campaigns: world.campaigns.len(),
            ads: world.ads.len(),
            budget_factor,
            largest: match args.largest {
                Largest::Budget => "budget",
                Largest::Spend => "spend",
            },
            unlimited: Run::of(free),
            paced: Run::of(paced),
            judged: judged.into(),
            curves: largest.iter().take(CURVES_MAX).map(curve).collect(),
            accounts: views.iter().filter(|view| view.unlimited > 0).map(|view| view.line(world)).collect(),
            target,
            seconds: 0.0,
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        for (what, run) in [("unlimited", &self.unlimited), (self.pacing, &self.paced)] {
            let _ = writeln!(
                out,
                "{what:<10} {} auctions, {} impressions, {} clicks, {} conversions; welfare {:.2}, revenue {:.2}, free {:.2}; calibration {:.3}",
                run.totals.auctions,
                run.totals.impressions,
                run.totals.clicks,
                run.totals.conversions,
                run.totals.welfare_micros / 1e6,
                run.revenue_micros as f64 / 1e6,
                run.free_micros as f64 / 1e6,
                run.calibration
            );
        }
        let _ = writeln!(
            out,
            "budgets x {:.4} by the largest {}s; {} campaigns, {} ads",
            self.budget_factor, self.largest, self.campaigns, self.ads
        );
        for judged in &self.judged {
            let _ = writeln!(
                out,
                "{:<4} {:>3} judged: {:>5.1} % within a tenth of target (error median {:.3}, p90 {:.3}), utilisation {:.3} (min {:.3}, {:.1} % at 0.97), over-delivery {:.5} (max {:.5}{}), overspend {}; {} of {} with less demand than budget keep to the traffic; {} of {} with 400 charges are within the band",
                judged.bid_type,
                judged.qualifying,
                judged.within_band_share * 100.0,
                judged.error_median,
                judged.error_p90,
                judged.utilisation_mean,
                judged.utilisation_min,
                judged.utilised_share * 100.0,
                judged.over_delivery,
                judged.over_delivery_max,
                judged.lease_bound.map(|bound| format!(", open leases {bound:.5}")).unwrap_or_default(),
                judged.overspend_micros,
                judged.demand_limited_on_traffic,
                judged.demand_limited,
                judged.charged_often_within_band,
                judged.charged_often
            );
        }
        let _ = writeln!(out, "{:.1} s", self.seconds);
        out
    }
}

impl Run {
    fn of(played: &Played) -> Self {
        let sum = |of: fn(&super::accounts::Account) -> i64| played.accounts.total.iter().map(of).sum::<i64>() / 1_000;
        Self {
            totals: played.totals,
            revenue_micros: sum(|account| account.charged),
            free_micros: sum(|account| account.free),
            calibration: played.totals.clicks as f64 / played.totals.predicted_clicks.max(1.0),
        }
    }
}

/// One campaign as it is judged.
struct View {
    at: usize,
    bid_type: BidType,
    budget: i64,
    charged: i64,
    free: i64,
    events: u64,
    /// Without budgets.
    unlimited: i64,
    unlimited_events: u64,
    has_demand: bool,
    /// Charge events: what the budget buys at unpaced prices, or what there is demand for.
    expected: f64,
    qualifies: bool,
    error: f64,
    /// Distance from the traffic's curve as a share of what was spent in the end.
    own_error: f64,
    /// Open leases at the busiest hour.
    leases: i64,
}

impl View {
    fn of(world: &World, arrivals: &Arrivals, (free, paced): (&Played, &Played), target: &[f64], at: usize) -> Self {
        let campaign = &world.campaigns[at];
        let (account, demand) = (&paced.accounts.total[at], &free.accounts.total[at]);
        // What one event costs unpaced says how many all its budgets buy.
        let price = demand.charged as f64 / demand.events.max(1) as f64;
        let bought = account.budget as f64 / price.max(1.0);
        let has_demand = demand.charged >= account.budget;
        let error = |of: i64| {
            let warm = paced.curves[at].iter().zip(target).filter(|(_, target)| **target > WARM_UP);
            warm.map(|(spent, target)| (*spent as f64 / of.max(1) as f64 - target).abs()).fold(0.0, f64::max)
        };
        let expected = bought.min(demand.events as f64);
        Self {
            at,
            bid_type: campaign.bid_type,
            budget: account.budget,
            charged: account.charged,
            free: account.free,
            events: account.events,
            unlimited: demand.charged,
            unlimited_events: demand.events,
            has_demand,
            leases: leases(campaign, arrivals),
            expected,
            qualifies: has_demand && expected >= EVENTS_MIN,
            error: error(account.budget),
            own_error: error(account.charged),
        }
    }

    fn line(&self, world: &World) -> Line {
        Line {
            campaign: world.campaigns[self.at].id,
            bid_type: name(self.bid_type),
            budget_nanos: self.budget,
            unlimited_nanos: self.unlimited,
            unlimited_events: self.unlimited_events,
            charged_nanos: self.charged,
            events: self.events,
            free_nanos: self.free,
            expected: self.expected,
            qualifies: self.qualifies,
            error: self.error,
        }
    }

    fn utilisation(&self) -> f64 {
        self.charged as f64 / self.budget as f64
    }

    fn over_delivery(&self) -> f64 {
        self.free as f64 / self.budget as f64
    }
}

/// Decision on leases: five seconds of the spend rate or the highest price, at most a quarter of what is left by the
/// routers, and two of each router open at once; at the busiest hour, of all its budgets.
fn leases(campaign: &MarketCampaign, arrivals: &Arrivals) -> i64 {
    let budget = campaign.budget_nanos as f64;
    let rate_s = budget / arrivals.period_days as f64 * arrivals.busiest_hour() / 3_600.0;
    // A price per mille in micros is one impression's in nanos.
    let price = campaign.bid_micros as f64;
    let lease = (5.0 * rate_s).max(price).min(budget / (4 * ROUTERS) as f64);
    // Below one price, one router alone has the rest.
    let open = if lease < price { price } else { lease * (2 * ROUTERS) as f64 };
    (open * arrivals.periods as f64) as i64
}

impl Judged {
    fn of(bid_type: BidType, views: &[View]) -> Self {
        let of_type = || views.iter().filter(|view| view.bid_type == bid_type);
        let qualifying: Vec<&View> = of_type().filter(|view| view.qualifies).collect();
        let count = qualifying.len();
        let share = |part: usize| if count == 0 { 0.0 } else { part as f64 / count as f64 };
        let mut errors: Vec<f64> = qualifying.iter().map(|view| view.error).collect();
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors.get((count as f64 * share) as usize).copied().unwrap_or_default();
        let within_band = errors.iter().filter(|error| **error <= BAND).count();
        let used: Vec<f64> = qualifying.iter().map(|view| view.utilisation()).collect();
        let often = || of_type().filter(|view| view.has_demand && view.events as f64 >= EVENTS_MIN);
        let limited = || of_type().filter(|view| !view.has_demand && view.expected >= EVENTS_MIN);
        let bound = || of_type().filter(|view| view.charged + view.free >= view.budget * 9 / 10);
        let (free, budgets) = bound().fold((0, 0), |(free, budgets), view| (free + view.free, budgets + view.budget));
        Self {
            bid_type: name(bid_type),
            qualifying: count,
            within_band,
            within_band_share: share(within_band),
            error_median: at(0.5),
            error_p90: at(0.9),
            utilisation_mean: used.iter().fold(0.0, |sum, used| sum + used) / count.max(1) as f64,
            utilisation_min: used.iter().copied().reduce(f64::min).unwrap_or_default(),
            utilised_share: share(used.iter().filter(|used| **used >= 0.97).count()),
            over_delivery: free as f64 / (budgets as f64).max(1.0),
            over_delivery_max: qualifying.iter().map(|view| view.over_delivery()).fold(0.0, f64::max),
            overspend_micros: of_type().map(|view| (view.charged - view.budget).max(0)).sum::<i64>() / 1_000,
            lease_bound: (bid_type == BidType::Cpm)
                .then(|| bound().map(|view| view.leases).sum::<i64>() as f64 / (budgets as f64).max(1.0)),
            demand_limited: limited().count(),
            demand_limited_on_traffic: limited().filter(|view| view.own_error <= BAND).count(),
            charged_often: often().count(),
            charged_often_within_band: often().filter(|view| view.error <= BAND).count(),
        }
    }
}

/// As the catalogue spells it.
fn name(bid_type: BidType) -> &'static str {
    match bid_type {
        BidType::Cpm => "cpm",
        BidType::Cpc => "cpc",
        BidType::Cpa => "cpa",
        BidType::Ocpm => "ocpm",
        BidType::Ocpc => "ocpc",
    }
}
