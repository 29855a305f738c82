//! On which campaigns is pacing judged, and how did it do?
//!
//! On those with 400 expected charge events, so that chance moves their curves little: what the budget buys at unpaced
//! prices, or what there is demand for, whichever is less. Two conditions more say where a budget can be kept at all; how
//! many fall under each of them is part of the figures.
//!
//! * The *band*, a tenth of the budget around the traffic's curve after warm-up, and over-delivery are judged where the demand
//!   allows to follow the curve: unpaced the campaign would spend nine tenths of its budget at least. With less it
//!   leaves the band whatever it bids, and nothing holds it back. Its own spending is compared with the traffic's curve
//!   instead, apart.
//! * *Utilisation* is judged where there is demand for the whole budget, at unpaced prices and at the prices in force: bidding
//!   in full all day, with everybody else as they were, the campaign would have spent it (`demand`). Multipliers are in
//!   equilibrium when each campaign spends its budget or is not paced (Conitzer et al., pacing equilibria of second price
//!   auctions): who cannot spend it at full bids is not held back by it. These campaigns are counted apart, with their
//!   utilisation.
//!
//! Where leases pay, each campaign's over-delivery has a bound of its own: a hundredth of the day's budget, or the largest
//! price once for each router, whichever is more.

use super::accounts::Account;
use super::day::{Played, WARM_UP};
use super::routers::is_held;
use super::world::World;
use gavel_proto::money::BidType;
use serde::Serialize;

/// Charge events that a campaign must be expected to have.
pub const EVENTS_MIN: f64 = 400.0;
/// How far a curve may be from its target, as a share of the budget.
const BAND: f64 = 0.1;
/// Of the rounds after warm-up, the least share in which a campaign is held back whose budget binds.
pub const HELD_BACK_MIN: f64 = 0.05;
/// What is to be spent of a budget that binds.
pub const UTILISATION_MIN: f64 = 0.97;
/// Shares of the traffic at which a curve is printed.
const TENTHS: usize = 10;

/// One campaign as it is judged.
#[derive(Clone, Debug)]
pub struct View {
    /// Its place in the world.
    pub at: usize,
    pub bid_type: BidType,
    pub account: Account,
    /// The most that is to be delivered for nothing; `None` where no lease pays.
    pub bound: Option<i64>,
    /// Charged without budgets, and how often.
    pub unlimited: i64,
    pub unlimited_events: u64,
    /// Charge events.
    pub expected: f64,
    /// Largest distance from the traffic's curve after warm-up, as a share of the budget.
    pub error: f64,
    /// The same as a share of what was spent in the end.
    pub own_error: f64,
    /// What it would have spent with budgets in force at full bids, in nanos; 0 of one that is not watched.
    pub demand: f64,
    /// Share of the rounds after warm-up in which its bids were held back.
    pub held_back: f64,
    /// Charged when each tenth of the traffic had come.
    pub tenths: [i64; TENTHS],
}

impl View {
    /// Of a campaign in a run without budgets and one with them; `target` is the traffic until each point of a curve.
    pub fn of(world: &World, (free, paced): (&Played, &Played), target: &[f64], at: usize) -> Self {
        let (account, unlimited) = (paced.accounts.total[at], free.accounts.total[at]);
        // What one event costs unpaced says how many all its budgets buy.
        let price = unlimited.charged as f64 / unlimited.events.max(1) as f64;
        let bought = account.budget as f64 / price.max(1.0);
        let (curve, seller) = (&paced.curves[at], &world.campaigns[at]);
        // A bid per mille in micros is one impression's in nanos.
        let price_max = i64::try_from(seller.bid_micros).unwrap_or(i64::MAX);
        let leasing = paced.leasing.filter(|_| is_held(seller.bid_type));
        let error = |of: i64| {
            let warm = curve.iter().zip(target).filter(|(_, target)| **target > WARM_UP);
            warm.map(|(spent, target)| (*spent as f64 / of.max(1) as f64 - target).abs()).fold(0.0, f64::max)
        };
        Self {
            at,
            bid_type: seller.bid_type,
            account,
            bound: leasing.map(|leasing| stated_bound(account.budget, leasing.routers, price_max)),
            unlimited: unlimited.charged,
            unlimited_events: unlimited.events,
            expected: bought.min(unlimited.events as f64),
            error: error(account.budget),
            own_error: error(account.charged),
            demand: paced.demand[at],
            held_back: paced.held_back[at],
            tenths: std::array::from_fn(|tenth| charged_at(curve, target, (tenth + 1) as f64 / TENTHS as f64)),
        }
    }

