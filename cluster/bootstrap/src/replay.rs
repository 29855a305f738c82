//! Do logged clearings come out the same again?

use crate::cli::Format;
use crate::failure::Failure;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line that is read: ten thousand candidates of some hundred bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Differences that are printed one by one.
const DIFFERENCES_MAX: usize = 5;

/// What the replay found.
#[derive(Default, serde::Serialize)]
struct Report {
    clearings: u64,
    equal: u64,
    different: u64,
    unreadable: u64,
    differences: Vec<String>,
}

/// `gavel auction replay FILE`.
pub fn run(path: &Path, format: Format) -> Result<(), Failure> {
    let mut report = Report::default();
    each_line(path, |place, line| count(&mut report, place, line))?;
    match format {
        Format::Json => println!("{}", serde_json::to_string(&report).map_err(Failure::other)?),
        Format::Text => {
            println!(
                "{} clearings, {} equal byte for byte, {} different, {} unreadable",
                report.clearings, report.equal, report.different, report.unreadable
            );
            report.differences.iter().for_each(|line| println!("  {line}"));
        }
    }
    if report.equal == report.clearings && report.clearings > 0 {
        return Ok(());
    }
    let what = if report.clearings == 0 { "no clearing in it" } else { "not every clearing comes out the same" };
    Err(Failure::damaged(format!("{}: {what}", path.display())))
}

/// Has every line of a file, or of the log's files of a folder in order, looked at, with its place. It need not be text: a
/// process that was ended by force leaves its last line cut off, perhaps amid a character.
pub fn each_line(path: &Path, mut look: impl FnMut(&str, &[u8])) -> Result<(), Failure> {
    for file in files(path)? {
        let mut reader = open(&file)?;
        for number in 1u64.. {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let place = format!("{}:{number}", file.display());
            if read.map_err(|e| Failure::damaged(format!("{place}: {e}")))? == 0 {
                break;
            }
            look(&place, line.strip_suffix(b"\n").unwrap_or(&line));
        }
    }
    Ok(())
}

fn count(report: &mut Report, place: &str, bytes: &[u8]) {
    report.clearings += 1;
    let read = std::str::from_utf8(bytes).map_err(|error| error.to_string());
    let cleared = read.and_then(|line| match gavel_router::clearing::replay(line) {
        Ok(again) => Ok((line, again)),
        Err(error) => Err(error.to_string()),
    });
    let difference = match cleared {
        Ok((line, again)) if again == line => {
            report.equal += 1;
            return;
        }
        Ok((line, again)) => {
            report.different += 1;
            let at = line.bytes().zip(again.bytes()).position(|(a, b)| a != b).unwrap_or(line.len().min(again.len()));
            format!("{place}: from byte {at}: logged {:?}, cleared {:?}", around(line, at), around(&again, at))
        }
        Err(error) => {
            report.unreadable += 1;
            format!("{place}: {error}")
        }
    };
    if report.differences.len() < DIFFERENCES_MAX {
        report.differences.push(difference);
    }
}

/// A few characters from a byte on.
fn around(line: &str, at: usize) -> String {
    String::from_utf8_lossy(line.as_bytes().get(at..).unwrap_or_default()).chars().take(40).collect()
}

/// The file, or the log's files of the folder in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let wrong = |e| Failure::usage(format!("{}: {e}", path.display()));
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let all = std::fs::read_dir(path).map_err(wrong)?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("clearings-"));
    let mut files: Vec<PathBuf> = all.filter(is_ours).collect();
    files.sort();
    Ok(files)
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let wrong = |e| Failure::usage(format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(wrong)?;
    match path.extension().is_some_and(|e| e == "zst") {
        true => Ok(Box::new(BufReader::new(zstd::Decoder::new(file).map_err(wrong)?))),
        false => Ok(Box::new(BufReader::new(file))),
    }
}
