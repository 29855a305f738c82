//! When does the pacer look, and how do its decisions get out?
//!
//! Every five seconds, on the voter that leads the control state, from its own copy of the ledger. A round runs on a thread
//! of its own, in pages, and what comes of it goes out as changes to delivery. A leader that is new listens first, until
//! every router that lives has reported, and for three rounds at most: without what is in flight, budgets that are gone
//! would seem to be back. A voter that hears no leader of the ledger decides nothing: what it holds grows old, and what
//! stands goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gavel_member::clock;
use gavel_proto::delivery::{BidStrategy, Change, Override, Pacing, group_bid};
use gavel_proto::ids::CampaignId;
use gavel_proto::limits::DELIVERY_CHANGES_MAX;
use gavel_proto::money::{BidType, Nanos, PPM};
use gavel_proto::pacing::Arrivals;
use gavel_proto::wire;

use crate::catalogue::is_paused;
use crate::pacing::books::{Books, Paying, leased, page};
use crate::pacing::heard::{ProcessId, Sold};
use crate::pacing::traffic::{Curves, Traffic};
use crate::pacing::{Budget, Decision, Goal, Look, Means, Pacer, budget, since_s};
use crate::rpc::{Desk, Leader, LedgerVoter, Voter};
use crate::state::command::{Body, PublishDelivery};
use crate::state::types::{Outcome, Role};

/// Between two rounds: with reports every two seconds, decisions are not older than ten.
const ROUND: Duration = Duration::from_secs(5);
/// Rounds that a new leader listens at most. Ours: a router that lives reports within one.
const LISTEN_ROUNDS: u32 = 3;
/// Campaigns, leases and reports that are looked at under one lock.
const PAGE: usize = 1_024;
/// Rounds between two looks for what routers served too long ago.
const FORGET_ROUNDS: u64 = 64;

/// What a round needs, to take along to its thread.
struct Round {
    voter: Arc<Voter>,
    books: Arc<LedgerVoter>,
    desk: Arc<Desk>,
    number: u64,
}

/// What came of a round.
#[derive(Debug, Default)]
struct Concluded {
    /// Of campaigns of which something is said already.
    known: Vec<Change>,
    /// Of others.
    new: Vec<Change>,
    gone: usize,
    in_flight: i64,
}

impl Concluded {
    /// The changes as they go out: flags of budgets first, and none of a known campaign with one of a new campaign. Of
    /// these the state refuses all together when something is said of as many campaigns as may be.
    fn parts(&mut self) -> impl Iterator<Item = &[Change]> {
        for changes in [&mut self.known, &mut self.new] {
            changes.sort_by_key(|change| change.out_of_budget.is_none());
        }
        self.known.chunks(DELIVERY_CHANGES_MAX).chain(self.new.chunks(DELIVERY_CHANGES_MAX))
    }
}

/// Paces while this voter leads.
pub async fn pace_on(voter: &Arc<Voter>, books: &Arc<LedgerVoter>, desk: &Arc<Desk>) {
    let (mut led_term, mut pacer, mut number, mut listened) = (None, Pacer::default(), 0, 0);
    loop {
        tokio::time::sleep(ROUND).await;
        let term = (voter.leader() == Leader::Own).then(|| voter.core.raft.metrics().borrow().current_term);
        if term != led_term {
            (led_term, pacer, listened) = (term, Pacer::default(), 1);
            tell(&Concluded::default(), &pacer);
            continue;
        }
        let Some(term) = term else { continue };
        if !books.core.is_led() {
            metrics::counter!("gavel_pacing_blind_total").increment(1);
            continue;
        }
        desk.heard().attend(term);
        if listened < LISTEN_ROUNDS && !has_heard_all(voter, desk) {
            listened += 1;
            continue;
        }
        listened = LISTEN_ROUNDS;
        number += 1;
        let round = Round { voter: Arc::clone(voter), books: Arc::clone(books), desk: Arc::clone(desk), number };
        let concluded = tokio::task::spawn_blocking(move || {
            let began = clock::now_us();
            let concluded = round.conclude(&mut pacer);
            metrics::histogram!("gavel_pacing_round_us").record(clock::now_us().0.saturating_sub(began.0) as f64);
            (concluded, pacer)
        });
        let concluded = match concluded.await {
            Ok((concluded, back)) => {
                pacer = back;
                concluded
            }
            Err(error) if error.is_panic() => {
                // What it held may be half of something; what stands goes on.
                tracing::error!(%error, "a round of the pacer failed: it begins anew");
                pacer = Pacer::default();
                continue;
            }
            // The runtime is going down.
            Err(_) => return,
        };
        tell(&concluded, &pacer);
        publish(voter, concluded).await;
    }
}

