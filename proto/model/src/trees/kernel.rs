//! How are 64 rows sent through a tree at once?
//!
//! Every split of a tree is computed for all rows of a block, without a branch: a step takes the leaf that the left
//! side ends in where the row's rank is at most the split's, and the leaf of the right side elsewhere. A tree of 64
//! leaves is 63 steps of a compare and a select over bytes, 32 or 64 rows an instruction; walking down eight rows
//! side by side takes three times as long, because a row's next split waits for its last one.
//! A tree of more leaves than a byte can name is walked, eight rows side by side.
//!
//! The body is plain code that the compiler turns into vector instructions; it is compiled once for any processor
//! and again for AVX2 and AVX-512, and the processor chooses.

/// Rows of a block.
pub(crate) const ROWS: usize = 64;
/// One byte for each row.
pub(crate) type Lane = [u8; ROWS];

/// Leaves that a byte can name.
pub(super) const NARROW_LEAVES: usize = 256;
/// Results that wait for their sibling: with the larger side first there is one for each halving of the leaves.
pub(super) const WAITING_MAX: usize = 10;
/// Rows that are walked side by side.
const ABREAST: usize = 8;

/// One split: `into` becomes `left` where the column's rank is at most `rank`, else `right`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub column: u16,
    /// Below [`NARROW_LEAVES`] a leaf, from there on a waiting result.
    pub left: u16,
    pub right: u16,
    pub rank: u8,
    /// The waiting result that it makes.
    pub into: u8,
}

/// One split or leaf of a tree that is walked; a leaf leads to itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub column: u16,
    pub rank: u8,
    pub left: u32,
    pub right: u32,
}

/// A tree over columns.
#[derive(Clone, Debug)]
pub(super) enum FastTree {
    /// At most [`NARROW_LEAVES`] leaves.
    Narrow { steps: Vec<Step>, leaves: Vec<f64> },
    /// The splits, then the leaves.
    Wide { nodes: Vec<Node>, splits: usize, leaves: Vec<f64> },
}

/// Leaves by their number, then the waiting results.
type Lanes = [Lane; NARROW_LEAVES + WAITING_MAX];

/// Buffers of one thread.
#[derive(Debug)]
pub(crate) struct Planes {
    /// One lane a column.
    pub(super) planes: Vec<Lane>,
    lanes: Box<Lanes>,
    /// The scores of a block, model by model.
    pub(crate) sums: Vec<[f64; ROWS]>,
}

impl Default for Planes {
    fn default() -> Self {
        let mut lanes = Box::new([[0; ROWS]; NARROW_LEAVES + WAITING_MAX]);
        (0..NARROW_LEAVES).for_each(|leaf| lanes[leaf].fill(leaf as u8));
        Self { planes: Vec::new(), lanes, sums: Vec::new() }
    }
}

/// Adds the trees' leaves to the rows' sums, in the order of the trees.
pub(super) fn run(trees: &[FastTree], planes: &mut Planes, sums: &mut [f64; ROWS]) {
    let Planes { planes, lanes, .. } = planes;
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vl") {
            // SAFETY: the processor has what the function is compiled for, as asked in the line above.
            return unsafe { run_avx512(trees, planes, lanes, sums) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { run_avx2(trees, planes, lanes, sums) };
        }
    }
    body(trees, planes, lanes, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(trees: &[FastTree], planes: &[Lane], lanes: &mut Lanes, sums: &mut [f64; ROWS]) {
    body(trees, planes, lanes, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn run_avx512(trees: &[FastTree], planes: &[Lane], lanes: &mut Lanes, sums: &mut [f64; ROWS]) {
    body(trees, planes, lanes, sums);
}

#[inline(always)]
fn body(trees: &[FastTree], planes: &[Lane], lanes: &mut Lanes, sums: &mut [f64; ROWS]) {
    for tree in trees {
        match tree {
            FastTree::Narrow { steps, leaves } => {
                let mut result = 0;
                for step in steps {
                    result = self::step(step, planes, lanes);
                }
                for (sum, leaf) in sums.iter_mut().zip(&lanes[result]) {
                    *sum += leaves[usize::from(*leaf)];
                }
            }
            FastTree::Wide { nodes, splits, leaves } => walk(nodes, *splits, leaves, planes, sums),
        }
    }
}

#[inline(always)]
fn step(step: &Step, planes: &[Lane], lanes: &mut Lanes) -> usize {
    let column = &planes[usize::from(step.column)];
    let (left, right) = (lanes[usize::from(step.left)], lanes[usize::from(step.right)]);
    let into = NARROW_LEAVES + usize::from(step.into);
    // As arithmetic: of a condition the compiler makes a branch or a choice of addresses, 15 times as slow.
    lanes[into] = std::array::from_fn(|i| {
        let goes_left = u8::from(column[i] <= step.rank).wrapping_neg();
        right[i] ^ ((left[i] ^ right[i]) & goes_left)
    });
    into
}

#[inline(always)]
fn walk(nodes: &[Node], splits: usize, leaves: &[f64], planes: &[Lane], sums: &mut [f64; ROWS]) {
    for (group, sums) in sums.chunks_exact_mut(ABREAST).enumerate() {
        let mut at = [0u32; ABREAST];
        while at.iter().any(|at| (*at as usize) < splits) {
            for (i, at) in at.iter_mut().enumerate() {
                let node = &nodes[*at as usize];
                let rank = planes[usize::from(node.column)][group * ABREAST + i];
                *at = if rank <= node.rank { node.left } else { node.right };
            }
        }
        for (sum, at) in sums.iter_mut().zip(at) {
            *sum += leaves[at as usize - splits];
        }
    }
}

#[cfg(test)]
pub(super) mod twin {
    //! The body as it is compiled for any processor.

    use super::*;

    pub fn run(trees: &[FastTree], planes: &mut Planes, sums: &mut [f64; ROWS]) {
        body(trees, &planes.planes, &mut planes.lanes, sums);
    }
}
