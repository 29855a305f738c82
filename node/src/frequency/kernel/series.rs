//! How many impressions lie within a rolling window?
//!
//! The window is cut into [`BUCKETS`] buckets of time; one more is kept, the one that the beginning of the window lies
//! in, and it counts whole. So an impression counts for at least the window and for less than the window and one
//! bucket: a cap is never exceeded within any window, and may hold back an impression for 1/24 of the window longer.
//! An hour has buckets of 150 seconds, a month of 30 hours. A series takes 32 bytes, however much is counted.

use gavel_proto::frequency::{FrequencyScope, FrequencyWindow};

/// Buckets of a window. 24 makes the excess 4 % of the window, and a series of a byte a bucket half a cache line.
pub const BUCKETS: u32 = 24;
/// Buckets that are kept: those of the window, and the one that its beginning cuts.
pub const KEPT: usize = BUCKETS as usize + 1;

/// Counts of one thing within one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Number of the newest bucket.
    newest: u32,
    window: FrequencyWindow,
    scope: FrequencyScope,
    /// By age in buckets.
    counts: [u8; KEPT],
}

impl Series {
    /// Nothing counted yet.
    #[must_use]
    pub const fn new(scope: FrequencyScope, window: FrequencyWindow) -> Self {
        Self { newest: 0, window, scope, counts: [0; KEPT] }
    }

    /// Nothing counted yet of the same thing.
    #[must_use]
    pub const fn new_like(other: &Self) -> Self {
        Self::new(other.scope, other.window)
    }

    /// What was counted elsewhere, the newest bucket first; buckets beyond those kept are not taken.
    #[must_use]
    pub fn of_parts(scope: FrequencyScope, window: FrequencyWindow, newest: u32, buckets: &[u8]) -> Self {
        let mut series = Self { newest, ..Self::new(scope, window) };
        series.counts.iter_mut().zip(buckets).for_each(|(to, from)| *to = *from);
        series
    }

    /// Number of the newest bucket, and the buckets up to the last that is not 0, the newest first.
    #[must_use]
    pub fn parts(&self) -> (u32, &[u8]) {
        let filled = self.counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        (self.newest, self.counts.get(..filled).unwrap_or_default())
    }

    /// The window.
    #[must_use]
    pub const fn window(&self) -> FrequencyWindow {
        self.window
    }

    /// What is counted together.
    #[must_use]
    pub const fn scope(&self) -> FrequencyScope {
        self.scope
    }

    /// The bucket of a time. 32 bits last for some centuries of the smallest buckets.
    #[must_use]
    pub fn bucket(window: FrequencyWindow, at_ms: u64) -> u32 {
        u32::try_from(at_ms / (window.ms() / u64::from(BUCKETS))).unwrap_or(u32::MAX)
    }

    /// Impressions within the window that ends now. A clock that has gone back stands still.
    #[must_use]
    pub fn total(&self, now_ms: u64) -> u8 {
        let gone = Self::bucket(self.window, now_ms).saturating_sub(self.newest) as usize;
        let left = self.counts.get(..KEPT.saturating_sub(gone)).unwrap_or_default();
        left.iter().fold(0, |sum: u8, count| sum.saturating_add(*count))
    }

    /// Counts an impression; one that is older than everything kept is not.
    pub fn add(&mut self, at_ms: u64) {
        let bucket = Self::bucket(self.window, at_ms);
        self.advance(bucket);
        if let Some(count) = self.at(bucket) {
            *count = count.saturating_add(1);
        }
    }

    /// Takes back an impression that was counted at this time.
    pub fn remove(&mut self, at_ms: u64) {
        if let Some(count) = self.at(Self::bucket(self.window, at_ms)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Takes over what another node has counted of the same thing: of each bucket the larger count, so that the same
    /// state may come twice.
    pub fn merge(&mut self, other: &Self) {
        self.advance(other.newest);
        for (age, theirs) in (0u32..).zip(other.counts) {
            if let Some(own) = other.newest.checked_sub(age).and_then(|bucket| self.at(bucket)) {
                *own = (*own).max(theirs);
            }
        }
    }

    /// The same with its newest bucket not after `now_ms`: of a node whose clock is ahead.
    #[must_use]
    pub fn not_after(self, now_ms: u64) -> Self {
        Self { newest: self.newest.min(Self::bucket(self.window, now_ms)), ..self }
    }

    fn advance(&mut self, bucket: u32) {
        let by = bucket.saturating_sub(self.newest) as usize;
        if by > 0 {
            let by = by.min(KEPT);
            self.counts.rotate_right(by);
            self.counts.iter_mut().take(by).for_each(|count| *count = 0);
            self.newest = bucket;
        }
    }

    fn at(&mut self, bucket: u32) -> Option<&mut u8> {
        let age = self.newest.checked_sub(bucket)?;
        self.counts.get_mut(age as usize)
    }
}
