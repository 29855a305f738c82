//! Which documents are in this catalogue blob?
//!
//! A blob is a sequence of frames: u32 LE compressed length, u32 LE decompressed length, one zstd frame that holds
//! one encoded block of documents. Both lengths are checked against the limits before anything is allocated, so
//! a hostile blob costs at most one block of memory.

use gavel_proto::limits::BLOCK_BYTES_MAX;
use gavel_proto::wire::CatalogueBlock;
use prost::Message;
use std::io::{self, Read};

/// Why a blob cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// A length is above the limit.
    #[error("block {block}: {bytes} bytes are more than a block may have")]
    TooLarge {
        /// Which block, from 0.
        block: u64,
        /// The stated length.
        bytes: usize,
    },
    /// It ends inside a frame, or the frame is damaged.
    #[error("block {block}: {reason}")]
    Damaged {
        /// Which block, from 0.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a blob block by block. After an error it ends.
#[derive(Debug)]
pub struct BlockReader<R> {
    input: R,
    block: u64,
    failed: bool,
    packed: Vec<u8>,
}

impl<R: Read> BlockReader<R> {
    /// Reads from the beginning of a blob. Give it a buffered reader.
    pub fn new(input: R) -> Self {
        Self { input, block: 0, failed: false, packed: Vec::new() }
    }

    fn next_block(&mut self) -> Result<Option<CatalogueBlock>, BlockError> {
        let block = self.block;
        let damaged = |reason: String| BlockError::Damaged { block, reason };
        let mut header = [0u8; 8];
        match read_up_to(&mut self.input, &mut header)? {
            0 => return Ok(None),
            8 => {}
            n => return Err(damaged(format!("it ends after {n} bytes of a frame's lengths"))),
        }
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (packed_bytes, bytes) = (word(0), word(4));
        if let Some(bytes) = [packed_bytes, bytes].into_iter().find(|b| *b > BLOCK_BYTES_MAX) {
            return Err(BlockError::TooLarge { block, bytes });
        }
        self.packed.resize(packed_bytes, 0);
        if read_up_to(&mut self.input, &mut self.packed)? != packed_bytes {
            return Err(damaged("it ends inside a frame".to_owned()));
        }
        let plain = zstd::bulk::decompress(&self.packed, bytes).map_err(|e| damaged(e.to_string()))?;
        if plain.len() != bytes {
            return Err(damaged(format!("{} bytes where {bytes} were stated", plain.len())));
        }
        self.block += 1;
        CatalogueBlock::decode(plain.as_slice()).map(Some).map_err(|e| damaged(e.to_string()))
    }
}

impl<R: Read> Iterator for BlockReader<R> {
    type Item = Result<CatalogueBlock, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_block();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Fills `buffer` as far as there are bytes.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_proto::wire::{Ad, Item};

    fn frame(block: &CatalogueBlock) -> Vec<u8> {
        let plain = block.encode_to_vec();
        let packed = zstd::bulk::compress(&plain, 3).expect("compressed");
        let mut out = Vec::new();
        out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        out.extend_from_slice(&packed);
        out
    }

    fn blob() -> (Vec<CatalogueBlock>, Vec<u8>) {
        let first = CatalogueBlock {
            items: (0..50).map(|i| Item { item_id: i, ..Item::default() }).collect(),
            ..CatalogueBlock::default()
        };
        let second = CatalogueBlock { ads: vec![Ad { ad_id: 9, ..Ad::default() }], ..CatalogueBlock::default() };
        let bytes = [frame(&first), frame(&second)].concat();
        (vec![first, second], bytes)
    }

    #[test]
    fn blocks_come_back_in_order() {
        let (blocks, bytes) = blob();
        let read: Result<Vec<_>, _> = BlockReader::new(bytes.as_slice()).collect();
        assert_eq!(read.expect("whole"), blocks);
        assert_eq!(BlockReader::new(&[][..]).count(), 0);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_ends_without_a_panic() {
        let (blocks, bytes) = blob();
        let boundary = frame(&blocks[0]).len();
        for cut in 1..bytes.len() {
            let whole = BlockReader::new(&bytes[..cut]).all(|b| b.is_ok());
            assert_eq!(whole, cut == boundary, "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 0x80;
            assert!(BlockReader::new(bent.as_slice()).count() <= 3);
        }
    }
}
