//! How do 90,000 products become a million distinct items?
//!
//! Columns of several real rows of one department are put together: type, category and manufacturer of the
//! first, price and discount of the second, brand and popularity of the third. The columns stay plausible,
//! the rows are nobody's: every title says "synthetic", and quality figures on them mean nothing.

use std::collections::HashMap;

use gavel_proto::hash::combine;

use super::source::Product;

/// Synthetic ids begin above every real one.
const FIRST_ID: u64 = 1 << 40;

/// Makes the synthetic items of a seed.
pub struct Recombination<'a> {
    seed: u64,
    promoted: Vec<&'a Product>,
    by_department: HashMap<&'a str, Vec<&'a Product>>,
}

impl<'a> Recombination<'a> {
    /// From the promoted products; none without any.
    pub fn new(seed: u64, products: &'a [Product]) -> Option<Self> {
        let promoted: Vec<&Product> = products.iter().filter(|product| product.promoted).collect();
        let mut by_department: HashMap<&str, Vec<&Product>> = HashMap::new();
        for product in &promoted {
            by_department.entry(&product.department).or_default().push(product);
        }
        if promoted.is_empty() { None } else { Some(Self { seed, promoted, by_department }) }
    }

    /// The `n`-th item.
    pub fn item(&self, n: u64) -> Product {
        let first = self.draw(&self.promoted, n, 1);
        let same = self.by_department.get(first.department.as_str()).unwrap_or(&self.promoted);
        let second = self.draw(same, n, 2);
        let third = self.draw(same, n, 3);
        Product {
            id: FIRST_ID + n,
            title: format!("[synthetic] {}", first.title),
            list_price: second.list_price,
            paid_price: second.paid_price,
            discount: second.discount,
            brand: third.brand.clone(),
            lines: third.lines,
            ..first.clone()
        }
    }

    /// The store of the `n`-th item's ad.
    pub fn store(&self, n: u64, stores: &[u32]) -> u32 {
        let place = combine(self.seed ^ 4, n) % stores.len().max(1) as u64;
        stores.get(place as usize).copied().unwrap_or(0)
    }

    fn draw(&self, from: &[&'a Product], n: u64, part: u64) -> &'a Product {
        from[(combine(self.seed ^ part, n) % from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_distinct_labelled_and_of_one_department() {
        let row = |id, department: &str| Product {
            id,
            department: department.into(),
            title: department.into(),
            brand: format!("{department} {id}"),
            promoted: true,
            ..Product::default()
        };
        let products = [row(1, "a"), row(2, "a"), row(3, "b")];
        let items = Recombination::new(5, &products).unwrap();
        for n in 0..100 {
            let item = items.item(n);
            assert_eq!(item.id, (1 << 40) + n);
            assert!(item.title.starts_with("[synthetic] "));
            assert!(item.brand.starts_with(&item.department));
        }
        assert!(Recombination::new(5, &[]).is_none());
    }
}
