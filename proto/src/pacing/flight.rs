//! What was served and may still be charged?
//!
//! An ad that is billed by a click or a conversion costs nothing when it is served, and its price later, perhaps. Its
//! expectation, price times probability, is *in flight* meanwhile. A [`Flight`] keeps the sums of these by the time of
//! serving, fine when they are young and coarse when they are old, so that a week takes some ninety sums. What of a sum is
//! still to come depends on its age alone, and the [`Arrival`](super::Arrival) of events says how much.
//!
//! Routers write flights, the pacer reads copies of them. A copy is brought up to date by what was written since the
//! last time ([`Flight::since`], [`Flight::replace`]): whole sums, so that a repetition changes nothing.

/// Up to this age (seconds, of the end of a bucket) buckets are so wide. Each width divides the next, and a day's hours.
const TIERS: [(u32, u32); 5] = [(60, 5), (900, 60), (4 * 3_600, 900), (86_400, 3_600), (u32::MAX, WIDTH_MAX_S)];

/// The width of the oldest buckets.
pub const WIDTH_MAX_S: u32 = 6 * 3_600;

/// Most buckets of a flight over a week: what the tiers add up to, and some for their seams.
pub const BUCKETS_MAX: usize = 128;

/// The price of late is a mean in which each ad weighs one in so many.
const PRICE_OF_LATE: i64 = 16;

/// What must be left in a budget for one more event, after an ad was sold at a price: a mean of late.
#[must_use]
pub const fn price_of_late(before: i64, price: i64) -> i64 {
    if before == 0 { price } else { before + (price - before) / PRICE_OF_LATE }
}

/// What was served within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its first second, since 1970.
    pub start_s: u32,
    /// Its length.
    pub width_s: u32,
    /// The expectation of what was served in it.
    pub nanos: i64,
}

impl Bucket {
    /// The first second after it.
    #[must_use]
    pub const fn end_s(&self) -> u32 {
        self.start_s.saturating_add(self.width_s)
    }
}

/// The expectations of one campaign by the time of serving, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flight(Vec<Bucket>);

impl Flight {
    /// Something was served. A time before the newest bucket counts in that one: clocks go back by little.
    pub fn record(&mut self, at_s: u32, nanos: i64) {
        let width_s = TIERS[0].1;
        let start_s = at_s - at_s % width_s;
        match self.0.last_mut() {
            Some(last) if last.end_s() > start_s => last.nanos = last.nanos.saturating_add(nanos),
            Some(_) | None => self.0.push(Bucket { start_s, width_s, nanos }),
        }
    }

    /// Widens what has grown old, and forgets what ended `window_s` ago.
    pub fn compact(&mut self, now_s: u32, window_s: u32) {
        let mut kept: Vec<Bucket> = Vec::with_capacity(self.0.len());
        for bucket in &self.0 {
            if bucket.end_s().saturating_add(window_s) <= now_s {
                continue;
            }
            let wide = widened(bucket, now_s);
            match kept.last_mut() {
                Some(last) if last.end_s() > wide.start_s => last.nanos = last.nanos.saturating_add(wide.nanos),
                Some(_) | None => kept.push(wide),
            }
        }
        self.0 = kept;
    }

    /// The buckets that reach beyond an instant.
    pub fn since(&self, from_s: u32) -> impl Iterator<Item = Bucket> + '_ {
        let at = self.0.partition_point(|bucket| bucket.end_s() <= from_s);
        self.0[at..].iter().copied()
    }

    /// Puts buckets, ascending, in the place of all from the first of them on.
    ///
    /// Those before are as they were when they were written: what has been widened since at the writer's lies here in
    /// narrower pieces within it, and these go together.
    pub fn replace(&mut self, newer: impl IntoIterator<Item = Bucket>) {
        let mut newer = newer.into_iter().peekable();
        if let Some(first) = newer.peek() {
            let at = self.0.partition_point(|bucket| bucket.start_s < first.start_s);
            self.0.truncate(at);
        }
        for bucket in newer {
            // Ascending and apart, or not at all: it came from outside.
            if self.0.last().is_none_or(|last| last.end_s() <= bucket.start_s) && self.0.len() < BUCKETS_MAX {
                self.0.push(bucket);
            }
        }
    }

    /// The start of the newest bucket: what may still grow.
    #[must_use]
    pub fn newest_s(&self) -> u32 {
        self.0.last().map_or(0, |bucket| bucket.start_s)
    }

    /// Nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Everything that is kept, whatever its age.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.0.iter().fold(0, |sum: i64, bucket| sum.saturating_add(bucket.nanos))
    }

    /// What of that served from `since_s` on is still to come: `remaining` says which share at an age in seconds.
    /// A bucket counts by its middle, and by the part of it that lies after `since_s`.
    #[must_use]
    pub fn to_come(&self, now_s: u32, since_s: u32, remaining: impl Fn(f64) -> f64) -> f64 {
        let one = |bucket: &Bucket| {
            let from = bucket.start_s.max(since_s);
            let after = f64::from(bucket.end_s().saturating_sub(from)) / f64::from(bucket.width_s.max(1));
            let middle = f64::from(from) + f64::from(bucket.end_s().saturating_sub(from)) / 2.0;
            let age = (f64::from(now_s) - middle).max(0.0);
            bucket.nanos as f64 * after.min(1.0) * remaining(age)
        };
        self.0.iter().map(one).sum()
    }
}

