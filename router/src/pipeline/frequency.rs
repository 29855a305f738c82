//! What may this user not see any more, and is there an impression left for each winner?
//!
//! Before the fan-out, beside the user's features, the user's counts are asked for and compared with the pinned rules:
//! what is at its cap travels with the search and leaves before the shard's cut, so it sets no price (decision 12). When
//! nobody says what the user has seen, everything that is counted leaves, and the answer says so.
//!
//! After the auction each winner that is counted takes an impression. One that is refused, by another request of the
//! same user a moment ago, is taken out like one without money. What was taken and does not come to stand on the page,
//! or whose client has gone, is given back. An explanation asks in the same way what would be granted, and takes nothing.

use super::Pipeline;
use crate::auction::Clearing;
use crate::merge::Ranking;
use crate::request::AdQuery;
use crate::staging::Pinned;
use crate::transport::{AskedFor, Grant, Reservation, Taking, Transport};
use gavel_member::clock::now_us;
use gavel_proto::deadline::Deadline;
use gavel_proto::frequency::{Capped, Owners, RuleBook, Screen, owners};
use gavel_proto::hash::value_hash;
use gavel_proto::ids::AdId;
use std::sync::Arc;

/// Of the time that is left, for a question after counts: a fifth, for a node that answers in a millisecond.
const PATIENCE_SHARE: u64 = 5;
/// And at most so long: a request with much time does not wait for a dead node.
const PATIENCE_US_MAX: u64 = 40_000;

/// What is known of the counts of a request's user.
#[derive(Clone, Debug, Default)]
pub(super) struct Screened {
    /// What the search leaves out.
    pub screen: Screen,
    /// Who counts for the user; `None` when nothing is counted for this request.
    counting: Option<(Owners, u64)>,
    /// Whether anybody could say.
    unknown: bool,
}

impl Screened {
    /// True when everything that is counted had to be left out.
    pub(super) const fn is_unknown(&self) -> bool {
        self.unknown
    }
}

impl Pipeline {
    /// Asks what the request's user has seen; nothing when it has none, or no campaign has a rule.
    #[tracing::instrument(level = "debug", name = "frequency", skip_all)]
    pub(super) async fn screen(&self, pinned: &Pinned, query: &AdQuery) -> Screened {
        let Some(user) = query.user_id.as_deref().filter(|_| !pinned.rules.is_empty()) else {
            return Screened::default();
        };
        let user = value_hash(user);
        let owners = owners(&pinned.counting, user);
        let counting = Some((owners, user));
        match self.transport.seen(owners, user, patience_us(query.deadline)).await {
            Some(seen) => {
                let screen = pinned.rules.screen(&seen);
                if let Screen::Capped(Capped { campaigns, ads }) = &screen {
                    let capped = campaigns.len() + ads.len();
                    metrics::counter!("gavel_router_frequency_capped_total").increment(capped as u64);
                }
                Screened { screen, counting, unknown: false }
            }
            None => {
                metrics::counter!("gavel_router_frequency_unknown_total").increment(1);
                Screened { screen: pinned.rules.without_counted(), counting, unknown: true }
            }
        }
    }

    /// Takes impressions for the winners of a request that is answered with ads.
    pub(super) fn impressions<'a>(
        &'a self,
        (pinned, query): (&'a Pinned, &AdQuery),
        screened: &Screened,
        reservation: u64,
        asked_for: AskedFor,
    ) -> Impressions<'a> {
        let taking = match asked_for {
            AskedFor::Candidates => Taking::Takes,
            AskedFor::Reasons | AskedFor::Everything | AskedFor::EverythingExactly => Taking::Looks,
        };
        Impressions {
            transport: &self.transport,
            rules: &pinned.rules,
            counting: screened.counting,
            reservation,
            deadline: query.deadline,
            taking,
            taken: Vec::new(),
            refused: Vec::new(),
            unanswered: false,
        }
    }
}

fn patience_us(deadline: Deadline) -> u64 {
    (deadline.left_us(now_us()) / PATIENCE_SHARE).min(PATIENCE_US_MAX)
}