    pub const fn is_often(&self) -> bool {
        self.expected >= EVENTS_MIN
    }

    /// Demand for the whole budget at unpaced prices.
    pub const fn has_demand(&self) -> bool {
        self.unlimited >= self.account.budget
    }

    /// Demand that stays within the band of the budget's curve.
    pub fn can_follow(&self) -> bool {
        self.unlimited as f64 >= (1.0 - BAND) * self.account.budget as f64
    }

    /// Demand for the whole budget at the prices in force, too.
    pub fn can_spend(&self) -> bool {
        self.has_demand() && self.demand >= self.account.budget as f64
    }

    /// Whether its band and its over-delivery are judged.
    pub fn is_judged(&self) -> bool {
        self.is_often() && self.can_follow()
    }

    pub fn utilisation(&self) -> f64 {
        self.account.charged as f64 / self.account.budget.max(1) as f64
    }

    fn over_delivery(&self) -> f64 {
        self.account.free as f64 / self.account.budget.max(1) as f64
    }
}

/// What may be delivered of a campaign for nothing from leases. Leases are held on market days alone, whose budgets are a
/// day's.
fn stated_bound(budget: i64, routers: usize, price_max: i64) -> i64 {
    (budget / 100).max(price_max.saturating_mul(i64::try_from(routers).unwrap_or(i64::MAX)))
}

/// What a curve has reached when a share of the traffic has come.
fn charged_at(curve: &[i64], target: &[f64], share: f64) -> i64 {
    // The last target may be a rounding below 1.
    let at = target.iter().position(|target| *target >= share - 1e-9);
    at.and_then(|at| curve.get(at)).or_else(|| curve.last()).copied().unwrap_or_default()
}

/// How some campaigns kept to their curves.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Band {
    pub campaigns: usize,
    /// Of them, within a tenth of the target at every point after warm-up.
    pub within_band: usize,
    pub within_band_share: f64,
    /// Largest distance from the target after warm-up: median and 90th percentile over the campaigns.
    pub error_median: f64,
    pub error_p90: f64,
    /// Delivered for nothing, as a share of their budgets together, and of the worst campaign's.
    pub over_delivery: f64,
    pub over_delivery_max: f64,
    /// Spent of their budgets together when each tenth of the traffic had come.
    pub spent_by_tenths: Vec<f64>,
}

impl Band {
    pub fn of(views: &[&View]) -> Self {
        let mut errors: Vec<f64> = views.iter().map(|view| view.error).collect();
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors.get((views.len() as f64 * share) as usize).copied().unwrap_or_default();
        let within_band = errors.iter().filter(|error| **error <= BAND).count();
        let budgets = views.iter().map(|view| view.account.budget as f64).sum::<f64>().max(1.0);
        let tenth = |tenth: usize| views.iter().map(|view| view.tenths[tenth] as f64).sum::<f64>() / budgets;
        Self {
            campaigns: views.len(),
            within_band,
            within_band_share: within_band as f64 / views.len().max(1) as f64,
            error_median: at(0.5),
            error_p90: at(0.9),
            over_delivery: views.iter().map(|view| view.account.free as f64).sum::<f64>() / budgets,
            over_delivery_max: views.iter().map(|view| view.over_delivery()).fold(0.0, f64::max),
            spent_by_tenths: (0..TENTHS).map(tenth).collect(),
        }
    }
}

/// How much of their budgets some campaigns spent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Utilisation {
    pub campaigns: usize,
    pub mean: f64,
    pub min: f64,
    /// Of them, with at least 97 %.
    pub utilised: usize,
}

