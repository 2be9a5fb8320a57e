//! Dates as text: ISO 8601 for JSON, the common log format's, and HTTP's own (RFC 9110 5.6.7).
//! All in UTC. Times before 1970 are written as 1970, and times after 9999 as its last second.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::telemetry::decimal::padded;

/// A moment taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
    pub millisecond: u64,
    /// 0 is Sunday.
    pub weekday: u64,
}

impl Civil {
    pub fn of(at: SystemTime) -> Civil {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since_epoch.as_secs().min(SECONDS_MAX);
        let days = seconds / 86_400;
        let (year, month, day) = date_of(days);
        Civil {
            year,
            month,
            day,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            millisecond: u64::from(since_epoch.subsec_millis()),
            weekday: (days + 4) % 7, // 1970-01-01 was a Thursday
        }
    }

    fn time(self, out: &mut Vec<u8>) {
        padded(self.hour, 2, out);
        out.push(b':');
        padded(self.minute, 2, out);
        out.push(b':');
        padded(self.second, 2, out);
    }
}

/// `2026-01-02T03:04:05.678Z`
pub fn iso(at: SystemTime, out: &mut Vec<u8>) {
    let civil = Civil::of(at);
    padded(civil.year, 4, out);
    out.push(b'-');
    padded(civil.month, 2, out);
    out.push(b'-');
    padded(civil.day, 2, out);
    out.push(b'T');
    civil.time(out);
    out.push(b'.');
    padded(civil.millisecond, 3, out);
    out.push(b'Z');
}

/// `[10/Oct/2000:13:55:36 +0000]`, as the common log format has it.
pub fn common_log(at: SystemTime, out: &mut Vec<u8>) {
    let civil = Civil::of(at);
    out.push(b'[');
    padded(civil.day, 2, out);
    out.push(b'/');
    out.extend_from_slice(month_name(civil));
    out.push(b'/');
    padded(civil.year, 4, out);
    out.push(b':');
    civil.time(out);
    out.extend_from_slice(b" +0000]");
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`: IMF-fixdate, for the `Date` header.
pub fn http_date(at: SystemTime, out: &mut Vec<u8>) {
    let civil = Civil::of(at);
    out.extend_from_slice(WEEKDAYS[civil.weekday as usize]);
    out.extend_from_slice(b", ");
    padded(civil.day, 2, out);
    out.push(b' ');
    out.extend_from_slice(month_name(civil));
    out.push(b' ');
    padded(civil.year, 4, out);
    out.push(b' ');
    civil.time(out);
    out.extend_from_slice(b" GMT");
}

/// Year, month and day of a day counted from 1970-01-01. Years are taken to begin in March, so that
/// the leap day is the last one and months have lengths that a line of slope 153/5 gives.
fn date_of(days_since_epoch: u64) -> (u64, u64, u64) {
    let days = days_since_epoch + DAYS_FROM_0000_MARCH_TO_1970;
    let era = days / DAYS_PER_400_YEARS;
    let day_of_era = days % DAYS_PER_400_YEARS;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn month_name(civil: Civil) -> &'static [u8] {
    MONTHS[civil.month as usize - 1]
}

const DAYS_FROM_0000_MARCH_TO_1970: u64 = 719_468;
const DAYS_PER_400_YEARS: u64 = 146_097;
/// 9999-12-31T23:59:59Z
const SECONDS_MAX: u64 = 253_402_300_799;
const WEEKDAYS: [&[u8]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis)
    }

    fn text(write: fn(SystemTime, &mut Vec<u8>), at: SystemTime) -> String {
        let mut out = Vec::new();
        write(at, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_format_is_written_as_its_standard_shows_it() {
        assert_eq!(text(iso, at(1_767_323_045, 678)), "2026-01-02T03:04:05.678Z");
        assert_eq!(text(common_log, at(971_186_136, 0)), "[10/Oct/2000:13:55:36 +0000]");
        assert_eq!(text(http_date, at(784_111_777, 0)), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn leap_days_and_year_ends_are_right() {
        assert_eq!(text(iso, at(0, 0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(iso, at(951_782_399, 999)), "2000-02-28T23:59:59.999Z");
        assert_eq!(text(iso, at(951_782_400, 0)), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(iso, at(1_709_164_800, 0)), "2024-02-29T00:00:00.000Z");
        assert_eq!(text(iso, at(1_735_689_599, 0)), "2024-12-31T23:59:59.000Z");
        assert_eq!(text(iso, at(4_107_542_400, 0)), "2100-03-01T00:00:00.000Z"); // no 29 February
        assert_eq!(text(http_date, at(951_782_400, 0)), "Tue, 29 Feb 2000 00:00:00 GMT");
    }

    #[test]
    fn every_day_for_800_years_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(date_of(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn times_outside_the_four_digit_years_are_clamped() {
        assert_eq!(text(iso, UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00.000Z");
        let far = at(SECONDS_MAX + 1_000_000, 0);
        assert_eq!(text(iso, far), "9999-12-31T23:59:59.000Z");
    }
}
