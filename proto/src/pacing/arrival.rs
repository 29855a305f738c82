//! How long after an ad was served does its billed event come?
//!
//! Counts of delays, in bins that double, beside a prior: before anything was seen, half of what comes has come after the
//! prior's half-life. From both follows which share of the events is still to come at an age. Young ads are among
//! those that were served and have had no time for long delays, so a cluster that has just started believes the long
//! ones too rare; the prior, worth [`PRIOR`] events, holds against it.

use crate::money::BidType;

/// An impression counts for so many seconds after its ad was served, as its token says: the ledger keeps a lease's money
/// for a minute after its use.
pub const IMPRESSION_S: u32 = 60;
/// A click counts for a day.
pub const CLICK_S: u32 = 86_400;
/// A conversion for a week.
pub const CONVERSION_S: u32 = 7 * CLICK_S;
/// Half of the clicks have come after so long, before any was seen. Ours.
pub const CLICK_HALF_S: f64 = 30.0;
/// Half of the conversions. Ours: within the visit or in the days after.
pub const CONVERSION_HALF_S: f64 = 3_600.0;
/// Bins: delays below a second, two, four and so on up to twelve days.
pub const BINS: usize = 21;
/// Events that the prior is worth. Ours: a campaign's worth of clicks.
const PRIOR: f64 = 100.0;
/// Beyond so many events the counts are halved, so that they follow what changes.
const COUNT_MAX: u64 = 1 << 20;

/// How long after its ad was served the event that a bid type bills may come.
#[must_use]
pub const fn window_s(bid_type: BidType) -> u32 {
    match bid_type {
        BidType::Cpm | BidType::Ocpm => IMPRESSION_S,
        BidType::Cpc | BidType::Ocpc => CLICK_S,
        BidType::Cpa => CONVERSION_S,
    }
}

/// The bin of a delay.
#[must_use]
pub fn bin(delay_ms: u64) -> usize {
    let seconds = delay_ms / 1_000;
    ((u64::BITS - seconds.leading_zeros()) as usize).min(BINS - 1)
}

/// Counts of delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays([u64; BINS]);

impl Delays {
    /// Of counts by bin; missing ones are 0.
    #[must_use]
    pub fn of(counts: &[u64]) -> Self {
        let mut delays = Self::default();
        delays.0.iter_mut().zip(counts).for_each(|(held, count)| *held = (*count).min(COUNT_MAX));
        delays
    }

    /// By bin.
    #[must_use]
    pub const fn counts(&self) -> &[u64; BINS] {
        &self.0
    }

    /// An event came so long after its ad.
    pub fn count(&mut self, delay_ms: u64) {
        self.0[bin(delay_ms)] += 1;
        if self.0.iter().sum::<u64>() > COUNT_MAX {
            self.0.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(held, count)| *held = held.saturating_add(count));
    }
}

/// Which share of what comes at all is still to come.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// At the lower ends of the bins, and after the last.
    remaining: [f64; BINS + 1],
    window_s: f64,
}

impl Arrival {
    /// From counts and a prior half-life; nothing comes after the window.
    #[must_use]
    pub fn new(delays: &Delays, half_life_s: f64, window_s: f64) -> Self {
        let total = delays.0.iter().sum::<u64>() as f64 + PRIOR;
        let mut later = delays.0.iter().sum::<u64>() as f64;
        let mut remaining = [0.0; BINS + 1];
        for (at, share) in remaining.iter_mut().enumerate() {
            *share = (later + PRIOR * (-lower_s(at) / half_life_s).exp2()) / total;
            later -= delays.0.get(at).map_or(0.0, |count| *count as f64);
        }
        Self { remaining, window_s }
    }

