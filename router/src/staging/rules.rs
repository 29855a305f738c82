//! Which frequency rules are in force?
//!
//! Those of the generation's catalogue, and in place of them those that were said of a campaign since. The catalogue's
//! owners are kept, since what is said names the campaign alone. A book is made anew only when something else is said.

use super::convert::CampaignRules;
use gavel_proto::frequency::{FrequencyRule, RuleBook};
use std::sync::{Arc, Mutex, PoisonError};

/// What is said of campaigns, ascending by campaign.
pub(super) type Said = Vec<(u64, Vec<FrequencyRule>)>;

/// The rules of a generation.
#[derive(Debug, Default)]
pub(super) struct Rules {
    catalogue: Vec<CampaignRules>,
    plain: Arc<RuleBook>,
    latest: Mutex<(Arc<Said>, Arc<RuleBook>)>,
}

impl Rules {
    /// The rules of a catalogue.
    pub(super) fn new(catalogue: Vec<CampaignRules>) -> Self {
        let plain = Arc::new(RuleBook::new(catalogue.iter().cloned()));
        let latest = Mutex::new((Arc::default(), Arc::clone(&plain)));
        Self { catalogue, plain, latest }
    }

    /// What is in force when this is said.
    pub(super) fn under(&self, said: &Arc<Said>) -> Arc<RuleBook> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&latest.0, said) && latest.0 != *said {
            let book = Arc::new(self.plain.laid_over(&self.catalogue, said));
            *latest = (Arc::clone(said), book);
        }
        Arc::clone(&latest.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::frequency::{FrequencyScope, FrequencyWindow};
    use gavel_proto::ids::{AdId, AdvertiserId, CampaignId};

    #[test]
    fn what_is_said_stands_in_place_of_the_catalogue_and_is_made_once() {
        let rule = |max| FrequencyRule { scope: FrequencyScope::Campaign, window: FrequencyWindow::MONTH, max };
        let campaign = |id, rules| (CampaignId(id), AdvertiserId(9), rules);
        let rules = Rules::new(vec![campaign(1, vec![rule(3)]), campaign(2, vec![])]);
        let max = |book: &RuleBook, id| {
            let counters = book.counters(AdId(70), CampaignId(id), AdvertiserId(9));
            counters.first().map(|counter| counter.max)
        };
        let plain = rules.under(&Arc::default());
        assert_eq!((max(&plain, 1), max(&plain, 2)), (Some(3), None));
        let said = || Arc::new(vec![(1, vec![rule(5)]), (2, vec![rule(1)]), (8, vec![rule(1)])]);
        let over = rules.under(&said());
        assert_eq!((max(&over, 1), max(&over, 2)), (Some(5), Some(1)));
        assert_eq!(over.beyond_catalogue(), [2], "nodes do not know that it is counted");
        assert!(Arc::ptr_eq(&over, &rules.under(&said())));
        assert_eq!(rules.under(&Arc::default()), plain);
    }
}
