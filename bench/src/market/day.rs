//! What happens, in which order?
//!
//! One loop in virtual time: before each visit the events that are due happen, routers do their rounds, and the pacer
//! that is due looks; then the visit has its auction, its page is allocated, and its impressions are shown, paid and
//! perhaps followed by a click and a conversion, later. The pacer looks every 10 s: what it decides rests on what happened
//! no longer ago, which is what the cluster promises, not what it does at best.
//!
//! Of the pacer's rounds between two visits only the last is run. Nobody would see the others: nothing is served
//! in between, and where visits are minutes apart, as on the panel's days, they would be nineteen in twenty.

use super::accounts::{Accounts, Billed};
use super::arrivals::{Arrival, Arrivals, DAY_MS};
use super::controls::Controls;
use super::demand::{Demand, Visit};
use super::flights::Flights;
use super::routers::{Held, Leasing, Paying, Routers, is_held};
use super::terms::{ORGANIC, charged_chance, page, price_nanos, rule, seen_chance, slot_ads};
use super::world::World;
use super::{Days, MarketArgs, MarketError, PacingChoice, candidates};
use crate::workload::Seeded;
use gavel_control::ledger::types::EventKind;
use gavel_control::pacing::heard::Sold;
use gavel_control::pacing::{Goal, Look};
use gavel_proto::hash::mix64;
use gavel_proto::money::BidType;
use gavel_router::allocation::{AllocationRule, Engagement, Entry, allocate, priced_in_place};
use gavel_router::auction::{AuctionRule, Clearing, reclear_without};
use gavel_router::merge::{Candidate, Ranking};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

pub use super::accounts::Budgets;

/// Between two rounds of the pacer.
pub const PACING_MS: u64 = 10_000;
/// Rounds between two in which flights are made coarser.
const COMPACT_ROUNDS: u64 = 6;
/// Between two steps of the published throttling.
const THROTTLE_MS: u64 = 60_000;
/// Mean delays of a click and of a conversion after it.
const CLICK_MS: f64 = 20_000.0;
const CONVERSION_MS: f64 = 600_000.0;
/// Points of a spend curve.
pub const POINTS: usize = 200;
/// Share of the run's traffic that is warm-up.
pub const WARM_UP: f64 = 0.1;

/// What was played.
pub struct Played {
    pub accounts: Accounts,
    /// Per campaign: charged nanos at each of [`POINTS`] equal times of the run.
    pub curves: Vec<Vec<i64>>,
    /// What holds a campaign back, in ppm at the same times.
    pub multipliers: Vec<Vec<u32>>,
    /// Per campaign: the share of the pacer's rounds after warm-up in which it was held back.
    pub held_back: Vec<f64>,
    /// Per campaign that is watched: what it would have spent at full bids, in nanos.
    pub demand: Vec<f64>,
    /// Per campaign: what it wants, and what of it was sold.
    pub sales: Vec<(Goal, Option<Sold>)>,
    /// `None` where budgets themselves were held.
    pub leasing: Option<Leasing>,
    /// Of the pacer.
    pub rounds: u64,
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

/// An event that comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    at_ms: u64,
    billed: Billed,
    /// The router that served it.
    router: usize,
}

/// An ad on a page.
struct Shown<'a> {
    router: usize,
    candidate: &'a Candidate,
    slot: usize,
    /// The price of one billed event.
    nanos: i64,
    held: Option<Held>,
}

struct Play<'a> {
    args: &'a MarketArgs,
    world: &'a World,
    arrivals: &'a Arrivals,
    budgets: Budgets,
    rule: AuctionRule,
    page: AllocationRule,
    controls: Controls,
    demand: Demand,
    flights: Flights,
    accounts: Accounts,
    routers: Routers,
    late: BinaryHeap<Reverse<Late>>,
    random: Seeded,
    paced_ms: u64,
    throttled_ms: u64,
    rounds: u64,
    curves: Vec<Vec<i64>>,
    multipliers: Vec<Vec<u32>>,
    totals: Totals,
}

