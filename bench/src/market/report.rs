//! How well were budgets spent?

use super::arrivals::Arrivals;
use super::costs::TargetCosts;
use super::day::{POINTS, Played, Totals};
use super::judged::{Band, Bounded, Judged, Utilisation, View};
use super::routers::Leasing;
use super::targets::{self, Target};
use super::world::World;
use super::{Days, Largest, MarketArgs, MechanismChoice, PacingChoice};
use gavel_proto::money::BidType;
use serde::Serialize;
use std::cmp::Reverse;
use std::fmt::Write as _;

/// Curves that are written out.
const CURVES_MAX: usize = 24;
/// Campaigns that figures are said of where too few events are expected of any to judge it.
const UNJUDGED_MAX: usize = 50;

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
    /// Rounds of the pacer that were run.
    pub pacing_rounds: u64,
    /// What became of leases; `None` where budgets themselves were held.
    pub leases: Option<Leasing>,
    /// Campaigns whose band and over-delivery are judged, and how many there must be for the report to stand; on the
    /// panel's days, whose budgets buy too few events for anybody to be judged, none.
    pub campaigns_judged: usize,
    pub campaigns_judged_min: usize,
    /// CPM, CPC and CPA apart.
    pub judged: Vec<Judged>,
    /// What they should be.
    pub targets: Vec<Target>,
    /// The campaigns with the largest budgets that have the demand and too few events to be judged.
    pub not_judged: Unjudged,
    /// `None` when no campaign has a target cost.
    pub target_costs: Option<TargetCosts>,
    /// The largest judged campaigns; where there are none, the largest of the others.
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
    /// Delivered for nothing.
    pub free_micros: i64,
    /// Observed clicks by predicted ones.
    pub calibration: f64,
}

