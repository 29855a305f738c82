//! What are the bytes of a blob?
//!
//! Frames of u32 LE compressed length, u32 LE decompressed length and one zstd frame holding one block of documents.
//! Block borders depend on the documents alone, the level is fixed and one thread compresses: equal documents give
//! equal bytes.

use super::LoadError;
use crate::upload::Blob;
use gavel_proto::limits::BLOCK_BYTES_MAX;
use gavel_proto::wire::{Ad, Campaign, CatalogueBlock, DimensionSet, Item, TimeZone, User};
use prost::Message;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Documents of one block: few enough to decode in a millisecond, enough to compress well.
const DOCUMENTS_MAX: usize = 2_000;
/// Bytes of one block before it is closed: half the limit, so that one more document of a megabyte fits.
const BYTES_MAX: usize = BLOCK_BYTES_MAX / 2;
/// 3 compresses the demo 9 : 1; 9 gains 8 % and takes five times as long.
const LEVEL: i32 = 3;

/// A blob that is written.
pub(super) struct BlobWriter {
    path: PathBuf,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
    compressor: zstd::bulk::Compressor<'static>,
    block: CatalogueBlock,
    documents: usize,
    bytes: usize,
}

impl BlobWriter {
    pub(super) fn create(path: &Path) -> Result<Self, LoadError> {
        let failed = |e| LoadError::Io(path.to_path_buf(), e);
        Ok(Self {
            path: path.to_path_buf(),
            out: BufWriter::new(File::create(path).map_err(failed)?),
            hasher: blake3::Hasher::new(),
            compressor: zstd::bulk::Compressor::new(LEVEL).map_err(failed)?,
            block: CatalogueBlock::default(),
            documents: 0,
            bytes: 0,
        })
    }

    /// Offsets of the zones that the ads name, before the first of them.
    pub(super) fn zones(&mut self, zones: Vec<TimeZone>) -> Result<(), LoadError> {
        let bytes = zones.iter().map(|zone| zone.encoded_len() + 5).sum();
        self.block.zones = zones;
        self.count(bytes)
    }

    /// The dimensions, before everything else.
    pub(super) fn dimensions(&mut self, dimensions: DimensionSet) -> Result<(), LoadError> {
        let bytes = dimensions.encoded_len();
        self.block.dimensions = Some(dimensions);
        self.count(bytes)
    }

    pub(super) fn item(&mut self, item: Item) -> Result<(), LoadError> {
        let bytes = item.encoded_len();
        self.block.items.push(item);
        self.count(bytes)
    }

    pub(super) fn ad(&mut self, ad: Ad) -> Result<(), LoadError> {
        let bytes = ad.encoded_len();
        self.block.ads.push(ad);
        self.count(bytes)
    }

    pub(super) fn campaign(&mut self, campaign: Campaign) -> Result<(), LoadError> {
        let bytes = campaign.encoded_len();
        self.block.campaigns.push(campaign);
        self.count(bytes)
    }

    pub(super) fn user(&mut self, user: User) -> Result<(), LoadError> {
        let bytes = user.encoded_len();
        self.block.users.push(user);
        self.count(bytes)
    }

    fn count(&mut self, bytes: usize) -> Result<(), LoadError> {
        self.documents += 1;
        // Tag and length of the document in the block: at most 1 + 4 bytes.
        self.bytes += bytes + 5;
        if self.documents >= DOCUMENTS_MAX || self.bytes >= BYTES_MAX { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), LoadError> {
        if self.documents == 0 {
            return Ok(());
        }
        let plain = std::mem::take(&mut self.block).encode_to_vec();
        (self.documents, self.bytes) = (0, 0);
        self.frame(&plain).map_err(|e| LoadError::Io(self.path.clone(), e))
    }

    fn frame(&mut self, plain: &[u8]) -> io::Result<()> {
        let packed = self.compressor.compress(plain)?;
        let length = |n: usize| u32::try_from(n).map_err(io::Error::other);
        for bytes in [&length(packed.len())?.to_le_bytes()[..], &length(plain.len())?.to_le_bytes(), &packed] {
            self.hasher.update(bytes);
            self.out.write_all(bytes)?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Blob, LoadError> {
        self.close_block()?;
        let path = self.path;
        let flushed = self.out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|f| f.sync_all());
        flushed.map_err(|e| LoadError::Io(path.clone(), e))?;
        Ok(Blob { hash: *self.hasher.finalize().as_bytes(), bytes: self.hasher.count(), path })
    }
}
