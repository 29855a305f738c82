//! How do bundles and catalogues come here, and how do members fetch them?
//!
//! In checked chunks of at most 1 MiB. An upload begins at the offset that `Stat` names; one that begins
//! elsewhere is answered with the offset that is wanted. File work is done off the async threads.
//!
//! What only the object store has is brought to the disk and verified before a reader gets its first byte; until then
//! the reader hears empty chunks, so that it knows that somebody works for it.

use std::sync::Arc;
use std::time::Duration;

use gavel_proto::wire;
use gavel_proto::wire::blob_service_server::BlobService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Voter;
use crate::blobs::{Begun, BlobError, Held, Shelf, Upload, off_thread};
use crate::convert::hash32;
use crate::state::types::Hash32;

/// An uploader that goes silent.
const CHUNK_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Chunks that wait for a slow reader.
const CHUNKS_WAITING_MAX: usize = 4;
/// Between two signs of life to a reader whose blob is still on its way from the object store; well below the silence
/// that a member bears.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// Answers about blobs.
pub struct BlobEndpoint {
    /// The voter.
    pub voter: Arc<Voter>,
    /// What it holds.
    pub blobs: Shelf,
}

#[tonic::async_trait]
impl BlobService for BlobEndpoint {
    type GetStream = ReceiverStream<Result<wire::BlobChunk, Status>>;

    async fn stat(&self, request: Request<wire::BlobStatRequest>) -> Result<Response<wire::BlobStatResponse>, Status> {
        let hash = parse_hash(&request.into_inner().hash)?;
        let held = self.blobs.held(hash).await.map_err(status)?;
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
        // Goes on when the client has gone: the next attempt finds it done.
        let mut upload = match to_its_end(async move { blobs.begin(hash, total).await }).await? {
            Begun::Upload(upload) => upload,
            Begun::Whole(bytes) => return Ok(put_reply(Held::Whole(bytes))),
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
                    self.finish(upload).await?;
                    return Err(status);
                }
            };
        }
        Ok(put_reply(self.finish(upload).await?))
    }

    async fn get(&self, request: Request<wire::BlobGetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let request = request.into_inner();
        let hash = parse_hash(&request.hash)?;
        let blobs = self.blobs.clone();
        let on_disk = blobs.local(hash).await.map_err(status)?;
        let total = match on_disk {
            Some(total) => total,
            None => blobs.beyond(hash).await.map_err(status)?,
        };
        let (sender, chunks) = mpsc::channel(CHUNKS_WAITING_MAX);
        let shutdown = self.voter.shutdown.clone();
        let reader = Reader { hash, offset: request.offset, total, sender };
        tokio::spawn(async move {
            tokio::select! {
                () = reader.serve(&blobs, on_disk) => {}
                () = shutdown.wait() => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

impl BlobEndpoint {
    async fn finish(&self, upload: Upload) -> Result<Held, Status> {
        let blobs = self.blobs.clone();
        to_its_end(async move { blobs.finish(upload).await }).await
    }
}

/// One who fetches a blob.
struct Reader {
    hash: Hash32,
    offset: u64,
    total: u64,
    sender: mpsc::Sender<Result<wire::BlobChunk, Status>>,
}

impl Reader {
    /// Sends the blob from the offset on, until the reader has gone.
    async fn serve(mut self, blobs: &Shelf, on_disk: Option<u64>) {
        if on_disk.is_none() && !self.brought(blobs).await {
            return;
        }
        loop {
            let chunk = blobs.read(self.hash, self.offset).await.map_err(status).map(|(data, _)| self.chunk(data));
            let (length, failed) = chunk.as_ref().map_or((0, true), |chunk| (chunk.data.len() as u64, false));
            if length == 0 && !failed {
                return;
            }
            // The reader has gone, or learns why the stream ends.
            self.offset += length;
            if self.sender.send(chunk).await.is_err() || failed || self.offset >= self.total {
                return;
            }
        }
    }

    /// Brings the blob from the store; whether there is something to send now.
    async fn brought(&self, blobs: &Shelf) -> bool {
        let fetch = blobs.fetch(self.hash, self.total);
        tokio::pin!(fetch);
        loop {
            match tokio::time::timeout(SIGN_OF_LIFE, &mut fetch).await {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => {
                    drop(self.sender.send(Err(status(error))).await);
                    return false;
                }
                Err(_) => {
                    if self.sender.send(Ok(self.chunk(Vec::new()))).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn chunk(&self, data: Vec<u8>) -> wire::BlobChunk {
        let crc32 = crc32fast::hash(&data);
        wire::BlobChunk { hash: self.hash.to_vec(), total_bytes: self.total, offset: self.offset, data, crc32 }
    }
}

/// Does the work although the caller may go away meanwhile.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, BlobError>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.map_err(|_| Status::internal("the work was cut off"))?.map_err(status)
}

async fn take(mut upload: Upload, chunk: wire::BlobChunk) -> Result<Upload, Status> {
    let taken = off_thread(move || {
        upload.take(chunk.offset, &chunk.data, chunk.crc32)?;
        Ok(upload)
    });
    taken.await.map_err(status)
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

fn status(error: BlobError) -> Status {
    match error {
        BlobError::TooLarge(_) | BlobError::NoRoom(_) => Status::resource_exhausted(error.to_string()),
        BlobError::OutOfPlace(_) => Status::out_of_range(error.to_string()),
        BlobError::Damaged | BlobError::OtherBytes => Status::data_loss(error.to_string()),
        BlobError::Busy => Status::aborted(error.to_string()),
        BlobError::Unknown => Status::not_found(error.to_string()),
        BlobError::Io(_) | BlobError::Store(_) => Status::unavailable(error.to_string()),
    }
}
