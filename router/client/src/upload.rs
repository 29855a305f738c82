//! How do blobs get to the voters?
//!
//! To every voter that answers, at least to a majority; the members fetch from any of them. A voter says how much it
//! holds, and the rest is sent: an upload that broke off goes on where it ended.

use crate::catalogue::Progress;
use crate::transport::{self, ClientError};
use gavel_proto::limits::CHUNK_BYTES_MAX;
use gavel_proto::wire::blob_service_client::BlobServiceClient;
use gavel_proto::wire::{BlobChunk, BlobPutResponse, BlobStatRequest};
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Tries at one voter; each goes on where the last one ended.
const TRIES_MAX: usize = 5;
/// Chunks read ahead.
const CHUNKS_AHEAD: usize = 4;

/// A file that is known by its BLAKE3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
    /// Its length.
    pub bytes: u64,
    /// Where it lies.
    pub path: PathBuf,
}

impl Blob {
    /// Hashes a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, ClientError> {
        let failed = |e| ClientError::File(path.to_path_buf(), e);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path).map_err(failed)?).map_err(failed)?;
        Ok(Self { hash: *hasher.finalize().as_bytes(), bytes: hasher.count(), path: path.to_path_buf() })
    }
}

/// Puts every blob on every voter that answers.
///
/// # Errors
/// When fewer than a majority hold all of them, or a file cannot be read.
pub async fn upload(blobs: &[Blob], voters: &[String], progress: &mut dyn Progress) -> Result<(), ClientError> {
    let total: u64 = blobs.iter().map(|b| b.bytes).sum::<u64>() * voters.len() as u64;
    let mut done = 0;
    let mut whole = 0;
    let mut last = String::new();
    for address in voters {
        match upload_all(blobs, address, done, total, progress).await {
            Ok(()) => whole += 1,
            Err(file @ ClientError::File(..)) => return Err(file),
            Err(error) => last = format!("{address}: {error}"),
        }
        done += total / voters.len() as u64;
    }
    if whole * 2 <= voters.len() {
        return Err(ClientError::Unreachable(last));
    }
    if !last.is_empty() {
        progress.note(&format!("a voter has not got the blobs: {last}"));
    }
    Ok(())
}

async fn upload_all(
    blobs: &[Blob],
    address: &str,
    mut done: u64,
    total: u64,
    progress: &mut dyn Progress,
) -> Result<(), ClientError> {
    let mut client = BlobServiceClient::new(transport::channel(address)?);
    for blob in blobs {
        let mut tries = 0;
        loop {
            tries += 1;
            match put(&mut client, blob).await {
                Ok(()) => break,
                Err(error @ ClientError::File(..)) => return Err(error),
                Err(error) if tries == TRIES_MAX => return Err(error),
                Err(_) => {}
            }
        }
        done += blob.bytes;
        progress.step("upload", done, total);
    }
    Ok(())
}

/// Brings one voter to hold the blob whole.
async fn put(client: &mut BlobServiceClient<Channel>, blob: &Blob) -> Result<(), ClientError> {
    let held = client.stat(BlobStatRequest { hash: blob.hash.to_vec() }).await?.into_inner();
    if held.whole {
        return Ok(());
    }
    let from = held.bytes_held.min(blob.bytes);
    let mut reply = send(client, blob, from).await?;
    if !reply.whole && reply.bytes_held < from {
        // What it took to be there was another blob's, or damaged: it says from where it wants it.
        reply = send(client, blob, reply.bytes_held).await?;
    }
    if reply.whole { Ok(()) } else { Err(tonic::Status::aborted(format!("{} bytes arrived", reply.bytes_held)).into()) }
}

/// Sends what comes behind an offset.
async fn send(
    client: &mut BlobServiceClient<Channel>,
    blob: &Blob,
    mut offset: u64,
) -> Result<BlobPutResponse, ClientError> {
    let failed = |e| ClientError::File(blob.path.clone(), e);
    let mut file = File::open(&blob.path).await.map_err(failed)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let put = client.put(ReceiverStream::new(receiver));
    let read = async {
        loop {
            let length = (blob.bytes - offset).min(CHUNK_BYTES_MAX as u64);
            let mut data = vec![0; usize::try_from(length).unwrap_or(CHUNK_BYTES_MAX)];
            file.read_exact(&mut data).await.map_err(failed)?;
            let crc32 = crc32fast::hash(&data);
            let chunk = BlobChunk { hash: blob.hash.to_vec(), total_bytes: blob.bytes, offset, data, crc32 };
            offset += length;
            // A voter that hung up says why in its answer.
            if sender.send(chunk).await.is_err() || offset >= blob.bytes {
                drop(sender);
                return Ok::<(), ClientError>(());
            }
        }
    };
    let (reply, read) = tokio::join!(put, read);
    read?;
    Ok(reply?.into_inner())
}
