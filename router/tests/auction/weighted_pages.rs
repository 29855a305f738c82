//! Pages whose positions count for less from the top down, and whose ads bring unequal engagement (AL1 to AL3).
//!
//! At a position both what an ad and what an organic item brings are seen by as many users, so that `1 / log2(k + 1)`, the
//! published weight of position k, cancels out of the greedy choice; what changes is which page is the best.

use gavel_proto::ids::AdId;
use gavel_router::allocation::{
    AllocationRule, Engagement, Entry, Placed, ShadowBid, SlotAd, allocate, priced_in_place,
};
use gavel_router::auction::{Mechanism, clear};
use gavel_router::merge::Offer;

use crate::blending::{case, pages, units};
use crate::market::{Dice, offers, ranking, rule, separate, terms, with_bid};

/// Score units of one currency micro.
const MICRO: f64 = 1e15;

/// How much each position counts.
#[derive(Clone, Copy, Debug)]
enum Weights {
    Flat,
    Log2,
}

impl Weights {
    fn of(self, position: usize) -> f64 {
        match self {
            Weights::Flat => 1.0,
            Weights::Log2 => 1.0 / (position as f64 + 2.0).log2(),
        }
    }
}

/// Revenue in micros and engagement in units of a page, both discounted by position: what the published work calls DCR
/// and DCE. What the gap effect takes from an ad it takes from both.
fn brought(
    page: &[Placed],
    ads: &[SlotAd],
    organic: &[Engagement],
    rule: &AllocationRule,
    weights: Weights,
) -> (f64, f64) {
    let mut since_ad: Option<usize> = None;
    let (mut revenue, mut engagement) = (0.0, 0.0);
    for placed in page {
        let weight = weights.of(placed.position);
        let in_units = |engagement: Engagement| i64::from(engagement) as f64 / 1e6;
        match placed.entry {
            Entry::Ad(index) => {
                let effect =
                    since_ad.and_then(|items| rule.gap_effect_ppm.get(items)).map_or(1.0, |x| f64::from(*x) / 1e6);
                revenue += weight * effect * ads[index].score as f64 / MICRO;
                engagement += weight * effect * in_units(ads[index].engagement);
                since_ad = Some(0);
            }
            Entry::Organic(index) => {
                engagement += weight * in_units(organic[index]);
                since_ad = since_ad.map(|items| items + 1);
            }
        }
    }
    (revenue, engagement)
}

/// The best page for a shadow bid in micros: its objective and what it brings.
fn best(
    (ads, organic, rule): &(Vec<SlotAd>, Vec<Engagement>, AllocationRule),
    alpha: f64,
    weights: Weights,
) -> (f64, (f64, f64)) {
    let brings = |page: Vec<Placed>| brought(&page, ads, organic, rule, weights);
    let valued =
        pages(ads, rule).map(brings).map(|(revenue, engagement)| (revenue + alpha * engagement, (revenue, engagement)));
    valued.max_by(|a, b| a.0.total_cmp(&b.0)).expect("a page of organic items alone is allowed")
}

/// Seven positions, four ads, two organic items between them, as published: how often the greedy page is not the best, and
/// how far from it, for flat and for falling weights.
#[test]
fn greedy_and_best_under_both_weights() {
    let mut found = Vec::new();
    for weights in [Weights::Flat, Weights::Log2] {
        let (mut below, mut worst) = (0, 1.0_f64);
        for seed in 0..300 {
            let mut dice = Dice::new(seed);
            let mut scores: Vec<u64> = (0..4).map(|_| 1 + dice.roll(12_000)).collect();
            scores.sort_by(|a, b| b.cmp(a));
            let ad = |(slot, score): (usize, u64)| SlotAd {
                slot,
                score: i128::from(score) * MICRO as i128,
                engagement: units(dice.roll(500) as f64 / 1e3),
                category: 0,
            };
            let ads: Vec<SlotAd> = scores.into_iter().enumerate().map(ad).collect();
            let mut feed: Vec<u64> = (0..7).map(|_| dice.roll(5_000)).collect();
            feed.sort_by(|a, b| b.cmp(a));
            let organic: Vec<Engagement> = feed.into_iter().map(|u| units(u as f64 / 1e3)).collect();
            let alpha = 1_000.0 + 500.0 * dice.roll(5) as f64;
            let rule = AllocationRule {
                positions: 7,
                first_position: 0,
                min_gap: 2,
                max_ads: 4,
                max_load_ppm: 1_000_000,
                shadow_bid: ShadowBid::from_micros(alpha).expect("a bid"),
                gap_effect_ppm: Vec::new(),
                category_spacing: 0,
            };
            let page = allocate(&ads, &organic, &rule);
            let (revenue, engagement) = brought(&page, &ads, &organic, &rule, weights);
            let (most, _) = best(&(ads, organic, rule), alpha, weights);
            let ratio = (revenue + alpha * engagement) / most;
            assert!(ratio <= 1.0 + 1e-12, "seed {seed}: the oracle missed a page");
            below += i32::from(ratio < 1.0 - 1e-12);
            worst = worst.min(ratio);
        }
        found.push((below, (worst * 1e3).round()));
    }
    // As found; another merge would show here.
    assert_eq!(found, [(72, 873.0), (63, 933.0)]);
}

