//! Which products, and which (product, store) pairs, belong to a corpus of this size?

use std::collections::{BTreeMap, HashMap, HashSet};

use super::source::{Pair, Product, Tables};
use super::{CorpusError, CorpusSize};

/// Ads of the corpus M.
const PAIRS_OF_M: u64 = 1_000_000;
/// Items of the demo.
const DEMO_PRODUCTS: usize = 20_000;
/// Advertisers of the demo; 1,000 cover 94 % of what is bought of promoted products in the weeks after.
const DEMO_MANUFACTURERS: usize = 1_000;

/// A rule that keeps some products and some of their pairs.
#[derive(Debug)]
pub enum Selection {
    /// One ad for each of these products, whatever the number of its stores.
    PerProduct(HashSet<u64>),
    /// One ad for each pair promoted in more than `weeks` weeks, and for the first `ties` with exactly `weeks`.
    PerPair { weeks: u32, ties: u64 },
}

impl Selection {
    /// The rule of a size.
    pub fn of(size: CorpusSize, tables: &Tables, products: &[Product]) -> Result<Self, CorpusError> {
        match size {
            CorpusSize::Demo => Ok(Self::PerProduct(demo(products, DEMO_MANUFACTURERS, DEMO_PRODUCTS))),
            CorpusSize::S => Ok(Self::PerProduct(products.iter().filter(|p| p.promoted).map(|p| p.id).collect())),
            CorpusSize::M => {
                let mut weeks = BTreeMap::new();
                tables.pairs(|pair| {
                    *weeks.entry(pair.weeks).or_default() += 1;
                    Ok(())
                })?;
                Ok(heaviest(&weeks, PAIRS_OF_M))
            }
            CorpusSize::L => Ok(Self::PerPair { weeks: 0, ties: 0 }),
        }
    }

    /// Reads the pairs once and gives each kept product with its stores: as many ads as groups are given.
    pub fn each(
        &self,
        tables: &Tables,
        mut each: impl FnMut(u64, &[u32]) -> Result<(), CorpusError>,
    ) -> Result<(), CorpusError> {
        match self {
            Self::PerProduct(kept) => {
                let mut product = 0;
                let mut stores = Vec::new();
                tables.pairs(|pair| {
                    if pair.product != product {
                        if kept.contains(&product) {
                            each(product, &stores)?;
                        }
                        product = pair.product;
                        stores.clear();
                    }
                    stores.push(pair.store);
                    Ok(())
                })?;
                if kept.contains(&product) { each(product, &stores) } else { Ok(()) }
            }
            Self::PerPair { weeks, ties } => {
                let mut left = *ties;
                tables.pairs(
                    |pair| if keep(pair, *weeks, &mut left) { each(pair.product, &[pair.store]) } else { Ok(()) },
                )
            }
        }
    }
}

fn keep(pair: Pair, weeks: u32, ties_left: &mut u64) -> bool {
    let tied = pair.weeks == weeks && *ties_left > 0;
    *ties_left -= u64::from(tied);
    tied || pair.weeks > weeks
}

/// The threshold that keeps exactly `wanted` pairs, given how many pairs have each number of weeks.
fn heaviest(pairs_by_weeks: &BTreeMap<u32, u64>, wanted: u64) -> Selection {
    let mut left = wanted;
    for (&weeks, &pairs) in pairs_by_weeks.iter().rev() {
        if pairs >= left {
            return Selection::PerPair { weeks, ties: left };
        }
        left -= pairs;
    }
    Selection::PerPair { weeks: 0, ties: 0 }
}

/// The promoted products bought most, of the manufacturers bought most. Counts end with the training weeks.
fn demo(products: &[Product], manufacturers: usize, most: usize) -> HashSet<u64> {
    let promoted = || products.iter().filter(|product| product.promoted);
    let mut lines: HashMap<u64, u64> = HashMap::new();
    for product in promoted() {
        *lines.entry(product.manufacturer).or_default() += product.lines;
    }
    let mut ranked: Vec<(u64, u64)> = lines.into_iter().map(|(id, lines)| (u64::MAX - lines, id)).collect();
    ranked.sort_unstable();
    let kept: HashSet<u64> = ranked.into_iter().take(manufacturers).map(|(_, id)| id).collect();
    let mut ranked: Vec<(u64, u64)> =
        promoted().filter(|p| kept.contains(&p.manufacturer)).map(|p| (u64::MAX - p.lines, p.id)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(most).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_wanted_pairs_are_kept_heaviest_first() {
        let pairs: Vec<Pair> = (0..100).map(|n| Pair { product: n, store: 1, weeks: 1 + (n % 10) as u32 }).collect();
        let mut by_weeks = BTreeMap::new();
        for pair in &pairs {
            *by_weeks.entry(pair.weeks).or_default() += 1;
        }
        let Selection::PerPair { weeks, ties } = heaviest(&by_weeks, 25) else { panic!("pairs") };
        assert_eq!((weeks, ties), (8, 5));
        let mut left = ties;
        let kept: Vec<u64> = pairs.iter().filter(|p| keep(**p, weeks, &mut left)).map(|p| p.product).collect();
        assert_eq!(kept.len(), 25);
        assert_eq!(kept.iter().filter(|n| **n % 10 == 7).max(), Some(&47));
    }

    #[test]
    fn wanting_more_than_there_is_keeps_all() {
        let Selection::PerPair { weeks, ties } = heaviest(&BTreeMap::from([(3, 5)]), 9) else { panic!("pairs") };
        assert_eq!((weeks, ties), (0, 0));
    }

    #[test]
    fn the_demo_takes_what_is_bought_most_of_whom_is_bought_most() {
        let product =
            |id, manufacturer, lines, promoted| Product { id, manufacturer, lines, promoted, ..Product::default() };
        let products =
            [product(1, 1, 5, true), product(2, 1, 9, true), product(3, 2, 8, true), product(4, 1, 99, false)];
        assert_eq!(demo(&products, 1, 9), HashSet::from([1, 2]));
        assert_eq!(demo(&products, 2, 2), HashSet::from([2, 3]));
    }
}
