//! How are blobs kept in an object store, and how do they come back from it?
//!
//! An object per blob, named by its BLAKE3 below the prefix and the cluster's name, so that clusters may share a
//! bucket. Nothing of a store is believed: what is put is hashed as it is sent and again as the store gives it back,
//! and what is fetched is hashed before it has its name on the disk. An object with other bytes is remembered as
//! damaged for some minutes, so that not every reader fetches it again.
//!
//! Every request carries at most `PART_BYTES` and has a time limit, the retries inside it included. What an upload
//! that broke off leaves behind is the store's to remove: its rules for incomplete multipart uploads do that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gavel_member::clock;
use gavel_proto::limits::{BLOB_BYTES_MAX, CHUNK_BYTES_MAX, STORE_BYTES_MAX, STORE_OBJECTS_MAX};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{BackoffConfig, ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::io::AsyncReadExt;
use tokio_stream::StreamExt;

use super::folder::GRACE_MS;
use super::{Addressing, BlobError, Keys, StoreLocation, Sweeper, Upload, off_thread};
use crate::state::types::Hash32;

/// Bytes of one request. Stores want parts of 5 MiB at least, of one size, and 10,000 of them at most.
pub const PART_BYTES: usize = 8 * 1024 * 1024;
const _: () =
    assert!(BLOB_BYTES_MAX / PART_BYTES as u64 <= 10_000, "the largest blob has no more parts than a store takes");
/// One request with its retries: 8 MiB within it are 2 Mbit/s.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// One try of it.
const TRY_MAX: Duration = Duration::from_secs(12);
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Tries after the first one.
const RETRIES_MAX: usize = 2;
/// An object whose bytes were others counts as not there for so long, unless it is put anew: longer than the ten minutes
/// from one sweep to the next, which would let the good copy of a disk go else.
const DAMAGED_MS: u64 = 15 * 60 * 1_000;
/// Damaged objects that are remembered.
const DAMAGED_MAX: usize = 1_024;

/// What a store says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its length.
    pub bytes: u64,
    /// When it was put, in ms of the store's clock.
    pub put_ms: u64,
}

impl Object {
    /// Whether it would soon be swept if nobody named it: whoever is about to name it puts it anew.
    #[must_use]
    pub const fn is_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.put_ms) > GRACE_MS / 2
    }
}

/// An object store that all voters share.
#[derive(Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    folder: Name,
    /// With the moment from which each may be fetched again.
    damaged: Mutex<BTreeMap<Hash32, u64>>,
    /// Of all objects when they were last listed, and of what was put since.
    bytes: AtomicU64,
}

