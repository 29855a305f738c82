//! What do the logs of the processes say, line by line?

use crate::fleet::FleetError;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The fields that are read of a JSON line; others are not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Line {
    /// When.
    pub timestamp: String,
    /// The message.
    pub message: String,
    /// Which module.
    pub target: String,
    /// Of an answer: its auction.
    pub auction: u64,
    /// Of an answer: the version that was asked for.
    pub model: u64,
    /// Of an answer: the bundle that ranked.
    pub bundle: u64,
    /// Of an answer: the bundle that made the folder of vectors and activations.
    pub folder: u64,
    /// Of a switch: the version that serves.
    pub version: u64,
    /// Of a switch: the View.
    pub map_epoch: u64,
}

/// Visits every line of a log that can be read; a line that a kill has cut is none.
///
/// # Errors
/// When the file cannot be read.
pub fn each(path: &Path, mut visit: impl FnMut(&Line)) -> Result<(), FleetError> {
    let file = std::fs::File::open(path).map_err(FleetError::io(path))?;
    for line in BufReader::with_capacity(1 << 20, file).split(b'\n') {
        let line = line.map_err(FleetError::io(path))?;
        if let Ok(line) = serde_json::from_slice::<Line>(&line) {
            visit(&line);
        }
    }
    Ok(())
}

/// Microseconds since 1970 of `2026-11-26T19:08:00.123456Z`.
#[must_use]
pub fn micros(timestamp: &str) -> Option<u64> {
    let (date, time) = timestamp.trim_end_matches('Z').split_once('T')?;
    let mut date = date.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(|n| n.parse::<u64>().ok());
    let seconds = time.next()?? * 3_600 + time.next()?? * 60 + time.next()??;
    let fraction: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    // Days from the civil calendar (Hinnant, "chrono-compatible low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((u64::try_from(days).ok()? * 86_400 + seconds) * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_to_the_microsecond() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros("2000-03-01T00:00:01.5Z"), Some(951_868_801_500_000));
        assert_eq!(micros("2026-11-26T19:08:00.123456Z"), Some(1_795_720_080_123_456));
        assert_eq!(micros("yesterday"), None);
    }
}
