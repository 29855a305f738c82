//! What does each stage of a request do?

use super::Pipeline;
use super::frequency::Screened;
use super::trace::RequestTrace;
use crate::allocation::AllocationRule;
use crate::auction::{AuctionRule, Clearing};
use crate::clearing::{ClearingInputs, LoggedCandidate, Served};
use crate::fanout::Hedging;
use crate::features::{UserRow, user_row};
use crate::ledger::Authority;
use crate::merge::{Candidate, MergeError, Ranking, merge as merge_lists};
use crate::request::{AdQuery, RequestError};
use crate::respond::{Answer, Decided, Entry, FunnelReport, SlateEntry, Timings, engagement, placed_winners, slate};
use crate::staging::{Choice, Pinned, Placement, Shown};
use crate::transport::{AskedFor, Creative, CreativeKey, FeatureAnswer, Gathered, SearchTerms, Shape};
use gavel_member::clock::{now_us, wall_ms};
use gavel_model::{FeatureRow, HeadRole, UserOutput};
use gavel_proto::coverage::{Coverage, ShardOutcome, ShardSeen};
use gavel_proto::deadline::{Deadline, Instant};
use gavel_proto::hash::combine;
use gavel_proto::ids::{AuctionId, ItemId};
use gavel_proto::money::{BidType, Leased};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Without a grant of the ledger nobody holds budgets: ads go on, and the answer says so (decision 20).
const NO_BUDGET_AUTHORITY: u32 = 128;
/// Nobody could say how often the user has seen what is counted: none of it was served (decision 16).
pub(super) const NO_FREQUENCY_COUNTS: u32 = 256;
/// What creatives leave of the deadline for the way back.
const WAY_BACK_US: u64 = 1_000;

/// What was decided before the first send.
pub(super) struct Plan {
    /// What every shard is asked.
    pub terms: Arc<SearchTerms>,
    /// How the auction is run.
    pub rule: AuctionRule,
    /// Who says what this router may spend, the same from the first stage to the last.
    pub authority: Authority,
    /// A throw of the dice: replica choice, and the name of a request without one.
    pub random: u64,
    /// The user's features, of a request whose scores are logged.
    pub logged: Option<FeatureRow>,
}

/// A request on its way.
pub(super) struct Course<'a> {
    pub pinned: &'a Pinned,
    pub query: &'a AdQuery,
    pub placement: &'a Placement,
    pub plan: &'a Plan,
}

/// The placement that the request names.
pub(super) fn placement<'a>(pinned: &'a Pinned, query: &AdQuery) -> Result<&'a Placement, RequestError> {
    let Some(placement) = pinned.placement(&query.placement) else {
        let known: Vec<&str> = pinned.placements.iter().take(8).map(|p| p.name.as_str()).collect();
        let known = known.join(", ");
        return Err(RequestError::Invalid(format!(
            "placement {:?} is not configured: name one of [{known}], or add it with `gavel ctl`",
            query.placement
        )));
    };
    if query.slots > placement.slots {
        return Err(RequestError::Invalid(format!(
            "slots is {}: placement {} has {}",
            query.slots, placement.name, placement.slots
        )));
    }
    Ok(placement)
}

/// What the answers show of the bundle that scored them.
pub(super) fn shown(pinned: &Pinned, gathered: &Gathered, coverage: &Coverage) -> Shown {
    let mut shown = Shown { coverage_parts: coverage.parts, ..Shown::default() };
    let click = click_head(pinned);
    for body in gathered.bodies.values() {
        shown.ranked += body.funnel.ranked;
        shown.non_finite += body.funnel.non_finite;
        shown.predictions.extend(click.into_iter().flat_map(|name| body.predictions.column(name)));
    }
    shown
}

/// Clicks that are expected of the ads on the page that pay for them.
pub(super) fn expected_clicks(pinned: &Pinned, slate: &[SlateEntry]) -> f64 {
    let Some(head) = click_head(pinned) else { return 0.0 };
    let pay_for_clicks = [BidType::Cpc, BidType::Ocpc].map(BidType::number);
    let predicted = slate.iter().filter_map(|placed| match &placed.entry {
        Entry::Ad(ad) if !ad.token.is_empty() && pay_for_clicks.contains(&ad.bid_type_number) => {
            ad.predictions.iter().find(|p| p.head == head).map(|p| p.value)
        }
        Entry::Ad(_) | Entry::Organic { .. } => None,
    });
    predicted.sum()
}

