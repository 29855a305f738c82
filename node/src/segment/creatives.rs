//! What is shown of this item?
//!
//! Creatives are read for winners only, so they are compressed: blocks of about 64 KiB, one zstd frame
//! each, with an index of the first item of every block. Lengths are checked before anything is allocated.

use super::{
    container::{Container, Section, Sections, tag},
    document::Creative,
    error::SegmentError,
};

/// A block is closed once it holds so many bytes: a winner costs one decompression of about 50 us.
const BLOCK_BYTES: usize = 64 * 1024;
/// One string of a creative; a data URL does not belong into a catalogue.
const STRING_MAX: usize = 16 * 1024;
/// A block is closed after the creative that fills it.
const RAW_MAX: usize = BLOCK_BYTES + 3 * (STRING_MAX + 4);
/// Favours reading; level 3 is zstd's default.
const LEVEL: i32 = 3;

const FIRST: u64 = tag(b"crt_item");
const ENDS: u64 = tag(b"crt_ends");
const BYTES: u64 = tag(b"crt_byte");

/// The creatives of a segment, open.
pub(crate) struct Creatives {
    /// First item of each block, and the number of items.
    first: Section<u32>,
    ends: Section<u64>,
    bytes: Section<u8>,
}

impl Creatives {
    /// Opens and checks the index.
    pub(crate) fn open(file: &Container, items: usize) -> Result<Self, SegmentError> {
        let ends = file.section::<u64>(ENDS)?;
        let bytes = file.section::<u8>(BYTES)?;
        let first = file.offsets(FIRST, ends.len(), items)?;
        if !ends.is_sorted() || ends.last().copied().unwrap_or(0) != bytes.len() as u64 {
            return Err(file.damaged("creative blocks out of order"));
        }
        Ok(Self { first, ends, bytes })
    }

    /// The creative of an item; `None` when there is no such item or its block does not decode.
    pub(crate) fn get(&self, item: u32) -> Option<Creative> {
        let block = self.first.partition_point(|first| *first <= item).checked_sub(1)?;
        let end = *self.ends.get(block)? as usize;
        let start = block.checked_sub(1).and_then(|b| self.ends.get(b)).map_or(0, |e| *e as usize);
        let raw = zstd::bulk::decompress(self.bytes.get(start..end)?, RAW_MAX).ok()?;
        let mut rest = raw.as_slice();
        for _ in *self.first.get(block)?..item {
            for _ in 0..3 {
                take(&mut rest)?;
            }
        }
        Some(Creative { title: text(&mut rest)?, url: text(&mut rest)?, image_url: text(&mut rest)? })
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (bytes, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = tail;
    Some(bytes)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(take(rest)?.to_vec()).ok()
}

/// Collects creatives while a segment is built.
#[derive(Default)]
pub(crate) struct CreativesWriter {
    raw: Vec<u8>,
    items: u32,
    first: Vec<u32>,
    ends: Vec<u64>,
    bytes: Vec<u8>,
}

impl CreativesWriter {
    /// Adds the creative of the next item.
    pub(crate) fn push(&mut self, creative: &Creative) -> Result<(), SegmentError> {
        if self.raw.is_empty() {
            self.first.push(self.items);
        }
        for text in [&creative.title, &creative.url, &creative.image_url] {
            if text.len() > STRING_MAX {
                return Err(SegmentError::Refused(format!("a creative's string of {} bytes", text.len())));
            }
            self.raw.extend_from_slice(&(text.len() as u32).to_le_bytes());
            self.raw.extend_from_slice(text.as_bytes());
        }
        self.items += 1;
        if self.raw.len() >= BLOCK_BYTES { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), SegmentError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let block = zstd::bulk::compress(&self.raw, LEVEL);
        self.bytes.extend(block.map_err(|e| SegmentError::Refused(format!("creatives: {e}")))?);
        self.ends.push(self.bytes.len() as u64);
        self.raw.clear();
        Ok(())
    }

    /// Writes the sections.
    pub(crate) fn write(mut self, out: &mut Sections) -> Result<(), SegmentError> {
        self.close()?;
        self.first.push(self.items);
        out.push(FIRST, &self.first);
        out.push(ENDS, &self.ends);
        out.push(BYTES, &self.bytes);
        Ok(())
    }
}
