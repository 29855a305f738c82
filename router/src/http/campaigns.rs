//! How are campaigns managed over HTTP and JSON?
//!
//! `GET /v1/campaigns` and `GET /v1/campaigns/ID` say what is in force, `PATCH /v1/campaigns/ID` changes one and
//! `POST /v1/campaigns:batch` several, all or nothing. A write carries an `Idempotency-Key`; under the same key the same
//! wish is answered as before. Amounts are integers in micros of the currency.

mod groups;

use self::groups::{GroupDraft, ShownGroup};
use super::{bytes, failure, json};
use crate::campaigns::Desk;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use gavel_proto::code::Code;
use gavel_proto::limits::AD_REQUEST_BYTES_MAX;
use gavel_proto::money::BidType;
use gavel_proto::wire;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tonic::Status;

/// The routes.
pub fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/campaigns", get(list))
        .route("/v1/campaigns/{id}", get(one).patch(patch))
        .route("/v1/campaigns:batch", post(batch))
        .layer(DefaultBodyLimit::max(AD_REQUEST_BYTES_MAX))
        .with_state(desk)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    limit: u32,
}

async fn list(State(desk): State<Arc<Desk>>, Query(page): Query<Page>) -> Response {
    let query = wire::CampaignQuery { after: page.after, limit: page.limit, ..Default::default() };
    answered(desk.list(query).await.map(|list| {
        let after = list.campaigns.last().map(|campaign| campaign.campaign_id).filter(|_| list.more);
        let campaigns = list.campaigns.iter().map(Shown::of).collect();
        ShownPage { campaigns, next_after: after, delivery_version: list.version, generation: list.generation }
    }))
}

async fn one(State(desk): State<Arc<Desk>>, Path(id): Path<u64>) -> Response {
    let query = wire::CampaignQuery { campaigns: vec![id], ..Default::default() };
    match desk.list(query).await {
        Ok(list) => match list.campaigns.first() {
            Some(campaign) => json(StatusCode::OK, &Shown::of(campaign)),
            None => answered::<()>(Err(Status::not_found(format!("campaign {id} is not known")))),
        },
        Err(status) => answered::<()>(Err(status)),
    }
}

