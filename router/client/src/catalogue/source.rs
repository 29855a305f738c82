//! Which files are there, and what are their lines?
//!
//! A folder gives its files named `items*`, `ads*`, `campaigns*` and `users*`; a single file may hold all kinds. Files
//! are read as streams, decompressed by the ending of their name; a line that is too long is skipped, not stored.

use super::LoadError;
use super::line::Line;
use super::row::Header;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest line.
pub(super) const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Files that a folder gives start with one of these.
const STEMS: [&str; 4] = ["campaigns", "items", "ads", "users"];
/// The endings of uncompressed files.
const ENDINGS: [&str; 4] = ["jsonl", "ndjson", "json", "csv"];

/// One line: its number, its text as far as it is kept for the rejects file, and what it says.
pub(super) struct Numbered {
    pub number: u64,
    pub text: String,
    pub line: Result<Line, String>,
}

/// The files of a catalogue, in a fixed order.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |e| LoadError::Io(path.to_path_buf(), e);
    if fs::metadata(path).map_err(failed)?.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = STEMS.iter().any(|stem| name.starts_with(stem)) && ENDINGS.contains(&ending(&name));
        if ours && !name.contains(".rejects.") && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() { Err(LoadError::NoFiles(path.to_path_buf())) } else { Ok(found) }
}

/// The ending of a name without its compression.
fn ending(name: &str) -> &str {
    let plain = name.strip_suffix(".zst").or_else(|| name.strip_suffix(".gz")).unwrap_or(name);
    plain.rsplit_once('.').map_or("", |(_, ending)| ending)
}

/// Calls `take` with every line of a file; `read` grows by the bytes read from disk.
pub(super) fn for_each_line(
    path: &Path,
    read: &Arc<AtomicU64>,
    mut take: impl FnMut(Numbered) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let failed = |e| LoadError::Io(path.to_path_buf(), e);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let raw = Counted { inner: File::open(path).map_err(failed)?, read: Arc::clone(read) };
    let plain: Box<dyn Read> = if name.ends_with(".zst") {
        Box::new(zstd::Decoder::new(raw).map_err(failed)?)
    } else if name.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(raw))
    } else {
        Box::new(raw)
    };
    let input = BufReader::with_capacity(256 * 1024, plain);
    if ending(&name) == "csv" { rows(path, input, &mut take) } else { json_lines(path, input, &mut take) }
}

fn json_lines(
    path: &Path,
    mut input: impl BufRead,
    take: &mut impl FnMut(Numbered) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let failed = |e| LoadError::Io(path.to_path_buf(), e);
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if input.by_ref().take(limit).read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            return Ok(());
        }
        if bytes.len() > LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
            input.skip_until(b'\n').map_err(failed)?;
            let line = Err(format!("longer than {LINE_BYTES_MAX} bytes"));
            take(Numbered { number, text: shortened(&bytes), line })?;
            continue;
        }
        let trimmed = bytes.trim_ascii();
        if !trimmed.is_empty() {
            let line = Line::parse(trimmed);
            let text = if line.is_err() { shortened(trimmed) } else { String::new() };
            take(Numbered { number, text, line })?;
        }
    }
    Ok(())
}

fn rows(
    path: &Path,
    input: impl Read,
    take: &mut impl FnMut(Numbered) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let header = match reader.headers() {
        Ok(row) => Header::parse(row).map_err(|reason| LoadError::Header { path: path.to_path_buf(), reason })?,
        Err(e) => return Err(LoadError::Header { path: path.to_path_buf(), reason: e.to_string() }),
    };
    let mut row = csv::StringRecord::new();
    loop {
        let at = reader.position().line();
        let line = match reader.read_record(&mut row) {
            Ok(false) => return Ok(()),
            Ok(true) => header.line(&row),
            Err(e) if e.is_io_error() => return Err(LoadError::Io(path.to_path_buf(), io::Error::other(e))),
            Err(e) => Err(e.to_string()),
        };
        let number = row.position().map_or(at, csv::Position::line);
        let text = if line.is_err() { shortened(format!("{row:?}").as_bytes()) } else { String::new() };
        take(Numbered { number, text, line })?;
    }
}

/// Enough of a line to find it again.
fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).into_owned()
}

/// Counts what is read from disk, for the progress.
struct Counted {
    inner: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
