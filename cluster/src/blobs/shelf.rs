//! Is a blob there, and where does a reader get it?
//!
//! Without a store, what is on the disk is there. With one, a blob is there when the store holds it verified; the disk
//! then has copies, made when somebody asks, that go some hours after the last reader. So voters need not hold all of
//! it, and any of them answers. An upload is verified on the disk, put into the store, read back, and only then has its
//! name: while the store is away uploads are refused, and readers get what the disks have.
//!
//! A voter that is given a store later puts what the state names there and it lacks, with each sweep.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gavel_member::clock;
use gavel_proto::limits::BLOB_BYTES_MAX;

use super::{Arrived, BlobError, BlobFolder, Held, Store, Upload, off_thread};
use crate::state::types::Hash32;

/// Between two looks whether another reader has fetched a blob.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A blob that has not come from the store by then does not come.
const FETCH_MAX: Duration = Duration::from_secs(3_600);

/// What this voter and its store hold.
#[derive(Clone, Debug)]
pub struct Shelf {
    folder: BlobFolder,
    store: Option<Arc<Store>>,
}

/// What an upload meets.
#[derive(Debug)]
pub enum Begun {
    /// It is there.
    Whole(u64),
    /// Its chunks are to be sent.
    Upload(Upload),
}

/// Who sweeps: the store is one for all voters, so one of them removes what nobody names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweeper {
    /// The leader, whose state is the newest.
    Leader,
    /// Another voter.
    Follower,
}

impl Shelf {
    /// A disk, and a store behind it.
    #[must_use]
    pub fn new(folder: BlobFolder, store: Option<Store>) -> Self {
        Self { folder, store: store.map(Arc::new) }
    }

    /// Whether the store answers: a wrong bucket or key shows at the start, and not with the first upload.
    ///
    /// # Errors
    /// What it says, or that it says nothing.
    pub async fn ask_store(&self) -> Result<(), BlobError> {
        match &self.store {
            Some(store) => store.ask().await,
            None => Ok(()),
        }
    }

    /// How much of a blob need not be sent. Whoever asks is about to name it.
    ///
    /// With a store, all bytes of a blob that one of both places lacks, or has not verified, count as a part that is
    /// complete: an upload that goes on behind them makes both hold it.
    ///
    /// # Errors
    /// When the disk or the store does not say.
    pub async fn held(&self, hash: Hash32) -> Result<Held, BlobError> {
        let folder = self.folder.clone();
        let local = off_thread(move || Ok(folder.held(&hash)?)).await?;
        let Some(store) = &self.store else { return Ok(local) };
        let there = store.look(&hash).await?;
        Ok(match (local, there) {
            (Held::Whole(bytes), Some(object)) if object.bytes == bytes && !object.is_old(clock::wall_ms()) => local,
            (Held::Whole(bytes), _) => Held::Part(bytes),
            (Held::Part(_), Some(object)) => Held::Part(object.bytes),
            (Held::Part(_), None) => local,
        })
    }

    /// Begins an upload, unless the blob is on one of both places; it is then brought to the other one.
    ///
    /// # Errors
    /// When it is too large, there is no room, another upload of it runs, or the store is away.
    pub async fn begin(&self, hash: Hash32, total: u64) -> Result<Begun, BlobError> {
        if let Some(store) = &self.store {
            // Nothing is taken that could not be kept.
            let there = store.look(&hash).await?.filter(|object| object.bytes == total);
            let mut local = self.length(hash).await?;
            if local.is_none() && there.is_some() {
                match self.bring(store, hash, total).await {
                    Ok(()) => local = Some(total),
                    Err(BlobError::OtherBytes) => {}
                    Err(error) => return Err(error),
                }
            }
            if let Some(bytes) = local {
                if there.is_none_or(|object| object.is_old(clock::wall_ms())) {
                    self.put(store, hash, bytes).await?;
                }
                return Ok(Begun::Whole(bytes));
            }
        }
        let folder = self.folder.clone();
        off_thread(move || match folder.held(&hash)? {
            Held::Whole(bytes) => Ok(Begun::Whole(bytes)),
            Held::Part(_) => folder.upload(hash, total).map(Begun::Upload),
        })
        .await
    }

    /// Ends an upload: a whole one is put into the store before it has its name.
    ///
    /// # Errors
    /// When the bytes are others, or the store did not take them: they are kept for the next attempt.
    pub async fn finish(&self, upload: Upload) -> Result<Held, BlobError> {
        let hash = upload.hash();
        let whole = match off_thread(move || upload.verify()).await? {
            Arrived::Part(held) => return Ok(Held::Part(held)),
            Arrived::Whole(whole) => whole,
        };
        if let Some(store) = &self.store {
            store.put(&hash, &whole.path(), whole.bytes()).await?;
        }
        off_thread(move || whole.name()).await
    }

