//! How do lines get from a request to files without holding the request up?
//!
//! Through a short queue to a thread of their own, which makes the line and writes it. When the disk is behind, a line is
//! dropped and counted, and never a request made late. A file that is full is compressed and the oldest go, so a folder
//! has a bound. A process that is ended by force leaves its last line unfinished; the next start goes on in another file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes of a file before it is compressed.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files kept, the oldest go first: about a gigabyte when compressed fourfold.
const FILES_MAX: usize = 64;

/// What one log is called.
#[derive(Clone, Copy, Debug)]
pub struct LogNames {
    /// Files are `NAME-N.jsonl`, and `.zst` when they are full.
    pub files: &'static str,
    /// Counts lines that were written.
    pub logged: &'static str,
    /// Counts lines that were not.
    pub dropped: &'static str,
    /// Entries that may wait.
    pub queue: usize,
}

/// Takes entries off the request path; each becomes a line.
#[derive(Debug)]
pub struct LineLog<T> {
    queue: SyncSender<T>,
    names: LogNames,
}

impl<T: Send + 'static> LineLog<T> {
    /// Writes below `folder`; `line` runs on the log's thread, and an entry without a line is counted as dropped.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn start(
        folder: &Path,
        names: LogNames,
        line: impl Fn(T) -> Option<String> + Send + 'static,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (queue, inbox) = sync_channel(names.queue);
        let writer = Writer::open(folder, names)?;
        std::thread::Builder::new().name(format!("log-{}", names.files)).spawn(move || writer.run(&inbox, line))?;
        Ok(Self { queue, names })
    }

    /// Hands an entry over, if there is room.
    pub fn take(&self, entry: T) {
        if self.queue.try_send(entry).is_err() {
            metrics::counter!(self.names.dropped).increment(1);
        }
    }
}

/// The thread's side.
struct Writer {
    names: LogNames,
    folder: PathBuf,
    out: BufWriter<File>,
    path: PathBuf,
    bytes: u64,
    number: u64,
}

impl Writer {
    fn open(folder: &Path, names: LogNames) -> std::io::Result<Self> {
        let number = files(folder, names.files)?.iter().filter_map(|p| number(p, names.files)).max().unwrap_or(0) + 1;
        let path = path(folder, names, number);
        let out = BufWriter::new(File::create(&path)?);
        Ok(Self { names, folder: folder.to_owned(), out, path, bytes: 0, number })
    }

    /// Until every sender is gone. What waits is written together, and nothing stays in memory while nothing comes.
    fn run<T>(mut self, inbox: &Receiver<T>, line: impl Fn(T) -> Option<String>) {
        while let Ok(entry) = inbox.recv() {
            self.write(line(entry));
            while let Ok(more) = inbox.try_recv() {
                self.write(line(more));
            }
            if let Err(error) = self.out.flush() {
                tracing::error!(%error, path = %self.path.display(), "a log cannot be written");
            }
        }
    }

    fn write(&mut self, line: Option<String>) {
        let written = line.map(|line| writeln!(self.out, "{line}").map(|()| line.len() as u64 + 1));
        match written {
            Some(Ok(bytes)) => {
                self.bytes += bytes;
                metrics::counter!(self.names.logged).increment(1);
            }
            Some(Err(error)) => {
                tracing::error!(%error, path = %self.path.display(), "a line of a log cannot be written");
                metrics::counter!(self.names.dropped).increment(1);
            }
            None => metrics::counter!(self.names.dropped).increment(1),
        }
        if self.bytes >= FILE_BYTES_MAX
            && let Err(error) = self.rotate()
        {
            tracing::error!(%error, folder = %self.folder.display(), "a log cannot be rotated");
        }
    }

    /// Compresses the full file, goes on with the next, and removes the oldest.
    fn rotate(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        let full = std::mem::replace(&mut self.path, path(&self.folder, self.names, self.number + 1));
        self.out = BufWriter::new(File::create(&self.path)?);
        (self.bytes, self.number) = (0, self.number + 1);
        let packed = full.with_extension("jsonl.zst");
        zstd::stream::copy_encode(File::open(&full)?, File::create(&packed)?, 3)?;
        std::fs::remove_file(&full)?;
        let mut kept = files(&self.folder, self.names.files)?;
        kept.sort();
        let over = kept.len().saturating_sub(FILES_MAX);
        kept.iter().take(over).try_for_each(std::fs::remove_file)
    }
}

fn path(folder: &Path, names: LogNames, number: u64) -> PathBuf {
    folder.join(format!("{}-{number:08}.jsonl", names.files))
}

/// The files of a log.
fn files(folder: &Path, name: &str) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| number(path, name).is_some()).collect())
}

fn number(path: &Path, name: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(name)?.strip_prefix('-')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: LogNames = LogNames { files: "lines", logged: "logged", dropped: "dropped", queue: 2 };

    #[test]
    fn a_full_file_is_compressed_and_the_next_start_goes_on_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::open(folder.path(), NAMES).expect("opens");
        writer.write(Some("line".to_owned()));
        writer.write(None);
        writer.rotate().expect("rotates");
        let mut names: Vec<String> = files(folder.path(), "lines")
            .expect("reads")
            .iter()
            .map(|p| p.file_name().expect("a name").to_string_lossy().into())
            .collect();
        names.sort();
        assert_eq!(names, ["lines-00000001.jsonl.zst", "lines-00000002.jsonl"]);
        let packed = File::open(folder.path().join(&names[0])).expect("opens");
        assert_eq!(zstd::decode_all(packed).expect("decodes"), b"line\n");
        assert_eq!(Writer::open(folder.path(), NAMES).expect("opens").number, 3);
        assert_eq!(number(Path::new("/x/other-1.jsonl"), "lines"), None);
    }

    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let log = LineLog::start(folder.path(), NAMES, move |entry: u32| {
            // Until the test lets go.
            let _ = held.recv();
            Some(entry.to_string())
        });
        let log = log.expect("starts");
        (0..100).for_each(|entry| log.take(entry));
        drop(hold);
        drop(log);
    }
}
