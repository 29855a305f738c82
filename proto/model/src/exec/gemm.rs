//! What is the product of two matrices?
//!
//! Large products go to the `gemm` crate on one thread. Products with few columns (the last layer of a head) stay
//! here: the library takes another path for a single column, where the place of a row in its block could change
//! the order of additions, and a row's result must not depend on its place.

/// Up to here a product is computed a value at a time.
const FEW_COLUMNS: usize = 4;
/// Partial sums of a dot product: as many as an AVX2 register holds, in an order that is always the same.
const LANES: usize = 8;

/// `[m, k] x [k, n]`, row-major; `out` has `m * n` values.
pub(crate) fn product(m: usize, k: usize, n: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
    if n <= FEW_COLUMNS || k <= 2 {
        return small(k, n, a, b, out);
    }
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n, "a product's dimensions");
    // SAFETY: the three slices have exactly the lengths that the dimensions and the row-major strides reach, as
    // asserted above, and `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            1,
            n as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The same for small matrices: as many rows as `out` has.
pub(crate) fn small(k: usize, n: usize, a: &[f32], b: &[f32], out: &mut [f32]) {
    if n == 1 {
        for (row, o) in a.chunks_exact(k.max(1)).zip(out) {
            *o = dot(row, b);
        }
        return;
    }
    out.fill(0.0);
    for (row, result) in a.chunks_exact(k.max(1)).zip(out.chunks_exact_mut(n.max(1))) {
        for (x, weights) in row.iter().zip(b.chunks_exact(n.max(1))) {
            for (o, w) in result.iter_mut().zip(weights) {
                *o += x * w;
            }
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for i in 0..LANES {
            sums[i] += x[i] * y[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}
