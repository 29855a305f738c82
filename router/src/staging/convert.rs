//! From the message to the picture.
//!
//! What is missing takes the documented default; terms that do not hold together (an old control plane) are put
//! right here with a warning, so that no request can meet them.

use super::picture::{Active, AuctionSettings, CandidatePicture, ModelRef, Picture, Placement, RolloutMode, UsersRef};
use crate::allocation::ShadowBid;
use crate::auction::Mechanism;
use crate::topology::{RouteTable, ShardRoute};
use gavel_proto::epoch::Epoch;
use gavel_proto::frequency::{FrequencyRule, rules_from_wire};
use gavel_proto::hash::TieKey;
use gavel_proto::ids::{AdvertiserId, CampaignId, MemberId, ShardId};
use gavel_proto::limits::{CANDIDATES_MAX, SLOTS_MAX};
use gavel_proto::money::PPM;
use gavel_proto::score::QualityRule;
use gavel_proto::wire;

/// Items ranked and retrieved over all shards when nothing is configured.
const CANDIDATES_DEFAULT: u32 = 200;

/// A campaign, who pays, and how often a user may see it.
pub(super) type CampaignRules = (CampaignId, AdvertiserId, Vec<FrequencyRule>);

/// Reads a View.
pub(super) fn picture(view: &wire::View) -> Picture {
    let named = [&view.active_model, &view.pending_model, &view.previous_model].into_iter().flatten();
    let models = named.chain(&view.staged_models);
    let generations = [&view.active_generation, &view.pending_generation];
    let model = view.active_model.as_ref().and_then(model_ref);
    let active = view.active_generation.as_ref().zip(model.zip(view.active_model.as_ref()));
    let mut picture = Picture {
        active: active.map(|(generation, (model, named))| Active {
            model,
            users: users(generation),
            table: table(view, generation.generation, named.version, None),
        }),
        candidate: candidate(view),
        models: models.filter_map(model_ref).collect(),
        generations: generations.into_iter().flatten().map(users).collect(),
        nodes: nodes(view),
        counting: counting(view),
        auction: view.auction.clone().and_then(auction),
        placements: view.placements.iter().map(placement).collect(),
    };
    let mut seen = std::collections::HashSet::new();
    picture.models.retain(|m| seen.insert(m.hash));
    picture
}

fn model_ref(model: &wire::ModelView) -> Option<ModelRef> {
    Some(ModelRef { hash: model.hash.as_slice().try_into().ok()?, bytes: model.bytes })
}

fn users(generation: &wire::Generation) -> UsersRef {
    let blob = |hash: &[u8], bytes: u64| Some((hash.try_into().ok().filter(|_| bytes > 0)?, bytes));
    UsersRef {
        generation: generation.generation,
        blob: blob(&generation.users_blob, generation.users_blob_bytes),
        campaigns: blob(&generation.campaigns_blob, generation.campaigns_blob_bytes),
    }
}

fn nodes(view: &wire::View) -> Vec<(MemberId, String)> {
    let nodes = view.members.iter().filter(|m| m.role() == wire::Role::Node && !m.address.is_empty());
    nodes.map(|m| (MemberId(m.member_id), m.address.clone())).collect()
}

/// As the nodes themselves reckon it: all of them must come to the same two for a user.
fn counting(view: &wire::View) -> Vec<MemberId> {
    let counts =
        |m: &&wire::MemberView| m.role() == wire::Role::Node && m.alive && !m.draining && !m.address.is_empty();
    view.members.iter().filter(counts).map(|m| MemberId(m.member_id)).collect()
}

/// The frequency rules of campaigns, each with who pays.
pub(super) fn rules(campaigns: &[wire::Campaign]) -> Result<Vec<CampaignRules>, String> {
    let rules = |campaign: &wire::Campaign| {
        let rules = rules_from_wire(&campaign.frequency);
        let rules = rules.map_err(|reason| format!("campaign {}: {reason}", campaign.campaign_id))?;
        Ok((CampaignId(campaign.campaign_id), AdvertiserId(campaign.advertiser_id), rules))
    };
    campaigns.iter().map(rules).collect()
}

