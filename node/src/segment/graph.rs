//! Where do vectors and links stand, and can they be trusted?
//!
//! The mapped file: the matrix, one row an item in the order of ordinals, which scan and walk both read, so
//! that vectors are stored once; and the links. A neighbour is a number that is followed without a further
//! look, so every one of them is checked when the file is opened, after its checksum: what was sealed wrong is
//! refused, not followed.

use super::{
    container::{Container, Section, Sections, tag},
    error::SegmentError,
    linker::{CONNECTIVITY, CONNECTIVITY_BASE, Links, NOBODY},
    vectors::{Matrix, VectorFormat},
};

const MATRIX: u64 = tag(b"vectors ");
const BASE: u64 = tag(b"lnk_base");
const UPPER: u64 = tag(b"lnk_uppr");
const ITEMS: u64 = tag(b"lnk_item");
const DOWN: u64 = tag(b"lnk_down");
const ENDS: u64 = tag(b"lnk_ends");
/// Levels above the base: with a sixteenth of the nodes on each, more than any graph has.
const LEVELS_MAX: usize = 32;

/// The sections of a graph's file.
pub(super) fn sections(matrix: Vec<u8>, links: &Links) -> Sections {
    let mut sections = Sections::default();
    sections.push_bytes(MATRIX, 0, matrix);
    sections.push(BASE, &links.base);
    sections.push(UPPER, &links.upper);
    sections.push(ITEMS, &links.items);
    sections.push(DOWN, &links.down);
    sections.push(ENDS, &links.ends);
    sections
}

/// A graph that is searched in place.
pub(crate) struct Graph {
    rows: u32,
    dimension: usize,
    format: VectorFormat,
    matrix: Section<u8>,
    base: Section<u32>,
    upper: Section<u32>,
    items: Section<u32>,
    down: Section<u32>,
    ends: Section<u32>,
}

impl Graph {
    /// Checks the structure of verified bytes.
    pub(crate) fn open(
        file: &Container,
        rows: u32,
        dimension: usize,
        format: VectorFormat,
    ) -> Result<Self, SegmentError> {
        let count = rows as usize;
        let nodes = file.section::<u32>(ITEMS)?.len();
        let graph = Self {
            rows,
            dimension,
            format,
            matrix: file.section_of(MATRIX, count * format.row_bytes(dimension))?,
            base: file.section_of(BASE, count * CONNECTIVITY_BASE)?,
            upper: file.section_of(UPPER, nodes * CONNECTIVITY)?,
            items: file.section_of(ITEMS, nodes)?,
            down: file.section_of(DOWN, nodes)?,
            ends: file.section(ENDS)?,
        };
        if graph.is_sound() { Ok(graph) } else { Err(file.damaged("links to what is not there")) }
    }

    fn is_sound(&self) -> bool {
        let below = |limit: u32| move |id: &u32| *id < limit || *id == NOBODY;
        let mut sound = self.base.iter().all(below(self.rows))
            && self.items.iter().all(|item| *item < self.rows)
            && self.ends.len() <= LEVELS_MAX
            && self.ends.last().copied().unwrap_or(0) as usize == self.items.len();
        let (mut start, mut lower) = (0, 0..self.rows);
        for end in self.ends.iter().copied() {
            sound &= start < end && end as usize <= self.items.len();
            let nodes = start as usize..end as usize;
            let links = start as usize * CONNECTIVITY..end as usize * CONNECTIVITY;
            sound &= self.down.get(nodes).is_some_and(|down| down.iter().all(|place| lower.contains(place)));
            let inside = |id: &u32| (start..end).contains(id) || *id == NOBODY;
            sound &= self.upper.get(links).is_some_and(|links| links.iter().all(inside));
            (start, lower) = (end, start..end);
        }
        sound
    }

    /// The rows.
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.matrix, self.dimension, self.format)
    }

    /// Items.
    pub(crate) const fn rows(&self) -> u32 {
        self.rows
    }

    /// The columns of the links, for a walk.
    pub(crate) fn view(&self) -> GraphView<'_> {
        GraphView {
            rows: self.rows,
            base: &self.base,
            upper: &self.upper,
            items: &self.items,
            down: &self.down,
            ends: &self.ends,
        }
    }
}

/// The links as slices.
#[derive(Clone, Copy)]
pub(crate) struct GraphView<'a> {
    pub(crate) rows: u32,
    base: &'a [u32],
    upper: &'a [u32],
    items: &'a [u32],
    down: &'a [u32],
    ends: &'a [u32],
}

impl<'a> GraphView<'a> {
    /// The neighbours of an item on the base level.
    #[inline]
    pub(crate) fn neighbours(&self, item: u32) -> &'a [u32] {
        let start = item as usize * CONNECTIVITY_BASE;
        self.base.get(start..start + CONNECTIVITY_BASE).unwrap_or(&[])
    }

    /// The same without the places of those that are missing.
    pub(crate) fn linked(&self, item: u32) -> impl Iterator<Item = u32> + use<'a> {
        self.neighbours(item).iter().copied().take_while(|neighbour| *neighbour != NOBODY)
    }

    /// The neighbours of a node on its upper level, as places.
    pub(crate) fn upper_neighbours(&self, place: u32) -> &'a [u32] {
        let start = place as usize * CONNECTIVITY;
        self.upper.get(start..start + CONNECTIVITY).unwrap_or(&[])
    }

    /// The item at a place of the upper levels.
    pub(crate) fn item(&self, place: u32) -> u32 {
        self.items.get(place as usize).copied().unwrap_or(0)
    }

    /// The same item's place one level below.
    pub(crate) fn down(&self, place: u32) -> u32 {
        self.down.get(place as usize).copied().unwrap_or(0)
    }

    /// Upper levels.
    pub(crate) const fn levels(&self) -> usize {
        self.ends.len()
    }

    /// Where a search starts: the last node of the topmost level.
    pub(crate) fn entry(&self) -> Option<u32> {
        self.ends.last().map(|end| end.saturating_sub(1))
    }
}
