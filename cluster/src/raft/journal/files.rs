//! In which files does the journal lie?
//!
//! `journal-INDEX.log` is written; one that is full becomes `journal-INDEX.log.zst`, INDEX being the first entry in it.
//! `checkpoint-INDEX.zst` is a state: one that came as a snapshot, or one of each week, which an audit begins from when the
//! files before it have gone. Records are those of the raft log ([`super::super::record`]).

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gavel_member::{clock, disk};

use super::super::DiskError;
use super::super::record::{self, Head, Kind, Link, RECORD_BYTES_MIN};
use super::{Line, LineKind};

/// A file of so many bytes is full. Ours: a few hundred thousand charges, read by an auditor in a second.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Kept for so long (decision 19): a year's claims and a month to look at them.
const KEPT_MS: u64 = 400 * 24 * 3_600_000;
/// Between two checkpoints: a state may be as large as a file, and so little more than these is kept too long.
const SEALED_MS: u64 = 7 * 24 * 3_600_000;
/// Between speed and size: the journal is compressed on a thread that has nothing else to do.
const ZSTD_LEVEL: i32 = 3;

/// The journal's folder with the file that is written.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    cluster: u64,
    file: Option<(File, PathBuf)>,
    bytes: u64,
    link: Link,
    last: Option<u64>,
    file_bytes_max: u64,
    /// When a state was sealed last; 0 for never.
    sealed_ms: u64,
}

impl Files {
    /// Opens a folder.
    ///
    /// # Errors
    /// When the last file is damaged or of another cluster, or the disk fails.
    pub fn open(folder: &Path, cluster_id: &str) -> Result<Self, DiskError> {
        Self::with_files_of(FILE_BYTES_MAX, folder, cluster_id)
    }

    /// The same, with another size of files.
    pub(super) fn with_files_of(file_bytes_max: u64, folder: &Path, cluster_id: &str) -> Result<Self, DiskError> {
        std::fs::create_dir_all(folder).map_err(DiskError::io(format!("create {}", folder.display())))?;
        let cluster = record::cluster_number(cluster_id);
        let (link, last) = (Link::default(), None);
        let mut sealed_ms = 0;
        for index in checkpoints(folder)? {
            sealed_ms = sealed_ms.max(written_ms(&folder.join(checkpoint_name(index)))?);
        }
        let mut this =
            Self { folder: folder.to_owned(), cluster, file: None, bytes: 0, link, last, file_bytes_max, sealed_ms };
        let names = names(folder)?;
        // A crash between the two steps of compressing leaves both.
        for name in &names {
            if name.ends_with(".log") && names.contains(&format!("{name}.zst")) {
                remove(&folder.join(name))?;
            }
        }
        match names.last() {
            Some(name) if name.ends_with(".log") && !names.contains(&format!("{name}.zst")) => {
                let path = folder.join(name);
                let length = std::fs::metadata(&path).map_err(DiskError::io(format!("look at {}", path.display())))?;
                if length.len() < RECORD_BYTES_MIN as u64 {
                    // It ended before the header was whole: nothing was ever in it.
                    remove(&path)?;
                    return Self::with_files_of(file_bytes_max, folder, cluster_id);
                }
                this.go_on(name)?;
            }
            Some(name) => {
                let bytes = contents(&folder.join(name))?;
                let (whole, link, last) = scan(&bytes, cluster);
                if whole != bytes.len() {
                    return Err(corrupt(&folder.join(name), whole, "a compressed file is not whole"));
                }
                (this.link, this.last) = (link, last);
            }
            None => this.begin(0)?,
        }
        Ok(this)
    }

    /// The last entry.
    #[must_use]
    pub const fn last(&self) -> Option<u64> {
        self.last
    }

    /// Opens the file that was being written, without what was not written whole.
    fn go_on(&mut self, name: &str) -> Result<(), DiskError> {
        let path = self.folder.join(name);
        let failed = |what: &str| DiskError::io(format!("{what} {}", path.display()));
        let bytes = std::fs::read(&path).map_err(failed("read"))?;
        let (whole, link, last) = scan(&bytes, self.cluster);
        if whole == 0 {
            return Err(corrupt(&path, 0, "no header: the file is damaged, or of another cluster"));
        }
        if let Some(witness) = witness(&bytes, whole, self.cluster) {
            return Err(corrupt(&path, whole, &format!("the record at byte {witness} proves that this was whole")));
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed("open"))?;
        file.set_len(whole as u64).map_err(failed("truncate"))?;
        file.sync_all().map_err(failed("fsync"))?;
        file.seek(SeekFrom::Start(whole as u64)).map_err(failed("seek"))?;
        (self.file, self.bytes, self.link) = (Some((file, path.clone())), whole as u64, link);
        // A file with nothing but its header names what came before it.
        self.last = last.or_else(|| first_of(name)?.checked_sub(1));
        Ok(())
    }

