//! What are the lines of a file, plain or compressed?
//!
//! Read when they are wanted, so that a file may be larger than the memory, and never longer than a bound: a file
//! without line ends is refused, not stored.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Longest line: what a request may carry is below half of it.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The bytes of a file, decompressed by the ending of its name (`.zst`, `.gz`).
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let file = File::open(path)?;
    let name = path.to_string_lossy();
    Ok(if name.ends_with(".zst") {
        Box::new(zstd::Decoder::new(file)?)
    } else if name.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    })
}

/// Why there is no next line.
#[derive(Debug)]
pub enum LineError {
    /// The file cannot be read.
    Io(io::Error),
    /// A line is too long; with its number.
    TooLong(usize),
}

/// The lines of a file that are not blank.
pub struct Lines {
    reader: BufReader<Box<dyn Read>>,
    number: usize,
}

impl Lines {
    /// From the first line on.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::new(open(path)?), number: 0 })
    }

    /// The next line that is not blank, with its number from 1.
    ///
    /// # Errors
    /// When the file cannot be read or a line is longer than [`LINE_BYTES_MAX`].
    pub fn next_line(&mut self) -> Result<Option<(usize, String)>, LineError> {
        loop {
            let mut line = String::new();
            self.number += 1;
            let read = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1).read_line(&mut line);
            match read.map_err(LineError::Io)? {
                0 => return Ok(None),
                n if n > LINE_BYTES_MAX => return Err(LineError::TooLong(self.number)),
                _ if line.trim().is_empty() => {}
                _ => return Ok(Some((self.number, line))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn numbers(path: &Path) -> Vec<(usize, String)> {
        let mut lines = Lines::open(path).unwrap();
        std::iter::from_fn(|| lines.next_line().unwrap()).collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does_and_compression_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"one\n\n  \nfour\nfive";
        let (plain, packed) = (dir.path().join("a.jsonl"), dir.path().join("a.jsonl.zst"));
        std::fs::write(&plain, text).unwrap();
        std::fs::write(&packed, zstd::encode_all(&text[..], 3).unwrap()).unwrap();
        let expected = vec![(1, "one\n".to_owned()), (4, "four\n".to_owned()), (5, "five".to_owned())];
        assert_eq!((numbers(&plain), numbers(&packed)), (expected.clone(), expected));
    }

    #[test]
    fn a_file_without_line_ends_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        let mut file = File::create(&path).unwrap();
        writeln!(file, "short").unwrap();
        file.write_all(&vec![b'x'; LINE_BYTES_MAX + 2]).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        assert!(matches!(lines.next_line(), Ok(Some((1, _)))));
        assert!(matches!(lines.next_line(), Err(LineError::TooLong(2))));
    }
}
