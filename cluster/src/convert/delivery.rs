//! How does what is said of campaigns travel and lie in a snapshot?

use gavel_proto::delivery::{Change, Override};
use gavel_proto::limits::{DELIVERY_DELTAS_MAX, DELIVERY_OVERRIDES_MAX};
use gavel_proto::wire;

use super::{Malformed, malformed};
use crate::state::command::PublishDelivery;
use crate::state::{Delivery, Delta, Since, State};

/// Campaigns of one page: with every field they stay below a message's bytes.
const PAGE_ROWS: usize = 8_192;

/// Longest digest of what a request asked beside: BLAKE3's.
const BESIDE_BYTES_MAX: usize = 32;

/// Reads a wish. Whether its values are possible ones is answered when it is applied.
pub fn wish(m: &wire::PublishDelivery) -> Result<PublishDelivery, Malformed> {
    if m.beside.len() > BESIDE_BYTES_MAX {
        return Err(malformed("publish_delivery.beside"));
    }
    let changes = m.changes.iter().map(Change::of_wire).collect::<Result<_, _>>();
    let changes = changes.map_err(|_| malformed("publish_delivery.changes"))?;
    Ok(PublishDelivery { changes, generation: m.generation, beside: m.beside.clone() })
}

/// Writes a wish.
#[must_use]
pub fn wish_to_wire(wish: &PublishDelivery) -> wire::PublishDelivery {
    wire::PublishDelivery {
        changes: wish.changes.iter().map(Change::to_wire).collect(),
        generation: wish.generation,
        beside: wish.beside.clone(),
    }
}

/// Writes everything.
#[must_use]
pub fn to_wire(delivery: &Delivery) -> wire::DeliveryRecord {
    let delta = |delta: &Delta| wire::DeliveryDelta {
        version: delta.version,
        at_ms: delta.at_ms,
        campaigns: delta.campaigns.clone(),
    };
    wire::DeliveryRecord {
        version: delivery.version,
        since: delivery.since,
        overrides: delivery.overrides.iter().map(|(id, stands)| stands.to_wire(*id)).collect(),
        deltas: delivery.deltas.iter().map(delta).collect(),
    }
}

/// Reads everything; in a snapshot from before there were overrides, the version is that of the generation.
pub fn parse(m: Option<&wire::DeliveryRecord>, before: u64) -> Result<Delivery, Malformed> {
    let Some(m) = m else {
        return Ok(Delivery { version: before, since: before, ..Delivery::default() });
    };
    if m.overrides.len() > DELIVERY_OVERRIDES_MAX || m.deltas.len() > DELIVERY_DELTAS_MAX {
        return Err(malformed("delivery beyond the limits"));
    }
    let delta = |m: &wire::DeliveryDelta| Delta { version: m.version, at_ms: m.at_ms, campaigns: m.campaigns.clone() };
    let overrides = m.overrides.iter().map(Override::of_wire).collect::<Result<_, _>>();
    Ok(Delivery {
        version: m.version,
        since: m.since,
        overrides: overrides.map_err(|_| malformed("delivery.overrides"))?,
        deltas: m.deltas.iter().map(delta).collect(),
    })
}

/// What a member that holds `version` of `formation` is to be sent, in pages; nothing when it holds the newest.
#[must_use]
pub fn news(state: &State, formation: u64, version: u64) -> Vec<wire::DeliveryNews> {
    let delivery = &state.delivery;
    let since = if formation == state.formation { delivery.since(version) } else { Since::Unknown };
    match since {
        Since::Nothing => Vec::new(),
        Since::Unknown => whole(state),
        Since::Campaigns(campaigns) => {
            let none = Override::default();
            let row = |id: &u64| delivery.overrides.get(id).unwrap_or(&none).to_wire(*id);
            paged(state, version, campaigns.iter().map(row))
        }
    }
}

/// Everything, in pages.
#[must_use]
pub fn whole(state: &State) -> Vec<wire::DeliveryNews> {
    paged(state, 0, state.delivery.overrides.iter().map(|(id, row)| row.to_wire(*id)))
}

fn paged(state: &State, since: u64, rows: impl Iterator<Item = wire::CampaignOverride>) -> Vec<wire::DeliveryNews> {
    let rows: Vec<wire::CampaignOverride> = rows.collect();
    let page = |rows: &[wire::CampaignOverride]| wire::DeliveryNews {
        formation: state.formation,
        version: state.delivery.version,
        since,
        rows: rows.to_vec(),
        more: true,
        ..wire::DeliveryNews::default()
    };
    let mut pages: Vec<wire::DeliveryNews> = rows.chunks(PAGE_ROWS).map(page).collect();
    if pages.is_empty() {
        pages.push(page(&[]));
    }
    if let Some(last) = pages.last_mut() {
        last.more = false;
    }
    pages
}