impl Store {
    /// Prepares to reach the store; nothing is sent.
    ///
    /// # Errors
    /// When the environment contradicts itself, or a shared folder is not there.
    pub fn open(location: &StoreLocation, cluster_id: &str) -> Result<Self, BlobError> {
        let (objects, prefix): (Arc<dyn ObjectStore>, &str) = match location {
            StoreLocation::Shared { folder } => {
                let found = LocalFileSystem::new_with_prefix(folder);
                (Arc::new(found.map_err(|e| refused(&e))?.with_fsync(true)), "")
            }
            StoreLocation::S3 { bucket, prefix, endpoint, region, addressing, keys } => {
                // TLS has no provider of its own here; when somebody has set one before, it is this one.
                drop(rustls::crypto::ring::default_provider().install_default());
                let plain = endpoint.as_deref().is_some_and(|e| e.starts_with("http://"));
                let mut builder = match keys {
                    Keys::Environment => AmazonS3Builder::from_env(),
                    Keys::Given { id, secret } => {
                        AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret)
                    }
                };
                builder = builder
                    .with_bucket_name(bucket)
                    // One by one, as stores that do not know Amazon's bulk request want it.
                    .with_disable_bulk_delete(true)
                    .with_virtual_hosted_style_request(*addressing == Addressing::Host)
                    .with_client_options(client_options().with_allow_http(plain))
                    .with_retry(retries());
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
                }
                if let Some(region) = region {
                    builder = builder.with_region(region);
                }
                (Arc::new(builder.build().map_err(|e| refused(&e))?), prefix)
            }
        };
        let folder = Name::from_iter(prefix.split('/').filter(|part| !part.is_empty()).chain([cluster_id]));
        Ok(Self { objects, folder, damaged: Mutex::default(), bytes: AtomicU64::new(0) })
    }

    fn name(&self, hash: &Hash32) -> Name {
        Name::from_iter(self.folder.parts().chain([blake3::Hash::from_bytes(*hash).to_hex().as_str().into()]))
    }

    /// Whether the store answers at all, and to these keys.
    ///
    /// # Errors
    /// What it says, or that it says nothing.
    pub async fn ask(&self) -> Result<(), BlobError> {
        let mut listed = self.objects.list(Some(&self.folder));
        timed("list", async { listed.next().await.transpose() }).await.map(drop)
    }

    /// What the store says of a blob; nothing is verified by that. One whose object had other bytes is not there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn look(&self, hash: &Hash32) -> Result<Option<Object>, BlobError> {
        match timed("head", self.objects.head(&self.name(hash))).await {
            Ok(_) if self.is_damaged(hash, clock::wall_ms()) => Ok(None),
            Ok(meta) => Ok(Some(Object { bytes: meta.size, put_ms: ms(&meta) })),
            Err(BlobError::Unknown) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a file there, and reads it back: the object has the hash when this returns.
    ///
    /// # Errors
    /// When the file has other bytes, the store has no room, does not do it, or gives other bytes back: nothing keeps the
    /// name then, as far as the store deletes it.
    pub async fn put(&self, hash: &Hash32, file: &Path, bytes: u64) -> Result<(), BlobError> {
        if bytes > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge(bytes));
        }
        if self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > STORE_BYTES_MAX {
            return Err(BlobError::NoRoom(bytes));
        }
        self.send(hash, file, bytes).await?;
        if let Err(error) = self.read_back(hash, bytes).await {
            // Whoever finds the name takes the object for good, and may let the only good copy go.
            drop(timed("delete", self.objects.delete(&self.name(hash))).await);
            return Err(error);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.damaged().remove(hash);
        Ok(())
    }

    async fn send(&self, hash: &Hash32, file: &Path, bytes: u64) -> Result<(), BlobError> {
        let mut file = tokio::fs::File::open(file).await?;
        if bytes <= PART_BYTES as u64 {
            let (hashed, part) = hashed(blake3::Hasher::new(), read_part(&mut file, bytes).await?).await?;
            if hashed.finalize().as_bytes() != hash {
                return Err(BlobError::OtherBytes);
            }
            return timed("put", self.objects.put(&self.name(hash), part.into())).await.map(drop);
        }
        let mut parts = timed("begin", self.objects.put_multipart(&self.name(hash))).await?;
        let sent = send_parts(parts.as_mut(), &mut file, hash, bytes).await;
        if sent.is_err() {
            // A store that does not hear this removes the parts by its own rules.
            drop(timed("abort", parts.abort()).await);
        }
        sent
    }

    /// Whether what the store gives has the hash.
    async fn read_back(&self, hash: &Hash32, bytes: u64) -> Result<(), BlobError> {
        let (mut hasher, mut held) = (blake3::Hasher::new(), 0);
        while held < bytes {
            let part = self.range(hash, held, bytes).await?;
            held += part.len() as u64;
            hasher = hashed(hasher, part).await?.0;
        }
        if hasher.finalize().as_bytes() == hash { Ok(()) } else { Err(self.found_damaged(hash)) }
    }

    /// Fetches what an upload still lacks. Its hash is the caller's to verify.
    ///
    /// # Errors
    /// When the store does not give it, or the disk says no.
    pub async fn fill(&self, mut upload: Upload) -> Result<Upload, BlobError> {
        while upload.held() < upload.total() {
            let part = self.range(&upload.hash(), upload.held(), upload.total()).await?;
            upload = off_thread(move || {
                for chunk in part.chunks(CHUNK_BYTES_MAX) {
                    upload.take(upload.held(), chunk, crc32fast::hash(chunk))?;
                }
                Ok(upload)
            })
            .await?;
        }
        Ok(upload)
    }

    /// The next part of an object of `total` bytes.
    async fn range(&self, hash: &Hash32, from: u64, total: u64) -> Result<Vec<u8>, BlobError> {
        let until = total.min(from + PART_BYTES as u64);
        let part = timed("get", self.objects.get_range(&self.name(hash), from..until)).await?;
        if part.len() as u64 != until - from {
            return Err(BlobError::Store(format!("{} bytes where {} were asked for", part.len(), until - from)));
        }
        Ok(part.into())
    }

    /// Whether its object had other bytes some minutes ago.
    pub fn is_damaged(&self, hash: &Hash32, now_ms: u64) -> bool {
        self.damaged().get(hash).is_some_and(|until| now_ms < *until)
    }

    /// Remembers that the object of this blob has other bytes.
    pub fn found_damaged(&self, hash: &Hash32) -> BlobError {
        tracing::error!(blob = %blake3::Hash::from_bytes(*hash).to_hex(), "the object store has other bytes under this name");
        metrics::counter!("gavel_control_store_damaged_total").increment(1);
        let now_ms = clock::wall_ms();
        let mut damaged = self.damaged();
        damaged.retain(|_, until| now_ms < *until);
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(*hash, now_ms + DAMAGED_MS);
        }
        BlobError::OtherBytes
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeMap<Hash32, u64>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what the store holds. As the leader, removes objects that are not `named` and have grown old, and says how
    /// many; objects with other names are not ours.
    ///
    /// # Errors
    /// When the store does not answer; what was removed stays removed.
    pub async fn sweep(&self, named: &BTreeSet<Hash32>, now_ms: u64, who: Sweeper) -> Result<usize, BlobError> {
        let mut listed = self.objects.list(Some(&self.folder));
        let (mut objects, mut bytes, mut old) = (0, 0_u64, Vec::new());
        while let Some(meta) = timed("list", async { listed.next().await.transpose() }).await? {
            objects += 1;
            if objects > STORE_OBJECTS_MAX {
                tracing::error!(objects, "the object store has more objects of this cluster than are looked at");
                break;
            }
            bytes = bytes.saturating_add(meta.size);
            let hash = meta.location.filename().and_then(|name| blake3::Hash::from_hex(name).ok());
            let unnamed = hash.is_some_and(|hash| !named.contains(hash.as_bytes()));
            if who == Sweeper::Leader && unnamed && now_ms.saturating_sub(ms(&meta)) > GRACE_MS {
                old.push(meta);
            }
        }
        self.count(bytes);
        let removed = old.len();
        for meta in old {
            timed("delete", self.objects.delete(&meta.location)).await?;
            bytes = bytes.saturating_sub(meta.size);
            self.count(bytes);
            metrics::counter!("gavel_control_blobs_removed_total").increment(1);
        }
        Ok(removed)
    }

    fn count(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        metrics::gauge!("gavel_control_store_bytes").set(bytes as f64);
    }
}

