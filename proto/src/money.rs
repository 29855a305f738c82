//! What is an amount of money?
//!
//! Bids and prices are integer micros of the currency; the ledger counts nanos, because a CPM price in
//! micros is numerically the price of one impression in nanos. Nothing here is a float, except the one
//! conversion of a document's decimal text, which is exact.

use serde::{Deserialize, Serialize};

/// Micros of the currency, per event of a bid type (per mille for CPM and oCPM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

/// Nanos of the currency: what the ledger counts in. Signed, so that a wrong subtraction shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub i64);

impl Nanos {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum; `None` when it does not fit.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` when it is negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).filter(|rest| *rest >= 0).map(Self)
    }

    /// The amount of so many micros; `None` when it does not fit.
    #[must_use]
    pub fn of_micros(micros: Micros) -> Option<Self> {
        i64::try_from(micros.0).ok()?.checked_mul(1_000).map(Self)
    }
}

/// One, in parts per million.
pub const PPM: u32 = 1_000_000;

impl Micros {
    /// The bid after pacing: `floor(multiplier * bid)`, applied before ranking (auction chapter, section 0).
    #[must_use]
    pub fn paced(self, multiplier_ppm: u32) -> Self {
        let scaled = u128::from(self.0) * u128::from(multiplier_ppm.min(PPM)) / u128::from(PPM);
        // A quotient by at least the factor it was multiplied with fits what it came from.
        Self(u64::try_from(scaled).unwrap_or(self.0))
    }

    /// Reads a decimal such as `1.25` exactly.
    ///
    /// # Errors
    /// When the text is not a plain decimal, is negative, has more than six fractional digits, or does not fit.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let text = text.trim();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
            return Err(MoneyError::NotADecimal);
        }
        if fraction.len() > 6 {
            return Err(MoneyError::TooFine);
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| MoneyError::TooLarge)? };
        let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| MoneyError::NotADecimal)?;
        whole
            .checked_mul(u64::from(PPM))
            .and_then(|micros| micros.checked_add(fraction))
            .map(Self)
            .ok_or(MoneyError::TooLarge)
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / u64::from(PPM), self.0 % u64::from(PPM))
    }
}

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Only digits with at most one point are read.
    #[error("not a decimal number: write it as 12.34")]
    NotADecimal,
    /// Micros have six fractional digits.
    #[error("more than six fractional digits")]
    TooFine,
    /// Above the largest amount.
    #[error("the amount is too large")]
    TooLarge,
}

/// In which event a bid is stated, and which event is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BidType {
    /// Bid per thousand impressions, billed per impression.
    Cpm,
    /// Bid per click, billed per click.
    Cpc,
    /// Bid per conversion, billed per conversion.
    Cpa,
    /// Bid per conversion, billed per impression.
    Ocpm,
    /// Bid per conversion, billed per click.
    Ocpc,
}

impl BidType {
    /// Every bid type, in the order of their wire numbers 1..=5.
    pub const ALL: [Self; 5] = [Self::Cpm, Self::Cpc, Self::Cpa, Self::Ocpm, Self::Ocpc];

    /// The wire number, 1..=5.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Cpm => 1,
            Self::Cpc => 2,
            Self::Cpa => 3,
            Self::Ocpm => 4,
            Self::Ocpc => 5,
        }
    }

    /// The bid type of a wire number; `None` for 0 and for numbers of a newer version.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.number() == number)
    }

    /// As the API, catalogues and logs spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpm => "cpm",
            Self::Cpc => "cpc",
            Self::Cpa => "cpa",
            Self::Ocpm => "ocpm",
            Self::Ocpc => "ocpc",
        }
    }

    /// The bid type of such a name, in either case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// Whether an impression is billed, whatever is bid for. Nothing may be served that could not be charged, so a
    /// router holds leased money for each; a click or a conversion is charged when it comes.
    #[must_use]
    pub const fn is_billed_by_impression(self) -> bool {
        match self {
            Self::Cpm | Self::Ocpm => true,
            Self::Cpc | Self::Cpa | Self::Ocpc => false,
        }
    }

    /// Whether the bid is for a conversion, whatever is billed.
    #[must_use]
    pub const fn is_for_conversions(self) -> bool {
        matches!(self, Self::Cpa | Self::Ocpm | Self::Ocpc)
    }
}

/// Whether what is billed by the impression takes part in an auction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Leased {
    /// It does: the router can charge for it, or there was never a ledger.
    #[default]
    Admitted,
    /// Nothing could be charged for it, and budgets would be overspent unseen: it takes no part, and sets no price.
    Out,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::StrDeserializer;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(Micros::parse("1.25"), Ok(Micros(1_250_000)));
        assert_eq!(Micros::parse("0.000001"), Ok(Micros(1)));
        assert_eq!(Micros::parse(".5"), Ok(Micros(500_000)));
        assert_eq!(Micros::parse("0.0000001"), Err(MoneyError::TooFine));
        assert_eq!(Micros::parse("-1"), Err(MoneyError::NotADecimal));
        assert_eq!(Micros::parse("1e3"), Err(MoneyError::NotADecimal));
        assert_eq!(Micros::parse("99999999999999999999"), Err(MoneyError::TooLarge));
        assert_eq!(Micros(1_250_000).to_string(), "1.250000");
    }

    #[test]
    fn bid_types_have_one_name_everywhere() {
        let names = BidType::ALL.map(BidType::name);
        assert_eq!(names, ["cpm", "cpc", "cpa", "ocpm", "ocpc"]);
        assert_eq!(names.map(BidType::from_name), BidType::ALL.map(Some));
        assert_eq!([BidType::from_name("oCPM"), BidType::from_name("cpv")], [Some(BidType::Ocpm), None]);
        for bid_type in BidType::ALL {
            let named: StrDeserializer<'_, serde::de::value::Error> = bid_type.name().into_deserializer();
            assert_eq!(BidType::deserialize(named), Ok(bid_type));
            assert_eq!(BidType::from_number(bid_type.number()), Some(bid_type));
        }
        let by_impression = BidType::ALL.map(BidType::is_billed_by_impression);
        assert_eq!(by_impression, [true, false, false, true, false]);
    }

    #[test]
    fn pacing_rounds_down_and_never_raises() {
        assert_eq!(Micros(3).paced(500_000), Micros(1));
        assert_eq!(Micros(u64::MAX).paced(PPM), Micros(u64::MAX));
        assert_eq!(Micros(7).paced(2_000_000), Micros(7));
    }
}