/// The bucket of the widest tier that all of it is old enough for.
fn widened(bucket: &Bucket, now_s: u32) -> Bucket {
    let mut wide = *bucket;
    for pair in TIERS.windows(2) {
        let ((age_s, _), (_, width_s)) = (pair[0], pair[1]);
        let start_s = bucket.start_s - bucket.start_s % width_s;
        let end_s = start_s.saturating_add(width_s);
        if width_s > wide.width_s && end_s.saturating_add(age_s) <= now_s {
            wide = Bucket { start_s, width_s, nanos: bucket.nanos };
        }
    }
    wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEEK: u32 = 7 * 86_400;

    /// Times of serving, ascending, with amounts.
    fn served() -> impl Strategy<Value = Vec<(u32, i64)>> {
        let step = prop_oneof![3 => 0u32..20, 2 => 0u32..2_000, 1 => 0u32..40_000];
        proptest::collection::vec((step, 0i64..1_000_000), 0..200).prop_map(|steps| {
            let mut at = 1_700_000_000;
            steps.into_iter().map(|(step, nanos)| (add(&mut at, step), nanos)).collect()
        })
    }

    fn add(at: &mut u32, step: u32) -> u32 {
        *at += step;
        *at
    }

    /// The widest bucket that may hold something of this age.
    fn width(age_s: u32) -> f64 {
        f64::from(TIERS.iter().find(|(limit, _)| age_s <= *limit).map_or(6 * 3_600, |(_, width)| *width))
    }

    proptest! {
        /// The twin keeps everything that was served one by one.
        #[test]
        fn a_flight_is_what_was_served(served in served(), half in 10.0f64..100_000.0, later in 0u32..200_000) {
            let remaining = |age: f64| (-age / half).exp2();
            let mut flight = Flight::default();
            for (at, nanos) in &served {
                flight.record(*at, *nanos);
                flight.compact(*at, WEEK);
            }
            let now = served.last().map_or(1_700_000_000, |(at, _)| *at) + later;
            flight.compact(now, WEEK);
            prop_assert!(flight.len() <= BUCKETS_MAX);
            let kept = served.iter().filter(|(at, _)| at + WEEK > now);
            let (mut low, mut high) = (0.0, 0.0);
            for (at, nanos) in kept {
                let (age, width) = (f64::from(now - at), width(now - at));
                low += *nanos as f64 * remaining(age + width);
                high += *nanos as f64 * remaining((age - width).max(0.0));
            }
            // What ends its window now may be in a bucket with younger ones.
            let seam: f64 = served.iter().filter(|(at, _)| at + WEEK <= now && at + WEEK + 6 * 3_600 > now)
                .map(|(_, nanos)| *nanos as f64 * remaining(f64::from(WEEK - 6 * 3_600))).sum();
            let found = flight.to_come(now, 0, remaining);
            prop_assert!((low * 0.999_999..=high * 1.000_001 + seam + 1e-6).contains(&found), "{low} {found} {high}");
        }

        /// However often and irregularly a copy is brought up to date, it holds what the original holds, and a repetition
        /// of the last report changes nothing.
        #[test]
        fn a_copy_follows(served in served(), reports in proptest::collection::vec(any::<bool>(), 200)) {
            let (mut own, mut copy, mut acknowledged) = (Flight::default(), Flight::default(), 0);
            for ((at, nanos), reported) in served.iter().zip(reports) {
                own.record(*at, *nanos);
                if reported {
                    own.compact(*at, WEEK);
                    let report: Vec<Bucket> = own.since(acknowledged).collect();
                    for _ in 0..2 {
                        copy.replace(report.iter().copied());
                    }
                    copy.compact(*at, WEEK);
                    prop_assert_eq!(&copy, &own);
                    acknowledged = own.newest_s();
                }
            }
        }

        /// What was served before a period is not of it.
        #[test]
        fn a_period_has_its_own(before in 0i64..1_000, within in 0i64..1_000) {
            let mut flight = Flight::default();
            flight.record(3_600 * 100 - 5, before);
            flight.record(3_600 * 100, within);
            flight.compact(3_600 * 101, WEEK);
            let found = flight.to_come(3_600 * 101, 3_600 * 100, |_| 1.0);
            prop_assert_eq!(found, within as f64);
        }
    }

    #[test]
    fn what_comes_from_outside_stays_in_order_and_bounded() {
        let mut flight = Flight::default();
        let bucket = |start_s| Bucket { start_s, width_s: 5, nanos: 1 };
        flight.replace([bucket(10), bucket(5), bucket(12), bucket(15)]);
        assert_eq!((flight.len(), flight.total()), (2, 2));
        flight.replace((0..1_000).map(|n| bucket(n * 5)));
        assert_eq!(flight.len(), BUCKETS_MAX);
        flight.record(4_000_000_000, 1);
        flight.compact(4_000_000_000, WEEK);
        assert_eq!(flight.total(), 1);
    }
}
