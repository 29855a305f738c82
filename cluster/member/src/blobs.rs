//! How do the bytes of a bundle or a catalogue shard get here, whole and untampered?
//!
//! By their BLAKE3 from any voter that holds them, or brings them from the cluster's object store. What came before a break is kept and the rest is asked for;
//! nothing is given to the caller before the hash over all of it has matched, and the file appears under its
//! name only then.

use crate::member::Voters;
use crate::{clock, disk, transport};
use gavel_proto::limits::BLOB_BYTES_MAX;
use gavel_proto::wire::blob_service_client::BlobServiceClient;
use gavel_proto::wire::{BlobChunk, BlobGetRequest};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tracing::Instrument;

/// A voter that sends nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Rounds over all voters before the fetch is given up; the caller tries again with the next View.
const ROUNDS_MAX: usize = 3;
/// Signs of life, each a chunk without bytes, while a voter brings a blob from its object store: an hour of them.
const SIGNS_OF_LIFE_MAX: usize = 1_800;
/// Between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(300);

/// Why a blob is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It says that it is larger than any blob may be.
    #[error("{bytes} bytes are more than a blob may have")]
    TooLarge {
        /// The stated length.
        bytes: u64,
    },
    /// No voter gave it.
    #[error("no voter has it: {0}")]
    Unavailable(String),
    /// The disk said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
}

/// Fetches the blob with this BLAKE3 and this length to `dest`, unless a whole one is there already.
///
/// # Errors
/// When no voter gives a blob of this hash, or the disk fails.
pub async fn fetch(hash: &[u8; 32], bytes: u64, dest: &Path, voters: &Voters) -> Result<(), FetchError> {
    let began = clock::now_us();
    let span = tracing::info_span!("fetch", blob = %blake3::Hash::from_bytes(*hash).to_hex(), bytes);
    let fetched = fetch_unless_held(hash, bytes, dest, voters).instrument(span).await;
    let outcome = match &fetched {
        Ok(Fetched::Now) => "fetched",
        Ok(Fetched::Before) => "held",
        Err(_) => "failed",
    };
    let took_us = clock::now_us().0.saturating_sub(began.0);
    metrics::histogram!("gavel_fetch_us", "outcome" => outcome).record(took_us as f64);
    fetched.map(drop)
}

/// When a blob came.
enum Fetched {
    /// It was there.
    Before,
    /// It has been fetched.
    Now,
}

async fn fetch_unless_held(hash: &[u8; 32], bytes: u64, dest: &Path, voters: &Voters) -> Result<Fetched, FetchError> {
    if bytes > BLOB_BYTES_MAX {
        return Err(FetchError::TooLarge { bytes });
    }
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| FetchError::Io { path, source }
    };
    if fs::metadata(dest).await.is_ok() && hash_of(dest).await.map_err(failed(dest))? == *hash {
        return Ok(Fetched::Before);
    }
    let part = dest.with_extension("part");
    let mut reason = String::new();
    for round in 0..ROUNDS_MAX {
        if round > 0 {
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        for address in voters.addresses() {
            match fetch_from(&address, hash, bytes, &part).await {
                Ok(()) => {}
                Err(Broken::Peer(why)) => {
                    reason = format!("{address}: {why}");
                    continue;
                }
                Err(Broken::Disk(source)) => return Err(FetchError::Io { path: part, source }),
            }
            if hash_of(&part).await.map_err(failed(&part))? == *hash {
                fs::rename(&part, dest).await.map_err(failed(dest))?;
                let folder_of = dest.to_path_buf();
                let synced = tokio::task::spawn_blocking(move || disk::sync_folder_of(&folder_of)).await;
                return synced.map_err(io::Error::other).and_then(|r| r).map(|()| Fetched::Now).map_err(failed(dest));
            }
            tracing::error!(%address, "a blob did not have the hash that it was asked by");
            metrics::counter!("gavel_fetch_other_bytes_total").increment(1);
            reason = format!("{address}: sent other bytes");
            fs::remove_file(&part).await.map_err(failed(&part))?;
        }
    }
    Err(FetchError::Unavailable(reason))
}

/// Why one attempt ended.
enum Broken {
    Peer(String),
    Disk(io::Error),
}

impl From<io::Error> for Broken {
    fn from(e: io::Error) -> Self {
        Self::Disk(e)
    }
}

impl From<tonic::Status> for Broken {
    fn from(status: tonic::Status) -> Self {
        Self::Peer(status.to_string())
    }
}

/// Brings `part` to `bytes` from one voter.
async fn fetch_from(address: &str, hash: &[u8; 32], bytes: u64, part: &Path) -> Result<(), Broken> {
    let mut file = OpenOptions::new().create(true).append(true).open(part).await?;
    let mut held = file.metadata().await?.len();
    if held > bytes {
        file.set_len(0).await?;
        held = 0;
    }
    if held < bytes {
        let channel = transport::bulk_channel(address).map_err(|e| Broken::Peer(e.to_string()))?;
        let mut client = BlobServiceClient::new(channel).max_decoding_message_size(transport::CHUNK_MESSAGE_BYTES_MAX);
        let request = BlobGetRequest { hash: hash.to_vec(), offset: held };
        let reply = tokio::time::timeout(SILENCE_MAX, client.get(request)).await;
        let mut stream = reply.map_err(|_| Broken::Peer("no answer".to_owned()))??.into_inner();
        let mut signs = 0;
        while held < bytes {
            let next = tokio::time::timeout(SILENCE_MAX, stream.message()).await;
            let Some(chunk) = next.map_err(|_| Broken::Peer("silent".to_owned()))?? else {
                return Err(Broken::Peer(format!("ended at {held} of {bytes} bytes")));
            };
            if chunk.data.is_empty() && chunk.offset == held && signs < SIGNS_OF_LIFE_MAX {
                signs += 1;
                continue;
            }
            held += append(&mut file, &chunk, held, bytes).await?;
        }
    }
    file.flush().await?;
    file.sync_all().await?;
    Ok(())
}

/// Writes one chunk when it is the one that comes next.
async fn append(file: &mut File, chunk: &BlobChunk, held: u64, bytes: u64) -> Result<u64, Broken> {
    let length = chunk.data.len() as u64;
    if chunk.offset != held || length == 0 || length > bytes - held {
        return Err(Broken::Peer(format!("a chunk of {length} bytes at {} where {held} was due", chunk.offset)));
    }
    file.write_all(&chunk.data).await?;
    Ok(length)
}

/// BLAKE3 of a file, off the async threads.
async fn hash_of(path: &Path) -> io::Result<[u8; 32]> {
    let path = path.to_path_buf();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path)?)?;
        Ok(*hasher.finalize().as_bytes())
    });
    hashed.await.map_err(io::Error::other)?
}
