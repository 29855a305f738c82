//! What does the ranker predict for each of these items?
//!
//! Items are ranked in blocks: the activation rows of a block are gathered side by side, so that the ranker's matrix
//! products run over contiguous memory, and the deadline is looked at between blocks. The items come best first, so a
//! ranking that is cut short has ranked the most promising ones.
//!
//! Nodes and `gavel bench rank` rank through this function alone: what is measured is what serves.

use crate::bundle::{Bundle, Scratch};
use crate::error::ModelError;
use crate::exec::BLOCK_ROWS;

/// Candidates of one block: as many as a program has rows, so that each piece of a matrix that comes from memory serves
/// all of them. Measured with the gathering, 500 candidates of rows that lie anywhere (Zen 3, CPU time): against 64 a
/// ranker with activations of 11 KB takes 6 % less, one of 2 KB 4 %; 256 were no better than noise.
pub const BLOCK_CANDIDATES: usize = BLOCK_ROWS;

/// A model, with the user part of one request bound to it.
pub trait Ranker {
    /// Why a block could not be ranked.
    type Fault;
    /// Match features of one candidate.
    fn cross_width(&self) -> usize;
    /// Replaces `out` by the calibrated predictions of `n` candidates, row by row.
    ///
    /// # Errors
    /// When the model cannot run on inputs of these widths.
    fn rank(&mut self, activations: &[f32], cross: &[f32], n: usize, out: &mut Vec<f32>) -> Result<(), Self::Fault>;
}

/// A bundle with the user part of one request bound to it.
pub struct BoundRanker<'a> {
    /// The model.
    pub bundle: &'a Bundle,
    /// Its buffers.
    pub scratch: &'a mut Scratch,
    /// What the router computed of the user.
    pub user_part: &'a [f32],
}

impl Ranker for BoundRanker<'_> {
    type Fault = ModelError;

    fn cross_width(&self) -> usize {
        self.bundle.schema().cross.len()
    }

    fn rank(&mut self, activations: &[f32], cross: &[f32], n: usize, out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.bundle.rank(self.scratch, self.user_part, activations, cross, n, out)
    }
}

/// Buffers of one thread.
#[derive(Default)]
pub struct RankBuffers {
    activations: Vec<f32>,
    block: Vec<f32>,
}

/// Ranks `items`, whose match features are `cross`, until all are done or `stop` says so.
/// Returns how many were ranked, from the front; `predictions` has a value of each head for each of these.
///
/// # Errors
/// The first fault of the model.
pub fn rank_in_blocks<R: Ranker>(
    ranker: &mut R,
    items: &[u32],
    append_activations: impl Fn(u32, &mut Vec<f32>),
    cross: &[f32],
    mut stop: impl FnMut() -> bool,
    buffers: &mut RankBuffers,
    predictions: &mut Vec<f32>,
) -> Result<usize, R::Fault> {
    predictions.clear();
    let width = ranker.cross_width();
    let mut ranked = 0;
    for block in items.chunks(BLOCK_CANDIDATES) {
        if stop() {
            break;
        }
        buffers.activations.clear();
        for item in block {
            append_activations(*item, &mut buffers.activations);
        }
        let cross = &cross[ranked * width..(ranked + block.len()) * width];
        ranker.rank(&buffers.activations, cross, block.len(), &mut buffers.block)?;
        predictions.extend_from_slice(&buffers.block);
        ranked += block.len();
    }
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A model that adds everything up.
    struct Sum;

    impl Ranker for Sum {
        type Fault = String;
        fn cross_width(&self) -> usize {
            1
        }
        fn rank(&mut self, activations: &[f32], cross: &[f32], n: usize, out: &mut Vec<f32>) -> Result<(), String> {
            out.clear();
            out.extend((0..n).map(|i| activations[2 * i] + activations[2 * i + 1] + cross[i]));
            Ok(())
        }
    }

    proptest! {
        /// The blocks of a ranking are invisible: the twin ranks one candidate at a time.
        #[test]
        fn blocks_do_not_show(items in prop::collection::vec(0u32..40, 0..400), stop_after in 0usize..6) {
            let rows: Vec<Vec<f32>> = (0..40).map(|i| vec![i as f32, 0.5 * i as f32]).collect();
            let cross: Vec<f32> = (0..items.len()).map(|i| i as f32).collect();
            let mut left = stop_after;
            let stop = || { let stop = left == 0; left = left.saturating_sub(1); stop };
            let mut predictions = Vec::new();
            let (mut buffers, mut sum) = (RankBuffers::default(), Sum);
            let append = |i: u32, out: &mut Vec<f32>| out.extend_from_slice(&rows[i as usize]);
            let ranked = rank_in_blocks(&mut sum, &items, append, &cross, stop, &mut buffers, &mut predictions);
            let ranked = ranked.expect("never fails");
            prop_assert_eq!(ranked, items.len().min(stop_after * BLOCK_CANDIDATES));
            let twin: Vec<f32> = (0..ranked).map(|i| 1.5 * items[i] as f32 + cross[i]).collect();
            prop_assert_eq!(predictions, twin);
        }
    }
}