/// AL1 for the best pages under every rule and both weights: a higher shadow bid never brings more revenue, nor less
/// engagement.
#[test]
fn engagement_is_bought_with_revenue_under_every_rule() {
    let (mut steps, mut changes) = (0, 0);
    for seed in 0..600 {
        let mut dice = Dice::new(seed ^ 0xa11);
        let (ads, mut organic, rule) = case(&mut dice, 4, 7);
        organic.resize_with(rule.positions.max(organic.len()), Engagement::default);
        let page = (ads, organic, rule);
        let weights = if seed % 2 == 0 { Weights::Flat } else { Weights::Log2 };
        let mut before: Option<(f64, f64)> = None;
        for alpha in [0.0, 300.0, 900.0, 1_500.0, 2_700.0, 6_000.0, 20_000.0] {
            let (_, after) = best(&page, alpha, weights);
            if let Some(before) = before.replace(after) {
                assert!(after.0 <= before.0 + 1e-6 && after.1 >= before.1 - 1e-9, "seed {seed}, {alpha}: {page:?}");
                (steps, changes) = (steps + 1, changes + i32::from(after != before));
            }
        }
    }
    assert!(steps == 3_600 && changes > 200, "{changes} changes in {steps} steps say little");
}

/// A winner on the page: its ad and position, its price there, and that of the auction alone.
type Sale = (u64, usize, u64, u64);

/// The page of one auction, by an engagement of each ad's own.
fn blended(market: &[Offer], organic: &[Engagement], page_rule: &AllocationRule, slots: usize) -> Vec<Sale> {
    let ranking = ranking(market);
    let clearing = clear(&ranking, &rule(terms(Mechanism::Gsp, slots)));
    let ad = |winner: &gavel_router::auction::Winner| {
        let candidate = &ranking[winner.candidate];
        let engagement = units(own_engagement(candidate.offer().ad));
        SlotAd { slot: winner.slot, score: candidate.score(), engagement, category: 0 }
    };
    let ads: Vec<SlotAd> = clearing.winners.iter().map(ad).collect();
    let placed = allocate(&ads, organic, page_rule);
    let sale = |placed: &Placed| match placed.entry {
        Entry::Ad(index) => {
            let winner = &clearing.winners[index];
            let candidate = &ranking[winner.candidate];
            let price = priced_in_place(candidate, winner, placed).price;
            assert!(candidate.offer().reserve <= price && price <= candidate.offer().bid);
            Some((candidate.offer().ad.0, placed.position, price.0, winner.price.0))
        }
        Entry::Organic(_) => None,
    };
    placed.iter().filter_map(sale).collect()
}

/// From none to 1.2 units, in no order of the ads' scores.
fn own_engagement(ad: AdId) -> f64 {
    (ad.0 * 7 % 5) as f64 * 0.3
}

/// AL3 where ads bring unequal engagement: the price is the smallest bid with which the ad stands at its position or above,
/// found by trying every bid. (A rival that takes its slot for a lower bid and stands further up leaves it the organic item
/// that it could not displace there.) AL2: without a price of engagement it is that of the auction.
#[test]
fn a_page_price_with_unequal_engagements() {
    let (mut sold, mut raised) = (0, 0);
    for seed in 0..6_000 {
        let mut dice = Dice::new(seed ^ 0xa13);
        let slots = 1 + dice.roll(4) as usize;
        let heavy = |o: &Offer| Offer { weight: o.weight * 300_000_000_000_000, value: 0, ..*o };
        let market: Vec<Offer> = separate(offers(&mut dice, 8)).iter().map(heavy).collect();
        let (_, organic, page_rule) = case(&mut dice, 0, 10);
        let page_rule = AllocationRule { category_spacing: 0, ..page_rule };
        let free = AllocationRule { shadow_bid: ShadowBid::default(), ..page_rule.clone() };
        for (_, _, price, alone) in blended(&market, &organic, &free, slots) {
            // An ad displaces only what it is worth more than, so a price of 0 becomes the smallest coin.
            assert_eq!(price.max(1), alone.max(1), "seed {seed}");
        }
        let scaled = AllocationRule { shadow_bid: ShadowBid::from_micros(2.0).expect("a bid"), ..page_rule };
        for (ad, position, price, alone) in blended(&market, &organic, &scaled, slots) {
            let stands = |bid: &u64| {
                let sales = blended(&with_bid(&market, AdId(ad), *bid), &organic, &scaled, slots);
                sales.iter().any(|sale| sale.0 == ad && sale.1 <= position)
            };
            assert_eq!((0..=12).find(stands), Some(price), "seed {seed}: ad {ad} at {position}");
            raised += u32::from(price > alone);
            sold += 1;
        }
    }
    assert!(sold > 3_000 && raised > 500, "{raised} raised prices of {sold} say little");
}
