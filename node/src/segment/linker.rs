//! Which items are linked with which?
//!
//! usearch builds the graph: one thread, item by item, so that slot = key = ordinal and the same vectors give
//! the same links. To the library a row is opaque bytes (it is told i8, which it copies as they are), and the
//! metric is ours. What it built is read out of its own serialisation into [`Links`], with every number
//! checked; the library and its file end here, and what is searched is ours alone.
//!
//! By which nearness links are chosen, and that some rows are linked twice, is decided in [`super::linkage`].
//!
//! What an item is worth (0 where the bundle does not weigh value) is one more dimension: searches add it to the
//! similarity, so what is worth as much is nearer. It is that of the bids at the seal; a walk goes by those of the request.

use super::{
    error::SegmentError,
    kernel::Kernel,
    linkage::Nearness,
    vectors::{Encoding, Metric, VectorFormat},
};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind, VectorType};

/// Neighbours of a node on the upper levels: the library's default and the knee of its build cost.
pub(crate) const CONNECTIVITY: usize = 16;
/// Neighbours on the base level, which holds every item.
pub(crate) const CONNECTIVITY_BASE: usize = 2 * CONNECTIVITY;
/// Candidates while a node is linked; 64 loses recall on clustered vectors, 256 doubles the build.
const EXPANSION_ADD: usize = 128;
/// After a row: for products its share with the centre and its squared length, and for all metrics its weighted value, f32.
const EXTRA: usize = 12;
/// Where a neighbour is missing.
pub(crate) const NOBODY: u32 = u32::MAX;

/// A graph: who is linked with whom, level by level.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Links {
    /// The base level: [`CONNECTIVITY_BASE`] ordinals an item, [`NOBODY`] after the last.
    pub(crate) base: Vec<u32>,
    /// End of each upper level in the columns below, the lowest first.
    pub(crate) ends: Vec<u32>,
    /// The item of each node of the upper levels.
    pub(crate) items: Vec<u32>,
    /// The place of the same item one level below: on level 1 its ordinal, above it the place in these columns.
    pub(crate) down: Vec<u32>,
    /// [`CONNECTIVITY`] places in these columns a node, of the same level; [`NOBODY`] after the last.
    pub(crate) upper: Vec<u32>,
}

fn library(e: impl std::fmt::Display) -> SegmentError {
    SegmentError::Graph(e.to_string())
}

/// A graph that is being built.
pub(super) struct Linker {
    index: Index,
    encoding: Encoding,
    connectivity: usize,
    row: Vec<i8>,
    added: u64,
}

impl Linker {
    pub(super) fn new(
        rows: u32,
        encoding: &Encoding,
        (by, connectivity): (Nearness, usize),
    ) -> Result<Self, SegmentError> {
        let options = IndexOptions {
            dimensions: encoding.stride() + EXTRA,
            metric: MetricKind::IP,
            quantization: ScalarKind::I8,
            connectivity,
            expansion_add: EXPANSION_ADD,
            expansion_search: 1,
            multi: false,
        };
        let mut index = Index::new(&options).map_err(library)?;
        index.reserve_capacity_and_threads(rows as usize, 1).map_err(library)?;
        let link = Link::of(encoding, by);
        let length = encoding.stride() + EXTRA;
        let metric = move |a: *const i8, b: *const i8| {
            // SAFETY: the library passes two of its vectors, each as long as it was told.
            let rows = unsafe {
                (std::slice::from_raw_parts(a.cast::<u8>(), length), std::slice::from_raw_parts(b.cast::<u8>(), length))
            };
            -link.nearness(rows.0, rows.1)
        };
        i8::change_metric(&mut index, Box::new(metric)).map_err(library)?;
        Ok(Self { index, encoding: encoding.clone(), connectivity, row: Vec::new(), added: 0 })
    }

    /// Links the next item; the row is as [`Encoding::encode`] made it, the value its weighted worth.
    pub(super) fn add(&mut self, row: &[u8], value: f32) -> Result<(), SegmentError> {
        let (share, length) = match self.encoding.metric {
            Metric::L2 => (0.0, 0.0),
            Metric::Ip | Metric::Cos => {
                let vector = self.encoding.decode(row);
                (self.share(&vector), vector.iter().map(|x| x * x).sum::<f32>() + value * value)
            }
        };
        self.row.clear();
        let extra = [share, length, value].map(f32::to_le_bytes);
        self.row.extend(row.iter().chain(extra.as_flattened()).map(|b| *b as i8));
        self.index.add(self.added, &self.row).map_err(library)?;
        self.added += 1;
        Ok(())
    }

    /// `c·x - c·c/2`: with the same of the other row, what the centre adds to the product of the steps.
    fn share(&self, vector: &[f32]) -> f32 {
        let centre = &self.encoding.scaling.centre;
        vector.iter().zip(centre).map(|(x, c)| x * c - c * c / 2.0).sum()
    }

    /// The links.
    pub(super) fn finish(self) -> Result<Links, SegmentError> {
        let mut bytes = vec![0; self.index.serialized_length()];
        self.index.save_to_buffer(&mut bytes).map_err(library)?;
        let matrix = 8 + self.added as usize * (self.encoding.stride() + EXTRA);
        drop(self.index);
        read(&bytes, matrix, (self.added as usize, self.connectivity))
            .ok_or_else(|| SegmentError::Graph("the library's file is not as it was expected".into()))
    }
}

