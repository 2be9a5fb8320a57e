//! DER (X.690): a strict reader that copies nothing, and the few lines that write it. What it reads
//! comes from files and from peers: lengths are checked, nothing recurses.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Identifier octets that certificates and their kin use.
pub mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const OID: u8 = 0x06;
    pub const ENUMERATED: u8 = 0x0a;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const PRINTABLE_STRING: u8 = 0x13;
    pub const TELETEX_STRING: u8 = 0x14;
    pub const IA5_STRING: u8 = 0x16;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const UNIVERSAL_STRING: u8 = 0x1c;
    pub const BMP_STRING: u8 = 0x1e;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;

    /// `[n]` around something else, or instead of the tag of something that has parts.
    pub const fn context(number: u8) -> u8 {
        0xa0 | number
    }

    /// `[n]` instead of the tag of something without parts.
    pub const fn context_plain(number: u8) -> u8 {
        0x80 | number
    }
}

/// What is wrong with it, and what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// One value: its tag, what is in it, and all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    pub whole: &'a [u8],
}

/// What is left of a row of values.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn end(self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub fn element(&mut self) -> Result<Element<'a>, Malformed> {
        let [tag, first, after @ ..] = self.rest else { return Err(Malformed("it is cut off")) };
        if tag & 0x1f == 0x1f {
            return Err(Malformed("a tag of several bytes"));
        }
        let (length, after) = length(*first, after)?;
        let (content, rest) = after.split_at_checked(length).ok_or(Malformed("it is cut off"))?;
        let whole = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        Ok(Element { tag: *tag, content, whole })
    }

    pub fn take(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        Ok(self.whole(tag)?.content)
    }

    /// With its tag and its length: what digests and signatures are made over.
    pub fn whole(&mut self, tag: u8) -> Result<Element<'a>, Malformed> {
        let element = self.element()?;
        if element.tag != tag {
            return Err(Malformed("a value of another type than the standard says"));
        }
        Ok(element)
    }

    pub fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        if self.peek() == Some(tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    pub fn sequence(&mut self) -> Result<Reader<'a>, Malformed> {
        self.take(tag::SEQUENCE).map(Reader::new)
    }

    pub fn set(&mut self) -> Result<Reader<'a>, Malformed> {
        self.take(tag::SET).map(Reader::new)
    }

    /// The content: an object identifier is compared, not understood.
    pub fn oid(&mut self) -> Result<&'a [u8], Malformed> {
        self.take(tag::OID)
    }

    /// The content: in two's complement, most significant byte first.
    pub fn integer(&mut self) -> Result<&'a [u8], Malformed> {
        let content = self.take(tag::INTEGER)?;
        let padded = match content {
            [] => return Err(Malformed("a number without digits")),
            [0, second, ..] => *second < 0x80,
            [0xff, second, ..] => *second >= 0x80,
            _ => false,
        };
        if padded { Err(Malformed("a number with needless digits")) } else { Ok(content) }
    }

    pub fn small(&mut self) -> Result<u32, Malformed> {
        let digits = match self.integer()? {
            [first, ..] if *first >= 0x80 => return Err(Malformed("a number below zero")),
            [0, digits @ ..] => digits,
            digits => digits,
        };
        if digits.len() > 4 {
            return Err(Malformed("a number that is far too large"));
        }
        Ok(digits.iter().fold(0, |number, digit| number << 8 | u32::from(*digit)))
    }

    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        match self.take(tag::BOOLEAN)? {
            [0] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(Malformed("a truth value that is neither")),
        }
    }

    /// Of whole bytes.
    pub fn bit_string(&mut self) -> Result<&'a [u8], Malformed> {
        match self.take(tag::BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(Malformed("a bit string that is not of whole bytes")),
        }
    }

    pub fn octet_string(&mut self) -> Result<&'a [u8], Malformed> {
        self.take(tag::OCTET_STRING)
    }

    pub fn time(&mut self) -> Result<SystemTime, Malformed> {
        let element = self.element()?;
        time(element.tag, element.content)
    }
}

