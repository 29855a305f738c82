//! Which ads are in this stored posting, without decoding it?
//!
//! Postings are written in the portable serialisation of Roaring bitmaps, without run containers, and read
//! in place: a map of the file is all the memory they take. Structure is checked once when the file is
//! opened; afterwards every read is a checked slice, so that no input can panic.

use super::bitset::Bitset;
use roaring::RoaringBitmap;
use std::cmp::Ordering;

/// The cookie of the format without run containers.
const COOKIE: u32 = 12_346;
/// Above so many members a container is a bitmap of 8 KiB.
const ARRAY_MAX: usize = 4_096;
const BITMAP_BYTES: usize = 8_192;
/// Words of the bitmap of one container.
pub(crate) const CHUNK_WORDS: usize = BITMAP_BYTES / 8;

/// The bitmap of one container.
pub(crate) type ChunkWords = [u64; CHUNK_WORDS];

/// A stored posting.
#[derive(Clone, Copy)]
pub(crate) struct RoaringView<'a>(&'a [u8]);

/// Walks the containers of a posting in their order.
pub(crate) struct Cursor<'a> {
    view: RoaringView<'a>,
    next: usize,
    count: usize,
}

/// Members that share their high 16 bits.
pub(crate) struct Chunk<'a> {
    high: u16,
    count: usize,
    bytes: &'a [u8],
}

/// Appends a posting; members must be below 2^32.
pub(crate) fn store(bitmap: &RoaringBitmap, out: &mut Vec<u8>) -> std::io::Result<()> {
    bitmap.serialize_into(out)
}

impl<'a> RoaringView<'a> {
    /// The view over stored bytes; call [`Self::is_sound`] once before trusting it.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// True when every container is whole, ascending and below `len`.
    pub(crate) fn is_sound(self, len: u32) -> bool {
        let Some(count) = self.containers() else { return false };
        let (mut seen, mut last, mut end) = (0, None, 8 + count * 8);
        for index in 0..count {
            let Some(chunk) = self.chunk(index) else { return false };
            if self.offset(index) != Some(end) || last.is_some_and(|l| l >= chunk.high) || !chunk.is_sound(len) {
                return false;
            }
            (last, end, seen) = (Some(chunk.high), end + chunk.bytes.len(), seen + 1);
        }
        seen == count && end == self.0.len()
    }

    /// True when `ordinal` is a member.
    pub(crate) fn contains(self, ordinal: u32) -> bool {
        let (high, low) = ((ordinal >> 16) as u16, ordinal as u16);
        Cursor::new(self).chunk(high).is_some_and(|chunk| chunk.contains(low))
    }

    /// Adds the members to `set`.
    pub(crate) fn add_to(self, set: &mut Bitset) {
        let mut words: ChunkWords = [0; CHUNK_WORDS];
        for chunk in self.chunks() {
            let Some(out) = set.words_mut().get_mut(usize::from(chunk.high) * CHUNK_WORDS..) else { return };
            chunk.copy_to(&mut words);
            out.iter_mut().zip(&words).for_each(|(word, more)| *word |= more);
        }
    }

    fn chunks(self) -> impl Iterator<Item = Chunk<'a>> {
        (0..self.containers().unwrap_or(0)).map_while(move |index| self.chunk(index))
    }

    fn containers(self) -> Option<usize> {
        let cookie = self.0.first_chunk::<4>()?;
        let count = u32::from_le_bytes(*self.0.get(4..)?.first_chunk()?) as usize;
        (u32::from_le_bytes(*cookie) == COOKIE && count <= 1 << 16).then_some(count)
    }

    fn offset(self, index: usize) -> Option<usize> {
        let at = 8 + self.containers()? * 4 + index * 4;
        Some(u32::from_le_bytes(*self.0.get(at..)?.first_chunk()?) as usize)
    }

    fn chunk(self, index: usize) -> Option<Chunk<'a>> {
        let described = self.0.get(8 + index * 4..)?.first_chunk::<4>()?;
        let high = u16::from_le_bytes([described[0], described[1]]);
        let count = usize::from(u16::from_le_bytes([described[2], described[3]])) + 1;
        let length = if count > ARRAY_MAX { BITMAP_BYTES } else { count * 2 };
        let start = self.offset(index)?;
        Some(Chunk { high, count, bytes: self.0.get(start..start.checked_add(length)?)? })
    }
}

impl<'a> Cursor<'a> {
    /// At the first container.
    pub(crate) fn new(view: RoaringView<'a>) -> Self {
        Self { view, next: 0, count: view.containers().unwrap_or(0) }
    }

    /// The members under these high bits, which ascend from call to call.
    pub(crate) fn chunk(&mut self, high: u16) -> Option<Chunk<'a>> {
        while self.next < self.count {
            let chunk = self.view.chunk(self.next)?;
            if chunk.high > high {
                return None;
            }
            self.next += 1;
            if chunk.high == high {
                return Some(chunk);
            }
        }
        None
    }
}