/// The name of the head that predicts clicks.
pub(super) fn click_head(pinned: &Pinned) -> Option<&str> {
    let schema = pinned.bundle.schema();
    schema.head(HeadRole::Click).and_then(|at| schema.heads.get(at)).map(|head| head.name.as_str())
}

impl Pipeline {
    /// What the request is answered from: by its user, by its own name, or by a throw of the dice.
    pub(super) fn choose(&self, query: &AdQuery) -> Result<Choice, RequestError> {
        let choice = match (&query.user_id, query.request_id.as_str()) {
            (Some(user), _) => self.staging.choose(user),
            (None, "") => self.staging.choose(&self.throw().to_string()),
            (None, id) => self.staging.choose(id),
        };
        choice.ok_or(RequestError::NotReady)
    }

    /// The next throw of the dice.
    pub(super) fn throw(&self) -> u64 {
        let (seed, throws) = &self.dice;
        combine(*seed, throws.fetch_add(1, Ordering::Relaxed))
    }

    /// The user's features and what the model makes of them.
    pub(super) async fn user(
        &self,
        pinned: &Pinned,
        query: &AdQuery,
        trace: &mut RequestTrace,
    ) -> Result<(UserRow, UserOutput), RequestError> {
        let user = self.user_row(pinned, query).await?;
        trace.features(now_us());
        let part = self.user_part(pinned, user.row.clone(), query.deadline).await?;
        trace.user_tower(now_us());
        Ok((user, part))
    }

    /// Features of the user, from the request and the store.
    pub(super) async fn user_row(&self, pinned: &Pinned, query: &AdQuery) -> Result<UserRow, RequestError> {
        let stored = match &query.user_id {
            None => None,
            Some(id) => pinned.users.get(id).await.unwrap_or_else(|error| {
                tracing::error!(%error, "the user store failed: defaults stand in");
                None
            }),
        };
        if query.user_id.is_some() && stored.is_none() {
            metrics::counter!("gavel_router_users_unknown_total").increment(1);
        }
        let row = user_row(pinned.bundle.schema(), stored.as_deref(), query)?;
        for spec in row.missing.iter().filter_map(|at| pinned.bundle.schema().user.get(*at)) {
            // At most 256 names, and all of them the bundle's.
            metrics::counter!("gavel_router_features_missing_total", "feature" => spec.name.clone()).increment(1);
        }
        metrics::counter!("gavel_router_features_unknown_total").increment(u64::from(row.unknown));
        Ok(row)
    }

    /// The user tower and the user-only tensors, on the router's own threads.
    pub(super) async fn user_part(
        &self,
        pinned: &Pinned,
        row: FeatureRow,
        deadline: Deadline,
    ) -> Result<UserOutput, RequestError> {
        let bundle = Arc::clone(&pinned.bundle);
        let work = self.pool.submit(move |scratch| bundle.run_user(scratch, &row));
        let work = work.map_err(|_| RequestError::Full("user part"))?;
        let left = Duration::from_micros(deadline.left_us(now_us()));
        match tokio::time::timeout(left, work).await {
            Ok(Ok(Ok(output))) => Ok(output),
            Ok(Ok(Err(error))) => Err(RequestError::Fault(format!("the user part: {error}"))),
            Ok(Err(_)) => Err(RequestError::Fault("a thread of the user part is gone".to_owned())),
            Err(_) => Err(RequestError::Late("the user part")),
        }
    }

