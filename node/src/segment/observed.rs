//! How far off have estimates been of late?
//!
//! Of each way of searching the ratio of what it took to what the calibration said, smoothed over some thirty
//! searches and bounded, so that a pause of the machine cannot shut a way out. A way that is not taken
//! forgets slowly: it gets another chance without a search being spent on trying.

/// Ways of searching, each with its costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Way {
    /// Every eligible item.
    Scan = 0,
    /// The graph, among the eligible.
    Filtered = 1,
    /// The graph, everywhere.
    Plain = 2,
}

/// Share of a new observation.
const FRESH: f32 = 1.0 / 32.0;
/// Share of forgetting with each observation of another way.
const FORGETTING: f32 = 1.0 / 512.0;
/// A ratio is within this and its inverse.
const BOUND: f32 = 3.0;
/// Below this the clock's microseconds and the timing's own cost are a part of what is observed.
const SHORT_US: f32 = 20.0;

/// Whether a search of which so much is said is timed at all: reading the clock of a thread takes a microsecond.
#[must_use]
pub fn is_timed(calibrated_us: f32) -> bool {
    calibrated_us >= SHORT_US
}

/// The ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    ratios: [f32; 3],
}

impl Default for Observed {
    fn default() -> Self {
        Self { ratios: [1.0; 3] }
    }
}

impl Observed {
    /// After one more search: what its calibration said and what it took.
    #[must_use]
    pub fn with(mut self, way: Way, calibrated_us: f32, took_us: f32) -> Self {
        if !is_timed(calibrated_us) {
            return self;
        }
        let seen = (took_us / calibrated_us).clamp(1.0 / BOUND, BOUND);
        for (index, ratio) in self.ratios.iter_mut().enumerate() {
            let (to, share) = if index == way as usize { (seen, FRESH) } else { (1.0, FORGETTING) };
            *ratio += (to - *ratio) * share;
        }
        self
    }

    /// Estimates of the three ways, by what was observed.
    #[must_use]
    pub fn corrected(self, calibrated: [f32; 3]) -> [f32; 3] {
        let mut corrected = calibrated;
        corrected.iter_mut().zip(self.ratios).for_each(|(us, ratio)| *us *= ratio);
        corrected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_bounded_and_short_searches_say_nothing() {
        let mut observed = Observed::default();
        for _ in 0..1_000 {
            observed = observed.with(Way::Scan, 100.0, 1e9).with(Way::Plain, 1.0, 1e9);
        }
        let [scan, filtered, plain] = observed.corrected([100.0; 3]);
        assert!((scan - 300.0).abs() < 1.0 && filtered == 100.0 && plain == 100.0);
    }
}