    /// The share at an age in seconds, from 1 down to 0; straight between the ends of a bin.
    #[must_use]
    pub fn remaining(&self, age_s: f64) -> f64 {
        if age_s.is_nan() || age_s >= self.window_s {
            return 0.0;
        }
        // At least 0, so the cast only cuts; a second later than 0 is the lower end of bin 1.
        let at = bin((age_s.max(0.0) * 1_000.0) as u64);
        let (low, high) = (lower_s(at), lower_s(at + 1));
        let part = ((age_s - low) / (high - low)).clamp(0.0, 1.0);
        let (from, to) = (self.remaining[at], self.remaining[at + 1]);
        (from + (to - from) * part).clamp(0.0, 1.0)
    }
}

/// How the events come that are billed later.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrivals {
    clicks: Arrival,
    conversions: Arrival,
}

impl Arrivals {
    /// From the delays of clicks and of conversions.
    #[must_use]
    pub fn new(clicks: &Delays, conversions: &Delays) -> Self {
        Self {
            clicks: Arrival::new(clicks, CLICK_HALF_S, f64::from(CLICK_S)),
            conversions: Arrival::new(conversions, CONVERSION_HALF_S, f64::from(CONVERSION_S)),
        }
    }

    /// How the event comes that a bid type bills. What was in flight before a campaign was sold by impressions comes as
    /// clicks do.
    #[must_use]
    pub const fn of(&self, bid_type: BidType) -> &Arrival {
        match bid_type {
            BidType::Cpa => &self.conversions,
            BidType::Cpm | BidType::Ocpm | BidType::Cpc | BidType::Ocpc => &self.clicks,
        }
    }
}

/// The shortest delay of a bin, seconds.
fn lower_s(bin: usize) -> f64 {
    if bin == 0 { 0.0 } else { (bin as f64 - 1.0).exp2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_double() {
        assert_eq!([0, 999, 1_000, 1_999, 2_000, 4_000, u64::MAX].map(bin), [0, 0, 1, 1, 2, 3, BINS - 1]);
    }

    #[test]
    fn before_anything_was_seen_the_prior_speaks() {
        let arrival = Arrival::new(&Delays::default(), 64.0, 86_400.0);
        assert!((arrival.remaining(0.0) - 1.0).abs() < 1e-12);
        assert!((arrival.remaining(64.0) - 0.5).abs() < 1e-12);
        assert_eq!(arrival.remaining(86_400.0), 0.0);
        assert_eq!(arrival.remaining(f64::NAN), 0.0);
    }

    /// A thousand delays of 0 to 10 minutes: the share that is left is theirs, but for the prior's eleventh.
    #[test]
    fn what_was_seen_outweighs_it() {
        let mut delays = Delays::default();
        (0..1_000u64).for_each(|n| delays.count(n * 600));
        let arrival = Arrival::new(&delays, 30.0, 86_400.0);
        for (age, left) in [(0.0, 1.0), (64.0, 0.893), (256.0, 0.573)] {
            let found = arrival.remaining(age);
            assert!((found - left).abs() < 0.1, "{age}: {found} for {left}");
        }
        let ages: Vec<f64> = (0..2_000).map(|age| arrival.remaining(f64::from(age))).collect();
        assert!(ages.windows(2).all(|pair| pair[1] <= pair[0]), "it only falls");
    }

    #[test]
    fn each_bid_type_has_the_window_and_the_delays_of_what_it_bills() {
        assert_eq!(BidType::ALL.map(window_s), [60, 86_400, 604_800, 60, 86_400]);
        let arrivals = Arrivals::new(&Delays::default(), &Delays::default());
        let half_s = |bid_type, half: f64| (arrivals.of(bid_type).remaining(half) - 0.5).abs() < 0.05;
        assert!(half_s(BidType::Cpc, CLICK_HALF_S) && half_s(BidType::Ocpc, CLICK_HALF_S));
        assert!(half_s(BidType::Cpa, CONVERSION_HALF_S));
    }

    #[test]
    fn counts_are_bounded() {
        let mut delays = Delays::of(&[u64::MAX; 30]);
        delays.count(5);
        assert!(delays.counts().iter().all(|count| *count <= COUNT_MAX));
    }
}
