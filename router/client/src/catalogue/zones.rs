//! Which offset has this time zone, and when?
//!
//! A zone is an IANA name or a fixed offset. What the database says of it for half a century is written into the
//! catalogue, so that every replica computes the same hour, whatever its host knows of time zones. Rules that change
//! later arrive with the next load by a newer version.

use gavel_proto::limits::ZONE_OFFSETS_MAX;
use gavel_proto::targeting::nearest;
use gavel_proto::wire;
use jiff::{Timestamp, tz::TimeZone};

/// The zone of schedules that name none.
pub(super) const UTC: &str = "UTC";
/// 2000-01-01 and 2050-01-01, unix seconds: fixed, so that equal catalogues give equal blobs.
const SPAN: (i64, i64) = (946_684_800, 2_524_608_000);
/// The largest offset in use, and so the largest that is taken.
const OFFSET_HOURS_MAX: i32 = 14;

/// The name under which a zone is kept.
pub(super) fn name(text: &str) -> Result<String, String> {
    if fixed(text).is_some() {
        return Ok(text.to_owned());
    }
    if let Ok(zone) = TimeZone::get(text)
        && let Some(name) = zone.iana_name()
    {
        return Ok(name.to_owned());
    }
    let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    let near = nearest(text, known.iter().map(String::as_str)).map_or_else(
        || "give an IANA name such as Europe/Berlin, or an offset such as +05:30".to_owned(),
        |near| format!("did you mean {near:?}?"),
    );
    Err(format!("time_zone {text:?} is not known: {near}"))
}

/// The offsets of a zone by its name, for whoever needs a midnight.
///
/// # Errors
/// When it is no zone: what to write.
pub fn offsets(text: &str) -> Result<wire::TimeZone, String> {
    Ok(table(&name(text)?))
}

/// The unix second of an instant such as `2026-12-01T00:00:00Z`.
#[must_use]
pub fn instant(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// The offsets of a zone that [`name`] gave.
pub(super) fn table(name: &str) -> wire::TimeZone {
    let offsets = match fixed(name) {
        Some(seconds) => vec![(SPAN.0, seconds)],
        None => TimeZone::get(name).ok().and_then(|zone| of_database(&zone)).unwrap_or_else(|| vec![(SPAN.0, 0)]),
    };
    let (starts, offset_seconds) = offsets.into_iter().unzip();
    wire::TimeZone { name: name.to_owned(), starts, offset_seconds }
}

fn of_database(zone: &TimeZone) -> Option<Vec<(i64, i32)>> {
    let begin = Timestamp::from_second(SPAN.0).ok()?;
    let mut offsets = vec![(SPAN.0, zone.to_offset(begin).seconds())];
    for change in zone.following(begin).take_while(|change| change.timestamp().as_second() < SPAN.1) {
        let seconds = change.offset().seconds();
        if offsets.last().is_some_and(|(_, last)| *last != seconds) && offsets.len() < ZONE_OFFSETS_MAX {
            offsets.push((change.timestamp().as_second(), seconds));
        }
    }
    Some(offsets)
}

/// Seconds of `+HH:MM` or `-HH:MM`.
fn fixed(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let two =
        |digits: &str| digits.parse::<i32>().ok().filter(|_| digits.len() == 2 && !digits.starts_with(['+', '-']));
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let inside = minutes < 60 && hours * 60 + minutes <= OFFSET_HOURS_MAX * 60;
    inside.then_some(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset_at(zone: &wire::TimeZone, unix_s: i64) -> i32 {
        zone.offset_seconds[zone.starts.partition_point(|start| *start <= unix_s).saturating_sub(1)]
    }

    #[test]
    fn clocks_move_when_they_do() {
        let berlin = table(&name("europe/berlin").expect("known"));
        assert_eq!(berlin.name, "Europe/Berlin");
        // 2026-03-29T01:00Z and 2026-10-25T01:00Z.
        for (at, before, after) in [(1_774_746_000, 3_600, 7_200), (1_792_890_000, 7_200, 3_600)] {
            assert_eq!((offset_at(&berlin, at - 1), offset_at(&berlin, at)), (before, after));
        }
        assert!(berlin.starts.is_sorted_by(|a, b| a < b) && berlin.starts.len() == 101, "{}", berlin.starts.len());
        // The south moves the other way round, by half an hour on Lord Howe Island.
        let howe = table("Australia/Lord_Howe");
        assert_eq!((offset_at(&howe, 1_767_225_600), offset_at(&howe, 1_780_272_000)), (39_600, 37_800));
        assert_eq!(table("Asia/Kolkata").offset_seconds, [19_800]);
        assert_eq!(table(UTC).offset_seconds, [0]);
        assert_eq!(table("-03:30").offset_seconds, [-12_600]);
    }

    #[test]
    fn every_zone_fits_its_limit() {
        for zone in jiff::tz::db().available() {
            let length = table(&zone.to_string()).starts.len();
            assert!(length < ZONE_OFFSETS_MAX, "{zone}: {length}");
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_nearest() {
        assert_eq!(
            name("Europe/Berln").expect_err("wrong"),
            "time_zone \"Europe/Berln\" is not known: did you mean \"Europe/Berlin\"?"
        );
        for wrong in ["", "+5:30", "+15:00", "+05:60", "+-5:30", "Mars/Olympus"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
