//! What do the View and the catalogue's blocks say in the node's own words?
//!
//! Generated types end here. Documents are checked again although the loader checked them: a blob is bytes
//! from the network, and its hash only says that they are the bytes that were announced.

use gavel_proto::delivery::check_catalogue_groups;
use gavel_proto::frequency::{FrequencyRule, rules_from_wire};
use gavel_proto::hash::value_hash;
use gavel_proto::ids::{AdId, AdvertiserId, CampaignId, ItemId};
use gavel_proto::limits::{FEATURES_MAX, RANGES_MAX, SET_VALUES_MAX, TERMS_MAX, ZONE_OFFSETS_MAX};
use gavel_proto::money::{BidType, Micros};
use gavel_proto::targeting::{Hours, Interval};
use gavel_proto::wire;
use gavel_proto::wire::feature_value::Value;

use super::StagingError;
use super::plan::{Blob, Hash, Wanted, WantedGeneration, WantedShard};
use crate::ranking::delivery::{CampaignStatus, DeliveryRow};
use crate::segment::{Creative, DocAd, DocFeature, DocItem, DocRule, DocSchedule, DocZone};

/// What a View asks of the node with this member id.
pub fn wanted(view: &wire::View, node: u64) -> Wanted {
    Wanted {
        active: generation(view.active_generation.as_ref(), &view.shards, node),
        pending: generation(view.pending_generation.as_ref(), &view.pending_shards, node),
        active_model: model(view.active_model.as_ref()),
        previous_model: model(view.previous_model.as_ref()),
        staged_models: staged_models(view),
    }
}

fn generation(
    generation: Option<&wire::Generation>,
    placed: &[wire::ShardView],
    node: u64,
) -> Option<WantedGeneration> {
    let generation = generation?;
    let campaigns = Blob { hash: hash(&generation.campaigns_blob)?, bytes: generation.campaigns_blob_bytes };
    let mine = placed.iter().filter(|shard| shard.replicas.contains(&node));
    let shards = mine.filter_map(|placed| {
        let blob = generation.shard_blobs.iter().find(|blob| blob.shard == placed.shard)?;
        let documents = Blob { hash: hash(&blob.hash)?, bytes: blob.bytes };
        Some(WantedShard { shard: placed.shard, documents })
    });
    Some(WantedGeneration { generation: generation.generation, campaigns, shards: shards.collect() })
}

/// The pending one first: it is what somebody waits for.
fn staged_models(view: &wire::View) -> Vec<Blob> {
    let staged = view.pending_model.iter().chain(&view.staged_models);
    let mut blobs: Vec<Blob> = Vec::new();
    for blob in staged.filter_map(|m| model(Some(m))) {
        if !blobs.contains(&blob) {
            blobs.push(blob);
        }
    }
    blobs
}

fn model(model: Option<&wire::ModelView>) -> Option<Blob> {
    let model = model?;
    Some(Blob { hash: hash(&model.hash)?, bytes: model.bytes })
}

fn hash(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok()
}

/// A campaign of the catalogue.
pub fn campaign(campaign: &wire::Campaign) -> Result<DeliveryRow, StagingError> {
    let id = campaign.campaign_id;
    let bid_type = BidType::from_number(campaign.bid_type).ok_or_else(|| refused(id, "unknown bid type"))?;
    let status = if campaign.paused { CampaignStatus::Paused } else { CampaignStatus::Active };
    Ok(DeliveryRow {
        campaign: id,
        bid_type,
        bid: Micros(campaign.bid_micros),
        multiplier_ppm: campaign.multiplier_ppm,
        status,
        reserve_micros: campaign.reserve_micros,
        ..DeliveryRow::UNKNOWN
    })
}

/// What a campaign of the catalogue says of its ad groups; the rest of their rows is the campaign's.
pub fn ad_groups(campaign: &wire::Campaign) -> Result<Vec<DeliveryRow>, StagingError> {
    let id = campaign.campaign_id;
    check_catalogue_groups(&campaign.ad_groups).map_err(|reason| refused(id, &reason))?;
    let row = |group: &wire::AdGroup| DeliveryRow {
        campaign: id,
        ad_group: group.ad_group_id,
        bid: Micros(group.bid_micros),
        status: if group.paused { CampaignStatus::Paused } else { CampaignStatus::Active },
        ..DeliveryRow::UNKNOWN
    };
    Ok(campaign.ad_groups.iter().map(row).collect())
}

/// Who pays for a campaign of the catalogue, and how often a user may see it.
pub fn frequency(campaign: &wire::Campaign) -> Result<(AdvertiserId, Vec<FrequencyRule>), StagingError> {
    let rules = rules_from_wire(&campaign.frequency).map_err(|reason| refused(campaign.campaign_id, &reason))?;
    Ok((AdvertiserId(campaign.advertiser_id), rules))
}

