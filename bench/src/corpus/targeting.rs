//! In which stores may an ad be shown?
//!
//! By the breadth of its campaign: everywhere; in 10 to 30 stores; in one. A regional campaign prefers the
//! stores where its product is promoted and takes the rest of its region by a hash of (campaign, store), so
//! that the ads of one campaign share their region.

use gavel_proto::hash::combine;

use super::campaign::Breadth;
use super::records::TermLine;

/// The `targeting.toml` of a corpus: requests that name anything else are mistaken.
pub const DECLARED: &str = "# What ads of this catalogue are targeted by; see docs/targeting.md.\n[dimensions.store]\n";

const REGION_MIN: u64 = 10;
const REGION_MAX: u64 = 30;

/// Every store of the chain, and the seed that ranks them for a campaign.
#[derive(Debug)]
pub struct Stores {
    seed: u64,
    all: Vec<u32>,
}

impl Stores {
    pub fn new(seed: u64, mut all: Vec<u32>) -> Self {
        all.sort_unstable();
        all.dedup();
        Self { seed, all }
    }

    /// Place of a store in the sorted list; ads of one product are told apart by it.
    pub fn ordinal(&self, store: u32) -> u64 {
        self.all.binary_search(&store).map_or(0, |place| place as u64 + 1)
    }

    /// The stores of the chain.
    pub fn all(&self) -> &[u32] {
        &self.all
    }

    /// The conditions of an ad of `campaign` whose product is promoted in `own` stores.
    pub fn terms(&self, campaign: u64, own: &[u32]) -> Vec<TermLine> {
        let chosen = match Breadth::of(self.seed, campaign) {
            Breadth::National => return Vec::new(),
            Breadth::Regional => {
                let size = REGION_MIN + combine(campaign, self.seed) % (REGION_MAX - REGION_MIN + 1);
                self.nearest(campaign, own, size as usize)
            }
            Breadth::SingleStore => self.nearest(campaign, own, 1),
        };
        vec![TermLine { dimension: "store", any_of: chosen.iter().map(u32::to_string).collect(), none_of: Vec::new() }]
    }

    fn nearest(&self, campaign: u64, own: &[u32], size: usize) -> Vec<u32> {
        let rank = |store: u32| combine(self.seed ^ campaign, u64::from(store));
        let mut ranked: Vec<(bool, u64, u32)> =
            self.all.iter().map(|&store| (!own.contains(&store), rank(store), store)).collect();
        let size = size.min(ranked.len());
        if size < ranked.len() {
            ranked.select_nth_unstable(size);
        }
        ranked.truncate(size);
        let mut chosen: Vec<u32> = ranked.into_iter().map(|(_, _, store)| store).collect();
        chosen.sort_unstable();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_breadth_has_its_number_of_stores() {
        let stores = Stores::new(3, (0..200).collect());
        let mut seen = [false; 3];
        for campaign in 0..50 {
            let breadth = Breadth::of(3, campaign);
            seen[breadth as usize] = true;
            let terms = stores.terms(campaign, &[7, 9]);
            match breadth {
                Breadth::National => assert!(terms.is_empty()),
                Breadth::Regional => {
                    assert!((10..=30).contains(&terms[0].any_of.len()));
                    assert!(terms[0].any_of.contains(&"7".to_owned()) && terms[0].any_of.contains(&"9".to_owned()));
                }
                Breadth::SingleStore => {
                    assert_eq!(terms[0].any_of.len(), 1);
                    assert!(["7", "9"].contains(&terms[0].any_of[0].as_str()));
                }
            }
        }
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn a_chain_smaller_than_a_region_is_taken_whole() {
        let stores = Stores::new(3, vec![5, 1, 5]);
        for campaign in 0..50 {
            let terms = stores.terms(campaign, &[1]);
            assert!(terms.is_empty() || terms[0].any_of.len() <= 2);
        }
    }
}
