//! How are a campaign's ad groups written in JSON?

use super::StatusWord;
use gavel_proto::wire;
use serde::{Deserialize, Serialize};

/// A change of one ad group; what is absent stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupDraft {
    id: u64,
    #[serde(default)]
    bid_micros: Option<u64>,
    #[serde(default)]
    status: Option<StatusWord>,
    /// Takes back what operators said of it, before the rest.
    #[serde(default)]
    reset: bool,
}

impl From<GroupDraft> for wire::AdGroupChange {
    fn from(draft: GroupDraft) -> Self {
        Self {
            ad_group_id: draft.id,
            bid_micros: draft.bid_micros,
            status: StatusWord::to_wire(draft.status).into(),
            reset: draft.reset,
        }
    }
}

/// An ad group as it is shown.
#[derive(Serialize)]
pub(super) struct ShownGroup {
    id: u64,
    /// In force, before pacing.
    bid_micros: u64,
    /// Of the group alone: it bids when its campaign does, too.
    status: StatusWord,
    /// Absent when the catalogue gives it none of its own.
    catalogue_bid_micros: Option<u64>,
    catalogue_paused: bool,
}

impl ShownGroup {
    pub(super) fn of(m: &wire::AdGroupState) -> Self {
        Self {
            id: m.ad_group_id,
            bid_micros: m.bid_micros,
            status: StatusWord::of(m.status() == wire::CampaignStatus::Paused),
            catalogue_bid_micros: Some(m.catalogue_bid_micros).filter(|bid| *bid > 0),
            catalogue_paused: m.catalogue_paused,
        }
    }
}
