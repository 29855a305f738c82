//! How far is what is served from what is exact?
//!
//! For measuring, not for serving: one request is answered as always, then its shards are asked twice more under the
//! same epoch and auction, once for every ad that the served retrieval scored and once for an exact retrieval. Who asks
//! for it gets a third answer, in which every eligible item was ranked: what retrieval and its cuts cost is seen there.

use super::{Pipeline, stages};
use crate::fanout::Hedging;
use crate::merge::Candidate;
use crate::request::{Arrival, Draft, RequestError, parse};
use crate::respond::{Answer, Explanation};
use crate::staging::AuctionSettings;
use crate::transport::{AskedFor, Gathered, SearchTerms};
use gavel_member::clock::now_us;
use gavel_proto::deadline::{Deadline, Instant};
use gavel_proto::ids::{AdId, AuctionId, ShardId};
use gavel_proto::limits::{CANDIDATES_MAX, MEASURED_ITEMS_MAX, MEASURED_MS_MAX, PROBE_MS};
use std::sync::Arc;

/// Time of a search that ranks everything; a node runs none longer than [`MEASURED_MS_MAX`].
const EXHAUSTIVE_MS: u64 = MEASURED_MS_MAX - 1_000;

/// One request, answered as served and exactly.
#[derive(Debug)]
pub struct Probed {
    /// As served.
    pub answer: Answer,
    /// Ads that won and could not be served: the auction was cleared anew without them.
    pub removed: Vec<AdId>,
    /// How the auction was run.
    pub auction: AuctionSettings,
    /// Its slots.
    pub slots: usize,
    /// Its id.
    pub auction_id: AuctionId,
    /// By shard.
    pub shards: Vec<ProbedShard>,
}

/// One shard's part.
#[derive(Debug)]
pub struct ProbedShard {
    /// The shard.
    pub shard: ShardId,
    /// Of the served retrieval.
    pub plan: String,
    /// Items with an eligible ad.
    pub eligible_items: u64,
    /// What the served retrieval found.
    pub served: Vec<u64>,
    /// What the exact one found with similarities, best first.
    pub exact: Vec<(u64, f32)>,
    /// Every scored ad of the served retrieval.
    pub scored: Vec<Candidate>,
    /// Every scored ad when every eligible item is ranked; empty unless asked for.
    pub exhaustive: Vec<Candidate>,
}

/// What a probe compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// With an exact retrieval.
    Retrieval,
    /// Also with a ranking of every eligible item.
    Everything,
}

impl Pipeline {
    /// Answers a request twice.
    ///
    /// # Errors
    /// See [`RequestError`]; [`RequestError::Coverage`] when a shard did not answer one of the three in full, and
    /// [`RequestError::Late`] when nobody said what the user has seen, because then nothing can be compared.
    pub async fn probe(
        &self,
        draft: Draft,
        arrival: Arrival,
        (top, depth): (u32, Depth),
    ) -> Result<Probed, RequestError> {
        if draft.seed == 0 {
            return Err(RequestError::Invalid("seed is 0: give one, so that both answers break ties alike".to_owned()));
        }
        let _scan = self.gate.enter_scan()?;
        let draft = Draft { min_coverage: 1.0, ..draft };
        let query = parse(draft.clone(), arrival)?;
        let pinned = self.staging.pin().ok_or(RequestError::NotReady)?;
        // As the answer will find them: its own impressions count afterwards.
        let screened = self.screen(&pinned, &query).await;
        let arrival = Arrival { at: now_us(), patience_us: None };
        let Explanation { response: answer, removed, .. } = self.answer(draft, arrival, AskedFor::Candidates).await?.0;
        if answer.epoch != pinned.table.epoch.into() {
            return Err(RequestError::Fault("the epoch changed under the probe: try again".to_owned()));
        }
        if screened.is_unknown() || answer.coverage.degraded_reasons & stages::NO_FREQUENCY_COUNTS != 0 {
            // One of them left out all that is counted, and the others may not have.
            return Err(RequestError::Late("the question what the user has seen"));
        }
        let placement = stages::placement(&pinned, &query)?;
        let user = self.user_row(&pinned, &query).await?;
        let part = self.user_part(&pinned, user.row.clone(), late_deadline()).await?;
        let plan = self.plan((&pinned, &query), placement, (user, part), &screened, AskedFor::Everything)?;
        let ask = async |terms: SearchTerms, within_ms: u64| {
            let ends_at = Instant(now_us().0 + within_ms * 1_000);
            let gathered =
                self.transport.search(&pinned.table, Arc::new(terms), Hedging::Off, ends_at, plan.random).await;
            stages::coverage(&gathered, &query, plan.authority, &screened)?;
            Ok(gathered)
        };
        let served = ask(SearchTerms::clone(&plan.terms), PROBE_MS).await?;
        let top = top.clamp(1, CANDIDATES_MAX);
        let exactly = |quota: u32, light_keep: u32| SearchTerms {
            asked_for: AskedFor::EverythingExactly,
            quota,
            light_keep,
            ..SearchTerms::clone(&plan.terms)
        };
        // Only what was retrieved is compared.
        let exact = ask(exactly(top, 1), PROBE_MS).await?;
        let exhaustive = match depth {
            Depth::Retrieval => None,
            Depth::Everything => Some(ask(exactly(MEASURED_ITEMS_MAX, MEASURED_ITEMS_MAX), EXHAUSTIVE_MS).await?),
        };
        let shards = shards(served, exact, exhaustive.unwrap_or_default());
        let slots = plan.rule.terms().slots;
        let (auction, auction_id) = (pinned.auction.clone(), plan.terms.auction_id);
        Ok(Probed { answer, removed, auction, slots, auction_id, shards })
    }
}

fn late_deadline() -> Deadline {
    Deadline(Instant(now_us().0 + PROBE_MS * 1_000))
}

fn shards(mut served: Gathered, mut exact: Gathered, mut exhaustive: Gathered) -> Vec<ProbedShard> {
    let ends = std::mem::take(&mut served.ends);
    let one = |shard: ShardId| {
        let served = served.bodies.remove(&shard)?;
        let exact = exact.bodies.remove(&shard)?;
        Some(ProbedShard {
            shard,
            plan: served.timing.plan,
            eligible_items: served.funnel.eligible_items,
            served: served.retrieved.into_iter().map(|(item, _)| item).collect(),
            exact: exact.retrieved,
            scored: served.list.candidates,
            exhaustive: exhaustive.bodies.remove(&shard).map(|body| body.list.candidates).unwrap_or_default(),
        })
    };
    ends.into_iter().map(|end| end.shard).filter_map(one).collect()
}
