//! Sizes, times and rates as people read and write them.

use std::time::Duration;

/// Largest message that is measured.
const SIZE_MAX: u64 = 1 << 30;

/// A message size: `8`, `4k`, `1m`, `1MiB`.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let wrong = || format!("{text:?} is no size; write sizes as 8,64,4k,1m");
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| wrong())?;
    let shift = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(wrong()),
    };
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes <= SIZE_MAX => usize::try_from(bytes).map_err(|_| wrong()),
        _ => Err(format!("{text:?} is more than the largest size, 1g")),
    }
}

/// Seconds: `2`, `0.5`.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time in seconds from 0.01 to 3600, as 0.5");
    let seconds: f64 = text.trim().trim_end_matches('s').parse().map_err(|_| wrong())?;
    if (0.01..=3600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

/// `8 B`, `4 KiB`, `1 MiB`; exact for multiples, else in bytes.
pub(crate) fn size(bytes: usize) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// Three digits and a unit: `412 ns`, `4.12 us`, `41.2 ms`.
pub(crate) fn time(nanoseconds: f64) -> String {
    scaled(nanoseconds, &["ns", "us", "ms", "s"])
}

/// `9.31 GB/s`.
pub(crate) fn bandwidth(bytes_per_second: f64) -> String {
    scaled(bytes_per_second, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])
}

/// `4.21 M/s`.
pub(crate) fn rate(per_second: f64) -> String {
    scaled(per_second, &["/s", "k/s", "M/s", "G/s"])
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_as_people_do() {
        for (text, bytes) in
            [("0", 0), ("8", 8), ("4k", 4096), ("1m", 1 << 20), ("1MiB", 1 << 20), (" 64 ", 64)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "8x", "1e3", "2g", "17179869185g", "99999999999999999999"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!([size(8), size(1000), size(4096), size(3 << 20)], ["8 B", "1000 B", "4 KiB", "3 MiB"]);
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [time(0.0), time(412.4), time(4123.0), time(999.6), time(41_230_000.0)];
        assert_eq!(shown, ["0.00 ns", "412 ns", "4.12 us", "1.00 us", "41.2 ms"]);
        assert_eq!([bandwidth(9.312e9), rate(4_210_000.0)], ["9.31 GB/s", "4.21 M/s"]);
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(["0", "-1", "nan", "inf", "x", "1e9"].iter().all(|text| parse_seconds(text).is_err()));
    }
}