impl Utilisation {
    pub fn of<'a>(views: impl Iterator<Item = &'a View>) -> Self {
        let used: Vec<f64> = views.map(View::utilisation).collect();
        Self {
            campaigns: used.len(),
            // From 0: the sum of nothing is -0.
            mean: used.iter().fold(0.0, |sum, used| sum + used) / used.len().max(1) as f64,
            min: used.iter().copied().reduce(f64::min).unwrap_or_default(),
            utilised: used.iter().filter(|used| **used >= UTILISATION_MIN).count(),
        }
    }
}

/// What was delivered of some campaigns for nothing, each beside its bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bounded {
    /// Campaigns within their bounds.
    pub within: usize,
    pub within_share: f64,
    /// Delivered for nothing by the bound: of the worst campaign, and of all by the sum of their bounds.
    pub worst: f64,
    pub together: f64,
    /// What leases gave back besides what was held for impressions that nobody saw, as a share of the budgets.
    pub given_back: f64,
    /// Held to the end by leases that nobody reported, seen or not, as a share of the budgets.
    pub unreported: f64,
}

impl Bounded {
    /// `None` when none of them has a bound.
    fn of(views: &[&View]) -> Option<Self> {
        let bounded: Vec<(&Account, i64)> =
            views.iter().filter_map(|view| Some((&view.account, view.bound?))).collect();
        let sum = |of: fn(&Account) -> i64| bounded.iter().map(|(account, _)| of(account) as f64).sum::<f64>();
        let budgets = sum(|account| account.budget).max(1.0);
        let within = bounded.iter().filter(|(account, bound)| account.free <= *bound).count();
        let by_bound = bounded.iter().map(|(account, bound)| account.free as f64 / (*bound).max(1) as f64);
        let bounds = bounded.iter().map(|(_, bound)| *bound as f64).sum::<f64>().max(1.0);
        (!bounded.is_empty()).then(|| Self {
            within,
            within_share: within as f64 / bounded.len() as f64,
            worst: by_bound.fold(0.0, f64::max),
            together: sum(|account| account.free) / bounds,
            given_back: sum(Account::given_back) / budgets,
            unreported: sum(|account| account.unreported) / budgets,
        })
    }
}

/// The pacing of the campaigns of one bid type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    pub bid_type: &'static str,
    /// Whether a click or conversion is billed, for which nothing is held.
    pub is_billed_later: bool,
    /// Campaigns with 400 expected charge events, and those of them with demand for the whole budget.
    pub expected_often: usize,
    pub with_demand: usize,
    /// Those of them whose demand allows to follow the curve.
    pub band: Band,
    /// Those with demand for the whole budget at the prices in force, too.
    pub utilisation: Utilisation,
    /// Of those, within a tenth of the curve.
    pub within_band: usize,
    /// Those with demand for the whole budget at unpaced prices alone.
    pub outpriced: Utilisation,
    /// The same campaigns beside their bounds; `None` where no leases pay.
    pub bounded: Option<Bounded>,
    /// All campaigns of the type that spent nine tenths of their budgets, and what they delivered for nothing, as a share of
    /// these.
    pub spent: usize,
    pub over_delivery_all: f64,
    /// Charged beyond budgets, each period by itself; must be 0.
    pub overspend_micros: i64,
    /// Campaigns with 400 expected charge events and less demand than follows the curve, and how many of them stay within a
    /// tenth of the traffic's curve by their own spending.
    pub demand_limited: usize,
    pub demand_limited_on_traffic: usize,
    /// Not what is judged, but beside it: campaigns with as much demand as budget that were charged 400 events or more,
    /// at paced prices, and how many of them were within the band.
    pub charged_often: usize,
    pub charged_often_within_band: usize,
}

