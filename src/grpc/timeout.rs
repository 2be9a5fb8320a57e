//! `grpc-timeout`: how long a caller waits. What is left of it is forwarded, so that everybody
//! behind gives up at the same moment.

use std::time::Duration;

use crate::telemetry::decimal;

/// At most eight digits and a unit, as the protocol has it: no sign, no space, nothing else.
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=DIGITS_MAX).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Appends a value in the finest unit that has room for it, rounded down: nobody behind waits
/// longer than the caller does.
pub fn format(left: Duration, out: &mut Vec<u8>) {
    let whole = left.as_secs();
    let units = [
        (left.as_nanos(), b'n'),
        (left.as_micros(), b'u'),
        (left.as_millis(), b'm'),
        (u128::from(whole), b'S'),
        (u128::from(whole / 60), b'M'),
        (u128::from(whole / 3600), b'H'),
    ];
    let fits = units.into_iter().find(|(number, _)| *number < NUMBER_END);
    let (number, unit) = fits.unwrap_or((NUMBER_END - 1, b'H'));
    decimal::integer(number as u64, out);
    out.push(unit);
}

const DIGITS_MAX: usize = 8;
const NUMBER_END: u128 = 10_u128.pow(DIGITS_MAX as u32);

pub fn fuzz(bytes: &[u8]) {
    if let Some(parsed) = parse(bytes) {
        let mut out = Vec::new();
        format(parsed, &mut out);
        assert!(parse(&out).is_some_and(|again| again <= parsed), "never longer than it was");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(left: Duration) -> String {
        let mut out = Vec::new();
        format(left, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_unit_is_read() {
        let hour = Duration::from_secs(3600);
        let cases = [
            ("1H", hour),
            ("60M", hour),
            ("3600S", hour),
            ("3600000m", hour),
            ("5u", Duration::from_micros(5)),
            ("00000007n", Duration::from_nanos(7)),
            ("99999999H", hour * 99_999_999),
            ("0S", Duration::ZERO),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_refused() {
        for text in
            ["", "S", "5", "5s", "5h", "-5S", "+5S", " 5S", "5 S", "5S ", "5.0S", "123456789n"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_left_is_written_as_finely_as_it_fits_and_never_rounded_up() {
        assert_eq!(formatted(Duration::ZERO), "0n");
        assert_eq!(formatted(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(formatted(Duration::from_nanos(100_000_999)), "100000u");
        assert_eq!(formatted(Duration::from_millis(4_999)), "4999000u");
        assert_eq!(formatted(Duration::from_micros(100_000_999)), "100000m");
        assert_eq!(formatted(Duration::from_secs(100_000)), "100000S");
        assert_eq!(formatted(Duration::from_secs(100_000_059)), "1666667M");
        assert_eq!(formatted(Duration::MAX), "99999999H");
    }

    #[test]
    fn a_value_that_is_passed_on_again_and_again_never_grows() {
        for micros in [1, 99, 123_456, 7_654_321_123, 999_999_999_999_999] {
            fuzz(formatted(Duration::from_micros(micros)).as_bytes());
        }
    }
}
