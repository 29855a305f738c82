//! What does a LightGBM model say, and what does it score?
//!
//! The trees as the file has them, and the obvious way to score a row: from the root of each tree down, sums in the
//! order of the trees, everything in f64. It is the twin that the fast layout is compared with, and it follows
//! LightGBM's own rules to the letter, since equal means equal in every bit:
//! * a number of magnitude up to 1e-35 counts as 0;
//! * a missing number goes to the default side if its split knows missing values, and counts as 0 otherwise;
//! * a category goes left if its code is in the split's set; what is negative, missing or unknown goes right.

/// Up to this magnitude a number is 0: LightGBM's own bound, an f32 that it compares as f64.
pub(super) const ZERO: f64 = 1e-35_f32 as f64;

/// What a split on a number makes of missing values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missing {
    /// There were none in training: they count as 0.
    None,
    /// Zeros and NaN are missing.
    Zero,
    /// NaN is missing.
    Nan,
}

/// Where a split sends a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rule {
    /// Left up to the threshold, missing values to the default side.
    Number { threshold: f64, missing: Missing, default_left: bool },
    /// Left if the code is one of these, sorted.
    Category { codes: Vec<u32> },
}

/// Below a split: another split, or a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    Split(usize),
    Leaf(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Split {
    pub feature: usize,
    pub rule: Rule,
    pub left: Child,
    pub right: Child,
}

/// One tree: its root is the first split, or the only leaf.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tree {
    pub splits: Vec<Split>,
    pub leaves: Vec<f64>,
}

/// From a raw score to what a head of a bundle puts out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// The raw score is the prediction (regression, ranking, an objective of one's own).
    Identity,
    /// The prediction is `sigmoid(factor * raw)`.
    Sigmoid(f64),
    /// The prediction is `exp(raw)`.
    Exponential,
}

impl Objective {
    /// What LightGBM itself predicts for a raw score.
    #[must_use]
    pub fn prediction(self, raw: f64) -> f64 {
        match self {
            Self::Identity => raw,
            Self::Sigmoid(factor) => 1.0 / (1.0 + (-factor * raw).exp()),
            Self::Exponential => raw.exp(),
        }
    }
}

/// A whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    /// Its features by name, in the order of its columns.
    pub features: Vec<String>,
    /// What its raw score stands for.
    pub objective: Objective,
    /// Whether predictions are means over the trees (random forests); raw scores are sums all the same.
    pub averaged: bool,
    /// The category values that pandas gave the codes 0, 1, ..., for each category column in order.
    pub(super) categories: Option<Vec<Vec<String>>>,
    pub(super) trees: Vec<Tree>,
}

impl Ensemble {
    /// Trees.
    #[must_use]
    pub const fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Splits of all trees.
    #[must_use]
    pub fn splits(&self) -> usize {
        self.trees.iter().map(|t| t.splits.len()).sum()
    }

    /// Whether a split reads this feature.
    #[must_use]
    pub fn reads(&self, feature: usize) -> bool {
        self.trees.iter().flat_map(|t| &t.splits).any(|s| s.feature == feature)
    }

    /// The raw score of one row, a value for each feature; a value that is not there is NaN.
    #[must_use]
    pub fn raw(&self, row: &[f64]) -> f64 {
        self.trees.iter().fold(0.0, |sum, tree| sum + tree.value(row))
    }
}

impl Tree {
    fn value(&self, row: &[f64]) -> f64 {
        let mut at = if self.splits.is_empty() { Child::Leaf(0) } else { Child::Split(0) };
        loop {
            match at {
                Child::Leaf(leaf) => return self.leaves[leaf],
                Child::Split(split) => {
                    let split = &self.splits[split];
                    let value = row.get(split.feature).copied().unwrap_or(f64::NAN);
                    at = if split.rule.goes_left(value) { split.left } else { split.right };
                }
            }
        }
    }
}

impl Rule {
    /// Whether a value goes left.
    pub fn goes_left(&self, value: f64) -> bool {
        match self {
            Self::Category { codes } => code(value).is_some_and(|c| codes.binary_search(&c).is_ok()),
            Self::Number { threshold, missing, default_left } => {
                let value = if value.abs() <= ZERO { 0.0 } else { value };
                match missing {
                    Missing::Zero if value.is_nan() || value == 0.0 => *default_left,
                    Missing::Nan if value.is_nan() => *default_left,
                    Missing::None if value.is_nan() => 0.0 <= *threshold,
                    Missing::None | Missing::Zero | Missing::Nan => value <= *threshold,
                }
            }
        }
    }
}

/// The code that a value stands for: cut to an integer, as a cast in C does.
pub(super) fn code(value: f64) -> Option<u32> {
    // Written so that NaN has none. What lies between -1 and 0 is cut to 0.
    (value > -1.0 && value < f64::from(i32::MAX) + 1.0).then_some(value as u32)
}
