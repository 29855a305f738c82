//! Where does a record on disk begin and end, and is it what was written?
//!
//! u32 LE length, u32 LE CRC-32 of length and bytes, the bytes. A length beyond the limit is damage, and allocates
//! nothing.

use std::io::{self, Read as _};

/// Longest record: a table of a snapshot is written in parts below it.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A record.
    Record(Vec<u8>),
    /// The file ends behind the last record.
    End,
    /// It ends within one.
    Torn,
    /// These are not the bytes that were written.
    Damaged,
}

/// Appends a record.
pub fn append(bytes: &[u8], out: &mut Vec<u8>) {
    // Below the limit, which is below 4 GiB.
    let length = (bytes.len() as u32).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, bytes).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads the next record.
///
/// # Errors
/// Whatever the disk says.
pub fn read(input: &mut impl io::Read) -> io::Result<Read> {
    let mut head = [0u8; 8];
    match fill(input, &mut head)? {
        0 => return Ok(Read::End),
        8 => {}
        _ => return Ok(Read::Torn),
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let (length, sum) = ([l0, l1, l2, l3], u32::from_le_bytes([c0, c1, c2, c3]));
    let count = u32::from_le_bytes(length) as usize;
    if count > RECORD_BYTES_MAX {
        return Ok(Read::Damaged);
    }
    let mut bytes = Vec::new();
    if input.take(count as u64).read_to_end(&mut bytes)? < count {
        return Ok(Read::Torn);
    }
    Ok(if checksum(length, &bytes) == sum { Read::Record(bytes) } else { Read::Damaged })
}

fn checksum(length: [u8; 4], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(bytes);
    hasher.finalize()
}

fn fill(input: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is cut off or bent, what is read is a prefix of what was written.
    #[test]
    fn a_cut_or_bent_file_gives_a_prefix() {
        let written: Vec<Vec<u8>> = (0u8..6).map(|n| vec![n; usize::from(n) * 3]).collect();
        let mut file = Vec::new();
        written.iter().for_each(|record| append(record, &mut file));
        let records = |mut bytes: &[u8]| {
            let mut records = Vec::new();
            loop {
                match read(&mut bytes).expect("memory") {
                    Read::Record(record) => records.push(record),
                    end @ (Read::End | Read::Torn | Read::Damaged) => return (records, end),
                }
            }
        };
        assert_eq!(records(&file), (written.clone(), Read::End));
        for at in 0..file.len() {
            let (found, end) = records(&file[..at]);
            assert_eq!(found, written[..found.len()], "cut at {at}");
            assert!(end == Read::End || end == Read::Torn);
            for bit in 0..8 {
                let mut bent = file.clone();
                bent[at] ^= 1 << bit;
                let (found, end) = records(&bent);
                assert_eq!(found, written[..found.len()], "bit {bit} of {at}");
                assert!(found.len() < written.len() && end != Read::End, "bit {bit} of {at}");
            }
        }
    }
}
