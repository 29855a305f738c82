//! Which ads of this shard may take part in this search, and what do they bid?

use gavel_proto::money::PPM;
use std::ops::Range;

use crate::ranking::AdTable;
use crate::ranking::delivery::{CampaignStatus, DeliveryRow};
use crate::ranking::explain::Reason;
use crate::segment::{Bitset, Refusal, TargetingQuery};
use crate::shard::Shard;
use crate::staging::holdings::{ShardDelivery, Target};

/// The ads of one shard under one search and one delivery version.
pub struct ShardTable<'a> {
    /// The snapshot.
    pub shard: &'a Shard,
    /// Bids.
    pub delivery: &'a ShardDelivery,
    /// Ads that may take part.
    pub eligible: &'a Bitset,
}

impl AdTable for ShardTable<'_> {
    fn ads_of(&self, item: u32) -> Range<u32> {
        self.shard.ads_of(item)
    }

    fn admits(&self, ad: u32) -> bool {
        self.eligible.contains(ad)
    }

    fn delivery(&self, ad: u32) -> &DeliveryRow {
        self.delivery.row(self.shard, ad)
    }

    fn ad_id(&self, ad: u32) -> u64 {
        self.shard.ad_id(ad).0
    }

    fn item_id(&self, item: u32) -> u64 {
        self.shard.item_id(item).0
    }

    fn advertiser(&self, item: u32) -> u64 {
        self.shard.advertiser(item).0
    }

    fn limit_category(&self, item: u32) -> u64 {
        self.shard.limit_category(item)
    }
}

/// Why an ad may not take part; `None` when it may. `admitted` are the ads whose targeting admits the request.
pub fn barrier(target: &Target, ad: u32, query: &TargetingQuery<'_>, admitted: &Bitset) -> Option<Reason> {
    let shard = &target.loaded.shard;
    shard.refusal(ad, query, admitted).map(|refusal| match refusal {
        Refusal::Targeting => Reason::NotEligibleTargeting,
        Refusal::Advertiser | Refusal::Category | Refusal::Campaign => Reason::NotEligibleBlocked,
        Refusal::Capped => Reason::NotEligibleFrequency,
        Refusal::Unleased => Reason::NotEligibleBudget,
        Refusal::Excluded => silence(target.delivery.row(shard, ad), query.unix_s),
    })
}

/// Why a campaign, or one of its ad groups, does not bid.
fn silence(row: &DeliveryRow, unix_s: i64) -> Reason {
    match row.status {
        CampaignStatus::Paused if row.campaign != DeliveryRow::UNKNOWN.campaign => Reason::NotEligiblePaused,
        CampaignStatus::OutOfBudget => Reason::NotEligibleBudget,
        CampaignStatus::Active if !row.schedule.runs_at(unix_s) => Reason::NotEligibleSchedule,
        // Not in this auction.
        CampaignStatus::Active if row.bids() && row.throttle_ppm < PPM => Reason::NotEligibleBudget,
        CampaignStatus::Active | CampaignStatus::Paused => Reason::NotEligibleStatus,
    }
}
