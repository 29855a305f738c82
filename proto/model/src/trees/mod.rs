//! How is a model of gradient-boosted trees read and scored?
//!
//! [`text`] reads the file that LightGBM writes, [`ensemble`] says what it means and scores a row the plain way,
//! [`slots`] turns values into small integers, [`kernel`] runs 64 rows through a tree at once and [`forest`] holds
//! them together. Raw scores equal LightGBM's in every bit: a leaf is a number of the file, and a row's leaves are
//! added in the order of the trees, in f64.

mod ensemble;
mod forest;
mod kernel;
mod limits;
mod slots;
mod text;

pub use ensemble::{Ensemble, Objective};
pub use forest::{Forest, Scorer};
pub use text::TreeError;

pub(crate) use forest::Member;
pub(crate) use kernel::{Planes, ROWS};

impl Ensemble {
    /// Reads a model file in LightGBM's text form.
    ///
    /// # Errors
    /// When the file is damaged, too large, or asks for what is not supported; with the number of the line.
    pub fn read(bytes: &[u8]) -> Result<Self, TreeError> {
        text::read(bytes)
    }

    /// The values of the category columns, if the model was trained on a table of pandas: a value's code is its
    /// place in the list.
    #[must_use]
    pub fn categories(&self) -> Option<&[Vec<String>]> {
        self.categories.as_deref()
    }
}

#[cfg(test)]
mod tests;
