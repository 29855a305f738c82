//! What vectors stand in this file?
//!
//! `.npy` (format 1 to 3, C order, one or more dimensions of f2, f4, f8, u1, i4 or i8, little-endian) and IDX of
//! unsigned bytes, each also with `.gz`. All dimensions but the first are one vector. `FILE@FROM:TO` takes a range
//! of its rows. What the file says of itself is checked against what it holds before anything is allocated for it.

use half::f16;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a file after decompression: two million vectors of 1,024 dimensions in f32.
const BYTES_MAX: u64 = 8 << 30;
/// Numbers of one vector.
const WIDTH_MAX: usize = 65_536;

/// Rows of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    /// Row-major.
    pub values: Vec<T>,
    /// Numbers of a row.
    pub width: usize,
}

/// Why a file is none.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct ArrayError {
    path: PathBuf,
    why: String,
}

/// A number as it stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    F16,
    F32,
    F64,
    U8,
    I32,
    I64,
}

impl Kind {
    const fn width(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// Reads vectors.
pub fn read_vectors(file: &str) -> Result<Array<f32>, ArrayError> {
    read(file, |kind, b| match (kind, b) {
        (Kind::U8, [a]) => f32::from(*a),
        (Kind::F16, [a, b]) => f16::from_le_bytes([*a, *b]).to_f32(),
        (Kind::F32, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
        (Kind::I32, [a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]) as f32,
        (Kind::F64, b) => b.first_chunk().map_or(0.0, |b| f64::from_le_bytes(*b) as f32),
        (Kind::I64, b) => b.first_chunk().map_or(0.0, |b| i64::from_le_bytes(*b) as f32),
        (_, _) => 0.0,
    })
}

/// Reads row numbers.
pub fn read_ids(file: &str) -> Result<Array<i32>, ArrayError> {
    read(file, |kind, b| match (kind, b) {
        (Kind::I32, [a, b, c, d]) => i32::from_le_bytes([*a, *b, *c, *d]),
        (Kind::I64, b) => b.first_chunk().and_then(|b| i32::try_from(i64::from_le_bytes(*b)).ok()).unwrap_or(-1),
        // No row has such a number: the caller refuses it.
        (_, _) => -1,
    })
}

fn read<T>(file: &str, number: impl Fn(Kind, &[u8]) -> T) -> Result<Array<T>, ArrayError> {
    let (name, range) = split_range(file);
    let path = Path::new(name);
    let fail = |why: String| ArrayError { path: path.to_path_buf(), why };
    let bytes = bytes(path).map_err(|e| fail(e.to_string()))?;
    let (kind, shape, start) = if bytes.starts_with(b"\x93NUMPY") { npy(&bytes) } else { idx(&bytes) }.map_err(fail)?;
    let rows = shape.first().copied().unwrap_or(0);
    let width = shape.iter().skip(1).try_fold(1usize, |all, n| all.checked_mul(*n)).filter(|w| *w <= WIDTH_MAX);
    let width = width.filter(|w| *w > 0).ok_or_else(|| fail(format!("vectors of shape {shape:?}")))?;
    let row = width * kind.width();
    let data = bytes.get(start..).filter(|data| rows.checked_mul(row) == Some(data.len()));
    let data = data.ok_or_else(|| fail(format!("shape {shape:?} does not fit {} bytes", bytes.len() - start)))?;
    let (from, to) = match range {
        None => (0, rows),
        Some(text) => parse_range(text, rows).ok_or_else(|| fail(format!("no rows {text} among {rows}")))?,
    };
    let data = data.get(from * row..to * row).unwrap_or(&[]);
    Ok(Array { values: data.chunks_exact(kind.width()).map(|b| number(kind, b)).collect(), width })
}

fn split_range(file: &str) -> (&str, Option<&str>) {
    match file.rsplit_once('@') {
        Some((name, range)) if range.contains(':') => (name, Some(range)),
        _ => (file, None),
    }
}

fn parse_range(text: &str, rows: usize) -> Option<(usize, usize)> {
    let (from, to) = text.split_once(':')?;
    let from = if from.is_empty() { 0 } else { from.parse().ok()? };
    let to = if to.is_empty() { rows } else { to.parse().ok()? };
    (from < to && to <= rows).then_some((from, to))
}

fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    let packed = path.extension().is_some_and(|e| e == "gz");
    let read = if packed {
        flate2::read::GzDecoder::new(file).take(BYTES_MAX).read_to_end(&mut bytes)?
    } else {
        file.take(BYTES_MAX).read_to_end(&mut bytes)?
    };
    if read as u64 == BYTES_MAX {
        Err(std::io::Error::other(format!("more than {BYTES_MAX} bytes")))
    } else {
        Ok(bytes)
    }
}

type Header = (Kind, Vec<usize>, usize);

/// The header is a literal of Python: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn npy(bytes: &[u8]) -> Result<Header, String> {
    let short = || "shorter than its header".to_owned();
    let (start, length) = match bytes.get(6).copied().ok_or_else(short)? {
        1 => (10, bytes.get(8..10).and_then(|b| b.first_chunk()).map(|b| usize::from(u16::from_le_bytes(*b)))),
        2 | 3 => (12, bytes.get(8..12).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b) as usize)),
        other => return Err(format!("npy format {other}")),
    };
    let end = start + length.ok_or_else(short)?;
    let text = bytes.get(start..end).and_then(|b| std::str::from_utf8(b).ok()).ok_or_else(short)?;
    let after = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([' ', ':']));
    let kind = match after("'descr'").and_then(|rest| rest.split('\'').nth(1)) {
        Some("<f2") => Kind::F16,
        Some("<f4") => Kind::F32,
        Some("<f8") => Kind::F64,
        Some("|u1" | "<u1" | "u1") => Kind::U8,
        Some("<i4") => Kind::I32,
        Some("<i8") => Kind::I64,
        other => return Err(format!("numbers of kind {other:?}: f2, f4, f8, u1, i4 and i8 are read")),
    };
    if !after("'fortran_order'").is_some_and(|rest| rest.starts_with("False")) {
        return Err("columns first (fortran_order): save it with numpy.ascontiguousarray".into());
    }
    let shape = after("'shape'").and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.split(')').next());
    let numbers = shape.unwrap_or("").split(',').map(str::trim).filter(|n| !n.is_empty());
    let shape = numbers.map(|n| n.parse().map_err(|_| format!("a shape of {n}"))).collect::<Result<Vec<_>, _>>()?;
    Ok((kind, shape, end))
}