/// Sends a file part by part, and completes the object only when all of it has the hash.
async fn send_parts(
    parts: &mut dyn MultipartUpload,
    file: &mut tokio::fs::File,
    hash: &Hash32,
    bytes: u64,
) -> Result<(), BlobError> {
    let (mut hasher, mut sent) = (blake3::Hasher::new(), 0);
    while sent < bytes {
        let (next, part) = hashed(hasher, read_part(file, bytes - sent).await?).await?;
        hasher = next;
        sent += part.len() as u64;
        timed("part", parts.put_part(part.into())).await?;
    }
    if hasher.finalize().as_bytes() != hash {
        return Err(BlobError::OtherBytes);
    }
    timed("complete", parts.complete()).await.map(drop)
}

async fn read_part(file: &mut tokio::fs::File, left: u64) -> Result<Vec<u8>, BlobError> {
    let mut part = vec![0; usize::try_from(left).unwrap_or(PART_BYTES).min(PART_BYTES)];
    file.read_exact(&mut part).await?;
    Ok(part)
}

/// Hashes a part off the async threads: 8 MiB take milliseconds.
async fn hashed(mut hasher: blake3::Hasher, part: Vec<u8>) -> Result<(blake3::Hasher, Vec<u8>), BlobError> {
    off_thread(move || {
        hasher.update(&part);
        Ok((hasher, part))
    })
    .await
}

/// Runs one request within its time and counts it.
async fn timed<T>(op: &'static str, work: impl Future<Output = object_store::Result<T>>) -> Result<T, BlobError> {
    let began = clock::now_us();
    let (outcome, done) = match tokio::time::timeout(REQUEST_MAX, work).await {
        Ok(Ok(done)) => ("done", Ok(done)),
        // For anything else it is the bucket that is not there.
        Ok(Err(object_store::Error::NotFound { .. })) if matches!(op, "head" | "get" | "delete") => {
            ("absent", Err(BlobError::Unknown))
        }
        Ok(Err(error)) => ("failed", Err(refused(&error))),
        Err(_) => ("late", Err(BlobError::Store(format!("no answer to {op} within {} s", REQUEST_MAX.as_secs())))),
    };
    let took_us = clock::now_us().0.saturating_sub(began.0);
    metrics::histogram!("gavel_control_store_us", "op" => op, "outcome" => outcome).record(took_us as f64);
    done
}

/// The whole chain of reasons on one line, cut where a server's answer is long.
fn refused(error: &object_store::Error) -> BlobError {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let shown = next.to_string();
        if !text.contains(&shown) {
            text = format!("{text}: {shown}");
        }
        cause = next.source();
    }
    BlobError::Store(text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(500).collect())
}

fn ms(meta: &object_store::ObjectMeta) -> u64 {
    u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0)
}

fn client_options() -> ClientOptions {
    ClientOptions::new().with_timeout(TRY_MAX).with_connect_timeout(CONNECT_MAX).with_http1_only()
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: REQUEST_MAX }
}
