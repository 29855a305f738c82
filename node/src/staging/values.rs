//! What is each item of a shard worth at best, under one delivery version and one bundle?
//!
//! A table by item ordinal: the highest weighted value of the item's ads that bid, whoever is eligible. It is made when a
//! version of bids, a content or a model arrives, off the request path and before searches see it, and kept with the
//! version: so a change of bids is in force with the version that brings it. An item without a bidding ad cannot be
//! eligible; it gets the lowest value of all, because a walk may still pass over it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::holdings::{LoadedBundle, ShardDelivery};
use super::plan::Hash;
use crate::ranking::value::ValueModel;
use crate::segment::Content;
use crate::shard::Shard;

/// The tables of one version, by bundle.
#[derive(Debug, Default)]
pub struct ValueTables {
    tables: Mutex<BTreeMap<Hash, Table>>,
    /// Of the version before: what is worth the same keeps its table.
    before: BTreeMap<Hash, Table>,
}

/// What lines are worth, by their place in the content, and what follows for items.
#[derive(Clone, Debug)]
struct Table {
    lines: Arc<[Option<f32>]>,
    items: Arc<[f32]>,
}

impl ValueTables {
    /// Tables of the version that follows.
    pub fn following(&self) -> Self {
        let before = self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { tables: Mutex::default(), before }
    }

    /// The table of this bundle; made now if it is not there. None if the bundle does not weigh value.
    pub fn of(&self, shard: &Shard, delivery: &ShardDelivery, bundle: &LoadedBundle) -> Option<Arc<[f32]>> {
        let model = bundle.value?;
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = bundle.bundle.hash();
        // Of a snapshot with more documents than the one it was made for: they are few.
        let table = match tables.get(&hash).filter(|table| table.items.len() == shard.items() as usize) {
            Some(table) => table.clone(),
            None => self.make(shard, delivery, model, &hash),
        };
        let items = Arc::clone(&table.items);
        tables.insert(hash, table);
        Some(items)
    }

    fn make(&self, shard: &Shard, delivery: &ShardDelivery, model: ValueModel, hash: &Hash) -> Table {
        let sealed = shard.content();
        let places = 0..sealed.lines().len() as u32;
        let lines: Arc<[Option<f32>]> = places.map(|place| model.value(delivery.resolved.row(place))).collect();
        let is_sealed = shard.items() == sealed.items();
        let same = self.before.get(hash).filter(|before| is_sealed && before.lines == lines);
        if let Some(before) = same.filter(|before| before.items.len() == shard.items() as usize) {
            return before.clone();
        }
        let value = |ad: u32| {
            if ad < sealed.ads() {
                lines.get(sealed.line_place(ad) as usize).copied().flatten()
            } else {
                model.value(delivery.row(shard, ad))
            }
        };
        let items = bounds(shard.items(), |item| shard.ads_of(item), value).into();
        Table { lines, items }
    }
}

/// The same for the items of a content that is being sealed with a model.
pub fn at_seal(content: &Content, delivery: &ShardDelivery, bundle: &LoadedBundle) -> Option<Vec<f32>> {
    let model = bundle.value?;
    let value = |ad| model.value(delivery.resolved.row(content.line_place(ad)));
    Some(bounds(content.items(), |item| content.ads_of(item), value))
}

fn bounds(items: u32, ads_of: impl Fn(u32) -> Range<u32>, value: impl Fn(u32) -> Option<f32>) -> Vec<f32> {
    let best = |item| ads_of(item).filter_map(&value).max_by(f32::total_cmp);
    let values: Vec<Option<f32>> = (0..items).map(best).collect();
    let lowest = values.iter().flatten().copied().min_by(f32::total_cmp).unwrap_or(0.0);
    values.into_iter().map(|value| value.unwrap_or(lowest)).collect()
}
