//! How close does the greedy merge of ads and organic items come to the best page?
//!
//! Random pages of up to eight positions with first positions, gaps, loads, shadow bids, gap effects and spacings of
//! categories, each merged by the code that serves and compared with the best of all pages that the rules allow, found by
//! trying every choice of positions for the ads. Both lists keep their order, so that a choice of positions is a page;
//! there are organic items enough to fill it. A merged page that is none of these is an error.

use crate::workload::Seeded;
use gavel_proto::money::PPM;
use gavel_router::allocation::{AllocationRule, Engagement, Entry, Placed, ShadowBid, SlotAd, allocate};
use serde::Serialize;

/// Positions of a page at most: what is tried doubles with each.
const POSITIONS_MAX: u64 = 8;
/// Ads that won slots at most.
const ADS_MAX: u64 = 4;
/// Score units of a currency micro.
const MICRO: i128 = 1_000_000_000_000_000;

/// What was found.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Pages {
    /// Pages merged.
    pub tried: u64,
    /// All that are worth anything.
    pub all: Closeness,
    /// Those of them without gap effects and without a spacing of categories.
    pub plain: Closeness,
}

/// The worth of greedy pages as a ratio of that of the best ones.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Closeness {
    /// Pages compared.
    pub pages: u64,
    /// Greedy pages that are worth as much as the best one.
    pub optimal: u64,
    /// Their share.
    pub optimal_share: f64,
    /// Mean ratio.
    pub mean_ratio: f64,
    /// Smallest ratio.
    pub worst_ratio: f64,
}

impl Closeness {
    fn add(&mut self, greedy: i128, best: i128) {
        let ratio = greedy as f64 / best as f64;
        self.worst_ratio = if self.pages == 0 { ratio } else { self.worst_ratio.min(ratio) };
        self.pages += 1;
        self.optimal += u64::from(greedy == best);
        self.optimal_share = self.optimal as f64 / self.pages as f64;
        self.mean_ratio += (ratio - self.mean_ratio) / self.pages as f64;
    }

    /// One line for a person.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { pages, optimal, optimal_share, mean_ratio, worst_ratio } = self;
        format!("{pages}: mean ratio {mean_ratio:.4}, worst {worst_ratio:.3}, optimal {optimal} ({optimal_share:.4})")
    }
}

/// Merges random pages.
///
/// # Errors
/// When a page breaks a rule, or is worth more than every page that the rules allow.
pub fn compare(seed: u64, pages: u64) -> Result<Pages, String> {
    let mut found = Pages::default();
    for number in 0..pages {
        let page = Page::draw(&mut Seeded::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number));
        let merged = allocate(&page.ads, &page.organic, &page.rule);
        let Some(greedy) = page.worth_of(&merged) else {
            return Err(format!("page {number} of seed {seed} breaks its rule: {merged:?} of {page:?}"));
        };
        let best = page.best();
        if greedy > best {
            return Err(format!(
                "page {number} of seed {seed} is worth {greedy}, the best allowed one {best}: {page:?}"
            ));
        }
        found.tried += 1;
        if best > 0 {
            found.all.add(greedy, best);
            if page.rule.gap_effect_ppm.is_empty() && page.rule.category_spacing == 0 {
                found.plain.add(greedy, best);
            }
        }
    }
    Ok(found)
}

/// What is merged, under which rule.
#[derive(Debug)]
struct Page {
    ads: Vec<SlotAd>,
    organic: Vec<Engagement>,
    rule: AllocationRule,
}

impl Page {
    fn draw(random: &mut Seeded) -> Self {
        let mut roll = |below: u64| random.next_u64() % below;
        let mut scores: Vec<i128> = (0..roll(ADS_MAX + 1)).map(|_| i128::from(roll(12_000)) * MICRO).collect();
        scores.sort_unstable_by(|a, b| b.cmp(a));
        let units = |thousandths: u64| Engagement::from_units(thousandths as f64 / 1e3).unwrap_or_default();
        let ads = scores.into_iter().enumerate().map(|(slot, score)| SlotAd {
            slot,
            score,
            engagement: units(roll(500)),
            category: roll(4),
        });
        let ads = ads.collect();
        let positions = 1 + roll(POSITIONS_MAX);
        let gap_effects = [vec![], vec![500_000, 750_000, 900_000], vec![0, PPM]];
        let rule = AllocationRule {
            positions: positions as usize,
            first_position: roll(3) as usize,
            min_gap: roll(4) as usize,
            max_ads: roll(6) as usize,
            max_load_ppm: [PPM, PPM / 2, PPM / 4][roll(3) as usize],
            shadow_bid: ShadowBid::from_micros([0.0, 500.0, 1_000.0, 3_000.0][roll(4) as usize]).unwrap_or_default(),
            gap_effect_ppm: gap_effects[roll(3) as usize].clone(),
            category_spacing: [0, 0, 2, 5][roll(4) as usize],
        };
        Self { ads, organic: (0..positions).map(|_| units(roll(5_000))).collect(), rule }
    }

    /// What a merged page is worth; `None` when it has a hole, is not in the order of both lists, or breaks a rule.
    fn worth_of(&self, merged: &[Placed]) -> Option<i128> {
        let is_ad = |placed: &&Placed| matches!(placed.entry, Entry::Ad(_));
        let places: Vec<usize> = merged.iter().filter(is_ad).map(|placed| placed.position).collect();
        let is_whole = merged.iter().map(|placed| placed.position).eq(0..self.rule.positions);
        let entries = || merged.iter().map(|placed| placed.entry);
        let is_allowed = is_whole && self.allows(&places) && entries().eq(self.entries(&places));
        is_allowed.then(|| self.worth(entries()))
    }

