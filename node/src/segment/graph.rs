//! Which of these items are nearest, by walking the graph?
//!
//! Owns the usearch index and hands out one operation: search. Everything that the library leaves to its
//! caller is settled here:
//! * its file has no checksum and neighbours are not bounded, so the bytes come verified (SE1);
//! * a search needs one of its contexts, so a gate admits as many as were reserved before the view;
//! * the metric is lost at a view, so ours is set again after it. It reads the query of the running walk
//!   from a thread-local: in f32, where the library would hand us one rounded to the stored format;
//! * there is no way to abort, so once the deadline has passed our metric calls everything infinitely near
//!   and our predicate admits it: the library's list is then full of what cannot be beaten, and the walk
//!   ends within one list. The real finds are collected on our side, so none is lost;
//! * a panic must not cross it: neither metric nor predicate indexes, borrows or overflows.
//!
//! The file holds the matrix first (rows u32, bytes of a row u32, then the rows by slot) and the graph after
//! it. We add item by item from one thread, so that slot = key = ordinal; the predicate checks it.

use super::{
    bitset::Bitset,
    container::Section,
    error::SegmentError,
    kernel::Kernel,
    scan::{BLOCK, Bonus, Searched, TopK, bonus_of},
    vectors::{Matrix, Metric, VectorFormat},
};
use std::{
    cell::{Cell, RefCell},
    path::Path,
    ptr,
    sync::{Condvar, Mutex, PoisonError},
};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind, VectorType};

/// Bytes before the matrix.
pub(super) const MATRIX_AT: usize = 8;
/// Neighbours of a node: the library's default and the knee of its build cost.
const CONNECTIVITY: usize = 16;
/// Candidates while a node is linked; 64 loses recall on clustered vectors, 256 doubles the build.
const EXPANSION_ADD: usize = 128;

/// The shape of the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: u32,
    pub(crate) dimension: usize,
    pub(crate) metric: Metric,
    pub(crate) format: VectorFormat,
}

impl Shape {
    fn options(self) -> IndexOptions {
        IndexOptions {
            dimensions: self.dimension,
            metric: match self.metric {
                Metric::Ip | Metric::Cos => MetricKind::IP,
                Metric::L2 => MetricKind::L2sq,
            },
            quantization: match self.format {
                VectorFormat::F32 => ScalarKind::F32,
                VectorFormat::Bf16 => ScalarKind::BF16,
            },
            connectivity: CONNECTIVITY,
            expansion_add: EXPANSION_ADD,
            // The list of a search is as long as what it is asked for, never longer.
            expansion_search: 1,
            multi: false,
        }
    }
}

fn library(e: impl std::fmt::Display) -> SegmentError {
    SegmentError::Graph(e.to_string())
}

/// A graph that is being built, by one thread, so that the same vectors give the same bytes.
pub(super) struct GraphBuilder {
    index: Index,
    added: u64,
}

impl GraphBuilder {
    pub(super) fn new(shape: Shape) -> Result<Self, SegmentError> {
        let mut index = Index::new(&shape.options()).map_err(library)?;
        index.reserve_capacity_and_threads(shape.rows as usize, 1).map_err(library)?;
        let pair = Kernel::select(shape.metric, shape.format).pair;
        let bytes = shape.dimension * shape.format.width();
        let metric = move |a: *const f32, b: *const f32| {
            // SAFETY: the library passes two of its vectors, each of the index's format and dimension.
            let rows = unsafe {
                (std::slice::from_raw_parts(a.cast::<u8>(), bytes), std::slice::from_raw_parts(b.cast::<u8>(), bytes))
            };
            -pair(rows.0, rows.1)
        };
        f32::change_metric(&mut index, Box::new(metric)).map_err(library)?;
        Ok(Self { index, added: 0 })
    }

    /// Links the next item; the vector must be finite and of the right dimension.
    pub(super) fn add(&mut self, vector: &[f32]) -> Result<(), SegmentError> {
        self.index.add(self.added, vector).map_err(library)?;
        self.added += 1;
        Ok(())
    }

    /// The bytes of the library's file.
    pub(super) fn finish(self) -> Result<Vec<u8>, SegmentError> {
        let mut bytes = vec![0; self.index.serialized_length()];
        self.index.save_to_buffer(&mut bytes).map_err(library)?;
        Ok(bytes)
    }
}

/// A graph that is searched in place.
pub(crate) struct Graph {
    // Dropped before the section that keeps its bytes.
    index: Index,
    bytes: Section<u8>,
    shape: Shape,
    kernel: Kernel,
    gate: Gate,
}