/// The same figures of campaigns that are not judged, each under the same condition on the demand.
#[derive(Clone, Debug, Serialize)]
pub struct Unjudged {
    pub band: Band,
    /// Those of them with demand for the whole budget at the prices in force, too.
    pub utilisation: Utilisation,
    /// Those of them with demand for the whole budget at unpaced prices alone.
    pub outpriced: Utilisation,
    /// Charge events expected of the one with most.
    pub expected_max: f64,
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
    /// The most of it that the stated bound allows; `None` where no lease pays.
    pub free_bound_nanos: Option<i64>,
    /// What its leases gave back when their time was over, besides what was held for impressions that nobody saw.
    pub given_back_nanos: i64,
    /// Charge events that are expected of it.
    pub expected: f64,
    /// Whether its band and its over-delivery are judged; its utilisation under a condition more.
    pub is_judged: bool,
    /// Largest distance from the target after warm-up.
    pub error: f64,
    /// What it would have spent with budgets in force at full bids; 0 of one with less demand or fewer events than counts.
    pub demand_nanos: f64,
    /// Share of the rounds after warm-up in which its bids were held back.
    pub held_back: f64,
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
        (free, paced): (&Played, &Played),
    ) -> Self {
        let length_ms = arrivals.length_ms();
        let target: Vec<f64> =
            (1..=POINTS as u64).map(|point| arrivals.target(length_ms * point / POINTS as u64)).collect();
        let view = |at| View::of(world, (free, paced), &target, at);
        let views: Vec<View> = (0..world.campaigns.len()).map(view).collect();
        let judged = [BidType::Cpm, BidType::Cpc, BidType::Cpa].map(|bid_type| Judged::of(bid_type, &views));
        let (drawn, unjudged) = (largest(&views, View::is_judged), unjudged(&views));
        let drawn = if drawn.is_empty() { &unjudged } else { &drawn };
        Self {
            days: days(args.days),
            arrivals: arrivals.all.len() as u64,
            mechanism: mechanism(args.mechanism),
            pacing: pacing(args.pacing),
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
            pacing_rounds: paced.rounds,
            leases: paced.leasing,
            campaigns_judged: judged.iter().map(|judged| judged.band.campaigns).sum(),
            campaigns_judged_min: match args.days {
                Days::Market => args.min_qualifying,
                Days::Panel => 0,
            },
            targets: judged.iter().flat_map(Target::of).collect(),
            judged: judged.into(),
            not_judged: Unjudged::of(&unjudged),
            target_costs: TargetCosts::of(&paced.sales, &paced.accounts.total, &paced.held_back),
            curves: drawn.iter().take(CURVES_MAX).map(|view| Curve::of(world, paced, view)).collect(),
            accounts: views.iter().filter(|view| view.unlimited > 0).map(|view| Line::of(world, view)).collect(),
            target,
            seconds: 0.0,
        }
    }

    /// Charged beyond budgets.
    pub fn overspend_micros(&self) -> i64 {
        self.judged.iter().map(|judged| judged.overspend_micros).sum()
    }

    /// Targets that are not met.
    pub fn targets_missed(&self) -> usize {
        self.targets.iter().filter(|target| !target.met).count()
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
            "budgets x {:.4} by the largest {}s; {} campaigns, {} ads; {} rounds of the pacer",
            self.budget_factor, self.largest, self.campaigns, self.ads, self.pacing_rounds
        );
        self.write_leases(&mut out);
        self.judged.iter().for_each(|judged| write_judged(&mut out, judged));
        self.write_unjudged(&mut out);
        self.write_costs(&mut out);
        out.push_str(&targets::table(&self.targets));
        self.write_summary(&mut out);
        let _ = writeln!(out, "{:.1} s", self.seconds);
        out
    }

    /// What a reader who reads one line is to know.
    fn write_summary(&self, out: &mut String) {
        let missed = self.targets_missed();
        let _ = writeln!(
            out,
            "{} campaigns judged, at least {} asked for: {}; {} targets met, {missed} missed",
            self.campaigns_judged,
            self.campaigns_judged_min,
            if self.campaigns_judged < self.campaigns_judged_min { "TOO FEW" } else { "enough" },
            self.targets.len() - missed
        );
    }

    fn write_leases(&self, out: &mut String) {
        let Some(leases) = &self.leases else {
            out.push_str("impressions are held against budgets themselves: no lease is granted, and none is lost\n");
            return;
        };
        let money = |nanos: i64| nanos as f64 / 1e9;
        let _ = writeln!(
            out,
            "leases: {} of {} routers, {} kills, at most {:.4} open at once; {} winners without one; delivered free: {:.4} reported to a router that was down, {:.4} too late, {:.4} never; {} visits unanswered",
            leases.leases,
            leases.routers,
            leases.crashes,
            money(leases.open_max_nanos),
            leases.unleased,
            money(leases.unheard_nanos),
            money(leases.late_nanos),
            money(leases.lost_nanos),
            leases.unanswered
        );
    }

    /// Where nobody is judged, what can be said all the same.
    fn write_unjudged(&self, out: &mut String) {
        if self.campaigns_judged > 0 || self.not_judged.band.campaigns == 0 {
            return;
        }
        let Unjudged { band, utilisation, outpriced, expected_max } = &self.not_judged;
        let _ = writeln!(
            out,
            "not judged: the {} largest budgets with the demand, of at most {expected_max:.0} expected events: {:.1} % within a tenth of the curve (error median {:.3}, p90 {:.3}), utilisation of {} that could spend their budgets {:.3} (least {:.3}), of {} that could unpaced alone {:.3} (least {:.3}), over-delivery {:.5}",
            band.campaigns,
            band.within_band_share * 100.0,
            band.error_median,
            band.error_p90,
            utilisation.campaigns,
            utilisation.mean,
            utilisation.min,
            outpriced.campaigns,
            outpriced.mean,
            outpriced.min,
            band.over_delivery
        );
        write_tenths(out, "not judged", &band.spent_by_tenths);
    }

    fn write_costs(&self, out: &mut String) {
        let Some(costs) = &self.target_costs else { return };
        let _ = writeln!(
            out,
            "target cost: {} campaigns, {} conversions charged at {:.3} of their targets, expected when served {:.3}; {} that budgets did not hold back {:.3}; score {:.3} of the conversions",
            costs.campaigns,
            costs.conversions,
            costs.charged_by_target,
            costs.expected_by_target,
            costs.unpaced,
            costs.unpaced_expected_by_target,
            costs.score
        );
    }
}