/// The bundle of the rollout that runs, under the active generation.
fn candidate(view: &wire::View) -> Option<CandidatePicture> {
    let (rollout, generation) = view.rollout.as_ref().zip(view.active_generation.as_ref())?;
    let named = rollout.model.as_ref()?;
    let mode = match rollout.mode() {
        wire::RolloutMode::RolloutCanary => RolloutMode::Canary,
        wire::RolloutMode::RolloutShadow => RolloutMode::Shadow,
        wire::RolloutMode::Unspecified => return None,
    };
    Some(CandidatePicture {
        model: model_ref(named)?,
        table: table(view, generation.generation, named.version, Some(&rollout.serving)),
        mode,
        share_ppm: rollout.share_ppm,
        step: rollout.step,
        window_us: rollout.window_ms.saturating_mul(1_000),
    })
}

/// The shards of the active generation under a model; `serving` says who serves when it is not the active one.
fn table(view: &wire::View, generation: u64, model: u64, serving: Option<&[wire::ShardServing]>) -> RouteTable {
    let serves = |shard: &wire::ShardView| match serving {
        None => shard.serving.clone(),
        Some(all) => all.iter().find(|s| s.shard == shard.shard).map(|s| s.serving.clone()).unwrap_or_default(),
    };
    let is_leaving = |id: &u64| view.members.iter().any(|m| m.member_id == *id && m.draining);
    let route = |shard: &wire::ShardView| {
        // A draining node is asked only when nobody else serves the shard.
        let serving = serves(shard);
        let staying: Vec<MemberId> = serving.iter().filter(|id| !is_leaving(id)).map(|id| MemberId(*id)).collect();
        let all = || serving.iter().map(|id| MemberId(*id)).collect();
        ShardRoute {
            shard: ShardId(shard.shard),
            items: shard.items,
            ads: shard.ads,
            serving: if staying.is_empty() { all() } else { staying },
        }
    };
    let mut shards: Vec<ShardRoute> = view.shards.iter().map(route).collect();
    shards.sort_by_key(|s| s.shard);
    shards.dedup_by_key(|s| s.shard);
    let delivery = if view.delivery_version == 0 { generation } else { view.delivery_version };
    RouteTable { epoch: Epoch { map: view.map_epoch, generation, model, delivery }, shards }
}

/// `None` without a key that was made: a public one, or none, gives ties that anybody could foresee.
fn auction(config: wire::AuctionConfig) -> Option<AuctionSettings> {
    let tie_key = TieKey::made(&config.tie_key);
    match (tie_key, config.tie_key.len()) {
        (Some(_), _) => {}
        // A leader draws one in its first moments; it says so itself when it cannot.
        (None, 0) => tracing::warn!("the cluster has no secret tie key yet: its auction rules are not used"),
        (None, bytes) => tracing::error!(bytes, "the tie key is no secret of 32 bytes: the auction rules are not used"),
    }
    let quality = config.quality.map(QualityRule::from).unwrap_or_default();
    let total = |wanted: u32| if wanted == 0 { CANDIDATES_DEFAULT } else { wanted.min(CANDIDATES_MAX) };
    let neighbours = config.neighbours().into();
    let mut settings = AuctionSettings {
        mechanism: match config.mechanism() {
            wire::Mechanism::Unspecified | wire::Mechanism::Gsp => Mechanism::Gsp,
            wire::Mechanism::Vcg => Mechanism::Vcg,
            wire::Mechanism::FirstPrice => Mechanism::FirstPrice,
        },
        tie_key: tie_key?,
        per_advertiser: config.per_advertiser.max(1) as usize,
        per_category: Some(config.per_category as usize).filter(|limit| *limit > 0),
        position_factors_ppm: config.position_factors_ppm,
        reserve_cpm_micros: config.reserve_cpm_micros,
        ranked_total: total(config.ranked_total),
        retrieved_total: total(config.retrieved_total),
        shadow_bid: ShadowBid::from_micros(config.shadow_bid).unwrap_or_else(|| {
            tracing::error!(shadow_bid = config.shadow_bid, "the auction's shadow bid is not used");
            ShadowBid::default()
        }),
        neighbours,
        quality: Some(quality).filter(QualityRule::is_within_limits).unwrap_or_else(|| {
            tracing::error!(?quality, "the auction's quality rule is not used");
            QualityRule::default()
        }),
        cascade_ppm: Some(config.cascade_ppm.min(PPM - 1)).filter(|ppm| *ppm > 0),
        gap_effect_ppm: config.gap_effect_ppm,
        page_threshold_cpm_micros: config.page_threshold_cpm_micros,
    };
    if let Err(error) = settings.rule(SLOTS_MAX as usize) {
        tracing::error!(%error, "the auction's position factors, page threshold and user model are not used");
        settings.position_factors_ppm.clear();
        settings.page_threshold_cpm_micros = 0;
        settings.cascade_ppm = None;
    }
    Some(settings)
}