/// An item of the catalogue.
pub fn item(item: wire::Item) -> Result<DocItem, StagingError> {
    let id = item.item_id;
    if item.features.len() > FEATURES_MAX {
        return Err(refused(id, "too many features"));
    }
    let creative = item.creative.unwrap_or_default();
    let mut features = Vec::with_capacity(item.features.len());
    for given in item.features {
        if let Some(value) = given.value.and_then(|v| v.value) {
            features.push((given.name, feature(id, value)?));
        }
    }
    Ok(DocItem {
        item: ItemId(id),
        advertiser: AdvertiserId(item.advertiser_id),
        categories: item.categories.iter().map(|category| value_hash(category)).collect(),
        features,
        creative: Creative { title: creative.title, url: creative.url, image_url: creative.image_url },
    })
}

fn feature(id: u64, value: Value) -> Result<DocFeature, StagingError> {
    Ok(match value {
        Value::Category(value) => DocFeature::Category(value_hash(&value)),
        Value::Dense(value) => DocFeature::Dense(value as f32),
        Value::Set(set) => {
            let weighted = set.weights.len() == set.values.len();
            if set.values.len() > SET_VALUES_MAX || !(weighted || set.weights.is_empty()) {
                return Err(refused(id, "a set with too many values or with weights that do not match"));
            }
            let weight = |at: usize| set.weights.get(at).copied().unwrap_or(1.0);
            DocFeature::Set(set.values.iter().enumerate().map(|(at, v)| (value_hash(v), weight(at))).collect())
        }
    })
}

/// An ad of the catalogue.
pub fn ad(ad: &wire::Ad) -> Result<DocAd, StagingError> {
    if ad.targeting.len() > TERMS_MAX {
        return Err(refused(ad.ad_id, "too many targeting rules"));
    }
    let schedule = ad.schedule.as_ref().map(|schedule| {
        let hours = Hours::of_words(&schedule.hours);
        hours.map(|hours| DocSchedule { zone: schedule.time_zone.clone(), hours })
    });
    if schedule == Some(None) {
        return Err(refused(ad.ad_id, "hours that no week has"));
    }
    Ok(DocAd {
        ad: AdId(ad.ad_id),
        item: ItemId(ad.item_id),
        campaign: CampaignId(ad.campaign_id),
        ad_group: ad.ad_group_id,
        targeting: ad.targeting.iter().map(|r| rule(ad.ad_id, r)).collect::<Result<_, _>>()?,
        schedule: schedule.flatten(),
    })
}

fn rule(ad: u64, rule: &wire::TargetingRule) -> Result<DocRule, StagingError> {
    if rule.any_of.len() + rule.none_of.len() > SET_VALUES_MAX || rule.ranges.len() > RANGES_MAX {
        return Err(refused(ad, "too many values or ranges on a dimension"));
    }
    let hashes = |values: &[String]| values.iter().map(|value| value_hash(value)).collect();
    let range = |range| Interval::of_wire(range).ok_or_else(|| refused(ad, "a range with nothing in it"));
    Ok(DocRule {
        dimension: value_hash(&rule.dimension),
        any_of: hashes(&rule.any_of),
        none_of: hashes(&rule.none_of),
        ranges: rule.ranges.iter().map(range).collect::<Result<_, _>>()?,
    })
}

/// A time zone of the catalogue.
pub fn zone(zone: wire::TimeZone) -> Result<DocZone, StagingError> {
    if zone.starts.len() != zone.offset_seconds.len() || zone.starts.len() > ZONE_OFFSETS_MAX {
        return Err(StagingError::Unusable(format!("time zone {:?} has no table of offsets", zone.name)));
    }
    Ok(DocZone { name: zone.name, offsets: zone.starts.into_iter().zip(zone.offset_seconds).collect() })
}

fn refused(id: u64, reason: &str) -> StagingError {
    StagingError::Document { id, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ad_groups_have_bids_and_statuses_of_their_own() {
        let group = |ad_group_id, bid_micros, paused| wire::AdGroup { ad_group_id, bid_micros, paused };
        let of = |ad_groups| wire::Campaign { campaign_id: 9, ad_groups, ..wire::Campaign::default() };
        let rows = ad_groups(&of(vec![group(2, 0, true), group(1, 70, false)])).unwrap();
        let row = |ad_group, bid, status| DeliveryRow {
            campaign: 9,
            ad_group,
            bid: Micros(bid),
            status,
            ..DeliveryRow::UNKNOWN
        };
        assert_eq!(rows, [row(2, 0, CampaignStatus::Paused), row(1, 70, CampaignStatus::Active)]);
        assert!(ad_groups(&of(Vec::new())).unwrap().is_empty());
        for refused in [vec![group(0, 1, false)], vec![group(1, 1, false), group(1, 2, false)]] {
            assert!(matches!(ad_groups(&of(refused)), Err(StagingError::Document { id: 9, .. })));
        }
        let ad = ad(&wire::Ad { campaign_id: 9, ad_group_id: 2, ..wire::Ad::default() }).unwrap();
        assert_eq!((ad.campaign.0, ad.ad_group), (9, 2));
    }
}