async fn patch(State(desk): State<Arc<Desk>>, Path(id): Path<u64>, headers: HeaderMap, body: Body) -> Response {
    let bytes = match bytes(body).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let draft: Draft = match serde_json::from_slice(&bytes) {
        Ok(draft) => draft,
        Err(e) => return invalid(&format!("the body is no change of a campaign: {e}: see docs/campaigns.md")),
    };
    let wait_ms = draft.wait_ms;
    carry_out(&desk, &headers, vec![(id, draft)], wait_ms).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    updates: Vec<BatchDraft>,
    #[serde(default)]
    wait_ms: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchDraft {
    campaign: u64,
    change: Draft,
}

async fn batch(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Body) -> Response {
    let bytes = match bytes(body).await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let batch: Batch = match serde_json::from_slice(&bytes) {
        Ok(batch) => batch,
        Err(e) => return invalid(&format!("the body is no list of changes: {e}: see docs/campaigns.md")),
    };
    if batch.updates.iter().any(|update| update.change.wait_ms != 0) {
        return invalid("wait_ms stands beside updates: all of them are waited for together");
    }
    let drafts = batch.updates.into_iter().map(|update| (update.campaign, update.change)).collect();
    carry_out(&desk, &headers, drafts, batch.wait_ms).await
}

async fn carry_out(desk: &Desk, headers: &HeaderMap, drafts: Vec<(u64, Draft)>, wait_ms: u32) -> Response {
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if key.is_empty() {
        return invalid("give the header Idempotency-Key: the same one when you send the same change again");
    }
    let updates: Result<Vec<_>, String> = drafts.into_iter().map(|(id, draft)| draft.update(id)).collect();
    let updates = match updates {
        Ok(updates) => updates,
        Err(text) => return invalid(&text),
    };
    let request = wire::CampaignUpdates { request_id: key.to_owned(), updates, wait_ms, ..Default::default() };
    answered(desk.update(request).await.map(|done| Updated {
        delivery_version: done.version,
        effective: done.effective,
        behind: done.behind,
    }))
}

/// A change as it is written in JSON; what is absent stays.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Draft {
    /// Takes back what operators said, before the rest.
    reset: bool,
    bid_micros: Option<u64>,
    status: Option<StatusWord>,
    schedule: Option<ScheduleDraft>,
    strategy: Option<StrategyDraft>,
    pacing: Option<PacingWord>,
    frequency: Option<Vec<RuleDraft>>,
    /// Those that change.
    ad_groups: Vec<GroupDraft>,
    budgets: Option<BudgetsDraft>,
    wait_ms: u32,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum StatusWord {
    Active,
    Paused,
}

impl StatusWord {
    const fn of(is_paused: bool) -> Self {
        if is_paused { Self::Paused } else { Self::Active }
    }

    const fn to_wire(word: Option<Self>) -> wire::CampaignStatus {
        match word {
            None => wire::CampaignStatus::Unspecified,
            Some(Self::Active) => wire::CampaignStatus::Active,
            Some(Self::Paused) => wire::CampaignStatus::Paused,
        }
    }
}

/// How spending is held back.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum PacingWord {
    Bid,
    Throttle,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ScheduleDraft {
    #[serde(default)]
    starts_s: i64,
    #[serde(default)]
    ends_s: i64,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum StrategyWord {
    Fixed,
    TargetCpa,
    MostConversions,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StrategyDraft {
    kind: StrategyWord,
    #[serde(default)]
    target_micros: u64,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ScopeWord {
    Campaign,
    Advertiser,
    Ad,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RuleDraft {
    scope: ScopeWord,
    window_hours: u32,
    max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct BudgetsDraft {
    daily_micros: Option<u64>,
    weekly_micros: Option<u64>,
    lifetime_micros: Option<u64>,
    zone: Option<ZoneDraft>,
}

/// The zone of a budget's midnight.
#[derive(Deserialize)]
#[serde(untagged)]
enum ZoneDraft {
    /// `UTC` or an offset such as `+05:30`.
    Fixed(String),
    /// Seconds east of UTC from each instant on.
    Table { starts: Vec<i64>, offset_seconds: Vec<i32> },
}

impl ZoneDraft {
    fn table(self) -> Result<(Vec<i64>, Vec<i32>), String> {
        match self {
            Self::Table { starts, offset_seconds } => Ok((starts, offset_seconds)),
            Self::Fixed(text) if text == "UTC" => Ok((vec![0], vec![0])),
            Self::Fixed(text) => offset(&text).map(|seconds| (vec![0], vec![seconds])).ok_or_else(|| {
                format!("zone {text:?}: give UTC, an offset such as +05:30, or a table; `gavel ctl campaign set` knows names")
            }),
        }
    }
}

/// Seconds of `+HH:MM` or `-HH:MM`.
fn offset(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let two = |digits: &str| {
        digits.parse::<i32>().ok().filter(|_| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

impl Draft {
    fn update(self, campaign: u64) -> Result<wire::CampaignUpdate, String> {
        let strategy = self.strategy.map(|strategy| {
            let kind = match strategy.kind {
                StrategyWord::Fixed => wire::BidStrategy::Fixed,
                StrategyWord::TargetCpa => wire::BidStrategy::TargetCpa,
                StrategyWord::MostConversions => wire::BidStrategy::MostConversions,
            };
            wire::CampaignStrategy { kind: kind.into(), target_micros: strategy.target_micros }
        });
        let pacing = match self.pacing {
            None => wire::CampaignPacing::Unspecified,
            Some(PacingWord::Bid) => wire::CampaignPacing::Bid,
            Some(PacingWord::Throttle) => wire::CampaignPacing::Throttle,
        };
        let rule = |rule: RuleDraft| {
            let scope = match rule.scope {
                ScopeWord::Campaign => wire::FrequencyScope::Campaign,
                ScopeWord::Advertiser => wire::FrequencyScope::Advertiser,
                ScopeWord::Ad => wire::FrequencyScope::Ad,
            };
            wire::FrequencyRule { scope: scope.into(), window_hours: rule.window_hours, max: rule.max }
        };
        let erase = if self.reset { wire::Erase::Operators } else { wire::Erase::Nothing };
        let change = wire::DeliveryChange {
            campaign_id: campaign,
            erase: erase.into(),
            bid_micros: self.bid_micros,
            status: StatusWord::to_wire(self.status).into(),
            schedule: self.schedule.map(|s| wire::CampaignSchedule { starts_s: s.starts_s, ends_s: s.ends_s }),
            strategy,
            pacing: pacing.into(),
            frequency: self
                .frequency
                .map(|rules| wire::FrequencyRules { rules: rules.into_iter().map(rule).collect() }),
            ad_groups: self.ad_groups.into_iter().map(Into::into).collect(),
            ..wire::DeliveryChange::default()
        };
        let budgets = self.budgets.map(|budgets| {
            let (zone_starts, zone_offsets) = budgets.zone.map(ZoneDraft::table).transpose()?.unwrap_or_default();
            Ok::<_, String>(wire::CampaignBudgets {
                day_micros: budgets.daily_micros,
                week_micros: budgets.weekly_micros,
                lifetime_micros: budgets.lifetime_micros,
                zone_starts,
                zone_offsets,
            })
        });
        Ok(wire::CampaignUpdate { change: Some(change), budgets: budgets.transpose()? })
    }
}

#[derive(Serialize)]
struct Updated {
    delivery_version: u64,
    effective: bool,
    behind: Vec<u64>,
}

#[derive(Serialize)]
struct ShownPage {
    campaigns: Vec<Shown>,
    next_after: Option<u64>,
    delivery_version: u64,
    generation: u64,
}

/// A campaign as it is shown.
#[derive(Serialize)]
struct Shown {
    campaign: u64,
    advertiser: u64,
    bid_type: Option<BidType>,
    bid_micros: u64,
    multiplier_ppm: u32,
    status: StatusWord,
    /// Why it takes no part now.
    silence: Option<String>,
    catalogue_bid_micros: u64,
    catalogue_status: StatusWord,
    schedule: Option<ScheduleDraft>,
    strategy: StrategyDraft,
    pacing: PacingWord,
    throttle_ppm: u32,
    frequency: Vec<RuleDraft>,
    ad_groups: Vec<ShownGroup>,
    budgets: Option<ShownBudgets>,
}

#[derive(Serialize)]
struct ShownBudgets {
    daily_micros: Option<u64>,
    weekly_micros: Option<u64>,
    lifetime_micros: Option<u64>,
}

impl Shown {
    fn of(m: &wire::CampaignState) -> Self {
        let said = m.said.clone().unwrap_or_default();
        let strategy = said.strategy.unwrap_or_default();
        let kind = match strategy.kind() {
            wire::BidStrategy::Unspecified | wire::BidStrategy::Fixed => StrategyWord::Fixed,
            wire::BidStrategy::TargetCpa => StrategyWord::TargetCpa,
            wire::BidStrategy::MostConversions => StrategyWord::MostConversions,
        };
        let rule = |rule: &wire::FrequencyRule| RuleDraft {
            scope: match rule.scope() {
                wire::FrequencyScope::Advertiser => ScopeWord::Advertiser,
                wire::FrequencyScope::Ad => ScopeWord::Ad,
                wire::FrequencyScope::Campaign | wire::FrequencyScope::Unspecified => ScopeWord::Campaign,
            },
            window_hours: rule.window_hours,
            max: rule.max,
        };
        Self {
            campaign: m.campaign_id,
            advertiser: m.advertiser_id,
            bid_type: i32::try_from(m.bid_type).ok().and_then(BidType::from_number),
            bid_micros: m.bid_micros,
            multiplier_ppm: m.multiplier_ppm,
            status: StatusWord::of(m.status() == wire::CampaignStatus::Paused),
            silence: Some(m.silence.clone()).filter(|word| !word.is_empty()),
            catalogue_bid_micros: m.catalogue_bid_micros,
            catalogue_status: StatusWord::of(m.catalogue_paused),
            schedule: said.schedule.map(|s| ScheduleDraft { starts_s: s.starts_s, ends_s: s.ends_s }),
            strategy: StrategyDraft { kind, target_micros: strategy.target_micros },
            pacing: match said.pacing() {
                wire::CampaignPacing::Unspecified | wire::CampaignPacing::Bid => PacingWord::Bid,
                wire::CampaignPacing::Throttle => PacingWord::Throttle,
            },
            throttle_ppm: said.throttle_ppm.unwrap_or(1_000_000),
            frequency: said.frequency.iter().flat_map(|rules| &rules.rules).map(rule).collect(),
            ad_groups: m.ad_groups.iter().map(ShownGroup::of).collect(),
            budgets: m.budgets.as_ref().map(|b| ShownBudgets {
                daily_micros: b.day_micros,
                weekly_micros: b.week_micros,
                lifetime_micros: b.lifetime_micros,
            }),
        }
    }
}

fn invalid(text: &str) -> Response {
    answered::<()>(Err(Status::invalid_argument(text)))
}

fn answered<T: Serialize>(answer: Result<T, Status>) -> Response {
    let status = match answer {
        Ok(answer) => return json(StatusCode::OK, &answer),
        Err(status) => status,
    };
    let code = match status.code() {
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::FailedPrecondition | tonic::Code::AlreadyExists => Code::FailedPrecondition,
        tonic::Code::Unavailable => Code::Unavailable,
        tonic::Code::Internal
        | tonic::Code::Ok
        | tonic::Code::Cancelled
        | tonic::Code::Unknown
        | tonic::Code::PermissionDenied
        | tonic::Code::Aborted
        | tonic::Code::OutOfRange
        | tonic::Code::Unimplemented
        | tonic::Code::DataLoss
        | tonic::Code::Unauthenticated => Code::Internal,
    };
    let http = StatusCode::from_u16(code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    failure(http, code.name(), status.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::delivery::{BidStrategy, Change, GroupChange, Status};

    fn update(text: &str) -> Result<wire::CampaignUpdate, String> {
        serde_json::from_str::<Draft>(text).map_err(|e| e.to_string())?.update(7)
    }

    #[test]
    fn what_is_written_is_what_is_asked() {
        let text = r#"{"bid_micros": 5, "status": "paused", "schedule": {"ends_s": 9},
            "strategy": {"kind": "target_cpa", "target_micros": 3},
            "frequency": [{"scope": "ad", "window_hours": 24, "max": 2}],
            "ad_groups": [{"id": 3, "bid_micros": 6}, {"id": 4, "status": "active", "reset": true}],
            "budgets": {"daily_micros": 4, "zone": "-05:30"}}"#;
        let update = update(text).unwrap();
        let change = Change::of_wire(&update.change.unwrap()).unwrap();
        assert_eq!((change.campaign, change.bid_micros), (7, Some(5)));
        assert_eq!(change.status, Some(Status::Paused));
        assert_eq!(change.strategy, Some(BidStrategy::TargetCpa(3)));
        assert_eq!(change.frequency.unwrap()[0].window.hours(), 24);
        let group = |ad_group| GroupChange { ad_group, ..GroupChange::default() };
        let active = GroupChange { status: Some(Status::Active), reset: true, ..group(4) };
        assert_eq!(change.ad_groups, [GroupChange { bid_micros: Some(6), ..group(3) }, active]);
        let budgets = update.budgets.unwrap();
        assert_eq!((budgets.day_micros, &budgets.zone_offsets[..]), (Some(4), &[-19_800][..]));
    }

    #[test]
    fn what_is_in_force_of_ad_groups_is_shown() {
        let group = |ad_group_id, status: wire::CampaignStatus, catalogue_bid_micros| wire::AdGroupState {
            ad_group_id,
            bid_micros: 7,
            status: status.into(),
            catalogue_bid_micros,
            catalogue_paused: false,
        };
        let ad_groups = vec![group(3, wire::CampaignStatus::Paused, 5), group(4, wire::CampaignStatus::Active, 0)];
        let shown = Shown::of(&wire::CampaignState { ad_groups, ..Default::default() });
        let expected = serde_json::json!([
            {"id": 3, "bid_micros": 7, "status": "paused", "catalogue_bid_micros": 5, "catalogue_paused": false},
            {"id": 4, "bid_micros": 7, "status": "active", "catalogue_bid_micros": null, "catalogue_paused": false},
        ]);
        assert_eq!(serde_json::to_value(&shown.ad_groups).unwrap(), expected);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, word: &str| {
            let refused = update(text).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        };
        check(r#"{"bid": 5}"#, "unknown field `bid`");
        check(r#"{"status": "off"}"#, "unknown variant `off`");
        check(r#"{"budgets": {"zone": "Berlin"}}"#, "zone \"Berlin\": give UTC");
        check(r#"{"ad_groups": [{"status": "paused"}]}"#, "missing field `id`");
        check(r#"{"ad_groups": [{"id": 3, "bid": 5}]}"#, "unknown field `bid`");
        check(r#"{"frequency": [{"scope": "user", "window_hours": 1, "max": 1}]}"#, "unknown variant `user`");
    }
}