impl Chunk<'_> {
    /// Replaces `words` by the members.
    #[inline(always)]
    pub(crate) fn copy_to(&self, words: &mut ChunkWords) {
        if self.count > ARRAY_MAX {
            self.each_word(words, |word, bits| *word = bits);
        } else {
            words.fill(0);
            self.each_low(words, |word, bit| *word |= bit);
        }
    }

    /// Takes the members out of `words`.
    #[inline(always)]
    pub(crate) fn remove_from(&self, words: &mut ChunkWords) {
        if self.count > ARRAY_MAX {
            self.each_word(words, |word, bits| *word &= !bits);
        } else {
            self.each_low(words, |word, bit| *word &= !bit);
        }
    }

    #[inline(always)]
    fn each_word(&self, words: &mut ChunkWords, apply: impl Fn(&mut u64, u64)) {
        for (word, bits) in words.iter_mut().zip(self.bytes.chunks_exact(8)) {
            apply(word, bits.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)));
        }
    }

    /// Members follow each other within a word, where each change waits for the one before; four walks side by
    /// side, a quarter of the members apart, do not wait for each other.
    #[inline(always)]
    fn each_low(&self, words: &mut ChunkWords, apply: impl Fn(&mut u64, u64)) {
        let mut set = |low: &[u8]| {
            let low = low.first_chunk().map_or(0, |b| u16::from_le_bytes(*b));
            apply(&mut words[usize::from(low / 64)], 1 << (low % 64));
        };
        let (a, rest) = self.bytes.split_at(self.bytes.len() / 8 * 2);
        let (b, rest) = rest.split_at(a.len());
        let (c, rest) = rest.split_at(a.len());
        let (d, rest) = rest.split_at(a.len());
        let (a, b, c, d) = (a.chunks_exact(2), b.chunks_exact(2), c.chunks_exact(2), d.chunks_exact(2));
        for (((a, b), c), d) in a.zip(b).zip(c).zip(d) {
            set(a);
            set(b);
            set(c);
            set(d);
        }
        rest.chunks_exact(2).for_each(set);
    }

    fn contains(&self, low: u16) -> bool {
        if self.count > ARRAY_MAX {
            return self.bytes.get(usize::from(low / 8)).is_some_and(|byte| byte >> (low % 8) & 1 == 1);
        }
        let at = |index: usize| {
            self.bytes.get(index * 2..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
        };
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from.midpoint(to);
            match at(middle).cmp(&low) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return true,
                Ordering::Greater => to = middle,
            }
        }
        false
    }

    fn lows(&self) -> impl Iterator<Item = u16> {
        self.bytes.chunks_exact(2).map(|low| low.first_chunk().map_or(0, |b| u16::from_le_bytes(*b)))
    }

    fn is_sound(&self, len: u32) -> bool {
        let base = u32::from(self.high) << 16;
        let inside = |low: u16| base + u32::from(low) < len;
        if self.count > ARRAY_MAX {
            let count: u32 = self.bytes.iter().map(|b| b.count_ones()).sum();
            let highest = self.bytes.iter().rposition(|b| *b != 0);
            let highest = highest.map_or(0, |at| at * 8 + 7 - self.bytes[at].leading_zeros() as usize);
            count as usize == self.count && inside(highest as u16)
        } else {
            let mut last = None;
            self.lows().all(|low| {
                let ascending = last.is_none_or(|l| l < low);
                last = Some(low);
                ascending && inside(low)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(members: &[u32], len: u32) {
        let bitmap: RoaringBitmap = members.iter().copied().collect();
        let mut bytes = Vec::new();
        store(&bitmap, &mut bytes).unwrap();
        let view = RoaringView::new(&bytes);
        assert!(view.is_sound(len));
        let mut set = Bitset::empty(len);
        view.add_to(&mut set);
        assert_eq!(set.iter().collect::<Vec<_>>(), bitmap.iter().collect::<Vec<_>>());
        let mut cursor = Cursor::new(view);
        for (high, words) in (0u16..).zip(set.words().chunks(CHUNK_WORDS)) {
            let mut rest: ChunkWords = [u64::MAX; CHUNK_WORDS];
            if let Some(chunk) = cursor.chunk(high) {
                chunk.remove_from(&mut rest);
            }
            assert!(words.iter().zip(&rest).all(|(word, rest)| *word == !rest));
        }
        for probe in members.iter().flat_map(|m| [m.saturating_sub(1), *m, m + 1]) {
            assert_eq!(view.contains(probe), bitmap.contains(probe));
        }
    }

    #[test]
    fn arrays_and_bitmaps() {
        check(&[], 0);
        check(&[0], 1);
        check(&(0..10_000).collect::<Vec<_>>(), 10_000);
        check(&(0..300_000).filter(|n| n % 7 == 0 || *n > 200_000).collect::<Vec<_>>(), 300_000);
        let high = RoaringBitmap::from_iter([70_000]);
        let mut bytes = Vec::new();
        store(&high, &mut bytes).unwrap();
        assert!(!RoaringView::new(&bytes).is_sound(70_000));
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(members in proptest::collection::vec(0u32..200_000, 0..500)) {
            check(&members, 200_000);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), probe in any::<u32>()) {
            let mut bytes = bytes;
            if bytes.len() > 8 {
                bytes[..4].copy_from_slice(&COOKIE.to_le_bytes());
                bytes[5..8].fill(0);
            }
            let view = RoaringView::new(&bytes);
            let _ = view.is_sound(1_000);
            let _ = view.contains(probe);
            view.add_to(&mut Bitset::empty(1_000));
        }
    }
}
