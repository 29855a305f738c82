//! How do the vectors of a model stand in memory?
//!
//! Row-major, one row an item, in one of two formats. bf16 halves the memory traffic of a scan and the
//! file, and keeps the exponent of f32, so nothing overflows; what it loses is measured as recall.

use super::error::SegmentError;
use gavel_proto::limits::VECTOR_DIMENSIONS_MAX;
use serde::{Deserialize, Serialize};

/// What "near" means. A similarity is larger for nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metric {
    /// The inner product.
    Ip,
    /// The cosine: vectors and queries are brought to length 1, then the inner product.
    Cos,
    /// The negated squared distance.
    L2,
}

/// How an element is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VectorFormat {
    /// Four bytes.
    F32,
    /// The upper two of them, rounded to nearest even.
    Bf16,
}

impl VectorFormat {
    /// Bytes of an element.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// Rows in memory.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    bytes: &'a [u8],
    stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows over bytes.
    pub(crate) const fn new(bytes: &'a [u8], dimension: usize, format: VectorFormat) -> Self {
        Self { bytes, stride: dimension * format.width() }
    }

    /// One row.
    #[inline]
    pub(crate) fn row(&self, ordinal: u32) -> Option<&'a [u8]> {
        let start = ordinal as usize * self.stride;
        self.bytes.get(start..start + self.stride)
    }
}

/// Appends a row.
pub(crate) fn encode(row: &[f32], format: VectorFormat, out: &mut Vec<u8>) {
    for x in row {
        match format {
            VectorFormat::F32 => out.extend_from_slice(&x.to_le_bytes()),
            VectorFormat::Bf16 => out.extend_from_slice(&half::bf16::from_f32(*x).to_le_bytes()),
        }
    }
}

/// Reads a row.
pub(crate) fn decode(row: &[u8], format: VectorFormat) -> Vec<f32> {
    match format {
        VectorFormat::F32 => {
            row.chunks_exact(4).map(|b| b.first_chunk().map_or(0.0, |b| f32::from_le_bytes(*b))).collect()
        }
        VectorFormat::Bf16 => row
            .chunks_exact(2)
            .map(|b| b.first_chunk().map_or(0.0, |b| half::bf16::from_le_bytes(*b).to_f32()))
            .collect(),
    }
}

/// Checks a vector and brings it to the form of its metric. NaN is refused: comparisons with it are
/// silently wrong in the graph.
pub(crate) fn prepare(vector: &[f32], dimension: usize, metric: Metric) -> Result<Vec<f32>, SegmentError> {
    if vector.len() != dimension {
        return Err(SegmentError::Refused(format!("a vector of {} instead of {dimension} dimensions", vector.len())));
    }
    if !vector.iter().all(|x| x.is_finite()) {
        return Err(SegmentError::Refused("a vector that is not finite".into()));
    }
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if !norm.is_finite() {
        return Err(SegmentError::Refused("a vector whose squared length is beyond f32".into()));
    }
    match metric {
        Metric::Cos if norm > 0.0 => Ok(vector.iter().map(|x| x / norm).collect()),
        Metric::Ip | Metric::Cos | Metric::L2 => Ok(vector.to_vec()),
    }
}

/// Refuses dimensions that no model has.
pub(crate) fn check_dimension(dimension: usize) -> Result<(), SegmentError> {
    if (1..=VECTOR_DIMENSIONS_MAX).contains(&dimension) {
        Ok(())
    } else {
        Err(SegmentError::Refused(format!("{dimension} dimensions")))
    }
}
