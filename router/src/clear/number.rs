//! Which number does this text stand for, exactly?
//!
//! A JSON reader would round `0.1` to a binary fraction, so numbers are read from their text: integers,
//! decimals with or without an exponent, and quotients `"p/q"`.

use gavel_proto::limits::{CLEAR_EXPONENT_MAX, CLEAR_NUMBER_BYTES_MAX};
use gavel_proto::money::PPM;
use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use serde_json::value::RawValue;

/// Why a text is no number that an auction can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Not a number at all.
    #[error("{0} is not a number: write 12, 0.35 or \"p/q\"")]
    NotANumber(String),
    /// A quotient by zero.
    #[error("{0} divides by zero")]
    DividesByZero(String),
    /// Longer than anything sensible.
    #[error(
        "the number is longer than {CLEAR_NUMBER_BYTES_MAX} characters or its exponent beyond {CLEAR_EXPONENT_MAX}: shorten it"
    )]
    TooLong,
    /// Below zero.
    #[error("{0} is negative: use an amount of 0 or more")]
    Negative(String),
    /// A finer fraction than money has.
    #[error("{0} is not a whole number of micros: round it to six decimals")]
    TooFine(String),
    /// More than 64 bits of micros.
    #[error("{0} is too large: at most 18446744073709.551615")]
    TooLarge(String),
}

/// Reads a JSON number or a string that holds one; never negative.
pub fn read(raw: &RawValue) -> Result<BigRational, NumberError> {
    let json = raw.get();
    if json.len() > CLEAR_NUMBER_BYTES_MAX {
        return Err(NumberError::TooLong);
    }
    let quoted: Option<String> = serde_json::from_str(json).ok();
    let text = quoted.as_deref().unwrap_or(json).trim();
    let number = quotient(text)?;
    if number.is_negative() { Err(NumberError::Negative(text.to_owned())) } else { Ok(number) }
}

/// An amount of currency in micros.
pub fn micros(raw: &RawValue) -> Result<u64, NumberError> {
    let micros = read(raw)? * BigInt::from(PPM);
    if !micros.is_integer() {
        return Err(NumberError::TooFine(raw.get().to_owned()));
    }
    micros.to_integer().to_u64().ok_or_else(|| NumberError::TooLarge(raw.get().to_owned()))
}

/// The smallest integers with the same ratios.
pub fn scaled_together(numbers: &[BigRational]) -> Vec<BigUint> {
    let multiple = numbers.iter().fold(BigInt::one(), |m, n| num_lcm(&m, n.denom()));
    let scaled: Vec<BigInt> = numbers.iter().map(|n| n.numer() * (&multiple / n.denom())).collect();
    let divisor = scaled.iter().fold(BigInt::zero(), |d, n| num_gcd(&d, n)).max(BigInt::one());
    scaled.iter().map(|n| (n / &divisor).magnitude().clone()).collect()
}

fn quotient(text: &str) -> Result<BigRational, NumberError> {
    let Some((numerator, denominator)) = text.split_once('/') else { return decimal(text) };
    let denominator = decimal(denominator.trim())?;
    if denominator.is_zero() {
        return Err(NumberError::DividesByZero(text.to_owned()));
    }
    Ok(decimal(numerator.trim())? / denominator)
}

fn decimal(text: &str) -> Result<BigRational, NumberError> {
    let not_a_number = || NumberError::NotANumber(text.to_owned());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| not_a_number())?),
        None => (text, 0),
    };
    if exponent.unsigned_abs() > CLEAR_EXPONENT_MAX {
        return Err(NumberError::TooLong);
    }
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = format!("{whole}{fraction}");
    if all_digits.is_empty() || !all_digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(not_a_number());
    }
    let value: BigInt = all_digits.parse().map_err(|_| not_a_number())?;
    // At most CLEAR_NUMBER_BYTES_MAX fractional digits, so the shift is small.
    let shift = exponent - fraction.len() as i32;
    let power = BigInt::from(10).pow(shift.unsigned_abs());
    let value = if shift < 0 { BigRational::new(value, power) } else { BigRational::from(value * power) };
    Ok(value * BigInt::from(sign))
}

fn num_gcd(a: &BigInt, b: &BigInt) -> BigInt {
    let (mut a, mut b) = (a.clone(), b.clone());
    while !b.is_zero() {
        (a, b) = (b.clone(), a % b);
    }
    a
}

fn num_lcm(a: &BigInt, b: &BigInt) -> BigInt {
    a / num_gcd(a, b) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<BigRational, NumberError> {
        read(&RawValue::from_string(json.to_owned()).expect("JSON"))
    }

    #[test]
    fn texts_are_read_exactly() {
        let ratio = |p: i64, q: i64| Ok(BigRational::new(p.into(), q.into()));
        assert_eq!(of("0.1"), ratio(1, 10));
        assert_eq!(of("12"), ratio(12, 1));
        assert_eq!(of("1.5e3"), ratio(1500, 1));
        assert_eq!(of("25E-2"), ratio(1, 4));
        assert_eq!(of("\"33/50\""), ratio(33, 50));
        assert_eq!(of("\" 0.5 / 1.5 \""), ratio(1, 3));
        assert_eq!(of("0.12345678901234567890123"), of("\"12345678901234567890123/100000000000000000000000\""));
    }

    #[test]
    fn what_is_no_number_is_named() {
        for json in
            ["null", "true", "[1]", "{}", "\"\"", "\"1/2/3\"", "\"abc\"", "\"1e\"", "\".\"", "\"0x10\"", "\"1_0\""]
        {
            assert!(matches!(of(json), Err(NumberError::NotANumber(_))), "{json}");
        }
        assert!(matches!(of("\"1/0\""), Err(NumberError::DividesByZero(_))));
        assert!(matches!(of("-1"), Err(NumberError::Negative(_))));
        assert_eq!(of("1e999999999"), Err(NumberError::TooLong));
        assert_eq!(of(&"9".repeat(1_000)), Err(NumberError::TooLong));
    }

    #[test]
    fn ratios_survive_scaling() {
        let scaled = |texts: &[&str]| {
            let numbers: Vec<_> = texts.iter().map(|t| of(t).expect("a number")).collect();
            scaled_together(&numbers).iter().map(|n| n.to_u64().expect("small")).collect::<Vec<_>>()
        };
        assert_eq!(scaled(&["2", "1", "\"3/2\""]), [4, 2, 3]);
        assert_eq!(scaled(&["200", "100"]), [2, 1]);
        assert_eq!(scaled(&["0.1", "0.25"]), [2, 5]);
    }
}
