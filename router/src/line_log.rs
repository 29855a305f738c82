//! How do lines get from a request to files without holding the request up?
//!
//! Through a short queue to a thread of their own, which makes the line and writes it. When the disk is behind, a line is
//! dropped and counted, and never a request made late. A file that is full is packed by a second thread, so that the
//! first goes on writing, and the oldest go, so a folder has a bound. A packed file is written under a name that no reader
//! looks for and renamed when it is whole. A process that is ended by force leaves its last line unfinished, or a file
//! beside what it was packed as; the next start removes the one of such two and goes on in another file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Bytes of a file before it is packed.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files kept, the oldest go first: about a gigabyte when compressed fourfold.
const FILES_MAX: usize = 64;
/// Full files that wait while another one is packed. When both are there the disk is behind, and lines are dropped.
const FULL_MAX: usize = 1;
/// How the name of a file ends that is not packed yet.
const LINES: &str = "jsonl";

/// What one log is called.
#[derive(Clone, Copy, Debug)]
pub struct LogNames {
    /// Files are `NAME-N.jsonl`, and end in what they are packed as when they are full.
    pub files: &'static str,
    /// Counts lines that were written.
    pub logged: &'static str,
    /// Counts lines that were not.
    pub dropped: &'static str,
    /// Entries that may wait.
    pub queue: usize,
}

/// What becomes of a full file.
#[derive(Clone, Copy, Debug)]
pub enum Packing {
    /// `.jsonl.zst`. What is not full when the process ends stays as it is: who reads the one reads the other.
    Compressed,
    /// `.parquet`, made by this of the lines. So is what is not full when the process ends, or was left by one before.
    #[cfg(feature = "parquet")]
    Columns(fn(File, &File) -> std::io::Result<()>),
}

impl Packing {
    const fn ending(self) -> &'static str {
        match self {
            Self::Compressed => "jsonl.zst",
            #[cfg(feature = "parquet")]
            Self::Columns(_) => "parquet",
        }
    }

    fn pack(self, lines: File, packed: &File) -> std::io::Result<()> {
        match self {
            Self::Compressed => zstd::stream::copy_encode(lines, packed, 3),
            #[cfg(feature = "parquet")]
            Self::Columns(pack) => pack(lines, packed),
        }
    }

    /// Whether files that another process left are packed.
    const fn packs_left(self) -> bool {
        match self {
            Self::Compressed => false,
            #[cfg(feature = "parquet")]
            Self::Columns(_) => true,
        }
    }
}

/// Takes entries off the request path; each becomes a line.
#[derive(Debug)]
pub struct LineLog<T> {
    /// `None` when it ends.
    queue: Option<SyncSender<T>>,
    thread: Option<JoinHandle<()>>,
    names: LogNames,
    /// The process ends: what another one left waits for the next.
    ends: Arc<AtomicBool>,
}

impl<T: Send + 'static> LineLog<T> {
    /// Writes below `folder`; `line` runs on the log's thread, and an entry without a line is counted as dropped.
    ///
    /// # Errors
    /// When the folder cannot be made or written to.
    pub fn start(
        folder: &Path,
        names: LogNames,
        packing: Packing,
        line: impl Fn(T) -> Option<String> + Send + 'static,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (queue, inbox) = sync_channel(names.queue);
        let writer = Writer::open(folder, names, packing)?;
        let ends = Arc::clone(&writer.ends);
        let thread = std::thread::Builder::new().name(format!("log-{}", names.files));
        let thread = thread.spawn(move || writer.run(&inbox, line))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), names, ends })
    }

    /// Hands an entry over, if there is room.
    pub fn take(&self, entry: T) {
        let taken = self.queue.as_ref().is_some_and(|queue| queue.try_send(entry).is_ok());
        if !taken {
            metrics::counter!(self.names.dropped).increment(1);
        }
    }
}

impl<T> Drop for LineLog<T> {
    /// A process that ends in peace writes what waits.
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        drop(self.queue.take());
        // A thread that panicked has ended the process already.
        let _ = self.thread.take().map(JoinHandle::join);
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
    packing: Packing,
    full: SyncSender<PathBuf>,
    packer: JoinHandle<()>,
    ends: Arc<AtomicBool>,
}

