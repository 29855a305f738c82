//! What do the vectors themselves say, without rounding, graph or folder?
//!
//! f32 rows in memory and the scan: what recall is measured with.

use super::{
    bitset::Bitset,
    kernel::Kernel,
    scan::{TopK, scan},
    vectors::{Encoding, Matrix, Metric, VectorFormat, prepare},
};

/// f32 rows.
pub(crate) struct Yardstick {
    encoding: Encoding,
    kernel: Kernel,
    rows: Vec<u8>,
}

impl Yardstick {
    /// Over these vectors, row-major; one that cannot be searched counts as zeros.
    pub(crate) fn new(vectors: &[f32], dimension: usize, metric: Metric) -> Self {
        let encoding = Encoding::unscaled(dimension, metric, VectorFormat::F32);
        let mut rows = Vec::with_capacity(vectors.len() * 4);
        for vector in vectors.chunks_exact(dimension.max(1)) {
            let vector = prepare(vector, dimension, metric).unwrap_or_else(|_| vec![0.0; dimension]);
            encoding.encode(&vector, &mut rows);
        }
        Self { kernel: Kernel::select(metric, VectorFormat::F32), encoding, rows }
    }

    /// The similarities of a prepared query to these rows.
    pub(crate) fn similarities(&self, query: &[f32], ordinals: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; ordinals.len()];
        (self.kernel.batch)(&self.encoding.query(query).bytes, self.matrix(), ordinals, &mut out);
        out
    }

    /// The nearest of the allowed.
    pub(crate) fn scan(&self, query: &[f32], allowed: &Bitset, top: &mut TopK) {
        let query = self.encoding.query(query);
        scan((self.kernel, self.matrix()), &query, (allowed, 0), None, &|| false, top);
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.rows, self.encoding.dimension, VectorFormat::F32)
    }
}