/// Whether every router that lives has reported to this leader.
fn has_heard_all(voter: &Voter, desk: &Desk) -> bool {
    let applied = voter.machine.applied();
    let heard = desk.heard();
    let mut routers = applied.state.members.values().filter(|m| m.role == Role::Router && m.alive && !m.draining);
    routers.all(|router| heard.has_heard(ProcessId { member: router.id, incarnation: router.incarnation }))
}

fn tell(concluded: &Concluded, pacer: &Pacer) {
    metrics::gauge!("gavel_pacing_campaigns_count").set(pacer.followed() as f64);
    metrics::gauge!("gavel_pacing_gone_count").set(concluded.gone as f64);
    metrics::gauge!("gavel_pacing_in_flight_nanos").set(concluded.in_flight as f64);
}

/// Proposes changes; what is not taken is concluded again in the next round.
async fn publish(voter: &Voter, mut concluded: Concluded) {
    for part in concluded.parts() {
        let wish = PublishDelivery { changes: part.to_vec(), ..PublishDelivery::default() };
        match voter.propose_own(&Body::PublishDelivery(wish)).await.map(|written| written.data) {
            Ok(Outcome::Done(version)) => {
                metrics::counter!("gavel_pacing_changes_total").increment(part.len() as u64);
                tracing::debug!(version, campaigns = part.len(), "the pacer's decisions are published");
            }
            Ok(Outcome::Refused(reason)) => tracing::warn!(reason, "the pacer's decisions are not taken"),
            Err(error) => {
                tracing::debug!(?error, "the pacer's decisions are not committed");
                return;
            }
        }
    }
}

impl Round {
    /// Looks at every campaign with a budget.
    fn conclude(&self, pacer: &mut Pacer) -> Concluded {
        let leased = self.leased();
        let now_ms = self.books.machine.applied().state.wall_ms;
        let (arrivals, traffic) = {
            let heard = self.desk.heard();
            let (parts, dropped) = heard.counts();
            metrics::gauge!("gavel_pacing_parts_count").set(parts as f64);
            metrics::counter!("gavel_pacing_dropped_total").absolute(dropped);
            (heard.arrivals(), heard.traffic())
        };
        let mut curves = Curves::new(Traffic::of(&traffic, now_ms));
        let (mut concluded, mut after) = (Concluded::default(), None);
        // Of a campaign that the catalogue does not have nothing can be said; until it is read nothing is.
        let Some(catalogue) = self.voter.catalogue.borrow().clone() else { return concluded };
        loop {
            let books = page(&self.books.machine.applied().state, after, PAGE, &leased);
            let Some(last) = books.last() else { break };
            after = Some(last.campaign);
            let standing = self.standing(&books);
            for (books, said) in books.iter().zip(&standing) {
                let Some(campaign) = catalogue.campaigns.get(&books.campaign.0) else { continue };
                let look = self.look(books, (campaign, said.as_ref()), (&arrivals, &mut curves), now_ms);
                concluded.gone += usize::from(budget(&look) == Budget::Gone);
                let in_flight = look.now.iter().map(|(in_flight, _)| *in_flight).max().unwrap_or(0);
                concluded.in_flight = concluded.in_flight.saturating_add(in_flight);
                let changes = if said.is_some() { &mut concluded.known } else { &mut concluded.new };
                changes.extend(pacer.decide(&look).map(|decision| change(books.campaign, &decision, said.as_ref())));
            }
        }
        pacer.end_round();
        if self.number.is_multiple_of(FORGET_ROUNDS) {
            self.forget(now_ms);
        }
        concluded
    }

    /// What routers may still serve from open leases.
    fn leased(&self) -> BTreeMap<CampaignId, Nanos> {
        let (mut sums, mut after): (BTreeMap<CampaignId, Nanos>, u64) = (BTreeMap::new(), 0);
        loop {
            let (rests, last) = leased(&self.books.machine.applied().state, after, PAGE);
            for (campaign, rest) in rests {
                let sum = sums.entry(campaign).or_default();
                *sum = Nanos(sum.0.saturating_add(rest.0));
            }
            match last {
                Some(last) => after = last,
                None => return sums,
            }
        }
    }

    /// What was said of a page's campaigns.
    fn standing(&self, books: &[Books]) -> Vec<Option<Override>> {
        let applied = self.voter.machine.applied();
        books.iter().map(|books| applied.state.delivery.overrides.get(&books.campaign.0).cloned()).collect()
    }