    /// Appends an entry, unless it is there.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn append(&mut self, line: &Line) -> Result<(), DiskError> {
        if self.last.is_some_and(|last| line.index <= last) {
            return Ok(());
        }
        if self.bytes >= self.file_bytes_max {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.begin(line.index)?;
        }
        let kind = match line.kind {
            LineKind::Applied => Kind::Applied,
            LineKind::Checkpoint => Kind::Checkpoint,
        };
        self.put(kind, line.term, line.index, &line.payload)?;
        self.last = Some(line.index);
        metrics::counter!("gavel_ledger_journal_entries_total").increment(1);
        Ok(())
    }

    /// Seals a state that came as a snapshot, and notes it.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn checkpoint(&mut self, term: u64, index: u64, state: &[u8]) -> Result<(), DiskError> {
        if self.last.is_some_and(|last| index <= last) {
            return Ok(());
        }
        let payload = self.write_state(index, state)?;
        self.append(&Line { term, index, kind: LineKind::Checkpoint, payload })
    }

    /// Seals a state of this voter, when none was for a week: what comes before it may go one day.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn seal(&mut self, term: u64, index: u64, state: &[u8], now_ms: u64) -> Result<(), DiskError> {
        // What the journal does not hold yet is not the beginning of anything.
        if now_ms.saturating_sub(self.sealed_ms) < SEALED_MS || self.last.is_none_or(|last| last < index) {
            return Ok(());
        }
        if self.file.is_none() {
            self.begin(self.last.map_or(0, |last| last + 1))?;
        }
        // Its place in the chain is behind entries that came while it was made; its index says where it belongs. Named
        // first: a name without a state is passed over, a state without a name is nothing to begin from.
        self.put(Kind::Checkpoint, term, index, blake3::hash(state).as_bytes())?;
        self.sync()?;
        self.write_state(index, state)?;
        self.sealed_ms = now_ms;
        Ok(())
    }

    /// Writes a state; its hash.
    fn write_state(&self, index: u64, state: &[u8]) -> Result<Vec<u8>, DiskError> {
        let path = self.folder.join(checkpoint_name(index));
        let failed = |what: &str| DiskError::io(format!("{what} {}", path.display()));
        let packed = zstd::encode_all(state, ZSTD_LEVEL).map_err(failed("compress"))?;
        disk::write_atomic(&path, &packed).map_err(failed("write"))?;
        Ok(blake3::hash(state).as_bytes().to_vec())
    }

    /// Makes everything safe.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        let Some((file, path)) = &self.file else { return Ok(()) };
        file.sync_data().map_err(DiskError::io(format!("fsync {}", path.display())))?;
        // The witness that a later start looks for.
        self.put(Kind::Synced, 0, 0, &[])
    }

    fn begin(&mut self, first: u64) -> Result<(), DiskError> {
        let path = self.folder.join(format!("journal-{first:020}.log"));
        let file = File::create(&path).map_err(DiskError::io(format!("create {}", path.display())))?;
        (self.file, self.bytes) = (Some((file, path)), 0);
        self.put(Kind::Header, 0, first, &[])?;
        // Its entries are made safe by `sync`, which does not reach the name of the file in its folder.
        let Some((file, path)) = &self.file else { return Ok(()) };
        let synced = file.sync_all().and_then(|()| disk::sync_folder_of(path));
        synced.map_err(DiskError::io(format!("fsync {} and its folder", path.display())))
    }

    fn put(&mut self, kind: Kind, term: u64, index: u64, payload: &[u8]) -> Result<(), DiskError> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        let durable = if kind == Kind::Synced { self.bytes } else { 0 };
        let mut out = Vec::new();
        self.link = record::write(
            Head { kind, cluster: self.cluster, term, index, durable, prev: self.link },
            payload,
            &mut out,
        );
        file.write_all(&out).map_err(DiskError::io(format!("write {}", path.display())))?;
        self.bytes += out.len() as u64;
        Ok(())
    }

    /// Compresses the file that is full, and removes what is too old.
    fn rotate(&mut self) -> Result<(), DiskError> {
        self.sync()?;
        let Some((_, path)) = self.file.take() else { return Ok(()) };
        let failed = |what: &str| DiskError::io(format!("{what} {}", path.display()));
        let bytes = std::fs::read(&path).map_err(failed("read"))?;
        let packed = zstd::encode_all(bytes.as_slice(), ZSTD_LEVEL).map_err(failed("compress"))?;
        let to = path.with_extension("log.zst");
        disk::write_atomic(&to, &packed).map_err(failed("write beside"))?;
        remove(&path)?;
        self.forget(clock::wall_ms())
    }

    /// As if a file were full now.
    #[cfg(test)]
    pub(super) fn forget_at_once(&self) {
        self.forget(clock::wall_ms()).expect("the disk works");
    }

    /// Removes files that are too old, as far as an audit can begin behind them: from a checkpoint of the entry before
    /// the first one that is left, or of a later one. Checkpoints that come before that one are of no use any more.
    fn forget(&self, now_ms: u64) -> Result<(), DiskError> {
        let (names, checkpoints) = (names(&self.folder)?, checkpoints(&self.folder)?);
        let mut old = 0;
        for name in &names {
            if written_ms(&self.folder.join(name))?.saturating_add(KEPT_MS) >= now_ms {
                break;
            }
            old += 1;
        }
        // The last file is never left out: it is where the next entry belongs.
        let firsts: Vec<u64> = names.iter().take(old + 1).filter_map(|name| first_of(name)).collect();
        let newest = checkpoints.last().copied();
        let begins = |first: &u64| newest.is_some_and(|newest| newest + 1 >= *first);
        let Some(left) = firsts.iter().rposition(begins).filter(|left| *left > 0) else { return Ok(()) };
        for name in &names[..left] {
            remove(&self.folder.join(name))?;
        }
        for index in checkpoints.iter().filter(|index| **index + 1 < firsts[left]) {
            remove(&self.folder.join(checkpoint_name(*index)))?;
        }
        Ok(())
    }
}

