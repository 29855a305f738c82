//! What is done to a tile's sums before they leave the registers?
//!
//! A layer with few inputs writes as much as it computes: were its bias, the item's share and the activation added
//! later, each would read and write the result once more. The steps that nearly every layer has are done on the
//! sums themselves; what follows them runs over the tile in the cache ([`crate::exec::tail`]). Both give the same
//! bits: the same operations on the same values in the same order.

use super::PANEL;
use std::ops::Range;

/// What a step does to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add,
    Multiply,
    /// Negative values become 0; has no operand.
    Relu,
}

/// Steps at most: with 12 sums in flight there is no use for many.
pub(crate) const STEPS_MAX: usize = 6;

/// A step over the whole result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish<'a> {
    pub change: Change,
    /// As wide as the result; none of the last are needed.
    pub values: &'a [f32],
    /// From one row of the operand to the next: 0 if one row meets all.
    pub stride: usize,
}

impl Finish<'_> {
    /// Stops where the operand of a result of `m` rows and `n` columns is too short.
    pub fn check(&self, m: usize, n: usize) {
        let needed = if self.change == Change::Relu { 0 } else { (m - 1) * self.stride + n };
        assert!(self.values.len() >= needed, "an operand of a product's finish");
    }

    /// The same from a place of the result on.
    pub fn at(&self, row: usize, column: usize) -> At {
        let from = (row * self.stride + column).min(self.values.len());
        At { change: self.change, values: self.values[from..].as_ptr(), stride: self.stride }
    }

    /// Changes some columns of a row: the twin of what the kernels do in registers.
    pub fn apply(&self, row: usize, columns: Range<usize>, values: &mut [f32]) {
        let from = row * self.stride;
        let with = |values: &mut [f32], f: fn(f32, f32) -> f32| {
            let operand = &self.values[from + columns.start..from + columns.end];
            values.iter_mut().zip(operand).for_each(|(v, x)| *v = f(*v, *x));
        };
        match self.change {
            Change::Add => with(values, |v, x| v + x),
            Change::Multiply => with(values, |v, x| v * x),
            Change::Relu => super::super::math::relu(values),
        }
    }
}

/// A step from a tile's first value on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub change: Change,
    pub values: *const f32,
    pub stride: usize,
}

impl At {
    pub const NONE: Self = Self { change: Change::Relu, values: std::ptr::null(), stride: 0 };
}

/// The steps of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Steps {
    first: *const At,
    count: usize,
}

impl Steps {
    pub const NONE: Self = Self { first: std::ptr::null(), count: 0 };

    /// Steps that live as long as the tile is computed.
    pub fn of(steps: &[At]) -> Self {
        Self { first: steps.as_ptr(), count: steps.len() }
    }

    /// Step `i`, if there are so many.
    ///
    /// # Safety
    /// The slice that the steps were made of lives.
    #[inline(always)]
    pub unsafe fn get(self, i: usize) -> Option<At> {
        // SAFETY: within the slice, by the caller's promise.
        if i < self.count { Some(unsafe { *self.first.add(i) }) } else { None }
    }
}

/// Changes a row of a tile, without vector instructions named.
///
/// # Safety
/// Row `row` of the operand has 16 values.
#[inline(always)]
pub(super) unsafe fn row(at: At, row: usize, sums: &mut [f32; PANEL]) {
    let operand = || {
        // SAFETY: the caller's promise.
        unsafe { at.values.add(row * at.stride).cast::<[f32; PANEL]>().read_unaligned() }
    };
    match at.change {
        Change::Add => sums.iter_mut().zip(operand()).for_each(|(v, x)| *v += x),
        Change::Multiply => sums.iter_mut().zip(operand()).for_each(|(v, x)| *v *= x),
        Change::Relu => super::super::math::relu(sums),
    }
}