/// Plays all visits.
pub fn play(
    args: &MarketArgs,
    world: &World,
    arrivals: &Arrivals,
    budgets: Budgets,
    demand: Demand,
) -> Result<Played, MarketError> {
    let mut play = Play::new(args, world, arrivals, budgets, demand)?;
    for (number, arrival) in (1u64..).zip(&arrivals.all) {
        play.pass(arrival.at_ms)?;
        play.visit(arrival, number)?;
    }
    play.end()
}

/// Where impressions are paid from.
fn paying(args: &MarketArgs, budgets: Budgets) -> Paying {
    match (budgets, args.days) {
        (Budgets::Kept, Days::Market) if args.routers > 0 => Paying::Leases,
        (Budgets::Kept | Budgets::Unlimited, Days::Market | Days::Panel) => Paying::Budgets,
    }
}

impl<'a> Play<'a> {
    fn new(
        args: &'a MarketArgs,
        world: &'a World,
        arrivals: &'a Arrivals,
        budgets: Budgets,
        demand: Demand,
    ) -> Result<Self, MarketError> {
        let count = world.campaigns.len();
        let pacing = match budgets {
            Budgets::Unlimited => PacingChoice::None,
            Budgets::Kept => args.pacing,
        };
        let length_ms = arrivals.length_ms();
        Ok(Self {
            args,
            world,
            arrivals,
            budgets,
            rule: rule(args)?,
            page: page(args)?,
            controls: Controls::new(args, &world.campaigns, pacing),
            demand,
            flights: Flights::new(count),
            accounts: Accounts::open(&world.campaigns, budgets, (arrivals.period_days, arrivals.periods))?,
            routers: Routers::open(paying(args, budgets), args.routers, (args.crashes, length_ms), args.seed),
            late: BinaryHeap::new(),
            random: Seeded::new(mix64(args.seed)),
            paced_ms: 0,
            throttled_ms: 0,
            rounds: 0,
            curves: vec![Vec::with_capacity(POINTS); count],
            multipliers: vec![Vec::with_capacity(POINTS); count],
            totals: Totals::default(),
        })
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with this mean, in whole milliseconds.
    fn delay_ms(&mut self, mean_ms: f64) -> u64 {
        (-(1.0 - self.uniform()).ln() * mean_ms) as u64
    }

    /// Everything that is due before a visit, in its order.
    fn pass(&mut self, at_ms: u64) -> Result<(), MarketError> {
        let due_ms = at_ms - at_ms % PACING_MS;
        while let Some(round_ms) = self.routers.due_ms(at_ms) {
            if due_ms <= round_ms {
                self.pace(due_ms)?;
            }
            self.happen(round_ms)?;
            self.routers.round(round_ms, &mut self.accounts)?;
        }
        self.pace(due_ms)?;
        self.happen(at_ms)
    }

    /// Events until a time.
    fn happen(&mut self, until_ms: u64) -> Result<(), MarketError> {
        while let Some(Reverse(late)) = self.late.peek().copied().filter(|late| late.0.at_ms <= until_ms) {
            self.late.pop();
            let is_impression = late.billed.kind == EventKind::Impression;
            if is_impression && self.routers.is_down(late.router, late.at_ms) {
                self.accounts.deliver_free(&late.billed);
                self.routers.leasing.unheard_nanos += late.billed.nanos;
            } else if self.accounts.charge(late.at_ms, &late.billed)? {
                let bid_type = self.world.campaigns[late.billed.place as usize].bid_type;
                self.flights.charged(bid_type, late.at_ms - late.billed.issued_ms);
            } else if is_impression {
                self.routers.leasing.late_nanos += late.billed.nanos;
            }
        }
        Ok(())
    }

    /// The pacer's round of an instant, unless it was run, and the curves until then.
    fn pace(&mut self, at_ms: u64) -> Result<(), MarketError> {
        if at_ms <= self.paced_ms {
            return Ok(());
        }
        self.happen(at_ms)?;
        self.paced_ms = at_ms;
        if self.budgets == Budgets::Kept {
            // The books are those of this instant.
            self.accounts.enter(at_ms, Vec::new())?;
            self.decide(at_ms);
            self.throttle(at_ms);
        }
        self.note_until(at_ms);
        Ok(())
    }

    /// Looks at every campaign: what is in flight of what is billed later, and how its budget stands.
    fn decide(&mut self, at_ms: u64) {
        self.rounds += 1;
        let since_ms = self.arrivals.period(at_ms) * self.arrivals.period_days * DAY_MS;
        let (ages, share) = (self.flights.ages(), self.arrivals.share(at_ms));
        let means = self.controls.means();
        for ((campaign, seller), books) in (0u32..).zip(&self.world.campaigns).zip(&self.accounts.books()) {
            let place = campaign as usize;
            let mut in_flight = 0;
            if !is_held(seller.bid_type) {
                if self.rounds.is_multiple_of(COMPACT_ROUNDS) {
                    self.flights.compact(campaign, seller.bid_type, at_ms);
                }
                in_flight = self.flights.in_flight(campaign, seller.bid_type, (since_ms, at_ms), &ages);
            }
            // No event costs more than the bid in force.
            let most = price_nanos(seller.bid_type, self.controls.in_force(place, seller.bid_micros));
            let affordable = |sold: Sold| Sold { price_nanos: sold.price_nanos.min(most), ..sold };
            let look = Look {
                books,
                now: vec![(in_flight, share); books.paying.len()],
                sold: self.flights.sold(campaign).map(affordable),
                standing: Some(self.controls.standing(place)),
                means,
                goal: self.controls.goal(place),
            };
            self.controls.decide(place, &look);
        }
        self.controls.end_round();
        if self.arrivals.target(at_ms) > WARM_UP {
            self.controls.count();
        }
    }

    /// Steps of the published throttling until an instant.
    fn throttle(&mut self, at_ms: u64) {
        if self.args.pacing != PacingChoice::Linkedin {
            return;
        }
        let books = self.accounts.books();
        while self.throttled_ms + THROTTLE_MS <= at_ms {
            self.throttled_ms += THROTTLE_MS;
            let share = self.arrivals.share(self.throttled_ms);
            self.controls.throttle(books.iter().map(|books| {
                let account = books.paying.first().map(|paying| paying.account).unwrap_or_default();
                ((account.posted.0 + account.pending.0) as f64, account.deposited.0 as f64 * share)
            }));
        }
    }

    /// Notes the points of the curves until an instant.
    fn note_until(&mut self, at_ms: u64) {
        let noted = self.curves.first().map_or(POINTS, Vec::len);
        let due = (at_ms as f64 / self.arrivals.length_ms() as f64 * POINTS as f64) as usize;
        for _ in noted..due.min(POINTS) {
            for (place, (curve, multipliers)) in self.curves.iter_mut().zip(&mut self.multipliers).enumerate() {
                curve.push(self.accounts.total[place].charged);
                multipliers.push(self.controls.share_ppm(place));
            }
        }
    }

    /// What comes after the last visit.
    fn end(mut self) -> Result<Played, MarketError> {
        let length_ms = self.arrivals.length_ms();
        self.pass(length_ms - 1)?;
        self.routers.close(length_ms, &mut self.accounts)?;
        self.happen(u64::MAX)?;
        self.accounts.close()?;
        self.note_until(length_ms);
        let sale = |place: u32| (self.controls.goal(place as usize), self.flights.sold(place));
        Ok(Played {
            sales: (0..self.world.campaigns.len() as u32).map(sale).collect(),
            held_back: self.controls.held_back(),
            demand: self.demand.nanos,
            leasing: match paying(self.args, self.budgets) {
                Paying::Leases => Some(self.routers.leasing),
                Paying::Budgets => None,
            },
            accounts: self.accounts,
            curves: self.curves,
            multipliers: self.multipliers,
            rounds: self.rounds,
            totals: self.totals,
        })
    }

    /// A visit's auction, page and impressions.
    fn visit(&mut self, arrival: &Arrival, number: u64) -> Result<(), MarketError> {
        let Some(router) = self.routers.pick(arrival.at_ms) else { return Ok(()) };
        let auction = mix64(self.args.seed ^ mix64(number));
        let watching = (&self.controls, &self.demand);
        let drawn = candidates::draw(self.args, self.world, arrival, auction, watching, &mut self.random);
        let ranking = &drawn.ranking;
        let (clearing, mut held) = self.clear_and_hold(router, ranking, arrival.at_ms);
        let feed: Vec<Engagement> = (0..ORGANIC)
            .filter_map(|item| Engagement::from_units((1.0 - item as f64 / ORGANIC as f64) * 2.0 * self.uniform()))
            .collect();
        let visit = Visit { world: self.world, arrival, feed: &feed, rule: &self.rule, page: &self.page };
        self.demand.add(visit, &drawn);
        let page = allocate(&slot_ads(ranking, &clearing), &feed, &self.page);
        self.totals.auctions += 1;
        self.totals.candidates += ranking.len() as u64;
        self.totals.winners += clearing.winners.len() as u64;
        for placed in &page {
            let Entry::Ad(index) = placed.entry else { continue };
            let Some(winner) = clearing.winners.get(index) else { continue };
            let candidate = &ranking[winner.candidate];
            let nanos = price_nanos(candidate.offer().bid_type, priced_in_place(candidate, winner, placed).billed.0);
            let stands = held.iter().position(|(at, _)| *at == winner.candidate);
            let held = stands.map(|stands| held.swap_remove(stands).1);
            self.show(arrival, &Shown { router, candidate, slot: winner.slot, nanos, held })?;
        }
        for (at, held) in held {
            self.routers.release(router, &ranking[at], held, 0);
        }
        Ok(())
    }

    /// Clears the auction as routers do: an ad whose price cannot be held is taken out, and the auction cleared anew.
    fn clear_and_hold(&mut self, router: usize, ranking: &Ranking, at_ms: u64) -> (Clearing, Vec<(usize, Held)>) {
        let (mut failed, mut held): (Vec<_>, Vec<(usize, Held)>) = (Vec::new(), Vec::new());
        self.routers.see(router, ranking, at_ms);
        loop {
            let clearing = reclear_without(ranking, &self.rule, &failed);
            let mut lacking = None;
            for winner in &clearing.winners {
                let candidate = &ranking[winner.candidate];
                let is_there = held.iter().any(|(at, _)| *at == winner.candidate);
                if is_there || !is_held(candidate.offer().bid_type) {
                    continue;
                }
                match self.routers.hold(router, candidate, at_ms, &self.accounts) {
                    Some(money) => held.push((winner.candidate, money)),
                    None => lacking = lacking.or(Some(candidate.offer().ad)),
                }
            }
            match lacking {
                Some(ad) => {
                    // Another one that lacks money may not win any more, or is the next to be taken out.
                    self.routers.leasing.unleased += 1;
                    failed.push(ad);
                }
                None => return (clearing, held),
            }
        }
    }

    /// One impression and what follows from it.
    fn show(&mut self, arrival: &Arrival, shown: &Shown<'_>) -> Result<(), MarketError> {
        let offer = shown.candidate.offer();
        let ad = self.world.ads[offer.row as usize];
        let seen = seen_chance(shown.slot);
        let (click, conversion) = self.world.behaviour(arrival.household, ad.kind);
        let (predicted_click, predicted_conversion) = self.world.predicted(arrival.household, ad.kind);
        let clicked = self.uniform() < click * seen;
        let converted = clicked && self.uniform() < conversion;
        self.totals.impressions += 1;
        self.totals.clicks += u64::from(clicked);
        self.totals.conversions += u64::from(converted);
        self.totals.predicted_clicks += predicted_click * seen;
        // Events of a bid: a bid per mille is for a thousand.
        let events = charged_chance(offer.bid_type, (click, conversion), shown.slot)
            / if offer.bid_type == BidType::Cpm { 1_000.0 } else { 1.0 };
        let (is_billed, chance, kind) = match offer.bid_type {
            BidType::Cpm => (self.uniform() < seen, 0.0, EventKind::Impression),
            BidType::Cpc => (clicked, predicted_click * seen, EventKind::Click),
            BidType::Cpa | BidType::Ocpm | BidType::Ocpc => {
                let chance = predicted_click * predicted_conversion * seen;
                (converted, chance, EventKind::Conversion)
            }
        };
        self.totals.welfare_micros += self.world.campaigns[ad.campaign as usize].bid_micros as f64 * events;
        let bid_nanos = price_nanos(offer.bid_type, shown.candidate.billed(offer.bid).0);
        // An impression is held at its bid.
        let price = if is_held(offer.bid_type) { bid_nanos } else { shown.nanos };
        if self.budgets == Budgets::Kept {
            self.flights.serve(ad.campaign, arrival.at_ms, price, chance);
        }
        let lease = shown.held.and_then(|held| {
            self.routers.release(shown.router, shown.candidate, held, shown.nanos);
            match held {
                Held::Lease { id, wall_ms, .. } => Some((id, wall_ms)),
                Held::Budget => None,
            }
        });
        let (issuer, sequence) = self.routers.number(shown.router);
        let (place, issued_ms, nanos) = (ad.campaign, arrival.at_ms, shown.nanos);
        let billed = Billed { issuer, sequence, kind, place, issued_ms, lease, nanos, bid_nanos };
        if is_billed {
            return self.bill(billed, shown.router);
        }
        self.accounts.pass_unseen(&billed);
        Ok(())
    }

    /// An event that is billed: when does the ledger hear of it?
    fn bill(&mut self, billed: Billed, router: usize) -> Result<(), MarketError> {
        let at_ms = match billed.kind {
            EventKind::Impression if billed.lease.is_none() => {
                // Nothing is held for it: it is charged at once.
                self.accounts.charge(billed.issued_ms, &billed)?;
                return Ok(());
            }
            EventKind::Impression => self.routers.reported_ms(billed.issued_ms),
            EventKind::Click => Some(billed.issued_ms + self.delay_ms(CLICK_MS)),
            EventKind::Conversion => Some(billed.issued_ms + self.delay_ms(CONVERSION_MS)),
        };
        match at_ms {
            Some(at_ms) => self.late.push(Reverse(Late { at_ms, billed, router })),
            None => {
                self.accounts.deliver_free(&billed);
                self.routers.leasing.lost_nanos += billed.nanos;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;
    use super::*;
    use gavel_proto::ids::AdId;
    use gavel_proto::money::Micros;
    use gavel_router::merge::Offer;

    /// Three winners without a lease were counted when the auction was cleared, and those that were left again each time
    /// that it was cleared anew: six times.
    #[test]
    fn each_winner_without_a_lease_is_counted_once() {
        let args = args();
        let world = World::made_up(3, args.seed);
        let arrivals = Arrivals::draw(&args, &world);
        let nobody = Demand::of_nobody(world.campaigns.len());
        let mut play = Play::new(&args, &world, &arrivals, Budgets::Kept, nobody).expect("a play");
        let offers = [(1, BidType::Cpm), (2, BidType::Cpm), (3, BidType::Cpc), (4, BidType::Cpm)]
            .map(|(ad, bid_type)| Offer::plain(AdId(ad), bid_type, Micros(10_000 - ad), 1_000_000_000_000));
        let candidates = offers.map(|offer| Candidate::new(offer).expect("valid"));
        let ranking = Ranking::sorted(&candidates).expect("distinct");
        let (clearing, held) = play.clear_and_hold(0, &ranking, 0);
        let winners: Vec<AdId> = clearing.winners.iter().map(|w| ranking[w.candidate].offer().ad).collect();
        assert_eq!((winners, held), (vec![AdId(3)], vec![]), "a click needs no lease");
        assert_eq!(play.routers.leasing.unleased, 3);
    }
}