fn write_judged(out: &mut String, judged: &Judged) {
    let (band, used, outpriced) = (&judged.band, &judged.utilisation, &judged.outpriced);
    let kind = judged.bid_type;
    let _ = writeln!(
        out,
        "{kind:<4} {} with 400 expected events, {} of them with demand for the whole budget; {} judged: {:.1} % within a tenth of the curve (error median {:.3}, p90 {:.3})",
        judged.expected_often,
        judged.with_demand,
        band.campaigns,
        band.within_band_share * 100.0,
        band.error_median,
        band.error_p90
    );
    let _ = writeln!(
        out,
        "{kind:<4} utilisation of {} that could spend their budgets at the prices in force {:.3} (least {:.3}, {} at 0.97; {} within the band); of {} that could unpaced alone {:.3} (least {:.3})",
        used.campaigns,
        used.mean,
        used.min,
        used.utilised,
        judged.within_band,
        outpriced.campaigns,
        outpriced.mean,
        outpriced.min
    );
    let _ = writeln!(
        out,
        "{kind:<4} over-delivery {:.5} (worst {:.5}; of all {} that spent their budgets {:.5}); overspend {}; {} of {} with less demand keep to the traffic; {} of {} with 400 charges are within the band",
        band.over_delivery,
        band.over_delivery_max,
        judged.spent,
        judged.over_delivery_all,
        judged.overspend_micros,
        judged.demand_limited_on_traffic,
        judged.demand_limited,
        judged.charged_often_within_band,
        judged.charged_often
    );
    if let Some(Bounded { within, worst, together, given_back, unreported, .. }) = &judged.bounded {
        let _ = writeln!(
            out,
            "{kind:<4} {within} of {} deliver free at most the larger of 1 % of the budget and one largest price a router: worst {worst:.3} of it, together {together:.3}; leases gave back {given_back:.5} besides what nobody saw; those never reported held {unreported:.5}",
            band.campaigns
        );
    }
    if band.campaigns > 0 {
        write_tenths(out, kind, &band.spent_by_tenths);
    }
}

/// The spend curve: percent of the budgets when each tenth of the traffic has come.
fn write_tenths(out: &mut String, kind: &str, spent: &[f64]) {
    let _ = write!(out, "{kind:<4} traffic, % |");
    for tenth in 1..=spent.len() {
        let _ = write!(out, " {:>5}", tenth * 100 / spent.len());
    }
    let _ = write!(out, "\n{kind:<4} spent, %   |");
    for share in spent {
        let _ = write!(out, " {:>5.1}", share * 100.0);
    }
    out.push('\n');
}

/// Some campaigns, the largest budgets first.
fn largest(views: &[View], which: impl Fn(&View) -> bool) -> Vec<&View> {
    let mut largest: Vec<&View> = views.iter().filter(|view| which(view)).collect();
    largest.sort_by_key(|view| Reverse(view.account.budget));
    largest
}

/// The largest campaigns with the demand that have too few events.
fn unjudged(views: &[View]) -> Vec<&View> {
    let mut unjudged = largest(views, |view| view.unlimited > 0 && view.can_follow() && !view.is_often());
    unjudged.truncate(UNJUDGED_MAX);
    unjudged
}

impl Unjudged {
    fn of(views: &[&View]) -> Self {
        let (able, outpriced): (Vec<&View>, Vec<&View>) =
            views.iter().copied().filter(|view| view.has_demand()).partition(|view| view.can_spend());
        Self {
            band: Band::of(views),
            utilisation: Utilisation::of(able.into_iter()),
            outpriced: Utilisation::of(outpriced.into_iter()),
            expected_max: views.iter().map(|view| view.expected).fold(0.0, f64::max),
        }
    }
}

impl Curve {
    fn of(world: &World, paced: &Played, view: &View) -> Self {
        let budget = view.account.budget;
        Self {
            campaign: world.campaigns[view.at].id,
            bid_type: view.bid_type.name(),
            budget_micros: budget / 1_000,
            spent: paced.curves[view.at].iter().map(|spent| *spent as f64 / budget as f64).collect(),
            multiplier_ppm: paced.multipliers[view.at].clone(),
        }
    }
}

impl Line {
    fn of(world: &World, view: &View) -> Self {
        Self {
            campaign: world.campaigns[view.at].id,
            bid_type: view.bid_type.name(),
            budget_nanos: view.account.budget,
            unlimited_nanos: view.unlimited,
            unlimited_events: view.unlimited_events,
            charged_nanos: view.account.charged,
            events: view.account.events,
            free_nanos: view.account.free,
            free_bound_nanos: view.bound,
            given_back_nanos: view.account.given_back(),
            expected: view.expected,
            is_judged: view.is_judged(),
            error: view.error,
            demand_nanos: view.demand,
            held_back: view.held_back,
        }
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

const fn days(days: Days) -> &'static str {
    match days {
        Days::Market => "market",
        Days::Panel => "panel",
    }
}

const fn mechanism(mechanism: MechanismChoice) -> &'static str {
    match mechanism {
        MechanismChoice::Gsp => "gsp",
        MechanismChoice::Vcg => "vcg",
        MechanismChoice::FirstPrice => "first_price",
    }
}

const fn pacing(pacing: PacingChoice) -> &'static str {
    match pacing {
        PacingChoice::Multiplier => "multiplier",
        PacingChoice::Throttle => "throttle",
        PacingChoice::Linkedin => "linkedin",
        PacingChoice::None => "none",
    }
}