/// X.690 10.1: the shortest form, and never the indefinite one.
fn length(first: u8, after: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    if first < 0x80 {
        return Ok((usize::from(first), after));
    }
    if first == 0x80 {
        return Err(Malformed("an indefinite length: it is BER, expected DER"));
    }
    let count = usize::from(first & 0x7f);
    if count > 4 {
        return Err(Malformed("a length that is far too large"));
    }
    let (digits, rest) = after.split_at_checked(count).ok_or(Malformed("it is cut off"))?;
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    if length < 0x80 || digits[0] == 0 {
        return Err(Malformed("a length with needless digits: it is BER, expected DER"));
    }
    Ok((length, rest))
}

const NO_TIME: Malformed = Malformed("a time that is none");

/// RFC 5280 4.1.2.5: in UTC, to the second.
fn time(kind: u8, content: &[u8]) -> Result<SystemTime, Malformed> {
    let digits = content.strip_suffix(b"Z").ok_or(NO_TIME)?;
    let pair = |at: usize| -> Result<u32, Malformed> {
        match digits.get(at..at + 2) {
            Some([a @ b'0'..=b'9', b @ b'0'..=b'9']) => {
                Ok(u32::from(a - b'0') * 10 + u32::from(b - b'0'))
            }
            _ => Err(NO_TIME),
        }
    };
    let (year, after) = match (kind, digits.len()) {
        (tag::UTC_TIME, 12) => {
            let year = pair(0)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        (tag::GENERALIZED_TIME, 14) => (pair(0)? * 100 + pair(2)?, 4),
        _ => return Err(NO_TIME),
    };
    let (month, day) = (pair(after)?, pair(after + 2)?);
    let (hour, minute, second) = (pair(after + 4)?, pair(after + 6)?, pair(after + 8)?);
    if !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return Err(NO_TIME);
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(NO_TIME);
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    let since = days_since_1970(year, month, day) * 86_400 + seconds;
    let distance = Duration::from_secs(since.unsigned_abs());
    let at = if since < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    at.ok_or(NO_TIME)
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    // Leap years before this one, in a calendar that has always been this one.
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let before = i64::from(year) - 1;
    let years = (i64::from(year) - 1970) * 365 + leaps(before.max(0)) - leaps(1969);
    let months: u32 = (1..month).map(|month| days_in(year, month)).sum();
    years + i64::from(months) + i64::from(day) - 1
}

/// The text of the string types. `None`: it is of none of them, or holds what its type cannot.
pub fn text(kind: u8, content: &[u8]) -> Option<Cow<'_, str>> {
    match kind {
        tag::UTF8_STRING => std::str::from_utf8(content).ok().map(Cow::Borrowed),
        tag::PRINTABLE_STRING | tag::IA5_STRING => {
            content.is_ascii().then(|| std::str::from_utf8(content).ok().map(Cow::Borrowed))?
        }
        // What is written as T.61 is Latin-1 in practice.
        tag::TELETEX_STRING => {
            Some(Cow::Owned(content.iter().map(|byte| char::from(*byte)).collect()))
        }
        tag::BMP_STRING => {
            let (units, []) = content.as_chunks::<2>() else { return None };
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            char::decode_utf16(units).collect::<Result<String, _>>().ok().map(Cow::Owned)
        }
        tag::UNIVERSAL_STRING => {
            let (units, []) = content.as_chunks::<4>() else { return None };
            let units = units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            units.collect::<Option<String>>().map(Cow::Owned)
        }
        _ => None,
    }
}

