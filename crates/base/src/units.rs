//! Sizes and times as people write them: `8kb`, `1MiB`, `20ms`, `1.5s`, `forever`.
//!
//! Used by options, the command and reports. Parsing is exact: nothing is rounded in silence.

use std::fmt;
use std::time::Duration;

/// Why a text is no size or time; the text says what would be one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum UnitError {
    /// There is no number at the start.
    NoNumber,
    /// A time without a unit.
    NoUnit,
    /// The letters behind the number are no unit.
    UnknownUnit(String),
    /// Too large to count, or finer than a byte or a nanosecond.
    OutOfRange,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNumber => f.write_str("it does not begin with a number"),
            Self::NoUnit => f.write_str("a time needs a unit: ns, us, ms, s, min or h"),
            Self::UnknownUnit(unit) => {
                write!(f, "`{unit}` is no unit; sizes have b, k, m, g, t; times have ns, us, ms, s, min, h")
            }
            Self::OutOfRange => f.write_str(
                "it is out of range: at most 2^64-1 bytes or 584 years, no part of a byte or nanosecond",
            ),
        }
    }
}

impl std::error::Error for UnitError {}

/// Bytes from `4096`, `8k`, `8kb`, `8KiB`, `1.5m`, `2g`, `1t`: the letters mean powers of 1024 in every spelling, upper or
/// lower case; without letters the number counts bytes.
///
/// # Errors
/// [`UnitError`].
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(UnitError::UnknownUnit(unit.to_owned())),
    };
    scale(number, factor)
}

/// A time from `5us`, `20ms`, `1.5s`, `2min`, `1h`; `0` needs no unit. At most 2^64-1 nanoseconds.
///
/// # Errors
/// [`UnitError`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" => 1_000_000_000,
        "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" if number.bytes().all(|c| c == b'0') => 1,
        "" => return Err(UnitError::NoUnit),
        _ => return Err(UnitError::UnknownUnit(unit.to_owned())),
    };
    scale(number, factor).map(Duration::from_nanos)
}

/// As [`parse_duration`], and `None` for `forever` or `none`: for ever is asked for by name.
///
/// # Errors
/// [`UnitError`].
pub fn parse_duration_or_forever(text: &str) -> Result<Option<Duration>, UnitError> {
    match text.trim().to_ascii_lowercase().as_str() {
        "forever" | "none" => Ok(None),
        _ => parse_duration(text).map(Some),
    }
}

/// Prints bytes exactly, with the largest unit that needs no fraction: `8kb`, `1mb`, `4097`. [`parse_bytes`] reads it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "tb"), (30, "gb"), (20, "mb"), (10, "kb")];
        for (shift, unit) in units {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return f.pad(&format!("{}{unit}", self.0 >> shift));
            }
        }
        f.pad(&self.0.to_string())
    }
}

/// Prints a time exactly, with the largest unit that needs no fraction: `20ms`, `1500us`, `1h`, `0ns`. [`parse_duration`]
/// reads it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let units = [
            (3_600_000_000_000, "h"),
            (60_000_000_000, "min"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ];
        for (factor, unit) in units {
            if ns != 0 && ns.is_multiple_of(factor) {
                return f.pad(&format!("{}{unit}", ns / factor));
            }
        }
        f.pad(&format!("{ns}ns"))
    }
}

/// The number and the letters behind it.
fn split(text: &str) -> Result<(&str, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(UnitError::NoNumber);
    }
    Ok((number, unit.trim_start()))
}

/// `number`, which may have a fraction, times `factor`; an error when that is no whole number.
fn scale(number: &str, factor: u64) -> Result<u64, UnitError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value: u128 = 0;
    for digit in whole.bytes().filter(|&c| c != b'_') {
        value = value * 10 + u128::from(digit - b'0');
        if value > u128::from(u64::MAX) {
            return Err(UnitError::OutOfRange);
        }
    }
    value *= u128::from(factor);
    let fraction = fraction.trim_end_matches('0');
    if fraction.contains(['.', '_']) {
        return Err(UnitError::NoNumber);
    }
    if !fraction.is_empty() {
        // 24 digits more than cover a byte of a terabyte and a nanosecond of an hour.
        if fraction.len() > 24 {
            return Err(UnitError::OutOfRange);
        }
        let (mut numerator, mut denominator) = (0u128, 1u128);
        for digit in fraction.bytes() {
            numerator = numerator * 10 + u128::from(digit - b'0');
            denominator *= 10;
        }
        let shared = gcd(denominator, u128::from(factor));
        let (denominator, factor) = (denominator / shared, u128::from(factor) / shared);
        if !numerator.is_multiple_of(denominator) {
            return Err(UnitError::OutOfRange);
        }
        value += numerator / denominator * factor;
    }
    u64::try_from(value).map_err(|_| UnitError::OutOfRange)
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64k", 65_536),
            ("8kb", 8192),
            ("8 KiB", 8192),
            ("1m", 1 << 20),
            ("1MiB", 1 << 20),
            ("1.5g", 3 << 29),
            ("16_384", 16_384),
            (" 2t ", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn times_read_as_people_write_them() {
        for (text, ns) in [
            ("0", 0),
            ("5us", 5_000),
            ("5µs", 5_000),
            ("20ms", 20_000_000),
            ("3s", 3_000_000_000),
            ("1.5 s", 1_500_000_000),
            ("0.000000001s", 1),
            ("2min", 120_000_000_000),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
        assert_eq!(parse_duration_or_forever("Forever"), Ok(None));
        assert_eq!(parse_duration_or_forever("none"), Ok(None));
        assert_eq!(parse_duration_or_forever("1s"), Ok(Some(Duration::from_secs(1))));
    }

    #[test]
    fn what_is_no_size_or_time_says_why() {
        assert_eq!(parse_bytes(""), Err(UnitError::NoNumber));
        assert_eq!(parse_bytes("-1"), Err(UnitError::NoNumber));
        assert_eq!(parse_bytes("1.2.3"), Err(UnitError::NoNumber));
        assert_eq!(parse_bytes("5x"), Err(UnitError::UnknownUnit("x".into())));
        assert_eq!(parse_bytes("0.3"), Err(UnitError::OutOfRange));
        assert_eq!(parse_bytes("18446744073709551616"), Err(UnitError::OutOfRange));
        assert_eq!(parse_bytes("99999999t"), Err(UnitError::OutOfRange));
        assert_eq!(parse_duration("5"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration("5kb"), Err(UnitError::UnknownUnit("kb".into())));
        assert_eq!(parse_duration("forever"), Err(UnitError::NoNumber));
        assert!(UnitError::NoUnit.to_string().contains("ms"));
    }

    #[test]
    fn what_is_printed_reads_back() {
        for bytes in [0, 1, 1023, 1024, 8192, 8193, 1 << 20, 3 << 29, 1 << 40, u64::MAX] {
            assert_eq!(parse_bytes(&Bytes(bytes).to_string()), Ok(bytes));
        }
        for ns in [0, 1, 999, 1000, 1_500_000, 60_000_000_000, 3_600_000_000_000, u64::MAX] {
            let time = Duration::from_nanos(ns);
            assert_eq!(parse_duration(&Time(time).to_string()), Ok(time));
        }
        assert_eq!(Bytes(8192).to_string(), "8kb");
        assert_eq!(Time(Duration::from_millis(20)).to_string(), "20ms");
    }
}
