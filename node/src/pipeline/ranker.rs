//! How does the bundle rank for one request?

use gavel_model::{Bundle, ModelError, Scratch};

use crate::ranking::rank::Ranker;

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

    fn heads(&self) -> usize {
        self.bundle.schema().heads.len()
    }

    fn cross_width(&self) -> usize {
        self.bundle.schema().cross.len()
    }

    fn rank(&mut self, activations: &[f32], cross: &[f32], n: usize, out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.bundle.rank(self.scratch, self.user_part, activations, cross, n, out)
    }
}