    /// What there is to know of one campaign.
    fn look<'a>(
        &self,
        books: &'a Books,
        (campaign, said): (&wire::Campaign, Option<&Override>),
        (arrivals, curves): (&Arrivals, &mut Curves),
        now_ms: u64,
    ) -> Look<'a> {
        let now_s = u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX);
        let heard = self.desk.heard();
        let one = |paying: &Paying| {
            let in_flight = heard.in_flight(books.campaign, since_s(paying), now_s, arrivals);
            (in_flight, paying.span_ms.map_or(0.0, |span| curves.share(span, now_ms)))
        };
        let now = books.paying.iter().map(one).collect();
        Look {
            books,
            now,
            sold: heard.sold(books.campaign).map(|sold| affordable(sold, campaign, said)),
            standing: said.map(standing),
            means: match said.and_then(|said| said.pacing) {
                Some(Pacing::Throttle) => Means::Participation,
                Some(Pacing::Bid) | None => Means::Bid,
            },
            goal: match said.and_then(|said| said.strategy) {
                // A catalogue that was loaded since may have another bid type: its events are no conversions.
                Some(BidStrategy::TargetCpa(target)) if bids_for_conversions(campaign) => Goal::Cost(target),
                Some(BidStrategy::TargetCpa(_) | BidStrategy::MostConversions | BidStrategy::Fixed) | None => Goal::Bid,
            },
        }
    }

    /// Lets go of what routers served too long ago.
    fn forget(&self, now_ms: u64) {
        let now_s = u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX);
        let mut after = None;
        loop {
            after = self.desk.heard().forget(after, PAGE, now_s);
            if after.is_none() {
                return;
            }
        }
    }
}

/// What was sold, at a price of no more than the highest bid in force: no event costs more, whatever one cost when the bid
/// was higher. A bid per mille in micros is one impression's in nanos; where a conversion is bid for and something more
/// frequent is billed, that costs the bid at most.
fn affordable(sold: Sold, campaign: &wire::Campaign, said: Option<&Override>) -> Sold {
    let bid_micros = highest_bid(campaign, said);
    let nanos = match BidType::from_number(campaign.bid_type) {
        Some(BidType::Cpm) => bid_micros,
        Some(BidType::Cpc | BidType::Cpa | BidType::Ocpm | BidType::Ocpc) | None => bid_micros.saturating_mul(1_000),
    };
    Sold { price_nanos: sold.price_nanos.min(i64::try_from(nanos).unwrap_or(i64::MAX)), ..sold }
}

/// The highest bid in force of a campaign: its ads bid its own, or that of their ad group unless that is paused.
fn highest_bid(campaign: &wire::Campaign, said: Option<&Override>) -> u64 {
    let own = group_bid(said, 0, 0, campaign.bid_micros);
    let live = campaign.ad_groups.iter().filter(|group| !is_paused(group, said));
    let bids = live.map(|group| group_bid(said, group.ad_group_id, group.bid_micros, campaign.bid_micros));
    bids.fold(own, u64::max)
}

/// Whether the bid of a campaign is for a conversion.
fn bids_for_conversions(campaign: &wire::Campaign) -> bool {
    BidType::from_number(campaign.bid_type).is_some_and(BidType::is_for_conversions)
}

/// What stands of what the pacer says.
fn standing(said: &Override) -> Decision {
    Decision {
        multiplier_ppm: said.multiplier_ppm.unwrap_or(PPM),
        throttle_ppm: said.throttle_ppm.unwrap_or(PPM),
        auto_bid_micros: said.auto_bid_micros.unwrap_or(0),
        budget: if said.out_of_budget { Budget::Gone } else { Budget::Left },
    }
}

/// A decision as a change: only what is another than stands.
fn change(campaign: CampaignId, decision: &Decision, said: Option<&Override>) -> Change {
    let stands = said.map(standing).unwrap_or_default();
    Change {
        campaign: campaign.0,
        multiplier_ppm: (decision.multiplier_ppm != stands.multiplier_ppm).then_some(decision.multiplier_ppm),
        throttle_ppm: (decision.throttle_ppm != stands.throttle_ppm).then_some(decision.throttle_ppm),
        auto_bid_micros: (decision.auto_bid_micros != stands.auto_bid_micros).then_some(decision.auto_bid_micros),
        out_of_budget: (decision.budget != stands.budget).then_some(decision.budget == Budget::Gone),
        ..Change::default()
    }
}

#[cfg(test)]
mod tests {
    use gavel_proto::delivery::{GroupOverride, Status};

    use super::*;
    use crate::ledger::Account;
    use crate::ledger::calendar::{Period, Span};

    fn campaign(bid_type: BidType, bid_micros: u64) -> wire::Campaign {
        wire::Campaign { bid_type: bid_type.number(), bid_micros, ..Default::default() }
    }

    fn bid(bid_micros: u64) -> Override {
        Override { bid_micros: Some(bid_micros), ..Override::default() }
    }

