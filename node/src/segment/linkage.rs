//! By which nearness are rows linked?
//!
//! By the metric itself, where it is a distance or all rows have one length. Where the inner product searches rows of unequal
//! lengths no single nearness is good over all vectors. Linked by the product, rows are neighbours of the few longest and of
//! nothing else: fine where these are the answers, as over a factorisation whose lengths differ a thousandfold, hopeless over a
//! trained tower's vectors, where a walk then found .38 of the nearest. Linked by the distance after each length was replaced by
//! its square root ([`Nearness::Tempered`]) it found .99 of those, and .81 of the factorisation's. Which queries will come is not
//! known at the seal, so a trial among the rows themselves chooses wrongly. Therefore such rows are linked twice, and a row has
//! half of its neighbours from either graph.

use super::{
    error::SegmentError,
    linker::{CONNECTIVITY, CONNECTIVITY_BASE, Linker, Links, NOBODY},
    vectors::{Encoding, Metric},
};

/// Rows whose lengths are looked at.
const SAMPLE: usize = 4_096;
/// Standard deviation of lengths over their mean from which they are unequal: a trained tower with norms between 1 and 1.1
/// has .03, the factorisation 1.1.
const UNEQUAL: f64 = 0.15;

/// How near two rows are, for linking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nearness {
    /// The metric's own.
    Own,
    /// The negated squared distance after each length was replaced by its square root.
    Tempered,
}

/// Rows between two looks at whether the work goes on: some milliseconds of it.
pub(super) const ROWS_A_PAUSE: usize = 64;

/// How much is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Rows so far, each as often as there are graphs that it is in.
    pub done: u64,
    /// Rows of all graphs.
    pub total: u64,
}

/// Is asked now and then whether the work goes on; it may rest there.
pub(crate) type Pause<'a> = &'a mut dyn FnMut(Linked) -> Result<(), SegmentError>;

/// Links rows, each with its weighted value; a row without one has 0.
pub(super) fn link(
    matrix: &[u8],
    encoding: &Encoding,
    values: &[f32],
    pause: Pause<'_>,
) -> Result<Links, SegmentError> {
    let twice = encoding.metric == Metric::Ip && spread(matrix, encoding) >= UNEQUAL;
    let rows = (matrix.len() / encoding.stride()) as u64;
    let total = if twice { 2 * rows } else { rows };
    let mut done = 0;
    let mut build = |nearness, connectivity| -> Result<Links, SegmentError> {
        let rows = matrix.chunks_exact(encoding.stride());
        let mut linker = Linker::new(rows.len() as u32, encoding, (nearness, connectivity))?;
        for (ordinal, row) in rows.enumerate() {
            if ordinal % ROWS_A_PAUSE == 0 {
                pause(Linked { done, total })?;
            }
            linker.add(row, values.get(ordinal).copied().unwrap_or(0.0))?;
            done += 1;
        }
        linker.finish()
    };
    match encoding.metric {
        Metric::L2 | Metric::Cos => build(Nearness::Own, CONNECTIVITY),
        Metric::Ip if !twice => build(Nearness::Tempered, CONNECTIVITY),
        Metric::Ip => {
            let half = CONNECTIVITY / 2;
            Ok(build(Nearness::Tempered, half)?.joined_with(&build(Nearness::Own, half)?))
        }
    }
}

/// Standard deviation of the lengths over their mean.
fn spread(matrix: &[u8], encoding: &Encoding) -> f64 {
    let rows = matrix.chunks_exact(encoding.stride());
    let step = rows.len().div_ceil(SAMPLE).max(1);
    let length = |row: &[u8]| encoding.decode(row).iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let lengths: Vec<f64> = rows.step_by(step).map(length).collect();
    let count = lengths.len().max(1) as f64;
    let mean = lengths.iter().sum::<f64>() / count;
    let variance = lengths.iter().map(|length| (length - mean) * (length - mean)).sum::<f64>() / count;
    if mean > 0.0 { variance.sqrt() / mean } else { 0.0 }
}

