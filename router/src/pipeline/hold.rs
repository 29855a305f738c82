//! Is there money behind each winner, and what goes out with it?
//!
//! An ad that is billed at its impression is held at its bid before anything is served; one whose lease has nothing left
//! is taken out and the auction cleared anew, so that it sets no price (decision 12). Once the page is made, what was held
//! too much goes back. Ads that are billed later hold nothing: the ledger caps what they are charged. Beside the money
//! each winner that is counted takes an impression ([`super::frequency`]).

use super::frequency::Impressions;
use crate::auction::{AuctionRule, Clearing, reclear_without};
use crate::ledger::{Authority, Bank, Held, Sale, purse::Hold};
use crate::merge::{Candidate, Ranking};
use crate::respond::{Decided, Entry, SlateEntry, placed_winners};
use gavel_proto::cut::SPARE;
use gavel_proto::ids::{AdId, CampaignId};

/// What one request holds. A request that is dropped before its page is made, because its client is gone, gives all of
/// it back.
pub(super) struct Holds<'a> {
    bank: &'a Bank,
    authority: Authority,
    held: Vec<Held>,
}

impl<'a> Holds<'a> {
    /// Nothing.
    pub(super) const fn none(bank: &'a Bank) -> Self {
        Self::under(bank, Authority::Never)
    }

    const fn under(bank: &'a Bank, authority: Authority) -> Self {
        Self { bank, authority, held: Vec::new() }
    }
}

impl Drop for Holds<'_> {
    fn drop(&mut self) {
        self.held.iter().for_each(|held| release(self.bank, held, 0));
    }
}

/// The ranking without what could not be charged for. Shards leave it out before their cut; of one that does not, all
/// of it goes before the auction is cleared: as failed winners they would leave every slot beyond the spare ones empty.
pub(super) fn chargeable(ranking: Ranking, authority: Authority) -> Ranking {
    match authority {
        Authority::Granted | Authority::Never => ranking,
        Authority::Lost => {
            let ranked = ranking.len();
            let ranking = ranking.without(|candidate| is_leased(&candidate));
            metrics::counter!("gavel_router_unleased_total").increment((ranked - ranking.len()) as u64);
            ranking
        }
    }
}

/// Clears the auction of [`chargeable`] ads, holds the price of each winner that is billed at its impression, and takes
/// an impression for each that is counted.
pub(super) async fn clear_and_hold<'a>(
    (bank, authority): (&'a Bank, Authority),
    impressions: &mut Impressions<'_>,
    ranking: &Ranking,
    rule: &AuctionRule,
) -> (Clearing, Holds<'a>) {
    let mut failed = Vec::new();
    let mut holds = Holds::under(bank, authority);
    if authority == Authority::Granted {
        bank.see(ranking.iter().filter(is_leased).map(|c| (c.offer().campaign, held_at_most(c))));
    }
    loop {
        let clearing = reclear_without(ranking, rule, &failed);
        match holds.hold(ranking, &clearing) {
            Some(ad) => {
                metrics::counter!("gavel_router_unleased_total").increment(1);
                failed.push(ad);
            }
            None => {
                let refused = impressions.take(ranking, &clearing).await;
                if refused.is_empty() {
                    holds.keep(&clearing);
                    return (clearing, holds);
                }
                failed.extend(refused);
            }
        }
        // A slot that is beyond the spare ones stays empty, so this ends with the slots.
        debug_assert!(failed.len() <= SPARE + ranking.len(), "each ad fails once");
    }
}

/// Clears the auction as [`clear_and_hold`] does, and takes neither money nor impressions.
pub(super) async fn clear_and_look(
    (bank, authority): (&Bank, Authority),
    impressions: &mut Impressions<'_>,
    ranking: &Ranking,
    rule: &AuctionRule,
) -> Clearing {
    let mut failed = Vec::new();
    loop {
        let clearing = reclear_without(ranking, rule, &failed);
        match unpaid((bank, authority), ranking, &clearing) {
            Some(ad) => failed.push(ad),
            None => {
                let refused = impressions.take(ranking, &clearing).await;
                if refused.is_empty() {
                    return clearing;
                }
                failed.extend(refused);
            }
        }
    }
}

/// The first winner for which nothing could be held, beside what those before it take.
fn unpaid((bank, authority): (&Bank, Authority), ranking: &Ranking, clearing: &Clearing) -> Option<AdId> {
    let mut wanted: Vec<(CampaignId, Vec<i64>)> = Vec::new();
    for candidate in clearing.winners.iter().map(|winner| &ranking[winner.candidate]).filter(is_leased) {
        let campaign = candidate.offer().campaign;
        let at = wanted.iter().position(|(of, _)| *of == campaign).unwrap_or(wanted.len());
        if at == wanted.len() {
            wanted.push((campaign, Vec::new()));
        }
        wanted[at].1.push(held_at_most(candidate));
        let could = match authority {
            Authority::Granted => bank.could_hold(campaign, &wanted[at].1),
            Authority::Never => true,
            Authority::Lost => false,
        };
        if !could {
            return Some(candidate.offer().ad);
        }
    }
    None
}

