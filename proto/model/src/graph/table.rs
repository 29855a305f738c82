//! Which rows of an embedding table does a lookup read, without a copy of the table?
//!
//! A large table that only lookups read stays where it is: in the mapped file of the bundle, in the type and at the
//! offset in which the file stores it. A lookup reads the few rows that it needs and widens them. Processes that
//! open one bundle share its pages, and pages that no request asks for may leave the memory.
//!
//! A value may start at any byte, because protobuf aligns nothing, so values are put together from bytes. The twin is
//! the lookup in a table of f32 ([`crate::exec`]); small tables still take that way.

use crate::graph::product;
use half::{bf16, f16};
use prost::bytes::Bytes;

/// Bytes from which on a table stays in the file. Smaller ones are read at every request anyhow, and as f32 they
/// need no conversion.
pub(crate) const TABLE_BYTES_MIN: usize = 1 << 20;

/// How a number is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    F32,
    F16,
    Bf16,
    /// An integer; its scale is another node's.
    I8,
}

/// A matrix of which rows are read.
#[derive(Clone, PartialEq)]
pub(crate) struct Table {
    bytes: Bytes,
    stored: Stored,
    rows: usize,
    width: usize,
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
}

impl Table {
    /// A table of these dimensions over bytes that are exactly as many, and whose numbers are all finite.
    pub fn new(bytes: Bytes, stored: Stored, dims: &[usize]) -> Result<Self, String> {
        let [rows, width] = *dims else { return Err(format!("a table of the dimensions {dims:?}")) };
        let size = stored.bytes();
        if rows == 0 || width == 0 || product(&[rows, width, size])? != bytes.len() {
            return Err(format!("{} bytes for the dimensions {dims:?}", bytes.len()));
        }
        if !stored.all_finite(&bytes) {
            return Err("a value is not finite".to_owned());
        }
        let hash = *blake3::hash(&bytes).as_bytes();
        Ok(Self { bytes, stored, rows, width, hash })
    }

    /// Bytes in the file.
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the rows at these indices one after the other. Like the lookup in a table of f32: a negative index
    /// counts from the end, one outside the table takes row 0.
    pub fn look_up(&self, at: &[f32], out: &mut [f32]) {
        let rows = at.iter().zip(out.chunks_exact_mut(self.width));
        match self.stored {
            Stored::F32 => rows.for_each(|(i, out)| widen(self.row(*i), out, f32::from_le_bytes)),
            Stored::F16 => rows.for_each(|(i, out)| widen(self.row(*i), out, |b| f16::from_le_bytes(b).to_f32())),
            Stored::Bf16 => rows.for_each(|(i, out)| widen(self.row(*i), out, |b| bf16::from_le_bytes(b).to_f32())),
            Stored::I8 => rows.for_each(|(i, out)| widen(self.row(*i), out, |b| f32::from(i8::from_le_bytes(b)))),
        }
    }

    fn row(&self, index: f32) -> &[u8] {
        let rows = self.rows as f32;
        let index = if index < 0.0 { index + rows } else { index };
        let row = if index >= 0.0 && index < rows { index as usize } else { 0 };
        let size = self.width * self.stored.bytes();
        &self.bytes[row * size..(row + 1) * size]
    }
}

/// The bytes are many: their hash stands for them.
impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table {:?} [{}, {}] {}", self.stored, self.rows, self.width, blake3::Hash::from(self.hash))
    }
}

impl Stored {
    const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }

    fn all_finite(self, bytes: &[u8]) -> bool {
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
            Self::F16 => bytes.as_chunks::<2>().0.iter().all(|b| f16::from_le_bytes(*b).is_finite()),
            Self::Bf16 => bytes.as_chunks::<2>().0.iter().all(|b| bf16::from_le_bytes(*b).is_finite()),
            Self::I8 => true,
        }
    }
}

fn widen<const N: usize>(row: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(row.as_chunks::<N>().0) {
        *out = value(*bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Stored; 4] = [Stored::F32, Stored::F16, Stored::Bf16, Stored::I8];

    /// Numbers in a stored form, from byte `lead` on of something longer, and as f32.
    fn stored(kind: Stored, numbers: &[f32], lead: usize) -> (Bytes, Vec<f32>) {
        let mut bytes = vec![0xff; lead];
        let mut wide = Vec::new();
        for x in numbers {
            let (stored, back) = match kind {
                Stored::F32 => (x.to_le_bytes().to_vec(), *x),
                Stored::F16 => (f16::from_f32(*x).to_le_bytes().to_vec(), f16::from_f32(*x).to_f32()),
                Stored::Bf16 => (bf16::from_f32(*x).to_le_bytes().to_vec(), bf16::from_f32(*x).to_f32()),
                Stored::I8 => ((*x as i8).to_le_bytes().to_vec(), f32::from(*x as i8)),
            };
            bytes.extend(stored);
            wide.push(back);
        }
        (Bytes::from(bytes).slice(lead..), wide)
    }

    proptest! {
        /// The twin copies rows of f32.
        #[test]
        fn every_type_at_every_byte_equals_the_table_of_f32(
            kind in prop::sample::select(&KINDS[..]), rows in 1usize..9, width in 1usize..20, lead in 0usize..5,
            at in prop::collection::vec(-12i32..14, 0..9), seed: u64,
        ) {
            let number = |i: usize| (gavel_proto::hash::combine(seed, i as u64) % 2_000) as f32 / 8.0 - 125.0;
            let numbers: Vec<f32> = (0..rows * width).map(number).collect();
            let (bytes, wide) = stored(kind, &numbers, lead);
            let table = Table::new(bytes, kind, &[rows, width]).unwrap();
            let at: Vec<f32> = at.iter().map(|i| *i as f32).collect();
            let mut out = vec![f32::NAN; at.len() * width];
            table.look_up(&at, &mut out);
            for (index, found) in at.iter().zip(out.chunks_exact(width)) {
                let index = if *index < 0.0 { *index as i64 + rows as i64 } else { *index as i64 };
                let row = usize::try_from(index).ok().filter(|row| *row < rows).unwrap_or(0);
                prop_assert_eq!(found, &wide[row * width..(row + 1) * width]);
            }
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let of = |kind, numbers: &[f32], dims: &[usize]| Table::new(stored(kind, numbers, 1).0, kind, dims);
        for kind in KINDS {
            assert!(of(kind, &[1.0; 6], &[3, 2]).is_ok());
            for dims in [&[4, 2][..], &[6], &[1, 3, 2], &[0, 2], &[usize::MAX, 2], &[]] {
                assert!(of(kind, &[1.0; 6], dims).is_err(), "{kind:?} {dims:?}");
            }
            if kind != Stored::I8 {
                assert!(of(kind, &[1.0, f32::NAN], &[2, 1]).unwrap_err().contains("not finite"));
                assert!(of(kind, &[1.0, f32::INFINITY], &[2, 1]).is_err());
            }
        }
    }
}