impl Judged {
    pub fn of(bid_type: BidType, views: &[View]) -> Self {
        let of_type = || views.iter().filter(|view| view.bid_type == bid_type);
        let often = || of_type().filter(|view| view.is_often());
        let judged: Vec<&View> = often().filter(|view| view.can_follow()).collect();
        let (able, outpriced): (Vec<&View>, Vec<&View>) =
            often().filter(|view| view.has_demand()).partition(|view| view.can_spend());
        let limited = || often().filter(|view| !view.can_follow());
        let charged_often = || of_type().filter(|v| v.has_demand() && v.account.events as f64 >= EVENTS_MIN);
        let has_spent = |v: &&View| v.account.charged + v.account.free >= v.account.budget / 10 * 9;
        let spent: Vec<&View> = of_type().filter(has_spent).collect();
        Self {
            bid_type: bid_type.name(),
            is_billed_later: !is_held(bid_type),
            expected_often: often().count(),
            with_demand: able.len() + outpriced.len(),
            band: Band::of(&judged),
            within_band: able.iter().filter(|view| view.error <= BAND).count(),
            utilisation: Utilisation::of(able.into_iter()),
            outpriced: Utilisation::of(outpriced.into_iter()),
            bounded: Bounded::of(&judged),
            spent: spent.len(),
            over_delivery_all: Band::of(&spent).over_delivery,
            overspend_micros: of_type().map(|view| overspend_micros(&view.account)).sum(),
            demand_limited: limited().count(),
            demand_limited_on_traffic: limited().filter(|view| view.own_error <= BAND).count(),
            charged_often: charged_often().count(),
            charged_often_within_band: charged_often().filter(|view| view.error <= BAND).count(),
        }
    }
}

/// Charged beyond budgets, rounded up.
const fn overspend_micros(account: &Account) -> i64 {
    (account.beyond + 999) / 1_000
}

#[cfg(test)]
mod tests {
    use super::super::targets::Target;
    use super::*;

    /// A campaign with a budget of 1,000 and 500 expected events, within the band, held back all day.
    fn view(bid_type: BidType, charged: i64) -> View {
        let account = Account { budget: 1_000, charged, events: 480, ..Account::default() };
        View {
            at: 0,
            bid_type,
            account,
            bound: None,
            unlimited: 2_000,
            unlimited_events: 1_000,
            expected: 500.0,
            error: 0.05,
            own_error: 0.05,
            demand: 1_000.0,
            held_back: 1.0,
            tenths: std::array::from_fn(|tenth| charged / 10 * (tenth as i64 + 1)),
        }
    }

    #[test]
    fn who_is_judged_depends_on_events_and_demand() {
        let cpc = |charged| view(BidType::Cpc, charged);
        let views = [
            cpc(1_000),
            View { error: 0.11, ..cpc(960) },
            // With the others paced there is less to buy than its budget pays for.
            View { demand: 999.0, ..cpc(400) },
            // Within the band, but not the whole budget.
            View { unlimited: 900, ..cpc(900) },
            View { unlimited: 899, own_error: 0.02, ..cpc(899) },
            View { expected: 399.9, ..cpc(1_000) },
            view(BidType::Cpm, 1_000),
        ];
        let judged = Judged::of(BidType::Cpc, &views);
        assert_eq!((judged.expected_often, judged.with_demand, judged.band.campaigns), (5, 3, 4));
        assert_eq!((judged.band.within_band, judged.band.error_median, judged.band.error_p90), (3, 0.05, 0.11));
        let utilisation = Utilisation { campaigns: 2, mean: 0.98, min: 0.96, utilised: 1 };
        assert_eq!(judged.utilisation, utilisation);
        assert_eq!((judged.outpriced.campaigns, judged.outpriced.min, judged.within_band), (1, 0.4, 1));
        assert_eq!((judged.demand_limited, judged.demand_limited_on_traffic), (1, 1));
        assert_eq!((judged.charged_often, judged.charged_often_within_band), (4, 3));
        assert_eq!((judged.bounded, judged.overspend_micros), (None, 0));
        let half = judged.band.spent_by_tenths[4];
        assert!((half - 0.5 * (1_000.0 + 960.0 + 400.0 + 900.0) / 4_000.0).abs() < 1e-12, "{half}");
    }