/// Two zeros, 8 for unsigned bytes, the number of dimensions, then each as u32, big-endian.
fn idx(bytes: &[u8]) -> Result<Header, String> {
    let [0, 0, 8, dimensions, ..] = bytes else { return Err("neither .npy nor IDX of unsigned bytes".into()) };
    let end = 4 + 4 * usize::from(*dimensions);
    let sizes = bytes.get(4..end).ok_or("shorter than its header")?;
    let shape = sizes.chunks_exact(4).map(|b| b.first_chunk().map_or(0, |b| u32::from_be_bytes(*b) as usize)).collect();
    Ok((Kind::U8, shape, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn npy_of(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let name = path.display().to_string();
        (dir, name)
    }

    #[test]
    fn every_kind_and_a_range() {
        let halves: Vec<u8> = [1.5f32, -2.0, 3.0, 4.0].iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
        let (_dir, name) = written("a.npy", &npy_of("<f2", "(2, 2)", &halves));
        assert_eq!(read_vectors(&name).unwrap(), Array { values: vec![1.5, -2.0, 3.0, 4.0], width: 2 });
        assert_eq!(read_vectors(&format!("{name}@1:2")).unwrap().values, [3.0, 4.0]);
        assert_eq!(read_vectors(&format!("{name}@1:")).unwrap().values, [3.0, 4.0]);
        assert!(read_vectors(&format!("{name}@1:3")).is_err());
        let ids: Vec<u8> = [7i32, 9].iter().flat_map(|x| x.to_le_bytes()).collect();
        let (_dir, name) = written("i.npy", &npy_of("<i4", "(1, 2)", &ids));
        assert_eq!(read_ids(&name).unwrap(), Array { values: vec![7, 9], width: 2 });
        let mut idx = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        idx.extend([1, 2, 3, 255]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&idx).unwrap();
        let (_dir, name) = written("x.gz", &packed.finish().unwrap());
        assert_eq!(read_vectors(&name).unwrap(), Array { values: vec![1.0, 2.0, 3.0, 255.0], width: 2 });
    }

    #[test]
    fn what_does_not_fit_is_said() {
        for (bytes, why) in [
            (npy_of("<f4", "(2, 2)", &[0; 12]), "does not fit"),
            (npy_of("<c8", "(1, 1)", &[0; 8]), "numbers of kind"),
            (npy_of("<f4", "(99999999999, 99999999999)", &[]), "vectors of shape"),
            (npy_of("<f4", "(x,)", &[]), "a shape of"),
            (b"\x93NUMPY\x01\x00\xff\xff".to_vec(), "shorter"),
            (b"PK".to_vec(), "neither"),
            (vec![0, 0, 8, 9], "shorter"),
        ] {
            let (_dir, name) = written("a.npy", &bytes);
            let error = read_vectors(&name).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