/// How near two rows are, for linking.
#[derive(Clone, Copy)]
struct Link {
    kernel: Kernel,
    metric: Metric,
    by: Nearness,
    /// What a product of stored numbers is worth.
    unit: f32,
}

impl Link {
    fn of(encoding: &Encoding, by: Nearness) -> Self {
        let (metric, format) = (encoding.metric, encoding.format);
        let step = encoding.scaling.step;
        let unit = if format == VectorFormat::I8 { step * step } else { 1.0 };
        Self { kernel: Kernel::select(metric, format), metric, by, unit }
    }

    fn nearness(&self, a: &[u8], b: &[u8]) -> f32 {
        let (Some((a, extra_a)), Some((b, extra_b))) = (a.split_last_chunk::<EXTRA>(), b.split_last_chunk::<EXTRA>())
        else {
            return f32::NEG_INFINITY;
        };
        let raw = (self.kernel.pair)(a, b);
        let ([share_a, length_a, value_a], [share_b, length_b, value_b]) = (numbers(*extra_a), numbers(*extra_b));
        match self.metric {
            Metric::L2 => raw * self.unit - (value_a - value_b) * (value_a - value_b),
            Metric::Ip | Metric::Cos => {
                let product = raw * self.unit + share_a + share_b + value_a * value_b;
                match self.by {
                    Nearness::Own => product,
                    Nearness::Tempered => tempered(product, length_a, length_b),
                }
            }
        }
    }
}

fn numbers(extra: [u8; EXTRA]) -> [f32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = extra;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(f32::from_le_bytes)
}

/// The negated squared distance after each length was replaced by its square root.
fn tempered(product: f32, left: f32, right: f32) -> f32 {
    let (left, right) = (left.sqrt(), right.sqrt());
    let lengths = (left * right).sqrt();
    let shrunk = if lengths > 0.0 { product / lengths } else { 0.0 };
    2.0 * shrunk - left - right
}

/// Reads usearch 2.26.6's serialisation: a matrix, a head of 64 bytes, five u64 (size, neighbours, neighbours on
/// the base level, highest level, entry slot), an i16 level for each node, then the nodes: key u64, level i16 and for
/// each level a count u32 and as many slots u32 as there is room for.
fn read(bytes: &[u8], matrix: usize, (nodes, connectivity): (usize, usize)) -> Option<Links> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b));
    let long = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
    let half = |at: usize| bytes.get(at..)?.first_chunk().map(|b| i16::from_le_bytes(*b));
    let head = matrix + 64;
    let found = [long(head)?, long(head + 8)?, long(head + 16)?];
    if nodes == 0 {
        return Some(Links::default());
    }
    if found != [nodes as u64, connectivity as u64, 2 * connectivity as u64] {
        return None;
    }
    let (highest, entry) = (usize::try_from(long(head + 24)?).ok()?, long(head + 32)? as usize);
    let mut links = Links { base: vec![NOBODY; nodes * CONNECTIVITY_BASE], ..Links::default() };
    // Nodes of each upper level in ordinal order, with where their slots stand.
    let mut levels: Vec<Vec<(u32, usize)>> = vec![Vec::new(); highest];
    let mut at = head + 40 + 2 * nodes;
    for node in 0..nodes {
        let (key, level) = (long(at)?, usize::try_from(half(at + 8)?).ok()?);
        if key != node as u64 || level > highest {
            return None;
        }
        at += 10;
        let row = links.base.get_mut(node * CONNECTIVITY_BASE..)?.get_mut(..word(at)? as usize)?;
        for (index, slot) in row.iter_mut().enumerate() {
            *slot = word(at + 4 + 4 * index).filter(|slot| (*slot as usize) < nodes)?;
        }
        at += 4 + 4 * 2 * connectivity;
        for members in levels.iter_mut().take(level) {
            members.push((node as u32, at));
            at += 4 + 4 * connectivity;
        }
    }
    // The node at which every search starts must be the last of the topmost level.
    let top = levels.last_mut();
    if let Some(top) = top {
        let place = top.iter().position(|(item, _)| *item as usize == entry)?;
        let last = top.len() - 1;
        top.swap(place, last);
    }
    let mut below: Option<(usize, std::collections::HashMap<u32, u32>)> = None;
    for members in &levels {
        let start = links.items.len();
        let places: std::collections::HashMap<u32, u32> =
            members.iter().zip(start as u32..).map(|((item, _), place)| (*item, place)).collect();
        for (item, at) in members {
            links.items.push(*item);
            links.down.push(match &below {
                None => *item,
                Some((_, places)) => *places.get(item)?,
            });
            let count = (word(*at)? as usize).min(connectivity);
            let mut slots = [NOBODY; CONNECTIVITY];
            for (index, slot) in slots.iter_mut().take(count).enumerate() {
                *slot = *places.get(&word(at + 4 + 4 * index)?)?;
            }
            links.upper.extend_from_slice(&slots);
        }
        links.ends.push(links.items.len() as u32);
        below = Some((start, places));
    }
    Some(links)
}
