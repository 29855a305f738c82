//! What does the ranker read of an item, and in how many bytes is it kept?
//!
//! One row an item, row-major, f32 or bf16 (the upper half of an f32). A bundle that asks for bf16 has rounded its
//! activations when it computed them, so nothing is lost here, and a row of a delta, which is kept as f32, equals the
//! row that would be sealed. Rows are widened where a block of candidates is gathered: half the bytes are read from
//! memory, and the arithmetic stays that of f32.

use super::{
    container::{Container, Section},
    error::SegmentError,
    model_folder::ROWS,
    vectors::VectorFormat,
};
use std::ops::Range;

/// The rows of a sealed folder.
pub(super) enum Activations {
    F32(Section<f32>),
    Bf16(Section<u16>),
}

impl Activations {
    /// The rows of a container: `values` in all.
    pub fn open(container: &Container, format: VectorFormat, values: usize) -> Result<Self, SegmentError> {
        Ok(match format {
            VectorFormat::F32 => Self::F32(container.section_of(ROWS, values)?),
            VectorFormat::Bf16 => Self::Bf16(container.section_of(ROWS, values)?),
            VectorFormat::F16 | VectorFormat::I8 => return Err(container.damaged("activations in a format of vectors")),
        })
    }

    /// Appends the values at these places; nothing when they are not all there.
    #[inline]
    pub fn append(&self, range: Range<usize>, out: &mut Vec<f32>) {
        match self {
            Self::F32(values) => out.extend_from_slice(values.get(range).unwrap_or(&[])),
            Self::Bf16(values) => widen(values.get(range).unwrap_or(&[]), out),
        }
    }
}

/// Appends bf16 values as f32. A shift of each: the compiler makes it eight at a time.
#[inline]
pub(super) fn widen(halves: &[u16], out: &mut Vec<f32>) {
    out.extend(halves.iter().map(|bits| f32::from_bits(u32::from(*bits) << 16)));
}

/// The bytes of values as they are stored.
pub(super) fn stored(values: &[f32], format: VectorFormat) -> Result<Vec<u8>, SegmentError> {
    match format {
        VectorFormat::F32 => Ok(bytemuck::cast_slice(values).to_vec()),
        VectorFormat::Bf16 => Ok(values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect()),
        VectorFormat::F16 | VectorFormat::I8 => {
            Err(SegmentError::Refused(format!("activations as {format:?}: choose f32 or bf16")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shift and the library's conversion agree on every bit pattern.
    #[test]
    fn widening_equals_its_twin() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let mut out = Vec::new();
        widen(&all, &mut out);
        for (bits, wide) in all.iter().zip(&out) {
            let twin = half::bf16::from_bits(*bits).to_f32();
            assert!(wide.to_bits() == twin.to_bits() || (wide.is_nan() && twin.is_nan()), "{bits:x}");
        }
    }
}
