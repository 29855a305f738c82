//! Why is this ad not in the answer?
//!
//! An ordinary search asks nobody: [`Unwatched`] compiles to nothing. An explained one keeps an
//! [`Account`], in which every ad of the shard ends with exactly one reason, so that the counts add up to
//! the ads of the shard.

use std::collections::HashMap;

/// Where the way of an ad through a shard's funnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its targeting excludes the request.
    NotEligibleTargeting,
    /// Its campaign or ad group is unknown, or bids nothing after pacing.
    NotEligibleStatus,
    /// Its campaign or ad group is paused.
    NotEligiblePaused,
    /// Its campaign has nothing left to spend.
    NotEligibleBudget,
    /// Its campaign has not begun, or is over.
    NotEligibleSchedule,
    /// Its campaign, advertiser or category is blocked by the request.
    NotEligibleBlocked,
    /// The user has seen it, its campaign or its advertiser often enough, or nobody knows how often.
    NotEligibleFrequency,
    /// Its item is not among the retrieved ones.
    NotRetrieved,
    /// Its item was not promising enough for the ranker, or the time ended before it was ranked.
    CutLight,
    /// A prediction of its item was not a finite number.
    NonFinite,
    /// It bids less than its reserve.
    BelowReserve,
    /// It cannot matter to the merged auction any more.
    CutShard,
    /// The router got it.
    Returned,
}

impl Reason {
    /// Every reason, from the furthest from winning to the nearest.
    pub const ALL: [Self; 13] = [
        Self::NotEligibleTargeting,
        Self::NotEligibleBlocked,
        Self::NotEligibleStatus,
        Self::NotEligiblePaused,
        Self::NotEligibleSchedule,
        Self::NotEligibleBudget,
        Self::NotEligibleFrequency,
        Self::NotRetrieved,
        Self::CutLight,
        Self::NonFinite,
        Self::BelowReserve,
        Self::CutShard,
        Self::Returned,
    ];

    /// The word on the wire and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotEligibleTargeting => "not_eligible_targeting",
            Self::NotEligibleStatus => "not_eligible_status",
            Self::NotEligiblePaused => "not_eligible_paused",
            Self::NotEligibleBudget => "not_eligible_budget",
            Self::NotEligibleSchedule => "not_eligible_schedule",
            Self::NotEligibleBlocked => "not_eligible_blocked",
            Self::NotEligibleFrequency => "not_eligible_frequency",
            Self::NotRetrieved => "not_retrieved",
            Self::CutLight => "cut_light",
            Self::NonFinite => "non_finite",
            Self::BelowReserve => "below_reserve",
            Self::CutShard => "cut_shard",
            Self::Returned => "returned",
        }
    }

    /// Its place in [`Reason::ALL`].
    fn nearness(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }
}

/// What an ad was worth when its way ended; zeros for what was not computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worth {
    /// Paced bid.
    pub bid_micros: u64,
    /// Score units per bid micro.
    pub weight: u64,
    /// Auction score.
    pub score: i128,
    /// Expected value of its item in the light order, in currency micros per impression.
    pub light_micros: f64,
}

/// Is told where the way of each ad ends.
pub trait Witness {
    /// False when [`Witness::note`] does nothing, so that callers save the work of finding out.
    const WATCHES: bool;
    /// An ad ended here. A later note of the same ad replaces an earlier one.
    fn note(&mut self, ad: u32, reason: Reason, worth: Worth);
}

/// Nobody asked.
pub struct Unwatched;

impl Witness for Unwatched {
    const WATCHES: bool = false;

    fn note(&mut self, _: u32, _: Reason, _: Worth) {}
}

/// Ads between two looks at the deadline: some tens of microseconds.
const ADS_PER_LOOK: u32 = 4_096;

/// The reason of every ad of one shard.
pub struct Account {
    reasons: Vec<Reason>,
    worth: HashMap<u32, Worth>,
}

/// One ad with its reason.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Explained {
    /// Its ordinal.
    pub ad: u32,
    /// Where its way ended.
    pub reason: Reason,
    /// What it was worth.
    pub worth: Worth,
}

impl Account {
    /// An account in which the ads that meet a barrier have that reason and all others were not retrieved; `None` when
    /// it is late before every ad has been looked at.
    #[must_use]
    pub fn new(ads: u32, barrier: impl Fn(u32) -> Option<Reason>, late: impl Fn() -> bool) -> Option<Self> {
        let reason = |ad: u32| {
            let in_time = !ad.is_multiple_of(ADS_PER_LOOK) || !late();
            in_time.then(|| barrier(ad).unwrap_or(Reason::NotRetrieved))
        };
        let reasons = (0..ads).map(reason).collect::<Option<_>>()?;
        Some(Self { reasons, worth: HashMap::new() })
    }

    /// How many ads ended for each reason; the counts sum to the ads of the shard.
    #[must_use]
    pub fn counts(&self) -> Vec<(Reason, u64)> {
        let mut counts = [0u64; Reason::ALL.len()];
        for reason in &self.reasons {
            counts[reason.nearness()] += 1;
        }
        Reason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// The `limit` ads nearest to winning, nearest first.
    #[must_use]
    pub fn nearest(&self, limit: usize) -> Vec<Explained> {
        let mut out = Vec::new();
        for reason in Reason::ALL.into_iter().rev() {
            if out.len() >= limit {
                break;
            }
            let ads = (0..).zip(&self.reasons).filter(|(_, r)| **r == reason);
            let mut explained: Vec<Explained> = ads
                .map(|(ad, _)| Explained { ad, reason, worth: self.worth.get(&ad).copied().unwrap_or_default() })
                .collect();
            explained.sort_by(|a, b| {
                let score = b.worth.score.cmp(&a.worth.score);
                score.then(b.worth.light_micros.total_cmp(&a.worth.light_micros)).then(a.ad.cmp(&b.ad))
            });
            explained.truncate(limit - out.len());
            out.append(&mut explained);
        }
        out
    }
}

impl Witness for Account {
    const WATCHES: bool = true;

    fn note(&mut self, ad: u32, reason: Reason, worth: Worth) {
        if let Some(slot) = self.reasons.get_mut(ad as usize) {
            *slot = reason;
            self.worth.insert(ad, worth);
        }
    }
}