impl Links {
    /// With the neighbours of another graph over the same rows behind those of this one, each once and as far as there is
    /// room. On the upper levels only if both have the same nodes there.
    fn joined_with(mut self, other: &Self) -> Self {
        join(&mut self.base, &other.base, CONNECTIVITY_BASE);
        if (&self.ends, &self.items) == (&other.ends, &other.items) {
            join(&mut self.upper, &other.upper, CONNECTIVITY);
        }
        self
    }
}

fn join(links: &mut [u32], others: &[u32], width: usize) {
    for (row, other) in links.chunks_exact_mut(width).zip(others.chunks_exact(width)) {
        let mut filled = row.iter().take_while(|link| **link != NOBODY).count();
        for link in other.iter().copied().take_while(|link| *link != NOBODY) {
            let (known, free) = row.split_at_mut(filled);
            let Some(place) = free.first_mut() else { break };
            if !known.contains(&link) {
                *place = link;
                filled += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, clustered};
    use super::*;
    use crate::segment::VectorFormat;

    #[test]
    fn lengths_decide() {
        let spread_of = |vectors: &[Vec<f32>]| {
            let encoding = Encoding::unscaled(16, Metric::Ip, VectorFormat::F32);
            let mut matrix = Vec::new();
            vectors.iter().for_each(|vector| encoding.encode(vector, &mut matrix));
            spread(&matrix, &encoding)
        };
        let mut random = Random(9);
        let mut vectors: Vec<Vec<f32>> = clustered(4_000, 16, 4);
        let mut stretch = |vectors: &mut Vec<Vec<f32>>, by: f32| {
            for vector in vectors {
                let length = (by * random.normal()).exp() / vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                vector.iter_mut().for_each(|x| *x *= length);
            }
        };
        stretch(&mut vectors, 0.03);
        assert!(spread_of(&vectors) < UNEQUAL);
        stretch(&mut vectors, 0.6);
        assert!(spread_of(&vectors) > UNEQUAL);
        assert_eq!(spread_of(&[]), 0.0);
    }

    /// Half of the work is half of the progress, also where rows are linked twice.
    #[test]
    fn progress_counts_rows_and_not_looks() {
        let encoding = Encoding::unscaled(16, Metric::Ip, VectorFormat::F32);
        let vectors: Vec<Vec<f32>> = clustered(300, 16, 4);
        for (factor, graphs) in [(1.0f32, 1u64), (9.0, 2)] {
            let mut matrix = Vec::new();
            for (n, vector) in vectors.iter().enumerate() {
                let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                let by = if n % 2 == 0 { factor } else { 1.0 } / length;
                encoding.encode(&vector.iter().map(|x| x * by).collect::<Vec<f32>>(), &mut matrix);
            }
            let mut looks = Vec::new();
            link(&matrix, &encoding, &[], &mut |linked| {
                looks.push(linked);
                Ok(())
            })
            .unwrap();
            assert!(looks.iter().all(|look| look.total == 300 * graphs && look.done < look.total));
            let wanted = (0..graphs).flat_map(|graph| (0..300).step_by(ROWS_A_PAUSE).map(move |row| graph * 300 + row));
            assert_eq!(looks.iter().map(|look| look.done).collect::<Vec<_>>(), wanted.collect::<Vec<u64>>());
        }
    }

    #[test]
    fn joined_rows_hold_each_neighbour_once() {
        let mut row = [1, 2, NOBODY, NOBODY];
        join(&mut row, &[2, 3, 4, 5], 4);
        assert_eq!(row, [1, 2, 3, 4]);
        let mut rows = [1, NOBODY, 7, 8];
        join(&mut rows, &[NOBODY, NOBODY, 9, NOBODY], 2);
        assert_eq!(rows, [1, NOBODY, 7, 8]);
    }
}