    #[test]
    fn each_target_is_met_or_missed_by_its_figure() {
        let met = |judged: &Judged, what: &str| {
            let targets = Target::of(judged);
            let target = targets.iter().find(|target| target.what.starts_with(what)).expect(what);
            assert_eq!(target.bid_type, judged.bid_type);
            (target.value, target.met)
        };
        let mut cpm = view(BidType::Cpm, 970);
        (cpm.account.free, cpm.bound) = (12, Some(12));
        let judged = Judged::of(BidType::Cpm, &[cpm.clone()]);
        assert_eq!(met(&judged, "within"), (1.0, true));
        assert_eq!(met(&judged, "utilisation, least"), (0.97, true));
        assert_eq!(met(&judged, "over-delivery"), (1.0, true));
        assert_eq!(met(&judged, "charged beyond"), (0.0, true));
        // A nano more than the bound, a thousandth less than is to be spent, and more than the budget.
        let within = cpm.clone();
        cpm.account.free = 13;
        assert_eq!(met(&Judged::of(BidType::Cpm, &[within, cpm.clone()]), "over-delivery"), (0.5, false));
        cpm.account.charged = 969;
        let missed = Judged::of(BidType::Cpm, &[View { error: 0.101, bound: None, ..cpm.clone() }]);
        assert_eq!((&missed.bounded, met(&missed, "utilisation, mean")), (&None, (0.969, false)));
        assert_eq!(met(&missed, "within"), (0.0, false));
        assert!(Target::of(&missed).iter().all(|target| !target.what.starts_with("over-delivery")));
        cpm.account.beyond = 1;
        let beyond = Judged::of(BidType::Cpm, &[cpm]);
        assert_eq!(met(&beyond, "charged beyond"), (1.0, false));
        // Nothing is said of nobody.
        let nobody = Target::of(&Judged::of(BidType::Cpa, &[]));
        assert!(nobody.iter().all(|target| target.what.starts_with("charged beyond")), "{nobody:?}");
    }

    /// Clicks and conversions alike, of those who are judged and of all who spent their budgets, whose events may be few.
    #[test]
    fn what_is_billed_later_has_a_hundredth() {
        for bid_type in [BidType::Cpc, BidType::Cpa] {
            let over = |free, expected| {
                let mut late = view(bid_type, 1_000);
                (late.account.free, late.expected) = (free, expected);
                let mut targets = Target::of(&Judged::of(bid_type, &[late]));
                targets.retain(|target| target.what.starts_with("over-delivery"));
                assert!(targets.iter().all(|target| target.target == 0.01), "{targets:?}");
                targets.iter().map(|target| target.met).collect::<Vec<_>>()
            };
            assert_eq!([over(10, 500.0), over(11, 500.0)], [vec![true; 2], vec![false; 2]]);
            assert_eq!([over(10, 5.0), over(11, 5.0)], [vec![true], vec![false]]);
        }
    }

    /// Four routers and prices of 10: the larger budget allows a hundredth of it, the smaller one 40. What nobody saw is not
    /// part of what leases gave back.
    #[test]
    fn each_campaign_has_its_own_bound() {
        assert_eq!([stated_bound(10_000, 4, 10), stated_bound(1_000, 4, 10)], [100, 40]);
        let of = |budget, free| View {
            account: Account { budget, free, unreported: 30, unposted: 200, unseen: 180, ..Account::default() },
            bound: Some(stated_bound(budget, 4, 10)),
            ..view(BidType::Cpm, 0)
        };
        let (large, small) = (of(10_000, 50), of(1_000, 50));
        let bounded = Bounded {
            within: 1,
            within_share: 0.5,
            worst: 1.25,
            together: 100.0 / 140.0,
            given_back: 100.0 / 11_000.0,
            unreported: 60.0 / 11_000.0,
        };
        assert_eq!(Bounded::of(&[&large, &small]), Some(bounded));
        assert_eq!(Bounded::of(&[&View { bound: None, ..large }]), None);
    }

    #[test]
    fn a_curve_is_read_where_the_traffic_has_come() {
        let (target, curve) = ([0.05, 0.1, 0.4, 0.5, 0.999_999_999_9], [1, 2, 3, 4, 5]);
        let at = |share| charged_at(&curve, &target, share);
        assert_eq!([at(0.1), at(0.2), at(0.5), at(0.6), at(1.0)], [2, 3, 4, 5, 5]);
        assert_eq!(charged_at(&[], &[], 0.5), 0);
    }
}
