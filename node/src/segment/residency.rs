//! How much of a mapped folder is in memory?

use super::container::Storage;

/// Bytes by where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Residency {
    /// Of mapped files.
    pub mapped: u64,
    /// Of those, in memory now.
    pub resident: u64,
    /// Of our own memory.
    pub owned: u64,
}

impl Residency {
    /// The sum over storages.
    pub(crate) fn of<'a>(storages: impl Iterator<Item = &'a Storage>) -> Self {
        storages.fold(Self::default(), |sum, storage| match storage {
            Storage::Mapped(map) => sum.plus(Self { mapped: map.len() as u64, resident: resident(map), owned: 0 }),
            Storage::Owned(words, _) => sum.plus(Self { owned: words.len() as u64 * 8, ..Self::default() }),
        })
    }

    /// Bytes that it takes, or will once every page was read.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.mapped + self.owned
    }

    /// True when all but a hundredth of the mapped pages are in memory. Some may be on their way out already
    /// when the last one came in; a hundredth of them costs a request little.
    #[must_use]
    pub const fn is_warm(self) -> bool {
        self.resident >= self.mapped - self.mapped / 100
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            mapped: self.mapped + other.mapped,
            resident: self.resident + other.resident,
            owned: self.owned + other.owned,
        }
    }
}

fn page() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(4_096)
}

fn resident(map: &[u8]) -> u64 {
    if map.is_empty() {
        return 0;
    }
    let page = page();
    let mut pages = vec![0u8; map.len().div_ceil(page)];
    // SAFETY: the range is a live map that starts on a page, and `pages` has a byte for each of its pages.
    let result = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr().cast()) };
    if result != 0 {
        return 0;
    }
    let inside = pages.iter().filter(|state| **state & 1 == 1).count() * page;
    inside.min(map.len()) as u64
}

/// Bytes of the files in a folder; 0 when it is not there.
#[must_use]
pub fn folder_bytes(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

/// Asks for the pages and touches each.
pub(crate) fn prefault(storage: &Storage) {
    let Storage::Mapped(map) = storage else { return };
    // Advice only: the touch below does the work.
    let _ = map.advise(memmap2::Advice::WillNeed);
    let _ = map.advise(memmap2::Advice::PopulateRead);
    let sum = map.iter().step_by(page()).fold(0u8, |sum, byte| sum ^ byte);
    std::hint::black_box(sum);
}