/// The impressions that one request has taken. What is not served is given back, also when the request is dropped.
pub(super) struct Impressions<'a> {
    transport: &'a Arc<Transport>,
    rules: &'a RuleBook,
    counting: Option<(Owners, u64)>,
    reservation: u64,
    deadline: Deadline,
    taking: Taking,
    /// Places in the ranking, with their ads.
    taken: Vec<(usize, AdId)>,
    /// Winners that got none.
    refused: Vec<AdId>,
    /// Nobody answered: whoever wins next is not asked for, but refused.
    unanswered: bool,
}

impl<'a> Impressions<'a> {
    /// Of a request for which nothing is counted.
    #[cfg(test)]
    pub(super) fn uncounted(transport: &'a Arc<Transport>, rules: &'a RuleBook) -> Self {
        let deadline = Deadline(gavel_proto::deadline::Instant(0));
        Self {
            transport,
            rules,
            counting: None,
            reservation: 0,
            deadline,
            taking: Taking::Takes,
            taken: Vec::new(),
            refused: Vec::new(),
            unanswered: false,
        }
    }
}

impl Impressions<'_> {
    /// Winners that got none so far.
    pub(super) fn refused(&self) -> Vec<AdId> {
        self.refused.clone()
    }

    /// Takes one for each winner that is counted and has none yet; the ads that get none, the first slot first.
    #[tracing::instrument(level = "debug", name = "frequency_reserve", skip_all)]
    pub(super) async fn take(&mut self, ranking: &Ranking, clearing: &Clearing) -> Vec<AdId> {
        let refused = self.ask(ranking, clearing).await;
        if !refused.is_empty() {
            tracing::debug!(ads = refused.len(), "winners get no impression");
        }
        if self.taking == Taking::Takes {
            metrics::counter!("gavel_router_frequency_refused_total").increment(refused.len() as u64);
        }
        self.refused.extend(&refused);
        refused
    }

    async fn ask(&mut self, ranking: &Ranking, clearing: &Clearing) -> Vec<AdId> {
        let Some((owners, user)) = self.counting else { return Vec::new() };
        let (mut places, mut ads) = (Vec::new(), Vec::new());
        for winner in clearing.winners.iter().filter(|w| !self.taken.iter().any(|(place, _)| *place == w.candidate)) {
            let offer = ranking[winner.candidate].offer();
            let counters = self.rules.counters(offer.ad, offer.campaign, offer.advertiser);
            if !counters.is_empty() {
                places.push((winner.candidate, offer.ad));
                ads.push((offer.ad.0, offer.campaign.0, counters));
            }
        }
        if ads.is_empty() || self.unanswered {
            return places.into_iter().map(|(_, ad)| ad).collect();
        }
        if self.taking == Taking::Takes {
            // Before it is known whether they count: a request that ends meanwhile gives them back.
            self.taken.extend(&places);
        }
        let wanted = Reservation { user, id: self.reservation, ads, taking: self.taking };
        let granted = self.transport.reserve(owners, &wanted, patience_us(self.deadline)).await;
        let is_granted = |at: usize| granted.as_ref().is_some_and(|grants| grants.get(at) == Some(&Grant::Granted));
        let refused: Vec<(usize, AdId)> =
            places.iter().enumerate().filter(|(at, _)| !is_granted(*at)).map(|(_, place)| *place).collect();
        if granted.is_none() {
            self.unanswered = true;
            // Either node may have counted them all the same.
            self.give_back(|place| !self.taken.iter().any(|(taken, _)| *taken == place), &refused);
        }
        self.taken.retain(|place| !refused.contains(place));
        refused.into_iter().map(|(_, ad)| ad).collect()
    }

    /// Gives back what does not stand on the page; the rest has been served.
    pub(super) fn serve(mut self, stands: impl Fn(usize) -> bool) {
        let taken = std::mem::take(&mut self.taken);
        self.give_back(stands, &taken);
    }

    fn give_back(&self, stands: impl Fn(usize) -> bool, taken: &[(usize, AdId)]) {
        let Some((owners, user)) = self.counting else { return };
        let ads = taken.iter().filter(|(place, _)| !stands(*place)).map(|(_, ad)| ad.0).collect();
        self.transport.release(owners, user, self.reservation, ads);
    }
}

impl Drop for Impressions<'_> {
    fn drop(&mut self) {
        self.give_back(|_| false, &self.taken);
    }
}
