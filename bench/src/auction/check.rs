//! Does the clearing that serves equal the one that tries every price?
//!
//! Each auction is cleared as it is served, through shards, cuts and merge, and by its twin ([`oracle`];
//! [`crate::truth::cascade`] where users cascade). Ads, slots and bills must be equal. What the auctions were like is
//! counted, so that a run says what it covered.

use super::case::{Case, Served};
use crate::truth::oracle;
use crate::workload::Seeded;
use gavel_proto::money::BidType;
use gavel_router::auction::UserModel;
use serde::Serialize;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Checked {
    /// Auctions cleared twice.
    pub auctions: u64,
    /// Winners whose slot and price were compared.
    pub winners: u64,
    /// Differences; a run with any fails.
    pub differences: u64,
    /// Auctions by mechanism: second price, VCG, first price.
    pub by_mechanism: [u64; 3],
    /// Winners by bid type: CPM, CPC, CPA, oCPM, oCPC.
    pub by_bid_type: [u64; 5],
    /// Auctions in which a limit kept a better ad out of a slot.
    pub limited: u64,
    /// Auctions in which the page threshold left a slot empty that an ad could have had.
    pub emptied: u64,
    /// Auctions in which an ad that was worth more than a winner bid below its reserve.
    pub below_reserve: u64,
    /// Auctions of cascading users.
    pub cascading: u64,
    /// Auctions that went through shards, their cuts and the merge.
    pub sharded: u64,
    /// Auctions of which a shard's cut left ads out.
    pub cut: u64,
    /// Auctions that were cleared anew without a winner that could not be served.
    pub cleared_anew: u64,
}

/// Clears random auctions twice.
///
/// # Errors
/// The first difference, with its case.
pub fn check(seed: u64, auctions: u64) -> Result<Checked, String> {
    let mut checked = Checked::default();
    for number in 0..auctions {
        let mut random = Seeded::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let case = Case::draw(&mut random);
        let at = |what: String| format!("auction {number} of seed {seed}: {what}: {case:?}");
        let served = case.served().map_err(at)?;
        let expected = case.expected(&served).map_err(at)?;
        if served.sold != expected {
            return Err(at(format!("served {served:?}, the twin says {expected:?}")));
        }
        checked.count(&case, &served);
    }
    Ok(checked)
}

impl Checked {
    fn count(&mut self, case: &Case, served: &Served) {
        let mechanism = match case.rule.mechanism {
            oracle::Mechanism::Gsp => 0,
            oracle::Mechanism::Vcg => 1,
            oracle::Mechanism::FirstPrice => 2,
        };
        self.auctions += 1;
        self.winners += served.sold.len() as u64;
        self.by_mechanism[mechanism] += 1;
        for (place, bid_type) in BidType::ALL.iter().enumerate() {
            let sold = |ad: u64| served.sold.iter().any(|(winner, _)| *winner == ad);
            let of_type = case.ads.iter().filter(|one| one.ad.bid_type == *bid_type && sold(one.ad.ad));
            self.by_bid_type[place] += of_type.count() as u64;
        }
        self.limited += u64::from(served.limited);
        self.emptied += u64::from(served.emptied);
        self.below_reserve += u64::from(served.filtered);
        self.cascading += u64::from(case.users == UserModel::Cascade);
        self.sharded += u64::from(case.shards > 0);
        self.cut += u64::from(served.cut > 0);
        self.cleared_anew += u64::from(!served.failed.is_empty());
    }

    /// What the auctions were like, for a person.
    #[must_use]
    pub fn kinds(&self) -> String {
        let [gsp, vcg, first_price] = self.by_mechanism;
        let [cpm, cpc, cpa, ocpm, ocpc] = self.by_bid_type;
        format!(
            "  gsp {gsp}, vcg {vcg}, first_price {first_price}; cascading users {}\n  \
             winners CPM {cpm}, CPC {cpc}, CPA {cpa}, oCPM {ocpm}, oCPC {ocpc}\n  \
             a limit kept a better ad out {}, a reserve did {}, the page threshold left slots empty {}\n  \
             through shards {}, a cut left ads out {}, cleared anew {}",
            self.cascading, self.limited, self.below_reserve, self.emptied, self.sharded, self.cut, self.cleared_anew,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bounded share of what the command checks, with enough of every kind of auction in it.
    #[test]
    fn the_clearing_equals_its_twin() {
        let checked = check(7, 20_000).unwrap_or_else(|difference| panic!("{difference}"));
        assert!(checked.winners > 20_000 && checked.limited > 1_500 && checked.below_reserve > 2_500, "{checked:?}");
        assert!(checked.by_mechanism.iter().all(|auctions| *auctions > 5_000), "{checked:?}");
        assert!(checked.by_bid_type.iter().all(|winners| *winners > 4_000), "{checked:?}");
        assert!(checked.cascading > 2_000 && checked.cleared_anew > 6_000, "{checked:?}");
        assert!(checked.emptied > 1_500 && checked.sharded > 14_000 && checked.cut > 1_500, "{checked:?}");
    }
}
