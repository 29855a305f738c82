//! How do the vectors of a model stand in memory?
//!
//! Row-major, one row an item, in one of four formats. A row is filled with zeros up to 16 bytes (32 for
//! f32), so that no kernel has a rest to take care of.
//! * f32: as the tower made them.
//! * bf16: half the bytes and the exponent of f32, so nothing overflows; 8 bits of mantissa.
//! * f16: half the bytes and 11 bits; what is beyond its range is refused.
//! * i8: a quarter. What is stored of a value is `round((x - centre) / step)`. Every dimension has its own
//!   centre, but all have one step: distances and products of the stored numbers are then those of the values
//!   but for constants, and stay exact integers. The library's own i8 expects values within [-1, 1], loses
//!   whatever is not, and found .46 of the neighbours over images.
//!
//! What each format loses is measured as recall, in `docs/retrieval.md`.

use super::{error::SegmentError, quantize::Scaling};
use gavel_proto::limits::VECTOR_DIMENSIONS_MAX;
use half::{bf16, f16};
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
    /// Two bytes with a mantissa of eleven bits.
    F16,
    /// One byte: steps from the centre of the dimension, by the segment's scaling.
    I8,
}

impl VectorFormat {
    /// Bytes of an element.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Elements that a kernel takes at a time.
    pub(crate) const fn lanes(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => 8,
            Self::I8 => 16,
        }
    }

    /// Bytes of a row of so many elements.
    #[must_use]
    pub const fn row_bytes(self, dimension: usize) -> usize {
        dimension.next_multiple_of(self.lanes()) * self.width()
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
        Self { bytes, stride: format.row_bytes(dimension) }
    }

    /// One row.
    #[inline]
    pub(crate) fn row(&self, ordinal: u32) -> Option<&'a [u8]> {
        let start = ordinal as usize * self.stride;
        self.bytes.get(start..start + self.stride)
    }
}

/// A query as a kernel takes it: what it says of a row, times `factor`, plus `offset`, is the similarity.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    /// Padded like a row: f32, or i16 for rows of i8.
    pub(crate) bytes: Vec<u8>,
    pub(crate) factor: f32,
    pub(crate) offset: f32,
}

impl Query {
    /// The similarity.
    #[inline]
    pub(crate) fn similarity(&self, raw: f32) -> f32 {
        raw * self.factor + self.offset
    }
}

/// Everything that turns a vector into a row and back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Encoding {
    pub(crate) dimension: usize,
    pub(crate) metric: Metric,
    pub(crate) format: VectorFormat,
    /// Of i8 alone.
    pub(crate) scaling: Scaling,
}

impl Encoding {
    /// Rows of a format that needs no scaling.
    pub(crate) const fn unscaled(dimension: usize, metric: Metric, format: VectorFormat) -> Self {
        Self { dimension, metric, format, scaling: Scaling::none() }
    }

    /// Bytes of a row.
    pub(crate) const fn stride(&self) -> usize {
        self.format.row_bytes(self.dimension)
    }

    /// Appends a prepared vector as a row.
    pub(crate) fn encode(&self, vector: &[f32], out: &mut Vec<u8>) {
        let end = out.len() + self.stride();
        match self.format {
            VectorFormat::F32 => vector.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
            VectorFormat::Bf16 => vector.iter().for_each(|x| out.extend_from_slice(&bf16::from_f32(*x).to_le_bytes())),
            VectorFormat::F16 => vector.iter().for_each(|x| out.extend_from_slice(&f16::from_f32(*x).to_le_bytes())),
            VectorFormat::I8 => out.extend(self.scaling.steps(vector, 127.0).map(|step| (step as i8) as u8)),
        }
        out.resize(end, 0);
    }

    /// Reads a row back.
    pub(crate) fn decode(&self, row: &[u8]) -> Vec<f32> {
        let two = |to: fn([u8; 2]) -> f32| row.chunks_exact(2).map(move |b| b.first_chunk().map_or(0.0, |b| to(*b)));
        let mut vector: Vec<f32> = match self.format {
            VectorFormat::F32 => {
                row.chunks_exact(4).map(|b| b.first_chunk().map_or(0.0, |b| f32::from_le_bytes(*b))).collect()
            }
            VectorFormat::Bf16 => two(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            VectorFormat::F16 => two(|b| f16::from_le_bytes(b).to_f32()).collect(),
            VectorFormat::I8 => self.scaling.values(row.iter().map(|b| *b as i8)).collect(),
        };
        vector.truncate(self.dimension);
        vector
    }

    /// A prepared vector as the kernels of this format take it.
    pub(crate) fn query(&self, vector: &[f32]) -> Query {
        let mut vector = vector.to_vec();
        let padded = self.dimension.next_multiple_of(self.format.lanes());
        let (values, factor, offset) = match (self.format, self.metric) {
            (VectorFormat::F32 | VectorFormat::Bf16 | VectorFormat::F16, _) => {
                vector.resize(padded, 0.0);
                return Query { bytes: bytemuck::cast_slice(&vector).to_vec(), factor: 1.0, offset: 0.0 };
            }
            (VectorFormat::I8, Metric::L2) => self.scaling.query_of_distance(&vector),
            (VectorFormat::I8, Metric::Ip | Metric::Cos) => self.scaling.query_of_product(&vector),
        };
        let mut bytes: Vec<u8> = values.into_iter().flat_map(i16::to_le_bytes).collect();
        bytes.resize(padded * 2, 0);
        Query { bytes, factor, offset }
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

/// Refuses what a format cannot hold.
pub(crate) fn check_range(vector: &[f32], format: VectorFormat) -> Result<(), SegmentError> {
    let beyond = |x: &&f32| f16::from_f32(**x).is_infinite();
    match (format, vector.iter().find(beyond)) {
        (VectorFormat::F16, Some(x)) => {
            Err(SegmentError::Refused(format!("{x} is beyond f16: use bf16, or i8 with f32 for rescoring")))
        }
        (VectorFormat::F16 | VectorFormat::F32 | VectorFormat::Bf16 | VectorFormat::I8, _) => Ok(()),
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