impl Graph {
    /// Views verified bytes; `threads` searches may run at a time.
    pub(crate) fn open(bytes: Section<u8>, shape: Shape, threads: usize, path: &Path) -> Result<Self, SegmentError> {
        let stride = shape.dimension * shape.format.width();
        let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b) as usize);
        let matrix = word(0).zip(word(4)) == Some((shape.rows as usize, stride));
        if !matrix || bytes.len() < MATRIX_AT + shape.rows as usize * stride {
            return Err(SegmentError::damaged(path, "the graph's matrix"));
        }
        let threads = threads.max(1);
        let mut index = Index::new(&shape.options()).map_err(library)?;
        index.reserve_capacity_and_threads(0, threads).map_err(library)?;
        // SAFETY: the section outlives the index (field order), is never written, and was verified.
        unsafe { index.view_from_buffer(&bytes) }.map_err(library)?;
        let kernel = Kernel::select(shape.metric, shape.format);
        f32::change_metric(&mut index, Box::new(walk_metric(&bytes, shape, kernel))).map_err(library)?;
        Ok(Self { index, bytes, shape, kernel, gate: Gate::new(threads) })
    }

    /// The rows, as they stand in the file.
    pub(crate) fn matrix(&self) -> Matrix<'_> {
        let bytes = self.bytes.get(MATRIX_AT..).unwrap_or(&[]);
        let length = self.shape.rows as usize * self.shape.dimension * self.shape.format.width();
        Matrix::new(bytes.get(..length).unwrap_or(&[]), self.shape.dimension, self.shape.format)
    }

    /// The kernel of its metric and format.
    pub(crate) const fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Bytes that the library holds beside the file.
    pub(crate) fn memory(&self) -> u64 {
        self.index.memory_usage() as u64
    }

    /// Walks with a list of `list` candidates; allowed finds go into `top`. The query is finite.
    pub(crate) fn search(
        &self,
        query: &[f32],
        list: usize,
        allowed: &Bitset,
        bonus: Bonus<'_>,
        expired: &dyn Fn() -> bool,
        top: &mut TopK,
    ) -> Result<Searched, SegmentError> {
        if self.shape.rows == 0 || list == 0 || allowed.count() == 0 {
            return Ok(Searched { seen: self.shape.rows, finished: true });
        }
        let _permit = self.gate.enter();
        let walk = Walk {
            query: bytemuck::cast_slice(query),
            bonus,
            expired,
            last: Cell::new((f32::NEG_INFINITY, u32::MAX)),
            measured: Cell::new(0),
            seen: Cell::new(0),
            stopped: Cell::new(false),
            top: RefCell::new(top),
        };
        let _running = Running::start(&walk);
        let admit = |key: u64| {
            let (similarity, slot) = walk.last.get();
            if walk.stopped.get() {
                return true;
            }
            walk.seen.set(walk.seen.get().wrapping_add(1));
            if u64::from(slot) != key || !allowed.contains(slot) {
                return false;
            }
            if let Ok(mut top) = walk.top.try_borrow_mut() {
                top.push(similarity, slot);
            }
            true
        };
        self.index.filtered_search(query, list, admit).map_err(library)?;
        let finished = !walk.stopped.get();
        Ok(Searched { seen: if finished { self.shape.rows } else { walk.seen.get().min(self.shape.rows) }, finished })
    }
}

/// The search that runs on this thread.
struct Walk<'a> {
    query: &'a [u8],
    bonus: Bonus<'a>,
    expired: &'a dyn Fn() -> bool,
    /// What was measured last: the library asks the predicate right after.
    last: Cell<(f32, u32)>,
    measured: Cell<u32>,
    /// Items of the base layer that the predicate was asked about; an item is there once, while the upper
    /// layers measure some a second time.
    seen: Cell<u32>,
    stopped: Cell<bool>,
    top: RefCell<&'a mut TopK>,
}

impl Walk<'_> {
    fn measure(&self, row: &[u8], slot: u32, kernel: Kernel) -> f32 {
        let measured = self.measured.get().wrapping_add(1);
        self.measured.set(measured);
        if (measured as usize).is_multiple_of(BLOCK) && (self.expired)() {
            self.stopped.set(true);
        }
        if self.stopped.get() {
            return f32::NEG_INFINITY;
        }
        let similarity = (kernel.one)(self.query, row) + bonus_of(self.bonus, slot);
        self.last.set((similarity, slot));
        -similarity
    }
}

thread_local! {
    static RUNNING: Cell<*const Walk<'static>> = const { Cell::new(ptr::null()) };
}

/// Makes a walk the running one until it is dropped.
struct Running;

impl Running {
    fn start(walk: &Walk<'_>) -> Self {
        RUNNING.set(ptr::from_ref(walk).cast());
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(ptr::null());
    }
}

fn walk_metric(
    bytes: &[u8],
    shape: Shape,
    kernel: Kernel,
) -> impl Fn(*const f32, *const f32) -> f32 + Send + Sync + use<> {
    let stride = shape.dimension * shape.format.width();
    let base = bytes.as_ptr() as usize + MATRIX_AT;
    let end = base + stride * shape.rows as usize;
    move |a: *const f32, b: *const f32| {
        // One of the two is a row of the matrix, the other the query in the library's own buffer.
        let row = if (base..end).contains(&(b as usize)) { b } else { a } as usize;
        let walk = RUNNING.get();
        if walk.is_null() || !(base..end).contains(&row) {
            return f32::INFINITY;
        }
        // SAFETY: `search` set the pointer on this thread to a walk on its stack and clears it before the
        // walk goes; the library calls the metric on the thread that searches.
        let walk = unsafe { &*walk };
        // SAFETY: `row` is the start of one of the rows of the matrix, which the index keeps alive.
        let bytes = unsafe { std::slice::from_raw_parts(row as *const u8, stride) };
        walk.measure(bytes, ((row - base) / stride) as u32, kernel)
    }
}

/// Admits so many searches at a time: one more than the library's contexts would be refused.
struct Gate {
    free: Mutex<usize>,
    left: Condvar,
}

struct Permit<'a>(&'a Gate);

impl Gate {
    const fn new(permits: usize) -> Self {
        Self { free: Mutex::new(permits), left: Condvar::new() }
    }

    fn enter(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.left.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.left.notify_one();
    }
}
