//! Which small integers stand for a feature's value?
//!
//! A split compares a number with one of few thresholds, so a value matters only by its *rank*: how many of the
//! feature's thresholds lie below it. `x <= t[k]` is `rank(x) <= k`, exactly, and a rank fits a byte if a column has
//! at most 255 thresholds; a feature with more has several columns. Where missing values go is part of the rank:
//! splits that send them left and splits that send them right read different columns, and in each a missing value
//! lies below or above all thresholds.
//!
//! A category matters by the sets that hold it. Codes that no set tells apart are one *class*; a table gives for
//! each class one bit a set, and each set is a column of its own with rank 0 (in the set) or 1.
//!
//! Values arrive as f32. A threshold of f64 is rounded down to f32, which changes no comparison with an f32.
//!
//! A code (a rank or a class) is an integer below 2^24 and is kept as f32, so that it lies in the same rows as the
//! activations of any other ranker.

use super::ensemble::{Missing, Rule, ZERO, code};
use super::kernel::{Lane, ROWS};
use super::limits::CATEGORY_TABLE_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// Thresholds of one column: their ranks fit a byte.
const THRESHOLDS_MAX: usize = 255;
/// Sets whose bits share a byte.
const GROUP: usize = 8;

/// What becomes of a missing number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Treatment {
    /// It counts as 0.
    AsZero,
    /// NaN lies below (left) or above all thresholds.
    Nan { left: bool },
    /// So do 0 and NaN.
    Zero { left: bool },
}

impl Treatment {
    const fn of(missing: Missing, left: bool) -> Self {
        match missing {
            Missing::None => Self::AsZero,
            Missing::Nan => Self::Nan { left },
            Missing::Zero => Self::Zero { left },
        }
    }

    /// The number that stands for a missing value, and the one that stands for 0: beyond all thresholds, or 0. A
    /// threshold can be infinite (LightGBM parts what is missing from all that is not), so above stands NaN, whose
    /// [`key`] is above infinity's.
    const fn substitutes(self) -> (f32, f32) {
        match self {
            Self::AsZero => (0.0, 0.0),
            Self::Nan { left } => (if left { f32::NEG_INFINITY } else { f32::NAN }, 0.0),
            Self::Zero { left: true } => (f32::NEG_INFINITY, f32::NEG_INFINITY),
            Self::Zero { left: false } => (f32::NAN, f32::NAN),
        }
    }

    fn key(self, value: f32) -> u32 {
        let (missing, zero) = self.substitutes();
        substitute(value, missing, zero)
    }

    fn keys(self, values: &[f32; ROWS]) -> [u32; ROWS] {
        let (missing, zero) = self.substitutes();
        values.map(|v| substitute(v, missing, zero))
    }
}

#[inline(always)]
fn substitute(value: f32, missing: f32, zero: f32) -> u32 {
    let value = if value.abs() <= ZERO as f32 { zero } else { value };
    key(if value.is_nan() { missing } else { value })
}

/// One code of a row.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The input that it is made of.
    pub input: usize,
    /// The first column that it fills.
    column: usize,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The thresholds as a search tree.
    Number { treatment: Treatment, tree: Vec<u32> },
    /// Sorted codes; class 0 is all others. A byte for each group of sets and class.
    Category { codes: Vec<u32>, table: Vec<u8>, columns: usize },
}

/// The slots of a forest, and where each split finds its column.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub slots: Vec<Slot>,
    pub columns: usize,
    numbers: BTreeMap<(usize, Treatment), (usize, Vec<f32>)>,
    categories: BTreeMap<usize, (usize, Vec<Vec<u32>>)>,
}