/// A value around these parts.
pub fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut written = Vec::with_capacity(length + 6);
    written.push(tag);
    if length < 0x80 {
        written.push(length as u8);
    } else {
        let digits = length.to_be_bytes();
        let first = digits.iter().position(|digit| *digit != 0).unwrap_or_default();
        written.push(0x80 | (digits.len() - first) as u8);
        written.extend_from_slice(&digits[first..]);
    }
    parts.iter().for_each(|part| written.extend_from_slice(part));
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(kind: u8, text: &str) -> Result<i64, Malformed> {
        let at = time(kind, text.as_bytes())?;
        Ok(match at.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => after.as_secs() as i64,
            Err(before) => -(before.duration().as_secs() as i64),
        })
    }

    #[test]
    fn values_are_written_as_they_are_read() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let written = write(tag::OCTET_STRING, &[&content]);
            let mut reader = Reader::new(&written);
            assert_eq!(reader.octet_string(), Ok(content.as_slice()), "{length}");
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn times_are_those_of_date() {
        // date -u -d … +%s
        for (text, since) in [
            ("19700101000000Z", 0),
            ("20261121203000Z", 1_795_293_000),
            ("20000229235959Z", 951_868_799),
            ("21000301000000Z", 4_107_542_400),
            ("19491231235959Z", -631_152_001),
            ("99991231235959Z", 253_402_300_799),
            ("00010101000000Z", -62_135_596_800),
        ] {
            assert_eq!(seconds(tag::GENERALIZED_TIME, text), Ok(since), "{text}");
        }
        assert_eq!(seconds(tag::UTC_TIME, "491231235959Z"), Ok(2_524_607_999));
        assert_eq!(seconds(tag::UTC_TIME, "500101000000Z"), Ok(-631_152_000));
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for text in ["20260229000000Z", "20261301000000Z", "20260001000000Z", "20260100000000Z"] {
            assert!(seconds(tag::GENERALIZED_TIME, text).is_err(), "{text}");
        }
        for text in ["20260101240000Z", "20260101000000", "2026010100000Z", "202601010000.0Z", ""] {
            assert!(seconds(tag::GENERALIZED_TIME, text).is_err(), "{text}");
        }
        assert!(seconds(tag::UTC_TIME, "2601010000Z").is_err());
        assert!(seconds(tag::UTC_TIME, "20260101000000Z").is_err());
        assert!(seconds(tag::UTC_TIME, "+60101000000Z").is_err());
    }

    #[test]
    fn what_is_not_strictly_der_is_refused() {
        for bytes in [
            &b""[..],
            b"\x04",
            b"\x04\x01",
            b"\x04\x80\x00\x00",
            b"\x04\x81\x01\x00",
            b"\x04\x82\x00\x80",
            b"\x04\x84\xff\xff\xff\xff",
            b"\x04\x85\x01\x00\x00\x00\x00",
            b"\x04\xff",
            b"\x1f\x81\x00\x00",
        ] {
            assert!(Reader::new(bytes).element().is_err(), "{bytes:?}");
        }
        for number in [&b"\x02\x00"[..], b"\x02\x02\x00\x01", b"\x02\x02\xff\x80"] {
            assert!(Reader::new(number).integer().is_err(), "{number:?}");
        }
        assert!(Reader::new(b"\x02\x01\xff").small().is_err());
        assert!(Reader::new(b"\x02\x06\x01\x00\x00\x00\x00\x00").small().is_err());
        assert_eq!(Reader::new(b"\x02\x05\x00\xff\xff\xff\xff").small(), Ok(u32::MAX));
    }

    #[test]
    fn strings_are_read_by_their_types() {
        assert_eq!(text(tag::UTF8_STRING, "é".as_bytes()).as_deref(), Some("é"));
        assert_eq!(text(tag::UTF8_STRING, b"\xff"), None);
        assert_eq!(text(tag::TELETEX_STRING, b"\xe9").as_deref(), Some("é"));
        assert_eq!(text(tag::BMP_STRING, b"\x00\xe9").as_deref(), Some("é"));
        assert_eq!(text(tag::BMP_STRING, b"\x00"), None);
        assert_eq!(text(tag::BMP_STRING, b"\xd8\x00"), None);
        assert_eq!(text(tag::UNIVERSAL_STRING, b"\x00\x00\x00\xe9").as_deref(), Some("é"));
        assert_eq!(text(tag::IA5_STRING, b"\xe9"), None);
    }
}
