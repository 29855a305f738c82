//! When do an ad's conditions and a request's statements meet?
//!
//! What loader, router and node must agree on so that a value written in a catalogue and one stated in a
//! request are the same bytes: the kinds of dimensions, the normal form of a keyword, the order of numbers,
//! and the hour of a week. `docs/targeting.md` is the language; this is its arithmetic.

use crate::wire;

/// Hours of a week; hour 0 begins on Monday at midnight.
pub const HOURS_PER_WEEK: u32 = 168;

/// What a dimension's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DimensionKind {
    /// Words, compared as they are written.
    #[default]
    Set,
    /// Words, compared in their normal form ([`keyword`]).
    Keyword,
    /// A number, compared with ranges.
    Number,
}

impl DimensionKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Set, Self::Keyword, Self::Number];

    /// The word in `targeting.toml` and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Keyword => "keyword",
            Self::Number => "number",
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn wire(self) -> wire::DimensionKind {
        match self {
            Self::Set => wire::DimensionKind::Set,
            Self::Keyword => wire::DimensionKind::Keyword,
            Self::Number => wire::DimensionKind::Number,
        }
    }

    /// From the number on the wire; an unknown one is a set.
    #[must_use]
    pub const fn of_wire(kind: wire::DimensionKind) -> Self {
        match kind {
            wire::DimensionKind::Set => Self::Set,
            wire::DimensionKind::Keyword => Self::Keyword,
            wire::DimensionKind::Number => Self::Number,
        }
    }
}

/// The normal form of a keyword: lower case; apostrophes dropped; letters, digits, combining marks and the
/// signs `+ # &` kept; every other run of signs one space; none at the ends. Empty when nothing is left.
/// No Unicode composition is done: write both sides composed (NFC), as keyboards and browsers do.
#[must_use]
pub fn keyword(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut gap = false;
    for sign in text.chars() {
        match sign {
            '\'' | '\u{2019}' => {}
            '+' | '#' | '&' | '\u{300}'..='\u{36f}' => word(&mut out, &mut gap, sign),
            _ if sign.is_alphanumeric() => sign.to_lowercase().for_each(|low| word(&mut out, &mut gap, low)),
            _ => gap = true,
        }
    }
    out
}

fn word(out: &mut String, gap: &mut bool, sign: char) {
    if *gap && !out.is_empty() {
        out.push(' ');
    }
    *gap = false;
    out.push(sign);
}

/// The place of a number in the order of all finite numbers: `a < b` exactly when `order(a) < order(b)`, and 0
/// stands once. `None` for what is no finite number.
#[must_use]
pub fn order(number: f64) -> Option<u64> {
    // Adding 0 turns -0 into 0.
    let bits = (number.is_finite()).then(|| (number + 0.0).to_bits())?;
    Some(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
}

/// Numbers from `from` up to but not including `to`, in the order of [`order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// The first place inside.
    pub from: u64,
    /// The first place behind; `u64::MAX` = unbounded, because no finite number stands there.
    pub to: u64,
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// None.
    Open,
    /// This number is inside.
    At(f64),
    /// This number is outside, its neighbour inside.
    Beyond(f64),
}

impl Interval {
    /// The interval between two ends; `None` when an end is not finite or nothing is inside.
    #[must_use]
    pub fn between(low: Bound, high: Bound) -> Option<Self> {
        let from = match low {
            Bound::Open => 0,
            Bound::At(number) => order(number)?,
            Bound::Beyond(number) => order(number)? + 1,
        };
        let to = match high {
            Bound::Open => u64::MAX,
            Bound::At(number) => order(number)? + 1,
            Bound::Beyond(number) => order(number)?,
        };
        (from < to).then_some(Self { from, to })
    }

    /// From the wire: at most one lower and one upper end, both finite, something inside.
    #[must_use]
    pub fn of_wire(range: &wire::NumberRange) -> Option<Self> {
        Self::between(end(range.min, range.above)?, end(range.max, range.below)?)
    }

    /// True when a number's place is inside.
    #[must_use]
    pub const fn holds(self, place: u64) -> bool {
        self.from <= place && place < self.to
    }
}

fn end(at: Option<f64>, beyond: Option<f64>) -> Option<Bound> {
    match (at, beyond) {
        (None, None) => Some(Bound::Open),
        (Some(at), None) => Some(Bound::At(at)),
        (None, Some(beyond)) => Some(Bound::Beyond(beyond)),
        (Some(_), Some(_)) => None,
    }
}

/// Hours of a week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hours([u64; 3]);

impl Hours {
    /// From the three words of the wire; `None` with another number of words or an hour that no week has.
    #[must_use]
    pub fn of_words(words: &[u64]) -> Option<Self> {
        let words: [u64; 3] = words.try_into().ok()?;
        (words[2] >> (HOURS_PER_WEEK - 128) == 0).then_some(Self(words))
    }

    /// The words, hour 0 in the lowest bit of the first.
    #[must_use]
    pub const fn words(self) -> [u64; 3] {
        self.0
    }

    /// Adds an hour; nothing beyond the week.
    pub fn insert(&mut self, hour: u32) {
        if hour < HOURS_PER_WEEK {
            self.0[(hour / 64) as usize] |= 1 << (hour % 64);
        }
    }