    /// What every shard is asked, and how the auction will be run.
    pub(super) fn plan(
        &self,
        (pinned, query): (&Pinned, &AdQuery),
        placement: &Placement,
        (user, part): (UserRow, UserOutput),
        screened: &Screened,
        asked_for: AskedFor,
    ) -> Result<Plan, RequestError> {
        let random = self.throw();
        let authority = self.bank.authority();
        let auction = &pinned.auction;
        let slots = if query.slots == 0 { placement.slots } else { query.slots };
        let rule = auction.rule(slots as usize).map_err(|e| RequestError::Fault(e.to_string()))?;
        let schema = pinned.bundle.schema();
        let resolved = pinned.dimensions.resolve(&query.terms)?;
        metrics::counter!("gavel_router_terms_unknown_total").increment(u64::from(resolved.unknown));
        let reserve =
            if placement.reserve_cpm_micros == 0 { auction.reserve_cpm_micros } else { placement.reserve_cpm_micros };
        // 0 would mean "draw one" in a replay.
        let auction_id = AuctionId(query.seed.unwrap_or(random.max(1)));
        let is_logged = asked_for == AskedFor::Candidates && self.logs.scored.samples(auction_id);
        let unix_s = query.unix_s.unwrap_or_else(|| i64::try_from(wall_ms() / 1_000).unwrap_or(i64::MAX));
        let mut blocked = query.blocked.clone();
        blocked.campaigns.extend(pinned.excluded.at(unix_s));
        let terms = SearchTerms {
            given: Vec::new(),
            features: if is_logged { FeatureAnswer::Asked } else { FeatureAnswer::Unasked },
            auction_id,
            epoch: pinned.table.epoch,
            model_hash: pinned.bundle.hash(),
            partition_hash: pinned.bundle.partition_hash(),
            query: part.query,
            user_part: part.part,
            sets: user.sets,
            terms: resolved.terms,
            unix_s,
            blocked,
            screen: screened.screen.clone(),
            leased: if authority == Authority::Lost { Leased::Out } else { Leased::Admitted },
            quota: pinned.quota,
            light_keep: pinned.light_keep,
            shape: Shape {
                slots,
                // Limits of more than the slots never bind.
                per_advertiser: u32::try_from(auction.per_advertiser).unwrap_or(u32::MAX),
                per_category: auction.per_category.map_or(0, |limit| u32::try_from(limit).unwrap_or(u32::MAX)),
                tie_key: auction.tie_key,
                reserve_cpm_micros: reserve,
                neighbours: auction.neighbours,
                quality: auction.quality,
                cascade: auction.cascade_ppm,
            },
            click_head: schema.head(HeadRole::Click).map(|head| schema.heads[head].name.clone()),
            asked_for,
        };
        Ok(Plan { terms: Arc::new(terms), rule, authority, random, logged: is_logged.then_some(user.row) })
    }

    /// Asks the shards; what comes after them keeps its reserve of the deadline.
    pub(super) async fn fan_out(
        &self,
        pinned: &Pinned,
        plan: &Plan,
        deadline: Deadline,
        hedging: Hedging,
    ) -> Result<Gathered, RequestError> {
        let now = now_us();
        let time = deadline.for_shards(now).ok_or(RequestError::Late("the stages before the shards"))?;
        let ends_at = Instant(now.0 + time);
        let terms = Arc::clone(&plan.terms);
        let gathered = self.transport.search(&pinned.table, terms, hedging, ends_at, plan.random).await;
        metrics::histogram!("gavel_router_node_cpu_us").record(gathered.node_cpu_us as f64);
        Ok(gathered)
    }

    /// The winners' creatives, as far as they come in time.
    pub(super) async fn creatives(
        &self,
        pinned: &Pinned,
        decided: &Decided,
        gathered: &Gathered,
        deadline: Deadline,
    ) -> HashMap<ItemId, Creative> {
        let key = |winner: crate::auction::Winner| {
            let offer = decided.ranking[winner.candidate].offer();
            let node = gathered.bodies.get(&offer.shard)?.node;
            Some(CreativeKey { node, shard: offer.shard, item: offer.item })
        };
        let mut keys: Vec<CreativeKey> = placed_winners(decided).filter_map(|(_, winner)| key(winner)).collect();
        keys.sort_by_key(|k| (k.shard, k.item));
        keys.dedup();
        let budget_us = deadline.left_us(now_us()).saturating_sub(WAY_BACK_US);
        if keys.is_empty() || budget_us == 0 {
            return HashMap::new();
        }
        let creatives = self.transport.creatives(&keys, pinned.table.epoch, budget_us).await;
        let absent = keys.len().saturating_sub(creatives.len());
        metrics::counter!("gavel_router_creatives_absent_total").increment(absent as u64);
        creatives
    }
}

/// One ranking of all shards; a shard whose list cannot be merged is left out and costs coverage.
pub(super) fn merge(pinned: &Pinned, gathered: &mut Gathered) -> Ranking {
    loop {
        let error = match merge_lists(pinned.table.epoch, gathered.bodies.values().map(|body| &body.list)) {
            Ok(ranking) => return ranking,
            Err(error) => error,
        };
        metrics::counter!("gavel_router_lists_refused_total").increment(1);
        tracing::error!(%error, "a shard's list is left out");
        let outcome = match error {
            MergeError::MixedEpoch { .. } => ShardOutcome::VersionUnavailable,
            MergeError::AnsweredTwice { .. } | MergeError::OutOfOrder { .. } | MergeError::Duplicate { .. } => {
                ShardOutcome::Failed
            }
        };
        let shard = error.shard();
        gathered.bodies.remove(&shard);
        for end in gathered.ends.iter_mut().filter(|end| end.shard == shard) {
            end.seen = ShardSeen { seen: 0, outcome, ..end.seen };
            end.call = None;
        }
    }
}

