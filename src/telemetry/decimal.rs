//! Numbers as text, without the format machinery: every access-log line holds a dozen of them.

/// Appends `value` in decimal.
pub fn integer(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    let mut rest = value;
    loop {
        start -= 1;
        digits[start] = digit(rest);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends the last `width` digits of `value`, with leading zeros.
pub fn padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = value;
    for place in out[start..].iter_mut().rev() {
        *place = digit(rest);
        rest /= 10;
    }
}

/// Appends microseconds as milliseconds with three decimals: no rounding, so that parts add up.
pub fn micros_as_millis(micros: u64, out: &mut Vec<u8>) {
    integer(micros / 1000, out);
    out.push(b'.');
    padded(micros % 1000, 3, out);
}

/// Appends microseconds as seconds with six decimals.
pub fn micros_as_seconds(micros: u64, out: &mut Vec<u8>) {
    integer(micros / 1_000_000, out);
    out.push(b'.');
    padded(micros % 1_000_000, 6, out);
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

/// Of `u64::MAX`.
const DIGITS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_are_written_as_std_writes_them() {
        for value in [0, 1, 9, 10, 99, 100, 12_345, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(text(|out| integer(value, out)), value.to_string());
        }
    }

    #[test]
    fn padding_keeps_the_width_and_the_last_digits() {
        assert_eq!(text(|out| padded(7, 3, out)), "007");
        assert_eq!(text(|out| padded(1234, 3, out)), "234");
        assert_eq!(text(|out| padded(0, 2, out)), "00");
    }

    #[test]
    fn fractions_keep_every_microsecond() {
        assert_eq!(text(|out| micros_as_millis(0, out)), "0.000");
        assert_eq!(text(|out| micros_as_millis(1_234_056, out)), "1234.056");
        assert_eq!(text(|out| micros_as_seconds(61_000_007, out)), "61.000007");
    }
}
