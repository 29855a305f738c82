//! Where do clearings go so that they can be cleared again?
//!
//! To files of one line a clearing, written by a thread of their own: a request that is sampled hands its inputs
//! over and goes on. The queue is short; when the disk is behind, a clearing is dropped and counted, and never a
//! request made late. A file that is full is compressed and the oldest go, so the folder has a bound.
//!
//! Which requests are sampled depends on the auction id alone, so that a replayed request is sampled again.

use crate::clearing::{ClearingInputs, Served, served_line};
use gavel_proto::hash::mix64;
use gavel_proto::ids::AuctionId;
use gavel_proto::money::PPM;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Clearings that wait for the thread: at some tens of KiB each, a few MiB.
const QUEUE: usize = 256;
/// Bytes of a file before it is compressed.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files kept, the oldest go first: about a gigabyte when compressed fourfold.
const FILES_MAX: usize = 64;
/// How long a line may stay in memory.
const FLUSH: Duration = Duration::from_millis(500);

/// Takes clearings off the request path.
#[derive(Debug)]
pub struct ClearingLog {
    queue: Option<SyncSender<Box<(ClearingInputs, Served)>>>,
    share_ppm: u32,
}

impl ClearingLog {
    /// A log that takes nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { queue: None, share_ppm: 0 }
    }

    /// Writes below `folder`, of so many auctions in a million.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn start(folder: &Path, share_ppm: u32) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (queue, inbox) = sync_channel(QUEUE);
        let writer = Writer::open(folder)?;
        std::thread::Builder::new().name("clearing-log".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok(Self { queue: Some(queue), share_ppm: share_ppm.min(PPM) })
    }

    /// Whether this auction is sampled.
    #[must_use]
    pub fn samples(&self, auction: AuctionId) -> bool {
        // The ids are random already, or an operator's choice; the mix tells them from what ties are made of.
        let dice = mix64(auction.0 ^ 0x7361_6d70_6c65_7264) % u64::from(PPM);
        self.queue.is_some() && dice < u64::from(self.share_ppm)
    }

    /// Hands a clearing over.
    pub fn take(&self, inputs: ClearingInputs, served: Served) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(Box::new((inputs, served))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => dropped(),
        }
    }
}

fn dropped() {
    metrics::counter!("gavel_router_clearings_dropped_total").increment(1);
}

/// The thread's side.
struct Writer {
    folder: PathBuf,
    out: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    number: u64,
}

impl Writer {
    fn open(folder: &Path) -> std::io::Result<Self> {
        let number = files(folder)?.iter().filter_map(|path| number(path)).max().unwrap_or(0) + 1;
        let path = folder.join(format!("clearings-{number:08}.jsonl"));
        let out = BufWriter::new(File::create(&path)?);
        Ok(Self { folder: folder.to_owned(), out, path, bytes: 0, number })
    }

    /// Until every router's side is gone.
    fn run(mut self, inbox: &Receiver<Box<(ClearingInputs, Served)>>) {
        loop {
            match inbox.recv_timeout(FLUSH) {
                Ok(clearing) => self.write(clearing.0, &clearing.1),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    let _ = self.out.flush();
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    let _ = self.out.flush();
                    return;
                }
            }
        }
    }

    fn write(&mut self, inputs: ClearingInputs, served: &Served) {
        let line = served_line(inputs, served).ok();
        let written = line.map(|line| writeln!(self.out, "{line}").map(|()| line.len() as u64 + 1));
        match written {
            Some(Ok(bytes)) => {
                self.bytes += bytes;
                metrics::counter!("gavel_router_clearings_logged_total").increment(1);
            }
            Some(Err(error)) => {
                tracing::error!(%error, path = %self.path.display(), "a clearing cannot be written");
                dropped();
            }
            None => dropped(),
        }
        if self.bytes >= FILE_BYTES_MAX
            && let Err(error) = self.rotate()
        {
            tracing::error!(%error, folder = %self.folder.display(), "the clearing log cannot be rotated");
        }
    }

    /// Compresses the full file, goes on with the next, and removes the oldest.
    fn rotate(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        let full =
            std::mem::replace(&mut self.path, self.folder.join(format!("clearings-{:08}.jsonl", self.number + 1)));
        self.out = BufWriter::new(File::create(&self.path)?);
        (self.bytes, self.number) = (0, self.number + 1);
        let packed = full.with_extension("jsonl.zst");
        zstd::stream::copy_encode(File::open(&full)?, File::create(&packed)?, 3)?;
        std::fs::remove_file(&full)?;
        let mut kept = files(&self.folder)?;
        kept.sort();
        let over = kept.len().saturating_sub(FILES_MAX);
        kept.iter().take(over).try_for_each(std::fs::remove_file)
    }
}

/// The files of the log.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| number(path).is_some()).collect())
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("clearings-")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_auctions_is_sampled_and_the_same_one_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = ClearingLog::start(folder.path(), 250_000).expect("starts");
        let sampled = (0..40_000).filter(|id| log.samples(AuctionId(*id))).count();
        assert!((9_500..10_500).contains(&sampled), "{sampled}");
        assert!((0..100).all(|id| log.samples(AuctionId(id)) == log.samples(AuctionId(id))));
        assert!(!ClearingLog::off().samples(AuctionId(1)));
    }

    #[test]
    fn a_full_file_is_compressed_and_the_next_start_goes_on_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::open(folder.path()).expect("opens");
        writeln!(writer.out, "line").expect("written");
        writer.rotate().expect("rotates");
        let mut names: Vec<String> = files(folder.path())
            .expect("reads")
            .iter()
            .map(|p| p.file_name().expect("a name").to_string_lossy().into())
            .collect();
        names.sort();
        assert_eq!(names, ["clearings-00000001.jsonl.zst", "clearings-00000002.jsonl"]);
        let packed = File::open(folder.path().join(&names[0])).expect("opens");
        assert_eq!(zstd::decode_all(packed).expect("decodes"), b"line\n");
        assert_eq!(Writer::open(folder.path()).expect("opens").number, 3);
    }
}
