//! How often may a user see an ad, and who counts it?
//!
//! A campaign's rule bounds the impressions of one user within a rolling window, over one ad, the campaign or its
//! advertiser. [`rules`] says from the rules of a catalogue what an impression counts in and what is at its cap;
//! [`owners`] says which two nodes hold a user's counts. Routers and nodes compute both for themselves.

pub mod owners;
pub mod rules;

pub use owners::{Owners, owners};
pub use rules::{Capped, CounterLimit, RuleBook, Screen, SeenCount};

use crate::limits::{FREQUENCY_COUNT_MAX, FREQUENCY_RULES_MAX};
use crate::wire;
use std::fmt;

/// Hours of the three windows of days.
const DAYS: [(u16, u16); 3] = [(1, 24), (7, 168), (30, 720)];

/// A rolling window: 1 to 24 hours, or 1, 7 or 30 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrequencyWindow(u16);

impl FrequencyWindow {
    /// The longest.
    pub const MONTH: Self = Self(720);

    /// Of so many hours; `None` for a length that there is not.
    #[must_use]
    pub fn of_hours(hours: u32) -> Option<Self> {
        let hours = u16::try_from(hours).ok()?;
        ((1..=24).contains(&hours) || DAYS.iter().any(|(_, of)| *of == hours)).then_some(Self(hours))
    }

    /// `6h`, `1d`, `7d`, `30d`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(days) = text.strip_suffix('d') {
            let days: u16 = days.parse().ok()?;
            return DAYS.iter().find(|(count, _)| *count == days).map(|(_, hours)| Self(*hours));
        }
        Self::of_hours(text.strip_suffix('h')?.parse().ok().filter(|hours| *hours <= 24)?)
    }

    /// Its length.
    #[must_use]
    pub const fn hours(self) -> u16 {
        self.0
    }

    /// Its length.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 as u64 * 3_600_000
    }
}

impl fmt::Display for FrequencyWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DAYS.iter().find(|(_, hours)| *hours == self.0) {
            Some((days, _)) => write!(f, "{days}d"),
            None => write!(f, "{}h", self.0),
        }
    }
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrequencyScope {
    /// Each ad by itself.
    Ad,
    /// All ads of the campaign.
    Campaign,
    /// All ads of the advertiser, of whichever campaign.
    Advertiser,
}

impl FrequencyScope {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Campaign => 1,
            Self::Advertiser => 2,
            Self::Ad => 3,
        }
    }

    /// By its number on the wire.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Campaign),
            2 => Some(Self::Advertiser),
            3 => Some(Self::Ad),
            _ => None,
        }
    }

    /// The word in catalogues.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ad => "ad",
            Self::Campaign => "campaign",
            Self::Advertiser => "advertiser",
        }
    }

    /// By its word.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Ad, Self::Campaign, Self::Advertiser].into_iter().find(|scope| scope.name() == name)
    }
}

/// At most so many impressions a user within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrequencyRule {
    /// Counted together.
    pub scope: FrequencyScope,
    /// The rolling window.
    pub window: FrequencyWindow,
    /// 1 to [`FREQUENCY_COUNT_MAX`].
    pub max: u8,
}

impl FrequencyRule {
    /// A rule from its message.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_wire(rule: &wire::FrequencyRule) -> Result<Self, String> {
        let scope = FrequencyScope::from_number(rule.scope);
        let scope = scope.ok_or_else(|| format!("scope {} is none of ad, campaign, advertiser", rule.scope))?;
        let window = FrequencyWindow::of_hours(rule.window_hours);
        let window = window
            .ok_or_else(|| format!("a window of {} hours: there are 1h to 24h, 1d, 7d and 30d", rule.window_hours))?;
        Ok(Self { scope, window, max: impressions(rule.max)? })
    }

    /// Its message.
    #[must_use]
    pub fn to_wire(self) -> wire::FrequencyRule {
        wire::FrequencyRule {
            scope: self.scope.number(),
            window_hours: self.window.hours().into(),
            max: self.max.into(),
        }
    }
}

/// A bound within its limits.
///
/// # Errors
/// When it is 0 or too large to be counted.
pub fn impressions(max: u32) -> Result<u8, String> {
    let max = u8::try_from(max).ok().filter(|max| (1..=FREQUENCY_COUNT_MAX).contains(max));
    max.ok_or_else(|| format!("a frequency rule allows 1 to {FREQUENCY_COUNT_MAX} impressions"))
}

/// The rules of one campaign from their messages; at most one of a scope and window.
///
/// # Errors
/// What is wrong with the first wrong one, in words.
pub fn rules_from_wire(rules: &[wire::FrequencyRule]) -> Result<Vec<FrequencyRule>, String> {
    if rules.len() > FREQUENCY_RULES_MAX {
        return Err(format!("{} frequency rules, at most {FREQUENCY_RULES_MAX}", rules.len()));
    }
    let mut read = rules.iter().map(FrequencyRule::from_wire).collect::<Result<Vec<_>, _>>()?;
    read.sort_unstable();
    match read.windows(2).find(|pair| (pair[0].scope, pair[0].window) == (pair[1].scope, pair[1].window)) {
        Some(pair) => Err(format!("two frequency rules for {} in {}", pair[0].scope.name(), pair[0].window)),
        None => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_written_as_they_are_read() {
        for text in ["1h", "6h", "23h", "1d", "7d", "30d"] {
            assert_eq!(FrequencyWindow::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(FrequencyWindow::parse("24h"), FrequencyWindow::parse("1d"));
        for wrong in ["", "h", "0h", "25h", "168h", "2d", "1w", "-1h", "1.5h", "d"] {
            assert_eq!(FrequencyWindow::parse(wrong), None, "{wrong}");
        }
        assert_eq!(FrequencyWindow::of_hours(720), Some(FrequencyWindow::MONTH));
        assert_eq!(FrequencyWindow::of_hours(65_536 + 1), None);
    }

    #[test]
    fn a_rule_survives_its_message_and_a_wrong_one_is_named() {
        let rule = FrequencyRule {
            scope: FrequencyScope::Advertiser,
            window: FrequencyWindow::of_hours(168).expect("a week"),
            max: 3,
        };
        assert_eq!(rules_from_wire(&[rule.to_wire()]), Ok(vec![rule]));
        let wrong = |change: fn(&mut wire::FrequencyRule)| {
            let mut message = rule.to_wire();
            change(&mut message);
            rules_from_wire(&[message]).expect_err("wrong")
        };
        assert!(wrong(|r| r.scope = 9).contains("scope 9"));
        assert!(wrong(|r| r.window_hours = 25).contains("25 hours"));
        assert!(wrong(|r| r.max = 0).contains("1 to"));
        assert!(wrong(|r| r.max = 256).contains("1 to"));
        let twice = rules_from_wire(&[rule.to_wire(), FrequencyRule { max: 9, ..rule }.to_wire()]);
        assert_eq!(twice, Err("two frequency rules for advertiser in 7d".to_owned()));
    }
}
