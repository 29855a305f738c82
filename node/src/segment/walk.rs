//! Which of these items are nearest, by walking the graph?
//!
//! The graph's upper levels lead to an item near the query; from there the walk keeps a list of the nearest
//! items it has seen and looks at the neighbours of the nearest one that it has not been at yet, until it has been at all
//! of the list. Three things make it fast: the rows of all new neighbours are asked for before the first is
//! compared, so that the waits for memory overlap; what was seen is a bit each; the list is sorted in place.
//!
//! A filter changes where the walk may go. The **plain** walk goes everywhere and keeps what is allowed on the
//! side. The **filtered** walk compares allowed items only: where too few neighbours of an item are allowed,
//! the neighbours of the others stand in for them. So its cost does not grow as the share of the allowed
//! shrinks, until they are so few that they lose touch with each other. It starts at some allowed items spread over all
//! as well, for a filter whose items lie far from the query. A walk that ends before its list is full says so.
//!
//! The deadline is read between the items that the walk goes to, after at most a hundred comparisons.

use super::{
    bitset::Bitset,
    graph::GraphView,
    kernel::{Kernel, prefetch},
    linker::NOBODY,
    scan::{Bonus, Searched, TopK, bonus_of},
    vectors::{Matrix, Query},
};

/// Comparisons between two looks at the deadline.
const LOOK: usize = 64;
/// A filtered walk is content with so many allowed neighbours; with half of a node's links it loses nothing.
const ENOUGH: usize = 16;
/// Allowed items, spread over all ordinals, at which a filtered walk starts.
const SEEDS: usize = 16;
/// Neighbours of where a walk would start whose own neighbours are looked at for the density: with these a few hundred
/// items, of which a share of a twentieth is seen.
const AROUND: usize = 10;
/// In a list: that the walk has been there.
const BEEN: u32 = 1 << 31;

/// Where a walk may go.
#[derive(Clone, Copy)]
pub(crate) enum Through<'a> {
    /// Everywhere; what is allowed goes into the answer.
    All(&'a Bitset),
    /// Only to what is allowed.
    Allowed(&'a Bitset),
}

/// What a walk compares with.
#[derive(Clone, Copy)]
pub(crate) struct Space<'a> {
    pub(crate) kernel: Kernel,
    pub(crate) rows: Matrix<'a>,
    pub(crate) query: &'a Query,
    pub(crate) bonus: Bonus<'a>,
}

/// Memory that is used again.
#[derive(Default)]
pub struct WalkScratch {
    seen: Vec<u64>,
    touched: Vec<u32>,
    list: Vec<(f32, u32)>,
    fresh: Vec<u32>,
    bridges: Vec<u32>,
    similarities: Vec<f32>,
}

/// How the allowed lie in the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Density {
    /// Share of the allowed among the items around the query.
    pub around_query: f32,
    /// Share of the allowed around the allowed: the pass rate if the filter has nothing to do with the vectors.
    pub among_allowed: f32,
}

/// Looks at some neighbourhoods: a few microseconds.
pub(crate) fn density(
    graph: GraphView<'_>,
    space: Space<'_>,
    allowed: &Bitset,
    scratch: &mut WalkScratch,
    top: &mut TopK,
) -> Density {
    let walk = Walk { graph, space, through: Through::Allowed(allowed), length: 1, scratch, top, measured: 0 };
    let entry = walk.descend();
    let beyond = graph.linked(entry).take(AROUND).flat_map(|item| graph.linked(item));
    let around_query = share(graph.linked(entry).chain(beyond), allowed);
    let among_allowed = share(allowed.spread(SEEDS).flat_map(|seed| graph.linked(seed)), allowed);
    Density { around_query, among_allowed }
}

fn share(items: impl Iterator<Item = u32>, allowed: &Bitset) -> f32 {
    let (mut all, mut inside) = (0u32, 0u32);
    for item in items {
        all += 1;
        inside += u32::from(allowed.contains(item));
    }
    inside as f32 / all.max(1) as f32
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    pub(crate) searched: Searched,
    /// Allowed items in the list at the end.
    pub(crate) allowed: usize,
    /// Whether the list was filled; if not, the walk has lost its way, or there are not as many.
    pub(crate) filled: bool,
}

