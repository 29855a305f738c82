//! Does a bundle's weight of value move what is retrieved, and do new bids count at once?

use std::sync::Arc;

use gavel_proto::epoch::Epoch;
use gavel_proto::money::{BidType, Micros};

use super::altered_demo::write_valuing;
use super::fixture::{EPOCH, GENERATION, ITEMS, Staged, campaigns};
use super::{Bitset, candidates, targeting};
use crate::ranking::delivery::{Delivery, DeliveryRow};
use crate::retrieval::{Mode, RetrievalQuery, RetrievalScratch, Retrieved};
use crate::staging::holdings::Target;

const WEIGHT: f32 = 0.5;

fn staged(folder: &std::path::Path) -> Staged {
    let bundle = folder.join("bundle");
    write_valuing(&bundle, WEIGHT);
    Staged::with(&folder.join("data"), &bundle)
}

fn nearest(staged: &Staged, target: &Target, (mode, quota): (Mode, u32), weighed: bool) -> Retrieved {
    let search = staged.search();
    let order = candidates::ValueOrder::of(target).unwrap();
    let among = |item, ads: &Bitset| order.among(item, ads);
    let query = RetrievalQuery {
        vector: &search.query,
        targeting: targeting(target, &search),
        quota,
        mode,
        values: weighed.then(|| order.values(&among)),
        expired: &|| false,
        cpu_us: &|| 0,
    };
    candidates::nearest(&target.loaded.shard, &target.delivery, &query, &mut RetrievalScratch::default()).unwrap()
}

/// The obvious twin: every eligible item's similarity, and the logarithm of what its best eligible ad brings for a click.
fn twin(staged: &Staged, target: &Target) -> Vec<(u32, f32, f32)> {
    let all = nearest(staged, target, (Mode::Exact, ITEMS as u32), false);
    let shard = &target.loaded.shard;
    let prior = f64::from(target.loaded.bundle.roles.prior_conversion);
    let worth = |row: &DeliveryRow| {
        let of_a_click = if row.bid_type == BidType::Cpc { 1.0 } else { prior };
        row.paced().0 as f64 * of_a_click
    };
    let placed = all.items.iter().map(|(item, similarity)| {
        let ads = shard.ads_of(*item).filter(|ad| all.eligible.ads.contains(*ad));
        let best = ads.map(|ad| worth(target.delivery.row(shard, ad))).fold(0.0, f64::max);
        (*item, *similarity, similarity + WEIGHT * best.ln() as f32)
    });
    let mut placed: Vec<_> = placed.collect();
    placed.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
    placed
}

#[test]
fn places_are_by_similarity_and_value() {
    let folder = tempfile::tempdir().unwrap();
    let staged = staged(folder.path());
    let target = staged.target();
    let twin = twin(&staged, &target);
    for mode in [Mode::Exact, Mode::Auto, Mode::Graph] {
        let found = nearest(&staged, &target, (mode, 60), true);
        let expected: Vec<(u32, f32)> =
            twin.iter().take(60).map(|(item, similarity, _)| (*item, *similarity)).collect();
        let same = found.items.iter().filter(|pair| expected.contains(pair)).count();
        let enough = if mode == Mode::Graph { 57 } else { 60 };
        assert!(same >= enough && found.items.len() == 60, "{mode:?}: {same}");
        assert!(found.places.is_sorted_by(|a, b| a >= b) && found.places.len() == 60);
        let places =
            found.items.iter().zip(&found.places).map(|((item, similarity), place)| (item, place - similarity));
        for (item, value) in places {
            let (_, similarity, place) = twin.iter().find(|(other, _, _)| other == item).unwrap();
            assert!((value - (place - similarity)).abs() < 1e-3, "{mode:?}");
        }
    }
    let (shard, delivery) = (&target.loaded.shard, target.delivery.resolved.delivery());
    let (model, bounds) = (target.loaded.bundle.value.unwrap(), target.delivery.values(&target.loaded).unwrap());
    let lowest = bounds.iter().copied().fold(f32::MAX, f32::min);
    for (item, bound) in (0..).zip(bounds.iter()) {
        let lines = shard.ads_of(item).map(|ad| shard.line(ad));
        let rows = lines.map(|(campaign, ad_group)| delivery.row(delivery.row_of(campaign, ad_group)));
        assert_eq!(model.best(rows).unwrap_or(lowest), *bound, "by the best ad, with the bid of its ad group");
    }
    let unweighed = nearest(&staged, &target, (Mode::Exact, 60), false);
    assert_ne!(unweighed.items, nearest(&staged, &target, (Mode::Exact, 60), true).items);
    assert!(unweighed.items.iter().zip(&unweighed.places).all(|((_, similarity), place)| similarity == place));
}

/// Bids of a version are in force with it, in a graph that was sealed under other ones; searches of the version before
/// still see theirs.
#[test]
fn new_bids_count_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let staged = staged(folder.path());
    let before = staged.target();
    // Campaign 21 bids by the click, 7 by the conversion, and both are no different from others so far.
    let raised = campaigns().map(|row| match row.campaign {
        7 | 21 => DeliveryRow { bid: Micros(row.bid.0 * 1_000_000), ..row },
        _ => row,
    });
    let next = Epoch { delivery: EPOCH.delivery + 1, ..EPOCH };
    staged.holdings.change(|h| h.add_delivery(GENERATION, Arc::new(Delivery::new(next.delivery, raised))));
    let after = staged.holdings.current().target(next, super::fixture::SHARD, &staged.hash).unwrap();
    let best = |target: &Target| twin(&staged, target).iter().take(20).map(|p| p.0).collect::<Vec<u32>>();
    assert_ne!(best(&before), best(&after));
    for mode in [Mode::Exact, Mode::Auto, Mode::Graph] {
        let found = |target: &Target| {
            let found = nearest(&staged, target, (mode, 20), true);
            found.items.iter().filter(|(item, _)| best(target).contains(item)).count()
        };
        // The links know the bids of the seal only: a walk sees the new ones on its way, and finds most.
        let (enough_before, enough_after) = if mode == Mode::Graph { (19, 14) } else { (20, 20) };
        assert!(found(&before) >= enough_before, "{mode:?}: {}", found(&before));
        assert!(found(&after) >= enough_after, "{mode:?}: {}", found(&after));
    }
}
