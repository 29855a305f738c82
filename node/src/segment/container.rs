//! Where in this file does a column stand?
//!
//! Every file of a sealed folder but the manifest is a container: a header of 64 bytes, a table of
//! sections, and the sections, each 64-byte aligned, little-endian and cast in place. The table is checked
//! once when the file is opened; what is handed out afterwards are slices that cannot be out of bounds.
//! The layout byte by byte stands in `docs/segment-format.md`.

use super::error::SegmentError;
use bytemuck::Pod;
use memmap2::Mmap;
use std::{collections::HashMap, marker::PhantomData, ops::Deref, path::Path, sync::Arc};

const MAGIC: [u8; 8] = *b"GVLSECT1";
/// The format of containers that this version writes and reads.
pub(crate) const FORMAT: u32 = 2;
const HEADER: u64 = 64;
const ENTRY: u64 = 32;
const ALIGN: u64 = 64;
/// Sections of one file: 256 set features of three sections, and what every file has.
const SECTIONS_MAX: u32 = 1_024;

/// What a container holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum FileKind {
    /// Ids and the arrows between items, ads, campaigns and ad groups.
    Ids = 1,
    /// Features of items.
    Columns = 2,
    /// Targeting and lookups.
    Postings = 3,
    /// Compressed creatives.
    Creatives = 4,
    /// Ad-only tensors of the ranker.
    Activations = 5,
    /// Vectors and graph.
    Graph = 6,
    /// Vectors in more precision than the graph's.
    Rescore = 7,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardKey {
    /// The catalogue generation.
    pub generation: u64,
    /// The shard of it.
    pub shard: u32,
}

/// One section to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionSpec {
    /// Its name within the file.
    pub(crate) tag: u64,
    /// Bytes of an element.
    pub(crate) width: u32,
    /// Elements.
    pub(crate) count: u64,
    /// Bytes at the start of the section that precede what is to be aligned.
    pub(crate) lead: u32,
}

/// A tag of eight letters.
pub(crate) const fn tag(letters: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*letters)
}

/// Where everything stands in a file with these sections.
pub(crate) struct Layout {
    /// Header and table.
    pub(crate) head: Vec<u8>,
    /// Start of each section.
    pub(crate) starts: Vec<u64>,
    /// Length of the file.
    pub(crate) total: u64,
}

/// Lays a file out.
pub(crate) fn layout(kind: FileKind, key: ShardKey, specs: &[SectionSpec]) -> Layout {
    let mut end = HEADER + ENTRY * specs.len() as u64;
    let mut starts = Vec::with_capacity(specs.len());
    for spec in specs {
        let start = (end + u64::from(spec.lead)).next_multiple_of(ALIGN) - u64::from(spec.lead);
        starts.push(start);
        end = start + u64::from(spec.width) * spec.count;
    }
    let total = end.next_multiple_of(ALIGN);
    let mut head = Vec::with_capacity((HEADER + ENTRY * specs.len() as u64) as usize);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&FORMAT.to_le_bytes());
    head.extend_from_slice(&(kind as u32).to_le_bytes());
    head.extend_from_slice(&key.generation.to_le_bytes());
    head.extend_from_slice(&key.shard.to_le_bytes());
    head.extend_from_slice(&(specs.len() as u32).to_le_bytes());
    head.extend_from_slice(&total.to_le_bytes());
    head.resize(HEADER as usize, 0);
    for (spec, start) in specs.iter().zip(&starts) {
        head.extend_from_slice(&spec.tag.to_le_bytes());
        head.extend_from_slice(&spec.width.to_le_bytes());
        head.extend_from_slice(&spec.lead.to_le_bytes());
        head.extend_from_slice(&start.to_le_bytes());
        head.extend_from_slice(&spec.count.to_le_bytes());
    }
    Layout { head, starts, total }
}

/// Sections in memory, in the order in which they are written.
#[derive(Default)]
pub(crate) struct Sections {
    parts: Vec<(SectionSpec, Vec<u8>)>,
}

impl Sections {
    /// Adds bytes of which the first `lead` precede what is to be aligned.
    pub(crate) fn push_bytes(&mut self, tag: u64, lead: u32, bytes: Vec<u8>) {
        self.parts.push((SectionSpec { tag, width: 1, count: bytes.len() as u64, lead }, bytes));
    }

    /// Adds a column.
    pub(crate) fn push<T: Pod>(&mut self, tag: u64, column: &[T]) {
        let spec = SectionSpec { tag, width: size_of::<T>() as u32, count: column.len() as u64, lead: 0 };
        self.parts.push((spec, bytemuck::cast_slice(column).to_vec()));
    }

    /// The bytes of the file, given to `write` in order.
    pub(crate) fn write(
        self,
        kind: FileKind,
        key: ShardKey,
        mut write: impl FnMut(&[u8]) -> Result<(), SegmentError>,
    ) -> Result<(), SegmentError> {
        let specs: Vec<_> = self.parts.iter().map(|(spec, _)| *spec).collect();
        let layout = layout(kind, key, &specs);
        write(&layout.head)?;
        let mut at = layout.head.len() as u64;
        for ((_, bytes), start) in self.parts.iter().zip(&layout.starts) {
            write(&[0; ALIGN as usize][..(start - at) as usize])?;
            write(bytes)?;
            at = start + bytes.len() as u64;
        }
        write(&[0; ALIGN as usize][..(layout.total - at) as usize])
    }
}

/// The bytes behind a container.
pub(crate) enum Storage {
    /// A sealed file, read-only.
    Mapped(Mmap),
    /// A delta's: words, so that every column is aligned, and the length in bytes.
    Owned(Vec<u64>, usize),
}

