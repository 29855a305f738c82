//! Which centre and which step make a byte of each value?
//!
//! One step for all dimensions, so that integer distances are distances; a centre for each, so that the
//! step need not span what the dimensions do not share. Both are chosen over the vectors themselves when the
//! folder is sealed: of the means and of the middles of the ranges, and of ten steps from the whole range
//! down, the pair with the least squared error over a sample. The widest values may be clipped for it.
//!
//! A query is not stored and need not be a byte: it is an i16, and a product or a squared difference of the
//! two adds up exactly in an i32 for every dimension that is allowed.

use gavel_proto::limits::VECTOR_DIMENSIONS_MAX;
use serde::{Deserialize, Serialize};

/// Steps on either side of the centre that a byte holds.
const STEPS: f32 = 127.0;
/// Largest number of a query where products are summed: finer than a row by four bits.
const QUERY_PRODUCT_MAX: f32 = 2_047.0;
/// Where squared differences are: a query farther out than eight times the range is clipped.
const QUERY_DISTANCE_MAX: f32 = 1_023.0;
/// Vectors whose error decides.
const SAMPLE: usize = 4_096;

const _: () = assert!(
    (QUERY_PRODUCT_MAX * (STEPS + 1.0)) as i64 * (VECTOR_DIMENSIONS_MAX as i64) < i32::MAX as i64,
    "a product must not leave an i32"
);
const _: () = assert!(
    // The sum of all lanes: eight, each with an eighth of the dimensions.
    ((QUERY_DISTANCE_MAX + STEPS + 1.0) * (QUERY_DISTANCE_MAX + STEPS + 1.0)) as i64
        * (VECTOR_DIMENSIONS_MAX as i64 / 8)
        < i32::MAX as i64,
    "a lane of squared differences must not leave an i32"
);

/// Centre and step of a segment's bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scaling {
    /// One value a dimension; empty where bytes are not used.
    pub(crate) centre: Vec<f32>,
    /// What one step is worth.
    pub(crate) step: f32,
}

impl Scaling {
    /// Of the other formats.
    pub(crate) const fn none() -> Self {
        Self { centre: Vec::new(), step: 1.0 }
    }

    /// Whether the numbers can be computed with.
    pub(crate) fn is_sound(&self, dimension: usize) -> bool {
        self.centre.len() == dimension
            && self.centre.iter().all(|x| x.is_finite())
            && self.step.is_normal()
            && self.step > 0.0
    }

    /// The best for these vectors, row-major.
    pub(crate) fn of(vectors: &[f32], dimension: usize) -> Self {
        let count = (vectors.len() / dimension.max(1)).max(1);
        let mut low = vec![f32::INFINITY; dimension];
        let mut high = vec![f32::NEG_INFINITY; dimension];
        let mut sums = vec![0f64; dimension];
        for row in vectors.chunks_exact(dimension) {
            for (((x, low), high), sum) in row.iter().zip(&mut low).zip(&mut high).zip(&mut sums) {
                (*low, *high) = (low.min(*x), high.max(*x));
                *sum += f64::from(*x);
            }
        }
        if vectors.is_empty() {
            return Self { centre: vec![0.0; dimension], step: 1.0 };
        }
        let middles = low.iter().zip(&high).map(|(low, high)| low / 2.0 + high / 2.0).collect();
        let means = sums.iter().map(|sum| (sum / count as f64) as f32).collect();
        let reach = |centre: &Vec<f32>| {
            let of = |((c, low), high): ((&f32, &f32), &f32)| (c - low).max(high - c);
            centre.iter().zip(&low).zip(&high).map(of).fold(f32::MIN_POSITIVE, f32::max)
        };
        let sample: Vec<&[f32]> = vectors.chunks_exact(dimension).step_by(count.div_ceil(SAMPLE)).collect();
        let mut best = (f64::INFINITY, Self::none());
        for centre in [middles, means] {
            let reach = reach(&centre);
            for tenths in (1..=10u8).rev() {
                let step = (reach / STEPS * f32::from(tenths) / 10.0).max(f32::MIN_POSITIVE);
                let tried = Self { centre: centre.clone(), step };
                let error = sample.iter().map(|row| tried.squared_error(row)).sum();
                if error < best.0 {
                    best = (error, tried);
                }
            }
        }
        best.1
    }

