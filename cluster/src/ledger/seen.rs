//! Was this event charged before?
//!
//! One bit a token, for ever as far as anybody can tell, in bounded memory: tokens are numbered by their issuer, so a
//! set of them is a bitmap, and a bitmap is kept for each issuer, hour of issue and kind of event. When nothing of that
//! hour can be charged any more the whole bitmap goes, and the answer from then on is `late`, never a second charge.
//! Beside "charged" a token may be "free" (its budget was gone, and it stays free) and a charge may be "refunded".

use std::collections::BTreeMap;

/// Words of a chunk: 4,096 tokens in 512 bytes, which an impression of every second token fills well and a click of
/// every hundredth still pays with 13 bytes.
pub const CHUNK_WORDS: usize = 64;
const CHUNK_BITS: u64 = CHUNK_WORDS as u64 * 64;

/// A set of sequence numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bits(BTreeMap<u64, Box<[u64; CHUNK_WORDS]>>);

impl Bits {
    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let (chunk, word, bit) = place(number);
        self.0.get(&chunk).is_some_and(|words| words[word] >> bit & 1 == 1)
    }

    /// Puts a number in.
    pub fn insert(&mut self, number: u64) {
        let (chunk, word, bit) = place(number);
        self.0.entry(chunk).or_insert_with(|| Box::new([0; CHUNK_WORDS]))[word] |= 1 << bit;
    }

    /// How many are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().flat_map(|words| words.iter()).map(|word| u64::from(word.count_ones())).sum()
    }

    /// Every number in it is in another.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|(chunk, words)| {
            let others = other.0.get(chunk);
            words.iter().enumerate().all(|(at, word)| word & !others.map_or(0, |o| o[at]) == 0)
        })
    }

    /// No number in it is in another.
    #[must_use]
    pub fn is_apart(&self, other: &Self) -> bool {
        !self.0.iter().any(|(chunk, words)| {
            other.0.get(chunk).is_some_and(|others| words.iter().zip(others.iter()).any(|(a, b)| a & b != 0))
        })
    }

    /// Every number in it, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        let of_word = |chunk: u64, at: usize, word: u64| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| chunk * CHUNK_BITS + at as u64 * 64 + bit)
        };
        self.0.iter().flat_map(move |(chunk, words)| {
            words.iter().enumerate().flat_map(move |(at, word)| of_word(*chunk, at, *word))
        })
    }

    /// The chunks by number.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, &[u64; CHUNK_WORDS])> {
        self.0.iter().map(|(chunk, words)| (*chunk, words.as_ref()))
    }

    /// Puts a chunk in.
    pub fn insert_chunk(&mut self, chunk: u64, words: [u64; CHUNK_WORDS]) {
        self.0.insert(chunk, Box::new(words));
    }
}

fn place(number: u64) -> (u64, usize, u64) {
    let within = number % CHUNK_BITS;
    (number / CHUNK_BITS, (within / 64) as usize, within % 64)
}

/// What is known of the tokens of one issuer, hour and kind of event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Charged.
    pub charged: Bits,
    /// Delivered when the budget was gone.
    pub free: Bits,
    /// Charged and refunded.
    pub refunded: Bits,
}