/// The coverage, if it suffices.
pub(super) fn coverage(
    gathered: &Gathered,
    query: &AdQuery,
    authority: Authority,
    screened: &Screened,
) -> Result<Coverage, RequestError> {
    let seen: Vec<ShardSeen> = gathered.ends.iter().map(|end| end.seen).collect();
    let mut coverage = Coverage::of(&seen);
    if coverage.ok < coverage.total {
        metrics::counter!("gavel_router_degraded_total").increment(1);
    }
    if coverage.parts < query.coverage_parts_min {
        return Err(RequestError::Coverage { found: coverage.parts, wanted: query.coverage_parts_min });
    }
    if authority != Authority::Granted {
        coverage.reasons |= NO_BUDGET_AUTHORITY;
    }
    if screened.is_unknown() {
        coverage.reasons |= NO_FREQUENCY_COUNTS;
    }
    Ok(coverage)
}

/// The winners' places on the page.
pub(super) fn allocate(course: &Course<'_>, ranking: Ranking, clearing: Clearing, gathered: &Gathered) -> Decided {
    Decided::place(ranking, clearing, &course.query.organic, &page_rule(course), &gathered.bodies)
}

fn page_rule(course: &Course<'_>) -> AllocationRule {
    let slots = course.plan.rule.terms().slots;
    AllocationRule {
        positions: course.query.organic.len() + slots,
        first_position: course.placement.first_position,
        min_gap: course.placement.min_gap,
        max_ads: slots,
        max_load_ppm: course.placement.max_load_ppm,
        shadow_bid: course.pinned.auction.shadow_bid,
        gap_effect_ppm: course.pinned.auction.gap_effect_ppm.clone(),
        category_spacing: course.placement.category_spacing,
    }
}

/// Everything that the clearing was made from, and what came out.
pub(super) fn clearing(course: &Course<'_>, decided: &Decided, gathered: &Gathered) -> (ClearingInputs, Served) {
    let logged =
        |candidate: &Candidate| LoggedCandidate::new(candidate.offer(), engagement(candidate, &gathered.bodies));
    let Decided { ranking, clearing, page } = decided.clone();
    let inputs = ClearingInputs {
        format: crate::clearing::FORMAT,
        request_id: request_id(course),
        auction_id: course.plan.terms.auction_id,
        tie_key_id: course.pinned.auction.tie_key.id(),
        epoch: course.pinned.table.epoch,
        terms: course.plan.rule.terms().clone(),
        page: page_rule(course),
        organic: course.query.organic.iter().map(|item| item.engagement).collect(),
        failed: decided.clearing.failed.clone(),
        candidates: decided.ranking.iter().map(logged).collect(),
    };
    (inputs, Served { ranking, clearing, page })
}

/// The caller's, or made here.
fn request_id(course: &Course<'_>) -> String {
    match course.query.request_id.as_str() {
        "" => format!("{:016x}", course.plan.random),
        id => id.to_owned(),
    }
}

/// The answer.
pub(super) fn respond(
    course: &Course<'_>,
    decided: &Decided,
    gathered: &Gathered,
    coverage: Coverage,
    creatives: &HashMap<ItemId, Creative>,
    trace: &RequestTrace,
) -> Answer {
    let mut shards: Vec<_> = gathered.bodies.values().map(|body| body.timing.clone()).collect();
    shards.sort_by_key(|timing| timing.shard);
    Answer {
        request_id: request_id(course),
        slate: slate(decided, &course.query.organic, &gathered.bodies, creatives),
        coverage: coverage.into(),
        epoch: course.pinned.table.epoch.into(),
        funnel: funnel(decided, gathered),
        timings: Timings { shards, ..trace.timings() },
        auction_id: course.plan.terms.auction_id.0,
    }
}

fn funnel(decided: &Decided, gathered: &Gathered) -> FunnelReport {
    let mut funnel = FunnelReport {
        merged: decided.ranking.len() as u64,
        winners: decided.clearing.winners.len() as u64,
        placed: decided.placed() as u64,
        ..FunnelReport::default()
    };
    for body in gathered.bodies.values() {
        funnel.items_seen += body.funnel.items_seen;
        funnel.eligible += body.funnel.eligible_ads;
        funnel.retrieved += body.funnel.retrieved;
        funnel.light_kept += body.funnel.light_kept;
        funnel.ranked += body.funnel.ranked;
        funnel.scored += body.funnel.scored;
        funnel.returned += body.funnel.returned;
    }
    funnel
}