    /// True when the hour is among them.
    #[must_use]
    pub fn contains(self, hour: u32) -> bool {
        hour < HOURS_PER_WEEK && self.0[(hour / 64) as usize] >> (hour % 64) & 1 == 1
    }

    /// How many they are.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// The hour of the week at an instant, under an offset from UTC. Every instant has exactly one, so a clock that
/// is set back shows an hour twice and one that is set forward leaves an hour out; nothing is ambiguous.
#[must_use]
pub fn hour_of_week(unix_s: i64, offset_s: i32) -> u32 {
    // 1970-01-01 was a Thursday: three days after the Monday that begins its week.
    let hours = (unix_s.saturating_add(offset_s.into())).div_euclid(3_600).saturating_add(3 * 24);
    hours.rem_euclid(HOURS_PER_WEEK.into()) as u32
}

/// The known name that a wrong one was most likely meant to be; `None` when none is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (name.chars().count() / 3).max(1);
    let scored = known.map(|candidate| (distance(name, candidate), candidate));
    scored.filter(|(edits, _)| *edits <= reach).min().map(|(_, candidate)| candidate)
}

/// Edits between two names: insertions, deletions, replacements, and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().take(64).collect(), b.to_lowercase().chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, far) | (far, 0) => far,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let shifted = rows[i - 1][j].min(rows[i][j - 1]) + 1;
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let swapped = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                    replaced.min(shifted).min(swapped)
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keywords_meet_in_their_normal_form() {
        for (written, normal) in [
            ("  Running   SHOES ", "running shoes"),
            ("Men's / women\u{2019}s", "mens womens"),
            ("C++", "c++"),
            ("C#", "c#"),
            ("M&M", "m&m"),
            ("ÉCLAIR", "éclair"),
            ("e\u{301}clair", "e\u{301}clair"),
            ("wi-fi_6e", "wi fi 6e"),
            ("寿司", "寿司"),
            ("?!", ""),
        ] {
            assert_eq!(keyword(written), normal);
            assert_eq!(keyword(normal), normal, "the normal form is its own");
        }
    }

    #[test]
    fn ends_are_inside_or_outside_as_they_say() {
        let place = |number: f64| order(number).expect("finite");
        let check = |low, high, inside: &[f64], outside: &[f64]| {
            let interval = Interval::between(low, high).expect("something inside");
            assert!(inside.iter().all(|n| interval.holds(place(*n))), "{interval:?}");
            assert!(!outside.iter().any(|n| interval.holds(place(*n))), "{interval:?}");
        };
        check(Bound::At(18.0), Bound::Beyond(25.0), &[18.0, 24.999], &[17.999, 25.0]);
        check(Bound::Beyond(0.0), Bound::Open, &[f64::MIN_POSITIVE, f64::MAX], &[0.0, -0.0, -1.0]);
        check(Bound::Open, Bound::At(-0.0), &[0.0, -0.0, f64::MIN], &[1e-300]);
        assert_eq!(Interval::between(Bound::At(2.0), Bound::Beyond(2.0)), None);
        assert_eq!(Interval::between(Bound::At(f64::NAN), Bound::Open), None);
        let both = wire::NumberRange { min: Some(1.0), above: Some(1.0), ..Default::default() };
        assert_eq!(Interval::of_wire(&both), None);
    }

    #[test]
    fn weeks_begin_on_monday() {
        assert_eq!(hour_of_week(0, 0), 72, "1970 began on a Thursday");
        assert_eq!(hour_of_week(4 * 86_400, 0), 0);
        assert_eq!(hour_of_week(4 * 86_400, -1), 167);
        assert_eq!(hour_of_week(-3 * 86_400, 0), 0);
        // 2026-03-29T01:00Z, when Berlin's clocks go from 02:00 to 03:00: Sunday.
        assert_eq!(hour_of_week(1_774_746_000 - 1, 3_600), 6 * 24 + 1);
        assert_eq!(hour_of_week(1_774_746_000, 7_200), 6 * 24 + 3);
        assert_eq!(hour_of_week(0, 19_800), 72 + 5, "India is half an hour off");
        let mut hours = Hours::default();
        (0..HOURS_PER_WEEK + 9).for_each(|hour| hours.insert(hour));
        assert_eq!(hours.count(), HOURS_PER_WEEK);
        assert_eq!(Hours::of_words(&hours.words()), Some(hours));
        assert_eq!(Hours::of_words(&[0, 0, 1 << 40]), None);
    }

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let known = ["store", "device", "segment"];
        let near = |name| nearest(name, known.into_iter());
        assert_eq!(near("stroe"), Some("store"));
        assert_eq!(near("Store"), Some("store"));
        assert_eq!(near("devices"), Some("device"));
        assert_eq!(near("geo"), None);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_numbers(a in proptest::num::f64::NORMAL, b in proptest::num::f64::ANY) {
            prop_assert_eq!(order(b).is_some(), b.is_finite());
            if let (Some(x), Some(y)) = (order(a), order(b)) {
                prop_assert_eq!(x.cmp(&y), a.partial_cmp(&b).expect("finite"));
                prop_assert!(y < u64::MAX);
            }
        }

        #[test]
        fn a_normal_form_is_its_own(text in ".{0,40}") {
            let normal = keyword(&text);
            prop_assert_eq!(keyword(&normal), normal);
        }
    }
}