    /// The length of a blob that is on the disk; counts as asked for.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub async fn local(&self, hash: Hash32) -> Result<Option<u64>, BlobError> {
        let folder = self.folder.clone();
        match off_thread(move || Ok(folder.held(&hash)?)).await? {
            Held::Whole(bytes) => Ok(Some(bytes)),
            Held::Part(_) => Ok(None),
        }
    }

    /// The length of a blob that only the store has.
    ///
    /// # Errors
    /// When neither has it, the store is away, or its object is damaged.
    pub async fn beyond(&self, hash: Hash32) -> Result<u64, BlobError> {
        let Some(store) = &self.store else { return Err(BlobError::Unknown) };
        if store.is_damaged(&hash, clock::wall_ms()) {
            return Err(BlobError::OtherBytes);
        }
        let object = store.look(&hash).await?.ok_or(BlobError::Unknown)?;
        if object.bytes == 0 || object.bytes > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge(object.bytes));
        }
        Ok(object.bytes)
    }

    /// Brings a blob of this length from the store to the disk; waits when somebody else does.
    ///
    /// # Errors
    /// When the store does not give it, its bytes are others, or it takes too long.
    pub async fn fetch(&self, hash: Hash32, total: u64) -> Result<(), BlobError> {
        let Some(store) = &self.store else { return Err(BlobError::Unknown) };
        let fetched = async {
            loop {
                match self.bring(store, hash, total).await {
                    Err(BlobError::Busy) => tokio::time::sleep(LOOK_AGAIN).await,
                    done => return done,
                }
                if self.length(hash).await?.is_some() {
                    return Ok(());
                }
            }
        };
        let fetched = tokio::time::timeout(FETCH_MAX, fetched).await;
        fetched.map_err(|_| BlobError::Store("the blob did not come in time".to_owned()))?
    }

    /// One attempt of it, behind what is on the disk of it already.
    async fn bring(&self, store: &Store, hash: Hash32, total: u64) -> Result<(), BlobError> {
        loop {
            if store.is_damaged(&hash, clock::wall_ms()) {
                return Err(BlobError::OtherBytes);
            }
            let folder = self.folder.clone();
            let upload = off_thread(move || folder.upload(hash, total)).await?;
            let whole_from_store = upload.held() == 0;
            let filled = store.fill(upload).await?;
            match off_thread(move || filled.finish()).await {
                Ok(_) => return Ok(()),
                // What was on the disk may have been the wrong part; it is gone now.
                Err(BlobError::OtherBytes) if !whole_from_store => {}
                Err(BlobError::OtherBytes) => return Err(store.found_damaged(&hash)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Where a blob of this length lies on the disk, brought there from the store when only that has it; none when this
    /// voter cannot have it by itself.
    ///
    /// # Errors
    /// When the disk fails, or the store is away or its object is damaged.
    pub async fn at_hand(&self, hash: Hash32, total: u64) -> Result<Option<PathBuf>, BlobError> {
        if self.local(hash).await?.is_none() {
            match self.fetch(hash, total).await {
                Ok(()) => {}
                Err(BlobError::Unknown) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(self.path(&hash)))
    }

    /// Where one copy of what this voter does not hold may lie until it is read: no blob has this name.
    #[must_use]
    pub fn aside(&self, name: &str) -> PathBuf {
        self.folder.path(&Hash32::default()).with_file_name(name)
    }

    /// Up to one chunk of a blob on the disk.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn read(&self, hash: Hash32, offset: u64) -> Result<(Vec<u8>, u64), BlobError> {
        let folder = self.folder.clone();
        off_thread(move || folder.read(&hash, offset)).await
    }

    /// Removes what nobody names and has grown old, from the disk and, as the leader, from the store. Copies of what is
    /// in the store go, too, when nobody has asked for them for long; what the store lacks is put there.
    ///
    /// The store first, for one that is full takes nothing before; then each blob by itself, for one that fails says
    /// nothing about the others.
    ///
    /// # Errors
    /// The last that the disk or the store said.
    pub async fn sweep(&self, named: BTreeSet<Hash32>, now_ms: u64, who: Sweeper) -> Result<usize, BlobError> {
        let (folder, names) = (self.folder.clone(), named.clone());
        let (removed, whole) = off_thread(move || Ok((folder.sweep(&names, now_ms)?, folder.whole(&names)?))).await?;
        let Some(store) = &self.store else { return Ok(removed) };
        let mut swept = store.sweep(&named, now_ms, who).await.map(|more| removed + more);
        if let Err(error) = &swept {
            tracing::warn!(%error, "the store is not swept");
        }
        for (hash, bytes) in whole {
            if let Err(error) = self.settle(store, (hash, bytes), now_ms).await {
                let blob = blake3::Hash::from_bytes(hash).to_hex();
                tracing::warn!(%blob, %error, "a blob is not swept");
                swept = Err(error);
            }
        }
        swept
    }

    /// Puts a blob of the disk into the store; once it is there, the copy goes when nobody has asked for it for long.
    async fn settle(&self, store: &Store, (hash, bytes): (Hash32, u64), now_ms: u64) -> Result<(), BlobError> {
        if store.look(&hash).await?.is_none_or(|object| object.bytes != bytes) {
            return self.put(store, hash, bytes).await;
        }
        let folder = self.folder.clone();
        off_thread(move || Ok(folder.let_go_old(&hash, now_ms)?)).await
    }

    /// Puts a blob of the disk into the store. A copy that is damaged loses its name.
    async fn put(&self, store: &Store, hash: Hash32, bytes: u64) -> Result<(), BlobError> {
        let put = store.put(&hash, &self.path(&hash), bytes).await;
        if matches!(put, Err(BlobError::OtherBytes)) && !store.is_damaged(&hash, clock::wall_ms()) {
            tracing::error!(blob = %blake3::Hash::from_bytes(hash).to_hex(), "the copy on this disk has other bytes");
            let folder = self.folder.clone();
            off_thread(move || Ok(folder.let_go(&hash)?)).await?;
        }
        put
    }

    fn path(&self, hash: &Hash32) -> PathBuf {
        self.folder.path(hash)
    }

    async fn length(&self, hash: Hash32) -> Result<Option<u64>, BlobError> {
        let path = self.path(&hash);
        off_thread(move || Ok(super::folder::length_of(&path)?)).await
    }
}