fn written_ms(path: &Path) -> Result<u64, DiskError> {
    let written = std::fs::metadata(path).and_then(|m| m.modified());
    let written = written.map_err(DiskError::io(format!("look at {}", path.display())))?;
    Ok(written.duration_since(std::time::UNIX_EPOCH).map_or(u64::MAX, |d| d.as_millis() as u64))
}

/// The file of a state.
pub fn checkpoint_name(index: u64) -> String {
    format!("checkpoint-{index:020}.zst")
}

/// The last entries of the states that are kept, ascending.
pub fn checkpoints(folder: &Path) -> Result<Vec<u64>, DiskError> {
    let failed = || DiskError::io(format!("list {}", folder.display()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name().to_string_lossy().into_owned();
        let index = name.strip_prefix("checkpoint-").and_then(|rest| rest.strip_suffix(".zst"));
        found.extend(index.and_then(|index| index.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// The files of entries, oldest first.
pub fn names(folder: &Path) -> Result<Vec<String>, DiskError> {
    let failed = || DiskError::io(format!("list {}", folder.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name().to_string_lossy().into_owned();
        if first_of(&name).is_some() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The first entry of a file, by its name.
pub fn first_of(name: &str) -> Option<u64> {
    let rest = name.strip_prefix("journal-")?;
    rest.strip_suffix(".log").or_else(|| rest.strip_suffix(".log.zst"))?.parse().ok()
}

/// What is in a file, compressed or not.
pub fn contents(path: &Path) -> Result<Vec<u8>, DiskError> {
    let failed = |what: &str| DiskError::io(format!("{what} {}", path.display()));
    let bytes = std::fs::read(path).map_err(failed("read"))?;
    if path.extension().is_some_and(|e| e == "zst") {
        return zstd::decode_all(bytes.as_slice()).map_err(failed("decompress"));
    }
    Ok(bytes)
}

/// Bytes of whole records that follow each other, what the next must name, and the last entry among them.
fn scan(bytes: &[u8], cluster: u64) -> (usize, Link, Option<u64>) {
    let (mut at, mut link, mut last): (usize, Option<Link>, Option<u64>) = (0, None, None);
    while let Some(record) = bytes.get(at..).and_then(|rest| record::read(rest, cluster)) {
        if link.is_some_and(|link| record.head.prev != link) || (at == 0 && record.head.kind != Kind::Header) {
            break;
        }
        if matches!(record.head.kind, Kind::Applied | Kind::Checkpoint) {
            // A state that was sealed in passing is older than the entries before it.
            last = last.max(Some(record.head.index));
        }
        at += record.bytes;
        link = Some(record.link);
    }
    (at, link.unwrap_or_default(), last)
}

/// A whole record beyond `broken` that was written when `broken` was already safe.
fn witness(bytes: &[u8], broken: usize, cluster: u64) -> Option<usize> {
    let last = bytes.len().checked_sub(RECORD_BYTES_MIN)?;
    (broken + 1..=last).find(|at| {
        let record = bytes.get(*at..).and_then(|rest| record::read(rest, cluster));
        record.is_some_and(|record| record.head.durable > broken as u64)
    })
}

fn remove(path: &Path) -> Result<(), DiskError> {
    std::fs::remove_file(path).map_err(DiskError::io(format!("remove {}", path.display())))
}

pub fn corrupt(path: &Path, offset: usize, reason: &str) -> DiskError {
    DiskError::Corrupt { file: path.display().to_string(), offset: offset as u64, reason: reason.to_owned() }
}