    /// The most that a page within the rules is worth.
    fn best(&self) -> i128 {
        let choices = (0..1u32 << self.rule.positions).map(|choice| self.places(choice));
        choices.filter(|places| self.allows(places)).map(|places| self.worth(self.entries(&places))).max().unwrap_or(0)
    }

    /// The positions of the ads in this choice: its bits.
    fn places(&self, choice: u32) -> Vec<usize> {
        (0..self.rule.positions).filter(|position| (choice >> position) & 1 == 1).collect()
    }

    /// Whether ads, in their order, may stand at these positions.
    fn allows(&self, places: &[usize]) -> bool {
        let rule = &self.rule;
        let is_alike = |a: usize, b: usize| self.ads[a].category != 0 && self.ads[a].category == self.ads[b].category;
        places.len() <= self.ads.len().min(rule.max_ads)
            && places.iter().all(|position| *position >= rule.first_position)
            && places.windows(2).all(|pair| pair[1] - pair[0] > rule.min_gap)
            && places.len() as u64 * u64::from(PPM) <= u64::from(rule.max_load_ppm) * rule.positions as u64
            && places.iter().enumerate().all(|(ad, position)| {
                (0..ad).all(|above| !is_alike(above, ad) || position - places[above] > rule.category_spacing)
            })
    }

    /// The page with ads at these positions.
    fn entries(&self, places: &[usize]) -> impl Iterator<Item = Entry> {
        let entry = move |position: usize| match places.binary_search(&position) {
            Ok(ad) => Entry::Ad(ad),
            Err(ads_above) => Entry::Organic(position - ads_above),
        };
        (0..self.rule.positions).map(entry)
    }

    /// What a page is worth: the scores of its ads, reduced by the gap effect, and the worth of all engagement.
    fn worth(&self, page: impl Iterator<Item = Entry>) -> i128 {
        let (mut worth, mut since_ad) = (0, None);
        for entry in page {
            match entry {
                Entry::Ad(index) => {
                    let ad = &self.ads[index];
                    let effect = since_ad.and_then(|items: usize| self.rule.gap_effect_ppm.get(items)).copied();
                    let whole = ad.score + ad.engagement.worth(self.rule.shadow_bid);
                    worth += whole * i128::from(effect.unwrap_or(PPM)) / i128::from(PPM);
                    since_ad = Some(0);
                }
                Entry::Organic(index) => {
                    worth += self.organic[index].worth(self.rule.shadow_bid);
                    since_ad = since_ad.map(|items| items + 1);
                }
            }
        }
        worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bounded share of what the command compares.
    #[test]
    fn the_greedy_page_is_close_to_the_best() {
        let found = compare(1, 2_000).unwrap_or_else(|page| panic!("{page}"));
        assert!(found.all.pages > 1_500 && found.plain.pages > 250, "{found:?} say little");
        assert!(found.all.optimal_share > 0.88 && found.plain.optimal_share > 0.92, "{found:?}");
        assert!(found.all.mean_ratio > 0.985 && found.plain.mean_ratio > 0.99, "{found:?}");
        // A greedy that is always the best would make the comparison one with itself.
        assert!(found.all.worst_ratio > 0.25 && found.plain.worst_ratio < 0.95, "{found:?}");
    }

    /// Two ads of one category on eight positions, from the second on, with an item between them, four positions apart.
    #[test]
    fn a_page_that_breaks_a_rule_is_seen() {
        let ad = |slot| SlotAd { slot, score: MICRO, engagement: Engagement::default(), category: 1 };
        let rule = AllocationRule {
            positions: 8,
            first_position: 1,
            min_gap: 1,
            max_ads: 2,
            max_load_ppm: PPM / 4,
            shadow_bid: ShadowBid::default(),
            gap_effect_ppm: Vec::new(),
            category_spacing: 3,
        };
        let page = Page { ads: vec![ad(0), ad(1)], organic: vec![Engagement::default(); 8], rule };
        let merged = |entries: Vec<Entry>| -> Vec<Placed> {
            let placed = |(position, entry)| Placed { position, entry, floor: None };
            entries.into_iter().enumerate().map(placed).collect()
        };
        let at = |places: [usize; 2]| merged(page.entries(&places).collect());
        assert_eq!(page.worth_of(&at([1, 5])), Some(2 * MICRO));
        for places in [[0, 5], [1, 2], [1, 4]] {
            assert_eq!(page.worth_of(&at(places)), None, "{places:?}");
        }
        let under = |rule| Page { ads: page.ads.clone(), organic: page.organic.clone(), rule };
        let apart = under(AllocationRule { category_spacing: 0, ..page.rule.clone() });
        assert_eq!(apart.worth_of(&at([1, 4])), Some(2 * MICRO));
        for (rule, what) in [
            (AllocationRule { max_ads: 1, ..apart.rule.clone() }, "one ad too many"),
            (AllocationRule { max_load_ppm: PPM / 4 - 1, ..apart.rule.clone() }, "too large a share"),
            (AllocationRule { min_gap: 3, ..apart.rule.clone() }, "two items between them"),
            (AllocationRule { positions: 9, ..apart.rule.clone() }, "a position too few"),
        ] {
            assert_eq!(under(rule).worth_of(&at([1, 4])), None, "{what}");
        }
        let mut swapped = at([1, 5]);
        (swapped[1].entry, swapped[5].entry) = (Entry::Ad(1), Entry::Ad(0));
        let mut items = at([1, 5]);
        (items[0].entry, items[2].entry) = (Entry::Organic(1), Entry::Organic(0));
        let mut hole = at([1, 5]);
        hole[7].position = 8;
        for broken in [swapped, items, hole] {
            assert_eq!(apart.worth_of(&broken), None, "{broken:?}");
        }
    }
}
