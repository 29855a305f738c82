//! What does an impression count in, and what may a user not see any more?
//!
//! The rules of all campaigns of a catalogue, indexed. A rule binds the ads of its own campaign, whatever it counts: a
//! campaign whose rule is over its advertiser stops when the user has seen enough of the advertiser, and the
//! advertiser's other campaigns go on. For that count to be true every campaign of such an advertiser is counted,
//! also those without a rule.

use super::{FrequencyRule, FrequencyScope, FrequencyWindow};
use crate::ids::{AdId, AdvertiserId, CampaignId};
use crate::limits::CAPPED_MAX;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A counter that an impression goes into, and its bound for that impression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterLimit {
    /// Counted together.
    pub scope: FrequencyScope,
    /// The ad, campaign or advertiser.
    pub id: u64,
    /// The rolling window.
    pub window: FrequencyWindow,
    /// Refused at so many; 0: counted only.
    pub max: u8,
}

/// What a user has seen within one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenCount {
    /// Counted together.
    pub scope: FrequencyScope,
    /// The ad, campaign or advertiser.
    pub id: u64,
    /// The campaign of a counted ad.
    pub campaign: u64,
    /// The rolling window.
    pub window: FrequencyWindow,
    /// Impressions.
    pub count: u8,
}

/// What a user may not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capped {
    /// Campaigns, ascending, each once.
    pub campaigns: Vec<u64>,
    /// Single ads of other campaigns, as (campaign, ad), ascending, each once.
    pub ads: Vec<(u64, u64)>,
}

impl Capped {
    /// True when nothing is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.campaigns.is_empty() && self.ads.is_empty()
    }
}

/// What a search leaves out by frequency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// What the user has seen often enough.
    Capped(Capped),
    /// Everything that is counted: nobody can say what is capped. Nodes know it from their catalogue; these campaigns are
    /// counted beyond it.
    WithoutCounted(Vec<u64>),
}

impl Default for Screen {
    fn default() -> Self {
        Self::Capped(Capped::default())
    }
}

/// The rules of all campaigns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleBook {
    campaigns: HashMap<u64, Vec<FrequencyRule>>,
    /// Advertisers with a rule over them: its windows, and the bounds of each campaign that has one.
    advertisers: HashMap<u64, BTreeMap<FrequencyWindow, Vec<(u64, u8)>>>,
    /// Campaigns that are counted only because of what was said since the catalogue.
    beyond: Vec<u64>,
}

