//! What does the candidate of a shadow rollout say of what was just served?
//!
//! After the answer has gone, the candidate scores the items of the ads that the shards returned, on the same nodes and
//! with the same terms, and both lists are compared. Nothing of it is shown. It runs beside requests, a few at a time:
//! when there is no room it is left out, so that a shadow never holds a request up.

use super::compare::{ScoredAd, compare};
use super::frequency::Screened;
use super::stages::Plan;
use super::{Pipeline, stages};
use crate::fanout::Hedging;
use crate::request::{AdQuery, RequestError};
use crate::staging::{Compared, Pinned};
use crate::transport::{FeatureAnswer, Gathered, SearchTerms};
use gavel_member::clock::now_us;
use gavel_proto::deadline::{Deadline, Instant};
use gavel_proto::limits::{CANDIDATES_MAX, DEADLINE_MS_MAX};
use std::collections::HashSet;
use std::sync::Arc;

/// Shadow requests at a time: each costs a user part and the ranking of a few dozen items.
pub(super) const AT_A_TIME: usize = 4;
/// Each has the longest time that a request may have, less what comes after its shards.
const TIME_US: u64 = DEADLINE_MS_MAX * 900;

/// What is scored again.
pub(super) struct Served {
    query: AdQuery,
    shadow: Arc<Pinned>,
    terms: Arc<SearchTerms>,
    slots: usize,
    random: u64,
    ads: Vec<ScoredAd>,
    ranking: Ranking,
}

/// What ranking took, over all shards.
#[derive(Clone, Copy)]
struct Ranking {
    us: u64,
    candidates: u64,
}

impl Ranking {
    fn of(gathered: &Gathered) -> Self {
        let us = gathered.bodies.values().map(|body| body.timing.rank_us).sum();
        Self { us, candidates: gathered.bodies.values().map(|body| body.funnel.ranked).sum() }
    }

    /// Of so many candidates: the active bundle ranked more of them than the shadow was given.
    fn us_for(self, candidates: u64) -> u64 {
        self.us.saturating_mul(candidates).checked_div(self.candidates).unwrap_or(0)
    }
}

impl Served {
    /// Keeps what the shards returned.
    pub(super) fn of(
        query: &AdQuery,
        (active, shadow): (&Pinned, &Arc<Pinned>),
        plan: &Plan,
        gathered: &Gathered,
    ) -> Box<Self> {
        Box::new(Self {
            query: query.clone(),
            shadow: Arc::clone(shadow),
            terms: Arc::clone(&plan.terms),
            slots: plan.rule.terms().slots,
            random: plan.random,
            ads: scored(active, gathered),
            ranking: Ranking::of(gathered),
        })
    }
}

impl Pipeline {
    /// Scores what was served with the candidate, if there is room.
    pub(super) fn start_shadow(self: &Arc<Self>, served: Box<Served>) {
        let Ok(room) = Arc::clone(&self.shadows).try_acquire_owned() else {
            metrics::counter!("gavel_router_shadows_total", "outcome" => "no_room").increment(1);
            return;
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let compared = this.shadow(&served).await;
            let outcome = if compared.is_ok() { "compared" } else { "failed" };
            metrics::counter!("gavel_router_shadows_total", "outcome" => outcome).increment(1);
            if let Err(error) = &compared {
                tracing::debug!(%error, "a shadow request failed");
            }
            this.staging.windows().record_shadow(compared.ok().as_ref(), now_us());
            drop(room);
        });
    }

    async fn shadow(&self, served: &Served) -> Result<Compared, RequestError> {
        let pinned = &*served.shadow;
        let ends_at = Instant(now_us().0 + TIME_US);
        let user = self.user_row(pinned, &served.query).await?;
        let part = self.user_part(pinned, user.row.clone(), Deadline(ends_at)).await?;
        let items: HashSet<u64> = served.ads.iter().map(|ad| ad.candidate.offer().item.0).collect();
        let mut given: Vec<u64> = items.into_iter().collect();
        given.sort_unstable();
        given.truncate(CANDIDATES_MAX as usize);
        // At most CANDIDATES_MAX.
        let count = given.len().max(1) as u32;
        let terms = SearchTerms {
            epoch: pinned.table.epoch,
            model_hash: pinned.bundle.hash(),
            partition_hash: pinned.bundle.partition_hash(),
            query: part.query,
            user_part: part.part,
            sets: user.sets,
            quota: count,
            light_keep: count,
            given,
            features: FeatureAnswer::Unasked,
            ..SearchTerms::clone(&served.terms)
        };
        let gathered =
            self.transport.search(&pinned.table, Arc::new(terms), Hedging::Off, ends_at, served.random).await;
        let whole = AdQuery { coverage_parts_min: 10_000, ..served.query.clone() };
        stages::coverage(&gathered, &whole, self.bank.authority(), &Screened::default())?;
        let rule = pinned.auction.rule(served.slots).map_err(|e| RequestError::Fault(e.to_string()))?;
        let compared = compare(&served.ads, &scored(pinned, &gathered), &rule);
        let compared = compared.ok_or_else(|| RequestError::Fault("no ad was scored by both".to_owned()))?;
        let us = |ranking: Ranking| ranking.us_for(compared.candidates);
        Ok(Compared { rank_us: (us(served.ranking), us(Ranking::of(&gathered))), ..compared })
    }
}

/// Every candidate with its click prediction.
fn scored(pinned: &Pinned, gathered: &Gathered) -> Vec<ScoredAd> {
    let click = stages::click_head(pinned);
    let of_shard = |body: &crate::transport::ShardBody| {
        let clicks: Vec<f32> = click.into_iter().flat_map(|name| body.predictions.column(name)).collect();
        let one = |candidate: &crate::merge::Candidate| {
            let click = clicks.get(candidate.offer().row as usize).copied().unwrap_or(0.0);
            ScoredAd { candidate: *candidate, click }
        };
        body.list.candidates.iter().map(one).collect::<Vec<_>>()
    };
    gathered.bodies.values().flat_map(of_shard).collect()
}
