//! Which hours of the week does this text name?
//!
//! `mon-fri 08-18`, `sat,sun 10-14,16-20`, `mon-sun 22-02`: days, then hours, each a list of single ones or ranges.
//! `08-18` is from 08:00 to 18:00; a range that ends at or before its begin goes on into the next day.

use gavel_proto::targeting::Hours;
use std::collections::BTreeSet;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// The hours of all these texts together.
pub(super) fn hours(texts: &[String]) -> Result<Hours, String> {
    let mut hours = Hours::default();
    for text in texts {
        let wrong =
            || format!("schedule {text:?}: write days and hours as \"mon-fri 08-18\" or \"sat,sun 10-14,22-02\"");
        let lower = text.trim().to_ascii_lowercase();
        let (named, spans) = lower.split_once(char::is_whitespace).ok_or_else(wrong)?;
        let days = days(named).ok_or_else(wrong)?;
        for span in spans.trim().split(',') {
            let (from, to) = span.trim().split_once('-').ok_or_else(wrong)?;
            let (from, to) = (hour(from).ok_or_else(wrong)?, hour(to).ok_or_else(wrong)?);
            if from == to || from == 24 {
                return Err(wrong());
            }
            let length = if to > from { to - from } else { to + 24 - from };
            for day in &days {
                (0..length).for_each(|n| hours.insert((day * 24 + from + n) % 168));
            }
        }
    }
    Ok(hours)
}

fn days(named: &str) -> Option<BTreeSet<u32>> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name.trim()).map(|at| at as u32);
    let mut days = BTreeSet::new();
    for part in named.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (day(from)?, day(to)?);
        days.extend((0..=(to + 7 - from) % 7).map(|n| (from + n) % 7));
    }
    Some(days)
}

fn hour(text: &str) -> Option<u32> {
    let digits = text.trim();
    let plain = !digits.is_empty() && digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|hour| plain && *hour <= 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[u32]) {
        let hours = hours(&[text.to_owned()]).expect(text);
        let found: Vec<u32> = (0..168).filter(|hour| hours.contains(*hour)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn hours_of_the_week() {
        check("mon 08-10", &[8, 9]);
        check("TUE,thu 23-24", &[47, 95]);
        check("sun 22-02", &[0, 1, 166, 167]);
        check("sat-mon 0-1,5-6", &[0, 5, 120, 125, 144, 149]);
        check("mon-sun 00-24", &(0..168).collect::<Vec<_>>());
        for wrong in
            ["", "mon", "mon 8", "mon 08:00-10:00", "mo 8-9", "mon 8-8", "mon 24-2", "mon 8-25", "8-9 mon", "mon +1-2"]
        {
            assert!(hours(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
