//! Which of these ordinals are in?
//!
//! A plain bitmap: one bit an ordinal. A shard's ads fit into tens of kilobytes, where word-wise algebra
//! and a one-load membership test beat every compressed form; the compressed form is what is stored.

/// A set of ordinals below a fixed length.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bitset {
    words: Vec<u64>,
    len: u32,
}

impl Bitset {
    /// The empty set over `0..len`.
    #[must_use]
    pub fn empty(len: u32) -> Self {
        Self { words: vec![0; len.div_ceil(64) as usize], len }
    }

    /// The whole set `0..len`.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; len.div_ceil(64) as usize];
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last = (1 << (len % 64)) - 1;
        }
        Self { words, len }
    }

    /// The length of the ordinal space.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// True when the ordinal space is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Members.
    #[must_use]
    pub fn count(&self) -> u32 {
        ones(&self.words)
    }

    /// True when `ordinal` is a member; false beyond the length.
    #[inline]
    #[must_use]
    pub fn contains(&self, ordinal: u32) -> bool {
        self.words.get((ordinal / 64) as usize).is_some_and(|w| w >> (ordinal % 64) & 1 == 1)
    }

    /// Adds `ordinal`; nothing beyond the length.
    #[inline]
    pub fn insert(&mut self, ordinal: u32) {
        if ordinal < self.len
            && let Some(word) = self.words.get_mut((ordinal / 64) as usize)
        {
            *word |= 1 << (ordinal % 64);
        }
    }

    /// Takes `ordinal` out.
    #[inline]
    pub fn remove(&mut self, ordinal: u32) {
        if let Some(word) = self.words.get_mut((ordinal / 64) as usize) {
            *word &= !(1 << (ordinal % 64));
        }
    }

    /// Takes every member of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        for (word, out) in self.words.iter_mut().zip(&other.words) {
            *word &= !out;
        }
    }

    /// The same members over a longer space.
    #[must_use]
    pub(crate) fn extended(mut self, len: u32) -> Self {
        self.len = self.len.max(len);
        self.words.resize(self.len.div_ceil(64) as usize, 0);
        self
    }

    /// The members below `len`, over that space.
    #[must_use]
    pub(crate) fn truncated(&self, len: u32) -> Self {
        let mut below = Self::full(len.min(self.len));
        for (word, from) in below.words.iter_mut().zip(&self.words) {
            *word &= from;
        }
        below
    }

    /// Up to `count` members, one from each of as many equal stretches that has one.
    pub(crate) fn spread(&self, count: usize) -> impl Iterator<Item = u32> + '_ {
        let stretch = self.words.len().div_ceil(count.max(1)).max(1);
        self.words.chunks(stretch).enumerate().filter_map(move |(index, words)| {
            let (at, word) = words.iter().enumerate().find(|(_, word)| **word != 0)?;
            Some((index * stretch + at) as u32 * 64 + word.trailing_zeros())
        })
    }

    /// The words, lowest ordinal in the lowest bit of the first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.words).flat_map(|(index, word)| Bits { word: *word, base: index * 64 })
    }
}

/// Set bits. The instruction is on every x86 of the last fifteen years, and not in what the compiler may assume;
/// without it a million bits cost some tens of microseconds, with it four.
fn ones(words: &[u64]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("popcnt") {
        // SAFETY: the processor has the instruction.
        return unsafe { ones_by_instruction(words) };
    }
    words.iter().map(|word| word.count_ones()).sum()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
fn ones_by_instruction(words: &[u64]) -> u32 {
    words.iter().map(|word| word.count_ones()).sum()
}

/// The set bits of one word.
struct Bits {
    word: u64,
    base: u32,
}

impl Iterator for Bits {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.base + bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_has_exactly_its_length() {
        for len in [0, 1, 63, 64, 65, 1_000] {
            let mut set = Bitset::full(len);
            assert_eq!(set.count(), len);
            assert_eq!(set.iter().collect::<Vec<_>>(), (0..len).collect::<Vec<_>>());
            assert_eq!(set.spread(4).count(), len.div_ceil(64).min(4) as usize);
            assert!(set.spread(4).all(|item| item < len));
            set.insert(len);
            assert_eq!(set.count(), len);
            assert!(!set.contains(len));
            set.subtract(&Bitset::full(len));
            assert_eq!(set.count(), 0);
        }
    }
}
