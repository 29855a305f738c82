//! What does the ranker predict for each candidate?
//!
//! Candidates are ranked in blocks: the activation rows of a block are gathered side by side, so that the
//! ranker's matrix products run over contiguous memory, and the deadline is looked at between blocks. The
//! items come best first, so a ranking that is cut short has ranked the most promising ones.

/// Candidates of one block. Sixty-four activation rows of a real ranker (11 KB each) fit a core's second-level
/// cache; larger blocks gain nothing in the matrix product and make the deadline coarser.
pub const BLOCK_ITEMS: usize = 64;

/// The model, with the user part of one request bound to it.
pub trait Ranker {
    /// Why a block could not be ranked.
    type Fault;
    /// Predictions of one candidate.
    fn heads(&self) -> usize;
    /// Match features of one candidate.
    fn cross_width(&self) -> usize;
    /// Replaces `out` by the calibrated predictions of `n` candidates, row by row.
    ///
    /// # Errors
    /// When the model cannot run on inputs of these widths.
    fn rank(&mut self, activations: &[f32], cross: &[f32], n: usize, out: &mut Vec<f32>) -> Result<(), Self::Fault>;
}

/// Buffers of one thread.
#[derive(Default)]
pub struct RankBuffers {
    activations: Vec<f32>,
    block: Vec<f32>,
}

/// Ranks `items`, whose match features are `cross`, until all are done or `stop` says so.
/// Returns how many were ranked, from the front; `predictions` has `heads` values for each of these.
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
    for block in items.chunks(BLOCK_ITEMS) {
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