    #[test]
    fn an_event_costs_the_bid_in_force_at_most() {
        let price = |sold_nanos, campaign: &wire::Campaign, said: Option<&Override>| {
            let sold = Sold { spend_nanos: 5, events_nano: 6, price_nanos: sold_nanos };
            let after = affordable(sold, campaign, said);
            assert_eq!((after.spend_nanos, after.events_nano), (5, 6));
            after.price_nanos
        };
        let (cpc, cpm) = (campaign(BidType::Cpc, 900), campaign(BidType::Cpm, 900));
        assert_eq!([price(800_000, &cpc, None), price(1_200_000, &cpc, None)], [800_000, 900_000]);
        assert_eq!([price(800, &cpm, None), price(1_200, &cpm, None)], [800, 900]);
        assert_eq!(price(1_200_000, &cpc, Some(&bid(500))), 500_000);
        let auto = Override { strategy: Some(BidStrategy::TargetCpa(400)), auto_bid_micros: Some(700), ..bid(500) };
        assert_eq!(price(1_200_000, &campaign(BidType::Ocpm, 900), Some(&auto)), 700_000);
        assert_eq!(price(1_200_000, &campaign(BidType::Cpa, u64::MAX), None), 1_200_000);
    }

    /// A group that bids more than its campaign may cost more, as long as it is not paused.
    #[test]
    fn the_highest_bid_is_that_of_a_group_that_is_not_paused() {
        let group = |ad_group_id, bid_micros, paused| wire::AdGroup { ad_group_id, bid_micros, paused };
        let ad_groups = vec![group(3, 700, false), group(4, 0, false), group(5, 990, true)];
        let campaign = wire::Campaign { ad_groups, ..campaign(BidType::Cpc, 500) };
        assert_eq!(highest_bid(&campaign, None), 700);
        assert_eq!(highest_bid(&campaign, Some(&bid(800))), 800);
        let said = |ad_group, bid_micros, status| {
            let group = GroupOverride { bid_micros, status };
            Override { ad_groups: vec![(ad_group, group)], ..Override::default() }
        };
        assert_eq!(highest_bid(&campaign, Some(&said(3, None, Some(Status::Paused)))), 500);
        assert_eq!(highest_bid(&campaign, Some(&said(4, Some(900), None))), 900);
        assert_eq!(highest_bid(&campaign, Some(&said(5, None, Some(Status::Active)))), 990);
        let auto = Override { strategy: Some(BidStrategy::TargetCpa(1)), auto_bid_micros: Some(400), ..bid(500) };
        assert_eq!(highest_bid(&campaign, Some(&auto)), 400, "a strategy bids for all of them");
    }

    /// A click cost more than the budget of a day. The bid is lowered, and nothing was sold since: it stayed out.
    #[test]
    fn a_campaign_that_is_gone_comes_back_when_its_bid_is_lowered() {
        let budget_nanos = Nanos(1_000_000);
        let account = Account { deposited: budget_nanos, available: budget_nanos, ..Account::default() };
        let period = Period { span: Span::Day, number: 20_000 };
        let paying = vec![Paying { period, account, span_ms: Some((20_000 * 86_400_000, 86_400_000)) }];
        let books = Books { campaign: CampaignId(3), paying, leased: Nanos::ZERO };
        let gone = Override { out_of_budget: true, ..bid(1_500) };
        let look = |said: &Override| {
            let sold = Sold { spend_nanos: 0, events_nano: 0, price_nanos: 1_200_000 };
            budget(&Look {
                books: &books,
                now: vec![(0, 0.5)],
                sold: Some(affordable(sold, &campaign(BidType::Cpc, 1_500), Some(said))),
                standing: Some(standing(said)),
                means: Means::Bid,
                goal: Goal::Bid,
            })
        };
        assert_eq!(look(&gone), Budget::Gone);
        assert_eq!(look(&Override { bid_micros: Some(900), ..gone }), Budget::Left);
    }

    #[test]
    fn flags_of_known_campaigns_go_out_first_and_new_ones_apart() {
        let change = |campaign, out_of_budget| Change { campaign, out_of_budget, ..Change::default() };
        let many = (100..).take(DELIVERY_CHANGES_MAX).map(|id| change(id, None));
        let mut concluded = Concluded {
            known: many.chain([change(1, Some(true)), change(2, Some(false))]).collect(),
            new: vec![change(3, None), change(4, Some(true))],
            ..Concluded::default()
        };
        let parts: Vec<Vec<u64>> = concluded.parts().map(|part| part.iter().map(|c| c.campaign).collect()).collect();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [DELIVERY_CHANGES_MAX, 2, 2]);
        assert_eq!((&parts[0][..3], &parts[2][..]), (&[1, 2, 100][..], &[4, 3][..]));
    }
}