impl WalkScratch {
    /// True when it is seen for the first time.
    #[inline]
    fn mark(&mut self, item: u32) -> bool {
        let Some(word) = self.seen.get_mut((item / 64) as usize) else { return false };
        let bit = 1 << (item % 64);
        let new = *word & bit == 0;
        if new {
            *word |= bit;
            self.touched.push(item);
        }
        new
    }

    fn start(&mut self, rows: u32) {
        self.seen.resize((rows as usize).div_ceil(64).max(self.seen.len()), 0);
        self.list.clear();
        self.fresh.clear();
    }

    fn finish(&mut self) {
        for item in self.touched.drain(..) {
            if let Some(word) = self.seen.get_mut((item / 64) as usize) {
                *word = 0;
            }
        }
    }
}

/// One walk with a list of `length`; finds go into `top`.
pub(crate) fn walk(
    graph: GraphView<'_>,
    space: Space<'_>,
    (through, length): (Through<'_>, usize),
    expired: &dyn Fn() -> bool,
    scratch: &mut WalkScratch,
    top: &mut TopK,
) -> Walked {
    scratch.start(graph.rows);
    let mut walk = Walk { graph, space, through, length: length.max(1), scratch, top, measured: 0 };
    walk.begin();
    let (mut at, mut looked, mut finished) = (0, 0, true);
    while let Some(item) = walk.next(&mut at) {
        walk.gather(item);
        at = at.min(walk.measure());
        if walk.measured - looked >= LOOK {
            looked = walk.measured;
            if expired() {
                finished = false;
                break;
            }
        }
    }
    let seen = if finished { graph.rows } else { (walk.measured as u32).min(graph.rows) };
    let (Through::All(allowed) | Through::Allowed(allowed)) = through;
    let within = walk.scratch.list.iter().filter(|(_, item)| allowed.contains(item & !BEEN)).count();
    let filled = walk.scratch.list.len() >= walk.length;
    walk.scratch.finish();
    Walked { searched: Searched { seen, finished }, allowed: within, filled }
}

struct Walk<'a, 's> {
    graph: GraphView<'a>,
    space: Space<'a>,
    through: Through<'a>,
    length: usize,
    scratch: &'s mut WalkScratch,
    top: &'s mut TopK,
    measured: usize,
}

impl Walk<'_, '_> {
    /// Down the upper levels, always to the nearest neighbour.
    fn descend(&self) -> u32 {
        let Some(mut place) = self.graph.entry() else { return 0 };
        let mut nearest = self.similarity_of(self.graph.item(place));
        for level in (0..self.graph.levels()).rev() {
            loop {
                let here = place;
                let neighbours = self.graph.upper_neighbours(here).iter().copied().take_while(|n| *n != NOBODY);
                neighbours.clone().for_each(|n| self.ask_for(self.graph.item(n)));
                for neighbour in neighbours {
                    let similarity = self.similarity_of(self.graph.item(neighbour));
                    if similarity > nearest {
                        (place, nearest) = (neighbour, similarity);
                    }
                }
                if place == here {
                    break;
                }
            }
            if level > 0 {
                place = self.graph.down(place);
            }
        }
        self.graph.item(place)
    }

    fn similarity_of(&self, item: u32) -> f32 {
        let mut out = [f32::NEG_INFINITY];
        (self.space.kernel.batch)(&self.space.query.bytes, self.space.rows, &[item], &mut out);
        self.space.query.similarity(out[0]) + bonus_of(self.space.bonus, item)
    }

    #[inline]
    fn ask_for(&self, item: u32) {
        if let Some(row) = self.space.rows.row(item) {
            prefetch(row);
        }
    }

    /// The first items of the list.
    fn begin(&mut self) {
        if self.graph.rows == 0 {
            return;
        }
        let entry = self.descend();
        match self.through {
            Through::All(_) => {
                self.scratch.mark(entry);
                self.scratch.fresh.push(entry);
            }
            Through::Allowed(allowed) => {
                for seed in allowed.spread(SEEDS) {
                    if self.scratch.mark(seed) {
                        self.scratch.fresh.push(seed);
                    }
                }
                if self.scratch.mark(entry) && allowed.contains(entry) {
                    self.scratch.fresh.push(entry);
                } else {
                    self.gather(entry);
                }
            }
        }
        self.measure();
    }

    /// The nearest item of the list that the walk has not been at.
    #[inline]
    fn next(&mut self, at: &mut usize) -> Option<u32> {
        while let Some((_, item)) = self.scratch.list.get_mut(*at) {
            *at += 1;
            if *item & BEEN == 0 {
                let found = *item;
                *item |= BEEN;
                // What is probably next: its links come meanwhile.
                if let Some((_, after)) = self.scratch.list.get(*at) {
                    prefetch(self.graph.neighbours(after & !BEEN));
                }
                return Some(found);
            }
        }
        None
    }

    /// Collects the new items around one.
    #[inline]
    fn gather(&mut self, item: u32) {
        let neighbours = self.graph.neighbours(item);
        match self.through {
            Through::All(_) => {
                for neighbour in neighbours.iter().copied().take_while(|n| *n != NOBODY) {
                    if self.scratch.mark(neighbour) {
                        self.ask_for(neighbour);
                        self.scratch.fresh.push(neighbour);
                    }
                }
            }
            Through::Allowed(allowed) => self.gather_allowed(neighbours, allowed),
        }
    }

    /// The same of the allowed, and across the others where they are few.
    fn gather_allowed(&mut self, neighbours: &[u32], allowed: &Bitset) {
        let mut found = 0;
        self.scratch.bridges.clear();
        for neighbour in neighbours.iter().copied().take_while(|n| *n != NOBODY) {
            if !allowed.contains(neighbour) {
                prefetch(self.graph.neighbours(neighbour));
                self.scratch.bridges.push(neighbour);
                continue;
            }
            found += 1;
            if self.scratch.mark(neighbour) {
                self.ask_for(neighbour);
                self.scratch.fresh.push(neighbour);
            }
        }
        let bridges = std::mem::take(&mut self.scratch.bridges);
        for bridge in bridges.iter().copied() {
            if found >= ENOUGH {
                break;
            }
            // Whoever crossed it before has collected what is behind it.
            if !self.scratch.mark(bridge) {
                continue;
            }
            for beyond in self.graph.neighbours(bridge).iter().copied().take_while(|n| *n != NOBODY) {
                if allowed.contains(beyond) {
                    found += 1;
                    if self.scratch.mark(beyond) {
                        self.ask_for(beyond);
                        self.scratch.fresh.push(beyond);
                    }
                }
            }
        }
        self.scratch.bridges = bridges;
    }

    /// Compares what was collected; the first place of the list that changed.
    #[inline]
    fn measure(&mut self) -> usize {
        let WalkScratch { fresh, similarities, list, .. } = &mut *self.scratch;
        similarities.resize(fresh.len().max(similarities.len()), 0.0);
        (self.space.kernel.batch)(&self.space.query.bytes, self.space.rows, fresh, similarities);
        self.measured += fresh.len();
        let mut first = usize::MAX;
        for (item, raw) in fresh.iter().zip(similarities.iter()) {
            let similarity = self.space.query.similarity(*raw) + bonus_of(self.space.bonus, *item);
            let keep = match self.through {
                Through::All(allowed) => allowed.contains(*item),
                Through::Allowed(_) => true,
            };
            if keep {
                self.top.push(similarity, *item);
            }
            if list.len() >= self.length && list.last().is_some_and(|last| last.0 >= similarity) {
                continue;
            }
            let place = list.partition_point(|(other, _)| *other >= similarity);
            if list.len() >= self.length {
                list.pop();
            }
            list.insert(place, (similarity, *item));
            first = first.min(place);
        }
        fresh.clear();
        first
    }
}
