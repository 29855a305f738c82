//! In which order are the values of broadcast, sliced or permuted inputs read?
//!
//! A walk visits the result in memory order, one run of its last dimension at a time, and says where each input's
//! run starts and how far apart its values lie. Dimensions that lie together in all inputs are merged first, so
//! that most walks are one long run or rows of one.

use crate::limits::RANK_MAX;

/// Dimensions with the batch and the parts that a slice along several axes adds.
const DEPTH_MAX: usize = RANK_MAX + 2;

/// A walk over `N` inputs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Walk<const N: usize> {
    /// Outer dimensions and each input's strides.
    outer: Vec<(usize, [isize; N])>,
    /// Length of a run.
    pub run: usize,
    /// Distance of two neighbours in a run.
    pub step: [isize; N],
    base: [isize; N],
}

impl<const N: usize> Walk<N> {
    /// Over `dims` with a stride for each dimension and input, and each input's first position.
    pub fn new(dims: &[usize], strides: &[[isize; N]], base: [isize; N]) -> Self {
        let mut merged: Vec<(usize, [isize; N])> = Vec::new();
        for (dim, stride) in dims.iter().zip(strides).filter(|(d, _)| **d != 1) {
            match merged.last_mut() {
                // The outer dimension steps by exactly one inner dimension.
                Some((d, s)) if (0..N).all(|i| s[i] == stride[i] * *dim as isize) => {
                    *d *= dim;
                    *s = *stride;
                }
                _ => merged.push((*dim, *stride)),
            }
        }
        let (run, step) = merged.pop().unwrap_or((1, [1; N]));
        Self { outer: merged, run, step, base }
    }

    /// Over `dims` with inputs of these dimensions, aligned at the end and broadcast.
    pub fn broadcast(dims: &[usize], inputs: [&[usize]; N]) -> Self {
        let mut strides = vec![[0isize; N]; dims.len()];
        for (i, input) in inputs.iter().enumerate() {
            let mut stride = 1;
            for (at, dim) in input.iter().enumerate().rev() {
                if *dim != 1 {
                    strides[at + dims.len() - input.len()][i] = stride;
                }
                stride *= *dim as isize;
            }
        }
        Self::new(dims, &strides, [0; N])
    }

    /// Calls `visit` with each input's position, for each run in the order of the result.
    pub fn runs(&self, mut visit: impl FnMut([usize; N])) {
        let mut at = [0usize; DEPTH_MAX];
        let mut position = self.base;
        if self.run == 0 || self.outer.iter().any(|(d, _)| *d == 0) {
            return;
        }
        loop {
            visit(position.map(|p| p as usize));
            let mut depth = self.outer.len();
            loop {
                let Some(above) = depth.checked_sub(1) else { return };
                depth = above;
                let (dim, strides) = self.outer[depth];
                at[depth] += 1;
                if at[depth] < dim {
                    (0..N).for_each(|i| position[i] += strides[i]);
                    break;
                }
                at[depth] = 0;
                (0..N).for_each(|i| position[i] -= strides[i] * (dim as isize - 1));
            }
        }
    }
}

/// Strides of a contiguous tensor.
pub(crate) fn contiguous(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i] as isize;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited<const N: usize>(walk: &Walk<N>) -> Vec<[usize; N]> {
        let mut all = Vec::new();
        walk.runs(|p| all.push(p));
        all
    }

    #[test]
    fn equal_shapes_are_one_run() {
        let walk = Walk::broadcast(&[4, 3, 5], [&[4, 3, 5], &[4, 3, 5]]);
        assert_eq!((walk.run, walk.step), (60, [1, 1]));
        assert_eq!(visited(&walk), [[0, 0]]);
    }

    #[test]
    fn a_row_and_a_column_broadcast() {
        let walk = Walk::broadcast(&[2, 3], [&[2, 3], &[3]]);
        assert_eq!((walk.run, walk.step), (3, [1, 1]));
        assert_eq!(visited(&walk), [[0, 0], [3, 0]]);
        let walk = Walk::broadcast(&[2, 3], [&[2, 3], &[2, 1]]);
        assert_eq!(walk.step, [1, 0]);
        assert_eq!(visited(&walk), [[0, 0], [3, 1]]);
    }

    #[test]
    fn a_transposition_steps_by_columns() {
        let walk = Walk::new(&[3, 2], &[[1], [3]], [0]);
        assert_eq!((walk.run, walk.step), (2, [3]));
        assert_eq!(visited(&walk), [[0], [1], [2]]);
    }
}
