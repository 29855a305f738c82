//! Which of these items are nearest, exactly?
//!
//! Every allowed row is compared, a block at a time: the block's similarities come from one vectorised
//! call, then they are offered to the list of the best. Between blocks the deadline is read. Ties go to the
//! lower ordinal, so that the answer does not depend on the order of the scan.

use super::{
    bitset::Bitset,
    kernel::Kernel,
    vectors::{Matrix, Query},
};

/// Rows between two looks at the deadline (reliability: every 256 distances).
pub(crate) const BLOCK: usize = 256;

/// The best so far.
#[derive(Debug, Default)]
pub struct TopK {
    wanted: usize,
    entries: Vec<(f32, u32)>,
    floor: Option<(f32, u32)>,
}

impl TopK {
    /// Forgets everything and wants so many.
    pub fn reset(&mut self, wanted: usize) {
        self.wanted = wanted;
        self.entries.clear();
        self.floor = None;
    }

    /// Forgets the finds below this ordinal, which will be offered again.
    pub(crate) fn forget(&mut self, below: u32) {
        self.entries.retain(|(_, ordinal)| *ordinal >= below);
        self.floor = None;
    }

    /// Offers one; what is not finite is not taken.
    #[inline]
    pub fn push(&mut self, similarity: f32, ordinal: u32) {
        // +0.0 turns -0.0 into 0.0: the two are one value, and ties go by ordinal.
        let entry = (similarity + 0.0, ordinal);
        if !similarity.is_finite() || self.floor.is_some_and(|floor| !better(&entry, &floor)) || self.wanted == 0 {
            return;
        }
        self.entries.push(entry);
        if self.entries.len() >= 2 * self.wanted {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.entries.len() > self.wanted {
            self.entries.select_nth_unstable_by(self.wanted - 1, order);
            self.entries.truncate(self.wanted);
            self.floor = self.entries.last().copied();
        }
    }

    /// The best, nearest first.
    pub fn sorted(&mut self) -> &[(f32, u32)] {
        if self.wanted > 0 {
            self.shrink();
        }
        self.entries.sort_unstable_by(order);
        &self.entries
    }
}

fn order(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

fn better(a: &(f32, u32), b: &(f32, u32)) -> bool {
    order(a, b).is_lt()
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Searched {
    /// Items that the answer stands for: those whose place was passed, eligible or not.
    pub seen: u32,
    /// False when the deadline ended it.
    pub finished: bool,
}

/// What to add to the similarity of an item, by ordinal: its expected value, already weighted.
pub type Bonus<'a> = Option<&'a [f32]>;

pub(crate) fn bonus_of(bonus: Bonus<'_>, ordinal: u32) -> f32 {
    bonus.and_then(|b| b.get(ordinal as usize)).copied().unwrap_or(0.0)
}

/// Scans the allowed rows. `offset` is added to ordinals on their way into `top` and into `bonus`.
pub(crate) fn scan(
    (kernel, rows): (Kernel, Matrix<'_>),
    query: &Query,
    (allowed, offset): (&Bitset, u32),
    bonus: Bonus<'_>,
    expired: &dyn Fn() -> bool,
    top: &mut TopK,
) -> Searched {
    let mut similarities = [0f32; BLOCK];
    let mut block = [0u32; BLOCK];
    let mut members = allowed.iter();
    loop {
        let mut filled = 0;
        for (slot, ordinal) in block.iter_mut().zip(&mut members) {
            *slot = ordinal;
            filled += 1;
        }
        let ordinals = block.get(..filled).unwrap_or(&[]);
        let Some(first) = ordinals.first() else {
            return Searched { seen: allowed.len(), finished: true };
        };
        if expired() {
            return Searched { seen: *first, finished: false };
        }
        (kernel.batch)(&query.bytes, rows, ordinals, &mut similarities);
        for (ordinal, raw) in ordinals.iter().zip(&similarities) {
            let ordinal = ordinal + offset;
            top.push(query.similarity(*raw) + bonus_of(bonus, ordinal), ordinal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_the_best_in_order(values in proptest::collection::vec(-3i8..3, 0..300), wanted in 0usize..20) {
            let mut top = TopK::default();
            top.reset(wanted);
            let mut all: Vec<(f32, u32)> = values.iter().zip(0..).map(|(v, i)| (f32::from(*v), i)).collect();
            all.iter().for_each(|(s, o)| top.push(*s, *o));
            top.push(f32::NAN, 7);
            all.sort_by(order);
            all.truncate(wanted);
            prop_assert_eq!(top.sorted(), all.as_slice());
        }
    }
}
