//! Which share of the day's traffic comes until a time?

/// Cumulative traffic of a period, piecewise linear.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Share of the traffic until the end of each bucket, rising to 1.
    until: Vec<f64>,
}

impl Forecast {
    /// From the traffic of equal parts of the period, each raised by a millionth of the whole so that no part stands
    /// still. Without any traffic every part is alike, and so is the whole period without parts.
    #[must_use]
    pub fn new(counts: &[u64]) -> Self {
        let counts = if counts.is_empty() { &[0] } else { counts };
        // Counts come from reports: no sum of them overflows as a float.
        let total = counts.iter().map(|count| *count as f64).sum::<f64>().max(1.0);
        let raised = |count: &u64| *count as f64 + total * 1e-6;
        let whole: f64 = counts.iter().map(raised).sum();
        let mut so_far = 0.0;
        let until = |count: &u64| {
            so_far += raised(count);
            so_far / whole
        };
        Self { until: counts.iter().map(until).collect() }
    }

    /// The share of the traffic until this share of the period, 0 to 1.
    #[must_use]
    pub fn share(&self, of_period: f64) -> f64 {
        let place = of_period.clamp(0.0, 1.0) * self.until.len() as f64;
        // Not negative, and at most the number of buckets.
        let bucket = place as usize;
        let before = if bucket == 0 { 0.0 } else { self.until.get(bucket - 1).copied().unwrap_or(1.0) };
        let after = self.until.get(bucket).copied().unwrap_or(1.0);
        before + (after - before) * (place - bucket as f64)
    }
}