    fn squared_error(&self, vector: &[f32]) -> f64 {
        let back = self.steps(vector, STEPS).zip(&self.centre).map(|(step, centre)| step * self.step + centre);
        back.zip(vector).map(|(y, x)| f64::from((y - x) * (y - x))).sum()
    }

    /// Whole steps from the centre, at most `limit` of them.
    pub(crate) fn steps(&self, vector: &[f32], limit: f32) -> impl Iterator<Item = f32> {
        vector.iter().zip(&self.centre).map(move |(x, c)| ((x - c) / self.step).round_ties_even().clamp(-limit, limit))
    }

    /// The values of stored bytes.
    pub(crate) fn values(&self, bytes: impl Iterator<Item = i8>) -> impl Iterator<Item = f32> {
        bytes.zip(&self.centre).map(|(byte, centre)| f32::from(byte) * self.step + centre)
    }

    /// A query for squared differences, and what makes a similarity of their negated sum.
    pub(crate) fn query_of_distance(&self, vector: &[f32]) -> (Vec<i16>, f32, f32) {
        (self.steps(vector, QUERY_DISTANCE_MAX).map(|step| step as i16).collect(), self.step * self.step, 0.0)
    }

    /// A query for products, and what makes a similarity of their sum: the centre's share is the same for all rows.
    pub(crate) fn query_of_product(&self, vector: &[f32]) -> (Vec<i16>, f32, f32) {
        let largest = vector.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let unit = (largest / QUERY_PRODUCT_MAX).max(f32::MIN_POSITIVE);
        let values = vector.iter().map(|x| (x / unit).round_ties_even().clamp(-QUERY_PRODUCT_MAX, QUERY_PRODUCT_MAX));
        let offset = vector.iter().zip(&self.centre).map(|(x, c)| x * c).sum();
        (values.map(|value| value as i16).collect(), unit * self.step, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_images_are_kept_to_half_a_step() {
        let pixels: Vec<f32> = (0..256).flat_map(|x| [x as f32, 255.0 - x as f32]).collect();
        let scaling = Scaling::of(&pixels, 2);
        assert!((scaling.step - 255.0 / 254.0).abs() < 1e-3, "{scaling:?}");
        for row in pixels.chunks(2) {
            let bytes: Vec<i8> = scaling.steps(row, STEPS).map(|s| s as i8).collect();
            for (x, y) in row.iter().zip(scaling.values(bytes.into_iter())) {
                assert!((x - y).abs() <= scaling.step / 2.0 + 1e-3, "{x} {y}");
            }
        }
    }

    #[test]
    fn no_scaling_is_worse_than_the_whole_range() {
        let values: Vec<f32> = (1..20_000).map(|n| (n as f32 / 20_000.0).ln()).collect();
        let scaling = Scaling::of(&values, 1);
        let (low, high) = (values[0], values[19_998]);
        let whole = Scaling { centre: vec![(low + high) / 2.0], step: (high - low) / 2.0 / STEPS };
        assert!(scaling.squared_error(&values[..1]).is_finite());
        let error = |s: &Scaling| values.chunks(1).map(|row| s.squared_error(row)).sum::<f64>();
        assert!(error(&scaling) <= error(&whole) * 1.01, "{scaling:?}");
        assert!(scaling.is_sound(1) && !scaling.is_sound(2));
        assert!(Scaling::of(&[], 3).is_sound(3) && Scaling::of(&[5.0; 6], 3).is_sound(3));
    }
}