impl Storage {
    /// Copies bytes into aligned memory.
    pub(crate) fn owned(bytes: &[u8]) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self::Owned(words, bytes.len())
    }

    /// All of them.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(words, len) => bytemuck::cast_slice::<u64, u8>(words).get(..*len).unwrap_or(&[]),
        }
    }
}

/// An open container.
pub(crate) struct Container {
    path: std::path::PathBuf,
    storage: Arc<Storage>,
    table: HashMap<u64, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    width: u32,
    start: usize,
    count: usize,
}

impl Container {
    /// Checks header and table.
    pub(crate) fn new(path: &Path, storage: Storage, kind: FileKind, key: ShardKey) -> Result<Self, SegmentError> {
        let bytes = storage.bytes();
        let damaged = |why: &str| SegmentError::damaged(path, why);
        let head = bytes.get(..HEADER as usize).ok_or_else(|| damaged("shorter than its header"))?;
        if head[..8] != MAGIC {
            return Err(SegmentError::foreign(path, "not a segment file"));
        }
        let format = read_u32(head, 8);
        if format > FORMAT {
            return Err(SegmentError::Newer { path: path.to_path_buf(), found: format, known: FORMAT });
        }
        // Made anew from the catalogue: a folder is a copy of what the control plane keeps.
        if format < FORMAT {
            return Err(SegmentError::foreign(path, format!("format {format}, older than {FORMAT}")));
        }
        if read_u32(head, 12) != kind as u32 {
            return Err(SegmentError::foreign(path, format!("kind {} is not {kind:?}", read_u32(head, 12))));
        }
        let found = ShardKey { generation: read_u64(head, 16), shard: read_u32(head, 24) };
        if found != key {
            return Err(SegmentError::foreign(path, format!("{found:?} is not {key:?}")));
        }
        let sections = read_u32(head, 28);
        if sections > SECTIONS_MAX || read_u64(head, 32) != bytes.len() as u64 {
            return Err(damaged("the header's counts"));
        }
        let table_end = HEADER + ENTRY * u64::from(sections);
        let entries = bytes.get(HEADER as usize..table_end as usize).ok_or_else(|| damaged("the table's length"))?;
        let (mut table, mut end) = (HashMap::new(), table_end);
        for entry in entries.chunks_exact(ENTRY as usize) {
            let (width, lead) = (read_u32(entry, 8), read_u32(entry, 12));
            let (start, count) = (read_u64(entry, 16), read_u64(entry, 24));
            let stop = count.checked_mul(u64::from(width)).and_then(|n| n.checked_add(start));
            let stop = stop.filter(|stop| *stop <= bytes.len() as u64 && start >= end && width > 0);
            let stop = stop.filter(|_| (start + u64::from(lead)).is_multiple_of(ALIGN));
            end = stop.ok_or_else(|| damaged("a section outside its file"))?;
            let entry_of = Entry { width, start: start as usize, count: count as usize };
            if table.insert(read_u64(entry, 0), entry_of).is_some() {
                return Err(damaged("two sections of one name"));
            }
        }
        Ok(Self { path: path.to_path_buf(), storage: Arc::new(storage), table })
    }

    /// Whether there is a section of this name.
    pub(crate) fn has(&self, tag: u64) -> bool {
        self.table.contains_key(&tag)
    }

    /// A column; refused when it is missing or of another width.
    pub(crate) fn section<T: Pod>(&self, tag: u64) -> Result<Section<T>, SegmentError> {
        let entry = self.table.get(&tag).filter(|e| e.width as usize == size_of::<T>());
        let entry = entry.ok_or_else(|| {
            SegmentError::damaged(&self.path, format!("no section {:?}", String::from_utf8_lossy(&tag.to_le_bytes())))
        })?;
        let stop = entry.start + entry.count * size_of::<T>();
        let section = Section { storage: Arc::clone(&self.storage), start: entry.start, stop, kind: PhantomData };
        bytemuck::try_cast_slice::<u8, T>(section.bytes())
            .map_err(|e| SegmentError::damaged(&self.path, format!("a section's alignment: {e}")))?;
        Ok(section)
    }

    /// The same, of a known length.
    pub(crate) fn section_of<T: Pod>(&self, tag: u64, count: usize) -> Result<Section<T>, SegmentError> {
        let section = self.section::<T>(tag)?;
        if section.len() == count { Ok(section) } else { Err(self.damaged("a section's length")) }
    }

    /// A column of `groups + 1` offsets into another of `total` elements: it must start at 0, never fall
    /// and end at `total`.
    pub(crate) fn offsets(&self, tag: u64, groups: usize, total: usize) -> Result<Section<u32>, SegmentError> {
        let offsets = self.section_of::<u32>(tag, groups + 1)?;
        let ends = offsets.first() == Some(&0) && offsets.last().is_some_and(|last| *last as usize == total);
        if ends && offsets.is_sorted() { Ok(offsets) } else { Err(self.damaged("offsets out of order")) }
    }

    /// Says that this file is damaged.
    pub(crate) fn damaged(&self, why: &str) -> SegmentError {
        SegmentError::damaged(&self.path, why)
    }

    /// The bytes of the whole file, for residency.
    pub(crate) fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }
}

/// A column of an open container; it keeps the file mapped.
pub(crate) struct Section<T> {
    storage: Arc<Storage>,
    start: usize,
    stop: usize,
    kind: PhantomData<T>,
}

impl<T> Section<T> {
    fn bytes(&self) -> &[u8] {
        self.storage.bytes().get(self.start..self.stop).unwrap_or(&[])
    }
}

impl<T: Pod> Deref for Section<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // Checked when the section was handed out; a mapped file neither moves nor changes.
        bytemuck::cast_slice(self.bytes())
    }
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