impl Writer {
    fn open(folder: &Path, names: LogNames, packing: Packing) -> std::io::Result<Self> {
        let mut known = files(folder, names.files)?;
        known.sort();
        let number = known.iter().filter_map(|p| number(p, names.files)).max().unwrap_or(0) + 1;
        let left = left(known, names.files)?;
        let path = path(folder, names, number);
        let out = BufWriter::new(File::create(&path)?);
        let (full, inbox) = sync_channel(FULL_MAX);
        let ends = Arc::new(AtomicBool::new(false));
        let packer = Packer { names, folder: folder.to_owned(), packing, ends: Arc::clone(&ends) };
        let thread = std::thread::Builder::new().name(format!("pack-{}", names.files));
        let packer = thread.spawn(move || packer.run(if packing.packs_left() { &left } else { &[] }, &inbox))?;
        Ok(Self { names, folder: folder.to_owned(), out, path, bytes: 0, number, packing, full, packer, ends })
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
        self.end();
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

    /// Has the full file packed and goes on with the next.
    fn rotate(&mut self) -> std::io::Result<()> {
        self.out.flush()?;
        let next = path(&self.folder, self.names, self.number + 1);
        self.out = BufWriter::new(File::create(&next)?);
        let full = std::mem::replace(&mut self.path, next);
        (self.bytes, self.number) = (0, self.number + 1);
        self.full.send(full).map_err(std::io::Error::other)
    }

    /// Waits for what is being packed.
    fn end(self) {
        let Self { out, path, packing, full, packer, .. } = self;
        drop(out);
        if packing.packs_left() {
            // Its thread goes on until there is nobody to send.
            let _ = full.send(path);
        }
        drop(full);
        let _ = packer.join();
    }
}

/// What packs full files.
struct Packer {
    names: LogNames,
    folder: PathBuf,
    packing: Packing,
    ends: Arc<AtomicBool>,
}

impl Packer {
    /// What was left first, unless the process ends: a stop does not wait for all of it. Then every file that comes, until
    /// nobody sends more.
    fn run(&self, left: &[PathBuf], inbox: &Receiver<PathBuf>) {
        left.iter().take_while(|_| !self.ends.load(Ordering::Acquire)).for_each(|path| self.take(path));
        while let Ok(full) = inbox.recv() {
            self.take(&full);
        }
    }

    fn take(&self, full: &Path) {
        let packed = self.pack(full);
        if let Err(error) = packed {
            tracing::error!(%error, path = %full.display(), "a file of a log cannot be packed and stays as it is");
        }
        if let Err(error) = self.forget() {
            tracing::error!(%error, folder = %self.folder.display(), "old files of a log cannot be removed");
        }
    }

    /// Packs one file; one that is gone was among the oldest.
    fn pack(&self, full: &Path) -> std::io::Result<()> {
        let lines = match File::open(full) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if lines.metadata()?.len() > 0 {
            let part = self.folder.join(format!(".{}.part", self.names.files));
            let written = self.write(lines, &part, &full.with_extension(self.packing.ending()));
            if written.is_err() {
                // What went wrong is told; a part that cannot be removed is written over by the next one.
                let _ = std::fs::remove_file(&part);
            }
            written?;
        }
        std::fs::remove_file(full)
    }

    fn write(&self, lines: File, part: &Path, whole: &Path) -> std::io::Result<()> {
        let packed = File::create(part)?;
        self.packing.pack(lines, &packed)?;
        // The lines are removed: what replaces them must be there after a loss of power.
        packed.sync_all()?;
        std::fs::rename(part, whole)
    }

    /// Removes the oldest files.
    fn forget(&self) -> std::io::Result<()> {
        let mut kept = files(&self.folder, self.names.files)?;
        kept.sort();
        let over = kept.len().saturating_sub(FILES_MAX);
        kept.iter().take(over).try_for_each(std::fs::remove_file)
    }
}

fn path(folder: &Path, names: LogNames, number: u64) -> PathBuf {
    folder.join(format!("{}-{number:08}.{LINES}", names.files))
}

/// The files of a log.
fn files(folder: &Path, name: &str) -> std::io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| number(path, name).is_some()).collect())
}

/// The files that are not packed. One whose packed twin is there is removed: a process was ended by force between the two,
/// and each line would be read twice.
fn left(known: Vec<PathBuf>, name: &str) -> std::io::Result<Vec<PathBuf>> {
    let is_lines = |path: &PathBuf| path.extension().is_some_and(|ending| ending == LINES);
    let (lines, packed): (Vec<PathBuf>, Vec<PathBuf>) = known.into_iter().partition(is_lines);
    let packed: BTreeSet<u64> = packed.iter().filter_map(|path| number(path, name)).collect();
    let is_twin = |path: &PathBuf| number(path, name).is_some_and(|number| packed.contains(&number));
    let (twins, left): (Vec<PathBuf>, Vec<PathBuf>) = lines.into_iter().partition(is_twin);
    twins.iter().try_for_each(std::fs::remove_file)?;
    Ok(left)
}