impl RuleBook {
    /// A book from (campaign, advertiser, rules); of a campaign that is given twice the last stands.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = (CampaignId, AdvertiserId, Vec<FrequencyRule>)>) -> Self {
        let mut last: BTreeMap<u64, (u64, Vec<FrequencyRule>)> = BTreeMap::new();
        for (campaign, advertiser, rules) in all {
            last.insert(campaign.0, (advertiser.0, rules));
        }
        let mut book = Self::default();
        for (campaign, (advertiser, rules)) in last {
            for rule in rules.iter().filter(|rule| rule.scope == FrequencyScope::Advertiser) {
                let windows = book.advertisers.entry(advertiser).or_default();
                windows.entry(rule.window).or_default().push((campaign, rule.max));
            }
            if !rules.is_empty() {
                book.campaigns.insert(campaign, rules);
            }
        }
        book
    }

    /// From the book of a catalogue, the one when this was said of some of its campaigns since, ascending: their rules stand
    /// in place of the catalogue's. What is said of other campaigns is not heard.
    #[must_use]
    pub fn laid_over(
        &self,
        catalogue: &[(CampaignId, AdvertiserId, Vec<FrequencyRule>)],
        said: &[(u64, Vec<FrequencyRule>)],
    ) -> Self {
        let mut book = Self::new(catalogue.iter().map(|(campaign, advertiser, rules)| {
            let found = said.binary_search_by_key(&campaign.0, |(of, _)| *of).ok();
            let rules = found.and_then(|at| said.get(at)).map_or(rules, |(_, said)| said);
            (*campaign, *advertiser, rules.clone())
        }));
        let counted = catalogue.iter().map(|(campaign, advertiser, _)| (*campaign, *advertiser));
        let beyond = counted.filter(|(c, a)| book.is_counted(*c, *a) && !self.is_counted(*c, *a));
        let mut beyond: Vec<u64> = beyond.map(|(campaign, _)| campaign.0).collect();
        beyond.sort_unstable();
        book.beyond = beyond;
        book
    }

    /// True when no campaign has a rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.campaigns.is_empty()
    }

    /// Campaigns with a rule.
    #[must_use]
    pub fn len(&self) -> usize {
        self.campaigns.len()
    }

    /// Whether impressions of this campaign are counted: without a count none of them may be served.
    #[must_use]
    pub fn is_counted(&self, campaign: CampaignId, advertiser: AdvertiserId) -> bool {
        self.campaigns.contains_key(&campaign.0) || self.advertisers.contains_key(&advertiser.0)
    }

    /// What an impression of this ad counts in, with its bounds, ascending; empty for one that is not counted.
    #[must_use]
    pub fn counters(&self, ad: AdId, campaign: CampaignId, advertiser: AdvertiserId) -> Vec<CounterLimit> {
        let mut counters: BTreeMap<(FrequencyScope, FrequencyWindow), (u64, u8)> = BTreeMap::new();
        for window in self.advertisers.get(&advertiser.0).into_iter().flat_map(BTreeMap::keys) {
            counters.insert((FrequencyScope::Advertiser, *window), (advertiser.0, 0));
        }
        for rule in self.campaigns.get(&campaign.0).into_iter().flatten() {
            let id = match rule.scope {
                FrequencyScope::Ad => ad.0,
                FrequencyScope::Campaign => campaign.0,
                FrequencyScope::Advertiser => advertiser.0,
            };
            counters.insert((rule.scope, rule.window), (id, rule.max));
        }
        counters.into_iter().map(|((scope, window), (id, max))| CounterLimit { scope, id, window, max }).collect()
    }

    /// What a search for a user who has seen this leaves out; a list that no message takes becomes everything counted.
    #[must_use]
    pub fn screen(&self, seen: &[SeenCount]) -> Screen {
        let capped = self.capped(seen);
        match capped.campaigns.len().max(capped.ads.len()) <= CAPPED_MAX {
            true => Screen::Capped(capped),
            false => self.without_counted(),
        }
    }

    /// What a search leaves out when nobody says what the user has seen.
    #[must_use]
    pub fn without_counted(&self) -> Screen {
        // One beyond the limit of a message can still win, and gets no impression then.
        Screen::WithoutCounted(self.beyond.iter().take(CAPPED_MAX).copied().collect())
    }

    /// Campaigns that are counted though their catalogue does not say so, ascending.
    #[must_use]
    pub fn beyond_catalogue(&self) -> &[u64] {
        &self.beyond
    }

    /// What a user who has seen this may not see.
    #[must_use]
    pub fn capped(&self, seen: &[SeenCount]) -> Capped {
        let (mut campaigns, mut ads) = (BTreeSet::new(), BTreeSet::new());
        let is_full = |campaign: u64, count: &SeenCount| {
            let rules = self.campaigns.get(&campaign).into_iter().flatten();
            let mut of = rules.filter(|rule| (rule.scope, rule.window) == (count.scope, count.window));
            of.any(|rule| count.count >= rule.max)
        };
        for count in seen {
            match count.scope {
                FrequencyScope::Ad if is_full(count.campaign, count) => {
                    ads.insert((count.campaign, count.id));
                }
                FrequencyScope::Campaign if is_full(count.id, count) => {
                    campaigns.insert(count.id);
                }
                FrequencyScope::Ad | FrequencyScope::Campaign => {}
                FrequencyScope::Advertiser => {
                    let bounds = self.advertisers.get(&count.id).and_then(|windows| windows.get(&count.window));
                    let full = bounds.into_iter().flatten().filter(|(_, max)| count.count >= *max);
                    campaigns.extend(full.map(|(campaign, _)| *campaign));
                }
            }
        }
        ads.retain(|(campaign, _)| !campaigns.contains(campaign));
        Capped { campaigns: campaigns.into_iter().collect(), ads: ads.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(scope: FrequencyScope, hours: u32, max: u8) -> FrequencyRule {
        FrequencyRule { scope, window: FrequencyWindow::of_hours(hours).expect("a window"), max }
    }

    fn book(of: &[(u64, u64, &[FrequencyRule])]) -> RuleBook {
        RuleBook::new(of.iter().map(|(c, a, rules)| (CampaignId(*c), AdvertiserId(*a), rules.to_vec())))
    }

    fn seen(scope: FrequencyScope, id: u64, campaign: u64, hours: u32, count: u8) -> SeenCount {
        SeenCount { scope, id, campaign, window: FrequencyWindow::of_hours(hours).expect("a window"), count }
    }

    #[test]
    fn a_rule_over_the_advertiser_counts_all_and_binds_its_own() {
        let book = book(&[(1, 9, &[rule(FrequencyScope::Advertiser, 24, 3)]), (2, 9, &[]), (3, 8, &[])]);
        assert_eq!(book.len(), 1);
        let counted = |c, a| book.is_counted(CampaignId(c), AdvertiserId(a));
        assert!(counted(1, 9) && counted(2, 9) && !counted(3, 8));
        let max = |campaign| {
            let counters = book.counters(AdId(70), CampaignId(campaign), AdvertiserId(9));
            counters.iter().map(|c| (c.id, c.max)).collect::<Vec<_>>()
        };
        assert_eq!((max(1), max(2)), (vec![(9, 3)], vec![(9, 0)]));
        assert!(book.counters(AdId(70), CampaignId(3), AdvertiserId(8)).is_empty());
        let capped = |count| book.capped(&[seen(FrequencyScope::Advertiser, 9, 0, 24, count)]).campaigns;
        assert_eq!((capped(2), capped(3)), (vec![], vec![1]));
        assert!(book.capped(&[seen(FrequencyScope::Advertiser, 9, 0, 1, 200)]).is_empty(), "another window");
    }

    #[test]
    fn an_ad_is_capped_alone() {
        let book = book(&[(1, 9, &[rule(FrequencyScope::Ad, 6, 2), rule(FrequencyScope::Campaign, 24, 5)])]);
        let ad = |count| seen(FrequencyScope::Ad, 70, 1, 6, count);
        assert_eq!(book.capped(&[ad(1)]), Capped::default());
        assert_eq!(book.capped(&[ad(2)]), Capped { campaigns: vec![], ads: vec![(1, 70)] });
        let both = book.capped(&[ad(2), seen(FrequencyScope::Campaign, 1, 0, 24, 5)]);
        assert_eq!(both, Capped { campaigns: vec![1], ads: vec![] }, "the campaign says it all");
        assert!(book.capped(&[seen(FrequencyScope::Ad, 70, 2, 6, 9)]).is_empty(), "of a campaign without a rule");
    }

    proptest! {
        /// The twin asks for each ad by itself whether one of its counters is full.
        #[test]
        fn what_is_capped_is_what_would_be_refused(
            rules in prop::collection::vec((1u64..5, 0u8..3, prop::sample::select(vec![1u32, 24, 168]), 1u8..4), 0..10),
            counts in prop::collection::vec(
                (0u8..3, 1u64..5, prop::sample::select(vec![1u32, 24, 168]), 0u8..5), 0..12),
        ) {
            let scope = |n: u8| [FrequencyScope::Ad, FrequencyScope::Campaign, FrequencyScope::Advertiser][usize::from(n)];
            // Campaign c is of advertiser c % 2 and has the ads 10c and 10c + 1.
            let mut by_campaign: BTreeMap<u64, BTreeMap<(FrequencyScope, u32), u8>> = BTreeMap::new();
            for (campaign, of, hours, max) in rules {
                by_campaign.entry(campaign).or_default().insert((scope(of), hours), max);
            }
            let book = RuleBook::new((1..5).map(|campaign| {
                let rules = by_campaign.get(&campaign).into_iter().flatten();
                let rules = rules.map(|((scope, hours), max)| rule(*scope, *hours, *max)).collect();
                (CampaignId(campaign), AdvertiserId(campaign % 2), rules)
            }));
            let seen: Vec<SeenCount> = counts.into_iter().map(|(of, n, hours, count)| match scope(of) {
                FrequencyScope::Ad => seen(FrequencyScope::Ad, 10 * n, n, hours, count),
                FrequencyScope::Campaign => seen(FrequencyScope::Campaign, n, 0, hours, count),
                FrequencyScope::Advertiser => seen(FrequencyScope::Advertiser, n % 2, 0, hours, count),
            }).collect();
            let capped = book.capped(&seen);
            for (campaign, ad) in (1..5).flat_map(|c| [(c, 10 * c), (c, 10 * c + 1)]) {
                let counters = book.counters(AdId(ad), CampaignId(campaign), AdvertiserId(campaign % 2));
                let refused = counters.iter().filter(|c| c.max > 0).any(|c| {
                    seen.iter().any(|s| (s.scope, s.id, s.window) == (c.scope, c.id, c.window) && s.count >= c.max)
                });
                let excluded = capped.campaigns.contains(&campaign) || capped.ads.contains(&(campaign, ad));
                prop_assert_eq!(excluded, refused, "campaign {} ad {}", campaign, ad);
            }
        }
    }
}
