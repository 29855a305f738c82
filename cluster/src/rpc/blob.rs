//! How do bundles and catalogues come here, and how do members fetch them?
//!
//! In checked chunks of at most 1 MiB. An upload begins at the offset that `Stat` names; one that begins
//! elsewhere is answered with the offset that is wanted. File work is done off the async threads.

use std::sync::Arc;
use std::time::Duration;

use gavel_proto::wire;
use gavel_proto::wire::blob_service_server::BlobService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Voter;
use crate::blobs::{BlobError, BlobFolder, Held, Upload};
use crate::convert::hash32;
use crate::state::types::Hash32;

/// An uploader that goes silent.
const CHUNK_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Chunks that wait for a slow reader.
const CHUNKS_WAITING_MAX: usize = 4;

/// Answers about blobs.
pub struct BlobEndpoint {
    /// The voter.
    pub voter: Arc<Voter>,
    /// What it holds.
    pub blobs: BlobFolder,
}

#[tonic::async_trait]
impl BlobService for BlobEndpoint {
    type GetStream = ReceiverStream<Result<wire::BlobChunk, Status>>;

    async fn stat(&self, request: Request<wire::BlobStatRequest>) -> Result<Response<wire::BlobStatResponse>, Status> {
        let hash = parse_hash(&request.into_inner().hash)?;
        let blobs = self.blobs.clone();
        let held = off_thread(move || Ok(blobs.held(&hash)?)).await?;
        let (whole, bytes_held) = parts(held);
        Ok(Response::new(wire::BlobStatResponse { whole, bytes_held }))
    }

    async fn put(
        &self,
        request: Request<Streaming<wire::BlobChunk>>,
    ) -> Result<Response<wire::BlobPutResponse>, Status> {
        let mut chunks = request.into_inner();
        let mut next = next(&mut chunks).await?.ok_or_else(|| Status::invalid_argument("no chunk"))?;
        let hash = parse_hash(&next.hash)?;
        let (blobs, total) = (self.blobs.clone(), next.total_bytes);
        let begun = off_thread(move || match blobs.held(&hash)? {
            Held::Whole(bytes) => Ok(Err(Held::Whole(bytes))),
            Held::Part(_) => blobs.upload(hash, total).map(Ok),
        });
        let mut upload = match begun.await? {
            Ok(upload) => upload,
            Err(held) => return Ok(put_reply(held)),
        };
        loop {
            // A first message without data only asks where to begin.
            if !next.data.is_empty() {
                if next.offset != upload.held() {
                    return Ok(put_reply(Held::Part(upload.held())));
                }
                upload = take(upload, next).await?;
            }
            next = match self::next(&mut chunks).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(status) => {
                    // What came is kept for the next attempt.
                    off_thread(move || upload.finish().map(drop)).await?;
                    return Err(status);
                }
            };
        }
        Ok(put_reply(off_thread(move || upload.finish()).await?))
    }

    async fn get(&self, request: Request<wire::BlobGetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let request = request.into_inner();
        let hash = parse_hash(&request.hash)?;
        let first = read(&self.blobs, hash, request.offset).await?;
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        let (blobs, shutdown) = (self.blobs.clone(), self.voter.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = send_chunks(&blobs, hash, first, sender) => {}
                () = shutdown.wait() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

/// Sends a blob from its first chunk on, until the reader has gone.
async fn send_chunks(
    blobs: &BlobFolder,
    hash: Hash32,
    first: wire::BlobChunk,
    sender: mpsc::Sender<Result<wire::BlobChunk, Status>>,
) {
    let mut chunk = first;
    while !chunk.data.is_empty() {
        let offset = chunk.offset + chunk.data.len() as u64;
        let total = chunk.total_bytes;
        if sender.send(Ok(chunk)).await.is_err() || offset >= total {
            return;
        }
        chunk = match read(blobs, hash, offset).await {
            Ok(chunk) => chunk,
            Err(status) => {
                // The reader has gone, or learns why the stream ends.
                drop(sender.send(Err(status)).await);
                return;
            }
        };
    }
}

async fn read(blobs: &BlobFolder, hash: Hash32, offset: u64) -> Result<wire::BlobChunk, Status> {
    let blobs = blobs.clone();
    off_thread(move || {
        let (data, total_bytes) = blobs.read(&hash, offset)?;
        Ok(wire::BlobChunk { hash: hash.to_vec(), total_bytes, offset, crc32: crc32fast::hash(&data), data })
    })
    .await
}

async fn take(mut upload: Upload, chunk: wire::BlobChunk) -> Result<Upload, Status> {
    off_thread(move || {
        upload.take(chunk.offset, &chunk.data, chunk.crc32)?;
        Ok(upload)
    })
    .await
}

async fn next(chunks: &mut Streaming<wire::BlobChunk>) -> Result<Option<wire::BlobChunk>, Status> {
    let next = tokio::time::timeout(CHUNK_SILENCE_MAX, chunks.message()).await;
    next.map_err(|_| Status::deadline_exceeded("silent inside a blob"))?
}

fn parse_hash(bytes: &[u8]) -> Result<Hash32, Status> {
    hash32(bytes, "hash must have 32 bytes").map_err(|e| Status::invalid_argument(e.to_string()))
}

const fn parts(held: Held) -> (bool, u64) {
    match held {
        Held::Whole(bytes) => (true, bytes),
        Held::Part(bytes) => (false, bytes),
    }
}

fn put_reply(held: Held) -> Response<wire::BlobPutResponse> {
    let (whole, bytes_held) = parts(held);
    Response::new(wire::BlobPutResponse { bytes_held, whole })
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Status::internal("the work was cut off"))?.map_err(|error| match error {
        BlobError::TooLarge(_) | BlobError::NoRoom(_) => Status::resource_exhausted(error.to_string()),
        BlobError::OutOfPlace(_) => Status::out_of_range(error.to_string()),
        BlobError::Damaged | BlobError::OtherBytes => Status::data_loss(error.to_string()),
        BlobError::Busy => Status::aborted(error.to_string()),
        BlobError::Unknown => Status::not_found(error.to_string()),
        BlobError::Io(_) => Status::unavailable(error.to_string()),
    })
}