fn placement(placement: &wire::Placement) -> Placement {
    Placement {
        name: placement.name.clone(),
        slots: placement.slots.clamp(1, SLOTS_MAX),
        first_position: placement.first_position as usize,
        min_gap: placement.min_gap as usize,
        max_load_ppm: if placement.max_load_ppm == 0 { PPM } else { placement.max_load_ppm.min(PPM) },
        reserve_cpm_micros: placement.reserve_cpm_micros,
        category_spacing: placement.category_spacing as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0.25 per mille are 250,000 micros for a thousand impressions. Settings that do not hold together leave it out.
    #[test]
    fn the_page_threshold_is_in_score_units() {
        let mut config = wire::AuctionConfig {
            tie_key: vec![7; 32],
            position_factors_ppm: vec![1_000_000, 500_000],
            page_threshold_cpm_micros: 250_000,
            ..wire::AuctionConfig::default()
        };
        let rule = auction(config.clone()).expect("settings").rule(2).expect("a rule");
        assert_eq!(rule.terms().page_threshold, 250_000 * 1_000_000_000_000);
        assert_eq!(rule.least_score(1), 2 * rule.least_score(0));
        config.page_threshold_cpm_micros = u64::MAX;
        let rule = auction(config).expect("settings").rule(2).expect("a rule");
        assert_eq!(rule.terms().page_threshold, 0);
    }

    #[test]
    fn a_view_without_an_active_pair_has_no_table() {
        let mut view = wire::View { active_generation: Some(wire::Generation::default()), ..wire::View::default() };
        assert_eq!(picture(&view).active, None);
        view.active_model = Some(wire::ModelView { hash: vec![7; 32], version: 3, ..wire::ModelView::default() });
        view.previous_model = view.active_model.clone();
        view.map_epoch = 9;
        view.delivery_version = 4;
        view.shards = vec![
            wire::ShardView { shard: 1, items: 5, serving: vec![2, 3], ..wire::ShardView::default() },
            wire::ShardView { shard: 0, items: 4, serving: vec![3], ..wire::ShardView::default() },
        ];
        view.members = vec![wire::MemberView { member_id: 3, draining: true, ..wire::MemberView::default() }];
        let picture = picture(&view);
        let table = picture.active.expect("active").table;
        assert_eq!(table.epoch, Epoch { map: 9, generation: 0, model: 3, delivery: 4 });
        assert_eq!(table.shards[0].serving, [MemberId(3)], "nobody else has it");
        assert_eq!(table.shards[1].serving, [MemberId(2)]);
        assert_eq!(picture.models.len(), 1);
        assert_eq!(picture.auction, None);
    }

    /// A key that everybody knows was used where there was no other.
    #[test]
    fn an_auction_without_a_secret_tie_key_is_none() {
        let read = |tie_key: Vec<u8>| {
            let config = wire::AuctionConfig { tie_key, public_tie_key: 0x6761_7665_6c00_0001, ..Default::default() };
            picture(&wire::View { auction: Some(config), ..wire::View::default() }).auction
        };
        let public = TieKey::from_number(5).as_bytes().to_vec();
        for foreseeable in [Vec::new(), vec![7; 31], vec![0; 32], public] {
            assert_eq!(read(foreseeable.clone()), None, "{foreseeable:?}");
        }
        let settings = read(vec![7; 32]).expect("rules");
        assert_eq!((settings.tie_key, settings.retrieved_total), (TieKey::from_bytes([7; 32]), 200));
    }
}