impl Slots {
    /// For splits on inputs; the inputs' order is the slots' order.
    pub fn new<'a>(splits: impl Iterator<Item = (usize, &'a Rule)>) -> Result<Self, String> {
        let mut numbers: BTreeMap<(usize, Treatment), BTreeSet<Ordered>> = BTreeMap::new();
        let mut categories: BTreeMap<usize, BTreeSet<&Vec<u32>>> = BTreeMap::new();
        let mut inputs = BTreeSet::new();
        for (input, rule) in splits {
            inputs.insert(input);
            match rule {
                Rule::Number { threshold, missing, default_left } => {
                    let key = (input, Treatment::of(*missing, *default_left));
                    numbers.entry(key).or_default().insert(Ordered(round_down(*threshold)));
                }
                Rule::Category { codes } => {
                    categories.entry(input).or_default().insert(codes);
                }
            }
        }
        let mut made = Self::default();
        for input in inputs {
            for (key, thresholds) in numbers.range((input, Treatment::AsZero)..).take_while(|(k, _)| k.0 == input) {
                made.number(*key, thresholds.iter().map(|t| t.0).collect());
            }
            if let Some(sets) = categories.get(&input) {
                made.category(input, sets.iter().map(|s| (*s).clone()).collect())?;
            }
        }
        Ok(made)
    }

    fn number(&mut self, key: (usize, Treatment), thresholds: Vec<f32>) {
        for (i, chunk) in thresholds.chunks(THRESHOLDS_MAX).enumerate() {
            let form = Form::Number { treatment: key.1, tree: search_tree(chunk) };
            self.slots.push(Slot { input: key.0, column: self.columns + i, form });
        }
        let columns = thresholds.len().div_ceil(THRESHOLDS_MAX);
        self.numbers.insert(key, (self.columns, thresholds));
        self.columns += columns;
    }

    fn category(&mut self, input: usize, sets: Vec<Vec<u32>>) -> Result<(), String> {
        let codes: BTreeSet<u32> = sets.iter().flatten().copied().collect();
        let codes: Vec<u32> = codes.into_iter().collect();
        let (classes, groups) = (codes.len() + 1, sets.len().div_ceil(GROUP));
        if classes.saturating_mul(groups) > CATEGORY_TABLE_BYTES_MAX {
            return Err(format!("{} sets of {} categories are too many", sets.len(), codes.len()));
        }
        // A set bit says "not in the set": rank 1, to the right.
        let mut table = vec![u8::MAX; classes * groups];
        for (at, set) in sets.iter().enumerate() {
            for code in set {
                let class = 1 + codes.partition_point(|c| c < code);
                table[at / GROUP * classes + class] &= !(1 << (at % GROUP));
            }
        }
        let form = Form::Category { codes, table, columns: sets.len() };
        self.slots.push(Slot { input, column: self.columns, form });
        let columns = sets.len();
        self.categories.insert(input, (self.columns, sets));
        self.columns += columns;
        Ok(())
    }

    /// The column that a split compares, and the largest rank that goes left.
    pub fn place(&self, input: usize, rule: &Rule) -> Option<(usize, u8)> {
        match rule {
            Rule::Number { threshold, missing, default_left } => {
                let (first, thresholds) = self.numbers.get(&(input, Treatment::of(*missing, *default_left)))?;
                let at = thresholds.partition_point(|t| *t < round_down(*threshold));
                Some((first + at / THRESHOLDS_MAX, (at % THRESHOLDS_MAX) as u8))
            }
            Rule::Category { codes } => {
                let (first, sets) = self.categories.get(&input)?;
                Some((first + sets.binary_search(codes).ok()?, 0))
            }
        }
    }
}

impl Slot {
    /// The code of a value; NaN is missing.
    pub fn code(&self, value: f32) -> f32 {
        match &self.form {
            Form::Category { codes, .. } => {
                let class = code(f64::from(value)).and_then(|c| codes.binary_search(&c).ok());
                class.map_or(0.0, |c| (c + 1) as f32)
            }
            Form::Number { treatment, tree } => {
                let mut rank = [0];
                ranks(tree, &[treatment.key(value)], &mut rank);
                f32::from(rank[0])
            }
        }
    }

