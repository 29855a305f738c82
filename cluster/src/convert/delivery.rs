//! How does what is said of campaigns travel and lie in a snapshot?

use gavel_proto::delivery::{Change, Override};
use gavel_proto::limits::{
    AD_GROUP_OVERRIDES_MAX, DELIVERY_DELTAS_MAX, DELIVERY_OVERRIDES_MAX, INTERNAL_MESSAGE_BYTES_MAX,
};
use gavel_proto::wire;
use prost::Message;

use super::{Malformed, malformed};
use crate::state::command::PublishDelivery;
use crate::state::{Delivery, Delta, Since, State};

/// Bytes of the rows of one page: one more of them, with every field and all ad groups a few KiB, stays below a message.
const PAGE_BYTES: usize = INTERNAL_MESSAGE_BYTES_MAX / 2;

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
    let delivery = Delivery {
        version: m.version,
        since: m.since,
        overrides: overrides.map_err(|_| malformed("delivery.overrides"))?,
        deltas: m.deltas.iter().map(delta).collect(),
    };
    if delivery.groups() > AD_GROUP_OVERRIDES_MAX {
        return Err(malformed("delivery beyond the limits"));
    }
    Ok(delivery)
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

/// Rows by their bytes: one that says something of all ad groups of its campaign takes as much as many others.
fn paged(state: &State, since: u64, rows: impl Iterator<Item = wire::CampaignOverride>) -> Vec<wire::DeliveryNews> {
    let page = |rows: Vec<wire::CampaignOverride>| wire::DeliveryNews {
        formation: state.formation,
        version: state.delivery.version,
        since,
        rows,
        more: true,
        ..wire::DeliveryNews::default()
    };
    let (mut pages, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        bytes += row.encoded_len();
        open.push(row);
        if bytes > PAGE_BYTES {
            pages.push(page(std::mem::take(&mut open)));
            bytes = 0;
        }
    }
    // An empty page says the version, where there is nothing else.
    if !open.is_empty() || pages.is_empty() {
        pages.push(page(open));
    }
    if let Some(last) = pages.last_mut() {
        last.more = false;
    }
    pages
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gavel_proto::delivery::{GroupOverride, Status};
    use gavel_proto::limits::AD_GROUPS_MAX;

    use super::*;

    fn full(campaigns: u64) -> State {
        let group = GroupOverride { bid_micros: Some(10_000_000_000), status: Some(Status::Paused) };
        let ad_groups: Vec<_> = (0..AD_GROUPS_MAX as u64).map(|at| (u64::MAX - 1_000 + at, group)).collect();
        let said = Override { ad_groups, ..Override::default() };
        let mut state = State::genesis("c");
        state.delivery.version = 9;
        state.delivery.overrides = (1..=campaigns).map(|id| (id, said.clone())).collect();
        state
    }

    #[test]
    fn pages_of_campaigns_with_all_their_groups_are_messages_and_add_up() {
        let state = full(1_200);
        let pages = whole(&state);
        assert!(pages.len() > 2, "{} pages", pages.len());
        assert!(pages.iter().all(|page| page.encoded_len() < INTERNAL_MESSAGE_BYTES_MAX));
        let (last, others) = pages.split_last().expect("a page");
        assert!(!last.more && others.iter().all(|page| page.more));
        let rows = pages.iter().flat_map(|page| &page.rows).map(Override::of_wire);
        assert_eq!(rows.collect::<Result<BTreeMap<_, _>, _>>(), Ok(state.delivery.overrides));
        let none = whole(&full(0));
        assert_eq!((none.len(), none[0].version, none[0].more), (1, 9, false));
    }

    #[test]
    fn a_record_comes_back_and_one_beyond_the_limits_does_not() {
        let delivery = full(3).delivery;
        assert_eq!(parse(Some(&to_wire(&delivery)), 0).expect("a record"), delivery);
        let campaigns = AD_GROUP_OVERRIDES_MAX / AD_GROUPS_MAX + 1;
        assert!(parse(Some(&to_wire(&full(campaigns as u64).delivery)), 0).is_err());
    }
}