fn number(path: &Path, name: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(name)?.strip_prefix('-')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: LogNames = LogNames { files: "lines", logged: "logged", dropped: "dropped", queue: 2 };

    fn names(folder: &Path) -> Vec<String> {
        let all = std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = all.map(|name| name.to_string_lossy().into()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_compressed_and_the_next_start_goes_on_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::open(folder.path(), NAMES, Packing::Compressed).expect("opens");
        writer.write(Some("line".to_owned()));
        writer.write(None);
        writer.rotate().expect("rotates");
        writer.end();
        let names = names(folder.path());
        assert_eq!(names, ["lines-00000001.jsonl.zst", "lines-00000002.jsonl"]);
        let packed = File::open(folder.path().join(&names[0])).expect("opens");
        assert_eq!(zstd::decode_all(packed).expect("decodes"), b"line\n");
        let writer = Writer::open(folder.path(), NAMES, Packing::Compressed).expect("opens");
        assert_eq!(writer.number, 3);
        writer.end();
        assert_eq!(number(Path::new("/x/other-1.jsonl"), "lines"), None);
    }

    #[test]
    fn the_oldest_go_and_what_waits_is_written_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        (1..=FILES_MAX).for_each(|old| {
            std::fs::write(folder.path().join(format!("lines-{old:08}.jsonl.zst")), "").expect("written");
        });
        let mut writer = Writer::open(folder.path(), NAMES, Packing::Compressed).expect("opens");
        writer.write(Some("line".to_owned()));
        writer.rotate().expect("rotates");
        writer.end();
        let kept = names(folder.path());
        assert_eq!((kept.len(), kept[0].as_str()), (FILES_MAX, "lines-00000003.jsonl.zst"));

        let log = LineLog::start(folder.path(), NAMES, Packing::Compressed, |entry: u32| Some(entry.to_string()));
        let log = log.expect("starts");
        log.take(7);
        drop(log);
        assert_eq!(std::fs::read(folder.path().join("lines-00000067.jsonl")).expect("reads"), b"7\n");
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn what_another_process_left_becomes_columns_and_what_cannot_stays() {
        use std::io::{Error, Read};

        // Columns enough for a test: the lines backwards, and none of a file that begins with a mark.
        let packing = Packing::Columns(|mut lines, mut packed| {
            let mut text = String::new();
            lines.read_to_string(&mut text)?;
            if text.starts_with('!') {
                return Err(Error::other("no line of ours"));
            }
            packed.write_all(text.chars().rev().collect::<String>().as_bytes())
        });
        let folder = tempfile::tempdir().expect("a folder");
        let in_folder = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("lines-00000001.jsonl.zst", "zst"),
            ("lines-00000002.jsonl", "left"),
            ("lines-00000003.jsonl", "!"),
            ("lines-00000004.jsonl", ""),
        ] {
            std::fs::write(in_folder(name), text).expect("written");
        }
        let mut writer = Writer::open(folder.path(), NAMES, packing).expect("opens");
        writer.write(Some("full".to_owned()));
        writer.rotate().expect("rotates");
        writer.write(Some("rest".to_owned()));
        writer.end();
        let expected = [
            "lines-00000001.jsonl.zst",
            "lines-00000002.parquet",
            "lines-00000003.jsonl",
            "lines-00000005.parquet",
            "lines-00000006.parquet",
        ];
        assert_eq!(names(folder.path()), expected);
        let read = |name: &str| std::fs::read_to_string(in_folder(name)).expect("reads");
        assert_eq!(read("lines-00000002.parquet"), "tfel");
        assert_eq!(read("lines-00000005.parquet"), "\nlluf");
        assert_eq!(read("lines-00000006.parquet"), "\ntser");

        // Nothing half packed stays beside it.
        let ends = Arc::new(AtomicBool::new(true));
        let packer = Packer { names: NAMES, folder: folder.path().to_owned(), packing, ends };
        packer.pack(&in_folder("lines-00000003.jsonl")).expect_err("it cannot be packed");
        assert_eq!(names(folder.path()), expected);
    }

    /// A stop waited until everything that was left was packed.
    #[test]
    fn what_was_left_waits_when_the_process_ends_and_what_is_full_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let in_folder = |name: &str| folder.path().join(name);
        let [left, full] = ["lines-00000001.jsonl", "lines-00000002.jsonl"].map(in_folder);
        for path in [&left, &full] {
            std::fs::write(path, "line\n").expect("written");
        }
        let run = |ends: bool| {
            let (sender, inbox) = sync_channel(FULL_MAX);
            sender.send(full.clone()).expect("there is room");
            drop(sender);
            let ends = Arc::new(AtomicBool::new(ends));
            let packer = Packer { names: NAMES, folder: folder.path().to_owned(), packing: Packing::Compressed, ends };
            packer.run(std::slice::from_ref(&left), &inbox);
            names(folder.path())
        };
        assert_eq!(run(true), ["lines-00000001.jsonl", "lines-00000002.jsonl.zst"]);
        assert_eq!(run(false), ["lines-00000001.jsonl.zst", "lines-00000002.jsonl.zst"]);
    }

    /// The process was killed after it had packed a file and before it had removed it.
    #[test]
    fn lines_beside_what_they_were_packed_as_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in
            ["lines-00000001.jsonl.zst", "lines-00000001.jsonl", "lines-00000002.parquet", "lines-00000002.jsonl"]
        {
            std::fs::write(folder.path().join(name), "line\n").expect("written");
        }
        std::fs::write(folder.path().join("lines-00000003.jsonl"), "line\n").expect("written");
        Writer::open(folder.path(), NAMES, Packing::Compressed).expect("opens").end();
        let expected =
            ["lines-00000001.jsonl.zst", "lines-00000002.parquet", "lines-00000003.jsonl", "lines-00000004.jsonl"];
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let log = LineLog::start(folder.path(), NAMES, Packing::Compressed, move |entry: u32| {
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
