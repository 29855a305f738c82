//! What is each item of a shard worth at best, under one delivery version and one bundle?
//!
//! A table by item ordinal: the highest weighted value of the item's ads that bid, whoever is eligible. It is made when a
//! version of bids, a content or a model arrives, on the staging thread and before searches see it, and kept with the
//! version: so a change of bids is in force with the version that brings it. An item without a bidding ad cannot be
//! eligible; it gets the lowest value of all, because a walk may still pass over it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::holdings::{LoadedBundle, ShardDelivery};
use super::plan::Hash;
use crate::ranking::delivery::DeliveryRow;
use crate::ranking::value::ValueModel;
use crate::segment::Content;
use crate::shard::Shard;

/// The tables of one version, by bundle.
#[derive(Debug, Default)]
pub struct ValueTables {
    tables: Mutex<BTreeMap<Hash, Arc<[f32]>>>,
}

impl ValueTables {
    /// The table of this bundle; made now if it is not there. None if the bundle does not weigh value.
    pub fn of(&self, shard: &Shard, delivery: &ShardDelivery, bundle: &LoadedBundle) -> Option<Arc<[f32]>> {
        let model = bundle.value?;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.entry(bundle.bundle.hash()).or_insert_with(|| of_shard(shard, delivery, model));
        // Of a snapshot with more documents than the one it was made for: they are few.
        if table.len() != shard.items() as usize {
            *table = of_shard(shard, delivery, model);
        }
        Some(Arc::clone(table))
    }
}

/// The same for the items of a content that is being sealed with a model.
pub fn at_seal(content: &Content, delivery: &ShardDelivery, bundle: &LoadedBundle) -> Option<Vec<f32>> {
    let row = |ad| delivery.resolved.row(content.campaign_place(ad));
    Some(bounds(bundle.value?, content.items(), |item| content.ads_of(item), row))
}

fn of_shard(shard: &Shard, delivery: &ShardDelivery, model: ValueModel) -> Arc<[f32]> {
    bounds(model, shard.items(), |item| shard.ads_of(item), |ad| delivery.row(shard, ad)).into()
}

fn bounds<'a>(
    model: ValueModel,
    items: u32,
    ads_of: impl Fn(u32) -> Range<u32>,
    row: impl Fn(u32) -> &'a DeliveryRow,
) -> Vec<f32> {
    let best = |item| model.best(ads_of(item).map(&row));
    let values: Vec<Option<f32>> = (0..items).map(best).collect();
    let lowest = values.iter().flatten().copied().min_by(f32::total_cmp).unwrap_or(0.0);
    values.into_iter().map(|value| value.unwrap_or(lowest)).collect()
}