    /// Fills the slot's columns from the codes of a block's rows, `stride` apart; rows beyond them keep what they have.
    pub fn fill(&self, codes: &[f32], stride: usize, planes: &mut [Lane]) {
        let codes = codes.iter().step_by(stride.max(1)).take(ROWS);
        match &self.form {
            Form::Number { .. } => {
                for (rank, code) in planes[self.column].iter_mut().zip(codes) {
                    *rank = *code as u8;
                }
            }
            Form::Category { table, columns, .. } => {
                let classes = table.len() / columns.div_ceil(GROUP);
                let mut class = [0u32; ROWS];
                // A code that no encoding made counts as one of the others.
                class.iter_mut().zip(codes).for_each(|(c, code)| *c = (*code as u32).min(classes as u32 - 1));
                self.spread(&class, planes);
            }
        }
    }

    /// Fills the slot's columns from the values of a block's rows, of which `values` has as many as a block.
    pub fn fill_values(&self, values: &[f32; ROWS], planes: &mut [Lane]) {
        match &self.form {
            Form::Number { treatment, tree } => {
                ranks(tree, &treatment.keys(values), &mut planes[self.column]);
            }
            Form::Category { .. } => {
                let class = values.map(|v| self.code(v) as u32);
                self.spread(&class, planes);
            }
        }
    }

    fn spread(&self, class: &[u32; ROWS], planes: &mut [Lane]) {
        let Form::Category { table, columns, .. } = &self.form else { return };
        let classes = table.len() / columns.div_ceil(GROUP);
        let planes = &mut planes[self.column..self.column + columns];
        for (planes, table) in planes.chunks_mut(GROUP).zip(table.chunks_exact(classes)) {
            let bits = class.map(|c| table[c as usize]);
            for (at, plane) in planes.iter_mut().enumerate() {
                for (rank, bits) in plane.iter_mut().zip(&bits) {
                    *rank = bits >> at & 1;
                }
            }
        }
    }
}

/// The ranks of values among the thresholds of a search tree in the order of its levels, whose length is a power of
/// two: entry `i` leads to `2i` where the value is at most its threshold, else to `2i + 1`. A step is a compare and an
/// addition with carry, and no value waits for another.
fn ranks(tree: &[u32], keys: &[u32], out: &mut [u8]) {
    match tree.len() {
        2 => ranks_of::<2>(tree, keys, out),
        4 => ranks_of::<4>(tree, keys, out),
        8 => ranks_of::<8>(tree, keys, out),
        16 => ranks_of::<16>(tree, keys, out),
        32 => ranks_of::<32>(tree, keys, out),
        64 => ranks_of::<64>(tree, keys, out),
        128 => ranks_of::<128>(tree, keys, out),
        _ => ranks_of::<256>(tree, keys, out),
    }
}

fn ranks_of<const LENGTH: usize>(tree: &[u32], keys: &[u32], out: &mut [u8]) {
    let Some(tree) = tree.first_chunk::<LENGTH>() else { return };
    for (out, key) in out.iter_mut().zip(keys) {
        let mut at = 1;
        for _ in 0..LENGTH.ilog2() {
            at = 2 * at + usize::from(tree[at % LENGTH] < *key);
        }
        *out = (at - LENGTH) as u8;
    }
}

/// Sorted thresholds as a search tree, filled up with what no value exceeds.
fn search_tree(thresholds: &[f32]) -> Vec<u32> {
    let length = (thresholds.len() + 1).next_power_of_two();
    let mut tree = vec![u32::MAX; length];
    let levels = length.ilog2();
    for (rank, threshold) in thresholds.iter().enumerate() {
        // In sorted order the entries of the lowest level alternate with all above them, and so on upwards.
        let place = rank + 1;
        let height = place.trailing_zeros();
        tree[(length + place) >> (height + 1)] = key(*threshold);
        debug_assert!(height < levels);
    }
    tree
}

/// An integer in the order of numbers.
const fn key(number: f32) -> u32 {
    let bits = number.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The largest f32 that is not above a threshold: compares with every f32 as the threshold does.
fn round_down(threshold: f64) -> f32 {
    let nearest = threshold as f32;
    let below = if f64::from(nearest) > threshold { nearest.next_down() } else { nearest };
    // One zero, so that equal thresholds are one.
    if below == 0.0 { 0.0 } else { below }
}

/// A threshold in the order of numbers; none is NaN.
#[derive(Clone, Copy, Debug)]
struct Ordered(f32);

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