impl Holds<'_> {
    /// Holds the price of each winner that is billed at its impression and has none held yet; the first ad that nothing
    /// can be held for.
    fn hold(&mut self, ranking: &Ranking, clearing: &Clearing) -> Option<AdId> {
        if self.authority == Authority::Never {
            return None;
        }
        let mut lacking = None;
        for winner in &clearing.winners {
            let candidate = &ranking[winner.candidate];
            if !is_leased(&candidate) || self.held.iter().any(|h| h.candidate == winner.candidate) {
                continue;
            }
            let campaign = candidate.offer().campaign;
            let held = match self.authority {
                Authority::Granted => self.bank.hold(campaign, held_at_most(candidate)),
                Authority::Never | Authority::Lost => None,
            };
            match held {
                Some(hold) => self.held.push(Held { candidate: winner.candidate, campaign, hold }),
                None => lacking = lacking.or(Some(candidate.offer().ad)),
            }
        }
        lacking
    }

    /// Gives back what is held for ads that do not win any more.
    fn keep(&mut self, clearing: &Clearing) {
        let wins = |held: &Held| clearing.winners.iter().any(|w| w.candidate == held.candidate);
        let (kept, gone): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held).into_iter().partition(wins);
        gone.iter().for_each(|held| release(self.bank, held, 0));
        self.held = kept;
    }
}

/// What all tokens of a request say.
#[derive(Clone, Copy)]
pub(super) struct Named {
    /// The auction.
    pub(super) auction: u64,
    /// Hash of the request's id.
    pub(super) request: u64,
    /// Version of the bundle that scored it.
    pub(super) model: u64,
    /// The step of the rollout that runs; 0 = none.
    pub(super) trial: u64,
}

/// Settles the holds at the prices of the page and the impressions by who stands on it, and seals a token for each that does.
pub(super) fn seal(
    decided: &Decided,
    rule: &AuctionRule,
    (mut holds, impressions): (Holds<'_>, Impressions<'_>),
    named: Named,
    slate: &mut [SlateEntry],
) {
    impressions.serve(|place| placed_winners(decided).any(|(_, winner)| winner.candidate == place));
    let Named { auction, request, model, trial } = named;
    let (bank, held) = (holds.bank, std::mem::take(&mut holds.held));
    for held in &held {
        let standing = placed_winners(decided).find(|(_, winner)| winner.candidate == held.candidate);
        let price = standing.map_or(0, |(_, winner)| i64::try_from(winner.billed.0).unwrap_or(i64::MAX));
        release(bank, held, price);
    }
    for (position, winner) in placed_winners(decided) {
        let candidate = &decided.ranking[winner.candidate];
        let hold = held.iter().find(|h| h.candidate == winner.candidate).map(|h| h.hold);
        let factor_ppm = rule.factor(winner.slot);
        let sale = Sale { candidate, winner, auction, request, model, trial, hold, factor_ppm };
        bank.deliver(&sale);
        let token = bank.token(&sale);
        let entry = slate.iter_mut().find(|entry| entry.position as usize == position);
        if let Some(Entry::Ad(report)) = entry.map(|entry| &mut entry.entry) {
            report.token = token;
        }
    }
}

/// Gives back what was held beyond a price.
fn release(bank: &Bank, held: &Held, price: i64) {
    if let Hold::Lease { id, nanos, .. } = held.hold {
        bank.release(held.campaign, id, nanos.saturating_sub(price));
    }
}

fn is_leased(candidate: &&Candidate) -> bool {
    candidate.offer().bid_type.is_billed_by_impression()
}

/// The most that one impression may cost, in nanos: a price per mille in micros is one impression's in nanos.
fn held_at_most(candidate: &Candidate) -> i64 {
    i64::try_from(candidate.billed(candidate.offer().bid).0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auction::{AuctionTerms, Mechanism};
    use crate::merge::Offer;
    use crate::transport::{Nodes, Transport};
    use gavel_proto::frequency::RuleBook;
    use gavel_proto::money::{BidType, Micros};
    use std::sync::Arc;

    fn candidate(id: u64, bid_type: BidType, bid: u64) -> Candidate {
        Candidate::new(Offer::plain(AdId(id), bid_type, Micros(bid), 1_000_000_000_000)).expect("valid")
    }

    fn rule() -> AuctionRule {
        AuctionRule::new(AuctionTerms::plain(Mechanism::FirstPrice, 2)).expect("a rule")
    }

    async fn winners(bank: &Bank, offers: &[Candidate]) -> Vec<u64> {
        let (transport, rules) = (Transport::new(Arc::new(Nodes::default())), RuleBook::default());
        let ranking = chargeable(Ranking::sorted(offers).expect("one list"), bank.authority());
        let mut impressions = Impressions::uncounted(&transport, &rules);
        let (clearing, _) = clear_and_hold((bank, bank.authority()), &mut impressions, &ranking, &rule()).await;
        let seen = clear_and_look((bank, bank.authority()), &mut impressions, &ranking, &rule()).await;
        assert_eq!(seen, clearing, "who looks sees what is served");
        clearing.winners.iter().map(|winner| ranking[winner.candidate].offer().ad.0).collect()
    }

    /// Ad 1 pays for its impression and bids the most. Before there was ever a ledger it wins; with one that has not
    /// granted an issuer nothing could be charged for it, and it neither wins nor sets a price.
    #[tokio::test]
    async fn what_cannot_be_charged_stays_out() {
        let offers =
            [candidate(1, BidType::Cpm, 900), candidate(2, BidType::Cpc, 800), candidate(3, BidType::Cpa, 700)];
        assert_eq!(winners(&Bank::off(), &offers).await, [1, 2]);
        assert_eq!(winners(&Bank::lost(), &offers).await, [2, 3]);
    }

    /// More of them than are spare leave no slot empty.
    #[tokio::test]
    async fn any_number_of_ads_that_cannot_be_charged_leaves_no_slot_empty() {
        let leased = (1..=2 + SPARE as u64).map(|id| candidate(id, BidType::Ocpm, 1_000 - id));
        let offers: Vec<Candidate> =
            leased.chain([candidate(8, BidType::Cpc, 200), candidate(9, BidType::Cpa, 100)]).collect();
        assert_eq!(winners(&Bank::off(), &offers).await, [1, 2]);
        assert_eq!(winners(&Bank::lost(), &offers).await, [8, 9]);
    }
}
